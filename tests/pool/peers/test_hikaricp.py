"""HikariCP's tests, asked of gpool: counts, eviction, outages, suspension, shutdown, leaks.

Its `softEvictConnections` is our ``recycle``, `evictConnection` our ``discard``,
`keepaliveTime` our ``keepalive``, `leakDetectionThreshold` our ``max_hold``,
`initializationFailTimeout` our ``wait_ready``.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.pool.pool_man import START_BACKOFF
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.peers.stage import Checks, Events, leave, running, slots
from tests.pool.workshop import Client, Holder, Maker, Thing, assert_whole, check

pytestmark = pytest.mark.usefixtures("clock")


def total(pool: gpool.Pool[Any]) -> tuple[int, int, int]:
    """Return how many workers there are, how many of them idle, how many lent."""
    stats = pool.stats()
    return stats.accounted, stats.idle, stats.busy


class TestLease:
    def test_counts_are_exact(self, maker: Maker) -> None:
        """After each checkout and each checkin."""
        pool = running(maker.resource(), size=5, lazy=True)
        assert total(pool) == (0, 0, 0)
        first, second = pool.checkout(), pool.checkout()
        assert total(pool) == (2, 0, 2)
        first.checkin()
        assert total(pool) == (2, 1, 1)
        second.discard()
        settle()
        assert total(pool) == (1, 1, 0)

    def test_given_back_twice(self, maker: Maker) -> None:
        """The second time nothing happens, but is counted; nor when it is discarded then."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        lease.checkin()
        other = pool.checkout()
        lease.checkin()
        lease.discard()
        assert total(pool) == (1, 0, 1)
        assert not other.lost
        assert pool.stats().stale == 2

    def test_use_after_its_end(self, maker: Maker) -> None:
        """It is an error that says where it was checked out."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        lease.checkin()
        with pytest.raises(gpool.LeaseLost, match=r"test_hikaricp\.py:\d+"):
            _ = lease.resource


class TestAge:
    def test_an_idle_one_is_replaced_one_in_use_is_not(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """It goes when it comes back."""
        pool = running(maker.resource(), size=2, max_age=10.0)
        holder = Holder(pool)
        clock.advance(10.0)
        assert not holder.thing.closed
        assert [thing.closed for thing in maker.made] == [True, False, False]
        holder.let_go()
        assert holder.thing.closed

    @pytest.mark.parametrize("keepalive", [5.0, 20.0])
    def test_a_server_that_drops_the_idle(
        self, clock: VirtualClock, maker: Maker, keepalive: float
    ) -> None:
        """A shorter `keepalive` keeps it; with a longer one it is lost, and the next is new."""
        last_seen: dict[Thing, float] = {}

        def ping(thing: Thing) -> bool:
            alive = clock.now() - last_seen.get(thing, 1000.0) < 10.0
            last_seen[thing] = clock.now()
            return alive

        pool = running(maker.resource(check=ping), size=1, keepalive=keepalive)
        clock.advance(19.0)
        assert leave(pool) is maker.made[0 if keepalive == 5.0 else 1]
        assert_whole(pool)


class TestEviction:
    def test_of_one_in_hand(self, maker: Maker) -> None:
        """`discard` drops it now."""
        pool = running(maker.resource(), size=1)
        pool.checkout().discard("I do not like it")
        settle()
        assert [thing.closed for thing in maker.made] == [True, False]

    def test_of_one_in_use_takes_place_at_its_return(self, maker: Maker) -> None:
        """Its holder is not disturbed."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        pool.recycle()
        settle()
        assert not holder.thing.closed
        holder.let_go()
        assert holder.thing.closed
        assert maker.faults == []

    @pytest.mark.parametrize("is_broken", [True, False])
    def test_by_an_exception(self, maker: Maker, is_broken: bool) -> None:
        """An SQL state that says so has it closed at its return; `is_broken` decides."""
        told = {"08006": is_broken}
        resource = maker.resource(
            reset=maker.reset, is_broken=lambda error, thing: told[str(error)]
        )
        pool = running(resource, size=1)
        leave(pool, OSError("08006"))
        assert maker.made[0].closed == is_broken

    def test_of_all_fills_up_again(self, maker: Maker) -> None:
        """To as many as there should be, though nobody waits."""
        pool = running(maker.resource(), size=3)
        pool.recycle()
        settle()
        assert (total(pool), maker.open) == ((3, 3, 0), 3)
        assert [thing.closed for thing in maker.made] == [True] * 3 + [False] * 3

    def test_of_one_is_made_up_for(self, maker: Maker) -> None:
        """One evicted, one made."""
        pool = running(maker.resource(), size=3)
        for number in range(4, 8):
            pool.checkout().discard()
            settle()
            assert (len(maker.made), pool.stats().idle) == (number, 3)


class TestSize:
    @pytest.mark.parametrize("options", [{"size": 4}, {"size": 0, "max_overflow": 4}])
    def test_twenty_clients_four_connects(self, maker: Maker, options: dict[str, Any]) -> None:
        """Exactly four, however they interleave."""
        pool = running(maker.resource(), **options)

        def use() -> None:
            for _ in range(5):
                with pool.checkout(timeout=None) as thing, thing.used():
                    gevent.sleep(0)

        clients = [Client(use) for _ in range(20)]
        settle()
        assert [client.error for client in clients] == [None] * 20
        assert (len(maker.made), maker.faults) == (4, [])

    def test_a_saturated_pool_recovers(self, clock: VirtualClock, maker: Maker) -> None:
        """Time-outs end once there is less to do than it can."""
        pool = running(maker.resource(), size=2, timeout=1.0)
        failed: list[bool] = []

        def use() -> None:
            try:
                with pool.checkout():
                    gate = Gate()
                    clock.call_later(0.5, gate.open)
                    gate.wait()
            except gpool.CheckoutTimeout:
                failed.append(True)

        for _ in range(40):  # 8 a second come, 4 a second can be served
            Client(use)
            clock.advance(0.125)
        assert failed
        clock.advance(2.0)
        failed.clear()
        for _ in range(20):  # 2 a second
            Client(use)
            clock.advance(0.5)
        assert failed == []
        clock.advance(1.0)
        assert_whole(pool, maker)

    def test_follows_the_clients_not_the_work(self, clock: VirtualClock, maker: Maker) -> None:
        """Five clients with a hundred jobs: five connects of fifty that there may be."""
        pool = running(maker.resource(), size=50, lazy=True)

        def work() -> None:
            for _ in range(20):
                with pool.checkout():
                    gevent.sleep(0)

        clients = [Client(work) for _ in range(5)]
        settle()
        assert all(client.done for client in clients)
        assert len(maker.made) <= 5

    def test_no_connect_after_the_demand_has_ended(self, clock: VirtualClock, maker: Maker) -> None:
        """Those that were decided on and have not begun are dropped."""
        pool = running(maker.resource(), size=0, max_overflow=50, max_starting=1)
        gate = Gate()
        maker.creates.append(gate.wait)
        clients = [Client(pool.checkout, timeout=1.0) for _ in range(50)]
        clock.advance(1.0)
        assert all(isinstance(client.error, gpool.CheckoutTimeout) for client in clients)
        gate.open()
        clock.advance(0.1)
        assert len(maker.made) == 1

    def test_ramps_up_and_down(self, clock: VirtualClock, maker: Maker) -> None:
        """Sixty while they are needed, five when they have been idle."""
        pool = running(maker.resource(), size=5, max_overflow=55, overflow_ttl=10.0)
        holders = [Holder(pool) for _ in range(60)]
        assert total(pool) == (60, 0, 60)
        for holder in holders:
            holder.let_go()
        clock.advance(9.9)
        assert total(pool) == (60, 60, 0)
        clock.advance(0.1)
        assert total(pool) == (5, 5, 0)
        assert maker.open == 5

    def test_needs_none_idle(self, maker: Maker) -> None:
        """`minimumIdle=0`: nothing is opened before somebody asks."""
        pool = running(maker.resource(), size=10, lazy=True)
        assert maker.made == []
        leave(pool)
        assert len(maker.made) == 1


class TestSuspension:
    def test_holds_borrowers_until_it_resumes(self, clock: VirtualClock, maker: Maker) -> None:
        """Who waits without limit waits; HikariCP's deadlines stand still, gpool's do not."""
        pool = running(maker.resource(), size=2)
        pool.suspend()
        patient, hasty = Holder(pool, timeout=None), Holder(pool, timeout=1.0)
        clock.advance(60.0)
        assert patient.thing is None
        assert isinstance(hasty.error, gpool.CheckoutTimeout)
        assert pool.stats().suspended
        pool.resume()
        settle()
        assert patient.thing is not None

    def test_refuses_who_does_not_wait(self, maker: Maker) -> None:
        """The "throw if suspended" way is ``timeout=0``."""
        pool = running(maker.resource(), size=1)
        pool.suspend()
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        pool.resume()
        pool.checkout(timeout=0).checkin()

    def test_what_comes_back_is_kept_for_them(self, maker: Maker) -> None:
        """In the order in which they asked."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        pool.suspend()
        first, second = Holder(pool), Holder(pool)
        holder.let_go()
        assert (first.thing, second.thing) == (None, None)
        pool.resume()
        settle()
        assert (first.thing, second.thing) == (maker.made[0], None)
        first.let_go()
        second.let_go()
        assert_whole(pool, maker)


class TestInitialization:
    def test_fails_fast(self, clock: VirtualClock, maker: Maker) -> None:
        """Whoever wants that waits until it is ready, with the driver's error as the cause."""
        error = OSError("refused")
        maker.creates.extend([error] * 100)
        pool = running(maker.resource(), size=1)
        client = Client(pool.wait_ready, timeout=0.001)
        clock.advance(0.001)
        assert isinstance(client.error, gpool.PoolNotReady)
        assert client.error.__cause__ is error

    def test_starts_anyway(self, clock: VirtualClock, maker: Maker) -> None:
        """Whoever does not, does not: it is served when the server is there."""
        maker.creates.extend([OSError("refused")] * 3)
        pool = running(maker.resource(), size=1)
        assert pool.healthy()
        clock.advance(1.0)
        assert pool.checkout(timeout=0).worker is maker.made[0]

    def test_a_first_one_that_is_not_valid(self, clock: VirtualClock, maker: Maker) -> None:
        """To validate is part of `create`: it is closed by it, and counts as failed."""

        def create() -> Thing:
            thing = maker.create()
            if len(maker.made) == 1:
                maker.close(thing)
                raise ValueError("not valid")
            return thing

        pool = running(gpool.Resource(create=create, close=maker.close), size=1)
        assert (pool.stats().start_failures, maker.open) == (1, 0)
        clock.advance(0.1)
        assert_whole(pool, maker)

    def test_a_slow_first_connect(self, clock: VirtualClock, maker: Maker) -> None:
        """Only those wait for it who need it."""
        gate = Gate()
        maker.creates.append(gate.wait)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        pool.start(timeout=0.1)
        client = Client(pool.wait_ready, timeout=10.0)
        clock.advance(5.0)
        assert not client.done
        gate.open()
        settle()
        assert (client.done, client.error) == (True, None)


class TestOutage:
    def test_waits_all_its_time(self, clock: VirtualClock, maker: Maker) -> None:
        """Then it raises, with the driver's error as the cause."""
        error = OSError("refused")
        maker.creates.extend([error] * 1000)
        pool = running(maker.resource(), size=1)
        client = Client(pool.checkout, timeout=1.0)
        clock.advance(0.99)
        assert not client.done
        clock.advance(0.01)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        assert client.error.__cause__ is error

    def test_is_served_when_the_server_is_back(self, clock: VirtualClock, maker: Maker) -> None:
        """It is back after 300 ms, well before the client would give up."""

        def refuse_at_first() -> None:
            if clock.now() < 1000.3:
                raise OSError("refused")

        maker.creates.extend([refuse_at_first] * 1000)
        pool = running(maker.resource(), size=1)
        client = Holder(pool, timeout=2.0)
        clock.advance(0.29)
        assert client.thing is None
        clock.advance(1.0)
        assert client.thing is not None

    def test_a_waiter_takes_what_comes_back(self, clock: VirtualClock, maker: Maker) -> None:
        """Though no connect succeeds."""
        pool = running(maker.resource(), size=1, max_overflow=1)
        maker.creates.extend([OSError("refused")] * 1000)
        holder, waiter = Holder(pool), Holder(pool, timeout=1.0)
        clock.advance(0.8)
        assert waiter.thing is None
        holder.let_go()
        assert waiter.thing is holder.thing

    def test_packets_that_are_dropped(self, clock: VirtualClock, maker: Maker) -> None:
        """Nothing answers any more: no checkout exceeds its limit, the pool recovers alone."""
        cable = Gate()
        cable.open()

        def send(thing: Thing | None = None) -> None:
            if not cable.is_open:
                Gate().wait()

        maker.creates.extend([send] * 1000)
        pool = running(
            maker.resource(check=send),
            size=2,
            check_after=1.0,
            check_timeout=0.5,
            start_timeout=1.0,
        )
        cable.shut()
        clock.advance(2.0)
        for _ in range(5):
            client = Client(pool.checkout, timeout=1.0)
            clock.advance(1.0)
            assert isinstance(client.error, gpool.CheckoutTimeout)
        cable.open()
        clock.advance(2 * START_BACKOFF.maximum)
        assert_whole(pool)


class TestShutdown:
    def test_during_connects(self, clock: VirtualClock, maker: Maker) -> None:
        """They are cut; nothing that they have opened is left."""
        maker.creates.extend([Gate().wait] * 3)
        pool = running(maker.resource(), size=3)
        client = Client(pool.stop, timeout=1.0)
        clock.advance(1.0)
        assert client.done
        assert (maker.open, slots(pool)) == (0, [])

    def test_when_all_are_idle(self, maker: Maker) -> None:
        """They are closed."""
        pool = running(maker.resource(), size=3)
        pool.stop()
        assert (maker.open, slots(pool)) == (0, [])

    def test_when_all_are_lent(self, maker: Maker) -> None:
        """They are closed as they come back: HikariCP aborts them in their holders' hands."""
        pool = running(maker.resource(), size=3)
        holders = [Holder(pool) for _ in range(3)]
        pool.stop()
        assert maker.open == 3
        for holder in holders:
            holder.let_go()
        assert (maker.open, maker.faults, slots(pool)) == (0, [], [])

    def test_during_the_start(self, maker: Maker) -> None:
        """Nothing is left."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=3)
        starter = Client(pool.start)
        gevent.sleep(0)
        pool.stop()
        settle()
        assert starter.done
        assert maker.open == 0

    def test_by_several_at_once(self, maker: Maker) -> None:
        """All return when it is done."""
        pool = running(maker.resource(), size=3)
        clients = [Client(pool.stop) for _ in range(5)]
        settle()
        assert [(client.done, client.error) for client in clients] == [(True, None)] * 5
        assert maker.open == 0

    def test_and_then_a_checkout(self, maker: Maker) -> None:
        """It says what has happened."""
        pool = running(maker.resource(), size=3, name="db")
        pool.stop()
        with pytest.raises(gpool.PoolClosed, match="pool 'db' is closed"):
            pool.checkout()

    def test_of_one_that_hangs(self, clock: VirtualClock, maker: Maker) -> None:
        """A close that hangs takes no more than its time, and is begun twice."""
        maker.closes.extend([Gate().wait] * 2)
        pool = running(maker.resource(), size=1, shutdown=2.0)
        client = Client(pool.stop, timeout=10.0)
        clock.advance(4.0)
        assert client.done
        assert pool.stats().unclosed == 1


class TestConcurrency:
    def test_borrow_and_evict_from_two(self, maker: Maker) -> None:
        """Over and over: no deadlock, and nothing is lost."""
        pool = running(maker.resource(), size=4)
        dice = random.Random(1)

        def work() -> None:
            for _ in range(300):
                lease = pool.checkout(timeout=None)
                if dice.random() < 0.5:
                    gevent.sleep(0)
                lease.discard()

        clients = [Client(work) for _ in range(2)]
        settle()
        assert [(client.done, client.error) for client in clients] == [(True, None)] * 2
        assert len(maker.made) == 604
        assert_whole(pool, maker)

    def test_given_back_by_two_at_once(self, maker: Maker) -> None:
        """One of them counts."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        clients = [Client(lease.checkin) for _ in range(5)]
        settle()
        assert [client.error for client in clients] == [None] * 5
        assert (pool.stats().idle, pool.stats().stale) == (1, 4)
        check(pool)

    def test_a_close_that_hangs_takes_nothing_of_a_borrowers_time(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Who gives it back goes on at once; who comes next has the others, and its deadline."""
        maker.closes.extend([Gate().wait] * 10)
        pool = running(maker.resource(), size=2, shutdown=5.0)
        before = clock.now()
        pool.checkout().discard()
        assert clock.now() == before
        other = pool.checkout(timeout=0)
        late = Client(pool.checkout, timeout=1.0)
        clock.advance(1.0)
        assert isinstance(late.error, gpool.CheckoutTimeout)
        other.checkin()
        assert maker.peak == 2

    def test_the_first_error_is_the_one_that_is_raised(self, maker: Maker) -> None:
        """What its clean-up raises is told to listeners, and hides nothing."""
        error, before = KeyError("first"), sys.exception()

        def is_dirty(thing: Thing) -> bool:
            raise ValueError("second")

        maker.closes.append(OSError("third"))
        with Events() as events:
            pool = running(maker.resource(is_dirty=is_dirty), size=1)
            with pytest.raises(KeyError) as caught, pool.checkout():
                raise error
            settle()
        assert caught.value is error
        assert caught.value.__context__ is before  # None, as a rule
        hooks = [event.hook for event in events.of(telemetry.HookFailed)]
        assert hooks == ["is_dirty or is_broken", "close"]


class TestLeaks:
    def test_are_told_with_the_borrowers_stack(
        self, clock: VirtualClock, maker: Maker, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And logged: for how long, from which line, and where it is now."""
        pool = running(maker.resource(), size=1, max_hold=2.0, name="db")
        holder = Holder(pool)
        with Events() as events:
            clock.advance(2.0)
        [told] = events.of(telemetry.HeldTooLong)
        assert (told.process, told.pool, told.revoked) == (holder.pid, "db", False)
        assert told.seconds == pytest.approx(2.0)
        assert "in Holder._hold" in told.line
        assert any("self.gate.wait()" in frame for frame in told.stack)
        assert "has held a worker" in caplog.text
        clock.advance(10.0)
        assert pool.stats().overheld == 1
        holder.let_go()

    def test_that_were_none_are_told_as_well(
        self, clock: VirtualClock, maker: Maker, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It came back after all."""
        pool = running(maker.resource(), size=1, max_hold=2.0)
        holder = Holder(pool)
        clock.advance(3.0)
        with Events() as events:
            holder.let_go()
        [told] = events.of(telemetry.ReturnedLate)
        assert told.seconds == pytest.approx(3.0)
        assert "returned the worker" in caplog.text
        assert_whole(pool, maker)


class TestMetrics:
    def test_wait_use_and_timeouts(self, clock: VirtualClock, maker: Maker) -> None:
        """How many wait, for how long they had to, and how many gave up."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        waiter, late = Holder(pool), Holder(pool, timeout=1.0)
        assert (pool.stats().waiting, pool.stats().oldest_wait) == (2, 0.0)
        clock.advance(1.0)
        assert late.error is not None
        assert (pool.stats().waiting, pool.stats().oldest_wait) == (1, 1.0)
        [one] = pool.holders()
        assert one.age >= 1.0
        holder.let_go()
        assert pool.stats().timed_out == 1
        waiter.let_go()

    def test_of_two_pools_are_apart(self, maker: Maker) -> None:
        """Each event and each number names its pool."""
        with Events() as events:
            for name in ("a", "b"):
                running(maker.resource(), size=1, name=name).stop()
        assert {event.pool for event in events.of(telemetry.PoolEvent)} == {"a", "b"}
        assert [e.pool for e in events.of(telemetry.PoolStopped)] == ["a", "b"]


class TestConfiguration:
    @pytest.mark.parametrize(
        "option",
        [
            {"timeout": -1.0}, {"max_age": 0.0}, {"idle_timeout": -1}, {"keepalive": 0},
            {"max_hold": 0}, {"check_timeout": 0}, {"size": -1}, {"min_ready": 11},
            {"start_timeout": 0}, {"timeout": float("nan")}, {"max_age": "60"},
        ],
    )  # fmt: skip
    def test_illegal_values_are_refused(self, maker: Maker, option: dict[str, Any]) -> None:
        """HikariCP repairs some with a warning; gpool names the option and what it expects."""
        options = {"size": 10, **option}
        [name] = option
        with pytest.raises((TypeError, ValueError), match=f"{name}: expected"):
            gpool.Pool(maker.resource(check=Checks()), **options)

    def test_is_sealed(self, maker: Maker) -> None:
        """Nothing can be set but by what is there for it, such as `resize`."""
        pool = running(maker.resource(), size=1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            pool._options.size = 2  # type: ignore[misc]


class TestClock:
    def test_a_late_housekeeper_makes_up_for_it(self, clock: VirtualClock, maker: Maker) -> None:
        """However long the loop was blocked: each that is due is seen to, once."""
        pool = running(maker.resource(), size=2, max_age=10.0)
        clock._now += 1000.0  # nothing has run meanwhile
        assert leave(pool).number > 2
        clock.advance(0.0)
        assert [thing.closed for thing in maker.made[:2]] == [True, True]
        assert_whole(pool)
