"""Names for processes: the local ones, and the way to those in a registry.

A name belongs to a living process and goes with it, before anybody hears of the
death: ``whereis`` never returns a dead process.

    >>> from gpool.otp.process import self
    >>> register("me", self())
    >>> whereis("me") is self()
    True
    >>> unregister("me")

Rules:

* A process has at most one local name, and any number of keys in registries.

Not here: registries themselves (``key_registry.py``).
"""

from __future__ import annotations

from typing import Any

from gpool.errors import BadName, NameTaken, NoProcess
from gpool.otp.pid import RUNNING, Pid, table
from gpool.otp.process import directory_of, resolve, same_hub

Name = str | tuple[Any, Any]  # a local name, or a registry and a key


def owner_of(name: Name) -> Pid | None:
    """Return the process that has a name of either kind.

    Raises:
        BadName: It is no name.
        NoProcess: Its registry is dead.
        TypeError: What should be its registry is none.
    """
    if not isinstance(name, tuple):
        return whereis(name)
    directory, key = directory_of(name)
    owner: Pid | None = directory.whereis_name(key)
    return owner


def assign(name: Name, pid: Pid) -> None:
    """Give a living process a name of either kind; raises as :func:`register` does."""
    if not isinstance(name, tuple):
        register(name, pid)
        return
    directory, key = directory_of(name)
    directory.register_name(key, pid)


def _check(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise BadName(name, "expected a text that is not empty")


def register(name: str, process: Any) -> None:
    """Give a living process a local name.

    Args:
        name: A text that is not empty.
        process: A pid, a handle or another name.

    Raises:
        BadName: The name is no text, or empty; the process is dead or has a name.
        NameTaken: Another process, or this one, has the name.
        WrongHub: The process lives in another thread.

    Source:
        Erlang ``register/2``.
    """
    _check(name)
    pid = resolve(process)
    same_hub(pid)
    if name in table.names:
        raise NameTaken(name, table.names[name])
    if pid.state is not RUNNING:
        raise BadName(name, f"{pid!r} is not alive")
    if any(names is table.names for names, _ in pid.names or ()):
        raise BadName(name, f"{pid!r} is registered as {pid.name!r} already")
    table.names[name] = pid
    pid.names = [(table.names, name), *(pid.names or ())]


def unregister(name: str) -> None:
    """Take a local name back.

    Raises:
        NoProcess: Nobody has it.
        BadName: It is no text, or empty.

    Source:
        Erlang ``unregister/1``.
    """
    _check(name)
    pid = table.names.pop(name, None)
    if pid is None:
        raise NoProcess(name)
    pid.names = [entry for entry in pid.names or () if entry[0] is not table.names]


def whereis(name: str) -> Pid | None:
    """Return the process that has a local name, never a dead one.

    Raises:
        BadName: It is no text, or empty.

    Source:
        Erlang ``whereis/1``.
    """
    _check(name)
    return table.names.get(name)
