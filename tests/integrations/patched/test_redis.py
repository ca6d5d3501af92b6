"""The pool for redis-py on a real Redis: torture, outages, and what redis-py asks of a pool."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
import redis
from django.core.cache.backends.redis import RedisCache
from redis.backoff import NoBackoff
from redis.retry import Retry

import gpool
from gpool.integrations import redis as integration
from gpool.integrations.redis import SupervisedPool
from tests.integrations.torture import LONG, Outages, Subject, Torture
from tests.servers.gate import Gate
from tests.servers.redis import Redis
from tests.waiting import until


class Borrower(Subject):
    """Whoever keeps a connection for a while: a client of one connection."""

    errors = (redis.RedisError,)
    refusals = (integration.CheckoutTimeout,)

    def __init__(self, url: str, **options: Any) -> None:
        connections = SupervisedPool.from_url(url, **{"timeout": LONG} | options)
        self.client = redis.Redis(connection_pool=connections)
        self.pool = connections.supervised
        self.checkout = self.client.client

    def echo(self, connection: Any, word: str) -> str:
        """Have the server say a word."""
        return connection.echo(word).decode()


def make(self, gate: Gate, *, password: str = "", **options: Any) -> Borrower:
    """Return a borrower."""
    user = f"ann:{password}@" if password else ""
    return Borrower(f"redis://{user}127.0.0.1:{gate.port}/0", **options)


class TestTorture(Torture):
    make = make

    @pytest.fixture
    def server(self, a_redis: Redis) -> Redis:
        """Give the server that all share."""
        return a_redis


class TestOutages(Outages):
    make = make

    @pytest.fixture
    def server(self) -> Iterator[Redis]:
        """Give a small one, to be mistreated."""
        with Redis(maxclients=8) as server:
            yield server


@pytest.fixture
def server(a_redis: Redis) -> Redis:
    """Give the server that `gate` stands before."""
    return a_redis


@pytest.fixture
def make_pool(gate: Gate) -> Iterator[Callable[..., SupervisedPool]]:
    """Give what makes pools, which end with the test."""
    pools = []

    def make(**options: Any) -> SupervisedPool:
        url = f"redis://127.0.0.1:{gate.port}/0"
        pools.append(SupervisedPool.from_url(url, **{"size": 1, "timeout": LONG} | options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.supervised.stop()


class TestUse:
    def test_under_random_kills(self, a_redis: Redis, gate: Gate, make_pool) -> None:
        """Two hundred count and are cut short: the sum is right, and so is every reply."""
        seed = random.randrange(10**9)
        print("seed", seed)
        chance = random.Random(seed)
        pool = make_pool(size=10)
        client = redis.Redis(connection_pool=pool)
        client.delete("sum")
        counted, cut = [], []

        def count(name: int) -> None:
            for number in range(15):
                word = f"{name}-{number}".encode()
                try:
                    with gevent.Timeout(chance.choice([None, 0.001, 0.01])):
                        first, _, last = (
                            client.pipeline().echo(word).incr("sum").echo(word).execute()
                        )
                        counted.append(1)
                        assert (first, last, client.echo(word)) == (word, word, word)
                        assert client.blpop(f"nothing-{name}", 0.001) is None
                except gevent.Timeout:
                    cut.append(word)
                except BaseException:
                    cut.append(word)
                    raise

        clients = [gevent.spawn(count, name) for name in range(200)]
        with redis.Redis(port=a_redis.port, single_connection_client=True) as observer:
            while not all(one.dead for one in clients):
                gevent.sleep(0.001)
                chance.choice(clients).kill(block=False)
            until(lambda: pool.supervised.stats().busy == 0, "all to come back")
            until(lambda: len(observer.client_list()) <= 10 + 1, "the server to notice")
        gevent.joinall(clients, raise_error=True)
        assert cut
        assert len(counted) <= int(client.get("sum")) <= len(counted) + len(cut)
        assert gate.peak <= 10
        assert not pool.supervised.holders()

    def test_says_who_holds_a_connection_from_which_line(self, make_pool) -> None:
        """It is the line of the user, not of redis-py, and it is in the error of who waits."""
        pool = make_pool(timeout=0, min_ready=1)
        pool.supervised.wait_ready()
        client = redis.Redis(connection_pool=pool)
        with client.client():
            assert "test_says_who_holds" in pool.supervised.holders()[0].line
            with pytest.raises(redis.ConnectionError, match="test_says_who_holds") as caught:
                client.get("a")
        assert isinstance(caught.value, gpool.CheckoutTimeout)
        assert caught.value.busy == 1

    @pytest.mark.parametrize("kind", ["command", "cache"])
    def test_says_who_waits_at_which_line(self, make_pool, kind: str) -> None:
        """It is the line of the user as well, not of redis-py or of Django's cache."""
        pool = make_pool()
        client = redis.Redis(connection_pool=pool)
        shared = type("Shared", (), {"from_url": lambda url, **options: pool})
        cache = RedisCache("redis://", {"OPTIONS": {"pool_class": shared}})

        def view() -> None:
            assert (client if kind == "command" else cache).get("a") is None

        with client.client():
            waiting = gevent.spawn(view)
            until(pool.supervised.waiters)
            [who] = pool.supervised.waiters()
            assert who.line.endswith("view")
        waiting.get()

    def test_a_checkout_that_timed_out_is_not_tried_again(self, make_pool) -> None:
        """redis-py's Retry is for what was sent: the time-out is all that a client waits."""
        pool = make_pool(timeout=0, min_ready=1, retry=Retry(NoBackoff(), 5))
        pool.supervised.wait_ready()
        client = redis.Redis(connection_pool=pool)
        with client.client(), pytest.raises(redis.ConnectionError):
            client.get("a")
        assert pool.supervised.stats().timed_out == 1

    def test_fails_fast_with_the_cause(self, gate: Gate, make_pool) -> None:
        """Whoever does not want to wait for a server that refuses is told what it said."""
        pool = make_pool(fail_fast=True, username="ann", password="wrong")
        with pytest.raises(redis.ConnectionError) as caught:
            redis.Redis(connection_pool=pool).get("a")
        assert isinstance(caught.value, gpool.StartsFailing)
        assert isinstance(caught.value.__cause__, redis.AuthenticationError)

    def test_in_debug_mode_another_greenlet_may_not_use_it(self, make_pool) -> None:
        """The proxy tells who has it."""
        client = redis.Redis(connection_pool=make_pool(debug=True))
        assert client.echo("a") == b"a"
        with client.client() as mine:
            assert mine.echo("a") == b"a"
            assert isinstance(attempt(mine.echo, "b").get(), gpool.WrongHolder)
            assert mine.echo("a") == b"a"

    def test_by_a_unix_socket(self) -> None:
        """The connection class of a unix:// URL is supervised, too."""
        with Redis(unixsocket="socket") as server:
            pool = SupervisedPool.from_url(f"unix://{server.folder}/socket?db=2", size=1)
            client = redis.Redis(connection_pool=pool)
            assert client.client_info()["db"] == 2
            pool.supervised.stop()


class TestOtherThreads:
    def test_cannot_give_back(self, gate: Gate, make_pool) -> None:
        """They are refused before anything has changed: the owner goes on, and gives it back."""
        pool = make_pool()
        connection = pool.get_connection()

        def release() -> type[Exception] | None:
            try:
                pool.release(connection)
            except gpool.WrongHub as error:
                return type(error)
            return None

        assert gevent.get_hub().threadpool.apply(release) is gpool.WrongHub
        connection.send_command("ECHO", "mine")
        assert connection.read_response() == b"mine"
        pool.release(connection)
        assert not pool.supervised.holders()
        assert gate.opened == 1
        assert pool.get_connection() is connection
        pool.release(connection)


class TestBrokenOff:
    def test_by_the_end_of_a_generator_it_is_lent_again(self, gate: Gate, make_pool) -> None:
        """One that is closed at a `yield` has left it whole, as the connection itself knows."""
        pool = make_pool().supervised

        def use() -> Iterator[bytes]:
            with pool.checkout() as connection:
                connection.send_command("ECHO", "mine")
                yield connection.read_response()

        using = use()
        assert next(using) == b"mine"
        using.close()
        with pool.checkout():
            assert gate.opened == 1

    def test_by_the_end_of_a_generator_in_between_it_is_not(self, gate: Gate, make_pool) -> None:
        """One that still waits for a reply is closed."""
        pool = make_pool().supervised

        def use() -> Iterator[None]:
            with pool.checkout() as connection:
                connection.send_command("ECHO", "mine")
                yield

        using = use()
        next(using)
        using.close()
        with pool.checkout():
            assert gate.opened == 2


class TestRetry:
    def test_connects_anew_in_the_same_slot(self, gate: Gate, make_pool) -> None:
        """A command on a connection that was cut is tried again, as by redis-py alone."""
        client = redis.Redis(connection_pool=make_pool(retry=Retry(NoBackoff(), 1)))
        with client.client() as one:
            gate.cut()
            assert one.echo("again") == b"again"
        assert gate.opened == 2
        assert gate.peak == 1

    def test_killed_meanwhile_leaves_nothing(self, gate: Gate, make_pool) -> None:
        """What a client has half connected is closed; the next one is made by a worker."""
        client = redis.Redis(connection_pool=make_pool(retry=Retry(NoBackoff(), 1)))

        def use() -> None:
            with client.client() as one:
                gate.cut()
                until(lambda: gate.open == 0)
                gate.hold()
                one.echo("mine")

        killed = gevent.spawn(use)
        until(lambda: gate.opened == 2, "it to connect")
        killed.kill()
        gate.release()
        assert client.echo("yours") == b"yours"
        until(lambda: gate.open == 1, "the other one to be closed")

    def test_errors_put_the_others_under_suspicion(self, a_redis: Redis, make_pool) -> None:
        """One connection is broken: the idle ones are not lent before somebody asked them."""
        client = redis.Redis(connection_pool=make_pool(size=2))
        with client.client(), client.client():
            pass
        with redis.Redis(port=a_redis.port) as admin:
            with contextlib.suppress(redis.ConnectionError), client.client() as one:
                admin.client_kill_filter(_id=one.client_id())
                one.echo("a")
            before = admin.info("commandstats")["cmdstat_ping"]["calls"]
            assert client.echo("b") == b"b"
            assert admin.info("commandstats")["cmdstat_ping"]["calls"] > before

    def test_is_set_for_all(self, make_pool) -> None:
        """`set_retry` reaches what is idle, what is lent, and what is made later."""
        pool = make_pool(size=2)
        client = redis.Redis(connection_pool=pool)
        retry = Retry(NoBackoff(), 3)
        with client.client() as one, client.client() as other:
            other.close()
            client.set_retry(retry)
            assert client.get_retry() is retry
            assert one.connection.retry is retry
            with client.client() as idle:
                assert idle.connection.retry is retry


class TestLife:
    def test_counts_its_connections(self, make_pool) -> None:
        """Idle and in use, as redis-py's metrics ask for them."""
        pool = make_pool(size=3)
        client = redis.Redis(connection_pool=pool)
        with client.client() as one, client.client() as other:
            other.close()
            lent = pool._get_in_use_connections()
            assert lent == {one.connection}
            assert len(pool._get_free_connections()) == 1
            assert [count for count, _ in pool.get_connection_count()] == [1, 1]

    @pytest.mark.parametrize("inuse", [True, False])
    def test_disconnects(self, gate: Gate, make_pool, inuse: bool) -> None:
        """Idle connections are closed; those in use if it is asked for, else as they come back."""
        pool = make_pool(size=2)
        client = redis.Redis(connection_pool=pool)
        with client.client() as one, client.client() as other:
            other.close()
            before = one.client_id()
            pool.disconnect(inuse_connections=inuse)
            until(lambda: gate.open == (0 if inuse else 1), "them to be closed")
            assert (one.client_id() == before) == (not inuse)
        until(lambda: gate.open == 0, "it to be closed")
        assert client.ping()

    @pytest.mark.parametrize("lazy", [True, False])
    def test_closes_and_opens_again(self, gate: Gate, make_pool, lazy: bool) -> None:
        """As in redis-py nothing is left after a close, and who comes later is served."""
        pool = make_pool(size=2, lazy=lazy)
        client = redis.Redis(connection_pool=pool)
        assert client.ping()
        pool.close()
        until(lambda: gate.open == 0, "all to be closed")
        assert client.ping()

    def test_ends_with_a_client_that_owns_it(self, gate: Gate, make_pool) -> None:
        """``Redis.from_pool`` closes it, at its end."""
        with redis.Redis.from_pool(make_pool(size=2)) as client:
            assert client.ping()
        until(lambda: gate.open == 0, "all to be closed")

    def test_a_close_makes_those_who_wait_fail(self, make_pool) -> None:
        """They get an error of redis-py's; whoever has a connection notices as well."""
        pool = make_pool()
        client = redis.Redis(connection_pool=pool)
        with client.client():
            waiting = attempt(client.ping)
            until(pool.supervised.waiters)
            pool.close()
            assert isinstance(waiting.get(), integration.PoolClosed)

    def test_a_stop_is_for_good(self, make_pool) -> None:
        """Whoever stops gpool's pool wants it stopped."""
        pool = make_pool()
        client = redis.Redis(connection_pool=pool)
        assert client.ping()
        pool.supervised.stop()
        with pytest.raises(integration.PoolClosed):
            client.ping()

    def test_opens_again_only_if_its_name_is_free(self, make_pool) -> None:
        """Who comes while another pool has it is told by an error of redis-py's; then it opens."""
        pool = make_pool(name="cache")
        client = redis.Redis(connection_pool=pool)
        assert client.ping()
        pool.close()
        pool.supervised.stop()
        with gpool.Pool(gpool.Resource(create=object), name="cache"):
            for _ in range(2):
                with pytest.raises(integration.NameTaken):
                    client.ping()
        assert client.ping()

    def test_says_in_redis_pys_words_that_it_does_not_open(
        self, make_pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever becomes of the start after a close."""
        pool = make_pool()
        client = redis.Redis(connection_pool=pool)
        pool.close()

        def start() -> None:
            raise gpool.PoolNotReady("cache", 5.0, 0, 1)

        monkeypatch.setattr(pool.supervised, "start", start)
        with pytest.raises(redis.ConnectionError, match="0 of 1 workers up"):
            client.ping()

    def test_resets(self, make_pool) -> None:
        """All connections are replaced."""
        pool = make_pool()
        client = redis.Redis(connection_pool=pool)
        before = client.client_id()
        pool.reset()
        assert client.client_id() != before

    @pytest.mark.skipif(not hasattr(redis.Connection, "should_reconnect"), reason="redis-py 7")
    def test_replaces_what_is_to_reconnect(self, make_pool) -> None:
        """One that is marked, as when a server moves, is replaced when it comes back."""
        pool = make_pool()
        client = redis.Redis(connection_pool=pool)
        with client.client() as one:
            before = one.client_id()
            one.connection.mark_for_reconnect()
        assert client.client_id() != before

    def test_in_a_fork_it_starts_afresh(self, make_pool) -> None:
        """A child has connections of its own, and leaves its parent's alone."""
        pool = make_pool()
        client = redis.Redis(connection_pool=pool)
        with client.client() as mine:
            before = mine.client_id()
            child = os.fork()
            if child == 0:
                try:
                    pool.disconnect()
                    os._exit(0 if client.client_id() != before else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert mine.client_id() == before


class TestReAuth:
    @pytest.fixture(params=["idle", "lent", "subscribed"])
    def state(self, request: pytest.FixtureRequest) -> str:
        """Give what a connection is at when the token comes."""
        return request.param

    def test_logs_in_with_each_new_token(self, state: str) -> None:
        """Idle connections at once, others before their next command: none is made anew."""
        with Redis() as server, redis.Redis(port=server.port) as admin:
            for name in ("ann", "bea"):
                admin.acl_setuser(name, enabled=True, passwords=["+secret"], commands=["+@all"],
                                  keys=["*"], channels=["*"])  # fmt: skip
            provider = Provider("ann")
            pool = SupervisedPool.from_url(server.url, size=1, credential_provider=provider)
            client = redis.Redis(connection_pool=pool, credential_provider=provider)
            assert whoami(client) == "ann"
            before = client.client_id()
            if state == "idle":
                provider.renew("bea")
            elif state == "lent":
                with client.client() as one:
                    provider.renew("bea")
                    assert whoami(one) == "bea"
            else:
                with client.pubsub() as listener:
                    listener.subscribe("news")
                provider.renew("bea")
            assert whoami(client) == "bea"
            assert (client.client_id() == before) == (state != "subscribed")
            pool.supervised.stop()

    def test_in_a_real_thread(self) -> None:
        """Whoever renews tokens in a thread may call: the connections have them when used next."""
        with Redis() as server, redis.Redis(port=server.port) as admin:
            admin.acl_setuser("bea", enabled=True, passwords=["+secret"], commands=["+@all"])
            pool = SupervisedPool.from_url(server.url, size=1)
            client = redis.Redis(connection_pool=pool)
            before = client.client_id()
            gevent.get_hub().threadpool.apply(pool.re_auth_callback, (Provider("bea"),))
            assert whoami(client) == "bea"
            assert client.client_id() == before
            pool.supervised.stop()

    def test_closes_what_is_refused(self) -> None:
        """A token that is not taken costs its connection; the next one logs in by itself."""
        with Redis() as server, redis.Redis(port=server.port) as admin:
            admin.acl_setuser("ann", enabled=True, passwords=["+secret"], commands=["+@all"])
            provider = Provider("ann")
            pool = SupervisedPool.from_url(server.url, size=1, credential_provider=provider)
            client = redis.Redis(connection_pool=pool, credential_provider=provider)
            before = client.client_id()
            provider.renew("nobody")
            provider.user = "ann"
            assert whoami(client) == "ann"
            assert client.client_id() != before
            pool.supervised.stop()


def ask(client: redis.Redis, word: bytes) -> list[Any]:
    """Have a word said before and after a number is counted up."""
    return client.pipeline().echo(word).incr("sum").echo(word).execute()


def attempt(fn: Callable[..., Any], *args: Any) -> gevent.Greenlet:
    """Call it in a greenlet; an error becomes its value."""

    def call() -> Any:
        try:
            return fn(*args)
        except Exception as error:  # noqa: BLE001  # its test looks at it
            return error

    return gevent.spawn(call)


class Provider(redis.credentials.StreamingCredentialProvider):
    """Names a user, and tells when it is another one."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.listeners: list[Callable[[Any], object]] = []

    def get_credentials(self) -> tuple[str, str]:
        """Return what a new connection logs in with."""
        return self.user, "secret"

    def on_next(self, callback: Callable[[Any], object]) -> None:
        """Tell it of each token."""
        self.listeners.append(callback)

    def on_error(self, callback: Callable[[Exception], object]) -> None:
        """Nothing goes wrong here."""

    def is_streaming(self) -> bool:
        """It is."""
        return True

    def renew(self, user: str) -> None:
        """Have all know that it is another user from now on."""
        self.user = user
        for listener in self.listeners:
            listener(self)

    def try_get(self, key: str) -> str:
        """Return the user of the token."""
        return self.user

    def get_value(self) -> str:
        """Return the token itself."""
        return "secret"


def whoami(client: redis.Redis) -> str:
    """Return the user that the server knows; redis-py 8 decodes it."""
    return redis.utils.str_if_bytes(client.acl_whoami())
