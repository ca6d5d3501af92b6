"""What it costs to be looked into: a checkout while nobody looks, and one look at 10,000 processes.

The agent runs in the process that is measured; the checkout's time is that of its own thread.
A look is what its callback takes in the hub, where nothing else runs meanwhile: 4,000 servers
under one supervisor, 1,000 workers of a pool, 5,000 clients that have one of them or wait.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import gevent

import gpool
import gpool.observer
from benchmarks import peers
from benchmarks.harness import Case, Effort, Run, measure, timed
from benchmarks.results import Result, Row
from benchmarks.suites.uncontended import pair
from gpool.observer.node import pools, processes
from gpool.observer.node.tree import tree_of

SERVERS: Final = 4_000
WORKERS: Final = 1_000
CLIENTS: Final = 5_000
OFF, ON = "pair", "pair, observed"


class Server(gpool.GenServer):
    """Does nothing."""


@contextmanager
def observed() -> Iterator[None]:
    """Have an agent run."""
    folder = tempfile.mkdtemp(prefix="gpool-")
    gpool.observer.start(run_dir=folder)
    try:
        yield
    finally:
        gpool.observer.stop()
        shutil.rmtree(folder)


def checkouts(effort: Effort) -> list[Row]:
    """Measure a checkout with an agent that nobody asks, beside one without."""
    pool = gpool.Pool(gpool.Resource(create=peers.Connection), size=peers.SIZE).start()
    pool.wait_ready()
    run = timed(partial(pair, pool))

    def run_observed(n: int) -> float:
        with observed():
            gevent.sleep(0.05)  # until its thread is at rest
            return run(n)

    rounds = measure([Case(OFF, run), Case(ON, run_observed)], effort)
    pool.stop()
    return [
        Row(name, {"ns": rounds.cost(name) * 1e9, ": not observed": rounds.ratio(name, OFF)})
        for name in (OFF, ON)
    ]


def page(**query: Any) -> Callable[[], object]:
    """Return what makes a page of processes."""
    chosen = {"which": "live", "sort": "label", "descending": False, "text": "", "page": 1}
    return partial(processes.page_of, **{**chosen, "per": 100, **query})


LOOKS: Final[dict[str, Callable[[], object]]] = {
    "processes, by name": page(),
    "processes, by mailbox": page(sort="mailbox", descending=True),
    "processes, by current function": page(sort="current_function"),
    "processes, filtered": page(text="no such thing"),
    "500 processes, filtered by a digit, by current function": page(
        text="7", sort="current_function", per=500
    ),
    "tree": partial(tree_of, text="", limit=100),
    "tree, filtered": partial(tree_of, text="no such thing", limit=100),
    "pools": pools.pools_of,
    "a pool, with holders and waiters": lambda: pools.detail_of(gpool.get_pool("crowded")),
}


@contextmanager
def crowd() -> Iterator[None]:
    """Have 10,000 processes."""
    supervisor = gpool.DynamicSupervisor.start()
    for _ in range(SERVERS):
        supervisor.start_child(gpool.ChildSpec("server", Server.start_link))
    worker = gpool.Resource(create=object)
    with gpool.Pool(worker, size=WORKERS, max_starting=WORKERS, name="crowded") as pool:
        pool.wait_ready(None)
        clients = [gevent.spawn(_hold, pool) for _ in range(CLIENTS)]
        gevent.sleep(0)
        yield
        gevent.killall(clients)
    gpool.stop(supervisor)


def _hold(pool: gpool.Pool[Any]) -> None:
    with pool.checkout(timeout=None):
        gevent.sleep(1000.0)


def once(look: Callable[[], object]) -> Run:
    """Return a Run that looks so many times."""
    return timed(lambda n: [look() for _ in range(n)])


def looks(effort: Effort) -> list[Row]:
    """Measure what a look takes of the hub."""
    with crowd():
        rounds = measure([Case(name, once(look)) for name, look in LOOKS.items()], effort.heavy())
    return [Row(name, {"ms": rounds.cost(name) * 1e3}) for name in LOOKS]


def run(effort: Effort) -> Result:
    """Measure."""
    return Result("observer", [*checkouts(effort), *looks(effort)])
