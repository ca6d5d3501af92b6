"""Teller: has the listeners told of what happened in a pool.

A listener may be slow, so events are only noted where they happen, in the order
in which they do.  They are told by PoolMan at its next turn; by a process of
their own while no PoolMan is in charge, or while it stops its workers; and what
is left, by whoever has stopped the pool.

Not here: the listeners (``telemetry.py``), and the leases, of which the meters are
told at once.
"""

from __future__ import annotations

import contextvars
from collections import deque
from typing import Any, Final

from gpool import telemetry
from gpool.otp import greenlets

UNSAID: Final = 100_000  # events that are kept while a listener blocks; the oldest are lost
TELL: Final = "tell"  # PoolMan's message: something is unsaid


class Teller:
    """The events of one pool that its listeners have not yet heard of.

    Args:
        books: The Ledger.
    """

    def __init__(self, books: Any) -> None:
        self.books = books
        self.unsaid: deque[telemetry.Event] = deque(maxlen=UNSAID)  # oldest first
        self.is_coming = False  # a process of its own is about to tell
        self.has_told_the_end = False  # PoolStopped

    def note(self, event: telemetry.Event) -> None:
        """Have the listeners told; never switches."""
        self.unsaid.append(event)
        books = self.books
        man = books.man
        if man is None or man.pid is None or books.phase == "stopped":
            self._come()
        elif len(self.unsaid) == 1:  # else it was told before
            man.pid.mailbox.append(TELL)

    def _come(self) -> None:
        hub = self.books.hub
        if hub is not None and not self.books.is_gone and not self.is_coming:
            self.is_coming = True
            hub.loop.run_callback(self._start)

    def _start(self) -> None:
        """Start the process, in the hub: whoever noted may be in its last frame."""
        self.is_coming = False
        if self.unsaid:
            greenlets.new_process(self.tell, initial_call="tell", context=contextvars.Context())

    def tell(self) -> None:
        """Tell the listeners; blocks if one of them does."""
        while self.unsaid:
            telemetry.emit(self.unsaid.popleft())

    def tell_the_end(self) -> None:
        """Tell what is left, and that the pool was stopped, once."""
        books = self.books
        if not self.has_told_the_end:
            self.has_told_the_end = True
            self.unsaid.append(telemetry.PoolStopped(books.sup, books.name, len(books.slots)))
        self.tell()
