"""Metrics: counters, gauges and histograms of pools, made of what telemetry tells.

    >>> import gpool
    >>> with Metrics() as metrics, gpool.Pool(gpool.Resource(create=list), name="lists") as pool:
    ...     with pool.checkout():
    ...         metrics.value("lists", "workers", state="busy")
    ...     metrics.value("lists", "checkins_total")
    ...     metrics.histogram("lists", "wait_seconds").count
    1
    1
    1

:data:`METRICS` lists all there is.  :meth:`Metrics.snapshot` is what an exporter
reads; it puts a prefix such as ``gpool_`` before the names.

Rules:

* Counters and histograms begin when they are attached, gauges are read from
  ``Pool.stats()``.  Events come a moment later than what they tell, leases at once.
* Every lease ends once, so ``checkouts_total`` is ``checkins_total`` and
  ``leases_reclaimed_total``, ``leases_broken_total`` and ``leases_revoked_total``
  together, but for those that are still held.
* Labels are closed sets, and every member has a sample from the start.  Of a
  reason that carries facts only its kind counts: ``("owner_died", "killed")`` is
  "owner_died", whatever ``discard`` was told is "discarded".
* The series of a pool go when it is stopped.  Its gauges would be lies, names that are
  made up (``pool-17``) would fill the memory, and one that is started again begins at
  0, as its ``stats()`` do.  For a last look take a snapshot before the stop.
* An event takes constant time, and no memory.

Source:
    HikariCP's ``MetricsTracker``: wait ("acquire"), hold ("usage") and start
    ("creation"), gauges read when asked for, all gone at the close; its names carry
    the unit in the middle and its histograms the quantiles, ours end in it and add up.
    pooler's ``metrics_api`` counts ``error_no_members`` and ``killed_in_use``.

Not here: which there are, and what moves them (``metric_catalogue.py``); exporters; what
carries to them what they cannot be asked for (``relay.py``); one pool's numbers of one
moment (``pool/stats.py``).
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, get_args

from gpool import telemetry
from gpool.errors import UnknownPool
from gpool.metric_catalogue import BREAKERS, BY_NAME, METRICS, Metric, counted_by, measured_by
from gpool.pool.lease import Lease
from gpool.pool.pools import get_pool, running_pools
from gpool.pool.slot import SlotState
from gpool.pool.stats import Stats

BOUNDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
)  # fmt: skip
"""Upper bounds of the buckets, in seconds, unless a Metrics is told others."""

# --- Counting ---------------------------------------------------------------------------


class _Buckets:
    """A histogram that grows."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds  # upper ones, in seconds
        self.counts = [0] * (len(bounds) + 1)  # the last one: above all bounds
        self.sum = 0.0  # seconds

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class _Series:
    """What is counted of one pool, or of none."""

    __slots__ = ("checkins", "counts", "histograms", "hold", "wait")

    def __init__(self, bounds: tuple[float, ...], *, is_global: bool = False) -> None:
        own = [metric for metric in METRICS if metric.is_global == is_global]
        self.counts = {
            (metric.name, value): 0
            for metric in own if metric.kind == "counter" for value in metric.values
        }  # fmt: skip
        self.histograms = {
            (metric.name, value): _Buckets(bounds)
            for metric in own if metric.kind == "histogram" for value in metric.values
        }  # fmt: skip
        self.checkins = 0
        if not is_global:
            self.wait = self.histograms["wait_seconds", ""]  # each checkout is measured
            self.hold = self.histograms["hold_seconds", ""]

    def take(self, event: telemetry.Event) -> None:
        """Count an event; one that nobody has declared is not."""
        for name, value in counted_by(event):
            self.counts[name, value] += 1
        for name, value, seconds in measured_by(event):
            self.histograms[name, value].add(seconds)

    def count_of(self, name: str, value: str) -> int:
        """Return a counter."""
        match name:
            case "checkouts_total":
                return sum(self.wait.counts)
            case "checkins_total":
                return self.checkins
        return self.counts[name, value]


def _said_by(stats: Stats) -> dict[tuple[str, str], float]:
    """Return the metrics that are read when they are asked for."""
    said: dict[tuple[str, str], float] = {
        ("stale_checkins_total", ""): stats.stale,
        ("workers_overflow", ""): stats.overflow,
        ("size", ""): stats.size,
        ("max_overflow", ""): stats.max_overflow,
        ("min_ready", ""): stats.min_ready,
        ("clients_waiting", ""): stats.waiting,
        ("oldest_wait_seconds", ""): stats.oldest_wait,
        ("suspended", ""): int(stats.suspended),
        ("up", ""): int(stats.phase == "up"),
    }
    said |= {("workers", state): getattr(stats, state) for state in get_args(SlotState)}
    return said | {("breaker", state): int(stats.breaker == state) for state in BREAKERS}


# --- Snapshots ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Histogram:
    """What was measured until now."""

    bounds: tuple[float, ...]  # upper ones of all buckets but the last, in seconds
    counts: tuple[int, ...]  # of each bucket, those below it not included
    sum: float  # seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """Return the seconds that a share `q` of all did not exceed, estimated.

        Within a bucket they are taken to be spread evenly; the last bound stands for
        all above it; nan if there were none.

        Raises:
            ValueError: `q` is no share.

        Source:
            Prometheus ``histogram_quantile``.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q: expected a share from 0 to 1, got {q!r}")
        rank, lower = q * self.count, 0.0
        for upper, count in zip(self.bounds, self.counts, strict=False):
            if count and count >= rank:
                return lower + (upper - lower) * max(rank, 0.0) / count
            rank, lower = rank - count, upper
        return lower if self.count else math.nan


@dataclass(frozen=True, slots=True)
class Sample:
    """The value of a metric for one set of labels."""

    metric: Metric
    labels: tuple[tuple[str, str], ...]  # names and values, as `metric.labels` has them
    value: float | Histogram


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All samples of one moment."""

    samples: tuple[Sample, ...]  # in the order of METRICS, those of one pool together

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def find(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of a metric that have these labels, among others.

        Raises:
            ValueError: There is no such metric, or it has no such label.
        """
        metric = BY_NAME.get(name)
        if metric is None or not set(labels) <= set(metric.labels):
            raise ValueError(f"name, labels: expected one of METRICS, got {name!r}, {labels!r}")
        return [s for s in self.samples if s.metric is metric and labels.items() <= {*s.labels}]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of a counter or gauge over all samples that have these labels."""
        return sum(_number(sample) for sample in self.find(name, **labels))


def _number(sample: Sample) -> float:
    if isinstance(sample.value, Histogram):
        raise ValueError(f"name: expected a counter or gauge, got {sample.metric.name!r}")
    return sample.value


# --- The listener -------------------------------------------------------------------


class Metrics:
    """A listener, and a meter, that counts and measures.

    Args:
        bounds: Upper bounds of the histograms' buckets, in seconds, growing; one more
            bucket is above them.

    Raises:
        TypeError, ValueError: The bounds are no numbers, do not grow, or there are none.
    """

    def __init__(self, bounds: tuple[float, ...] = BOUNDS) -> None:
        for one in bounds:
            if isinstance(one, bool) or not isinstance(one, int | float):
                raise TypeError(f"bounds: expected seconds > 0 that grow, got {one!r} among them")
        steps = itertools.pairwise((0.0, *bounds, math.inf))
        if not bounds or not all(lower < upper for lower, upper in steps):
            raise ValueError(f"bounds: expected seconds > 0 that grow, got {bounds!r}")
        self.bounds = tuple(bounds)
        self._pools: dict[str, _Series] = {}  # pool -> its own
        self._global = _Series(self.bounds, is_global=True)

    def attach(self) -> Self:
        """Count from now on; twice is once."""
        telemetry.attach(self)
        return self

    def detach(self) -> None:
        """Count no more; what was counted stays, and goes on if it is attached again."""
        telemetry.detach(self)

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()

    # --- What telemetry calls ---

    def __call__(self, event: telemetry.Event) -> None:
        """Count an event."""
        if not isinstance(event, telemetry.PoolEvent):
            self._global.take(event)
        elif isinstance(event, telemetry.PoolStopped):
            self._pools.pop(event.pool, None)
        elif (series := self._pools.get(event.pool) or self._open(event.pool)) is not None:
            series.take(event)

    def checked_out(self, lease: Lease[Any], now: float) -> None:
        """Count a checkout."""
        series = self._pools.get(lease.ledger.name) or self._open(lease.ledger.name)
        if series is None:
            return
        if lease.waited:
            series.wait.add(lease.waited)
        else:
            series.wait.counts[0] += 1

    def checked_in(self, lease: Lease[Any], now: float) -> None:
        """Count a checkin."""
        series = self._pools.get(lease.ledger.name) or self._open(lease.ledger.name)
        if series is not None:
            series.checkins += 1
            hold, seconds = series.hold, now - lease.since
            hold.counts[bisect_left(hold.bounds, seconds)] += 1  # as `add`; this runs often
            hold.sum += seconds

    def _open(self, name: str) -> _Series | None:
        """Return a pool's new series; None if it was stopped, and this is its last news."""
        try:
            get_pool(name)
        except UnknownPool:
            return None
        return self._pools.setdefault(name, _Series(self.bounds))

    # --- Looking ---

    def snapshot(self, *names: str) -> Snapshot:
        """Return all samples, of pools that run; never blocks.

        Args:
            names: Of these metrics only, which is quicker.

        Raises:
            ValueError: There is no such metric.
        """
        wanted = _wanted(names) if names else METRICS
        stats = {pool.name: pool.stats() for pool in running_pools()}
        for name in list(self._pools):
            if name not in stats:  # whoever stopped it was killed before the end
                del self._pools[name]
        samples = [*_samples(wanted, self._global, {}, "")]
        for name, said in stats.items():
            series = self._pools.get(name) or _Series(self.bounds)
            samples += _samples(wanted, series, _said_by(said), name)
        return Snapshot(tuple(samples))

    def value(self, pool: str | None, name: str, **labels: str) -> float:
        """Return a counter or gauge of a pool; the sum over a label that is not given.

        Args:
            pool: The pool's name; None: of all, or of none if the metric is global.
            name: The metric's name.
            labels: `reason` or `state`, if it has one.

        Raises:
            ValueError: There is no such metric, or it has no such label.
            UnknownPool: That pool does not run.
        """
        if pool is not None:
            labels["pool"] = get_pool(pool).name
        return self.snapshot().value(name, **labels)

    def histogram(self, pool: str, name: str, **labels: str) -> Histogram:
        """Return a histogram of a pool; see :meth:`value`; `labels` have to be complete.

        Raises:
            ValueError: There is no such histogram, or not just one.
            UnknownPool: That pool does not run.
        """
        found = self.snapshot().find(name, pool=get_pool(pool).name, **labels)
        match found:
            case [Sample(value=Histogram() as histogram)]:
                return histogram
        raise ValueError(f"name, labels: expected one histogram, got {name!r}, {labels!r}")


def _wanted(names: tuple[str, ...]) -> tuple[Metric, ...]:
    if unknown := set(names) - set(BY_NAME):
        raise ValueError(f"names: expected some of METRICS, got {sorted(unknown)!r}")
    return tuple(BY_NAME[name] for name in names)


def _samples(
    metrics: tuple[Metric, ...],
    series: _Series,
    said: Mapping[tuple[str, str], float],
    pool: str,
) -> Iterator[Sample]:
    """Yield the samples of a pool, or of none."""
    for metric in metrics:
        if metric.is_global == (not pool):
            for value in metric.values:
                found = _value_of(series, said, (metric.name, value))
                yield Sample(metric, metric.labelled(pool, value), found)


def _value_of(
    series: _Series, said: Mapping[tuple[str, str], float], key: tuple[str, str]
) -> float | Histogram:
    if (buckets := series.histograms.get(key)) is not None:
        return Histogram(buckets.bounds, tuple(buckets.counts), buckets.sum)
    return said[key] if key in said else series.count_of(*key)
