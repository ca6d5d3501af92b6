"""Waiting for what others bring about: processes, threads, greenlets on sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar("T")

PATIENCE = 20.0  # s; less than a test may take, so that it can say what it has waited for
STEPS = 0.001, 0.05  # s in which others run, at first and at last


def until(what: Callable[[], T], name: str = "what should come") -> T:
    """Return the first value that is true; meanwhile others run, in this hub too.

    Raises:
        TimeoutError: None came in PATIENCE.
    """
    give_up = time.monotonic() + PATIENCE
    step, longest = STEPS
    while not (value := what()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {PATIENCE:g} s in vain for {name}")
        gevent.sleep(step)
        step = min(1.5 * step, longest)
    return value
