"""Recycling: workers that are too old, too often used, too long idle, or told to go."""

from __future__ import annotations

from typing import Any

import pytest

import gpool
from gpool.pool.pool_man import JITTER
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import (
    Client,
    Echo,
    Events,
    Holder,
    Maker,
    assert_whole,
    books,
    check,
    fall,
    no_switch,
    pids,
    running,
    use,
)


@pytest.fixture(params=["resources", "servers"])
def kind(request: pytest.FixtureRequest, maker: Maker) -> Any:
    """Give the test things, then servers."""
    return Echo if request.param == "servers" else maker.resource()


class TestMaxAge:
    def test_while_idle(self, clock: VirtualClock, kind: Any) -> None:
        """It goes and is replaced, without anybody coming for it."""
        pool = running(kind, size=1, max_age=100.0)
        [old] = pids(pool).workers
        clock.advance(100.0 * (1 - JITTER) - 0.1)
        assert pids(pool).workers == [old]
        with Events() as events:
            clock.advance(100.0 * JITTER + 0.2)
        assert pids(pool).workers != [old]
        assert events.why() == ["max_age"]
        assert pool.stats().idle == 1

    def test_not_in_its_holders_hands(self, clock: VirtualClock, kind: Any) -> None:
        """It goes when it comes back, for all ways back, and a waiter gets its successor."""
        pool = running(kind, size=1, max_age=100.0)
        holder = Holder(pool)
        [old] = pids(pool).workers
        clock.advance(1000.0)
        assert gpool.is_alive(old)
        waiter = Holder(pool)
        holder.let_go()
        assert not gpool.is_alive(old)
        assert waiter.thing not in (None, holder.thing)

    @pytest.mark.parametrize("end", ["kill", "cut"])
    def test_one_whose_holder_dies(self, clock: VirtualClock, maker: Maker, end: str) -> None:
        """Closed once, whatever more there is against it."""
        pool = running(maker.resource(), size=1, max_age=100.0)
        holder = Holder(pool)
        clock.advance(1000.0)
        getattr(holder, end)()
        settle()
        assert_whole(pool, maker)

    def test_at_checkout(self, clock: VirtualClock, kind: Any) -> None:
        """The timer may be late; the fast path lends nothing that is too old all the same."""
        pool = running(kind, size=1, max_age=100.0)
        use(pool)
        [old] = pids(pool).workers
        clock._now += 100.0  # a turn of the loop that took so long: no timer has run
        lease = pool.checkout()
        assert not gpool.is_alive(old)
        assert lease.worker is not None

    def test_at_checkout_of_one_that_was_born_into_a_clients_hands(
        self, clock: VirtualClock, kind: Any
    ) -> None:
        """The fast way back knows no due times: they were set before."""
        pool = running(kind, size=1, lazy=True, max_age=100.0)
        lease = pool.checkout()
        lease.checkin()
        [old] = pids(pool).workers
        clock._now += 100.0
        lease = pool.checkout()
        assert pids(pool).workers != [old]

    def test_the_jitter_is_drawn_at_birth_and_spread(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """All that were made at once do not go at once, and none after `max_age`."""
        pool = running(maker.resource(), size=50, max_starting=50, max_age=1000.0)
        dues = [slot.expires - clock.now() for slot in books(pool).slots]
        assert all(1000.0 * (1 - JITTER) <= due <= 1000.0 for due in dues)
        assert max(dues) - min(dues) > 1000.0 * JITTER / 2
        assert len(set(dues)) == 50
        clock.advance(1000.0)
        assert all(thing.closed for thing in maker.made[:50])
        assert pool.stats().idle == 50
        assert maker.peak == 50

    def test_one_that_is_being_reset(self, clock: VirtualClock, maker: Maker) -> None:
        """It is closed once that is done."""
        pool, gate = running(maker.resource(reset=maker.reset), size=1, max_age=4.0), Gate()
        maker.resets.append(gate.wait)
        use(pool)
        clock.advance(4.5)
        assert (pool.stats().resetting, maker.made[0].closed) == (1, False)
        gate.open()
        settle()
        assert maker.made[0].closed
        assert_whole(pool, maker)

    def test_leaves_no_timer_when_nobody_is_left(self, clock: VirtualClock, maker: Maker) -> None:
        """What has gone is not looked after."""
        pool = running(maker.resource(), size=1, lazy=True, max_age=100.0)
        pool.checkout().discard()
        settle()
        clock.advance(100.0)
        assert clock.next_due() is None


class TestMaxUses:
    def test_after_so_many_checkouts(self, clock: VirtualClock, kind: Any) -> None:
        """The last of them is the last."""
        pool = running(kind, size=1, max_uses=3)
        [first] = pids(pool).workers
        for _ in range(2):
            use(pool)
            assert pids(pool).workers == [first]
        with Events() as events:
            use(pool)
        settle()
        assert events.why() == ["max_uses"]
        assert pids(pool).workers != [first]
        assert pool.stats().idle == 1

    def test_a_grant_that_nobody_took_is_no_use(self, clock: VirtualClock, maker: Maker) -> None:
        """Its client died before it woke."""
        pool = running(maker.resource(), size=1, max_uses=2)
        lease = pool.checkout()
        waiter = Holder(pool)
        lease.checkin()
        waiter.kill()
        settle()
        assert use(pool) is maker.made[0]
        assert_whole(pool, maker)

    def test_one_use_each(self, clock: VirtualClock, maker: Maker) -> None:
        """`max_uses=1` under load: no client waits for more than a close and a start."""
        pool = running(maker.resource(), size=2, max_uses=1)
        clients = [Client(lambda: pool.transaction(lambda thing: thing.number)) for _ in range(20)]
        settle()
        assert sorted(client.value for client in clients) == list(range(1, 21))
        assert maker.peak == 2
        assert_whole(pool, maker)

    def test_a_transferred_lease_is_one_use(self, clock: VirtualClock, maker: Maker) -> None:
        """Whoever gives it back."""
        pool = running(maker.resource(), size=1, max_uses=2)
        lease = pool.checkout()
        lease.transfer(gpool.self())
        lease.checkin()
        assert use(pool) is maker.made[0]


class TestIdleTimeout:
    def test_down_to_none(self, clock: VirtualClock, kind: Any) -> None:
        """Without `min_ready` nobody is kept, nor replaced; a client brings one back."""
        pool = running(kind, size=3, idle_timeout=10.0)
        clock.advance(9.9)
        assert pool.stats().idle == 3
        clock.advance(0.1)
        assert pool.stats().accounted == 0
        clock.advance(100.0)
        assert pool.stats().accounted == 0
        use(pool)
        assert pool.stats().idle == 1
        clock.advance(10.0)
        assert pool.stats().accounted == 0
        assert clock.next_due() is None

    def test_down_to_min_ready(self, clock: VirtualClock, maker: Maker) -> None:
        """Of these none is replaced for being idle."""
        pool = running(maker.resource(), size=5, min_ready=2, idle_timeout=10.0)
        clock.advance(1000.0)
        assert pool.stats().idle == 2
        assert maker.connects == 5

    def test_the_warmest_stay(self, clock: VirtualClock, maker: Maker) -> None:
        """Those that were used last."""
        pool = running(maker.resource(), size=3, min_ready=1, idle_timeout=10.0)
        clock.advance(5.0)
        used = use(pool)
        clock.advance(5.0)
        assert [thing.closed for thing in maker.made] == [thing is not used for thing in maker.made]

    def test_not_what_is_lent(self, clock: VirtualClock, kind: Any) -> None:
        """It counts from the moment it came back."""
        pool = running(kind, size=1, idle_timeout=10.0)
        holder = Holder(pool)
        clock.advance(100.0)
        assert pool.stats().busy == 1
        holder.let_go()
        clock.advance(9.9)
        assert pool.stats().idle == 1
        clock.advance(0.1)
        assert pool.stats().idle == 0

    def test_at_checkout(self, clock: VirtualClock, maker: Maker) -> None:
        """One that should have gone is not lent: servers hang up on those that are idle."""
        pool = running(maker.resource(), size=1, idle_timeout=10.0)
        clock._now += 10.0
        assert use(pool) is maker.made[1]
        assert maker.made[0].closed

    def test_one_that_dies_after_some_have_gone(self, clock: VirtualClock, maker: Maker) -> None:
        """It is replaced: as many are kept as were there."""
        pool = running(maker.resource(), size=3, idle_timeout=10.0)
        holder = Holder(pool)
        clock.advance(10.0)
        assert pool.stats().accounted == 1
        gpool.exit(holder.pid, "kill")
        settle()
        assert pool.stats().idle == 1
        assert maker.open == 1

    def test_after_a_fall_all_are_there_again(self, clock: VirtualClock, maker: Maker) -> None:
        """A new manager knows of no past; they go again if nobody wants them."""
        pool = running(maker.resource(), size=3, min_ready=1, idle_timeout=10.0)
        clock.advance(10.0)
        fall(pool)
        assert pool.stats().idle == 3
        clock.advance(10.0)
        assert pool.stats().idle == 1
        assert maker.open == 1

    def test_one_that_came_later_makes_the_first_superfluous(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """The first to be up was one of `min_ready`; with the second up it is not any more."""
        gate = Gate()
        maker.creates.extend([None, gate.wait])
        pool = running(maker.resource(), size=2, min_ready=1, idle_timeout=10.0)
        clock.advance(9.0)
        gate.open()
        clock.advance(1.0)
        assert [thing.closed for thing in maker.made] == [True, False]
        check(pool)


class TestRecycle:
    def test_all_at_once(self, clock: VirtualClock, kind: Any) -> None:
        """Idle ones now, those that are lent when they come back."""
        pool = running(kind, size=3)
        holder = Holder(pool)
        old = pids(pool).workers
        with Events() as events:
            pool.recycle()
            settle()
            assert [gpool.is_alive(pid) for pid in old].count(True) == 1
            holder.let_go()
        assert not any(map(gpool.is_alive, old))
        assert events.why() == ["recycled"] * 3
        assert pool.stats().idle == 3

    def test_rolling(self, clock: VirtualClock, maker: Maker) -> None:
        """One after the other, evenly: never more than one is missing, and all within the time."""
        pool = running(maker.resource(), size=4)
        pool.recycle(within=40.0)
        for gone in range(1, 5):
            settle()
            assert sum(thing.closed for thing in maker.made) == gone
            assert pool.stats().idle == 4
            clock.advance(10.0)
        clock.advance(1000.0)
        assert len(maker.made) == 8
        assert maker.peak == 4
        assert_whole(pool, maker)

    def test_never_blocks(self, clock: VirtualClock, maker: Maker) -> None:
        """However many there are."""
        pool = running(maker.resource(), size=3)
        with no_switch():
            pool.recycle(5.0)

    def test_one_that_is_being_started(self, clock: VirtualClock, maker: Maker) -> None:
        """It was begun before: it may have the old password, so it goes as well."""
        gate = Gate()
        maker.creates.append(gate.wait)
        pool = running(maker.resource(), size=1)
        pool.recycle()
        gate.open()
        settle()
        assert maker.made[0].closed
        assert not maker.made[1].closed
        assert_whole(pool, maker)

    def test_one_that_is_being_started_with_a_max_age(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Its age does not save it."""
        gate = Gate()
        maker.creates.append(gate.wait)
        pool = running(maker.resource(), size=1, max_age=1000.0)
        pool.recycle(within=10.0)
        gate.open()
        clock.advance(10.0)
        assert maker.made[0].closed
        assert_whole(pool, maker)

    def test_across_a_fall(self, clock: VirtualClock, maker: Maker) -> None:
        """All are new then; what was to come is over."""
        pool = running(maker.resource(), size=3)
        holder = Holder(pool)
        pool.recycle(within=30.0)
        fall(pool)
        holder.let_go()
        assert [thing.closed for thing in maker.made[:3]] == [True] * 3
        made = len(maker.made)
        clock.advance(60.0)
        assert len(maker.made) == made
        assert_whole(pool, maker)

    def test_while_starts_fail(self, clock: VirtualClock, maker: Maker) -> None:
        """Those that are not yet due go on serving; the breaker bounds the connects."""
        pool = running(maker.resource(), size=2)
        maker.creates.extend([OSError("down")] * 3)
        pool.recycle(within=60.0)
        settle()
        assert use(pool) is not None
        clock.advance(120.0)
        assert_whole(pool, maker)
        assert all(thing.closed for thing in maker.made[:2])

    def test_while_suspended(self, clock: VirtualClock, maker: Maker) -> None:
        """They go; their successors come when it is resumed."""
        pool = running(maker.resource(), size=2)
        pool.suspend()
        pool.recycle()
        settle()
        assert (pool.stats().accounted, maker.open) == (0, 0)
        pool.resume()
        settle()
        assert_whole(pool, maker)

    def test_in_a_lazy_pool(self, clock: VirtualClock, maker: Maker) -> None:
        """Nobody is replaced whom nobody wants."""
        pool = running(maker.resource(), size=2, lazy=True)
        use(pool)
        pool.recycle()
        settle()
        assert maker.open == 0

    def test_before_the_start_and_after_the_stop(self, clock: VirtualClock, maker: Maker) -> None:
        """There is nobody to replace."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        pool.recycle()
        assert maker.connects == 0
        pool.start()
        settle()
        pool.stop()
        pool.recycle()
        assert maker.connects == 1

    @pytest.mark.parametrize("within", [None, -1, "1", True, float("nan"), float("inf")])
    def test_refuses_what_is_no_time(self, maker: Maker, within: Any) -> None:
        """Bad input: expected and got."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource())
        with pytest.raises((TypeError, ValueError), match=r"within: expected seconds.*, got "):
            pool.recycle(within)
