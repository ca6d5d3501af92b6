"""Reading in the observed hub, from another thread; and noticing that it is blocked.

What is read has to be of one moment.  So it is read by a callback in the hub that the
processes run in, where nothing else runs meanwhile.  A hub that does not call back within
PATIENCE is *blocked*: some greenlet keeps it from the others.  Then it is read from here,
beside it, and who keeps the hub, and where, is told.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from time import monotonic, time
from typing import Any, Final, TypeVar

import gevent
from gevent.event import Event

from gpool.observer.node.errand import have_called
from gpool.observer.node.text import stack_of

T = TypeVar("T")

PATIENCE: Final = 0.2  # s that a hub may take to call back
RETRIES: Final = 20  # reads beside a hub that fail since it changes what is read

NOWHERE: Final = "  in a function of an extension, which no Python code has called"

Hub = dict[str, Any]  # as the API tells of it


class _Reading:
    """One function that is to run in the observed hub."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.fn, self.args = fn, args
        self.loop: Any = gevent.get_hub().loop  # of the one that waits
        self.done = Event()
        self.value: Any = None
        self.error: Exception | None = None
        self.given_up = False

    def run(self) -> None:
        """Do it, in the observed hub, and tell."""
        if not self.given_up:
            try:
                self.value = self.fn(*self.args)
            except Exception as error:  # noqa: BLE001  # its reader's, not the hub's
                self.error = error
        have_called(self.loop, self.done.set)


class Reader:
    """Reads in one hub.

    Args:
        hub: The observed one; of another thread.
    """

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._unanswered: _Reading | None = None  # the first that the hub owes
        self._since = 0.0  # s of the monotonic clock, of its asking

    def read(self, fn: Callable[..., T], *args: Any) -> tuple[T, Hub]:
        """Return what `fn` returns, and what state the hub is in; blocks for PATIENCE at most.

        Args:
            fn: Must neither switch nor run a user's code; it may run here and there.
            args: Its arguments.
        """
        reading = self._ask(fn, args)
        if reading is None:
            return self._beside(fn, args), self._blocked()
        if reading.error is not None:
            raise reading.error
        return reading.value, {"blocked": False}

    def _ask(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> _Reading | None:
        """Have the hub do it; None if it does not call back."""
        if self._unanswered is not None and not self._unanswered.done.wait(PATIENCE):
            return None
        self._unanswered = reading = _Reading(fn, args)
        self._since = monotonic()
        if not have_called(self.hub.loop, reading.run):
            return None
        if not reading.done.wait(PATIENCE):
            reading.given_up = True
            return None
        self._unanswered = None
        return reading

    def _beside(self, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
        for _ in range(RETRIES):
            try:
                return fn(*args)
            except Exception:  # noqa: BLE001  # somebody was, or still is, in the middle of a change
                continue
        return fn(*args)

    def _blocked(self) -> Hub:
        frame = sys._current_frames().get(self.hub.thread_ident)
        stack = [NOWHERE] if frame is None else traceback.format_stack(frame)
        return {
            "blocked": True,
            "seconds": round(self._blocked_for(), 3),
            "stack": stack_of(stack),
        }

    def _blocked_for(self) -> float:
        """Return for how long, as far as can be known, the hub has called nobody back."""
        asked = monotonic() - self._since
        try:
            turn = time() - self.hub.loop.now()  # libev: since its last turn began
        except (AttributeError, ValueError):  # it was destroyed
            return asked
        return turn if asked <= turn < 1e7 else asked  # libuv counts from another day
