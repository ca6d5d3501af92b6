"""A gate before a server: it counts who comes in, and holds up, refuses or cuts them off.

It runs in the tests' own hub, so whoever goes through it has to cooperate with gevent.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from types import TracebackType
from typing import Any, Self

import gevent
from gevent import monkey
from gevent import socket as cooperative
from gevent.event import Event
from gevent.server import StreamServer

from tests.servers.program import HOST

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by an RST
CHUNK = 65536


class Gate:
    """Forwards connections to a server; leaving ``with`` cuts all of them off.

    Args:
        address: The server's.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.open = 0  # connections that are open now, those that are held up included
        self.peak = 0  # the most that were at once
        self.opened = 0  # that there ever were
        self.refusals = 0  # so many of the next ones are refused
        self._may_enter, self._may_pass = Event(), Event()
        self._may_enter.set()
        self._may_pass.set()
        self._sockets: set[Any] = set()
        self._server = StreamServer((HOST, 0), self._serve)

    @property
    def port(self) -> int:
        """Where clients come in."""
        return int(self._server.server_port)

    def hold(self) -> None:
        """From now on whoever comes is not answered, until :meth:`release`."""
        self._may_enter.clear()

    def release(self) -> None:
        """Let those in who were held up, and all that come."""
        self._may_enter.set()

    def block(self) -> None:
        """From now on nothing gets through, either way, until :meth:`unblock`: a black hole."""
        self._may_pass.clear()

    def unblock(self) -> None:
        """Let pass what was held back."""
        self._may_pass.set()

    def cut(self) -> None:
        """Reset every connection that is open."""
        for one in list(self._sockets):
            _reset(one)

    def _serve(self, client: Any, _: object) -> None:
        self.open += 1
        self.opened += 1
        self.peak = max(self.peak, self.open)
        try:
            if self.refusals:
                self.refusals -= 1
                _reset(client)
                return
            self._wait_to_enter(client)
            with contextlib.suppress(OSError):
                self._forward(client, cooperative.create_connection(self.address))
        finally:
            client.close()
            self.open -= 1

    def _wait_to_enter(self, client: Any) -> None:
        while not self._may_enter.is_set():
            with gevent.Timeout(0.02, False):
                self._may_enter.wait()
            if _has_gone(client):
                return

    def _forward(self, client: Any, server: Any) -> None:
        pair = {client, server}
        self._sockets |= pair
        try:
            both = [gevent.spawn(self._pump, *way) for way in ((client, server), (server, client))]
            gevent.joinall(both, count=1)
            gevent.killall(both)
        finally:
            self._sockets -= pair
            server.close()

    def _pump(self, source: Any, sink: Any) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._may_pass.wait()
                sink.sendall(data)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        self.unblock()
        self.release()
        self.cut()
        self._server.stop(timeout=0)


def _reset(one: Any) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.shutdown(socket.SHUT_RDWR)


def _has_gone(client: Any) -> bool:
    poll = monkey.get_original("select", "poll")()  # gevent's does not know this event
    poll.register(client.fileno(), select.POLLRDHUP)  # hung up, whatever it has said before
    return bool(poll.poll(0))
