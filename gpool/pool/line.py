"""Line: the tickets of those who wait for a worker.

Not here: who may stand in it (``admission.py``), how a client waits (``queue.py``), whose
turn it is (``pool_state.py``).
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

from gpool.pool.row import Row

ARRIVAL: Final = attrgetter("number")


class Line(Row):
    """The tickets of those who wait, in the order in which they came: the first is next."""

    __slots__ = ()

    def stands(self, ticket: Any) -> bool:
        """Tell whether its client waits."""
        return bool(ticket.waits)

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
            self.went()

    def put_back(self, ticket: Any) -> None:
        """Let one that was taken out wait on in its old place."""

        def in_its_place() -> list[Any]:
            ticket.waits = True
            return sorted([*self.present(), ticket], key=ARRIVAL)

        self.refill(in_its_place)

    def check(self) -> None:
        """Assert that it is a row, in order; for tests."""
        super().check()
        numbers = [ticket.number for ticket in self]
        assert numbers == sorted(set(numbers)), numbers
