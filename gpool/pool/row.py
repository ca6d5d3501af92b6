"""Rows: things that come and go in order, and may go from any place.

Not here: who stands in one (``line.py``: those who wait; ``pool_state.py``: idle workers).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any


class Row(deque[Any]):
    """Things in order, of which one in the middle goes as fast as one at an end.

    It stays as a *hole*, until it comes to an end of the row or the holes outnumber the
    others.  Neither end is ever a hole, so a row is true if something stands there; who
    takes one out by ``pop`` or ``popleft`` closes up if there are holes.

    A signal handler, which runs between any two calls, may use it meanwhile.
    """

    __slots__ = ("holes",)

    def __init__(self) -> None:
        super().__init__()
        self.holes = 0

    def stands(self, thing: Any) -> bool:
        """Tell whether it is no hole."""
        raise NotImplementedError

    @property
    def length(self) -> int:
        """How many stand there."""
        return len(self) - self.holes

    def present(self) -> list[Any]:
        """Return those that stand there, in order."""
        return [thing for thing in list(self) if self.stands(thing)]

    def went(self) -> None:
        """One that stood there does not stand there any more."""
        self.holes += 1
        self.close_up()

    def close_up(self) -> None:
        """Take the holes out that have come to the ends, and all of them if they are too many."""
        while self and not self.stands(self[0]):
            self.holes -= 1
            self.popleft()
        while self and not self.stands(self[-1]):
            self.holes -= 1
            self.pop()
        if self.holes > self.length:
            self.refill(self.present)

    def refill(self, find: Callable[[], list[Any]]) -> None:
        """Let those stand there that `find` returns, and no others."""
        while True:
            before = deque(self)
            found = find()
            if self == before:  # else a signal handler has used it: once more
                self.holes = 0  # from here on there is no call until all is done
                deque.__init__(self, found)
                return

    def check(self) -> None:
        """Assert what was said above; for tests."""
        assert self.length == len(self.present()), (self.holes, self)
        assert 0 <= self.holes <= self.length, (self.holes, self)
        assert not self or (self.stands(self[0]) and self.stands(self[-1])), self
