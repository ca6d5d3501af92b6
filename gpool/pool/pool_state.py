"""Who holds which worker, who waits: the pool's bookkeeping, without a single greenlet.

:class:`PoolState` only decides.  Each method takes an event, changes the books
and returns what is to be done; :class:`~gpool.pool.pool_man.PoolMan` does it.
So every rule about order, fairness and limits can be read and tested here, one
call at a time.

Not here: processes, wake-ups, time (the caller says what time it is).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, Final, Literal

from gpool.pool.options import Options

SlotState = Literal["starting", "idle", "busy", "finishing", "resetting", "closing", "lost"]
STARTING: Final = "starting"
IDLE: Final = "idle"
BUSY: Final = "busy"
FINISHING: Final = "finishing"
RESETTING: Final = "resetting"
CLOSING: Final = "closing"
LOST: Final = "lost"

Verdict = Literal["clean", "finish", "reset", "close"]  # on a worker that comes back

NOTHING: Final = type("Nothing", (), {"__repr__": lambda _: "nothing", "__slots__": ()})()


class NeverAtRest:
    """Stands for the mailbox of a worker that is about to die, to keep it off the fast path."""

    resting: Final = False


class Slot:
    """One place under the cap, from the decision to fill it until it is proven empty."""

    __slots__ = (
        "attempts", "doomed", "idle_since", "lease", "mailbox", "pid", "spare", "state", "thing",
        "timer",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state: SlotState = STARTING
        self.thing: Any = NOTHING  # what the client gets: a server's handle or a resource
        self.pid: Any = None  # the process that runs it, or closes it
        self.mailbox: Any = None  # its, if the worker is a server; tells whether it is at rest
        self.doomed = False  # an exit of its worker was accepted: it is not lent any more
        self.lease: Any = None  # its holder's
        self.spare: Any = None  # its last holder's, to be used again if nobody else has it
        self.idle_since = 0.0  # seconds; kept only while there is overflow
        self.attempts = 0  # closes begun and not ended; those that others cut short do not count
        self.timer: Any = None  # bounds whatever its process does now

    def __repr__(self) -> str:
        return f"<Slot {self.state} {self.thing!r} {self.pid!r}>"


# --- Decisions ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Have a worker started for this slot."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Grant:
    """Hand this slot's worker to the client of this ticket."""

    slot: Slot
    ticket: Any


@dataclass(frozen=True, slots=True)
class Finish:
    """Ask this slot's worker to say when it has done what it was asked for."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Reset:
    """Have this slot's resource reset."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop this slot's worker, or close the resource that has lost its worker."""

    slot: Slot


Decision = Start | Grant | Finish | Reset | Stop


class PoolState:
    r"""Places every worker and every waiting client of one pool, for one epoch.

    A slot moves along these edges and no others::

        starting ----> idle <----> busy ----> finishing ----> idle
            |           |           | \----> resetting ----> idle
            |           |           |              |
            |           +-----------+-- closing <--+     lost --> closing
            v                            |                 ^
          (gone) <-----------------------+     busy -------+  its worker died,
                                                              its resource is still held

    and whoever would become idle while a client waits becomes busy instead.

    Invariants, true whenever no method is running (``check`` asserts them):

    * A slot is in one state; exactly the idle ones stand in `idle`.
    * ``len(slots) <= cap``: a slot is taken before the connect, freed after the close.
    * A busy or lost slot has a lease, which has it; no other has.
    * A client waits only while no worker is idle (unless dispatching is held up).
    * Clients are served in the order they came.
    """

    def __init__(self, options: Options, slots: dict[Slot, None], tickets: dict[Any, None]) -> None:
        self.options = options
        self.slots = slots  # the Ledger's: every worker not yet proven gone
        self.idle: deque[Slot] = deque()  # the next one to be lent last
        self.waiting: OrderedDict[Any, None] = OrderedDict()  # tickets, oldest first
        self.starting = self.finishing = self.resetting = self.closing = self.lost = 0
        self.failures = 0  # starts that failed since the last one that did not
        self.backing_off = False  # no start before the delay has passed
        self.held_up = False  # nothing is granted or started: suspended, draining
        for ticket in sorted(tickets, key=lambda ticket: ticket.number):
            self.waiting[ticket] = None
        for slot in slots:
            self._inherit(slot)

    def _inherit(self, slot: Slot) -> None:
        """Take over a slot of an epoch that is over: it can only be closed."""
        if slot.lease is not None:
            slot.state = LOST
            self.lost += 1
        else:
            slot.state = CLOSING
            self.closing += 1

    # --- Counts ---

    @property
    def live(self) -> int:
        """Workers that are not on their way out."""
        return len(self.slots) - self.closing - self.lost

    @property
    def up(self) -> int:
        """Workers that have started and are not on their way out."""
        return self.live - self.starting

    @property
    def busy(self) -> int:
        """Workers in the hands of a client."""
        return self.up - self.finishing - self.resetting - len(self.idle)

    @property
    def overflow(self) -> int:
        """Workers above ``size``."""
        return max(self.live - self.options.size, 0)

    # --- Clients ---

    def checkout(self, lease: Any) -> Slot | None:
        """Lend an idle worker; None if there is none, or others wait for one."""
        if not self.idle or self.waiting or self.held_up:
            return None
        slot = self.idle.pop()
        self._lend(slot, lease)
        return slot

    def enqueue(self, ticket: Any) -> list[Decision]:
        """A client waits."""
        self.waiting[ticket] = None
        return self.dispatch()

    def withdraw(self, ticket: Any) -> None:
        """A client waits no more."""
        self.waiting.pop(ticket, None)

    def requeue(self, ticket: Any) -> None:
        """A client that was granted a worker did not get it: it waits on, in its old place."""
        tickets = sorted([*self.waiting, ticket], key=lambda ticket: ticket.number)
        self.waiting = OrderedDict.fromkeys(tickets)

    def checkin(self, slot: Slot, verdict: Verdict, now: float) -> list[Decision]:
        """A client gave its worker back; `verdict` says in what condition."""
        slot.lease = None
        if slot.state is LOST:
            self.lost -= 1
            return self._close(slot)
        match "close" if slot.doomed else verdict:
            case "clean":
                return self._ready(slot, now)
            case "finish":
                slot.state = FINISHING
                self.finishing += 1
                return [Finish(slot)]
            case "reset":
                slot.state = RESETTING
                self.resetting += 1
                return [Reset(slot)]
            case "close":
                return self._close(slot)

    # --- Workers ---

    def started(self, slot: Slot, now: float) -> list[Decision]:
        """A worker is up."""
        self.starting -= 1
        self.failures = 0
        return self._ready(slot, now)

    def failed(self, slot: Slot) -> list[Decision]:
        """A worker did not start; the caller sees to the delay before the next try."""
        self.failures += 1
        self.backing_off = True
        self._leave(slot)
        del self.slots[slot]
        return self.dispatch()

    def abandon(self, slot: Slot) -> None:
        """A start that has not begun shall not."""
        self._leave(slot)
        del self.slots[slot]

    def retry(self) -> list[Decision]:
        """The delay after a failed start has passed."""
        self.backing_off = False
        return self.dispatch()

    def recovered(self, slot: Slot, now: float) -> list[Decision]:
        """A worker has finished, or its resource is reset."""
        self._leave(slot)
        return self._ready(slot, now)

    def doomed(self, slot: Slot) -> None:
        """A worker is about to die by itself: it will not be lent again."""
        slot.doomed, slot.mailbox = True, NeverAtRest
        if slot.state is IDLE:
            self._leave(slot)
            slot.state = CLOSING
            self.closing += 1

    def condemn(self, slot: Slot) -> list[Decision]:
        """A worker that nobody holds must go."""
        self._leave(slot)
        return self._close(slot)

    def died(self, slot: Slot, *, open_resource: bool) -> list[Decision]:
        """A worker's process is dead.

        With `open_resource` there is still something to close: at once, or when
        its holder lets go.  Otherwise the slot is free and a lease on it is lost.
        """
        if open_resource and slot.lease is not None:
            if slot.state is BUSY:
                slot.state = LOST
                self.lost += 1
            return self.dispatch()
        if open_resource:
            if slot.state is not CLOSING:
                self._leave(slot)
                slot.state = CLOSING
                self.closing += 1
            return [Stop(slot), *self.dispatch()]
        self._leave(slot)
        slot.lease = None
        del self.slots[slot]
        return self.dispatch()

    def retire(self, now: float) -> list[Decision]:
        """Workers above ``size`` that were idle for ``overflow_ttl`` may go, the coldest first."""
        decisions: list[Decision] = []
        ttl = self.options.overflow_ttl
        while ttl is not None and self.idle and self.overflow:
            coldest = self.coldest()
            if now - coldest.idle_since < ttl:
                break
            decisions += self.condemn(coldest)
        return decisions

    def coldest(self) -> Slot:
        """Return the idle worker that has not been used for the longest time."""
        return self.idle[0] if self.options.strategy == "lifo" else self.idle[-1]

    # --- The one dispatch loop ---

    def dispatch(self) -> list[Decision]:
        """Bring idle workers and waiting clients together, and start what is missing."""
        if self.held_up:
            return []
        decisions: list[Decision] = []
        while self.idle and self.waiting:
            decisions.append(self._grant(self.idle.pop()))
        for _ in range(self._starts_wanted()):
            slot = Slot()
            self.slots[slot] = None
            self.starting += 1
            decisions.append(Start(slot))
        return decisions

    def _starts_wanted(self) -> int:
        if self.backing_off:
            return 0
        demand = len(self.waiting) - self.starting
        missing = 0 if self.options.lazy else self.options.size - self.live
        wanted = min(max(demand, missing), self.options.cap - len(self.slots))
        # After a failure one start at a time finds out whether the fault is over.
        return max(min(wanted, 1 - self.starting) if self.failures else wanted, 0)

    def _ready(self, slot: Slot, now: float) -> list[Decision]:
        if slot.doomed:
            return self._close(slot)
        if self.waiting and not self.held_up:
            return [self._grant(slot)]
        slot.state = IDLE
        slot.idle_since = now
        if self.options.strategy == "lifo":
            self.idle.append(slot)
        else:
            self.idle.appendleft(slot)
        if self.overflow and self.options.overflow_ttl == 0:
            return self.condemn(slot)
        return self.dispatch()

    def _grant(self, slot: Slot) -> Grant:
        ticket, _ = self.waiting.popitem(last=False)
        self._lend(slot, ticket.lease)
        return Grant(slot, ticket)

    def _lend(self, slot: Slot, lease: Any) -> None:
        slot.state = BUSY
        slot.lease = lease
        lease.slot = slot

    def _close(self, slot: Slot) -> list[Decision]:
        slot.state = CLOSING
        self.closing += 1
        return [Stop(slot), *self.dispatch()]

    def _leave(self, slot: Slot) -> None:
        match slot.state:
            case "starting":
                self.starting -= 1
            case "idle":
                self.idle.remove(slot)
            case "finishing":
                self.finishing -= 1
            case "resetting":
                self.resetting -= 1
            case "closing":
                self.closing -= 1
            case "lost":
                self.lost -= 1

    def check(self) -> None:
        """Assert the invariants; for tests."""
        states = [slot.state for slot in self.slots]
        for name in (STARTING, FINISHING, RESETTING, CLOSING, LOST):
            assert getattr(self, name) == states.count(name), (name, self.slots)
        assert self.busy == states.count(BUSY), self.slots
        assert set(self.idle) == {slot for slot in self.slots if slot.state is IDLE}
        assert len(set(self.idle)) == len(self.idle)
        assert len(self.slots) <= self.options.cap, self.slots
        assert all((s.lease is not None) == (s.state in (BUSY, LOST)) for s in self.slots)
        assert all(s.lease is None or s.lease.slot is s for s in self.slots)
        assert not (self.idle and self.waiting) or self.held_up
        numbers = [ticket.number for ticket in self.waiting]
        assert numbers == sorted(numbers), numbers
