"""Virtual time for replays: it moves only when a step has to wait.

Milliseconds of a trace become virtual seconds.  A step that is not over when
all is quiet is carried on by moving from timer to timer, no further than it
takes; a ``sleep`` step moves all its time.  So whatever times out does so in the
order of the trace, at once, on a machine of any speed.

Nobody waits for a server's own idle time-out: it is a timer like others, which
fires if a ``sleep``, or an operation that takes longer, carries time past it, as
in OTP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gevent.event import Event

from gpool.testing import VirtualClock

LONGEST_STEP: Final = 60.0  # s; a recorded one takes less, so this one would never end


class StepClock(VirtualClock):
    """A clock that can wait for the end of a step."""

    def settle(self) -> None:
        """Run every greenlet until all wait; timers that are due already fire."""
        self.advance(0)

    def wait_for(self, is_done: Callable[[], bool]) -> bool:
        """Settle, and let pass the time that it takes until `is_done`.

        Returns:
            Whether it is; if not, no timer is left that could help, or it takes too long.
        """
        self.settle()
        too_late = self.now() + LONGEST_STEP
        while not is_done():
            due = self.next_due()
            if due is None or self.now() + due > too_late:
                return False
            self.advance(due)
        return True

    def sleep(self, seconds: float) -> None:
        """Block the calling greenlet for virtual `seconds`."""
        rang = Event()
        timer = self.call_later(seconds, rang.set)
        try:
            rang.wait()
        finally:
            timer.cancel()
