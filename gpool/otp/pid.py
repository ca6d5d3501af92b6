"""What a process is, without how it runs: its pid, its state, its reasons to die.

A :class:`Pid` is never used again.  Links, monitors, names, the mailbox and the
exit reason live in it; the greenlet that runs the process is optional: a process
that hibernates has none until it is woken, and a passive thing (a shell) can be
linked, monitored and killed as well.

    running --signal accepted--> pending --thrown--> unwinding --> dead
       |                                                             ^
       +----------------- returns, raises, exits --------------------+

Rules:

* The reason is fixed when a signal is accepted, in the sender, not when the
  exception reaches the greenlet; whatever happens later, others see that one.
* `pending` and `unwinding` processes are not alive to anybody else, but still
  hold their links, names and monitors: these go at `dead`, all at once.
* `forked` is what a process of the parent is in a forked child: never run,
  never finalised, never told.

Not here: what sends signals and throws them (``signal.py``), what runs a process
(``greenlets.py``).
"""

from __future__ import annotations

import itertools
import os
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import gevent
from greenlet import getcurrent

from gpool.otp.mailbox import NO_MAIL, Mailbox

if TYPE_CHECKING:
    from greenlet import greenlet

State = Literal["running", "pending", "unwinding", "dead", "forked"]
RUNNING: Final = "running"
PENDING: Final = "pending"
UNWINDING: Final = "unwinding"
DEAD: Final = "dead"
FORKED: Final = "forked"

UNWIND_LIMIT: Final = 5.0  # s that a process's cleanup may take, unless its supervisor says
GENERATIONS: Final = 9  # ancestors that a process knows
ENDED_KEPT: Final = 256  # processes remembered after their death


class Error:
    """Exit reason of a process that died of an exception.

    The exception keeps no frames alive: its traceback, and those of its causes,
    are dropped once their text is safe.

    Args:
        exception: What escaped from the process.
    """

    __slots__ = ("_traceback", "exception")

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception
        self._traceback = traceback.TracebackException.from_exception(exception, lookup_lines=False)
        _drop_frames(exception)

    def format(self) -> str:
        """Return the traceback as text, as Python prints it."""
        return "".join(self._traceback.format())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Error) and other.exception is self.exception

    def __hash__(self) -> int:
        return hash((Error, id(self.exception)))

    def __repr__(self) -> str:
        try:
            return f"Error({_words(self.exception)})"
        except Exception:  # noqa: BLE001  # what ends a process must not end those who report it
            return f"Error(<{type(self.exception).__qualname__}, whose repr fails>)"


def _words(exception: BaseException) -> str:
    words, message = repr(exception), str(exception)
    if type(exception).__repr__ is BaseException.__repr__ or message in words:
        return words
    return f"{words}: {message}"  # some libraries' errors have a repr that says nothing


def _drop_frames(exception: BaseException | None) -> None:
    seen: set[int] = set()
    todo = [exception]
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        error.__traceback__ = None
        todo += [error.__cause__, error.__context__]
        if isinstance(error, BaseExceptionGroup):
            todo += error.exceptions


class ExitSignal(gevent.GreenletExit):
    """Ends the process that it is raised in, with `reason`.

    A ``BaseException``: ``except Exception`` lets it pass, and to gevent a
    greenlet that ends with it has ended cleanly.
    """

    @property
    def reason(self) -> Any:
        """What the process dies of."""
        return self.args[0]


@dataclass(frozen=True, slots=True)
class Exit:
    """The message that a trapping process gets in place of an exit signal."""

    pid: Pid  # the process that died or sent the signal
    reason: Any


@dataclass(frozen=True, slots=True)
class Down:
    """The message that a monitor sends, once, when its process dies."""

    ref: Ref
    process: Any  # its pid; the name, if the monitor was set on a name
    reason: Any


class Monitor(Protocol):
    """Whatever wants to be told, in the dying frame, that a process is dead."""

    def down(self, pid: Pid, reason: Any) -> None:
        """Take note; must neither switch nor raise."""


class Keeper(Protocol):
    """Whoever must know at once that a process is about to die, and that it is dead.

    A process may have several, one after the other: a dictionary would take more memory.
    """

    next: Keeper | None  # who must know as well

    @property
    def watcher(self) -> Pid | None:
        """The process that monitors by it, for those who look."""

    def doomed(self, reason: Any) -> None:
        """An exit was accepted; must neither switch nor raise."""

    def down(self, pid: Pid, reason: Any) -> None:
        """It is dead: told before its monitors; must neither switch nor raise."""


class Starter(Protocol):
    """Whoever waits for a process to be initialised; see ``proc_lib.py``."""

    owner: Pid | None  # its link reports no EXIT until the start is acknowledged

    def wake(self, outcome: Any) -> object:
        """Take the outcome; must neither switch nor raise."""


class Hibernating(Protocol):
    """How processes go on that wait without a greenlet; see ``greenlets.py``."""

    def rouse(self, pid: Pid) -> Any:
        """Let one go on in a greenlet, and return that once it has ended or blocks; in the hub."""


_pid_numbers = itertools.count(1)
_ref_numbers = itertools.count(1)


class Shared(dict[Any, None]):
    """Links or monitors that several processes share, because they have no others.

    It is written by nobody: :func:`tie`, :func:`untie` and :func:`watch` give a process a
    dict of its own in its place.
    """

    __slots__ = ()

    def __setitem__(self, key: Any, value: None) -> None:
        raise TypeError("this process has no dict of its own yet")

    def __delitem__(self, key: Any) -> None:
        raise TypeError("this process has no dict of its own yet")

    def pop(self, key: Any, default: Any = None) -> Any:
        """Find that there is nothing to take, or refuse to."""
        if key in self:
            del self[key]
        return default


NOBODY: Final = Shared()


class Kin:
    """What all children of one process have in common, and hold once."""

    __slots__ = ("ancestors", "links")

    def __init__(self, parent: Pid) -> None:
        self.ancestors: tuple[Pid, ...] = (parent, *parent.ancestors)[:GENERATIONS]
        self.links = Shared({parent: None})  # of those that are linked to it and to nobody else


class Unwinding:
    """How far the exit of one process has come; made when the first of these is needed."""

    __slots__ = ("killed", "raised", "thrown", "timer")

    def __init__(self) -> None:
        self.killed = False  # an untrappable kill was accepted
        self.thrown = 0  # times that an exit was thrown into its greenlet
        self.raised = 0  # times that a primitive refused to work for it
        self.timer: Any = None  # cuts its cleanup


class Pid:
    """One process, for ever: equal only to itself.

    There may be many, most of which never link, monitor, register or unwind:
    what they need for that is made on first use.
    """

    __slots__ = (
        "__weakref__",
        "ancestors",
        "awaiting",
        "ended_at",
        "greenlet",
        "hibernation",
        "hub",
        "id",
        "initial_call",
        "keeper",
        "kin",
        "last_message",
        "links",
        "mailbox",
        "monitored_by",
        "monitors",
        "names",
        "reason",
        "server",
        "started_at",
        "starter",
        "state",
        "trapping",
        "unwind_limit",
        "unwinding",
        "weak_greenlet",
    )

    def __init__(self, hub: Any, initial_call: str, parent: Pid | None, now: float) -> None:
        self.id = next(_pid_numbers)
        self.hub = hub  # the gevent hub of its thread
        self.greenlet: greenlet | None = None  # None: a shell, weak_greenlet, or it hibernates
        self.hibernation: Hibernating | None = None  # while it hibernates
        self.weak_greenlet: weakref.ref[greenlet] | None = None  # not gevent's, we only met it
        self.state: State = RUNNING
        self.reason: Any = None  # fixed once it is accepted
        self.trapping = False
        self.mailbox: Mailbox = NO_MAIL  # until it is spawned, or gets one: see mailbox_of()
        self.links: dict[Pid, None] = NOBODY  # oldest first; written by tie() and untie()
        self.monitors: dict[Ref, None] = NOBODY  # those that it has set; written by _watch
        self.monitored_by: dict[Monitor, None] = NOBODY  # on it, oldest first; written by watch()
        self.names: list[tuple[dict[Any, Pid], Any]] | None = None  # (table, key), to be cleared
        self.initial_call = initial_call
        self.ancestors = () if parent is None else (parent.kin or parent.family).ancestors
        self.kin: Kin | None = None  # what its children share, once it has one
        self.started_at = now
        self.ended_at: float | None = None
        self.starter: Starter | None = None  # while its init runs
        self.awaiting: Collection[Pid] = ()  # those whose start or stop it waits for
        self.server: Any = None  # the GenServer that runs in it
        self.last_message: Any = None  # the one that a server crashed on
        self.keeper: Keeper | None = None
        self.unwind_limit: float | None = UNWIND_LIMIT  # s for its cleanup; None: no limit
        self.unwinding: Unwinding | None = None

    @property
    def family(self) -> Kin:
        """What its children share."""
        if self.kin is None:
            self.kin = Kin(self)
        return self.kin

    @property
    def parent(self) -> Pid | None:
        """Who spawned it."""
        return self.ancestors[0] if self.ancestors else None

    @property
    def exiting(self) -> Unwinding:
        """How far its exit has come, to be written to."""
        if self.unwinding is None:
            self.unwinding = Unwinding()
        return self.unwinding

    @property
    def name(self) -> Any:
        """The first name that the process is registered under, or None."""
        return self.names[0][1] if self.names else None

    def runner(self) -> Any:
        """Return the greenlet that runs the process.

        None for a shell, while it hibernates, and once it is gone.
        """
        return self.greenlet if self.weak_greenlet is None else self.weak_greenlet()

    def wake(self) -> None:
        """Rouse it soon, if it hibernates then; never switches."""
        self.hub.loop.run_callback(self.rouse)

    def rouse(self) -> Any:
        """Let it go on at once, if it hibernates, until it ends or blocks; in the hub.

        Returns:
            Its greenlet; None if it does not hibernate.
        """
        if self.hibernation is None or self.state is FORKED:
            return None
        return self.hibernation.rouse(self)

    def __repr__(self) -> str:
        return f"#PID<{self.id}>"

    def __copy__(self) -> Pid:
        return self

    def __deepcopy__(self, memo: object) -> Pid:
        return self  # so that messages, events and infos can be copied

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"{self!r} cannot leave its operating system process")


def tie(one: Pid, other: Pid) -> None:
    """Link two processes, both ways at once; once is enough."""
    if other in one.links and one in other.links:
        return
    if one.links is NOBODY and other.kin is not None and one.ancestors is other.kin.ancestors:
        one.links = other.kin.links
    else:
        _own_links(one)[other] = None
    _own_links(other)[one] = None


def _own_links(pid: Pid) -> dict[Pid, None]:
    """Return the links of a process, to be written to."""
    shared = pid.links
    if type(shared) is Shared:
        own = dict(shared)
        if pid.links is shared:  # still: a signal handler may have linked it meanwhile
            pid.links = own
    return pid.links


def untie(one: Pid, other: Pid) -> bool:
    """Unlink two processes, both ways at once; tell whether `one` was linked."""
    was_linked = other in one.links
    for pid, partner in ((other, one), (one, other)):
        if partner not in pid.links:
            continue
        shared = pid.links
        if type(shared) is Shared and pid.links is shared:
            pid.links = NOBODY
        else:
            del pid.links[partner]
    return was_linked


def mailbox_of(pid: Pid) -> Mailbox:
    """Return the mailbox of a process, to be written to."""
    if pid.mailbox is NO_MAIL:
        own = Mailbox()
        if pid.mailbox is NO_MAIL:  # still: a signal handler may have sent it one meanwhile
            pid.mailbox = own
    return pid.mailbox


def doom(pid: Pid) -> None:
    """Tell the keepers of a process that its exit was accepted."""
    _tell_doomed(pid.keeper, pid.reason)


def _tell_doomed(keeper: Keeper | None, reason: Any) -> None:
    while keeper is not None:
        following = keeper.next
        try:
            keeper.doomed(reason)
        except BaseException:  # a signal handler's
            _tell_doomed(following, reason)
            raise
        keeper = following


def watch(target: Pid, monitor: Monitor) -> None:
    """Have `monitor` told of the death of `target`."""
    if target.monitored_by is NOBODY:
        target.monitored_by = {}
    target.monitored_by[monitor] = None


class Ref:
    """A monitor that one process has set on another; never used again."""

    __slots__ = ("id", "process", "target", "watcher")

    def __init__(self, watcher: Pid, target: Pid | None, process: Any) -> None:
        self.id = next(_ref_numbers)
        self.watcher = watcher
        self.target = target  # None: nobody was there
        self.process = process  # what the monitor was set on, as Down reports it

    def down(self, pid: Pid, reason: Any) -> None:
        """Put the DOWN message into the watcher's mailbox."""
        self.watcher.monitors.pop(self, None)
        mailbox_of(self.watcher).append(Down(self, self.process, reason))

    def __repr__(self) -> str:
        return f"#Ref<{self.id}>"

    def __copy__(self) -> Ref:
        return self

    def __deepcopy__(self, memo: object) -> Ref:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"{self!r} cannot leave its operating system process")


class Table:
    """All processes of this operating system process."""

    def __init__(self) -> None:
        self.processes: dict[int, Pid] = {}  # id -> those not dead
        self.names: dict[Any, Pid] = {}  # registered name -> process
        self.raw: dict[Pid, None] = {}  # those whose greenlets tell nobody that they end
        self.zombies: dict[Pid, Any] = {}  # declared dead -> the greenlet that would not go
        self.ended: deque[Pid] = deque()  # the latest dead ones, oldest first
        self.parents: list[Any] = []  # what the parents of a fork owned: kept, never touched
        self.beginnings: list[Callable[[], object]] = []  # called at the first use of gpool
        self.has_begun = False

    def begin(self) -> None:
        """Gpool is used for the first time in this operating system process."""
        self.has_begun = True
        for beginning in self.beginnings:
            beginning()

    def remember(self, pid: Pid) -> None:
        """Keep a dead process for a while; what falls out lets go of its ancestors."""
        self.ended.append(pid)
        while len(self.ended) > ENDED_KEPT:
            forgotten = self.ended.popleft()
            forgotten.ancestors = ()

    def set_aside(self) -> None:
        """In a forked child: keep what the parent owned, unused, and start afresh."""
        owned = self.processes, self.names, self.raw, self.zombies, self.ended
        greenlets = [pid.runner() for pid in self.processes.values()]
        self.parents.append((owned, greenlets))
        for pid in self.processes.values():
            pid.state = FORKED
        # The greenlet that forked goes on: as the child's own, with a pid of its own.
        if hasattr(me := getcurrent(), "gpool_pid"):
            del me.gpool_pid
        self.processes, self.names, self.raw, self.zombies = {}, {}, {}, {}
        self.ended = deque()
        self.has_begun = False


table: Final = Table()
os.register_at_fork(after_in_child=table.set_aside)
