"""PoolsSup: pools side by side, where one pool's fall never harms another.

A pool that has failed is revived after a backoff, which PoolsSup's own
intensity does not count.  A PoolsSup that had to restart brings back every
pool that the Application knows, each one once the tree that it had before is dead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from gpool import clock
from gpool.errors import StartError
from gpool.otp.child import Child
from gpool.otp.child_spec import Backoff, ChildSpec
from gpool.otp.dynamic_supervisor import DynamicSupervisor
from gpool.otp.gen import Cast
from gpool.otp.gen_server import Ignore, Stop, Then
from gpool.otp.key_registry import Registry
from gpool.otp.pid import DEAD, FORKED, RUNNING, Pid, watch
from gpool.pool.ledger import Ledger
from gpool.pool.pool_sup import PoolSup

REVIVAL: Final = Backoff(first=0.5, maximum=30.0)  # of a pool that has failed


@dataclass(frozen=True, slots=True)
class Open:
    """Start a pool."""

    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Forget:
    """Do not revive a pool: it is being stopped."""

    ledger: Ledger


class _Again:
    """Has a pool opened later: at a death, or when a delay has passed."""

    __slots__ = ("ledger", "pools_sup")

    def __init__(self, pools_sup: PoolsSup, ledger: Ledger) -> None:
        self.pools_sup, self.ledger = pools_sup, ledger

    def down(self, pid: Pid, reason: Any) -> None:
        """What was in the way is dead."""
        self.post()

    def post(self) -> None:
        """Tell the supervisor, if it still lives; never switches."""
        me = self.pools_sup.pid
        if me is not None and me.state is RUNNING:
            me.mailbox.append(Cast(Open(self.ledger)))


class PoolsSup(DynamicSupervisor):
    """The supervisor of all pools."""

    def __init__(self, ledgers: dict[str, Ledger], registry: Registry) -> None:
        super().__init__()
        self.ledgers = ledgers  # the Application's: every pool that should run
        self.registry = registry  # pool name -> its PoolSup

    def init(self) -> Then | Ignore | Stop:
        """Start every pool that should run."""
        answer = super().init()
        for ledger in list(self.ledgers.values()):
            self._open(ledger)
        return answer

    def handle_cast(self, request: Any) -> Then | Stop:
        """Open or forget a pool."""
        match request:
            case Open(ledger):
                self._open(ledger)
            case Forget(ledger):
                self._forget(ledger)
            case _:
                return super().handle_cast(request)
        return None

    def _open(self, ledger: Ledger) -> None:
        known = any(child.spec.args == (ledger,) for child in self.running.values())
        if known or self.ledgers.get(ledger.name) is not ledger:
            return
        predecessor = self._predecessor(ledger)
        if predecessor is not None:
            watch(predecessor, _Again(self, ledger))
            return
        spec = ChildSpec(
            ledger.name,
            PoolSup.start_link,
            (ledger,),
            {"server_name": (self.registry, ledger.name)},
            type="supervisor",
            backoff=REVIVAL,
        )
        try:
            self._start_child(((spec,), {}))
        except StartError:
            # Nothing of a pool's own fails to start: something was killed meanwhile.
            again = _Again(self, ledger)
            clock.call_later(REVIVAL.delay(0), again.post, ref=ledger.queue.length > 0)

    def _predecessor(self, ledger: Ledger) -> Pid | None:
        """Return the tree that is still going down and has the pool's books, or its name."""
        for pid in (ledger.sup, self.registry.whereis_name(ledger.name)):
            if pid is not None and pid.state not in (DEAD, FORKED):
                return pid
        return None

    def _forget(self, ledger: Ledger) -> None:
        for pid, child in list(self.running.items()):
            if child.spec.args == (ledger,) and child.restarting:
                self._terminate_child(pid)

    def _has_died(self, child: Child) -> Stop | None:
        # Not left to Forget: a pool may be stopped before anybody knows where to send it.
        if child.spec.args[0] not in self.ledgers.values():
            child.spec = replace(child.spec, restart="temporary", backoff=None)
        return super()._has_died(child)
