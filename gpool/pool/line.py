"""Line: the tickets of those who wait for a worker.

Not here: who may stand in it (``admission.py``), how a client waits (``queue.py``), whose
turn it is (``pool_state.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

ARRIVAL: Final = attrgetter("number")


class Line(deque[Any]):
    """The tickets of those who wait, in the order in which they came: the first is next.

    A ticket stands here, once, if it `waits`; `length` says how many do.  One that leaves
    stays where it is until it is the first, or those who have left outnumber the others:
    so it costs the same from any place.  Whoever takes one out passes over them.

    A signal handler, which runs between any two calls, may use it meanwhile: a flag, the
    length and what stands here change together, without a call in between.
    """

    __slots__ = ("length",)

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def present(self) -> list[Any]:
        """Return the tickets of those who wait, the next one first."""
        return [ticket for ticket in list(self) if ticket.waits]

    def join(self, ticket: Any) -> None:
        """One more waits."""
        ticket.waits = True
        self.length += 1
        self.append(ticket)

    def first(self) -> Any:
        """Return who waits longest, still in its place; None if nobody does."""
        while self and not self[0].waits:
            self.popleft()
        return self[0] if self else None

    def next(self) -> Any:
        """Take out who waits longest; None if nobody does."""
        while self:
            ticket = self[0]
            if ticket.waits:
                ticket.waits = False
                self.length -= 1
                self.popleft()
                return ticket
            self.popleft()
        return None

    def leave(self, ticket: Any) -> None:
        """Take one out, if it stands here."""
        if ticket.waits:
            ticket.waits = False
            self.length -= 1
            self.first()
            if len(self) > 2 * self.length:
                self._close_up()

    def put_back(self, ticket: Any) -> None:
        """Let one that was taken out wait on in its old place."""
        while True:
            before, length = deque(self), self.length
            found = sorted([*(one for one in before if one.waits), ticket], key=ARRIVAL)
            if self.length == length and self == before:  # else a handler has used it: once more
                ticket.waits = True  # from here on there is no call until it is done
                self.length += 1
                deque.__init__(self, found)
                return

    def _close_up(self) -> None:
        """Let go of those who have left."""
        while True:
            before, length = deque(self), self.length
            found = [ticket for ticket in before if ticket.waits]
            if self.length == length and self == before:
                deque.__init__(self, found)
                return

    def refill(self, mark: Callable[[], list[Any]]) -> None:
        """Let those stand here whom `mark` returns, in order; it also says who waits."""
        while True:
            before, length = deque(self), self.length
            found = mark()
            count = len(found)
            if self.length == length and self == before:
                self.length = count
                deque.__init__(self, found)
                return

    def check(self) -> None:
        """Assert what was said above; for tests."""
        present = self.present()
        assert self.length == len(present), (self.length, self)
        numbers = [ticket.number for ticket in present]
        assert numbers == sorted(set(numbers)), numbers
