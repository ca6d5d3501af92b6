"""Everybody gives up at once: 1,000 and 10,000 who wait for a worker that does not come back.

They run out of time in the same turn of the loop, or are killed, the youngest first. The
cost is that of one of them, up to the end of its greenlet. Pools that have no timeout are left out.
"""

from __future__ import annotations

from functools import partial
from time import monotonic, thread_time
from typing import Final

import gevent
from gevent import monkey
from gevent.event import Event

from benchmarks import peers
from benchmarks.harness import Case, Effort, measure
from benchmarks.results import Result, Row

CROWDS: Final = (1_000, 10_000)
PATIENCE: Final = 30e-6  # s per waiter: as long as it takes them all to come, with some to spare
SLACK: Final = 0.2  # s more than that
FOR_EVER: Final = 1000.0

sleep_in_thread = monkey.get_original("time", "sleep")  # the loop stands still


class Crowd:
    """So many greenlets that wait, and note the end of the last one."""

    def __init__(self, peer: peers.Peer, number: int) -> None:
        self.peer, self.left = peer, number
        self.all_gone, self.end = Event(), 0.0
        self.greenlets = [gevent.spawn(self._live) for _ in range(number)]
        gevent.sleep(0)

    def _live(self) -> None:
        try:
            self.peer.loop(1)
        except Exception:  # noqa: BLE001  # each pool has its own
            pass
        finally:
            self.left -= 1
            if not self.left:
                self.end = thread_time()
                self.all_gone.set()


def time_out(make: peers.Make, n: int, patience: float | None = None) -> float:
    """Have so many waiters come, and all run out of time in the same turn."""
    patience = patience or SLACK + n * PATIENCE
    peer = make(size=1, timeout=patience)
    with peers.borrowed(peer):
        crowd, due = Crowd(peer, n), monotonic() + patience
        is_late = crowd.left < n  # the machine is slow: some were gone before all had come
        sleep_in_thread(max(due - monotonic(), 0.0) + 0.01)
        start = thread_time()
        crowd.all_gone.wait()
    peer.close()
    return time_out(make, n, 2 * patience) if is_late else crowd.end - start


def kill(make: peers.Make, n: int) -> float:
    """Have so many waiters come, and kill the youngest first."""
    peer = make(size=1, timeout=FOR_EVER)
    with peers.borrowed(peer):
        crowd = Crowd(peer, n)
        start = thread_time()
        for greenlet in reversed(crowd.greenlets):
            greenlet.kill(block=False)
        crowd.all_gone.wait()
    peer.close()
    return crowd.end - start


def run(effort: Effort) -> Result:
    """Measure."""
    here, left_out = peers.installed()
    makes: dict[str, peers.Make] = {"gpool": peers.gpool_pool}
    if not effort.is_quick:
        makes |= {"LifoQueue": peers.queue} | here
    cases = [
        Case(f"{name}, {fate} of {n:,}", partial(act, make), count=n)
        for name, make in makes.items()
        if name not in peers.WITHOUT_TIMEOUT
        for fate, act in (("time-out", time_out), ("kill", kill))
        for n in CROWDS
    ]
    rounds = measure(cases, effort.heavy())
    rows = []
    for case in cases:
        figures = {"µs": rounds.cost(case.name) * 1e6}
        few = case.name.replace("10,000", "1,000")
        if few != case.name:
            figures[": of 1,000"] = rounds.ratio(case.name, few)
        rows.append(Row(case.name, figures))
    return Result("waiters", rows, left_out)
