"""Frames of calls that were cut short: they hold what was being made."""

from __future__ import annotations

import traceback


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
