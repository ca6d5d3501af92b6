"""Errands: what the Observer has to do in the observed hub that takes a while there.

Looking does not.  A :class:`Question` is put into a server's mailbox by a callback in its
hub, and answered when the server gets to it.  Whatever an action calls may block: it runs
in a greenlet of its own.  Whoever wants to know waits in the agent's thread, and not for long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event

import gpool
from gpool.observer.node.text import cut, shown


def have_called(loop: Any, fn: Callable[..., object], *args: Any) -> bool:
    """Have the loop of another thread call ``fn(*args)`` soon; False if it is not there any more.

    So it is when its thread has ended, or when the agent was stopped before it was answered.
    """
    try:
        loop.run_callback_threadsafe(fn, *args)
    except (AttributeError, ValueError):  # of a hub that was destroyed
        return False
    return True


class HubGone(gpool.GPoolError):
    """The thread of a hub has ended."""

    def __str__(self) -> str:
        return "the thread that it ran in has ended"


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
        if not have_called(self._hub.loop, gevent.spawn, self.run):
            self.failure = HubGone()
            self.over.set()

    def run(self) -> None:
        """Do it, in its hub, and tell."""
        try:
            self.outcome = self._fn(*self._args)
        except BaseException as error:  # noqa: BLE001  # its reader's
            self.failure = error
        finally:
            have_called(self._loop, self.over.set)


class Question:
    """Asks a server for its status, in another hub; one that is busy answers later.

    Args:
        pid: The server.
    """

    def __init__(self, pid: gpool.Pid) -> None:
        self._pid = pid
        self._loop: Any = gevent.get_hub().loop  # of those who wait
        self.over = Event()
        self.status: gpool.sys.Status | None = None
        self.failure: BaseException | None = None

    def begin(self) -> None:
        """Have it asked soon; never blocks."""
        if not have_called(self._pid.hub.loop, self._ask):
            self.failure = HubGone()
            self.over.set()

    def _ask(self) -> None:
        try:
            gpool.sys.post_status_request(self._pid, self)
        except gpool.GPoolError as error:
            self.fail(error)

    def answer(self, status: gpool.sys.Status) -> None:
        """Take the answer; in the server's process."""
        self.status = status
        have_called(self._loop, self.over.set)

    def fail(self, error: BaseException) -> None:
        """Take note that there will be none; in the server's process."""
        self.failure = error
        have_called(self._loop, self.over.set)


def said_by(failure: BaseException) -> str:
    """Return an error's sentence: gpool's words it, of any other its class and arguments do."""
    if isinstance(failure, gpool.GPoolError):
        try:
            return cut(str(failure))
        except Exception:  # noqa: BLE001  # it may word what a user has raised
            return shown(failure)
    return shown(failure)


IS_ERRAND: Final = "ObserverErrand.run"  # the initial call of such a process
