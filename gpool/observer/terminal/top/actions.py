"""What one may do to a process or a pool, if its node allows that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from gpool.observer.terminal.top.view import Target

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A number that an action needs."""

    name: str
    value: float  # unless the user says otherwise
    is_whole: bool = False

    def parsed(self, said: str) -> float:
        """Return what the user said as a number.

        Raises:
            ValueError: It is none, or negative.
        """
        number = int(said) if self.is_whole else float(said)
        if not 0 <= number < 1e9:
            raise ValueError(f"{self.name}: expected 0 or more, got {said}")
        return number


@dataclass(frozen=True, slots=True)
class Act:
    """An action that is to be confirmed."""

    question: str
    body: Body  # for the node, without the fields
    fields: tuple[Field, ...] = ()
    detail: str = ""  # what will happen, where the question does not say it


def kill(target: Target) -> Act | None:
    """Kill a process."""
    if target.kind != "process" or target.id is None:
        return None
    return Act(f"Kill {target.name}?", _body("kill", target) | {"process": target.id})


def stop_child(target: Target) -> Act | None:
    """Have a supervisor stop a child."""
    return _child(target, "stop_child", "Stop")


def restart_child(target: Target) -> Act | None:
    """Have a supervisor stop a child, so that it is started again; or start one that is stopped."""
    act = _child(target, "restart_child", "Restart")
    if act is None or target.id is None:
        return act
    return replace(act, detail="Its supervisor stops it, and it is started again.")


def _child(target: Target, action: str, verb: str) -> Act | None:
    if target.supervisor is None:
        return None
    which = {"child": target.child} if target.id is None else {"process": target.id}
    body = _body(action, target) | {"supervisor": target.supervisor} | which
    return Act(f"{verb} {target.name}, a child of #PID<{target.supervisor}>?", body)


def resize(target: Target) -> Act | None:
    """Give a pool another size."""
    fields = (
        Field("size", target.size, is_whole=True),
        Field("max_overflow", target.max_overflow, is_whole=True),
    )
    return _pool(target, "resize", f"Resize {target.name}?", fields)


def recycle(target: Target) -> Act | None:
    """Replace all workers of a pool."""
    fields = (Field("within", 10.0),)
    return _pool(target, "recycle", f"Replace all workers of {target.name}?", fields)


def drain(target: Target) -> Act | None:
    """Have a pool let nobody in any more, and wait until all is back."""
    if not target.is_up:
        return None
    question = f"Drain {target.name}, and let nobody in any more?"
    return _pool(target, "drain", question, (Field("timeout", 30.0),))


def open_again(target: Target) -> Act | None:
    """Have a pool that was drained let clients in again."""
    return None if target.is_up else _pool(target, "open", f"Open {target.name} to clients again?")


def suspend(target: Target) -> Act | None:
    """Have a pool lend nothing until it is resumed."""
    return None if target.is_suspended else _pool(target, "suspend", f"Suspend {target.name}?")


def resume(target: Target) -> Act | None:
    """Have a suspended pool go on."""
    return _pool(target, "resume", f"Resume {target.name}?") if target.is_suspended else None


def _pool(target: Target, action: str, question: str, fields: tuple[Field, ...] = ()) -> Act | None:
    if target.kind != "pool":
        return None
    return Act(question, _body(action, target) | {"pool": target.confirm}, fields)


def _body(action: str, target: Target) -> Body:
    return {"action": action, "confirm": target.confirm}


# Capitals, so that nobody who sorts kills.
ACTIONS: Final[Mapping[str, Callable[[Target], Act | None]]] = {
    "K": kill, "S": stop_child, "R": restart_child, "Z": resize, "Y": recycle, "D": drain,
    "U": suspend, "O": resume, "N": open_again,
}  # fmt: skip
