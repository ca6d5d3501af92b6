"""What has become of a connection while nobody had it: the pool for redis-py looks before it lends.

All within `check_after`: nobody has asked any of these connections whether they live.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import greenlet
import pytest
import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

from gpool.integrations import redis as integration
from gpool.integrations._redis import news
from gpool.integrations.redis import SharedPool, SupervisedPool
from tests.integrations.torture import LONG
from tests.servers.gate import Gate
from tests.servers.redis import Redis
from tests.waiting import until


@pytest.fixture
def server(a_redis: Redis) -> Redis:
    """Give the server that `gate` stands before."""
    return a_redis


@pytest.fixture
def make_client(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Give what makes clients of pools that ask no connection, which end with the test."""
    monkeypatch.setattr(SharedPool, "_shared", [])
    pools = []

    def make(pool_class: Any = SupervisedPool, **options: Any) -> redis.Redis:
        url = f"redis://127.0.0.1:{gate.port}/0"
        options = {"size": 1, "timeout": LONG, "check_after": LONG} | options
        pools.append(pool_class.from_url(url, **options))
        return redis.Redis(connection_pool=pools[-1])

    yield make
    for pool in pools:
        pool.supervised.stop()


def kill(server: Redis, gate: Gate) -> None:
    """Have the server close all connections, for instance since somebody was made a replica."""
    with redis.Redis(port=server.port, single_connection_client=True) as admin:
        admin.client_kill_filter(_type="normal", skipme=True)
    until(lambda: gate.open == 0, "it to have closed them")


def cut(server: Redis, gate: Gate) -> None:
    """Have the network cut all connections."""
    gate.cut()


class TestEnded:
    @pytest.mark.parametrize("pool_class", [SupervisedPool, SharedPool])
    @pytest.mark.parametrize("end", [kill, cut])
    def test_is_replaced(
        self, a_redis: Redis, gate: Gate, make_client, end: Any, pool_class: Any
    ) -> None:
        """As by redis-py's own pools; no command fails."""
        client = make_client(pool_class)
        for _ in range(5):
            assert client.echo("a") == b"a"
            end(a_redis, gate)
        assert client.echo("a") == b"a"
        assert gate.opened == 6

    def test_by_a_client_it_is_replaced(self, make_client, gate: Gate) -> None:
        """QUIT has the server close the connection that was asked for it."""
        client = make_client()
        assert client.quit()
        until(lambda: gate.open == 0, "the server to have closed it")
        assert client.echo("a") == b"a"
        assert gate.opened == 2

    def test_however_many_they_are(self, a_redis: Redis, gate: Gate, make_client) -> None:
        """Nobody is lent one of a full pool that the server has closed, nor one above its size."""
        client = make_client(size=5)
        clients = [client.client() for _ in range(5)]
        for one in clients:
            one.close()
        kill(a_redis, gate)
        asking = [gevent.spawn(client.echo, "a") for _ in range(20)]
        assert [one.get() for one in asking] == [b"a"] * 20
        assert gate.peak <= 5

    def test_within_the_one_timeout(
        self, gate: Gate, make_client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is left of it is all that its client waits for another one."""
        client = make_client(timeout=5)
        assert client.ping()
        pool = client.connection_pool.supervised
        checkout, timeouts = pool.checkout, []
        monkeypatch.setattr(
            pool, "checkout", lambda *timeout: timeouts.append(timeout) or checkout(*timeout)
        )
        gate.cut()
        assert client.ping()
        first, [second] = timeouts
        assert first == ()
        assert 0 < second < 5

    def test_without_time_it_is_lent_to_be_connected_anew(self, gate: Gate, make_client) -> None:
        """Whoever never waits gets it closed; as by redis-py's own pools, it is connected anew."""
        client = make_client(timeout=0, min_ready=1)
        client.connection_pool.supervised.wait_ready()
        gate.cut()
        assert client.echo("a") == b"a"
        assert client.echo("a") == b"a"
        assert gate.opened == 2

    def test_a_few_times_only(
        self, gate: Gate, make_client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that closes whatever is idle does not keep a client for ever."""
        client = make_client()
        assert client.ping()
        monkeypatch.setattr(integration, "news", lambda connection: "ended")
        assert client.echo("a") == b"a"
        assert gate.opened == 1 + integration._TRIES + 1  # the last one by its client

    def test_killed_while_another_one_is_made_it_loses_nothing(
        self, gate: Gate, make_client
    ) -> None:
        """The slot is there for the next client."""
        client = make_client()
        assert client.ping()
        gate.cut()
        gate.hold()
        killed = gevent.spawn(client.echo, "a")
        until(lambda: gate.opened == 2, "a worker to connect")
        killed.kill()
        gate.release()
        assert client.echo("b") == b"b"
        assert not client.connection_pool.supervised.holders()
        until(lambda: gate.open == 1)

    def test_costs_no_switch_to_know(self, make_client) -> None:
        """Whoever finds an idle connection has it at once, and nobody runs in between."""
        pool = make_client().connection_pool
        pool.release(pool.get_connection())
        switches: list[object] = []
        before = greenlet.settrace(lambda *switch: switches.append(switch))
        try:
            pool.release(pool.get_connection())
        finally:
            greenlet.settrace(before)
        assert not switches


class TestSaid:
    def test_without_being_asked_it_is_replaced(self, gate: Gate, make_client) -> None:
        """A reply that nobody knows of is nobody's."""
        pool = (client := make_client(protocol=2)).connection_pool
        connection = pool.get_connection()
        connection._sock.sendall(b"ECHO theirs\r\n")
        until(lambda: news(connection) == "said")
        pool.release(connection)
        assert client.echo("mine") == b"mine"
        assert gate.opened == 2

    def test_and_already_read_as_well(self, gate: Gate, make_client) -> None:
        """It may have come with a reply that somebody has read."""
        pool = (client := make_client(protocol=2)).connection_pool
        connection = pool.get_connection()
        connection._sock.sendall(b"ECHO first\r\n")
        connection.send_command("ECHO", "second")
        until(lambda: b"second" in connection._sock.recv(99, socket.MSG_PEEK))
        assert connection.read_response() == b"first"
        pool.release(connection)
        assert client.echo("mine") == b"mine"
        assert gate.opened == 2

    @pytest.mark.skipif(redis.utils.HIREDIS_AVAILABLE, reason="hiredis's parser looks no further")
    @pytest.mark.parametrize("what", [None, "ended"])
    def test_by_tls_alone_it_is_nothing_or_goodbye(
        self, make_client, monkeypatch: pytest.MonkeyPatch, what: str | None
    ) -> None:
        """Bytes that carry no data are redis-py's to read: a new ticket, or the end."""

        def can_read() -> bool:
            if what == "ended":
                raise redis.ConnectionError("Connection closed by server.")
            return False

        pool = make_client(protocol=2).connection_pool
        connection = pool.get_connection()
        connection._sock.sendall(b"ECHO theirs\r\n")
        assert connection._sock.recv(9, socket.MSG_PEEK)  # which waits for it
        monkeypatch.setattr(connection, "can_read", can_read)
        assert news(connection) == what
        pool.release(connection)

    @pytest.fixture
    def cached(self, make_client, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
        """Give a client with redis-py's client-side cache, in which a reply is."""
        monkeypatch.setattr(CacheProxyConnection, "MIN_ALLOWED_VERSION", "6.0.0")
        client = make_client(protocol=3, cache_config=CacheConfig())
        client.set("n", 1)
        assert client.get("n") == b"1"
        assert client.get_cache().size == 1
        return client

    def test_to_who_caches_it_is_no_fault(
        self, cached: redis.Redis, gate: Gate, a_redis: Redis
    ) -> None:
        """The server says what is old: the connection is lent, and that is read from it."""
        pool = cached.connection_pool
        with redis.Redis(port=a_redis.port) as other:
            other.set("n", 2)
        until(lambda: news(next(iter(pool._made))._conn) == "said")
        assert cached.get("n") == b"2"
        assert gate.opened == 1

    def test_it_was_the_end_for_who_caches_as_well(
        self, cached: redis.Redis, gate: Gate, a_redis: Redis
    ) -> None:
        """A connection that is closed is replaced, and nothing that it had cached is believed."""
        with redis.Redis(port=a_redis.port) as other:
            other.set("n", 2)
        kill(a_redis, gate)
        assert cached.get("n") == b"2"
        assert gate.opened == 2
