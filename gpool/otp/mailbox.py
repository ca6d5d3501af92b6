"""A process's messages: a queue with selective receive.

Appending to a process's own never switches and never fails.  Only the owner takes; it finds
messages in the order in which they came, or the first one that matches, and
what it passes over stays in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from gpool import clock
from gpool.waiter import Expired, Waiter

_NONE_YET: Final[deque[Any]] = deque(maxlen=0)  # of those who got none lately: it stays empty


class Unanswered(dict[Any, None]):
    """Callers that a server has left without a reply, and who waits until there are none."""

    __slots__ = ("pings",)

    def __init__(self) -> None:
        self.pings: list[Any] = []


class Wakeable(Protocol):
    """Whoever waits for an append."""

    def wake(self) -> object:
        """Go on soon; must neither switch nor raise, and may come twice."""


class Mailbox:
    """The messages of one process, oldest first."""

    __slots__ = ("messages", "resting", "taken", "unanswered", "waiter")

    def __init__(self) -> None:
        self.messages = _NONE_YET  # oldest first
        self.taken = 0  # messages that the owner has taken out, ever; not those that die with it
        self.resting = False  # the owner is a server that has nothing to do
        self.unanswered: Unanswered | None = None  # if there are any
        self.waiter: Wakeable | None = None  # the owner, while it waits for an append

    def __len__(self) -> int:
        return len(self.messages)

    def append(self, message: Any) -> None:
        """Put `message` last and wake the owner if it waits; never switches."""
        waiter = self.waiter
        if waiter is not None:
            waiter.wake()  # first: if a signal handler strikes, no message is slept on
            self.waiter = None
            self.resting = False
        if self.messages is _NONE_YET:
            messages: deque[Any] = deque()
            if self.messages is _NONE_YET:  # still: a signal handler may have sent meanwhile
                self.messages = messages
        self.messages.append(message)

    def take(self, match: Callable[[Any], bool] | None = None, timeout: float | None = None) -> Any:
        """Remove and return the first message that matches; blocks until there is one.

        Messages that do not match do not extend the deadline.

        Args:
            match: A predicate, which neither blocks nor receives; None takes any message.
            timeout: Seconds; None waits for ever, 0 polls.

        Raises:
            Expired: None matched in time; one that is there wins over the deadline.
        """
        deadline = None if timeout is None else clock.now() + timeout
        seen = 0  # messages already looked at
        late = False
        while True:
            position = self._find(match, seen)
            if position is not None:
                message = self.messages[position]
                self.taken += 1
                del self.messages[position]
                return message
            if late:
                raise Expired
            seen = len(self.messages)
            self.waiter = waiter = Waiter()
            try:
                waiter.wait(None if deadline is None else deadline - clock.now())
            except Expired:
                late = True  # look once more: an append may have come with the deadline
            finally:
                self.waiter = None

    def wait(self, timeout: float) -> None:
        """Block until there is a message, or so many seconds have passed; at rest meanwhile.

        For a server's loop, which takes its seat where it has no deadline.

        Raises:
            Expired: The mailbox stayed empty.
        """
        deadline = clock.now() + timeout
        while not self.messages:
            self.waiter = waiter = Waiter()
            self.resting = not self.unanswered
            try:
                waiter.wait(timeout)  # as it was given at first: a length that recurs has a lane
            finally:
                self.resting = False
                self.waiter = None
            timeout = deadline - clock.now()

    def leave_unanswered(self, caller: Any) -> None:
        """Note that a caller's message was taken, and its reply is still to come."""
        if self.unanswered is None:
            self.unanswered = Unanswered()
        self.unanswered[caller] = None

    def hibernate(self, owner: Wakeable) -> None:
        """Have the owner woken by the next append, at rest meanwhile; a message may be there."""
        self.waiter = owner
        if not self.messages:
            self.messages = _NONE_YET
        self.resting = not (self.messages or self.unanswered)

    def rouse(self) -> None:
        """The owner goes on."""
        self.waiter = None
        self.resting = False

    def _find(self, match: Callable[[Any], bool] | None, start: int = 0) -> int | None:
        """Return where the first message is that matches; by index, not by an iterator.

        Anything can run in `match`, be it the garbage collector's callbacks, and
        append: to an iterator that is an error.
        """
        messages, position = self.messages, start
        while position < len(messages):
            message = messages[position]
            if match is None or match(message):
                if position < len(messages) and messages[position] is message:
                    return position
                raise RuntimeError(f"receive: {match!r} must neither receive nor block")
            position += 1
        return None

    def holds(self, match: Callable[[Any], bool]) -> bool:
        """Tell whether there is a message that matches."""
        return self._find(match) is not None

    def discard(self, match: Callable[[Any], bool]) -> None:
        """Remove the first message that matches, if there is one."""
        position = self._find(match)
        if position is not None:
            self.taken += 1
            del self.messages[position]

    def discard_all(self, match: Callable[[Any], bool]) -> None:
        """Remove every message that matches, in one pass."""
        messages = self.messages
        seen = [messages[position] for position in range(len(messages))]
        kept = [message for message in seen if not match(message)]
        self.taken += len(seen) - len(kept)
        for _ in seen:
            messages.popleft()
        messages.extendleft(reversed(kept))  # before those that came meanwhile


class _NoMail(Mailbox):
    """Stands for the mailboxes of those who never got a message."""

    __slots__ = ()

    def append(self, message: Any) -> None:
        """Refuse: it belongs to nobody."""
        raise TypeError("this process has no mailbox of its own yet")


NO_MAIL: Final = _NoMail()
