"""Pools that are broken on purpose, and what the benchmarks find out about them; prints JSON.

Run by ``test_chaos.py`` in a process of its own, which has ``benchmarks`` on its path.
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import contextlib
import json
import logging
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.event import AsyncResult

from benchmarks.torture import chaos, scenarios
from benchmarks.torture.echo import Connection, Connector, EchoServer
from benchmarks.torture.peers import PEERS, Base, Gpool


class Leaky(Base):
    """Counts before it connects, and leaves things as they are when somebody is cut short."""

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        self.connector, self.free = connector, size
        self.idle: list[Connection] = []
        self.waiting: deque[Any] = deque()

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Connection]:
        """Borrow without a ``finally`` anywhere."""
        connection = self.get()
        yield connection
        if self.waiting:
            self.waiting.popleft().set(connection)
        else:
            self.idle.append(connection)

    def get(self) -> Connection:
        """Take an idle one, make one, or wait."""
        if self.idle:
            return self.idle.pop()
        if self.free:
            self.free -= 1
            self.connector.step()
            return Connection(self.connector.address, self.connector.reply)
        ticket: AsyncResult[Connection] = AsyncResult()
        self.waiting.append(ticket)
        return ticket.get()


class Hasty(Base):
    """Counts after it has connected; its waiters look now and then, the newest first."""

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        self.connector, self.size, self.made = connector, size, 0
        self.idle: list[Connection] = []
        self.waiting: list[object] = []

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Connection]:
        """Borrow, and lend again whatever state it is in."""
        connection = self.get()
        try:
            yield connection
        finally:
            self.idle.append(connection)

    def get(self) -> Connection:
        """Make one, or wait for an idle one."""
        if self.made < self.size:
            self.connector.step()
            self.made += 1
            return Connection(self.connector.address, self.connector.reply)
        me = object()
        self.waiting.append(me)
        try:
            while not self.idle or self.waiting[-1] is not me:
                gevent.sleep(0.002)
        finally:
            self.waiting.remove(me)
        return self.idle.pop()


def try_scenario(peer: Any, name: str) -> str:
    """Return what a scenario says of a pool."""
    with EchoServer() as server:
        return scenarios.SCENARIOS[name](peer, server)


def try_chaos(name: str, peer: Any) -> dict[str, Any]:
    """Return what a short chaos run says of a pool."""
    PEERS[name] = peer
    outcome = chaos.chaos(name, seconds=0.5, faults=300, seed=1)
    return vars(outcome) | {"is_whole": outcome.is_whole}


def try_scenarios(pools: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """Start all scenarios on all pools."""
    return {
        (name, t): gevent.spawn(try_scenario, peer, t)
        for name, peer in pools.items()
        for t in scenarios.SCENARIOS
    }


def main() -> None:
    """Try gpool, then those that are broken; they need not be given much time."""
    logging.disable()
    runs = try_scenarios({"gpool": Gpool})
    gevent.joinall(list(runs.values()))
    scenarios.TIMEOUT = scenarios.PROMPT = scenarios.HOPELESS = 0.3  # type: ignore[misc]
    chaos.TIMEOUT = chaos.QUIET = chaos.BOUND = 0.2  # type: ignore[misc]
    broken: dict[str, Any] = {"leaky": Leaky, "hasty": Hasty}
    runs |= try_scenarios(broken)
    runs |= {(name, "chaos"): gevent.spawn(try_chaos, name, broken[name]) for name in broken}
    said: dict[str, dict[str, Any]] = {name: {} for name in ("gpool", *broken)}
    for (name, what), run in runs.items():
        said[name][what] = run.get()
    print(json.dumps(said), flush=True)
    os._exit(0)  # what is broken would wait for ever


if __name__ == "__main__":
    main()
