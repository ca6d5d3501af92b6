"""Queue: the clients that wait, in order of arrival, from their ticket to their worker.

A client has its ticket until it has accepted a worker or given up: granted is not
accepted, since the client has to wake first, and can be cut down before.  Then the
worker goes on, unused, in the same turn.

The queue belongs to the books and outlives PoolMan; who is next, PoolMan decides.

Not here: who may wait at all (``admission.py``), how they stand (``line.py``), whose
turn it is (``pool_state.py``).
"""

from __future__ import annotations

from copy import copy
from typing import Any, Final

from gpool import clock, telemetry
from gpool.errors import PoolError
from gpool.otp import greenlets
from gpool.otp.pid import DEAD, RUNNING
from gpool.pool.deadlines import Deadlines
from gpool.pool.lease import Lease, Ticket
from gpool.pool.line import ARRIVAL, Line
from gpool.pool.transition import transition
from gpool.waiter import Expired

_LEFT: Final = Exception("its client has gone, but could not say so")


class Queue:
    """Those who wait for one pool.  Only :meth:`redeem` switches.

    Args:
        books: The Ledger.
    """

    def __init__(self, books: Any) -> None:
        self.books = books
        self.line = Line()  # of those who were granted nothing yet
        self.deadlines = Deadlines(self.line)  # of those who wait as long as `timeout` says

    @property
    def length(self) -> int:
        """How many wait; those who were granted a worker hold it already."""
        return self.line.length if self.books.man is not None else len(self.tickets())

    @property
    def oldest_wait(self) -> float:
        """Seconds that the first of them has waited; 0 if there is none."""
        if self.books.man is not None:
            first = self.line.first()
        else:
            first = next(iter(self.tickets()), None)
        return 0.0 if first is None else float(first.waited)

    def tickets(self) -> list[Ticket]:
        """Return the tickets of those who wait, the next one first."""
        return self.line.present() if self.books.man is not None else self._all_that_wait()

    def redeem(self, ticket: Ticket, timeout: float | None) -> Lease[Any]:
        """Take the place of a ticket in the queue, or keep it; block until a worker is granted."""
        books, line, client = self.books, self.line, ticket.client
        outer = None  # its ticket, if it is a signal handler that waits, in one that waits
        try:
            try:
                if client.ticket is not ticket:
                    outer = client.ticket
                    if books.line is None:
                        self.enqueue(ticket)
                    else:  # others wait already: there is nothing to decide
                        try:
                            client.ticket, ticket.waits = ticket, True
                            line.length += 1
                            line.append(ticket)
                        except BaseException:
                            self.struck()
                            raise
                if ticket.lease is None:
                    if timeout == self.deadlines.watched:  # as a rule
                        ticket.wait(None, books.hub)
                    elif timeout == books.options.timeout:
                        self.deadlines.watch(timeout)
                        ticket.wait(None, books.hub)
                    else:
                        ticket.wait(timeout, books.hub)  # it sees to its deadline itself
                    while ticket.lease is None:
                        self._wait_on(ticket)
                lease, now = ticket.lease, clock.now()
                if client.greenlet is None and client.pid.state is not RUNNING:
                    greenlets.current()  # raises if its exit was accepted: it gets nothing then
                if not line.length:
                    self.deadlines.rest()
                lease.since, lease.waited = now, now - ticket.since
                client.ticket, ticket.lease = outer, None
                client.spare = ticket
            except Expired:
                self.give_up(ticket, outer, is_cut=False)
                error = self.books.admission.timed_out(client, timeout or 0.0)
                raise error from error.__cause__
            except BaseException:
                self.give_up(ticket, outer)
                raise
        except BaseException:
            if ticket.waits or client.ticket is ticket:  # struck while it gave up
                ticket.error, ticket.woken = _LEFT, True
                self.struck()
            raise
        return lease

    @transition
    def enqueue(self, ticket: Ticket) -> None:
        """A client waits."""
        ticket.client.ticket = ticket
        man = self.books.in_charge()
        if man is None:
            self.line.join(ticket)
        else:
            man.enqueue(ticket)

    def _wait_on(self, ticket: Ticket) -> None:
        """Raise what it was told instead of a worker; or its grant was taken back: wait on."""
        if ticket.error is not None:
            raise ticket.error
        self.books.admission.refuse_if_over()
        deadline = ticket.deadline
        ticket.renew()
        if ticket.lease is None and ticket.error is None:  # still: what comes now wakes it
            ticket.wait(None if deadline is None else deadline - clock.now())

    @transition
    def give_up(self, ticket: Ticket, outer: Ticket | None = None, *, is_cut: bool = True) -> None:
        """Take a ticket out; a worker that was granted goes on, unused, in the same turn.

        Its client still has the `outer` one.
        """
        client = ticket.client
        if is_cut and client.ticket is ticket and ticket.error is None:
            self.books.admission.cut(client.pid)
        self._withdraw(ticket)
        if client.ticket is ticket:
            client.ticket = outer
        lease, ticket.lease = ticket.lease, None
        if lease is not None and lease.slot is not None:
            self.books.take_back(lease, "unused")
        self.books.note_quiet()

    def _withdraw(self, ticket: Ticket) -> None:
        """Take a ticket out of the line, if it stands there."""
        man = self.books.in_charge()
        if man is None:
            self.line.leave(ticket)
        else:
            man.withdraw(ticket)
        if not self.line.length:
            self.deadlines.rest()

    def is_unaccepted(self, lease: Lease[Any]) -> bool:
        """Tell whether a lease was granted to a client that has not yet woken."""
        ticket = lease.owner.ticket
        return ticket is not None and ticket.lease is lease

    def put_back(self, lease: Lease[Any]) -> None:
        """A grant has come to nothing, its worker being about to die: the client waits on."""
        ticket = lease.owner.ticket
        assert ticket is not None
        self.revoke(ticket)
        self.books.bar()  # at once: what a signal handler gives back is this client's
        self.line.put_back(ticket)

    def revoke(self, ticket: Ticket) -> None:
        """Take a grant back that its client does not know of yet."""
        lease, ticket.lease = ticket.lease, None
        assert lease is not None
        lease.owner.drop(lease)
        if lease.slot is not None:
            lease.slot.lease = None
            lease.slot = None

    def fail_waiting(self, error: PoolError, why: telemetry.Refusal) -> int:
        """Have every waiting client raise its own copy of an error; return how many do."""
        told = self.tickets()
        for ticket in told:
            own = copy(error)
            own.__cause__ = error.__cause__
            self.turn_down(ticket, own)
            self.books.admission.tell(ticket.client.pid, why)
        return len(told)

    def fail_fast(self) -> None:
        """Have those raise who wait while no worker is up and starts fail."""
        admission = self.books.admission
        admission.failed_fast += self.fail_waiting(admission.starts_failing(), "failing")

    def turn_down(self, ticket: Ticket, error: PoolError) -> None:
        """Have a waiting client raise `error`."""
        ticket.error = error
        self._withdraw(ticket)
        ticket.wake()

    # --- Epochs ---

    def _all_that_wait(self) -> list[Ticket]:
        """Return the tickets of those who wait, the next one first, as far as anybody knows.

        Between two epochs the line lacks those whose grants were taken back; it may have
        lost others, or hold some that nobody has, if an exception has hit a transition.
        """
        tickets = {client.ticket for client in list(self.books.clients.values())}
        tickets |= set(self.line.present())
        return sorted((t for t in tickets if t is not None and t.still_waits), key=ARRIVAL)

    def revoke_all(self) -> None:
        """The epoch is over: take back what was granted and not yet accepted."""
        for client in list(self.books.clients.values()):
            if client.ticket is not None and client.ticket.lease is not None:
                self.revoke(client.ticket)

    def restore(self) -> None:
        """Have all stand in line who wait, and nobody else: a new epoch begins."""
        for client in list(self.books.clients.values()):
            ticket = client.ticket
            if ticket is not None and (ticket.error is _LEFT or client.pid.state is DEAD):
                client.ticket = None
        self.line.refill(self._mark)

    def _mark(self) -> list[Ticket]:
        waiting = [t for t in self._all_that_wait() if t.client.pid.state is not DEAD]
        clients = list(self.books.clients.values())
        for ticket in [*self.line, *(client.ticket for client in clients)]:
            if ticket is not None:
                ticket.waits = False
        for ticket in waiting:
            ticket.waits = True
        return waiting

    def struck(self) -> None:
        """An exception hit a transition."""
        self.books.struck()
