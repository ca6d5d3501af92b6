"""What had come to a server when it stopped accepting: it waits for a place, and is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import DatagramServer, StreamServer
from gevent.ssl import SSLContext

from gpool.serving.handlers import FIRST_REQUEST, Handlers
from gpool.testing import VirtualClock, settle
from tests.servers.program import HOST
from tests.serving.web import Clients, Web, is_refused
from tests.waiting import until

Start = Callable[[Any], Handlers]


class Desk:
    """A handler that notes whom it serves, and lets them go one at a time."""

    def __init__(self) -> None:
        self.served: list[Any] = []  # addresses, in order
        self.let_go: list[Event] = []  # for each of them

    def __call__(self, connection: Any, address: Any) -> None:
        """Serve a connection."""
        self.served.append(address)
        self.let_go.append(go := Event())
        go.wait()
        connection.sendall(b"well")


class TestThoseWhoWait:
    def test_are_begun_with_in_order_as_places_become_free(
        self, started: Start, client: Clients
    ) -> None:
        """Never more at once than the server may serve; who comes later is refused."""
        desk = Desk()
        handlers = started(server := StreamServer((HOST, 0), desk, spawn=2))
        many = [client(server.server_port) for _ in range(5)]
        names = [one.socket.getsockname() for one in many]
        drain = gevent.spawn(handlers.drain, None)
        until(lambda: is_refused(server.server_port))
        for place in range(5):
            settle()
            assert desk.served == names[: place + 2]
            desk.let_go[place].set()
        assert drain.get() is True
        until(lambda: all(one.answer == b"well" for one in many))
        assert server.closed

    def test_are_a_bounded_number(self, started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever floods the listener with connections cannot keep it open."""
        monkeypatch.setattr("gpool.serving.backlog.LONGEST", 3)
        there, here = socket.socketpair()
        begun: list[Any] = []

        class Flooded(StreamServer):
            def do_read(self) -> Any:
                return here, ""

            def do_handle(self, *connection: Any) -> None:
                begun.append(connection)

        handlers = started(Flooded((HOST, 0), print))
        handlers.close()
        assert len(begun) == 3
        there.close()
        here.close()

    def test_are_closed_when_the_time_is_over(self, started: Start, client: Clients) -> None:
        """The drain says that something was cut; nobody begins with them."""
        desk = Desk()
        handlers = started(server := StreamServer((HOST, 0), desk, spawn=1))
        many = [client(server.server_port) for _ in range(3)]
        assert handlers.drain(0) is False
        until(lambda: all(one.has_ended for one in many))
        settle()
        assert len(desk.served) <= 1
        assert [one.answer for one in many] == [b""] * 3

    def test_cost_no_wait_when_they_are_cut(
        self, started: Start, client: Clients, clock: VirtualClock
    ) -> None:
        """Whoever waits for handlers to unwind does not wait for them."""
        handlers = started(server := StreamServer((HOST, 0), Desk(), spawn=1))
        for _ in range(2):
            client(server.server_port)
        settle()
        handlers.close()
        handlers.cut()
        assert clock.now() == 1000.0
        assert handlers.running == {}

    def test_have_a_second_to_ask(
        self, started: Start, web: Web, client: Clients, clock: VirtualClock
    ) -> None:
        """From the moment that their turn comes: one that is silent does not keep the next out."""
        handlers = started(server := web.server(spawn=1))
        busy = client(server.server_port, "/wait")
        silent, last = client(server.server_port), client(server.server_port, "/")
        until(lambda: web.begun)
        drain = gevent.spawn(handlers.drain, 60.0)
        settle()
        clock.advance(30.0)
        web.go.set()
        until(lambda: busy.has_ended and handlers.idle)
        clock.advance(FIRST_REQUEST * 0.9)
        settle()
        assert not silent.has_ended
        clock.advance(FIRST_REQUEST * 0.2)
        assert drain.get() is True
        until(lambda: silent.has_ended and last.has_ended)
        assert (silent.answer, last.is_well) == (b"", True)

    def test_may_have_to_shake_hands_yet(
        self, started: Start, web: Web, tls: tuple[SSLContext, SSLContext]
    ) -> None:
        """TLS begins with the handler."""
        context, trusting = tls
        handlers = started(server := web.server(spawn=1, ssl_context=context))
        address = (HOST, server.server_port)
        with socket.create_connection(address) as first, socket.create_connection(address) as last:
            until(lambda: handlers.running)
            drain = gevent.spawn(handlers.drain, None)
            settle()
            for one in (first, last):
                with trusting.wrap_socket(one) as secure:
                    secure.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert secure.recv(100).startswith(b"HTTP/1.1 200")
            assert drain.get() is True

    def test_may_be_datagrams(self, started: Start) -> None:
        """Those that had come are handled in turn; those that come later are not read."""
        go, got = Event(), []

        def take(data: bytes, address: Any) -> None:
            go.wait()
            got.append(data)

        handlers = started(server := DatagramServer((HOST, 0), take, spawn=1))
        with socket.socket(type=socket.SOCK_DGRAM) as one:
            one.connect((HOST, server.server_port))
            for data in (b"first", b"second", b"second"):
                one.send(data)
            until(lambda: handlers.running)
            handlers.close()
            one.send(b"late")
            go.set()
            assert handlers.drain(None)
        assert got == [b"first", b"second", b"second"]


class TestPlaces:
    def test_may_be_shared_by_servers(self, started: Start, client: Clients) -> None:
        """One that has no handler waits for those of the other."""
        pool, desk = Pool(1), Desk()
        servers = [StreamServer((HOST, 0), desk, spawn=pool) for _ in range(2)]
        first, second = map(started, servers)
        one = client(servers[0].server_port)
        until(lambda: desk.served)
        other = client(servers[1].server_port)
        drain = gevent.spawn(second.drain, None)
        settle()
        assert not drain.dead
        desk.let_go[0].set()
        until(lambda: len(desk.served) == 2)
        desk.let_go[1].set()
        assert drain.get() is True
        assert first.drain(None) is True
        until(lambda: one.answer == other.answer == b"well")

    def test_may_be_counted_by_the_server(self, started: Start, client: Clients) -> None:
        """It says that it is full; its spawn knows of no bound."""
        desk = Desk()

        class Small(StreamServer):
            def full(self) -> bool:
                return len(handlers.running) >= 1

        handlers = started(server := Small((HOST, 0), desk))
        many = [client(server.server_port) for _ in range(3)]
        until(lambda: desk.served)
        drain = gevent.spawn(handlers.drain, None)
        for place in range(3):
            settle()
            assert len(desk.served) == place + 1
            desk.let_go[place].set()
        assert drain.get() is True
        until(lambda: all(one.answer == b"well" for one in many))

    def test_may_fail_to_be_given(
        self, started: Start, client: Clients, unnoticed_deaths: list[BaseException]
    ) -> None:
        """A spawn that fails for one costs that one, and is told as gevent tells it."""
        desk = Desk()

        class Moody(Pool):
            def spawn(self, *args: Any, **kwargs: Any) -> Any:
                if len(desk.served) == 1:
                    desk.served.append("nobody")
                    raise LookupError("no place")
                return super().spawn(*args, **kwargs)

        handlers = started(server := StreamServer((HOST, 0), desk, spawn=Moody(1)))
        many = [client(server.server_port) for _ in range(3)]
        until(lambda: desk.served)
        drain = gevent.spawn(handlers.drain, None)
        settle()
        desk.let_go[0].set()
        until(lambda: len(desk.served) == 3)
        desk.let_go[1].set()
        assert drain.get() is True
        until(lambda: all(one.has_ended for one in many))
        assert [one.answer for one in many] == [b"well", b"", b"well"]
        assert [type(error) for error in unnoticed_deaths] == [LookupError]
        unnoticed_deaths.clear()


@pytest.mark.parametrize("spawn", ["default", 1])
class TestTLS:
    def test_handshake_keeps_its_handler(
        self, started: Start, tls: tuple[SSLContext, SSLContext], spawn: Any
    ) -> None:
        """The server is asked for it when the handshake is over: its close would forget it."""
        context, trusting = tls
        serve: Any = lambda connection, _: connection.sendall(b"well")  # noqa: E731
        handlers = started(StreamServer((HOST, 0), serve, spawn=spawn, ssl_context=context))
        address = handlers.server.address
        with socket.create_connection(address) as late:
            until(lambda: handlers.running)
            drain = gevent.spawn(handlers.drain, None)
            until(lambda: is_refused(address[1]))
            with trusting.wrap_socket(late) as secure:
                assert secure.recv(100) == b"well"
            assert drain.get() is True
