"""What may be done by the Observer, if the agent was started with ``allow_actions``.

An action names its target twice, by number or name and once more as people read it
(``confirm``): whoever asks has seen what it is about.  It is checked again here, runs in a
process of its own in the hub of its target, and is told to the log and to the events,
whatever comes of it.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import gpool
from gpool.observer.node import pools, processes
from gpool.observer.node.errand import ObserverErrand, said_by
from gpool.observer.node.events import Events
from gpool.observer.node.request import Refused
from gpool.observer.node.text import shown

LARGEST: Final = 10_000  # workers of a pool; a slip of the finger is not to start a million
KEPT: Final = 100  # actions whose outcome is known
PATIENCE: Final = 0.5  # s until an action that has not ended is answered as "running"

logger = logging.getLogger("gpool.observer")


@dataclass(slots=True)
class Deed:
    """What is to be done, to whom, and where."""

    what: str  # in words
    confirm: str  # what the target is called
    hub: Any
    do: Callable[[], object]
    process: gpool.Pid | None = None
    pool: str | None = None


class Actions:
    """The actions of one process.

    Args:
        allowed: Whether there are any.
        events: Told of each.
    """

    def __init__(self, events: Events, *, allowed: bool) -> None:
        self.allowed = allowed
        self._events = events
        self._begun: OrderedDict[int, ObserverErrand] = OrderedDict()  # the latest
        self._count = 0

    def begin(self, body: dict[str, Any], peer: str) -> dict[str, Any]:
        """Begin an action, and return what came of it so far; blocks for PATIENCE at most.

        Args:
            body: What was posted.
            peer: Who asks, in words.

        Raises:
            Refused: It is not allowed, not known, or not confirmed; nothing was done.
        """
        if not self.allowed:
            raise Refused(403, "actions: this process was started without allow_actions")
        deed = deed_of(body)
        if body.get("confirm") != deed.confirm:
            raise Refused(
                400, f"confirm: expected {deed.confirm!r}, got {body.get('confirm')!r:.80}"
            )
        errand = ObserverErrand(deed.hub, self._carry_out, deed, peer)
        self._count += 1
        self._begun[self._count] = errand
        while len(self._begun) > KEPT:
            self._begun.popitem(last=False)
        errand.begin()
        errand.over.wait(PATIENCE)
        return self.outcome(self._count)

    def outcome(self, number: int) -> dict[str, Any]:
        """Return what has become of an action.

        Raises:
            Refused: There is none of that number, or it was long ago.
        """
        errand = self._begun.get(number)
        if errand is None:
            raise Refused(404, f"action {number}: there is none, or it was long ago")
        if not errand.over.is_set():
            state, text = "running", "it has not ended yet"
        elif errand.failure is not None:
            state, text = "failed", said_by(errand.failure)
        else:
            state, text = "done", str(errand.outcome)
        return {"id": number, "state": state, "text": text}

    def _carry_out(self, deed: Deed, peer: str) -> str:
        """Do it, and tell; in the hub of its target."""
        logger.warning("%s, by %s", deed.what, peer)
        self._events.note(deed.process, deed.pool, f"{deed.what}, by {peer}")
        try:
            value = deed.do()
        except BaseException as error:
            logger.warning("%s: failed: %s", deed.what, said_by(error))
            self._events.note(deed.process, deed.pool, f"{deed.what}: failed: {said_by(error)}")
            raise
        return deed.what if value is None or value is True else f"{deed.what}: {shown(value)}"


# --- What there is to do ------------------------------------------------------------


def deed_of(body: dict[str, Any]) -> Deed:
    """Return what is asked for.

    Raises:
        Refused: Nothing that can be done.
    """
    action = body.get("action")
    if action == "kill":
        return _kill(_process(body))
    if action in ("stop_child", "restart_child"):
        return _child(action, *_place(body))
    if isinstance(action, str) and action in _ON_POOLS:
        return _ON_POOLS[action](_pool(body), body)
    known = ["kill", "stop_child", "restart_child", *_ON_POOLS]
    raise Refused(400, f"action: expected one of {', '.join(known)}; got {action!r:.80}")


def _process(body: dict[str, Any], key: str = "process") -> gpool.Pid:
    number = body.get(key)
    pid = processes.find(number) if type(number) is int else None
    if pid is None:
        raise Refused(404, f"{key}: expected the number of a process, got {number!r:.80}")
    if pid.ended_at is not None:
        raise Refused(409, f"{pid!r} is dead")
    return pid


def _kill(pid: gpool.Pid) -> Deed:
    what = f"kill {pid!r} ({processes.label_of(pid)})"
    return Deed(what, repr(pid), pid.hub, lambda: gpool.exit(pid, "kill"), pid)


def _place(body: dict[str, Any]) -> tuple[gpool.Pid, gpool.Supervised]:
    """Return a supervisor, and which of its children is meant."""
    if "process" in body:
        pid = _process(body)
        supervisor, place = gpool.supervisor_of(pid), gpool.place_of(pid)
        if supervisor is None or place is None:
            raise Refused(409, f"{pid!r} is no supervisor's child")
        return supervisor, place
    supervisor = _process(body, "supervisor")
    supervision = gpool.supervision(supervisor)
    if supervision is None:
        raise Refused(409, f"{supervisor!r} is no supervisor")
    found = [c for c in supervision.children if processes.named(c.id) == body.get("child")]
    if len(found) != 1:
        raise Refused(404, f"child: expected the id of one child, got {body.get('child')!r:.80}")
    return supervisor, found[0]


def _child(action: str, supervisor: gpool.Pid, place: gpool.Supervised) -> Deed:
    pid = place.pid
    name = processes.named(place.id) if pid is None else repr(pid)
    what = f"{action.partition('_')[0]} child {processes.named(place.id)} {pid or ''}".rstrip()
    server = supervisor.server
    is_dynamic = isinstance(server, gpool.DynamicSupervisor)
    if is_dynamic and pid is None:
        raise Refused(409, f"child {name}: it waits for its restart")
    is_temporary = place.restart == "temporary"
    if action == "restart_child" and is_temporary and not _is_replaced(pid):
        raise Refused(409, f"child {name}: it is temporary, its supervisor starts no other")
    if action == "stop_child" and pid in processes.pool_sups():
        raise Refused(
            409, f"child {name}: it is a pool, which could not be started again; drain it"
        )

    def stop() -> None:
        server.terminate_child(pid if is_dynamic else place.id)

    def restart() -> None:
        if not is_dynamic:
            server.terminate_child(place.id)
            server.restart_child(place.id)
        elif is_temporary:  # whoever wants one there has it replaced
            server.terminate_child(pid)
        else:
            _start_another(server, pid)

    do = stop if action == "stop_child" else restart
    return Deed(what, name, supervisor.hub, do, pid)


def _start_another(server: gpool.DynamicSupervisor, pid: gpool.Pid | None) -> None:
    """Stop a dynamic supervisor's child and start one like it: that spends no intensity."""
    spec = server.get_childspec(pid)
    server.terminate_child(pid)
    common = server.extra_arguments if server.template is None else server.template.args
    args = spec.args[len(common) :]
    if server.template is None:
        server.start_child(spec.with_arguments(args, spec.kwargs))
    else:
        server.start_child(*args, **spec.kwargs)


def _is_replaced(pid: gpool.Pid | None) -> bool:
    """Tell whether somebody else than its supervisor starts another one: a pool's manager."""
    return pid is not None and processes.pool_of(pid) is not None


# --- To pools -----------------------------------------------------------------------


def _pool(body: dict[str, Any]) -> gpool.Pool[Any]:
    name = body.get("pool")
    pool = pools.find(name) if isinstance(name, str) else None
    if pool is None:
        raise Refused(404, f"pool: expected the name of one that runs, got {name!r:.80}")
    if pool.tree().pool_sup is None:
        raise Refused(409, f"pool {name!r}: it is just being started or stopped")
    return pool


def _deed(pool: gpool.Pool[Any], what: str, do: Callable[[], object]) -> Deed:
    sup = pool.tree().pool_sup
    assert sup is not None
    return Deed(f"{what} pool {pool.name!r}", pool.name, sup.hub, do, sup, pool.name)


def _whole(body: dict[str, Any], key: str, default: int | None) -> int | None:
    value = body.get(key, default)
    if value is not None and (type(value) is not int or not 0 <= value <= LARGEST):
        raise Refused(400, f"{key}: expected a whole number, 0 to {LARGEST}, got {value!r:.80}")
    return value


def _seconds(body: dict[str, Any], key: str, default: float) -> float:
    value = body.get(key, default)
    if type(value) not in (int, float) or not 0 <= value <= 86400:
        raise Refused(400, f"{key}: expected seconds from 0 to 86400, got {value!r:.80}")
    return float(value)


def _resize(pool: gpool.Pool[Any], body: dict[str, Any]) -> Deed:
    size, more = _whole(body, "size", None), _whole(body, "max_overflow", None)
    if size is None:
        raise Refused(400, "size: expected a whole number, got none")
    extra = "" if more is None else f" + {more}"
    return _deed(pool, f"resize to {size}{extra}:", lambda: pool.resize(size, more))


def _recycle(pool: gpool.Pool[Any], body: dict[str, Any]) -> Deed:
    within = _seconds(body, "within", 0.0)
    return _deed(pool, f"recycle within {within:g} s:", lambda: pool.recycle(within))


def _drain(pool: gpool.Pool[Any], body: dict[str, Any]) -> Deed:
    timeout = _seconds(body, "timeout", 5.0)

    def drain() -> object:
        return "all is back" if pool.drain(timeout) else "some did not come back in time"

    return _deed(pool, "drain", drain)


_ON_POOLS: Final[dict[str, Callable[[gpool.Pool[Any], dict[str, Any]], Deed]]] = {
    "resize": _resize,
    "recycle": _recycle,
    "drain": _drain,
    "suspend": lambda pool, body: _deed(pool, "suspend", pool.suspend),
    "resume": lambda pool, body: _deed(pool, "resume", pool.resume),
    "open": lambda pool, body: _deed(pool, "open", lambda: pool.start() and None),
}
