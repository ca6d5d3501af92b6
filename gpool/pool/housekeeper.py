"""Housekeeper: what happens in a pool because time passes, for one epoch.

Its timers exist only while there is something to wait for (that of ``max_hold``, if
there is one, always), and none keeps the loop alive but that of a start for which
somebody waits:

* *retry*: starts back off after a failure;
* *upkeep*: an idle worker is to go or to be checked, any one is too old;
* *sweep*: somebody waits, so leases that nobody can give back are looked for, and
  circles of clients that wait for each other;
* *holds*: a worker may have been held for longer than ``max_hold``.

Not here: what is then decided (``pool_state.py``, ``admission.py``).
"""

from __future__ import annotations

import math
import traceback
from typing import Any, Final

from gpool import clock
from gpool.pool.ledger import Ledger
from gpool.pool.manager import Manager
from gpool.pool.slot import Slot

SWEEP: Final = 1.0  # s between two sweeps


class Housekeeper:
    """The timers of one epoch."""

    def __init__(self, ledger: Ledger, man: Manager) -> None:
        self.ledger, self.man = ledger, man
        self.retry_timer: Any = None
        self.upkeep_timer: Any = None
        self.sweep_timer: Any = None
        self.hold_timer: Any = None
        self.retry_at = 0.0  # seconds
        self.upkeep_at = math.inf  # seconds

    def look(self) -> None:
        """See that a timer runs for all that the books wait for; after each transition."""
        state = self.man.state
        if state.upkeep_due < self.upkeep_at:
            self._upkeep_at(state.upkeep_due)
        if self.sweep_timer is None and state.waiting.length:
            self.sweep_timer = clock.call_later(SWEEP, self._sweep, ref=False)

    def cancel(self) -> None:
        """The epoch is over."""
        for timer in (self.retry_timer, self.upkeep_timer, self.sweep_timer, self.hold_timer):
            if timer is not None:
                timer.cancel()

    # --- Retry ---

    def retry_after(self, delay: float, *, ref: bool) -> None:
        """Have starts tried again in `delay` seconds; with `ref` the loop lives as long."""
        self.retry_at = clock.now() + delay
        self._set_retry(ref=ref)

    def keep_trying(self) -> None:
        """Somebody waits for starts that back off."""
        if self.man.state.backing_off:
            self._set_retry(ref=True)

    def _set_retry(self, *, ref: bool) -> None:
        if self.retry_timer is not None:
            self.retry_timer.cancel()
        self.retry_timer = clock.call_later(self.retry_at - clock.now(), self.retry, ref=ref)

    def retry(self) -> None:
        """The delay has passed."""
        self.retry_timer = None
        if self.ledger.man is self.man:
            self.man.decide(self.man.state.retry)

    # --- Upkeep ---

    def _upkeep_at(self, when: float) -> None:
        if self.upkeep_timer is not None:
            self.upkeep_timer.cancel()
        self.upkeep_at = when
        self.upkeep_timer = clock.call_later(when - clock.now(), self._upkeep, ref=False)

    def _upkeep(self) -> None:
        self.upkeep_timer, self.upkeep_at = None, math.inf
        if self.ledger.man is self.man:
            self.man.decide(self.man.state.upkeep)

    # --- Sweep ---

    def _sweep(self) -> None:
        self.sweep_timer = None
        if self.ledger.man is self.man and self.man.state.waiting.length:
            self.ledger.sweep()
            self.ledger.admission.break_deadlock()
            self.look()

    # --- Holds ---

    def watch_holds(self) -> None:
        """Look again when the first lease may be too old: one that is new now, at the latest."""
        limit = self.ledger.options.max_hold
        if limit is not None:
            oldest = min((slot.lease.since for slot in self._held()), default=math.inf)
            delay = min(oldest - clock.now(), 0.0) + limit
            self.hold_timer = clock.call_later(delay, self._look_at_holders, ref=False)

    def _held(self) -> list[Slot]:
        """Return the slots whose leases are not yet reported, and known to their clients."""
        ledger = self.ledger
        return [
            slot
            for slot in ledger.slots
            if slot.lease is not None
            and slot not in ledger.reported
            and not ledger.queue.is_unaccepted(slot.lease)
        ]

    def _look_at_holders(self) -> None:
        limit = self.ledger.options.max_hold
        if self.ledger.man is not self.man or limit is None:
            return
        for slot in self._held():
            if slot.lease.since + limit <= clock.now():
                self.ledger.report(slot, _stack_of(slot.lease.owner.pid.runner()))
        if self.ledger.man is self.man:
            self.watch_holds()


def _stack_of(greenlet: Any) -> tuple[str, ...]:
    frame = getattr(greenlet, "gr_frame", None)
    return () if frame is None else tuple(traceback.format_stack(frame))
