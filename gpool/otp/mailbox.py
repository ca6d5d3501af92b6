"""A process's messages: a queue with selective receive.

Appending never switches and never fails.  Only the owner takes; it finds
messages in the order in which they came, or the first one that matches, and
what it passes over stays in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from gpool import clock
from gpool.waiter import Expired, Waiter


class Mailbox:
    """The messages of one process, oldest first."""

    __slots__ = ("messages", "resting", "waiter")

    def __init__(self) -> None:
        self.messages: deque[Any] = deque()  # oldest first
        self.resting = False  # the owner is a server that has nothing to do
        self.waiter: Waiter | None = None  # the owner, while it waits for an append

    def __len__(self) -> int:
        return len(self.messages)

    def append(self, message: Any) -> None:
        """Put `message` last and wake the owner if it waits; never switches."""
        waiter = self.waiter
        if waiter is not None:
            waiter.wake()  # first: if a signal handler strikes, no message is slept on
            self.waiter = None
            self.resting = False
        self.messages.append(message)

    def take(self, match: Callable[[Any], bool] | None = None, timeout: float | None = None) -> Any:
        """Remove and return the first message that matches; blocks until there is one.

        Messages that do not match do not extend the deadline.

        Args:
            match: A predicate; None takes any message.
            timeout: Seconds; None waits for ever, 0 polls.

        Raises:
            Expired: None matched in time; one that is there wins over the deadline.
        """
        deadline = None if timeout is None else clock.now() + timeout
        seen = 0  # messages already looked at
        late = False
        while True:
            for position, message in enumerate(islice(self.messages, seen, None), seen):
                if match is None or match(message):
                    del self.messages[position]
                    return message
            if late:
                raise Expired
            seen = len(self.messages)
            try:
                self._wait(None if deadline is None else deadline - clock.now())
            except Expired:
                late = True  # look once more: an append may have come with the deadline

    def wait(self, timeout: float | None = None) -> None:
        """Block until there is a message; for a server's loop, which is at rest meanwhile.

        Args:
            timeout: Seconds; None waits for ever, 0 polls.

        Raises:
            Expired: The mailbox stayed empty.
        """
        deadline = None if timeout is None else clock.now() + timeout
        while not self.messages:
            self.resting = True
            try:
                self._wait(None if deadline is None else deadline - clock.now())
            finally:
                self.resting = False

    def discard(self, match: Callable[[Any], bool]) -> None:
        """Remove the first message that matches, if there is one."""
        for position, message in enumerate(self.messages):
            if match(message):
                del self.messages[position]
                return

    def discard_all(self, match: Callable[[Any], bool]) -> None:
        """Remove every message that matches, in one pass."""
        kept = [message for message in self.messages if not match(message)]
        self.messages.clear()
        self.messages.extend(kept)

    def _wait(self, timeout: float | None) -> None:
        self.waiter = waiter = Waiter()
        try:
            waiter.wait(timeout)
        finally:
            self.waiter = None
