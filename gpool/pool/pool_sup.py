"""PoolSup: one_for_all over WorkerSup and PoolMan.

If PoolMan dies, who holds what is no longer certain; if WorkerSup dies, the
workers go with it.  Either way PoolSup stops the other and starts both again,
and the Ledger says what they have to take over.
"""

from __future__ import annotations

from typing import Any

from gpool import clock, telemetry
from gpool.otp import greenlets, process
from gpool.otp.child_spec import ChildSpec
from gpool.otp.gen_server import Ignore, Stop, Then
from gpool.otp.pid import Exit, Pid
from gpool.otp.signal import signal
from gpool.otp.supervisor import Supervisor
from gpool.pool.ledger import EPOCH_CLOSED, Ledger
from gpool.pool.pool_man import PoolMan
from gpool.pool.watch import Fall
from gpool.pool.worker_sup import WorkerSup
from gpool.waiter import Expired


class PoolSup(Supervisor):
    """The supervisor of one pool."""

    def __init__(self, ledger: Ledger) -> None:
        options = ledger.options
        super().__init__(
            [
                ChildSpec("worker_sup", WorkerSup.start_link, (ledger,), type="supervisor"),
                ChildSpec("pool_man", PoolMan.start_link, (ledger,), shutdown=None),
            ],
            strategy="one_for_all",
            max_restarts=options.max_restarts,
            max_seconds=options.max_seconds,
        )
        self.ledger = ledger

    def init(self) -> Then | Ignore | Stop:
        """Tell the Ledger which tree it belongs to, unless the pool was stopped meanwhile."""
        ledger, me = self.ledger, greenlets.current()
        if ledger.phase == "stopped":  # meanwhile
            return Ignore()
        ledger.sup = me
        Fall(me, self._fell)
        return super().init()

    def _fell(self, reason: Any) -> None:
        # PoolMan goes next; nothing is lent until PoolsSup has started all of it again.
        ledger = self.ledger
        if ledger.man is not None and ledger.sup is self.pid:
            ledger.close_epoch(ledger.man, reason)
        if ledger.sup is self.pid:
            ledger.staff.close_rest()

    def counts_restart(self, spec: ChildSpec, reason: Any) -> bool:
        """An exception that struck in a client is not the pool's fault."""
        return reason is not EPOCH_CLOSED

    def handle_info(self, message: Any) -> Then | Stop:
        """Care for a child that died; when that was once too often, the pool has failed.

        Unless it is being stopped: then it stays so.
        """
        answer = super().handle_info(message)
        if isinstance(answer, Stop) and self.ledger.phase != "stopped":
            reason = message.reason if isinstance(message, Exit) else answer.reason
            self.ledger.fail(reason)
            telemetry.emit(telemetry.PoolHasFailed(self.pid, self.ledger.name, reason))
        return answer


def stop_tree(ledger: Ledger, sup: Pid, end: float | None) -> None:
    """Stop the processes of a pool, and kill those that are not dead in time; blocks.

    Args:
        ledger: The pool's books.
        sup: Its PoolSup.
        end: Seconds of gpool's clock; None: however long it takes.
    """
    man = None if ledger.man is None else ledger.man.pid
    tree = [pid for pid in (sup, ledger.worker_sup, man) if pid is not None]
    signal(sup, sup.parent or sup, "shutdown", direct=True)
    try:
        for pid in tree:  # not the first alone: it may be dead, and the others going down
            process.await_death(pid, None if end is None else max(end - clock.now(), 0.0))
    except Expired:
        workers = [slot.pid for slot in ledger.slots if slot.pid is not None]
        for pid in [*tree, *workers]:
            signal(pid, sup, "kill", direct=True)
        for pid in tree:
            process.await_death(pid)
