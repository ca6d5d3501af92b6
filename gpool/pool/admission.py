"""Admission: who may check out, who may wait, and what those are told who may not.

Each refusal is counted, told as an event, and raised with the facts that let its
reader see whether the pool is too small, its workers leak, or its server is down.

Not here: how a client waits (``queue.py``).
"""

from __future__ import annotations

from typing import Any

from gpool import telemetry
from gpool.errors import (
    CheckoutDeadlock,
    CheckoutTimeout,
    PoolClosed,
    PoolFailed,
    PoolFull,
    StartsFailing,
)
from gpool.otp.pid import Pid
from gpool.pool.lease import Client
from gpool.pool.slot import STARTING


class Admission:
    """The door of one pool.

    Args:
        books: The Ledger.
    """

    def __init__(self, books: Any) -> None:
        self.books = books
        # Counts of those who were turned away.
        self.timeouts = 0
        self.refused = 0  # by max_waiting
        self.failed_fast = 0
        self.deadlocks = 0
        self.cancelled = 0  # killed while they waited, or cut by a Timeout of their own

    def let_in(self, pid: Pid) -> None:
        """Raise unless clients may check out, and tell of it; at a checkout."""
        if self.books.phase != "up":
            self.tell(pid, "failed" if self.books.phase == "failed" else "closed")
        self.refuse_unless_open()

    def refuse_unless_open(self) -> None:
        """Raise unless clients may check out."""
        if self.books.phase == "failed":
            raise self.has_failed()
        if self.books.phase != "up":
            raise PoolClosed(self.books.name)

    def refuse_if_over(self) -> None:
        """Raise if nobody is served any more: those who wait were told, or should have been."""
        if self.books.phase in ("failed", "stopped"):
            self.refuse_unless_open()

    def refuse_to_wait(self, client: Client, timeout: float | None) -> None:
        """Raise if the client may not wait, or would do so for nothing."""
        books, options = self.books, self.books.options
        if timeout is not None and timeout <= 0:
            raise self.timed_out(client, 0.0)
        self.refuse_if_full(client.pid)
        if options.fail_fast and books.man is not None and books.man.state.fails_fast:
            self.failed_fast += 1
            self.tell(client.pid, "failing")
            raise self.starts_failing()
        if timeout is None and client.leases and self._is_deadlocked(client):
            raise self._deadlock(client)

    def refuse_if_full(self, pid: Pid) -> None:
        """Raise if too many wait for others to let go."""
        books, limit = self.books, self.books.options.max_waiting
        if books.man is not None:
            may_wait = books.man.state.may_wait(limit)
        else:
            may_wait = limit is None or books.queue.length < limit + books.options.cap
        if not may_wait:
            self.refused += 1
            self.tell(pid, "full")
            raise PoolFull(books.name, limit or 0, books.options.cap)

    def timed_out(self, client: Client, timeout: float) -> CheckoutTimeout:
        """Word that no worker came in time; the cause is why none can be started, if so."""
        self.timeouts += 1
        self.tell(client.pid, "timeout")
        books = self.books
        slots = list(books.slots)
        leases = [lease for lease in (slot.lease for slot in slots) if lease is not None]
        starting = sum(slot.state is STARTING for slot in slots)
        oldest = min(leases, key=lambda lease: lease.since, default=None)
        failing = books.man is not None and books.man.state.failures > 0
        error = CheckoutTimeout(
            books.name, timeout, len(leases), starting, books.queue.length,
            oldest and oldest.holder(), books.staff.last_failure if failing else None,
            books.suspended,
        )  # fmt: skip
        error.__cause__ = getattr(error.start_failure, "exception", None)
        return error

    def starts_failing(self) -> StartsFailing:
        """Word that no worker is up and starts fail."""
        books = self.books
        failures = 0 if books.man is None else books.man.state.failures
        error = StartsFailing(books.name, failures, books.staff.last_failure)
        error.__cause__ = getattr(books.staff.last_failure, "exception", None)
        return error

    def has_failed(self) -> PoolFailed:
        """Word that the pool has failed."""
        failure = self.books.failure
        error = PoolFailed(self.books.name, failure)
        if isinstance(failure, tuple):
            error.__cause__ = getattr(failure[-1], "exception", None)
        return error

    # --- Deadlock ---

    def break_deadlock(self) -> None:
        """Have the youngest of those raise who hold all the workers and wait for another one.

        A checkout that would close the circle is refused; but a lease that is transferred
        can close it, too, and so can a resize.
        """
        books = self.books
        if books.slots and self._is_deadlocked(None):
            owners = {slot.lease.owner for slot in books.slots}
            ticket = max((owner.ticket for owner in owners), key=lambda ticket: ticket.number)
            books.queue.turn_down(ticket, self._deadlock(ticket.client))

    def _is_deadlocked(self, client: Client | None) -> bool:
        """Tell whether all who hold a worker wait for ever for one, as `client` is about to.

        Then no worker is idle, starting, on its way back or out, nor can one be started.
        """
        books = self.books
        return (
            len(books.slots) >= books.options.cap
            and not books.revokes
            and all(
                slot.lease is not None
                and (slot.lease.owner is client or _waits_for_ever(slot.lease.owner))
                for slot in list(books.slots)
            )
        )

    def _deadlock(self, client: Client) -> CheckoutDeadlock:
        self.deadlocks += 1
        self.tell(client.pid, "deadlock")
        return CheckoutDeadlock(self.books.name, tuple(self.books.holders()))

    def cut(self, pid: Pid) -> None:
        """A client waits no more for reasons of its own."""
        self.cancelled += 1
        self.tell(pid, "cancelled")

    def tell(self, pid: Pid, reason: telemetry.Refusal) -> None:
        """Have the listeners told that a client got no worker; count that elsewhere."""
        self.books.note(telemetry.CheckoutFailed(pid, self.books.name, reason))


def _waits_for_ever(client: Client) -> bool:
    ticket = client.ticket
    return ticket is not None and ticket.lease is None and ticket.deadline is None
