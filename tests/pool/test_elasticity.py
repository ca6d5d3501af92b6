"""Elasticity: how many workers there are, and when one more starts or goes."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import gpool
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
    pids,
    running,
    use,
)


class TestSize:
    def test_all_start_at_once(self, clock: VirtualClock, maker: Maker) -> None:
        """An eager pool has its workers before anybody comes."""
        running(maker.resource(), size=3)
        assert maker.open == 3

    def test_lazy_ones_start_on_demand(self, clock: VirtualClock, maker: Maker) -> None:
        """One for each client that finds none, no more than `size`."""
        pool = running(maker.resource(), size=3, lazy=True)
        assert maker.connects == 0
        for _ in range(5):
            use(pool)
        assert maker.connects == 1
        holders = [Holder(pool) for _ in range(5)]
        assert maker.connects == 3
        assert [holder.thing is None for holder in holders] == [False, False, False, True, True]

    @pytest.mark.parametrize("lazy", [True, False])
    def test_what_dies_is_replaced(self, clock: VirtualClock, maker: Maker, lazy: bool) -> None:
        """At once, unless it is lazy: then when somebody comes."""
        pool = running(maker.resource(), size=2, lazy=lazy)
        use(pool)
        gpool.exit(pids(pool).workers[0], "kill")
        settle()
        assert maker.open == (0 if lazy else 2)
        assert_whole(pool, maker)


class TestMinReady:
    def test_the_rest_comes_as_well(self, clock: VirtualClock, maker: Maker) -> None:
        """Ready with two, but all of `size` are started."""
        gate = Gate()
        maker.creates.extend([None, None, gate.wait, gate.wait])
        pool = running(maker.resource(), size=4, min_ready=2)
        pool.wait_ready(timeout=0)
        gate.open()
        settle()
        assert pool.stats().idle == 4

    def test_not_with_one_less(self, clock: VirtualClock, maker: Maker) -> None:
        """It says how many are up."""
        maker.creates.extend([None, *[Gate().wait] * 3])
        pool = running(maker.resource(), size=4, min_ready=2)
        with pytest.raises(gpool.PoolNotReady, match="1 of 2 workers up"):
            pool.wait_ready(timeout=0)

    def test_a_lazy_pool_keeps_so_many(self, clock: VirtualClock, maker: Maker) -> None:
        """They are started, replaced and left by `idle_timeout`; the others come and go."""
        pool = running(maker.resource(), size=4, min_ready=2, lazy=True, idle_timeout=10.0)
        assert maker.open == 2
        gpool.exit(pids(pool).workers[0], "kill")
        settle()
        assert maker.open == 2
        holders = [Holder(pool) for _ in range(4)]
        assert maker.open == 4
        for holder in holders:
            holder.let_go()
        clock.advance(10.0)
        assert maker.open == 2

    def test_with_overflow(self, clock: VirtualClock, maker: Maker) -> None:
        """Overflow leaves first, then what is idle above `min_ready`."""
        pool = running(
            maker.resource(), size=3, max_overflow=2, overflow_ttl=5.0, min_ready=1,
            idle_timeout=20.0,
        )  # fmt: skip
        holders = [Holder(pool) for _ in range(5)]
        for holder in holders:
            holder.let_go()
        counts = []
        for _ in range(5):
            counts.append(maker.open)
            clock.advance(5.0)
        assert counts == [5, 3, 3, 3, 1]
        assert_whole(pool, maker)

    def test_none_of_them_is_kept_from_its_max_age(self, clock: VirtualClock, maker: Maker) -> None:
        """They are replaced then, not given up."""
        pool = running(maker.resource(), size=2, min_ready=1, max_age=100.0, idle_timeout=10.0)
        clock.advance(101.0)
        assert maker.made[0].closed
        assert maker.made[1].closed
        assert pool.stats().idle == 1

    def test_of_none(self, clock: VirtualClock, maker: Maker) -> None:
        """Ready without any; all of `size` come all the same."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2, min_ready=0)
        pool.start()
        pool.wait_ready(timeout=0)
        settle()
        assert maker.open == 2


class TestOverflow:
    def test_a_hundred_uses_cost_one_start(self, clock: VirtualClock, maker: Maker) -> None:
        """The worker that is one too many stays as long as it is used now and then."""
        pool = running(maker.resource(), size=1, max_overflow=1, overflow_ttl=5.0)
        regular = Holder(pool)
        for _ in range(100):
            use(pool)
            clock.advance(1.0)
        assert maker.connects == 2
        regular.let_go()
        clock.advance(5.0)
        assert maker.open == 1

    def test_the_warmest_stays(self, clock: VirtualClock, maker: Maker) -> None:
        """Whichever was started first."""
        pool = running(maker.resource(), size=1, max_overflow=2, overflow_ttl=5.0)
        holders = [Holder(pool) for _ in range(3)]
        for holder in holders:
            clock.advance(1.0)
            holder.let_go()
        clock.advance(5.0)
        assert [thing.closed for thing in maker.made] == [
            thing is not holders[2].thing for thing in maker.made
        ]

    @pytest.mark.parametrize(("ttl", "left"), [(0, 1), (None, 3)])
    def test_at_once_or_never(
        self, clock: VirtualClock, maker: Maker, ttl: float | None, left: int
    ) -> None:
        """`overflow_ttl=0`: it leaves at its checkin; None: it stays."""
        pool = running(maker.resource(), size=1, max_overflow=2, overflow_ttl=ttl)
        holders = [Holder(pool) for _ in range(3)]
        for holder in holders:
            holder.let_go()
        clock.advance(1e6)
        assert maker.open == left

    def test_at_once_but_not_past_a_waiter(self, clock: VirtualClock, maker: Maker) -> None:
        """Whoever waits gets it first."""
        pool = running(maker.resource(), size=1, max_overflow=1, overflow_ttl=0)
        holders = [Holder(pool) for _ in range(3)]
        holders[1].let_go()
        assert holders[2].thing is holders[1].thing

    def test_does_not_come_back_for_a_client_that_has_been_served(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """One that did not wait found none; later ones did: nobody wants one more."""
        pool = running(maker.resource(), size=1, max_overflow=1, overflow_ttl=5.0)
        holders = [Holder(pool), Holder(pool)]
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        for holder in holders:
            holder.let_go()
        clock.advance(5.0)
        assert (maker.open, maker.connects) == (1, 2)
        clock.advance(5.0)
        assert (maker.open, maker.connects) == (1, 2)

    def test_not_for_a_check(self, clock: VirtualClock, maker: Maker) -> None:
        """A client that did not wait had one looked at, not one more started."""
        pool = running(maker.resource(check=maker.check), size=1, max_overflow=1)
        clock.advance(1.0)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        settle()
        assert (len(maker.checked), maker.connects, pool.stats().idle) == (1, 1, 1)

    def test_servers(self, clock: VirtualClock) -> None:
        """They come and go as things do."""
        pool = running(Echo, size=1, max_overflow=1, overflow_ttl=5.0)
        holders = [Holder(pool), Holder(pool)]
        assert pool.stats().overflow == 1
        for holder in holders:
            holder.let_go()
        with Events() as events:
            clock.advance(5.0)
        assert events.why() == ["overflow"]
        assert pool.stats().idle == 1


class TestMaxStarting:
    def test_bounds_what_a_server_sees_at_once(self, clock: VirtualClock, maker: Maker) -> None:
        """The next one begins when one is up."""
        gates = [Gate() for _ in range(6)]
        maker.creates.extend([gate.wait for gate in gates])
        pool = running(maker.resource(), size=6, max_starting=2)
        for number, gate in enumerate(gates):
            assert pool.stats().starting == min(2, 6 - number)
            gate.open()
            settle()
        assert pool.stats().idle == 6

    def test_a_crowd_in_a_lazy_pool(self, clock: VirtualClock, maker: Maker) -> None:
        """The first connects serve many clients."""
        gates = [Gate() for _ in range(2)]
        maker.creates.extend([gate.wait for gate in gates])
        pool = running(maker.resource(), size=50, lazy=True, max_starting=2)
        clients = [Client(use_for, pool, 0) for _ in range(50)]
        settle()
        assert maker.connects == 2
        for gate in gates:
            gate.open()
        settle()
        assert all(client.done and client.error is None for client in clients)
        check(pool)

    def test_one_that_dies_while_it_starts(self, clock: VirtualClock, maker: Maker) -> None:
        """Its place is another one's."""
        maker.creates.extend([Gate().wait, Gate().wait])
        pool = running(maker.resource(), size=3, max_starting=2)
        for pid in pids(pool).workers:
            gpool.exit(pid, "kill")
        settle()
        clock.advance(5.0)
        assert_whole(pool, maker)


def use_for(pool: gpool.Pool[Any], turns: int) -> None:
    """Borrow one for so many turns of the loop."""
    with pool.checkout():
        for _ in range(turns):
            gevent.sleep(0)


class TestElision:
    def test_a_start_whose_demand_has_gone_is_dropped(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Before it has begun: a worker came back in the same turn."""
        pool = running(maker.resource(), size=2, lazy=True)
        lease = pool.checkout()
        client = Client(pool.checkout)
        gevent.sleep(0)  # it waits, and a start was decided on
        assert pool.stats().starting == 1
        lease.checkin()
        settle()
        assert client.value is not None
        assert maker.connects == 1
        check(pool)

    def test_a_start_whose_client_was_killed(self, clock: VirtualClock, maker: Maker) -> None:
        """The same."""
        pool = running(maker.resource(), size=1, lazy=True)
        worker_sup = pids(pool).worker_sup
        gpool.sys.suspend(worker_sup)
        client = Holder(pool)
        client.kill()
        settle()
        gpool.sys.resume(worker_sup)
        settle()
        assert (maker.connects, pool.stats().accounted) == (0, 0)
        assert_whole(pool, maker)

    def test_a_slow_start_never_delays_a_worker_that_comes_back(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """The oldest waiter gets it; what starts for him is the next one's, or idle."""
        pool = running(maker.resource(), size=2, lazy=True)
        holder = Holder(pool)
        gate = Gate()
        maker.creates.append(gate.wait)
        waiter = Holder(pool)
        holder.let_go()
        assert waiter.thing is holder.thing
        gate.open()
        settle()
        assert pool.stats().idle == 1

    def test_one_under_way_is_not_cut(self, clock: VirtualClock, maker: Maker) -> None:
        """What it has cost is spent: the next client finds it."""
        pool = running(maker.resource(), size=1, lazy=True)
        gate = Gate()
        maker.creates.append(gate.wait)
        client = Holder(pool)
        client.kill()
        settle()
        gate.open()
        settle()
        assert pool.stats().idle == 1
        assert use(pool) is maker.made[0]


class TestAwkwardMoments:
    @pytest.mark.parametrize("who", ["man", "worker_sup"])
    def test_a_fall_with_overflow_and_waiters(
        self, clock: VirtualClock, maker: Maker, who: str
    ) -> None:
        """The cap counts what is still held; the waiters are served as it comes back."""
        pool = running(maker.resource(), size=1, max_overflow=2)
        holders = [Holder(pool, timeout=None) for _ in range(5)]
        fall(pool, who)
        assert (maker.open, pool.stats().lost, pool.stats().waiting) == (3, 3, 2)
        for holder in holders:
            holder.let_go()
            assert holder.value is not None
        clock.advance(5.0)
        assert_whole(pool, maker)

    def test_a_client_that_does_not_wait_has_one_started(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """It finds it the next time."""
        pool = running(maker.resource(), size=1, lazy=True)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        settle()
        assert pool.checkout(timeout=0).resource is maker.made[0]

    def test_one_that_wished_and_a_start_that_fails(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Nobody goes on trying for a client that is not there."""
        pool = running(maker.resource(), size=1, lazy=True)
        maker.creates.append(OSError("down"))
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        clock.advance(100.0)
        assert maker.connects == 1
        assert books(pool).wished is False
        assert use(pool) is maker.made[0]
