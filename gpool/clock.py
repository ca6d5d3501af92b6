"""Time: the only module that reads a clock or starts a timer.

Seconds are floats of a monotonic clock.  Everything else in gpool asks
``clock.now()`` and :func:`call_later`, so that a test can put a virtual clock in
their place with :func:`install` (see :mod:`gpool.testing`).

    >>> now() <= now()
    True
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol

from gevent import get_hub

FAR: Final = 1e9  # s, 30 years: libuv takes no infinity
RESOLUTION: Final = 0.001  # s; libuv has no shorter timers, and would warn
LANES: Final = 64  # shared ones that a hub may have; most time-outs are of a few lengths


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Forget the call; harmless when it was made or forgotten before."""

    def ref(self, flag: bool) -> None:
        """Have it keep the loop alive, or not; harmless when it was made or forgotten."""


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
        self._timer: Any = get_hub().loop.timer(due, ref=ref)
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

    def ref(self, flag: bool) -> None:
        """Have it keep the loop alive, or not."""
        if self._timer is not None:
            self._timer.ref = flag


def _possible(seconds: float) -> float:
    return min(max(seconds, RESOLUTION), FAR)


class Expiring(Protocol):
    """A wait that has a deadline."""

    def expire(self) -> object:
        """End the wait, unless it has ended; runs in the hub, must neither switch nor raise."""


class Lane(Protocol):
    """Where waits of one length stand until they end, by themselves or at their deadline."""

    def leave(self, wait: Expiring) -> None:
        """Forget a wait that has entered."""


class HubLane:
    """The waits of one length, of one hub, behind one timer: they began as they end.

    Its timer runs on when the last wait has left, but keeps the loop alive no more;
    a lane that is empty when it rings is given up.
    """

    __slots__ = ("_lanes", "_loop", "_seconds", "timer", "waits")

    def __init__(self, lanes: dict[float, HubLane], loop: Any, seconds: float) -> None:
        self._lanes = lanes
        self._loop = loop
        self._seconds = seconds
        self.waits: dict[Expiring, float] = {}  # wait -> its deadline, oldest first
        self.timer: Any = None  # rings no later than the first of them is due

    def leave(self, wait: Expiring) -> None:
        """Forget a wait that has entered."""
        waits = self.waits
        if wait in waits:
            del waits[wait]
        if not waits and self.timer is not None:
            self.timer.ref = False

    def set(self, seconds: float) -> None:
        """Have the timer ring after so many seconds."""
        due = _possible(seconds)
        # It repeats, should a signal handler strike before a ring is heeded.
        timer = self._loop.timer(due, repeat=max(due, _possible(self._seconds)))
        timer.start(self._ring)
        self.timer = timer

    def _ring(self) -> None:
        moment = monotonic()
        due = []
        try:
            for wait, deadline in self.waits.items():
                if deadline > moment:
                    break
                due.append(wait)
            for wait in due:
                self.waits.pop(wait, None)
                wait.expire()
        finally:  # whatever strikes, those who are left are not forgotten
            self._go_on(moment)

    def _go_on(self, moment: float) -> None:
        timer, self.timer = self.timer, None
        timer.stop()
        timer.close()
        for deadline in self.waits.values():
            self.set(deadline - moment)
            return
        self._lanes.pop(self._seconds, None)


class OneOff:
    """A lane of one wait, with a timer of its own: for lengths that do not recur."""

    __slots__ = ("_timer",)

    def __init__(self, wait: Expiring, seconds: float, hub: Any = None) -> None:
        self._timer = call_later(seconds, wait.expire)

    def leave(self, wait: Expiring) -> None:
        """Forget a wait that has entered."""
        self._timer.cancel()


class HubClock:
    """Real time, timers of the running greenlet's hub."""

    now = staticmethod(monotonic)

    def call_later(
        self, seconds: float, fn: Callable[..., object], *args: Any, ref: bool = True
    ) -> HubTimer:
        """Start a timer on the current hub's loop."""
        return HubTimer(seconds, fn, args, ref)

    def expire_later(self, wait: Expiring, seconds: float, hub: Any = None) -> Lane:
        """Have a wait stand in a lane of the current hub."""
        if hub is None:
            hub = get_hub()
        try:
            lane: HubLane = hub.gpool_lanes[seconds]
        except (AttributeError, KeyError):
            if not _recurs(hub, seconds):
                return OneOff(wait, seconds)
            lane = hub.gpool_lanes[seconds] = HubLane(hub.gpool_lanes, hub.loop, seconds)
        waits = lane.waits
        if not waits and lane.timer is not None:
            lane.timer.ref = True
        waits[wait] = monotonic() + seconds
        if lane.timer is None:
            lane.set(seconds)
        return lane


def _recurs(hub: Any, seconds: float) -> bool:
    """Tell whether waits of a length that has no lane are worth one: it has come before."""
    if not hasattr(hub, "gpool_lanes"):
        hub.gpool_lanes, hub.gpool_lengths = {}, set()
    met = hub.gpool_lengths
    if seconds in met:
        return len(hub.gpool_lanes) < LANES
    if len(met) >= LANES:
        met.clear()
    met.add(seconds)
    return False


_hub_clock = HubClock()
_clock: Clock = _hub_clock

#: Return seconds of the clock in use; only differences mean anything.
now: Callable[[], float] = _clock.now


def call_later(seconds: float, fn: Callable[..., object], *args: Any, ref: bool = True) -> Timer:
    """Call ``fn(*args)`` in the hub after `seconds` of the clock in use."""
    return _clock.call_later(seconds, fn, *args, ref=ref)


#: Have ``wait.expire()`` called after so many seconds of the clock in use, unless it leaves
#: what this returns; meanwhile the loop is kept alive.  Who knows the running hub names it.
expire_later: Callable[..., Lane] = _hub_clock.expire_later


def install(clock: Clock) -> Clock:
    """Make `clock` the clock in use and return the one it replaces."""
    global _clock, now, expire_later
    previous, _clock, now = _clock, clock, clock.now
    expire_later = getattr(clock, "expire_later", OneOff)
    return previous
