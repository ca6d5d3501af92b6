"""Tests without sleeps: run everything until it waits, and move time by hand.

>>> with virtual_clock() as clock:
...     seen = []
...     timer = clock.call_later(5.0, seen.append, "rang")
...     clock.advance(4.9)
...     seen
...     clock.advance(0.1)
...     seen
[]
['rang']
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import gevent

from gpool import clock as clocks


def settle() -> None:
    """Run every greenlet until all wait; timers not yet due and threads are not awaited."""
    loop: Any = gevent.get_hub().loop
    gevent.idle()
    while loop._callbacks:  # libuv ends idle() early on chains of thousands
        gevent.idle()


class VirtualTimer:
    """A call that a :class:`VirtualClock` will make."""

    __slots__ = ("args", "due", "fn")

    def __init__(self, due: float, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.due = due  # seconds of the clock
        self.fn: Callable[..., object] | None = fn  # None once made or cancelled
        self.args = args

    def cancel(self) -> None:
        """Forget the call."""
        self.fn = None

    def ref(self, flag: bool) -> None:
        """Nothing keeps the loop alive here: the clock stands still."""


class VirtualClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._timers: list[tuple[float, int, VirtualTimer]] = []  # a heap

    def now(self) -> float:
        """Return the seconds that the clock shows."""
        return self._now

    def call_later(
        self, seconds: float, fn: Callable[..., object], *args: Any, ref: bool = True
    ) -> VirtualTimer:
        """Call ``fn(*args)`` in the hub once the clock was advanced by `seconds`."""
        timer = VirtualTimer(self._now + max(seconds, 0.0), fn, args)
        heapq.heappush(self._timers, (timer.due, next(self._order), timer))
        return timer

    def next_due(self) -> float | None:
        """Return the seconds until the next timer, or None if there is none."""
        while self._timers and self._timers[0][2].fn is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] - self._now if self._timers else None

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass: every timer that falls due runs in order, then all settle."""
        settle()
        end = self._now + seconds
        while (due := self.next_due()) is not None and self._now + due <= end + 1e-9:
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            fn, timer.fn = timer.fn, None
            assert fn is not None
            gevent.get_hub().loop.run_callback(fn, *timer.args)
            settle()
        self._now = max(self._now, end)


@contextlib.contextmanager
def virtual_clock() -> Iterator[VirtualClock]:
    """Put a :class:`VirtualClock` in the place of real time."""
    clock = VirtualClock()
    previous = clocks.install(clock)
    try:
        yield clock
    finally:
        clocks.install(previous)
