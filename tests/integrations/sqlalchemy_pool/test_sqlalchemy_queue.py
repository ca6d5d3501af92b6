"""What SQLAlchemy asks of ``QueuePool``, asked of ours.

What does not apply is listed in ``test_sqlalchemy_pool.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
from sqlalchemy import exc
from sqlalchemy.pool import reset_none

import gpool
from gpool.integrations.sqlalchemy import SupervisedPool
from gpool.testing import VirtualClock, settle
from tests.integrations.fake_driver import (
    Client,
    Dialect,
    Driver,
    listen,
    status,
)


class TestNumbers:
    def test_of_checkouts_and_overflow(
        self, make: Callable[..., SupervisedPool], clock: VirtualClock
    ) -> None:
        """Size, idle, overflow, lent: overflow goes once it was idle for its time."""
        pool = make(pool_size=3, max_overflow=3)
        lent = []
        for number in range(1, 7):
            lent.append(pool.connect())
            assert status(pool) == (3, 0, number - 3, number)
        for one in lent[1:4]:
            one.close()
        assert status(pool) == (3, 3, 3, 3)
        for one in [lent[0], *lent[4:]]:
            one.close()
        assert status(pool) == (3, 6, 3, 0)
        clock.advance(5.0)
        assert status(pool) == (3, 3, 0, 0)
        both = [pool.connect(), pool.connect()]
        assert status(pool) == (3, 1, 0, 2)
        assert pool.status() == (
            "Pool size: 3  Connections in pool: 1 "
            "Current Overflow: 0 Current Checked out connections: 2"
        )
        for one in both:
            one.close()

    def test_the_timeout(self, make: Callable[..., SupervisedPool]) -> None:
        """It can be read."""
        assert make(timeout=123).timeout() == 123

    def test_never_exceed_the_cap(
        self, make: Callable[..., SupervisedPool], driver: Driver
    ) -> None:
        """Forty clients of three and five more: never more than eight are open."""
        pool, peak = make(pool_size=3, max_overflow=5), [0]

        def use() -> None:
            for _ in range(10):
                one = pool.connect()
                peak[0] = max(peak[0], driver.open)
                gevent.idle()
                one.close()

        gevent.joinall([gevent.spawn(use) for _ in range(40)], raise_error=True)
        assert 3 <= peak[0] <= 8
        assert pool.checkedout() == 0

    def test_stay_right_if_a_connect_fails(
        self, make: Callable[..., SupervisedPool], driver: Driver, clock: VirtualClock
    ) -> None:
        """What did not come up does not count; the client gets the driver's error."""
        pool = make(pool_size=2, max_overflow=3, timeout=1)
        lent = [pool.connect() for _ in range(3)]
        driver.is_down = True
        client = Client(pool)
        clock.advance(1.0)
        assert isinstance(client.got, Driver.Error)
        assert status(pool) == (2, 0, 1, 3)
        for one in lent:
            one.close()


class TestTimeout:
    def test_is_told_by_sqlalchemys_error(self, pool: SupervisedPool, clock: VirtualClock) -> None:
        """Not before its time, to the fraction of a second."""
        one = pool.connect()
        client = Client(pool)
        clock.advance(4.9)
        assert client.got is None
        clock.advance(0.1)
        assert isinstance(client.got, exc.TimeoutError)
        assert client.got.code == "3o7r"
        assert isinstance(client.got.__cause__, gpool.CheckoutTimeout)
        one.close()

    def test_of_0_waits_for_nobody_but_a_connect(
        self, make: Callable[..., SupervisedPool], driver: Driver
    ) -> None:
        """A connection that can be made is awaited; those of others are not."""
        pool = make(pool_size=1, max_overflow=0, timeout=0)
        driver.gate.clear()
        client = Client(pool)
        assert client.got is None
        driver.gate.set()
        settle()
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        client.let_go()
        pool.connect().close()

    def test_of_none_is_for_ever(
        self, make: Callable[..., SupervisedPool], clock: VirtualClock
    ) -> None:
        """A client waits until it is its turn."""
        pool = make(pool_size=1, max_overflow=0, timeout=None)
        one = pool.connect()
        client = Client(pool)
        clock.advance(100_000)
        assert client.got is None
        one.close()
        client.let_go()


class TestWaiters:
    @pytest.mark.parametrize("timeout", [None, 30])
    @pytest.mark.parametrize("max_overflow", [0, 3])
    def test_are_served_when_all_is_invalidated(
        self, make: Callable[..., SupervisedPool], timeout: float | None, max_overflow: int
    ) -> None:
        """The slot of a connection that was invalidated is for those who wait."""
        pool = make(pool_size=2, timeout=timeout, max_overflow=max_overflow)
        lent = [pool.connect() for _ in range(2 + max_overflow)]
        clients = [Client(pool) for _ in range(2)]
        assert not any(client.got for client in clients)
        pool._invalidate(lent[1])
        settle()
        clients[0].let_go()
        clients[1].let_go()
        for one in lent:
            one.close()

    def test_connect_once_for_all(self, pool: SupervisedPool, driver: Driver) -> None:
        """Five who wait for one that is invalidated share its successor."""
        one = pool.connect()

        clients = [Client(pool) for _ in range(5)]
        pool._invalidate(one)
        settle()
        for client in clients:
            client.let_go()
        assert len(driver.made) == 2

    def test_do_not_wait_for_a_connect_that_hangs(
        self, make: Callable[..., SupervisedPool], driver: Driver
    ) -> None:
        """What others give back is theirs."""
        pool = make(pool_size=2, max_overflow=0)
        one = pool.connect()
        driver.gate.clear()
        client = Client(pool)
        assert client.got is None
        one.close()
        client.let_go()
        driver.gate.set()


class TestDispose:
    def test_closes_what_is_idle(self, make: Callable[..., SupervisedPool], driver: Driver) -> None:
        """And what is lent when it comes back; the pool can be used again."""
        pool = make(pool_size=2, max_overflow=0)
        both = [pool.connect(), pool.connect()]
        both[0].close()
        pool.dispose()
        assert [one.is_open for one in driver.made] == [False, True]
        both[1].close()
        settle()
        assert driver.open == 0
        one = pool.connect()
        assert one.dbapi_connection is driver.made[2]
        one.close()

    def test_leaves_those_who_wait_in_line(self, pool: SupervisedPool, driver: Driver) -> None:
        """They get a connection of the pool that comes after."""
        one = pool.connect()
        client = Client(pool)
        pool.dispose()
        settle()
        assert client.got.dbapi_connection is driver.made[1]
        client.let_go()
        one.close()


class TestRecycle:
    def test_replaces_what_is_too_old(
        self, make: Callable[..., SupervisedPool], driver: Driver, clock: VirtualClock
    ) -> None:
        """Older than `recycle` seconds, none is lent; a tenth less, each is."""
        pool = make(pool_size=1, max_overflow=0, recycle=30)
        pool.connect().close()
        clock.advance(26.9)
        pool.connect().close()
        assert len(driver.made) == 1
        clock.advance(3.1)
        pool.connect().close()
        assert len(driver.made) == 2
        assert driver.open == 1

    def test_of_0_replaces_after_each_use(
        self, make: Callable[..., SupervisedPool], driver: Driver
    ) -> None:
        """Each checkout has a connection of its own."""
        pool = make(recycle=0)
        for _ in range(3):
            pool.connect().close()
        settle()
        assert (len(driver.made), driver.open) == (3, 0)

    def test_commits_before_it_closes(
        self, make: Callable[..., SupervisedPool], driver: Driver, clock: VirtualClock
    ) -> None:
        """What has grown too old while it was lent still gets its reset, a commit here."""
        pool = make(recycle=30, reset_on_return="commit")
        one = pool.connect()
        clock.advance(31)
        one.close()
        settle()
        assert driver.made[0].calls == ["commit", "close"]

    @pytest.mark.parametrize("soft", [False, True])
    def test_replaces_what_was_invalidated(
        self, pool: SupervisedPool, driver: Driver, soft: bool
    ) -> None:
        """Be it softly: then it can be used until it is given back."""
        one = pool.connect()
        one.invalidate(soft=soft)
        assert one.is_valid is soft
        one.close()
        settle()
        other = pool.connect()
        assert other.dbapi_connection is driver.made[1]
        assert not driver.made[0].is_open
        other.close()

    def test_of_a_generation(self, make: Callable[..., SupervisedPool], driver: Driver) -> None:
        """If one is found dead, all that were made before are replaced; lent ones at return."""
        pool = make(pool_size=3)
        lent = [pool.connect() for _ in range(3)]
        lent[2].close()
        pool._invalidate(lent[0])
        settle()
        assert [one.is_open for one in driver.made] == [False, True, False]
        lent[1].close()
        settle()
        assert driver.open == 0

    def test_of_a_second_one_of_a_generation_is_no_news(
        self, make: Callable[..., SupervisedPool], driver: Driver
    ) -> None:
        """What was made since stays."""
        pool = make(pool_size=3)
        both = [pool.connect(), pool.connect()]
        pool._invalidate(both[0])
        settle()
        pool.connect().close()
        pool._invalidate(both[1])
        settle()
        assert [one.is_open for one in driver.made] == [False, False, True]

    def test_fails_if_the_server_is_down(
        self, make: Callable[..., SupervisedPool], driver: Driver, clock: VirtualClock
    ) -> None:
        """The slot is not lost: as many as before can be had afterwards."""
        pool = make(pool_size=1, max_overflow=2, timeout=10)
        one = pool.connect()
        one.invalidate()
        one.close()
        driver.is_down = True
        client = Client(pool)
        clock.advance(10)
        assert isinstance(client.got, Driver.Error)
        assert pool.checkedout() == 0
        driver.is_down = False
        clients = [Client(pool) for _ in range(3)]
        clock.advance(5)
        for client in clients:
            client.let_go()

    def test_close_after_invalidate_is_nothing(self, pool: SupervisedPool) -> None:
        """Nor is a second close."""
        told = listen(pool, "checkin")
        one = pool.connect()
        one.invalidate()
        one.close()
        one.close()
        assert told == ["checkin"]

    def test_invalidate_of_a_closed_one_is_warned_of(self, pool: SupervisedPool) -> None:
        """In SQLAlchemy's words."""
        one = pool.connect()
        one.close()
        with pytest.warns(exc.SAWarning, match="already-closed connection"):
            one.invalidate()


class TestRecreate:
    def test_keeps_the_arguments(self, make: Callable[..., SupervisedPool]) -> None:
        """All of them, and the name."""
        options = {
            "pool_size": 2, "max_overflow": 1, "timeout": 7.5, "use_lifo": True, "recycle": 60,
            "pre_ping": True, "reset_on_return": None, "logging_name": "orders", "max_hold": 9.0,
            "check_after": 1.0, "max_waiting": 4, "dialect": Dialect(), "echo": None,
        }  # fmt: skip
        old = make(**options)
        new = old.recreate()
        assert type(new) is SupervisedPool
        assert new.supervised._options == old.supervised._options
        for name in ("_recycle", "_pre_ping", "_reset_on_return", "_dialect", "echo", "_creator"):
            assert getattr(new, name) is getattr(old, name)
        assert new._reset_on_return is reset_none
        assert (new.size(), new.timeout(), new.logging_name) == (2, 7.5, "orders")
        assert new.supervised.name == old.supervised.name == "orders"

    def test_can_be_done_while_the_old_one_runs(self, pool: SupervisedPool) -> None:
        """Both lend; the new one's name says that it is another one."""
        one = pool.connect()
        new = pool.recreate()
        other = new.connect()
        assert new.supervised.name == f"{pool.supervised.name}-2"
        one.close()
        other.close()
        new.dispose()


class TestOrder:
    @pytest.mark.parametrize(("use_lifo", "order"), [(True, [2, 2, 1]), (False, [0, 1, 2])])
    def test_of_lending(
        self, make: Callable[..., SupervisedPool], use_lifo: bool, order: list[int]
    ) -> None:
        """The one that was used last, or first."""
        pool = make(pool_size=3, use_lifo=use_lifo)
        for one in [pool.connect() for _ in range(3)]:
            one.close()
        lent = []
        one = pool.connect()
        lent.append(one.dbapi_connection.number)
        one.close()
        both = [pool.connect(), pool.connect()]
        lent += [one.dbapi_connection.number for one in both]
        assert lent == order
        for one in both:
            one.close()


class TestPing:
    @pytest.fixture
    def dialect(self) -> Dialect:
        """Give a dialect that takes notes."""
        return Dialect()

    @pytest.fixture
    def pool(self, make: Callable[..., SupervisedPool], dialect: Dialect) -> SupervisedPool:
        """Give a pool that pings."""
        return make(pool_size=2, pre_ping=True, dialect=dialect, use_lifo=True)

    def test_is_left_out_for_what_is_fresh(self, pool: SupervisedPool, dialect: Dialect) -> None:
        """What was just made is not pinged, but at each checkout after that."""
        pool.connect().close()
        assert dialect.pinged == []
        for _ in range(3):
            pool.connect().close()
        assert dialect.pinged == [0, 0, 0]

    def test_that_fails_replaces_all(
        self, pool: SupervisedPool, dialect: Dialect, driver: Driver
    ) -> None:
        """The client gets a new one; others of the generation are not even asked."""
        told = listen(pool, "invalidate")
        for one in [pool.connect(), pool.connect()]:
            one.close()
        for connection in driver.made:
            connection.broken = True
        one = pool.connect()
        assert one.dbapi_connection is driver.made[2]
        settle()
        assert dialect.calls.count("terminate") + dialect.calls.count("close") == 2
        assert (dialect.pinged, told) == ([1], ["invalidate"])
        one.close()

    def test_that_fails_while_the_server_is_down(
        self, pool: SupervisedPool, driver: Driver, clock: VirtualClock
    ) -> None:
        """The client gets the driver's error; the pool is whole afterwards."""
        pool.connect().close()
        driver.made[0].broken = driver.is_down = True
        client = Client(pool)
        clock.advance(30)
        assert isinstance(client.got, Driver.Error)
        driver.is_down = False
        client = Client(pool)
        clock.advance(5)
        client.let_go()
        assert pool.checkedout() == 0

    def test_is_not_repeated_within_check_after(
        self, make: Callable[..., SupervisedPool], dialect: Dialect, clock: VirtualClock
    ) -> None:
        """An option of gpool's: what was used a moment ago is trusted."""
        pool = make(pre_ping=True, dialect=dialect, check_after=0.5)
        for _ in range(3):
            pool.connect().close()
        assert dialect.pinged == []
        clock.advance(0.5)
        pool.connect().close()
        assert dialect.pinged == [0]
