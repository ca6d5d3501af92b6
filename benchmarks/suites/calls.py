"""A call and its reply, between two greenlets; then the same with a hundred callers.

The limit is two greenlets that wake each other through the hub, without a message. The idiom is
a Queue to the server and an AsyncResult back, without a time-out; gpool's calls have
their default one, of 5 s. pykka's actors run on threads, which gevent has patched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import AsyncResult
from gevent.queue import Queue
from greenlet import getcurrent

import gpool
from benchmarks.harness import Case, Effort, crowded, measure, timed
from benchmarks.pools import version
from benchmarks.results import Result, Row

CALLERS: Final = 100
LIMIT: Final = "two greenlets through the hub"
IDIOM: Final = "Queue + AsyncResult"

Ask = Callable[[], object]  # one call


class Server(gpool.GenServer):
    """Answers, in both ways."""

    def handle_call(self, request: Any, from_: gpool.From) -> gpool.Reply:
        """Answer a raw call."""
        return gpool.Reply(request)

    @gpool.call
    def echo(self, n: int) -> int:
        """Answer."""
        return n


def hub_switches(n: int) -> None:
    """Have two greenlets wake each other through the hub, so many times."""
    hub = gevent.get_hub()
    run_callback, switch = hub.loop.run_callback, hub.switch
    me = getcurrent()

    def other() -> None:
        while True:
            run_callback(me.switch)
            switch()

    partner = gevent.spawn(other)
    switch()  # it has started, and waked us
    for _ in range(n):
        run_callback(partner.switch)
        switch()
    partner.kill()


def idiom() -> Ask:
    """Return a call of the idiom's server."""
    requests: Any = Queue()

    def serve() -> None:
        while True:
            request, result = requests.get()
            result.set(request)

    gevent.spawn(serve)

    def ask() -> object:
        result: AsyncResult[int] = AsyncResult()
        requests.put((1, result))
        return result.get()

    return ask


def pykka_ask() -> Ask:
    """Return a call of an actor of pykka's."""
    import pykka

    class Actor(pykka.ThreadingActor):
        def on_receive(self, message: Any) -> Any:
            return message

    actor = Actor.start()
    return lambda: actor.ask(1)


def alone(ask: Ask) -> Callable[[int], None]:
    """Return a loop of one caller."""

    def loop(n: int) -> None:
        for _ in range(n):
            ask()

    return loop


def run(effort: Effort) -> Result:
    """Measure."""
    server = Server.start()
    asks: dict[str, Ask] = {
        IDIOM: idiom(),
        "handle_call": lambda: gpool.send_call(server, 1),
        "@call method": lambda: server.echo(1),
    }
    left_out = []
    if version("pykka"):
        asks["pykka ask"] = pykka_ask()
    else:
        left_out.append("pykka")
    cases = [Case(LIMIT, timed(hub_switches))]
    cases += [Case(name, timed(alone(ask))) for name, ask in asks.items()]
    crowds = [
        Case(f"{name}, {CALLERS} callers", crowded(CALLERS, ask)) for name, ask in asks.items()
    ]
    rounds = measure(cases + crowds, effort)
    rows = [
        Row(case.name, {
            "ns": rounds.cost(case.name) * 1e9,
            ": limit": rounds.ratio(case.name, LIMIT),
            ": idiom": rounds.ratio(case.name, IDIOM),
        })
        for case in cases
    ]  # fmt: skip
    idioms = f"{IDIOM}, {CALLERS} callers"
    rows += [
        Row(case.name, {
            "ns": rounds.cost(case.name) * 1e9, ": idiom": rounds.ratio(case.name, idioms)
        })
        for case in crowds
    ]  # fmt: skip
    return Result("calls", rows, left_out)
