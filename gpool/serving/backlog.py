"""What had come to a server when it stopped accepting: none of it is lost.

The system completes connections on its own, and resets those that nobody has accepted when
the listener closes.  So a server that stops takes them all, at once; those for which it has
no place (``spawn=Pool(n)``, or a :meth:`full` of its own) wait here, in order, and are begun
with as its handlers end.

    taken --there is a place--> begun with
      |                             ^
      v                             |
    waiting --a handler has ended---+
      |
      +--cut: the time is over--> closed

Rules:

* Nobody joins those who wait: the listener is closed by then.
* It is gevent's ``do_handle`` that begins with each of them, as if it had just been accepted.

Not here: what becomes of handlers (``handlers.py``).
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import gevent

from gpool.waiter import Gate, Waiter

LONGEST: Final = 4096  # what Linux keeps for a listener at most, unless it is told otherwise


class Backlog:
    """The backlog of one server.

    Args:
        server: The server; it must not be closed while :attr:`is_open`, only its listener.
        is_idle: Tells whether none of its handlers runs.
        emptied: Called when the last one that waited was begun with, or was cut.
    """

    def __init__(
        self, server: Any, is_idle: Callable[[], bool], emptied: Callable[[], object]
    ) -> None:
        self.server = server
        self.waiting: deque[tuple[Any, ...]] = deque()  # what do_read gave, oldest first
        self.is_open = False  # some wait, or are just being begun with
        self._is_idle, self._emptied = is_idle, emptied
        self._ended = Gate()  # never opened: who waits at it is turned away when a handler ends
        self._greenlet: Any = None  # begins with those who wait

    def take(self) -> None:
        """Take all that the system has for the server, in a bounded number; never blocks."""
        with contextlib.suppress(Exception):  # what accept raises: nothing more is to be had
            for _ in range(LONGEST):
                if not self.server.started or not (connection := self.server.do_read()):
                    break
                self._admit(connection)
        if self.waiting:
            self.is_open = True
            self._greenlet = gevent.spawn(self._begin_with_all)

    def _admit(self, connection: tuple[Any, ...]) -> None:
        if self.waiting or self.server.full():
            self.waiting.append(connection)
        else:
            self._begin_with(connection)

    def _begin_with_all(self) -> None:
        try:
            while self.waiting:
                self._await_place()
                if self.waiting:  # they may have been cut meanwhile
                    self._begin_with(self.waiting.popleft())
                    give_way()  # its handler counts from its first step on
        finally:
            self._note_empty()

    def _note_empty(self) -> None:
        self.is_open = False
        self._emptied()

    def _await_place(self) -> None:
        pool = self.server.pool
        if hasattr(pool, "wait_available"):  # gevent's own may be shared with others
            pool.wait_available()
        else:
            while self.server.full() and not self._is_idle():
                self._ended.wait()

    def _begin_with(self, connection: tuple[Any, ...]) -> None:
        try:
            self.server.do_handle(*connection)
        except Exception:  # noqa: BLE001 - it is its spawn that fails: that concerns no other one
            self.server.do_close(*connection)
            gevent.get_hub().handle_error(self.server, *sys.exc_info())

    def note_end(self) -> None:
        """Hear that a handler has ended; never switches."""
        self._ended.turn_away()

    def cut(self) -> None:
        """Close those who wait; never switches."""
        while self.waiting:
            self.server.do_close(*self.waiting.popleft())
        if self.is_open:
            gevent.killall([self._greenlet], block=False)
            self._note_empty()  # it may not have begun


def give_way() -> None:
    """Block until all who could run have run."""
    turn = Waiter()
    gevent.get_hub().loop.run_callback(turn.wake)
    turn.wait()
