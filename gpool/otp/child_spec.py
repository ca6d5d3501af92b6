"""How a supervisor is to start, restart and stop one child; pure data.

    >>> def start_link():
    ...     ...
    >>> spec = ChildSpec("db", start_link)
    >>> spec.restart, spec.shutdown, spec.type
    ('permanent', 5.0, 'worker')
    >>> ChildSpec("db", start_link, shutdown=-1)
    Traceback (most recent call last):
    gpool.errors.SpecError: invalid_shutdown: expected seconds >= 0, None or "brutal_kill", got -1

Rules:

* ``restart``: `permanent` children are always restarted, `transient` ones
  unless they ended orderly (normal, shutdown, (shutdown, x)), `temporary` ones never.
* ``shutdown``: what a child gets to stop: "brutal_kill" nothing, a number that
  many seconds from the signal `shutdown` to the kill, None as long as it takes.
* Everything is checked at construction; faults have OTP's names.

Difference to OTP: a :class:`Backoff` may delay restarts.

Not here: what carries a specification out (``child.py``, ``supervisor.py``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

from gpool.errors import SpecError

RestartType = Literal["permanent", "transient", "temporary"]
ChildType = Literal["worker", "supervisor"]
Shutdown = float | Literal["brutal_kill"] | None

SHUTDOWN: Final = 5.0  # s that a worker gets to stop; a supervisor takes its time
_UNSET: Final[Any] = type("Unset", (), {"__repr__": lambda _: "nothing"})()


def is_number(value: Any) -> bool:
    """Tell whether `value` can be seconds: an int or float, and neither bool nor NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a child is restarted, the longer the more often it fails.

    Such restarts do not count in the supervisor's intensity.  The delay starts
    again at `first` once the child has lived for `maximum` seconds.

    Args:
        first: Seconds before the first restart, > 0.
        maximum: Seconds that no delay exceeds.
        factor: What each further failure multiplies the delay by, >= 1.
        jitter: The share of the delay that is random, 0 to 1: with 1 ("full
            jitter") it lies anywhere between 0 and the delay.

    Raises:
        SpecError: invalid_backoff.

    Source:
        suture and akka; OTP refused it (PR 1287).  Full jitter: AWS's
        "Exponential Backoff And Jitter".
    """

    first: float = 0.1
    maximum: float = 30.0
    factor: float = 2.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        _check_backoff("first > 0", is_number(self.first) and self.first > 0, self.first)
        _check_backoff(
            "maximum >= first, finite",
            is_number(self.maximum) and self.first <= self.maximum < math.inf,
            self.maximum,
        )
        _check_backoff("factor >= 1", is_number(self.factor) and self.factor >= 1, self.factor)
        _check_backoff(
            "jitter from 0 to 1", is_number(self.jitter) and 0 <= self.jitter <= 1, self.jitter
        )

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after `failures` failures in a row before this one."""
        try:
            full = min(self.maximum, self.first * self.factor**failures)
        except OverflowError:
            full = self.maximum
        return random.uniform(full * (1 - self.jitter), full)


def _check_backoff(expected: str, good: bool, got: Any) -> None:
    if not good:
        raise SpecError("invalid_backoff", expected, got)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child of a supervisor.

    Args:
        id: Names it among its siblings.
        start: Called in the supervisor's process, with an empty context, to
            start the child; blocks until it has.  Returns its pid or handle, a
            pair of that and anything else, or None for "not now".
        args: Positional arguments for `start`.
        kwargs: Keyword arguments for `start`.
        restart: When it is started again.
        shutdown: Seconds that it gets to stop; None: as long as it takes;
            default 5 s for workers, None for supervisors.
        type: What it is.
        significant: Whether its own end can end the supervisor, see
            `auto_shutdown` there.
        backoff: How to delay its restarts; None: at once, within the intensity.

    Raises:
        SpecError: Something is missing or wrong.

    Source:
        OTP ``supervisor:child_spec()``, which ignores unknown keys.
    """

    id: Hashable = _UNSET
    start: Callable[..., Any] = _UNSET
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    restart: RestartType = "permanent"
    shutdown: Shutdown = _UNSET
    type: ChildType = "worker"
    significant: bool = False
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        self._check_start()
        _check_word("invalid_restart_type", RestartType, self.restart)
        _check_word("invalid_child_type", ChildType, self.type)
        if self.shutdown is _UNSET:
            default = SHUTDOWN if self.type == "worker" else None
            object.__setattr__(self, "shutdown", default)
        self._check_rest()

    def _check_start(self) -> None:
        if self.id is _UNSET:
            raise SpecError("missing_id", "an id", self.id)
        if not isinstance(self.id, Hashable):
            raise SpecError("invalid_id", "something hashable", self.id)
        if self.start is _UNSET:
            raise SpecError("missing_start", "a callable", self.start)
        if not callable(self.start):
            raise SpecError("invalid_start", "a callable", self.start)
        if not isinstance(self.args, tuple):
            raise SpecError("invalid_start", "args: a tuple", self.args)
        if not isinstance(self.kwargs, Mapping):
            raise SpecError("invalid_start", "kwargs: a mapping", self.kwargs)

    def _check_rest(self) -> None:
        shutdown = self.shutdown
        if not (shutdown is None or shutdown == "brutal_kill" or _is_time(shutdown)):
            expected = 'seconds >= 0, None or "brutal_kill"'
            raise SpecError("invalid_shutdown", expected, shutdown)
        if not isinstance(self.significant, bool):
            raise SpecError("invalid_significant", "True or False", self.significant)
        if self.significant and self.restart == "permanent":
            expected = "a significant child to be transient or temporary"
            raise SpecError("bad_combination", expected, self.restart)
        if not isinstance(self.backoff, Backoff | None):
            raise SpecError("invalid_backoff", "a Backoff or None", self.backoff)

    def with_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ChildSpec:
        """Return the specification with these arguments in the place of its own."""
        return replace(self, args=args, kwargs=kwargs)


def _is_time(value: Any) -> bool:
    return is_number(value) and 0 <= value < math.inf


def _check_word(fault: str, words: Any, got: Any) -> None:
    check_word(fault, get_args(words), got)


def check_word(fault: str, words: tuple[str, ...], got: Any) -> None:
    """Raise `fault` unless `got` is one of `words`."""
    if not isinstance(got, str) or got not in words:
        raise SpecError(fault, f"one of {', '.join(words)}", got)
