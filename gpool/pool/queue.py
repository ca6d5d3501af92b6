"""Queue: the clients that wait, in order of arrival, from their ticket to their worker.

A ticket stands here until its client has accepted a worker or given up: granted
is not accepted, since the client has to wake first, and can be cut down before.
Then the worker goes on, unused, in the same turn.

The queue belongs to the books and outlives PoolMan; who is next, PoolMan decides.

Not here: who may wait at all (``admission.py``), in which order they are served
(``pool_state.py``).
"""

from __future__ import annotations

from copy import copy
from typing import Any

from gpool import clock, telemetry
from gpool.errors import PoolError
from gpool.otp import greenlets
from gpool.otp.pid import RUNNING
from gpool.pool.deadlines import Deadlines
from gpool.pool.lease import Lease, Ticket
from gpool.pool.transition import transition
from gpool.waiter import Expired


class Queue:
    """Those who wait for one pool.  Only :meth:`redeem` switches.

    Args:
        books: The Ledger.
    """

    def __init__(self, books: Any) -> None:
        self.books = books
        self.tickets: dict[Ticket, None] = {}  # not yet accepted
        self.deadlines = Deadlines(self.tickets)  # of those who wait as long as `timeout` says

    def redeem(self, ticket: Ticket, timeout: float | None) -> Lease[Any]:
        """Take the place of a ticket in the queue, or keep it; block until a worker is granted."""
        books, tickets = self.books, self.tickets
        try:
            try:
                if ticket not in tickets:
                    line = books.line
                    if line is None:
                        self.enqueue(ticket)
                    else:  # others wait already: there is nothing to decide
                        ticket.lease.owner.ticket = ticket
                        tickets[ticket] = line[ticket] = None
                if not ticket.granted:
                    if timeout != books.options.timeout:
                        ticket.wait(timeout, books.hub)  # it sees to its deadline itself
                    else:
                        if not self.deadlines.are_watched:
                            self.deadlines.watch(timeout)
                        ticket.wait(None, books.hub)
                    while not ticket.granted:
                        self._wait_on(ticket)
                lease, now = ticket.lease, clock.now()
                owner = lease.owner
                if owner.pid.state is not RUNNING:
                    greenlets.current()  # raises if its exit was accepted: it gets nothing then
                lease.since, lease.waited, lease.epoch = now, now - ticket.since, books.epoch
                owner.ticket = None
                del tickets[ticket]
                if not books.options.debug:  # else a proxy may still know its lease
                    owner.spare = ticket
                if not tickets:
                    self.deadlines.rest()
            except Expired:
                self.give_up(ticket, is_cut=False)
                error = self.books.admission.timed_out(ticket.lease.owner, timeout or 0.0)
                raise error from error.__cause__
            except BaseException:
                self.give_up(ticket)
                raise
        except BaseException:
            if ticket in self.tickets:  # struck while it gave up
                ticket.left = True
                self.struck()
            raise
        if telemetry.meters:
            telemetry.checked_out(lease, now)
        return lease

    @transition
    def enqueue(self, ticket: Ticket) -> None:
        """A client waits."""
        ticket.lease.owner.ticket = ticket
        self.tickets[ticket] = None
        man = self.books.in_charge()
        if man is not None:
            man.enqueue(ticket)

    def _wait_on(self, ticket: Ticket) -> None:
        """Raise what it was told instead of a worker; or its grant was taken back: wait on."""
        if ticket.error is not None:
            raise ticket.error
        self.books.admission.refuse_if_over()
        ticket.renew()
        deadline = ticket.deadline
        ticket.wait(None if deadline is None else deadline - clock.now())

    @transition
    def give_up(self, ticket: Ticket, *, is_cut: bool = True) -> None:
        """Take a ticket out; a worker that was granted goes on, unused, in the same turn."""
        if is_cut and ticket in self.tickets and ticket.error is None:
            self.books.admission.cut(ticket.lease.owner.pid)
        self.tickets.pop(ticket, None)
        if not self.tickets:
            self.deadlines.rest()
        ticket.lease.owner.ticket = None
        granted, ticket.granted = ticket.granted, False
        if granted:
            if ticket.lease.slot is not None:
                self.books.take_back(ticket.lease, "unused")
        elif (man := self.books.in_charge()) is not None:
            man.withdraw(ticket)
        self.books.note_quiet()

    def is_unaccepted(self, lease: Lease[Any]) -> bool:
        """Tell whether a lease was granted to a client that has not yet woken."""
        ticket = lease.owner.ticket
        return ticket is not None and ticket.granted and ticket.lease is lease

    def put_back(self, lease: Lease[Any]) -> None:
        """A grant has come to nothing, its worker being about to die: the client waits on."""
        ticket = lease.owner.ticket
        assert ticket is not None
        self.revoke(ticket)
        if self.books.man is not None:
            self.books.man.state.requeue(ticket)

    def revoke(self, ticket: Ticket) -> None:
        """Take a grant back that its client does not know of yet; it keeps its place."""
        lease = ticket.lease
        ticket.granted = False
        lease.owner.drop(lease)
        if lease.slot is not None:
            lease.slot.lease = None
            lease.slot = None

    def fail_waiting(self, error: PoolError, why: telemetry.Refusal) -> int:
        """Have every waiting client raise its own copy of an error; return how many do."""
        told = [t for t in self.tickets if not t.granted and t.error is None]
        for ticket in told:
            own = copy(error)
            own.__cause__ = error.__cause__
            self.turn_down(ticket, own)
            self.books.admission.tell(ticket.lease.owner.pid, why)
        return len(told)

    def fail_fast(self) -> None:
        """Have those raise who wait while no worker is up and starts fail."""
        admission = self.books.admission
        admission.failed_fast += self.fail_waiting(admission.starts_failing(), "failing")

    def turn_down(self, ticket: Ticket, error: PoolError) -> None:
        """Have a waiting client raise `error`."""
        ticket.error = error
        if self.books.man is not None:
            self.books.man.withdraw(ticket)
        ticket.wake()

    def struck(self) -> None:
        """An exception hit a transition."""
        self.books.struck()
