"""The proxy of examples/, between real sockets: bounded, through outages, to its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from gevent.event import Event
from gevent.server import StreamServer

from tests.servers.program import HOST
from tests.serving.web import Clients, is_refused, some_clients
from tests.test_examples import ENVIRONMENT, command
from tests.waiting import until

SIZE = 3


class Upstream:
    """Answers a line with the same line, once it may."""

    def __init__(self) -> None:
        self.may_answer = Event()
        self.may_answer.set()
        self.open = self.peak = self.opened = 0
        self.connections: set[Any] = set()
        self.server = StreamServer((HOST, 0), self._serve)
        self.server.start()
        self.address = self.server.address

    def _serve(self, connection: Any, address: Any) -> None:
        self.open, self.opened = self.open + 1, self.opened + 1
        self.peak = max(self.peak, self.open)
        self.connections.add(connection)
        try:
            while data := connection.recv(1000):
                self.may_answer.wait()
                connection.sendall(data)
        except OSError:
            pass
        finally:
            self.open -= 1
            self.connections.discard(connection)

    def go_down(self) -> None:
        """Refuse everybody, and cut those who are connected."""
        self.server.stop()
        for connection in list(self.connections):
            connection.shutdown(socket.SHUT_RDWR)

    def come_up(self) -> None:
        """Serve again."""
        self.server = StreamServer(self.address, self._serve)
        self.server.start()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """Give what the proxy stands before."""
    upstream = Upstream()
    yield upstream
    upstream.go_down()


class Proxy:
    """The example, in a process of its own."""

    def __init__(self, upstream: Upstream) -> None:
        host, port = upstream.address
        words = command("proxy.py", f"{HOST}:0", f"{host}:{port}", "--size", str(SIZE))
        self.process = subprocess.Popen(
            words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout
        self.port = int(self.said.readline().split()[-1])

    def end(self) -> int:
        """Wait for its end, while others run, and return its exit code."""
        until(lambda: self.process.poll() is not None)
        return int(self.process.returncode)


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[Proxy]:
    """Give the proxy."""
    proxy = Proxy(upstream)
    yield proxy
    proxy.process.kill()
    proxy.process.wait()
    proxy.said.close()


@pytest.fixture
def client() -> Iterator[Clients]:
    """Give clients."""
    with some_clients() as clients:
        yield clients


class TestProxy:
    def test_bounds_the_upstream(self, proxy: Proxy, upstream: Upstream, client: Clients) -> None:
        """Twenty clients, each served, three at once, each on a connection of its own."""
        many = [client(proxy.port) for _ in range(20)]
        for one in many:
            one.socket.sendall(b"hello")
            one.socket.shutdown(socket.SHUT_WR)
        until(lambda: all(one.has_ended for one in many))
        assert [one.answer for one in many] == [b"hello"] * 20
        assert (upstream.peak, upstream.opened) == (SIZE, 20)
        until(lambda: upstream.open == 0)

    def test_lets_clients_go(self, proxy: Proxy, upstream: Upstream, client: Clients) -> None:
        """Those who hang up, at rest or in the middle, leave their place to others."""
        first = [client(proxy.port) for _ in range(SIZE)]
        for one in first:
            one.socket.sendall(b"hello")
        until(lambda: all(one.answer for one in first))
        upstream.may_answer.clear()
        first[0].socket.sendall(b"again")
        late = client(proxy.port)
        late.socket.sendall(b"late")
        for one in first:
            one.close()
        upstream.may_answer.set()
        until(lambda: late.answer == b"late")
        assert upstream.peak == SIZE

    def test_outlives_an_outage(self, proxy: Proxy, upstream: Upstream, client: Clients) -> None:
        """Clients are cut with the upstream; those who come meanwhile are served after it."""
        before = client(proxy.port)
        before.socket.sendall(b"hello")
        until(lambda: before.answer)
        upstream.go_down()
        until(lambda: before.has_ended)
        meanwhile = [client(proxy.port) for _ in range(2 * SIZE)]
        for one in meanwhile:
            one.socket.sendall(b"anybody?")
        assert "ConnectionRefusedError" in proxy.said.readline()  # in the log: a start has failed
        assert not any(one.has_ended for one in meanwhile)
        upstream.come_up()
        until(lambda: sum(one.answer == b"anybody?" for one in meanwhile) == SIZE)
        for one in meanwhile:
            one.socket.shutdown(socket.SHUT_WR)
        until(lambda: all(one.answer == b"anybody?" for one in meanwhile))

    def test_finishes_what_it_has_begun(
        self, proxy: Proxy, upstream: Upstream, client: Clients
    ) -> None:
        """At SIGTERM: nobody else is let in, those connected are served to their end."""
        upstream.may_answer.clear()
        one = client(proxy.port)
        one.socket.sendall(b"hello")
        until(lambda: upstream.open)
        os.kill(proxy.process.pid, signal.SIGTERM)
        until(lambda: is_refused(proxy.port))
        upstream.may_answer.set()
        until(lambda: one.answer)
        one.socket.shutdown(socket.SHUT_WR)
        assert proxy.end() == 0
        assert one.answer == b"hello"
        assert proxy.said.read() == ""
        until(lambda: upstream.open == 0)
