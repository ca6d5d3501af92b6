"""Words for what happens, to the loggers ``gpool.*`` of the standard library.

The Application attaches :func:`log` when it starts, so that a bare script sees
crashes, failed starts and supervisor reports.  A kit without pools attaches it by hand:

    >>> from gpool import telemetry
    >>> telemetry.attach(log)
    >>> telemetry.detach(log)

Rules:

* ``gpool.process``, ``gpool.supervisor``, ``gpool.pool`` and ``gpool.telemetry`` say what is
  about them.  None has a handler, a NullHandler neither: it would hide crashes from a
  script that has not configured logging.  Levels silence them, as usual.
* A death is told once: a supervisor's report of it only if nobody else has told.  Those that
  a death takes along, by a link, have no record of their own.
* Of one child and one kind of error at most `limit` records are written in a `window`, then
  one that says how many were left out.
* ``record.gpool`` is a dict of plain data; the record of an exception has it, and its
  traceback.
* A listener only words.  Handlers may block, so a greenlet of its own runs them, in the
  context of who emitted.  What is left is written at exit, before whatever was registered
  with ``atexit`` until the first record; a process that is killed takes it along.

Source:
    OTP's ``logger``: crash and supervisor reports, burst limit; structlog and Sentry read
    the attributes of records.
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import os
import sys
import traceback
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import gevent

from gpool import clock, telemetry
from gpool.otp.pid import Error, Pid
from gpool.otp.supervision import place_of, supervisor_of
from gpool.pool.options import check_seconds
from gpool.pool.pools import running_pools

Area = Literal["process", "supervisor", "pool", "telemetry"]

LIMIT: Final = 5  # records of one child and one kind of error in a window
WINDOW: Final = 60.0  # s
TOLD: Final = 256  # deaths remembered, until their supervisors report them
OPEN: Final = 1024  # windows; if there are more, those that are over are forgotten
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
            return _warn(
                "pool %r: a worker did not start, next try in %.3g s: %s",
                pool, delay, brief(reason),
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
                (pool, brief(reason)),
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
                "pool %r: %r died (%s) with a worker from %s, held for %.3g s; reclaimed",
                pool, pid, brief(reason), line, seconds,
            )  # fmt: skip
        case telemetry.LeaseForgotten(pid, pool, line, seconds):
            return _warn(
                "pool %r: %r forgot to give back the worker from %s, held for %.3g s; "
                "its scope has ended, and it is not lent again", pool, pid, line, seconds,
            )  # fmt: skip
        case telemetry.HeldTooLong(pid, pool, seconds, line, stack, revoked):
            taken = "; it was taken away" if revoked else ""
            return _warn(
                "pool %r: %r has held a worker from %s for %.3g s%s; it is at\n%s",
                pool, pid, line, seconds, taken, "".join(stack),
            )  # fmt: skip
        case telemetry.ReturnedLate(pid, pool, seconds, line):
            return _warn(
                "pool %r: %r returned the worker from %s after %.3g s", pool, pid, line, seconds
            )
        case telemetry.LeaseForgotten(pid, pool, line, seconds):
            return _warn(
                "pool %r: %r forgot to give back the worker from %s, held for %.3g s; "
                "its scope has ended, and it is not lent again",
                pool, pid, line, seconds,
            )  # fmt: skip
    return None


def _warn(text: str, *args: Any) -> Words:
    return Words(logging.WARNING, "pool", text, args)


def brief(reason: Any) -> str:
    """Return a reason in one line; what it is, if its own words fail."""
    error = reason.exception if isinstance(reason, Error) else reason
    try:
        if isinstance(error, BaseException):
            text = traceback.format_exception_only(error)[-1].strip()
        else:
            text = repr(error)
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
    error = next((known[one] for one in ("reason", "exception") if one in known), None)
    error = error.exception if isinstance(error, Error) else error
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


def _likeness(event: telemetry.Event) -> tuple[Any, ...]:
    """Return what events have in common of which a few suffice: the child, and the error."""
    known = {name: getattr(event, name) for name in event.__dataclass_fields__}
    error = next((known[one] for one in ("reason", "exception", "message") if one in known), None)
    error = error.exception if isinstance(error, Error) else error
    kind = error if isinstance(error, str) else type(error).__qualname__
    rest = tuple(plain(known.get(one)) for one in ("pool", "child", "context", "hook", "line"))
    return (type(event), _path(event.process), kind, *rest)


def _path(process: Any) -> tuple[Any, ...]:
    """Return the ids of a process and its supervisors: it is the same after a restart."""
    if not isinstance(process, Pid):
        return (getattr(process, "__qualname__", type(process).__qualname__),)
    path: list[Any] = []
    for pid in (process, *process.ancestors):
        place = place_of(pid)
        path.append(plain(pid.name or pid.initial_call) if place is None else plain(place.id))
        if place is None:
            break
    return tuple(path)


# --- The listener -------------------------------------------------------------------


@dataclass(slots=True)
class _Window:
    """What was written of the same since it began."""

    begun: float  # seconds of gpool's clock
    written: int = 0
    left_out: int = 0
    last: Any = None  # words and facts of the last one that was left out


@dataclass(slots=True)
class _Page:
    """A record, and in whose context it is to be written."""

    logger: logging.Logger
    record: logging.LogRecord
    context: contextvars.Context = field(default_factory=contextvars.copy_context)


class Log:
    """A listener that words what somebody should read; see :func:`install`.

    Args:
        limit: Records of one child and one kind of error in a window; None: all, 0: none,
            but for how many there were.
        window: Seconds from the first of them to the record that counts those left out.

    Raises:
        TypeError, ValueError: An argument is wrong.
    """

    def __init__(self, *, limit: int | None = LIMIT, window: float = WINDOW) -> None:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise TypeError(f"limit: expected a whole number or None, got {limit!r}")
        if limit is not None and limit < 0:
            raise ValueError(f"limit: expected 0 or more, got {limit!r}")
        check_seconds("window", window)
        if not window:
            raise ValueError(f"window: expected seconds > 0, got {window!r}")
        self.limit = limit
        self.window = window
        self._pages: deque[_Page] = deque()  # to be written, oldest first
        self._writer: Any = None  # the greenlet that does
        self._windows: dict[tuple[Any, ...], _Window] = {}  # likeness -> since when
        self._told: dict[Pid, frozenset[Pid]] = {}  # whose death was told, oldest first -> links
        _logs.add(self)

    def __call__(self, event: telemetry.Event) -> None:
        """Have an event logged that somebody should read; never blocks."""
        said = words(event)
        if said is None or self._is_told(event):
            return
        if not logging.getLogger(f"gpool.{said.area}").isEnabledFor(said.level):
            return
        _write_at_exit()
        if self._may(event, said):
            self._put(said, facts(event))

    def flush(self) -> None:
        """Write now what waits, in the calling greenlet; blocks if a handler does."""
        while self._pages:
            page = self._pages.popleft()
            try:
                page.context.run(page.logger.handle, page.record)
            except Exception:  # noqa: BLE001  # a filter's: as `logging` does with a handler's
                if logging.raiseExceptions and sys.stderr is not None:
                    traceback.print_exc()

    def _is_told(self, event: telemetry.Event) -> bool:
        """Tell whether an event is of a death that was told; remember that it is now."""
        match event:
            case telemetry.ProcessCrashed(process=Pid() as pid):
                known = any(_took_along(one, links, event) for one, links in self._told.items())
                self._told[pid] = frozenset(event.links)
                if len(self._told) > TOLD:
                    del self._told[next(iter(self._told))]
                return known
            case telemetry.SupervisorReport(context="child_terminated" | "shutdown_error"):
                return event.child_pid in self._told
        return False

    # --- How often ---

    def _may(self, event: telemetry.Event, said: Words) -> bool:
        """Tell whether an event may be written, or is one too many of its kind."""
        if self.limit is None:
            return True
        key, now = _likeness(event), clock.now()
        window = self._windows.get(key)
        if window is None or not 0 <= now - window.begun < self.window:
            self._end(key, window)
            window = self._windows[key] = _Window(now)
            self._tidy(now)
        if window.written < self.limit:
            window.written += 1
            return True
        if not window.left_out:
            clock.call_later(window.begun + self.window - now, self._end, key, window, ref=False)
        window.left_out += 1
        window.last = (said, facts(event))
        return False

    def _end(self, key: tuple[Any, ...], window: _Window | None) -> None:
        """Say how many were left out in a window that is over; runs in the hub, too."""
        if window is None or self._windows.get(key) is not window:
            return
        del self._windows[key]
        if not window.left_out:
            return
        said, known = window.last
        text = said.text % said.args
        counted = Words(
            said.level, said.area, "%d more in %.3g s: %s",
            (window.left_out, self.window, text.partition("\n")[0]),
        )  # fmt: skip
        self._put(counted, known | {"left_out": window.left_out})

    def _tidy(self, now: float) -> None:
        if len(self._windows) > OPEN:
            for key, window in list(self._windows.items()):
                if not window.left_out and now - window.begun >= self.window:
                    del self._windows[key]

    # --- Writing ---

    def _put(self, said: Words, known: dict[str, Any]) -> None:
        logger = logging.getLogger(f"gpool.{said.area}")
        error = said.error.exception if isinstance(said.error, Error) else said.error
        info = (type(error), error, error.__traceback__) if _is_error(error) else None
        record = logger.makeRecord(
            logger.name, said.level, __file__, 0, said.text, said.args, info, "log",
            {"gpool": known},
        )  # fmt: skip
        if isinstance(said.error, Error):  # its frames are gone, its text is not
            record.exc_text = said.error.format().rstrip("\n")
            record.gpool["traceback"] = record.exc_text  # type: ignore[attr-defined]
        self._pages.append(_Page(logger, record))
        if self._writer is None or self._writer.dead:
            self._writer = gevent.spawn(self.flush)

    def _close(self) -> None:
        """At exit: write all, and how many were left out."""
        for key, window in list(self._windows.items()):
            self._end(key, window)
        self.flush()

    def _forget(self) -> None:
        """In a forked child: what its parent has to write, the parent writes."""
        self._pages.clear()
        self._windows.clear()
        self._writer = None


def _took_along(dead: Pid, links: frozenset[Pid], event: telemetry.ProcessCrashed) -> bool:
    """Tell whether a crash came by a link from one that died before, and had these links."""
    pid: Pid = event.process
    if pid not in links or dead.reason is not event.reason:
        return False
    return not pid.trapping or event.ancestors[:1] == (dead,)  # its parent's exit ends any server


def _is_error(error: Any) -> bool:
    return isinstance(error, BaseException)


_logs: Final[weakref.WeakSet[Log]] = weakref.WeakSet()
_in_use = Log()


def log(event: telemetry.Event) -> None:
    """Have an event logged that somebody should read, by the Log in use; never blocks."""
    _in_use(event)


def install(new: Log) -> Log:
    """Have :func:`log` use another Log, of other limits; return the one it used before.

    Raises:
        TypeError: It is none.
    """
    global _in_use
    if not isinstance(new, Log):
        raise TypeError(f"new: expected a Log, got {new!r}")
    before, _in_use = _in_use, new
    return before


def flush() -> None:
    """Write now what waits, in the calling greenlet; blocks if a handler does."""
    _in_use.flush()


_at_exit = False


def _write_at_exit() -> None:
    """See to it, not before there is a record: what runs at exit runs in the reverse order.

    So handlers that were set up before, and end at exit, do so after they have got it.
    """
    global _at_exit
    if not _at_exit:
        _at_exit = True
        atexit.register(_close_all)


def _close_all() -> None:
    for one in list(_logs):
        one._close()


def _forget_all() -> None:
    for one in list(_logs):
        one._forget()


os.register_at_fork(after_in_child=_forget_all)
