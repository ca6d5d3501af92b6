"""The torture table of other pools (T1 to T8), then what BEAM's pools were caught at."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import gpool
from gpool.otp.signal import finish
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import Client, Echo, Holder, Maker, assert_whole, books


@pytest.fixture
def pool(clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
    """A pool of one."""
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, name="one")
    pool.start()
    settle()
    return pool


def man(pool: gpool.Pool[Any]) -> Any:
    """Return the manager's pid."""
    ledger: Any = pool._ledger
    return ledger.man.pid


class TestTable:
    def test_t1(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """T1: a waiter is cut by gevent.Timeout, then the worker comes back: it survives."""
        holder, waiter = Holder(pool), Holder(pool)
        timeout = waiter.cut()
        settle()
        assert waiter.error is timeout
        holder.let_go()
        assert_whole(pool, maker)
        assert len(maker.made) == 1 + 1  # the second replaces what assert_whole kept

    def test_t2(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """T2: the oldest waiter is killed in the turn of the return: the next one is served."""
        lease = pool.checkout()
        oldest, second = Holder(pool), Holder(pool)
        lease.checkin()  # granted to the oldest, which does not know yet
        oldest.kill()
        settle()
        assert oldest.thing is None
        assert second.thing is not None
        second.let_go()
        assert_whole(pool, maker)

    @pytest.mark.parametrize("order", ["kill first", "return first"])
    def test_t2_in_both_orders(self, pool: gpool.Pool[Any], maker: Maker, order: str) -> None:
        """T2: whoever is first, the worker goes on unused."""
        lease = pool.checkout()
        oldest, second = Holder(pool), Holder(pool)
        steps = [oldest.kill, lease.checkin]
        for step in steps if order == "kill first" else reversed(steps):
            step()
        settle()
        assert second.thing is maker.made[0]

    def test_t3(self, clock: VirtualClock, maker: Maker) -> None:
        """T3: a connect fails, the database heals: the waiter is served after one backoff."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        gate = Gate()

        def fail() -> None:
            gate.wait()
            raise OSError("down")

        maker.creates.append(fail)
        waiter = Holder(pool, timeout=5.0)
        gate.open()
        settle()
        assert waiter.thing is None
        clock.advance(0.02)
        assert waiter.thing is not None

    def test_t4(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """T4: a hot loop that never yields does not starve three waiters."""
        served: list[str] = []

        def hot() -> None:
            for _ in range(10):
                with pool.checkout():
                    served.append("hot")
                    gevent.sleep(0)

        def polite(name: str) -> None:
            with pool.checkout():
                served.append(name)

        clients = [Client(hot), *[Client(polite, name) for name in "abc"]]
        settle()
        assert all(client.done for client in clients)
        assert served[:5] == ["hot", "a", "b", "c", "hot"]

    def test_t5(self, clock: VirtualClock, maker: Maker) -> None:
        """T5: a waiter is killed while the connect for it is in flight: the slot survives."""
        gate = Gate()
        maker.creates.append(gate.wait)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, lazy=True)
        waiter = Holder(pool)
        assert pool.stats().starting == 1
        waiter.kill()
        settle()
        gate.open()
        settle()
        assert pool.stats().idle == 1  # the connect goes to the pool
        assert_whole(pool, maker)

    def test_t6(self, clock: VirtualClock, maker: Maker) -> None:
        """T6: thirty cold callers, at most four: never more than four are open."""
        maker.creates.extend([lambda: gevent.sleep(0)] * 30)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=4)

        def use() -> None:
            with pool.checkout(timeout=None) as thing, thing.used():
                gevent.sleep(0)

        clients = [Client(use) for _ in range(30)]
        settle()
        assert all(client.done and client.error is None for client in clients)
        assert (maker.peak, maker.faults) == (4, [])

    def test_t6_counts_those_that_are_closing(self, clock: VirtualClock, maker: Maker) -> None:
        """T6, rule 6: a slot is freed after the close."""
        gate = Gate()
        maker.closes.append(gate.wait)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        pool.checkout().discard()
        waiter = Holder(pool)
        assert (waiter.thing, maker.open) == (None, 1)
        gate.open()
        settle()
        assert waiter.thing is maker.made[1]
        assert maker.peak == 1

    @pytest.mark.parametrize("end", ["kill", "cut"])
    def test_t7(self, pool: gpool.Pool[Any], maker: Maker, end: str) -> None:
        """T7: a holder is killed or timed out inside `with`: the slot survives, the thing goes."""
        holder = Holder(pool)
        getattr(holder, end)()
        settle()
        assert maker.made[0].closed
        assert_whole(pool, maker)

    def test_t8(self, pool: gpool.Pool[Any]) -> None:
        """T8: waiters are served in the order of their arrival."""
        holder = Holder(pool)
        waiters = [Holder(pool) for _ in range(5)]
        for waiter in [holder, *waiters]:
            assert [w.thing is not None for w in waiters].count(True) == (
                0 if waiter is holder else waiters.index(waiter) + 1
            )
            waiter.let_go()


class TestBeam:
    def test_a_stale_second_release(self, pool: gpool.Pool[Any]) -> None:
        """1(c): A's late second checkin does not free the worker that B holds by now."""
        lease = pool.checkout()
        lease.checkin()
        b = Holder(pool)
        lease.checkin()
        c = Holder(pool)
        assert b.thing is not None
        assert c.thing is None
        assert pool.stats().stale == 1

    def test_a_holder_that_crashed_leaves_nothing_dirty(
        self, pool: gpool.Pool[Any], maker: Maker
    ) -> None:
        """1(b): the next one gets another thing."""

        def crash() -> None:
            pool.checkout()
            raise ValueError("dirty")

        client, successor = Client(crash), Holder(pool)
        assert client.done
        assert successor.thing is maker.made[1]
        assert maker.made[0].closed

    def test_a_waiter_killed_then_a_release(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """5-1: it is dropped at once, and no worker is touched."""
        holder, waiter = Holder(pool), Holder(pool)
        waiter.kill()
        settle()
        assert pool.stats().waiting == 0
        holder.let_go()
        assert pool.stats().idle == len(maker.made) == 1

    def test_a_client_killed_after_the_grant(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """5-2: it gives the worker back unused, which is not recycled."""
        lease = pool.checkout()
        waiter = Holder(pool)
        lease.checkin()
        waiter.kill()
        settle()
        assert pool.stats().idle == len(maker.made) == 1

    @pytest.mark.parametrize("how", [gpool.exit, finish])
    def test_a_worker_that_dies_after_the_grant(
        self, pool: gpool.Pool[Any], maker: Maker, how: Any
    ) -> None:
        """The client that does not know yet keeps its place, and gets the replacement."""
        lease = pool.checkout()
        first, second = Holder(pool), Holder(pool)
        pid = next(iter(books(pool).slots)).pid
        lease.checkin()
        how(pid, "kill")
        settle()
        assert maker.made[0].closed
        assert first.thing is maker.made[1]
        assert second.thing is None

    @pytest.mark.parametrize("first", ["deadline", "release"])
    def test_a_deadline_at_the_moment_of_the_release(
        self, clock: VirtualClock, pool: gpool.Pool[Any], first: str
    ) -> None:
        """5-3: decided in one place; whoever loses, the worker is whole."""
        lease = pool.checkout()
        if first == "release":
            clock.call_later(5.0, lease.checkin)
        waiter = Holder(pool, timeout=5.0)
        if first == "deadline":
            clock.call_later(5.0, lease.checkin)
        clock.advance(5.0)
        assert (waiter.thing is not None) == (first == "release")
        assert isinstance(waiter.error, gpool.CheckoutTimeout) == (first == "deadline")
        waiter.let_go()
        assert_whole(pool)

    def test_a_worker_that_dies_while_held(self, clock: VirtualClock) -> None:
        """5-4: the lease is lost, the capacity restored once, the late checkin a no-op."""
        pool: gpool.Pool[Echo] = gpool.Pool(Echo, size=1)
        pool.start()
        settle()
        lease = pool.checkout()
        echo = lease.worker
        gpool.exit(echo.pid, "kill")
        settle()
        assert lease.lost
        assert pool.stats().idle == 1
        with pytest.raises(gpool.LeaseLost, match=r"test_torture\.py:\d+ in TestBeam"):
            _ = lease.worker
        with pytest.raises(gpool.NoProcess):
            echo.say(1)
        lease.checkin()
        assert (pool.stats().idle, pool.stats().stale) == (1, 1)

    def test_a_manager_killed_with_a_holder_and_waiters(
        self, pool: gpool.Pool[Any], clock: VirtualClock, maker: Maker
    ) -> None:
        """5-5: waiters keep place and deadline; the holder's thing is not closed in its hands."""
        holder = Holder(pool)
        clock.advance(1.0)
        waiters = [Holder(pool, timeout=5.0), Holder(pool, timeout=2.0)]
        gpool.exit(man(pool), "kill")
        settle()
        assert pool.healthy()
        assert pool.stats().epoch == 2
        assert not maker.made[0].closed
        assert [w.thing for w in waiters] == [None, None]  # the cap counts what is still held
        clock.advance(2.0)
        assert isinstance(waiters[1].error, gpool.CheckoutTimeout)
        holder.let_go()
        assert maker.made[0].closed
        assert waiters[0].thing is maker.made[1]
        assert (maker.peak, maker.faults) == (1, [])

    def test_a_manager_suspended_past_a_waiters_deadline(
        self, pool: gpool.Pool[Any], clock: VirtualClock
    ) -> None:
        """Nimble_pool 9: the waiter gives up at its deadline, the worker is not touched."""
        gpool.sys.suspend(man(pool))
        waiter, late = Holder(pool, timeout=1.0), Holder(pool, timeout=10.0)
        clock.advance(1.0)
        assert isinstance(waiter.error, gpool.CheckoutTimeout)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        gpool.sys.resume(man(pool))
        settle()
        assert late.thing is not None

    def test_what_comes_back_while_the_manager_is_suspended(self, pool: gpool.Pool[Any]) -> None:
        """Rule 2: a checkin is always recorded."""
        lease = pool.checkout()
        gpool.sys.suspend(man(pool))
        lease.checkin()
        assert pool.status().idle == 1
        gpool.sys.resume(man(pool))
        pool.checkout(timeout=0).checkin()

    @pytest.mark.parametrize("kind", ["thing", "server"])
    def test_a_stop_with_a_holder_and_a_waiter(
        self, clock: VirtualClock, maker: Maker, kind: str
    ) -> None:
        """5-9: the waiter is told at once; a thing is closed when its holder lets go."""
        worker: Any = Echo if kind == "server" else maker.resource()
        pool: gpool.Pool[Any] = gpool.Pool(worker, size=1)
        holder, waiter = Holder(pool), Holder(pool)
        pool.stop()
        settle()
        assert isinstance(waiter.error, gpool.PoolClosed)
        if kind == "thing":
            assert maker.open == 1
        holder.let_go()
        assert maker.open == 0
        assert maker.faults == []

    def test_starts_that_fail_and_recover_with_a_waiter(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """5-10: a jittered backoff, no fall, and the waiter is served when service returns."""
        maker.creates.extend([OSError("down")] * 8)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=3)
        waiter = Holder(pool, timeout=None)
        for _ in range(40):
            clock.advance(0.5)
        assert waiter.thing is not None
        assert pool.stats().epoch == 1
        waiter.let_go()
        assert_whole(pool, maker)

    def test_a_sick_pool_beside_a_healthy_one(self, clock: VirtualClock, maker: Maker) -> None:
        """1(f): a pool whose manager is killed on and on harms no sibling."""
        healthy: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, name="healthy")
        sick: gpool.Pool[Any] = gpool.Pool(Maker().resource(), size=1, name="sick")
        healthy.start()
        sick.start()
        settle()
        lease = healthy.checkout()
        for _ in range(200):
            ledger: Any = sick._ledger
            if ledger.man is not None:
                gpool.exit(ledger.man.pid, "kill")
            settle()
            if sick.status().state == "failed":
                clock.advance(31.0)
        assert not lease.lost
        lease.checkin()
        assert_whole(healthy, maker)
        assert healthy.stats().epoch == 1

    def test_a_zero_timeout_on_an_idle_pool(self, pool: gpool.Pool[Any]) -> None:
        """It is served: 0 does not wait, and need not (nimble_pool fails there)."""
        for _ in range(100):
            pool.checkout(timeout=0).checkin()

    def test_waiters_that_gave_up_leave_nothing(
        self, pool: gpool.Pool[Any], clock: VirtualClock
    ) -> None:
        """Fifty timed-out waiters later the queue is empty."""
        holder = Holder(pool)
        waiters = [Holder(pool, timeout=1.0) for _ in range(50)]
        assert pool.stats().waiting == 50
        clock.advance(1.0)
        assert all(isinstance(w.error, gpool.CheckoutTimeout) for w in waiters)
        stats = pool.stats()
        assert (stats.waiting, stats.timed_out) == (0, 50)
        assert not books(pool).waiting
        holder.let_go()
        assert_whole(pool)

    def test_an_overflow_worker_goes_to_a_waiter(self, clock: VirtualClock, maker: Maker) -> None:
        """5-8: it stays, and order is kept."""
        pool: gpool.Pool[Any] = gpool.Pool(
            maker.resource(), size=1, max_overflow=1, overflow_ttl=0.0
        )
        clients = [Holder(pool) for _ in range(5)]
        for client in clients:
            client.let_go()
        assert [client.thing for client in clients if client.thing is None] == []
        assert len(maker.made) == 2
        assert pool.stats().overflow == 0

    def test_a_slow_start_holds_nobody_up(self, clock: VirtualClock, maker: Maker) -> None:
        """Part 4: a start that hangs delays neither the others nor the checkouts."""
        gate = Gate()
        maker.creates.append(gate.wait)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=3)
        clients = [Holder(pool) for _ in range(3)]
        assert [client.thing is not None for client in clients] == [True, True, False]
        gate.open()
        settle()
        assert clients[2].thing is not None

    def test_a_start_that_takes_too_long_is_killed(self, clock: VirtualClock, maker: Maker) -> None:
        """`start_timeout`: it counts as failed, and the next try follows."""
        maker.creates.append(Gate().wait)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, start_timeout=2.0)
        waiter = Holder(pool, timeout=None)
        clock.advance(2.1)
        assert pool.stats().start_failures == 1
        assert waiter.thing is not None

    def test_a_foreign_killall(self, pool: gpool.Pool[Any], clock: VirtualClock) -> None:
        """Foreign code kills every greenlet there is: the next checkout is served again."""
        waiter_was = Holder(pool), Holder(pool)
        greenlets = [pid.greenlet for pid in gpool.processes() if pid.greenlet is not None]
        gevent.killall([g for g in greenlets if isinstance(g, gevent.Greenlet)], block=False)
        settle()
        clock.advance(1.0)
        assert all(client.thing is None or client.done for client in waiter_was)
        successor = Holder(pool)
        clock.advance(1.0)
        assert successor.thing is not None
