"""Everybody gives up at once: 1,000 and 10,000 who wait for a worker that does not come back.

They run out of time in the same turn of the loop, or are killed, the youngest first. The
cost is that of one of them, up to the end of its greenlet.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic, thread_time
from typing import Any, Final

import gevent
from gevent import monkey
from gevent.event import Event

import gpool
from benchmarks import peers
from benchmarks.harness import Case, Effort, measure
from benchmarks.pools import version
from benchmarks.results import Result, Row

CROWDS: Final = (1_000, 10_000)
PATIENCE: Final = 20e-6  # s per waiter: as long as it takes them all to come, with some to spare
SLACK: Final = 0.2  # s more than that
FOR_EVER: Final = 1000.0

sleep_in_thread = monkey.get_original("time", "sleep")  # the loop stands still

Wait = Callable[[float], object]  # waits for so many seconds, in vain


def gpool_wait() -> Wait:
    """Return a wait for gpool's."""
    pool = gpool.Pool(gpool.Resource(create=peers.Connection), size=1).start()
    held.append(pool.checkout())
    return lambda seconds: pool.checkout(timeout=seconds)


def queue_wait() -> Wait:
    """Return a wait for a LifoQueue's."""
    things = gevent.queue.LifoQueue()
    return lambda seconds: things.get(timeout=seconds)


def psycopg_wait() -> Wait:
    """Return a wait for psycopg_pool's."""
    from benchmarks import pools

    pool = pools.psycopg_pool(peers.PsycopgConnection, size=1, timeout=FOR_EVER, min_size=1)
    held.append(pool.getconn())
    return lambda seconds: pool.getconn(timeout=seconds)


held: list[Any] = []  # what does not come back

WAITS: Final[dict[str, tuple[str, Callable[[], Wait]]]] = {
    "gpool": ("gpool", gpool_wait),
    "LifoQueue": ("gevent", queue_wait),
    "psycopg_pool": ("psycopg-pool", psycopg_wait),
}


class Crowd:
    """So many greenlets that wait, and note the end of the last one."""

    def __init__(self, wait: Wait, number: int, seconds: float) -> None:
        self.wait, self.seconds, self.left = wait, seconds, number
        self.all_gone, self.end = Event(), 0.0
        self.greenlets = [gevent.spawn(self._live) for _ in range(number)]
        gevent.sleep(0)

    def _live(self) -> None:
        try:
            self.wait(self.seconds)
        except Exception:  # noqa: BLE001  # each pool has its own
            pass
        finally:
            self.left -= 1
            if not self.left:
                self.end = thread_time()
                self.all_gone.set()


def time_out(wait: Wait, n: int) -> float:
    """Have so many waiters come, and all run out of time in the same turn."""
    patience = SLACK + n * PATIENCE
    while True:
        crowd, due = Crowd(wait, n, patience), monotonic() + patience
        if crowd.left == n:
            break
        patience *= 2  # the machine is slow: some were gone before all had come
        crowd.all_gone.wait()
    sleep_in_thread(max(due - monotonic(), 0.0) + 0.01)
    start = thread_time()
    crowd.all_gone.wait()
    return crowd.end - start


def kill(wait: Wait, n: int) -> float:
    """Have so many waiters come, and kill the youngest first."""
    crowd = Crowd(wait, n, FOR_EVER)
    start = thread_time()
    for greenlet in reversed(crowd.greenlets):
        greenlet.kill(block=False)
    crowd.all_gone.wait()
    return crowd.end - start


def run(effort: Effort) -> Result:
    """Measure."""
    waits = {name: make() for name, (package, make) in WAITS.items() if version(package)}
    fates = {"time-out": time_out, "kill": kill}
    cases = [
        Case(f"{name}, {fate} of {n:,}", partial(act, wait), count=n)
        for name, wait in waits.items()
        for fate, act in fates.items()
        for n in CROWDS
        if name == "gpool" or not effort.is_quick
    ]
    rounds = measure(cases, effort.heavy())
    rows = []
    for case in cases:
        figures = {"µs": rounds.cost(case.name) * 1e6}
        few = case.name.replace("10,000", "1,000")
        if few != case.name:
            figures[": of 1,000"] = rounds.ratio(case.name, few)
        rows.append(Row(case.name, figures))
    return Result("waiters", rows, [name for name in WAITS if name not in waits])
