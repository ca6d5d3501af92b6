"""Who supervises whom: the tree, read from the supervisors' own books.

    >>> from gpool.otp.gen import stop
    >>> from gpool.otp.gen_server import GenServer
    >>> from gpool.otp.child_spec import ChildSpec
    >>> supervisor = Supervisor.start([ChildSpec("first", GenServer.start_link)])
    >>> [child] = supervision(supervisor).children
    >>> child.id, child.restarts, supervisor_of(child.pid) == supervisor.pid
    ('first', 0, True)
    >>> stop(supervisor)

``which_children`` asks, and gets no answer while a supervisor starts or stops a child;
this asks nobody, so it never blocks, and may be done from another thread.

Not here: what there is to know of a process alone (``process_info.py``).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from gpool.otp.child import Child
from gpool.otp.child_spec import ChildType, RestartType
from gpool.otp.pid import Pid
from gpool.otp.process import resolve
from gpool.otp.supervisor import Strategy, Supervisor


@dataclass(frozen=True, slots=True)
class Supervised:
    """One child, as its supervisor has it."""

    id: Hashable
    pid: Pid | None  # None: it is stopped, or about to be restarted
    type: ChildType
    restart: RestartType
    restarting: bool  # it is to be started again, some time
    restarts: int  # times that it was, in its supervisor's life
    last_exit: Any  # what it died of last, or failed to start for; None if it never did


@dataclass(frozen=True, slots=True)
class Supervision:
    """One supervisor: how it restarts, and whom."""

    strategy: Strategy
    count: int  # children that it has
    children: tuple[Supervised, ...]  # in start order, the first ones if not all were wanted


def supervision(process: Any, limit: int | None = None) -> Supervision | None:
    """Return how a supervisor supervises; None if the process is none, or dead.

    Args:
        process: A pid, a name or a handle.
        limit: Children that are wanted; None: all.

    Raises:
        NoProcess: Nobody has that name.
    """
    supervisor = resolve(process).server
    if not isinstance(supervisor, Supervisor):
        return None
    children = supervisor.in_start_order()
    shown = tuple(_shown(child) for child in islice(children, limit))
    return Supervision(supervisor.strategy, len(children), shown)


def supervisor_of(process: Any) -> Pid | None:
    """Return the supervisor that a process is a child of, if it is one's.

    Raises:
        NoProcess: Nobody has that name.
    """
    pid = resolve(process)
    return None if _child_of(pid) is None else pid.parent


def place_of(process: Any) -> Supervised | None:
    """Return what its supervisor knows of a process, if it has one.

    Raises:
        NoProcess: Nobody has that name.
    """
    child = _child_of(resolve(process))
    return None if child is None else _shown(child)


def restarts_of(process: Any) -> int | None:
    """Return how often a child was started again; None for what nobody supervises.

    Raises:
        NoProcess: Nobody has that name.
    """
    child = _child_of(resolve(process))
    return None if child is None else child.restarts


def _child_of(pid: Pid) -> Child | None:
    # A start function runs in the supervisor's process: who spawned it supervises it.
    parent = pid.ancestors[0].server if pid.ancestors else None
    return parent.running.get(pid) if isinstance(parent, Supervisor) else None


def _shown(child: Child) -> Supervised:
    spec = child.spec
    pid = child.pid if child.is_running else None
    return Supervised(
        spec.id, pid, spec.type, spec.restart, child.restarting, child.restarts, child.reason
    )
