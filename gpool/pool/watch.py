"""Watches: how the processes of a pool are tied to its books.

A :class:`Watch` is told when the worker of a slot is up, about to die and dead, and
tells the staff; a :class:`Fall` does the same for the pool's own processes.  What a
process does now may be bounded in time.

Not here: what becomes of it (``staff.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from gpool import clock
from gpool.otp.pid import Keeper, Pid
from gpool.otp.signal import signal
from gpool.pool.slot import Slot


class Fall:
    """Tells that a process of the pool's own is doomed (its exit is accepted) or dead.

    Args:
        pid: The process.
        tell: Called with the reason, once or twice; must neither switch nor raise.
    """

    __slots__ = ("next", "tell")

    def __init__(self, pid: Pid, tell: Callable[[Any], object]) -> None:
        self.tell = tell
        self.next: Keeper | None = pid.keeper
        pid.keeper = self

    watcher: Final = None  # the books, which are no process

    def doomed(self, reason: Any) -> None:
        """Its exit was accepted."""
        self.tell(reason)

    def down(self, pid: Pid, reason: Any) -> None:
        """It is dead."""
        self.tell(reason)


class Watch:
    """The ties of one worker process to the books: its starter and its keeper."""

    __slots__ = ("books", "failure", "slot")

    owner: Pid | None = None  # nobody waits for the start: its EXIT is no secret
    next: Keeper | None = None  # it is the first keeper that its process has

    def __init__(self, books: Any, slot: Slot) -> None:
        self.books = books  # the Ledger
        self.slot = slot
        self.failure: Any = None  # why it was killed while it started

    @property
    def watcher(self) -> Pid | None:
        """PoolMan, if one is in charge."""
        man = self.books.man
        return None if man is None else cast("Pid", man.pid)

    def wake(self, outcome: tuple[str, Any]) -> None:
        """The start is over, one way or the other."""
        if outcome[0] == "ok":
            self.books.staff.started(self.slot)

    def too_slow(self, pid: Pid, supervisor: Pid, seconds: float) -> None:
        """The start has not ended in time: kill it."""
        self.failure = ("start_timeout", seconds)
        signal(pid, supervisor, "kill", direct=True)

    def doomed(self, reason: Any) -> None:
        """An exit of the worker's process was accepted."""
        self.books.staff.doomed(self.slot)

    def down(self, pid: Pid, reason: Any) -> None:
        """The worker's process is dead."""
        self.books.staff.died(self.slot, pid, self.failure or reason)


class Limit:
    """A limit of time that many processes have: calls ``fn(*args)`` unless it is cancelled.

    It stands in the lane of its length, so that it costs no timer of its own.
    """

    __slots__ = ("_args", "_fn", "_lane")

    def __init__(self, seconds: float, fn: Callable[..., object], *args: Any) -> None:
        self._fn, self._args = fn, args
        self._lane = clock.expire_later(self, seconds)

    def expire(self) -> None:
        """It has passed."""
        self._fn(*self._args)

    def cancel(self) -> None:
        """What it was for is over."""
        self._lane.leave(self)


def bound(slot: Slot, seconds: float | None, fn: Callable[..., object], *args: Any) -> None:
    """Call ``fn(*args)`` unless what the slot's process does now is over in `seconds`."""
    cancel_timer(slot)
    if seconds is not None:
        slot.timer = Limit(seconds, fn, *args)


def cancel_timer(slot: Slot) -> None:
    """What the slot's process did is over."""
    timer, slot.timer = slot.timer, None
    if timer is not None:
        timer.cancel()
