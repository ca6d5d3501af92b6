"""Relay: carries what is counted and measured to instruments that lock, a moment later.

    >>> import gpool
    >>> seen = []
    >>> with gpool.Pool(gpool.Resource(create=list), name="lists") as pool:
    ...     relay = Relay(seen.extend).attach()
    ...     pool.checkout().checkin()
    ...     relay.flush()
    ...     relay.detach()
    >>> [(one.labels, one.count) for one in seen if one.metric.name == "checkouts_total"]
    [((('pool', 'lists'),), 1)]

An exporter that can be asked reads :class:`~gpool.metrics.Metrics`.  Others have counters
and histograms of their own that are to be moved, behind locks: in a patched program who
finds one taken is switched away, and a listener must not be.

Rules:

* An event, a checkout and a checkin only note: no lock, no switch, constant time.
* What was noted is carried once in `interval`, in a greenlet of its own, which may block.
  Meanwhile the rest is noted for the next time.
* At most ``KEPT`` measurements of one series wait; of more the oldest are lost, from the
  histogram, not from the counters.
* It ticks while a pool runs, and keeps no loop alive.  A process that is killed takes what
  it has not carried along: an interval at most.
* A forked child begins with nothing: what its parent has noted, the parent carries.

Source:
    psycopg_pool and HikariCP feed their users' instruments in the client's path.

Not here: what there is to count (``metric_catalogue.py``); exporters (``integrations/``).
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self

import gevent
from gevent.hub import get_hub

from gpool import clock, telemetry
from gpool.metric_catalogue import BY_NAME, Metric, counted_by, measured_by
from gpool.pool.lease import Lease
from gpool.pool.options import check_seconds
from gpool.pool.pools import running_pools

KEPT: Final = 100_000  # measurements of one series that wait to be carried


@dataclass(frozen=True, slots=True)
class Measured:
    """What was counted, or measured, of one metric with one set of labels, since the last time."""

    metric: Metric
    labels: tuple[tuple[str, str], ...]  # names and values, as `metric.labels` has them
    count: int  # by how much a counter has grown; how many a histogram gets
    seconds: tuple[float, ...]  # what a histogram gets, oldest first


@dataclass(slots=True)
class _Noted:
    """One series, since the last time."""

    count: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))


class Relay:
    """A listener, and a meter, that carries what happens to an exporter, a moment later.

    Args:
        carry: Called with a list of :class:`Measured`, which may be empty, in a greenlet
            where it may block; what it raises becomes a ``ListenerFailed``.
        interval: Seconds from one time to the next.

    Raises:
        TypeError, ValueError: An argument is wrong.
    """

    def __init__(self, carry: Callable[[list[Measured]], object], *, interval: float = 1.0) -> None:
        if not callable(carry):
            raise TypeError(f"carry: expected a callable, got {carry!r}")
        check_seconds("interval", interval)
        if not interval:
            raise ValueError(f"interval: expected seconds > 0, got {interval!r}")
        self.carry = carry
        self.interval = interval
        self._noted: dict[tuple[str, str, str], _Noted] = {}  # pool, name, label's value -> since
        self._stale: dict[str, int] = {}  # pool -> stale checkins that were carried
        self._timer: Any = None  # rings at the next time
        self._due = 0.0  # when it does, by gpool's clock
        self._hub: Any = None  # whose loop it is on
        self._carrier: Any = None  # the greenlet of the last time
        _relays.add(self)

    def attach(self) -> Self:
        """Note from now on; twice is once."""
        telemetry.attach(self)
        if running_pools():
            self._arm()
        return self

    def detach(self) -> None:
        """Note no more, and carry the rest; blocks if `carry` does."""
        telemetry.detach(self)
        self._disarm()
        self.flush()

    def flush(self) -> None:
        """Carry now what was noted, in the calling greenlet; blocks if `carry` does."""
        self.carry(self._take())

    # --- What telemetry calls ---

    def __call__(self, event: telemetry.Event) -> None:
        """Note an event."""
        pool = event.pool if isinstance(event, telemetry.PoolEvent) else ""
        for name, value in counted_by(event):
            self._note(pool, name, value).count += 1
        for name, value, seconds in measured_by(event):
            self._measure(pool, name, value, seconds)
        if isinstance(event, telemetry.PoolStarted | telemetry.PoolStopped):
            self._stale.pop(pool, None)
        if isinstance(event, telemetry.PoolStarted) or not self._is_armed():
            self._arm()

    def checked_out(self, lease: Lease[Any], now: float) -> None:
        """Note a checkout."""
        pool = lease.ledger.name
        self._note(pool, "checkouts_total", "").count += 1
        self._measure(pool, "wait_seconds", "", lease.waited)

    def checked_in(self, lease: Lease[Any], now: float) -> None:
        """Note a checkin."""
        pool = lease.ledger.name
        self._note(pool, "checkins_total", "").count += 1
        self._measure(pool, "hold_seconds", "", now - lease.since)
        if self._timer is None:
            self._arm()

    def _note(self, pool: str, name: str, value: str) -> _Noted:
        noted = self._noted.get((pool, name, value))
        return self._noted.setdefault((pool, name, value), _Noted()) if noted is None else noted

    def _measure(self, pool: str, name: str, value: str, seconds: float) -> None:
        noted = self._note(pool, name, value)
        noted.count += 1
        noted.seconds.append(seconds)

    # --- Carrying ---

    def _take(self) -> list[Measured]:
        self._note_stale()
        noted, self._noted = self._noted, {}
        return [_measured(*key, since) for key, since in noted.items()]

    def _note_stale(self) -> None:
        """Note the checkins of leases that were over: no event tells of them."""
        for pool in running_pools():
            stale = pool.stats().stale
            grown = stale - self._stale.get(pool.name, 0)
            if grown > 0:
                self._note(pool.name, "stale_checkins_total", "").count += grown
                self._stale[pool.name] = stale

    def _is_armed(self) -> bool:
        """Tell whether the timer will ring: its thread, and its clock, may be gone."""
        return self._timer is not None and abs(self._due - clock.now()) <= self.interval

    def _arm(self) -> None:
        self._disarm()
        self._hub, self._due = get_hub(), clock.now() + self.interval
        token = object()
        self._timer = (token, clock.call_later(self.interval, self._ring, token, ref=False))

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and self._hub is get_hub():  # no loop is another thread's to touch
            timer[1].cancel()

    def _ring(self, token: object) -> None:
        """Have it carried; in the hub, where nothing may block."""
        if self._timer is None or self._timer[0] is not token:
            return
        self._timer = None
        if self._carrier is None or self._carrier.dead:
            self._carrier = gevent.spawn(self._carry_on)
        if running_pools():
            self._arm()

    def _carry_on(self) -> None:
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001  # an exporter's; the next time may go well
            telemetry.emit(telemetry.ListenerFailed(self, None, error))

    def _forget(self) -> None:
        """In a forked child: nothing was noted here."""
        self._noted, self._stale, self._timer, self._carrier = {}, {}, None, None


def _measured(pool: str, name: str, value: str, noted: _Noted) -> Measured:
    metric = BY_NAME[name]
    return Measured(metric, metric.labelled(pool, value), noted.count, tuple(noted.seconds))


_relays: Final[weakref.WeakSet[Relay]] = weakref.WeakSet()


def _forget_all() -> None:
    for relay in _relays:
        relay._forget()


os.register_at_fork(after_in_child=_forget_all)
