"""Many clients and few workers: what a grant costs, and who gets how many.

Each client borrows, holds for a turn of the loop, gives back, and asks again: at once
if it is greedy, a turn later if it is polite.  The clock starts once there were as
many grants as there are clients, so their first arrival is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from time import thread_time

import gevent

from benchmarks.peers import Peer


class Contest:
    """So many grants, to so many clients.

    Args:
        peer: The pool; None for the floor, what the clients' own loop costs.
        clients: How many.
        grants: How many are timed.
        polite: Whether a client waits a turn before it asks again.
    """

    def __init__(self, peer: Peer | None, *, clients: int, grants: int, polite: bool) -> None:
        self.peer, self.polite = peer, polite
        self.log: list[int] = []  # the client of each grant, oldest first
        self.first, self.last = clients, clients + grants
        self.stamps: list[float] = []  # s of CPU at the first and after the last of those timed
        self.longest = [0] * clients  # client -> its longest wait, in grants to others
        self.errors = 0

    def run(self) -> float:
        """Return the CPU seconds of one grant; blocks until every client has ended."""
        client = self._floor if self.peer is None else self._by_with
        if self.peer is not None and self.peer.lend is None:
            client = self._by_hand
        clients = [gevent.spawn(self._live, client, me) for me in range(len(self.longest))]
        gevent.joinall(clients, raise_error=True)
        start, end = self.stamps
        return (end - start) / (self.last - self.first)

    @property
    def jain(self) -> float:
        """Jain's index of fairness: 1 if all got equally many, 1/n if one got all."""
        return jain(Counter(self.log[self.first : self.last]).values(), len(self.longest))

    @property
    def starved(self) -> int:
        """How many got nothing at all."""
        return len(self.longest) - len(set(self.log))

    def _live(self, client: Callable[[int], None], me: int) -> None:
        while len(self.log) <= self.last:
            try:
                client(me)
            except Exception:  # noqa: BLE001  # a pool that gives up on a client: it comes back
                self.errors += 1

    def _by_with(self, me: int) -> None:
        assert self.peer is not None
        assert self.peer.lend is not None
        lend, log, last, sleep = self.peer.lend, self.log, self.last, gevent.sleep
        while (asked := len(log)) <= last:
            with lend():
                self._granted(me, asked)
                sleep(0)
            if self.polite:
                sleep(0)

    def _by_hand(self, me: int) -> None:
        assert self.peer is not None
        assert self.peer.get is not None
        assert self.peer.put is not None
        get, put, log, last, sleep = self.peer.get, self.peer.put, self.log, self.last, gevent.sleep
        while (asked := len(log)) <= last:
            thing = get()
            try:
                self._granted(me, asked)
                sleep(0)
            finally:
                put(thing)
            if self.polite:
                sleep(0)

    def _floor(self, me: int) -> None:
        log, last, sleep = self.log, self.last, gevent.sleep
        while (asked := len(log)) <= last:
            self._granted(me, asked)
            sleep(0)
            if self.polite:
                sleep(0)

    def _granted(self, me: int, asked: int) -> None:
        now = len(self.log)
        self.longest[me] = max(self.longest[me], now - asked)
        if now in (self.first, self.last):
            self.stamps.append(thread_time())
        if now <= self.last:
            self.log.append(me)


def jain(shares: Iterable[float], number: int) -> float:
    """Return Jain's index of what `number` clients got; those not among `shares` got nothing."""
    shares = list(shares)
    return sum(shares) ** 2 / (number * sum(share**2 for share in shares))
