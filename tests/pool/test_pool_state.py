"""PoolState: every event by itself, then random walks against a model and the real thing."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import gevent
import pytest

import gpool
from gpool.pool.line import Line
from gpool.pool.options import Options
from gpool.pool.pool_state import PoolState
from gpool.pool.slot import (
    BUSY,
    CLOSING,
    FINISHING,
    IDLE,
    LOST,
    RESETTING,
    STARTING,
    Check,
    Finish,
    Grant,
    NeverAtRest,
    Reset,
    Slot,
    Start,
    Stop,
)
from gpool.testing import VirtualClock, settle
from tests.pool.workshop import Client, Maker, assert_whole, check


@dataclass(eq=False)
class Lease:
    """What the books need of a lease."""

    slot: Slot | None = None


@dataclass(eq=False)
class Ticket:
    """What the books need of a ticket."""

    number: int
    waits: bool = False
    lease: Lease = field(default_factory=Lease)

    def grant(self, slot: Slot) -> bool:
        """Get a worker."""
        slot.lease, self.lease.slot = self.lease, slot
        return True


class Time:
    """What the books read the time from."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


def state(*, checks: bool = False, **options: Any) -> PoolState:
    """Return the empty books of a pool."""
    return PoolState(Options(**options), {}, Line(), checks=checks, now=Time())


def at(books: PoolState, seconds: float) -> PoolState:
    """Let it be so late for these books."""
    books._now.seconds = seconds  # type: ignore[union-attr]
    return books


def warm(count: int = 1, **options: Any) -> PoolState:
    """Return books with `count` idle workers."""
    books = state(**{"size": count, **options})
    starts = books.dispatch()
    for start in starts:
        assert isinstance(start, Start)
        starts += books.started(start.slot)
    books.check()
    return books


def lend(books: PoolState) -> Slot:
    """Lend an idle worker."""
    slot = books.checkout(Lease())
    assert slot is not None
    return slot


class TestInit:
    def test_starts_what_is_missing(self) -> None:
        """A new pool decides to start `size` workers."""
        decisions = state(size=3, max_overflow=2).dispatch()
        assert [type(decision) for decision in decisions] == [Start] * 3

    def test_a_lazy_pool_starts_nothing(self) -> None:
        """Nobody waits, nothing is started."""
        assert state(size=3, lazy=True).dispatch() == []

    def test_takes_over_who_waits(self) -> None:
        """Rule 10: they keep their places."""
        line, tickets = Line(), [Ticket(1), Ticket(2), Ticket(3)]
        for ticket in tickets:
            line.join(ticket)
        books = PoolState(Options(), {}, line)
        assert books.waiting.present() == tickets

    def test_takes_over_slots_that_can_only_be_closed(self) -> None:
        """Rule 10: one that is held is lost, any other is closing; both count for the cap."""
        held, free = Slot(), Slot()
        held.state = free.state = IDLE
        held.lease = Lease(held)
        books = PoolState(Options(size=2), dict.fromkeys([held, free]), Line())
        assert (held.state, free.state) == (LOST, CLOSING)
        assert (books.lost, books.closing, books.live) == (1, 1, 0)
        assert books.dispatch() == []
        books.check()


class TestCheckout:
    def test_lends_the_warmest(self) -> None:
        """lifo: the one that was used last."""
        books = warm(2)
        first, second = lend(books), lend(books)
        books.checkin(second, "clean")
        books.checkin(first, "clean")
        assert lend(books) is first

    def test_lends_the_coldest_if_fifo(self) -> None:
        """fifo: the one that was used first."""
        books = warm(2, strategy="fifo")
        first, second = lend(books), lend(books)
        books.checkin(second, "clean")
        books.checkin(first, "clean")
        assert lend(books) is second

    def test_finds_nothing(self) -> None:
        """No worker is idle."""
        books = warm(1)
        lend(books)
        assert books.checkout(Lease()) is None

    def test_overtakes_nobody(self) -> None:
        """Rule 3: while somebody waits nobody is let by, even if a worker is idle."""
        books = warm(1)
        books.held_up = True
        books.enqueue(Ticket(1))
        books.held_up = False
        assert books.checkout(Lease()) is None

    def test_lends_nothing_while_held_up(self) -> None:
        """A suspended manager grants nothing."""
        books = warm(1)
        books.held_up = True
        assert books.checkout(Lease()) is None


class TestEnqueue:
    def test_grants_what_is_idle(self) -> None:
        """A worker became idle in the same breath."""
        books, ticket = warm(1), Ticket(1)
        assert books.enqueue(ticket) == [Grant(next(iter(books.slots)), ticket)]
        assert ticket.lease.slot is not None
        books.check()

    def test_starts_overflow(self) -> None:
        """All of `size` are busy: one more is started for the client, up to the cap."""
        books = warm(1, max_overflow=1)
        lend(books)
        assert [type(d) for d in books.enqueue(Ticket(1))] == [Start]
        assert books.enqueue(Ticket(2)) == []
        books.check()

    def test_starts_on_demand_if_lazy(self) -> None:
        """One start for each client that waits."""
        books = state(size=2, lazy=True)
        assert [type(d) for d in books.enqueue(Ticket(1))] == [Start]
        assert [type(d) for d in books.enqueue(Ticket(2))] == [Start]
        assert books.enqueue(Ticket(3)) == []


class TestWithdraw:
    def test_leaves_nothing_behind(self) -> None:
        """Gone at once; twice is fine."""
        books = warm(1)
        lend(books)
        ticket = Ticket(1)
        books.enqueue(ticket)
        books.withdraw(ticket)
        books.withdraw(ticket)
        assert not books.waiting


class TestPutBack:
    def test_puts_it_back_into_its_old_place(self) -> None:
        """Rule 10: before those who came later."""
        books = warm(1)
        lend(books)
        first, second = Ticket(1), Ticket(2)
        books.enqueue(second)
        books.waiting.put_back(first)
        assert list(books.waiting) == [first, second]


class TestCheckin:
    @pytest.mark.parametrize(
        ("verdict", "kind", "after"),
        [("finish", Finish, FINISHING), ("reset", Reset, RESETTING), ("close", Stop, CLOSING)],
    )
    def test_has_it_done(self, verdict: Any, kind: type, after: str) -> None:
        """Rule 7: the verdict says what is to become of it."""
        books = warm(1)
        slot = lend(books)
        decisions = books.checkin(slot, verdict)
        assert decisions == [kind(slot)]
        assert (slot.state, slot.lease) == (after, None)
        books.check()

    def test_goes_to_the_oldest_waiter(self) -> None:
        """Rule 3: directly, in order."""
        books, tickets = warm(1), [Ticket(1), Ticket(2)]
        slot = lend(books)
        for ticket in tickets:
            books.enqueue(ticket)
        assert books.checkin(slot, "clean") == [Grant(slot, tickets[0])]
        assert list(books.waiting) == tickets[1:]

    def test_a_lost_one_is_closed(self) -> None:
        """Its worker has died in the client's hands."""
        books = warm(1)
        slot = lend(books)
        books.died(slot, open_resource=True)
        assert books.checkin(slot, "clean") == [Stop(slot, "lost")]
        assert books.lost == 0
        books.check()

    def test_one_that_is_about_to_die_is_closed(self) -> None:
        """Its exit was accepted meanwhile: it is not handed on."""
        books = warm(1)
        slot = lend(books)
        books.doomed(slot)
        assert books.checkin(slot, "clean") == [Stop(slot, "exit")]
        books.check()

    def test_overflow_leaves_at_once_if_told_so(self) -> None:
        """``overflow_ttl=0``; but a client that waits is served first."""
        books = warm(1, max_overflow=1, overflow_ttl=0)
        first = lend(books)
        [start] = books.enqueue(Ticket(1))
        assert isinstance(start, Start)
        books.started(start.slot)
        assert books.checkin(first, "clean") == [Stop(first, "overflow")]
        assert books.checkin(start.slot, "clean") == []
        books.check()


class TestStarted:
    def test_is_granted_to_who_waits(self) -> None:
        """The start was for somebody, but whoever is the oldest gets it."""
        books, ticket = state(size=1, lazy=True), Ticket(1)
        [start] = books.enqueue(ticket)
        assert isinstance(start, Start)
        assert books.started(start.slot) == [Grant(start.slot, ticket)]
        assert books.starting == 0


class TestFailed:
    def test_backs_off(self) -> None:
        """Rule 9: no start before the delay has passed, then one finds out."""
        books = state(size=3)
        starts = books.dispatch()
        assert isinstance(starts[0], Start)
        assert books.failed(starts[0].slot) == []
        assert (books.failures, books.backing_off, len(books.slots)) == (1, True, 2)
        for start in starts[1:]:
            assert isinstance(start, Start)
            books.failed(start.slot)
        assert [type(d) for d in books.retry()] == [Start]
        assert books.dispatch() == []
        books.check()

    def test_is_forgotten_when_one_is_up(self) -> None:
        """The fault is over: all that is missing is started."""
        books = state(size=3)
        for start in books.dispatch():
            assert isinstance(start, Start)
            books.failed(start.slot)
        [start] = books.retry()
        assert isinstance(start, Start)
        assert [type(d) for d in books.started(start.slot)] == [Start, Start]

    def test_one_success_ends_the_delay(self) -> None:
        """The service is there: those who wait do not wait for a timer."""
        books = state(size=2, lazy=True)
        first, second = books.enqueue(Ticket(1)) + books.enqueue(Ticket(2))
        assert isinstance(first, Start)
        assert isinstance(second, Start)
        books.failed(first.slot)
        assert books.breaker == "open"
        assert [type(d) for d in books.started(second.slot)] == [Grant, Start]
        assert books.breaker == "closed"


class TestRecovered:
    @pytest.mark.parametrize("verdict", ["finish", "reset"])
    def test_is_idle_or_granted(self, verdict: Any) -> None:
        """It may be lent again."""
        books = warm(1)
        books.checkin(lend(books), verdict)
        [slot] = books.slots
        books.recovered(slot)
        assert slot.state is IDLE
        books.check()


class TestDoomed:
    def test_an_idle_one_is_not_lent_any_more(self) -> None:
        """Rule 11: it leaves in the sender's frame, before it is dead."""
        books = warm(1)
        [slot] = books.slots
        books.doomed(slot)
        assert (slot.state, slot.mailbox) == (CLOSING, NeverAtRest)
        assert books.checkout(Lease()) is None
        books.check()

    @pytest.mark.parametrize("verdict", ["finish", "reset"])
    def test_one_that_recovers_is_closed(self, verdict: Any) -> None:
        """It recovered a moment too late."""
        books = warm(1)
        slot = lend(books)
        books.checkin(slot, verdict)
        books.doomed(slot)
        assert books.recovered(slot) == [Stop(slot, "exit")]
        books.check()


class TestCondemn:
    @pytest.mark.parametrize("before", [IDLE, FINISHING, RESETTING])
    def test_stops_what_nobody_holds(self, before: str) -> None:
        """Whatever it does just now."""
        books = warm(1)
        [slot] = books.slots
        if before is not IDLE:
            books.checkin(lend(books), "finish" if before is FINISHING else "reset")
        assert books.condemn(slot, "why") == [Stop(slot, "why")]
        books.check()


class TestAbandon:
    def test_frees_the_slot(self) -> None:
        """A start that has not begun shall not."""
        books = state(size=1)
        [start] = books.dispatch()
        assert isinstance(start, Start)
        books.held_up = True
        assert books.abandon(start.slot) == []
        assert (books.starting, len(books.slots)) == (0, 0)


class TestDied:
    def test_an_idle_one_is_replaced(self) -> None:
        """Rule 6: its slot is free, and taken again."""
        books = warm(1)
        [slot] = books.slots
        [start] = books.died(slot, open_resource=False)
        assert isinstance(start, Start)
        assert slot not in books.slots
        books.check()

    def test_an_open_resource_is_closed_first(self) -> None:
        """Rule 6: the slot is freed after the close."""
        books = warm(1)
        [slot] = books.slots
        assert books.died(slot, open_resource=True) == [Stop(slot)]
        assert slot.state is CLOSING
        books.check()
        [start] = books.died(slot, open_resource=False)
        assert isinstance(start, Start)

    def test_one_that_is_held_is_lost(self) -> None:
        """Its resource is not closed under its holder."""
        books = warm(1)
        slot = lend(books)
        assert books.died(slot, open_resource=True) == []
        assert (slot.state, books.lost) == (LOST, 1)
        books.check()

    def test_a_server_that_is_held_frees_its_slot(self) -> None:
        """Nothing is left of it but a lease that is lost."""
        books = warm(1)
        slot = lend(books)
        [start] = books.died(slot, open_resource=False)
        assert isinstance(start, Start)
        assert slot.lease is None

    def test_overflow_is_not_replaced(self) -> None:
        """Poolboy 5: only what is missing of `size` is."""
        books = warm(1, max_overflow=1)
        lend(books)
        [start] = books.enqueue(Ticket(1))
        assert isinstance(start, Start)
        books.started(start.slot)
        assert books.died(start.slot, open_resource=False) == []


class TestOverflow:
    def test_the_coldest_go_first_when_they_are_due(self) -> None:
        """Rule: an extra worker stays idle for ``overflow_ttl``."""
        books = warm(1, max_overflow=2, overflow_ttl=5.0)
        slots = [lend(books)]
        for number in (1, 2):
            [start] = books.enqueue(Ticket(number))
            assert isinstance(start, Start)
            books.started(start.slot)
            slots.append(start.slot)
        for now, slot in enumerate(slots):
            at(books, now).checkin(slot, "clean")
        assert books.overflow == 2
        assert books.upkeep_due == 5.0
        assert at(books, 4.9).upkeep() == []
        assert at(books, 5.0).upkeep() == [Stop(slots[0], "overflow")]
        assert books.upkeep_due == 6.0
        assert at(books, 60.0).upkeep() == [Stop(slots[1], "overflow")]
        assert books.upkeep() == []
        assert books.upkeep_due == math.inf

    def test_none_is_for_ever(self) -> None:
        """``overflow_ttl=None``."""
        books = warm(1, max_overflow=1, overflow_ttl=None)
        lend(books)
        [start] = books.enqueue(Ticket(1))
        assert isinstance(start, Start)
        books.started(start.slot)
        books.checkin(start.slot, "clean")
        assert books.upkeep_due == math.inf
        assert at(books, 1e9).upkeep() == []


class TestMaxAge:
    def aged(self, size: int = 1, **options: Any) -> tuple[PoolState, list[Slot]]:
        """Return books whose workers must go at 10 s, the second at 11, ..."""
        books = state(size=size, max_age=10.0, **options)
        slots = []
        for number, start in enumerate(books.dispatch()):
            assert isinstance(start, Start)
            start.slot.expires = 10.0 + number
            books.started(start.slot)
            slots.append(start.slot)
        return books, slots

    def test_an_idle_one_goes(self) -> None:
        """Enforced while idle, each at its own time."""
        books, [first, second] = self.aged(2)
        assert books.upkeep_due == 10.0
        assert at(books, 9.9).upkeep() == []
        assert at(books, 10.0).upkeep() == [Stop(first, "max_age")]
        assert books.upkeep_due == 11.0
        assert at(books, 11.0).upkeep() == [Stop(second, "max_age")]

    def test_one_that_is_held_goes_when_it_comes_back(self) -> None:
        """Enforced at checkin, and never under its holder."""
        books, [slot] = self.aged()
        assert lend(books) is slot
        assert at(books, 60.0).upkeep() == []
        assert (slot.state, slot.mailbox) == (BUSY, NeverAtRest)
        assert books.upkeep_due == math.inf
        assert books.checkin(slot, "clean") == [Stop(slot, "max_age")]

    def test_is_enforced_at_checkout(self) -> None:
        """However late the timer is, an old one is not lent: the client gets a fresh one."""
        books, [slot] = self.aged()
        at(books, 10.0)
        assert books.checkout(Lease()) is None
        assert books.enqueue(Ticket(1)) == [Stop(slot, "max_age")]
        assert [type(d) for d in books.died(slot, open_resource=False)] == [Start]

    def test_is_enforced_when_it_recovers(self) -> None:
        """It was too old by the time that it was reset."""
        books, [slot] = self.aged()
        books.checkin(lend(books), "reset")
        assert at(books, 10.0).recovered(slot) == [Stop(slot, "max_age")]

    def test_a_client_that_does_not_wait_has_it_seen_to(self) -> None:
        """``timeout=0`` gets another one at once, if there is one."""
        books, [first, second] = self.aged(2, strategy="fifo")
        at(books, 10.5)
        assert books.checkout(Lease()) is None
        assert books.prepare() == [Stop(first, "max_age")]
        assert books.checkout(Lease()) is second


class TestMaxUses:
    def test_goes_when_it_was_used_so_often(self) -> None:
        """Counted at the checkin; a grant that nobody has touched is no use."""
        books = warm(1, max_uses=2)
        slot = lend(books)
        assert books.checkin(slot, "unused") == []
        assert books.checkin(lend(books), "clean") == []
        assert books.checkin(lend(books), "clean") == [Stop(slot, "max_uses")]


class TestIdleTimeout:
    def test_leaves_min_ready(self) -> None:
        """The coldest go; what is left is not filled up again, but for a client."""
        books = warm(3, idle_timeout=5.0, min_ready=1)
        slots = list(books.slots)
        assert books.upkeep_due == 5.0
        assert at(books, 5.0).upkeep() == [
            Stop(slots[0], "idle_timeout"), Stop(slots[1], "idle_timeout"),
        ]  # fmt: skip
        for slot in slots[:2]:
            assert books.died(slot, open_resource=False) == []
        assert at(books, 1e6).upkeep() == []
        assert books.upkeep_due == math.inf
        assert books.prepare() == []
        assert lend(books) is slots[2]
        assert [type(d) for d in books.enqueue(Ticket(1))] == [Start]
        books.check()

    def test_is_enforced_at_checkout(self) -> None:
        """However late the timer is."""
        books = warm(1, idle_timeout=5.0)
        [slot] = books.slots
        at(books, 5.0)
        assert books.checkout(Lease()) is None
        assert books.enqueue(Ticket(1)) == [Stop(slot, "idle_timeout")]

    def test_counts_from_the_last_use(self) -> None:
        """A check does not keep it."""
        books = warm(1, checks=True, idle_timeout=5.0, keepalive=2.0)
        [slot] = books.slots
        for now in (2.0, 4.0):
            assert at(books, now).upkeep() == [Check(slot)]
            assert books.recovered(slot) == []
        assert at(books, 5.0).upkeep() == [Stop(slot, "idle_timeout")]

    def test_what_died_meanwhile_is_replaced(self) -> None:
        """Down to where idleness has brought it, and no further."""
        books = warm(2, idle_timeout=5.0)
        first, second = books.slots
        at(books, 4.0).checkin(lend(books), "clean")
        assert at(books, 5.0).upkeep() == [Stop(first, "idle_timeout")]
        assert books.died(first, open_resource=False) == []
        assert [type(d) for d in books.died(second, open_resource=False)] == [Start]


class TestMinReady:
    def test_a_lazy_pool_starts_so_many(self) -> None:
        """And replaces them."""
        books = state(size=3, lazy=True, min_ready=2)
        first, second = books.dispatch()
        assert isinstance(first, Start)
        assert isinstance(second, Start)
        books.started(first.slot)
        books.started(second.slot)
        assert [type(d) for d in books.died(first.slot, open_resource=False)] == [Start]


class TestMaxStarting:
    def test_bounds_the_starts_under_way(self) -> None:
        """The next begins when one has ended."""
        books = state(size=5, max_starting=2)
        starts = books.dispatch()
        assert len(starts) == 2
        for ticket in (Ticket(1), Ticket(2)):
            assert books.enqueue(ticket) == []
        assert isinstance(starts[0], Start)
        assert [type(d) for d in books.started(starts[0].slot)] == [Grant, Start]
        books.check()


class TestSurplus:
    def test_a_start_whose_demand_has_gone_is_not_needed(self) -> None:
        """Elision: what came back has served the client."""
        books, ticket = warm(1, max_overflow=1), Ticket(1)
        slot = lend(books)
        [start] = books.enqueue(ticket)
        assert not books.has_surplus
        assert books.checkin(slot, "clean") == [Grant(slot, ticket)]
        assert books.has_surplus
        assert isinstance(start, Start)
        assert books.abandon(start.slot) == []
        assert not books.has_surplus


class TestChecks:
    def stale(self, size: int = 3, **options: Any) -> tuple[PoolState, list[Slot]]:
        """Return books whose resources have been idle for too long."""
        books = warm(size, checks=True, **options)
        at(books, 1.0)
        return books, list(books.slots)

    def test_one_just_used_is_lent_unchecked(self) -> None:
        """The bypass window, ``check_after``."""
        books = warm(1, checks=True)
        assert at(books, 0.4).checkout(Lease()) is not None

    def test_a_stale_one_is_checked_for_who_waits(self) -> None:
        """One check a client; then it is lent."""
        books, slots = self.stale()
        tickets = [Ticket(1), Ticket(2)]
        assert books.checkout(Lease()) is None
        assert books.enqueue(tickets[0]) == [Check(slots[2])]
        assert books.enqueue(tickets[1]) == [Check(slots[1])]
        books.check()
        assert books.recovered(slots[1]) == [Grant(slots[1], tickets[0])]
        assert books.recovered(slots[2]) == [Grant(slots[2], tickets[1])]
        assert books.checking == 0
        books.check()

    def test_what_comes_back_first_is_lent(self) -> None:
        """A check delays nobody; what was checked for nobody keeps its place."""
        books, slots = self.stale(2)
        at(books, 0.0)
        lent, ticket = lend(books), Ticket(1)
        at(books, 1.0)
        assert books.enqueue(ticket) == [Check(slots[0])]
        assert books.checkin(lent, "clean") == [Grant(lent, ticket)]
        assert books.recovered(slots[0]) == []
        books.checkin(lent, "clean")
        assert books.idle.all() == [slots[0], lent]

    def test_a_dead_one_puts_its_generation_under_suspicion(self) -> None:
        """20 stale ones and a healthy server: one check, one connect, and it is served."""
        books, slots = self.stale(20)
        ticket = Ticket(1)
        assert books.enqueue(ticket) == [Check(slots[19])]
        decisions = books.unfit(slots[19], "check_failed")
        assert decisions[0] == Stop(slots[19], "check_failed")
        assert decisions[1:] == [Stop(slot, "suspected") for slot in slots[:19]]
        [start] = books.died(slots[19], open_resource=False)
        assert isinstance(start, Start)
        assert books.died(slots[0], open_resource=False) == []  # one finds out for all
        assert books.breaker == "half_open"
        decisions = books.started(start.slot)
        assert decisions[0] == Grant(start.slot, ticket)
        assert books.breaker == "closed"
        books.check()

    def test_one_that_is_held_is_checked_when_it_comes_back(self) -> None:
        """Its holder came to no harm, but it is of the same generation."""
        books, slots = self.stale(2, check_after=0.5)
        at(books, 0.0)
        held = lend(books)
        at(books, 1.0).enqueue(Ticket(1))
        books.unfit(slots[0], "check_failed")
        assert held.suspect
        assert books.checkin(held, "clean") == [Check(held)]
        assert [type(d) for d in books.recovered(held)] == [Grant]
        assert not held.suspect
        books.check()

    def test_a_generation_is_suspected_once(self) -> None:
        """One that was known to be suspect says nothing of those that are new."""
        books, slots = self.stale(3)
        for number in (1, 2):
            books.enqueue(Ticket(number))
        books.unfit(slots[2], "check_failed")
        generation = books.generation
        books.unfit(slots[1], "check_failed")
        assert books.generation == generation
        books.check()

    def test_without_checks_the_rest_goes_when_it_comes_back(self) -> None:
        """A client said that its own was dead: ``is_broken``."""
        books = warm(3)
        first, second = lend(books), lend(books)
        [idle] = books.idle.all()
        assert books.suspect(first) == [Stop(idle, "suspected")]
        assert books.checkin(second, "clean") == [Stop(second, "suspected")]
        assert first.doomed == ""
        books.check()

    def test_a_client_that_does_not_wait_has_one_checked(self) -> None:
        """``timeout=0``: nothing now, and something a moment later."""
        books, slots = self.stale(2)
        assert books.prepare() == [Check(slots[1])]
        assert books.prepare() == []
        books.recovered(slots[1])
        assert books.checkout(Lease()) is slots[1]

    def test_none_is_never(self) -> None:
        """``check_after=None``: only keepalive checks."""
        books, _ = self.stale(1, check_after=None)
        assert books.checkout(Lease()) is not None

    def test_zero_is_always(self) -> None:
        """``check_after=0``: even one just used."""
        books = warm(1, checks=True, check_after=0)
        assert books.checkout(Lease()) is None
        assert [type(d) for d in books.enqueue(Ticket(1))] == [Check]

    def test_keepalive_keeps_their_order(self) -> None:
        """Nimble 40: cycle after cycle; one after the other."""
        books = warm(3, checks=True, keepalive=5.0)
        before = books.idle.all()
        for now, slot in enumerate(before):
            slot.idle_since = now * 0.1
        assert at(books, 5.0).upkeep() == [Check(before[0])]
        assert books.upkeep_due == math.inf
        assert books.recovered(before[0]) == [Check(before[1])]
        assert books.recovered(before[1]) == [Check(before[2])]
        assert books.recovered(before[2]) == []
        assert books.idle.all() == before
        assert books.upkeep_due == 10.0


class TestPrepare:
    def test_a_client_that_does_not_wait_has_one_started(self) -> None:
        """A lazy pool has nothing the first time, and one more a moment later."""
        books = state(size=2, lazy=True)
        [start] = books.prepare()
        assert books.prepare() == []
        assert isinstance(start, Start)
        assert not books.has_surplus
        assert books.started(start.slot) == []
        assert books.checkout(Lease()) is start.slot

    def test_not_if_it_would_leave_at_once(self) -> None:
        """``overflow_ttl=0``: nobody would be there to take it."""
        books = warm(1, max_overflow=1, overflow_ttl=0)
        lend(books)
        assert books.prepare() == []


class TestMayWait:
    def test_those_for_whom_a_worker_starts_are_not_counted(self) -> None:
        """``max_waiting=0`` and a lazy pool: the first is served, a second one is refused."""
        books = state(size=1, lazy=True)
        assert books.may_wait(0)
        books.enqueue(Ticket(1))
        assert not books.may_wait(0)
        assert books.may_wait(1)
        assert books.may_wait(None)

    def test_nobody_counts_on_starts_that_fail(self) -> None:
        """While they back off there is nothing to come."""
        books = state(size=1, lazy=True)
        [start] = books.enqueue(Ticket(1))
        assert isinstance(start, Start)
        books.failed(start.slot)
        assert not books.may_wait(0)

    def test_what_is_to_be_checked_is_not_in_others_hands(self) -> None:
        """``max_waiting=0`` refuses nobody while an idle worker needs but a look."""
        books = warm(1, checks=True, check_after=0)
        assert books.may_wait(0)
        [check] = books.enqueue(Ticket(1))
        assert isinstance(check, Check)
        assert not books.may_wait(0)

    @pytest.mark.parametrize("verdict", ["finish", "reset", "close"])
    def test_what_is_on_its_way_back_is_not_in_others_hands(self, verdict: Any) -> None:
        """``max_waiting=0`` refuses nobody for whom the pool alone has something to do."""
        books = warm(1)
        slot = lend(books)
        assert not books.may_wait(0)
        books.checkin(slot, verdict)
        assert books.may_wait(0)

    def test_after_a_resize_below_what_is_busy(self) -> None:
        """What is held beyond the cap takes nothing from `max_waiting`."""
        books = warm(3)
        for _ in range(3):
            lend(books)
        books.resize(Options(size=1))
        assert books.may_wait(1)


class TestRevoke:
    @pytest.mark.parametrize("lost", [False, True])
    def test_is_closed(self, lost: bool) -> None:
        """Taken out of its holder's hands."""
        books = warm(1)
        slot = lend(books)
        if lost:
            books.died(slot, open_resource=True)
        assert books.revoke(slot) == [Stop(slot, "max_hold")]
        assert (books.busy, books.lost, books.closing) == (0, 0, 1)
        books.check()


class TestRecycle:
    def test_all_at_once(self) -> None:
        """Idle ones now, held ones when they come back."""
        books = warm(2)
        held = lend(books)
        [idle] = books.idle.all()
        assert books.recycle(0.0) == [Stop(idle, "recycled")]
        assert books.checkin(held, "clean") == [Stop(held, "recycled")]

    def test_one_by_one(self) -> None:
        """Rolling: never more away at a time than need be."""
        books = warm(4)
        slots = list(books.slots)
        assert books.recycle(40.0) == [Stop(slots[0], "recycled")]
        for number, slot in enumerate(slots[1:], 1):
            assert books.upkeep_due == 10.0 * number
            assert at(books, 10.0 * number).upkeep() == [Stop(slot, "recycled")]


class TestResize:
    def test_up(self) -> None:
        """What is missing is started."""
        books = warm(1)
        assert [type(d) for d in books.resize(Options(size=3))] == [Start, Start]

    def test_down(self) -> None:
        """Idle ones go at once, the coldest first."""
        books = warm(3)
        slots = list(books.slots)
        assert books.resize(Options(size=1)) == [
            Stop(slots[0], "resized"),
            Stop(slots[1], "resized"),
        ]
        books.check()

    def test_below_what_is_busy(self) -> None:
        """Those that are held go when they come back, until it fits."""
        books = warm(3)
        slots = [lend(books) for _ in range(3)]
        assert books.resize(Options(size=1)) == []
        books.check()
        assert books.checkin(slots[0], "clean") == [Stop(slots[0], "resized")]
        assert books.checkin(slots[1], "clean") == [Stop(slots[1], "resized")]
        assert books.checkin(slots[2], "clean") == []
        books.check()
        for slot in slots[:2]:
            assert books.died(slot, open_resource=False) == []
        assert len(books.slots) == books.bound == 1

    def test_starts_that_are_too_many_are_surplus(self) -> None:
        """They are dropped if they have not begun, else the worker goes."""
        books = state(size=2)
        first, second = books.dispatch()
        assert isinstance(first, Start)
        assert isinstance(second, Start)
        books.resize(Options(size=1))
        assert books.has_surplus
        books.abandon(first.slot)
        assert not books.has_surplus
        assert books.started(second.slot) == []


class TestDispatch:
    def test_does_nothing_while_held_up(self) -> None:
        """Suspended: what comes back is recorded, nobody is served."""
        books = state(size=2)
        books.held_up = True
        books.enqueue(Ticket(1))
        assert books.dispatch() == []
        books.held_up = False
        assert [type(d) for d in books.dispatch()] == [Start, Start]


class TestCheck:
    def test_notices_a_slot_that_is_lost(self) -> None:
        """The tests would be blind without it."""
        books = warm(1)
        lend(books).state = IDLE
        with pytest.raises(AssertionError):
            books.check()


# --- Random walks -------------------------------------------------------------------


class Model:
    """What a pool of any kind promises, kept beside the books in the simplest way."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.queue: deque[Ticket] = deque()  # those who wait, by arrival
        self.hands: dict[Slot, Lease] = {}  # who has which worker

    def lend(self, slot: Slot, lease: Lease) -> None:
        """A worker goes into somebody's hands."""
        assert slot not in self.hands, "a worker in two hands"
        assert not slot.doomed, "a doomed worker was lent"
        self.hands[slot] = lease

    def obey(self, decisions: list[Any]) -> list[Any]:
        """Check that grants go to the oldest; return what else is to be done."""
        rest = []
        for decision in decisions:
            if isinstance(decision, Grant):
                assert decision.ticket is self.queue.popleft(), "overtaken"
                self.lend(decision.slot, decision.ticket.lease)
            else:
                rest.append(decision)
        return rest


@pytest.mark.parametrize("seed", range(300))
def test_random_walk(seed: int) -> None:
    """The invariants hold after every step; FIFO, the cap, and no worker in two hands."""
    dice = random.Random(seed)
    size = dice.randint(0, 4)
    options = Options(
        size=size,
        max_overflow=dice.randint(0 if size else 1, 3),
        lazy=dice.random() < 0.3,
        strategy=dice.choice(["lifo", "fifo"]),
        overflow_ttl=dice.choice([None, 0.0, 2.0]),
        min_ready=dice.choice([None, dice.randint(0, size)]),
        idle_timeout=dice.choice([None, 3.0]),
        max_uses=dice.choice([None, 3]),
        check_after=dice.choice([None, 0.0, 1.0]),
        keepalive=dice.choice([None, 2.5]),
        max_starting=dice.choice([None, 1, 2]),
    )
    time = Time()
    books = PoolState(options, {}, Line(), checks=dice.random() < 0.5, now=time)
    model = Model(options.cap)
    todo: list[Any] = model.obey(books.dispatch())  # starts and stops that have not ended
    numbers = iter(range(10**6))
    for _ in range(400):
        time.seconds += dice.random()
        decisions = _step(books, model, todo, dice, numbers)
        todo += model.obey(decisions)
        books.check()
        assert books.waiting.present() == list(model.queue)
        assert {s for s in books.slots if s.lease is not None} == set(model.hands)
        assert len(books.slots) <= model.cap
        assert books.starting <= (books.options.max_starting or math.inf)


def _go_back(books: PoolState, slot: Slot) -> list[Any]:
    """Have a clean worker come back on the fast way, as PoolMan does, where that is open."""
    if books.waiting.length:
        is_open = not books.idle.count
    else:
        is_open = not books.overflow or books.options.overflow_ttl != 0
    if books.held_up or books.has_too_many or not is_open:
        return books.checkin(slot, "clean")
    slot.lease = None
    if worn_out := books.count_use(slot):
        return worn_out
    if books.waiting.length:
        return [Grant(slot, books.hand_over(slot))]
    books.take_in(slot)
    return []


def _step(
    books: PoolState, model: Model, todo: list[Any], dice: random.Random, numbers: Any
) -> list[Any]:
    """Take one step of any kind that can happen now."""
    by_state: dict[str, list[Slot]] = {}
    for slot in books.slots:
        by_state.setdefault(slot.state, []).append(slot)
    match dice.randrange(16):
        case 0 | 1:
            lease = Lease()
            slot = books.checkout(lease)
            if slot is not None:
                assert not model.queue, "overtaken"
                model.lend(slot, lease)
        case 2 | 3:
            ticket = Ticket(next(numbers))
            model.queue.append(ticket)
            return books.enqueue(ticket)
        case 4 if model.queue:
            ticket = dice.choice(list(model.queue))
            model.queue.remove(ticket)
            books.withdraw(ticket)
        case 5 | 6 if model.hands:
            slot = dice.choice(list(model.hands))
            model.hands.pop(slot).slot = None
            if slot.state is BUSY and slot.mailbox is None and dice.random() < 0.5:
                return _go_back(books, slot)
            verdicts = ["clean", "unused", "finish", "reset", "close"]
            return books.checkin(slot, dice.choice(verdicts))
        case 7 | 8 if todo:
            return _carry_out(books, todo.pop(dice.randrange(len(todo))), dice)
        case 9 if by_state:
            slot = dice.choice(list(books.slots))
            if slot.state is not STARTING and not slot.doomed:
                todo.append(("dies", slot))
                return books.doomed(slot)
        case 10:
            return books.retry() if dice.random() < 0.5 else books.upkeep()
        case 11:
            books.held_up = not books.held_up
            return books.dispatch()
        case 12:
            return books.prepare()
        case 13 if dice.random() < 0.2:
            return books.recycle(dice.choice([0.0, 5.0]))
        case 14 if dice.random() < 0.2:
            size = dice.randint(0, 4)
            more = dice.randint(0 if size else 1, 3)
            floor = books.options.min_ready and min(books.options.min_ready, size)
            options = replace(books.options, size=size, max_overflow=more, min_ready=floor)
            model.cap = max(options.cap, len(books.slots))
            return books.resize(options)
        case 15 if model.hands and dice.random() < 0.2:
            slot = dice.choice(list(model.hands))
            model.hands.pop(slot).slot = None
            return books.revoke(slot)
    return []


def _carry_out(books: PoolState, job: Any, dice: random.Random) -> list[Any]:
    """Let what was decided happen, in one of the ways in which it can."""
    slot = job[1] if isinstance(job, tuple) else job.slot
    if slot not in books.slots:
        return []
    match job:
        case Start():
            if slot.state is not STARTING:  # a resize has dropped it
                return []
            if dice.random() < 0.2:
                return books.failed(slot)
            if books.has_surplus and dice.random() < 0.5:
                return books.abandon(slot)
            return books.started(slot)
        case Finish() | Reset() | Check():
            if slot.state not in (FINISHING, RESETTING):
                return []
            if slot.state is RESETTING and dice.random() < 0.2:
                return books.unfit(slot, "unfit")
            return books.recovered(slot)
        case _:
            if slot.lease is not None:
                return books.died(slot, open_resource=True)
            return books.died(slot, open_resource=False)


@pytest.mark.parametrize("seed", range(60))
def test_random_walk_of_the_real_pool(clock: VirtualClock, seed: int) -> None:
    """The same with the moves that stand inlined in checkout and checkin, run by clients."""
    dice = random.Random(seed)
    random.seed(seed)  # the jitter of backoffs
    maker = Maker()
    hooks: dict[str, Any] = {"reset": maker.reset} if dice.random() < 0.4 else {}
    if dice.random() < 0.5:
        hooks["is_dirty"] = lambda thing: dice.random() < 0.1
    if dice.random() < 0.3:
        hooks["check"] = lambda thing: True
    size = dice.randint(1, 3)
    pool: gpool.Pool[Any] = gpool.Pool(
        maker.resource(**hooks),
        size=size,
        max_overflow=dice.randint(0, 2),
        strategy=dice.choice(["lifo", "fifo"]),
        overflow_ttl=dice.choice([None, 0.0, 1.0]),
        idle_timeout=dice.choice([None, None, 5.0]),
        max_uses=dice.choice([None, None, 3]),
        max_restarts=1000,
    )
    pool.start()
    settle()
    clients: list[Client] = []
    for _ in range(60):
        _live_on(pool, clients, dice, clock, maker)
        check(pool)
        assert maker.faults == []
        assert maker.open <= size + pool.stats().max_overflow
    maker.creates.clear()
    clock.advance(30.0)
    assert_whole(pool, maker)


def _live_on(
    pool: gpool.Pool[Any], clients: list[Client], dice: random.Random, clock: VirtualClock,
    maker: Maker,
) -> None:  # fmt: skip
    """Have something happen: a client more, a death, a failure, some time."""
    ledger: Any = pool._ledger
    match dice.randrange(10):
        case 0 | 1 | 2 | 3:
            clients.append(Client(_use, pool, dice.randrange(4), dice.randrange(6)))
        case 4 if clients:
            dice.choice(clients).kill()
        case 5 if clients:
            dice.choice(clients).cut()
        case 6 if ledger.slots:
            pid = dice.choice(list(ledger.slots)).pid
            if pid is not None:
                gpool.exit(pid, "kill")
        case 7 if ledger.man is not None and dice.random() < 0.3:
            gpool.exit(ledger.man.pid, "kill")
        case 8:
            maker.creates.append(dice.choice([OSError("no route"), None]))
        case 9:
            clock.advance(dice.random() * 2.0)
    if dice.random() < 0.7:
        gevent.sleep(0)
    else:
        settle()


def _use(pool: gpool.Pool[Any], turns: int, rounds: int) -> None:
    for _ in range(rounds):
        lease = pool.checkout(timeout=20.0)
        try:
            with lease.resource.used():
                for _ in range(turns):
                    gevent.sleep(0)
        finally:
            lease.checkin()


def test_states_are_all_reached() -> None:
    """The walk meets every state; otherwise it would prove little."""
    assert {STARTING, IDLE, BUSY, FINISHING, RESETTING, CLOSING, LOST} == set(_states_met())


def _states_met() -> set[str]:
    met: set[str] = set()
    for seed in range(10):
        dice = random.Random(seed)
        time = Time()
        books = PoolState(Options(size=2, max_overflow=1), {}, Line(), now=time)
        model, todo, numbers = Model(3), [], iter(range(10**6))
        todo += model.obey(books.dispatch())
        for step in range(300):
            time.seconds = float(step)
            todo += model.obey(_step(books, model, todo, dice, numbers))
            met |= {slot.state for slot in books.slots}
    return met
