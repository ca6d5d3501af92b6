"""Names for processes: the local ones, and registries that users start.

A name belongs to a living process and goes with it, before anybody hears of the
death: ``whereis`` never returns a dead process.

    >>> from gpool.otp.process import self
    >>> register("me", self())
    >>> whereis("me") is self()
    True
    >>> unregister("me")

Rules:

* A process has at most one local name, and any number of keys in registries.
* A :class:`Registry` is a process; those registered in it are linked to it and
  fall with it.

Not here: several values per key, listeners.
"""

from __future__ import annotations

from gpool.errors import BadName, NameTaken, NoProcess
from gpool.otp.pid import RUNNING, Pid, table


def register(name: str, pid: Pid) -> None:
    """Give a living process a local name.

    Raises:
        BadName: The name is no text, or empty; the process is dead or has a name.
        NameTaken: Another process, or this one, has the name.

    Source:
        Erlang ``register/2``.
    """
    if not isinstance(name, str) or not name:
        raise BadName(name, "expected a text that is not empty")
    if name in table.names:
        raise NameTaken(name, table.names[name])
    if pid.state is not RUNNING:
        raise BadName(name, f"{pid!r} is not alive")
    if any(names is table.names for names, _ in pid.names):
        raise BadName(name, f"{pid!r} is registered as {pid.name!r} already")
    table.names[name] = pid
    pid.names.insert(0, (table.names, name))


def unregister(name: str) -> None:
    """Take a local name back.

    Raises:
        NoProcess: Nobody has it.

    Source:
        Erlang ``unregister/1``.
    """
    pid = table.names.pop(name, None)
    if pid is None:
        raise NoProcess(name)
    pid.names = [entry for entry in pid.names if entry[0] is not table.names]


def whereis(name: str) -> Pid | None:
    """Return the process that has a local name, never a dead one.

    Source:
        Erlang ``whereis/1``.
    """
    return table.names.get(name)
