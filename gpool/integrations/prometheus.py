"""Prometheus: all of gpool's metrics, of one process, or of all workers of a gunicorn.

    >>> import gpool, prometheus_client
    >>> registry = prometheus_client.CollectorRegistry()
    >>> exporter = register(registry)
    >>> with gpool.Pool(gpool.Resource(create=list), name="lists") as pool:
    ...     with pool.checkout():
    ...         registry.get_sample_value("gpool_workers", {"pool": "lists", "state": "busy"})
    1
    >>> exporter.unregister()

:data:`gpool.METRICS` lists all there is; the names begin with ``gpool_``, the labels are
`pool`, and `reason` or `state`.

Rules:

* In one process the numbers are read when they are asked for, by a collector.  It neither
  locks nor switches greenlets, and may be asked from another thread.
* Where ``PROMETHEUS_MULTIPROC_DIR`` is set prometheus_client knows no collectors: there,
  instruments are moved once in `interval`, in a greenlet of its own, and at the exit.
  A process that is killed takes its last interval along.
* There, counters and histograms are those of all processes, dead ones included.  Gauges
  are sums over the living: ``gpool_up`` says in how many a pool is up,
  ``gpool_oldest_wait_seconds`` the longest of their waits.
* The series of a pool go when it is stopped.  prometheus_client cannot remove any that
  several processes share: there, the gauges become 0, the counters stay.

Source:
    prometheus_client's documentation of custom collectors, and of its multiprocess mode.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, multiprocess
from prometheus_client import Histogram as Buckets
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

import gpool
from gpool import METRICS, Measured, Metrics, Relay, Sample
from gpool.integrations._options import check_seconds, named

BUCKETS: Final = Metrics().bounds
"""Upper bounds of the histograms' buckets, in seconds, unless they are told."""

_go: Any = floatToGoString  # these two have no types
_mark_process_dead: Any = multiprocess.mark_process_dead

_Key = tuple[str, tuple[tuple[str, str], ...]]  # a metric's name, and labels

_LONGEST: Final = {"oldest_wait_seconds"}  # of all processes, where others add up

# --- One process --------------------------------------------------------------------


class GPoolCollector(Collector):
    """What Prometheus is told of this process, whenever it asks; see :func:`register`."""

    def __init__(self, registry: CollectorRegistry, buckets: tuple[float, ...]) -> None:
        self.metrics = Metrics(buckets)
        self._registry = registry
        registry.register(self)
        self.metrics.attach()

    def describe(self) -> list[Metric]:
        """Return all that there is, without samples; two in one registry are found so."""
        return [_family(metric) for metric in METRICS]

    def collect(self) -> Iterator[Metric]:
        """Yield all that there is; never blocks."""
        families = {metric.name: _family(metric) for metric in METRICS}
        for sample in self.metrics.snapshot():
            _add(families[sample.metric.name], sample)
        yield from families.values()

    def flush(self) -> None:
        """Do nothing: all is read when it is asked for."""

    def unregister(self) -> None:
        """Tell no more."""
        self.metrics.detach()
        self._registry.unregister(self)


def _family(metric: gpool.Metric) -> Metric:
    kinds: dict[str, Any] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    family: Metric = kinds[metric.kind](
        f"gpool_{metric.name}", metric.help, labels=metric.labels, unit=metric.unit
    )
    return family


def _add(family: Any, sample: Sample) -> None:
    labels = [value for _, value in sample.labels]
    if isinstance(sample.value, gpool.Histogram):
        family.add_metric(labels, list(_cumulated(sample.value)), sample.value.sum)
    else:
        family.add_metric(labels, sample.value)


def _cumulated(histogram: gpool.Histogram) -> Iterator[tuple[str, float]]:
    """Yield each bucket's bound, and how many there were up to it."""
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        yield _go(bound), total


# --- Many processes -----------------------------------------------------------------


class GPoolInstruments:
    """What the workers of one service tell together; see :func:`register`.

    prometheus_client's instruments lock: where another one has the lock, in a patched
    program, the greenlet is switched.  So they are moved by a :class:`gpool.Relay`.
    """

    def __init__(
        self, registry: CollectorRegistry, buckets: tuple[float, ...], interval: float
    ) -> None:
        self._registry = registry
        self._gauges = Metrics()  # reads them, and counts nothing
        self._shown: set[_Key] = set()  # gauges of pools that run
        self._instruments: dict[str, Any] = {}
        self._relay = Relay(self._carry, interval=interval)
        try:
            for metric in METRICS:
                self._instruments[metric.name] = _instrument(metric, registry, buckets)
        except BaseException:
            self._remove()
            raise
        self._relay.attach()
        atexit.register(self.flush)

    def flush(self) -> None:
        """Have this process's numbers seen by all now; may block for a lock."""
        self._relay.flush()

    def unregister(self) -> None:
        """Tell no more; what was told by then stays in the files; may block for a lock."""
        atexit.unregister(self.flush)
        self._relay.detach()
        self._show(())
        self._remove()

    def _remove(self) -> None:
        for instrument in self._instruments.values():
            self._registry.unregister(instrument)

    def _carry(self, batch: list[Measured]) -> None:
        """Move the instruments; runs in a greenlet of the Relay's."""
        self._show(self._gauges.snapshot())
        for one in batch:
            series = self._series(one.metric.name, one.labels)
            if one.metric.kind == "counter":
                series.inc(one.count)
            for seconds in one.seconds:
                series.observe(seconds)

    def _show(self, samples: Iterable[Sample]) -> None:
        """Show the gauges as they are now, and a 0 for whatever has not happened yet."""
        before, self._shown = self._shown, set()
        for sample in samples:
            series = self._series(sample.metric.name, sample.labels)
            if sample.metric.kind == "gauge":
                series.set(sample.value)  # a forked child has files of its own: even if it is equal
                self._shown.add((sample.metric.name, sample.labels))
        for name, labels in before - self._shown:  # of pools that were stopped
            self._series(name, labels).set(0)

    def _series(self, name: str, labels: Iterable[tuple[str, str]]) -> Any:
        instrument, values = self._instruments[name], [value for _, value in labels]
        return instrument.labels(*values) if values else instrument


def _instrument(
    metric: gpool.Metric, registry: CollectorRegistry, buckets: tuple[float, ...]
) -> Any:
    name = f"gpool_{metric.name}"
    match metric.kind:
        case "counter":
            return Counter(name, metric.help, metric.labels, registry=registry)
        case "histogram":
            return Buckets(name, metric.help, metric.labels, registry=registry, buckets=buckets)
    mode: Literal["livemax", "livesum"] = "livemax" if metric.name in _LONGEST else "livesum"
    return Gauge(name, metric.help, metric.labels, registry=registry, multiprocess_mode=mode)


# --- Both ---------------------------------------------------------------------------


class Exporter(Protocol):
    """What :func:`register` returns."""

    def flush(self) -> None:
        """Have this process's numbers of this moment seen by a scrape of another one."""

    def unregister(self) -> None:
        """Tell Prometheus no more."""


def register(
    registry: CollectorRegistry = REGISTRY,
    buckets: tuple[float, ...] = BUCKETS,
    *,
    interval: float = 1.0,
) -> Exporter:
    """Tell Prometheus of this process's pools, those that will be started included.

    Does nothing with greenlets: it may be called at import, before a fork, too.

    Args:
        registry: Where; prometheus_client's own if left out.
        buckets: Upper bounds of the histograms' buckets, in seconds, growing; the last one
            may be infinite, as it is without that.
        interval: Seconds from one update to the next, where PROMETHEUS_MULTIPROC_DIR is
            set; elsewhere nothing has to be updated.

    Raises:
        TypeError, ValueError: The bounds are no numbers that grow, or the registry has it already.
        TypeError, ValueError: `interval` is no number of seconds, or 0.
    """
    check_seconds("interval", interval, positive=True)
    checked = _checked(buckets)
    if is_multiprocess():
        return GPoolInstruments(registry, checked, interval)
    return GPoolCollector(registry, checked)


def _checked(buckets: Any) -> tuple[float, ...]:
    """Return the bounds without an infinite one."""
    if not isinstance(buckets, Iterable):
        raise TypeError(f"buckets: expected bounds in seconds, got {buckets!r}")
    bounds = tuple(buckets)
    with named(bounds="buckets"):
        return Metrics(bounds[:-1] if bounds[-1:] == (float("inf"),) else bounds).bounds


def is_multiprocess() -> bool:
    """Tell whether prometheus_client is told to add up processes."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


def worker_is_gone(pid: int) -> None:
    """Have the gauges of a dead process forgotten; harmless where there are no such files.

    Args:
        pid: What its process id was.
    """
    if is_multiprocess():
        _mark_process_dead(pid)


def child_exit(server: Any, worker: Any) -> None:
    """Do so as a hook of gunicorn; runs in the master when a worker has ended."""
    worker_is_gone(worker.pid)
