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

Not here: counters (``metrics.py``), words (``integrations/_logging_words.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, cast


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
    """A listener raised while it was told of `event`; `process` is the listener.

    `event` is None if it is a meter that was told of a lease.
    """

    event: Event | None
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


# --- Pools --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PoolEvent(Event):
    """Base of the events of one pool; `pool` is its name."""

    pool: str


Refusal = Literal["timeout", "full", "failing", "deadlock", "closed", "failed", "cancelled"]
Chore = Literal["finish", "reset", "check"]
Breaker = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class WorkerStarting(PoolEvent):
    """A pool's worker, `process`, initialises; WorkerStarted or WorkerStartFailed follows.

    WorkerDied does if its pool falls or stops meanwhile.
    """


@dataclass(frozen=True, slots=True)
class WorkerStarted(PoolEvent):
    """A pool's worker is up, after `seconds`; `process` is its pid."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WorkerStartFailed(PoolEvent):
    """A pool's worker did not start; the next try comes after `delay` seconds."""

    reason: Any
    delay: float


@dataclass(frozen=True, slots=True)
class WorkerStopping(PoolEvent):
    """A worker has to go, `process` is its pid or None; WorkerDied or ResourceClosed follows.

    `reason` is one of these, or what ``discard`` was told ("discarded" if nothing):

    * "overflow": there are more than ``size``, for longer than ``overflow_ttl``.
    * "idle_timeout": nobody has used it for so long.
    * "max_age": it was that old.
    * "max_uses": it was lent that often.
    * "max_hold": it was taken away from a client that held it for too long.
    * "recycled": by ``recycle()``.
    * "resized": there are more than a ``resize()`` has left room for.
    * "check_failed": its check raised, or said that it is dead.
    * "reset_failed": its reset raised.
    * "overdue": it did not finish, or was not reset or checked, in time.
    * "suspected": one of its generation was found dead.
    * "dirty": ``is_dirty`` says so.
    * "lost": its worker had died, or its pool had fallen, in its client's hands.
    * "forgotten": its client still had it when its scope ended.
    * "exit": somebody else has told it to exit.
    * "stopped": its pool stops.
    * ``("owner_died", reason)``: the client that had it did, or dropped its lease.
    * ``("left_by", exception)``: that ended a ``with``, or a hook.
    * ``("broken", exception)``: ``is_broken`` says so.
    * ``("hook_failed", exception)``: ``is_dirty`` or ``is_broken`` raised it.
    """

    reason: Any


@dataclass(frozen=True, slots=True)
class WorkerRecovered(PoolEvent):
    """A worker is fit to be lent again, `seconds` after its `chore` was begun.

    It has done what its last client had asked for ("finish"), its resource was reset
    ("reset") or found alive ("check").  One that failed or was overdue is told of by
    WorkerStopping.
    """

    chore: Chore
    seconds: float


@dataclass(frozen=True, slots=True)
class WorkerDied(PoolEvent):
    """A pool's worker is dead; `holder` is the client that had it, or None.

    If it had a resource that is still open, ResourceClosed follows.
    """

    reason: Any
    holder: Any


@dataclass(frozen=True, slots=True)
class ResourceClosed(PoolEvent):
    """A resource that had lost its worker is closed, by `process`; its place is free.

    With `gave_up` its close was begun twice and never ended: it may still be open.
    """

    gave_up: bool


@dataclass(frozen=True, slots=True)
class CheckoutFailed(PoolEvent):
    """A client (`process`) got no worker.

    `reason` is "timeout", "full" (``max_waiting``), "failing" (``fail_fast``),
    "deadlock", "closed" or "failed" (its pool), or "cancelled": the client was killed
    while it waited, or cut by a ``gevent.Timeout`` of its own.
    """

    reason: Refusal


@dataclass(frozen=True, slots=True)
class LeaseReclaimed(PoolEvent):
    """A client died with a worker in its hands, or dropped its lease (the reason then).

    It had had it for `seconds`; `line` is where it had checked out.
    """

    reason: Any
    line: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaseForgotten(PoolEvent):
    """A client (`process`) had not given its worker back when its scope ended, which ended that.

    It had had it for `seconds`; `line` is where it had checked out.
    """

    line: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaseBroken(PoolEvent):
    """A client's worker died in its hands, of `reason`, and left nothing to give back.

    It had had it for `seconds`; `line` is where it had checked out.
    """

    reason: Any
    line: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HeldTooLong(PoolEvent):
    """A client (`process`) has held its worker for longer than ``max_hold``.

    `stack` is where it is now, formatted frames, outermost first; empty if it is not
    known.  With `revoked` the worker was taken away.
    """

    seconds: float
    line: str  # where it had checked out
    stack: tuple[str, ...]
    revoked: bool


@dataclass(frozen=True, slots=True)
class ReturnedLate(PoolEvent):
    """What HeldTooLong told of came back after all, after `seconds`: slow, but no leak."""

    seconds: float
    line: str


@dataclass(frozen=True, slots=True)
class BreakerChanged(PoolEvent):
    """Whether starts are made freely ("closed"), not now ("open"), or one by one ("half_open")."""

    breaker: Breaker


@dataclass(frozen=True, slots=True)
class PoolStarted(PoolEvent):
    """A pool has its first manager; in this process there may be ``size + max_overflow`` workers.

    Every other process that runs it, as those forked off one do, has as many of its own.
    """

    size: int
    max_overflow: int


@dataclass(frozen=True, slots=True)
class PoolRose(PoolEvent):
    """A pool's manager has taken over the books; `process` is its pid, `epoch` counts them."""

    epoch: int


@dataclass(frozen=True, slots=True)
class PoolReady(PoolEvent):
    """So many workers as the pool needs to be ready are up."""

    up: int


@dataclass(frozen=True, slots=True)
class PoolFell(PoolEvent):
    """A pool's manager, `process`, is not in charge any more; another one will be.

    The end of one that was stopped is no fall.
    """

    reason: Any
    epoch: int


@dataclass(frozen=True, slots=True)
class PoolHasFailed(PoolEvent):
    """A pool fell more often than it may; its waiters were told, it will be revived."""

    reason: Any


@dataclass(frozen=True, slots=True)
class PoolSuspended(PoolEvent):
    """Nothing is lent or started until it is resumed."""


@dataclass(frozen=True, slots=True)
class PoolResumed(PoolEvent):
    """Workers are lent again."""


@dataclass(frozen=True, slots=True)
class PoolResized(PoolEvent):
    """Other numbers of workers hold from now on."""

    size: int
    max_overflow: int


@dataclass(frozen=True, slots=True)
class PoolRecycled(PoolEvent):
    """All workers that there are will be replaced in `within` seconds."""

    within: float


@dataclass(frozen=True, slots=True)
class PoolClosing(PoolEvent):
    """Nobody is let in any more; PoolReopened or PoolStopped follows."""


@dataclass(frozen=True, slots=True)
class PoolReopened(PoolEvent):
    """Clients are let in again."""


@dataclass(frozen=True, slots=True)
class PoolStopped(PoolEvent):
    """A pool was stopped; `left` of its workers are not yet gone."""

    left: int


EVENTS: Final[tuple[type[Event], ...]] = (
    ProcessCrashed, ProcessIsZombie, CleanupFailed, UnexpectedMessage, ListenerFailed,
    SupervisorReport, HookFailed, WorkerStarting, WorkerStarted, WorkerStartFailed,
    WorkerStopping, WorkerRecovered, WorkerDied, ResourceClosed, CheckoutFailed, LeaseReclaimed,
    LeaseForgotten, LeaseBroken, HeldTooLong, ReturnedLate, BreakerChanged, PoolStarted, PoolRose,
    PoolReady, PoolFell, PoolHasFailed, PoolSuspended, PoolResumed, PoolResized, PoolRecycled,
    PoolClosing, PoolReopened, PoolStopped,
)  # fmt: skip
"""Every event that is emitted."""


# --- Listeners ----------------------------------------------------------------------


class Meter(Protocol):
    """A listener that wants to know of every lease as well, which are no events.

    Both methods run in the client, at every checkout and checkin, and must be quick
    and not switch greenlets.  A lease that ends otherwise is told of by exactly one of
    LeaseReclaimed (its client dies), LeaseBroken (its worker does) and HeldTooLong (it
    is revoked).  Events come a moment later than what they tell, in their order.
    """

    def __call__(self, event: Event) -> object:
        """Take note of an event."""

    def checked_out(self, lease: Any, now: float) -> object:
        """A client has got a worker; ``lease.waited`` says how long it has waited."""

    def checked_in(self, lease: Any, now: float) -> object:
        """A client has given its worker back; ``now - lease.since`` says how long it had it."""


Listener = Callable[[Event], object]

_listeners: tuple[Listener, ...] = ()  # replaced, never changed: emit may be interrupted
meters: tuple[Meter, ...] = ()  # those of the listeners that want to know of leases


def attach(listener: Listener) -> None:
    """Call `listener` with every event from now on; twice is once; see also :class:`Meter`."""
    if not callable(listener):
        raise TypeError(f"listener: expected a callable, got {listener!r}")
    if listener not in _listeners:
        _listen((*_listeners, listener))


def detach(listener: Listener) -> None:
    """Stop calling `listener`; harmless when it was not attached."""
    _listen(tuple(known for known in _listeners if known != listener))


def _listen(listeners: tuple[Listener, ...]) -> None:
    global _listeners, meters
    _listeners = listeners
    meters = tuple(cast("Meter", one) for one in listeners if hasattr(one, "checked_out"))


def is_heard() -> bool:
    """Tell whether anybody listens; if not, what takes time to word need not be."""
    return bool(_listeners)


def emit(event: Event) -> None:
    """Tell all listeners of `event`."""
    for listener in _listeners:
        try:
            listener(event)
        except Exception as exception:  # noqa: BLE001  # the emitter is not to be harmed
            if not isinstance(event, ListenerFailed):
                emit(ListenerFailed(listener, event, exception))


def checked_out(lease: Any, now: float) -> None:
    """Tell all meters that a client has got a worker."""
    for meter in meters:
        try:
            meter.checked_out(lease, now)
        except Exception as exception:  # noqa: BLE001  # the client is not to be harmed
            emit(ListenerFailed(meter, None, exception))


def checked_in(lease: Any, now: float) -> None:
    """Tell all meters that a client has given its worker back."""
    for meter in meters:
        try:
            meter.checked_in(lease, now)
        except Exception as exception:  # noqa: BLE001  # the client is not to be harmed
            emit(ListenerFailed(meter, None, exception))
