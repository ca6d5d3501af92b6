"""What the Ledger needs of whoever is in charge of a pool.

PoolMan has it, one after the other: each one for an epoch.  All of it runs in
the greenlet of whoever reports, a client or a worker, and none of it switches.

Not here: how it decides (``pool_state.py``) and acts (``pool_man.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gpool.otp.pid import Pid
from gpool.pool.lease import Lease, Ticket
from gpool.pool.pool_state import PoolState
from gpool.pool.slot import Decision, Slot, Verdict


class Manager(Protocol):
    """Whoever decides while it is in charge: PoolMan.  No method of it switches."""

    pid: Pid | None
    state: PoolState

    def checkout(self, lease: Lease[Any]) -> bool:
        """Lend an idle worker at once, or answer False."""

    def prepare(self, lease: Lease[Any]) -> bool:
        """The same for a client that does not wait: see that there is one the next time."""

    def enqueue(self, ticket: Ticket) -> None:
        """A client waits."""

    def withdraw(self, ticket: Ticket) -> None:
        """A client waits no more."""

    def checkin(self, slot: Slot, verdict: Verdict, reason: Any) -> None:
        """A worker came back."""

    def reported(self, slot: Slot, revokes: bool) -> None:
        """A worker was held for too long, and is taken away if `revokes`."""

    def started(self, slot: Slot) -> None:
        """A worker is up."""

    def failed(self, slot: Slot, reason: Any, is_open: bool) -> None:
        """A worker did not start; if `is_open` it has left a resource all the same."""

    def launches(self, slot: Slot) -> bool:
        """Tell whether a start that was decided on is still wanted, or drop it."""

    def doomed(self, slot: Slot) -> None:
        """An idle worker is about to die."""

    def recovered(self, slot: Slot) -> None:
        """A worker is fit to be lent again."""

    def unfit(self, slot: Slot, reason: str) -> None:
        """A worker could not be made fit."""

    def died(self, slot: Slot, is_open: bool) -> None:
        """A worker is dead."""

    def decide(self, event: Callable[..., list[Decision]], *facts: Any) -> None:
        """Run an event of `state`, and carry out what follows; from the hub or a client."""

    def hold_up(self) -> None:
        """See whether anything is to be lent or started."""

    def keep_trying(self) -> None:
        """Somebody waits for starts that back off: the loop has to live as long."""

    def cancel_timers(self) -> None:
        """The epoch is over."""
