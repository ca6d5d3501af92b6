"""What happens to a pool's clients: eight scenarios, each of which other pools were caught at.

A scenario makes a pool of one connection (T6: of four), does something to those who
use it, and says in a word or two what came of it: "ok", or what went wrong.  All of
them want the same of every pool: that whoever waits is served, promptly.

Each one runs in a process of its own: what it breaks stays broken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event

from benchmarks.torture.echo import Connector, EchoServer
from benchmarks.torture.peers import Peer

OK: Final = "ok"
TIMEOUT: Final = 3.0  # s that a client lets the pool wait, where the pool can be told
PROMPT: Final = 2.0  # s within which somebody has to be served
HOPELESS: Final = 2 * TIMEOUT  # s after which nobody will be served any more

Make = Callable[[Connector, int, float], Peer]


class Client:
    """A greenlet that borrows one connection, holds it until it is told, and gives it back."""

    def __init__(self, peer: Peer, *, patience: float | None = None, hold: bool = True) -> None:
        self.peer = peer
        self.patience = patience  # s until a gevent.Timeout, if any
        self.waited: float | None = None  # s until it was served, once it is
        self.error = ""  # in words: an exception's traceback would keep a connection alive
        self.served, self.may_go = Event(), Event()
        self.before_return: Callable[[], object] = int
        self.after_return: Callable[[], object] = int
        if not hold:
            self.may_go.set()
        self.greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        start = time.monotonic()
        try:
            with gevent.Timeout(self.patience), self.peer.checkout() as connection:
                self.waited = time.monotonic() - start
                self.served.set()
                self.may_go.wait()
                self.before_return()
                connection.done()
        except (Exception, gevent.Timeout) as error:  # noqa: BLE001  # looked at by the scenario
            self.error = repr(error)
        self.after_return()

    def let_go(self) -> None:
        """Have it give its connection back; wait until it has."""
        self.may_go.set()
        self.greenlet.join(HOPELESS)

    def kill(self) -> None:
        """Have it killed, soon: the caller goes on first; then nobody refers to it any more."""
        self.greenlet.kill(block=False)
        del self.greenlet


def holder(peer: Peer) -> Client:
    """Return a client that holds a connection."""
    client = Client(peer)
    if not client.served.wait(HOPELESS):
        raise RuntimeError(f"the first client was not served: {client.error}")
    return client


def verdict(client: Client, *, peer: Peer) -> str:
    """Say how a client fared that should have been served."""
    if not client.served.wait(HOPELESS):
        return fresh(peer, otherwise="never served")
    assert client.waited is not None
    return OK if client.waited < PROMPT else f"waited {client.waited:.1f} s"


def fresh(peer: Peer, *, otherwise: str = OK) -> str:
    """Say whether somebody new is served: if not, the slot is gone."""
    client = Client(peer, hold=False)
    if not client.served.wait(HOPELESS):
        return "slot gone"
    assert client.waited is not None
    late = client.waited >= PROMPT
    return f"waited {client.waited:.1f} s" if late and otherwise == OK else otherwise


# --- The scenarios ------------------------------------------------------------------


def t1(make: Make, server: EchoServer) -> str:
    """Cut a waiter by a gevent.Timeout, then have the connection come back."""
    peer = make(Connector(server.address), 1, TIMEOUT)
    first = holder(peer)
    waiter = Client(peer, patience=0.1)
    waiter.greenlet.join(HOPELESS)
    first.let_go()
    return fresh(peer)


def t2(make: Make, server: EchoServer) -> str:
    """Kill the oldest waiter in the turn of the return, just before it or just after it."""
    for moment in ("before_return", "after_return"):
        peer = make(Connector(server.address), 1, TIMEOUT)
        first = holder(peer)
        oldest, second = Client(peer, hold=False), Client(peer, hold=False)
        gevent.sleep(0.1)
        setattr(first, moment, oldest.kill)
        start = time.monotonic()
        first.let_go()
        found = verdict(second, peer=peer)
        if found == "never served" and second.error:
            found = f"waited {time.monotonic() - start:.1f} s in vain"
        if found != OK:
            return found
    return OK


def t3(make: Make, server: EchoServer) -> str:
    """Have a connect fail while somebody waits; then the database is well."""
    peer = make(Connector(server.address, delay=0.1, failures=1), 1, TIMEOUT)
    Client(peer, hold=False)
    gevent.sleep(0.05)
    return verdict(Client(peer, hold=False), peer=peer)


def t4(make: Make, server: EchoServer) -> str:
    """Let three wait for a second while one borrows and gives back without a pause."""
    peer = make(Connector(server.address), 1, TIMEOUT)
    is_over = Event()

    def hot() -> None:
        while not is_over.is_set():
            with peer.checkout() as connection:
                gevent.sleep(0.001)
                connection.done()

    gevent.spawn(hot)
    gevent.sleep(0.1)
    waiters = [Client(peer, patience=1.0, hold=False) for _ in range(3)]
    gevent.joinall([waiter.greenlet for waiter in waiters], HOPELESS)
    is_over.set()
    starved = sum(not waiter.served.is_set() for waiter in waiters)
    return f"{starved} of 3 starve" if starved else OK


def t5(make: Make, server: EchoServer) -> str:
    """Kill a waiter while the connect that it has caused is under way."""
    peer = make(Connector(server.address, delay=0.2), 1, TIMEOUT)
    waiter = Client(peer)
    gevent.sleep(0.1)
    waiter.kill()
    gevent.sleep(0.01)
    return fresh(peer)


def t6(make: Make, server: EchoServer) -> str:
    """Have thirty come at once to a cold pool of four."""
    peer = make(Connector(server.address, delay=0.05), 4, TIMEOUT)
    clients = [Client(peer, hold=False) for _ in range(30)]
    gevent.joinall([client.greenlet for client in clients], HOPELESS)
    unserved = sum(not client.served.is_set() for client in clients)
    if server.peak > 4:
        return f"{server.peak} open"
    return f"{unserved} of 30 not served" if unserved else OK


def t7(make: Make, server: EchoServer) -> str:
    """Kill a holder inside its ``with``."""
    peer = make(Connector(server.address), 1, TIMEOUT)
    first = holder(peer)
    first.kill()
    gevent.sleep(0.01)
    return fresh(peer)


def t8(make: Make, server: EchoServer) -> str:
    """Have five wait, one after the other: they are served in the order of their arrival."""
    peer = make(Connector(server.address), 1, TIMEOUT)
    first = holder(peer)
    order: list[int] = []
    waiters: list[Any] = []
    for number in range(5):
        waiter = Client(peer, hold=False)
        waiter.before_return = lambda number=number: order.append(number)
        waiters.append(waiter.greenlet)
        gevent.sleep(0.02)
    first.let_go()
    gevent.joinall(waiters, HOPELESS)
    return OK if order == sorted(order) and len(order) == 5 else f"order {order}"


SCENARIOS: Final = {"T1": t1, "T2": t2, "T3": t3, "T4": t4, "T5": t5, "T6": t6, "T7": t7, "T8": t8}
