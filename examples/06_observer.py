"""Something to look into: two pools at work under clients that come, wait, and sometimes die.

Start it, and in a second terminal ``gpool top``, ``gpool tree`` or ``gpool web``.  It was
started with actions allowed: kill what you like, and watch the tree heal.
"""

import argparse
import contextlib
import random

import gevent

import gpool
import gpool.observer


class Painter(gpool.GenServer):
    """Paints, slowly; shows how much it has painted."""

    def init(self) -> None:
        """Begin with nothing."""
        self.painted = 0

    @gpool.call
    def paint(self, seconds: float) -> int:
        """Take so long; one in a hundred pictures ends it."""
        gevent.sleep(seconds)
        if random.random() < 0.01:
            raise ValueError("the canvas is torn")
        self.painted += 1
        return self.painted

    def format_status(self) -> dict[str, int]:
        """Let the Observer show the state; without this it shows none."""
        return {"painted": self.painted}


painters = gpool.Pool(Painter, size=4, name="painters", timeout=3.0)
brushes = gpool.Pool(
    gpool.Resource(create=object, reset=lambda brush: gevent.sleep(0.02)),
    size=6, max_overflow=2, max_hold=2.0, name="brushes",
)  # fmt: skip


def customer() -> None:
    """Want a picture, again and again."""
    while True:
        gevent.sleep(random.expovariate(2.0))
        try:
            with painters.checkout() as painter, brushes.checkout():
                painter.paint(random.expovariate(3.0))
        except gpool.GPoolError:
            pass  # the Observer's events tell why


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--customers", type=int, default=12)
    options = parser.parse_args()
    agent = gpool.observer.start(allow_actions=True)
    for pool in (painters, brushes):
        pool.wait_ready()
    specs = [gpool.ChildSpec(f"customer {n}", gpool.spawn_link, (customer,)) for n in range(3)]
    house = gpool.Supervisor.start(specs, server_name="house", max_restarts=100)
    crowd = [gevent.spawn(customer) for _ in range(options.customers - len(specs))]
    print(f"look into process {agent.node}: gpool top, gpool tree, gpool web", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        gevent.sleep(options.seconds)
    gpool.stop(house)
