"""How fast gpool is, beside other pools and beside what the machine can do.

    python -m benchmarks                              # some minutes; tables as text
    python -m benchmarks --quick --check              # under a minute; exit code 1 if too slow
    python -m benchmarks --only uncontended,calls --markdown
    python -m benchmarks --write docs/performance.md

Each suite runs in a process of its own.  All figures that are compared with each
other were measured in one process, in turns: trust the ratios, not the nanoseconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks import report
from benchmarks.bounds import verdicts
from benchmarks.machine import facts
from benchmarks.page import page
from benchmarks.results import Result

ROOT: Final = Path(__file__).parents[1]
SUITES: Final = (
    "uncontended", "contended", "waiters", "calls", "processes", "memory", "growth", "observer",
)  # fmt: skip
BEAM: Final = "beam"  # a suite that runs if it is asked for


def run(suite: str, options: argparse.Namespace) -> Result:
    """Run a suite in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cell", suite]
    command += ["--quick"] if options.quick else []
    command += [f"--beam={options.beam}"] if suite == BEAM else []
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return Result.from_json(json.loads(process.stdout))


def suites_of(names: str) -> list[str]:
    """Return the suites that a command line names."""
    chosen = names.split(",")
    for name in chosen:
        if name not in SUITES:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(SUITES)}, got {name!r}")
    return chosen


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=suites_of, default=list(SUITES), metavar="SUITE[,SUITE]")
    parser.add_argument("--quick", action="store_true", help="few rounds: under a minute")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bound is missed")
    parser.add_argument(
        "--beam",
        nargs="?",
        const="",
        metavar="EBIN[:EBIN]",
        help="measure Erlang too, and its poolboy and nimble_pool if they are in these folders",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep it as a page in this file")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="tables in Markdown")
    form.add_argument("--json", action="store_true", help="all figures, as JSON")
    return parser.parse_args()


def main() -> None:
    """Do what the command line says."""
    options = parse()
    form = report.markdown if options.markdown else report.text
    results = []
    for suite in [*options.only, *([BEAM] if options.beam is not None else [])]:
        results.append(run(suite, options))
        if not options.json:
            print(report.table(results[-1], form), end="\n\n", flush=True)
    found = verdicts(results)
    if options.json:
        suites = [result.as_json() for result in results]
        print(json.dumps({"measured_on": facts(), "suites": suites}, indent=1))
    else:
        print(report.bounds(found, form))
    if options.write:
        options.write.write_text(page(results, facts()))
    offences = [verdict for verdict in found if verdict.is_offended]
    if options.check and offences:
        print("\nMissed by more than the margin:", file=sys.stderr)
        print(report.bounds(offences, report.text), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
