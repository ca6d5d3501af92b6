"""Closes that are cut short: whose fault it was decides whether they are begun again."""

from __future__ import annotations

import gpool
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import Maker, assert_whole


def initial_call(pid: gpool.Pid) -> str:
    """Return what a process runs."""
    return gpool.process_info(pid).initial_call


def in_charge_of(what: str) -> gpool.Pid:
    """Return the oldest living process that runs something of that name."""
    return next(pid for pid in gpool.processes() if initial_call(pid) == what)


def discard(pool: gpool.Pool[object]) -> None:
    """Have a worker closed."""
    pool.checkout().discard()
    settle()


class TestClose:
    def test_is_begun_again_however_often_others_take_it_along(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Its worker is killed, WorkerSup falls twice: the slot is taken until it is closed."""
        gate = Gate()
        maker.closes.extend([gate.wait] * 4)
        with gpool.Pool(maker.resource(), size=1) as pool:
            discard(pool)
            for victim in ("ResourceOwner", "WorkerSup", "WorkerSup"):
                gpool.exit(in_charge_of(victim), "kill")
                settle()
                assert pool.stats().closing == maker.open == 1
            gate.open()
            settle()
            assert pool.stats().unclosed == 0
            assert_whole(pool, maker)

    def test_is_begun_again_once_if_it_takes_too_long(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Nobody waits for ever for a close that hangs: its slot is freed, and that is counted."""
        maker.closes.extend([Gate().wait] * 2)
        with gpool.Pool(maker.resource(), size=1, shutdown=2.0) as pool:
            discard(pool)
            clock.advance(3.0)
            assert (pool.stats().closing, pool.stats().unclosed) == (1, 0)
            clock.advance(1.1)
            assert (pool.stats().idle, pool.stats().unclosed) == (1, 1)

    def test_is_begun_again_once_if_it_ends_its_process(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """A close that raises an exit of its own would do so for ever."""
        maker.closes.extend([gpool.ExitSignal("no"), gpool.ExitSignal("never")])
        with gpool.Pool(maker.resource(), size=1) as pool:
            discard(pool)
            assert (pool.stats().idle, pool.stats().unclosed) == (1, 1)


class TestStop:
    def test_closes_what_a_failed_pool_has_left(self, clock: VirtualClock, maker: Maker) -> None:
        """There is no tree that could: what was open stays so neither for ever nor for a while."""
        pool = gpool.Pool(maker.resource(), size=2, max_restarts=0).start()
        settle()
        closing = Gate()
        maker.closes.extend([closing.wait] * 2)
        for pid in [p for p in gpool.processes() if initial_call(p) == "ResourceOwner"]:
            gpool.exit(pid, "kill")  # what they had is being closed when PoolMan falls
        settle()
        gpool.exit(in_charge_of("PoolMan"), "kill")
        settle()
        assert (pool.stats().phase, maker.open) == ("failed", 2)
        pool.stop()
        assert (pool.stats().closing, maker.open, maker.faults) == (0, 0, [])

    def test_is_final_even_at_once_after_the_start(self, clock: VirtualClock) -> None:
        """Nobody knows yet where the tree of all pools is; the pool stays down all the same."""
        pool = gpool.Pool(gpool.Resource(create=list), size=1).start()
        pool.wait_ready()
        pool.stop()
        clock.advance(60.0)
        assert "PoolSup" not in map(initial_call, gpool.processes())
