"""A pool's numbers, for those who look: all of one moment, and frozen.

Not here: histograms and counters over all pools (``metrics.py``), who holds what
(``Pool.holders``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gpool.pool.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Status:
    """A pool at a glance.

    Source:
        poolboy ``status/1``; in addition `state` is "down", while it is closed or
        between two managers, "failed" or "stopped".
    """

    state: Literal["ready", "overflow", "full", "down", "failed", "stopped"]
    idle: int
    overflow: int
    busy: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A pool's numbers, all of one moment; counts are since its start."""

    name: str
    phase: str  # up, draining, failed, stopped; down: between two managers
    suspended: bool
    size: int
    max_overflow: int
    min_ready: int  # workers that are up though nobody needs them, be it by default
    # Slots by state; together they are all that the cap counts.
    idle: int
    busy: int
    starting: int
    finishing: int
    resetting: int  # resets and checks
    closing: int
    lost: int  # resources without a worker that a client still holds
    overflow: int
    waiting: int
    oldest_wait: float  # seconds that the first in the queue has waited; 0 if there is none
    epoch: int  # managers it has had; one less is its falls
    breaker: Literal["closed", "open", "half_open"]  # open: starts back off
    # Checkouts that failed.
    timed_out: int
    refused: int  # by max_waiting
    failed_fast: int
    deadlocks: int
    cancelled: int  # killed while they waited, or cut by a Timeout of their own
    # Leases.
    stale: int  # checkins of a lease that was over
    reclaimed: int  # workers of clients that died
    overheld: int  # held for longer than max_hold
    revoked: int  # of these, taken away
    # Workers.
    start_failures: int
    unclosed: int  # resources whose close was begun twice and never ended
    last_start_failure: Any  # its reason; None if none has failed

    @property
    def accounted(self) -> int:
        """All that the cap counts."""
        return (
            self.idle + self.busy + self.starting + self.finishing
            + self.resetting + self.closing + self.lost
        )  # fmt: skip


def stats_of(ledger: Ledger) -> Stats:
    """Return the numbers of the pool that has these books."""
    counts, options, man = ledger.counts(), ledger.options, ledger.man
    live = sum(counts.values()) - counts["closing"] - counts["lost"]
    admission = ledger.admission
    # Those who were granted a worker hold it already, though they have not woken.
    return Stats(
        name=ledger.name,
        phase="down" if ledger.phase == "up" and man is None else ledger.phase,
        suspended=ledger.suspended,
        size=options.size,
        max_overflow=options.max_overflow,
        min_ready=options.ready_at,
        overflow=max(live - options.size, 0),
        waiting=ledger.queue.length,
        oldest_wait=ledger.queue.oldest_wait,
        epoch=ledger.epoch,
        breaker="closed" if man is None else man.state.breaker,
        timed_out=admission.timeouts,
        refused=admission.refused,
        failed_fast=admission.failed_fast,
        deadlocks=admission.deadlocks,
        cancelled=admission.cancelled,
        stale=ledger.stale,
        reclaimed=ledger.reclaimed,
        overheld=ledger.overheld,
        revoked=ledger.revoked,
        start_failures=ledger.staff.start_failures,
        unclosed=ledger.staff.unclosed,
        last_start_failure=ledger.staff.last_failure,
        **counts,
    )


def status_of(stats: Stats) -> Status:
    """Return a pool at a glance."""
    if stats.phase != "up":
        state: Any = stats.phase if stats.phase in ("failed", "stopped") else "down"
    elif stats.busy >= stats.size + stats.max_overflow:
        state = "full"
    else:
        state = "overflow" if stats.busy >= stats.size else "ready"
    return Status(state, stats.idle, stats.overflow, stats.busy)
