"""Ten workers, many more clients: the CPU time of a grant, and how fairly they are given out.

A client holds a worker for one `gevent.sleep(0)` and asks again at once (greedy) or a turn later
(polite). "net" is less the floor, the same clients without a pool, in units of one `sleep(0)`.
Waits are counted in grants to others: in a queue, at most as many as there are clients. A pool in
which whoever asks first overtakes those who wait looks quick, because few clients have it to
themselves. "lost" are the workers of ten that cannot be borrowed any more after clients were
killed, and ran into a `gevent.Timeout`, at random.
"""

from __future__ import annotations

import gc
import random
from typing import Final

import gevent
from gevent.event import Event

from benchmarks import peers
from benchmarks.contest import Contest
from benchmarks.harness import SEED, Case, Effort, measure, timed
from benchmarks.results import Result, Row

SLEEP: Final = "gevent.sleep(0)"
FLOOR: Final = "floor"
GPOOL: Final = "gpool"
QUEUE: Final = "LifoQueue"

FAULTS: Final = 2_000  # kills, at random, and more time-outs than that
CLIENTS: Final = 100  # of those who are killed
TIME_OUTS: Final = (0.001, 0.003)  # s, at random; libuv knows no shorter ones
PATIENCE: Final = 2.0  # s within which an idle worker has to be there


def sleeps(n: int) -> None:
    """Give way so many times."""
    for _ in range(n):
        gevent.sleep(0)


class Bout:
    """Contests of the same kind, over and over; remembers the worst of each measure."""

    def __init__(self, peer: peers.Peer | None, clients: int, *, polite: bool) -> None:
        self.peer, self.clients, self.polite = peer, clients, polite
        self.jain, self.starved, self.longest, self.errors = 1.0, 0, 0, 0

    def run(self, n: int) -> float:
        """Have one contest of so many grants."""
        contest = Contest(self.peer, clients=self.clients, grants=n, polite=self.polite)
        seconds = contest.run() * n
        self.jain = min(self.jain, contest.jain)
        self.starved = max(self.starved, contest.starved)
        self.longest = max(self.longest, *contest.longest)
        self.errors = max(self.errors, contest.errors)
        return seconds


def run(effort: Effort) -> Result:
    """Measure."""
    here, left_out = peers.installed()
    makes: dict[str, peers.Make] = {GPOOL: peers.gpool_pool, QUEUE: peers.queue} | here
    pools: dict[str, peers.Peer | None] = {FLOOR: None}
    pools |= {name: make() for name, make in makes.items()}
    rows = crowd(pools, 100, 5_000 if effort.is_quick else 20_000, effort.heavy())
    if effort.is_quick:
        pools, makes = {FLOOR: None, GPOOL: pools[GPOOL]}, {GPOOL: makes[GPOOL]}
    rows += crowd(pools, 10_000, 20_000 if effort.is_quick else 50_000, effort.heavy())
    rows.append(growth(rows))
    rows += [Row(f"{name}, killed", {"lost": lost(make)}) for name, make in makes.items()]
    return Result("contended", rows, left_out)


def crowd(
    pools: dict[str, peers.Peer | None], clients: int, grants: int, effort: Effort
) -> list[Row]:
    """Measure all pools with so many clients, greedy and polite."""
    bouts = {
        f"{name}, {clients:,} {manner}": Bout(peer, clients, polite=manner == "polite")
        for manner in ("greedy", "polite")
        for name, peer in pools.items()
    }
    cases = [Case(SLEEP, timed(sleeps), count=grants)]
    cases += [Case(name, bout.run, count=grants) for name, bout in bouts.items()]
    rounds = measure(cases, effort)
    rows = []
    for name, bout in bouts.items():
        figures = {"µs": rounds.cost(name) * 1e6}
        if bout.peer is not None:
            floor = FLOOR + name[name.index(",") :]
            figures["net : sleep(0)"] = rounds.ratio(name, SLEEP, less=floor)
            figures["grants/s"] = 1 / rounds.cost(name)
            figures["Jain"] = bout.jain
            figures["starved"] = bout.starved
            figures["longest wait"] = bout.longest
            figures[": clients"] = bout.longest / clients
            figures["errors"] = bout.errors
        rows.append(Row(name, figures))
    return rows


def growth(rows: list[Row]) -> Row:
    """Return what a grant costs with 10,000 clients, in units of one with 100."""
    cost = {row.what: row.figures["µs"] for row in rows}
    manners = ("greedy", "polite")
    return Row(
        f"{GPOOL}, 10,000 : 100",
        {m: cost[f"{GPOOL}, 10,000 {m}"] / cost[f"{GPOOL}, 100 {m}"] for m in manners},
    )


# --- Faults -------------------------------------------------------------------------


def lost(make: peers.Make) -> int:
    """Kill clients at random, and time them out; return how many workers are gone."""
    peer, dice = make(), random.Random(SEED)
    over = False

    def live() -> None:
        while not over:
            with gevent.Timeout(dice.uniform(*TIME_OUTS), False), peers.borrowed(peer):
                gevent.sleep(0)

    clients = [gevent.spawn(live) for _ in range(CLIENTS)]
    for _ in range(FAULTS):
        gevent.sleep(0)
        victim = dice.randrange(CLIENTS)
        clients[victim].kill(block=False)
        clients[victim] = gevent.spawn(live)
    over = True
    gevent.joinall(clients, timeout=PATIENCE)
    gevent.killall(clients)
    gc.collect()  # some pools take back only now what a killed client has left
    return peers.SIZE - borrowed_at_once(peer)


def borrowed_at_once(peer: peers.Peer) -> int:
    """Return how many of as many clients as there are workers get one."""
    got, enough = 0, Event()

    def come() -> None:
        nonlocal got
        with gevent.Timeout(PATIENCE, False), peers.borrowed(peer):
            got += 1
            if got == peers.SIZE:
                enough.set()
            enough.wait()

    gevent.joinall([gevent.spawn(come) for _ in range(peers.SIZE)])
    return got
