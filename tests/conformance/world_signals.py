"""Replays kind ``signals``: bare processes, links, monitors, exit signals, names."""

from __future__ import annotations

from typing import Any

import gpool
from tests.conformance.actors import Actor
from tests.conformance.roster import Roster
from tests.conformance.step_clock import StepClock
from tests.conformance.terms import Fault, Json, decode, decode_name


class SignalsWorld:
    """The processes ``p0``, ``p1``, ... of one case."""

    def __init__(self, case: Json, clock: StepClock) -> None:
        self._clock = clock
        self._roster = Roster(case)
        self._actors: dict[str, Actor] = {}  # label -> actor, dead or alive

    def step(self, step: Json) -> Json:
        """Carry out one step, wait until all is quiet, and observe."""
        return {"result": self._carry_out(step), **self._observe()}

    def close(self) -> None:
        """Kill every process of the case."""
        for pid in self._roster.pids.values():
            gpool.exit(pid, "kill")
        self._clock.settle()

    def _observe(self) -> Json:
        roster = self._roster
        received = {label: actor.take_all() for label, actor in self._actors.items()}
        return {
            "alive": roster.alive(),
            "died": roster.newly_dead(),
            "received": {who: roster.received(these) for who, these in received.items() if these},
            "names": roster.names(),
        }

    def _carry_out(self, step: Json) -> Json:
        match step:
            case {"op": "spawn", "p": label, "trap": trap}:
                self._enrol(label, gpool.spawn(self._new(label).live, trap))
                result: Json = "ok"
            case {"op": "register", "a": label, "name": name}:
                result = self._register(name, self._roster.pids[label])
            case {"op": "unregister", "name": name}:
                result = self._unregister(name)
            case {"op": "whereis", "name": name}:
                result = self._roster.whereis(name)
            case _:
                return self._order(step)
        self._clock.settle()
        return result

    def _order(self, step: Json) -> Json:
        """Have a process do something; the result is `died` if it did not survive."""
        label = step["parent"] if "parent" in step else step["a"]
        actor = self._actors[label]
        order = actor.order(lambda: self._do(actor, step))
        self._clock.settle()
        return order.result if self._roster.is_alive(label) else "died"

    def _new(self, label: str) -> Actor:
        self._actors[label] = actor = Actor(label)
        return actor

    def _enrol(self, label: str, pid: gpool.Pid) -> None:
        self._actors[label].pid = pid
        self._roster.enrol(label, pid)

    # What the runner does, as a third party.

    def _register(self, name: str, pid: gpool.Pid) -> str:
        try:
            gpool.register(decode_name(name), pid)
        except ValueError:
            return "badarg"
        return "ok"

    def _unregister(self, name: str) -> str:
        try:
            gpool.unregister(decode_name(name))
        except (ValueError, LookupError):
            return "badarg"
        return "ok"

    # What a process does itself: everything below runs in the actor's greenlet.

    def _do(self, actor: Actor, op: Json) -> Json:
        if op["op"] == "batch":
            return [self._do(actor, inner) for inner in op["ops"]]
        return getattr(self, "_op_" + op["op"])(actor, op)

    def _op_spawn_link(self, actor: Actor, op: Json) -> Json:
        self._enrol(op["p"], gpool.spawn_link(self._new(op["p"]).live, op["trap"]))
        return "ok"

    def _op_spawn_monitor(self, actor: Actor, op: Json) -> Json:
        pid, ref = gpool.spawn_monitor(self._new(op["p"]).live, op["trap"])
        self._enrol(op["p"], pid)
        self._roster.enrol_ref(op["ref"], ref)
        return "ok"

    def _op_link(self, actor: Actor, op: Json) -> Json:
        try:
            gpool.link(self._roster.pids[op["b"]])
        except gpool.NoProcess:
            return "noproc"
        return "ok"

    def _op_unlink(self, actor: Actor, op: Json) -> Json:
        gpool.unlink(self._roster.pids[op["b"]])
        return "ok"

    def _op_monitor(self, actor: Actor, op: Json) -> Json:
        self._roster.enrol_ref(op["ref"], gpool.monitor(self._roster.target(op["b"])))
        return "ok"

    def _op_demonitor(self, actor: Actor, op: Json) -> Json:
        gpool.demonitor(self._roster.refs[op["ref"]], flush=op["flush"])
        return "ok"

    def _op_exit_signal(self, actor: Actor, op: Json) -> Json:
        gpool.exit(self._roster.pids[op["b"]], decode(op["reason"]))
        return "ok"

    def _op_stop(self, actor: Actor, op: Json) -> Any:
        gpool.exit(decode(op["reason"]))

    def _op_raise(self, actor: Actor, op: Json) -> Any:
        raise Fault("crash")

    def _op_finish(self, actor: Actor, op: Json) -> Json:
        actor.finished = True
        return "ok"

    def _op_trap(self, actor: Actor, op: Json) -> Json:
        gpool.trap_exit(op["on"])
        return "ok"

    def _op_send(self, actor: Actor, op: Json) -> Json:
        gpool.send(self._roster.pids[op["b"]], (actor.label, decode(op["msg"])))
        return "ok"

    def _op_send_name(self, actor: Actor, op: Json) -> Json:
        try:
            gpool.send(decode_name(op["name"]), (actor.label, decode(op["msg"])))
        except (gpool.NoProcess, TypeError):  # nobody has it, or it is no name
            return "badarg"
        return "ok"

    def _op_hold(self, actor: Actor, op: Json) -> Json:
        actor.held = True
        return "ok"

    def _op_release(self, actor: Actor, op: Json) -> Json:
        actor.held = False
        return "ok"
