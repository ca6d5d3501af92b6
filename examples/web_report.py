"""What the web example shows: one line while it runs, and a table at the end."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from web_app import Connections

import gpool


@dataclass(frozen=True)
class Outcome:
    """What has happened, and what is left after the faults."""

    load: Mapping[str, Any]  # the last line of web_load.py
    waits: Iterable[float]  # s for a connection
    faults: Mapping[str, int]
    stats: gpool.Stats
    borrowed: int  # connections that could be borrowed at the same time
    answers: bool  # the server still does


def progress(load: Mapping[str, Any], faults: int, stats: gpool.Stats) -> None:
    """Show how it goes: on a terminal in one line, elsewhere line by line."""
    requests = load["requests"]
    total = sum(requests.values())
    line = (
        f"{load['seconds']:5.1f} s: {total} requests, {total - requests.get('answered', 0)} "
        f"failed, {faults} faults; {stats.idle} idle, {stats.busy} busy, {stats.waiting} waiting"
    )
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="", flush=True)
    else:
        print(line, flush=True)


def table(outcome: Outcome, connections: Connections, balance: int) -> int:
    """Print all that there is to know; return 0 if the promise was kept, else 1.

    Args:
        outcome: Of the trial.
        connections: What the example has counted itself.
        balance: Of all entries: 0, unless a transfer was written by half.
    """
    stats, requests = outcome.stats, outcome.load["requests"]
    lost = stats.size - min(outcome.borrowed, stats.idle)
    left_open = connections.opened - connections.closed
    print("\n" if sys.stdout.isatty() else "")
    row("requests", sum(requests.values()), f"in {outcome.load['seconds']:.1f} s")
    rows(requests)
    row("faults", sum(outcome.faults.values()))
    rows(outcome.faults)
    row("restarts", connections.opened - stats.size, "of workers")
    row("", stats.epoch - 1, "of PoolMan and WorkerSup")
    row("connections", connections.opened, f"opened, at most {connections.most} at a time")
    row("", left_open, "left open")
    row("slots lost", lost, f"of {stats.size}")
    row("balance of entries", balance, "must be 0: no half-done write")
    row("still answers", "yes" if outcome.answers else "no")
    print(f"{'':22}" + "".join(f"{share:>11}" for share in ("50%", "90%", "99%", "most")))
    times = {"wait for a connection": spread(outcome.waits), "answer": outcome.load["answers"]}
    for what, seconds in times.items():
        print(f"{what:<22}" + "".join(f"{1000 * value:8.1f} ms" for value in seconds))
    kept = not (lost or left_open or balance) and connections.most <= stats.size
    return 0 if kept and outcome.answers else 1


def rows(counts: Mapping[str, int]) -> None:
    """Print what something consists of, the most frequent first."""
    for what, count in sorted(counts.items(), key=lambda item: -item[1]):
        row("", count, what)


def row(what: str, value: object, remark: str = "") -> None:
    """Print one line of the table."""
    print(f"{what:<20}{value:>8}  {remark}".rstrip())


def spread(seconds: Iterable[float]) -> list[float]:
    """Return the 50th, 90th and 99th percentile, and the maximum."""
    ordered = sorted(seconds) or [0.0]
    return [ordered[int(len(ordered) * share)] for share in (0.5, 0.9, 0.99)] + [ordered[-1]]
