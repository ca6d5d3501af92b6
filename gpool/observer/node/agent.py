"""The agent: answers for one process, from a native thread with a hub of its own.

So it answers while the observed hub is blocked, and says so, and where.  It listens at a
Unix socket that only this user may connect to, and asks the kernel who does.

Rules:

* The socket is bound by whoever starts the agent: what is wrong is an error there.
* Nothing of it keeps the observed loop alive, or the process from its end.
* But the interpreter is not torn down under it: at exit it is awaited, shortly.
* A forked child starts with none: it closes the parent's listener, which would go on
  taking connections that nobody answers, and may start its own.

Not here: what it answers (``api.py``), how it reads (``reader.py``).
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import struct
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.pool import Pool as Greenlets
from gevent.pywsgi import WSGIHandler, WSGIServer
from gevent.socket import socket as gevent_socket

from gpool import telemetry
from gpool.observer.client import Client, NodeGone
from gpool.observer.node.api import Api
from gpool.observer.run_dir import RunDir

IDLE: Final = 10.0  # s that a client may say nothing
CLIENTS: Final = 32  # that are served at once
BACKLOG: Final = 512
FINISH: Final = 0.3  # s that those who are being answered have when it stops
LEAVE: Final = 2.0  # s that the end of the process may wait for it
logger = logging.getLogger("gpool.observer")
_close: Final = monkey.get_original("os", "close")  # the patched one waits for the loop
_allocate_lock: Final = monkey.get_original("_thread", "allocate_lock")
_real_socket: Final = monkey.get_original("socket", "socket")
_start_new_thread: Final = monkey.get_original("_thread", "start_new_thread")


class _Handler(WSGIHandler):
    """Gives up on a client that says nothing, and tells who it is."""

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        sock.settimeout(IDLE)
        super().__init__(sock, address, server)

    def get_environ(self) -> dict[str, Any]:
        """Add who asks; over a Unix socket there is no address."""
        environ: dict[str, Any] = super().get_environ()
        pid, uid = peer_of(self.socket)
        environ["gpool.peer"] = f"process {pid} of uid {uid}"
        environ["RAW_URI"] = self.path
        environ["REMOTE_ADDR"] = environ["SERVER_NAME"] = "unix"
        return environ

    def _handle_client_error(self, ex: Exception) -> Any:
        """Refuse what is no HTTP; gevent's prints what it has not foreseen, as too many headers."""
        return super()._handle_client_error(ValueError(str(ex)))  # type: ignore[misc]

    def handle_error(self, *args: Any) -> None:
        """Drop a connection that broke: nobody is there to be told."""
        self.close_connection = True


class _Server(WSGIServer):
    """Serves only those who may look: this user, and root."""

    def handle(self, sock: Any, address: Any) -> None:
        if peer_of(sock)[1] in (0, os.geteuid()):
            super().handle(sock, address)
        else:
            sock.close()


def peer_of(sock: Any) -> tuple[int, int]:
    """Return the process and the user at the other end of a Unix socket."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid


class Agent:
    """One process's agent; see :func:`gpool.observer.start`.

    Args:
        run_dir: Where its socket goes.
        options: Of its Api.
    """

    def __init__(self, run_dir: RunDir, **options: bool) -> None:
        run_dir.make()
        self._os_pid = os.getpid()
        self.node, self._listener = _bind(run_dir)
        self.path: Path = run_dir.socket(self.node)
        self.api = Api(self.node, gevent.get_hub(), **options)
        self._loop: Any = None  # of the agent's thread, while it serves
        self._stopped = False
        self._stop: Any = None  # ends the thread
        self._serves = _allocate_lock()  # held until the thread has ended
        self._serves.acquire()
        telemetry.attach(self.api.events)
        atexit.register(self._leave)
        _start_new_thread(self._live, ())

    @property
    def is_serving(self) -> bool:
        """Whether it is this process's, and was not stopped."""
        return not self._stopped and self._os_pid == os.getpid()

    def stop(self) -> None:
        """Answer no more; the socket is gone when this returns; twice is fine."""
        if not self.is_serving:
            return
        self._stopped = True
        telemetry.detach(self.api.events)
        self.api.history.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
        loop, stop = self._loop, self._stop
        if loop is not None:
            loop.run_callback_threadsafe(stop.set)

    def _leave(self) -> None:
        """At exit: a thread that reads what is being torn down would crash."""
        self.stop()
        if self._serves.acquire(timeout=LEAVE):
            self._serves.release()

    # --- The agent's thread ---

    def _live(self) -> None:
        try:
            self._serve()
        finally:
            atexit.unregister(self._leave)
            self._serves.release()

    def _serve(self) -> None:
        hub = gevent.get_hub()
        self._stop = stop = Event()
        self._loop = hub.loop
        if self._stopped:  # before it could be told
            stop.set()
        sampler = gevent.spawn(self._sample)
        server = _Server(
            gevent_socket(fileno=self._listener), self.api, handler_class=_Handler,
            log=None, error_log=None, spawn=Greenlets(CLIENTS),
        )  # fmt: skip
        server.start()
        stop.wait()
        self._loop = None
        sampler.kill()
        server.stop(timeout=FINISH)
        hub.destroy(destroy_loop=True)

    def _sample(self) -> None:
        while True:
            try:
                self.api.events.word()
                self.api.history.sample()
            except Exception:
                logger.exception("the Observer's agent has missed a sample")
            self.api.history.wait()

    # --- Forks ---

    def forget(self) -> None:
        """In a forked child: this is the parent's; let go of its listener."""
        self._stopped = True
        atexit.unregister(self._leave)
        telemetry.detach(self.api.events)
        self.api.history.close()
        _close(self._listener)


def _bind(run_dir: RunDir) -> tuple[str, int]:
    """Return a node's name that nobody has, and the descriptor of its listening socket.

    Its number is this process's; another one has it only in another namespace of pids,
    or has left its socket behind.
    """
    number = str(os.getpid())
    for node in (number, *(f"{number}-{n}" for n in range(2, 100))):
        path = run_dir.socket(node)
        if not os.path.lexists(path) or _is_stale(path):
            with contextlib.suppress(FileExistsError):  # somebody was quicker
                return node, _listen(path)
    raise OSError(f"{str(run_dir.path)!r}: all names for process {number} are taken")


def _is_stale(path: Path) -> bool:
    """Tell whether nobody listens there; then its file is gone."""
    try:  # by a socket that does not switch: a process that is just met does not expect it
        Client(path, timeout=0.5, kind=_real_socket).request("GET", "/v1/node")
    except NodeGone:
        return not os.path.lexists(path)
    return False


def _listen(path: Path) -> int:
    # Not gevent's, patched or not: it would belong to the hub of this thread.
    real = _real_socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody is to find a socket that nobody listens at yet: it would be taken for a stale one.
    hidden = path.with_name(f".{path.stem}")
    try:
        with contextlib.suppress(FileNotFoundError):
            hidden.unlink()  # of one that was killed here
        real.bind(os.fspath(hidden))
        hidden.chmod(0o600)
        real.listen(BACKLOG)
        real.setblocking(False)
        os.link(hidden, path)
        return int(real.detach())
    except BaseException:
        real.close()
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            hidden.unlink()
