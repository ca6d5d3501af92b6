"""Staff: what the worker processes of a pool report, and what becomes of them.

A worker is up, about to die, fit again, unfit, or dead.  PoolMan decides what
follows; while there is none the books only record it, and once the pool is stopped
what is still open is closed by processes of their own.

A close that fails by itself is begun again once; then its slot is freed all the
same, and counted as unclosed.

Not here: how workers are started and stopped (``worker_sup.py``), what they are
(``worker.py``).
"""

from __future__ import annotations

import contextvars
from typing import Any, Final

from gpool import clock, telemetry
from gpool.otp import greenlets
from gpool.otp.pid import Pid
from gpool.pool.lease import Lease
from gpool.pool.manager import Manager
from gpool.pool.slot import CLOSING, FINISHING, NOTHING, RESETTING, STARTING, Slot
from gpool.pool.transition import transition
from gpool.pool.watch import Watch, cancel_timer

CLOSES: Final = 2  # times that a close may fail by itself before its slot is freed regardless


class Staff:
    """The workers of one pool, as they report.  Nothing here switches.

    Args:
        books: The Ledger.
    """

    def __init__(self, books: Any) -> None:
        self.books = books
        # Counts, since the pool was started.
        self.start_failures = self.unclosed = 0
        self.last_failure: Any = None  # reason of the last start that failed

    def struck(self) -> None:
        """An exception hit a transition."""
        self.books.struck()

    @transition
    def started(self, slot: Slot) -> None:
        """A worker has been initialised; in its process."""
        cancel_timer(slot)
        man = self.books.in_charge()
        if man is not None and slot.state is STARTING:
            man.started(slot)

    @transition
    def doomed(self, slot: Slot) -> None:
        """An exit of a worker was accepted: it is not lent any more."""
        lease, man = slot.lease, self.books.in_charge()
        if lease is not None and self.books.queue.is_unaccepted(lease):
            self.books.queue.put_back(lease)
        if man is not None and slot in self.books.slots:
            man.doomed(slot)

    def recovered(self, slot: Slot) -> None:
        """A worker has finished, or reset or checked its resource; in its process."""
        chore, took = _chore_of(slot), clock.now() - slot.seen
        self._recovered(slot)
        if chore is not None and self.books.man is not None:
            # Told here, not by PoolMan: with `reset` it is as frequent as checkins are.
            telemetry.emit(telemetry.WorkerRecovered(slot.pid, self.books.name, chore, took))

    @transition
    def _recovered(self, slot: Slot) -> None:
        man = self.books.in_charge()
        if man is not None:
            man.recovered(slot)

    @transition
    def unfit(self, slot: Slot, reason: str) -> None:
        """A worker could not reset its resource, or found it dead; in its process."""
        man = self.books.in_charge()
        if man is not None:
            man.unfit(slot, reason)

    @transition
    def died(self, slot: Slot, pid: Pid | None, reason: Any) -> None:
        """A worker, or what closed a resource without one, is dead; in its last frame."""
        cancel_timer(slot)
        slot.pid = None
        if slot not in self.books.slots:
            return
        man = self.books.in_charge()
        gave_up = slot.attempts >= CLOSES
        if gave_up:
            slot.thing = NOTHING
            self.unclosed += 1
        is_open = self.books.kind.is_open(slot)
        if slot.state is STARTING and man is not None and self.books.phase != "stopped":
            self.start_failures += 1
            self.last_failure = reason
            slot.is_orphan = is_open
            man.failed(slot, reason, is_open)
        else:
            was_orphan, slot.is_orphan = slot.is_orphan, is_open
            lease = self._worker_gone(slot, is_open, man)
            if not was_orphan:
                self._tell_death(pid, reason, lease, is_over=not is_open)
            elif not is_open:
                self.books.note(telemetry.ResourceClosed(pid, self.books.name, gave_up))
        self.books.note_quiet()

    def _worker_gone(self, slot: Slot, is_open: bool, man: Manager | None) -> Lease[Any] | None:
        """Take it out of the books; return the lease that a client had of it."""
        lease: Lease[Any] | None = slot.lease
        if lease is not None and self.books.queue.is_unaccepted(lease):
            self.books.queue.put_back(lease)
            lease = None
        elif lease is not None and not is_open:
            lease.owner.drop(lease)
            self.books.reported.pop(slot, None)
        if man is not None:
            man.died(slot, is_open)
        elif is_open:
            if slot.lease is None:
                slot.state = CLOSING
            else:
                slot.lose()
            self.close_late(slot)
        else:
            slot.lease = None
            del self.books.slots[slot]
        return lease

    def _tell_death(
        self, pid: Pid | None, reason: Any, lease: Lease[Any] | None, *, is_over: bool
    ) -> None:
        books, holder = self.books, None if lease is None else lease.owner.pid
        books.note(telemetry.WorkerDied(pid, books.name, reason, holder))
        if lease is not None and is_over:
            held = clock.now() - lease.since
            books.note(telemetry.LeaseBroken(holder, books.name, reason, lease.line, held))

    def close_rest(self) -> None:
        """Have all closed that a fallen tree has left, if the pool is to stay down."""
        if self.books.phase == "stopped":
            for slot in list(self.books.slots):
                self.close_late(slot)
            for client in list(self.books.clients.values()):
                self.books.take_leave(client)

    def close_late(self, slot: Slot) -> None:
        """Have one closed, in the hub: the running process may be in its last frame."""
        if self.books.phase == "stopped":
            self.books.hub.loop.run_callback(self._start_closer, slot)

    def _start_closer(self, slot: Slot) -> None:
        """Close what is left after the pool has stopped: there is no supervisor any more."""
        books = self.books
        is_left = slot in books.slots and slot.pid is None and slot.lease is None
        if is_left and books.man is None:
            slot.state = CLOSING
            slot.pid = greenlets.new_process(
                books.kind.close,
                (slot, books.options.shutdown),
                initial_call="close",
                keeper=Watch(books, slot),
                context=contextvars.Context(),
            )


def _chore_of(slot: Slot) -> telemetry.Chore | None:
    """Return what makes a worker fit now, if anything does."""
    if slot.state is RESETTING:
        return "check" if slot.checking else "reset"
    return "finish" if slot.state is FINISHING else None
