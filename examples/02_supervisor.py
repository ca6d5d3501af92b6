"""A supervision tree without a pool: a kitchen that goes on whatever happens.

The cook works at what the board says.  If the cook falls, the board stays; if
the board falls, the cook goes with it: `rest_for_one`.  Names lead to whoever
has them now.
"""

from typing import Any

import gevent
from tree import show

import gpool


class Board(gpool.GenServer):
    """Keeps the orders; written with OTP's callbacks, and called by name."""

    def __init__(self) -> None:
        self.orders: list[str] = []

    def handle_cast(self, order: str) -> None:
        """Add an order."""
        self.orders.append(order)

    def handle_call(self, request: Any, from_: gpool.From) -> gpool.Reply:
        """Remove the oldest order."""
        return gpool.Reply(self.orders.pop(0) if self.orders else "omelette")


class Cook(gpool.GenServer):
    """Does what the board says."""

    def handle_call(self, request: Any, from_: gpool.From) -> gpool.Reply:
        """Make one dish."""
        dish = gpool.send_call("board", "next")
        return gpool.Reply(f"{dish} made by {self!r}")


children = [
    gpool.ChildSpec("board", Board.start_link, kwargs={"server_name": "board"}),
    gpool.ChildSpec("cook", Cook.start_link, kwargs={"server_name": "cook"}),
]


def look(title: str) -> None:
    """Print the tree, and have something cooked."""
    print(f"\n== {title}")
    show(gpool.process_info("kitchen").pid)
    print(gpool.send_call("cook", "a dish"))


if __name__ == "__main__":
    kitchen = gpool.Supervisor.start(children, strategy="rest_for_one", server_name="kitchen")
    for dish in ("soup", "salad", "steak"):
        gpool.send_cast("board", dish)
    look("the kitchen is open")
    for name in ("cook", "board"):
        gpool.exit(name, "kill")
        gevent.sleep(0.1)
        look(f"after the fall of the {name}")
    gpool.stop(kitchen)
    print(f"\nclosed; who is left: {gpool.processes()}")
