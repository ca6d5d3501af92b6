"""Who handles the connections of a gevent server, so that they can be let finish.

gevent knows that only of a server that was made with ``spawn=Pool(n)``, and counts an idle
keep-alive connection as a request.  :class:`Handlers` knows it of any server: it stands
before the server's handler, whatever spawns that, and it tells a :mod:`gevent.pywsgi`
connection that is at a request from one that waits for the next.

    running --the handler has returned----------------------------> gone
       |  ^                                                          ^ ^
       v  | (pywsgi) the next request                                | |
     idle --hung up: the server drains, and nothing has come---------+ |
    running or idle --cut: the time is over, or its process has died---+

Rules:

* A request that has begun to arrive is answered, unless it is cut; answers say
  ``Connection: close`` from the moment that the server drains.
* Who is connected and has never asked yet gets a second to do so.
* A request that comes after its connection was hung up is not begun with: its client sees the
  connection end without an answer, and may ask again elsewhere.
* The connections that the system has accepted already are taken before the listener closes.
* Who is cut gets a second to unwind.  One that swallows its kill runs on, and nobody waits for it.

Source:
    ``gevent.baseserver.BaseServer.stop``, whose rules those are not; nginx's graceful quit.

Not here: when a server is drained (``run.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import gevent
import gevent.socket
from gevent import monkey
from gevent.baseserver import BaseServer
from greenlet import getcurrent

from gpool import clock
from gpool.errors import StartError
from gpool.otp.pid import Pid
from gpool.waiter import Expired, Gate, Waiter

if TYPE_CHECKING:
    Server = BaseServer[*tuple[Any, ...]]  # generic in its type stubs only
else:
    Server = BaseServer

FIRST_REQUEST: Final = 1.0  # s that a new connection has to begin with its first request
UNWIND: Final = 1.0  # s that handlers which are cut get for their cleanup
HOOKED: Final = (
    "stop_accepting",
    "is_fatal_error",
    "wrap_socket_and_handle",
)  # in the server's own dict


class Handlers:
    """The handlers of one server that has not been started.

    Args:
        server: The server.
        lost: Called when it has stopped accepting though nobody asked for it here: with the
            error of ``accept``, or None if somebody closed it.  Must neither switch nor raise.

    Nothing is done to it before :meth:`start`.

    Raises:
        TypeError: It is no gevent server.
        ValueError: It has been started, or closed.
    """

    def __init__(self, server: Server, lost: Callable[[BaseException | None], object]) -> None:
        if not isinstance(server, BaseServer):
            raise TypeError(f"server: expected a gevent server, got {server!r}")
        if server.started:
            raise ValueError(f"server: expected one that is not started yet, got {server}")
        if not hasattr(server, "handle"):
            raise ValueError(f"server: expected one that was not closed, got {server}")
        self.server: Any = server
        self.name = f"{type(server).__name__} at {_address(server)}"
        self.running: dict[Any, None] = {}  # greenlets that handle a connection, oldest first
        self.idle: dict[Any, None] = {}  # pywsgi handlers that wait for a request
        self.draining = False
        self.is_cut = False  # nobody who comes is handled
        self._lost = lost
        self._failure: BaseException | None = None  # of accept, for good
        self._quiet = Gate()  # open while it drains and none runs

    def start(self) -> None:
        """Listen, and accept.

        Raises:
            StartError: It cannot; nothing is left behind.
        """
        self._hook()
        try:
            self.server.start()
        except BaseException as error:
            self._unhook()
            self.draining = True
            if not isinstance(error, Exception):
                raise
            raise StartError(self.name, error) from error

    # --- Hooks: all names of gevent's that have no underscore ---

    def _hook(self) -> None:
        server = self.server
        self._stop_accepting, self._is_fatal = server.stop_accepting, server.is_fatal_error
        server.stop_accepting, server.is_fatal_error = self._stopped, self._note_failure
        if getattr(server, "ssl_enabled", False):  # a handshake is part of a request
            handle = server.wrap_socket_and_handle
            server.wrap_socket_and_handle = partial(self._handle, handle)
        else:
            server.set_handle(partial(self._handle, server.handle))
        kind: Any = getattr(server, "handler_class", None)
        self._handler_class = kind
        if hasattr(kind, "read_requestline"):
            polite = type(kind.__name__, (_PoliteHandler, kind), {"gpool_handlers": self})
            server.handler_class = polite

    def _unhook(self) -> None:
        for name in HOOKED:
            vars(self.server).pop(name, None)
        if self._handler_class is not None:
            self.server.handler_class = self._handler_class

    def _handle(self, handle: Callable[..., object], *connection: Any) -> object:
        greenlet = getcurrent()
        if greenlet is gevent.get_hub():  # with spawn=None: it cannot block
            return handle(*connection)
        if self.is_cut:
            return None
        self.running[greenlet] = None
        try:
            return handle(*connection)
        finally:
            del self.running[greenlet]
            if self.draining and not self.running:
                self._quiet.open()

    def _note_failure(self, error: Any) -> bool:
        fatal: bool = self._is_fatal(error)
        if fatal:
            self._failure = error
        return fatal

    def _stopped(self) -> None:
        self._stop_accepting()
        if not self.server.started and not self.draining:  # it is closed, not only full
            self._lost(self._failure)

    # --- The end ---

    def close(self) -> None:
        """Stop accepting, and hang up on those who ask nothing; never blocks."""
        if not self.draining:
            self.draining = True
            with contextlib.suppress(Exception):  # what accept or spawn raise: it closes anyway
                self._accept_rest()
            self.server.close()
            self._hang_up(newcomers=False)

    def _accept_rest(self) -> None:
        server = self.server
        for _ in range(server.max_accept):
            if not server.started or server.full() or not (connection := server.do_read()):
                return
            server.do_handle(*connection)

    def _hang_up(self, *, newcomers: bool) -> None:
        for handler in list(self.idle):
            if newcomers or handler.gpool_requests:
                handler.gpool_hang_up()

    def drain(self, timeout: float | None) -> bool:
        """Stop accepting; blocks until all handlers have ended; cuts those that have not.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            Whether none had to be cut.
        """
        drained = self.finish(timeout)
        self.cut()
        return drained

    def finish(self, timeout: float | None) -> bool:
        """Stop accepting; blocks until all handlers have ended.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            Whether they have.
        """
        end = None if timeout is None else clock.now() + timeout
        self.close()
        _give_way()  # to those that were accepted just now
        if not self._await_quiet(FIRST_REQUEST if timeout is None else min(FIRST_REQUEST, timeout)):
            self._hang_up(newcomers=True)
            _give_way()
            self._await_quiet(None if end is None else max(end - clock.now(), 0.0))
        return not self.running

    def _await_quiet(self, seconds: float | None) -> bool:
        if self.running:
            self._quiet.shut()
            with contextlib.suppress(Expired):
                self._quiet.wait(seconds)
        return not self.running

    def cut(self) -> None:
        """Kill the handlers that are left; blocks until they are dead, for a second at most."""
        self.kill()
        self.unwind(UNWIND)

    def kill(self) -> None:
        """Stop accepting, and kill the handlers that are left; never blocks."""
        self.close()
        self._kill()

    def unwind(self, seconds: float) -> None:
        """Block until those who were killed are dead, so many seconds at most."""
        if getcurrent() not in self.running:
            self._await_quiet(seconds)

    def down(self, pid: Pid, reason: Any) -> None:
        """Its process is dead, however it died: free the port, cut the rest; never switches."""
        self.draining = True
        self.server.close()
        self._kill()

    def _kill(self) -> None:
        self.is_cut = True
        me = getcurrent()
        gevent.killall([one for one in self.running if one is not me], block=False)
        self._unhook()


class _PoliteHandler:
    """What is put over a server's ``WSGIHandler``."""

    gpool_handlers: Handlers
    gpool_requests = 0  # that have begun to arrive
    close_connection: bool
    code: int
    response_headers: list[tuple[bytes, bytes]]
    socket: Any

    def read_requestline(self) -> str:
        """Wait for a request, and read its first line; none if the connection was hung up."""
        handlers = self.gpool_handlers
        if handlers.draining and self.gpool_requests and not _has_more(self.socket):
            return ""
        handlers.idle[self] = None
        try:
            line: str = super().read_requestline()  # type: ignore[misc]
        finally:
            del handlers.idle[self]
        self.gpool_requests += 1
        return line

    def finalize_headers(self) -> None:
        """Tell the client not to ask here again."""
        super().finalize_headers()  # type: ignore[misc]
        if self.gpool_handlers.draining and self.code != 101:
            kept = [one for one in self.response_headers if one[0].lower() != b"connection"]
            self.response_headers = [*kept, (b"Connection", b"close")]
            self.close_connection = True

    def gpool_hang_up(self) -> None:
        """End the wait for a request, unless one has begun to arrive; never switches.

        gevent raises in who waits there, so that what comes now is not read.
        """
        if not _has_more(self.socket):
            with contextlib.suppress(OSError):  # not TLS's own: that would end what is written, too
                gevent.socket.socket.shutdown(self.socket, gevent.socket.SHUT_RD)


def _has_more(connection: Any) -> bool:
    """Tell whether something has come that nobody has read."""
    poll = monkey.get_original("select", "poll")()  # gevent's would switch
    try:
        poll.register(connection.fileno(), 1)  # POLLIN
        return bool(poll.poll(0))
    except (OSError, ValueError):  # it is closed
        return False


def _give_way() -> None:
    """Block until all who could run have run."""
    turn = Waiter()
    gevent.get_hub().loop.run_callback(turn.wake)
    turn.wait()


def _address(server: Any) -> str:
    address = server.address
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return str(address)
