"""The latest events: crashes, restarts, refused checkouts, and what else telemetry tells.

The listener only puts an event aside; words are made of it later, in the agent's thread,
and then the event is let go: it may hold a message, or what a traceback holds.  Events
that are alike and come one after the other are one, with a count.  What belongs to the
ordinary life of workers has a ring of its own, and crowds nothing out.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass
from time import time
from typing import Any, Final, Literal

import gpool
from gpool import telemetry
from gpool.observer.processes import explained, ref_of
from gpool.observer.text import cut, shown

KEPT: Final = 500  # of those that somebody should know, and ...
ROUTINE_KEPT: Final = 200  # ... of the others
WAITING: Final = 5000  # that are put aside until they are worded; then the oldest are lost
LEVELS: Final = ("info", "warning", "error")

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
    telemetry.WorkerStarted: ("info", "worker is up after {seconds} s"),
    telemetry.WorkerStartFailed: ("warning", "worker did not start, again in {delay} s: {reason}"),
    telemetry.WorkerStopping: ("info", "worker has to go: {reason}"),
    telemetry.WorkerDied: ("info", "worker died: {reason}"),
    telemetry.ResourceClosed: ("info", "a resource that had lost its worker is closed"),
    telemetry.CheckoutFailed: ("warning", "got no worker: {reason}"),
    telemetry.LeaseReclaimed: (
        "warning", "died with a worker from {line}, held for {seconds} s: {reason}"
    ),
    telemetry.LeaseBroken: (
        "warning", "its worker from {line}, held for {seconds} s, died: {reason}"
    ),
    telemetry.HeldTooLong: ("warning", "has held a worker from {line} for {seconds} s"),
    telemetry.ReturnedLate: ("warning", "returned the worker from {line} after {seconds} s"),
    telemetry.BreakerChanged: ("warning", "breaker is {breaker}"),
    telemetry.PoolStarted: ("info", "runs, with at most {size} + {max_overflow} workers here"),
    telemetry.PoolRose: ("info", "manager {epoch} is in charge"),
    telemetry.PoolReady: ("info", "is ready, {up} workers are up"),
    telemetry.PoolFell: ("error", "manager {epoch} fell: {reason}"),
    telemetry.PoolHasFailed: ("error", "fell too often, will be revived: {reason}"),
    telemetry.PoolSuspended: ("warning", "is suspended"),
    telemetry.PoolResumed: ("warning", "lends again"),
    telemetry.PoolResized: ("warning", "may have {size} + {max_overflow} workers from now on"),
    telemetry.PoolRecycled: ("warning", "all its workers are replaced within {within} s"),
    telemetry.PoolClosing: ("warning", "lets nobody in any more"),
    telemetry.PoolReopened: ("warning", "lets clients in again"),
    telemetry.PoolStopped: ("warning", "stopped, {left} workers are not yet gone"),
}  # fmt: skip
_ROUTINE: Final = frozenset({
    telemetry.WorkerStarting, telemetry.WorkerStarted, telemetry.WorkerStopping,
    telemetry.WorkerDied, telemetry.ResourceClosed,
})  # fmt: skip


@dataclass(slots=True)
class Entry:
    """One event in words, or several that are alike."""

    seq: int  # of the latest
    at: float  # s since the epoch, of the latest
    level: Level
    kind: str
    process: gpool.Pid | None
    pool: str | None
    text: str
    count: int = 1

    def is_like(self, other: Entry) -> bool:
        """Tell whether another one says the same, be it of another process."""
        return (self.kind, self.pool, self.text) == (other.kind, other.pool, other.text)

    def told(self) -> dict[str, Any]:
        """Return it as the API has it."""
        return {
            "seq": self.seq,
            "at": round(self.at, 3),
            "count": self.count,
            "level": self.level,
            "kind": self.kind,
            "process": ref_of(self.process),
            "pool": self.pool,
            "text": self.text,
        }


class Events:
    """The latest events of one process, oldest first."""

    def __init__(self) -> None:
        self.last = 0  # the latest number that was given
        self._aside: deque[tuple[float, telemetry.Event]] = deque(maxlen=WAITING)
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._routine: deque[Entry] = deque(maxlen=ROUTINE_KEPT)

    def __call__(self, event: telemetry.Event) -> None:
        """Put an event aside: telemetry calls, in whatever process has something to tell."""
        if type(event) is not telemetry.WorkerRecovered:  # there may be one at every checkin
            self._aside.append((time(), event))

    def note(self, process: gpool.Pid | None, pool: str | None, text: str) -> None:
        """Tell of what somebody has done by the Observer."""
        self._enter(Entry(0, time(), "warning", "ObserverAction", process, pool, cut(text)), False)

    def word(self) -> None:
        """Make words of what was put aside; in the agent's thread."""
        while self._aside:
            at, event = self._aside.popleft()
            self._enter(_entry(at, event), type(event) in _ROUTINE)

    def _enter(self, entry: Entry, is_routine: bool) -> None:
        ring = self._routine if is_routine else self._entries
        self.last += 1
        entry.seq = self.last
        if ring and ring[-1].is_like(entry):
            entry.count += ring[-1].count
            ring[-1] = entry
        else:
            ring.append(entry)

    def after(self, seq: int, level: str) -> list[dict[str, Any]]:
        """Return those that are later than a number, and at least of a level."""
        least = LEVELS.index(level)
        return [
            entry.told()
            for entry in self._all()
            if entry.seq > seq and LEVELS.index(entry.level) >= least
        ]

    def of_pool(self, pool: str, count: int) -> list[dict[str, Any]]:
        """Return a pool's latest warnings and errors, the newest first."""
        found = [e for e in self._all() if e.pool == pool and e.level != "info"]
        return [entry.told() for entry in found[: -count - 1 : -1]]

    def _all(self) -> list[Entry]:
        self.word()
        return sorted([*self._routine, *self._entries], key=lambda entry: entry.seq)


def _entry(at: float, event: telemetry.Event) -> Entry:
    level, words = _WORDS.get(type(event), ("info", ""))
    pid = event.process if isinstance(event.process, gpool.Pid) else None
    pool = event.pool if isinstance(event, telemetry.PoolEvent) else None
    if isinstance(event, telemetry.ResourceClosed) and event.gave_up:
        level, words = "error", "a resource was not closed in time, twice; it may still be open"
    if isinstance(event, telemetry.WorkerDied) and event.holder is not None:
        words = "worker died in the hands of {holder}: {reason}"
    return Entry(0, at, level, type(event).__name__, pid, pool, _text(words, event))


def _text(words: str, event: telemetry.Event) -> str:
    fields = {f.name: _field(getattr(event, f.name)) for f in dataclasses.fields(event)}
    return cut(words.format_map(fields), 600)


def _field(value: Any) -> str:
    if isinstance(value, gpool.Error):
        return cut(explained(value).splitlines()[-1])  # the exception's own line
    if type(value) is float:
        return f"{value:.3g}"
    return value if type(value) is str else shown(value)
