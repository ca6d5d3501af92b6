"""Waiting for what others bring about: processes, threads, greenlets on sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar("T")

PATIENCE = 30.0  # s
STEP = 0.005  # s in which others run


def until(what: Callable[[], T], name: str = "what should come") -> T:
    """Return the first value that is true; meanwhile others run, in this hub too.

    Raises:
        TimeoutError: None came in PATIENCE.
    """
    give_up = time.monotonic() + PATIENCE
    while not (value := what()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {PATIENCE:g} s in vain for {name}")
        gevent.sleep(STEP)
    return value
