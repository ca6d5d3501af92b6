"""PoolMan: knows who holds what and who waits, and decides on replacements.

Its books are a :class:`~gpool.pool.pool_state.PoolState`.  Clients and workers
run the transitions themselves, in their own greenlets, as clients of an Erlang
table do: each method marked *(anyone)* is straight-line code without a switch.
PoolMan's own greenlet does what may block: it tells the listeners.

When it dies, for whatever reason, the epoch ends in its last frame; PoolSup
restarts it, with WorkerSup, from the Ledger.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Literal

from gpool import clock, telemetry
from gpool.errors import PoolClosed
from gpool.otp import greenlets, process
from gpool.otp.child_spec import Backoff
from gpool.otp.gen import Cast, System
from gpool.otp.gen_server import GenServer
from gpool.otp.pid import Pid
from gpool.otp.signal import signal
from gpool.otp.supervisor import RestartIntensity
from gpool.pool.housekeeper import Housekeeper
from gpool.pool.lease import Back, Lease, Ticket
from gpool.pool.ledger import Ledger
from gpool.pool.pool_state import PoolState
from gpool.pool.resource import Chore
from gpool.pool.slot import (
    BUSY,
    FINISHING,
    IDLE,
    RESETTING,
    STARTING,
    Check,
    Decision,
    Finish,
    Grant,
    Reset,
    Slot,
    Start,
    Stop,
    Verdict,
)
from gpool.pool.teller import TELL
from gpool.pool.watch import Fall, bound, cancel_timer
from gpool.waiter import Gate

START_BACKOFF: Final = Backoff(first=0.01, maximum=5.0)  # between starts that fail
JITTER: Final = 0.1  # the share of max_age that is random, lest all that are of an age go at once
GIVEN_UP: Final = ("shutdown", "start_failures")  # PoolSup's reason after too many of them


class Pong:
    """Takes a worker's answer to a ping: it has done all that came before."""

    __slots__ = ("books", "slot")

    def __init__(self, books: Ledger, slot: Slot) -> None:
        self.books, self.slot = books, slot

    def answer(self, value: Any) -> None:
        """The worker is at rest."""
        self.books.staff.recovered(self.slot)

    def fail(self, error: BaseException) -> None:
        """Every server answers a ping; there is nothing to do."""


class PoolMan(GenServer):
    """The manager of one pool, for one epoch."""

    state: PoolState

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.housekeeper = Housekeeper(ledger, self)
        self.breaker = "closed"  # as it was told last
        self.turn = 0  # counts how often the fast paths were set
        self.is_suspended = False  # by sys.suspend
        options = ledger.options
        limit = options.max_start_failures
        self.start_intensity = limit and RestartIntensity(limit - 1, options.start_failure_window)

    def init(self) -> None:
        """Take the books over, close what is left of the last epoch, start what is missing."""
        process.trap_exit(True)
        me = greenlets.current()
        Fall(me, self._fell)
        self.state = self.ledger.open_epoch(self)
        orphans = [s for s in self.ledger.slots if s.pid is None and s.lease is None]
        self._do([*map(Stop, orphans), *self.state.dispatch()])
        self.housekeeper.watch_holds()
        if self.ledger.epoch == 1:
            self._say_how_many()
        self.ledger.note(telemetry.PoolRose(me, self.ledger.name, self.ledger.epoch))
        me.mailbox.append(TELL)
        self._see_if_ready()

    def _say_how_many(self) -> None:
        ledger, options = self.ledger, self.ledger.options
        size, more = options.size, options.max_overflow
        ledger.note(telemetry.PoolStarted(ledger.sup, ledger.name, size, more))

    def _fell(self, reason: Any) -> None:
        self.ledger.close_epoch(self, reason)

    def handle_info(self, message: Any) -> None:
        """Tell the listeners what happened."""
        if message is TELL:
            self.ledger.teller.tell()
        else:
            super().handle_info(message)

    def terminate(self, reason: Any) -> None:
        """After an orderly stop of the pool, end after the workers."""
        ledger = self.ledger
        if ledger.phase == "stopped" and ledger.man is self:
            ledger.queue.fail_waiting(PoolClosed(ledger.name), "closed")
            self.state.held_up = True
            ledger.emptied = ledger.emptied or Gate()
            for slot in list(ledger.slots):
                self._stop_for_good(slot)
            ledger.note_quiet()
            ledger.emptied.wait()
        ledger.close_epoch(self, reason)

    def _stop_for_good(self, slot: Slot) -> None:
        if slot.state in (IDLE, FINISHING, RESETTING):
            cancel_timer(slot)
            self._do(self.state.condemn(slot, "stopped"))
        elif slot.state is STARTING and slot.pid is None:  # WorkerSup has not come to it
            self.state.abandon(slot)
        elif slot.state in (STARTING, BUSY):
            self._stop(slot, "stopped")

    def gpool_watched(self) -> list[Pid]:
        """Return its clients and its workers: their keepers tell of them, not references."""
        workers = [slot.pid for slot in list(self.ledger.slots) if slot.pid is not None]
        return [client.pid for client in list(self.ledger.clients.values())] + workers

    def format_status(self) -> Any:
        """Show the counts, not what is lent."""
        state = self.state
        return {
            "pool": self.ledger.name, "epoch": self.ledger.epoch, "idle": state.idle.count,
            "busy": state.busy, "starting": state.starting, "waiting": state.waiting.length,
        }  # fmt: skip

    def system_suspended(self) -> None:
        """Grant nothing while suspended; what comes back is recorded."""
        self.is_suspended = True
        self.hold_up()

    def system_resumed(self) -> None:
        """Serve those who came meanwhile."""
        self.is_suspended = False
        self.hold_up()

    # --- Transitions (anyone) ---

    def hold_up(self) -> None:
        """See whether anything is to be lent or started (anyone)."""
        ledger = self.ledger
        self.state.held_up = self.is_suspended or ledger.suspended or ledger.phase == "stopped"
        self._do(self.state.dispatch())

    def checkout(self, lease: Lease[Any]) -> bool:
        """Lend an idle worker at once, if there is one and nobody waits (anyone)."""
        return self.state.checkout(lease) is not None

    def prepare(self, lease: Lease[Any]) -> bool:
        """The same for a client that does not wait: the next time there may be one (anyone)."""
        self._do(self.state.prepare())
        return self.state.checkout(lease) is not None

    def enqueue(self, ticket: Ticket) -> None:
        """A client waits (anyone)."""
        self.ledger.bar()  # at once: what a signal handler gives back is that client's
        self._do(self.state.enqueue(ticket))
        self.keep_trying()

    def keep_trying(self) -> None:
        """Somebody waits: starts that back off keep the loop alive (anyone)."""
        self.housekeeper.keep_trying()

    def withdraw(self, ticket: Ticket) -> None:
        """A client waits no more (anyone)."""
        self.state.withdraw(ticket)
        if not self.state.waiting.length:
            self._set_fast_paths()

    def checkin(self, slot: Slot, verdict: Verdict, reason: Any) -> None:
        """A worker came back (anyone)."""
        match reason:
            case ("broken", Exception()):
                self._do([*self.state.suspect(slot), *self.state.checkin(slot, verdict, reason)])
            case _:
                self._do(self.state.checkin(slot, verdict, reason))

    def take_in(self, slot: Slot) -> None:
        """A worker came back as it should, nobody waits; it may have to go some time (anyone)."""
        state = self.state
        if not (state.counts_uses and self._wears_out(slot)):
            state.take_in(slot)
            self._set_due()
            self.housekeeper.look()

    def _wears_out(self, slot: Slot) -> bool:
        """Count a use of a worker; if it was the last one, have it go (anyone)."""
        decisions = self.state.count_use(slot)
        if decisions:
            self._do(decisions)
        return bool(decisions)

    def hand_over(self, slot: Slot) -> None:
        """A worker came back as it should, and goes to the client that waits longest (anyone)."""
        state = self.state
        if state.counts_uses and self._wears_out(slot):
            return
        # The moves of PoolState.hand_over and Line.next: calls would cost as much as they do.
        waiting = state.waiting
        while waiting:
            ticket = waiting[0]
            if not ticket.waits:  # it has left
                waiting.popleft()
                continue
            ticket.waits = False
            waiting.length -= 1
            waiting.popleft()
            if ticket.grant(slot):
                ticket.wake()
                if not waiting.length:
                    self._set_fast_paths()
            else:  # a signal handler has killed the worker
                waiting.put_back(ticket)
            return
        # One has served or turned away those who waited; if uses are counted, this one was.
        self.checkin(slot, "unused", None)

    def reported(self, slot: Slot, revokes: bool) -> None:
        """A worker was held for too long, and is taken away if `revokes` (anyone)."""
        self._do(self.state.revoke(slot) if revokes else [])

    def launches(self, slot: Slot) -> bool:
        """Tell whether a start that was decided on is still wanted, or drop it (anyone)."""
        if not self.state.has_surplus:
            slot.seen = clock.now()
            return True
        self._do(self.state.abandon(slot))
        return False

    def started(self, slot: Slot) -> None:
        """A worker is up (anyone)."""
        options, now = self.ledger.options, clock.now()
        took = now - slot.seen
        if options.max_age is not None:
            end = now + options.max_age * (1.0 - JITTER * random.random())
            if end < slot.expires:
                slot.expires, slot.fate = end, "max_age"
        self._do(self.state.started(slot))
        self.ledger.note(telemetry.WorkerStarted(slot.pid, self.ledger.name, took))
        self._see_if_ready()

    def _see_if_ready(self) -> None:
        ledger = self.ledger
        if not ledger.ready.is_open and self.state.up >= ledger.options.ready_at:
            ledger.ready.open()
            ledger.note(telemetry.PoolReady(self.pid, ledger.name, self.state.up))

    def failed(self, slot: Slot, reason: Any, is_open: bool) -> None:
        """A worker did not start; if `is_open` it has left a resource all the same (anyone)."""
        ledger, state, keeper = self.ledger, self.state, self.housekeeper
        backs_off = state.backing_off
        self._do(state.failed(slot, open_resource=is_open))
        if not backs_off:
            awaited = bool(state.waiting.length or ledger.ready.is_awaited)
            keeper.retry_after(START_BACKOFF.delay(state.backoffs - 1), ref=awaited)
        delay = max(keeper.retry_at - clock.now(), 0.0)
        ledger.note(telemetry.WorkerStartFailed(self.pid, ledger.name, reason, delay))
        if ledger.options.fail_fast and not self.state.up:
            ledger.queue.fail_fast()
        if self.start_intensity and not self.start_intensity.add():
            self._take_down(reason)

    def _take_down(self, reason: Any) -> None:
        """Take the pool down; PoolsSup revives it, which no supervisor's intensity counts."""
        ledger, why = self.ledger, ("start_failures", reason)
        if ledger.phase == "up" and ledger.sup is not None:
            ledger.note(telemetry.PoolHasFailed(ledger.sup, ledger.name, why))
            ledger.fail(why)
            ledger.sup.mailbox.append(System(None, "terminate", GIVEN_UP))

    def doomed(self, slot: Slot) -> None:
        """A worker is about to die (anyone)."""
        if slot.state is IDLE:
            self.ledger.note(telemetry.WorkerStopping(slot.pid, self.ledger.name, "exit"))
        self._do(self.state.doomed(slot))

    def recovered(self, slot: Slot) -> None:
        """A worker has finished, or its resource is reset or alive (anyone)."""
        if slot.state in (FINISHING, RESETTING):
            cancel_timer(slot)
            self._do(self.state.recovered(slot))

    def unfit(self, slot: Slot, reason: str) -> None:
        """A resource could not be reset, or is dead (anyone)."""
        if slot.state is RESETTING:
            cancel_timer(slot)
            self._do(self.state.unfit(slot, reason))

    def died(self, slot: Slot, is_open: bool) -> None:
        """A worker is dead (anyone)."""
        self._do(self.state.died(slot, open_resource=is_open))

    # --- Carrying out ---

    def decide(self, event: Callable[..., list[Decision]], *facts: Any) -> None:
        """Run an event of `state` where nobody else closes the epoch if it is struck."""
        try:
            self._do(event(*facts))
        except BaseException:
            self.ledger.struck()
            raise
        self._see_if_ready()

    def _do(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Grant(ticket=ticket):
                    ticket.wake()
                case Start():
                    self._tell_worker_sup(decision)
                case Stop(slot, reason):
                    self._stop(slot, reason)
                case Finish(slot):
                    slot.mailbox.append(System(Pong(self.ledger, slot), "ping"))
                    self._limit(slot, self.ledger.options.finish_timeout)
                case Reset(slot):
                    self._set_chore(slot, "reset", self.ledger.options.finish_timeout)
                case Check(slot):
                    self._set_chore(slot, "check", self.ledger.options.check_timeout)
        self._set_fast_paths()
        self.housekeeper.look()
        self._watch_breaker()

    def _tell_worker_sup(self, decision: Start | Stop) -> None:
        # If WorkerSup is dying the message is lost, and so is the epoch.
        worker_sup = self.ledger.worker_sup
        if worker_sup is not None:
            worker_sup.mailbox.append(Cast(decision))

    def _stop(self, slot: Slot, reason: Any = None) -> None:
        pid, limit = slot.pid, self.ledger.options.shutdown
        if reason is not None:
            self.ledger.note(telemetry.WorkerStopping(pid, self.ledger.name, reason))
        if pid is None:
            self._tell_worker_sup(Stop(slot))
            return
        sender = self.ledger.worker_sup or greenlets.current()
        if limit == 0:
            signal(pid, sender, "kill", direct=True)
            return
        signal(pid, sender, "shutdown", direct=True)
        bound(slot, limit, partial(signal, pid, sender, "kill", direct=True))

    def _set_chore(self, slot: Slot, hook: Literal["reset", "check"], limit: float | None) -> None:
        ledger = self.ledger
        done = partial(ledger.staff.recovered, slot)
        slot.pid.mailbox.append(Cast(Chore(hook, done, partial(ledger.staff.unfit, slot))))
        self._limit(slot, limit)

    def _limit(self, slot: Slot, limit: float | None) -> None:
        slot.seen = clock.now()
        if limit == 0:
            self._overdue(slot)
        else:
            bound(slot, limit, self._overdue, slot)

    def _overdue(self, slot: Slot) -> None:
        if self.ledger.man is self and slot.state in (FINISHING, RESETTING):
            if slot.state is RESETTING:
                slot.pid.trapping = False  # it is in the hook and would not hear a message
            self.decide(self.state.unfit, slot, "overdue")

    def _watch_breaker(self) -> None:
        state = self.state
        breaker = state.breaker if state.failures or state.probing else "closed"
        if breaker != self.breaker:
            self.breaker = breaker
            self.ledger.note(telemetry.BreakerChanged(self.pid, self.ledger.name, breaker))

    def _set_fast_paths(self) -> None:
        """Let clients lend, line up and return by themselves where nothing is to be decided."""
        state, ledger = self.state, self.ledger
        self.turn = turn = self.turn + 1
        ledger.bar()  # a signal handler that uses the pool from here on comes by, and takes a turn
        if ledger.man is not self or state.held_up or ledger.options.debug:
            return  # in debug mode it would make plain leases
        waiting, is_open = state.waiting, ledger.phase == "up"
        limit = ledger.options.max_waiting
        ledger.line_limit = math.inf if limit is None else limit
        self._set_due()
        lines_up, back = self._just_lines_up(), self._way_back()
        if self.turn == turn and is_open:  # else what is found out here is old
            if not waiting.length:
                ledger.idle = state.idle.row
            elif lines_up:
                ledger.line = waiting
        if self.turn == turn:
            ledger.clean_back = back
            ledger.back = back if ledger.kind.quick else None

    def _set_due(self) -> None:
        """Say until when no idle worker needs a look; where some are checked, each has its time."""
        self.ledger.due = 0.0 if self.state.checks else self.state.upkeep_due

    def _way_back(self) -> Back | None:
        """Return who sees to a worker that comes back as it should, if that is ordinary."""
        state, ledger, options = self.state, self.ledger, self.ledger.options
        if ledger.reported or ledger.drained is not None or state.has_too_many:
            return None
        if state.waiting.length:
            return None if state.idle.count else (self.hand_over, BUSY)
        if state.overflow and options.overflow_ttl == 0:
            return None
        if state.overflow or state.looks_after_idle:
            return self.take_in, BUSY
        return state.idle.append, IDLE

    def _just_lines_up(self) -> bool:
        """Tell whether nothing is to be decided if one more client waits."""
        state, options = self.state, self.ledger.options
        return state.is_full and not state.idle.count and not options.fail_fast

    def cancel_timers(self) -> None:
        """The epoch is over."""
        self.housekeeper.cancel()
