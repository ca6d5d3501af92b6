"""What outlives PoolMan: who waits, who holds what, and what is not yet proven closed.

The Ledger belongs to one run of a pool, from its start to its stop.  Clients and
worker processes report here, whether a PoolMan is in charge or not.  While one
is, it decides (:class:`~gpool.pool.pool_state.PoolState`, which works on the
Ledger's own slots and line); between two, the Ledger only records.  A new PoolMan starts
from it: that is an *epoch*.

Rules:

* Nothing here switches greenlets, but for :meth:`Ledger.checkout`, which waits.
* A slot stands in `slots` until its worker is dead and its resource closed.
* Clients keep place and deadline over an epoch's end, those granted but not yet
  woken included; what belonged to the old epoch can only be closed.
* An exception that strikes inside a transition all the same (a signal, a
  RecursionError) closes the epoch: plain stores bar the fast path, the next call
  cleans up, and the next epoch takes over nothing whose client does not have it.
* A lease that nobody refers to any more can never be checked in: it is reclaimed,
  dirty as it is, when a client begins to wait, or while it does.

Not here: carrying decisions out (``pool_man.py``), how clients wait (``queue.py``),
what becomes of workers (``staff.py``).
"""

from __future__ import annotations

import math
from heapq import nsmallest
from operator import attrgetter
from types import CodeType
from typing import Any, Final, Literal, get_args

from greenlet import getcurrent

from gpool import clock, telemetry
from gpool.errors import NoProcess, PoolClosed, WrongHub
from gpool.otp import greenlets, process
from gpool.otp.gen import System
from gpool.otp.pid import DEAD, FORKED, RUNNING, UNWINDING, Pid, table
from gpool.pool.admission import Admission
from gpool.pool.debug import DebugLease
from gpool.pool.lease import Back, Client, Holder, Lease, WaitingClient, is_dropped, keepers_of
from gpool.pool.line import Line
from gpool.pool.manager import Manager
from gpool.pool.options import Options
from gpool.pool.pool_state import PoolState
from gpool.pool.queue import Queue
from gpool.pool.slot import LOST, NeverAtRest, Slot, SlotState, Verdict
from gpool.pool.staff import Staff
from gpool.pool.teller import Teller
from gpool.pool.transition import transition
from gpool.pool.watch import Watch
from gpool.pool.worker import Kind
from gpool.waiter import Gate, get_ident

Phase = Literal["up", "draining", "failed", "stopped", "forked"]

EPOCH_CLOSED: Final = ("shutdown", "epoch_closed")  # PoolMan's reason after a stray exception


class Ledger:
    """The books of one run of a pool."""

    def __init__(self, name: str, kind: Kind, options: Options) -> None:
        self.name = name
        self.kind = kind
        self.options = options
        self.lease_class: type[Lease[Any]] = DebugLease if options.debug else Lease
        self.hub: Any = None  # of the thread that it runs in, once it is opened
        self.thread = 0  # the identity of that thread
        # The books.
        self.slots: dict[Slot, None] = {}  # oldest first
        self.staff = Staff(self)
        self.queue = Queue(self)
        self.clients: dict[Any, Client] = {}  # by greenlet, or by pid off the fast path
        self.pool: Any = None  # the Pool that users hold
        self.predecessor: Ledger | None = None  # of the pool's last run, until that is over
        # Who is in charge.
        self.phase: Phase = "up"
        self.epoch = 0  # counts PoolMen
        self.man: Manager | None = None  # None between two epochs
        self.sup: Pid | None = None
        self.worker_sup: Pid | None = None
        self.risen = Gate()  # a PoolMan is in charge
        self.ready = Gate()  # this epoch had as many workers up as the pool needs to be ready
        self.emptied: Gate | None = None  # opens when no slot is left but lost ones
        self.drained: Gate | None = None  # opens when nobody holds or waits any more
        self.failure: Any = None  # why the pool has failed
        self.closed = False  # nobody is let in, nor when it has failed and is revived
        self.suspended = False  # nothing is lent or started
        self.reported: dict[Slot, None] = {}  # held for longer than max_hold
        # The fast paths: barred unless everything is ordinary.
        self.idle: Any = ()  # PoolState's idle workers, the next one last
        self.due = 0.0  # seconds; until then they may be lent as they are
        self.line: Line | None = None  # the queue's, if who comes has but to stand in it
        self.line_limit = math.inf  # clients that may stand there
        self.back: Back | None = None  # sees to a worker that comes back ...
        self.clean_back: Back | None = None  # ... once its hooks have found it clean, if it has any
        self.is_struck = False
        # Counts, since the pool was started.
        self.admission = Admission(self)
        self.stale = self.reclaimed = self.overheld = self.revoked = 0
        self.teller = Teller(self)

    # --- Clients: checkout ---

    def meet(self) -> Client:
        """Return the running greenlet as a client of this pool.

        Raises:
            WrongHub: It runs in another thread.
        """
        pid = greenlets.current()
        client = self._client_of(pid)
        if client is None:
            if pid.hub is not self.hub:
                raise WrongHub(self.pool)
            client = self._enter(pid)
        elif client.greenlet is not getcurrent():  # it may have hibernated
            self._follow(client)
        return client

    def _client_of(self, pid: Pid) -> Client | None:
        """Return the client that a process is, if the pool has met it."""
        keeper = pid.keeper
        while keeper is not None:
            if type(keeper) is Client and keeper.ledger is self:
                return keeper
            keeper = keeper.next
        return None

    def _enter(self, pid: Pid) -> Client:
        before = pid.keeper
        client = Client(self, pid)
        if pid.keeper is not before and (known := self._client_of(pid)) is not None:
            return known  # a signal handler has met it meanwhile
        try:
            client.next, pid.keeper = pid.keeper, client
            self._follow(client)
        except BaseException:  # half known, it would never be forgotten
            self._dismiss(client)
            raise
        return client

    def _follow(self, client: Client) -> None:
        """Know a client by the greenlet that it runs in now."""
        pid, before = client.pid, client.greenlet
        # A raw greenlet's death is known only while nobody refers to it.
        greenlet = pid.greenlet or (None if pid in table.raw else pid.runner())
        if greenlet is None or pid.state is not RUNNING:
            self.leave_fast_path(client)
        else:
            client.greenlet = greenlet
            self.clients[greenlet] = client
            if before is not greenlet:
                self.clients.pop(pid if before is None else before, None)

    def leave_fast_path(self, client: Client) -> None:
        """Know a client by its process alone."""
        self.clients[client.pid] = client
        self.clients.pop(client.greenlet, None)
        client.greenlet = None  # which may keep, by what it ended with, all of this: no cycle

    def take_leave(self, client: Client) -> None:
        """Forget a client that has nothing of a stopped pool, or it would keep all of this."""
        if client.lease is None and not client.more and client.ticket is None:
            self._dismiss(client)

    def _dismiss(self, client: Client) -> None:
        client.part()
        self._forget(client)

    def _forget(self, client: Client) -> None:
        self.clients.pop(client.greenlet, None)
        self.clients.pop(client.pid, None)

    def checkout(self, timeout: float | None) -> Lease[Any]:
        """Borrow a worker; blocks until one is granted.  The caller says from which line.

        Raises:
            PoolClosed, PoolFailed, StartsFailing: There is none to come.
            PoolFull, CheckoutDeadlock: It may not wait, or would do so for ever.
            CheckoutTimeout: None came in time.
            WrongHub: The caller runs in another thread.
        """
        self.in_its_thread()
        self.admission.let_in(greenlets.current())  # who is refused is not met, nor kept in mind
        client = self.meet()
        lease = self._lend(client, waits=timeout is None or timeout > 0)
        if lease is not None:
            return lease
        if not self.queue.length:  # else PoolMan looks every now and then
            self.sweep()
        self.admission.refuse_to_wait(client, timeout)
        return self.queue.redeem(client.draw(timeout), timeout)

    def _lend(self, client: Client, *, waits: bool) -> Lease[Any] | None:
        """Borrow an idle worker if there is one and nobody waits."""
        lease = self.lease_class(self, client, clock.now())
        try:
            man = self.in_charge()
            if man is None or not (man.checkout(lease) or (not waits and man.prepare(lease))):
                return None
            client.take(lease)
        except BaseException:
            self.struck()
            raise
        return lease

    def checkout_unseen(self) -> Lease[Any] | None:
        """Borrow an idle worker, be it due for a check, unless there is none."""
        client = self.meet()
        lease = self.lease_class(self, client, clock.now())
        try:
            man = self.in_charge()
            if man is None or man.state.checkout(lease, unseen=True) is None:
                return None
            client.take(lease)
        except BaseException:
            self.struck()
            raise
        return lease

    def admit(self) -> None:
        """Raise unless a client may come now, to take an idle worker or to wait."""
        self.in_its_thread()
        me = greenlets.current()
        self.admission.let_in(me)
        man = self.in_charge()
        if man is not None and man.state.idle.count and not man.state.held_up:
            return
        if not self.queue.length:
            self.sweep()
        self.admission.refuse_if_full(me)

    def book(self, pid: Pid, code: CodeType, lasti: int) -> None:
        """Give a process its place in the queue before it first runs; it redeems the ticket."""
        client = self._enter(pid)
        self.queue.enqueue(client.book(code, lasti))

    def took_a_dead_one(self, row: Any) -> None:
        """The fast path has taken a worker out of this row of idle ones that is not idle."""
        if self.man is not None and self.man.state.idle.row is row:  # else that epoch is over
            self.man.state.idle.gone -= 1

    def sweep(self) -> None:
        """Reclaim what nobody will give back: of raw greenlets that are dead, of dropped leases."""
        greenlets.reap_raw()
        for slot in list(self.slots):
            if slot.lease is not None and is_dropped(slot):
                self._reclaim(slot.lease, "dropped", "close")

    @property
    def is_gone(self) -> bool:
        """Whether it was left behind: by a fork, or by the end of its thread."""
        return self.phase == "forked" or (self.hub is not None and self.hub.loop is None)

    def in_its_thread(self) -> None:
        """Raise WrongHub unless the caller runs in the pool's thread."""
        if get_ident() != self.thread:
            raise WrongHub(self.pool)

    # --- Clients: the way back ---

    def checkin(self, lease: Lease[Any], error: BaseException | None) -> None:
        """Take a worker back, in the condition that `error` and its hooks tell."""
        slot = self._slot_of(lease)
        if slot is not None:
            verdict, why = self._verdict(lease, slot, error)
            if slot.lease is lease:  # a hook may have given it back itself
                back = self.clean_back
                if verdict == "clean" and back is not None and slot.mailbox is not NeverAtRest:
                    self._go_back(lease, slot, back)
                else:
                    self._end(lease, slot, verdict, why)

    def discard(self, lease: Lease[Any], reason: Any) -> None:
        """Take a worker back to be stopped."""
        slot = self._slot_of(lease)
        if slot is not None:
            self._end(lease, slot, "close", "discarded" if reason is None else reason)

    def _go_back(self, lease: Lease[Any], slot: Slot, back: Back) -> None:
        see_to, state = back
        try:
            lease.slot = slot.lease = None
            slot.state = state
            lease.owner.drop(lease)
            see_to(slot)
        except BaseException:
            self.struck()
            raise
        if telemetry.meters:
            telemetry.checked_in(lease, clock.now())

    def _end(self, lease: Lease[Any], slot: Slot, verdict: Verdict, why: Any) -> None:
        is_late = slot in self.reported
        self.take_back(lease, verdict, why)
        now = clock.now()
        if is_late:
            held = now - lease.since
            self.note(telemetry.ReturnedLate(lease.owner.pid, self.name, held, lease.line))
        if telemetry.meters:
            telemetry.checked_in(lease, now)

    def _slot_of(self, lease: Lease[Any]) -> Slot | None:
        """Return the slot of a lease that is given back; None, counted, if it is over."""
        self.in_its_thread()
        slot = lease.slot
        if slot is not None and slot.lease is lease and not lease.is_the_parents:
            return slot
        self.stale += 1
        return None

    def transfer(self, lease: Lease[Any], heir: Any) -> None:
        """Give a lease another owner."""
        lease.worker  # noqa: B018  # raises if the lease is over
        self.meet()
        to = process.resolve(heir)
        process.same_hub(to)
        if to.state is DEAD or to.state is FORKED:
            raise NoProcess(to)
        self._hand_on(lease, self._client_of(to) or self._enter(to))

    @transition
    def _hand_on(self, lease: Lease[Any], owner: Client) -> None:
        lease.owner.drop(lease)
        lease.owner = owner
        owner.take(lease)

    def client_died(self, client: Client, reason: Any) -> None:
        """Reclaim what a dead client holds, and withdraw its ticket."""
        self._forget(client)
        client.greenlet = client.spare = None  # which know it, too: no cycle
        if client.lease is not None or client.more or client.ticket is not None:
            self._reclaim_all(client, reason)

    @transition
    def _reclaim_all(self, client: Client, reason: Any) -> None:
        if client.ticket is not None:
            self.queue.give_up(client.ticket)
        for lease in client.leases:
            slot = lease.slot
            if slot is not None and slot.lease is lease:
                sound = slot.state is not LOST and not self.kind.is_open(slot)
                self._reclaim(lease, reason, self.kind.verdict(slot, None)[0] if sound else "close")

    def _reclaim(self, lease: Lease[Any], reason: Any, verdict: Verdict) -> None:
        self.reclaimed += 1
        held, pid = clock.now() - lease.since, lease.owner.pid
        self.take_back(lease, verdict, ("owner_died", reason))
        self.note(telemetry.LeaseReclaimed(pid, self.name, reason, lease.line, held))

    def _verdict(
        self, lease: Lease[Any], slot: Slot, error: BaseException | None
    ) -> tuple[Verdict, Any]:
        if slot.state is LOST:
            return "close", "lost"
        pid = lease.owner.pid
        if pid.state is UNWINDING and shows_no_exit(error) and self.kind.is_open(slot):
            return "close", ("owner_died", pid.reason)
        try:
            return self.kind.verdict(slot, error)
        except Exception as failure:  # noqa: BLE001  # a user's hook cannot harm the pool
            self.note(telemetry.HookFailed(slot.pid, "is_dirty or is_broken", failure))
            return "close", ("hook_failed", failure)
        except BaseException as failure:
            if slot.lease is lease:
                self.take_back(lease, "close", ("left_by", failure))
            raise

    @transition
    def take_back(self, lease: Lease[Any], verdict: Verdict, why: Any = None) -> None:
        """A lease is over: its worker goes on as `verdict` says, and `why`."""
        slot = lease.slot
        if slot is None or slot.lease is not lease:  # a signal handler has given it back meanwhile
            return
        lease.slot = slot.lease = None  # first: from then on it is over
        lease.owner.drop(lease)
        self.reported.pop(slot, None)
        man = self.in_charge()
        if man is not None:
            man.checkin(slot, verdict, why)
        else:
            slot.lease = None
            self.staff.close_late(slot)
            if self.phase == "stopped":
                self.take_leave(lease.owner)
        self.note_quiet()

    @transition
    def report(self, slot: Slot, stack: tuple[str, ...]) -> None:
        """A worker is held for longer than ``max_hold``: tell, and take it away if so chosen."""
        lease = slot.lease
        held, line, revokes = clock.now() - lease.since, lease.line, self.revokes
        self.overheld += 1
        self.reported[slot] = None
        self.note(telemetry.HeldTooLong(lease.owner.pid, self.name, held, line, stack, revokes))
        if revokes:
            self.revoked += 1
            del self.reported[slot]
            lease.owner.drop(lease)  # it keeps its slot: so it knows that it is lost
        man = self.in_charge()
        if man is not None:
            man.reported(slot, revokes)
        self.note_quiet()

    @property
    def revokes(self) -> bool:
        """Whether a worker that is held for too long is taken away."""
        return self.options.max_hold is not None and self.options.on_max_hold == "revoke"

    def note_quiet(self) -> None:
        """Let those go on who wait for the end of what clients do, or of the workers."""
        if self.drained is not None and not self.held and not self.queue.length:
            self.drained.open()
        if self.emptied is not None and len(self.slots) == self.counts()[LOST]:
            self.emptied.open()

    # --- Epochs ---

    def in_charge(self) -> Manager | None:
        """Return the PoolMan that decides, None between two; clean up if one was struck."""
        if self.is_struck:
            self._mend()
        return self.man

    def struck(self) -> None:
        """Close the epoch: an exception hit a transition. Stores first: it may hit again."""
        self.idle = ()
        self.line = self.back = self.clean_back = None
        self.is_struck = True
        self.hub.loop.run_callback(self.in_charge)

    def _mend(self) -> None:
        man = self.man
        if man is not None and man.pid is not None:
            self.close_epoch(man, EPOCH_CLOSED)
            man.pid.mailbox.append(System(None, "terminate", EPOCH_CLOSED))
        self.is_struck = False

    def open_epoch(self, man: Manager) -> PoolState:
        """Put a new PoolMan in charge and give it the books."""
        self.epoch += 1
        for slot in [s for s in self.slots if s.pid is None and not self.kind.is_open(s)]:
            del self.slots[slot]
        self._succeed_all()
        self.queue.restore()
        self._drop_what_nobody_has()
        state = PoolState(self.options, self.slots, self.queue.line, checks=self.kind.checks)
        state.held_up = self.suspended or self.phase == "stopped"
        state.closed = self.closed
        self.is_struck = False
        self.man = man
        if self.phase == "failed":
            self.phase, self.failure = "draining" if self.closed else "up", None
        self.risen.open()
        return state

    def _succeed_all(self) -> None:
        old, self.predecessor = self.predecessor, None
        while old is not None and not old.is_gone:
            self._succeed(old)
            old = old.predecessor  # one that never had a manager has taken nothing over

    def _succeed(self, old: Ledger) -> None:
        """Take over what the pool's last run has left open: its server sees all of it."""
        for slot in list(old.slots):
            del old.slots[slot]
            self.slots[slot] = None
            for watch in [] if slot.pid is None else keepers_of(slot.pid):
                if isinstance(watch, Watch):
                    watch.books = self
            lease = slot.lease
            if lease is not None:
                owner, lease.ledger = lease.owner, self
                self._hand_on(lease, self._client_of(owner.pid) or self._enter(owner.pid))
                old.take_leave(owner)
        old.note_quiet()

    def _drop_what_nobody_has(self) -> None:
        """Take out what an exception has left that struck in the middle of a transition."""
        for slot in self.slots:
            lease = slot.lease
            if lease is not None and (lease.slot is not slot or not lease.owner.has(lease)):
                slot.lease = None
        for client in list(self.clients.values()):
            for lease in client.leases:
                if lease.slot is None or lease.slot.lease is not lease:
                    client.drop(lease)

    def close_epoch(self, man: Manager, reason: Any) -> None:
        """Nobody is in charge any more: bar the fast path, take unaccepted grants back."""
        if self.man is not man:
            return
        self.bar()
        man.cancel_timers()
        self.queue.revoke_all()
        self.man = None
        self.risen.shut()
        self.ready.shut()
        if self.phase != "stopped":
            self.note(telemetry.PoolFell(man.pid, self.name, reason, self.epoch))

    def set_aside(self) -> None:
        """In a forked child: all of this is the parent's; keep it, and use none of it."""
        self.bar()
        self.man = None
        self.phase = "forked"
        for slot in self.slots:
            if slot.lease is not None:
                slot.lose()

    def bar(self) -> None:
        """Close the fast paths."""
        self.idle = ()
        self.line = self.back = self.clean_back = None

    def close(self, *, fail_waiting: bool) -> None:
        """Let nobody in any more; never switches."""
        self._tell_closing()
        if self.phase == "up":
            self.phase = "draining"
        self.bar()
        self.ready.turn_away()  # what is missing is not started any more
        if self.man is not None:
            self.man.state.closed = True
        if fail_waiting:
            self.queue.fail_waiting(PoolClosed(self.name), "closed")

    def _tell_closing(self) -> None:
        if not self.closed:
            self.closed = True
            self.note(telemetry.PoolClosing(self.sup, self.name))

    def reopen(self) -> None:
        """Let clients in again, if they were only kept out; never switches."""
        if self.closed:
            self.note(telemetry.PoolReopened(self.sup, self.name))
        drained, self.drained, self.closed = self.drained, None, False
        if drained is not None:
            drained.turn_away()
        if self.phase == "draining":
            self.phase = "up"
            man = self.in_charge()
            if man is not None:
                man.state.closed = False
                man.decide(man.state.dispatch)

    def resize(self, options: Options) -> None:
        """Other numbers hold from now on; never switches."""
        self.options = options
        self.note(telemetry.PoolResized(self.sup, self.name, options.size, options.max_overflow))
        man = self.in_charge()
        if man is not None:
            man.decide(man.state.resize, options)

    def recycle(self, within: float) -> None:
        """Have all workers replaced in `within` seconds; never switches."""
        self.note(telemetry.PoolRecycled(self.sup, self.name, within))
        man = self.in_charge()
        if man is not None:  # else all are new in the next epoch
            man.decide(man.state.recycle, within)

    @transition
    def hold_up(self, *, suspended: bool) -> None:
        """Lend and start nothing, or go on."""
        if suspended != self.suspended:
            self.suspended = suspended
            event = telemetry.PoolSuspended if suspended else telemetry.PoolResumed
            self.note(event(self.sup, self.name))
        man = self.in_charge()
        if man is not None:
            man.hold_up()

    def shut(self) -> None:
        """The pool is stopped: nobody is let in, those who wait are told; never switches."""
        self.phase = "stopped"
        self._tell_closing()
        self.bar()
        self.queue.fail_waiting(PoolClosed(self.name), "closed")
        self._turn_away()
        self.staff.close_rest()  # if its tree has fallen already

    def fail(self, reason: Any) -> None:
        """The pool fell too often: tell those who wait, refuse those who come."""
        self.phase, self.failure = "failed", reason
        self.bar()
        self.queue.fail_waiting(self.admission.has_failed(), "failed")
        self._turn_away()

    def _turn_away(self) -> None:
        """Tell those who wait for the start that it does not come now."""
        self.risen.turn_away()
        self.ready.turn_away()

    def note(self, event: telemetry.Event) -> None:
        """Have the listeners told, who may block: not in a transition."""
        self.teller.note(event)

    # --- Looking ---

    @property
    def held(self) -> int:
        """Workers that clients have."""
        if self.man is not None:
            return self.man.state.busy + self.man.state.lost
        return sum(slot.lease is not None for slot in self.slots)

    def counts(self) -> dict[SlotState, int]:
        """Return how many slots are in each state."""
        if self.man is not None:
            return self.man.state.counts()
        counts = dict.fromkeys(get_args(SlotState), 0)
        for slot in list(self.slots):
            counts[slot.state] += 1
        return counts

    def holders(self, longest: int | None = None) -> list[Holder]:
        """Return who holds what, the oldest slot first; or so many who hold for longest."""
        leases = [slot.lease for slot in list(self.slots) if slot.lease is not None]
        if longest is not None:
            leases = nsmallest(longest, leases, key=attrgetter("since"))
        return [lease.holder() for lease in leases]

    def waiters(self, first: int | None = None) -> list[WaitingClient]:
        """Return who waits, the next one first; or the first so many of them."""
        return [ticket.waiting() for ticket in self.queue.tickets()[:first]]


def shows_no_exit(error: BaseException | None) -> bool:
    """Tell whether what ended a block says nothing of an exit: a driver may have swallowed it."""
    return error is None or isinstance(error, Exception | GeneratorExit)
