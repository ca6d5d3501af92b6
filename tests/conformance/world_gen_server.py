"""Replays kind ``gen_server``: clients that start, call and stop servers.

Not here: what the servers do (``scripted_server.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gpool
from gpool.otp.gen import send_call, send_cast
from tests.conformance.actors import Actor, Order
from tests.conformance.roster import Roster
from tests.conformance.scripted_server import ScriptedServer
from tests.conformance.step_clock import StepClock
from tests.conformance.terms import Json, decode, seconds


class GenServerWorld:
    """The clients and servers of one case."""

    def __init__(self, case: Json, clock: StepClock) -> None:
        self.clock = clock
        self.roster = Roster(case)
        self.log: dict[str, list[Json]] = {}  # server -> entries of this step, in order
        self._pending: dict[str, Order] = {}  # blocked client -> its call
        self._clients: dict[str, Actor] = {}
        for label, trap in case["setup"].get("clients", {}).items():
            client = self._clients[label] = Actor(label)
            client.pid = gpool.spawn(client.live, trap)
            self.roster.enrol(label, client.pid)
        clock.settle()

    def step(self, step: Json) -> Json:
        """Carry out one step, wait until all is quiet, and observe."""
        before, self._pending = self._pending, {}
        result = self._carry_out(step)
        completed = {who: order.result for who, order in before.items() if order.done}
        self._pending |= {who: order for who, order in before.items() if not order.done}
        return {"result": result, "completed": self._of_living(completed), **self._observe()}

    def close(self) -> None:
        """Kill every process of the case."""
        for pid in self.roster.pids.values():
            gpool.exit(pid, "kill")
        self.clock.settle()

    def _observe(self) -> Json:
        roster = self.roster
        log, self.log = self.log, {}
        self._pending = self._of_living(self._pending)
        received = {label: client.take_all() for label, client in self._clients.items()}
        return {
            "waiting": sorted(self._pending),
            "log": log,
            "died": roster.newly_dead(),
            "alive": roster.alive(),
            "received": {who: roster.received(these) for who, these in received.items() if these},
            "names": roster.names(),
        }

    def _of_living(self, of_clients: dict[str, Any]) -> dict[str, Any]:
        return {who: it for who, it in of_clients.items() if self.roster.is_alive(who)}

    def _carry_out(self, step: Json) -> Json:
        match step:
            case {"op": "kill_client", "client": label}:
                gpool.exit(self.roster.pids[label], "kill")
                self.clock.settle()
                return "ok"
            case {"op": "whereis", "name": name}:
                return self.roster.whereis(name)
            case {"op": "sleep", "ms": milliseconds}:
                self.clock.advance(seconds(milliseconds))
                return "ok"
            case _:
                return self._order(step["c"], step)

    def _order(self, label: str, step: Json) -> Json:
        """Have a client do something, and wait as long as the step lasts."""
        client = self._clients[label]
        order = client.order(lambda: self._do(client, step))
        if may_block_for_ever(step):
            self.clock.settle()
        else:
            self.clock.wait_for(lambda: order.done or not self.roster.is_alive(label))
        if not self.roster.is_alive(label):
            return "died"
        if not order.done:
            self._pending[label] = order
        return order.result

    # Everything below runs in the client's greenlet.

    def _do(self, client: Actor, op: Json) -> Json:
        name = op["op"]
        if name == "batch":
            results = [self._do(client, {"to": op["to"], **inner}) for inner in op["ops"]]
            return results[-1]
        if name == "start":
            return self._start(op)
        return CLIENT_OPS[name](self.roster, op)

    def _start(self, op: Json) -> Json:
        start = getattr(ScriptedServer, op["mode"])
        options = {"server_name": op.get("name"), "start_timeout": seconds(op.get("start_timeout"))}
        try:
            answer = start(self, op, **options)
        except gpool.StartError as error:
            return {"error": self.roster.encode(error.reason)}
        except (ValueError, TypeError):
            return "badarg"
        server = answer
        if isinstance(answer, tuple):
            server, ref = answer
            self.roster.enrol_ref(op["ref"], ref)
        return "ignore" if server.pid is None else "ok"


def may_block_for_ever(op: Json) -> bool:
    """Return whether a step may end with its client blocked (FORMAT.md, quiescence)."""
    if op["op"] == "batch":
        return may_block_for_ever(op["ops"][-1])
    return op["op"] == "call" and "timeout" not in op


def exits_of(ask: Callable[[], Json], roster: Roster) -> Json:
    """Return what `ask` returns, or the exit that OTP's caller would have seen."""
    try:
        return ask()
    except gpool.NoProcess:
        return {"exit": "noproc"}
    except gpool.CallTimeout:
        return {"exit": "timeout"}
    except gpool.CallingSelf:
        return {"exit": "calling_self"}
    except gpool.ServerExited as error:
        return {"exit": roster.encode(error.reason)}


def done(do: Callable[..., None], *args: Any) -> str:
    """Call `do` and return the result of an operation that has none."""
    do(*args)
    return "ok"


# What a client does; the arguments are the roster and the operation.


def _call(roster: Roster, op: Json) -> Json:
    to, timeout = roster.target(op["to"]), seconds(op.get("timeout"))

    def ask() -> Json:
        return {"reply": send_call(to, op["action"], timeout=timeout)}

    return exits_of(ask, roster)


def _stop_server(roster: Roster, op: Json) -> Json:
    to, timeout = roster.target(op["to"]), seconds(op.get("timeout"))
    reason = decode(op.get("reason", "normal"))
    return exits_of(lambda: done(gpool.stop, to, reason, timeout), roster)


def _cast(roster: Roster, op: Json) -> Json:
    send_cast(roster.target(op["to"]), op["action"])
    return "ok"


def _info(roster: Roster, op: Json) -> Json:
    try:
        gpool.send(roster.target(op["to"]), op["action"])
    except gpool.NoProcess:
        return "badarg"
    return "ok"


def _exit_signal(roster: Roster, op: Json) -> Json:
    gpool.exit(roster.pids[op["to"]], decode(op["reason"]))
    return "ok"


def _link(roster: Roster, op: Json) -> Json:
    try:
        gpool.link(roster.pids[op["to"]])
    except gpool.NoProcess:
        return "noproc"
    return "ok"


def _unlink(roster: Roster, op: Json) -> Json:
    gpool.unlink(roster.pids[op["to"]])
    return "ok"


def _monitor(roster: Roster, op: Json) -> Json:
    roster.enrol_ref(op["ref"], gpool.monitor(roster.target(op["to"])))
    return "ok"


def _client_exit(roster: Roster, op: Json) -> Any:
    gpool.exit(decode(op["reason"]))


def _get_state(roster: Roster, op: Json) -> Json:
    to = roster.target(op["to"])
    return exits_of(lambda: gpool.sys.get_state(to)["state"], roster)


def _replace_state(roster: Roster, op: Json) -> Json:
    to, new = roster.target(op["to"]), {"state": op["state"]}
    return exits_of(lambda: gpool.sys.replace_state(to, lambda old: old | new)["state"], roster)


def _suspend(roster: Roster, op: Json) -> Json:
    to = roster.target(op["to"])
    return exits_of(lambda: done(gpool.sys.suspend, to), roster)


def _resume(roster: Roster, op: Json) -> Json:
    to = roster.target(op["to"])
    return exits_of(lambda: done(gpool.sys.resume, to), roster)


CLIENT_OPS: Final[dict[str, Callable[[Roster, Json], Json]]] = {
    "call": _call,
    "cast": _cast,
    "info": _info,
    "stop": _stop_server,
    "exit_signal": _exit_signal,
    "link": _link,
    "unlink": _unlink,
    "monitor": _monitor,
    "client_exit": _client_exit,
    "get_state": _get_state,
    "replace_state": _replace_state,
    "suspend": _suspend,
    "resume": _resume,
}
