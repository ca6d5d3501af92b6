"""PoolSup, WorkerSup and PoolsSup: who falls with whom, and who comes back."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest

import gpool
from gpool.pool.application import application
from gpool.testing import VirtualClock, settle
from tests.pool.workshop import Echo, Holder, Maker, assert_whole


@pytest.fixture
def pool(clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
    """A pool of two, running."""
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2, name="db")
    pool.start()
    settle()
    return pool


def tree(pool: gpool.Pool[Any]) -> dict[str, gpool.Pid]:
    """Return the processes of a pool by role."""
    ledger: Any = pool._ledger
    return {"pool_sup": ledger.sup, "worker_sup": ledger.worker_sup, "pool_man": ledger.man.pid}


class TestPoolSup:
    @pytest.mark.parametrize("victim", ["worker_sup", "pool_man"])
    @pytest.mark.parametrize("reason", ["kill", "foreign"])
    def test_one_for_all(
        self, pool: gpool.Pool[Any], maker: Maker, victim: str, reason: str
    ) -> None:
        """Part 1: if either dies the other is killed, and both are respawned, workers too."""
        before = tree(pool)
        if reason == "foreign":
            before[victim].greenlet.kill(block=False)  # type: ignore[union-attr]
        else:
            gpool.exit(before[victim], reason)
        settle()
        after = tree(pool)
        assert after["pool_sup"] is before["pool_sup"]
        assert after["worker_sup"] is not before["worker_sup"]
        assert after["pool_man"] is not before["pool_man"]
        assert [thing.closed for thing in maker.made] == [True, True, False, False]
        assert_whole(pool, maker)

    @pytest.mark.parametrize("victim", ["pool_sup", "worker_sup", "pool_man"])
    def test_a_tree_that_is_going_down_lends_nothing(
        self, clock: VirtualClock, pool: gpool.Pool[Any], maker: Maker, victim: str
    ) -> None:
        """Rule 11: from the moment that an exit is accepted; what comes back is recorded."""
        lease = pool.checkout()
        gpool.exit(tree(pool)[victim], "kill")
        assert not pool.healthy()
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        lease.checkin()
        clock.advance(1.0)
        assert_whole(pool, maker)

    def test_links(self, pool: gpool.Pool[Any]) -> None:
        """Part 3: supervisors and children are linked; PoolMan links to nobody else."""
        processes = tree(pool)
        workers = [slot.pid for slot in pool._ledger.slots]  # type: ignore[union-attr]
        assert set(processes["pool_man"].links) == {processes["pool_sup"]}
        assert set(processes["worker_sup"].links) == {processes["pool_sup"], *workers}
        assert all(set(worker.links) == {processes["worker_sup"]} for worker in workers)
        assert gpool.self().links == {}

    def test_spends_its_intensity(self, clock: VirtualClock, maker: Maker) -> None:
        """`max_restarts` in `max_seconds`; one more and the pool has failed."""
        pool: gpool.Pool[Any] = gpool.Pool(
            maker.resource(), size=1, max_restarts=2, max_seconds=10.0
        )
        pool.start()
        settle()
        for _ in range(6):
            clock.advance(5.0)
            gpool.exit(tree(pool)["pool_man"], "kill")
            settle()
            if pool.status().state == "failed":
                break
        assert pool.stats().epoch == 3
        assert pool.status().state == "failed"

    def test_a_worker_is_no_fall(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Part 3: only PoolMan decides on replacements, and they are not counted."""
        before = tree(pool)
        for _ in range(50):
            [pid, *_] = [slot.pid for slot in pool._ledger.slots]  # type: ignore[union-attr]
            gpool.exit(pid, "kill")
            settle()
        assert tree(pool) == before
        assert_whole(pool, maker)


class TestWorkerSup:
    def test_which_children(self, pool: gpool.Pool[Any]) -> None:
        """The workers are its temporary children."""
        worker_sup = tree(pool)["worker_sup"].server
        children = worker_sup.which_children()
        assert {child.child for child in children} == {
            slot.pid
            for slot in pool._ledger.slots  # type: ignore[union-attr]
        }
        assert {child.type for child in children} == {"worker"}

    def test_a_child_that_somebody_terminates(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Stopped by hand: closed, and replaced."""
        worker_sup = tree(pool)["worker_sup"].server
        [first, _] = worker_sup.which_children()
        worker_sup.terminate_child(first.child)
        settle()
        assert sum(thing.closed for thing in maker.made) == 1
        assert_whole(pool, maker)

    def test_contexts(self, clock: VirtualClock) -> None:
        """Rule 14: a worker starts in an empty context, its calls run in their caller's."""
        variable = contextvars.ContextVar("variable", default="none")
        seen: list[str] = []

        class Curious(gpool.GenServer):
            def init(self) -> None:
                """Look at the start."""
                seen.append(variable.get())

            @gpool.call
            def look(self) -> str:
                """Look during a call."""
                return variable.get()

        variable.set("the caller's")
        pool: gpool.Pool[Any] = gpool.Pool(Curious, size=1)
        with pool.checkout() as curious:
            assert curious.look() == "the caller's"
        assert seen == ["none"]


class TestPoolsSup:
    def test_brings_every_pool_back(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Part 3: with its waiters in their places."""
        other: gpool.Pool[Any] = gpool.Pool(Echo, size=1, name="other")
        other.start()
        holder = Holder(pool), Holder(pool)
        waiter = Holder(pool)
        assert application.pools_sup is not None
        gpool.exit(application.pools_sup, "kill")
        settle()
        assert pool.healthy()
        assert other.healthy()
        holder[0].let_go()
        assert waiter.thing is not None
        assert_whole(other)

    def test_registers_them_by_name(self, pool: gpool.Pool[Any]) -> None:
        """Part 1: names -> pids."""
        assert application.registry is not None
        assert application.registry.whereis_name("db") is tree(pool)["pool_sup"]
        pool.stop()
        assert application.registry.whereis_name("db") is None

    def test_one_pools_fall_harms_no_sibling(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """1(f): whatever becomes of the other's supervisor."""
        other: gpool.Pool[Any] = gpool.Pool(Echo, size=1, name="other")
        other.start()
        settle()
        before = tree(pool)
        for _ in range(20):
            sup: Any = other._ledger.sup  # type: ignore[union-attr]
            gpool.exit(sup, "kill")
            settle()
        assert tree(pool) == before
        assert_whole(pool, maker)


class TestApplication:
    def test_is_linked_to_no_client(self, pool: gpool.Pool[Any]) -> None:
        """Part 1: whoever came first may die."""
        assert application.root is not None
        root: Any = application.root.pid
        assert {link.initial_call for link in root.links} == {"Registry", "PoolsSup"}

    def test_leaves_its_name_to_a_user_who_has_it(self, clock: VirtualClock, maker: Maker) -> None:
        """The root's name is for people: no pool waits for it."""
        mine = gpool.spawn(gpool.receive)
        gpool.register("gpool", mine)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        with pool.checkout(timeout=1.0):
            assert gpool.whereis("gpool") is mine

    @pytest.mark.parametrize("victim", ["registry", "pools_sup", "root"])
    def test_comes_back(
        self, clock: VirtualClock, pool: gpool.Pool[Any], maker: Maker, victim: str
    ) -> None:
        """Whatever of it falls, all pools are there again."""
        pids = {
            "registry": application.registry and application.registry.pid,
            "pools_sup": application.pools_sup,
            "root": application.root and application.root.pid,
        }
        waiters = [Holder(pool) for _ in range(3)]
        gpool.exit(pids[victim], "kill")
        clock.advance(1.0)
        assert pool.healthy()
        for waiter in waiters:
            waiter.let_go()
        assert waiters[2].done
        assert_whole(pool, maker)

    def test_does_not_come_back_for_nobody(
        self, clock: VirtualClock, pool: gpool.Pool[Any]
    ) -> None:
        """Without a pool that should run there is no need for it."""
        pool.stop()
        assert application.root is not None
        gpool.exit(application.root.pid, "kill")
        clock.advance(60.0)
        assert application.root is None
        pool.start()
        assert pool.healthy()

    def test_stop(self, clock: VirtualClock, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Every pool is stopped, those who wait are told."""
        holders = [Holder(pool), Holder(pool)]
        waiter = Holder(pool)
        application.stop()
        settle()
        assert isinstance(waiter.error, gpool.PoolClosed)
        for holder in holders:
            holder.let_go()
        assert maker.open == 0
        assert application.root is None
        assert gpool.whereis("gpool") is None

    def test_boots_once(self, clock: VirtualClock, maker: Maker) -> None:
        """However many come first."""
        pools = [gpool.Pool(maker.resource(), size=1) for _ in range(5)]
        for pool in pools:
            gpool.spawn(pool.start)
        settle()
        calls = [gpool.process_info(pid).initial_call for pid in gpool.processes()]
        assert calls.count("PoolsSup") == 1
        assert all(pool.healthy() for pool in pools)
