"""A pool's numbers: frozen, of one moment, and adding up at any moment."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import greenlet
import pytest

import gpool
from gpool.pool.stats import Stats, status_of
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.scenarios import Stage, manager_of
from tests.pool.workshop import Client, Echo, Holder, Maker, assert_whole

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def stage(clock: VirtualClock, maker: Maker) -> Stage:
    """Where pools are made."""
    return Stage(clock, maker)


class AtEverySwitch:
    """Looks at a pool whenever a greenlet gives way to another one."""

    def __init__(self, pool: gpool.Pool[Any]) -> None:
        self.pool = pool
        self.seen: list[Stats] = []
        self.faults: list[Any] = []

    def __enter__(self) -> AtEverySwitch:
        self._before = greenlet.settrace(self._look)
        return self

    def __exit__(self, *exc: object) -> None:
        greenlet.settrace(self._before)

    def _look(self, event: str, pair: Any) -> None:
        ledger: Any = self.pool._ledger
        stats = self.pool.stats()
        by_state = (
            stats.idle, stats.busy, stats.starting, stats.finishing, stats.resetting,
            stats.closing, stats.lost,
        )  # fmt: skip
        sound = (
            sum(by_state) == stats.accounted == len(ledger.slots),
            min(by_state) >= 0,
            stats.accounted <= stats.size + stats.max_overflow,
            0 <= stats.overflow <= stats.max_overflow,
            stats.oldest_wait >= 0 and (stats.waiting > 0 or stats.oldest_wait == 0),
            stats.phase != "up" or ledger.man is not None,
            len(self.pool.holders()) == stats.busy + stats.lost,
        )
        if not all(sound):
            self.faults.append((sound, stats))
        if not self.seen or self.seen[-1] != stats:
            self.seen.append(stats)


class TestConsistent:
    @pytest.mark.parametrize("kind", ["things", "servers"])
    def test_at_every_switch(self, stage: Stage, kind: str) -> None:
        """Together the slots are what the cap counts, whatever happens between two turns."""
        maker = stage.maker
        maker.creates.extend([None, OSError("down"), None, None, OSError("down")])
        worker = Echo if kind == "servers" else maker.resource(reset=maker.reset, check=bool)
        pool = stage.pool(worker, size=2, max_overflow=1, check_after=1.0)
        with AtEverySwitch(pool) as watch:
            for deed in (Holder.let_go, Holder.kill, Holder.cut):
                clients = [Holder(pool) for _ in range(5)]
                stage.clock.advance(0.5)
                for client in clients:
                    deed(client)
                    settle()
                pool.recycle(within=1.0)
                client = Holder(pool)
                gpool.exit(manager_of(pool), "kill")
                settle()
                client.let_go()
                stage.clock.advance(6.0)
            pool.close()
            pool.start()
            settle()
        assert watch.faults == []
        assert len(watch.seen) > 30
        assert_whole(pool, maker if kind == "things" else None)

    def test_counts_never_go_back(self, stage: Stage) -> None:
        """What is since the pool's start only grows, over the falls of its manager too."""
        pool = stage.pool(size=1, max_waiting=0)
        with AtEverySwitch(pool) as watch:
            for _ in range(3):
                client = Holder(pool)
                with pytest.raises(gpool.PoolFull):
                    pool.checkout()
                client.let_go()
                Client(pool.checkout)
                settle()
                gpool.exit(manager_of(pool), "kill")
                settle()
        counts = [(s.epoch, s.refused, s.reclaimed, s.timed_out, s.stale) for s in watch.seen]
        assert all(
            one <= other
            for before, after in itertools.pairwise(counts)
            for one, other in zip(before, after, strict=True)
        )
        assert counts[-1] == (4, 3, 3, 0, 0)


class TestStats:
    def test_is_frozen(self, stage: Stage) -> None:
        """It is a moment's: nobody can change it, and it does not change."""
        pool = stage.pool()
        stats = pool.stats()
        lease = pool.checkout()
        assert (stats.idle, pool.stats().idle) == (1, 0)
        with pytest.raises(dataclasses.FrozenInstanceError):
            stats.idle = 2  # type: ignore[misc]
        lease.checkin()

    def test_before_the_first_start(self) -> None:
        """A pool that nobody has used has a size, and nothing else; looking starts nothing."""
        pool = gpool.Pool(Echo, size=3)
        stats = pool.stats()
        assert (stats.phase, stats.size, stats.accounted, stats.epoch) == ("stopped", 3, 0, 0)
        assert gpool.running_pools() == []

    def test_oldest_wait(self, stage: Stage) -> None:
        """Seconds that the first in the queue has waited, whoever came later."""
        pool = stage.pool()
        holder = Holder(pool)
        first = Client(pool.checkout, timeout=None)
        stage.clock.advance(2.0)
        Client(pool.checkout, timeout=None)
        stage.clock.advance(1.0)
        assert (pool.stats().waiting, pool.stats().oldest_wait) == (2, 3.0)
        first.kill()
        settle()
        assert (pool.stats().waiting, pool.stats().oldest_wait) == (1, 1.0)
        holder.let_go()
        assert (pool.stats().waiting, pool.stats().oldest_wait) == (0, 0.0)

    def test_breaker(self, stage: Stage) -> None:
        """Open while starts back off, half open while one tries, closed when one was well."""
        gate = Gate()
        stage.maker.creates.extend([OSError("down"), gate.wait])
        pool = stage.pool()
        assert pool.stats().breaker == "open"
        stage.clock.advance(1.0)
        assert pool.stats().breaker == "half_open"
        gate.open()
        settle()
        assert pool.stats().breaker == "closed"

    def test_phases(self, stage: Stage) -> None:
        """up, draining, down, failed, stopped; and suspended beside that."""
        pool = stage.pool(max_restarts=1)
        phases = [pool.stats().phase]
        pool.close()
        phases.append(pool.stats().phase)
        pool.start()
        gpool.exit(manager_of(pool), "kill")
        with AtEverySwitch(pool) as watch:
            settle()
        phases += [stats.phase for stats in watch.seen if stats.phase == "down"][:1]
        gpool.exit(manager_of(pool), "kill")
        settle()
        phases.append(pool.stats().phase)
        pool.stop()
        phases.append(pool.stats().phase)
        assert phases == ["up", "draining", "down", "failed", "stopped"]
        assert watch.faults == []

    def test_suspended(self, stage: Stage) -> None:
        """It says so, and a fall of the manager does not change it."""
        pool = stage.pool()
        pool.suspend()
        assert pool.stats().suspended
        gpool.exit(manager_of(pool), "kill")
        settle()
        assert pool.stats().suspended
        pool.resume()
        assert not pool.stats().suspended

    def test_counts_of_those_who_got_nothing(self, stage: Stage) -> None:
        """Each of them stands in one count."""
        pool = stage.pool(max_waiting=1)
        lease = pool.checkout()
        with pytest.raises(gpool.CheckoutDeadlock):
            pool.checkout(timeout=None)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        waiting = Client(pool.checkout)
        settle()
        with pytest.raises(gpool.PoolFull):
            pool.checkout()
        waiting.cut()
        settle()
        stats = pool.stats()
        assert (stats.deadlocks, stats.timed_out, stats.refused, stats.cancelled) == (1, 1, 1, 1)
        lease.checkin()

    def test_failed_fast(self, stage: Stage) -> None:
        """Those who waited and those who came while starts fail."""
        stage.maker.creates.append(OSError("down"))
        pool = stage.pool(lazy=True, fail_fast=True)
        clients = [Client(pool.checkout), Client(pool.checkout)]
        settle()
        with pytest.raises(gpool.StartsFailing):
            pool.checkout()
        assert all(isinstance(client.error, gpool.StartsFailing) for client in clients)
        assert (pool.stats().failed_fast, pool.stats().timed_out) == (3, 0)

    @pytest.mark.parametrize(("then", "revoked"), [("warn", 0), ("revoke", 2)])
    def test_overheld(self, stage: Stage, then: Any, revoked: int) -> None:
        """Held for longer than max_hold, each counted once; and of these, taken away."""
        pool = stage.pool(Echo, size=2, max_hold=30.0, on_max_hold=then)
        clients = [Holder(pool), Holder(pool)]
        stage.clock.advance(100.0)
        assert (pool.stats().overheld, pool.stats().revoked) == (2, revoked)
        for client in clients:
            client.let_go()
        assert pool.stats().stale == revoked
        assert_whole(pool)

    def test_status_is_of_the_same_moment(self, stage: Stage) -> None:
        """The pool at a glance says what the numbers say."""
        pool = stage.pool(size=1, max_overflow=1)
        leases = []
        for state in ("ready", "overflow", "full"):
            assert status_of(pool.stats()) == pool.status()
            assert pool.status().state == state
            leases.append(Holder(pool))
