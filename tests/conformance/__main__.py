"""Replay trace files: ``python -m tests.conformance FILE.json...``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.conformance.reading import load
from tests.conformance.replay import replay

EPILOG = """\
One line for each mismatch: the case, the step (from 0), the field, what was
expected, what gpool showed.  Last line: how many cases there were, how many
agree as recorded (agree), how many agree where a rule of rules.py or rules_pool.py
rewrote at least one expectation (rewritten), how many do not (differ).  Exit code 1 if any
differs, 2 if a file cannot be read or is of another kind.
"""


def main(arguments: list[str]) -> int:
    """Replay the files named in the arguments; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Replay recorded scenarios (kinds signals, supervisor, gen_server, pool).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE.json")
    parser.add_argument("--first", action="store_true", help="only a case's first mismatch")
    parser.add_argument("--case", default="", help="only cases whose id contains this")
    parser.add_argument(
        "--rules", action="store_true", help="also the steps each rule rewrote, and left out"
    )
    options = parser.parse_args(arguments)
    try:
        cases = [case for path in options.files for case in load(path)]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    words: Counter[str] = Counter()
    rewrites: Counter[str] = Counter()
    left_out = 0
    for case in cases:
        if options.case not in case["id"]:
            continue
        verdict = replay(case)
        words[verdict.word] += 1
        rewrites += verdict.rewrites
        left_out += verdict.left_out
        for mismatch in verdict.mismatches[: 1 if options.first else None]:
            print(mismatch)
    if options.rules:
        for name, count in sorted(rewrites.items()):
            print(f"rule {name}: {count} steps")
        print(f"not compared, at the ends of cases: {left_out} steps")
    counts = ", ".join(f"{word} {words[word]}" for word in ("agree", "rewritten", "differ"))
    print(f"cases {words.total()}, {counts}")
    return 1 if words["differ"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
