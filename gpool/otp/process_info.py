"""Looking at processes: which there are, and what is to be known of one.

    >>> from gpool.otp.process import self
    >>> process_info(self()).status
    'running'
    >>> process_info(self(), "message_queue_len")
    0

Nobody is asked: all of it is read from the books, so that it never switches greenlets,
runs none of a user's code, and may be done from another thread, whatever the processes do.

Not here: looking into a server's state (``sys.py``), whose children they are
(``supervision.py``).
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from types import FrameType, FunctionType
from typing import Any, Final, Literal, overload

from greenlet import getcurrent

from gpool.otp.pid import DEAD, FORKED, RUNNING, Pid, Ref, table
from gpool.otp.process import resolve


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What there is to know of one process, at one moment.

    Source:
        Erlang ``process_info/1`` and the Observer's process window.
    """

    pid: Pid
    name: Any
    initial_call: str
    current_function: str
    status: str  # running, waiting, exiting or dead
    parent: Pid | None
    ancestors: tuple[Pid, ...]
    links: tuple[Pid, ...]
    monitors: tuple[Any, ...]  # what they were set on: pids, names
    monitored_by: tuple[Pid, ...]
    message_queue_len: int
    trap_exit: bool
    reason: Any  # of its death
    started_at: float  # seconds of gpool's clock
    ended_at: float | None


Item = Literal[
    "name",
    "initial_call",
    "current_function",
    "status",
    "parent",
    "ancestors",
    "links",
    "monitors",
    "monitored_by",
    "message_queue_len",
    "trap_exit",
    "reason",
    "started_at",
    "ended_at",
    "current_stacktrace",
]


def processes() -> list[Pid]:
    """Return the processes that are not dead yet, oldest first.

    Source:
        Erlang ``processes/0``.
    """
    return list(table.processes.values())


def zombies() -> list[Pid]:
    """Return the processes whose greenlets swallowed their exit and still run."""
    return list(table.zombies)


def recently_ended() -> list[Pid]:
    """Return the latest dead processes, oldest first; :func:`process_info` knows them still."""
    return list(table.ended)


@overload
def process_info(process: Any) -> ProcessInfo: ...
@overload
def process_info(process: Any, item: Item) -> Any: ...
def process_info(process: Any, item: Item | None = None) -> Any:
    """Describe a process, dead or alive.

    Args:
        process: A pid, a name or a handle.
        item: One field of :class:`ProcessInfo`, which is quicker than all; or
            "current_stacktrace": its frames as formatted lines, outermost first.

    Returns:
        A ProcessInfo, or the item.

    Raises:
        NoProcess: Nobody has that name.
        ValueError: There is no such item.

    Source:
        Erlang ``process_info/1`` and ``process_info/2``.
    """
    pid = resolve(process)
    if item is None:
        return ProcessInfo(pid, *[read(pid) for read in _FIELDS])
    try:
        read = ITEMS[item]
    except (KeyError, TypeError):
        raise ValueError(f"item: expected one of {sorted(ITEMS)}, got {item!r}") from None
    return read(pid)


def peek(process: Any, count: int = 20) -> list[Any]:
    """Return the first messages that wait for a process, which keeps them.

    Args:
        process: A pid, a name or a handle.
        count: How many of them; there may be very many.

    Raises:
        NoProcess: Nobody has that name.

    Source:
        Erlang ``process_info(Pid, messages)``, which copies all.
    """
    return list(islice(resolve(process).mailbox.messages, count))


# --- What is read -------------------------------------------------------------------


def _status(pid: Pid) -> str:
    if pid.state is RUNNING:
        return "running" if _is_running(pid) else "waiting"
    return "dead" if pid.state in (DEAD, FORKED) else "exiting"


def _is_running(pid: Pid) -> bool:
    """Tell whether its greenlet runs now, be it in another thread."""
    runner = pid.runner()
    # What is not suspended has no frame there; nor has what was not yet started, or is over.
    return runner is getcurrent() or (bool(runner) and runner.gr_frame is None)


# What a process waits in, not what it waits for.
_WAITS: Final = ("gevent.", "gpool.waiter.", "gpool.otp.mailbox.")
_KIT: Final = ("gevent.", "gpool.waiter.", "gpool.otp.")
_WAIT, _WORK, _USER = range(3)  # a frame is of a wait, of the kit's work, or of others
_rooms: Final[dict[int, int]] = {}  # id of a module's globals, which stay -> what its frames are


def _current_function(pid: Pid) -> str:
    if pid.hibernation is not None:
        return "hibernate"
    if pid.mailbox.resting:  # a server: where in the kit it waits is nothing to tell
        return "at rest"
    innermost = _frame(pid)
    if innermost is None:
        return ""
    frame = _telling(innermost)
    code = frame.f_code
    return f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"


def _frame(pid: Pid) -> FrameType | None:
    """Return the innermost frame of a process, if it has one; a zombie's greenlet runs on."""
    runner = table.zombies[pid] if pid in table.zombies else pid.runner()
    if runner is getcurrent():  # of a hub that is just calling us back there is nothing to tell
        return sys._getframe(1) if runner is not pid.hub else None
    frame: FrameType | None = getattr(runner, "gr_frame", None)
    if frame is None and runner:  # it runs in another thread
        return sys._current_frames().get(pid.hub.thread_ident)
    return frame


def _telling(innermost: FrameType) -> FrameType:
    """Return the first frame outwards that tells what goes on: a user's, or else the kit's."""
    work, frame, rooms = None, innermost, _rooms
    while True:  # thousands of processes are looked at in one go
        module = frame.f_globals
        room = rooms.get(id(module))
        if room is None:
            room = _room(module)
        if room is _USER:
            return frame
        if room is _WORK and work is None:
            work = frame
        outer = frame.f_back
        if outer is None:
            return work or innermost
        frame = outer


def _room(module: dict[str, Any]) -> int:
    name = f"{module.get('__name__')}."
    room = _WAIT if name.startswith(_WAITS) else _WORK if name.startswith(_KIT) else _USER
    if room is not _USER:
        _rooms[id(module)] = room
    return room


def _current_stacktrace(pid: Pid) -> list[str]:
    frame = _frame(pid)
    return [] if frame is None else traceback.format_stack(frame)


def _monitors(pid: Pid) -> tuple[Any, ...]:
    found = [ref.process for ref in pid.monitors]
    if pid.server is not None:
        found += _watched_by(pid.server)
    return tuple(found)


def _watched_by(server: Any) -> Iterable[Pid]:
    # By the class's own dictionary: neither its __getattribute__ nor its metaclass's is run;
    # and of gpool's own classes alone: no other's code is.
    for base in _mro_of(type(server)):
        watched = _vars_of(base).get("gpool_watched")
        if type(watched) is FunctionType and watched.__module__.startswith("gpool."):
            found: Iterable[Pid] = watched(server)
            return found
    return ()


def _monitored_by(pid: Pid) -> tuple[Pid, ...]:
    found = [ref.watcher for ref in pid.monitored_by if isinstance(ref, Ref)]
    keeper = pid.keeper
    while keeper is not None:
        watcher = keeper.watcher
        if watcher is not None:
            found.append(watcher)
        keeper = keeper.next
    return tuple(found)


_mro_of: Final = type.__dict__["__mro__"].__get__
_vars_of: Final = type.__dict__["__dict__"].__get__

ITEMS: Final[Mapping[str, Callable[[Pid], Any]]] = {
    "name": lambda pid: pid.name,
    "initial_call": lambda pid: pid.initial_call,
    "current_function": _current_function,
    "status": _status,
    "parent": lambda pid: pid.parent,
    "ancestors": lambda pid: pid.ancestors,
    "links": lambda pid: tuple(pid.links),
    "monitors": _monitors,
    "monitored_by": _monitored_by,
    "message_queue_len": lambda pid: len(pid.mailbox),
    "trap_exit": lambda pid: pid.trapping,
    "reason": lambda pid: pid.reason,
    "started_at": lambda pid: pid.started_at,
    "ended_at": lambda pid: pid.ended_at,
    "current_stacktrace": _current_stacktrace,
}
_FIELDS: Final = list(ITEMS.values())[:-1]  # of a ProcessInfo, after its pid
