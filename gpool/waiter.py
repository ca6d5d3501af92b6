"""One wait of one greenlet: the only place where gpool switches to the hub.

A waiter is woken once, by whoever calls :meth:`Waiter.wake` first: the thing
that was waited for, or the deadline.  A greenlet that is thrown out of its wait
(an exit signal, a kill, a ``gevent.Timeout``) takes its waiter with it: a wake-up
that was already queued is stopped, so it can never land in a later wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Protocol

from gevent import GreenletExit, get_hub, monkey
from gevent.hub import Hub
from greenlet import getcurrent, greenlet

from gpool import clock

#: Return the identity of the running thread; in a patched process ``threading`` tells
#: that of the greenlet instead.
get_ident: Callable[[], int] = monkey.get_original("threading", "get_ident")


class Expired(Exception):
    """The deadline of a wait has passed; callers turn it into an error of theirs."""


def check_timeout(timeout: Any, name: str = "timeout") -> None:
    """Raise, and name it, unless `timeout` is None or seconds, 0 or more.

    Before a wait, not in it: libev spins for ever over a timer of NaN seconds.
    """
    if timeout is None or (type(timeout) is float and timeout >= 0):
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):  # a union is slower
        raise TypeError(f"{name}: expected seconds or None, got {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"{name}: expected seconds >= 0 or None, got {timeout!r}")


_forks = 0  # times that this operating system process was forked off another


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


_switch: Final = greenlet.switch  # to call it of the class makes no bound method

_EXPIRED: Final = object()  # the value of a wait whose deadline came first


def _parks() -> bool:
    return getattr(getcurrent(), "gpool_parks", False)


_switches: Final[dict[type, Callable[[Any], Any]]] = {}  # how greenlets switch to the hub


def _switch_of(kind: type) -> Callable[[Any], Any]:
    """Return how greenlets of a class switch to the hub: gevent's way takes time for their hook.

    Few have one, a ``switch_out``; the hub's own refuses to wait.
    """
    if kind not in _switches:
        _switches[kind] = Hub.switch if hasattr(kind, "switch_out") else greenlet.switch
    return _switches[kind]


class Waiter:
    """A place where one greenlet waits for one value."""

    __slots__ = ("_callback", "_greenlet", "_loop", "value", "woken")

    woken: Any  # whether it was; signal handlers set it, too, so mypy is not to be clever
    _loop: Any  # of the one that waits

    def __init__(self) -> None:
        self.woken = False  # set once, by wake() or the deadline
        self.value: Any = None  # what wake() brought
        self._greenlet: Any = None  # the one that waits, while it does
        self._callback: Any = None  # its queued wake-up, to be stopped if it leaves early

    def wake(self, value: Any = None) -> bool:
        """Hand `value` to the greenlet that waits, or will; the first call wins.

        Never switches.  Call it in the thread of the waiting greenlet.

        Returns:
            False when the wait is over already: woken, expired or left.
        """
        if self.woken:
            return False
        self.value = value
        if self._greenlet is None or self._callback is not None:
            self.woken = True
            return True
        try:
            self.woken = True  # first: a signal handler that wakes it meanwhile comes too late
            self._callback = self._loop.run_callback(_switch, self._greenlet, self)
        except BaseException:  # one that raises: the next call wakes
            self.woken, self._callback = False, None
            self._take_back()
            raise
        return True

    def _take_back(self) -> None:
        """Stop the wake-up that is queued but not noted: it must not land in a later wait."""
        for callback in self._loop._callbacks:
            if callback.args and callback.args[-1] is self:
                callback.stop()

    def wait(self, timeout: float | None = None, hub: Any = None) -> Any:
        """Block until woken and return the value.

        Args:
            timeout: Seconds; None waits for ever, 0 polls.
            hub: The running thread's, if the caller knows it.

        Raises:
            Expired: Nobody called :meth:`wake` in time.
        """
        if self.woken:
            return self.value
        if timeout is not None and timeout <= 0:
            self.woken = True
            raise Expired
        if hub is None:
            hub = get_hub()
        me, lane, forks = getcurrent(), None, _forks
        try:
            switch = _switches[type(me)]
        except KeyError:
            switch = _switch_of(type(me))
        try:
            self._loop = hub.loop
            self._greenlet = me
            del me  # tracebacks would keep it
            if self.woken:  # by a signal handler, before it could call us back
                return self.value
            if timeout is not None:
                lane = clock.expire_later(self, timeout, hub)
            # Anything else that comes back is a stray wake-up of an earlier wait.
            # In a forked child gpool's own greenlets stay where they are.
            while (brought := switch(hub)) is not self or (forks != _forks and _parks()):
                if isinstance(brought, GreenletExit):
                    raise brought
        except BaseException:
            brought = None  # its traceback has this frame
            self._leave()
            raise
        finally:
            self.woken = True  # it is not if a signal handler struck whoever woke us
            self._greenlet = None
            if lane is not None:
                lane.leave(self)
        if self.value is _EXPIRED:
            raise Expired
        return self.value

    def renew(self) -> None:
        """Be as new: the last wait is over, and nobody who might wake it knows of it any more."""
        self.woken, self.value, self._callback = False, None, None

    def _leave(self) -> None:
        self.woken = True
        if self._callback is not None:
            self._callback.stop()

    def expire(self) -> None:
        """End the wait, unless it has ended: the deadline has come."""
        self.wake(_EXPIRED)


class Inbox(Protocol):
    """Whatever fills while its owner waits; a mailbox."""

    messages: Any
    unanswered: Any  # what the owner still has to do, if there is anything
    resting: bool  # whether it has nothing to do
    waiter: Any  # is woken by the next that comes in, and taken out then


class Seat(Waiter):
    """Where one greenlet waits, again and again and without a deadline, for what comes in.

    It is made by the one that waits.
    """

    __slots__ = ("_hub", "_switch")

    def __init__(self) -> None:
        super().__init__()
        me, hub = getcurrent(), get_hub()
        self._hub: Any = hub
        self._loop = hub.loop
        self._switch = _switch_of(type(me))
        self._greenlet = me  # always: a wake-up before the switch is heard after it

    def rest(self, inbox: Inbox) -> None:
        """Block until something is in `inbox`."""
        switch, hub, forks = self._switch, self._hub, _forks
        while not inbox.messages:
            try:
                self.woken, self._callback = False, None  # first: from then on none is slept on
                inbox.waiter = self
                inbox.resting = not inbox.unanswered
                while (brought := switch(hub)) is not self or (forks != _forks and _parks()):
                    if isinstance(brought, GreenletExit):
                        raise brought
            except BaseException:
                brought = None  # its traceback has this frame
                self._leave()
                raise
            finally:
                self.woken = True  # it is not if a signal handler struck whoever woke us
                inbox.resting = False
                inbox.waiter = None


_WAITS: Final = frozenset({Waiter.wait.__code__, Seat.rest.__code__})


def throw_at_rest(greenlet: Any, error: GreenletExit) -> bool:
    """Raise in a greenlet, if it waits here; in the hub, until it has ended or blocks.

    By a switch, and the wait raises: a throw takes a fifth of all that a greenlet costs.

    Returns:
        False if it waits elsewhere, or is not suspended: nothing was done.
    """
    if getattr(greenlet.gr_frame, "f_code", None) not in _WAITS:
        return False
    greenlet.switch(error)
    return True


class Gate:
    """A place where any number of greenlets wait until it is opened."""

    __slots__ = ("_waiters", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._waiters: dict[Waiter, None] = {}

    def open(self) -> None:
        """Let all pass, until it is shut; never switches."""
        self.is_open = True
        self.turn_away()

    def turn_away(self) -> None:
        """Wake those who wait, open or not: they see for themselves; never switches."""
        for waiter in list(self._waiters):
            waiter.wake()

    def shut(self) -> None:
        """Let those who come later wait; never switches."""
        self.is_open = False

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it to open."""
        return bool(self._waiters)

    def wait(self, timeout: float | None = None) -> None:
        """Block until it is open, or those who wait are turned away.

        Args:
            timeout: Seconds; None waits for ever, 0 polls.

        Raises:
            Expired: It was not opened in time.
        """
        if self.is_open:
            return
        waiter = Waiter()
        self._waiters[waiter] = None
        try:
            waiter.wait(timeout)
        finally:
            del self._waiters[waiter]
