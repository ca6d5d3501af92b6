"""What the peers' tests share: a running pool, who hears its events, who checks its things."""

from __future__ import annotations

from collections import deque
from typing import Any

import gpool
from gpool import telemetry
from gpool.pool.slot import Slot
from gpool.testing import settle
from tests.pool.workshop import Thing


def running(worker: Any, **options: Any) -> gpool.Pool[Any]:
    """Return a pool that has started, its workers too."""
    pool: gpool.Pool[Any] = gpool.Pool(worker, **options)
    pool.start()
    settle()
    return pool


def manager(pool: gpool.Pool[Any]) -> gpool.Pid:
    """Return the pid of who is in charge."""
    ledger: Any = pool._ledger
    pid: gpool.Pid = ledger.man.pid
    return pid


def slots(pool: gpool.Pool[Any]) -> list[Slot]:
    """Return all slots, the oldest first."""
    ledger: Any = pool._ledger
    return list(ledger.slots)


def leave(pool: gpool.Pool[Any], error: BaseException | None = None) -> Any:
    """Use a worker in a `with` block, and leave that by an exception or not."""
    lease = pool.checkout()
    thing = lease.__enter__()
    lease.__exit__(type(error) if error else None, error, None)
    settle()
    return thing


class Events(list[Any]):
    """What listeners hear."""

    def __enter__(self) -> Events:
        telemetry.attach(self.append)
        return self

    def __exit__(self, *exc: object) -> None:
        telemetry.detach(self.append)

    def of(self, kind: type) -> list[Any]:
        """Return those of one kind."""
        return [event for event in self if isinstance(event, kind)]


class Checks:
    """A `check`: it follows a script, and finds all alive once that is used up.

    A step that is an exception is raised, one that can be called is called with the
    thing; anything else is the answer.
    """

    def __init__(self, *script: Any) -> None:
        self.script = deque(script)
        self.seen: list[int] = []  # numbers of the things that were checked, in order

    def __call__(self, thing: Thing) -> Any:
        """Check a thing."""
        self.seen.append(thing.number)
        step = self.script.popleft() if self.script else None
        if isinstance(step, BaseException):
            raise step
        return step(thing) if callable(step) else step
