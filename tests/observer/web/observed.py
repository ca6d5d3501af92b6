"""A process to look at: two pools, those who hold and wait, an office with a supervisor.

Its levers are words on its stdin, each answered with ``ready`` when it has been pulled::

    kill       PoolMan of the pool db, as an operator would
    end        the process mortal, of an error
    start      a new mortal
    block      the hub, until the next line: that comes as `unblock`
    unblock
    haunt      be there as a zombie from now on
    outage     of what a new pool, broken, needs
    names      that are odd, of a process and of a pool
"""

from __future__ import annotations

import os
import sys
from typing import Any

import gevent
from gevent.event import Event
from gevent.socket import wait_read

import gpool
import gpool.observer

NEVER = Event()
# It turns the rest of its line round; it is written from right to left.
ODD = ("gpj\u202etxt\x1b[2J", "\u05d0\u05d1\u05d2")
LONG = "a_pool_" + 12 * "with_a_long_name_"


class Accountant(gpool.GenServer):
    """Shows its state, but for what nobody should see."""

    def init(self) -> None:
        """Begin with some orders."""
        self.orders, self.password = 17, "swordfish"

    def format_status(self) -> Any:
        """Leave out the password."""
        return {"orders": self.orders, "password": "***"}


class Auditor(gpool.GenServer):
    """Monitors the accountant."""

    def init(self) -> None:
        """Begin with that."""
        gpool.monitor(gpool.whereis("accountant"))


class Doubler(gpool.GenServer):
    """The article's worker."""


OFFICE = [
    gpool.ChildSpec("accountant", Accountant.start_link, kwargs={"server_name": "accountant"}),
    gpool.ChildSpec("auditor", Auditor.start_link, kwargs={"server_name": "auditor"}),
]


def hold(pool: gpool.Pool[Any]) -> None:
    """Borrow a worker and never give it back."""
    with pool.checkout(timeout=None):
        NEVER.wait()


def wait_for_one(pool: gpool.Pool[Any]) -> None:
    """Ask for a worker that nobody gives back."""
    pool.checkout(timeout=600)


def sleeper() -> None:
    """Read no message."""
    NEVER.wait()


def mortal() -> None:
    """Live until a message says otherwise."""
    raise ValueError(gpool.receive())


def undying() -> None:
    """Swallow an exit, and wait on."""
    while True:
        try:
            NEVER.wait()
        except BaseException:  # noqa: BLE001 - as careless code does
            continue


def refused() -> list[Any]:
    """Fail to connect."""
    raise ConnectionRefusedError("nobody listens")


def block() -> None:
    """Read a line as if gevent were not there."""
    os.read(0, 100)


def main(workers: int) -> None:
    """Start everything, then pull levers."""
    gpool.observer.start(allow_actions=True)
    db = gpool.start_pool(Doubler, size=workers, max_overflow=1, name="db")
    cache = gpool.start_pool(gpool.Resource(create=list), size=2, name="cache")
    for pool in (db, cache):
        pool.wait_ready()
    for _ in range(2):
        gpool.spawn(hold, cache)
    gpool.spawn(hold, db)
    gevent.sleep(0)
    gpool.spawn(wait_for_one, cache)
    gpool.Supervisor.start(OFFICE, strategy="rest_for_one", server_name="office")
    deaf = gpool.spawn(sleeper)
    gpool.register("sleeper", deaf)
    for text in ("first", "<b>second</b>", "third"):
        gpool.send(deaf, text)
    lever = "start"
    while lever:
        pull(lever, db)
        print("ready", flush=True)
        wait_read(0)
        lever = os.read(0, 100).decode().strip()


def pull(lever: str, db: gpool.Pool[Any]) -> None:
    """Do what a lever is for."""
    match lever:
        case "start":
            gpool.register("mortal", gpool.spawn(mortal))
        case "end":
            gpool.send("mortal", "it was time")
        case "kill":
            gpool.exit(db.tree().pool_man, "kill")
        case "haunt":
            ghost = gpool.spawn(undying)
            gevent.sleep(0)
            gpool.register("ghost", ghost)
            gpool.exit(ghost, "kill")
        case "names":
            for name in ODD:
                gpool.register(name, gpool.spawn(sleeper))
            gpool.start_pool(gpool.Resource(create=list), size=1, name=LONG)
        case "outage":
            gpool.start_pool(gpool.Resource(create=refused), size=1, name="broken")
        case "block":
            print("ready", flush=True)
            block()
        case _:
            raise ValueError(lever)


if __name__ == "__main__":
    main(int(sys.argv[1]))
