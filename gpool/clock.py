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
LENGTHS: Final = 32  # of alarms that a hub keeps; time-outs are mostly of a few
ALARMS_KEPT: Final = 100  # of one length


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
        due = _possible(seconds) if seconds > 0 else 0.0
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


def _possible(seconds: float) -> float:
    return min(max(seconds, RESOLUTION), FAR)


class Alarm:
    """A timer of a loop that one wait after another sets: quicker than a new one each time."""

    __slots__ = ("_shelf", "_timer")

    def __init__(self, loop: Any, seconds: float, shelf: list[Alarm]) -> None:
        # A `repeat`, since only `again` sets a timer to its whole length.
        self._timer: Any = loop.timer(_possible(seconds), repeat=_possible(seconds))
        self._shelf = shelf  # where it lies while nobody needs it

    def set(self, fn: Callable[[], object]) -> None:
        """Call `fn` once the whole length has passed."""
        self._timer.again(self._ring, fn)

    def _ring(self, fn: Callable[[], object]) -> None:
        self._timer.stop()
        fn()

    def cancel(self) -> None:
        """Stop the timer and lay it aside for the next one."""
        self._timer.stop()
        if len(self._shelf) < ALARMS_KEPT:
            self._shelf.append(self)
        else:
            self._timer.close()


class HubClock:
    """Real time, timers of the running greenlet's hub."""

    now = staticmethod(time.monotonic)

    def call_later(
        self, seconds: float, fn: Callable[..., object], *args: Any, ref: bool = True
    ) -> HubTimer:
        """Start a timer on the current hub's loop."""
        return HubTimer(seconds, fn, args, ref)

    def alarm(self, seconds: float, fn: Callable[[], object]) -> Alarm:
        """Set an alarm of the current hub's loop."""
        hub: Any = gevent.get_hub()
        try:
            shelf = hub.gpool_alarms[seconds]
        except (AttributeError, KeyError):
            shelf = _new_shelf(hub, seconds)
        alarm = shelf.pop() if shelf else Alarm(hub.loop, seconds, shelf)
        alarm.set(fn)
        return alarm


def _new_shelf(hub: Any, seconds: float) -> list[Alarm]:
    shelves = vars(hub).setdefault("gpool_alarms", {})
    if len(shelves) >= LENGTHS:
        shelves.clear()  # so that odd lengths, which never come again, do not stay
    shelf: list[Alarm] = []
    shelves[seconds] = shelf
    return shelf


_hub_clock = HubClock()
_clock: Clock = _hub_clock

#: Return seconds of the clock in use; only differences mean anything.
now: Callable[[], float] = _clock.now


def call_later(seconds: float, fn: Callable[..., object], *args: Any, ref: bool = True) -> Timer:
    """Call ``fn(*args)`` in the hub after `seconds` of the clock in use."""
    return _clock.call_later(seconds, fn, *args, ref=ref)


#: As ``call_later(seconds, fn)``, for a wait: whoever set it cancels it, exactly once and
#: rung or not, and lets go of it.
alarm: Callable[[float, Callable[[], object]], Timer] = _hub_clock.alarm


def install(clock: Clock) -> Clock:
    """Make `clock` the clock in use and return the one it replaces."""
    global _clock, now, alarm
    previous, _clock, now = _clock, clock, clock.now
    alarm = getattr(clock, "alarm", clock.call_later)
    return previous
