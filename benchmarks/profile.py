r"""Have a hundred clients at ten workers, for a profiler to look at.

    py-spy record --native --format raw --output profile.txt -- \
        python -m benchmarks.profile --seconds 20

Prints the CPU time of a grant, of which ``--floor`` shows the clients' own part.
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import argparse
import os
from time import monotonic

from benchmarks import peers
from benchmarks.contest import Contest
from benchmarks.harness import pin

GRANTS = 200_000  # of one contest: so many that its start and its end do not show


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--polite", action="store_true", help="wait a turn before asking again")
    parser.add_argument("--floor", action="store_true", help="without a pool")
    options = parser.parse_args()
    pin()
    peer = None if options.floor else peers.gpool_pool()
    end = monotonic() + options.seconds
    while monotonic() < end:
        contest = Contest(peer, clients=options.clients, grants=GRANTS, polite=options.polite)
        print(f"{contest.run() * 1e6:.2f} µs of CPU per grant", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
