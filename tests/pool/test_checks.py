"""Checks: nobody gets what is dead, and a whole generation costs one of them."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import (
    Client,
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


def checked(maker: Maker, size: int = 1, **options: Any) -> gpool.Pool[Any]:
    """Return a running pool whose things can be checked."""
    hooks = {name: options.pop(name) for name in ("reset", "is_broken") if name in options}
    return running(maker.resource(check=maker.check, **hooks), size=size, **options)


class TestAtCheckout:
    def test_not_within_the_bypass_window(self, clock: VirtualClock, maker: Maker) -> None:
        """What was used less than `check_after` ago is lent as it is; later it is checked."""
        pool = checked(maker, check_after=0.5)
        clock.advance(0.4)
        use(pool)
        clock.advance(0.4)
        use(pool)
        assert maker.checked == []
        clock.advance(0.5)
        use(pool)
        assert maker.checked == maker.made
        use(pool)
        assert len(maker.checked) == 1

    def test_always(self, clock: VirtualClock, maker: Maker) -> None:
        """`check_after=0`."""
        pool = checked(maker, check_after=0)
        for _ in range(3):
            use(pool)
        assert len(maker.checked) == 3

    def test_not_at_a_direct_hand_over(self, clock: VirtualClock, maker: Maker) -> None:
        """It was in use a moment ago: whoever waits gets it at once, even so."""
        pool = checked(maker, check_after=0)
        holder, waiter = Holder(pool), Holder(pool)
        holder.let_go()
        assert waiter.thing is holder.thing
        assert len(maker.checked) == 1

    def test_never(self, clock: VirtualClock, maker: Maker) -> None:
        """`check_after=None`: by the keepalive alone, if there is one."""
        pool = checked(maker, check_after=None)
        clock.advance(1e6)
        use(pool)
        assert maker.checked == []

    def test_runs_in_the_worker(self, clock: VirtualClock, maker: Maker) -> None:
        """Rule 5: a client that is killed meanwhile does not interrupt it; its place is free."""
        pool, gate = checked(maker), Gate()
        clock.advance(1.0)
        maker.checks.append(gate.wait)
        client, other = Holder(pool), Holder(pool)
        client.kill()
        settle()
        assert other.thing is None
        assert len(maker.checked) == 1
        gate.open()
        settle()
        assert other.thing is maker.made[0]
        assert len(maker.checked) == 1
        check(pool)

    def test_of_one_that_nobody_wants_any_more(self, clock: VirtualClock, maker: Maker) -> None:
        """It is idle again, at its old place, and was seen: the next client needs no check."""
        pool, gate = checked(maker, 2), Gate()
        clock.advance(1.0)
        maker.checks.append(gate.wait)
        client = Holder(pool)
        client.kill()
        settle()
        gate.open()
        settle()
        assert pool.stats().idle == 2
        [looked_at] = maker.checked
        assert use(pool) is looked_at
        assert len(maker.checked) == 1

    def test_what_comes_back_meanwhile_is_lent_at_once(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """A slow check delays nobody who can be served by another worker."""
        pool = checked(maker, 2)
        holder = Holder(pool)
        clock.advance(1.0)
        maker.checks.append(Gate().wait)
        client = Holder(pool)
        assert client.thing is None
        holder.let_go()
        assert client.thing is holder.thing

    @pytest.mark.parametrize("answer", [False, OSError("gone"), gevent.Timeout(), AssertionError()])
    def test_a_dead_one_is_replaced(self, clock: VirtualClock, maker: Maker, answer: Any) -> None:
        """Whatever says so: False, an error, the check's own gevent.Timeout."""
        pool = checked(maker, 3)
        clock.advance(1.0)
        maker.checks.append(answer)
        with Events() as events:
            thing = use(pool)
            settle()
        assert thing is maker.made[3]
        assert [old.closed for old in maker.made[:3]] == [True] * 3  # suspected, all of them
        assert len(maker.checked) == 1
        assert not events.of(telemetry.ProcessCrashed)
        assert "check_failed" in events.why()
        assert_whole(pool, maker)

    @pytest.mark.parametrize("answer", [True, None, 1, ""])
    def test_only_false_is_no(self, clock: VirtualClock, maker: Maker, answer: Any) -> None:
        """What a ping answers is its own affair."""
        pool = checked(maker)
        clock.advance(1.0)
        maker.checks.append(answer)
        assert use(pool) is maker.made[0]

    def test_one_that_hangs(self, clock: VirtualClock, maker: Maker) -> None:
        """Cut after `check_timeout`, and its client is served then, within its one deadline."""
        pool = checked(maker, check_timeout=2.0)
        clock.advance(10.0)
        maker.checks.append(Gate().wait)
        client = Holder(pool, timeout=3.0)
        clock.advance(1.9)
        assert (client.thing, pool.stats().resetting) == (None, 1)
        clock.advance(0.1)
        assert client.thing is maker.made[1]
        assert maker.made[0].closed
        client.let_go()
        assert_whole(pool, maker)

    def test_one_that_hangs_longer_than_its_client_waits(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Rule 8: queue, check and start together take no longer than the timeout."""
        pool = checked(maker, check_timeout=2.0)
        clock.advance(10.0)
        maker.checks.append(Gate().wait)
        client = Client(pool.checkout, timeout=1.0)
        clock.advance(1.0)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        clock.advance(1.0)
        assert_whole(pool, maker)

    def test_one_whose_worker_is_killed(self, clock: VirtualClock, maker: Maker) -> None:
        """By foreign code: what it looked at is closed, and its client gets another one."""
        pool = checked(maker)
        clock.advance(1.0)
        maker.checks.append(Gate().wait)
        client = Holder(pool)
        gpool.exit(pids(pool).workers[0], "kill")
        settle()
        assert client.thing is maker.made[1]
        assert maker.made[0].closed
        client.let_go()
        assert_whole(pool, maker)

    @pytest.mark.parametrize("who", ["man", "worker_sup"])
    def test_one_that_is_under_way_when_the_pool_falls(
        self, clock: VirtualClock, maker: Maker, who: str
    ) -> None:
        """Rule 10: its client keeps its place; what was checked belongs to a dead epoch."""
        pool = checked(maker, 2, shutdown=1.0)
        clock.advance(1.0)
        maker.checks.append(Gate().wait)
        client = Holder(pool)
        fall(pool, who)
        clock.advance(2.0)
        assert client.thing is not None
        client.let_go()
        assert_whole(pool, maker)

    def test_a_client_that_does_not_wait(self, clock: VirtualClock, maker: Maker) -> None:
        """It gets nothing that needs a look, but the next one does."""
        pool = checked(maker)
        clock.advance(1.0)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        settle()
        with pool.checkout(timeout=0) as thing:
            assert [thing] == maker.checked


class TestKeepalive:
    def test_while_idle(self, clock: VirtualClock, maker: Maker) -> None:
        """Every so many seconds, where it lies; nobody has to come for it."""
        checked(maker, keepalive=30.0)
        clock.advance(29.0)
        assert maker.checked == []
        clock.advance(1.0)
        assert len(maker.checked) == 1
        clock.advance(60.0)
        assert len(maker.checked) == 3

    def test_use_keeps_alive_as_well(self, clock: VirtualClock, maker: Maker) -> None:
        """It counts from the last use or check; what is lent is left alone."""
        pool = checked(maker, keepalive=30.0, check_after=None)
        clock.advance(20.0)
        use(pool)
        clock.advance(20.0)
        assert maker.checked == []
        holder = Holder(pool)
        clock.advance(100.0)
        assert maker.checked == []
        holder.let_go()
        clock.advance(30.0)
        assert len(maker.checked) == 1

    def test_finds_a_dead_one_before_a_client_does(self, clock: VirtualClock, maker: Maker) -> None:
        """It is replaced, and so are all of its generation."""
        pool = checked(maker, 3, keepalive=30.0)
        clock.advance(29.9)
        maker.checks.append(OSError("reset by peer"))
        clock.advance(1.0)
        assert maker.made[0].closed
        assert pool.stats().idle == 3
        assert_whole(pool, maker)

    def test_one_at_a_time(self, clock: VirtualClock, maker: Maker) -> None:
        """All that are due are checked, but never more than one is out of reach."""
        pool = checked(maker, 5, keepalive=30.0, check_after=None)
        gate = Gate()
        maker.checks.append(gate.wait)
        clock.advance(31.0)
        assert (pool.stats().idle, pool.stats().resetting) == (4, 1)
        client = Holder(pool)
        assert client.thing is not None
        gate.open()
        settle()
        assert len(maker.checked) == 4
        clock.advance(29.0)
        assert len(maker.checked) == 4
        clock.advance(1.0)
        assert len(maker.checked) == 8
        client.let_go()
        assert_whole(pool, maker)

    def test_of_many_that_are_dead_costs_one_check(self, clock: VirtualClock, maker: Maker) -> None:
        """It speaks for all of its generation, also if it hangs."""
        pool = checked(maker, 5, keepalive=30.0, check_timeout=2.0)
        maker.checks.append(Gate().wait)
        clock.advance(32.0)
        assert len(maker.checked) == 1
        assert [thing.closed for thing in maker.made[:5]] == [True] * 5
        assert_whole(pool, maker)

    def test_goes_on_when_the_one_that_is_checked_dies(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Its worker is killed: the others get their turn."""
        pool = checked(maker, 3, keepalive=30.0)
        maker.checks.append(Gate().wait)
        clock.advance(30.0)
        slots: Any = pool._ledger
        gpool.exit(next(slot.pid for slot in slots.slots if slot.checking), "kill")
        settle()
        assert len(maker.checked) == 3
        assert_whole(pool, maker)

    def test_does_not_keep_from_leaving(self, clock: VirtualClock, maker: Maker) -> None:
        """A keepalive is no use: what nobody wants goes after `idle_timeout` all the same."""
        pool = checked(maker, keepalive=3.0, idle_timeout=10.0)
        clock.advance(9.9)
        assert len(maker.checked) == 3
        clock.advance(0.1)
        assert pool.stats().idle == maker.open == 0

    def test_needs_a_check(self, maker: Maker) -> None:
        """Refused where there is none."""
        words = r"keepalive: expected None, or a Resource with a check, got 30.0"
        with pytest.raises(ValueError, match=words):
            gpool.Pool(maker.resource(), keepalive=30.0)


class TestSuspicion:
    def test_twenty_stale_ones_cost_one_check_and_one_connect(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """The server was restarted: the first client pays once, not twenty times."""
        pool = checked(maker, 20, max_starting=20)
        clock.advance(60.0)
        maker.checks.extend([OSError("server closed the connection")] * 20)
        before, seen = maker.connects, []

        def client() -> None:
            with pool.checkout():
                seen.extend([len(maker.checked), maker.connects - before])

        Client(client)
        settle()
        assert seen == [1, 1]
        maker.checks.clear()
        settle()
        assert_whole(pool, maker)
        assert (pool.stats().idle, maker.open) == (20, 20)

    def test_again_after_all_were_found_alive(self, clock: VirtualClock, maker: Maker) -> None:
        """What passed its check stands and falls with the others from then on."""
        pool = checked(maker, 4)
        holders = [Holder(pool) for _ in range(3)]
        clock.advance(1.0)
        maker.checks.append(False)  # one bad connection, which says nothing about the server
        use(pool)
        for holder in holders:
            holder.let_go()
        assert (len(maker.checked), pool.stats().idle) == (4, 4)
        clock.advance(60.0)
        maker.checks.extend([False] * 4)  # now it is the server
        use(pool)
        assert len(maker.checked) == 5
        maker.checks.clear()
        assert_whole(pool, maker)

    def test_those_that_are_lent_are_checked_when_they_come_back(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Nobody takes them from their holders; nobody gets them unseen."""
        pool = checked(maker, 3)
        holders = [Holder(pool), Holder(pool)]
        clock.advance(1.0)
        maker.checks.append(False)
        use(pool)
        maker.checked.clear()
        maker.checks.extend([False, None])
        for holder in holders:
            holder.let_go()
        assert maker.checked == [holder.thing for holder in holders]
        assert [holder.thing.closed for holder in holders] == [True, False]
        assert_whole(pool, maker)

    def test_a_reset_is_no_check(self, clock: VirtualClock, maker: Maker) -> None:
        """It may be done without I/O: what comes back is reset, then checked."""
        pool = checked(maker, 2, reset=maker.reset)
        holder = Holder(pool)
        clock.advance(1.0)
        maker.checks.extend([False, False])
        use(pool)
        holder.let_go()
        assert maker.checked[1] is holder.thing
        assert holder.thing.closed
        assert_whole(pool, maker)

    def test_one_that_is_given_back_unused(self, clock: VirtualClock, maker: Maker) -> None:
        """Its client died before it woke: the next one does not get it unseen."""
        pool = checked(maker, 2, is_broken=lambda error, thing: True)
        lease, other = pool.checkout(), pool.checkout()
        waiter = Holder(pool)
        lease.checkin()  # granted to the waiter
        other.__exit__(OSError, OSError("server gone"), None)
        waiter.kill()  # before it knows
        settle()
        assert maker.checked == [maker.made[1]]
        check(pool)
        assert_whole(pool, maker)

    def test_while_everything_is_held_and_many_wait(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Each is checked as it comes back; the waiters are served in their order."""
        pool = checked(maker, 3, is_broken=lambda error, thing: isinstance(error, OSError))
        broken = pool.checkout()
        holders = [Holder(pool) for _ in range(2)]
        waiters = [Holder(pool, timeout=None) for _ in range(4)]
        broken.__exit__(OSError, OSError("server gone"), None)
        settle()
        assert [waiter.thing for waiter in waiters] == [maker.made[3], None, None, None]
        maker.checks.extend([False, OSError()])
        for holder in holders:
            holder.let_go()
        assert all(waiter.thing is not None for waiter in waiters[:3])
        assert len(maker.checked) == 2
        for waiter in waiters:
            waiter.let_go()
        assert waiters[3].value is not None
        assert_whole(pool, maker)

    def test_an_exception_that_says_so(self, clock: VirtualClock, maker: Maker) -> None:
        """`is_broken` of an Exception evicts the generation, once."""
        hook = {"is_broken": lambda error, thing: isinstance(error, OSError)}
        pool = running(maker.resource(**hook), size=4)
        first, second = pool.checkout(), pool.checkout()
        first.__exit__(OSError, OSError("read-only"), None)
        settle()
        assert [thing.closed for thing in maker.made[:4]] == [True, True, False, True]
        assert maker.connects == 7
        second.__exit__(OSError, OSError("read-only"), None)
        settle()
        assert maker.connects == 8
        assert [thing.closed for thing in maker.made[4:]] == [False] * 4
        assert_whole(pool, maker)

    def test_without_a_check_what_is_lent_goes_when_it_comes_back(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """There is no other way to know."""
        hook = {"is_broken": lambda error, thing: isinstance(error, OSError)}
        pool = running(maker.resource(**hook), size=2)
        first, holder = pool.checkout(), Holder(pool)
        first.__exit__(OSError, OSError("read-only"), None)
        settle()
        assert not holder.thing.closed
        with Events() as events:
            holder.let_go()
        assert holder.thing.closed
        assert events.why() == ["suspected"]
        assert_whole(pool, maker)

    @pytest.mark.parametrize("error", [ValueError(), gevent.Timeout(), gevent.GreenletExit()])
    def test_other_ends_of_a_block_say_nothing_of_the_others(
        self, clock: VirtualClock, maker: Maker, error: BaseException
    ) -> None:
        """A kill or a time-out breaks what was lent, not the server."""
        pool = running(
            maker.resource(is_broken=lambda e, thing: not isinstance(e, ValueError)), size=3
        )
        lease = pool.checkout()
        lease.__exit__(type(error), error, None)
        settle()
        assert sum(thing.closed for thing in maker.made) == 1
        assert books(pool).generation == 0
