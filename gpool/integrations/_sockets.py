"""Sockets of idle connections: what has come while nobody asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gevent import monkey

_poll: Final[Callable[[], Any]] = monkey.get_original("select", "poll")  # gevent's may switch


def poll_now(fileno: int, events: int) -> int:
    """Return which of some events a socket has now, 0 if none; never waits, nor switches.

    Args:
        fileno: Its descriptor.
        events: Bits as ``select.POLLIN``; errors and hang-ups are told unasked.
    """
    poll = _poll()
    poll.register(fileno, events)
    return next((found for _, found in poll.poll(0)), 0)
