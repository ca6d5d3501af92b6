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
  a death takes along, by a link, have no record of their own.  Of a greenlet that gpool has
  not started gevent prints the traceback as well.
* Of one child and one kind of error at most `limit` records are written in a `window`, then one
  that says how many were left out.  A kind is an exception's type, or a word that gpool dies
  of; other texts are one kind, whatever they say.  Of more than `OPEN` kinds at a time, those
  that are new are counted together.
* Of a pool's starts that fail it is one record, the first of an outage, and one in a `window`
  that counts.  When a start goes well again the log says so, and how many have failed.  Of a
  pool's checks that fail it is one in a `window`: a warning, since that is how they say dead.
* ``record.gpool`` is a dict of plain data; the record of an exception has it, and its
  traceback.
* A listener only words.  Handlers may block, so a greenlet of its own runs them, in the
  context of who emitted.  What is left is written at exit, before whatever was registered
  with ``atexit`` until the first record; a process that is killed takes it along.

Source:
    OTP's ``logger``: crash and supervisor reports, burst limit; structlog and Sentry read
    the attributes of records.

Not here: the words (``_logging_words.py``).
"""

from __future__ import annotations

import atexit
import contextvars
import logging
import os
import sys
import traceback
import weakref
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import Any, Final

import gevent

from gpool import clock, telemetry
from gpool.integrations._logging_words import (
    Words,
    exception_of,
    facts,
    plain,
    span,
    starts_again,
    traceback_of,
    words,
)
from gpool.otp.pid import RUNNING, Error, Pid
from gpool.otp.supervision import place_of
from gpool.pool.options import check_seconds

LIMIT: Final = 5  # records of one child and one kind of error in a window
WINDOW: Final = 60.0  # s
OPEN: Final = 1024  # windows at a time; what begins none any more is counted in one of its own
OTHERS: Final = ("others",)  # the likeness of all that
_NOTHING: Final = object()  # no reason at all: None may be one


# Reasons of gpool's own that are texts; every other text is a program's, of which there is no end.
WORDS: Final = frozenset(
    {"normal", "shutdown", "kill", "killed", "noproc", "timeout", "deadlock", "dropped",
     "reached_max_restart_intensity"}
)  # fmt: skip


def _likeness(event: telemetry.Event, said: Words, facts: dict[str, Any]) -> tuple[Any, ...]:
    """Return what events have in common of which a few suffice: the child, and the error.

    Of an outage, the pool alone: its processes have no place in the tree while it starts.
    """
    if said.once or isinstance(event, telemetry.WorkerStarted):
        return (type(event), facts.get("pool"))
    known = {name: getattr(event, name) for name in event.__dataclass_fields__}
    error = next((known[one] for one in ("reason", "exception") if one in known), None)
    rest = tuple(plain(known.get(one)) for one in ("pool", "child", "context", "hook", "line"))
    return (type(event), _path(event.process), _kind(exception_of(error)), *rest)


def _kind(error: Any) -> str:
    """Return what kind of error it is: of how many there are must not be up to messages."""
    if isinstance(error, str):
        return str(error) if error in WORDS else "text"
    return type(error).__qualname__


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
    last: Words | None = None  # of the gravest one left out, the latest of these; plain data
    facts: dict[str, Any] = field(default_factory=dict)  # of the same one


@dataclass(slots=True)
class _Outage:
    """Starts of a pool that failed, since the last one that went well."""

    begun: float  # seconds of gpool's clock
    failed: int = 0


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
            but for how many there were.  Of a pool's starts and checks that fail 1 at most, unless
            None.
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
        self._windows: OrderedDict[tuple[Any, ...], _Window] = OrderedDict()  # oldest first
        self._outages: dict[str, _Outage] = {}  # pool whose starts fail -> since when
        # Whose death was told; whoever has yet to report it holds the pid until it has.
        self._told: weakref.WeakSet[Pid] = weakref.WeakSet()
        # Whom the death of another takes along -> the reason of that.
        self._doomed: weakref.WeakKeyDictionary[Pid, Any] = weakref.WeakKeyDictionary()
        _logs.add(self)

    def __call__(self, event: telemetry.Event) -> None:
        """Have an event logged that somebody should read; never blocks."""
        said = self._end_of_outage(event) or words(event)
        if said is None or self._is_told(event):
            return
        if not logging.getLogger(f"gpool.{said.area}").isEnabledFor(said.level):
            return
        _write_at_exit()
        known = facts(event) | said.more
        allowed = self._allowed(event, said, known)
        if allowed is not None:
            if isinstance(event, telemetry.WorkerStarted):
                self._sum_up(event.pool)
            self._put(allowed, known)

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
            case telemetry.ProcessCrashed(process=Pid() as pid, reason=reason):
                self._told.add(pid)
                for linked in event.links:
                    if _takes_along(pid, linked, reason):
                        self._doomed[linked] = reason
                return self._doomed.pop(pid, _NOTHING) is reason
            case telemetry.SupervisorReport(
                context="child_terminated" | "shutdown_error", child_pid=Pid() as pid
            ):
                is_told = pid in self._told
                self._told.discard(pid)
                return is_told
        return False

    # --- Outages ---

    def _end_of_outage(self, event: telemetry.Event) -> Words | None:
        """Take note of starts; return what is said of one that is the first to go well."""
        match event:
            case telemetry.WorkerStartFailed(pool=pool):
                self._outages.setdefault(pool, _Outage(clock.now())).failed += 1
            case telemetry.WorkerStarted(pool=pool) if pool in self._outages:
                outage = self._outages.pop(pool)
                return starts_again(pool, clock.now() - outage.begun, outage.failed)
            case telemetry.PoolStopped(pool=pool):
                self._outages.pop(pool, None)
        return None

    def _goes_on(self, event: telemetry.Event) -> bool:
        """Tell whether an event is of an outage that has begun before, as was told then."""
        match event:
            case telemetry.WorkerStartFailed(pool=pool):
                return self._outages[pool].failed > 1
        return False

    def _sum_up(self, pool: str) -> None:
        """Say before the end of an outage what it has left out; the next one begins afresh."""
        key = (telemetry.HookFailed, pool)
        if key in self._windows:
            self._end(key, self._windows[key])
        self._windows.pop((telemetry.WorkerStartFailed, pool), None)  # the end tells how many

    # --- How often ---

    def _allowed(self, event: telemetry.Event, said: Words, known: dict[str, Any]) -> Words | None:
        """Return what may be written of an event; None if it is one too many of its kind."""
        if self.limit is None:
            return said
        key, window = self._window(_likeness(event, said, known))
        limit = min(self.limit, 1) if said.once or key is OTHERS else self.limit
        if window.written < limit and not self._goes_on(event):
            window.written += 1
            return said if key is not OTHERS else self._first_of_others(said)
        self._leave_out(key, window, said, known)
        return None

    def _first_of_others(self, said: Words) -> Words:
        text = "more than %d kinds of events in %s, others are only counted: " + said.text
        return replace(said, text=text, args=(OPEN, span(self.window), *said.args))

    def _window(self, key: tuple[Any, ...]) -> tuple[tuple[Any, ...], _Window]:
        """Return the window in which something counts, and what it has in common with others."""
        now = clock.now()
        while self._windows:
            oldest, window = next(iter(self._windows.items()))
            if 0 <= now - window.begun < self.window:
                break
            self._end(oldest, window)
        if key not in self._windows and len(self._windows) >= OPEN:
            key = OTHERS
        return key, self._windows.setdefault(key, _Window(now))

    def _leave_out(
        self, key: tuple[Any, ...], window: _Window, said: Words, known: dict[str, Any]
    ) -> None:
        """Count what is not written; how many there were is said when the window is over."""
        if not window.left_out:
            rest = window.begun + self.window - clock.now()
            clock.call_later(rest, self._end, key, window, ref=False)
        window.left_out += 1
        if window.last is None or said.level >= window.last.level:
            window.last, window.facts = said.plainly(), known

    def _end(self, key: tuple[Any, ...], window: _Window) -> None:
        """Say how many were left out in a window that is over; runs in the hub, too."""
        if self._windows.get(key) is not window:
            return
        del self._windows[key]
        said, known = window.last, window.facts
        if said is None or not window.left_out:
            return
        if "outage" in known and known["pool"] not in self._outages:
            self._sum_up(known["pool"])  # that it is over is to be the last line
        text = "%d others in %s, one of them: %s" if key is OTHERS else "%d more in %s: %s"
        args = (window.left_out, span(clock.now() - window.begun), *said.args)
        self._put(replace(said, text=text, args=args), known | {"left_out": window.left_out})

    # --- Writing ---

    def _put(self, said: Words, known: dict[str, Any]) -> None:
        logger = logging.getLogger(f"gpool.{said.area}")
        error, shown = exception_of(said.error), traceback_of(said.error)
        is_shown = isinstance(error, BaseException) and not said.in_short
        info = (type(error), error, error.__traceback__) if is_shown else None
        known = known if shown is None else known | {"traceback": shown}
        record = logger.makeRecord(
            logger.name, said.level, __file__, 0, said.text, said.args, info, "log",
            {"gpool": known},
        )  # fmt: skip
        if is_shown and isinstance(said.error, Error):  # its frames are gone, its text is not
            record.exc_text = shown
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
        self._outages.clear()
        self._writer = None


def _takes_along(dead: Pid, linked: Pid, reason: Any) -> bool:
    """Tell whether a death has ended another process by a link, or its server is going to end."""
    if linked.trapping:
        return linked.parent is dead  # a parent's exit ends any server
    return linked.state != RUNNING and linked.reason is reason


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
