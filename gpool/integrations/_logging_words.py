"""The words of ``stdlib_logging.py``, and the plain data of its records.

Not here: how often something is told, and who writes it (``stdlib_logging.py``).
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from gpool import telemetry
from gpool.errors import in_words, one_line
from gpool.otp.pid import Error, Pid
from gpool.otp.supervision import place_of, supervisor_of
from gpool.pool.pools import running_pools

Area = Literal["process", "supervisor", "pool", "telemetry"]

LONGEST: Final = 1000  # characters of a reason, a message

# --- Words --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Words:
    """What is said of an event."""

    level: int
    area: Area
    text: str  # as ``logging`` has it: the same for all that are alike
    args: tuple[Any, ...]
    error: Any = None  # an Error or an exception whose traceback is shown
    in_short: bool = False  # its traceback is not shown, but known
    once: bool = False  # one record in a window says it all
    more: dict[str, Any] = field(default_factory=dict)  # plain data beside the event's

    def plainly(self) -> Words:
        """Return their first line, as text: for later, it keeps no process and no error alive."""
        line = (self.text % self.args).partition("\n")[0]
        return replace(self, text="%s", args=(line,), error=None)


def words(event: telemetry.Event) -> Words | None:
    """Return what is said of an event that somebody should read; None for all others."""
    match event:
        case telemetry.ProcessCrashed(pid, name, reason, initial_call, ancestors):
            who = f"{pid!r} ({initial_call})" if name is None else f"{name!r} {pid!r}"
            # To kill a plain greenlet is no error; nobody has started it as a process.
            is_meant = reason == "killed" and not ancestors
            level = logging.DEBUG if is_meant else logging.ERROR
            return Words(level, "process", "%s crashed: %s", (who, brief(reason)), reason)
        case telemetry.SupervisorReport(pid, context, reason, child, child_pid):
            return Words(
                logging.ERROR, "supervisor", "supervisor %r, child %r %r: %s: %s",
                (pid, child, child_pid, context.replace("_", " "), brief(reason)), reason,
            )  # fmt: skip
        case telemetry.CleanupFailed(pid, error):
            return Words(
                logging.ERROR, "process", "%r: its cleanup failed: %s", (pid, brief(error)), error
            )
        case telemetry.ListenerFailed(listener, _, error):
            return Words(
                logging.ERROR, "telemetry", "listener %s failed: %s",
                (repr(listener)[:LONGEST], brief(error)), error,
            )  # fmt: skip
        case telemetry.HookFailed(pid, "check", error):  # the way in which it says: dead
            return Words(
                logging.WARNING, "pool", "check of %r raised %s; its resource is closed",
                (pid, brief(error)), error, once=True, in_short=True,
            )  # fmt: skip
        case telemetry.HookFailed(pid, hook, error):
            return Words(
                logging.ERROR, "pool", "%s of %r raised %s; its resource is closed",
                (hook, pid, brief(error)), error,
            )  # fmt: skip
        case telemetry.ProcessIsZombie(pid, stack):
            return Words(
                logging.ERROR, "process", "%r swallows its exit and runs on:\n%s",
                (pid, "".join(stack)),
            )  # fmt: skip
        case telemetry.UnexpectedMessage(pid, message):
            return Words(
                logging.WARNING, "process", "%r dropped an unexpected message: %s",
                (pid, brief(message)),
            )  # fmt: skip
        case telemetry.PoolEvent():
            return _of_pool(event)
    return None


def _of_pool(event: telemetry.PoolEvent) -> Words | None:
    match event:
        case telemetry.WorkerStartFailed(_, pool, reason, delay):
            return Words(
                logging.WARNING, "pool", "pool %r: a worker did not start, next try %s: %s",
                (pool, when(delay), brief(reason, in_words)), once=True,
            )  # fmt: skip
        case telemetry.PoolStarted(_, pool, size, more):
            return Words(
                logging.INFO, "pool", "pool %r runs: at most %d workers in this process; "
                "each process has a pool of its own", (pool, size + more),
            )  # fmt: skip
        case telemetry.PoolResized(_, pool, size, more):
            return Words(
                logging.INFO, "pool", "pool %r resized: at most %d workers in this process",
                (pool, size + more),
            )  # fmt: skip
        case telemetry.PoolHasFailed(_, pool, reason):
            return Words(
                logging.ERROR, "pool", "pool %r has failed: %s; it will be revived",
                (pool, brief(reason, in_words)),
            )  # fmt: skip
        case telemetry.ResourceClosed(pid, pool, gave_up=True):
            return Words(
                logging.ERROR, "pool", "pool %r: %r did not get a resource closed in time, at the "
                "second try; it may still be open, and counts no more", (pool, pid),
            )  # fmt: skip
        case telemetry.CheckoutFailed(pid, pool, "deadlock"):
            return Words(
                logging.ERROR, "pool",
                "pool %r: %r would have waited for ever for what others hold who wait", (pool, pid),
            )  # fmt: skip
    return _of_lease(event)


def _of_lease(event: telemetry.PoolEvent) -> Words | None:
    match event:
        case telemetry.LeaseReclaimed(pid, pool, reason, line, seconds):
            return _warn(
                "pool %r: %r died (%s) with a worker from %s, held for %s; reclaimed",
                pool, pid, brief(reason), line, span(seconds),
            )  # fmt: skip
        case telemetry.LeaseForgotten(pid, pool, line, seconds):
            return _warn(
                "pool %r: %r forgot to give back the worker from %s, held for %s; "
                "its scope has ended, and it is not lent again", pool, pid, line, span(seconds),
            )  # fmt: skip
        case telemetry.HeldTooLong(pid, pool, seconds, line, stack, revoked):
            taken = "; it was taken away" if revoked else ""
            return _warn(
                "pool %r: %r has held a worker from %s for %s%s; it is at\n%s",
                pool, pid, line, span(seconds), taken, "".join(stack),
            )  # fmt: skip
        case telemetry.ReturnedLate(pid, pool, seconds, line):
            return _warn(
                "pool %r: %r returned the worker from %s after %s", pool, pid, line, span(seconds)
            )
    return None


def starts_again(pool: str, seconds: float, failed: int) -> Words:
    """Return what is said when a start has gone well, `seconds` after the first that failed."""
    return Words(
        logging.WARNING, "pool", "pool %r: workers start again after %s, %d failed",
        (pool, span(seconds), failed), more={"outage": seconds, "failed": failed},
    )  # fmt: skip


def _warn(text: str, *args: Any) -> Words:
    return Words(logging.WARNING, "pool", text, args)


def span(seconds: float) -> str:
    """Return a span of time as somebody would say it: 7 ms, 1.5 s, 72 s."""
    thousandths = round(seconds * 1000)
    if thousandths < 1000:
        return f"{thousandths} ms" if thousandths > 0 else "less than 1 ms"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{round(seconds, 1):g} s"


def when(seconds: float) -> str:
    """Return when something comes: in 7 ms, or at once."""
    return f"in {span(seconds)}" if round(seconds * 1000) > 0 else "at once"


def traceback_of(error: Any) -> str | None:
    """Return the traceback of an Error, or of an exception that has one still."""
    if isinstance(error, Error):
        return error.format().rstrip("\n")
    if isinstance(error, BaseException) and error.__traceback__ is not None:
        return "".join(traceback.format_exception(error)).rstrip("\n")
    return None


def exception_of(reason: Any) -> Any:
    """Return the exception that a process died of, or whatever else its reason is."""
    return reason.exception if isinstance(reason, Error) else reason


def brief(reason: Any, word: Callable[[Any], str] = repr) -> str:
    """Return a reason on one line; what it is, if its own words fail."""
    error = exception_of(reason)
    try:
        text = one_line(error) if isinstance(error, BaseException) else word(error)
    except Exception:  # noqa: BLE001  # a user's repr
        text = f"<{type(error).__qualname__}, whose repr fails>"
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


# --- Facts --------------------------------------------------------------------------

_UNSAID: Final = {"process", "ancestors", "links", "last_message", "stack"}  # of an event's fields


def facts(event: telemetry.Event) -> dict[str, Any]:
    """Return what is known of an event and its process, as plain data: JSON can have it."""
    pid = event.process
    known = {name: getattr(event, name) for name in event.__dataclass_fields__}
    said = {name: plain(value) for name, value in known.items() if name not in _UNSAID}
    about: dict[str, Any] = {"event": type(event).__name__, "pid": repr(pid)[:LONGEST]}
    error = exception_of(next((known[k] for k in ("reason", "exception") if k in known), None))
    if isinstance(error, BaseException):
        about["error"] = type(error).__qualname__
    if isinstance(pid, Pid):
        about |= _place(pid)
    if isinstance(event, telemetry.SupervisorReport):
        about["supervisor"] = about["pid"]  # of the child, not its own
    if "event" in said:  # that a listener was told
        said["told_of"] = said.pop("event")
    return about | said


def _place(pid: Pid) -> dict[str, Any]:
    """Return where a process stands in the tree."""
    place = place_of(pid)
    found: dict[str, Any] = {"name": plain(pid.name)}
    if place is not None:
        found |= {
            "supervisor": repr(supervisor_of(pid)),
            "child": plain(place.id),
            "restarts": place.restarts,
        }
    above = {pid, *pid.ancestors}
    pool = next((one.name for one in running_pools() if one.tree().pool_sup in above), None)
    return found if pool is None else found | {"pool": pool}


def plain(value: Any) -> Any:
    """Return a value that JSON can have."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, telemetry.Event):
        return type(value).__name__
    return brief(value)
