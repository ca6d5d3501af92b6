"""Run one suite and print what it has found, as JSON: a process of its own for each.

python -m benchmarks.cell uncontended --quick
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import argparse
import importlib
import json
import logging
import os
from dataclasses import replace

from benchmarks.harness import Effort, pin


def main() -> None:
    """Run the suite that the arguments name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("suite")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--beam", default="", help="folders of compiled Erlang pools")
    options = parser.parse_args()
    logging.disable()  # restarts and lost connections would be told
    pin()
    effort = replace(Effort.quick() if options.quick else Effort.full(), ebin=options.beam)
    result = importlib.import_module(f"benchmarks.suites.{options.suite}").run(effort)
    print(json.dumps(result.as_json()), flush=True)
    os._exit(0)  # pools, and thousands of processes, would be ended one by one


if __name__ == "__main__":
    main()
