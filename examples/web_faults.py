"""Faults for the web example: clients cut short, and everything killed, over and over."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent

import gpool

WSGI = Callable[[dict[str, Any], Any], list[bytes]]

VICTIMS = {"client": 60, "worker": 30, "PoolMan": 5, "WorkerSup": 5}  # how often, in relation


class Faults:
    """Stands before the application, to know its clients and to cut some short."""

    def __init__(self, application: WSGI, *, rate: float) -> None:
        self.application = application
        self.rate = rate  # kills a second; 0 for none, then nobody is cut short either
        self.counts = Counter[str]()
        self.clients: set[gpool.Pid] = set()  # they wait for a connection, or have one

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Answer a request, or run out of patience with it."""
        me = gpool.self()
        self.clients.add(me)
        hurried = self.rate > 0 and random.random() < 0.05
        patience = gevent.Timeout(random.uniform(0.0, 0.05) if hurried else None)
        try:
            with patience:
                return self.application(environ, start_response)
        except gevent.Timeout as timeout:
            if timeout is not patience:
                raise
            self.counts["cut short"] += 1
            start_response("504 Gateway Timeout", [("Content-Type", "text/plain")])
            return [b"gevent.Timeout"]
        finally:
            self.clients.discard(me)

    def run(self) -> None:
        """Kill something now and then; nothing more once `rate` is 0."""
        while self.rate > 0:
            self.strike()
            gevent.sleep(random.expovariate(self.rate))  # last: all may be over after it

    def strike(self) -> None:
        """Kill something."""
        [what] = random.choices(list(VICTIMS), list(VICTIMS.values()))
        victims = list(self.clients) if what == "client" else find(what)
        if victims:
            gpool.exit(random.choice(victims), "kill")
            self.counts[f"{what} killed"] += 1


def find(what: str) -> list[gpool.Pid]:
    """Return the processes of the pool that are such ones."""
    call = "ResourceOwner" if what == "worker" else what
    return [pid for pid in gpool.processes() if gpool.process_info(pid).initial_call == call]
