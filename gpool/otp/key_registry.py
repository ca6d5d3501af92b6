"""A registry that users start: any number of keys, each for one living process.

    >>> from gpool.otp.gen import stop
    >>> from gpool.otp.gen_server import GenServer
    >>> from gpool.otp.process import self
    >>> names = Registry.start()
    >>> names.register("db", value=5432)
    >>> names.lookup("db") == (self(), 5432)
    True
    >>> names.unregister("db")
    >>> stop(names)

A server is started under a key with ``server_name=(registry, key)``; such a pair
(or one with the registry's own local name) stands for a process wherever a local
name does.

Rules:

* A key goes with its process, before anybody hears of the death; that of a
  process whose exit is accepted already is free.
* Registered processes are linked to the registry and fall with it.
* All of it runs in the caller, without a switch; the registry's process is there
  to be supervised and linked to.

Not here: local names (``registry.py``); several values per key, listeners.

Source:
    Elixir's ``Registry`` with unique keys, whose lookups may find the dead.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from gpool.errors import BadName, NameTaken, NoProcess
from gpool.otp import process
from gpool.otp.gen_server import GenServer, Ignore, Stop, Then
from gpool.otp.greenlets import current
from gpool.otp.pid import DEAD, RUNNING, Exit, Pid, tie, untie


class _Owners(dict[Hashable, Pid]):
    """Who has which key; a dying process deletes its own entries (see ``Pid.names``)."""

    def __init__(self) -> None:
        super().__init__()
        self.data: dict[Hashable, Any] = {}  # key -> the value that was registered with it
        self.keys_of: dict[Pid, dict[Hashable, None]] = {}  # oldest first; never empty
        self.linked: set[Pid] = set()  # those that the registry has linked to itself

    def enter(self, key: Hashable, pid: Pid, value: Any) -> None:
        self[key], self.data[key] = pid, value
        self.keys_of.setdefault(pid, {})[key] = None
        if pid.names is None:
            pid.names = []
        pid.names.append((self, key))

    def __delitem__(self, key: Hashable) -> None:
        pid = self.pop(key)
        del self.data[key]
        del self.keys_of[pid][key]
        if not self.keys_of[pid]:
            del self.keys_of[pid]


class Registry(GenServer):
    """A process that gives others names of any kind."""

    def __init__(self) -> None:
        self.owners = _Owners()

    def init(self) -> Then | Ignore | Stop:
        """Trap exits: those of the registered must not end the registry."""
        process.trap_exit(True)
        return None

    def handle_info(self, message: Any) -> Then | Stop:
        """Take note of deaths; all has been done when they come."""
        if not isinstance(message, Exit):
            return super().handle_info(message)
        if message.pid.state is DEAD:
            self.owners.linked.discard(message.pid)
        return None

    def register(self, key: Hashable, value: Any = None) -> None:
        """Give the caller a key, and link it to the registry.

        Args:
            key: Anything hashable.
            value: Kept with the key, for :meth:`lookup`.

        Raises:
            NameTaken: Another process, or this one, has the key.
            NoProcess: The registry is dead.
            WrongHub: It lives in another thread.

        Source:
            Elixir ``Registry.register/3``.
        """
        self.register_name(key, current(), value)

    def register_name(self, key: Hashable, owner: Any, value: Any = None) -> None:
        """Give another process a key; otherwise as :meth:`register`.

        Args:
            key: Anything hashable.
            owner: A pid, a handle or a name.
            value: Kept with the key, for :meth:`lookup`.

        Raises:
            BadName: It is not alive.
            NameTaken, NoProcess, WrongHub: As :meth:`register`.

        Source:
            Elixir ``Registry.register_name/2``.
        """
        me, pid = self._alive(), process.resolve(owner)
        process.same_hub(pid)
        if pid.state is not RUNNING:
            raise BadName(key, f"{pid!r} is not alive")
        taken_by = self.whereis_name(key)
        if taken_by is not None:
            raise NameTaken(key, taken_by)
        if key in self.owners:
            self._take_away(key)
        self.owners.enter(key, pid, value)
        if me not in pid.links:
            tie(pid, me)
            self.owners.linked.add(pid)

    def unregister(self, key: Hashable) -> None:
        """Take back a key that the caller has; harmless if it has not.

        With its last key goes its link to the registry.

        Raises:
            NoProcess: The registry is dead.

        Source:
            Elixir ``Registry.unregister/2``.
        """
        me, caller = self._alive(), current()
        if self.owners.get(key) is not caller:
            return
        self._take_away(key)
        if caller not in self.owners.keys_of and caller in self.owners.linked:
            self.owners.linked.discard(caller)
            untie(caller, me)

    def whereis_name(self, key: Hashable) -> Pid | None:
        """Return the living process that has `key`.

        Raises:
            NoProcess: The registry is dead.

        Source:
            Elixir ``Registry.whereis_name/1``.
        """
        self._alive()
        pid = self.owners.get(key)
        return pid if pid is not None and process.is_alive(pid) else None

    def lookup(self, key: Hashable) -> tuple[Pid, Any] | None:
        """Return the living process that has `key`, and the value kept with it.

        Raises:
            NoProcess: The registry is dead.

        Source:
            Elixir ``Registry.lookup/2``.
        """
        pid = self.whereis_name(key)
        return None if pid is None else (pid, self.owners.data[key])

    def update_value(self, key: Hashable, fn: Callable[[Any], Any]) -> tuple[Any, Any]:
        """Replace the value of a key of the caller's by what `fn` makes of it.

        Returns:
            The new value and the old one.

        Raises:
            NameTaken: Another process has the key.
            NoProcess: Nobody has it, or the registry is dead.

        Source:
            Elixir ``Registry.update_value/3``.
        """
        owner = self.whereis_name(key)
        if owner is None:
            raise NoProcess((self, key))
        if owner is not current():
            raise NameTaken(key, owner)
        old = self.owners.data[key]
        new = self.owners.data[key] = fn(old)
        return new, old

    def keys(self, pid: Pid) -> list[Hashable]:
        """Return the keys that a process has, oldest first.

        Raises:
            NoProcess: The registry is dead.

        Source:
            Elixir ``Registry.keys/2``.
        """
        self._alive()
        return list(self.owners.keys_of.get(pid, ()))

    def count(self) -> int:
        """Return how many keys are taken.

        Raises:
            NoProcess: The registry is dead.

        Source:
            Elixir ``Registry.count/1``.
        """
        self._alive()
        return len(self.owners)

    def _alive(self) -> Pid:
        pid = process.resolve(self)
        if pid.state is not RUNNING:
            raise NoProcess(pid)
        process.same_hub(pid)
        return pid

    def _take_away(self, key: Hashable) -> None:
        pid = self.owners[key]
        del self.owners[key]
        pid.names = [
            (table, name)
            for table, name in pid.names or ()
            if table is not self.owners or name != key
        ]
