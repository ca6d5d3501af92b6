"""Line: the tickets of those who wait, in order of arrival, and ways out at any place.

Not here: who may stand in it (``admission.py``), how a client waits (``queue.py``), whose
turn it is (``pool_state.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Final

ARRIVAL: Final = attrgetter("number")


class Line(deque[Any]):
    """Those who wait for a worker, the next one first.

    A ticket that leaves from the middle stays as a *hole*, until it comes to an end of
    the line or the holes outnumber the others: so it costs the same wherever it stands,
    and a place costs no more than a pointer.  Neither end is ever a hole: the line is
    true if somebody waits, and the first one is next.

    A signal handler, which runs between any two calls, may use it meanwhile.
    """

    __slots__ = ("holes",)

    def __init__(self) -> None:
        super().__init__()
        self.holes = 0

    @property
    def length(self) -> int:
        """How many wait."""
        return len(self) - self.holes

    def tickets(self) -> list[Any]:
        """Return those who wait, the next one first."""
        return [ticket for ticket in list(self) if ticket.waits]

    def join(self, ticket: Any) -> None:
        """One more waits."""
        ticket.waits = True
        self.append(ticket)

    def next(self) -> Any:
        """Take out who waits longest; there must be somebody."""
        ticket = self.popleft()
        ticket.waits = False
        if self.holes:
            self.close_up()
        return ticket

    def leave(self, ticket: Any) -> None:
        """Take one out, if it stands here."""
        if ticket.waits:
            ticket.waits = False
            self.holes += 1
            self.close_up()

    def put_back(self, ticket: Any) -> None:
        """Let one that was taken out wait on in its old place."""
        self.refill(lambda: [*self.tickets(), ticket])

    def check(self) -> None:
        """Assert what was said above; for tests."""
        numbers = [ticket.number for ticket in self]
        assert numbers == sorted(set(numbers)), numbers
        assert self.length == len(self.tickets()), (self.holes, self)
        assert 0 <= self.holes <= self.length
        assert not self or (self[0].waits and self[-1].waits)

    def close_up(self) -> None:
        """Take the holes out that stand at the ends, and all of them if they are too many."""
        while self and not self[0].waits:
            self.holes -= 1
            self.popleft()
        while self and not self[-1].waits:
            self.holes -= 1
            self.pop()
        if self.holes > self.length:
            self.refill(self.tickets)

    def refill(self, find: Callable[[], Iterable[Any]]) -> None:
        """Let those stand here whom `find` returns, in the order in which they came."""
        while True:
            before = deque(self)
            found = sorted(find(), key=ARRIVAL)
            for ticket in found:
                ticket.waits = True
            if self == before:  # else a signal handler has used it: once more
                self.holes = 0  # from here on there is no call until all is done
                deque.__init__(self, found)
                return
