"""A pool, its clients and their faults, against a plain model: Hypothesis looks for the story.

The model knows who waits, in order of arrival, and who holds what.  It does not say
whom a pool serves when, but what it must never do: let anybody overtake, let anybody
wait while there is something to lend or to start, lend a thing twice, show the server
more than the cap, lose a slot.  ``GPOOL_EXAMPLES=1000`` looks longer than CI does.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import gpool
from gpool import clock as clocks
from gpool.testing import VirtualClock, settle, virtual_clock
from gpool.waiter import Gate
from tests.pool.workshop import Client, Maker, assert_whole, check

EXAMPLES = int(os.environ.get("GPOOL_EXAMPLES", "100"))
MANY = st.integers(0, 10**6)  # chooses one of those who are there
HOOKS = ["creates", "closes", "resets", "checks"]
OPTIONS = {
    "size": st.integers(1, 3),
    "max_overflow": st.integers(0, 2),
    "overflow_ttl": st.sampled_from([None, 0.0, 1.0]),
    "strategy": st.sampled_from(["lifo", "fifo"]),
    "lazy": st.booleans(),
    "idle_timeout": st.sampled_from([None, 3.0]),
    "max_age": st.sampled_from([None, 20.0]),
    "max_uses": st.sampled_from([None, 2]),
    "check_after": st.sampled_from([None, 0.0, 1.0]),
    "max_starting": st.sampled_from([None, 1]),
}


class Borrower(Client):
    """A client that holds what it gets until it is told how to let go."""

    def __init__(self, pool: gpool.Pool[Any], timeout: float | None) -> None:
        self.pool, self.timeout = pool, timeout
        self.deadline = None if timeout is None else clocks.now() + timeout
        self.unused, self.gate = Gate(), Gate()  # it is to use no more; to give back
        self.how = "leave"
        self.lease: Any = None
        self.owner: Any = None  # the process whose death gives the worker back
        super().__init__(self._hold)

    def _hold(self) -> None:
        self.lease = lease = self.pool.checkout(timeout=self.timeout)
        self.owner = self.pid
        with contextlib.suppress(KeyError), lease as thing:
            with thing.used():
                self.unused.wait()
            self.gate.wait()
            if self.how == "discard":
                lease.discard()
            elif self.how == "raise":
                raise KeyError
        self.owner = None

    def let_go(self, how: str) -> None:
        """Have it give back."""
        self.how = how
        self.unused.open()
        self.gate.open()

    @property
    def is_gone(self) -> bool:
        """Whether its process is dead."""
        return bool(self.pid.state == "dead")

    @property
    def holds(self) -> bool:
        """Whether it is in its block, and the owner of what it has there lives."""
        return not self.is_gone and self.owner is not None and self.owner.state != "dead"


class PoolMachine(RuleBasedStateMachine):
    """Things that happen to a pool, in any order."""

    def __init__(self) -> None:
        super().__init__()
        random.seed(0)  # the jitter of backoffs and ages
        self.resources = contextlib.ExitStack()
        self.clock: VirtualClock = self.resources.enter_context(virtual_clock())
        self.maker = Maker()
        self.hung: list[Gate] = []  # what hooks wait for
        self.queue: list[Borrower] = []  # those who wait, by arrival
        self.borrowers: list[Borrower] = []  # those who got something
        self.heirs: list[gpool.Pid] = []
        self.killed_heirs = 0
        self.haste = 0  # steps to come in the same turn of the hub

    @initialize(options=st.fixed_dictionaries(OPTIONS), resets=st.booleans(), checks=st.booleans())
    def begin(self, options: dict[str, Any], resets: bool, checks: bool) -> None:
        """Start a pool of some kind."""
        hooks = {"reset": self.maker.reset} if resets else {}
        hooks |= {"check": self.maker.check} if checks else {}
        self.pool: gpool.Pool[Any] = gpool.Pool(
            self.maker.resource(**hooks), max_restarts=10**6, **options
        )
        self.pool.start()
        self.bound = self.pool._options.cap  # workers that there may be

    # --- Clients ---

    @rule(timeout=st.sampled_from([None, None, 0, 1.0, 10.0]))
    def checkout(self, timeout: float | None) -> None:
        """Somebody comes."""
        self.queue.append(Borrower(self.pool, timeout))

    @property
    def holding(self) -> list[Borrower]:
        """Those who have a worker."""
        return [client for client in self.borrowers if client.holds]

    @precondition(lambda self: self.holding)
    @rule(which=MANY, how=st.sampled_from(["leave", "discard", "raise"]))
    def let_go(self, which: int, how: str) -> None:
        """Somebody gives a worker back."""
        pick(self.holding, which).let_go(how)

    @precondition(lambda self: self.holding)
    @rule(which=MANY)
    def transfer(self, which: int) -> None:
        """Somebody else is the owner now."""
        client = pick(self.holding, which)
        heir = gpool.spawn(gpool.receive)
        self.heirs.append(heir)
        try:
            client.lease.transfer(heir)
        except gpool.LeaseLost:
            assert client.lease.lost or client.lease.slot is None
        else:
            client.owner = heir
            client.unused.open()
            settle()

    @precondition(lambda self: self.queue or self.holding)
    @rule(which=MANY, way=st.sampled_from(["kill", "cut"]))
    def cut_client(self, which: int, way: str) -> None:
        """Somebody is cut down, waiting or holding."""
        client = pick([*self.queue, *self.holding], which)
        if not client.is_gone:
            getattr(client, way)()

    @precondition(lambda self: self.queue and self.holding)
    @rule(which=MANY, whom=MANY, what=st.sampled_from(["kill", "cut", "worker", "man"]))
    def race(self, which: int, whom: int, what: str) -> None:
        """A worker comes back; whoever waits for it, or the worker, is struck before it wakes."""
        client, waiter = pick(self.holding, which), pick(self.queue, whom % 2)
        client.let_go("leave")
        if what in ("worker", "man"):
            gevent.sleep(0)  # it is granted now
            self.kill(what, whom)
        elif not waiter.is_gone:
            getattr(waiter, what)()

    @precondition(lambda self: self.heirs)
    @rule(which=MANY)
    def kill_heir(self, which: int) -> None:
        """An heir dies: what it is the owner of comes back."""
        self.killed_heirs += 1
        gpool.exit(self.heirs.pop(which % len(self.heirs)), "kill")

    # --- Faults ---

    @rule(who=st.sampled_from(["man", "worker_sup", "worker"]), which=MANY)
    def kill(self, who: str, which: int) -> None:
        """A process of the pool is killed."""
        ledger: Any = self.pool._ledger
        workers = [slot.pid for slot in ledger.slots if slot.pid is not None]
        man = ledger.man and ledger.man.pid
        pid = {"man": man, "worker_sup": ledger.worker_sup}.get(who) or pick(workers, which)
        if pid is not None:
            gpool.exit(pid, "kill")

    @rule(hook=st.sampled_from(HOOKS), hangs=st.booleans())
    def break_hook(self, hook: str, hangs: bool) -> None:
        """The next create, close, reset or check fails, or hangs."""
        if hangs:
            self.hung.append(Gate())
            step: Any = self.hung[-1].wait
        else:
            step = self._break_close if hook == "closes" else OSError("down")
        getattr(self.maker, hook).append(step)

    def _break_close(self) -> None:
        self.maker.open -= 1  # the server has seen it go
        raise OSError("down")

    @rule()
    def heal(self) -> None:
        """All is well again."""
        for hook in HOOKS:
            getattr(self.maker, hook).clear()
        for gate in self.hung:
            gate.open()
        self.hung.clear()

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0, 7.0]))
    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    # --- The pool ---

    @rule(size=st.integers(1, 3), more=st.integers(0, 2))
    def resize(self, size: int, more: int) -> None:
        """It is to have another size; what is there goes when it can."""
        self.bound = max(size + more, self.pool.stats().accounted)
        self.pool.resize(size, more)

    @rule(within=st.sampled_from([0.0, 5.0]))
    def recycle(self, within: float) -> None:
        """All are replaced."""
        self.pool.recycle(within)

    @precondition(lambda self: self.pool.stats().phase == "up")
    @rule()
    def suspend(self) -> None:
        """Nothing is lent."""
        self.pool.suspend()

    @precondition(lambda self: self.pool.stats().phase == "up")
    @rule()
    def resume(self) -> None:
        """All is lent again."""
        self.pool.resume()

    @rule(waiters=st.sampled_from(["serve", "fail"]))
    def close(self, waiters: Any) -> None:
        """Nobody is let in."""
        self.pool.close(waiters)

    @rule()
    def reopen(self) -> None:
        """Whoever comes is let in."""
        Client(self.pool.start, None)  # waits while a manager is on its way

    # --- What must hold ---

    @rule(steps=st.integers(1, 4))
    def hurry(self, steps: int) -> None:
        """What comes next happens before anybody else runs."""
        self.haste = steps + 1

    @invariant()
    def holds(self) -> None:
        """After each step; and more, once all who can have run."""
        if hasattr(self, "pool"):
            check(self.pool)
            self.haste -= 1
            if self.haste <= 0:
                self._holds_at_rest()

    def _holds_at_rest(self) -> None:
        settle()
        check(self.pool)
        self._follow()
        self._see_that_nobody_waits_in_vain()
        self._see_the_server()

    def _follow(self) -> None:
        """See who was served: the oldest, and nobody who had left."""
        waiting = [c for c in self.queue if not c.done and c.lease is None and not c.is_gone]
        served = [c for c in self.queue if c.lease is not None]
        oldest = min((self.queue.index(c) for c in waiting), default=len(self.queue))
        assert all(self.queue.index(c) < oldest for c in served), "overtaken"
        for client in set(self.queue) - set(waiting) - set(served):
            self._see_why_it_left(client)
        now = clocks.now()
        assert all(c.deadline is None or c.deadline > now for c in waiting)
        self.queue = waiting
        self.borrowers += served
        owners = Counter(c.owner for c in self.holding)
        assert Counter(holder.pid for holder in self.pool.holders()) == owners

    def _see_why_it_left(self, client: Borrower) -> None:
        match client.error:
            case gpool.CheckoutTimeout():
                assert client.deadline is not None
                assert client.deadline <= clocks.now()
            case gpool.PoolError() as error:
                assert isinstance(error, gpool.PoolClosed)
            case _:
                assert client.is_gone

    def _see_that_nobody_waits_in_vain(self) -> None:
        stats = self.pool.stats()
        assert stats.waiting == len(self.queue)
        ledger: Any = self.pool._ledger
        if ledger.man is None:
            # The last epoch's workers are going down.
            assert self.hung
        elif self.queue and not stats.suspended:
            assert stats.idle == 0 or stats.resetting >= len(self.queue)
            room = stats.size + stats.max_overflow - stats.accounted
            assert room <= 0 or stats.starting or stats.resetting or stats.breaker != "closed"

    def _see_the_server(self) -> None:
        stats = self.pool.stats()
        self.bound = max(stats.size + stats.max_overflow, min(self.bound, stats.accounted))
        assert self.maker.faults == []
        assert stats.reclaimed <= self.killed_heirs, (
            "what was granted, or in a block, came not back"
        )
        assert self.maker.open - stats.unclosed <= stats.accounted <= self.bound

    def teardown(self) -> None:
        """When the faults end, the pool is whole again by itself."""
        with self.resources:
            if hasattr(self, "pool"):
                self._end()

    def _end(self) -> None:
        self.heal()
        self.reopen()
        self.clock.advance(10.0)  # for closes and starts that were cut short
        self.pool.resume()
        self._holds_at_rest()
        while self.queue or self.holding:
            for client in self.holding:
                client.let_go("leave")
            before = len(self.queue)
            self._holds_at_rest()
            self.clock.advance(5.0)  # backoffs, and closes that were cut short
            self._holds_at_rest()
            assert len(self.queue) < before or not before, "nobody is served"
        self.maker.open -= self.pool.stats().unclosed
        self.maker.peak = 0
        assert_whole(self.pool, self.maker)
        self.pool.stop()
        for pid in self.heirs:
            gpool.exit(pid, "kill")
        settle()
        assert self.maker.open == 0


def pick(choices: list[Any], which: int) -> Any:
    """Return one of those who are there."""
    return choices[which % len(choices)] if choices else None


@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(0 if EXAMPLES > 100 else 60)
def test_any_story() -> None:
    """The pool keeps its promise, whatever happens, in whatever order."""
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            derandomize=True,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
