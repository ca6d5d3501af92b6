"""PoolMan: knows who holds what and who waits, and decides on replacements.

Its books are a :class:`~gpool.pool.pool_state.PoolState`.  Clients and workers
run the transitions themselves, in their own greenlets, as clients of an Erlang
table do: each method marked *(anyone)* is straight-line code without a switch.
PoolMan's own greenlet does what may block: it tells the listeners.

When it dies, for whatever reason, the epoch ends in its last frame; PoolSup
restarts it, with WorkerSup, from the Ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from gpool import clock, telemetry
from gpool.errors import PoolClosed
from gpool.otp import greenlets, process
from gpool.otp.child_spec import Backoff
from gpool.otp.gen import Cast, System
from gpool.otp.gen_server import GenServer
from gpool.otp.signal import signal
from gpool.pool.lease import Lease, Ticket
from gpool.pool.ledger import Ledger
from gpool.pool.pool_state import (
    BUSY,
    FINISHING,
    IDLE,
    RESETTING,
    STARTING,
    Decision,
    Finish,
    Grant,
    PoolState,
    Reset,
    Slot,
    Start,
    Stop,
    Verdict,
)
from gpool.pool.worker import Fall, bound, cancel_timer
from gpool.waiter import Gate

SWEEP: Final = 1.0  # s between two looks for what nobody will give back, while somebody waits
START_BACKOFF: Final = Backoff(first=0.01, maximum=5.0)  # between starts that fail


class Pong:
    """Takes a worker's answer to a ping: it has done all that came before."""

    __slots__ = ("books", "slot")

    def __init__(self, books: Ledger, slot: Slot) -> None:
        self.books, self.slot = books, slot

    def answer(self, value: Any) -> None:
        """The worker is at rest."""
        self.books.worker_recovered(self.slot)

    def fail(self, error: BaseException) -> None:
        """Every server answers a ping; there is nothing to do."""


class PoolMan(GenServer):
    """The manager of one pool, for one epoch."""

    state: PoolState

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.retry_timer: Any = None  # runs while starts back off
        self.retire_timer: Any = None  # runs while a worker above size is idle
        self.sweep_timer: Any = None  # runs while a client waits

    def init(self) -> None:
        """Take the books over, close what is left of the last epoch, start what is missing."""
        process.trap_exit(True)
        me = greenlets.current()
        Fall(me, self._fell)
        self.state = self.ledger.open_epoch(self)
        orphans = [s for s in self.ledger.slots if s.pid is None and s.lease is None]
        self._do([*map(Stop, orphans), *self.state.dispatch()])
        while self.ledger.unsaid:
            self.ledger.note(self.ledger.unsaid.popleft())
        self.ledger.note(telemetry.PoolRose(me, self.ledger.name, self.ledger.epoch))

    def _fell(self, reason: Any) -> None:
        self.ledger.close_epoch(self)

    def handle_info(self, message: Any) -> None:
        """Tell the listeners what happened."""
        if isinstance(message, telemetry.Event):
            telemetry.emit(message)
        else:
            super().handle_info(message)

    def terminate(self, reason: Any) -> None:
        """After an orderly stop of the pool, end after the workers."""
        ledger = self.ledger
        if ledger.phase == "stopped" and ledger.man is self:
            ledger.fail_waiting(PoolClosed)
            self.state.held_up = True
            ledger.emptied = ledger.emptied or Gate()
            for slot in list(ledger.slots):
                self._stop_for_good(slot)
            ledger.note_quiet()
            ledger.emptied.wait()
        ledger.close_epoch(self)

    def _stop_for_good(self, slot: Slot) -> None:
        if slot.state in (IDLE, FINISHING, RESETTING):
            cancel_timer(slot)
            self._do(self.state.condemn(slot))
        elif slot.state is STARTING and slot.pid is None:  # WorkerSup has not come to it
            self.state.abandon(slot)
        elif slot.state in (STARTING, BUSY):
            self._stop(slot)

    def format_status(self) -> Any:
        """Show the counts, not what is lent."""
        state = self.state
        return {
            "pool": self.ledger.name, "epoch": self.ledger.epoch, "idle": len(state.idle),
            "busy": state.busy, "starting": state.starting, "waiting": len(state.waiting),
        }  # fmt: skip

    def system_suspended(self) -> None:
        """Grant nothing while suspended; what comes back is recorded."""
        self.state.held_up = True
        self._do([])

    def system_resumed(self) -> None:
        """Serve those who came meanwhile."""
        self.state.held_up = False
        self._do(self.state.dispatch())

    # --- Transitions (anyone) ---

    def checkout(self, lease: Lease[Any]) -> bool:
        """Lend an idle worker at once, if there is one and nobody waits (anyone)."""
        return self.state.checkout(lease) is not None

    def enqueue(self, ticket: Ticket) -> None:
        """A client waits (anyone)."""
        self._do(self.state.enqueue(ticket))
        self.keep_trying()

    def keep_trying(self) -> None:
        """Somebody waits: starts that back off keep the loop alive (anyone)."""
        if self.state.backing_off:
            self._retry_after(self.retry_at - clock.now(), ref=True)

    def withdraw(self, ticket: Ticket) -> None:
        """A client waits no more (anyone)."""
        self.state.withdraw(ticket)

    def checkin(self, slot: Slot, verdict: Verdict) -> None:
        """A worker came back (anyone)."""
        self._do(self.state.checkin(slot, verdict, clock.now()))

    def started(self, slot: Slot) -> None:
        """A worker is up (anyone)."""
        self._do(self.state.started(slot, clock.now()))
        if self.state.up >= self.ledger.options.size:
            self.ledger.ready.open()
        self.ledger.note(telemetry.WorkerStarted(slot.pid, self.ledger.name))

    def failed(self, slot: Slot, reason: Any) -> None:
        """A worker did not start (anyone)."""
        delay = START_BACKOFF.delay(self.state.failures)
        self.retry_at = clock.now() + delay
        self._do(self.state.failed(slot))
        self._retry_after(delay, ref=bool(self.state.waiting or self.ledger.ready.is_awaited))
        self.ledger.note(telemetry.WorkerStartFailed(self.pid, self.ledger.name, reason, delay))

    def doomed(self, slot: Slot) -> None:
        """An idle worker is about to die (anyone)."""
        self.state.doomed(slot)
        self._do([])

    def recovered(self, slot: Slot) -> None:
        """A worker has finished, or its resource is reset (anyone)."""
        if slot.state in (FINISHING, RESETTING):
            cancel_timer(slot)
            self._do(self.state.recovered(slot, clock.now()))

    def died(self, slot: Slot, is_open: bool) -> None:
        """A worker is dead (anyone)."""
        self._do(self.state.died(slot, open_resource=is_open))

    # --- Carrying out ---

    def _decide(self, event: Callable[..., list[Decision]], *facts: Any) -> None:
        """Run a transition in the hub, where nobody else closes the epoch if it is struck."""
        try:
            self._do(event(*facts))
        except BaseException:
            self.ledger.struck()
            raise

    def _do(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Grant(slot, ticket):
                    ticket.lease.owner.leases[ticket.lease] = None
                    ticket.granted = True
                    ticket.waiter.wake()
                case Start():
                    self._tell_worker_sup(decision)
                case Stop(slot):
                    self._stop(slot)
                case Finish(slot):
                    slot.mailbox.append(System(Pong(self.ledger, slot), "ping"))
                    self._limit(slot)
                case Reset(slot):
                    done = partial(self.ledger.worker_recovered, slot)
                    slot.pid.mailbox.append(Cast(done))
                    self._limit(slot)
        self._open_fast_path()
        self._watch_overflow()
        self._watch_waiting()

    def _tell_worker_sup(self, decision: Start | Stop) -> None:
        # If WorkerSup is dying the message is lost, and so is the epoch.
        worker_sup = self.ledger.worker_sup
        if worker_sup is not None:
            worker_sup.mailbox.append(Cast(decision))

    def _stop(self, slot: Slot) -> None:
        pid, limit = slot.pid, self.ledger.options.shutdown
        if pid is None:
            self._tell_worker_sup(Stop(slot))
            return
        sender = self.ledger.worker_sup or greenlets.current()
        if limit == 0:
            signal(pid, sender, "kill", direct=True)
            return
        signal(pid, sender, "shutdown", direct=True)
        bound(slot, limit, partial(signal, pid, sender, "kill", direct=True))

    def _limit(self, slot: Slot) -> None:
        limit = self.ledger.options.finish_timeout
        if limit == 0:
            self._overdue(slot)
        else:
            bound(slot, limit, self._overdue, slot)

    def _overdue(self, slot: Slot) -> None:
        if self.ledger.man is self and slot.state in (FINISHING, RESETTING):
            self._decide(self.state.condemn, slot)

    def _retry_after(self, delay: float, *, ref: bool) -> None:
        if self.retry_timer is not None:
            self.retry_timer.cancel()
        self.retry_timer = clock.call_later(delay, self._retry, ref=ref)

    def _retry(self) -> None:
        self.retry_timer = None
        if self.ledger.man is self:
            self._decide(self.state.retry)

    def _watch_overflow(self) -> None:
        state, ttl = self.state, self.ledger.options.overflow_ttl
        if self.retire_timer is None and ttl is not None and state.overflow and state.idle:
            due = state.coldest().idle_since + ttl - clock.now()
            self.retire_timer = clock.call_later(due, self._retire, ref=False)

    def _retire(self) -> None:
        self.retire_timer = None
        if self.ledger.man is self:
            self._decide(self.state.retire, clock.now())

    def _watch_waiting(self) -> None:
        if self.sweep_timer is None and self.state.waiting:
            self.sweep_timer = clock.call_later(SWEEP, self._sweep, ref=False)

    def _sweep(self) -> None:
        self.sweep_timer = None
        if self.ledger.man is self and self.state.waiting:
            self.ledger.sweep()
            self._watch_waiting()

    def _open_fast_path(self) -> None:
        """Let clients lend and return by themselves if nothing is special, else bar it."""
        state, ledger = self.state, self.ledger
        ordinary = ledger.man is self and not state.waiting and not state.held_up
        ledger.idle = state.idle if ordinary and ledger.phase == "up" else ()
        if ordinary and ledger.kind.quick and ledger.drained is None and not state.overflow:
            lifo = ledger.options.strategy == "lifo"
            ledger.back = state.idle.append if lifo else state.idle.appendleft
        else:
            ledger.back = None

    def cancel_timers(self) -> None:
        """The epoch is over."""
        for timer in (self.retry_timer, self.retire_timer, self.sweep_timer):
            if timer is not None:
                timer.cancel()
