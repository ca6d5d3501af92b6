"""Psycopg_pool's tests, asked of gpool: sizes, the queue, growing, shrinking, mending, closing.

Its `configure` is part of our ``create``; `drain` is our ``recycle``; its worker
threads are our ``max_starting``; those tests that only its asyncio half has are here
for greenlets.
"""

from __future__ import annotations

import logging
from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.pool import housekeeper
from gpool.pool.pool_man import START_BACKOFF
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.peers.stage import Checks, Events, leave, running, slots
from tests.pool.workshop import Client, Holder, Maker, Thing, assert_whole, check

pytestmark = pytest.mark.usefixtures("clock")


class Worker(Client):
    """A client that holds what it gets for some seconds of the virtual clock."""

    def __init__(
        self, clock: VirtualClock, pool: gpool.Pool[Any], seconds: float, **options: Any
    ) -> None:
        self.clock, self.pool, self.seconds, self.options = clock, pool, seconds, options
        self.thing: Any = None
        self.ended = 0.0  # seconds of the clock
        super().__init__(self._work)

    def _work(self) -> None:
        with self.pool.checkout(**self.options) as self.thing:
            gate = Gate()
            self.clock.call_later(self.seconds, gate.open)
            gate.wait()
        self.ended = self.clock.now()


class TestSizes:
    def test_defaults_and_a_fixed_size(self, maker: Maker) -> None:
        """`max_size=None` is our default: no overflow."""
        pool = running(maker.resource())
        stats = pool.stats()
        assert (stats.size, stats.max_overflow, stats.idle) == (5, 0, 5)
        fixed = running(maker.resource(), size=2)
        holders = [Holder(fixed) for _ in range(3)]
        assert [holder.thing is not None for holder in holders] == [True, True, False]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"size": 0}, "size: expected at least 1, or max_overflow > 0, got 0 and 0"),
            ({"size": -1}, "size: expected 0 or more, got -1"),
            ({"size": 1, "max_overflow": -1}, "max_overflow: expected 0 or more, got -1"),
            ({"size": 1, "min_ready": 2}, "min_ready: expected at most size, 1, got 2"),
        ],
    )
    def test_bad_ones_are_refused_at_construction(
        self, maker: Maker, options: dict[str, Any], words: str
    ) -> None:
        """None at all, negative ones, a minimum above the maximum."""
        with pytest.raises(ValueError, match=words):
            gpool.Pool(maker.resource(), **options)

    @pytest.mark.parametrize(("size", "overflow"), [(0, 0), (-1, None), (1, -1), (1, None)])
    def test_bad_ones_are_refused_at_a_resize(
        self, maker: Maker, size: int, overflow: int | None
    ) -> None:
        """The same, and nothing has changed; the last one is below `min_ready`."""
        pool = running(maker.resource(), size=2, min_ready=2)
        with pytest.raises(ValueError, match="expected"):
            pool.resize(size, overflow)
        assert (pool.stats().size, pool.stats().idle) == (2, 2)

    def test_a_resize_up_fills_and_down_shrinks(self, maker: Maker) -> None:
        """What is missing is started, what is too many goes, in hands when it comes back."""
        pool = running(maker.resource(), size=2)
        pool.resize(4)
        settle()
        assert (pool.stats().idle, maker.open) == (4, 4)
        holders = [Holder(pool) for _ in range(4)]
        pool.resize(2)
        assert pool.stats().busy == 4
        for holder in holders:
            holder.let_go()
        assert (pool.stats().idle, maker.open) == (2, 2)
        assert_whole(pool)


class TestIsReallyAPool:
    def test_the_same_again(self, maker: Maker) -> None:
        """What came back is lent again."""
        pool = running(maker.resource(), size=1)
        assert leave(pool) is leave(pool)

    def test_not_lost_when_the_block_raises(self, maker: Maker) -> None:
        """With a `reset`, its rollback, the same is lent again; without one it is replaced."""
        pool = running(maker.resource(reset=maker.reset), size=1)
        assert leave(pool, KeyError()) is leave(pool)
        strict = running(maker.resource(), size=1)
        assert leave(strict, KeyError()) is not leave(strict)
        assert_whole(strict)

    def test_all_are_used_alike(self, maker: Maker) -> None:
        """With the one lent first that was not used for the longest time."""
        pool = running(maker.resource(), size=4, strategy="fifo")
        used = [leave(pool).number for _ in range(40)]
        assert {used.count(number) for number in (1, 2, 3, 4)} == {10}


class TestFilling:
    def test_so_many_at_once(self, maker: Maker) -> None:
        """Never more than `max_starting` connects, and no fewer while enough are missing."""
        gates = [Gate() for _ in range(5)]
        maker.creates.extend([gate.wait for gate in gates])
        pool = running(maker.resource(), size=5, max_starting=2)
        seen = [maker.open - len(maker.made)]
        for gate in gates:
            gate.open()
            settle()
            seen.append(maker.open - len(maker.made))
        assert seen == [2, 2, 2, 2, 1, 0]
        assert pool.stats().idle == 5

    def test_waiting_for_it_twice(self, maker: Maker) -> None:
        """The second time it is ready already."""
        pool = running(maker.resource(), size=2)
        pool.wait_ready(timeout=0)
        pool.wait_ready(timeout=0)

    def test_waiting_for_it_in_vain(self, clock: VirtualClock, maker: Maker) -> None:
        """Psycopg_pool closes then; gpool says why, and goes on trying."""
        error = OSError("down")
        maker.creates.extend([error] * 100)
        pool = running(maker.resource(), size=1)
        client = Client(pool.wait_ready, timeout=1.0)
        clock.advance(1.0)
        assert isinstance(client.error, gpool.PoolNotReady)
        assert client.error.__cause__ is error
        maker.creates.clear()
        clock.advance(START_BACKOFF.maximum)
        pool.wait_ready(timeout=0)

    def test_waiting_for_a_closed_one(self, maker: Maker) -> None:
        """It is refused."""
        pool = running(maker.resource(), size=1)
        pool.stop()
        with pytest.raises(gpool.PoolClosed):
            pool.wait_ready()

    def test_the_server_is_absent_at_first(self, clock: VirtualClock, maker: Maker) -> None:
        """The start goes well; who waits is served when the server appears."""
        maker.creates.extend([OSError("down")] * 6)
        pool = running(maker.resource(), size=1)
        client = Worker(clock, pool, 0.0, timeout=30.0)
        clock.advance(30.0)
        assert client.thing is maker.made[0]
        assert client.error is None


class TestOpen:
    def test_at_the_first_use(self, maker: Maker) -> None:
        """There is no "not open yet": the first checkout opens it."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        assert maker.made == []
        assert leave(pool) is maker.made[0]

    def test_twice(self, maker: Maker) -> None:
        """The second time nothing happens."""
        pool = running(maker.resource(), size=1)
        pool.start()
        settle()
        assert (pool.stats().epoch, len(maker.made)) == (1, 1)

    def test_again_after_the_end(self, maker: Maker) -> None:
        """Psycopg_pool refuses that; gpool does not, when it is told in so many words."""
        pool = running(maker.resource(), size=1)
        pool.stop()
        with pytest.raises(gpool.PoolClosed):
            pool.checkout()
        pool.start()
        assert leave(pool) is maker.made[1]

    def test_by_with(self, maker: Maker) -> None:
        """It is open within, and closed after."""
        with gpool.Pool(maker.resource(), size=1) as pool:
            assert pool.healthy()
        assert not pool.healthy()
        assert maker.open == 0


class TestHooks:
    def test_configure_runs_once_for_each(self, maker: Maker) -> None:
        """It is part of `create`, however often the thing is lent."""
        configured: list[int] = []
        maker.creates.extend([lambda: configured.append(1)] * 2)
        pool = running(maker.resource(reset=maker.reset), size=1)
        for _ in range(5):
            leave(pool)
        assert configured == [1]
        pool.checkout().discard()
        settle()
        assert configured == [1, 1]

    def test_configure_raises(self, clock: VirtualClock, maker: Maker) -> None:
        """It is a start that failed: told, and made again."""
        error = ValueError("bad")
        maker.creates.append(error)
        with Events() as events:
            pool = running(maker.resource(), size=1)
            clock.advance(START_BACKOFF.first)
        [failed] = events.of(telemetry.WorkerStartFailed)
        assert failed.reason.exception is error
        assert pool.stats().idle == 1

    def test_reset_runs_at_every_return(self, maker: Maker) -> None:
        """Before the next client has it."""
        pool = running(maker.resource(reset=maker.reset), size=1)
        assert [leave(pool).resets for _ in range(3)] == [1, 2, 3]
        assert maker.faults == []

    @pytest.mark.parametrize("how", ["reset raises", "rollback raises", "is busy", "is broken"])
    def test_one_that_is_not_fit_is_replaced(self, maker: Maker, how: str) -> None:
        """And that is told once."""
        hooks: dict[str, Any] = {
            "reset raises": {"reset": maker.reset},
            "rollback raises": {"reset": maker.reset},
            "is busy": {"is_dirty": lambda thing: True},
            "is broken": {"is_broken": lambda error, thing: True},
        }
        pool = running(maker.resource(**hooks[how]), size=1)
        maker.resets.append(OSError("gone"))
        with Events() as events:
            leave(pool, None if how in ("reset raises", "is busy") else KeyError())
        assert [thing.closed for thing in maker.made] == [True, False]
        assert len(events.of(telemetry.WorkerStopping)) == 1
        assert len(events.of(telemetry.HookFailed)) == ("raises" in how)
        assert pool.stats().idle == 1

    def test_a_reset_that_leaves_it_bad(self, maker: Maker) -> None:
        """It says nothing: the check before the next checkout finds out."""
        pool = running(
            maker.resource(
                reset=lambda thing: setattr(thing, "dirty", True),
                check=lambda thing: not thing.dirty,
            ),
            size=1, check_after=0,
        )  # fmt: skip
        assert leave(pool) is maker.made[0]
        assert leave(pool) is maker.made[1]
        assert maker.made[0].closed

    def test_what_is_created_may_change(self, clock: VirtualClock) -> None:
        """`create` is asked for each one: a DSN that changed is the new one's."""
        dsns = iter(["old", "new"])
        pool = running(gpool.Resource(create=lambda: next(dsns)), size=1)
        assert leave(pool) == "old"
        pool.checkout().discard()
        settle()
        assert leave(pool) == "new"

    def test_what_is_created_cannot_be_told(self, clock: VirtualClock, maker: Maker) -> None:
        """It is asked again and again; who waits times out with that as the cause."""
        error = LookupError("no password")
        maker.creates.extend([error] * 100)
        pool = running(maker.resource(), size=1)
        client = Client(pool.checkout, timeout=1.0)
        clock.advance(1.0)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        assert client.error.__cause__ is error
        assert pool.stats().start_failures > 1


class TestQueue:
    def test_six_jobs_of_two(self, clock: VirtualClock, maker: Maker) -> None:
        """They end two by two, with only two things in use."""
        pool = running(maker.resource(), size=2)
        begun = clock.now()
        clients = [Worker(clock, pool, 0.2) for _ in range(6)]
        clock.advance(1.0)
        ends = [round(client.ended - begun, 3) for client in clients]
        assert ends == [0.2, 0.2, 0.4, 0.4, 0.6, 0.6]
        assert {client.thing for client in clients} == set(maker.made)
        assert len(maker.made) == 2

    def test_too_many(self, clock: VirtualClock, maker: Maker) -> None:
        """The fifth is told at once, with the pool's name and the limit, and counted."""
        pool = running(maker.resource(), size=1, max_waiting=3, name="db")
        clients = [Worker(clock, pool, 0.2) for _ in range(5)]
        settle()
        assert isinstance(clients[4].error, gpool.PoolFull)
        assert "'db'" in str(clients[4].error)
        assert (clients[4].error.max_waiting, pool.stats().refused) == (3, 1)
        clock.advance(1.0)
        assert [client.error for client in clients[:4]] == [None] * 4

    def test_its_timeout(self, clock: VirtualClock, maker: Maker) -> None:
        """Those for whom it is too late raise, at the very moment."""
        pool = running(maker.resource(), size=2, timeout=0.2)
        clients = [Worker(clock, pool, 0.5) for _ in range(4)]
        clock.advance(0.19)
        assert [client.done for client in clients] == [False] * 4
        clock.advance(0.01)
        assert [type(client.error) for client in clients[2:]] == [gpool.CheckoutTimeout] * 2
        clock.advance(1.0)
        assert [client.error for client in clients[:2]] == [None] * 2

    def test_a_timeout_of_ones_own(self, clock: VirtualClock, maker: Maker) -> None:
        """It counts, not the pool's."""
        pool = running(maker.resource(), size=2, timeout=0.2)
        clients = [Worker(clock, pool, 0.5) for _ in range(3)]
        clients.append(Worker(clock, pool, 0.5, timeout=0.6))
        clock.advance(2.0)
        assert [client.error is None for client in clients] == [True, True, False, True]

    def test_a_dead_client_swallows_nothing(self, clock: VirtualClock, maker: Maker) -> None:
        """One that has timed out is passed over when something comes back."""
        pool = running(maker.resource(), size=1)
        holder, late, next_one = Holder(pool), Holder(pool, timeout=0.1), Holder(pool)
        clock.advance(0.1)
        assert late.done
        holder.let_go()
        assert next_one.thing is holder.thing
        next_one.let_go()
        assert_whole(pool, maker)

    @pytest.mark.parametrize("how", ["kill", "cut"])
    def test_all_are_cancelled(self, maker: Maker, how: str) -> None:
        """Those that wait and those that hold: all comes back, nobody waits."""
        pool = running(maker.resource(), size=2)
        clients = [Holder(pool) for _ in range(6)]
        for client in clients:
            getattr(client, how)()
        settle()
        assert (pool.stats().busy, pool.stats().waiting) == (0, 0)
        assert_whole(pool)

    def test_cancelled_between_grant_and_wake_up(self, maker: Maker) -> None:
        """What it was granted goes on to the next one."""
        pool = running(maker.resource(), size=1)
        holder, first, second = pool.checkout(), Holder(pool), Holder(pool)
        holder.checkin()
        first.kill()
        settle()
        assert (first.thing, second.thing) == (None, maker.made[0])

    def test_cancelled_during_the_check(self, maker: Maker) -> None:
        """The check goes on, and what was checked is not lost."""
        gate = Gate()
        pool = running(maker.resource(check=Checks(lambda _: gate.wait())), size=1, check_after=0)
        client = Holder(pool)
        assert pool.stats().resetting == 1
        client.kill()
        settle()
        gate.open()
        settle()
        assert (pool.stats().idle, len(maker.made)) == (1, 1)
        assert_whole(pool, maker)

    def test_cancelled_during_the_reset(self, maker: Maker) -> None:
        """It is none of the client's business: it goes on to its end."""
        gate = Gate()
        maker.resets.append(gate.wait)
        pool = running(maker.resource(reset=maker.reset), size=1)
        client = Holder(pool)
        client.let_go()
        assert client.done
        client.kill()
        settle()
        assert pool.stats().resetting == 1
        gate.open()
        settle()
        assert (pool.stats().idle, maker.made[0].resets) == (1, 1)


class TestGrowing:
    def test_what_comes_back_beats_a_slow_connect(self, clock: VirtualClock, maker: Maker) -> None:
        """Who waits gets whatever is there first; what was begun for it stays."""
        pool = running(maker.resource(), size=1, max_overflow=1)
        gate = Gate()
        maker.creates.append(gate.wait)
        first, second = Worker(clock, pool, 0.1), Worker(clock, pool, 0.1)
        clock.advance(0.1)
        assert second.thing is maker.made[0]
        gate.open()
        clock.advance(0.1)
        assert (first.done, second.done, pool.stats().idle) == (True, True, 2)

    def test_from_none(self, clock: VirtualClock, maker: Maker) -> None:
        """A pool of none that may have two makes them on demand."""
        pool = running(maker.resource(), size=0, max_overflow=2)
        assert maker.made == []
        clients = [Worker(clock, pool, 0.1) for _ in range(2)]
        clock.advance(0.1)
        assert [client.error for client in clients] == [None, None]
        assert len(maker.made) == 2

    def test_a_spike(self, clock: VirtualClock, maker: Maker) -> None:
        """Fifty jobs of 2 ms while a connect takes 150 ms: it adds one at most."""
        pool = running(maker.resource(), size=5, max_overflow=5, max_starting=1)

        def slow() -> None:
            gate = Gate()
            clock.call_later(0.15, gate.open)
            gate.wait()

        maker.creates.extend([slow] * 10)
        clients = [Worker(clock, pool, 0.002) for _ in range(50)]
        clock.advance(1.0)
        assert all(client.error is None and client.done for client in clients)
        assert len(maker.made) <= 6


class TestShrinking:
    def test_one_by_one_down_to_the_least(self, clock: VirtualClock, maker: Maker) -> None:
        """Each when it has been idle for so long, by its own clock."""
        pool = running(maker.resource(), size=4, min_ready=2, idle_timeout=1.0)
        holders = [Holder(pool) for _ in range(4)]
        seen = []
        for holder in holders:
            holder.let_go()
            clock.advance(0.25)
        for _ in range(4):
            seen.append(maker.open)
            clock.advance(0.25)
        assert seen == [3, 2, 2, 2]


class TestReturning:
    def test_a_foreign_one(self, maker: Maker) -> None:
        """What is no lease, or another pool's, is refused."""
        pool, other = running(maker.resource(), size=1), running(maker.resource(), size=1)
        with pytest.raises(TypeError, match="expected a Lease"):
            pool.checkin(Thing(maker, 0))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="expected one of pool"):
            pool.checkin(other.checkout())


class TestReconnecting:
    def test_the_delays_double(self, clock: VirtualClock, maker: Maker) -> None:
        """Up to their bounds: each is drawn anywhere below (full jitter), and that is told."""
        maker.creates.extend([OSError("down")] * 100)
        with Events() as events:
            running(maker.resource(), size=1)
            for _ in range(300):
                clock.advance(0.25)
        delays = [event.delay for event in events.of(telemetry.WorkerStartFailed)]
        bounds = [min(START_BACKOFF.first * 2**n, START_BACKOFF.maximum) for n in range(100)]
        assert all(delay <= bound for delay, bound in zip(delays, bounds, strict=False))
        assert len(delays) > 12
        assert max(delays) > 1.0

    def test_after_so_many_failures_it_gives_up(self, clock: VirtualClock, maker: Maker) -> None:
        """`reconnect_failed`: listeners are told of the pool; who waits is told at once."""
        maker.creates.extend([OSError("down")] * 3)
        with Events() as events:
            pool = running(maker.resource(), size=1, max_start_failures=3, name="db")
            client = Client(pool.checkout, timeout=None)
            clock.advance(0.2)
        [failed] = events.of(telemetry.PoolHasFailed)
        assert failed.pool == "db"
        assert isinstance(client.error, gpool.PoolFailed)

    def test_it_revives(self, clock: VirtualClock, maker: Maker) -> None:
        """By itself, where psycopg_pool needs a client who asks."""
        maker.creates.extend([OSError("down")] * 3)
        with Events() as events:
            pool = running(maker.resource(), size=1, max_start_failures=3)
            clock.advance(1.0)
        assert len(events.of(telemetry.PoolHasFailed)) == 1
        assert leave(pool) is maker.made[0]
        assert_whole(pool)

    def test_it_revives_after_it_failed_to_grow(self, clock: VirtualClock, maker: Maker) -> None:
        """What it has goes on being lent; it grows when that is possible again."""
        pool = running(maker.resource(), size=1, max_overflow=1)
        maker.creates.extend([OSError("down")] * 3)
        holder, waiter = Holder(pool), Holder(pool, timeout=30.0)
        assert pool.stats().start_failures == 1
        clock.advance(1.0)
        assert waiter.thing is maker.made[1]
        assert holder.error is None

    def test_an_empty_pool_is_filled_without_being_asked(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """There is no `check()` to call: starts go on until all are there."""
        pool = running(maker.resource(), size=3)
        maker.creates.extend([OSError("down")] * 8)
        for slot in slots(pool):
            gpool.exit(slot.pid, "kill")
        settle()
        assert pool.stats().idle == 0
        for _ in range(60):
            clock.advance(1.0)
        assert pool.stats().idle == 3


class TestLifetime:
    def test_rotates(self, clock: VirtualClock, maker: Maker) -> None:
        """All are replaced, one that is lent when it comes back; it may be early by a tenth."""
        pool = running(maker.resource(), size=2, max_age=10.0)
        holder = Holder(pool)
        clock.advance(8.9)
        assert len(maker.made) == 2
        clock.advance(1.1)
        assert [thing.closed for thing in maker.made] == [True, False, False]
        assert holder.thing is maker.made[1]
        holder.let_go()
        assert [thing.closed for thing in maker.made] == [True, True, False, False]

    def test_the_jitter_stays_in_its_range(self, clock: VirtualClock, maker: Maker) -> None:
        """0.9 to 1.0 of `max_age`, not all the same."""
        pool = running(maker.resource(), size=50, max_age=100.0, max_starting=None)
        ages = [slot.expires - clock.now() for slot in slots(pool)]
        assert all(90.0 <= age <= 100.0 for age in ages)
        assert max(ages) - min(ages) > 1.0

    def test_the_check_of_those_that_are_idle(self, clock: VirtualClock, maker: Maker) -> None:
        """It replaces what is dead, and leaves what is alive idle, in its order.

        One that is dead makes gpool look at the others of its age as well: here a check
        of every one finds out.
        """
        dead = Checks(None, None, None)
        pool = running(maker.resource(check=dead), size=3, keepalive=10.0)
        clock.advance(10.0)
        assert sorted(dead.seen) == [1, 2, 3]
        assert (pool.stats().idle, len(maker.made)) == (3, 3)
        dead.script.append(False)
        clock.advance(10.0)
        assert pool.stats().idle == 3
        assert_whole(pool)


class TestCheck:
    def test_a_dead_one_is_skipped(self, maker: Maker) -> None:
        """The client does not notice."""
        pool = running(maker.resource(check=Checks(OSError("gone"))), size=1, check_after=0)
        assert leave(pool) is maker.made[1]

    def test_its_time_is_the_checkouts(self, clock: VirtualClock, maker: Maker) -> None:
        """A check that hangs does not keep the client longer than it would wait."""
        checks = Checks(*[lambda _: Gate().wait()] * 10)
        pool = running(maker.resource(check=checks), size=1, check_after=0)
        client = Client(pool.checkout, timeout=1.0)
        clock.advance(1.0)
        assert isinstance(client.error, gpool.CheckoutTimeout)

    def test_many_dead_ones_are_no_busy_loop(self, clock: VirtualClock, maker: Maker) -> None:
        """A fresh one is lent unchecked, so each client costs one check and one connect."""
        pool = running(maker.resource(check=Checks(*[False] * 10)), size=1, check_after=1.0)
        for number in range(1, 6):
            clock.advance(1.0)
            assert leave(pool).number == number + 1

    def test_one_that_fails_does_not_spoil_a_good_one(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """The dead one's replacement is clean, and lent."""

        def spoil(thing: Thing) -> bool:
            thing.dirty = True
            return False

        pool = running(
            maker.resource(check=Checks(spoil), is_dirty=lambda t: t.dirty), size=2, check_after=0
        )
        thing = leave(pool)
        assert not thing.dirty
        assert not thing.closed


class TestClosing:
    def test_who_waits_is_told(self, maker: Maker) -> None:
        """At once; who holds finishes, and what it held is closed then."""
        pool = running(maker.resource(), size=1)
        holder, waiter = Holder(pool), Holder(pool)
        pool.stop()
        settle()
        assert isinstance(waiter.error, gpool.PoolClosed)
        assert not maker.made[0].closed
        holder.let_go()
        assert holder.error is None
        assert maker.made[0].closed
        assert maker.faults == []

    def test_nothing_is_left(self, maker: Maker) -> None:
        """No process, no worker, no client, no timer."""
        pool = running(maker.resource(check=lambda _: None), size=3, keepalive=10.0, max_age=9.0)
        own = {"WorkerSup", "PoolMan", "ResourceOwner"}
        assert own <= {pid.initial_call for pid in gpool.processes()}
        leave(pool)
        pool.stop()
        settle()
        assert not own & {pid.initial_call for pid in gpool.processes()}
        ledger: Any = pool._ledger
        assert (slots(pool), ledger.clients, maker.open) == ([], {}, 0)
        assert not ledger.queue.line

    def test_a_listener_that_logs_and_looks(
        self, maker: Maker, caplog: pytest.LogCaptureFixture
    ) -> None:
        """There is no lock that it could wait for: it may ask the pool itself."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2)
        log = logging.getLogger("tests.psycopg_pool")

        def listen(event: telemetry.Event) -> None:
            log.debug("%r %r %r", event, pool.stats(), pool.holders())

        telemetry.attach(listen)
        try:
            with caplog.at_level(logging.DEBUG), pool:
                clients = [Client(leave, pool) for _ in range(5)]
                settle()
        finally:
            telemetry.detach(listen)
        assert [client.error for client in clients] == [None] * 5
        assert "PoolStopped" in caplog.text


class TestStats:
    def test_measures(self, maker: Maker) -> None:
        """What there is now."""
        pool = running(maker.resource(), size=2, max_overflow=1, overflow_ttl=None)
        holders = [Holder(pool) for _ in range(4)]
        stats = pool.stats()
        assert (stats.size, stats.max_overflow) == (2, 1)
        assert (stats.busy, stats.idle, stats.overflow, stats.waiting) == (3, 0, 1, 1)
        for holder in holders:
            holder.let_go()
        stats = pool.stats()
        assert (stats.busy, stats.idle, stats.waiting) == (0, 3, 0)

    def test_counters(self, clock: VirtualClock, maker: Maker) -> None:
        """What has happened since the start; a meter hears of each use, its wait and length."""
        waits: list[float] = []
        uses: list[float] = []

        class Meter:
            def __call__(self, event: telemetry.Event) -> None:
                """Take no note."""

            def checked_out(self, lease: Any, now: float) -> None:
                waits.append(lease.waited)

            def checked_in(self, lease: Any, now: float) -> None:
                uses.append(now - lease.since)

        meter = Meter()
        telemetry.attach(meter)
        try:
            maker.creates.append(OSError("down"))
            pool = running(maker.resource(), size=1)
            clock.advance(1.0)
            clients = [Worker(clock, pool, 0.5) for _ in range(2)]
            clients.append(Worker(clock, pool, 0.5, timeout=0.1))
            clock.advance(2.0)
        finally:
            telemetry.detach(meter)
        assert waits == pytest.approx([0.0, 0.5])
        assert uses == pytest.approx([0.5, 0.5])
        stats = pool.stats()
        assert (stats.timed_out, stats.start_failures, stats.reclaimed) == (1, 1, 0)


class TestDraining:
    def test_idle_ones_now_the_others_at_their_return(self, maker: Maker) -> None:
        """`recycle()` replaces all that there are."""
        pool = running(maker.resource(), size=2)
        holder = Holder(pool)
        pool.recycle()
        settle()
        assert [thing.closed for thing in maker.made] == [True, False, False]
        holder.let_go()
        assert [thing.closed for thing in maker.made] == [True, True, False, False]
        assert_whole(pool, maker)


class TestTasks:
    """Its scheduler is our Housekeeper: what a pool does because time passes."""

    def test_an_earlier_one_comes_first(self, clock: VirtualClock, maker: Maker) -> None:
        """One that is set later but due sooner does not wait for the others."""
        pool = running(maker.resource(), size=2, max_age=100.0)
        pool.recycle(within=20.0)  # one now, one in 10 s
        settle()
        assert len(maker.made) == 3
        clock.advance(10.0)
        assert len(maker.made) == 4

    def test_one_that_fails_does_not_stop_the_others(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """A check that raises, a listener that raises: the next round comes all the same."""

        def listen(event: telemetry.Event) -> None:
            if not isinstance(event, telemetry.ListenerFailed):
                raise ValueError("bad listener")

        telemetry.attach(listen)
        try:
            checks = Checks(OSError("gone"))
            pool = running(maker.resource(check=checks), size=1, keepalive=10.0)
            clock.advance(30.0)
        finally:
            telemetry.detach(listen)
        assert checks.seen == [1, 2, 2]
        check(pool)

    def test_none_while_there_is_nothing_to_do(self, clock: VirtualClock, maker: Maker) -> None:
        """No timer runs; the first task sets one, however long that was."""
        pool = running(maker.resource(), size=1)
        clock.advance(100.0)
        assert clock.next_due() is None
        holder, waiter = Holder(pool), Holder(pool, timeout=None)
        assert clock.next_due() == pytest.approx(housekeeper.SWEEP)
        holder.let_go()
        waiter.let_go()
        clock.advance(housekeeper.SWEEP)
        assert clock.next_due() is None


def test_many_greenlets_at_once(maker: Maker) -> None:
    """A hundred clients of four things: never more than four, and each is served."""
    pool = running(maker.resource(), size=4)

    def use() -> None:
        with pool.checkout(timeout=None) as thing, thing.used():
            gevent.sleep(0)

    clients = [Client(use) for _ in range(100)]
    settle()
    assert [client.error for client in clients] == [None] * 100
    assert (maker.peak, maker.faults) == (4, [])
