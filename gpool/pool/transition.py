"""Transitions: the methods that change a pool's books, and what strikes them.

Between its first and its last write a transition raises nothing of its own.  What
strikes all the same (a signal handler's exception, a RecursionError) may have left
the books half written: that closes the epoch, and the exception goes on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar


class Struck(Protocol):
    """Whose methods are transitions."""

    def struck(self) -> None:
        """Close the epoch; must not raise."""


P = ParamSpec("P")
S = TypeVar("S", bound=Struck)


def transition(method: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Mark a method that changes the books and raises nothing: what strikes ends the epoch."""

    @functools.wraps(method)
    def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except BaseException:
            self.struck()
            raise

    return guarded
