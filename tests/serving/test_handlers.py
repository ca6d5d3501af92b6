"""The handlers of a server: who is at work, who is idle, and what becomes of them."""

from __future__ import annotations

import contextlib
import socket as sockets
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.server import DatagramServer, StreamServer
from gevent.ssl import SSLContext

from gpool.serving.handlers import Handlers, _has_more
from gpool.testing import VirtualClock, settle
from tests.servers.program import HOST
from tests.serving.web import Clients, Web
from tests.waiting import until

Start = Callable[[Any], Handlers]


class TestClose:
    def test_takes_those_whom_the_system_has_accepted(
        self, started: Start, web: Web, client: Clients
    ) -> None:
        """They have connected, and may have asked: a reset would lose them."""
        server = web.server()
        handlers = started(server)
        with sockets.create_connection((HOST, server.server_port)) as early:  # switches to nobody
            early.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            handlers.close()
            assert handlers.drain(None)
            assert early.recv(100).startswith(b"HTTP/1.1 200")

    def test_leaves_requests_that_have_come(
        self, started: Start, web: Web, client: Clients
    ) -> None:
        """On a connection that is kept alive: its handler has not seen it yet."""
        handlers = started(server := web.server())
        kept = client(server.server_port, "/")
        until(lambda: kept.is_well)
        kept.answer = b""
        kept.ask("/")
        handlers.close()
        assert handlers.drain(None)
        until(lambda: kept.is_well)

    def test_twice_is_fine(self, started: Start, web: Web) -> None:
        """And so is a drain, or a cut, of what was drained."""
        handlers = started(web.server())
        for _ in range(2):
            handlers.close()
            assert handlers.drain(1.0)
            handlers.cut()


class TestDrain:
    def test_leaves_an_upgraded_connection_alone(
        self, started: Start, web: Web, client: Clients
    ) -> None:
        """Its ``Connection: Upgrade`` stays; it is at work as long as its handler is."""
        handlers = started(server := web.server())

        def upgrade(environ: Any, start_response: Any) -> Iterator[bytes]:
            web.go.wait()
            start_response("101 Switching", [("Connection", "Upgrade"), ("Upgrade", "echo")])
            yield b"well"

        server.application = upgrade
        one = client(server.server_port, "/")
        until(lambda: not handlers.idle and handlers.running)
        handlers.close()
        web.go.set()
        assert handlers.drain(5.0)
        until(lambda: one.answer.endswith(b"well"))
        assert b"Connection: Upgrade" in one.answer
        assert b"close" not in one.answer

    def test_ends_a_stream_with_its_answer(
        self, started: Start, web: Web, client: Clients, clock: VirtualClock
    ) -> None:
        """It could not say that the connection closes; it does so all the same, and at once."""
        handlers = started(server := web.server())

        def stream(environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield b"begun"
            web.go.wait()
            yield b"well"

        server.application = stream
        one = client(server.server_port, "/")
        until(lambda: b"begun" in one.answer)
        handlers.close()
        web.go.set()
        assert handlers.drain(None)
        until(lambda: one.has_ended)
        assert b"well" in one.answer

    def test_says_close_once(self, started: Start, web: Web, client: Clients) -> None:
        """Whatever the application, or HTTP/1.0, has said of the connection."""
        handlers = started(server := web.server())
        old = client(server.server_port)
        old.socket.sendall(b"GET /wait HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        until(lambda: web.begun)
        handlers.close()
        web.go.set()
        assert handlers.drain(5.0)
        until(lambda: old.has_ended)
        assert old.answer.lower().count(b"connection: ") == 1
        assert b"Connection: close" in old.answer

    def test_never_begins_with_half_a_request(
        self, started: Start, web: Web, client: Clients
    ) -> None:
        """What was hung up on in the middle of its first line is not taken for a short one."""
        handlers = started(server := web.server())
        half = client(server.server_port)
        half.socket.sendall(b"GET /wait")
        until(lambda: handlers.idle)
        [handler] = handlers.idle
        until(lambda: not _has_more(handler.socket))  # it has read what there is
        handler.gpool_hang_up()
        until(lambda: half.has_ended)
        assert (web.begun, half.answer) == (0, b"")

    def test_answers_what_was_being_read(self, started: Start, web: Web, client: Clients) -> None:
        """Its head and its body may go on arriving."""
        handlers = started(server := web.server())
        slow = client(server.server_port)
        slow.socket.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n")
        until(lambda: handlers.running and not handlers.idle)
        drain = gevent.spawn(handlers.drain, 5.0)
        settle()
        slow.socket.sendall(b"Content-Length: 4\r\n\r\n")
        settle()
        slow.socket.sendall(b"body")
        assert drain.get() is True
        assert slow.is_well

    def test_counts_a_handshake(
        self, started: Start, web: Web, tls: tuple[SSLContext, SSLContext]
    ) -> None:
        """Who is still busy with TLS when the server closes is answered; idle ones end."""
        context, trusting = tls
        handlers = started(server := web.server(ssl_context=context))
        address = (HOST, server.server_port)
        idle = trusting.wrap_socket(socket.create_connection(address))
        _ask(idle)
        with socket.create_connection(address) as late:
            until(lambda: len(handlers.running) == 2)
            drain = gevent.spawn(handlers.drain, 5.0)
            assert idle.recv(100) == b""
            with trusting.wrap_socket(late) as secure:
                _ask(secure)
            assert drain.get() is True
        idle.close()

    def test_lets_datagrams_be_answered(self, started: Start) -> None:
        """A handler of a datagram is one like any other, and answers by the server's socket."""
        go = Event()

        class Echo(DatagramServer):
            def handle(self, data: bytes, address: Any) -> None:
                go.wait()
                self.sendto(data, address)

        handlers = started(server := Echo((HOST, 0)))
        with socket.socket(type=socket.SOCK_DGRAM) as one:
            one.sendto(b"hello", (HOST, server.server_port))
            until(lambda: handlers.running)
            drain = gevent.spawn(handlers.drain, 5.0)
            settle()
            assert not drain.dead
            go.set()
            assert one.recv(100) == b"hello"
        assert drain.get() is True
        assert server.closed

    def test_needs_no_greenlet_of_the_handler(self, started: Start, client: Clients) -> None:
        """With ``spawn=None`` it runs in the hub, and is never in flight."""
        handlers = started(server := StreamServer((HOST, 0), lambda *_: None, spawn=None))
        one = client(server.server_port)
        until(lambda: one.has_ended)
        assert handlers.running == {}
        assert handlers.drain(1.0)


def _ask(connection: Any) -> None:
    """Send a request, and wait for its answer."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b"well"):
        data = connection.recv(1000)
        assert data
        answer += data


class TestCut:
    def test_leaves_the_server_as_it_was(self, started: Start, web: Web) -> None:
        """A WSGI server can listen again; nothing of ours is left in it."""
        server = web.server()
        before = dict(vars(server)), server.handler_class
        started(server).drain(0)
        assert set(vars(server)) - set(before[0]) <= {"handler_class"}
        assert server.handler_class is before[1]

    def test_handles_nobody_any_more(self, started: Start, web: Web, client: Clients) -> None:
        """Whoever was accepted, and had not begun, is hung up on."""
        handlers = started(server := web.server())
        with sockets.create_connection((HOST, server.server_port)) as early:
            early.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            handlers.close()
            handlers.down(None, "killed")  # type: ignore[arg-type]
            settle()
            with contextlib.suppress(ConnectionResetError):
                assert early.recv(100) == b""
        assert web.begun == 0


class TestBadInput:
    def test_is_refused(self) -> None:
        """It is no server."""
        with pytest.raises(TypeError, match="server: expected a gevent server, got 3"):
            Handlers(3, print)  # type: ignore[arg-type]
