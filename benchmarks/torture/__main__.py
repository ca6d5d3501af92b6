"""Put gpool and the pools that a gevent user picks today through the same torture; print a table.

    python -m benchmarks.torture --write docs/torture.md
    python -m benchmarks.torture --only gpool --chaos-seconds 60

Each cell runs in a process of its own, which is ended when it takes too long.  A pool
whose package is not installed is left out, and said to be.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchmarks import pools
from benchmarks.torture.page import Table, page
from benchmarks.torture.peers import PEERS
from benchmarks.torture.scenarios import OK, SCENARIOS

ROOT: Final = Path(__file__).parents[2]
LIMIT: Final = 60.0  # s that a scenario may take
GRACE: Final = 40.0  # s that a chaos run may take beyond its time
HUNG: Final = "hung"


@dataclass(frozen=True, slots=True)
class Settings:
    """How the runs are made."""

    chaos_seconds: float
    faults: float
    seed: int


def run(program: str, *arguments: object, limit: float) -> str:
    """Run a module beside this one; return what it prints, "hung" if it has to be ended."""
    command = [sys.executable, "-m", f"benchmarks.torture.{program}", *map(str, arguments)]
    try:
        process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return HUNG
    if not process.stdout:
        raise RuntimeError(f"{program} {arguments} has printed nothing:\n{process.stderr}")
    return process.stdout.strip()


def scenario(peer: str, name: str) -> str:
    """Return the cell of a scenario."""
    if name == "T7" and PEERS[peer].needs_try_finally:
        return "n/a"
    return run("cell", peer, name, limit=LIMIT)


def chaos(peer: str, settings: Settings) -> str:
    """Return the cell of a chaos run."""
    text = run(
        "chaos", "--json", f"--pool={peer}", f"--seconds={settings.chaos_seconds}",
        f"--faults={settings.faults}", f"--seed={settings.seed}",
        limit=settings.chaos_seconds + GRACE,
    )  # fmt: skip
    return text if text == HUNG else summary(json.loads(text))


def summary(outcome: dict[str, Any]) -> str:
    """Say what came of a chaos run."""
    size = outcome["size"]
    parts = []
    if outcome["slots_lost"]:
        parts.append(f"{outcome['slots_lost']} of {size} slots gone")
    if outcome["wrong_replies"]:
        parts.append(f"{outcome['wrong_replies']} wrong replies")
    if outcome["lent_to_two"]:
        parts.append(f"{outcome['lent_to_two']} lent to two")
    if outcome["above_cap"]:
        parts.append(f"{outcome['peak']} of {size} open")
    return ", ".join(parts) or OK


def rows(peers: list[str], settings: Settings) -> Iterator[tuple[str, list[str]]]:
    """Yield the pools and their cells, telling as it goes."""
    for peer in peers:
        cells = []
        for name in (*SCENARIOS, "chaos"):
            cell = chaos(peer, settings) if name == "chaos" else scenario(peer, name)
            print(f"{peer:20} {name:5} {cell}", file=sys.stderr, flush=True)
            cells.append(cell)
        yield peer, cells


def installed(peers: list[str]) -> dict[str, str]:
    """Return the versions of those peers whose package is here; say which are not."""
    found = {}
    for peer in peers:
        version = pools.version(PEERS[peer].package)
        if version is None:
            print(f"{peer}: {PEERS[peer].package} is not installed", file=sys.stderr)
        else:
            found[peer] = version
    return found


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=list(PEERS), action="append", help="this pool alone")
    parser.add_argument("--chaos-seconds", type=float, default=10.0)
    parser.add_argument("--faults", type=float, default=300.0, help="kills a second in the chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path, help="keep the table and its notes in this file")
    options = parser.parse_args()
    settings = Settings(options.chaos_seconds, options.faults, options.seed)
    versions = installed(options.only or list(PEERS))
    table = Table(
        columns=[*SCENARIOS, f"chaos {settings.chaos_seconds:g} s"],
        rows=dict(rows(list(versions), settings)),
        versions=versions,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        gevent=metadata.version("gevent"),
        system=f"{platform.system()} {platform.machine()}",
        day=datetime.date.today().isoformat(),
        settings=f"{settings.faults:g} kills a second, seed {settings.seed}",
    )
    print(table)
    if options.write:
        options.write.write_text(page(table))
    sys.exit(any(cell != OK for cell in table.rows.get("gpool", [])))


if __name__ == "__main__":
    main()
