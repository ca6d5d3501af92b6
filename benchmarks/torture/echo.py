"""A server that counts its sockets, and a connection that notices a reply to somebody else.

A request is a line of a nonce and of the seconds that its reply is to take; the
reply is a line of the nonce.  Whoever reads the reply to an earlier request has
another nonce.  The same server speaks as much HTTP as pools of HTTP clients need.

    >>> with EchoServer() as server, contextlib.closing(Connection(server.address)) as connection:
    ...     connection.ask(), connection.is_dirty, server.open
    (True, False, 1)
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

import gevent
from gevent.server import StreamServer

ESTABLISHED: Final = 1  # of the states in Linux's TCP_INFO
GOODBYE: Final = b"bye"
SLOW: Final = 0.003  # s that the server takes to close a socket, at most
PATIENCE: Final = 10.0  # s that a client's socket waits

_nonces = itertools.count(1)


class EchoServer:
    """Echoes, and remembers how many sockets were open at the same time.

    A socket is open until the client has closed it, from the kernel's point of
    view: one that is about to be closed counts.

    Args:
        cap: How many may be open; None for any number.
    """

    def __init__(self, cap: int | None = None) -> None:
        self.cap = cap
        self.sockets: set[socket.socket] = set()
        self.peak = 0  # most that were open at once
        self.above_cap = 0  # times that a socket was opened when `cap` were open
        self.server = StreamServer(("127.0.0.1", 0), self._serve)

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect."""
        return "127.0.0.1", self.server.server_port

    @property
    def open(self) -> int:
        """How many sockets are open now."""
        return sum(map(is_open, self.sockets))

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.stop(timeout=0.1)

    def _serve(self, client: socket.socket, address: Any) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets.add(client)
        self._count(client)
        try:
            with client.makefile("rb") as lines, contextlib.suppress(OSError):
                for line in lines:
                    _answer(client, line.split(), lines)
        finally:
            self.sockets.discard(client)
            client.close()

    def _count(self, client: socket.socket) -> None:
        now = self.open
        self.peak = max(self.peak, now)
        if self.cap is not None and now > self.cap and is_open(client):
            self.above_cap += 1


def is_open(client: socket.socket) -> bool:
    """Tell whether the other side of a TCP connection has not closed it."""
    return bool(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED)


def _answer(client: socket.socket, words: list[bytes], lines: Any) -> None:
    match words:
        case [b"GET", path, _]:
            _answer_http(client, path, lines)
        case [GOODBYE]:
            gevent.sleep(random.uniform(0.0, SLOW))
            client.sendall(GOODBYE + b"\n")
        case [nonce, seconds]:
            gevent.sleep(float(seconds))
            client.sendall(nonce + b"\n")
        case _:
            raise ValueError(f"expected a request, got {words!r}")


def _answer_http(client: socket.socket, path: bytes, lines: Any) -> None:
    """Answer ``/nonce/seconds``: the head at once, the body after so many seconds."""
    while lines.readline().strip():
        pass
    _, nonce, seconds = path.split(b"/")
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(nonce))
    gevent.sleep(float(seconds))
    client.sendall(nonce)


class Connector:
    """How connections are made: after how long, how often in vain, how fast they are answered.

    Args:
        address: Of the server.
        delay: Seconds that each connect takes.
        failures: How many connects fail before the first that does not.
        reply: Draws the seconds that the next reply takes.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        delay: float = 0.0,
        failures: int = 0,
        reply: Callable[[], float] = float,
    ) -> None:
        self.address, self.delay, self.failures, self.reply = address, delay, failures, reply

    def step(self) -> None:
        """Take the time that a connect takes, and fail if it is to fail."""
        gevent.sleep(self.delay)
        if self.failures:
            self.failures -= 1
            raise ConnectionRefusedError("the database is down")

    def path(self) -> tuple[bytes, str]:
        """Return a new nonce, and the path of the HTTP request that has it for its reply."""
        nonce = next(_nonces)
        return b"%d" % nonce, f"/{nonce}/{self.reply():.6f}"


class Connection:
    """A client's side: one request at a time."""

    def __init__(self, address: tuple[str, int], reply: Callable[[], float] = float) -> None:
        self._begin(socket.create_connection(address, timeout=PATIENCE), reply)

    def _begin(self, sock: socket.socket, reply: Callable[[], float]) -> None:
        self.sock = sock
        self.reply = reply
        self.received = b""  # and not yet read
        self.unread = 0  # requests whose reply has not been read
        self.closed = False
        self.lent = False

    @classmethod
    def over(cls, sock: socket.socket, reply: Callable[[], float]) -> Self:
        """Return one that uses a socket that is somebody else's to close."""
        self = cls.__new__(cls)
        self._begin(sock, reply)
        return self

    @property
    def is_dirty(self) -> bool:
        """Whether a request was sent whose reply has not been read."""
        return self.unread > 0

    def ask(self) -> bool:
        """Send a request and wait for the reply; tell whether it is the right one."""
        nonce = b"%d" % next(_nonces)
        self.unread += 1  # before it is sent: afterwards may be too late
        self.sock.sendall(b"%s %.6f\n" % (nonce, self.reply()))
        line = self._line()
        self.unread -= 1
        return line == nonce

    def done(self) -> None:
        """Bring it into the condition in which it goes back: it is always in it."""

    def close(self) -> None:
        """Say goodbye, wait until the server has answered, close the socket; at once if cut."""
        if self.closed:
            return
        self.closed = True
        try:
            with contextlib.suppress(OSError):
                self.sock.sendall(GOODBYE + b"\n")
                while self._line() != GOODBYE:
                    pass
        finally:
            self.sock.close()

    def _line(self) -> bytes:
        while b"\n" not in self.received:
            data = self.sock.recv(4096)
            if not data:
                raise ConnectionResetError("the server has closed the connection")
            self.received += data
        line, _, self.received = self.received.partition(b"\n")
        return line


@contextlib.contextmanager
def in_hand(connection: Any) -> Iterator[bool]:
    """Have a connection in one's hands; yields whether nobody else has."""
    alone = not connection.lent
    connection.lent = True
    try:
        yield alone
    finally:
        connection.lent = False
