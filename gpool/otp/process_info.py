"""Looking at processes: which there are, and what is to be known of one.

    >>> from gpool.otp.process import self
    >>> process_info(self()).status
    'running'

Not here: looking into a server's state (``sys.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

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


def process_info(process: Any) -> ProcessInfo:
    """Describe a process, dead or alive.

    Raises:
        NoProcess: Nobody has that name.
    """
    pid = resolve(process)
    return ProcessInfo(
        pid=pid,
        name=pid.name,
        initial_call=pid.initial_call,
        current_function=_current_function(pid),
        status=_status(pid),
        parent=pid.parent,
        ancestors=pid.ancestors,
        links=tuple(pid.links),
        monitors=tuple(ref.process for ref in pid.monitors),
        monitored_by=tuple(r.watcher for r in pid.monitored_by if isinstance(r, Ref)),
        message_queue_len=len(pid.mailbox),
        trap_exit=pid.trapping,
        reason=pid.reason,
        started_at=pid.started_at,
        ended_at=pid.ended_at,
    )


def _status(pid: Pid) -> str:
    if pid.state is RUNNING:
        running = getattr(getcurrent(), "gpool_pid", None) is pid
        return "running" if running else "waiting"
    return "dead" if pid.state in (DEAD, FORKED) else "exiting"


# What a process waits in, not what it waits for; a server at rest has nothing else to show.
WAITS: Final = ("gevent.", "gpool.waiter.", "gpool.otp.mailbox.")
KIT: Final = ("gevent.", "gpool.waiter.", "gpool.otp.")


def _current_function(pid: Pid) -> str:
    if pid.hibernation is not None:
        return "hibernate"
    innermost: FrameType | None = getattr(pid.runner(), "gr_frame", None)
    if innermost is None:
        return ""
    frame = _outside(KIT, innermost) or _outside(WAITS, innermost) or innermost
    return f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"


def _outside(modules: tuple[str, ...], frame: FrameType | None) -> FrameType | None:
    """Return the first frame outwards that is in none of these modules."""
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith(modules):
        frame = frame.f_back
    return frame
