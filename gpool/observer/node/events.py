"""The latest events: crashes, restarts, refused checkouts, and what else telemetry tells.

The listener only puts an event aside; words are made of it later, in the agent's thread,
and then the event is let go: it may hold a message, or what a traceback holds.  Each level
has a ring of its own, from the beginning: a flood of refused checkouts crowds out no crash.
Events that are alike but for pids and times, and come close to one another, are one, with a
count; and where there are many of one kind and of one process's name, the oldest of these
make room: a crash loop crowds out no other crash.

Nothing but :meth:`Events.__call__` and :meth:`Events.note` may be called in another thread.
"""

from __future__ import annotations

import re
import weakref
from collections import Counter, deque
from dataclasses import dataclass
from string import Formatter
from time import time
from typing import Any, Final, Literal

import gpool
from gpool import telemetry
from gpool.observer.node.processes import label_of, ref_of
from gpool.observer.node.text import cut, headline, shown

KEPT: Final = 250  # of each level
WAITING: Final = 2500  # of each level, until they are worded; then the oldest are lost
NEAR: Final = 8  # latest ones of a level that one may be like
LEVELS: Final = ("info", "warning", "error")

_VARIES: Final = re.compile(r"#PID<\d+>|\b\d[\d.e+-]* (?:s|ms|µs)\b")

Level = Literal["info", "warning", "error"]

# Event -> its level, and its words; what stands in braces are its fields.
_WORDS: Final[dict[type[telemetry.Event], tuple[Level, str]]] = {
    telemetry.ProcessCrashed: ("error", "crashed, {unread} messages unread: {reason}"),
    telemetry.ProcessIsZombie: ("error", "swallows its exit and runs on"),
    telemetry.CleanupFailed: ("error", "its cleanup failed: {exception}"),
    telemetry.UnexpectedMessage: ("warning", "dropped a message that it does not know: {message}"),
    telemetry.ListenerFailed: ("error", "a listener of telemetry failed: {exception}"),
    telemetry.SupervisorReport: ("error", "its child {child} {child_pid}, {context}: {reason}"),
    telemetry.HookFailed: ("error", "its hook {hook} failed: {exception}"),
    telemetry.WorkerStarting: ("info", "worker starts"),
    telemetry.WorkerStarted: ("info", "worker is up after {seconds}"),
    telemetry.WorkerStartFailed: ("warning", "worker did not start, again in {delay}: {reason}"),
    telemetry.WorkerStopping: ("info", "worker has to go: {reason}"),
    telemetry.WorkerDied: ("info", "worker died: {reason}"),
    telemetry.ResourceClosed: ("info", "a resource that had lost its worker is closed"),
    telemetry.CheckoutFailed: ("warning", "got no worker: {reason}"),
    telemetry.LeaseReclaimed: (
        "warning", "died with a worker from {line}, held for {seconds}: {reason}"
    ),
    telemetry.LeaseForgotten: (
        "warning", "forgot to give back a worker from {line}, held for {seconds}"
    ),
    telemetry.LeaseBroken: (
        "warning", "its worker from {line}, held for {seconds}, died: {reason}"
    ),
    telemetry.HeldTooLong: ("warning", "has held a worker from {line} for {seconds}"),
    telemetry.ReturnedLate: ("warning", "returned the worker from {line} after {seconds}"),
    telemetry.BreakerChanged: ("warning", "breaker is {breaker}"),
    telemetry.PoolStarted: ("info", "runs, with at most {size} + {max_overflow} workers here"),
    telemetry.PoolRose: ("info", "manager {epoch} is in charge"),
    telemetry.PoolReady: ("info", "is ready, {up} workers are up"),
    telemetry.PoolFell: ("error", "manager {epoch} fell: {reason}"),
    telemetry.PoolHasFailed: ("error", "fell too often, will be revived: {reason}"),
    telemetry.PoolSuspended: ("warning", "is suspended"),
    telemetry.PoolResumed: ("warning", "lends again"),
    telemetry.PoolResized: ("warning", "may have {size} + {max_overflow} workers from now on"),
    telemetry.PoolRecycled: ("warning", "all its workers are replaced within {within}"),
    telemetry.PoolClosing: ("warning", "lets nobody in any more"),
    telemetry.PoolReopened: ("warning", "lets clients in again"),
    telemetry.PoolStopped: ("warning", "stopped, {left} workers are not yet gone"),
}  # fmt: skip


class Subject:
    """The process that an event is about, which an event is no reason to keep."""

    __slots__ = ("_id", "_pid", "label")

    def __init__(self, pid: gpool.Pid) -> None:
        self._pid = weakref.ref(pid)
        self._id, self.label = pid.id, label_of(pid)

    def told(self) -> dict[str, Any] | None:
        """Return what the process is called now, or was."""
        now = ref_of(self._pid())
        return {**(now or {"id": self._id, "status": "dead"}), "label": self.label}


@dataclass(slots=True, eq=False)
class Entry:
    """One event in words, or several that are alike."""

    at: float  # s since the epoch, of the latest
    level: Level
    kind: str
    subject: Subject | None
    pool: str | None
    text: str
    seq: int = 0  # of the latest
    count: int = 1

    @property
    def alike(self) -> tuple[str, str | None, str]:
        """What those have in common that say the same, be it of others and at other times."""
        return self.kind, self.pool, _VARIES.sub("~", self.text)

    @property
    def group(self) -> tuple[str, str | None, str]:
        """Whom it is of, and what befell them: a group that is large makes room for the others."""
        return self.kind, self.pool, "" if self.subject is None else self.subject.label

    def told(self) -> dict[str, Any]:
        """Return it as the API has it; reads, as it is now, what process it is about."""
        return {
            "seq": self.seq,
            "at": round(self.at, 3),
            "count": self.count,
            "level": self.level,
            "kind": self.kind,
            "process": None if self.subject is None else self.subject.told(),
            "pool": self.pool,
            "text": self.text,
        }


class Events:
    """The latest events of one process."""

    def __init__(self) -> None:
        self.last = 0  # the latest number that was given
        # Level -> what is put aside, and what was made of it; oldest first.
        self._aside: dict[str, deque[tuple[float, telemetry.Event | Entry]]] = {
            level: deque(maxlen=WAITING) for level in LEVELS
        }
        self._entries: dict[str, list[Entry]] = {level: [] for level in LEVELS}

    def __call__(self, event: telemetry.Event) -> None:
        """Put an event aside: telemetry calls, in whatever process has something to tell."""
        if type(event) is not telemetry.WorkerRecovered:  # there may be one at every checkin
            self._aside[_level_of(event)].append((time(), event))

    def note(self, process: gpool.Pid | None, pool: str | None, text: str) -> None:
        """Tell of what somebody has done by the Observer."""
        subject = None if process is None else Subject(process)
        entry = Entry(time(), "warning", "ObserverAction", subject, pool, cut(text))
        self._aside["warning"].append((entry.at, entry))

    def word(self) -> None:
        """Make words of what was put aside."""
        found: list[tuple[float, telemetry.Event | Entry]] = []
        for aside in self._aside.values():
            found += [aside.popleft() for _ in range(len(aside))]
        for at, event in sorted(found, key=lambda pair: pair[0]):
            self._enter(event if isinstance(event, Entry) else _entry(at, event))

    def _enter(self, entry: Entry) -> None:
        ring = self._entries[entry.level]
        self.last += 1
        entry.seq = self.last
        for one in ring[: -NEAR - 1 : -1]:
            if one.alike == entry.alike:
                entry.count += one.count
                ring.remove(one)
                break
        ring.append(entry)
        if len(ring) > KEPT:
            [(crowd, _)] = Counter(one.group for one in ring).most_common(1)
            ring.remove(next(one for one in ring if one.group == crowd))

    def after(self, seq: int, level: str) -> list[Entry]:
        """Return those that are later than a number, and at least of a level; oldest first."""
        self.word()
        levels = LEVELS[LEVELS.index(level) :]
        found = [entry for one in levels for entry in self._entries[one] if entry.seq > seq]
        return sorted(found, key=lambda entry: entry.seq)

    def of_pool(self, pool: str, count: int) -> list[Entry]:
        """Return a pool's latest warnings and errors, the newest first."""
        found = [entry for entry in self.after(0, "warning") if entry.pool == pool]
        return found[: -count - 1 : -1]


def _level_of(event: telemetry.Event) -> Level:
    if type(event) is telemetry.ResourceClosed and event.gave_up:
        return "error"
    return _WORDS.get(type(event), ("info", ""))[0]


def _entry(at: float, event: telemetry.Event) -> Entry:
    _, words = _WORDS.get(type(event), ("info", ""))
    pid = event.process
    subject = Subject(pid) if type(pid) is gpool.Pid else None
    pool = event.pool if isinstance(event, telemetry.PoolEvent) else None
    if isinstance(event, telemetry.ResourceClosed) and event.gave_up:
        words = "a resource was not closed in time, twice; it may still be open"
    if isinstance(event, telemetry.WorkerDied) and event.holder is not None:
        words = "worker died in the hands of {holder}: {reason}"
    return Entry(at, _level_of(event), type(event).__name__, subject, pool, _text(words, event))


def _text(words: str, event: telemetry.Event) -> str:
    names = [name for _, name, _, _ in Formatter().parse(words) if name]
    return cut(words.format_map({name: _field(getattr(event, name)) for name in names}), 600)


def _seconds(value: float) -> str:
    """Return a time; all numbers of events that have a fraction are times."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs" if value else "0 s"


def _field(value: Any) -> str:
    kind = type(value)
    if kind is gpool.Error:
        return headline(value)
    if kind is float:
        return _seconds(value)
    return value if kind is str else shown(value)
