"""What has to hold: ratios within one run, each with what it may miss on a bad day.

A bound is met or not by the figure as it is; ``--check`` complains only of what
misses its bound by more than the margin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.results import Result

MARGIN: Final = 1.5  # factor: a shared machine, few rounds, another build of CPython
BYTECODES: Final = 1.8  # the same where nearly all is bytecode, set beside what is nearly all C
MANNERS: Final = ("greedy", "polite")
PEERS: Final = (
    "psycopg_pool", "SQLAlchemy QueuePool", "redis BlockingConnectionPool", "DBUtils PooledDB",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit of one figure, from above unless `at_least`."""

    what: str
    suite: str
    row: str
    column: str
    limit: float
    at_least: bool = False
    margin: float = MARGIN

    @property
    def words(self) -> str:
        """The limit, as a table shows it."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"

    def holds(self, value: float, *, margin: float = 1.0) -> bool:
        """Tell whether a value is within the limit, widened by a factor."""
        if self.at_least:
            return value >= self.limit / margin
        return value <= self.limit * margin


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a bound; its value is None if it was not measured."""

    bound: Bound
    value: float | None

    @property
    def is_met(self) -> bool:
        """Whether the bound itself holds."""
        return self.value is not None and self.bound.holds(self.value)

    @property
    def is_offended(self) -> bool:
        """Whether it is missed by more than the margin, or was not measured."""
        return self.value is None or not self.bound.holds(self.value, margin=self.bound.margin)


def _uncontended() -> Iterable[Bound]:
    for what, row, limit in (
        ("checkout + checkin : LifoQueue get + put", "pair", 3.5),
        ("with pool.checkout() : LifoQueue get + put", "with", 5.5),
        ("the same, everything on", "with, everything on", 9.0),
        ("one-shot client : one of a LifoQueue", "one-shot client, with", 1.3),
    ):
        yield Bound(what, "uncontended", row, ": LifoQueue", limit, margin=BYTECODES)
    for peer in PEERS:
        what = f"{peer} : gpool's with"
        yield Bound(what, "uncontended", peer, ": gpool's with", 5.0, at_least=True)


def _contended() -> Iterable[Bound]:
    for clients, net in (("100", 2.0), ("10,000", 3.0)):
        for manner in MANNERS:
            yield from _fair(f"{clients} {manner}")
            what = f"grant less floor : sleep(0), {clients} {manner}"
            yield Bound(what, "contended", f"gpool, {clients} {manner}", "net : sleep(0)", net)
    for manner in MANNERS:
        what = f"grant at 10,000 clients : at 100, {manner}"
        yield Bound(what, "contended", "gpool, 10,000 : 100", manner, 2.0)
    yield Bound("workers lost under kills", "contended", "gpool, killed", "lost", 0, margin=1.0)


def _fair(who: str) -> Iterable[Bound]:
    row = f"gpool, {who}"
    yield Bound(f"Jain, {who}", "contended", row, "Jain", 0.999, at_least=True, margin=1.0)
    yield Bound(f"starved, {who}", "contended", row, "starved", 0, margin=1.0)
    what = f"longest wait in grants : clients, {who}"
    yield Bound(what, "contended", row, ": clients", 1.0, margin=1.0)


def _waiters() -> Iterable[Bound]:
    for fate, limit in (("time-out", 1.5), ("kill", 2.5)):
        yield Bound(
            f"{fate} of a waiter, of 10,000 : of 1,000",
            "waiters", f"gpool, {fate} of 10,000", ": of 1,000", limit,
        )  # fmt: skip


def _calls() -> Iterable[Bound]:
    for row in ("handle_call", "@call method"):
        what = f"{row} : two greenlets through the hub"
        yield Bound(what, "calls", row, ": limit", 2.0, margin=BYTECODES)
        yield Bound(f"{row} : Queue + AsyncResult", "calls", row, ": idiom", 0.7)


def _processes() -> Iterable[Bound]:
    one, all_ = "restart, one_for_one", "restart, one_for_all of 100"
    yield Bound("restart of one child : bare spawn + kill", "processes", one, ": bare", 1.7)
    yield Bound("one_for_all of 100 : 100 bare ones", "processes", all_, ": bare", 1.7)


def _memory() -> Iterable[Bound]:
    for row, limit in (
        ("idle resource worker", 1024),
        ("idle GenServer worker", 9 * 1024),
        ("waiter", 8 * 1024),
    ):
        yield Bound(f"{row}, bytes", "memory", row, "bytes", limit, margin=1.2)


def _growth() -> Iterable[Bound]:
    for row in (
        "start, per resource",
        "start, per server",
        "stop, per resource",
        "stop, per server",
        "death of a server",
        "discard of a resource",
        "a waiter comes and is killed",
        "stats() of idle workers",
        "stats() with waiters",
    ):
        yield Bound(f"{row}, among 10,000 : among 100", "growth", row, "growth", 2.0)


def _observer() -> Iterable[Bound]:
    what = "checkout, observed, nobody looks : not observed"
    yield Bound(what, "observer", "pair, observed", ": not observed", 1.02, margin=1.1)
    for look in (
        "processes, by name",
        "processes, by mailbox",
        "processes, by current function",
        "processes, filtered",
        "500 processes, filtered by a digit, by current function",
        "tree",
        "tree, filtered",
        "pools",
        "a pool, with holders and waiters",
    ):
        yield Bound(f"look at 10,000 processes: {look}, ms", "observer", look, "ms", 25.0)


BOUNDS: Final = (
    *_uncontended(), *_contended(), *_waiters(), *_calls(), *_processes(), *_memory(), *_growth(),
    *_observer(),
)  # fmt: skip


def verdicts(results: Iterable[Result]) -> list[Verdict]:
    """Return what became of every bound whose suite was run, and whose peer was there."""
    by_suite = {result.suite: result for result in results}
    return [
        Verdict(bound, by_suite[bound.suite].figure(bound.row, bound.column))
        for bound in BOUNDS
        if bound.suite in by_suite and bound.row not in by_suite[bound.suite].left_out
    ]
