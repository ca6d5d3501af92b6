"""The pool for redis-py, without a server: what it may be told, and its errors."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import pickle
import subprocess
import sys

import gevent
import pytest
from gevent import monkey

import gpool
from gpool.pool.options import Options

redis = pytest.importorskip("redis")
from gpool.integrations import redis as integration  # noqa: E402
from gpool.integrations.redis import SharedPool, SupervisedPool  # noqa: E402

URL = "redis://localhost:1/0"


class TestOptions:
    def test_has_the_defaults_of_a_blocking_connection_pool(self) -> None:
        """Whoever comes from there changes a name and nothing else."""
        theirs, ours = redis.BlockingConnectionPool(), SupervisedPool()
        assert ours.max_connections == theirs.max_connections == 50
        assert ours.supervised.stats().size == 50
        assert ours.supervised._options.timeout == theirs.timeout == 20

    def test_knows_every_option_of_a_pool(self) -> None:
        """What gpool's pool can be told it can be told here."""
        assert {field.name for field in dataclasses.fields(Options)} == integration._OPTIONS

    @pytest.mark.parametrize("name", ["size", "max_connections"])
    def test_is_as_large_as_either_name_says(self, name: str) -> None:
        """The words of gpool and of redis-py mean the same; overflow comes on top."""
        pool = SupervisedPool.from_url(URL, **{name: 3}, max_overflow=2)
        assert pool.supervised.stats().size == 3
        assert pool.max_connections == 5

    def test_takes_redis_pys_names_from_the_url(self) -> None:
        """The query of a URL says what keywords say."""
        pool = SupervisedPool.from_url(
            f"{URL}?max_connections=7&timeout=2.5&health_check_interval=9"
        )
        assert pool.supervised.stats().size == 7
        assert pool.supervised._options.timeout == 2.5
        assert pool.connection_kwargs["health_check_interval"] == 9

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"size": 2, "max_connections": 2}, ValueError, "max_connections, got 2 and 2"),
            ({"max_connections": 0}, ValueError, "max_connections: expected at least 1"),
            ({"size": 0}, ValueError, "size: expected at least 1"),
            ({"max_connections": "9"}, TypeError, "max_connections: expected .*number, got '9'"),
            ({"max_connections": 1, "min_ready": 2}, ValueError, "at most max_connections, 1"),
            ({"timeout": -1}, ValueError, "timeout: expected seconds >= 0 or None, got -1"),
            ({"strategy": "best"}, ValueError, "strategy: expected 'lifo' or 'fifo', got 'best'"),
            ({"max_conections": 2}, TypeError, r"those of Connection or some of \[.*'size'"),
            ({"connection_class": dict}, TypeError, "expected a subclass .*, got <class 'dict'>"),
            ({"name": ""}, TypeError, "name: expected a text that is not empty, got ''"),
        ],
    )  # fmt: skip
    def test_refuses_what_is_wrong(
        self, options: dict[str, object], error: type[Exception], words: str
    ) -> None:
        """At construction, with what was expected and what came."""
        with pytest.raises(error, match=words):
            SupervisedPool(**options)

    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("redis://localhost", "SupervisedConnection"),
            ("rediss://localhost", "SupervisedSSLConnection"),
            ("unix:///nowhere", "SupervisedUnixDomainSocketConnection"),
        ],
    )
    def test_makes_the_connections_that_the_url_asks_for(self, url: str, name: str) -> None:
        """The scheme chooses the class, as in redis-py."""
        assert SupervisedPool.from_url(url).connection_class.__name__ == name

    def test_does_nothing_before_its_first_use(self) -> None:
        """No process, no socket."""
        pool = SupervisedPool.from_url(URL)
        client = redis.Redis(connection_pool=pool)
        assert client.get_encoder().encoding == "utf-8"
        assert client.get_connection_kwargs()["host"] == "localhost"
        assert pool.supervised.tree() == gpool.PoolTree(None, None, None)
        pool.disconnect()
        pool.close()
        pool.reset()
        assert pool.supervised.tree() == gpool.PoolTree(None, None, None)


@pytest.mark.skipif(monkey.is_module_patched("socket"), reason="it cooperates")
class TestUnpatched:
    """Whoever is made to wait by whom: warnings are errors in all tests."""

    def test_warns_the_first_greenlet_that_borrows(self) -> None:
        """Once for each pool, at the line of the user's code."""

        def use() -> None:
            with contextlib.suppress(redis.ConnectionError):
                client.get("a")

        pool = SupervisedPool.from_url(URL, timeout=0, name="cache")
        client = redis.Redis(connection_pool=pool)
        with pytest.warns(RuntimeWarning) as caught:
            gevent.joinall([gevent.spawn(use) for _ in range(3)])
        pool.supervised.stop()
        [warning] = caught
        assert "pool 'cache': redis-py does not cooperate with gevent" in str(warning.message)
        lines, first = inspect.getsourcelines(use)
        assert (warning.filename, warning.lineno) == (__file__, first + len(lines) - 1)

    def test_leaves_the_main_greenlet_alone(self) -> None:
        """A command, a shell, a program that only imports the pool: there is nobody to hold up."""
        code = f"""
import contextlib, redis
from gpool.integrations.redis import SupervisedPool
client = redis.Redis(connection_pool=SupervisedPool.from_url({URL!r}, timeout=0))
with contextlib.suppress(redis.ConnectionError):
    client.get("a")
"""
        command = [sys.executable, "-W", "error", "-c", code]
        assert subprocess.run(command, capture_output=True, timeout=60, check=True).stderr == b""


class TestShared:
    def test_is_one_pool_for_one_url(self) -> None:
        """Other options are another pool."""
        one = SharedPool.from_url(URL, size=2)
        assert SharedPool.from_url(URL, size=2) is one
        assert SharedPool.from_url(URL, size=3) is not one
        assert SharedPool.from_url("redis://localhost:2/0", size=2) is not one


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "facts"),
        [
            ("CheckoutTimeout", ("cache", 1.5, 4, 0, 2)),
            ("PoolFull", ("cache", 4, 2)),
            ("StartsFailing", ("cache", 3, "refused")),
            ("PoolClosed", ("cache",)),
            ("PoolFailed", ("cache", "shutdown")),
            ("CheckoutDeadlock", ("cache", ())),
            ("LeaseLost", ("cache", None)),
            ("PoolNotReady", ("cache", 5.0, 0, 2)),
            ("NameTaken", ("cache", None)),
        ],
    )
    def test_are_of_both_worlds(self, name: str, facts: tuple[object, ...]) -> None:
        """They have the facts and words of gpool, and are errors of redis-py; pickled, too."""
        error = getattr(integration, name)(*facts)
        assert isinstance(error, getattr(gpool, name))
        assert isinstance(error, redis.RedisError)
        assert isinstance(error, redis.ConnectionError) == (name not in ("LeaseLost", "NameTaken"))
        assert str(error) == str(getattr(gpool, name)(*facts))
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
