"""What is wrong with an option, said by the name that it has in the user's library."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def named(**names: str) -> Iterator[None]:
    """Have a pool made in this block complain of its options by other names.

    Args:
        names: By gpool's names of options, those that the user knows.

    Raises:
        TypeError, ValueError: As :class:`gpool.Pool`, in other words.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error)
        for ours, theirs in names.items():
            text = re.sub(rf"\b{ours}\b", theirs, text)
        raise type(error)(text) from None


def check_seconds(name: str, value: Any) -> None:
    """Raise unless an option is seconds, 0 or more, and not for ever.

    Raises:
        TypeError, ValueError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected seconds, got {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name}: expected seconds >= 0, got {value!r}")
