"""A worker is free: the cost of borrowing it and giving it back, beside a LifoQueue.

"pair" is `checkout()` and `checkin()`. "everything on" has `Metrics` attached, with
all its counters and histograms, and a listener that wants every event. A one-shot client is a
greenlet that is spawned, borrows once, and ends.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import gevent

import gpool
from benchmarks import peers
from benchmarks.harness import Case, Effort, Run, measure, timed
from benchmarks.results import Result, Row

QUEUE: Final = "LifoQueue get + put"
BASE: Final = ": LifoQueue"


def pair(pool: gpool.Pool[Any], n: int) -> None:
    """Borrow and give back without a ``with``."""
    for _ in range(n):
        lease = pool.checkout()
        lease.checkin()


def observed(run: Run) -> Run:
    """Return the same with everything on that can observe a pool."""

    def listener(event: gpool.telemetry.Event) -> None:
        pass

    def run_observed(n: int) -> float:
        gpool.telemetry.attach(listener)
        with gpool.Metrics():
            taken = run(n)
        gpool.telemetry.detach(listener)
        return taken

    return run_observed


def clients(peer: peers.Peer, n: int) -> None:
    """Have so many greenlets borrow once, one after the other."""
    for _ in range(n):
        gevent.spawn(peer.loop, 1).join()


def run(effort: Effort) -> Result:
    """Measure."""
    pool = gpool.Pool(gpool.Resource(create=peers.Connection), size=peers.SIZE).start()
    pool.wait_ready()
    mine, queue = peers.Peer(lend=pool.checkout), peers.queue()
    here, left_out = peers.installed()
    pair_once = timed(partial(pair, pool))
    cases = [
        Case(QUEUE, timed(queue.loop)),
        Case("pair", pair_once),
        Case("with", timed(mine.loop)),
        Case("pair, everything on", observed(pair_once)),
        Case("with, everything on", observed(timed(mine.loop))),
        *(Case(name, timed(make().loop)) for name, make in here.items()),
    ]
    one_shots = [
        Case("one-shot client, LifoQueue", timed(partial(clients, queue))),
        Case("one-shot client, with", timed(partial(clients, mine))),
    ]
    rounds = measure(cases + one_shots, effort)
    rows = []
    for case in cases:
        figures = {
            "ns": rounds.cost(case.name) * 1e9,
            ": LifoQueue": rounds.ratio(case.name, QUEUE),
        }
        if case.name in here:
            figures[": gpool's with"] = rounds.ratio(case.name, "with")
        rows.append(Row(case.name, figures))
    for case in one_shots:
        ratio = rounds.ratio(case.name, one_shots[0].name)
        rows.append(Row(case.name, {"ns": rounds.cost(case.name) * 1e9, ": LifoQueue": ratio}))
    return Result("uncontended", rows, left_out)
