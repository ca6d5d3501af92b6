"""PoolMan: decides, bounds what takes time, and tells the listeners."""

from __future__ import annotations

from typing import Any

import pytest

import gpool
from gpool import telemetry
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import Client, Echo, Holder, Maker, assert_whole, check


def running(worker: Any, **options: Any) -> gpool.Pool[Any]:
    """Return a running pool."""
    pool: gpool.Pool[Any] = gpool.Pool(worker, **options)
    pool.start()
    settle()
    return pool


def man(pool: gpool.Pool[Any]) -> Any:
    """Return the manager."""
    ledger: Any = pool._ledger
    return ledger.man


class TestFinish:
    def request(self, pool: gpool.Pool[Any], gate: Gate) -> tuple[Client, Any]:
        """Have a client die with a request unanswered; return it and the worker."""
        workers: list[Any] = []

        def client() -> None:
            with pool.checkout() as echo:
                workers.append(echo)
                echo.say(1, gate)

        one = Client(client)
        settle()
        one.kill()
        settle()
        return one, workers[0]

    def test_a_worker_with_an_unanswered_request(self, clock: VirtualClock) -> None:
        """Rule 7: it finishes, still accounted, and is idle at its reply."""
        pool, gate = running(Echo, size=1), Gate()
        _, echo = self.request(pool, gate)
        assert (pool.stats().finishing, pool.stats().idle) == (1, 0)
        waiter = Holder(pool)
        assert waiter.thing is None
        gate.open()
        settle()
        assert waiter.thing is echo

    def test_one_that_does_not_finish_in_time(self, clock: VirtualClock) -> None:
        """Rule 7: stopped after `finish_timeout`."""
        pool = running(Echo, size=1, finish_timeout=2.0)
        _, echo = self.request(pool, Gate())
        clock.advance(1.9)
        assert gpool.is_alive(echo)
        clock.advance(0.2)
        assert not gpool.is_alive(echo)
        assert_whole(pool)

    def test_one_that_may_take_no_time(self, clock: VirtualClock) -> None:
        """`finish_timeout=0`: at once."""
        pool = running(Echo, size=1, finish_timeout=0)
        _, echo = self.request(pool, Gate())
        assert not gpool.is_alive(echo)
        assert_whole(pool)

    def test_one_that_may_take_for_ever(self, clock: VirtualClock) -> None:
        """`finish_timeout=None`."""
        pool, gate = running(Echo, size=1, finish_timeout=None), Gate()
        _, echo = self.request(pool, gate)
        clock.advance(1e6)
        assert pool.stats().finishing == 1
        gate.open()
        settle()
        assert pool.checkout().worker is echo

    def test_one_that_dies_of_it(self, clock: VirtualClock) -> None:
        """It is replaced."""
        pool = running(Echo, size=1)
        with pool.checkout() as echo, pytest.raises(gpool.ServerExited):
            echo.crash()
        settle()
        assert_whole(pool)

    def test_a_cast_that_is_still_queued(self, clock: VirtualClock) -> None:
        """Nobody waits for it, but the next client would."""
        pool, gate = running(Echo, size=1), Gate()
        with pool.checkout() as echo:
            echo.work(gate)
        assert pool.stats().finishing == 1
        gate.open()
        settle()
        assert pool.stats().idle == 1


class TestStarts:
    def test_back_off_with_jitter_while_demand_lasts(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Rule 9: from 10 ms to 5 s; they never spend an intensity."""
        maker.creates.extend([OSError("down")] * 1000)
        pool = running(maker.resource(), size=3)
        clock.advance(60.0)
        failures = pool.stats().start_failures
        assert 15 < failures < 100
        assert pool.stats().epoch == 1
        maker.creates.clear()
        clock.advance(5.0)
        assert_whole(pool, maker)

    def test_that_fail_are_told(self, clock: VirtualClock, maker: Maker) -> None:
        """With the reason and the delay."""
        seen: list[Any] = []
        maker.creates.append(OSError("down"))
        telemetry.attach(seen.append)
        pool = running(maker.resource(), size=1, name="told")
        clock.advance(1.0)
        telemetry.detach(seen.append)
        [failed] = [e for e in seen if isinstance(e, telemetry.WorkerStartFailed)]
        assert failed.pool == "told"
        assert isinstance(failed.reason.exception, OSError)
        assert 0 <= failed.delay <= 0.02
        assert [type(e).__name__ for e in seen].count("WorkerStarted") == 1
        assert pool.stats().last_start_failure is failed.reason

    def test_of_servers_whose_class_raises(self, clock: VirtualClock) -> None:
        """A constructor that raises is a failed start as well."""
        raising = [True]

        class Fragile(gpool.GenServer):
            def __init__(self) -> None:
                if raising:
                    raise ValueError(raising.pop())

        pool = running(Fragile, size=1)
        clock.advance(1.0)
        assert pool.stats().start_failures == 1
        assert_whole(pool)


class TestOverflow:
    def test_leaves_when_its_time_has_come(self, clock: VirtualClock, maker: Maker) -> None:
        """`overflow_ttl` seconds after its last use, the coldest first."""
        pool = running(maker.resource(), size=1, max_overflow=2, overflow_ttl=5.0)
        holders = [Holder(pool) for _ in range(3)]
        for holder in holders:
            holder.let_go()
            clock.advance(1.0)
        assert (pool.stats().overflow, maker.open) == (2, 3)
        clock.advance(1.9)
        assert maker.open == 3
        clock.advance(0.2)
        assert maker.open == 2
        clock.advance(10.0)
        assert (pool.stats().overflow, maker.open) == (0, 1)
        check(pool)
        assert_whole(pool, maker)

    def test_that_is_used_stays(self, clock: VirtualClock, maker: Maker) -> None:
        """Every use begins its time anew."""
        pool = running(maker.resource(), size=1, max_overflow=1, overflow_ttl=5.0)
        for _ in range(4):
            holders = [Holder(pool) for _ in range(2)]
            clock.advance(3.0)
            for holder in holders:
                holder.let_go()
            clock.advance(3.0)
        assert maker.open == 2
        assert len(maker.made) == 2


class TestSuspend:
    def test_shows_in_status(self, clock: VirtualClock, maker: Maker) -> None:
        """``sys.get_status`` shows the counts, not what is lent."""
        pool = running(maker.resource(), size=2, name="seen")
        status = gpool.sys.get_status(man(pool).pid)
        assert status.parent is pool._ledger.sup  # type: ignore[union-attr]
        assert status.state == {
            "pool": "seen", "epoch": 1, "idle": 2, "busy": 0, "starting": 0, "waiting": 0,
        }  # fmt: skip

    def test_what_happens_meanwhile_is_made_up_for(self, clock: VirtualClock, maker: Maker) -> None:
        """Deaths, returns and newcomers of a suspended time."""
        pool = running(maker.resource(), size=2)
        lease = pool.checkout()
        gpool.sys.suspend(man(pool).pid)
        [idle] = [slot for slot in pool._ledger.slots if slot.lease is None]  # type: ignore[union-attr]
        gpool.exit(idle.pid, "kill")
        waiters = [Holder(pool) for _ in range(3)]
        lease.checkin()
        clock.advance(1.0)
        assert [waiter.thing for waiter in waiters] == [None] * 3
        check(pool)
        gpool.sys.resume(man(pool).pid)
        settle()
        assert [waiter.thing is not None for waiter in waiters] == [True, True, False]


class TestListeners:
    def test_one_that_raises_harms_nobody(self, clock: VirtualClock, maker: Maker) -> None:
        """Rule 13: it becomes an event of its own."""
        seen: list[Any] = []

        def listener(event: Any) -> None:
            seen.append(type(event).__name__)
            raise ZeroDivisionError

        telemetry.attach(listener)
        try:
            pool = running(maker.resource(), size=1)
            Holder(pool).kill()
            settle()
        finally:
            telemetry.detach(listener)
        assert "PoolRose" in seen
        assert pool.stats().epoch == 1
        assert_whole(pool, maker)

    def test_strange_messages_are_dropped(self, clock: VirtualClock, maker: Maker) -> None:
        """Nobody can confuse a manager by writing to it."""
        pool = running(maker.resource(), size=1)
        gpool.send(man(pool).pid, "hello")
        gpool.send(man(pool).pid, gpool.Exit(gpool.self(), "boom"))
        gpool.exit(man(pool).pid, "boom")
        settle()
        assert pool.stats().epoch == 1
