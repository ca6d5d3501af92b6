"""Whose reply is it?  The pool for redis-py, with clients that are cut off in the middle."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent.event
import pytest
import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

import gpool
from gpool.integrations.redis import LeaseLost, SupervisedPool
from tests.integrations.torture import LONG
from tests.servers.gate import Gate
from tests.servers.redis import Redis
from tests.waiting import until


@pytest.fixture
def server(a_redis: Redis) -> Redis:
    """Give the server that `gate` stands before."""
    return a_redis


@pytest.fixture
def make_client(gate: Gate) -> Iterator[Callable[..., redis.Redis]]:
    """Give what makes clients that have one connection between them, which end with the test."""
    pools = []

    def make(**options: Any) -> redis.Redis:
        url = f"redis://127.0.0.1:{gate.port}/0"
        pools.append(SupervisedPool.from_url(url, **{"size": 1, "timeout": LONG} | options))
        return redis.Redis(connection_pool=pools[-1])

    yield make
    for pool in pools:
        pool.supervised.stop()


@pytest.fixture
def client(make_client: Callable[..., redis.Redis]) -> redis.Redis:
    """Give a client whose pool has connected."""
    client = make_client()
    client.flushdb()
    return client


def in_flight(client: redis.Redis) -> bool:
    """Tell whether somebody waits for a reply."""
    held = client.connection_pool.supervised.holders()
    return any(getattr(one.worker, "_conn", one.worker).gpool_pending > 0 for one in held)


def strike(greenlet: gevent.Greenlet, how: str) -> None:
    """Kill it, or let it run out of time, as soon as the hub runs."""
    fall = {"kill": greenlet.kill, "timeout": greenlet.throw, "swallowed": greenlet.throw}[how]
    error = gevent.GreenletExit() if how == "kill" else gevent.Timeout()
    gevent.get_hub().loop.run_callback(fall, error, *((False,) if how == "kill" else ()))
    gevent.sleep(0)


def cut(client: redis.Redis, gate: Gate, fn: Callable[[], object], how: str) -> None:
    """Let a greenlet call it, and end it when it waits for the reply, which comes later."""

    def run() -> None:
        try:
            fn()
        except gevent.Timeout:
            if how == "swallowed":
                assert client.echo("and went on") == b"and went on"
        except gevent.GreenletExit:
            assert how == "kill"

    gate.block()
    greenlet = gevent.spawn(run)
    until(lambda: in_flight(client), "a command to be sent")
    strike(greenlet, how)
    gate.unblock()
    greenlet.join()


def pipeline(client: redis.Redis) -> Any:
    """Return three commands, to be executed one after the other."""
    return client.pipeline(transaction=False).echo("theirs").incr("count").echo("theirs")


def transaction(client: redis.Redis) -> Any:
    """Return three commands, to be executed in one."""
    return client.pipeline().echo("theirs").incr("count").echo("theirs")


def watch(client: redis.Redis) -> None:
    """Watch a key, and let redis-py forget it."""
    with client.pipeline() as pipe:
        pipe.watch("theirs")


def unwatch(client: redis.Redis) -> None:
    """Watch a key, and forget it."""
    with client.pipeline() as pipe:
        pipe.watch("theirs")
        pipe.unwatch()


PATHS: dict[str, Callable[[redis.Redis], object]] = {
    "command": lambda client: client.echo("theirs"),
    "pipeline": lambda client: pipeline(client).execute(),
    "transaction": lambda client: transaction(client).execute(),
    "blocking": lambda client: client.blpop("nothing", 0),
    "watch": watch,
    "unwatch": unwatch,
    "script": lambda client: client.eval("return 'theirs'", 0),
    "lock": lambda client: client.lock("lock", timeout=9).acquire(),
    "large": lambda client: client.echo("x" * 2_000_000),
}


class TestCut:
    @pytest.mark.parametrize("how", ["kill", "timeout", "swallowed"])
    @pytest.mark.parametrize("path", PATHS)
    def test_between_command_and_reply(
        self, client: redis.Redis, gate: Gate, path: str, how: str
    ) -> None:
        """Whoever comes next is not told what the other one asked for."""
        cut(client, gate, lambda: PATHS[path](client), how)
        assert [client.echo(word) for word in "abc"] == [b"a", b"b", b"c"]
        assert client.pipeline().echo("d").echo("e").execute() == [b"d", b"e"]
        assert gate.opened == 2  # the other one's is not lent again
        assert not client.connection_pool.supervised.holders()

    @pytest.mark.parametrize("how", ["kill", "timeout", "swallowed"])
    def test_while_it_logs_in(self, make_client, gate: Gate, how: str) -> None:
        """What a client reconnects and does not finish is not lent, in whatever database it is."""
        may_go = gevent.event.Event()
        may_go.set()

        def set_up(connection: Any) -> None:
            connection._parser.on_connect(connection)
            may_go.wait()
            connection.send_command("SELECT", 5)
            connection.read_response()

        def use() -> None:
            with client.client() as one:
                one.connection.disconnect()
                may_go.clear()
                try:
                    one.ping()
                except BaseException as error:  # noqa: BLE001  # what struck it
                    errors.append(error)
                may_go.set()
                if how == "swallowed":
                    assert one.client_info()["db"] == 5
                    errors.append(None)

        errors: list[Any] = []
        client = make_client(redis_connect_func=set_up)
        assert client.ping()
        greenlet = gevent.spawn(use)
        until(lambda: gate.opened == 2, "it to connect")
        strike(greenlet, how)
        greenlet.join()
        assert len(errors) == (2 if how == "swallowed" else 1), errors
        assert [client.client_info()["db"] for _ in range(3)] == [5] * 3


class TestLeftOver:
    """What redis-py alone hands on to the next client."""

    def test_replies_of_a_pipeline_whose_callback_failed(self, client: redis.Redis) -> None:
        """A response callback raises, so the rest of the replies is never read."""
        client.set_response_callback("GET", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            client.pipeline(transaction=False).get("a").echo("theirs").execute()
        assert client.echo("mine") == b"mine"

    def test_a_command_whose_reply_nobody_read(self, client: redis.Redis, gate: Gate) -> None:
        """It need not have arrived yet: commands are counted, nobody looks into the socket."""
        pool = client.connection_pool
        connection = pool.get_connection()
        connection.send_command("ECHO", "theirs")
        pool.release(connection)
        assert client.echo("mine") == b"mine"
        assert gate.opened == 2

    def test_what_was_packed_elsewhere(self, client: redis.Redis) -> None:
        """How many commands that is nobody can tell."""
        pool = client.connection_pool
        connection = pool.get_connection()
        connection.send_packed_command([b"ECHO one\r\nECHO two\r\n"])
        assert connection.read_response() == b"one"
        pool.release(connection)
        assert client.echo("mine") == b"mine"

    def test_an_error_is_a_reply(self, client: redis.Redis, gate: Gate) -> None:
        """A command that the server refuses costs no connection, in a pipeline neither."""
        client.set("text", "a")
        for transaction in (True, False):
            with pytest.raises(redis.ResponseError):
                client.pipeline(transaction=transaction).incr("text").echo("b").execute()
        with pytest.raises(redis.ResponseError):
            client.execute_command("NOTHING")
        assert client.echo("mine") == b"mine"
        assert gate.opened == 1

    @pytest.mark.parametrize("words", ["MULTI", "watch text", "SELECT 1", "MONITOR", "RESET"])
    def test_state_that_a_command_leaves(self, client: redis.Redis, words: str, gate: Gate) -> None:
        """What it opened is not closed, so its connection is."""
        client.execute_command(*words.split())
        assert client.client_info()["db"] == 0
        assert gate.opened == 2

    @pytest.mark.parametrize(
        "words",
        [
            ["SELECT 1"], ["select", b"1"], ["CLIENT SETNAME", "ann"], ["CLIENT", "NO-EVICT", "on"],
            ["CLIENT TRACKING", "on"], ["HELLO", 2], ["AUTH", "default", "any"], ["READONLY"],
        ],
        ids=lambda words: str(words[0]),
    )  # fmt: skip
    def test_a_session_that_a_command_changes(
        self, client: redis.Redis, words: list[Any], gate: Gate
    ) -> None:
        """Another user, name, database or protocol is nobody else's."""
        with contextlib.suppress(redis.ResponseError):
            client.execute_command(*words)
        found = client.client_info()
        assert (found["db"], found["name"], found["user"]) == (0, "", "default")
        assert gate.opened == 2

    @pytest.mark.parametrize("words", [["CLIENT", "ID"], ["CLIENT GETNAME"], ["SELECT", 0]])
    def test_a_session_that_a_command_only_looks_at(
        self, client: redis.Redis, words: list[Any], gate: Gate
    ) -> None:
        """It costs no connection."""
        client.execute_command(*words)
        assert client.echo("mine") == b"mine"
        assert gate.opened == 1

    @pytest.mark.parametrize("words", ["SUBSCRIBE news", "PSUBSCRIBE *"])
    def test_a_subscription_by_hand(self, client: redis.Redis, words: str, gate: Gate) -> None:
        """Whoever subscribes without a PubSub leaves that behind, too."""
        connection = client.connection_pool.get_connection()
        connection.send_command(*words.split())
        connection.read_response(push_request=True)
        client.connection_pool.release(connection)
        assert client.echo("mine") == b"mine"
        assert gate.opened == 2

    def test_state_that_is_ended(self, client: redis.Redis, gate: Gate) -> None:
        """Transactions and watches that end as they should cost no connection."""
        with client.pipeline() as pipe:
            pipe.watch("n")
            pipe.multi()
            pipe.incr("n").incr("n")
            assert pipe.execute() == [1, 2]
        with client.pipeline() as pipe:
            pipe.watch("n")
            assert pipe.get("n") == b"2"
        client.transaction(lambda pipe: pipe.multi() or pipe.incr("n"), "n")
        with client.client() as one:
            one.execute_command("MULTI")
            one.execute_command("DISCARD")
            one.select(3)
            one.select(0)
        assert client.get("n") == b"3"
        assert gate.opened == 1

    def test_a_watch_of_one_who_died(self, client: redis.Redis, gate: Gate) -> None:
        """His keys are not watched for whoever comes next."""
        pipes = [client.pipeline()]
        greenlet = gevent.spawn(lambda: (pipes[0].watch("n"), gevent.sleep(LONG)))
        until(lambda: pipes[0].watching, "the watch")
        greenlet.kill()
        assert client.set("n", 1)
        assert client.pipeline().incr("n").execute() == [2]


class TestListening:
    def test_ends_with_its_connection(self, client: redis.Redis, gate: Gate) -> None:
        """A subscription's connection is not lent again; its slot is."""
        with client.pubsub() as listener:
            listener.subscribe("news")
            assert listener.get_message(timeout=LONG)["type"] == "subscribe"
            assert len(client.connection_pool.supervised.holders()) == 1
        assert client.publish("news", "a") == 0
        assert gate.opened == 2

    def test_goes_on_after_a_timeout(self, make_client) -> None:
        """Whoever listens with a gevent.Timeout misses nothing."""
        client = make_client(size=2)
        with client.pubsub(ignore_subscribe_messages=True) as listener:
            listener.subscribe("news")
            with gevent.Timeout(0.05, False):
                next(listener.listen())
            assert client.publish("news", "a") == 1
            assert listener.get_message(timeout=LONG)["data"] == b"a"

    def test_belongs_to_who_reads(self, make_client, gate: Gate) -> None:
        """Whoever subscribed may end: the connection stays with the greenlet that listens."""
        client = make_client(size=2)
        listener, heard = client.pubsub(ignore_subscribe_messages=True), []
        greenlets = []

        def listen() -> None:
            for message in listener.listen():
                heard.append(message["data"])

        def subscribe() -> None:
            listener.subscribe("news")
            greenlets.append(gevent.spawn(listen))
            until(lambda: client.pubsub_numsub("news")[0][1] == 1)

        gevent.spawn(subscribe).join()
        client.publish("news", "a")
        until(lambda: heard == [b"a"], "the news")
        greenlets[0].kill()
        until(lambda: not client.connection_pool.supervised.holders(), "it to come back")
        with pytest.raises(LeaseLost):
            listener.subscribe("more")
        listener.close()
        assert gate.peak <= 2
        until(lambda: client.publish("news", "b") == 0, "the server to notice")

    def test_in_a_thread_of_redis_py(self, make_client) -> None:
        """``run_in_thread`` listens in a greenlet, in a patched program."""
        client, heard = make_client(size=2), []
        listener = client.pubsub(ignore_subscribe_messages=True)
        listener.subscribe(news=heard.append)
        thread = listener.run_in_thread(sleep_time=0.01)
        until(lambda: client.publish("news", "a") == 1)
        until(lambda: heard, "the news")
        thread.stop()
        thread.join()
        until(lambda: not client.connection_pool.supervised.holders(), "it to come back")

    def test_to_a_monitor(self, make_client, gate: Gate) -> None:
        """Who watches the server's commands takes a slot, and leaves it whole."""
        client = make_client(size=2)
        with client.monitor() as monitor:
            client.echo("a")
            while "ECHO a" not in monitor.next_command()["command"]:
                pass
        assert client.echo("b") == b"b"
        until(lambda: gate.open == 1, "its connection to be closed")


def by_a_client(client: redis.Redis) -> Callable[[], object]:
    """Return what uses the connection of a client of one connection."""
    one = client.client()
    one.echo("mine")
    return lambda: one.echo("mine")


def by_a_pipeline(client: redis.Redis) -> Callable[[], object]:
    """Return what uses the connection of a pipeline that watches nothing any more."""
    pipe = client.pipeline()
    pipe.watch("a")
    pipe.unwatch()
    return lambda: pipe.watch("b")


def by_a_listener(client: redis.Redis) -> Callable[[], object]:
    """Return what uses the connection of a listener that has subscribed to nothing."""
    listener = client.pubsub()
    listener.ping()
    listener.parse_response()
    return listener.ping


def by_hand(client: redis.Redis) -> Callable[[], object]:
    """Return what uses a connection without any client."""
    connection = client.connection_pool.get_connection()
    return lambda: connection.send_command("INCR", "n")


class TestTakenBack:
    @pytest.mark.parametrize("hold", [by_a_client, by_a_pipeline, by_a_listener, by_hand])
    def test_by_a_scope_it_is_not_lent_to_a_second_client(
        self, client: redis.Redis, hold: Callable[[redis.Redis], Callable[[], object]]
    ) -> None:
        """Who still refers to it is told that it is not his; the other one has another one."""
        with gpool.Scope():
            use = hold(client)
            [before] = client.connection_pool.supervised.holders()
        with client.client() as second:
            [after] = client.connection_pool.supervised.holders()
            assert after.worker is not before.worker
            with pytest.raises(LeaseLost):
                use()
            assert second.echo("other") == b"other"

    @pytest.mark.parametrize("hold", [by_a_client, by_a_pipeline, by_a_listener, by_hand])
    def test_by_a_scope_it_is_refused_at_once(
        self, client: redis.Redis, hold: Callable[[redis.Redis], Callable[[], object]]
    ) -> None:
        """Also while it is not yet closed."""
        with gpool.Scope():
            use = hold(client)
        with pytest.raises(LeaseLost):
            use()
        assert client.get("n") is None

    def test_and_released_afterwards_it_is_nobody_elses(self, client: redis.Redis) -> None:
        """The late release of an object that a scope outran takes nothing from anybody."""
        with gpool.Scope():
            one = client.client()
        with client.client() as second:
            one.close()
            assert second.echo("other") == b"other"
            assert len(client.connection_pool.supervised.holders()) == 1


class TestDropped:
    """A pipeline that watches, and is dropped: its ``__del__`` waits for the reply to UNWATCH."""

    @pytest.fixture
    def swallowed(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Give the types of exceptions that Python has swallowed."""
        found: list[Any] = []
        monkeypatch.setattr(sys, "unraisablehook", lambda report: found.append(report.exc_type))
        return found

    @pytest.mark.parametrize(
        ("how", "error"), [("kill", gevent.GreenletExit), ("timeout", gevent.Timeout)]
    )
    @pytest.mark.parametrize("is_open", [True, False])
    def test_and_cut_short_there_gives_its_connection_back(
        self, client: redis.Redis, gate: Gate, swallowed: list[Any], how: str, error: Any,
        is_open: bool,
    ) -> None:  # fmt: skip
        """Nobody else could: Python swallows what has struck, and the greenlet goes on."""

        def run() -> None:
            pipe = client.pipeline()
            pipe.watch("a")
            if not is_open:
                pipe.connection.disconnect()  # so it connects, to say UNWATCH
            gate.block()
            dropping.append(True)
            del pipe
            gate.unblock()
            replies.append(client.echo("mine"))
            assert not client.connection_pool.supervised.holders()

        replies: list[bytes] = []
        dropping: list[bool] = []
        greenlet = gevent.spawn(run)
        until(lambda: dropping and in_flight(client), "UNWATCH to be sent, or HELLO")
        strike(greenlet, how)
        greenlet.get()
        assert swallowed == [error]
        assert replies == [b"mine"]

    def test_and_not_answered_gives_its_connection_back(self, make_client, gate: Gate) -> None:
        """redis-py itself swallows the error, a `socket_timeout`, before it would give it back."""
        client = make_client(socket_timeout=0.1)
        pipe = client.pipeline()
        pipe.watch("a")
        gate.block()
        del pipe
        gate.unblock()
        assert client.echo("mine") == b"mine"

    def test_and_cut_short_leaves_nobody_a_way_to_its_connection(
        self, client: redis.Redis, gate: Gate, swallowed: list[Any]
    ) -> None:
        """Who has taken it out of the pipeline is refused; nobody else is lent it."""

        def run() -> None:
            pipe = client.pipeline()
            pipe.watch("a")
            gate.block()
            kept.append(pipe.connection)
            del pipe
            gate.unblock()

        kept: list[Any] = []
        greenlet = gevent.spawn(run)
        until(lambda: kept and in_flight(client), "UNWATCH to be sent")
        strike(greenlet, "timeout")
        greenlet.get()
        with client.client() as one:
            assert one.connection is not kept[0]
            with pytest.raises(LeaseLost):
                kept[0].send_command("INCR", "n")
            with pytest.raises(LeaseLost):
                kept[0].connect()
            client.connection_pool.release(kept[0])
            assert one.echo("mine") == b"mine"
        assert client.get("n") is None

    def test_takes_no_connection_that_is_not_its_own(
        self, make_client, gate: Gate, swallowed: list[Any]
    ) -> None:
        """What runs meanwhile, as another object's finaliser, and is cut short, may go on."""
        client = make_client(size=2)

        class Pipeline(redis.client.Pipeline):
            def reset(self) -> None:
                with gevent.Timeout(0.01, False):
                    other.blpop("nothing", 0)
                super().reset()

        with client.client() as other:
            pipe = Pipeline(client.connection_pool, client.response_callbacks, True, None)
            pipe.watch("a")
            del pipe
            assert other.echo("mine") == b"mine"
        assert not swallowed


class TestPushed:
    def test_in_between_replies(self, make_client, gate: Gate) -> None:
        """RESP3's push messages are no replies: nobody takes one for his."""
        client = make_client(protocol=3)
        with client.client() as one:  # which has its connection to itself
            one.execute_command("CLIENT", "TRACKING", "ON", "BCAST")
            for number in range(5):
                one.set("n", number)
                assert one.get("n") == str(number).encode()
        assert gate.opened == 1

    @pytest.fixture
    def cached(self, make_client, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
        """Give a client with redis-py's client-side cache."""
        monkeypatch.setattr(CacheProxyConnection, "MIN_ALLOWED_VERSION", "6.0.0")
        return make_client(size=2, protocol=3, cache_config=CacheConfig())

    def test_what_is_cached_is_forgotten(self, cached: redis.Redis, a_redis: Redis) -> None:
        """A cached reply lasts until the server says that it is old."""
        cached.set("n", 1)
        assert [cached.get("n") for _ in range(3)] == [b"1"] * 3
        assert cached.get_cache().size == 1
        with redis.Redis(port=a_redis.port) as other:
            other.set("n", 2)
        assert cached.ping()  # what was pushed before has been read
        assert cached.get("n") == b"2"

    @pytest.mark.parametrize("how", ["kill", "timeout", "swallowed"])
    def test_cut_while_a_reply_is_to_be_cached(
        self, cached: redis.Redis, gate: Gate, how: str
    ) -> None:
        """Neither a connection nor an entry of the cache stays half done."""
        cached.set("n", 1)
        cut(cached, gate, lambda: cached.get("n"), how)
        assert [cached.get("n") for _ in range(3)] == [b"1"] * 3
        assert cached.echo("mine") == b"mine"
