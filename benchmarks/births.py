"""Workers and children that tell of their birth: the end of a restart, as it can be measured."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Any, Final

from gevent.event import Event

import gpool

# Options of a supervisor or a pool to which no number of deaths is too many.
WHENEVER: Final[Any] = {"max_restarts": 1_000_000, "max_seconds": 0.001}


class Births:
    """Counts those who are born, and waits for a number of them."""

    def __init__(self) -> None:
        self.missing = 0
        self.complete = Event()

    def born(self) -> object:
        """Note one."""
        self.missing -= 1
        if self.missing == 0:
            self.complete.set()
        return self

    def after(self, act: Callable[[], object], number: int) -> float:
        """Do something; return the CPU time until so many were born."""
        self.missing = number
        self.complete.clear()
        start = thread_time()
        act()
        self.complete.wait()
        return thread_time() - start

    def after_kill_of(self, victim: gpool.Pid, number: int) -> float:
        """Kill a process; return the CPU time until so many were born."""
        return self.after(lambda: gpool.exit(victim, "kill"), number)


class Child(gpool.GenServer):
    """Tells of its birth."""

    def __init__(self, births: Births) -> None:
        self.births = births

    def init(self) -> None:
        """Tell."""
        self.births.born()
