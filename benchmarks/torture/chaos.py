"""Random kills and time-outs, hundreds a second, on a pool of real sockets; then: is it whole?

    python -m benchmarks.torture.chaos --seconds 30 --faults 500

Clients borrow connections to an echo server, ask, and give back, while something is
killed all the time: clients, and of gpool also the workers, PoolMan, WorkerSup and
PoolSup, by an exit signal or by a foreign ``greenlet.kill()``.  Many clients run out of
patience (``gevent.Timeout``); some swallow that in the middle of a request, and go on
as if nothing had happened.  A slot that cannot be borrowed afterwards is lost.

The exit code is 0 if no slot was lost, no reply came to somebody else, no connection
was lent to two, and never more sockets were open than the pool may have.
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import argparse
import gc
import json
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import gevent
from gevent.event import Event

import gpool
from benchmarks.torture.echo import Connector, EchoServer, in_hand
from benchmarks.torture.peers import PEERS, Gpool, Peer

TIMEOUT: Final = 1.0  # s that a client lets the pool wait, where the pool can be told
REPLY: Final = 0.003  # s that a reply takes, at most
QUIET: Final = 0.5  # s without faults before that is looked into
BOUND: Final = 5.0  # s within which each slot has to be lent once all is quiet
REVIVED: Final = (0.2, 0.5)  # parts of the run after which PoolSup is killed

VICTIMS: Final = {"client": 60, "worker": 30, "PoolMan": 5, "WorkerSup": 5}  # in relation
CALLS: Final = {"worker": ("ResourceOwner", "close")}  # a process's initial call, if another


@dataclass
class Outcome:
    """What a run has come to."""

    pool: str
    size: int
    seed: int
    seconds: float
    operations: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by the error that clients got
    faults: Counter[str] = field(default_factory=Counter)  # kills by victim, time-outs by kind
    slots_lost: int = 0
    wrong_replies: int = 0
    lent_to_two: int = 0
    above_cap: int = 0
    peak: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the pool has kept its promise."""
        return not (self.slots_lost or self.wrong_replies or self.lent_to_two or self.above_cap)

    def __str__(self) -> str:
        lines = [
            f"{self.pool}, {self.size} connections, {self.seconds:g} s, seed {self.seed}",
            f"{'operations':20}{self.operations:8}",
            _counter("faults", self.faults),
            _counter("refused", self.refused),
            f"{'slots lost':20}{self.slots_lost:8}  of {self.size}",
            f"{'wrong replies':20}{self.wrong_replies:8}",
            f"{'lent to two':20}{self.lent_to_two:8}",
            f"{'above the cap':20}{self.above_cap:8}  at most {self.peak} sockets were open",
        ]
        return "\n".join(lines)


def _counter(name: str, counts: Counter[str]) -> str:
    parts = [f"{name:20}{counts.total():8}"]
    parts += [f"{'':20}{count:8}  {what}" for what, count in counts.most_common()]
    return "\n".join(parts)


class Failed(Exception):
    """A client's own."""


# --- Clients ------------------------------------------------------------------------


class Clients:
    """Those who use a pool, each in a greenlet, until it is over.

    One that is killed is replaced by another.
    """

    def __init__(self, peer: Peer, outcome: Outcome, dice: random.Random) -> None:
        self.peer, self.outcome, self.dice = peer, outcome, dice
        self.greenlets: list[Any] = []
        self.is_over = False
        self.visits: list[Callable[[], None]] = [self.plain, self.hurried, self.deaf, self.failing]
        if isinstance(peer, Gpool):
            self.visits += [self.abandoning, self.careful]

    def run(self, number: int) -> None:
        """Have so many clients at any time; blocks until it is over."""
        while not self.is_over:
            self.greenlets = [client for client in self.greenlets if not client.dead]
            while len(self.greenlets) < number:
                self.greenlets.append(gevent.spawn(self.live))
            gevent.sleep(0.001)

    def end(self) -> None:
        """Let them finish; kill those who cannot."""
        self.is_over = True
        gevent.joinall(self.greenlets, timeout=2 * TIMEOUT)
        gevent.killall(self.greenlets, timeout=2 * TIMEOUT)

    def live(self) -> None:
        """Visit the pool over and over."""
        while not self.is_over:
            visit = self.dice.choice(self.visits)
            try:
                visit()
                self.outcome.operations += 1
            except Failed:
                self.outcome.operations += 1
            except Exception as error:  # noqa: BLE001  # that is what is counted
                self.outcome.refused[type(error).__name__] += 1
                gevent.sleep(0.005)
            if visit == self.abandoning:
                return

    def use(self, connection: Any) -> None:
        """Ask a few times."""
        with in_hand(connection) as alone:
            self.outcome.lent_to_two += not alone
            for _ in range(self.dice.randint(1, self.peer.asks)):
                self.ask(connection)

    def ask(self, connection: Any) -> None:
        """Ask, and look whose the reply is."""
        self.outcome.wrong_replies += not connection.ask()

    def plain(self) -> None:
        """Borrow, ask, give back."""
        with self.peer.checkout() as connection:
            self.use(connection)

    def hurried(self) -> None:
        """The same, under a gevent.Timeout: where it strikes is anybody's guess."""
        with gevent.Timeout(self.dice.uniform(0.0, 4 * REPLY)) as timeout:
            try:
                self.plain()
            except gevent.Timeout as error:
                if error is not timeout:
                    raise
                self.outcome.faults["visit timed out"] += 1

    def deaf(self) -> None:
        """Swallow a gevent.Timeout in the middle of a request, and leave as if all were well."""
        with self.peer.checkout() as connection:
            with gevent.Timeout(self.dice.uniform(0.0, REPLY), False):
                self.use(connection)
                return
            self.outcome.faults["time-out swallowed"] += 1

    def failing(self) -> None:
        """Raise an exception of one's own inside the ``with``."""
        with self.peer.checkout() as connection:
            self.use(connection)
            raise Failed

    def abandoning(self) -> None:
        """Borrow, ask, and die without giving back; of gpool alone."""
        assert isinstance(self.peer, Gpool)
        lease = self.peer.pool.checkout()  # kept: a lease that is dropped is reclaimed at once
        self.use(lease.resource)

    def careful(self) -> None:
        """Give back in a ``finally``, without a ``with``; of gpool alone."""
        assert isinstance(self.peer, Gpool)
        lease = self.peer.pool.checkout()
        try:
            self.use(lease.resource)
        finally:
            lease.checkin()


# --- Faults -------------------------------------------------------------------------


class Killer:
    """Kills something now and then."""

    def __init__(self, clients: Clients, outcome: Outcome, dice: random.Random) -> None:
        self.clients, self.outcome, self.dice = clients, outcome, dice
        self.victims = VICTIMS if isinstance(clients.peer, Gpool) else {"client": 1}

    def run(self, rate: float, seconds: float) -> None:
        """Kill so many a second; blocks until the time is over."""
        start = time.monotonic()
        due = [start + part * seconds for part in REVIVED if len(self.victims) > 1]
        while time.monotonic() < start + seconds:
            gevent.sleep(self.dice.expovariate(rate))
            if due and time.monotonic() >= due[0]:
                del due[0]
                self.kill("PoolSup")
            self.kill(*self.dice.choices(list(self.victims), list(self.victims.values())))

    def kill(self, what: str) -> None:
        """Kill one of those, in one way or the other, if there is one."""
        kills = self.of_clients() if what == "client" else self.of_processes(what)
        if kills:
            how, kill = self.dice.choice(kills)
            kill()
            self.outcome.faults[f"{what} killed{how}"] += 1

    def of_clients(self) -> list[tuple[str, Callable[[], object]]]:
        """Return what kills a client, for each one: the greenlet knows of no pool."""
        return [("", lambda g=g: g.kill(block=False)) for g in self.clients.greenlets if not g.dead]

    def of_processes(self, what: str) -> list[tuple[str, Callable[[], object]]]:
        """Return what kills a process of the pool's own, for each one, in both ways."""
        kills: list[tuple[str, Callable[[], object]]] = []
        for pid in gpool.processes():
            if gpool.process_info(pid).initial_call in CALLS.get(what, (what,)):
                kills.append((" by exit", lambda pid=pid: gpool.exit(pid, "kill")))
                runner = pid.runner()
                if runner is not None:
                    kills.append((" by greenlet.kill", lambda g=runner: g.kill(block=False)))
        return kills


# --- A run --------------------------------------------------------------------------


def slots_lost(peer: Peer, size: int, outcome: Outcome) -> int:
    """Have as many borrow at once as there should be slots; return how many get nothing."""
    got: set[int] = set()
    all_have, end = Event(), time.monotonic() + BOUND

    def borrow(number: int) -> None:
        while number not in got and time.monotonic() < end:
            try:
                with peer.checkout() as connection:
                    if time.monotonic() < end:  # else somebody has given his back
                        got.add(number)
                    if len(got) == size:
                        all_have.set()
                    all_have.wait(BOUND)
                    outcome.wrong_replies += not connection.ask()
            except Exception as error:  # noqa: BLE001  # counted
                outcome.refused[f"{type(error).__name__}, in the end"] += 1
                gevent.sleep(0.05)

    borrowers = [gevent.spawn(borrow, number) for number in range(size)]
    gevent.joinall(borrowers, timeout=2 * BOUND)
    gevent.killall(borrowers, timeout=BOUND)
    return size - len(got)


def chaos(
    name: str, *, seconds: float, faults: float, size: int = 4, clients: int = 16, seed: int = 0
) -> Outcome:
    """Run the clients and the killer on a pool, and see what is left of it."""
    outcome, dice = Outcome(name, size, seed, seconds), random.Random(seed)
    random.seed(seed)  # the server's delays, gpool's backoffs
    with EchoServer(cap=size) as server:
        reply = lambda: dice.choice((0.0, dice.uniform(0.0, REPLY)))  # noqa: E731
        peer = PEERS[name](Connector(server.address, delay=0.001, reply=reply), size, TIMEOUT)
        users = Clients(peer, outcome, dice)
        gevent.spawn(users.run, clients)
        Killer(users, outcome, dice).run(faults, seconds)
        users.end()
        gevent.sleep(QUIET)
        gc.collect()  # some pools take back only now what a killed client has left
        outcome.slots_lost = slots_lost(peer, size, outcome)
        outcome.above_cap, outcome.peak = server.above_cap, server.peak
    return outcome


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torture.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--faults", type=float, default=300.0, help="kills a second; default 300")
    parser.add_argument("--pool", choices=sorted(PEERS), default="gpool")
    parser.add_argument("--size", type=int, default=4, help="connections in the pool")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = vars(parser.parse_args())
    logging.disable()  # every kill would be told
    as_json = options.pop("json")
    outcome = chaos(options.pop("pool"), **options)
    print(json.dumps(vars(outcome)) if as_json else outcome, flush=True)
    os._exit(not outcome.is_whole)  # a pool that is broken might wait for itself


if __name__ == "__main__":
    main()
