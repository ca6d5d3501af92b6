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
* Who is connected and has never asked yet gets a second to do so, from the moment that the
  server drains, or that it is begun with if that is later.
* A request that comes after its connection was hung up is not begun with: its client sees the
  connection end without an answer, and may ask again elsewhere.
* The connections that the system has accepted already are taken before the listener closes;
  those for which a full server has no place wait for one (``backlog.py``).
* Handlers keep what they need of their server, as the socket by which datagrams are answered,
  until they have ended.
* Who is cut gets a second to unwind.  One that swallows its kill runs on, and nobody waits for it.

Source:
    ``gevent.baseserver.BaseServer.stop``, whose rules those are not; nginx's graceful quit.

Not here: when a server is drained (``run.py``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from socket import SOCK_DGRAM
from typing import TYPE_CHECKING, Any, Final

import gevent
import gevent.socket
from gevent import monkey
from gevent.baseserver import BaseServer
from greenlet import getcurrent

from gpool import clock
from gpool.errors import StartError
from gpool.otp.pid import Pid
from gpool.serving.backlog import Backlog, give_way
from gpool.waiter import Expired, Gate

if TYPE_CHECKING:
    Server = BaseServer[*tuple[Any, ...]]  # generic in its type stubs only
else:
    Server = BaseServer

FIRST_REQUEST: Final = 1.0  # s that a new connection has to begin with its first request
UNWIND: Final = 1.0  # s that handlers which are cut get for their cleanup
HOOKED: Final = (
    "start_accepting",
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
        self.idle: dict[Any, float] = {}  # pywsgi handler that waits for a request -> since when
        self.draining = False
        self.drained_at = math.inf  # s of gpool's clock
        self.is_cut = False  # nobody who comes is handled
        self._lost = lost
        self._failure: BaseException | None = None  # of accept, for good
        self._quiet = Gate()  # open while it drains and none runs or is to run
        self._backlog = Backlog(server, lambda: not self.running, self._note_quiet)

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
        self._start_accepting, self._stop_accepting = server.start_accepting, server.stop_accepting
        server.start_accepting, server.stop_accepting = self._resume, self._stopped
        self._is_fatal, server.is_fatal_error = server.is_fatal_error, self._note_failure
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
            self._backlog.note_end()
            self._note_quiet()

    def _note_quiet(self) -> None:
        if self.draining and self._is_quiet:
            self._quiet.open()

    @property
    def _is_quiet(self) -> bool:
        return not self.running and not self._backlog.is_open

    def _note_failure(self, error: Any) -> bool:
        fatal: bool = self._is_fatal(error)
        if fatal:
            self._failure = error
        return fatal

    def _resume(self) -> None:
        if not self.draining:  # else it was its pool, which has a place again
            self._start_accepting()

    def _stopped(self) -> None:
        self._stop_accepting()
        if not self.server.started and not self.draining:  # it is closed, not only full
            self._lost(self._failure)

    # --- The end ---

    def close(self) -> None:
        """Stop accepting, and hang up on those who ask nothing; never blocks."""
        if not self.draining:
            self.draining, self.drained_at = True, clock.now()
            self._backlog.take()
            self._stop_listening()
            self._hang_up(-math.inf)

    def _stop_listening(self) -> None:
        """Free the port, but leave to handlers what they need of the server."""
        server = self.server
        server.stop_accepting()
        if server.started and _answers_by_listener(server):
            return
        if server.started and (self._backlog.is_open or getattr(server, "ssl_enabled", False)):
            with contextlib.suppress(Exception):
                server.socket.close()  # its own close() would forget its spawn and its handle
        else:
            server.close()

    def _hang_up(self, moment: float) -> None:
        """Hang up on idle connections; if they never asked, on those that came until a moment."""
        for handler, since in list(self.idle.items()):
            if handler.gpool_requests or since <= moment:
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
        give_way()  # to those that were accepted just now
        hurry = timeout is not None and timeout < FIRST_REQUEST
        if not self._await_quiet(timeout if hurry else FIRST_REQUEST):
            self._hang_up(math.inf if hurry else self.drained_at)
            give_way()
            self._await_quiet(None if end is None else max(end - clock.now(), 0.0))
        return self._is_quiet

    def _await_quiet(self, seconds: float | None) -> bool:
        if not self._is_quiet:
            self._quiet.shut()
            with contextlib.suppress(Expired):
                self._quiet.wait(seconds)
        return self._is_quiet

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
        self._kill()

    def _kill(self) -> None:
        self.is_cut = True
        self.server.close()
        self._backlog.cut()
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
        handlers.idle[self] = clock.now()
        try:
            with self._gpool_patience():
                line: str = super().read_requestline()  # type: ignore[misc]
        finally:
            del handlers.idle[self]
        self.gpool_requests += 1
        return line

    @contextlib.contextmanager
    def _gpool_patience(self) -> Iterator[None]:
        """Have who comes while the server drains hung up on after a while, unless it asks."""
        if self.gpool_requests or not self.gpool_handlers.draining:
            yield
            return
        timer = clock.call_later(FIRST_REQUEST, self.gpool_hang_up)
        try:
            yield
        finally:
            timer.cancel()

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


def _answers_by_listener(server: Any) -> bool:
    listener = getattr(server, "socket", None)
    return getattr(listener, "type", None) == SOCK_DGRAM


def _address(server: Any) -> str:
    address = server.address
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{host}:{address[1]}"
    return str(address)
