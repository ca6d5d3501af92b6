"""The worker of the article: it doubles numbers, slowly.

It is at the top level, not in the package: workers are what users bring along.
"""

import gevent

import gpool


class Doubler(gpool.GenServer):
    """Doubles numbers, and pretends that this is hard work."""

    @gpool.call
    def compute(self, n: int) -> int:
        """Double a number; runs in the worker's own greenlet, while the caller waits."""
        print(f"Doubling {n}")
        gevent.sleep(0.5)
        return 2 * n
