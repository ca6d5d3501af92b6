"""The torture table, T1 to T8: clients are cut short, connects fail, and no slot is lost."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import gpool
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import Client, Holder, Maker, assert_whole


@pytest.fixture
def pool(clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
    """A pool of one."""
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, name="one")
    pool.start()
    settle()
    return pool


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
