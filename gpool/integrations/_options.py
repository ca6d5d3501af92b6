"""What is wrong with an option, said by the name that it has in the user's library."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator


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
