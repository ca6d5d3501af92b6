"""What tests of servers need: servers that note what happens, and clients in the same hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer

HOST = "127.0.0.1"


class Web:
    """A WSGI application.

    A request for ``/wait`` is answered once :attr:`go` is set; one for ``/swallow``, too, but it
    cannot be killed before.
    """

    def __init__(self) -> None:
        self.go = Event()
        self.begun = 0  # requests for these two
        self.log: list[str] = []  # what has happened, in order

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Answer a request."""
        if environ["PATH_INFO"] == "/swallow":
            self.begun += 1
            self._swallow()
        if environ["PATH_INFO"] == "/wait":
            self.begun += 1
            try:
                self.go.wait()
            except gevent.GreenletExit:
                self.log.append("cut")
                raise
            self.log.append("answered")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"well"]

    def _swallow(self) -> None:
        """Wait for :attr:`go`, and retry whatever strikes; not for longer than the test lasts."""
        while not self.go.is_set():
            try:
                self.go.wait()
            except BaseException:  # noqa: BLE001 - that is what it is for
                self.log.append("swallowed")

    def server(self, port: int = 0, **options: Any) -> WSGIServer:
        """Return a server of it that is not started."""
        options = {"log": None, "environ": {"SERVER_NAME": "x"}} | options
        return WSGIServer((HOST, port), self, **options)


class Client:
    """A connection, and what has come from it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.answer = b""
        self.has_ended = False
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.socket.recv(4096):
                self.answer += data
        self.has_ended = True

    def ask(self, path: str = "/") -> None:
        """Send a request."""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    @property
    def is_well(self) -> bool:
        """Whether a whole answer has come."""
        return self.answer.startswith(b"HTTP/1.1 200") and self.answer.endswith(b"well")

    def close(self) -> None:
        """Hang up."""
        self._reader.kill()
        self.socket.close()


class Clients:
    """Clients that are closed with the test."""

    def __init__(self) -> None:
        self.all: list[Client] = []

    def __call__(self, port: int, path: str | None = None) -> Client:
        """Return one that is connected, and has asked for a path if there is one."""
        self.all.append(client := Client(port))
        if path is not None:
            client.ask(path)
        return client


@contextlib.contextmanager
def some_clients() -> Iterator[Clients]:
    """Give clients."""
    clients = Clients()
    try:
        yield clients
    finally:
        for client in clients.all:
            client.close()


def is_refused(port: int) -> bool:
    """Tell whether nobody listens there."""
    try:
        socket.create_connection((HOST, port)).close()
    except ConnectionRefusedError:
        return True
    return False


class Failing(StreamServer):
    """A server whose ``accept`` fails for good once it is told to."""

    fails = False

    def fail(self) -> None:
        """Fail, with the next connection."""
        self.fails = True
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self.server_port)).close()

    def do_read(self) -> Any:
        """Accept."""
        if self.fails:
            raise OSError(9, "Bad file descriptor")
        return super().do_read()
