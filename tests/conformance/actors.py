"""Processes that do what they are told: the bare processes and clients of the traces.

An actor is a gpool process that waits for orders, carries them out in its own
greenlet, and otherwise only takes messages out of its mailbox.  An order that
blocks leaves its actor blocked and its result at :data:`PENDING`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gpool

PENDING: Final = "pending"


class Order:
    """One thing for an actor to do, and what came of it."""

    __slots__ = ("_work", "done", "result")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self.done = False
        self.result: Any = PENDING  # what `work` returned, once it is done

    def carry_out(self) -> None:
        """Do it; what it raises ends the process that does it."""
        self.result = self._work()
        self.done = True


class Actor:
    """A process with a label, from before it is spawned until after its death."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.pid: Any = None  # set by whoever spawns it
        self.held = False  # leaves messages alone, but still obeys
        self.finished = False  # returns after this order
        self.taken: list[Any] = []  # messages taken out since the last observation

    def live(self, trap: bool) -> None:
        """Run: the function to spawn."""
        gpool.trap_exit(trap)
        while not self.finished:
            message = gpool.receive(match=_is_order if self.held else None)
            if isinstance(message, Order):
                message.carry_out()
            else:
                self.taken.append(message)

    def order(self, work: Callable[[], Any]) -> Order:
        """Have `work` called in the process; a dead one never does it."""
        order = Order(work)
        gpool.send(self.pid, order)
        return order

    def take_all(self) -> list[Any]:
        """Return the messages taken out since the last time, oldest first."""
        taken, self.taken = self.taken, []
        return taken


def _is_order(message: Any) -> bool:
    return isinstance(message, Order)
