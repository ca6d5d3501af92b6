"""Replays kind ``pool``: the clients and workers of a pool set to poolboy's ways.

Workers above `size` leave at their checkin (``overflow_ttl=0``), and workers are
servers, so that one whose client died goes back.  What needs a translation:

* poolboy lends pids, which anybody may check in by naming them; gpool lends leases.
  A client checks in the last lease that it had on the worker; one that never had
  any was given the last one that anybody had; where there is none it can only name
  the worker.
* A client that may not block asks with ``timeout=0``.  If it gets nothing it asks
  again, with time for a worker's start and nothing else, and shows a worker that it
  gets only then as ``started``.
* gpool's pools have no owner: the one here stops its pool when it ends.
* *The pool* is PoolMan for whoever sends it a signal, as poolboy's clients and
  workers know no other process; what lives as long as the pool is its PoolSup.
* A pool that was stopped tells all clients the same, :class:`~gpool.PoolClosed`: to
  those who waited it means its exit, to those who come later ``noproc``.

Not here: the differences that are meant (``rules_pool.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gpool
from gpool.pool.application import application
from gpool.pool.ledger import Ledger
from tests.conformance.actors import Actor, Order
from tests.conformance.roster import Roster
from tests.conformance.step_clock import StepClock
from tests.conformance.terms import Fault, Json, decode, encode, seconds

A_START: Final = 0.001  # s; no worker of a case takes any, and nobody else does anything meanwhile
CLOSED: Final = "shutdown"  # what a pool that is stopped ends with
TIMED_OUT: Final = {"exit": "timeout"}
NOBODY: Final = {"exit": "noproc"}
NO_POOL: Final = {"result": "no_pool"}
"""The observation of every step if the setup is none of a pool."""


class Worker(gpool.GenServer):
    """A worker, which takes its label when it starts and stops when it is told to."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def init(self) -> None:
        """Take the next label."""
        self._roster.enrol(f"w{len(self._roster.pids)}", gpool.self())

    def handle_cast(self, request: Json) -> gpool.Stop:
        """Stop, with the reason that the request is."""
        return gpool.Stop(decode(request))


class Thrown(BaseException):
    """What a client throws through a transaction that is neither an error nor an exit."""


class PoolWorld:
    """The pool of one case, its owner and its clients."""

    def __init__(self, case: Json, clock: StepClock) -> None:
        self._clock = clock
        self._workers = Roster(case)
        self._pending: dict[str, Order] = {}  # blocked client -> what it is at
        self._lent: dict[str, list[tuple[str, Any]]] = {}  # worker -> (client, lease), oldest first
        self._clients = {f"c{n}": Actor(f"c{n}") for n in range(case["setup"]["clients"])}
        self._owner = Actor("owner")
        for client in self._clients.values():
            client.pid = gpool.spawn(client.live, False)
        self._listeners, application.listeners = application.listeners, []  # nobody reads a log
        self._pool = self._new_pool(case["setup"])
        if self._pool is not None:
            self._owner.pid = gpool.spawn(self._own)
            clock.settle()
            self._ledger: Ledger = application.find(self._pool.name)

    def _new_pool(self, setup: Json) -> gpool.Pool[Worker] | None:
        try:
            return gpool.Pool(
                Worker,
                (self._workers,),
                size=setup.get("size", 5),
                max_overflow=setup.get("max_overflow", 10),
                strategy=setup.get("strategy", "lifo"),
                overflow_ttl=0,
            )
        except ValueError:
            return None

    def _own(self) -> None:
        """Live as the owner, whose end is the pool's: the function to spawn."""
        self._pool.start()
        try:
            self._owner.live(False)
        finally:
            self._pool.stop()

    @property
    def _is_up(self) -> bool:
        return self._pool.status().state != "stopped"

    def step(self, step: Json) -> Json:
        """Carry out one step, wait until all is quiet, and observe."""
        if self._pool is None:
            return NO_POOL
        was_up, before, self._pending = self._is_up, self._pending, {}
        result = self._carry_out(step)
        self._clock.settle()
        completed = {who: order.result for who, order in before.items() if order.done}
        self._pending |= {who: order for who, order in before.items() if not order.done}
        self._pending = self._of_living(self._pending)
        observation = {
            "result": result,
            "completed": self._of_living(completed),
            "waiting": sorted(self._pending),
        }
        return observation | self._look(was_up)

    def close(self) -> None:
        """Stop the pool and kill every process of the case."""
        application.stop()
        for actor in [self._owner, *self._clients.values()]:
            if actor.pid is not None:
                gpool.exit(actor.pid, "kill")
        self._clock.settle()
        application.listeners = self._listeners

    # Observing.

    def _look(self, was_up: bool) -> Json:
        if self._ledger.man is not None:
            self._ledger.man.state.check()
        died = self._workers.newly_dead()
        alive = [label for label in self._workers.pids if self._workers.is_alive(label)]
        if self._is_up:
            return {"status": self._status(), "workers": alive, "died": died}
        if was_up:
            return {"workers": alive, "exit": encode(self._ledger.sup.reason)}
        return {"workers": alive, "died": died}

    def _status(self) -> Json:
        status = self._pool.status()
        return [status.state, status.idle, status.overflow, self._monitors()]

    def _monitors(self) -> int:
        """Count the leases of clients whose death the pool would hear of."""
        clients = self._ledger.clients.values()
        return sum(len(it.leases) for it in clients if it.pid.keeper is it)

    def _of_living(self, of_clients: dict[str, Any]) -> dict[str, Any]:
        alive = [who for who in of_clients if gpool.is_alive(self._clients[who].pid)]
        return {who: of_clients[who] for who in alive}

    # Carrying out: who does it, and how long it lasts.

    def _carry_out(self, step: Json) -> Json:
        match step:
            case {"op": "status"}:
                return self._status() if self._is_up else NOBODY
            case {"op": "checkout", "c": client}:
                return self._order(client, step, lambda: self._checkout(client, step))
            case {"op": "transaction", "c": client}:
                return self._order(client, step, lambda: self._transaction(step))
            case {"op": "checkin", "c": client, "w": worker}:
                return self._order(client, step, lambda: self._checkin(client, worker))
            case {"op": "client_exit", "c": client, "reason": reason}:
                self._clients[client].order(lambda: gpool.exit(decode(reason)))
            case {"op": "owner_exit", "reason": reason}:
                self._owner.order(lambda: gpool.exit(decode(reason)))
            case {"op": "kill_client", "c": client}:
                gpool.exit(self._clients[client].pid, "kill")
            case {"op": "signal_worker", "w": worker, "reason": reason}:
                gpool.exit(self._workers.pids[worker], decode(reason))
            case {"op": "stop_worker", "w": worker, "reason": reason}:
                gpool.send_cast(self._workers.pids[worker], reason)
            case {"op": "signal_pool", "reason": reason}:
                gpool.exit(self._ledger.man.pid, decode(reason))
            case {"op": "stop"}:
                return self._stop()
            case _:
                raise ValueError(f"expected an operation of kind pool, got {step!r}")
        return "ok"

    def _order(self, label: str, step: Json, work: Callable[[], Json]) -> Json:
        """Have a client do something, and wait as long as the step lasts."""
        client = self._clients[label]
        order = client.order(work)
        if step.get("block", True) and step.get("timeout") == "infinity":
            self._clock.settle()
        else:
            self._clock.wait_for(lambda: order.done or not gpool.is_alive(client.pid))
        if not order.done:
            self._pending[label] = order
        return order.result

    def _stop(self) -> Json:
        """Stop the pool as somebody does who knows its name."""
        try:
            gpool.stop_pool(self._pool.name)
        except gpool.UnknownPool:
            return NOBODY
        return "ok"

    # Everything below runs in a client's greenlet.

    def _checkout(self, client: str, step: Json) -> Json:
        if step["block"]:
            return self._borrow(client, seconds(step["timeout"]))
        at_once = self._borrow(client, 0)
        if at_once != TIMED_OUT:
            return at_once
        started = self._borrow(client, A_START)
        return "full" if started == TIMED_OUT else {"started": started["worker"]}

    def _borrow(self, client: str, timeout: float | None) -> Json:
        def borrow() -> Json:
            lease = self._pool.checkout(timeout=timeout)
            worker = encode(lease.worker, self._workers.label)
            self._lent.setdefault(worker, []).append((client, lease))
            return {"worker": worker}

        return self._exits_of(borrow)

    def _exits_of(self, use: Callable[[], Json]) -> Json:
        """Return what `use` returns, or the exit that poolboy's client would have seen."""
        came_late = not self._is_up
        try:
            return use()
        except gpool.CheckoutTimeout:
            return TIMED_OUT
        except gpool.CheckoutDeadlock:
            return {"exit": "deadlock"}
        except gpool.PoolClosed:
            return NOBODY if came_late else {"exit": CLOSED}

    def _checkin(self, client: str, worker: str) -> Json:
        try:
            self._pool.checkin(self._lease(client, worker))
        except TypeError:
            return "badarg"
        return "ok"

    def _lease(self, client: str, worker: str) -> Any:
        """Return the lease that a client gives back; a pid if it can only name the worker."""
        lent = self._lent.get(worker, [])
        own = [lease for who, lease in lent if who == client]
        leases = own or [lease for _, lease in lent]
        return leases[-1] if leases else self._workers.pids.get(worker, self._owner.pid)

    def _transaction(self, step: Json) -> Json:
        def use(worker: Worker) -> Json:
            match step["does"]:
                case "return":
                    return {"used": encode(worker, self._workers.label)}
                case "raise":
                    raise Fault("oops")
                case "exit":
                    gpool.exit("oops")
                case "throw":
                    raise Thrown("oops")
                case does:
                    raise ValueError(f"expected what a transaction does, got {does!r}")

        timeout = seconds(step["timeout"])
        try:
            return self._exits_of(lambda: self._pool.transaction(use, timeout=timeout))
        except Fault as error:
            return {"error": error.args[0]}
        except Thrown as thrown:
            return {"throw": thrown.args[0]}
        except gpool.ExitSignal as signal:
            if signal.reason != "oops":  # the client's own end
                raise
            return {"exit": signal.reason}
