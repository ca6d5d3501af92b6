"""WorkerSup: starts and stops workers, nothing else.

PoolMan sends it what PoolState decided.  A worker is linked and registered at
once and initialises in its own process, so a slow start holds nobody up; the
workers are temporary, since only PoolMan decides on replacements.
"""

from __future__ import annotations

import contextvars
from typing import Any

from gpool import telemetry
from gpool.otp import greenlets
from gpool.otp.child_spec import ChildSpec
from gpool.otp.dynamic_supervisor import DynamicSupervisor
from gpool.otp.gen_server import Ignore, Then
from gpool.otp.gen_server import Stop as StopServer
from gpool.otp.pid import Error
from gpool.pool.ledger import Ledger
from gpool.pool.slot import STARTING, Slot, Start, Stop
from gpool.pool.watch import Fall, Watch, bound


class WorkerSup(DynamicSupervisor):
    """The supervisor of one pool's workers."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.worker = _temporary("worker", ledger.options.shutdown)
        self.closer = _temporary("closer", ledger.options.shutdown)

    def init(self) -> Then | Ignore | StopServer:
        """Tell the Ledger who starts workers now."""
        ledger, me = self.ledger, greenlets.current()
        ledger.worker_sup = me
        Fall(me, self._fell)
        return super().init()

    def _fell(self, reason: Any) -> None:
        # Its workers are going down, and PoolMan will be restarted along with it.
        ledger = self.ledger
        if ledger.worker_sup is self.pid:
            ledger.worker_sup = None
            if ledger.man is not None:
                ledger.close_epoch(ledger.man, reason)

    def reports_death(self, spec: ChildSpec, reason: Any) -> bool:
        """PoolMan tells of it: a start that failed is no crash."""
        return False

    def handle_cast(self, request: Any) -> Then | StopServer:
        """Do what PoolState decided."""
        match request:
            case Start(slot):
                self._start_worker(slot)
            case Stop(slot):
                self._close_resource(slot)
            case _:
                return super().handle_cast(request)
        return None

    def _start_worker(self, slot: Slot) -> None:
        ledger = self.ledger
        if slot not in ledger.slots or slot.state is not STARTING:
            return
        if ledger.man is not None and not ledger.man.launches(slot):
            return
        try:
            watch = ledger.kind.launch(slot, ledger)
        except Exception as error:  # noqa: BLE001  # a failed start, whatever it was
            ledger.staff.died(slot, None, Error(error))
            return
        ledger.note(telemetry.WorkerStarting(slot.pid, ledger.name))
        self.adopt(slot.pid, self.worker)
        limit = ledger.options.start_timeout
        bound(slot, limit, watch.too_slow, slot.pid, greenlets.current(), limit)

    def _close_resource(self, slot: Slot) -> None:
        ledger = self.ledger
        if slot not in ledger.slots or slot.pid is not None:
            return
        slot.pid = greenlets.new_process(
            ledger.kind.close,
            (slot, ledger.options.shutdown),
            initial_call="close",
            link=True,
            keeper=Watch(ledger, slot),
            context=contextvars.Context(),
        )
        self.adopt(slot.pid, self.closer)


def _temporary(id: str, shutdown: float | None) -> ChildSpec:
    limit: Any = "brutal_kill" if shutdown == 0 else shutdown
    return ChildSpec(id, _never_again, restart="temporary", shutdown=limit)


def _never_again() -> None:
    """Stand in for the start of a temporary child, which is never repeated."""
