"""What the Ledger needs of whoever is in charge of a pool.

PoolMan has it, one after the other: each one for an epoch.  All of it runs in
the greenlet of whoever reports, a client or a worker, and none of it switches.

Not here: how it decides (``pool_state.py``) and acts (``pool_man.py``).
"""

from __future__ import annotations

from typing import Any, Protocol

from gpool.otp.pid import Pid
from gpool.pool.lease import Lease, Ticket
from gpool.pool.pool_state import PoolState, Slot, Verdict


class Manager(Protocol):
    """Whoever decides while it is in charge: PoolMan.  No method of it switches."""

    pid: Pid | None
    state: PoolState

    def checkout(self, lease: Lease[Any]) -> bool:
        """Lend an idle worker at once, or answer False."""

    def enqueue(self, ticket: Ticket) -> None:
        """A client waits."""

    def withdraw(self, ticket: Ticket) -> None:
        """A client waits no more."""

    def checkin(self, slot: Slot, verdict: Verdict) -> None:
        """A worker came back."""

    def started(self, slot: Slot) -> None:
        """A worker is up."""

    def failed(self, slot: Slot, reason: Any) -> None:
        """A worker did not start."""

    def doomed(self, slot: Slot) -> None:
        """An idle worker is about to die."""

    def recovered(self, slot: Slot) -> None:
        """A worker is fit to be lent again."""

    def died(self, slot: Slot, is_open: bool) -> None:
        """A worker is dead."""

    def keep_trying(self) -> None:
        """Somebody waits for starts that back off: the loop has to live as long."""

    def cancel_timers(self) -> None:
        """The epoch is over."""
