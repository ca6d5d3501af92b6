"""What SQLAlchemy asks of its pools, asked of ours.

After ``test/engine/test_pool.py`` of SQLAlchemy, whose classes these are: its tests of
connection records, dialects, events, the first connect, ``QueuePool`` and the reset, and of
the ping those of ``test_reconnect.py``.  The connections are fakes.

Not asked, since it does not apply:

* Other pools: ``SingletonThreadPool``, ``StaticPool``, ``NullPool``, ``AssertionPool``; with
  ``_is_asyncio``, whose engines are refused.
* What is inside ``QueuePool``: its queue, ``_overflow``, and races between threads for its lock
  (``test_timeout_race``, ``test_hanging_connect_within_overflow``): ours belongs to one thread.
* Records that are used without a pool (``test_rec_unconnected``, ``test_rec_close_reopen``), and
  that a record outlives its connection (``test_recycle_on_soft_invalidate``): ours has one.
* ``test_creator_callable_outside``: of engines, whatever their pool.

Asked otherwise, since the answer is another one:

* ``max_overflow=-1`` and ``pool_size=0`` are refused: a pool has a limit.
* Overflow stays idle for ``overflow_ttl``, instead of none (``test_queuepool_close``).
* A connect that fails is tried again until the client's time is over; then it raises what the
  last one did.
* What is lent while the pool is disposed of is closed when it comes back
  (``test_dispose_closes_pooled``: it goes back into the pool).
* A connection that is forgotten is closed, instead of reset (``test_queuepool_del``,
  ``test_checkin_event_gc``).
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event
from sqlalchemy import event, exc
from sqlalchemy.pool import Pool, QueuePool, _ConnectionFairy

from gpool.integrations.sqlalchemy import SupervisedPool
from gpool.testing import VirtualClock, settle
from tests.integrations.fake_driver import (
    EVENTS,
    Client,
    Connection,
    Dialect,
    Driver,
    listen,
    status,
)


class TestInfo:
    def test_belongs_to_the_connection(self, pool: SupervisedPool) -> None:
        """`info` is there at the next checkout, but not after an invalidate or detach."""
        one = pool.connect()
        assert not one.info
        assert one.info is one._connection_record.info
        one.info["foo"] = "bar"
        one.close()
        again = pool.connect()
        assert again.info == {"foo": "bar"}
        again.invalidate()
        third = pool.connect()
        assert not third.info
        third.info["foo2"] = "bar2"
        third.detach()
        assert third.info == {"foo2": "bar2"}
        other = pool.connect()
        assert other.dbapi_connection is not third.dbapi_connection
        assert not other.info
        third.close()
        other.close()

    def test_of_the_entry_outlives_it(self, pool: SupervisedPool) -> None:
        """`record_info` is there even then; who has detached a connection has none."""
        one = pool.connect()
        assert one.record_info is one._connection_record.record_info
        one.record_info["foo"] = "bar"
        one.close()
        again = pool.connect()
        assert again.record_info == {"foo": "bar"}
        again.invalidate()
        third = pool.connect()
        assert third.record_info == {"foo": "bar"}
        third.detach()
        assert third.record_info is None
        assert third.is_detached
        other = pool.connect()
        assert other.record_info == {"foo": "bar"}
        third.close()
        other.close()


class TestDialect:
    @pytest.mark.parametrize("ways", [(), ("invalidate",)])
    def test_resets_and_closes(
        self, make: Callable[..., SupervisedPool], ways: tuple[str, ...]
    ) -> None:
        """Rollback, close and terminate are the dialect's."""
        dialect = Dialect()
        pool = make(dialect=dialect)
        one = pool.connect()
        for way in ways:
            getattr(one, way)()
        one.close()
        pool.dispose()
        settle()
        assert dialect.calls == (["terminate"] if ways else ["rollback", "close"])


class TestNoConnect:
    def test_on_recreate(self, pool: SupervisedPool, driver: Driver) -> None:
        """Neither dispose nor recreate connects."""
        pool.dispose()
        assert type(pool.recreate()) is SupervisedPool
        pool.connect().close()
        pool.dispose()
        pool.recreate()
        assert len(driver.made) == 1


class TestEvents:
    def test_of_a_life(self, pool: SupervisedPool) -> None:
        """Each comes once, in SQLAlchemy's order."""
        told = listen(pool)
        one = pool.connect()
        assert told == ["first_connect", "connect", "checkout"]
        one.close()
        assert told[3:] == ["reset", "checkin"]
        pool.dispose()
        assert told[5:] == ["close"]

    def test_are_those_of_queue_pool(self, pool: SupervisedPool, driver: Driver) -> None:
        """What is done to a connection is told in the same order, with the same words."""

        def use(pool: Any) -> list[str]:
            told = listen(pool)
            for way in ("close", "invalidate", "detach", "close"):
                one = pool.connect()
                getattr(one, way)()
                one.close()
                settle()
            pool.dispose()
            return told

        assert use(pool) == use(QueuePool(driver.connect, pool_size=1, max_overflow=0))

    @pytest.mark.parametrize("name", EVENTS)
    def test_have_the_arguments_of_queue_pool(
        self, pool: SupervisedPool, driver: Driver, name: str
    ) -> None:
        """Connections, records, proxies, errors, states: of the same kinds."""

        def use(pool: Any) -> list[list[type]]:
            told: list[list[type]] = []
            event.listen(pool, name, lambda *args: told.append([kind(arg) for arg in args]))
            for way in ("close", "invalidate", "detach", "close"):
                one = pool.connect()
                if way == "close":
                    one.invalidate(ValueError("softly"), soft=True)
                getattr(one, way)()
                one.close()
                settle()
            pool.dispose()
            return told

        def kind(arg: Any) -> type:
            ours = [base for base in type(arg).__mro__ if base.__module__ == "sqlalchemy.pool.base"]
            return ours[0] if ours else type(arg)

        theirs = use(QueuePool(driver.connect, pool_size=1, max_overflow=0))
        assert use(pool) == theirs
        assert theirs

    def test_connect_comes_with_each(self, make: Callable[..., SupervisedPool]) -> None:
        """`first_connect` comes with the first one of a pool."""
        pool = make()
        told = listen(pool, "first_connect", "connect")
        both = [pool.connect(), pool.connect()]
        assert told == ["first_connect", "connect", "connect"]
        for one in both:
            one.close()

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_are_taken_along_by_recreate(
        self, make: Callable[..., SupervisedPool], when: str
    ) -> None:
        """Listeners of the old pool are those of the new one, which has a first connect, too."""
        pool = make()
        told = listen(pool, "first_connect", "checkout", "checkin")
        if when == "after":
            pool.connect().close()
        new = pool.recreate()
        if when == "before":
            pool.connect().close()
        new.connect().close()
        assert told == ["first_connect", "checkout", "checkin"] * 2
        new.dispose()

    def test_invalidate_has_connection_and_error(self, pool: SupervisedPool) -> None:
        """The listener gets what was invalidated, and why, or None."""
        told: list[Any] = []
        event.listen(pool, "invalidate", lambda *args: told.append(args))
        event.listen(pool, "soft_invalidate", lambda *args: told.append(args))
        error = ValueError("hi")
        for args, options in (((), {}), ((error,), {}), ((error,), {"soft": True})):
            one = pool.connect()
            connection, record = one.dbapi_connection, one._connection_record
            one.invalidate(*args, **options)
            one.close()
            assert told.pop() == (connection, record, args[0] if args else None)
        assert not told

    def test_close_has_connection_and_record(self, pool: SupervisedPool) -> None:
        """It comes when a pooled one is closed, not when it is given back."""
        told: list[Any] = []
        event.listen(pool, "close", lambda *args: told.append(args))
        one = pool.connect()
        expected = one.dbapi_connection, one._connection_record
        one.close()
        assert not told
        pool.dispose()
        assert told == [expected]

    def test_of_the_class_and_of_all_pools(self, pool: SupervisedPool) -> None:
        """Listeners of a class hear of its pools, those of another class do not."""
        told: list[str] = []

        def listener(name: str) -> Callable[..., None]:
            return lambda *args: told.append(name)

        targets = {Pool: "any", SupervisedPool: "ours", QueuePool: "theirs", pool: "this"}
        listeners = {target: listener(name) for target, name in targets.items()}
        for target, fn in listeners.items():
            event.listen(target, "connect", fn)
        try:
            pool.connect().close()
        finally:
            for target, fn in listeners.items():
                event.remove(target, "connect", fn)
        assert told == ["any", "ours", "this"]

    def test_connect_that_fails_lends_nothing(
        self, pool: SupervisedPool, driver: Driver, clock: VirtualClock
    ) -> None:
        """A connection whose listeners have failed is closed; the next one is complete."""
        fails = [True]

        @event.listens_for(pool, "connect")
        def first(connection: Any, record: Any) -> None:
            if fails:
                raise ValueError(fails.pop())

        @event.listens_for(pool, "connect")
        def second(connection: Any, record: Any) -> None:
            record.info["flag"] = True

        client = Client(pool)
        clock.advance(1.0)
        assert not driver.made[0].is_open
        assert client.got.info == {"flag": True}
        assert client.got.dbapi_connection is driver.made[1]
        client.let_go()

    def test_checkin_comes_for_what_is_forgotten(
        self, pool: SupervisedPool, driver: Driver
    ) -> None:
        """It is closed by its worker, and there is a warning that names the line."""
        told = listen(pool, "checkin", "close", "reset")
        one = pool.connect()
        del one
        gc.collect()
        with pytest.warns(exc.SAWarning, match=r"test_sqlalchemy_pool.py:\d+ in .* never closed"):
            settle()
        assert told == ["checkin", "close"]
        assert status(pool) == (1, 0, -1, 0)
        assert driver.open == 0


class TestFirstConnect:
    def test_ends_before_anything_is_lent(
        self, make: Callable[..., SupervisedPool], driver: Driver
    ) -> None:
        """Those who come meanwhile wait, though their connects are under way."""
        pool, may_end, told = make(pool_size=3), Event(), []

        @event.listens_for(pool, "first_connect")
        def first(connection: Any, record: Any) -> None:
            may_end.wait()
            told.append("first")

        event.listen(pool, "connect", lambda *args: told.append("connect"))
        event.listen(pool, "checkout", lambda *args: told.append("checkout"))
        clients = [Client(pool) for _ in range(3)]
        assert told == []
        may_end.set()
        settle()
        assert told[:2] == ["first", "connect"]
        assert sorted(told[2:]) == ["checkout"] * 3 + ["connect"] * 2
        for client in clients:
            client.let_go()


class TestListenersOfCheckout:
    @pytest.mark.parametrize("error", [exc.DisconnectionError, exc.InvalidatePoolError])
    def test_may_refuse_what_is_dead(
        self, make: Callable[..., SupervisedPool], driver: Driver, error: type[Exception]
    ) -> None:
        """The client gets another one; with InvalidatePoolError all others are replaced, too."""
        pool = make(pool_size=2, use_lifo=True)

        @event.listens_for(pool, "checkout")
        def look(connection: Connection, record: Any, proxy: Any) -> None:
            if connection.broken:
                raise error

        both = [pool.connect(), pool.connect()]
        driver.made[1].broken = True
        for one in both:
            one.close()
        one = pool.connect()
        settle()
        alone = error is exc.DisconnectionError
        assert one.dbapi_connection is driver.made[0 if alone else 2]
        assert driver.made[0].is_open is alone
        assert driver.made[1].calls == ["rollback", "close"]
        one.close()

    def test_may_not_refuse_for_ever(self, pool: SupervisedPool, driver: Driver) -> None:
        """Then the client is told, and nothing is left behind."""

        @event.listens_for(pool, "checkout")
        def refuse(connection: Any, record: Any, proxy: Any) -> None:
            raise exc.DisconnectionError

        with pytest.raises(exc.InvalidRequestError, match="This connection is closed"):
            pool.connect()
        settle()
        assert (len(driver.made), driver.open, pool.checkedout()) == (2, 0, 0)

    def test_that_fail_have_it_closed(self, pool: SupervisedPool, driver: Driver) -> None:
        """Their error is the client's."""

        @event.listens_for(pool, "checkout")
        def fail(connection: Any, record: Any, proxy: Any) -> None:
            raise ValueError("no")

        told = listen(pool, "invalidate", "checkin")
        with pytest.raises(ValueError, match="no"):
            pool.connect()
        settle()
        assert (driver.open, pool.checkedout(), told) == (0, 0, ["invalidate", "checkin"])

    def test_run_in_the_client(self, pool: SupervisedPool) -> None:
        """They may use what belongs to it."""
        told = []
        event.listen(pool, "checkout", lambda *args: told.append(gevent.getcurrent()))
        pool.connect().close()
        assert told == [gevent.getcurrent()]

    def test_find_what_connect_has_left(self, pool: SupervisedPool, driver: Driver) -> None:
        """`info` is filled before anybody sees the connection, each time."""

        @event.listens_for(pool, "connect")
        def connect(connection: Any, record: Any) -> None:
            record.info["x"] = True

        seen = []
        event.listen(pool, "checkout", lambda c, record, p: seen.append(dict(record.info)))
        pool.connect().invalidate()
        pool.connect().close()
        assert seen == [{"x": True}] * 2


class TestDetach:
    def test_gives_the_slot_back(self, pool: SupervisedPool, driver: Driver) -> None:
        """The connection is its user's, who closes it."""
        one = pool.connect()
        one.detach()
        other = pool.connect()
        assert other.dbapi_connection is driver.made[1]
        assert driver.made[0].is_open
        one.close()
        assert not driver.made[0].is_open
        other.close()

    def test_ends_the_pools_interest(self, pool: SupervisedPool, driver: Driver) -> None:
        """Nobody reclaims or warns of what its user drops."""
        told = listen(pool, "checkin", "close", "close_detached")
        one = pool.connect()
        one.detach()
        connection = weakref.ref(driver.made.pop())
        del one
        gc.collect()
        settle()
        assert told == []
        assert connection() is None


class TestDoubleCheckin:
    def test_is_warned_of(self, pool: SupervisedPool) -> None:
        """In SQLAlchemy's words; nothing else happens."""
        one = pool.connect()
        record = one._connection_record
        one.close()
        with pytest.warns(exc.SAWarning, match="Double checkin attempted on"):
            record.checkin()
        assert pool.checkedin() == 1


class TestReset:
    @pytest.mark.parametrize(
        ("style", "calls"),
        [
            ("rollback", ["rollback"]), (True, ["rollback"]), ("commit", ["commit"]),
            (None, []), (False, []),
        ],
    )  # fmt: skip
    def test_is_what_was_chosen(
        self, make: Callable[..., SupervisedPool], driver: Driver, style: Any, calls: list[str]
    ) -> None:
        """Rollback, commit, or nothing; it is done when `close` has returned."""
        pool = make(reset_on_return=style)
        pool.connect().close()
        assert driver.made[0].calls == calls

    def test_that_fails_has_it_closed(
        self, pool: SupervisedPool, driver: Driver, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The client that gives it back is not bothered, the log is."""
        told = listen(pool, "invalidate", "checkin", "close")
        one = pool.connect()
        driver.made[0].rollback = lambda: 1 / 0  # type: ignore[method-assign,assignment]
        one.close()
        settle()
        assert told == ["invalidate", "close", "checkin"]
        assert (driver.open, pool.checkedout()) == (0, 0)
        assert "Exception during reset or similar" in caplog.text

    def test_by_a_listener_gets_the_state(self, make: Callable[..., SupervisedPool]) -> None:
        """As the only way to reset; it runs in the client's context variables."""
        pool, states = make(reset_on_return=None), []
        event.listen(pool, "reset", lambda c, r, state: states.append(state))
        pool.connect().close()
        one = pool.connect()
        one._close_special(transaction_reset=True)
        one = pool.connect()
        one.detach()
        one.close()
        told = [(s.transaction_was_reset, s.terminate_only, s.asyncio_safe) for s in states]
        assert told == [(False, False, True), (True, False, True), (False, True, True)]

    def test_is_left_out_if_there_is_nothing_to_reset(
        self, pool: SupervisedPool, driver: Driver
    ) -> None:
        """An Engine's Connection has ended its transaction itself."""
        pool.connect()._close_special(transaction_reset=True)
        assert driver.made[0].calls == []
        assert pool.checkedin() == 1


class TestCreator:
    def test_may_take_the_record(self, driver: Driver) -> None:
        """SQLAlchemy finds out."""
        records = []

        def creator(connection_record: Any) -> Any:
            records.append(connection_record)
            return driver.connect()

        pool = SupervisedPool(creator)
        one = pool.connect()
        assert records == [one._connection_record]
        one.close()
        pool.dispose()

    def test_may_be_replaced(self, pool: SupervisedPool, driver: Driver) -> None:
        """By assigning to `_creator`, as tests do."""
        other = Driver()
        pool._creator = other.connect
        pool.connect().close()
        assert (len(driver.made), len(other.made)) == (0, 1)

    def test_gives_what_is_a_fairys(self, pool: SupervisedPool) -> None:
        """Tools ask for that class."""
        one = pool.connect()
        assert isinstance(one, _ConnectionFairy)
        one.close()
