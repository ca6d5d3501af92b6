"""Scenes for the kill sweep: each operation of a pool, and each thing that happens in one.

A scene sets a :class:`Stage` up and returns what its actor then does.  Others are
there who hold a worker, or wait for one; they go on once the actor begins, and end by
themselves.  ``@scene`` says what to expect of a scene, and puts it into ``SCENES``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gevent

import gpool
from gpool.pool.application import application
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import Client, Echo, Maker, Thing, assert_whole, check

Act = Callable[[], object]


def a_turn() -> None:
    """Let the hub run."""
    gevent.sleep(0)


class Stage:
    """A pool, and those who play a scene with it.

    Args:
        clock: Tells the time.
        name: The pool's.
        kind: "plain", resources; "slow", whose every hook takes its turns, reset and
            check too; "server".
        options: The pool's.
    """

    def __init__(self, clock: VirtualClock, name: str, kind: str, **options: Any) -> None:
        self.clock = clock
        self.kind = kind
        self.maker = maker = Maker()
        hooks: dict[str, Any] = {}
        if kind == "slow":
            hooks = {"reset": maker.reset, "check": maker.check}
            for script in (maker.creates, maker.resets, maker.closes, maker.checks):
                script.extend([a_turn] * 100)
        worker: Any = Echo if kind == "server" else maker.resource(**hooks)
        self.pool: gpool.Pool[Any] = gpool.Pool(worker, name=name, **{"size": 2, **options})
        self.begun = Gate()  # the actor is about to act
        self.cast: dict[str, Client] = {}  # by role
        self.jobs: list[gpool.Pid] = []  # processes that run jobs of the actor's
        self.cap = self.pool._options.cap  # workers that there may be, ever
        self.bare = False  # whether the death of a client may have to bring a worker back
        self.passes = 0.0  # seconds of the scene
        self.heal: Act = int  # makes the pool usable again

    @property
    def ledger(self) -> Any:
        """The books."""
        return self.pool._ledger

    # --- Before it begins ---

    def up(self) -> None:
        """Have the pool up, all its workers idle."""
        self.pool.start()
        settle()

    def enter(self, role: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Have somebody do something, from now on."""
        self.cast[role] = Client(tidily, fn, *args, **kwargs)
        settle()

    def then(self, role: str, fn: Callable[..., Any], *args: Any) -> None:
        """Have somebody do something once it has begun."""

        def act() -> None:
            self.begun.wait()
            fn(*args)

        self.enter(role, act)

    def hold(self, *roles: str) -> None:
        """Have each hold a worker, or wait for one."""
        for role in roles:
            self.enter(role, self.borrow)

    def borrow(self, timeout: float | None = 60.0) -> None:
        """Hold a worker until it has begun, and a little longer."""
        with self.pool.checkout(timeout=timeout) as thing:
            self.begun.wait()
            self.use(thing)

    def use(self, thing: Any) -> Any:
        """Work with what was lent, and tidy up."""
        if not isinstance(thing, Thing):
            return tidily(thing.say, thing)
        with thing.used():
            tidily(a_turn)
        return thing

    def job(self, thing: Any, item: Any = None) -> Any:
        """Work with what was lent for a job."""
        self.jobs.append(gpool.self())
        self.use(thing)
        return item

    # --- What happens ---

    def play(self, act: Act | None) -> None:
        """Have the scene played, to its end."""
        self.begun.open()
        if act is not None:
            self.enter("actor", act)
        settle()
        if self.passes:
            self.clock.advance(self.passes)

    def pid(self, victim: str) -> gpool.Pid | None:
        """Return the process that a victim has now, if it lives."""
        pid = self._pid(victim)
        return pid if pid is not None and pid.state != "dead" else None

    def _pid(self, victim: str) -> gpool.Pid | None:
        ledger = self.ledger
        if victim in self.cast:
            return self.cast[victim].pid
        if ledger is None:
            return None
        match victim:
            case "job":
                return self.jobs[0] if self.jobs else None
            case "worker":
                return next((slot.pid for slot in ledger.slots), None)
            case "other worker":
                return [slot.pid for slot in ledger.slots][-1] if len(ledger.slots) > 1 else None
            case "man":
                return ledger.man and ledger.man.pid
            case "worker_sup":
                return ledger.worker_sup
            case "pool_sup":
                return ledger.sup
            case "pools_sup":
                return application.pools_sup
            case "registry":
                return application.registry and application.registry.pid
            case "root":
                return application.root and application.root.pid
            case "booting":
                return application.booting
        return None

    # --- Afterwards ---

    def check(self) -> None:
        """Assert what holds at every turn: the slot invariant, and nobody waits in vain."""
        if self.ledger is not None:
            check(self.pool)
            assert self.pool.stats().accounted == len(self.ledger.slots) <= self.cap
        assert self.maker.peak <= self.cap
        assert self.maker.faults == []

    def verify(self, scene: Scene, struck: Collection[gpool.Pid]) -> None:
        """Assert that nobody else has come to harm, and that the pool is whole."""
        self._wait_for_weather(scene)
        self.check()
        for role, client in self.cast.items():
            assert client.pid.state == "dead", (role, self.pool.stats(), self.ledger.slots)
            if client.pid not in struck:
                assert isinstance(client.error, self._errors(scene)), (role, client.error)
        assert self.bare or self.pool.stats().reclaimed == 0, "only a death brought one back"
        self.heal()
        self.maker.peak = self.maker.open
        self._wait_for_weather(scene)
        assert_whole(self.pool, None if self.kind == "server" else self.maker)
        self.pool.stop()
        settle()
        assert self.pool.status().state == "stopped"
        assert self.pool.stats().accounted == 0
        assert (self.maker.open, self.maker.faults) == (0, [])

    def _errors(self, scene: Scene) -> tuple[type, ...]:
        server = (gpool.LeaseLost, gpool.NoProcess, gpool.ServerExited)
        return (type(None), *scene.errors, *(server if self.kind == "server" else ()))

    def _wait_for_weather(self, scene: Scene) -> None:
        """Let time pass if a start was cut down, or the pool's tree at its birth; else not."""
        settle()
        if self.ledger is None:
            return
        if scene.patience:
            self.clock.advance(scene.patience)
        while self.pool.stats().breaker == "open":
            self.clock.advance(0.01)


def tidily(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `fn`, then take a turn to tidy up, whatever has happened."""
    try:
        return fn(*args, **kwargs)
    finally:
        gevent.sleep(0)


# --- The scenes ---------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What is played, and what may come of it."""

    name: str
    set_up: Callable[[Stage], Act | None]
    kinds: tuple[str, ...]
    errors: tuple[type, ...]  # that those who are not struck may get
    patience: float  # s that may pass until all is well again
    options: dict[str, Any] = field(default_factory=dict)  # of the pool


SCENES: list[Scene] = []


def scene(
    *kinds: str, errors: tuple[type, ...] = (), patience: float = 0.0, **options: Any
) -> Callable[[Callable[[Stage], Act | None]], Callable[[Stage], Act | None]]:
    """Put a function among the scenes."""

    def put(fn: Callable[[Stage], Act | None]) -> Callable[[Stage], Act | None]:
        SCENES.append(Scene(fn.__name__, fn, kinds, errors, patience, options))
        return fn

    return put


# Borrowing.


@scene("plain", "slow", "server")
def checkout_of_an_idle_one(stage: Stage) -> Act:
    """The fast path."""
    stage.up()
    stage.hold("holder")
    return stage.borrow


@scene("plain", "slow", "server")
def checkout_waits(stage: Stage) -> Act:
    """Behind another one."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    return stage.borrow


@scene("slow")
def checkout_without_a_wait(stage: Stage) -> Act:
    """There is none."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")

    def act() -> None:
        with suppress(gpool.CheckoutTimeout):
            stage.borrow(0)

    return act


@scene("slow")
def checkout_times_out(stage: Stage) -> Act:
    """There is none in time."""
    stage.up()
    stage.hold("holder", "other holder")
    stage.passes = 2.0
    stage.clock.call_later(2.0, stage.begun.open)
    stage.begun = Gate()  # for the actor: the others let go later

    def act() -> None:
        with suppress(gpool.CheckoutTimeout):
            stage.borrow(1.0)

    return act


@scene("slow", "server", lazy=True)
def checkout_starts_one(stage: Stage) -> Act:
    """The first one."""
    stage.up()
    stage.then("waiter", stage.borrow)
    return stage.borrow


@scene("slow", lazy=True)
def checkout_is_the_first_use(stage: Stage) -> Act:
    """Of the pool."""
    stage.heal = stage.pool.start
    return stage.borrow


@scene("slow", check_after=0)
def checkout_has_one_checked(stage: Stage) -> Act:
    """It is well."""
    stage.up()
    stage.hold("holder")
    return stage.borrow


@scene("slow", check_after=0)
def checkout_has_a_dead_one_checked(stage: Stage) -> Act:
    """It is closed, and another one is started."""
    stage.up()
    stage.maker.checks.clear()
    stage.maker.checks.extend([a_turn, OSError("dead")])
    return stage.borrow


# The way back.


class Out(BaseException):
    """What leaves a block, and is no Exception."""


def check_in(stage: Stage, lease: Any) -> None:
    """Without a block."""
    stage.use(lease.worker)
    lease.checkin()


def leave(stage: Stage, lease: Any, error: BaseException | None = None) -> None:
    """A block, normally or by an error."""
    with suppress(Out, KeyError), lease as thing:
        stage.use(thing)
        if error is not None:
            raise error


def discard(stage: Stage, lease: Any) -> None:
    """Have it stopped."""
    stage.use(lease.worker)
    lease.discard()


def transfer(stage: Stage, lease: Any) -> None:
    """To somebody who gives it back."""
    gate = Gate()

    def inherit() -> None:
        gate.wait()
        if lease.owner.pid is gpool.self():  # else the actor was cut down before
            with suppress(gpool.LeaseLost), lease as thing:
                stage.use(thing)

    stage.cast["heir"] = heir = Client(tidily, inherit)
    try:
        gevent.sleep(0)
        lease.transfer(heir.pid)
    finally:
        gate.open()


def leave_it_at_work(stage: Stage, lease: Any) -> None:
    """A server that has to finish first."""
    lease.worker.work(Turns())
    lease.checkin()


class Turns:
    """Stands for a gate that opens after some turns."""

    wait = staticmethod(a_turn)


def _set_up_way_back(stage: Stage, act: Callable[[Stage, Any], object], roles: list[str]) -> None:
    """Have the actor hold one of two workers, and give it back once the scene begins."""

    def borrow() -> None:
        lease = stage.pool.checkout()
        stage.begun.wait()
        act(stage, lease)

    stage.bare = True
    stage.up()
    stage.enter("actor", borrow)
    stage.hold(*roles)


def _way_back(
    act: Callable[[Stage, Any], object],
    *kinds: str,
    name: str = "",
    errors: tuple[type, ...] = (),
    options: Any = None,
) -> None:
    for suffix, roles in {"": ["holder"], "_to_a_waiter": ["holder", "waiter"]}.items():
        set_up = partial(_set_up_way_back, act=act, roles=roles)
        full = (name or act.__name__) + suffix  # type: ignore[attr-defined]
        SCENES.append(Scene(full, set_up, kinds, errors, 0.0, options or {}))


_way_back(check_in, "plain", "server")
_way_back(leave, "plain", "slow")
_way_back(partial(leave, error=KeyError()), "plain", "slow", name="leave_by_an_exception")
_way_back(partial(leave, error=Out()), "plain", name="leave_by_a_base_exception")
_way_back(discard, "slow")
_way_back(transfer, "slow", errors=(gpool.LeaseLost, gpool.NoProcess))
_way_back(leave_it_at_work, "server")
_way_back(check_in, "slow", name="last_use", options={"max_uses": 1})


@scene("plain")
def transaction(stage: Stage) -> Act:
    """The function form."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    return partial(stage.pool.transaction, stage.use)


# Jobs.


@scene("plain", "server")
def call(stage: Stage) -> Act:
    """In the caller."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    return partial(stage.pool.call, stage.job, 1)


@scene("plain", "server")
def cast(stage: Stage) -> Act:
    """In a process of its own."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    return partial(stage.pool.cast, stage.job, 1)


@scene("slow", "server", errors=(gpool.ServerExited,))
def map(stage: Stage) -> Act:  # noqa: A001  # the operation's name
    """Three jobs, two at a time."""
    stage.up()
    stage.hold("holder")
    return partial(stage.pool.map, stage.job, range(3))


@scene("plain", "server")
def broadcast(stage: Stage) -> Act:
    """On each worker that is idle."""
    stage.up()
    stage.bare = True  # a job may be killed before it begins
    stage.hold("holder")
    return partial(stage.pool.broadcast, stage.job)


# The pool's life.


@scene("slow", "server", patience=5.0)
def start(stage: Stage) -> Act:
    """Two at once, and somebody who just uses it."""
    stage.then("waiter", stage.borrow)
    stage.then("holder", stage.pool.start, None)
    return partial(stage.pool.start, None)


@scene("slow", patience=5.0)
def start_fails(stage: Stage) -> Act:
    """The first worker does not start, nor does the second one."""
    stage.maker.creates.extendleft([OSError("down"), OSError("down")])
    stage.passes = 1.0
    stage.then("waiter", stage.borrow)
    return partial(stage.pool.start, None)


@scene("slow", patience=5.0)
def wait_ready(stage: Stage) -> Act:
    """From the pool's first use to two workers."""
    stage.heal = stage.pool.start
    return partial(stage.pool.wait_ready, None)


@scene("slow", errors=(gpool.PoolClosed,))
def close(stage: Stage) -> Act:
    """Those who wait are served."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    stage.heal = stage.pool.start
    return stage.pool.close


@scene("slow", errors=(gpool.PoolClosed,))
def close_and_fail(stage: Stage) -> Act:
    """Those who wait are turned away."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    stage.heal = stage.pool.start
    return partial(stage.pool.close, "fail")


@scene("slow", errors=(gpool.PoolClosed,))
def close_and_reopen(stage: Stage) -> Act:
    """Before all is back."""

    def act() -> None:
        stage.pool.close()
        gevent.sleep(0)
        stage.pool.start()

    stage.up()
    stage.hold("holder", "other holder", "waiter")
    stage.heal = stage.pool.start
    return act


@scene("slow", errors=(gpool.PoolClosed,))
def drain(stage: Stage) -> Act:
    """Until all is back."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    stage.heal = stage.pool.start
    return partial(stage.pool.drain, None)


@scene("slow", "server", errors=(gpool.PoolClosed,))
def stop(stage: Stage) -> Act:
    """With all that there can be: holders, and one who waits."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    stage.heal = partial(stop_and_start, stage)
    return partial(stage.pool.stop, None)


@scene("slow", errors=(gpool.PoolClosed,))
def stop_by_its_deadline(stage: Stage) -> Act:
    """Some closes hang."""
    stage.up()
    stage.hold("holder")
    stage.maker.closes.extendleft([Gate().wait, Gate().wait])
    stage.heal = partial(stop_and_start, stage)
    stage.passes = 20.0
    return partial(stage.pool.stop, 1.0)


def stop_and_start(stage: Stage) -> None:
    """Do again what may have been cut short, and begin anew."""
    Client(stage.pool.stop, None)
    stage.clock.advance(20.0)
    assert stage.pool.stats().accounted == 0
    stage.pool.start()


@scene("slow")
def resize_up(stage: Stage) -> Act:
    """While another one waits."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    stage.cap = 3
    return partial(stage.pool.resize, 3)


@scene("slow", "server")
def resize_down(stage: Stage) -> Act:
    """Below what is busy."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    return partial(stage.pool.resize, 1)


@scene("slow", "server")
def recycle(stage: Stage) -> Act:
    """One is held, one is idle."""
    stage.up()
    stage.hold("holder")
    return stage.pool.recycle


@scene("slow")
def recycle_one_by_one(stage: Stage) -> Act:
    """One is held, two are idle; one waits in the end."""
    stage.up()
    stage.cap = 3
    stage.pool.resize(3)
    settle()
    stage.hold("holder")
    stage.passes = 3.0
    return partial(stage.pool.recycle, 2.0)


@scene("slow")
def suspend(stage: Stage) -> Act:
    """While one waits."""
    stage.up()
    stage.hold("holder", "other holder", "waiter")
    stage.passes = 1.0
    stage.clock.call_later(1.0, stage.pool.resume)
    return stage.pool.suspend


@scene("slow")
def resume(stage: Stage) -> Act:
    """While one waits."""
    stage.up()
    stage.hold("holder")
    stage.pool.suspend()
    stage.hold("waiter", "other waiter")
    stage.passes = 1.0
    stage.clock.call_later(1.0, stage.pool.resume)
    return stage.pool.resume


@scene("plain")
def look(stage: Stage) -> Act:
    """At its numbers."""

    def act() -> None:
        assert stage.pool.stats().accounted >= 2
        assert stage.pool.status()
        assert len(stage.pool.holders()) == 1

    stage.up()
    stage.hold("holder")
    return act


# Time.


@scene("slow", max_age=10.0)
def max_age(stage: Stage) -> None:
    """One is held, one is idle; the end of both."""
    stage.up()
    stage.hold("holder")
    stage.passes = 10.0


@scene("slow", idle_timeout=3.0)
def idle_timeout(stage: Stage) -> None:
    """The end of both."""
    stage.up()
    stage.hold("holder")
    stage.passes = 7.0


@scene("slow", max_overflow=1, overflow_ttl=1.0)
def overflow(stage: Stage) -> None:
    """One more is started, and goes when it was idle for long enough."""
    stage.up()
    stage.hold("holder", "other holder", "waiter", "other waiter")
    stage.passes = 2.0


@scene("slow", max_overflow=1, overflow_ttl=0)
def overflow_leaves_at_once(stage: Stage) -> None:
    """One more is started, and goes when it comes back."""
    stage.up()
    stage.hold("holder", "other holder", "waiter", "other waiter")


@scene("slow", keepalive=1.0)
def keepalive(stage: Stage) -> None:
    """One is alive, one is dead."""
    stage.up()
    stage.hold("holder")
    stage.maker.checks.clear()
    stage.maker.checks.extend([a_turn, OSError("dead")])
    stage.passes = 2.5


@scene("slow", max_hold=1.0)
def max_hold(stage: Stage) -> Act:
    """One is reported."""
    return _hold_for_too_long(stage)


@scene("slow", "server", max_hold=1.0, on_max_hold="revoke")
def max_hold_revokes(stage: Stage) -> Act:
    """One is taken away."""
    return _hold_for_too_long(stage)


def _hold_for_too_long(stage: Stage) -> Act:
    def act() -> None:
        lease = stage.pool.checkout()
        gate = Gate()
        stage.clock.call_later(2.0, gate.open)
        gate.wait()
        lease.checkin()

    stage.up()
    stage.bare = True
    stage.hold("holder", "waiter", "other waiter")
    stage.passes = 3.0
    return act


# Falls.


@scene("slow", "server")
def man_restarts(stage: Stage) -> None:
    """With all that there can be."""
    _have_one_killed(stage, "man")


@scene("slow", "server")
def worker_sup_restarts(stage: Stage) -> None:
    """With all that there can be."""
    _have_one_killed(stage, "worker_sup")


def _have_one_killed(stage: Stage, victim: str) -> None:
    def strike() -> None:
        pid = stage.pid(victim)
        if pid is not None:
            gpool.exit(pid, "kill")

    stage.up()
    stage.hold("holder", "other holder", "waiter")
    stage.clock.call_later(0.0, strike)
    stage.passes = 0.001


# All of it: a whole life, with the tree that the pool lives in.


def session(stage: Stage) -> Act:
    """Five clients share two workers, from the pool's start on."""
    stage.bare = True
    for number in range(5):
        stage.then(f"client {number}", _session, stage)
    return partial(stage.pool.start, None)


SESSION = Scene("session", session, ("plain", "slow", "server"), (), 50.0)


def _session(stage: Stage) -> None:
    for _ in range(2):
        with stage.pool.checkout(timeout=60.0) as thing:
            stage.use(thing)
        lease = stage.pool.checkout(timeout=60.0)
        gevent.sleep(0)
        lease.checkin()
