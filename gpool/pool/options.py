"""What a pool may be told: every option, its default, its bounds.

Nothing starts before all of it is known to be sound; an error says what was
expected and what came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Strategy = Literal["lifo", "fifo"]


class OptionsDict(TypedDict, total=False):
    """The keyword arguments that :class:`Options` takes, for type checkers."""

    size: int
    max_overflow: int
    overflow_ttl: float | None
    strategy: Strategy
    lazy: bool
    timeout: float | None
    max_waiting: int | None
    start_timeout: float | None
    finish_timeout: float | None
    shutdown: float | None
    max_restarts: int
    max_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one pool; seconds are floats, None is for ever or no limit.

    Args:
        size: Workers that are kept.
        max_overflow: More workers on demand, when all of those are busy.
        overflow_ttl: Seconds that a worker above `size` stays idle before it goes;
            0: it leaves at its checkin, None: never.
        strategy: Which idle worker is lent next: the one used last ("lifo") or first.
        lazy: Whether workers are started only when a client waits.
        timeout: Seconds that a checkout waits, all told; 0 never waits.
        max_waiting: Clients that may wait at once; 0: none.
        start_timeout: Seconds that a worker may take to start.
        finish_timeout: Seconds that a worker may go on with what its last holder
            asked for, and that a reset may take; 0: it is stopped at once.
        shutdown: Seconds that a worker's terminate or close may take; 0: it is killed.
        max_restarts: Falls of the pool's manager or worker supervisor that are mended ...
        max_seconds: ... within so many seconds; one more and the pool fails.
    """

    size: int = 5
    max_overflow: int = 0
    overflow_ttl: float | None = 5.0
    strategy: Strategy = "lifo"
    lazy: bool = False
    timeout: float | None = 5.0
    max_waiting: int | None = None
    start_timeout: float | None = 30.0
    finish_timeout: float | None = 5.0
    shutdown: float | None = 5.0
    max_restarts: int = 10
    max_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_count("size", self.size)
        check_count("max_overflow", self.max_overflow)
        if self.size + self.max_overflow == 0:
            raise ValueError("size: expected at least 1, or max_overflow > 0, got 0 and 0")
        if self.strategy not in ("lifo", "fifo"):
            raise ValueError(f"strategy: expected 'lifo' or 'fifo', got {self.strategy!r}")
        if not isinstance(self.lazy, bool):
            raise TypeError(f"lazy: expected True or False, got {self.lazy!r}")
        if self.max_waiting is not None:
            check_count("max_waiting", self.max_waiting)
        for name in ("overflow_ttl", "timeout", "finish_timeout", "shutdown"):
            check_seconds(name, getattr(self, name))
        check_seconds("start_timeout", self.start_timeout, positive=True)
        check_count("max_restarts", self.max_restarts)
        if self.max_seconds is None:
            raise TypeError("max_seconds: expected seconds > 0, got None")
        check_seconds("max_seconds", self.max_seconds, positive=True)

    @property
    def cap(self) -> int:
        """The most workers that may exist at once, those still closing included."""
        return self.size + self.max_overflow


def check_count(name: str, value: Any) -> None:
    """Raise unless `value` is a whole number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    if value < 0:
        raise ValueError(f"{name}: expected 0 or more, got {value!r}")


def check_seconds(name: str, value: Any, *, positive: bool = False) -> None:
    """Raise unless `value` is None or seconds, 0 or more (more than 0 if `positive`)."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected seconds or None, got {value!r}")
    if not (value > 0 or (value == 0 and not positive)):
        bound = "> 0" if positive else ">= 0"
        raise ValueError(f"{name}: expected seconds {bound} or None, got {value!r}")
