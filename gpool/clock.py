"""Time: the only module that reads a clock or starts a timer.

Seconds are floats of a monotonic clock.  Everything else in gpool asks
``clock.now()`` and :func:`call_later`, so that a test can put a virtual clock in
their place with :func:`install` (see :mod:`gpool.testing`).

    >>> now() <= now()
    True
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import gevent

FAR: Final = 1e9  # s, 30 years: libuv takes no infinity
RESOLUTION: Final = 0.001  # s; libuv has no shorter timers, and would warn


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Forget the call; harmless when it was made or forgotten before."""


class Clock(Protocol):
    """What gpool needs to know of time."""

    def now(self) -> float:
        """Return seconds since some fixed moment; never goes back."""

    def call_later(
        self, seconds: float, fn: Callable[..., object], *args: Any, ref: bool = True
    ) -> Timer:
        """Call ``fn(*args)`` in the hub after `seconds`; `fn` must not block.

        With ``ref=False`` the timer does not keep the loop alive.
        """


class HubTimer:
    """A timer of the current hub's loop; closed as soon as it fired or was cancelled."""

    __slots__ = ("_timer",)

    def __init__(
        self, seconds: float, fn: Callable[..., object], args: tuple[Any, ...], ref: bool
    ) -> None:
        due = min(max(seconds, RESOLUTION), FAR) if seconds > 0 else 0.0
        self._timer: Any = gevent.get_hub().loop.timer(due, ref=ref)
        self._timer.start(self._fire, fn, args)

    def _fire(self, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.cancel()
        fn(*args)

    def cancel(self) -> None:
        """Stop the timer and give it back to the loop."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()


class HubClock:
    """Real time, timers of the running greenlet's hub."""

    now = staticmethod(time.monotonic)

    def call_later(
        self, seconds: float, fn: Callable[..., object], *args: Any, ref: bool = True
    ) -> HubTimer:
        """Start a timer on the current hub's loop."""
        return HubTimer(seconds, fn, args, ref)


_clock: Clock = HubClock()


#: Return seconds of the clock in use; only differences mean anything.
now: Callable[[], float] = _clock.now


def call_later(seconds: float, fn: Callable[..., object], *args: Any, ref: bool = True) -> Timer:
    """Call ``fn(*args)`` in the hub after `seconds` of the clock in use."""
    return _clock.call_later(seconds, fn, *args, ref=ref)


def install(clock: Clock) -> Clock:
    """Make `clock` the clock in use and return the one it replaces."""
    global _clock, now
    previous, _clock, now = _clock, clock, clock.now
    return previous
