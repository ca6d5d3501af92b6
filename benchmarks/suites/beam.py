"""The same on the BEAM, where OTP comes from: its own processes, poolboy and nimble_pool.

The emulator has one scheduler and keeps to the same core; it and gpool take turns. Both clocks are
CPU time. poolboy's and nimble_pool's clients ask a manager by messages, uncontended too; gpool's
go to it only when they have to wait. A process of Erlang's is no greenlet: it is
spawned and restarted faster by far.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import gpool
from benchmarks import peers
from benchmarks.harness import SEED, Case, Effort, Rounds, crowded, measure, timed
from benchmarks.results import Result, Row
from benchmarks.suites.calls import CALLERS, Server
from benchmarks.suites.contended import Bout
from benchmarks.suites.processes import process_visit, restarts
from benchmarks.suites.uncontended import observed, pair

SOURCE: Final = Path(__file__).parents[1] / "beam" / "bench.erl"

BEAM: Final = "BEAM, "  # what is measured there has it before its name

# What is measured there: what corresponds to it here.
CALL: Final = "gen_server:call"
PAIRS: Final = {
    CALL: ("handle_call",),
    f"{CALL}, 100 callers": ("handle_call, 100 callers",),
    "spawn + end": ("process spawn + end",),
    "restart, one_for_one": ("restart, one_for_one",),
    "restart, one_for_all of 10": ("restart, one_for_all of 10",),
    "restart, one_for_all of 100": ("restart, one_for_all of 100",),
    "poolboy": ("pair", "with", "with, everything on"),
    "poolboy, 100 clients": ("100 clients",),
    "poolboy, 10,000 clients": ("10,000 clients",),
    "nimble_pool": ("with",),
    "nimble_pool, 100 clients": ("100 clients",),
    "nimble_pool, 10,000 clients": ("10,000 clients",),
}


def erlang(code: str, ebin: str) -> tuple[str, dict[str, float]]:
    """Run the benchmark there once; return the versions, and the seconds that each thing takes."""
    paths = [path for path in ebin.split(os.pathsep) if path]
    command = ["erl", "+S", "1", "-noshell", "-pa", code, *paths, "-s", "bench", "main"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    versions, *lines = text.splitlines()
    costs = (line.split("\t") for line in lines)
    return versions, {f"{BEAM}{name}": float(ns) / 1e9 for name, ns in costs}


def cases() -> list[Case]:
    """Return what corresponds to it."""
    server = Server.start()
    pool = gpool.Pool(gpool.Resource(create=peers.Connection), size=peers.SIZE).start()
    pool.wait_ready()
    peer = peers.Peer(lend=pool.checkout)

    def ask() -> object:
        return gpool.send_call(server, 1)

    return [
        Case("handle_call", timed(lambda n: [ask() for _ in range(n)])),
        Case("handle_call, 100 callers", crowded(CALLERS, ask)),
        Case("process spawn + end", timed(process_visit)),
        Case("restart, one_for_one", restarts("one_for_one", 1)),
        Case("restart, one_for_all of 10", restarts("one_for_all", 10)),
        Case("restart, one_for_all of 100", restarts("one_for_all", 100)),
        Case("pair", timed(partial(pair, pool))),
        Case("with", timed(peer.loop)),
        Case("with, everything on", observed(timed(peer.loop))),
        Case("100 clients", Bout(peer, 100, polite=False).run, count=20_000),
        Case("10,000 clients", Bout(peer, 10_000, polite=False).run, count=50_000),
    ]


def run(effort: Effort) -> Result:
    """Measure, in turns."""
    if not (shutil.which("erl") and shutil.which("erlc")):
        return Result("beam", [], ["Erlang"])
    mine, dice = cases(), random.Random(SEED)
    once = replace(effort, rounds=1)
    costs: dict[str, list[float]] = {}
    versions = ""

    def there() -> dict[str, float]:
        nonlocal versions
        versions, taken = erlang(code, effort.ebin)
        return taken

    def here() -> dict[str, float]:
        return {name: cost for name, (cost,) in measure(mine, once).costs.items()}

    with tempfile.TemporaryDirectory() as code:
        subprocess.run(["erlc", "-o", code, str(SOURCE)], check=True)
        for _ in range(effort.heavy().rounds):
            for side in dice.sample((there, here), 2):
                for name, cost in side().items():
                    costs.setdefault(name, []).append(cost)
    return Result("beam", rows(Rounds(costs)), left_out(costs), [f"{versions}."])


def rows(rounds: Rounds) -> list[Row]:
    """Return what it costs there and here."""
    return [
        Row(theirs if theirs == ours else f"{theirs}: {ours}", {
            "BEAM, µs": rounds.cost(BEAM + theirs) * 1e6,
            "gpool, µs": rounds.cost(ours) * 1e6,
            "gpool : BEAM": rounds.ratio(ours, BEAM + theirs),
        })
        for theirs, names in PAIRS.items()
        for ours in names
        if BEAM + theirs in rounds.costs
    ]  # fmt: skip


def left_out(costs: dict[str, list[float]]) -> list[str]:
    """Return the pools that were not found."""
    return [pool for pool in ("poolboy", "nimble_pool") if BEAM + pool not in costs]
