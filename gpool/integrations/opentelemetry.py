"""OpenTelemetry: all of gpool's metrics, by the names of its conventions for databases.

    >>> import gpool
    >>> instrument(databases={"orders"})  # to the meter provider that the program has set
    >>> with gpool.Pool(gpool.Resource(create=list), name="orders") as pool:
    ...     pool.checkout().checkin()
    >>> uninstrument()

Of a pool that holds connections to a database the ``db.client.connection.*`` metrics are told,
of any other the same under ``gpool.pool.*``; what the conventions have no name for is
``gpool.*``, as :data:`gpool.METRICS` has it, without the unit.

Rules:

* Which pools are databases has to be said: gpool lends whatever it is given.
* What can be asked for is observed: the callbacks read, and neither lock nor switch
  greenlets.  Times are recorded once in `interval`, in a greenlet of its own
  (:class:`gpool.Relay`), since an SDK locks; :func:`uninstrument` records the rest.
* Needs the API alone.  Without an SDK nothing happens, at the price of a few counts.
* The series of a pool go when it is stopped, but for the times: an SDK keeps histograms.
* An SDK that exports from a thread has to be set up after the fork: for gunicorn in
  ``post_worker_init``.

There is no entry point for ``opentelemetry-instrument``: it runs before a program has
patched, would need another package, and cannot know which pools are databases.

Source:
    Semantic conventions for database client metrics, 1.44 (in development).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import metrics as api
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

import gpool
from gpool import METRICS, Measured, Metric, Metrics, Relay, Sample

Databases = Collection[str] | Callable[[str], bool]

# --- Names --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Convention:
    """A metric of the conventions, and which of gpool's it is made of."""

    suffix: str
    kind: str  # "counter", "updown" or "histogram"
    unit: str
    help: str
    sources: tuple[str, ...]  # of METRICS; they add up


CONVENTIONS: Final = (
    Convention(
        "count", "updown", "{connection}",
        "The number of connections that are currently in state described by the `state` attribute.",
        ("workers",),
    ),
    Convention(
        "idle.max", "updown", "{connection}",
        "The maximum number of idle open connections allowed.", ("size",),
    ),
    Convention(
        "idle.min", "updown", "{connection}",
        "The minimum number of idle open connections allowed.", ("min_ready",),
    ),
    Convention(
        "max", "updown", "{connection}",
        "The maximum number of open connections allowed.", ("size", "max_overflow"),
    ),
    Convention(
        "pending_requests", "updown", "{request}",
        "The number of current pending requests for an open connection.", ("clients_waiting",),
    ),
    Convention(
        "timeouts", "counter", "{timeout}",
        "The number of connection timeouts that have occurred trying to obtain a connection from "
        "the pool.", ("checkout_failures_total",),
    ),
    Convention(
        "create_time", "histogram", "s",
        "The time it took to create a new connection.", ("start_seconds",),
    ),
    Convention(
        "wait_time", "histogram", "s",
        "The time it took to obtain an open connection from the pool.", ("wait_seconds",),
    ),
    Convention(
        "use_time", "histogram", "s",
        "The time between borrowing a connection and returning it to the pool.", ("hold_seconds",),
    ),
)  # fmt: skip
"""What OpenTelemetry asks of pools of database connections."""

_TOLD_WHOLE: Final = {
    "size", "max_overflow", "min_ready", "clients_waiting",
    "start_seconds", "wait_seconds", "hold_seconds",
}  # fmt: skip  # that the conventions tell; the others are told under gpool.* as well
_ADDITIVE: Final = {"workers", "workers_overflow"}  # gauges that make sense summed up
_STATES: Final = {
    "idle": "idle", "busy": "used", "finishing": "used", "resetting": "used", "closing": "used",
    "lost": "used",
}  # fmt: skip  # of those that are open: one that starts is none yet

REST: Final = tuple(metric for metric in METRICS if metric.name not in _TOLD_WHOLE)
"""What is told under ``gpool.*``."""


def name_of(metric: Metric) -> str:
    """Return what a metric of REST is called."""
    return "gpool." + metric.name.removesuffix("_total").removesuffix("_seconds")


def _unit_of(metric: Metric) -> str:
    if metric.unit:
        return "s"
    for word in ("worker", "lease", "checkout", "checkin", "resource", "process", "zombie"):
        if word in metric.name:
            return f"{{{word}}}"
    return "1"


# --- Instruments --------------------------------------------------------------------


class _Instruments:
    """The instruments of one meter provider: the API makes them once, and for good."""

    def __init__(self, provider: MeterProvider) -> None:
        self.metrics: Metrics | None = None  # what is read; None: nothing is told
        self.is_database: Callable[[str], bool] = bool
        self._meter = provider.get_meter("gpool", gpool.__version__)
        self._histograms: dict[tuple[str, str], Any] = {}  # family, or "", and name of METRICS
        for convention in CONVENTIONS:
            for family in (_DATABASE, _OTHER):
                self._make_conventional(convention, family)
        for metric in REST:
            self._make(metric)

    def _make_conventional(self, convention: Convention, family: _Family) -> None:
        name, unit = family.prefix + convention.suffix, family.unit(convention.unit)
        help_ = family.help(convention.help)
        if convention.kind == "histogram":
            made = self._histogram(name, unit, help_)
            self._histograms[family.prefix, convention.sources[0]] = made
            return

        def observe(_: CallbackOptions) -> list[Observation]:
            return self._conventional(convention, family)

        if convention.kind == "counter":
            self._meter.create_observable_counter(name, [observe], unit, help_)
        else:
            self._meter.create_observable_up_down_counter(name, [observe], unit, help_)

    def _make(self, metric: Metric) -> None:
        name, unit = name_of(metric), _unit_of(metric)

        def observe(_: CallbackOptions) -> list[Observation]:
            return [
                Observation(_number(one), _attributes(one.labels)) for one in self._read(metric)
            ]

        if metric.kind == "histogram":
            self._histograms["", metric.name] = self._histogram(name, unit, metric.help)
        elif metric.kind == "counter":
            self._meter.create_observable_counter(name, [observe], unit, metric.help)
        elif metric.name in _ADDITIVE:
            self._meter.create_observable_up_down_counter(name, [observe], unit, metric.help)
        else:
            self._meter.create_observable_gauge(name, [observe], unit, metric.help)

    def _histogram(self, name: str, unit: str, help_: str) -> Any:
        return self._meter.create_histogram(
            name, unit, help_, explicit_bucket_boundaries_advisory=Metrics().bounds
        )

    # --- Observing: never blocks, in whichever thread ---

    def _read(self, *metrics: Metric | str) -> Iterable[Sample]:
        if self.metrics is None:
            return ()
        return self.metrics.snapshot(
            *(one if isinstance(one, str) else one.name for one in metrics)
        )

    def _conventional(self, convention: Convention, family: _Family) -> list[Observation]:
        sums: dict[tuple[str, str], float] = {}  # pool, state or "" -> how many
        for sample in self._read(*convention.sources):
            labels = dict(sample.labels)
            state = _state_of(convention, labels)
            if state is not None and self.family_of(labels["pool"]) is family:
                key = (labels["pool"], state)
                sums[key] = sums.get(key, 0) + _number(sample)
        return [
            Observation(value, family.attributes(pool, state))
            for (pool, state), value in sums.items()
        ]

    def family_of(self, pool: str) -> _Family:
        """Return whose names a pool's metrics have."""
        return _DATABASE if self.is_database(pool) else _OTHER

    # --- Recording: in a greenlet of the Relay's ---

    def carry(self, batch: list[Measured]) -> None:
        """Record what was measured; may block."""
        for one in batch:
            if one.metric.kind == "histogram":
                histogram, attributes = self._where(one)
                for seconds in one.seconds:
                    histogram.record(seconds, attributes)

    def _where(self, one: Measured) -> tuple[Any, dict[str, str]]:
        if one.metric in REST:
            return self._histograms["", one.metric.name], _attributes(one.labels)
        pool = dict(one.labels)["pool"]
        family = self.family_of(pool)
        return self._histograms[family.prefix, one.metric.name], family.attributes(pool)


@dataclass(frozen=True, slots=True)
class _Family:
    """How the conventional metrics are called, of databases or of whatever else."""

    prefix: str
    attribute: str  # before those of the attributes
    thing: str

    def unit(self, unit: str) -> str:
        """Return a unit, of the things that are lent."""
        return unit.replace("connection", self.thing)

    def help(self, text: str) -> str:
        """Return a description."""
        return text.replace("connection", self.thing)

    def attributes(self, pool: str, state: str = "") -> dict[str, str]:
        """Return the attributes of a series."""
        named = {f"{self.attribute}pool.name": pool}
        return named | {f"{self.attribute}state": state} if state else named


_DATABASE: Final = _Family("db.client.connection.", "db.client.connection.", "connection")
_OTHER: Final = _Family("gpool.pool.", "gpool.", "worker")


def _attributes(labels: tuple[tuple[str, str], ...]) -> dict[str, str]:
    keys: Mapping[str, str] = {
        "pool": "gpool.pool.name", "reason": "gpool.reason", "state": "gpool.state",
    }  # fmt: skip
    return {keys[name]: value for name, value in labels}


def _state_of(convention: Convention, labels: Mapping[str, str]) -> str | None:
    """Return what a sample counts as in the conventions: a state, "", or None if as nothing."""
    match convention.suffix:
        case "count":
            return _STATES.get(labels["state"])
        case "timeouts":
            return "" if labels["reason"] == "timeout" else None
    return ""


def _number(sample: Sample) -> float:
    assert not isinstance(sample.value, gpool.Histogram)
    return sample.value


# --- On and off ---------------------------------------------------------------------

_made: Final[weakref.WeakKeyDictionary[MeterProvider, _Instruments]] = weakref.WeakKeyDictionary()
_on: tuple[_Instruments, Relay] | None = None


def instrument(
    meter_provider: MeterProvider | None = None,
    databases: Databases = (),
    *,
    interval: float = 1.0,
) -> None:
    """Tell OpenTelemetry of this process's pools, those that will be started included.

    A second time ends the first, as :func:`uninstrument` does.  Does nothing with greenlets
    before a pool starts.

    Args:
        meter_provider: Where; the one that the program has set, or will set, if None.
        databases: The names of the pools that hold connections to a database; or what
            tells of a name whether it is one's, which must neither block nor raise.
        interval: Seconds from one recording of times to the next.

    Raises:
        TypeError, ValueError: An argument is wrong.
    """
    global _on
    is_database = _predicate(databases)
    provider = api.get_meter_provider() if meter_provider is None else meter_provider
    if not isinstance(provider, MeterProvider):
        raise TypeError(f"meter_provider: expected a MeterProvider, got {provider!r}")
    instruments = _made.get(provider)
    if instruments is None:
        instruments = _made[provider] = _Instruments(provider)
    relay = Relay(instruments.carry, interval=interval)
    uninstrument()
    instruments.is_database = is_database
    instruments.metrics = Metrics().attach()
    _on = (instruments, relay.attach())


def uninstrument() -> None:
    """Tell no more, after what was measured until now; may block for a lock; twice is fine."""
    global _on
    on, _on = _on, None
    if on is not None:
        instruments, relay = on
        if instruments.metrics is not None:
            instruments.metrics.detach()
        instruments.metrics = None
        relay.detach()


def _predicate(databases: Any) -> Callable[[str], bool]:
    if callable(databases):
        return lambda pool: bool(databases(pool))
    if isinstance(databases, str) or not isinstance(databases, Collection):
        raise TypeError(f"databases: expected names of pools, or a callable, got {databases!r}")
    return frozenset(databases).__contains__
