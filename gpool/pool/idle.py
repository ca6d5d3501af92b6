"""Idle: the workers that nobody has, in the order in which they are to be lent.

Not here: who lends them, and which must be checked or has had its time (``pool_state.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gpool.pool.slot import BUSY, CLOSING, IDLE, Slot, SlotState


class Idle:
    """The idle workers of one epoch.

    All whose state is idle stand in `row`, the next one to be lent last; the fast path takes it
    from there itself.  One that dies stays where it is until it comes to an end, or such
    as it outnumber the others: to look for it would take time.  Whoever takes one out
    passes over these.

    A signal handler, which runs between any two calls, may use it meanwhile: a state and
    the row, or the count, change together, without a call in between.

    Args:
        is_lifo: Whether the one that came last is the next; else that which came first.
    """

    __slots__ = ("append", "gone", "is_lifo", "row")

    def __init__(self, *, is_lifo: bool) -> None:
        self.is_lifo = is_lifo
        self.row: deque[Slot] = deque()
        self.gone = 0  # of those in the row, workers that are closing or dead
        self.append: Callable[[Slot], None] = self.row.append if is_lifo else self.row.appendleft

    @property
    def count(self) -> int:
        """How many are idle."""
        return len(self.row) - self.gone

    def all(self) -> list[Slot]:
        """Return them, the next one last."""
        return [slot for slot in list(self.row) if slot.state is IDLE]

    def coldest_first(self) -> list[Slot]:
        """Return them, the one that has not been used for the longest time first."""
        return self.all() if self.is_lifo else self.all()[::-1]

    def coldest(self) -> Slot | None:
        """Return the first of these, if there is one; it stays where it is."""
        self._close_up()
        return self.row[0 if self.is_lifo else -1] if self.row else None

    def next(self) -> Slot | None:
        """Return the one that is to be lent next, if there is one; it stays where it is."""
        row = self.row
        while row and row[-1].state is not IDLE:
            row.pop()
            self.gone -= 1
        return row[-1] if row else None

    # --- To and fro ---

    def take(self) -> Slot | None:
        """Take out the next one: it is busy then."""
        row = self.row
        while row:
            slot = row[-1]
            if slot.state is IDLE:
                slot.state = BUSY
                row.pop()
                return slot
            row.pop()
            self.gone -= 1
        return None

    def take_out(self, slot: Slot, state: SlotState) -> None:
        """Take one out wherever it stands; it is in that state then."""
        is_next, slot.state = slot is self.row[-1], state
        if is_next:
            self.row.pop()
        else:
            self.row.remove(slot)

    def put(self, slot: Slot) -> None:
        """Put a busy worker there that was used just now, unless it was killed meanwhile."""
        if slot.state is BUSY:
            slot.state = IDLE
            self.append(slot)

    def put_by_use(self, slot: Slot) -> None:
        """Put a worker there, which is idle already, in the order of the last use."""
        position = len(self.row)
        for other in reversed(self.row) if self.is_lifo else self.row:
            if other.idle_since <= slot.idle_since:
                break
            position -= 1
        self.row.insert(position if self.is_lifo else len(self.row) - position, slot)

    def lose(self, slot: Slot) -> None:
        """One of them is about to go, or dead."""
        slot.state = CLOSING
        self.gone += 1
        self._close_up()

    def _close_up(self) -> None:
        """Let go of those that are gone if they stand at an end, and of all if they are many."""
        self.next()
        while self.row and self.row[0].state is not IDLE:
            self.row.popleft()
            self.gone -= 1
        while self.gone > self.count:
            before, idle = self.row.copy(), self.all()
            gone = len(before) - len(idle)
            if not gone:  # the one that went was not here yet
                return
            if self.row == before:  # else a signal handler has used it: once more
                self.gone -= gone
                deque.__init__(self.row, idle)

    def check(self) -> None:
        """Assert what was said above; for tests."""
        assert len(set(self.row)) == len(self.row), self.row
        assert self.count == len(self.all()), (self.gone, self.row)
