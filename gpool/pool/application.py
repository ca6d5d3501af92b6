"""The Application: the root of the tree, and the only global state of the pools.

It is started by the first use of a pool, once per operating system process, in a
process of its own: a first user that is killed does not stop the start, and no
client is linked to it.  If it falls, it is started again as long as there are
pools that should run.

    Application (rest_for_one)
    |-- Registry    pool names -> their PoolSups
    `-- PoolsSup    the pools

A forked child starts with none of it: what the parent owns stays referenced and
unused.
"""

from __future__ import annotations

import contextvars
import os
import weakref
from typing import Any, Final

from gpool import clock, telemetry
from gpool.errors import NameTaken, UnknownPool, WrongHub
from gpool.otp import greenlets
from gpool.otp.child_spec import ChildSpec
from gpool.otp.gen import send_cast, stop
from gpool.otp.key_registry import Registry
from gpool.otp.pid import DEAD, Pid, table
from gpool.otp.registry import whereis
from gpool.otp.supervisor import Supervisor
from gpool.pool.ledger import Ledger
from gpool.pool.pools_sup import Forget, Open, PoolsSup
from gpool.pool.watch import Fall

NAME: Final = "gpool"  # of the root, for people to find it, unless a user has it
REBOOT_DELAY: Final = 0.1  # s before a root that fell is started again


class Application:
    """What is global: the root, and every pool that should run."""

    def __init__(self) -> None:
        self.hub: Any = None  # of the thread that it runs in
        self.root: Supervisor | None = None
        self.booting: Pid | None = None  # the process that starts the root
        self.pools_sup: Pid | None = None
        self.registry: Registry | None = None
        self.ledgers: dict[str, Ledger] = {}  # pool name -> books; kept over every restart
        # What has a name, by number, in the order of their making.
        self.declared: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self.listeners: list[telemetry.Listener] = []  # attached when it starts
        self.parents: list[Any] = []  # what the parents of a fork owned: kept, never used

    def open(self, ledger: Ledger) -> None:
        """Have a pool started, now and whenever the tree restarts; never blocks.

        Raises:
            NameTaken: A pool of that name runs.
            WrongHub: The Application runs in another thread.
        """
        self._claim(ledger.hub)
        other = self.ledgers.setdefault(ledger.name, ledger)
        if other is not ledger:
            raise NameTaken(ledger.name, other.sup)
        if self.pools_sup is not None:  # it may run, and lend, before its root has started
            send_cast(self.pools_sup, Open(ledger))
        self.boot()

    def _claim(self, hub: Any) -> None:
        """Make sure that the Application runs in the calling thread, or in none."""
        if self.hub is not None and self.hub.loop is None:
            self._bury()
        if self.root is None and self.booting is None and not self.ledgers:
            self.hub = hub
        if hub is not self.hub:
            raise WrongHub(self.root or "the pools' Application")

    def _bury(self) -> None:
        """Start afresh: the thread that it ran in has ended, and all of it."""
        if self.root is not None and self.root.pid is table.names.get(NAME):
            del table.names[NAME]
        self.set_aside()

    def forget(self, ledger: Ledger) -> None:
        """Do not start a pool again: it is being stopped; never blocks."""
        if self.ledgers.get(ledger.name) is ledger:
            del self.ledgers[ledger.name]
        if self.pools_sup is not None:
            send_cast(self.pools_sup, Forget(ledger))

    def find(self, name: str) -> Ledger:
        """Return the books of a running pool.

        Raises:
            UnknownPool: There is none of that name.
        """
        ledger = self.ledgers.get(name)
        if ledger is None:
            raise UnknownPool(name)
        return ledger

    def boot(self) -> None:
        """Start the root, unless it runs or is being started; never blocks."""
        if self.root is not None or self.booting is not None:
            return
        for listener in self.listeners:
            telemetry.attach(listener)
        self.booting = greenlets.new_process(
            self._start, initial_call="Application", context=contextvars.Context()
        )
        Fall(self.booting, self._has_booted)

    def _start(self) -> None:
        self.root = Supervisor.start(
            [
                ChildSpec("registry", self._start_registry),
                ChildSpec("pools_sup", self._start_pools_sup, type="supervisor"),
            ],
            strategy="rest_for_one",
            server_name=None if whereis(NAME) is not None else NAME,
        )
        assert self.root.pid is not None
        Fall(self.root.pid, self._fell)

    def _start_registry(self) -> Registry:
        self.registry = Registry.start_link()
        return self.registry

    def _start_pools_sup(self) -> PoolsSup:
        assert self.registry is not None
        pools_sup = PoolsSup.start_link(self.ledgers, self.registry)
        self.pools_sup = pools_sup.pid
        for ledger in self.ledgers.values():  # those that came while it started
            send_cast(pools_sup, Open(ledger))
        return pools_sup

    def _has_booted(self, reason: Any) -> None:
        if self.booting is not None and self.booting.state is DEAD:
            self.booting = None
            if self.root is None:
                self._boot_later()

    def _fell(self, reason: Any) -> None:
        if self.root is not None and self.root.pid is not None and self.root.pid.state is DEAD:
            self.root = self.pools_sup = self.registry = None
            self._boot_later()

    def _boot_later(self) -> None:
        if self.ledgers:
            clock.call_later(REBOOT_DELAY, self._boot_again)

    def _boot_again(self) -> None:
        if self.ledgers:
            self.boot()

    def stop(self) -> None:
        """Stop the root and every pool; blocks until it is dead.  For tests and tools."""
        for ledger in list(self.ledgers.values()):
            ledger.shut()
        self.ledgers.clear()
        if self.root is not None:
            stop(self.root)

    def set_aside(self) -> None:
        """In a forked child: keep what the parent owned, unused, and start afresh."""
        for ledger in self.ledgers.values():
            ledger.set_aside()
        self.parents.append((self.root, self.booting, self.ledgers, self.registry))
        self.hub = self.root = self.booting = self.pools_sup = self.registry = None
        self.ledgers = {}


application: Final = Application()
os.register_at_fork(after_in_child=application.set_aside)
