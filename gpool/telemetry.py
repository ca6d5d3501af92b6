"""What happened, as typed events: the core logs nothing, it emits these.

A listener is any callable of one argument.  It runs in the process that emits
and must not switch greenlets; what it raises becomes a :class:`ListenerFailed`
for the others and harms nobody.

    >>> seen = []
    >>> attach(seen.append)
    >>> emit(CleanupFailed("#PID<1>", ValueError("x")))
    >>> detach(seen.append)
    >>> seen
    [CleanupFailed(process='#PID<1>', exception=ValueError('x'))]

Not here: counters (``metrics.py``), words (``integrations/stdlib_logging.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; `process` names the process that it is about."""

    process: Any


@dataclass(frozen=True, slots=True)
class ProcessCrashed(Event):
    """A process died of a reason other than normal, shutdown or (shutdown, x).

    Source:
        OTP's crash report and server report, which gpool joins into one.
    """

    name: Any
    reason: Any
    initial_call: str
    ancestors: tuple[Any, ...]
    links: tuple[Any, ...]
    unread: int  # messages that died with it
    last_message: Any = None


@dataclass(frozen=True, slots=True)
class ProcessIsZombie(Event):
    """A greenlet swallowed its exit; its process was declared dead."""

    stack: tuple[str, ...]  # formatted frames, outermost first


@dataclass(frozen=True, slots=True)
class CleanupFailed(Event):
    """A ``finally``, ``terminate`` or monitor function of a dying process raised."""

    exception: BaseException


@dataclass(frozen=True, slots=True)
class UnexpectedMessage(Event):
    """A server or supervisor got a message that it does not handle, and dropped it."""

    message: Any


@dataclass(frozen=True, slots=True)
class ListenerFailed(Event):
    """A listener raised while it was told of `event`; `process` is the listener."""

    event: Event
    exception: Exception


@dataclass(frozen=True, slots=True)
class SupervisorReport(Event):
    """A supervisor's line about one child.

    `context` is OTP's word: "child_terminated", "start_error", "shutdown_error"
    or "shutdown" (the restart intensity is spent).
    """

    context: str
    reason: Any
    child: Any  # the child's id
    child_pid: Any


@dataclass(frozen=True, slots=True)
class HookFailed(Event):
    """A callable of a resource (`hook`) raised; the resource is closed."""

    hook: str
    exception: BaseException


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """A pool's worker is up; `process` is its pid."""

    pool: str


@dataclass(frozen=True, slots=True)
class WorkerStartFailed(Event):
    """A pool's worker did not start; the next try comes after `delay` seconds."""

    pool: str
    reason: Any
    delay: float


@dataclass(frozen=True, slots=True)
class WorkerDied(Event):
    """A pool's worker is dead; `holder` is the client that had it, or None."""

    pool: str
    reason: Any
    holder: Any


@dataclass(frozen=True, slots=True)
class LeaseReclaimed(Event):
    """A client died with a worker in its hands, or dropped its lease (the reason then).

    `line` is where it had checked out.
    """

    pool: str
    reason: Any
    line: str


@dataclass(frozen=True, slots=True)
class PoolRose(Event):
    """A pool's manager has taken over the books; `process` is its pid, `epoch` counts them."""

    pool: str
    epoch: int


@dataclass(frozen=True, slots=True)
class PoolHasFailed(Event):
    """A pool fell more often than it may; its waiters were told, it will be revived."""

    pool: str
    reason: Any


Listener = Callable[[Event], object]

_listeners: tuple[Listener, ...] = ()  # replaced, never changed: emit may be interrupted


def attach(listener: Listener) -> None:
    """Call `listener` with every event from now on; twice is once."""
    global _listeners
    if not callable(listener):
        raise TypeError(f"listener: expected a callable, got {listener!r}")
    if listener not in _listeners:
        _listeners = (*_listeners, listener)


def detach(listener: Listener) -> None:
    """Stop calling `listener`; harmless when it was not attached."""
    global _listeners
    _listeners = tuple(known for known in _listeners if known != listener)


def emit(event: Event) -> None:
    """Tell all listeners of `event`."""
    for listener in _listeners:
        try:
            listener(event)
        except Exception as exception:  # noqa: BLE001  # the emitter is not to be harmed
            if not isinstance(event, ListenerFailed):
                emit(ListenerFailed(listener, event, exception))
