"""Holding: for too long, in a circle, past the end, in other hands."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.pool.housekeeper import SWEEP
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import (
    Client,
    Echo,
    Events,
    Holder,
    Maker,
    assert_whole,
    check,
    fall,
    pids,
    running,
    use,
)


class Keeper(Client):
    """A client that keeps lease after lease, until it is told to check the last one in."""

    def __init__(self, pool: gpool.Pool[Any], count: int = 1, timeout: float | None = None) -> None:
        self.pool = pool
        self.count = count
        self.timeout = timeout
        self.leases: list[Any] = []
        self.gate = Gate()
        super().__init__(self._keep)
        settle()

    def _keep(self) -> None:
        for _ in range(self.count):
            self.leases.append(self.pool.checkout(timeout=self.timeout))
        self.gate.wait()
        self.leases.pop().checkin()

    def let_go(self) -> None:
        """Have it check in, and end."""
        self.gate.open()
        settle()


class TestMaxHold:
    def test_warns_once(self, clock: VirtualClock, maker: Maker) -> None:
        """With who it is, since which line, and where it is now."""
        pool = running(maker.resource(), size=1, max_hold=10.0)
        with Events() as events:
            keeper = Keeper(pool)
            clock.advance(9.9)
            assert not events.of(telemetry.HeldTooLong)
            clock.advance(100.0)
            [event] = events.of(telemetry.HeldTooLong)
        assert (event.process, event.seconds, event.revoked) == (keeper.pid, 10.0, False)
        assert event.line.endswith("in Keeper._keep")
        assert any("self.gate.wait()" in frame for frame in event.stack)
        assert pool.stats().overheld == 1
        assert pool.stats().busy == 1

    def test_tells_when_it_comes_back_after_all(self, clock: VirtualClock, maker: Maker) -> None:
        """Slow, but no leak; the next hold of the same worker is reported anew."""
        pool = running(maker.resource(), size=1, max_hold=10.0)
        with Events() as events:
            keeper = Keeper(pool)
            clock.advance(30.0)
            keeper.let_go()
            [late] = events.of(telemetry.ReturnedLate)
            assert (late.process, late.seconds) == (keeper.pid, 30.0)
            Keeper(pool)
            clock.advance(10.0)
            assert len(events.of(telemetry.HeldTooLong)) == 2
        assert_whole_but(pool, 1)

    @pytest.mark.parametrize("end", ["kill", "cut"])
    def test_one_that_dies_is_reclaimed_as_ever(
        self, clock: VirtualClock, maker: Maker, end: str
    ) -> None:
        """What was reported is forgotten with it."""
        pool = running(maker.resource(), size=1, max_hold=10.0)
        holder = Holder(pool)
        clock.advance(10.0)
        getattr(holder, end)()
        settle()
        ledger: Any = pool._ledger
        assert not ledger.reported
        assert_whole(pool, maker)

    def test_each_by_its_own_time(self, clock: VirtualClock, maker: Maker) -> None:
        """Whenever they came."""
        pool = running(maker.resource(), size=3, max_hold=10.0)
        begun, seen = clock.now(), []
        telemetry.attach(lambda event: seen.append((type(event), clock.now() - begun)))
        for pause in (3.0, 4.0, 5.0):
            Keeper(pool)
            clock.advance(pause)
        clock.advance(20.0)
        assert [at for kind, at in seen if kind is telemetry.HeldTooLong] == [10.0, 13.0, 17.0]

    def test_counts_from_the_grant(self, clock: VirtualClock, maker: Maker) -> None:
        """Not from the moment when it began to wait."""
        pool = running(maker.resource(), size=1, max_hold=10.0)
        holder = Holder(pool)
        clock.advance(9.0)
        waiter = Holder(pool, timeout=None)
        clock.advance(9.0)
        holder.let_go()
        clock.advance(9.9)
        assert waiter.thing is not None
        assert pool.stats().overheld == 1

    def test_across_a_fall(self, clock: VirtualClock, maker: Maker) -> None:
        """The next manager watches, too: a lost lease whose resource is kept is a slot held."""
        pool = running(maker.resource(), size=1, max_hold=10.0)
        with Events() as events:
            holder = Holder(pool)
            clock.advance(5.0)
            fall(pool)
            clock.advance(5.0)
            assert len(events.of(telemetry.HeldTooLong)) == 1
        holder.let_go()
        assert_whole(pool, maker)

    def test_after_a_resize_and_while_it_drains(self, clock: VirtualClock, maker: Maker) -> None:
        """It is a matter of holding alone."""
        pool = running(maker.resource(), size=1, max_hold=10.0)
        Keeper(pool)
        pool.resize(2)
        pool.close()
        clock.advance(10.0)
        assert pool.stats().overheld == 1


class TestRevoke:
    def test_takes_it_away(self, clock: VirtualClock, maker: Maker) -> None:
        """Lost at once, closed exactly once; its late checkin is a counted no-op."""
        pool = running(maker.resource(), size=1, max_hold=10.0, on_max_hold="revoke")
        keeper = Keeper(pool)
        gate = Gate()
        maker.closes.append(gate.wait)
        waiter = Client(pool.checkout, timeout=None)
        with Events() as events:
            clock.advance(10.0)
            [event] = events.of(telemetry.HeldTooLong)
            assert event.revoked
        [lease] = keeper.leases
        assert lease.lost
        with pytest.raises(gpool.LeaseLost):
            lease.resource  # noqa: B018
        with pytest.raises(gpool.LeaseLost):
            lease.transfer(gpool.self())
        assert (waiter.done, pool.stats().closing, pool.stats().revoked) == (False, 1, 1)
        gate.open()
        settle()
        assert waiter.done
        assert maker.made[0].closed
        keeper.let_go()
        assert (keeper.error, pool.stats().stale) == (None, 1)
        assert maker.faults == []
        assert_whole(pool, maker)

    def test_its_with_block_ends_by_an_error(self, clock: VirtualClock, maker: Maker) -> None:
        """A driver's, most likely, of the connection that was closed: nothing more to do."""
        pool = running(maker.resource(), size=1, max_hold=10.0, on_max_hold="revoke")
        gate = Gate()

        def client() -> None:
            with pool.checkout():
                gate.wait()
                raise OSError("bad file descriptor")

        one = Client(client)
        clock.advance(10.0)
        gate.open()
        settle()
        assert isinstance(one.error, OSError)
        assert_whole(pool, maker)

    def test_its_holder_dies_later(self, clock: VirtualClock, maker: Maker) -> None:
        """Nothing is reclaimed twice."""
        pool = running(maker.resource(), size=1, max_hold=10.0, on_max_hold="revoke")
        keeper = Keeper(pool)
        clock.advance(10.0)
        keeper.kill()
        settle()
        assert pool.stats().reclaimed == 0
        assert_whole(pool, maker)

    def test_a_server(self, clock: VirtualClock) -> None:
        """It is stopped in its holder's hands, whatever it does."""
        pool = running(Echo, size=1, max_hold=10.0, on_max_hold="revoke")
        client = Client(lambda: pool.transaction(lambda echo: echo.say(1, Gate())))
        settle()
        waiter = Holder(pool, timeout=None)
        clock.advance(10.0)
        assert isinstance(client.error, gpool.ServerExited)
        assert waiter.thing is not None
        waiter.let_go()
        assert_whole(pool)

    def test_one_whose_worker_is_dead(self, clock: VirtualClock, maker: Maker) -> None:
        """The resource that nobody owns any more is closed."""
        pool = running(maker.resource(), size=1, max_hold=10.0, on_max_hold="revoke")
        keeper = Keeper(pool)
        gpool.exit(pids(pool).workers[0], "kill")
        clock.advance(9.9)
        assert not maker.made[0].closed
        clock.advance(0.1)
        assert maker.made[0].closed
        keeper.let_go()
        assert_whole(pool, maker)

    def test_many_at_once(self, clock: VirtualClock, maker: Maker) -> None:
        """With the waiters served in their order."""
        pool = running(maker.resource(), size=3, max_hold=10.0, on_max_hold="revoke")
        keepers = [Keeper(pool) for _ in range(3)]
        waiters = [Keeper(pool) for _ in range(4)]
        clock.advance(10.0)
        assert all(lease.lost for keeper in keepers for lease in keeper.leases)
        assert [len(waiter.leases) for waiter in waiters] == [1, 1, 1, 0]
        clock.advance(10.0)
        assert len(waiters[3].leases) == 1
        waiters[3].let_go()
        assert_whole(pool, maker)


def assert_whole_but(pool: gpool.Pool[Any], held: int) -> None:
    """Assert that all but so many are there."""
    check(pool)
    assert pool.stats().busy == held


class TestDeadlock:
    def test_a_nested_checkout_that_can_never_succeed(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """It is raised at once, in the one that closes the circle, and names the holders."""
        pool = running(maker.resource(), size=2)
        first = Keeper(pool, 2)
        second = Keeper(pool)
        third = Keeper(pool)
        assert (len(first.leases), first.done) == (2, False)
        assert (second.done, third.done) == (False, False)
        first.let_go()
        assert len(second.leases) == 1
        fourth = Client(nested, pool)
        settle()
        assert (fourth.done, pool.stats().deadlocks) == (False, 0)  # `third` came first

    def test_in_one_client(self, clock: VirtualClock, maker: Maker) -> None:
        """It waits for itself."""
        pool = running(maker.resource(), size=1)
        with Events() as events:
            client = Client(nested, pool)
            settle()
        error = client.error
        assert isinstance(error, gpool.CheckoutDeadlock)
        assert [holder.pid for holder in error.holders] == [client.pid]
        assert "nested" in str(error)
        assert [e.reason for e in events.of(telemetry.CheckoutFailed)] == ["deadlock"]
        assert pool.stats().deadlocks == 1
        assert_whole(pool, maker)

    def test_in_two(self, clock: VirtualClock, maker: Maker) -> None:
        """The second one raises; the first one gets what that one had."""
        pool = running(maker.resource(), size=2)
        gates = [Gate(), Gate()]
        clients = [Client(nested, pool, gate) for gate in gates]
        settle()
        gates[0].open()
        settle()
        assert not clients[0].done
        gates[1].open()
        settle()
        assert isinstance(clients[1].error, gpool.CheckoutDeadlock)
        assert clients[0].value == "both"
        assert_whole(pool, maker)

    @pytest.mark.parametrize("way", ["timeout", "starting", "holder", "room"])
    def test_not_while_there_is_hope(self, clock: VirtualClock, maker: Maker, way: str) -> None:
        """Somebody gives up, starts, or has no part in it; or one more worker may be."""
        if way == "starting":
            maker.creates.extend([None, Gate().wait])
        elif way == "room":
            maker.creates.extend([None, *[OSError("down")] * 99])
        pool = running(maker.resource(), size=1, max_overflow=1)
        gate = Gate()
        if way == "timeout":
            Client(nested, pool, gate, timeout=30.0)
        elif way == "holder":
            Holder(pool)
        client = Client(nested, pool, gate)
        settle()
        gate.open()
        clock.advance(3 * SWEEP)
        assert (client.done, pool.stats().deadlocks) == (False, 0)

    def test_not_of_those_who_hold_nothing(self, clock: VirtualClock, maker: Maker) -> None:
        """They have no part in the circle: it is broken for them."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        waiter = Client(nested, pool, hold=False)
        settle()
        lease.transfer(waiter.pid)
        newcomer = Client(pool.checkout, timeout=None)
        clock.advance(2 * SWEEP)
        assert isinstance(waiter.error, gpool.CheckoutDeadlock)
        assert (newcomer.done, newcomer.error) == (True, None)

    def test_by_a_transfer(self, clock: VirtualClock, maker: Maker) -> None:
        """The owner that decides is the new one: seen within a second, in the youngest."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        waiter = Client(nested, pool, hold=False)
        settle()
        lease.transfer(waiter.pid)
        clock.advance(SWEEP)
        assert isinstance(waiter.error, gpool.CheckoutDeadlock)
        settle()
        assert_whole(pool, maker)

    def test_by_a_resize(self, clock: VirtualClock, maker: Maker) -> None:
        """What would have been started is not any more."""
        maker.creates.extend([None, Gate().wait])
        pool = running(maker.resource(), size=2, start_timeout=None)
        client = Client(nested, pool)
        clock.advance(3 * SWEEP)
        assert not client.done
        pool.resize(1)
        clock.advance(SWEEP)
        assert isinstance(client.error, gpool.CheckoutDeadlock)
        settle()
        assert_whole_but(pool, 0)

    def test_not_where_holders_are_revoked(self, clock: VirtualClock, maker: Maker) -> None:
        """Time ends it."""
        pool = running(maker.resource(), size=1, max_hold=10.0, on_max_hold="revoke")
        client = Client(nested, pool)
        clock.advance(9.9)
        assert not client.done
        clock.advance(0.1)
        assert client.value == "both"
        assert_whole(pool, maker)

    def test_where_nobody_is_revoked_though_one_said_so(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """`on_max_hold` without `max_hold` is nothing."""
        pool = running(maker.resource(), size=1, on_max_hold="revoke")
        client = Client(nested, pool)
        settle()
        assert isinstance(client.error, gpool.CheckoutDeadlock)


def nested(
    pool: gpool.Pool[Any],
    gate: Gate | None = None,
    *,
    timeout: float | None = None,
    hold: bool = True,
) -> str:
    """Hold one, if told so, then want another one."""
    outer = pool.checkout(timeout=None) if hold else None
    if gate is not None and hold:
        gate.wait()
    with pool.checkout(timeout=timeout):
        pass
    if outer is not None:
        outer.checkin()
    return "both"


def hand_over(pool: gpool.Pool[Any], to: gpool.Pid, gate: Gate) -> None:
    """Hold one, and make it another one's when told so."""
    lease = pool.checkout()
    gate.wait()
    lease.transfer(to)


class TestAfterTheEnd:
    @pytest.mark.parametrize("word", ["worker", "resource"])
    @pytest.mark.parametrize("end", ["checkin", "discard", "worker dies", "pool falls", "stop"])
    def test_the_worker_is_out_of_reach(
        self, clock: VirtualClock, maker: Maker, word: str, end: str
    ) -> None:
        """After a release or a loss reading it raises; so does entering the lease."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        assert getattr(lease, word) is maker.made[0]
        match end:
            case "worker dies":
                gpool.exit(pids(pool).workers[0], "kill")
            case "pool falls":
                fall(pool)
            case "stop":
                pool.stop()
            case _:
                getattr(lease, end)()
        settle()
        with pytest.raises(gpool.LeaseLost):
            getattr(lease, word)
        with pytest.raises(gpool.LeaseLost):
            lease.__enter__()
        lease.checkin()
        lease.checkin()
        settle()
        assert maker.faults == []

    def test_a_server_that_died(self, clock: VirtualClock) -> None:
        """The same."""
        pool = running(Echo, size=1)
        lease = pool.checkout()
        with pytest.raises(gpool.ServerExited):
            lease.worker.crash()
        settle()
        assert lease.lost
        with pytest.raises(gpool.LeaseLost):
            lease.worker  # noqa: B018


class TestTransfer:
    def test_the_new_owners_death_reclaims_it(self, clock: VirtualClock, maker: Maker) -> None:
        """Not the old one's."""
        pool = running(maker.resource(), size=1)
        heir, goes_on = gpool.spawn(gpool.receive), Gate()
        giver = Client(hand_over, pool, heir, goes_on)
        settle()
        goes_on.open()
        settle()
        assert giver.done
        assert [holder.pid for holder in pool.holders()] == [heir]
        assert pool.stats().reclaimed == 0
        gpool.exit(heir, "kill")
        settle()
        assert pool.stats().reclaimed == 1
        assert_whole(pool, maker)

    def test_one_that_its_heir_drops_is_reclaimed(self, clock: VirtualClock, maker: Maker) -> None:
        """Though it was waited for, and its giver would use it again."""
        pool = running(maker.resource(), size=1)
        holder, heir = Holder(pool), gpool.spawn(gpool.receive)
        giver = Client(lambda: (pool.checkout().transfer(heir), gpool.receive()))
        settle()
        holder.let_go()
        assert [holder.pid for holder in pool.holders()] == [heir]
        next_one = Holder(pool)
        clock.advance(SWEEP)
        settle()
        assert next_one.thing is maker.made[1]
        assert maker.made[0].closed
        next_one.let_go()
        giver.kill()
        settle()
        assert_whole(pool, maker)

    def test_to_a_dead_one(self, clock: VirtualClock, maker: Maker) -> None:
        """Refused: the owner stays what it is."""
        pool = running(maker.resource(), size=1)
        lease, dead = pool.checkout(), gpool.spawn(list)
        settle()
        with pytest.raises(gpool.NoProcess):
            lease.transfer(dead)
        assert pool.holders()[0].pid == gpool.self()
        lease.checkin()
        assert_whole(pool, maker)

    def test_to_one_that_is_about_to_die(self, clock: VirtualClock, maker: Maker) -> None:
        """Its death reclaims it."""
        pool = running(maker.resource(), size=1)
        lease, heir = pool.checkout(), gpool.spawn(gpool.receive)
        settle()
        gpool.exit(heir, "kill")
        lease.transfer(heir)
        settle()
        assert lease.slot is None
        assert_whole(pool, maker)

    def test_across_a_fall(self, clock: VirtualClock, maker: Maker) -> None:
        """A lost lease is nobody's to transfer; what was transferred before is its heir's."""
        pool = running(maker.resource(), size=1)
        lease, heir = pool.checkout(), gpool.spawn(gpool.receive)
        settle()
        lease.transfer(heir)
        fall(pool)
        with pytest.raises(gpool.LeaseLost):
            lease.transfer(gpool.self())
        assert not maker.made[0].closed
        gpool.exit(heir, "kill")
        settle()
        assert maker.made[0].closed
        assert_whole(pool, maker)


class TestHolders:
    def test_who_since_when_from_which_line(self, clock: VirtualClock, maker: Maker) -> None:
        """The leak report; of those who wait there is nothing to report."""
        pool = running(maker.resource(), size=2)
        first = Keeper(pool)
        clock.advance(3.0)
        Keeper(pool)
        Keeper(pool)
        holders = pool.holders()
        assert [holder.age for holder in holders if holder.pid == first.pid] == [3.0]
        assert sorted(holder.age for holder in holders) == [0.0, 3.0]
        assert all("in Keeper._keep" in holder.line for holder in holders)

    def test_who_has_not_yet_woken(self, clock: VirtualClock, maker: Maker) -> None:
        """It holds since it came, not since it last had a worker that it had waited for."""
        pool = running(maker.resource(), size=1)
        again = Gate()

        def wait_twice() -> None:
            with pool.checkout():
                pass
            again.wait()
            with pool.checkout():
                pass

        first = Holder(pool)
        client = Client(wait_twice)
        settle()
        first.let_go()
        second = Holder(pool)
        clock.advance(60.0)
        again.open()
        settle()
        clock.advance(1.0)
        second.gate.open()
        while pool.holders()[0].pid is not client.pid:
            gevent.sleep(0)
        [holder] = pool.holders()
        assert not client.done
        assert holder.age == pytest.approx(1.0)
        settle()
        assert_whole(pool, maker)

    def test_nobody_is_reaped_who_lives(self, clock: VirtualClock, maker: Maker) -> None:
        """Without "revoke" a live owner keeps what it has for as long as it likes."""
        pool = running(maker.resource(), size=1, max_hold=1.0)
        keeper = Keeper(pool)
        clock.advance(1e3)
        assert keeper.leases[0].resource is maker.made[0]
        keeper.let_go()
        assert use(pool) is maker.made[0]
