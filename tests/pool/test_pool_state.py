"""PoolState: every event by itself, then random walks against a model and the real thing."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import gevent
import pytest

import gpool
from gpool.pool.options import Options
from gpool.pool.pool_state import (
    BUSY,
    CLOSING,
    FINISHING,
    IDLE,
    LOST,
    RESETTING,
    STARTING,
    Finish,
    Grant,
    NeverAtRest,
    PoolState,
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
    lease: Lease = field(default_factory=Lease)


def state(**options: Any) -> PoolState:
    """Return the empty books of a pool."""
    return PoolState(Options(**options), {}, {})


def warm(count: int = 1, **options: Any) -> PoolState:
    """Return books with `count` idle workers."""
    books = state(**{"size": count, **options})
    for decision in books.dispatch():
        assert isinstance(decision, Start)
        books.started(decision.slot, 0.0)
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

    def test_takes_over_tickets_by_arrival(self) -> None:
        """Rule 10: those who wait keep their places, whatever order they are found in."""
        tickets = [Ticket(3), Ticket(1), Ticket(2)]
        books = PoolState(Options(), {}, dict.fromkeys(tickets))
        assert [ticket.number for ticket in books.waiting] == [1, 2, 3]

    def test_takes_over_slots_that_can_only_be_closed(self) -> None:
        """Rule 10: one that is held is lost, any other is closing; both count for the cap."""
        held, free = Slot(), Slot()
        held.state = free.state = IDLE
        held.lease = Lease(held)
        books = PoolState(Options(size=2), dict.fromkeys([held, free]), {})
        assert (held.state, free.state) == (LOST, CLOSING)
        assert (books.lost, books.closing, books.live) == (1, 1, 0)
        assert books.dispatch() == []
        books.check()


class TestCheckout:
    def test_lends_the_warmest(self) -> None:
        """lifo: the one that was used last."""
        books = warm(2)
        first, second = lend(books), lend(books)
        books.checkin(second, "clean", 1.0)
        books.checkin(first, "clean", 2.0)
        assert lend(books) is first

    def test_lends_the_coldest_if_fifo(self) -> None:
        """fifo: the one that was used first."""
        books = warm(2, strategy="fifo")
        first, second = lend(books), lend(books)
        books.checkin(second, "clean", 1.0)
        books.checkin(first, "clean", 2.0)
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


class TestRequeue:
    def test_puts_it_back_into_its_old_place(self) -> None:
        """Rule 10: before those who came later."""
        books = warm(1)
        lend(books)
        first, second = Ticket(1), Ticket(2)
        books.enqueue(second)
        books.requeue(first)
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
        decisions = books.checkin(slot, verdict, 1.0)
        assert decisions == [kind(slot)]
        assert (slot.state, slot.lease) == (after, None)
        books.check()

    def test_goes_to_the_oldest_waiter(self) -> None:
        """Rule 3: directly, in order."""
        books, tickets = warm(1), [Ticket(1), Ticket(2)]
        slot = lend(books)
        for ticket in tickets:
            books.enqueue(ticket)
        assert books.checkin(slot, "clean", 1.0) == [Grant(slot, tickets[0])]
        assert list(books.waiting) == tickets[1:]

    def test_a_lost_one_is_closed(self) -> None:
        """Its worker has died in the client's hands."""
        books = warm(1)
        slot = lend(books)
        books.died(slot, open_resource=True)
        assert books.checkin(slot, "clean", 1.0) == [Stop(slot)]
        assert books.lost == 0
        books.check()

    def test_one_that_is_about_to_die_is_closed(self) -> None:
        """Its exit was accepted meanwhile: it is not handed on."""
        books = warm(1)
        slot = lend(books)
        books.doomed(slot)
        assert books.checkin(slot, "clean", 1.0) == [Stop(slot)]
        books.check()

    def test_overflow_leaves_at_once_if_told_so(self) -> None:
        """``overflow_ttl=0``; but a client that waits is served first."""
        books = warm(1, max_overflow=1, overflow_ttl=0)
        first = lend(books)
        [start] = books.enqueue(Ticket(1))
        assert isinstance(start, Start)
        books.started(start.slot, 1.0)
        assert books.checkin(first, "clean", 2.0) == [Stop(first)]
        assert books.checkin(start.slot, "clean", 2.0) == []
        books.check()


class TestStarted:
    def test_is_granted_to_who_waits(self) -> None:
        """The start was for somebody, but whoever is the oldest gets it."""
        books, ticket = state(size=1, lazy=True), Ticket(1)
        [start] = books.enqueue(ticket)
        assert isinstance(start, Start)
        assert books.started(start.slot, 0.0) == [Grant(start.slot, ticket)]
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
        assert [type(d) for d in books.started(start.slot, 1.0)] == [Start, Start]


class TestRecovered:
    @pytest.mark.parametrize("verdict", ["finish", "reset"])
    def test_is_idle_or_granted(self, verdict: Any) -> None:
        """It may be lent again."""
        books = warm(1)
        books.checkin(lend(books), verdict, 1.0)
        [slot] = books.slots
        books.recovered(slot, 2.0)
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
        books.checkin(slot, verdict, 1.0)
        books.doomed(slot)
        assert books.recovered(slot, 2.0) == [Stop(slot)]
        books.check()


class TestCondemn:
    @pytest.mark.parametrize("before", [IDLE, FINISHING, RESETTING])
    def test_stops_what_nobody_holds(self, before: str) -> None:
        """Whatever it does just now."""
        books = warm(1)
        [slot] = books.slots
        if before is not IDLE:
            books.checkin(lend(books), "finish" if before is FINISHING else "reset", 1.0)
        assert books.condemn(slot) == [Stop(slot)]
        books.check()


class TestAbandon:
    def test_frees_the_slot(self) -> None:
        """A start that has not begun shall not."""
        books = state(size=1)
        [start] = books.dispatch()
        assert isinstance(start, Start)
        books.abandon(start.slot)
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
        books.started(start.slot, 1.0)
        assert books.died(start.slot, open_resource=False) == []


class TestRetire:
    def test_the_coldest_go_first_when_they_are_due(self) -> None:
        """Rule: an extra worker stays idle for ``overflow_ttl``."""
        books = warm(1, max_overflow=2, overflow_ttl=5.0)
        slots = [lend(books)]
        for number in (1, 2):
            [start] = books.enqueue(Ticket(number))
            assert isinstance(start, Start)
            books.started(start.slot, 0.0)
            slots.append(start.slot)
        for now, slot in enumerate(slots):
            books.checkin(slot, "clean", float(now))
        assert books.overflow == 2
        assert books.retire(4.9) == []
        assert books.retire(5.0) == [Stop(slots[0])]
        assert books.retire(60.0) == [Stop(slots[1])]
        assert books.retire(60.0) == []

    def test_none_is_for_ever(self) -> None:
        """``overflow_ttl=None``."""
        books = warm(1, max_overflow=1, overflow_ttl=None)
        lend(books)
        [start] = books.enqueue(Ticket(1))
        assert isinstance(start, Start)
        books.started(start.slot, 0.0)
        books.checkin(start.slot, "clean", 0.0)
        assert books.retire(1e9) == []


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
    )
    books, model, now = PoolState(options, {}, {}), Model(options.cap), 0.0
    todo: list[Any] = model.obey(books.dispatch())  # starts and stops that have not ended
    numbers = iter(range(10**6))
    for _ in range(400):
        now += dice.random()
        decisions = _step(books, model, todo, dice, now, numbers)
        todo += model.obey(decisions)
        books.check()
        assert list(books.waiting) == list(model.queue)
        assert {s for s in books.slots if s.lease is not None} == set(model.hands)
        assert len(books.slots) <= model.cap


def _step(
    books: PoolState, model: Model, todo: list[Any], dice: random.Random, now: float, numbers: Any
) -> list[Any]:
    """Take one step of any kind that can happen now."""
    by_state: dict[str, list[Slot]] = {}
    for slot in books.slots:
        by_state.setdefault(slot.state, []).append(slot)
    match dice.randrange(12):
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
            return books.checkin(slot, dice.choice(["clean", "finish", "reset", "close"]), now)
        case 7 | 8 if todo:
            return _carry_out(books, todo.pop(dice.randrange(len(todo))), dice, now)
        case 9 if by_state:
            slot = dice.choice(list(books.slots))
            if slot.state is not STARTING and not slot.doomed:
                books.doomed(slot)
                todo.append(("dies", slot))
        case 10:
            return books.retry() if dice.random() < 0.5 else books.retire(now)
        case 11:
            books.held_up = not books.held_up
            return books.dispatch()
    return []


def _carry_out(books: PoolState, job: Any, dice: random.Random, now: float) -> list[Any]:
    """Let what was decided happen, in one of the ways in which it can."""
    slot = job[1] if isinstance(job, tuple) else job.slot
    if slot not in books.slots:
        return []
    match job:
        case Start():
            if dice.random() < 0.2:
                return books.failed(slot)
            return books.started(slot, now)
        case Finish() | Reset():
            if slot.state in (FINISHING, RESETTING):
                return books.recovered(slot, now)
            return []
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
    size = dice.randint(1, 3)
    pool: gpool.Pool[Any] = gpool.Pool(
        maker.resource(**hooks),
        size=size,
        max_overflow=dice.randint(0, 2),
        strategy=dice.choice(["lifo", "fifo"]),
        overflow_ttl=dice.choice([None, 0.0, 1.0]),
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
        books = PoolState(Options(size=2, max_overflow=1), {}, {})
        model, todo, numbers = Model(3), [], iter(range(10**6))
        todo += model.obey(books.dispatch())
        for step in range(300):
            todo += model.obey(_step(books, model, todo, dice, float(step), numbers))
            met |= {slot.state for slot in books.slots}
    return met
