"""Who holds which worker, who waits: the pool's bookkeeping, without a single greenlet.

:class:`PoolState` only decides.  Each method takes an event, changes the books
and returns what is to be done; :class:`~gpool.pool.pool_man.PoolMan` does it.
So every rule about order, fairness and limits can be read and tested here, one
call at a time.

Not here: processes, wake-ups, timers (``upkeep_due`` says when time has done
something to a worker).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from gpool import clock
from gpool.pool.idle import Idle
from gpool.pool.line import Line
from gpool.pool.options import Options
from gpool.pool.slot import (
    BUSY,
    CLOSING,
    FINISHING,
    IDLE,
    LOST,
    RESETTING,
    STARTING,
    Check,
    Decision,
    Finish,
    Grant,
    NeverAtRest,
    Reset,
    Slot,
    SlotState,
    Start,
    Stop,
    Verdict,
)


class PoolState:
    r"""Places every worker and every waiting client of one pool, for one epoch.

    A slot moves along these edges and no others::

        starting ----> idle <----> busy ----> finishing ----> idle
            |           |  \        | \----> resetting ----> idle
            |           |   \-------|-------> resetting (a check)
            |           |           |              |
            |-----------+-----------+-- closing <--+     lost --> closing
            v                            |                 ^
          (gone) <-----------------------+     busy -------+  its worker died,
                                                              its resource is still held

    and whoever would become idle while a client waits becomes busy instead, or closing if
    it has to go, or is overdue.

    Invariants, true whenever no method is running (``check`` asserts them):

    * A slot is in one state; exactly the idle ones are in `idle`.
    * ``len(slots) <= cap``: a slot is taken before the connect, freed after the close.
      (After a resize below what is busy: it only shrinks until that holds.)
    * A busy or lost slot has a lease, which has it; no other has.
    * A client waits only while no worker is idle, but for those that must be checked
      before they are lent: then a check is under way for every client that waits.
      (Unless dispatching is held up.)
    * Clients are served in the order they came.

    A signal handler may use the pool between any two calls: then a slot that is idle may be
    on its way there, and one that is busy without a lease was just given back, or will be lent.

    Args:
        options: The pool's.
        slots: The Ledger's: every worker not yet proven gone.
        waiting: The Ledger's: every client that waits.
        checks: Whether what is lent can be checked.
        now: Tells the time, in seconds; None: gpool's clock.
    """

    def __init__(
        self,
        options: Options,
        slots: dict[Slot, None],
        waiting: Line,
        *,
        checks: bool = False,
        now: Callable[[], float] | None = None,
    ) -> None:
        self.options = options
        self.slots = slots
        self.checks = checks
        self.counts_uses = options.max_uses is not None
        self.looks_after_idle = checks or self.counts_uses or options.idle_timeout is not None
        self._now = now
        self.idle = Idle(is_lifo=options.strategy == "lifo")
        self.waiting = waiting
        self.starting = self.finishing = self.resetting = self.closing = self.lost = 0
        self.checking = 0  # of those that are resetting
        self.goal = self._first_goal()  # workers to have, whether anybody waits or not ...
        self.closed = False  # ... unless nobody else is let in: then only those who wait count
        self.bound = max(options.cap, len(slots))  # slots that there may be
        self.generation = 0  # counts how often all that were alive fell under suspicion
        self.failures = 0  # starts that failed since the last one that did not
        self.backoffs = 0  # delays since then; those that fail together have one
        self.backing_off = False  # no start before the delay has passed
        self.probing = False  # one start at a time, until one succeeds
        self.wished = False  # a client that did not wait would have liked one more worker
        self.held_up = False  # nothing is granted or started: suspended, stopping
        self.upkeep_due = math.inf  # seconds; nothing has to be seen to before then
        for slot in slots:
            self._inherit(slot)

    def _inherit(self, slot: Slot) -> None:
        """Take over a slot of an epoch that is over: it can only be closed."""
        slot.checking = False
        if slot.lease is not None:
            slot.lose()
            self.lost += 1
        else:
            slot.state = CLOSING
            self.closing += 1

    def _first_goal(self) -> int:
        return self.least if self.options.lazy else self.options.size

    def now(self) -> float:
        """Return the time, in seconds."""
        return clock.now() if self._now is None else self._now()

    # --- Counts ---

    @property
    def least(self) -> int:
        """Workers that are kept, however long they are idle."""
        return self.options.min_ready or 0

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
        return self.up - self.finishing - self.resetting - self.idle.count

    def counts(self) -> dict[SlotState, int]:
        """Return how many slots are in each state."""
        return {
            STARTING: self.starting, IDLE: self.idle.count, BUSY: self.busy,
            FINISHING: self.finishing, RESETTING: self.resetting, CLOSING: self.closing,
            LOST: self.lost,
        }  # fmt: skip

    @property
    def overflow(self) -> int:
        """Workers above ``size``."""
        return max(self.live - self.options.size, 0)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more worker."""
        return len(self.slots) >= self.options.cap

    @property
    def has_too_many(self) -> bool:
        """Whether some workers have to go, once they come back, after a resize."""
        return len(self.slots) > self.options.cap and self.live > self.options.cap

    @property
    def _target(self) -> int:
        return 0 if self.closed else self.goal

    @property
    def breaker(self) -> Literal["closed", "open", "half_open"]:
        """Whether starts are made freely, not now, or one at a time to find out."""
        if self.backing_off:
            return "open"
        return "half_open" if self.failures or self.probing else "closed"

    @property
    def fails_fast(self) -> bool:
        """Whether a client that would wait has nothing to hope for now."""
        return bool(self.failures) and not self.up and (self.backing_off or self.starting > 0)

    # --- Clients ---

    def checkout(self, lease: Any, *, unseen: bool = False) -> Slot | None:
        """Lend an idle worker; None if there is none, or others wait, or it needs a look first."""
        if self.waiting.length or self.held_up:
            return None
        slot = self.idle.next()
        if slot is None or (not unseen and slot.due <= self.now()):
            return None
        slot = self.idle.take()
        if slot is None or slot.state is not BUSY:  # a signal handler came between
            return None
        slot.lease, lease.slot = lease, slot
        return slot

    def prepare(self) -> list[Decision]:
        """See that a client that does not wait finds a worker the next time it asks."""
        if self.waiting.length or self.held_up:
            return []
        decisions = self._uncover()
        slot = self.idle.next()
        if slot is not None and not self.checking and slot.due <= self.now():
            decisions += self._check(slot)
        self.wished = not (self.idle.count or self.checking) and (
            self.live < self.options.size or self.options.overflow_ttl != 0
        )
        return decisions + self.dispatch()

    def may_wait(self, limit: int | None) -> bool:
        """Tell whether one more client may wait, if `limit` may wait for others to let go.

        Those do not count who wait for the pool alone: for what is being started, checked,
        reset or closed, or can be.
        """
        if limit is None:
            return True
        options = self.options
        own = self.live - self.busy
        room = 0 if self.backing_off else max(options.cap - self.live - self.lost, 0)
        return self.waiting.length < limit + own + room

    def enqueue(self, ticket: Any) -> list[Decision]:
        """A client waits."""
        self.waiting.join(ticket)
        return self.dispatch()

    def withdraw(self, ticket: Any) -> None:
        """A client waits no more."""
        self.waiting.leave(ticket)

    def hand_over(self, slot: Slot) -> Any:
        """Lend a busy worker that nobody has to who waits longest; return the ticket.

        None if nobody waits any more, or the worker was killed meanwhile.
        """
        ticket = self.waiting.next()
        if ticket is not None and not ticket.grant(slot):
            self.waiting.put_back(ticket)
            return None
        return ticket

    def take_in(self, slot: Slot) -> None:
        """Put a busy worker that nobody has among the idle ones; nobody waits."""
        self.wished = False
        slot.idle_since = slot.seen = self.now()
        self.idle.put(slot)
        self._postpone(slot)
        self.upkeep_due = min(self.upkeep_due, self._due_of(slot))

    def count_use(self, slot: Slot) -> list[Decision]:
        """A worker has served another client; it must go if that was the last one."""
        slot.uses += 1
        limit = self.options.max_uses
        if limit is None or slot.uses < limit or slot.state is not BUSY:
            return []
        return self._close(slot, "max_uses")

    def checkin(self, slot: Slot, verdict: Verdict, reason: Any = None) -> list[Decision]:
        """A client gave its worker back; `verdict` says in what condition, `reason` why."""
        slot.lease = None
        slot.uses += verdict != "unused"
        if slot.state is LOST:
            self.lost -= 1
            return self._close(slot, "lost")
        why = slot.doomed or self._worn_out(slot)
        if slot.state is not BUSY:  # a signal handler has killed it meanwhile
            return []
        match "close" if why else verdict:
            case "unused":
                return self._ready(slot)
            case "clean":
                return self._ready(slot, used=True)
            case "finish":
                slot.state = FINISHING
                self.finishing += 1
                return [Finish(slot)]
            case "reset":
                slot.state = RESETTING
                self.resetting += 1
                return [Reset(slot)]
            case "close":
                return self._close(slot, why or reason)

    def revoke(self, slot: Slot) -> list[Decision]:
        """A client has held its worker for too long: it is taken away."""
        slot.lease = None
        if slot.state is LOST:
            self.lost -= 1
        return self._close(slot, "max_hold")

    # --- Workers ---

    def started(self, slot: Slot) -> list[Decision]:
        """A worker is up."""
        self.starting -= 1
        self.failures = self.backoffs = 0
        self.backing_off = self.probing = self.wished = False
        slot.generation = self.generation
        slot.due = slot.expires
        self.upkeep_due = min(self.upkeep_due, slot.expires)
        coldest = self.idle.coldest()
        if coldest is not None:  # `min_ready` kept it, but does not any more
            self.upkeep_due = min(self.upkeep_due, self._due_of(coldest))
        decisions = [*self._ready(slot, used=True), *self.dispatch()]
        if not self.options.lazy:
            self.goal = max(self.goal, min(self.options.size, self.live))
        return decisions

    def failed(self, slot: Slot, *, open_resource: bool = False) -> list[Decision]:
        """A worker did not start; the caller sees to the delay before the next try.

        With `open_resource` it came too late, and what it has made is to be closed.
        """
        self.failures += 1
        self.backoffs += not self.backing_off
        self.backing_off, self.wished = True, False
        if open_resource:
            return [*self._stop(slot, None), *self.dispatch()]
        self._leave(slot)
        self._remove(slot)
        return self.dispatch()

    def abandon(self, slot: Slot) -> list[Decision]:
        """A start that has not begun shall not."""
        self._leave(slot)
        self._remove(slot)
        return self.dispatch()

    @property
    def has_surplus(self) -> bool:
        """Whether more starts have been decided on than are needed now."""
        needed = max(self.waiting.length, self._target - self.up, self.wished)
        return self.starting > needed or len(self.slots) > self.options.cap

    def retry(self) -> list[Decision]:
        """The delay after a failed start has passed."""
        self.backing_off = False
        return self.dispatch()

    def recovered(self, slot: Slot) -> list[Decision]:
        """A worker has finished, or its resource is reset or was found alive."""
        checked = slot.checking
        self._leave(slot)
        if not checked:
            return self._ready(slot, used=True)
        slot.suspect, slot.generation, slot.seen = False, self.generation, self.now()
        slot.mailbox = NeverAtRest if slot.doomed else None
        return [*self._ready(slot), *self._check_next()]

    def unfit(self, slot: Slot, reason: str) -> list[Decision]:
        """What was done to make a resource fit has failed; a check speaks of its generation too."""
        checked = slot.checking
        decisions: list[Decision] = [*self._stop(slot, reason)]
        if not checked:
            return decisions + self.dispatch()
        decisions += self._suspect(slot)
        return decisions + self._check_next()

    def suspect(self, culprit: Slot) -> list[Decision]:
        """A client that gives it back says that what it held is dead."""
        return [*self._suspect(culprit), *self.dispatch()]

    def _suspect(self, culprit: Slot) -> Sequence[Stop]:
        """One was found dead: so may be all that were alive with it, unless that was known.

        The idle ones go.  One that is lent is checked when it comes back, or goes then.
        """
        if culprit.generation != self.generation:
            return []
        self.generation += 1
        self.probing = True
        for slot in list(self.slots):
            if slot is culprit or slot.state not in (BUSY, FINISHING, RESETTING):
                continue
            if self.checks:
                slot.suspect, slot.mailbox = True, NeverAtRest
            else:
                slot.doomed, slot.mailbox = "suspected", NeverAtRest
        return [stop for slot in self.idle.all() for stop in self._stop(slot, "suspected")]

    def doomed(self, slot: Slot) -> list[Decision]:
        """A worker is about to die by itself: it will not be lent again."""
        slot.doomed, slot.mailbox = "exit", NeverAtRest
        if slot.state is IDLE or (slot.state is BUSY and slot.lease is None):  # not yet accepted
            self._leave(slot)
            slot.state = CLOSING
            self.closing += 1
        return self.dispatch()

    def condemn(self, slot: Slot, reason: Any) -> list[Decision]:
        """A worker that nobody holds must go."""
        return [*self._stop(slot, reason), *self.dispatch()]

    def died(self, slot: Slot, *, open_resource: bool) -> list[Decision]:
        """A worker's process is dead.

        With `open_resource` there is still something to close: at once, or when
        its holder lets go.  Otherwise the slot is free and a lease on it is lost.
        """
        if open_resource and slot.lease is not None:
            if slot.state is not LOST:
                self._leave(slot)
                slot.lose()
                self.lost += 1
            return self.dispatch()
        after = self._check_next if slot.checking else self.dispatch
        if open_resource:
            if slot.state is not CLOSING:
                self._leave(slot)
                slot.state = CLOSING
                self.closing += 1
            return [Stop(slot), *after()]
        self._leave(slot)
        slot.lease = None
        self._remove(slot)
        return after()

    # --- Time ---

    def upkeep(self) -> list[Decision]:
        """See to what time has done to the workers, the coldest first."""
        now = self.now()
        decisions: list[Decision] = []
        for slot in self.idle.coldest_first():
            if (why := self._outlived(slot, now)) is not None:
                decisions += self._retire(slot, why)
            elif not self.checking and self._keepalive_due(slot) <= now:
                decisions += self._check(slot)  # one at a time: the others can be lent
        for slot in list(self.slots):
            if slot.expires <= now and slot.state in (BUSY, FINISHING, RESETTING):
                slot.doomed, slot.mailbox, slot.expires = slot.fate, NeverAtRest, math.inf
        self.upkeep_due = min(map(self._due_of, self.slots), default=math.inf)
        return decisions + self.dispatch()

    def recycle(self, within: float) -> list[Decision]:
        """Replace all workers that there are, one by one, in `within` seconds.

        One that is being started counts: it may have begun before whatever is the reason.
        """
        now = self.now()
        others = (STARTING, BUSY, FINISHING, RESETTING)
        due = [*self.idle.coldest_first(), *[slot for slot in self.slots if slot.state in others]]
        for number, slot in enumerate(due):
            turn = now + within * number / len(due)
            if turn < slot.expires:
                slot.expires, slot.fate = turn, "recycled"
                slot.due = min(slot.due, turn)
        return self.upkeep()

    def resize(self, options: Options) -> list[Decision]:
        """Other numbers hold from now on; what is held beyond them goes when it comes back."""
        self.options = options
        self.goal = self._first_goal()
        self.bound = max(options.cap, len(self.slots))
        now = self.now()
        for slot in self.idle.all():
            slot.idle_since = now
        too_many = max(self.live - options.cap, 0)
        begun = [slot for slot in reversed(list(self.slots)) if slot.state is STARTING]
        going = [*begun, *self.idle.coldest_first()][:too_many]
        decisions = [stop for slot in going for stop in self._stop(slot, "resized")]
        self.upkeep_due = now
        return [*decisions, *self.dispatch()]

    def _retire(self, slot: Slot, why: str) -> list[Stop]:
        """Stop an idle worker whose time is over."""
        decision = self._stop(slot, why)
        if why == "idle_timeout":
            self.goal = max(self.least, min(self.goal, self.live))
        return decision

    def _outlived(self, slot: Slot, now: float) -> str | None:
        """Say why an idle worker must go, if it must."""
        options, used = self.options, slot.idle_since
        if slot.expires <= now:
            return slot.fate
        if self.overflow and used + _or_inf(options.overflow_ttl) <= now:
            return "overflow"
        if self.up > self.least and used + _or_inf(options.idle_timeout) <= now:
            return "idle_timeout"
        return None

    def _worn_out(self, slot: Slot) -> str:
        """Say why a worker that comes back must go; an empty text if it need not."""
        options = self.options
        if slot.expires != math.inf and slot.expires <= self.now():
            return slot.fate
        if options.max_uses is not None and slot.uses >= options.max_uses:
            return "max_uses"
        return "resized" if self.has_too_many else ""

    def _is_unseen(self, slot: Slot, now: float) -> bool:
        """Tell whether an idle worker must be checked before it is lent."""
        return self.checks and slot.seen + _or_inf(self.options.check_after) <= now

    def _due_of(self, slot: Slot) -> float:
        """Return when a worker has to be seen to."""
        if slot.state is not IDLE:
            return slot.expires if slot.state in (BUSY, FINISHING, RESETTING) else math.inf
        options = self.options
        return min(
            slot.expires,
            slot.idle_since + _or_inf(options.overflow_ttl) if self.overflow else math.inf,
            slot.idle_since + _or_inf(options.idle_timeout) if self.up > self.least else math.inf,
            self._keepalive_due(slot),
        )

    def _keepalive_due(self, slot: Slot) -> float:
        """Return when an idle worker is to be checked; while another one is, that may wait."""
        if not self.checks or self.checking:
            return math.inf
        return slot.seen + _or_inf(self.options.keepalive)

    def _check_next(self) -> list[Decision]:
        """A check has ended: keepalives that had to wait for that go on."""
        return self.dispatch() if self.options.keepalive is None else self.upkeep()

    # --- The one dispatch loop ---

    def dispatch(self) -> list[Decision]:
        """Bring idle workers and waiting clients together, and start what is missing."""
        if self.held_up:
            return []
        decisions: list[Decision] = []
        while self.idle.count and self.waiting.length:
            decisions += self._uncover()
            slot = self.idle.next()
            if slot is not None and slot.due > self.now():
                grants = self._grant_idle()
                if not grants and slot.state is IDLE:  # a signal handler has seen to who waited
                    break
                decisions += grants
            elif slot is not None and self.checking < self.waiting.length:
                decisions += self._check(slot)
            else:
                break
        for _ in range(self._starts_wanted()):
            slot = Slot()
            self.slots[slot] = None
            self.starting += 1
            decisions.append(Start(slot))
        return decisions

    def _uncover(self) -> list[Decision]:
        """Have the idle workers go that have had their time, down to one that has not.

        That one may be lent, or it is still due: then it must be checked first.
        """
        decisions: list[Decision] = []
        while (slot := self.idle.next()) is not None and slot.due <= (now := self.now()):
            if (why := self._outlived(slot, now)) is not None:
                decisions += self._retire(slot, why)
            elif self._is_unseen(slot, now):
                break
            else:
                self._postpone(slot)
        return decisions

    def _starts_wanted(self) -> int:
        if self.backing_off:
            return 0
        demand = max(self.waiting.length, self.wished) - self.starting - self.checking
        missing = self._target - self.live
        wanted = min(max(demand, missing), self.options.cap - len(self.slots))
        # After a failure one start at a time finds out whether the fault is over.
        at_once = 1 if self.failures or self.probing else _or_inf(self.options.max_starting)
        return int(max(min(wanted, at_once - self.starting), 0))

    def _ready(self, slot: Slot, *, used: bool = False) -> list[Decision]:
        why = slot.doomed or self._worn_out(slot)
        if why:
            return self._close(slot, why)
        if slot.state is CLOSING:  # a signal handler has killed it meanwhile
            return []
        if slot.suspect:
            slot.idle_since = self.now() if used else slot.idle_since
            return [*self._check(slot)]
        if self.waiting.length and not self.held_up:
            slot.state = BUSY
            ticket = self.hand_over(slot)
            if ticket is not None:
                return [Grant(slot, ticket)]
            if slot.state is not BUSY:
                return []
        slot.state = IDLE
        self.wished = False
        if used:
            slot.idle_since = slot.seen = self.now()
        self.idle.put_by_use(slot)
        self._postpone(slot)
        if self.overflow and self.options.overflow_ttl == 0:
            return self.condemn(slot, "overflow")
        self.upkeep_due = min(self.upkeep_due, self._due_of(slot))
        return self.dispatch()

    def _postpone(self, slot: Slot) -> None:
        """Say until when an idle worker may be lent without a look."""
        options = self.options
        slot.due = min(
            slot.expires,
            slot.idle_since + _or_inf(options.idle_timeout) if self.up > self.least else math.inf,
            slot.seen + _or_inf(options.check_after) if self.checks else math.inf,
        )

    def _grant_idle(self) -> list[Grant]:
        slot = self.idle.take()
        if slot is None:
            return []
        ticket = self.hand_over(slot)
        if ticket is not None:
            return [Grant(slot, ticket)]
        self.take_in(slot)
        return []

    def _check(self, slot: Slot) -> list[Check]:
        """Have a worker checked that nobody has; a signal handler may have lent or killed it."""
        if slot.lease is not None or slot.state is CLOSING:
            return []
        if slot.state is IDLE:
            self.idle.take_out(slot, RESETTING)
        slot.state = RESETTING
        slot.checking = True
        self.resetting += 1
        self.checking += 1
        return [Check(slot)]

    def _stop(self, slot: Slot, reason: Any) -> list[Stop]:
        """Stop a worker that nobody has; a signal handler may have lent or killed it."""
        if slot.lease is not None or slot.state is CLOSING:
            return []
        self._leave(slot)
        slot.state = CLOSING
        self.closing += 1
        return [Stop(slot, reason)]

    def _close(self, slot: Slot, reason: Any) -> list[Decision]:
        if slot.state is CLOSING:  # a signal handler has killed it meanwhile
            return []
        slot.state = CLOSING
        self.closing += 1
        return [Stop(slot, reason), *self.dispatch()]

    def _leave(self, slot: Slot) -> None:
        match slot.state:
            case "starting":
                self.starting -= 1
            case "idle":
                self.idle.lose(slot)
            case "finishing":
                self.finishing -= 1
            case "resetting":
                self.resetting -= 1
                self.checking -= slot.checking
                slot.checking = False
            case "closing":
                self.closing -= 1
            case "lost":
                self.lost -= 1

    def _remove(self, slot: Slot) -> None:
        del self.slots[slot]
        self.bound = max(self.options.cap, len(self.slots))

    def check(self) -> None:
        """Assert the invariants; for tests."""
        states = [slot.state for slot in self.slots]
        for name, count in self.counts().items():
            assert count == states.count(name), (name, self.slots)
        assert self.checking == sum(slot.checking for slot in self.slots), self.slots
        assert all(slot.state is RESETTING for slot in self.slots if slot.checking)
        self.idle.check()
        assert set(self.idle.all()) == {slot for slot in self.slots if slot.state is IDLE}
        assert len(self.slots) <= self.bound, self.slots
        assert all((s.lease is not None) == (s.state in (BUSY, LOST)) for s in self.slots)
        assert all(s.lease is None or s.lease.slot is s for s in self.slots)
        assert not self.idle.count or self.held_up or self.waiting.length <= self.checking
        self.waiting.check()


def _or_inf(limit: float | None) -> float:
    return math.inf if limit is None else limit
