"""Run one scenario on one pool and print what came of it: a process of its own for each.

python -m benchmarks.torture.cell gpool T1
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import logging
import os
import sys

from benchmarks.torture.echo import EchoServer
from benchmarks.torture.peers import PEERS
from benchmarks.torture.scenarios import SCENARIOS


def main() -> None:
    """Run the scenario that the arguments name."""
    name, scenario = sys.argv[1:]
    logging.disable()  # pools complain of what is done to them; the cell says it
    with EchoServer() as server:
        print(SCENARIOS[scenario](PEERS[name], server), flush=True)
    os._exit(0)  # what is broken would complain, or wait for itself


if __name__ == "__main__":
    main()
