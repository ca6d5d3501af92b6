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

Not here: exporters; what carries to them what they cannot be asked for (``relay.py``);
one pool's numbers of one moment (``pool/stats.py``).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

from gpool import telemetry
from gpool.errors import UnknownPool
from gpool.pool.lease import Lease
from gpool.pool.pools import get_pool, running_pools
from gpool.pool.slot import SlotState
from gpool.pool.stats import Stats

BOUNDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
)  # fmt: skip
"""Upper bounds of the buckets, in seconds, unless a Metrics is told others."""

# --- What there is ------------------------------------------------------------------

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as it is declared.

    Its name ends in the unit, ``_total`` if it is a counter.  It is one of each pool,
    with a label `pool`, unless `is_global`.
    """

    name: str
    kind: Kind
    help: str
    label: str = ""  # the name of a second label, "reason" or "state"
    values: tuple[str, ...] = ("",)  # all that this label can be
    is_global: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its labels."""
        names = ("" if self.is_global else "pool", self.label)
        return tuple(name for name in names if name)

    @property
    def unit(self) -> str:
        """What is measured in: "seconds", or nothing if it counts."""
        return "seconds" if self.name.endswith("_seconds") else ""


STOP_REASONS: Final = (
    "overflow", "idle_timeout", "max_age", "max_uses", "max_hold", "recycled", "resized",
    "check_failed", "reset_failed", "overdue", "suspected", "dirty", "lost", "exit", "stopped",
    "owner_died", "left_by", "broken", "hook_failed", "forgotten", "discarded",
)  # fmt: skip
"""The kinds of WorkerStopping's reasons."""

_REFUSALS: Final = get_args(telemetry.Refusal)
_CHORES: Final = get_args(telemetry.Chore)
_BREAKERS: Final = get_args(telemetry.Breaker)
_CHANGES: Final = {
    telemetry.PoolStarted: "started",
    telemetry.PoolReady: "ready",
    telemetry.PoolSuspended: "suspended",
    telemetry.PoolResumed: "resumed",
    telemetry.PoolResized: "resized",
    telemetry.PoolRecycled: "recycled",
    telemetry.PoolClosing: "closing",
    telemetry.PoolReopened: "reopened",
}
_CONTEXTS: Final = ("child_terminated", "start_error", "shutdown_error", "shutdown")
_HOOKS: Final = ("reset", "check", "close", "is_dirty or is_broken")

METRICS: Final = (
    # Leases.
    Metric("wait_seconds", "histogram", "How long those waited who got a worker"),
    Metric("hold_seconds", "histogram", "How long clients had a worker, whatever ended that"),
    Metric("checkouts_total", "counter", "Workers that clients got"),
    Metric("checkins_total", "counter", "Workers that clients gave back"),
    Metric("checkout_failures_total", "counter", "Clients that got none", "reason", _REFUSALS),
    Metric("leases_reclaimed_total", "counter", "Workers of clients that died or dropped them"),
    Metric("leases_forgotten_total", "counter", "Workers that were out when their scope ended"),
    Metric("leases_broken_total", "counter", "Workers that died in their clients' hands"),
    Metric("leases_overheld_total", "counter", "Workers held for longer than max_hold"),
    Metric("leases_revoked_total", "counter", "Workers taken away, of those held too long"),
    Metric("leases_returned_late_total", "counter", "Workers that came back, of those"),
    Metric("stale_checkins_total", "counter", "Checkins of a lease that was over"),
    # Workers.
    Metric("start_seconds", "histogram", "How long workers took to start"),
    Metric(
        "recovery_seconds", "histogram", "How long workers took to be fit again", "reason", _CHORES
    ),
    Metric("workers_starting_total", "counter", "Starts that were begun"),
    Metric("workers_started_total", "counter", "Starts that went well"),
    Metric("worker_start_failures_total", "counter", "Starts that failed"),
    Metric("workers_stopping_total", "counter", "Workers that had to go", "reason", STOP_REASONS),
    Metric("workers_died_total", "counter", "Workers that are dead, for whatever reason"),
    Metric("resources_closed_total", "counter", "Resources closed that had lost their worker"),
    Metric("resources_unclosed_total", "counter", "Resources whose close was given up"),
    # The pool.
    Metric("manager_rises_total", "counter", "Managers that took charge"),
    Metric("manager_falls_total", "counter", "Managers that fell"),
    Metric("pool_failures_total", "counter", "Falls that were one too many"),
    Metric("breaker_changes_total", "counter", "Changes of the breaker", "state", _BREAKERS),
    Metric(
        "pool_changes_total", "counter", "Other news of the pool", "reason",
        tuple(_CHANGES.values()),
    ),
    # What Pool.stats() says.
    Metric("workers", "gauge", "Workers by state", "state", get_args(SlotState)),
    Metric("workers_overflow", "gauge", "Workers above size"),
    Metric("size", "gauge", "Workers that are kept"),
    Metric("max_overflow", "gauge", "Workers that there may be above size"),
    Metric("min_ready", "gauge", "Workers that are up though nobody needs them"),
    Metric("clients_waiting", "gauge", "Clients in the queue"),
    Metric("oldest_wait_seconds", "gauge", "How long the first in the queue has waited"),
    Metric("breaker", "gauge", "1 for the state it is in", "state", _BREAKERS),
    Metric("suspended", "gauge", "1 if nothing is lent"),
    Metric("up", "gauge", "1 if the pool is managed and lets clients in"),
    # The operating system process.
    Metric("processes_crashed_total", "counter", "Processes that died of an error", is_global=True),
    Metric("zombies_total", "counter", "Greenlets that swallowed their exit", is_global=True),
    Metric("cleanups_failed_total", "counter", "Errors in dying processes", is_global=True),
    Metric("messages_dropped_total", "counter", "Messages nobody handles", is_global=True),
    Metric("listeners_failed_total", "counter", "Errors of telemetry's listeners", is_global=True),
    Metric(
        "supervisor_reports_total", "counter", "What befell supervised children", "reason",
        _CONTEXTS, is_global=True,
    ),
    Metric(
        "hooks_failed_total", "counter", "Errors of a resource's callables", "reason",
        _HOOKS, is_global=True,
    ),
)  # fmt: skip
"""Every metric."""

_BY_NAME: Final = {metric.name: metric for metric in METRICS}


def stop_reason(reason: Any) -> str:
    """Return what kind of reason WorkerStopping tells: one of STOP_REASONS.

    >>> stop_reason("max_age"), stop_reason(("owner_died", "killed")), stop_reason("no luck")
    ('max_age', 'owner_died', 'discarded')
    """
    match reason:
        case ("owner_died" | "left_by" | "broken" | "hook_failed" as kind, _):
            return str(kind)
        case str() if reason in STOP_REASONS:
            return reason
        case _:
            return "discarded"


# --- What events count --------------------------------------------------------------

_COUNTS: Final[Mapping[type[telemetry.Event], tuple[str, Callable[[Any], str] | None]]] = {
    telemetry.ProcessCrashed: ("processes_crashed_total", None),
    telemetry.ProcessIsZombie: ("zombies_total", None),
    telemetry.CleanupFailed: ("cleanups_failed_total", None),
    telemetry.UnexpectedMessage: ("messages_dropped_total", None),
    telemetry.ListenerFailed: ("listeners_failed_total", None),
    telemetry.SupervisorReport: ("supervisor_reports_total", lambda event: event.context),
    telemetry.HookFailed: ("hooks_failed_total", lambda event: event.hook),
    telemetry.WorkerStarting: ("workers_starting_total", None),
    telemetry.WorkerStarted: ("workers_started_total", None),
    telemetry.WorkerStartFailed: ("worker_start_failures_total", None),
    telemetry.WorkerStopping: ("workers_stopping_total", lambda event: stop_reason(event.reason)),
    telemetry.WorkerDied: ("workers_died_total", None),
    telemetry.CheckoutFailed: ("checkout_failures_total", lambda event: event.reason),
    telemetry.LeaseReclaimed: ("leases_reclaimed_total", None),
    telemetry.LeaseForgotten: ("leases_forgotten_total", None),
    telemetry.LeaseBroken: ("leases_broken_total", None),
    telemetry.HeldTooLong: ("leases_overheld_total", None),
    telemetry.ReturnedLate: ("leases_returned_late_total", None),
    telemetry.PoolRose: ("manager_rises_total", None),
    telemetry.PoolFell: ("manager_falls_total", None),
    telemetry.PoolHasFailed: ("pool_failures_total", None),
    telemetry.BreakerChanged: ("breaker_changes_total", lambda event: event.breaker),
    **{kind: ("pool_changes_total", lambda event: _CHANGES[type(event)]) for kind in _CHANGES},
}  # event -> the counter, and which of its label's values


def counted_by(event: telemetry.Event) -> Iterator[tuple[str, str]]:
    """Yield the counters that an event moves, and which of their label's values."""
    if (counted := _COUNTS.get(type(event))) is not None:
        name, value_of = counted
        yield name, "" if value_of is None else value_of(event)
    match event:
        case telemetry.HeldTooLong(revoked=True):
            yield "leases_revoked_total", ""
        case telemetry.ResourceClosed(gave_up=gave_up):
            yield f"resources_{'unclosed' if gave_up else 'closed'}_total", ""


def measured_by(event: telemetry.Event) -> Iterator[tuple[str, str, float]]:
    """Yield the histograms that an event adds to, which of their label's values, and seconds."""
    match event:
        case telemetry.WorkerStarted(seconds=seconds):
            yield "start_seconds", "", seconds
        case telemetry.WorkerRecovered(chore=chore, seconds=seconds):
            yield "recovery_seconds", chore, seconds
        case telemetry.LeaseReclaimed(seconds=seconds) | telemetry.LeaseBroken(seconds=seconds):
            yield "hold_seconds", "", seconds
        case telemetry.HeldTooLong(seconds=seconds, revoked=True):
            yield "hold_seconds", "", seconds


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
    return said | {("breaker", state): int(stats.breaker == state) for state in _BREAKERS}


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
        metric = _BY_NAME.get(name)
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
        ValueError: The bounds do not grow, or there are none.
    """

    def __init__(self, bounds: tuple[float, ...] = BOUNDS) -> None:
        pairs = zip((0.0, *bounds), bounds, strict=False)
        if not bounds or not all(lower < upper for lower, upper in pairs):
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
    if unknown := set(names) - set(_BY_NAME):
        raise ValueError(f"names: expected some of METRICS, got {sorted(unknown)!r}")
    return tuple(_BY_NAME[name] for name in names)


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
                pairs = [("pool", pool), (metric.label, value)]
                labels = tuple(pair for pair in pairs if all(pair))
                yield Sample(metric, labels, _value_of(series, said, (metric.name, value)))


def _value_of(
    series: _Series, said: Mapping[tuple[str, str], float], key: tuple[str, str]
) -> float | Histogram:
    if (buckets := series.histograms.get(key)) is not None:
        return Histogram(buckets.bounds, tuple(buckets.counts), buckets.sum)
    return said[key] if key in said else series.count_of(*key)
