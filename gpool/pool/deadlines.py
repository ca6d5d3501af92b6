"""Deadlines: of those who wait for a pool as long as its `timeout` says.

Almost all do, and they stand in the queue in the order of their deadlines.  So one
timer for the first of them is enough, and a wait costs none.  Whoever waits for
another time sees to its own deadline.

Not here: how a client waits, and what it is told (``queue.py``).
"""

from __future__ import annotations

from typing import Final

from gpool import clock
from gpool.pool.line import Line

_NOBODY: Final = object()


class Deadlines:
    """The timer of one queue.  It keeps the loop alive while somebody may be waiting.

    Args:
        line: Those who wait; others among them do no harm.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._timer: clock.Timer | None = None  # rings no later than the first one is due
        self.seconds: float | None = None  # that they wait
        self.watched: object = _NOBODY  # the same, while the timer keeps the loop alive for them

    def watch(self, seconds: float | None) -> None:
        """Somebody waits for so long; None: for ever, which needs no timer."""
        self.seconds = self.watched = seconds
        if seconds is not None:
            self._ring_in(seconds)

    def _ring_in(self, seconds: float) -> None:
        self.watched = self.seconds
        if self._timer is None:
            self._timer = clock.call_later(seconds, self._ring)
        else:
            self._timer.ref(True)

    def rest(self) -> None:
        """Nobody waits now.  Often somebody does before the timer rings: it may go on."""
        if self.watched is not _NOBODY:
            self.watched = _NOBODY
            if self._timer is not None:
                self._timer.ref(False)

    def _ring(self) -> None:
        self._timer, self.watched = None, _NOBODY
        now = clock.now()
        rest: float | None = 0.0  # until the next ring; at once, if a signal handler strikes here
        try:
            for ticket in list(self._line):
                if ticket.woken or ticket.timeout != self.seconds:
                    continue
                left = ticket.since + (self.seconds or 0.0) - now
                if left > 0:
                    rest = left
                    break
                ticket.expire()
            else:
                rest = None
        finally:
            if rest is not None:
                self._ring_in(rest)
