"""What large pools cost: per worker, and per event, with 100 workers or waiters and with 10,000.

To start and to stop a pool may take as many times longer as it has workers; the figure is per
worker. All else concerns one worker, one waiter or one question, and should cost the same however
many others there are. "growth" is the last figure in units of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import thread_time
from typing import Any, Final

import gevent

import gpool
from benchmarks.births import WHENEVER, Births, Child
from benchmarks.harness import Case, Effort, Run, measure, timed
from benchmarks.results import Result, Row

FEW: Final = 100
MANY: Final = 10_000
UNIT: Final = "gevent.sleep(0)"


class Server(gpool.GenServer):
    """Does nothing."""


KINDS: Final[dict[str, Any]] = {"resource": gpool.Resource(create=object), "server": Server}


def start(worker: Any) -> Run:
    """Return a Run that starts a pool of so many workers."""

    def run(n: int) -> float:
        pool = gpool.Pool(worker, size=n, max_starting=n)
        began = thread_time()
        pool.start()
        pool.wait_ready(None)
        taken = thread_time() - began
        pool.stop(None)
        return taken

    return run


def stop(worker: Any) -> Run:
    """Return a Run that stops a pool of so many workers."""

    def run(n: int) -> float:
        pool = gpool.Pool(worker, size=n, max_starting=n).start()
        pool.wait_ready(None)
        return timed(lambda _: pool.stop(None))(n)

    return run


def lives(effort: Effort) -> list[Row]:
    """Measure whole lives of pools."""
    sizes = (FEW, MANY) if effort.is_quick else (FEW, 1_000, MANY)
    cases = {
        (what, kind, n): Case(f"{what} {kind} {n}", make(worker), count=n)
        for what, make in {"start": start, "stop": stop}.items()
        for kind, worker in KINDS.items()
        for n in sizes
    }
    rounds = measure(cases.values(), effort.heavy())
    rows = []
    for what, kind, n in cases:
        if n == FEW:
            by_size = [cases[what, kind, size].name for size in sizes]
            figures = {
                f"µs, {n:,}": rounds.cost(case) * 1e6
                for n, case in zip(sizes, by_size, strict=True)
            }
            growth = rounds.ratio(by_size[-1], by_size[0])
            rows.append(Row(f"{what}, per {kind}", figures | {"growth": growth}))
    return rows


# --- Single events ------------------------------------------------------------------


def repeated(once: Callable[[], object]) -> Run:
    """Return a Run that does it so many times."""
    return timed(lambda n: [once() for _ in range(n)])


def death(pool: gpool.Pool[Any], births: Births) -> Run:
    """Return a Run that kills one idle worker at a time, and waits for its successor."""

    def once() -> float:
        with pool.checkout() as worker:
            victim = worker.pid
        taken = births.after_kill_of(victim, 1)
        gevent.sleep(0)
        return taken

    return lambda n: sum(once() for _ in range(n))


def discard(pool: gpool.Pool[Any], births: Births) -> Run:
    """Return a Run that discards one resource at a time, and waits for its successor."""

    def once() -> float:
        lease = pool.checkout()
        taken = births.after(lambda: lease.discard("worn"), 1)
        gevent.sleep(0)
        return taken

    return lambda n: sum(once() for _ in range(n))


def come_and_go(pool: gpool.Pool[Any]) -> None:
    """Have a client queue behind the others, and be killed."""
    client = gevent.spawn(pool.checkout)
    gevent.sleep(0)
    client.kill()


@contextmanager
def standing(n: int) -> Iterator[dict[str, Run]]:
    """Have pools of so many workers, and as many clients wait at another; yields what to do."""
    births = Births()
    servers = gpool.Pool(Child, (births,), size=n, max_starting=n, **WHENEVER)
    resources = gpool.Pool(gpool.Resource(create=births.born), size=n, max_starting=n, **WHENEVER)
    besieged = gpool.Pool(gpool.Resource(create=object), size=1)
    metrics = gpool.Metrics()
    with servers, resources, besieged, metrics:
        servers.wait_ready(None)
        resources.wait_ready(None)
        lease = besieged.checkout()
        waiting = [gevent.spawn(besieged.checkout, timeout=None) for _ in range(n)]
        gevent.sleep(0)
        yield {
            "death of a server": death(servers, births),
            "discard of a resource": discard(resources, births),
            "a waiter comes and is killed": repeated(lambda: come_and_go(besieged)),
            "stats() of idle workers": repeated(servers.stats),
            "stats() with waiters": repeated(besieged.stats),
            "snapshot of the metrics, three pools": repeated(metrics.snapshot),
            UNIT: repeated(lambda: gevent.sleep(0)),
        }
        gevent.killall(waiting)
        lease.checkin()


def events(effort: Effort) -> list[Row]:
    """Measure single events, among few and among many."""
    costs: dict[int, dict[str, float]] = {}  # among so many -> what -> µs
    units: dict[int, dict[str, float]] = {}  # the same in turns of the loop, of the same rounds
    for n in (FEW, MANY):
        with standing(n) as runs:
            rounds = measure([Case(what, run) for what, run in runs.items()], effort)
        costs[n] = {what: rounds.cost(what) * 1e6 for what in runs}
        units[n] = {what: rounds.ratio(what, UNIT) for what in runs if what != UNIT}
    return [
        Row(what, {
            f"µs, {FEW}": costs[FEW][what],
            f"µs, {MANY:,}": costs[MANY][what],
            "growth": units[MANY][what] / units[FEW][what],
        })
        for what in units[FEW]
    ]  # fmt: skip


def run(effort: Effort) -> Result:
    """Measure."""
    return Result("growth", [*lives(effort), *events(effort.heavy())])
