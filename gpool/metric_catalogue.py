"""All the metrics that there are, and which events move them.

What counts (``metrics.py``) and what carries (``relay.py``) read it here, so that both tell
the same.  A metric is added to :data:`METRICS`, and to `_COUNTS` or :func:`measured_by`.

Not here: what leases move, which are no events, and what ``Pool.stats()`` says (``metrics.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from gpool import telemetry
from gpool.pool.slot import SlotState

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

    def labelled(self, pool: str, value: str) -> tuple[tuple[str, str], ...]:
        """Return names and values of the labels of one series; "" where it has no such label."""
        return tuple(pair for pair in (("pool", pool), (self.label, value)) if all(pair))


STOP_REASONS: Final = (
    "overflow", "idle_timeout", "max_age", "max_uses", "max_hold", "recycled", "resized",
    "check_failed", "reset_failed", "overdue", "suspected", "dirty", "lost", "exit", "stopped",
    "owner_died", "left_by", "broken", "hook_failed", "forgotten", "discarded",
)  # fmt: skip
"""The kinds of WorkerStopping's reasons."""

_REFUSALS: Final = get_args(telemetry.Refusal)
_CHORES: Final = get_args(telemetry.Chore)
BREAKERS: Final = get_args(telemetry.Breaker)
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
    Metric("breaker_changes_total", "counter", "Changes of the breaker", "state", BREAKERS),
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
    Metric("breaker", "gauge", "1 for the state it is in", "state", BREAKERS),
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

BY_NAME: Final = {metric.name: metric for metric in METRICS}


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
