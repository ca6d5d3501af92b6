"""Frames: of calls that were cut short, which hold what was being made, and of the user's code."""

from __future__ import annotations

import sys
import traceback
import warnings


def drop_locals(error: BaseException) -> None:
    """Clear the local variables of all frames that an exception and its causes have seen."""
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        one = errors.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            errors += [one.__cause__, one.__context__]


def warn_user(message: str, *libraries: str) -> None:
    """Warn by a RuntimeWarning, of the line outside of gpool and these that has called them.

    Args:
        message: What to say.
        libraries: Names of packages between the user's code and ours.
    """
    ours = tuple(f"{name}." for name in ("gpool", *libraries))
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and f"{frame.f_globals.get('__name__')}.".startswith(ours):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RuntimeWarning, stacklevel=level)
