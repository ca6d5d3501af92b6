"""Replays kind ``supervisor``: restarts, strategies, shutdown, child management.

A *parent* starts the supervisor, a *stranger* calls it.

Not here: the children, and how what happens to them is seen (``children.py``).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import gpool
from tests.conformance.actors import Actor, Order
from tests.conformance.children import (
    Child,
    Chronicler,
    Life,
    NotedDynamicSupervisor,
    NotedSupervisor,
    end_with,
)
from tests.conformance.step_clock import LONGEST_STEP, StepClock
from tests.conformance.terms import Json, decode, encode, seconds

ASKED: Final = object()  # whoever calls "meanwhile" is about to

FLAG_FAULTS: Final = (
    "invalid_strategy",
    "invalid_intensity",
    "invalid_period",
    "invalid_auto_shutdown",
)
"""Faults of a supervisor's flags; all others are faults of a child specification."""

NO_SPEC_FAULTS: Final = ("bad_start_spec", "invalid_child_spec")
"""What stands in a specification's place is none: not one template, but two or no one."""


class SupervisorWorld:
    """The supervisor, the parent and the stranger of one case."""

    def __init__(self, case: Json, clock: StepClock) -> None:
        self.clock = clock
        self.setup: Json = case["setup"]
        self.chronicler = Chronicler()
        self._starts: Counter[str] = Counter()  # child id -> starts so far
        self._parent = self._actor("parent", trap=True)
        self._stranger = self._actor("stranger")
        self._supervisor: Any = None  # the handle of the latest one
        self._supervisors: list[Any] = []  # handles of all that ever started
        self._meanwhile: list[Order] = []  # calls not answered yet
        clock.settle()

    @property
    def _is_simple(self) -> bool:
        return self.setup.get("strategy") == "simple_one_for_one"

    @property
    def _is_up(self) -> bool:
        return self._supervisor is not None and gpool.is_alive(self._supervisor)

    def step(self, step: Json) -> Json:
        """Carry out one step, wait until all is quiet, and observe."""
        was_up = self._is_up
        result = self._carry_out(step)
        self._wait_until_quiet()
        observation = {"result": result, "sup": "up" if self._is_up else "down"}
        observation |= self._ask_all() if self._is_up else {"orphans": self._orphans()}
        killed = step["op"] == "exit_sup" and step["reason"] == "kill"
        ended = was_up and not self._is_up
        in_order = not (killed or (ended and self._is_simple))
        return observation | self._what_happened(in_order)

    def close(self) -> None:
        """Kill every process of the case."""
        everybody = [self._parent.pid, self._stranger.pid, *self.chronicler.lives]
        everybody += [it.pid for it in self._supervisors if it.pid is not None]
        for pid in [*everybody, self.chronicler.pid]:
            gpool.exit(pid, "kill")
        self.clock.settle()

    # Observing.

    def _ask_all(self) -> Json:
        return {name: self._ask(name + "_children") for name in ("which", "count")}

    def _ask(self, op: str) -> Json:
        order = self._stranger.order(lambda: self._call(op, None))
        self.clock.settle()
        return order.result

    def _orphans(self) -> list[Json]:
        alive = [life for pid, life in self.chronicler.lives.items() if gpool.is_alive(pid)]
        return sorted([life.child, life.n] for life in alive)

    def _what_happened(self, in_order: bool) -> Json:
        events = self.chronicler.take_events()
        answered = [order.result for order in self._meanwhile if order.done]
        self._meanwhile = [order for order in self._meanwhile if not order.done]
        happened: Json = {
            "events": events if in_order else sorted(events, key=lambda event: event[1:3]),
            "meanwhile": answered,
        }
        for message in self._parent.take_all():
            if isinstance(message, gpool.Exit):
                happened["exit"] = encode(message.reason, self.chronicler.label)
        return happened

    def _wait_until_quiet(self) -> None:
        """Wait as long as a supervisor waits: for a child that it stops, say.

        One that is busy does not answer a question yet.  Time moves until every
        one has, and is left alone once they answer without that.
        """
        began = self.clock.now()
        while not self._answer_at_once():
            if self.clock.next_due() is None or self.clock.now() > began + LONGEST_STEP:
                return  # they never will

    def _answer_at_once(self) -> bool:
        """Ask every supervisor; return whether all answered before time had to move."""
        living = [it for it in self._supervisors if gpool.is_alive(it)]
        probes = [gpool.spawn(self._probe, it) for it in living]
        self.clock.settle()
        at_once = not any(map(gpool.is_alive, probes))
        self.clock.wait_for(lambda: not any(map(gpool.is_alive, probes)))
        return at_once

    def _probe(self, supervisor: Any) -> None:
        with contextlib.suppress(gpool.NoProcess, gpool.ServerExited):
            supervisor.which_children()

    # Carrying out: who does it, and how long it lasts.

    def _carry_out(self, step: Json) -> Json:
        match step:
            case {"op": "start"}:
                return self._order(self._parent, self._start)
            case {"op": "sleep", "ms": milliseconds}:
                self.clock.advance(seconds(milliseconds))
                return "ok"
            case {"op": "crash", "id": child, "reason": reason}:
                return self._crash(child, reason)
            case _ if self._supervisor is None:
                return "noproc"
            case {"op": "exit_sup" | "info"} if not self._is_up:
                return "noproc"  # a signal or message to a dead process vanishes
            case {"op": "exit_sup", "reason": reason, "from": who}:
                sender = self._parent if who == "parent" else self._stranger
                return self._order(sender, lambda: self._exit(self._supervisor.pid, reason))
            case {"op": "stop_sup"}:
                return self._order(self._stranger, lambda: self._stop(step.get("reason", "normal")))
            case {"op": "info", "msg": message}:
                return self._order(self._stranger, lambda: self._send(decode(message)))
            case {"op": op}:
                return self._order(self._stranger, lambda: self._call(op, self._key(step)))

    def _key(self, step: Json) -> Any:
        """Return what a call is about: a child's id, its process, or a specification."""
        if "child" in step:
            return step["child"]
        if step["op"] == "terminate_child" and self._is_simple and step.get("by") != "id":
            return self.chronicler.latest.get(step["id"], step["id"])
        return step.get("id")

    def _order(self, actor: Actor, work: Callable[[], Any]) -> Json:
        order = actor.order(work)
        self.clock.wait_for(lambda: order.done)
        return order.result

    def _actor(self, label: str, trap: bool = False) -> Actor:
        actor = Actor(label)
        actor.pid = gpool.spawn(actor.live, trap)
        return actor

    def _crash(self, child: str, reason: Json) -> Json:
        pid = self.chronicler.latest.get(child)
        if pid is None or not gpool.is_alive(pid):
            return "not_running"
        if reason == "kill":
            return self._order(self._stranger, lambda: self._exit(pid, "kill"))
        gpool.send(pid, Order(end_with(reason)))
        self.clock.settle()
        return "ok"

    # What the parent and the stranger do, in their greenlets.

    def _start(self) -> Json:
        try:
            supervisor = self._start_supervisor(self.setup)
        except gpool.SpecError as error:
            return {"error": _spec_error(error)}
        except gpool.StartError as error:
            return {"error": encode(error.reason, self.chronicler.label)}
        return "ok" if supervisor.pid is not None else "ignore"

    def _exit(self, pid: gpool.Pid, reason: Json) -> Json:
        gpool.exit(pid, decode(reason))
        return "ok"

    def _send(self, message: Any) -> Json:
        gpool.send(self._supervisor, message)
        return "ok"

    def _stop(self, reason: Json) -> Json:
        try:
            gpool.stop(self._supervisor, decode(reason))
        except gpool.NoProcess:
            return "noproc"
        except gpool.ServerExited as error:
            return {"exit": encode(error.reason, self.chronicler.label)}
        return "ok"

    def _call(self, op: str, key: Any) -> Json:
        """Ask the supervisor; the result is in the form of the traces."""
        label = self.chronicler.label
        try:
            return self._answer(op, key)
        except gpool.SpecError as error:
            return {"error": error.fault}
        except (gpool.ChildError, gpool.StartError) as error:
            return {"error": encode(error.reason, label)}
        except gpool.NoProcess:
            return "noproc"
        except gpool.ServerExited as error:
            return {"exit": encode(error.reason, label)}

    def _answer(self, op: str, key: Any) -> Json:
        supervisor = self._supervisor
        match op:
            case "which_children":
                return self._which(supervisor.which_children())
            case "count_children":
                count = supervisor.count_children()
                return [count.specs, count.active, count.supervisors, count.workers]
            case "start_child" if self._is_simple:
                return self._started(supervisor.start_child(key))
            case "start_child":
                return self._started(supervisor.start_child(self._spec(key)))
            case "restart_child":
                return self._started(supervisor.restart_child(key))
            case _:
                getattr(supervisor, op)(key)
                return "ok"

    def _started(self, child: Any) -> Json:
        pid = getattr(child, "pid", child)
        return {"ok": None if pid is None else self.chronicler.label(pid)}

    def _which(self, children: Any) -> Json:
        shown = [[it.id, _state(it.child), it.type] for it in children]
        if not self._is_simple:
            return shown
        lives = self.chronicler.lives
        pids = [it for it in children if isinstance(it.child, gpool.Pid)]
        return sorted([lives[it.child].child, "pid", it.type] for it in pids)

    def ask_meanwhile(self, op: str, key: Json) -> None:
        """Have another process call the supervisor; return when it has asked."""
        asker, me = self._actor("asker"), gpool.self()

        def ask() -> Json:
            gpool.send(me, ASKED)
            return self._call(op, key)

        self._meanwhile.append(asker.order(ask))
        gpool.receive(match=lambda message: message is ASKED)

    # Starting supervisors and children, in the greenlet of whoever starts them.

    def _start_supervisor(self, setup: Json, life: Life | None = None) -> Any:
        children = [self._spec(child) for child in setup["children"]]
        options = _options(setup)
        if setup.get("strategy") == "simple_one_for_one":
            del options["strategy"]
            template = children[0] if len(children) == 1 else children
            kind: Any = NotedDynamicSupervisor
            options |= {"template": template}
        else:
            kind = NotedSupervisor
            options |= {"children": children}
        return kind.start_link(self, life, setup, **options)

    def has_begun(self, supervisor: Any, life: Life | None) -> None:
        """Take note of a supervisor that begins to start its children."""
        self._supervisors.append(supervisor)
        if life is None:
            self._supervisor = supervisor

    def _spec(self, child: Json) -> gpool.ChildSpec:
        names = ("id", "restart", "type", "significant")
        given = {name: child[name] for name in names if name in child}
        if "shutdown" in child:
            given["shutdown"] = seconds(child["shutdown"])
        return gpool.ChildSpec(start=self._start_child, args=(child,), **given)

    def _start_child(self, spec: Json, extra: Json = None) -> Any:
        spec = spec | (extra or {})
        self._starts[spec["id"]] += 1
        life = Life(spec["id"], self._starts[spec["id"]])
        if "sup" not in spec:
            return Child.start_link(self, spec, life)
        return self._start_inner(spec["sup"], life)

    def _start_inner(self, setup: Json, life: Life) -> Any:
        try:
            supervisor = self._start_supervisor(setup, life)
        except gpool.SpecError as error:
            self.chronicler.note("fail", life)
            raise gpool.StartError(life.child, decode(_spec_error(error))) from error
        except gpool.StartError:
            self.chronicler.note("fail", life)
            raise
        if supervisor.pid is None:
            self.chronicler.note("ignore", life)
        return supervisor


def _state(child: Any) -> str:
    if child is None:
        return "undefined"
    return "pid" if isinstance(child, gpool.Pid) else child


def _spec_error(error: gpool.SpecError) -> Json:
    if error.fault in NO_SPEC_FAULTS:
        return "bad_start_spec"
    return {"supervisor_data" if error.fault in FLAG_FAULTS else "start_spec": error.fault}


def _options(setup: Json) -> dict[str, Any]:
    """Return a supervisor's flags by gpool's names; OTP's defaults where they differ."""
    return {
        "strategy": setup.get("strategy", "one_for_one"),
        "max_restarts": setup.get("intensity", 1),
        "max_seconds": setup.get("period", 5),
        "auto_shutdown": setup.get("auto_shutdown", "never"),
    }
