"""What a pool may be told: every option, its default, its bounds.

Nothing starts before all of it is known to be sound; an error says what was
expected and what came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

Strategy = Literal["lifo", "fifo"]
OnMaxHold = Literal["warn", "revoke"]


class OptionsDict(TypedDict, total=False):
    """The keyword arguments that :class:`Options` takes, for type checkers."""

    size: int
    max_overflow: int
    overflow_ttl: float | None
    strategy: Strategy
    lazy: bool
    min_ready: int | None
    timeout: float | None
    max_waiting: int | None
    fail_fast: bool
    max_hold: float | None
    on_max_hold: OnMaxHold
    max_age: float | None
    max_uses: int | None
    idle_timeout: float | None
    check_after: float | None
    keepalive: float | None
    max_starting: int | None
    max_start_failures: int | None
    start_failure_window: float
    start_timeout: float | None
    check_timeout: float | None
    finish_timeout: float | None
    shutdown: float | None
    max_restarts: int
    max_seconds: float
    debug: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one pool; seconds are floats, None is for ever or no limit.

    Args:
        size: Workers that are kept.
        max_overflow: More workers on demand, when all of those are busy.
        overflow_ttl: Seconds that a worker above `size` stays idle before it goes;
            0: it leaves at its checkin, None: never.
        strategy: Which idle worker is lent next: the one used last ("lifo") or first.
        lazy: Whether workers above `min_ready` are started only when a client waits.
        min_ready: Workers that have to be up for the pool to be ready, and that
            `idle_timeout` leaves; None: all of `size`, or none if it is lazy, and
            `idle_timeout` leaves none.
        timeout: Seconds that a checkout waits, all told; 0 never waits.
        max_waiting: Clients that may wait at once for others to let go; 0: none.
        fail_fast: Whether clients fail at once, instead of waiting, while no worker is
            up and starts fail.
        max_hold: Seconds after which a worker that is held gets its holder reported ...
        on_max_hold: ... and no more ("warn"), or is taken away ("revoke").
        max_age: Seconds after which a worker is replaced, less up to a tenth, drawn
            at its birth; one that is held, once it comes back.
        max_uses: Checkouts after which a worker is replaced.
        idle_timeout: Seconds after which an idle worker is stopped and not replaced,
            while more than `min_ready` are up.
        check_after: Seconds that a resource with a `check` may have been idle and be
            lent unchecked; 0: always checked, but for one that goes straight from one
            client to the next; None: never at a checkout.
        keepalive: Seconds after which an idle resource is checked where it lies, to
            keep it alive and to find out; one at a time, so that the others can be lent.
        max_starting: Workers that may be starting at once.
        max_start_failures: Starts that may fail within `start_failure_window` before
            the pool fails, to be revived later; None: it goes on trying.
        start_failure_window: Seconds.
        start_timeout: Seconds that a worker may take to start.
        check_timeout: Seconds that a check may take.
        finish_timeout: Seconds that a worker may go on with what its last holder
            asked for, and that a reset may take; 0: it is stopped at once.
        shutdown: Seconds that a worker's terminate or close may take; 0: it is killed.
        max_restarts: Falls of the pool's manager or worker supervisor that are mended ...
        max_seconds: ... within so many seconds; one more and the pool fails.
        debug: Whether a worker tells when another greenlet than its holder's uses it.
    """

    size: int = 5
    max_overflow: int = 0
    overflow_ttl: float | None = 5.0
    strategy: Strategy = "lifo"
    lazy: bool = False
    min_ready: int | None = None
    timeout: float | None = 5.0
    max_waiting: int | None = None
    fail_fast: bool = False
    max_hold: float | None = None
    on_max_hold: OnMaxHold = "warn"
    max_age: float | None = None
    max_uses: int | None = None
    idle_timeout: float | None = None
    check_after: float | None = 0.5
    keepalive: float | None = None
    max_starting: int | None = 10
    max_start_failures: int | None = None
    start_failure_window: float = 60.0
    start_timeout: float | None = 30.0
    check_timeout: float | None = 2.0
    finish_timeout: float | None = 5.0
    shutdown: float | None = 5.0
    max_restarts: int = 10
    max_seconds: float = 60.0
    debug: bool = False

    def __post_init__(self) -> None:
        check_count("size", self.size)
        check_count("max_overflow", self.max_overflow)
        if self.size + self.max_overflow == 0:
            raise ValueError("size: expected at least 1, or max_overflow > 0, got 0 and 0")
        for name in ("lazy", "fail_fast", "debug"):
            check_flag(name, getattr(self, name))
        check_choice("strategy", self.strategy, Strategy)
        check_choice("on_max_hold", self.on_max_hold, OnMaxHold)
        for name in ("min_ready", "max_waiting"):
            check_limit(name, getattr(self, name), least=0)
        for name in ("max_uses", "max_starting", "max_start_failures"):
            check_limit(name, getattr(self, name), least=1)
        if self.min_ready is not None and self.min_ready > self.size:
            raise ValueError(f"min_ready: expected at most size, {self.size}, got {self.min_ready}")
        for name in ("overflow_ttl", "timeout", "finish_timeout", "shutdown", "check_after"):
            check_seconds(name, getattr(self, name))
        if self.shutdown == math.inf:  # what supervisors refuse
            raise ValueError("shutdown: expected seconds >= 0 or None, for ever, got inf")
        for name in (
            "start_timeout", "check_timeout", "max_hold", "max_age", "idle_timeout", "keepalive",
        ):  # fmt: skip
            check_seconds(name, getattr(self, name), positive=True)
        check_count("max_restarts", self.max_restarts)
        for name in ("max_seconds", "start_failure_window"):
            if getattr(self, name) is None:
                raise TypeError(f"{name}: expected seconds > 0, got None")
            check_seconds(name, getattr(self, name), positive=True)

    @property
    def cap(self) -> int:
        """The most workers that may exist at once, those still closing included."""
        return self.size + self.max_overflow

    @property
    def ready_at(self) -> int:
        """The workers that have to be up at once for the pool to be ready."""
        if self.min_ready is not None:
            return self.min_ready
        return 0 if self.lazy else self.size


def check_count(name: str, value: Any) -> None:
    """Raise unless `value` is a whole number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    if value < 0:
        raise ValueError(f"{name}: expected 0 or more, got {value!r}")


def check_limit(name: str, value: Any, *, least: int) -> None:
    """Raise unless `value` is None or a whole number, `least` or more."""
    if value is None:
        return
    check_count(name, value)
    if value < least:
        raise ValueError(f"{name}: expected {least} or more, or None, got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Raise unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise unless `value` is one of the words of a ``Literal``."""
    words = get_args(choices)
    if value not in words:
        raise ValueError(f"{name}: expected {' or '.join(map(repr, words))}, got {value!r}")


def check_seconds(name: str, value: Any, *, positive: bool = False) -> None:
    """Raise unless `value` is None or seconds, 0 or more (more than 0 if `positive`)."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected seconds or None, got {value!r}")
    if not (value > 0 or (value == 0 and not positive)):
        bound = "> 0" if positive else ">= 0"
        raise ValueError(f"{name}: expected seconds {bound} or None, got {value!r}")
