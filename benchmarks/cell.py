"""Run one suite and print what it has found, as JSON: a process of its own for each.

python -m benchmarks.cell uncontended --quick
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import importlib
import json
import logging
import os
import sys

from benchmarks.harness import Effort, pin


def main() -> None:
    """Run the suite that the arguments name."""
    suite, *options = sys.argv[1:]
    logging.disable()  # restarts and lost connections would be told
    pin()
    effort = Effort.quick() if "--quick" in options else Effort.full()
    result = importlib.import_module(f"benchmarks.suites.{suite}").run(effort)
    print(json.dumps(result.as_json()), flush=True)
    os._exit(0)  # pools, and thousands of processes, would be ended one by one


if __name__ == "__main__":
    main()
