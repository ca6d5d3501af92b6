"""Waiting: in order, within one deadline, and with nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest

import gpool
from gpool import telemetry
from gpool.pool.housekeeper import SWEEP
from gpool.pool.queue import Queue
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import (
    AtTurn,
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


class TestOrder:
    def test_first_come_first_served(self, clock: VirtualClock, maker: Maker) -> None:
        """By direct hand-over: what comes back is never idle while somebody waits."""
        pool = running(maker.resource(), size=2)
        holders = [Holder(pool) for _ in range(6)]
        for number, holder in enumerate(holders):
            assert [one.thing is not None for one in holders].count(True) == min(number + 2, 6)
            holder.let_go()
        assert [one.value is not None for one in holders] == [True] * 6

    def test_nobody_overtakes(self, clock: VirtualClock, maker: Maker) -> None:
        """Not even in the turn in which it comes back: it is the waiter's already."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        waiter = Holder(pool)
        lease.checkin()
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        settle()
        assert waiter.thing is not None

    def test_a_grant_that_is_taken_back_keeps_its_place(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """The worker is killed before its client has woken: that one is still the first."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        first, second = Holder(pool), Holder(pool)
        lease.checkin()
        [slot] = books(pool).slots
        gpool.exit(slot.pid, "kill")
        settle()
        assert (first.thing, second.thing) == (maker.made[1], None)
        first.let_go()
        assert second.thing is maker.made[1]

    def test_one_that_leaves_from_the_middle(self, clock: VirtualClock, maker: Maker) -> None:
        """Killed, cut or too late: nothing of it is left, and nobody moves up wrongly."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        waiters = [Holder(pool, timeout=seconds) for seconds in (None, 1.0, None, None, None)]
        waiters[2].kill()
        waiters[3].cut()
        clock.advance(1.0)
        assert len(books(pool).waiting) == 2
        assert pool.stats().waiting == 2
        for one in (holder, waiters[0]):
            one.let_go()
        assert waiters[4].thing is not None
        waiters[4].let_go()
        assert_whole(pool, maker)

    def test_a_thousand_that_leave_at_once(self, clock: VirtualClock, maker: Maker) -> None:
        """No tombstones: the queue is as long as those who wait."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        clients = [Client(pool.checkout, timeout=1.0) for _ in range(1000)]
        settle()
        last = Holder(pool, timeout=None)
        assert pool.stats().waiting == 1001
        clock.advance(1.0)
        assert all(isinstance(client.error, gpool.CheckoutTimeout) for client in clients)
        assert len(books(pool).waiting) == 1
        assert pool.stats().waiting == 1
        holder.let_go()
        assert last.thing is not None

    @pytest.mark.parametrize("who", ["man", "worker_sup", "sup"])
    def test_across_a_fall(self, clock: VirtualClock, maker: Maker, who: str) -> None:
        """Place and deadline are kept."""
        pool = running(maker.resource(), size=1, max_restarts=100)
        holder = Holder(pool)
        waiters = [Holder(pool, timeout=seconds) for seconds in (20.0, 2.0, None)]
        clock.advance(1.0)
        fall(pool, who)
        clock.advance(1.0)
        assert isinstance(waiters[1].error, gpool.CheckoutTimeout)
        assert [waiters[0].done, waiters[2].done] == [False, False]
        holder.let_go()
        clock.advance(1.0)
        assert waiters[0].thing is not None
        assert waiters[2].thing is None
        waiters[0].let_go()
        waiters[2].let_go()
        assert_whole(pool, maker)


class TestGrant:
    @pytest.mark.parametrize("end", ["kill", "cut"])
    def test_one_that_is_cut_down_before_it_wakes(
        self, clock: VirtualClock, maker: Maker, end: str
    ) -> None:
        """Its worker goes on, unused, in the same turn."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        first, second = Holder(pool), Holder(pool)
        getattr(first, end)()
        lease.checkin()
        settle()
        assert second.thing is maker.made[0]
        second.let_go()
        assert_whole(pool, maker)

    def test_at_its_deadline(self, clock: VirtualClock, maker: Maker) -> None:
        """Granted in the turn in which its time is over: served or not, nothing is lost."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        waiter = Holder(pool, timeout=1.0)
        clock.call_later(1.0, lease.checkin)
        clock.advance(1.0)
        assert waiter.done or waiter.thing is not None
        waiter.let_go()
        assert_whole(pool, maker)

    @pytest.mark.parametrize("kind", ["resources", "servers"])
    def test_a_worker_that_is_killed_before_its_client_wakes(
        self, clock: VirtualClock, maker: Maker, kind: str
    ) -> None:
        """The client keeps its place, and gets what is idle in the same turn."""
        pool = running(maker.resource() if kind == "resources" else Echo, size=2)
        lease, other = pool.checkout(), pool.checkout()
        waiter = Holder(pool)
        doomed: Any = lease.slot
        lease.checkin()
        other.checkin()
        assert pool.stats().idle == 1
        gpool.exit(doomed.pid, "kill")
        check(pool)
        assert (pool.stats().waiting, pool.stats().idle) == (0, 0)  # granted, not yet awake
        settle()
        assert waiter.thing is not None
        waiter.let_go()
        assert_whole(pool, maker if kind == "resources" else None)

    @pytest.mark.parametrize("turn", range(1, 12))
    def test_a_manager_that_is_killed_meanwhile(
        self, clock: VirtualClock, maker: Maker, turn: int
    ) -> None:
        """At any turn of the loop between the checkin and the waiter's wake-up."""
        pool = running(maker.resource(), size=1)
        holder, waiter = Holder(pool), Holder(pool)
        man = pids(pool).man
        with AtTurn(turn, lambda: gpool.exit(man, "kill")):
            holder.let_go()
        settle()
        assert waiter.thing is not None
        waiter.let_go()
        assert_whole(pool, maker)


class TestWaited:
    def test_is_on_the_lease(self, clock: VirtualClock, maker: Maker) -> None:
        """Seconds from the checkout to the grant; 0 if it was idle."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        assert lease.waited == 0.0
        waits: list[float] = []

        def wait() -> None:
            with_lease = pool.checkout(timeout=None)
            waits.append(with_lease.waited)
            with_lease.checkin()

        Client(wait)
        clock.advance(3.0)
        lease.checkin()
        settle()
        assert waits == [3.0]
        assert pool.checkout().waited == 0.0

    def test_over_a_start_a_check_and_a_fall(self, clock: VirtualClock, maker: Maker) -> None:
        """All that came before the grant."""
        maker.creates.extend([Gate().wait, Gate().wait])
        pool = running(maker.resource(), size=1, start_timeout=2.0, lazy=True, shutdown=1.0)
        waits: list[float] = []

        def wait() -> None:
            waits.append(pool.checkout(timeout=None).waited)

        Client(wait)
        clock.advance(1.0)
        fall(pool)
        clock.advance(1.5)
        begun = clock.now()
        clock.advance(5.0)
        assert len(waits) == 1
        assert 2.5 <= waits[0] <= clock.now() - begun + 2.5


class TestTicket:
    def test_is_as_new_when_it_is_used_again(self, maker: Maker) -> None:
        """A client that was turned down and waits again is told again."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, timeout=None).start()
        settle()
        lease = pool.checkout()
        told: list[str] = []

        def wait_on() -> None:
            while len(told) < 3:
                try:
                    pool.checkout()
                except gpool.PoolClosed as error:
                    told.append(type(error).__name__)
                    gpool.receive()

        client = Client(wait_on)
        for count in range(1, 4):
            settle()
            pool.close(waiters="fail")
            settle()
            assert len(told) == count
            pool.start()
            gpool.send(client.pid, "again")
        settle()
        assert client.error is None
        lease.checkin()
        assert_whole(pool, maker)


class TestTimeout:
    @pytest.mark.parametrize("timeout", [0, 0.0])
    def test_zero_never_waits(self, clock: VirtualClock, maker: Maker, timeout: float) -> None:
        """What is idle is lent; else it raises, without a switch."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout(timeout=timeout)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=timeout)
        lease.checkin()
        assert pool.checkout(timeout=timeout).resource is maker.made[0]

    def test_none_waits_for_ever(self, clock: VirtualClock, maker: Maker) -> None:
        """A million seconds are not enough to make it give up."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        waiter = Holder(pool, timeout=None)
        assert clock.next_due() == SWEEP
        clock.advance(1000.0)
        assert not waiter.done
        lease.checkin()
        settle()
        assert waiter.thing is not None
        assert pool.stats().waiting == 0

    def test_one_deadline_over_all(self, clock: VirtualClock, maker: Maker) -> None:
        """Queue, check, failed start, retries: no longer than it says, and never forgotten."""
        pool = running(maker.resource(check=maker.check), size=1, check_timeout=2.0)
        holder = Holder(pool)
        client = Client(pool.checkout, timeout=6.0)
        clock.advance(1.0)
        maker.creates.extend([OSError("down")] * 99)
        holder.kill()
        clock.advance(4.9)
        assert not client.done
        clock.advance(0.1)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        assert isinstance(client.error.__cause__, OSError)
        maker.creates.clear()
        clock.advance(5.0)
        assert_whole(pool, maker)


class TestMaxWaiting:
    def test_refuses_at_once(self, clock: VirtualClock, maker: Maker) -> None:
        """Whoever would be one too many; those who give up make room."""
        pool = running(maker.resource(), size=1, max_waiting=2)
        Holder(pool)
        waiters = [Holder(pool, timeout=1.0), Holder(pool, timeout=2.0)]
        with Events() as events:
            with pytest.raises(gpool.PoolFull, match="2 clients wait already, for 1 workers"):
                pool.checkout()
            settle()
        assert [event.reason for event in events.of(telemetry.CheckoutFailed)] == ["full"]
        clock.advance(1.0)
        assert isinstance(waiters[0].error, gpool.CheckoutTimeout)
        assert not Holder(pool).done
        assert pool.stats().refused == 1

    @pytest.mark.parametrize("lazy", [True, False])
    def test_of_none_in_a_pool_that_starts(
        self, clock: VirtualClock, maker: Maker, lazy: bool
    ) -> None:
        """Those for whom a worker starts, or can be, wait for nobody."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2, lazy=lazy, max_waiting=0)
        clients = [Holder(pool) for _ in range(3)]
        assert [client.thing is not None for client in clients] == [True, True, False]
        assert isinstance(clients[2].error, gpool.PoolFull)

    def test_across_a_fall(self, clock: VirtualClock, maker: Maker) -> None:
        """Those who wait are not turned away by it."""
        pool = running(maker.resource(), size=1, max_waiting=1)
        holder, waiter = Holder(pool), Holder(pool)
        fall(pool)
        with pytest.raises(gpool.PoolFull):
            pool.checkout()
        holder.let_go()
        assert waiter.thing is not None


class TestNobodyIsForgotten:
    """Whatever gives a worker back or frees a slot serves who waits."""

    @pytest.mark.parametrize(
        "way", ["checkin", "discard", "dies", "worker", "cut", "revoke", "reset", "reset fails"]
    )
    @pytest.mark.parametrize("overflow", [0, 1])
    def test_by_any_way_back(
        self, clock: VirtualClock, maker: Maker, way: str, overflow: int
    ) -> None:
        """With one waiter more than is coming back, too."""
        hooks: dict[str, Any] = {"reset": maker.reset} if "reset" in way else {}
        options = {"max_hold": 3.0, "on_max_hold": "revoke"} if way == "revoke" else {}
        pool = running(maker.resource(**hooks), size=1, max_overflow=overflow, **options)
        leases: list[Any] = []
        gate = Gate()

        def hold() -> None:
            leases.append(pool.checkout())
            gate.wait()
            leases[0].checkin()

        client = Client(hold)
        clock.advance(1.0)
        others = [Holder(pool, timeout=None) for _ in range(overflow)]
        waiters = [Holder(pool, timeout=None), Holder(pool, timeout=None)]
        assert [waiter.thing for waiter in waiters] == [None, None]
        match way:
            case "discard":
                leases[0].discard()
            case "dies":
                client.kill()
            case "cut":
                client.cut()
            case "worker":
                gpool.exit(leases[0].slot.pid, "kill")
                settle()
                gate.open()
            case "revoke":
                clock.advance(2.0)
            case "reset fails":
                maker.resets.append(OSError("gone"))
                gate.open()
            case _:
                gate.open()
        settle()
        assert waiters[0].thing is not None
        waiters[0].let_go()
        assert waiters[1].thing is not None
        for one in [*others, waiters[1]]:
            one.let_go()
        clock.advance(6.0)
        assert_whole(pool, maker)

    def test_when_a_signal_handler_turns_them_away(self, clock: VirtualClock, maker: Maker) -> None:
        """Just before the worker is handed over: then it is idle, and its client unharmed."""
        pool = running(maker.resource(), size=1)
        lease, waiter = pool.checkout(), Holder(pool)
        ledger: Any = pool._ledger
        hand_over, state = ledger.back

        def struck(slot: Any) -> None:
            pool.close("fail")
            hand_over(slot)

        ledger.back = struck, state
        lease.checkin()
        settle()
        assert type(waiter.error) is gpool.PoolClosed
        assert (pool.stats().idle, pool.stats().epoch) == (1, 1)
        pool.start()
        assert_whole(pool, maker)

    def test_who_was_told_something_else_before(self, clock: VirtualClock, maker: Maker) -> None:
        """Whoever was turned away once, and comes again, hears of the next close, too."""
        pool = running(maker.resource(), size=1)
        holder, again = Holder(pool), Gate()

        def come_twice() -> None:
            with pytest.raises(gpool.PoolClosed):
                pool.checkout()
            again.wait()
            pool.checkout()

        client = Client(come_twice)
        settle()
        pool.close("fail")
        settle()
        pool.start()
        again.open()
        settle()
        assert pool.stats().waiting == 1
        pool.close("fail")
        settle()
        assert type(client.error) is gpool.PoolClosed
        pool.start()
        holder.let_go()
        assert_whole(pool, maker)

    def test_by_a_client_that_waits_in_the_midst_of_a_wait(
        self, clock: VirtualClock, maker: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A signal handler strikes who is about to wait, and waits: each has its own place."""
        pool = running(maker.resource(), size=1)
        holders, used = [Holder(pool)], list[Any]()
        redeem = Queue.redeem

        def use_it() -> None:
            with pool.checkout() as thing, thing.used():
                used.append(thing)
                holders.append(Holder(pool))

        def struck(queue: Queue, ticket: Any, timeout: float | None) -> Any:
            monkeypatch.undo()
            use_it()
            return redeem(queue, ticket, timeout)

        def wait_thrice() -> None:
            use_it()
            monkeypatch.setattr(Queue, "redeem", struck)
            use_it()

        client = Client(wait_thrice)
        settle()
        for number in range(4):
            holders[number].let_go()
        assert client.error is None
        assert used == [maker.made[0]] * 3
        assert_whole(pool, maker)

    def test_by_an_idle_worker_that_is_due(self, clock: VirtualClock, maker: Maker) -> None:
        """Found too old at the checkout: closed, and its client gets a new one."""
        pool = running(maker.resource(), size=1, lazy=True, max_age=10.0)
        use(pool)
        clock._now += 10.0
        client = Holder(pool)
        assert client.thing is maker.made[1]

    def test_while_a_close_takes_its_time(self, clock: VirtualClock, maker: Maker) -> None:
        """The slot is free only then: that is when the waiter's start begins."""
        pool = running(maker.resource(), size=1)
        gate = Gate()
        maker.closes.append(gate.wait)
        pool.checkout().discard()
        waiter = Holder(pool)
        assert maker.connects == 1
        gate.open()
        settle()
        assert waiter.thing is maker.made[1]
        assert maker.peak == 1
