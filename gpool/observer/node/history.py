"""The history of pools: what their numbers were, for the charts.

Every PERIOD a sample is taken of the pools' numbers; that costs a callback.  Percentiles
of wait and hold have to be measured at every checkout, which costs a checkout a
microsecond or two: so they are, while somebody looks at pools, and for WATCHED seconds
after; or always, if the agent was told to measure.

Telemetry is told of it in the observed hub only, where others attach their listeners.
"""

from __future__ import annotations

import math
from collections import deque
from time import monotonic, time
from typing import Final

import gevent
from gevent.event import Event

import gpool
from gpool.observer.node.reader import Reader

PERIOD: Final = 5.0  # s between two samples that nobody looks at ...
WATCHED_PERIOD: Final = 1.0  # ... and while somebody does
WATCHED: Final = 30.0  # s that somebody looks, after a request
KEPT: Final = 720  # samples of each pool: an hour, if nobody looks

GAUGES: Final = ("idle", "busy", "starting", "waiting", "overflow")
SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MEASURED: Final = {"wait": "wait_seconds", "hold": "hold_seconds"}
SERIES: Final = (
    "at", *GAUGES, *(f"{what}_{share}" for what in MEASURED for share in SHARES), "checkouts"
)  # fmt: skip

Point = tuple[float | None, ...]  # in the order of SERIES
Counts = dict[str, tuple[int, ...]]  # "wait" and "hold" -> of each bucket


class History:
    """What the pools of one process did lately.

    Args:
        reader: Reads in the observed hub.
        always: Whether to measure while nobody looks.
    """

    def __init__(self, reader: Reader, *, always: bool) -> None:
        self._reader = reader
        self._always = always
        self._metrics = gpool.Metrics()
        self._points: dict[str, deque[Point]] = {}  # pool -> its samples
        self._before: dict[str, Counts] = {}  # pool -> its histograms at the last sample
        self._sampled = 0.0  # s of the monotonic clock
        self._looked = -math.inf
        self._soon = Event()  # somebody begins to look
        self._is_closed = False
        self.measures = False  # whether the metrics are attached

    @property
    def _is_watched(self) -> bool:
        return monotonic() - self._looked < WATCHED

    def look(self) -> None:
        """Somebody looks: measure, from now on."""
        was_watched, self._looked = self._is_watched, monotonic()
        if not was_watched:
            self._soon.set()

    def wait(self) -> None:
        """Block until it is time for a sample."""
        self._soon.wait(WATCHED_PERIOD if self._is_watched else PERIOD)
        self._soon.clear()

    def of(self, pool: str, after: float) -> dict[str, list[float | None]]:
        """Return a pool's samples that are later than a time of day, as a list a series."""
        points = [p for p in self._points.get(pool, ()) if p[0] is not None and p[0] > after]
        columns = zip(*points, strict=True) if points else ([] for _ in SERIES)
        return {name: list(column) for name, column in zip(SERIES, columns, strict=True)}

    # --- Sampling, in the agent's thread ---

    def sample(self) -> None:
        """Take a sample of every pool; a hub that is blocked leaves a gap."""
        found, hub = self._reader.read(self._read)
        if hub["blocked"]:
            return
        seconds, self._sampled = monotonic() - self._sampled, monotonic()
        for name, (gauges, counts) in found.items():
            point = (round(time(), 3), *gauges, *self._measured(name, counts, seconds))
            self._points.setdefault(name, deque(maxlen=KEPT)).append(point)
        for name in set(self._points) - set(found):
            del self._points[name]
            self._before.pop(name, None)

    def _read(self) -> dict[str, tuple[tuple[int, ...], Counts]]:
        """Read in the observed hub: every pool's gauges, and its histograms if measured."""
        if gevent.get_hub() is self._reader.hub:
            self._measure(self._always or self._is_watched)
        stats = [pool.stats() for pool in gpool.running_pools()]
        counts = self._read_counts() if self.measures else {}
        return {
            one.name: (tuple(getattr(one, name) for name in GAUGES), counts.get(one.name, {}))
            for one in stats
        }

    def _measure(self, wanted: bool) -> None:
        if wanted != self.measures and not self._is_closed:
            (self._metrics.attach if wanted else self._metrics.detach)()
            self.measures = wanted

    def _read_counts(self) -> dict[str, Counts]:
        found: dict[str, Counts] = {}
        snapshot = self._metrics.snapshot()
        for what, metric in MEASURED.items():
            for sample in snapshot.find(metric):
                assert isinstance(sample.value, gpool.Histogram)
                found.setdefault(dict(sample.labels)["pool"], {})[what] = sample.value.counts
        return found

    def _measured(self, name: str, counts: Counts, seconds: float) -> list[float | None]:
        """Return the percentiles of what came since the last sample."""
        before = self._before.get(name)
        self._before[name] = counts
        values: list[float | None] = []
        for what in MEASURED:
            new = None if not counts or not before else _since(before[what], counts[what])
            values += [_quantile(self._metrics.bounds, new, share) for share in SHARES.values()]
        rate = None
        if counts and before and seconds > 0:
            rate = round(sum(_since(before["wait"], counts["wait"])) / seconds, 2)
        return [*values, rate]

    def close(self) -> None:
        """Measure no more; in the observed hub."""
        self._measure(False)
        self._is_closed = True


def _since(before: tuple[int, ...], now: tuple[int, ...]) -> tuple[int, ...]:
    new = tuple(late - early for early, late in zip(before, now, strict=True))
    return new if min(new) >= 0 else now  # the pool was stopped and started meanwhile


def _quantile(
    bounds: tuple[float, ...], counts: tuple[int, ...] | None, share: float
) -> float | None:
    if not counts or not sum(counts):
        return None
    return round(gpool.Histogram(bounds, counts, 0.0).quantile(share), 6)
