"""Scenes from the life of pools: together they make gpool tell all that it can tell.

Each scene says what it is sure to bring about, as pairs of an event's type and of
what kind it is (see :func:`kind_of`), or a word for the meters' calls.

>>> SCENES["discarded"].tells
((<class 'gpool.telemetry.WorkerStopping'>, 'discarded'),)
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import gpool
from gpool import metric_catalogue
from gpool.otp.child_spec import ChildSpec
from gpool.telemetry import (
    EVENTS,
    Breaker,
    BreakerChanged,
    CheckoutFailed,
    Chore,
    CleanupFailed,
    Event,
    HeldTooLong,
    HookFailed,
    LeaseBroken,
    LeaseForgotten,
    LeaseReclaimed,
    ListenerFailed,
    PoolClosing,
    PoolFell,
    PoolHasFailed,
    PoolReady,
    PoolRecycled,
    PoolReopened,
    PoolResized,
    PoolResumed,
    PoolRose,
    PoolStarted,
    PoolStopped,
    PoolSuspended,
    ProcessCrashed,
    ProcessIsZombie,
    Refusal,
    ResourceClosed,
    ReturnedLate,
    SupervisorReport,
    UnexpectedMessage,
    WorkerDied,
    WorkerRecovered,
    WorkerStarted,
    WorkerStartFailed,
    WorkerStarting,
    WorkerStopping,
    attach,
    detach,
)
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import Client, Echo, Holder, Maker

Told = tuple[type[Event] | str, str]

KINDS: dict[type[Event], tuple[str, ...]] = {
    WorkerStopping: metric_catalogue.STOP_REASONS,
    WorkerRecovered: get_args(Chore),
    CheckoutFailed: get_args(Refusal),
    BreakerChanged: get_args(Breaker),
    ResourceClosed: ("closed", "gave_up"),
    HeldTooLong: ("held", "revoked"),
    SupervisorReport: ("child_terminated", "start_error", "shutdown_error", "shutdown"),
    HookFailed: ("reset", "check", "close", "is_dirty or is_broken"),
}  # an event -> what kinds of it there are


def kind_of(event: Event) -> str:
    """Return what kind of its type an event is."""
    match event:
        case WorkerStopping(reason=reason):
            return metric_catalogue.stop_reason(reason)
        case WorkerRecovered(chore=kind) | BreakerChanged(breaker=kind):
            return kind
        case CheckoutFailed(reason=why):
            return why
        case SupervisorReport(context=context):
            return context
        case HookFailed(hook=hook):
            return hook
        case ResourceClosed(gave_up=gave_up):
            return "gave_up" if gave_up else "closed"
        case HeldTooLong(revoked=revoked):
            return "revoked" if revoked else "held"
    return ""


def all_that_can_be_told() -> set[Told]:
    """Return every event in every kind."""
    return {(kind, what) for kind in EVENTS for what in KINDS.get(kind, ("",))}


class Stage:
    """Where scenes are played: the clock, who makes the things, and pools "db-1", "db-2" ..."""

    def __init__(self, clock: VirtualClock, maker: Maker) -> None:
        self.clock, self.maker = clock, maker
        self.numbers = itertools.count(1)

    def pool(self, worker: Any = None, *, hooks: Any = None, **options: Any) -> gpool.Pool[Any]:
        """Return a pool that runs; of one thing, unless told otherwise."""
        worker = self.maker.resource(**(hooks or {})) if worker is None else worker
        name = f"db-{next(self.numbers)}"
        pool: gpool.Pool[Any] = gpool.Pool(worker, **{"size": 1, "name": name} | options)
        pool.start()
        settle()
        return pool


@dataclass(frozen=True)
class Scene:
    """What happens, and what is sure to be told of it."""

    play: Callable[[Stage], object]
    tells: tuple[Told, ...]


SCENES: dict[str, Scene] = {}


def scene(*tells: type[Event] | Told) -> Callable[[Callable[[Stage], Any]], Any]:
    """Enter a function among the scenes; a type stands for the only kind of it."""

    def enter(play: Callable[[Stage], object]) -> Callable[[Stage], object]:
        pairs = tuple(told if isinstance(told, tuple) else (told, "") for told in tells)
        SCENES[play.__name__.strip("_")] = Scene(play, pairs)
        return play

    return enter


def stops(*reasons: str) -> list[Told]:
    """Return what is told of workers that have to go."""
    return [(WorkerStopping, reason) for reason in reasons]


def refuses(reason: str) -> Told:
    """Return what is told of a client that gets nothing."""
    return CheckoutFailed, reason


def worker_of(pool: gpool.Pool[Any]) -> gpool.Pid:
    """Return the pid of a pool's oldest worker."""
    ledger: Any = pool._ledger
    pid: gpool.Pid = next(iter(ledger.slots)).pid
    return pid


def manager_of(pool: gpool.Pool[Any]) -> gpool.Pid:
    """Return the pid of a pool's PoolMan."""
    ledger: Any = pool._ledger
    pid: gpool.Pid = ledger.man.pid
    return pid


# --- Ordinary days ------------------------------------------------------------------


@scene(
    PoolStarted, PoolRose, WorkerStarting, WorkerStarted, PoolReady, PoolClosing, WorkerDied,
    PoolStopped, *stops("stopped"), ("checked_out", ""), ("checked_in", ""),
)  # fmt: skip
def a_life(stage: Stage) -> None:
    """It starts, lends, and is stopped."""
    pool = stage.pool(size=2)
    with pool.checkout():
        pass
    pool.stop()
    stage.pool()


@scene(PoolSuspended, PoolResumed, PoolClosing, PoolReopened, PoolResized, PoolRecycled)
def orders(stage: Stage) -> None:
    """An operator gives all the orders there are."""
    pool = stage.pool()
    pool.suspend()
    pool.resume()
    pool.close()
    pool.start()
    pool.resize(2)
    pool.recycle()
    settle()


@scene(*stops("overflow"))
def overflow(stage: Stage) -> None:
    """More than `size` are not needed any more."""
    pool = stage.pool(max_overflow=1, overflow_ttl=5.0)
    for client in [Holder(pool), Holder(pool)]:
        client.let_go()
    stage.clock.advance(5.0)


@scene(*stops("idle_timeout"))
def idle_timeout(stage: Stage) -> None:
    """Nobody comes."""
    stage.pool(idle_timeout=60.0)
    stage.clock.advance(60.0)


@scene(*stops("max_age"))
def max_age(stage: Stage) -> None:
    """It grows old."""
    stage.pool(max_age=60.0)
    stage.clock.advance(60.0)


@scene(*stops("max_uses"))
def max_uses(stage: Stage) -> None:
    """It was lent often enough."""
    stage.pool(max_uses=1).checkout().checkin()
    settle()


@scene(*stops("recycled"))
def recycled(stage: Stage) -> None:
    """The idle one goes at once."""
    stage.pool().recycle()
    settle()


@scene(*stops("resized"))
def resized(stage: Stage) -> None:
    """One is too many, and one that has not even started."""
    stage.pool(size=2).resize(1)
    gate = Gate()
    stage.maker.creates.extend([None, gate.wait])
    pool = stage.pool(size=2)
    client = Holder(pool)
    pool.resize(1)
    gate.open()
    client.let_go()


@scene((WorkerRecovered, "finish"), (WorkerRecovered, "reset"))
def awaited(stage: Stage) -> None:
    """Somebody waits for what is being made fit."""
    gate = Gate()
    stage.maker.resets.append(gate.wait)
    things = stage.pool(hooks={"reset": stage.maker.reset})
    things.checkout().checkin()
    servers = stage.pool(Echo)
    with servers.checkout() as echo:
        echo.work(gate)
    clients = [Holder(things), Holder(servers)]
    gate.open()
    for client in clients:
        client.let_go()


@scene((WorkerRecovered, "finish"), (WorkerRecovered, "reset"), (WorkerRecovered, "check"))
def recovery(stage: Stage) -> None:
    """What comes back is made fit, what was idle is looked at."""
    hooks = {"reset": stage.maker.reset, "check": bool}
    pool = stage.pool(hooks=hooks, check_after=1.0)
    pool.checkout().checkin()
    stage.clock.advance(1.0)
    with contextlib.suppress(gpool.CheckoutTimeout):
        pool.checkout(timeout=0)
    servers, gate = stage.pool(Echo), Gate()
    with servers.checkout() as echo:
        echo.work(gate)
    stage.clock.advance(1.0)
    gate.open()
    settle()


# --- Workers that have to go --------------------------------------------------------


@scene((HeldTooLong, "revoked"), *stops("max_hold"))
def max_hold(stage: Stage) -> None:
    """It is taken away."""
    Holder(stage.pool(max_hold=30.0, on_max_hold="revoke"))
    stage.maker.made[0].user = None  # as it is taken away, it is closed
    stage.clock.advance(30.0)
    stage.maker.faults.clear()


@scene((HeldTooLong, "held"), ReturnedLate)
def held(stage: Stage) -> None:
    """It comes back after all."""
    client = Holder(stage.pool(max_hold=30.0))
    stage.clock.advance(31.0)
    client.let_go()


@scene((HookFailed, "check"), *stops("check_failed", "suspected"))
def check_failed(stage: Stage) -> None:
    """It is dead, and so may be the other one."""
    pool = stage.pool(size=2, hooks={"check": lambda thing: 1 / 0}, check_after=1.0)
    stage.clock.advance(1.0)
    with contextlib.suppress(gpool.CheckoutTimeout):
        pool.checkout(timeout=0)
    settle()


@scene((HookFailed, "reset"), *stops("reset_failed"))
def reset_failed(stage: Stage) -> None:
    """Nobody can make it fit."""
    stage.maker.resets.append(OSError("gone"))
    stage.pool(hooks={"reset": stage.maker.reset}).checkout().checkin()
    settle()


@scene(*stops("overdue"))
def overdue(stage: Stage) -> None:
    """A reset takes too long, and so does what a client has asked for."""
    stage.maker.resets.append(Gate().wait)
    pool = stage.pool(hooks={"reset": stage.maker.reset}, finish_timeout=5.0, shutdown=1.0)
    pool.checkout().checkin()
    with stage.pool(Echo, finish_timeout=5.0, shutdown=1.0).checkout() as echo:
        echo.work(Gate())
    stage.clock.advance(7.0)


@scene(*stops("dirty"))
def dirty(stage: Stage) -> None:
    """It shows."""
    stage.pool(hooks={"is_dirty": lambda thing: True}).checkout().checkin()
    settle()


@scene((HookFailed, "is_dirty or is_broken"), *stops("hook_failed"))
def hook_failed(stage: Stage) -> None:
    """Nobody knows."""
    stage.pool(hooks={"is_dirty": lambda thing: 1 / 0}).checkout().checkin()
    settle()


@scene(LeaseReclaimed, *stops("owner_died"))
def owner_died(stage: Stage) -> None:
    """Its client ends and has not given it back."""
    Client(stage.pool().checkout)
    settle()


@scene(LeaseForgotten, *stops("forgotten"))
def forgotten(stage: Stage) -> None:
    """The scope of its client ends, and nobody has given it back."""
    with gpool.Scope():
        lease = stage.pool().checkout()
    assert not lease.lost
    settle()


@scene(*stops("left_by"))
def left_by(stage: Stage) -> None:
    """A Timeout ends its client's block."""
    client = Holder(stage.pool())
    client.cut()
    settle()


@scene(*stops("broken"))
def broken(stage: Stage) -> None:
    """The client's error speaks of it."""
    pool = stage.pool(hooks={"is_broken": lambda error, thing: True})
    with contextlib.suppress(ValueError), pool.checkout():
        raise ValueError
    settle()


@scene(*stops("discarded"))
def discarded(stage: Stage) -> None:
    """Its client says so."""
    stage.pool().checkout().discard("tired of it")
    settle()


@scene((ResourceClosed, "closed"), *stops("lost"))
def lost(stage: Stage) -> None:
    """Its owner dies while a client has it."""
    pool = stage.pool()
    client = Holder(pool)
    gpool.exit(worker_of(pool), "kill")
    settle()
    client.let_go()


@scene((ResourceClosed, "gave_up"))
def gave_up(stage: Stage) -> None:
    """It cannot be closed."""
    stage.maker.closes.extend([Gate().wait] * 2)
    stage.pool(shutdown=2.0).checkout().discard()
    stage.clock.advance(5.0)


@scene((HookFailed, "close"))
def close_failed(stage: Stage) -> None:
    """Its close raises."""
    stage.maker.closes.append(OSError("gone"))
    stage.pool().checkout().discard()
    settle()


@scene(WorkerDied, *stops("exit"))
def exit_(stage: Stage) -> None:
    """Somebody tells an idle one to go, and one that is lent."""
    pool = stage.pool(Echo)
    gpool.exit(worker_of(pool), "shutdown")
    settle()


@scene(LeaseBroken, ProcessCrashed, WorkerDied)
def crash(stage: Stage) -> None:
    """A server dies in its client's hands."""
    with stage.pool(Echo).checkout() as echo, contextlib.suppress(gpool.ServerExited):
        echo.crash()
    settle()


# --- Starts that fail ---------------------------------------------------------------


@scene(
    WorkerStartFailed,
    (BreakerChanged, "open"), (BreakerChanged, "half_open"), (BreakerChanged, "closed"),
)  # fmt: skip
def outage(stage: Stage) -> None:
    """The server is down, and comes back."""
    stage.maker.creates.extend([OSError("down")] * 2)
    stage.pool()
    stage.clock.advance(60.0)


@scene(PoolHasFailed, refuses("failed"))
def failure(stage: Stage) -> None:
    """The server stays down."""
    stage.maker.creates.append(OSError("down"))
    pool = stage.pool(max_start_failures=1)
    with contextlib.suppress(gpool.PoolFailed):
        pool.checkout()
    stage.clock.advance(60.0)


# --- Clients that get nothing -------------------------------------------------------


@scene(refuses("timeout"), refuses("full"), refuses("cancelled"), refuses("closed"))
def refusals(stage: Stage) -> None:
    """All is lent."""
    pool = stage.pool(max_waiting=1)
    holder = Holder(pool)
    with contextlib.suppress(gpool.CheckoutTimeout):
        pool.checkout(timeout=0)
    waiting = Client(pool.checkout, timeout=None)
    settle()
    with contextlib.suppress(gpool.PoolFull):
        pool.checkout()
    waiting.cut()
    settle()
    Client(pool.checkout, timeout=None)
    settle()
    pool.close("fail")
    settle()
    holder.let_go()


@scene(refuses("failing"))
def failing(stage: Stage) -> None:
    """Those who wait are told, and the next one is."""
    stage.maker.creates.append(OSError("down"))
    pool = stage.pool(lazy=True, fail_fast=True)
    waiting = Client(pool.checkout)
    settle()
    assert isinstance(waiting.error, gpool.StartsFailing)
    stage.clock.advance(60.0)


@scene(refuses("deadlock"))
def deadlock(stage: Stage) -> None:
    """It waits for itself."""
    pool = stage.pool()
    lease = pool.checkout()
    with contextlib.suppress(gpool.CheckoutDeadlock):
        pool.checkout(timeout=None)
    lease.checkin()
    settle()


# --- The tree -----------------------------------------------------------------------


@scene(PoolFell, PoolRose, (SupervisorReport, "child_terminated"), ("checked_in", ""))
def fall(stage: Stage) -> None:
    """The manager is killed while a client holds a thing."""
    pool = stage.pool(size=2)
    client = Holder(pool)
    gpool.exit(manager_of(pool), "kill")
    settle()
    client.let_go()


@scene((SupervisorReport, "shutdown"), PoolHasFailed)
def fall_too_often(stage: Stage) -> None:
    """No fall is allowed."""
    pool = stage.pool(max_restarts=0)
    gpool.exit(manager_of(pool), "kill")
    settle()
    stage.clock.advance(60.0)


# --- The kit ------------------------------------------------------------------------


def _swallow() -> None:
    while True:
        with contextlib.suppress(BaseException):
            Gate().wait()


def _fail_at_the_end() -> None:
    try:
        gpool.receive()
    finally:
        raise ValueError("at the end")


class _Slow(gpool.GenServer):
    def init(self) -> None:
        gpool.trap_exit(True)

    def terminate(self, reason: Any) -> None:
        Gate().wait()


@scene(ProcessIsZombie, CleanupFailed)
def bad_ends(stage: Stage) -> None:
    """One does not end, another one badly."""
    pids = [gpool.spawn(_swallow), gpool.spawn(_fail_at_the_end)]
    settle()
    for pid in pids:
        gpool.exit(pid, "kill")
    settle()
    stage.clock.advance(10.0)


@scene(UnexpectedMessage, ListenerFailed)
def misunderstandings(stage: Stage) -> None:
    """Nobody handles a message, a listener fails."""
    listener = partial(int, "no number", base=10)

    def fails(event: Event) -> None:
        listener()

    attach(fails)
    try:
        gpool.send(stage.pool(Echo).checkout().worker.pid, "hello")
        settle()
    finally:
        detach(fails)


@scene((SupervisorReport, "start_error"), (SupervisorReport, "shutdown_error"))
def bad_children(stage: Stage) -> None:
    """One does not start, one has to be killed."""

    def tree() -> None:
        children = [
            ChildSpec("slow", _Slow.start_link, shutdown=1.0),
            ChildSpec("none", lambda: 1 / 0),
        ]
        with contextlib.suppress(gpool.GPoolError):
            gpool.Supervisor.start(children)

    gpool.spawn(tree)
    stage.clock.advance(10.0)
