"""SQLAlchemy's supervised pool, beyond what other pools of SQLAlchemy do."""

from __future__ import annotations

import contextvars
import gc
import logging
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psycopg2.extensions
import pytest
from gevent.event import Event
from sqlalchemy import create_engine, event, exc, text

import gpool
from gpool.integrations import _sqlalchemy, psycopg
from gpool.integrations.sqlalchemy import SupervisedPool
from gpool.testing import VirtualClock, settle
from tests.integrations.fake_driver import Client, Dialect, Driver, listen, maker_of_pools

NOWHERE = "sqlite:////nowhere/x.db"


@pytest.fixture
def driver() -> Driver:
    """Give a driver that takes notes."""
    return Driver()


@pytest.fixture
def make(driver: Driver, clock: VirtualClock, request: Any) -> Callable[..., SupervisedPool]:
    """Give what makes pools, of one connection if nothing else is said."""
    return maker_of_pools(driver, request, pool_size=1, max_overflow=0)


@pytest.fixture
def pool(make: Callable[..., SupervisedPool]) -> SupervisedPool:
    """Give a pool of one."""
    return make()


class TestCreateEngine:
    def test_hands_on_all_that_it_knows(self, clock: VirtualClock) -> None:
        """Its own words become ours, and options of gpool stand beside them."""
        told: list[str] = []
        engine = create_engine(
            "sqlite://", poolclass=SupervisedPool, pool_size=3, max_overflow=2, pool_timeout=7,
            pool_pre_ping=True, pool_recycle=100, pool_reset_on_return="commit",
            pool_use_lifo=True, pool_logging_name="lite", max_waiting=9, max_hold=60.0,
            on_max_hold="revoke", max_uses=1000, idle_timeout=50.0, check_after=0.5,
            keepalive=20.0, max_starting=2, start_timeout=3.0, check_timeout=1.0,
            finish_timeout=4.0, shutdown=2.0, overflow_ttl=1.0, min_ready=1, fail_fast=True,
            pool_events=[(lambda *args: told.append("connect"), "connect")],
        )  # fmt: skip
        options = engine.pool.supervised._options
        assert (options.size, options.max_overflow, options.timeout) == (3, 2, 7)
        assert (options.strategy, options.max_age, options.lazy) == ("lifo", 100, True)
        assert (options.max_waiting, options.max_hold, options.keepalive) == (9, 60.0, 20.0)
        assert gpool.running_pools() == []
        with engine.connect() as connection:
            assert connection.scalar(text("select 42")) == 42
        assert told == ["connect"]
        assert [one.name for one in gpool.running_pools()] == ["lite"]
        engine.dispose()

    def test_refuses_what_nobody_knows(self) -> None:
        """A slip is an error of SQLAlchemy's."""
        with pytest.raises(TypeError, match=r"Invalid argument.* 'max_waitin'"):
            create_engine("sqlite://", poolclass=SupervisedPool, max_waitin=9)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"pool_size": 0}, "pool_size: expected 1 or more, since a pool needs a limit, got 0"),
            ({"max_overflow": -1}, "max_overflow: expected 0 or more, .* limit, got -1"),
            ({"pool_size": -2}, "pool_size: expected 0 or more, got -2"),
            ({"pool_timeout": "5"}, "^pool_timeout: expected seconds or None, got '5'"),
            ({"pool_timeout": -1}, "^pool_timeout: expected seconds >= 0 or None, got -1"),
            ({"pool_recycle": None}, "^pool_recycle: expected seconds, or -1 for never, got None"),
            ({"pool_recycle": "5"}, "^pool_recycle: expected seconds, or -1 for never, got '5'"),
            (
                {"pool_logging_name": 5},
                "^pool_logging_name: expected a text that is not empty, got 5",
            ),
            ({"keepalive": 5.0}, "keepalive: expected pool_pre_ping=True beside it, got 5.0"),
            ({"check_after": 5.0}, "check_after: expected pool_pre_ping=True beside it, got 5.0"),
            ({"cancel_timeout": -1}, "cancel_timeout: expected seconds >= 0, got -1"),
            ({"cancel_timeout": None}, "cancel_timeout: expected seconds, got None"),
            ({"max_hold": 0}, "max_hold: expected seconds > 0 or None, got 0"),
        ],
    )
    def test_is_told_what_is_wrong(self, options: dict[str, Any], message: str) -> None:
        """At construction, with what was expected and what came."""
        with pytest.raises((TypeError, ValueError), match=message):
            create_engine("sqlite://", poolclass=SupervisedPool, **options)

    def test_of_asyncio_is_refused(self) -> None:
        """A pool of greenlets is none for tasks."""
        dialect = Dialect()
        dialect.is_async = True
        assert SupervisedPool(list, dialect=dialect)._is_asyncio is False
        code = (
            "from sqlalchemy.ext.asyncio import create_async_engine as create\n"
            "from gpool.integrations.sqlalchemy import SupervisedPool\n"
            "create('postgresql+psycopg_async://h/d', poolclass=SupervisedPool)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "ArgumentError" in done.stderr
        assert "SupervisedPool cannot be used with asyncio engine" in done.stderr

    def test_wraps_what_the_driver_raises(self) -> None:
        """A server that is not there is an OperationalError, whose orig is the driver's."""
        engine = create_engine(
            "sqlite:////nowhere/x.db", poolclass=SupervisedPool, pool_timeout=0.05
        )
        with pytest.raises(exc.OperationalError, match="unable to open database file") as caught:
            engine.connect()
        assert isinstance(caught.value.orig.__cause__, gpool.CheckoutTimeout)
        assert caught.value.orig is not caught.value.orig.__cause__.__cause__
        engine.dispose()

    def test_with_fail_fast_does_not_wait(self) -> None:
        """The error comes with the first connect that fails."""
        engine = create_engine(NOWHERE, poolclass=SupervisedPool, fail_fast=True)
        with pytest.raises(exc.OperationalError, match="unable to open database file") as caught:
            engine.connect()
        assert isinstance(caught.value.orig.__cause__, gpool.StartsFailing)
        engine.dispose()


class TestNames:
    def test_are_numbered(self) -> None:
        """Engines without a name have one of their dialect."""
        first, second = (
            create_engine("sqlite://", poolclass=SupervisedPool).pool.supervised.name for _ in "ab"
        )
        assert first.startswith("sqlite-")
        assert first != second

    def test_of_two_engines_may_be_the_same(self, make: Callable[..., SupervisedPool]) -> None:
        """SQLAlchemy has promised nobody that they differ: one gets a number."""
        pools = [make(logging_name="orders") for _ in range(3)]
        for pool in pools:
            pool.connect().close()
        names = sorted(pool.supervised.name for pool in pools)
        assert names == ["orders", "orders-2", "orders-3"]

    def test_outlive_dispose(self) -> None:
        """The engine's next pool has it again."""
        engine = create_engine("sqlite://", poolclass=SupervisedPool)
        names = []
        for _ in range(2):
            with engine.connect():
                names.append(engine.pool.supervised.name)
            engine.dispose()
        assert names[0] == names[1]

    def test_of_the_log_are_those_of_sqlalchemys_pools(
        self, pool: SupervisedPool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whoever has set the level of ``sqlalchemy.pool`` sees it."""
        with caplog.at_level(logging.DEBUG, "sqlalchemy.pool"):
            other = pool.recreate()
            other.connect().close()
            other.dispose()
        assert "checked out from pool" in caplog.text
        assert {record.name for record in caplog.records if "pool" in record.name} == {
            "sqlalchemy.pool.impl.SupervisedPool", "gpool",
        } - {"gpool"}  # fmt: skip


class TestTooMany:
    def test_waiters_get_a_timeout_error(self, make: Callable[..., SupervisedPool]) -> None:
        """With `max_waiting`: at once, and its cause says what there is."""
        pool = make(max_waiting=1)
        one, client = pool.connect(), Client(pool)
        with pytest.raises(exc.TimeoutError) as caught:
            pool.connect()
        assert isinstance(caught.value.__cause__, gpool.PoolFull)
        one.close()
        client.let_go()


class TestClientThatIsKilled:
    def test_does_not_interrupt_a_connect(self, pool: SupervisedPool, driver: Driver) -> None:
        """It goes on, and is for the next one."""
        driver.gate.clear()
        client = Client(pool)
        client.greenlet.kill()
        driver.gate.set()
        pool.connect().close()
        assert len(driver.made) == 1

    def test_does_not_interrupt_a_reset(self, pool: SupervisedPool, driver: Driver) -> None:
        """Its worker ends it; then the connection can be lent again."""
        client, may_end = Client(pool), Event()
        driver.made[0].rollback = lambda: may_end.wait()  # type: ignore[method-assign,assignment]
        client.may_go.set()
        settle()
        assert pool.supervised.stats().resetting == 1
        client.greenlet.kill()
        assert pool.supervised.stats().resetting == 1
        may_end.set()
        settle()
        assert pool.checkedin() == 1
        assert driver.open == 1

    def test_does_not_interrupt_a_close(self, pool: SupervisedPool, driver: Driver) -> None:
        """`invalidate` returns at once, the worker closes."""
        client, may_end = Client(pool), Event()
        close = driver.made[0].close
        driver.made[0].close = lambda: (may_end.wait(), close())  # type: ignore[method-assign]

        def invalidate() -> None:
            client.got.invalidate()

        gevent.spawn(invalidate).get()
        client.greenlet.kill()
        assert driver.open == 1
        assert pool.supervised.stats().closing == 1
        may_end.set()
        settle()
        assert driver.open == 0

    def test_has_its_connection_closed(self, pool: SupervisedPool, driver: Driver) -> None:
        """Between two statements, too: nobody knows what it has left undone."""
        told = listen(pool, "reset", "checkin", "close")
        Client(pool).greenlet.kill()
        settle()
        assert told == ["checkin", "close"]
        assert driver.made[0].calls == ["close"]

    def test_in_a_finally_has_it_closed(self, pool: SupervisedPool, driver: Driver) -> None:
        """Its close() resets nothing and waits for nobody."""

        def use() -> None:
            one = pool.connect()
            try:
                Event().wait()
            finally:
                one.close()

        client = gevent.spawn(use)
        settle()
        client.kill()
        settle()
        assert driver.made[0].calls == ["close"]

    def test_commits_nothing(self, make: Callable[..., SupervisedPool], driver: Driver) -> None:
        """Not even with ``reset_on_return="commit"``."""
        pool = make(reset_on_return="commit")
        Client(pool).greenlet.kill()
        settle()
        assert driver.made[0].calls == ["close"]

    def test_in_a_listener_of_checkout_has_it_closed(
        self, pool: SupervisedPool, driver: Driver
    ) -> None:
        """It had it, and is about to use it."""
        event.listen(pool, "checkout", lambda *args: Event().wait())
        Client(pool).greenlet.kill()
        settle()
        assert (driver.open, pool.checkedout()) == (0, 0)

    def test_in_a_listener_of_checkin_has_it_closed(
        self, pool: SupervisedPool, driver: Driver
    ) -> None:
        """What the listeners had to do is not done."""
        one = pool.connect()
        event.listen(pool, "checkin", lambda *args: Event().wait())
        client = gevent.spawn(one._close_special, transaction_reset=True)
        del one
        settle()
        client.kill()
        settle()
        assert (driver.open, pool.checkedout()) == (0, 0)


class TestClientThatEnds:
    def test_has_its_connection_reclaimed(self, pool: SupervisedPool, driver: Driver) -> None:
        """A connection belongs to the greenlet that has taken it; whoever else has it, loses it."""
        told = listen(pool, "checkin", "close", "invalidate")
        one = gevent.spawn(pool.connect).get()
        settle()
        assert told == ["checkin", "close"]
        one.close()
        one.close()
        assert told == ["checkin", "close"]
        assert pool.supervised.stats().reclaimed == 1

    def test_says_nothing_of_the_others(
        self, make: Callable[..., SupervisedPool], driver: Driver
    ) -> None:
        """Whoever uses what was taken away sees a disconnect: no reason to replace all others."""
        pool = make(pool_size=2)
        mine = pool.connect()
        other = gevent.spawn(pool.connect).get()
        settle()
        pool._invalidate(other)
        assert not other.is_valid
        mine.close()
        assert [one.is_open for one in driver.made] == [True, False]


class TestHoldingTooLong:
    def test_has_it_taken_away(
        self, make: Callable[..., SupervisedPool], driver: Driver, clock: VirtualClock
    ) -> None:
        """With ``on_max_hold="revoke"``; its close() is nothing then."""
        pool = make(max_hold=10.0, on_max_hold="revoke")
        one = pool.connect()
        clock.advance(10.0)
        assert driver.open == 0
        one.close()
        pool.connect().close()
        assert pool.supervised.stats().revoked == 1


def in_another_thread(fn: Callable[[], object]) -> BaseException | None:
    """Call it there, a real one even if gevent has patched; return what it raises."""

    def call() -> BaseException | None:
        try:
            fn()
        except Exception as error:  # noqa: BLE001  # its test looks at it
            return error.with_traceback(None)
        return None

    return gevent.get_hub().threadpool.spawn(call).get()


class TestAnotherThread:
    """One that a connection was handed to."""

    @pytest.mark.parametrize("way", ["close", "_close", "_close_special", "invalidate", "detach"])
    def test_gives_nothing_back(self, pool: SupervisedPool, driver: Driver, way: str) -> None:
        """It is told so, and has changed nothing: the owner's close() gives it back."""
        told = listen(pool)
        one = pool.connect()
        told.clear()
        for _ in range(2):
            assert isinstance(in_another_thread(getattr(one, way)), gpool.WrongHub)
        assert (told, driver.made[0].calls, pool.checkedout()) == ([], [], 1)
        one.close()
        assert told == ["reset", "checkin"]
        assert (driver.made[0].calls, pool.checkedin()) == (["rollback"], 1)

    @pytest.mark.filterwarnings("ignore:.*never closed:sqlalchemy.exc.SAWarning")
    def test_costs_an_engine_no_slot(self, clock: VirtualClock) -> None:
        """Its owner closes a Connection; that of SQLAlchemy 2.1 has dropped what it had by then."""
        engine = create_engine(
            "sqlite://", poolclass=SupervisedPool, pool_size=1, max_overflow=0,
            connect_args={"check_same_thread": False},
        )  # fmt: skip
        connection = engine.connect()
        connection.execute(text("select 42"))
        assert isinstance(in_another_thread(connection.close), gpool.WrongHub)
        connection.close()
        gc.collect()
        settle()
        assert engine.pool.checkedout() == 0
        engine.connect().close()
        engine.dispose()

    def test_may_close_what_is_detached(self, pool: SupervisedPool, driver: Driver) -> None:
        """That is no pool's any more."""
        one = pool.connect()
        one.detach()
        assert in_another_thread(one.close) is None
        assert driver.open == 0


def beside_others(do: Callable[[], object]) -> None:
    """Do something in a greenlet that is not the main one."""
    gevent.spawn(do).get()


class TestDriverThatBlocks:
    """One that waits for its server without gevent knowing."""

    @pytest.fixture
    def dialect(self) -> Any:
        """Give the dialect of a driver."""
        return Dialect()

    @pytest.fixture
    def callback(self) -> Iterator[Callable[[Any], None]]:
        """Give what sets psycopg2's wait callback, which is None now."""
        before = psycopg2.extensions.get_wait_callback()
        psycopg2.extensions.set_wait_callback(None)
        yield psycopg2.extensions.set_wait_callback
        psycopg2.extensions.set_wait_callback(before)

    def test_is_warned_of_once(
        self, make: Callable[..., SupervisedPool], dialect: Any, callback: Any
    ) -> None:
        """At the first connect of a greenlet, whose line it shows: the callback may come late."""
        dialect.driver = "psycopg2"
        pool = make(dialect=dialect)
        with pytest.warns(
            RuntimeWarning, match="psycopg2 has no wait callback: each query"
        ) as seen:
            beside_others(lambda: pool.connect().close())
        assert [one.filename for one in seen] == [__file__]
        beside_others(lambda: pool.connect().close())

    def test_is_none_to_a_command(
        self, make: Callable[..., SupervisedPool], dialect: Any, callback: Any
    ) -> None:
        """Which has one greenlet, the main one: there is nobody to be blocked."""
        dialect.driver = "psycopg2"
        make(dialect=dialect).connect().close()

    def test_with_a_wait_callback_does_not(
        self, make: Callable[..., SupervisedPool], dialect: Any, callback: Any
    ) -> None:
        """Ours or anybody's."""
        dialect.driver = "psycopg2"
        pool = make(dialect=dialect)
        callback(print)
        beside_others(lambda: pool.connect().close())

    @pytest.mark.parametrize("cooperates", [False, True])
    def test_may_be_psycopg(
        self,
        make: Callable[..., SupervisedPool],
        dialect: Any,
        monkeypatch: pytest.MonkeyPatch,
        cooperates: bool,
    ) -> None:
        """If it was imported before gevent patched, or gevent has not."""
        monkeypatch.setattr(psycopg, "cooperates", lambda: cooperates)
        dialect.driver = "psycopg"
        with warnings.catch_warnings(record=True, action="always") as seen:
            beside_others(lambda: make(dialect=dialect).connect().close())
        assert ["each query blocks" in str(one.message) for one in seen] == [True] * (
            not cooperates
        )

    def test_is_not_sqlite(self, clock: VirtualClock) -> None:
        """Whose users know."""
        engine = create_engine("sqlite://", poolclass=SupervisedPool)
        engine.connect().close()
        engine.dispose()


class TestForgotten:
    @pytest.fixture(autouse=True)
    def quiet(self, pool: SupervisedPool) -> Any:
        """Let the warning pass, others test it; start the pool.

        The frames of that stay until they are collected, if gevent is Python code.
        """
        pool.connect().close()
        with pytest.warns(exc.SAWarning):
            yield

    def test_is_not_touched_in_the_finaliser(self, pool: SupervisedPool, driver: Driver) -> None:
        """That neither blocks nor switches, whoever's greenlet it runs in, the hub's as well."""
        told = listen(pool)
        kept = [pool.connect()]
        told.clear()
        gevent.get_hub().loop.run_callback(kept.clear)
        settle()
        assert driver.open == 0
        kept = [pool.connect()]
        told.clear()
        kept.clear()
        gc.collect()
        assert (told, driver.open) == ([], 1)
        settle()
        assert (told, driver.open) == (["checkin", "close"], 0)

    def test_is_found_in_whatever_thread(self, pool: SupervisedPool, driver: Driver) -> None:
        """The collector may run in any: the pool's own sees to it."""
        kept = [pool.connect()]
        thread = threading.Thread(target=kept.clear)
        thread.start()
        thread.join()
        settle()
        assert (driver.open, pool.checkedout()) == (0, 0)

    def test_is_reclaimed_for_those_who_wait(self, pool: SupervisedPool, driver: Driver) -> None:
        """They need not wait for a time-out."""
        kept = [pool.connect()]
        client = Client(pool)
        kept.clear()
        settle()
        client.let_go()
        assert [one.is_open for one in driver.made] == [False, True]


class TestEngineThatIsDropped:
    def test_takes_its_pool_along(self, driver: Driver) -> None:
        """Nobody has to dispose of it: its connections are closed, its pool runs no more."""
        pool = SupervisedPool(driver.connect)
        pool.connect().close()
        alive = weakref.ref(pool)
        del pool
        gc.collect()
        assert alive() is None
        settle()
        assert (gpool.running_pools(), driver.open) == ([], 0)

    def test_is_kept_by_what_is_forgotten(self, driver: Driver) -> None:
        """Its listeners stay as long as it does."""
        pool = SupervisedPool(driver.connect)
        told = listen(pool, "checkin", "close")
        one = pool.connect()
        del pool
        del one
        gc.collect()
        with pytest.warns(exc.SAWarning, match="never closed"):
            settle()
        gc.collect()
        settle()
        assert told == ["checkin", "close"]
        assert (gpool.running_pools(), driver.open) == ([], 0)

    def test_is_kept_by_what_comes_back_late(self, driver: Driver) -> None:
        """It was disposed of meanwhile; what its client has asked for is done, and told."""
        pool = SupervisedPool(driver.connect, reset_on_return="commit")
        told = listen(pool, "checkin", "reset", "close")
        one = pool.connect()
        pool.dispose()
        del pool
        one.close()
        settle()
        assert told == ["reset", "checkin", "close"]
        assert driver.made[0].calls == ["commit", "close"]

    def test_is_kept_by_what_is_lent(self, driver: Driver) -> None:
        """Until that is back, its listeners hear of it."""
        pool = SupervisedPool(driver.connect)
        told = listen(pool, "checkin", "reset")
        one = pool.connect()
        del pool
        gc.collect()
        assert one.is_valid
        one.close()
        assert told == ["reset", "checkin"]
        del one
        gc.collect()
        settle()
        assert (gpool.running_pools(), driver.open) == ([], 0)


class TestReset:
    def test_has_the_clients_context(self, make: Callable[..., SupervisedPool]) -> None:
        """Listeners that run in the worker find the client's context variables."""
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
        pool, seen = make(), []
        event.listen(pool, "reset", lambda *args: seen.append(variable.get()))
        event.listen(pool, "checkin", lambda *args: seen.append(variable.get()))
        token = variable.set("the client's")
        pool.connect().close()
        variable.reset(token)
        assert seen == ["the client's"] * 2

    def test_that_takes_too_long_is_given_up(
        self, make: Callable[..., SupervisedPool], driver: Driver, clock: VirtualClock
    ) -> None:
        """After `finish_timeout` the connection is closed, and close() returns."""
        pool = make(finish_timeout=3.0)
        client = Client(pool)
        driver.made[0].rollback = Event().wait  # type: ignore[method-assign]
        client.may_go.set()
        clock.advance(2.9)
        assert not client.greenlet.dead
        clock.advance(0.1)
        assert client.greenlet.successful()
        assert (driver.open, pool.checkedout()) == (0, 0)

    def test_outlives_a_fall_of_the_pool(self, pool: SupervisedPool, driver: Driver) -> None:
        """What is lent then is closed when it comes back, after its reset."""
        one = pool.connect()
        gpool.exit(pool.supervised.tree().pool_man, "kill")
        settle()
        one.close()
        settle()
        assert driver.made[0].calls == ["rollback", "close"]
        pool.connect().close()
        assert driver.open == 1

    @pytest.mark.parametrize("was_reset", [False, True])
    def test_lets_the_client_know_what_a_listener_of_checkin_raises(
        self, pool: SupervisedPool, driver: Driver, was_reset: bool
    ) -> None:
        """As with any pool; but the connection is not lost."""
        one = pool.connect()
        event.listen(pool, "checkin", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            one._close_special(transaction_reset=was_reset)
        settle()
        assert (driver.open, pool.checkedout()) == (0, 0)


class TestListenersThatFail:
    """Whatever listeners raise, no slot is lost, and nothing stays open."""

    def test_at_the_close(self, pool: SupervisedPool, driver: Driver) -> None:
        """It is closed all the same."""
        event.listen(pool, "close", lambda *args: 1 / 0)
        pool.connect().close()
        pool.dispose()
        assert driver.open == 0

    @pytest.mark.parametrize("error", [ValueError, exc.DisconnectionError])
    @pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
    def test_at_the_invalidate(
        self, pool: SupervisedPool, driver: Driver, error: type[Exception]
    ) -> None:
        """After a checkout that was refused: the client sees it, the next one is served."""

        def refuse(*args: Any) -> None:
            raise error

        event.listen(pool, "checkout", refuse)
        event.listen(pool, "invalidate", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pool.connect()
        event.remove(pool, "checkout", refuse)
        gc.collect()
        settle()
        assert driver.open == 0
        pool.connect().close()

    def test_by_hand(self, pool: SupervisedPool, driver: Driver) -> None:
        """`invalidate()` raises it; the connection is closed."""
        event.listen(pool, "invalidate", lambda *args: 1 / 0)
        one = pool.connect()
        with pytest.raises(ZeroDivisionError):
            one.invalidate()
        one.close()
        settle()
        assert (driver.open, pool.checkedout()) == (0, 0)


class TestFirstConnect:
    def test_does_not_block_the_thread(self, make: Callable[..., SupervisedPool]) -> None:
        """SQLAlchemy's lock around it would, if gevent has not patched: there is one before."""
        pool, may_end = make(pool_size=2), Event()
        event.listen(pool, "connect", lambda *args: may_end.wait(), once=True)
        clients = [Client(pool), Client(pool)]
        may_end.set()
        settle()
        assert pool.supervised.stats().start_failures == 0
        for client in clients:
            client.let_go()


class Info:
    """What psycopg and psycopg2 tell."""

    def __init__(self, status: int) -> None:
        self.transaction_status = status


class Told:
    """A connection that says something of itself."""

    def __init__(self, **told: Any) -> None:
        vars(self).update(told)


class TestIsDirty:
    @pytest.mark.parametrize(
        ("told", "is_dirty"),
        [
            ({}, False),
            ({"info": Info(0)}, False),
            ({"info": Info(1)}, True),
            ({"info": Info(2)}, False),
            ({"info": Info(3)}, False),
            ({"info": Info(4)}, True),
            ({"closed": False}, False),
            ({"closed": True}, True),
            ({"closed": 0}, False),
            ({"closed": 2}, True),
            ({"closed": print}, False),
            ({"open": True}, False),
            ({"open": False}, True),
        ],
    )
    def test_asks_the_driver(self, told: dict[str, Any], is_dirty: bool) -> None:
        """Psycopg and psycopg2 have a status, others may tell that they are closed."""
        assert _sqlalchemy._is_dirty(Told(**told)) is is_dirty


class TestScript:
    def run(self, *lines: str) -> tuple[str, str, int]:
        """Return what a script writes to stdout, to stderr, and its status."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", "\n".join(lines)],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        return done.stdout, done.stderr, done.returncode

    def test_ends_with_all_left_open(self) -> None:
        """It has no last words, and does not hang."""
        assert self.run(
            "from sqlalchemy import create_engine, text",
            "from gpool.integrations.sqlalchemy import SupervisedPool",
            "engine = create_engine('sqlite://', poolclass=SupervisedPool)",
            "idle, lent = engine.connect(), engine.connect()",
            "idle.close()",
            "print(lent.scalar(text('select 42')))",
        ) == ("42\n", "", 0)

    def test_goes_on_in_another_thread(self) -> None:
        """Where nobody looks for what was forgotten in the first one, whose pool is stopped."""
        assert self.run(
            "import gc, gevent, threading, warnings",
            "from gpool.testing import settle",
            "from sqlalchemy import create_engine",
            "from gpool.integrations.sqlalchemy import SupervisedPool",
            "warnings.simplefilter('ignore', ResourceWarning)",  # nobody can close what is its
            "pool = create_engine('sqlite://', poolclass=SupervisedPool).pool",
            "kept = []",
            "def begin():",
            "    kept.append(pool.connect())",
            "    pool.dispose()",
            "    gevent.get_hub().destroy(destroy_loop=True)",
            "thread = threading.Thread(target=begin)",
            "thread.start()",
            "thread.join()",
            "pool.connect().close()",
            "kept.clear()",
            "gc.collect()",
            "settle()",
            "print(pool.checkedin())",
        ) == ("1\n", "", 0)
