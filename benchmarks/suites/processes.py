"""Processes that start, are killed and restarted, beside bare greenlets that are.

"bare" is `gevent.spawn`, a turn in which the greenlet parks, and `kill()`. A restart is
measured from the kill of one child until the last new one has run its `init`; one_for_all ends
and starts all of them. A pool's workers are restarted, all at once, when its PoolMan is
killed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import gevent

import gpool
from benchmarks.births import WHENEVER, Births, Child
from benchmarks.harness import Case, Effort, Run, measure, timed
from benchmarks.results import Result, Row

GROUPS: Final = (10, 100)
BARE: Final = "bare spawn + kill"


def park() -> None:
    """Wait for ever."""
    gevent.get_hub().switch()


def bare(n: int) -> None:
    """Spawn a greenlet, have it park, kill it."""
    for _ in range(n):
        greenlet = gevent.spawn(park)
        gevent.sleep(0)
        greenlet.kill()


def bare_group(size: int) -> Callable[[int], None]:
    """Return the same for so many at once."""

    def loop(n: int) -> None:
        for _ in range(n):
            greenlets = [gevent.spawn(park) for _ in range(size)]
            gevent.sleep(0)
            gevent.killall(greenlets)

    return loop


def process(n: int) -> None:
    """Spawn a monitored process, have it park, kill it, wait for its DOWN."""
    for _ in range(n):
        pid, _ = gpool.spawn_monitor(park)
        gevent.sleep(0)
        gpool.exit(pid, "kill")
        gpool.receive()


def nothing() -> None:
    """End at once."""


def bare_visit(n: int) -> None:
    """Spawn a greenlet that ends at once, and wait for that."""
    for _ in range(n):
        gevent.spawn(nothing).join()


def process_visit(n: int) -> None:
    """Spawn a monitored process that ends at once, and wait for its DOWN."""
    for _ in range(n):
        gpool.spawn_monitor(nothing)
        gpool.receive()


class Single(gpool.GenServer):
    """Does nothing."""


def server(n: int) -> None:
    """Start a GenServer, stop it."""
    for _ in range(n):
        gpool.stop(Single.start())


def restarts(strategy: Literal["one_for_one", "one_for_all"], size: int) -> Run:
    """Return a Run that kills the last of so many children, and waits for the restart."""
    births = Births()
    specs = [gpool.ChildSpec(i, Child.start_link, (births,)) for i in range(size)]
    supervisor = gpool.Supervisor.start(specs, strategy=strategy, **WHENEVER)
    reborn = size if strategy == "one_for_all" else 1

    def once() -> float:
        victim: Any = supervisor.which_children()[-1].child
        return births.after_kill_of(victim, reborn)

    return lambda n: sum(once() for _ in range(n))


def pool_restarts(size: int, *, of: Literal["servers", "resources"]) -> Run:
    """Return a Run that kills a pool's PoolMan, and waits for all its workers."""
    births = Births()
    options: Any = {"size": size, "max_starting": size} | WHENEVER
    if of == "resources":
        pool: gpool.Pool[Any] = gpool.Pool(gpool.Resource(create=births.born), **options)
    else:
        pool = gpool.Pool(Child, (births,), **options)
    pool.start().wait_ready()

    def once() -> float:
        taken = births.after_kill_of(pool_man(pool.name), size)
        while pool.stats().idle < size:  # the last ones have yet to tell that they are up
            gevent.sleep(0)
        return taken

    return lambda n: sum(once() for _ in range(n))


def pool_man(pool: str) -> gpool.Pid:
    """Return the manager of a pool, found as an operator finds it."""
    for pid in gpool.processes():
        info = gpool.process_info(pid)
        if info.initial_call == "PoolMan" and gpool.process_info(info.parent).name == pool:
            return pid
    raise LookupError(pool)


def run(effort: Effort) -> Result:
    """Measure."""
    single = [
        Case("bare spawn + end", timed(bare_visit)),
        Case("process spawn + end", timed(process_visit)),
        Case(BARE, timed(bare)),
        Case("process spawn + kill", timed(process)),
        Case("GenServer start + stop", timed(server)),
        Case("restart, one_for_one", restarts("one_for_one", 1)),
    ]
    rows = compared(single, BARE, effort)
    for size in GROUPS:
        base = f"{BARE}, {size} times"
        group = [
            Case(base, timed(bare_group(size))),
            Case(f"restart, one_for_all of {size}", restarts("one_for_all", size)),
            Case(f"restart, pool of {size} servers", pool_restarts(size, of="servers")),
            Case(f"restart, pool of {size} resources", pool_restarts(size, of="resources")),
        ]
        rows += compared(group, base, effort)
    return Result("processes", rows)


def compared(cases: list[Case], base: str, effort: Effort) -> list[Row]:
    """Measure cases beside the one that is bare."""
    rounds = measure(cases, effort)
    return [
        Row(
            case.name, {"µs": rounds.cost(case.name) * 1e6, ": bare": rounds.ratio(case.name, base)}
        )
        for case in cases
    ]
