"""What is wrong with an option, said by the name that it has in the user's library."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def named(**names: str) -> Iterator[None]:
    """Have what is made of options in this block complain of them by other names.

    Args:
        names: By gpool's names of options, those that the user knows.

    Raises:
        TypeError, ValueError: As the block does, in other words.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error)
        for ours, theirs in names.items():
            text = re.sub(rf"\b{ours}\b", theirs, text)
        raise type(error)(text) from None


def check_seconds(name: str, value: Any, *, positive: bool = False) -> None:
    """Raise unless an option is seconds, 0 or more (more than 0 if `positive`), not for ever.

    Raises:
        TypeError, ValueError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected seconds, got {value!r}")
    if not 0 <= value < float("inf") or (positive and not value):
        raise ValueError(f"{name}: expected seconds {'>' if positive else '>='} 0, got {value!r}")
