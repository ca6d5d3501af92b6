"""A signal handler, or a finalizer, that uses the pool in the middle of whatever others do.

It runs between two calls of theirs, where the books are not yet what they will be.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import gevent
import pytest

import gpool
from gpool.pool.admission import Admission
from gpool.testing import VirtualClock, settle
from gpool.waiter import Waiter
from tests.lightning import Handler
from tests.pool.workshop import Holder, Maker, assert_whole, check, fall, running


class Scene:
    """A pool, somebody who is about to act, and what a handler may do meanwhile."""

    def __init__(self, clock: VirtualClock, **options: Any) -> None:
        self.clock = clock
        self.maker = Maker()
        self.options = options
        self.hooks: dict[str, Any] = {}
        self.pool: gpool.Pool[Any]
        self.waiting: list[Holder] = []
        self.mine: Any = None  # the lease of whoever acts
        self.other: Any = None  # a lease that the handler may give back
        self.kept: list[Any] = []  # leases

    def open(self, size: int) -> Any:
        """Have a pool of so many, one of them lent; return its books."""
        worker = self.maker.resource(**self.hooks)
        self.pool = gpool.Pool(worker, size=size, max_restarts=1000, **self.options)
        self.pool.start()
        settle()
        self.pool.checkout().checkin()
        self.other = self.pool.checkout()
        return self.pool._ledger

    def line_up(self, size: int = 2) -> None:
        """Have nobody idle, and six in line, of whom two leave from the middle."""
        self.open(size)
        self.mine = self.pool.checkout()
        crowd = [Holder(self.pool, timeout=None) for _ in range(6)]
        for gone in (1, 3):
            crowd.pop(gone - (gone > 1)).kill()
            settle()
        self.waiting = crowd

    # --- What somebody does ---

    def checkout(self) -> Callable[[], object]:
        """Be about to check out, past one that has just died."""
        idle = self.open(5).man.state.idle.all()
        gpool.exit(idle[2].pid, "kill")
        return self.borrow

    def checkout_of_one_that_may_need_a_check(self) -> Callable[[], object]:
        """Be about to do it the long way."""
        self.hooks["check"] = lambda thing: True
        return self.checkout()

    def kill(self) -> Callable[[], object]:
        """Be about to kill an idle worker, beside one that has just died."""
        idle = self.open(5).man.state.idle.all()
        gpool.exit(idle[1].pid, "kill")
        return lambda: gpool.exit(idle[2].pid, "kill")

    def checkin(self) -> Callable[[], object]:
        """Be about to give back; nobody waits."""
        self.open(3)
        self.mine = self.pool.checkout()
        return self.mine.checkin  # type: ignore[no-any-return]

    def checkin_of_one_that_may_be_idle_too_long(self) -> Callable[[], object]:
        """Be about to do it the long way."""
        self.options["idle_timeout"] = 1000.0
        return self.checkin()

    def checkin_of_one_to_be_reset(self) -> Callable[[], object]:
        """Be about to give back what is not clean."""
        self.hooks["reset"] = self.maker.reset
        return self.checkin()

    def checkin_of_the_last_use(self) -> Callable[[], object]:
        """Be about to give back what has served enough."""
        self.options["max_uses"] = 1
        return self.checkin()

    def checkin_to_others(self) -> Callable[[], object]:
        """Be about to give back to those who wait."""
        self.line_up()
        return self.mine.checkin  # type: ignore[no-any-return]

    def checkin_to_one(self) -> Callable[[], object]:
        """Be about to give back to the only one who waits."""
        self.open(2)
        self.mine = self.pool.checkout()
        self.waiting = [Holder(self.pool, timeout=None)]
        return self.mine.checkin  # type: ignore[no-any-return]

    def discard(self) -> Callable[[], object]:
        """Be about to give back what is not to be used again."""
        self.line_up()
        return self.mine.discard  # type: ignore[no-any-return]

    def give_up(self) -> Callable[[], object]:
        """Be about to be the next one, and leave."""
        self.line_up()
        queue: Any = self.pool._ledger.queue  # type: ignore[union-attr]
        ticket, self.waiting = queue.tickets()[0], self.waiting[1:]

        def leave() -> None:
            ticket.error = gpool.PoolClosed("gone")
            ticket.wake()
            queue.give_up(ticket)
            self.mine.checkin()

        return leave

    def wait(self) -> Callable[[], object]:
        """Be about to wait until the deadline."""
        self.open(1)
        helper = gevent.spawn(self.clock.advance, 1.0)
        return lambda: self.borrow(1.0, helper)

    def borrow(self, timeout: float = 0, *helpers: object) -> None:
        """Check out and keep it, or not."""
        with contextlib.suppress(gpool.CheckoutTimeout):
            self.kept.append(self.pool.checkout(timeout=timeout))

    # --- What a handler does ---

    def use(self) -> None:
        """Check out and in."""
        with contextlib.suppress(gpool.CheckoutTimeout):
            self.pool.checkout(timeout=0).checkin()

    def give_back(self) -> None:
        """Check in what was lent before."""
        self.other.checkin()

    def kill_idle(self) -> None:
        """Kill the workers that are idle, or on their way there."""
        ledger: Any = self.pool._ledger
        for slot in list(ledger.slots):
            if slot.state == "idle" or (slot.state == "busy" and slot.lease is None):
                gpool.exit(slot.pid, "kill")

    # --- Afterwards ---

    def verify(self) -> None:
        """Assert that nothing is lost, and nobody forgotten."""
        settle()
        check(self.pool)  # before anything else happens, which might put it right
        self.clock.advance(0.5)
        check(self.pool)
        held = [lease.slot for lease in self.kept if not lease.lost]
        assert len(set(held)) == len(held), "lent twice"
        for lease in [*self.kept, self.mine, self.other]:
            if lease is not None:
                lease.checkin()
        self.kept.clear()
        settle()
        for holder in self.waiting:
            self.clock.advance(1.0)
            assert holder.thing is not None, self.pool.stats()
            holder.let_go()
        assert all(holder.error is None for holder in self.waiting)
        assert_whole(self.pool, self.maker)
        self.pool.stop()


ACTS = [
    "checkout", "checkout_of_one_that_may_need_a_check", "kill", "checkin",
    "checkin_of_one_that_may_be_idle_too_long", "checkin_of_one_to_be_reset",
    "checkin_of_the_last_use", "checkin_to_others", "checkin_to_one", "discard", "give_up",
    "wait",
]  # fmt: skip


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="a trace function misses some bytecodes")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("strategy", ["lifo", "fifo"])
@pytest.mark.parametrize("use", ["borrow", "use", "give_back", "kill_idle"])
@pytest.mark.parametrize("act", ACTS)
def test_used_between_any_two_calls(clock: VirtualClock, act: str, use: str, strategy: str) -> None:
    """Both get what is theirs, or an error of the pool: never each other's."""
    for moment in range(1, 1000):
        scene = Scene(clock, strategy=strategy)
        fn = getattr(scene, act)()
        try:
            is_over = not Handler(moment, getattr(scene, use)).run(fn)
            scene.verify()
        except BaseException as error:
            error.add_note(f"used at moment {moment}")
            raise
        if is_over:
            return
    raise AssertionError("it never ends")


class TestWait:
    def test_within_a_wait_over_two_epochs(
        self, clock: VirtualClock, maker: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A handler waits in one who stands in line already: that one is not forgotten."""
        pool = running(maker.resource(), size=1)
        lease, wait = pool.checkout(), Waiter.wait
        told: list[Exception] = []

        def struck(self: Waiter, *args: Any) -> Any:
            monkeypatch.undo()
            try:
                pool.checkout(timeout=1.0)
            except gpool.CheckoutTimeout as error:
                told.append(error)
            return wait(self, *args)

        monkeypatch.setattr(Waiter, "wait", struck)
        outer = Holder(pool)
        clock.advance(1.0)
        assert len(told) == 1
        fall(pool)
        assert (pool.stats().epoch, pool.stats().waiting) == (2, 1)
        lease.checkin()
        settle()
        assert outer.thing is not None
        outer.let_go()
        assert_whole(pool, maker)

    def test_granted_a_worker_just_before_it_waits_on(
        self, clock: VirtualClock, maker: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The grant before was taken back; the handler brings the next one at once."""
        pool = running(maker.resource(), size=2)
        first, second = pool.checkout(), pool.checkout()
        slot: Any = first.slot
        waiter = Holder(pool)

        def struck(self: Admission) -> None:
            monkeypatch.undo()
            second.checkin()

        monkeypatch.setattr(Admission, "refuse_if_over", struck)
        first.checkin()
        gpool.exit(slot.pid, "kill")
        settle()
        assert waiter.thing is not None
        waiter.let_go()
        assert_whole(pool, maker)
