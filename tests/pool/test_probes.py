"""What BEAM's pools were caught at, asked of gpool: each probe by its name."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.otp.signal import finish
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import (
    Client,
    Echo,
    Events,
    Holder,
    Maker,
    assert_whole,
    books,
    running,
    use,
)


@pytest.fixture
def pool(clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
    """A pool of one."""
    return running(maker.resource(), size=1, name="one")


def man(pool: gpool.Pool[Any]) -> Any:
    """Return the manager's pid."""
    ledger: Any = pool._ledger
    return ledger.man.pid


class TestProbes:
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
        with pytest.raises(gpool.LeaseLost, match=r"test_probes\.py:\d+ in TestProbes"):
            _ = lease.worker
        with pytest.raises(gpool.NoProcess):
            echo.say(1)
        lease.checkin()
        assert (pool.stats().idle, pool.stats().stale) == (1, 1)

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

    @pytest.mark.parametrize("kind", ["thing", "server"])
    def test_a_hundred_overflow_uses(self, clock: VirtualClock, maker: Maker, kind: str) -> None:
        """With one base worker held: one start, not a hundred."""
        pool = running(Echo if kind == "server" else maker.resource(), size=1, max_overflow=1)
        base = Holder(pool)
        with Events() as events:
            things = {use(pool) for _ in range(100)}
        assert things != {base.thing}
        assert len(things) == 1
        assert len(events.of(telemetry.WorkerStarted)) == 1
        clock.advance(6.0)
        assert pool.stats().overflow == 0
        base.let_go()
        assert_whole(pool)

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

    def test_starts_that_fail_for_a_while(self, clock: VirtualClock, maker: Maker) -> None:
        """For 0.3 s: some tries, not hundreds of thousands; all are up soon after."""
        maker.creates.extend([OSError("down")] * 99999)
        pool = running(maker.resource(), size=3)
        clock.advance(0.3)
        assert 1 < maker.connects < 40
        maker.creates.clear()
        clock.advance(1.0)  # twice what it can be backing off by now
        assert pool.stats().idle == 3

    def test_one_restart_that_fails(self, clock: VirtualClock, maker: Maker) -> None:
        """Then service is back: the client in the queue is served without a new request."""
        pool = running(maker.resource(), size=1)
        maker.creates.append(OSError("down"))
        pool.checkout().discard()
        waiter = Holder(pool, timeout=None)
        assert (maker.connects, waiter.thing) == (2, None)
        clock.advance(0.01)
        assert waiter.thing is maker.made[1]

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

    @pytest.mark.parametrize("sick", ["starts", "servers", "limit"])
    def test_a_pool_whose_workers_never_start(
        self, clock: VirtualClock, maker: Maker, sick: str
    ) -> None:
        """1(f), as it was seen: it does not take its siblings along, nor fall itself."""

        class Stillborn(gpool.GenServer):
            def init(self) -> None:
                raise OSError("down")

        healthy = running(maker.resource(), size=1, name="healthy")
        lease = healthy.checkout()
        bad = Maker()
        bad.creates.extend([OSError("down")] * 99999)
        ill = running(
            Stillborn if sick == "servers" else bad.resource(), size=5, name="ill",
            max_start_failures=3 if sick == "limit" else None,
        )  # fmt: skip
        clock.advance(600.0)
        assert ill.stats().start_failures > 10
        assert (ill.stats().epoch == 1) == (sick != "limit")
        assert not lease.lost
        lease.checkin()
        assert healthy.stats().epoch == 1
        assert_whole(healthy, maker)

    @pytest.mark.usefixtures("quiet")
    def test_clients_that_race_the_start(self, clock: VirtualClock) -> None:
        """1(a): eight of a pool of eight, 300 times: nobody is told that it is full."""
        for _ in range(300):
            pool: gpool.Pool[Any] = gpool.Pool(Echo, size=8)
            clients = [Client(pool.checkout, timeout=1.0) for _ in range(7)]
            clients.append(Client(pool.start))
            clients.append(Client(pool.checkout, timeout=1.0))
            settle()
            assert [client.error for client in clients] == [None] * 9
            assert pool.stats().epoch == 1
            pool.stop()

    def test_removed_at_its_release(self, clock: VirtualClock, maker: Maker) -> None:
        """With b, c and d in the queue: they are served b, c, d, each by a new one."""
        pool = running(maker.resource(), size=1)
        served: list[str] = []

        def remove(name: str) -> None:
            lease = pool.checkout(timeout=None)
            served.append(name)
            gevent.sleep(0)
            lease.discard()

        clients = [Client(remove, name) for name in "abcd"]
        settle()
        assert served == list("abcd")
        assert all(client.done and client.error is None for client in clients)
        assert len(maker.made) == 5
        assert_whole(pool, maker)

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

    def test_a_lone_waiter_behind_a_slow_holder(
        self, clock: VirtualClock, pool: gpool.Pool[Any]
    ) -> None:
        """Nobody but its own deadline drops it, as CoDel did after 404 ms of an interval of 200."""
        holder, waiter = Holder(pool), Holder(pool, timeout=10.0)
        clock.advance(9.9)
        assert not waiter.done
        holder.let_go()
        assert waiter.thing is not None


class TestMore:
    """What the same pools make one look at."""

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

    def test_what_comes_back_while_the_manager_is_suspended(self, pool: gpool.Pool[Any]) -> None:
        """Rule 2: a checkin is always recorded."""
        lease = pool.checkout()
        gpool.sys.suspend(man(pool))
        lease.checkin()
        assert pool.status().idle == 1
        gpool.sys.resume(man(pool))
        pool.checkout(timeout=0).checkin()

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
