"""What one more of a kind adds to the memory of the process.

Each row is a process of its own, in which 10,000 are made, several times; the figure is the
growth of the resident memory after the first 10,000, per piece. All resource workers lend the
same object. A waiter is a client in the queue, its greenlet included.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.queue import LifoQueue

import gpool
from benchmarks.harness import Effort
from benchmarks.results import Result, Row

ROOT: Final = Path(__file__).parents[2]
PIECES: Final = 10_000

kept: list[Any] = []

Make = Callable[[int], object]  # makes so many


class Server(gpool.GenServer):
    """Has no state of its own."""


class Thing:
    """What all lend."""


def park() -> None:
    """Wait for ever."""
    gevent.get_hub().switch()


def parked_greenlets(n: int) -> None:
    """Have greenlets wait for ever."""
    kept.extend(gevent.spawn(park) for _ in range(n))
    gevent.sleep(0)


def queue_waiters(n: int) -> None:
    """Have greenlets wait for a LifoQueue's."""
    things: Any = LifoQueue()
    kept.extend(gevent.spawn(things.get) for _ in range(n))
    gevent.sleep(0)


def resource_workers(n: int) -> None:
    """Have a pool of resources."""
    thing = Thing()
    pool = gpool.Pool(gpool.Resource(create=lambda: thing), size=n, max_starting=n)
    kept.append(pool.start())
    pool.wait_ready(None)


def server_workers(n: int) -> None:
    """Have a pool of servers."""
    pool = gpool.Pool(Server, size=n, max_starting=n)
    kept.append(pool.start())
    pool.wait_ready(None)


def waiters(n: int) -> None:
    """Have clients wait for a pool's worker."""
    pool = gpool.Pool(gpool.Resource(create=Thing), size=1, timeout=1000.0).start()
    kept.append((pool, pool.checkout()))

    def client() -> None:
        with pool.checkout():
            pass

    kept.extend(gevent.spawn(client) for _ in range(n))
    gevent.sleep(0)


def processes(n: int) -> None:
    """Have processes that wait for a message."""
    kept.extend(gpool.spawn(gpool.receive) for _ in range(n))
    gevent.sleep(0)


KINDS: Final[dict[str, Make]] = {
    "bare greenlet": parked_greenlets,
    "process": processes,
    "idle resource worker": resource_workers,
    "idle GenServer worker": server_workers,
    "waiter of a LifoQueue": queue_waiters,
    "waiter": waiters,
}


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth(make: Make, batches: int) -> float:
    """Return the bytes that one more takes; the first batch is not counted."""
    sizes = []
    for _ in range(batches):
        make(PIECES)
        gevent.sleep(0.01)
        gc.collect()
        sizes.append(resident())
    return (sizes[-1] - sizes[0]) / (PIECES * (batches - 1))


def run(effort: Effort) -> Result:
    """Measure each in a process of its own."""
    if sys.platform != "linux":
        return Result("memory", [], ["all: Linux tells how much is in memory"])
    rows = []
    for kind in KINDS:
        command = [sys.executable, "-m", __name__, kind, "2" if effort.is_quick else "4"]
        text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        rows.append(Row(kind, {"bytes": json.loads(text)}))
    return Result("memory", rows)


if __name__ == "__main__":
    print(json.dumps(growth(KINDS[sys.argv[1]], int(sys.argv[2]))), flush=True)
    os._exit(0)  # to end thirty thousand processes one by one takes time
