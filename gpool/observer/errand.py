"""Errands: what the Observer has to do in the observed hub that may block there.

Looking never does.  Asking a server for its state does, and so does whatever an action
calls.  It runs in a greenlet of its own, spawned by a callback in the hub that it is about;
whoever wants it done waits in the agent's thread, and not for long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event


class ObserverErrand:
    """One thing that the Observer has done in a greenlet of another hub.

    Args:
        hub: Where it is to be done.
        fn: Does it; its value or error is kept.
        args: Its arguments.
    """

    def __init__(self, hub: Any, fn: Callable[..., Any], *args: Any) -> None:
        self._hub = hub
        self._fn, self._args = fn, args
        self._loop: Any = gevent.get_hub().loop  # of those who wait
        self.over = Event()
        self.outcome: Any = None
        self.failure: BaseException | None = None

    def begin(self) -> None:
        """Have it done soon, in its hub; never blocks."""
        self._hub.loop.run_callback_threadsafe(gevent.spawn, self.run)

    def run(self) -> None:
        """Do it, in its hub, and tell."""
        try:
            self.outcome = self._fn(*self._args)
        except BaseException as error:  # noqa: BLE001  # its reader's
            self.failure = error
        finally:
            self._loop.run_callback_threadsafe(self.over.set)


IS_ERRAND: Final = "ObserverErrand.run"  # the initial call of such a process
