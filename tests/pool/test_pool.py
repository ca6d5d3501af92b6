"""What users do with a Pool, and what they may not do."""

from __future__ import annotations

import gc
import weakref
from dataclasses import astuple
from typing import Any

import gevent
import greenlet
import pytest

import gpool
from gpool import telemetry
from gpool.pool.application import application
from gpool.pool.housekeeper import SWEEP
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import (
    IS_PURE,
    Client,
    Echo,
    Holder,
    Maker,
    assert_whole,
    books,
    check,
    clients_of,
)


@pytest.fixture
def pool(clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
    """A pool of two, running."""
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2, name="db")
    pool.start()
    settle()
    return pool


class TestInit:
    def test_does_nothing(self, maker: Maker) -> None:
        """At import a pool makes no hub, no greenlet, no process."""
        before = gpool.processes()
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource())
        assert pool.status() == gpool.Status("stopped", 0, 0, 0)
        assert (pool.stats().phase, pool.holders(), pool.healthy()) == ("stopped", [], False)
        assert gpool.processes() == before
        assert maker.made == []

    @pytest.mark.parametrize(
        ("arguments", "error", "words"),
        [
            (
                {"sise": 3},
                TypeError,
                r"options: expected some of \[.*'size'.*\], got 'sise' \(did you mean 'size'\?\)",
            ),
            ({"size": -1}, ValueError, r"size: expected 0 or more, got -1"),
            ({"size": None}, TypeError, r"size: expected a whole number, got None"),
            ({"size": 0}, ValueError, r"size: expected at least 1, or max_overflow > 0, got 0"),
            ({"name": ""}, TypeError, r"name: expected a text that is not empty, got ''"),
            ({"name": 3}, TypeError, r"name: expected a text that is not empty, got 3"),
        ],
    )
    def test_refuses_bad_options(
        self, maker: Maker, arguments: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        """Bad input: expected and got, and nothing was started."""
        before = gpool.processes()
        with pytest.raises(error, match=words):
            gpool.Pool(maker.resource(), **arguments)
        assert gpool.processes() == before

    @pytest.mark.parametrize(
        ("args", "kwargs", "words"),
        [
            ([1], None, "args: expected a tuple"),
            ((), [1], "kwargs: expected a mapping"),
        ],
    )
    def test_refuses_bad_arguments(self, args: Any, kwargs: Any, words: str) -> None:
        """Those of the workers are a tuple and a mapping."""
        with pytest.raises(TypeError, match=words):
            gpool.Pool(Echo, args, kwargs)

    def test_names_itself(self, maker: Maker) -> None:
        """Without a name it gets one that nobody else has."""
        first, second = gpool.Pool(maker.resource()), gpool.Pool(maker.resource())
        assert first.name != second.name
        assert first.name in repr(first)


class TestStart:
    def test_twice_is_fine(self, pool: gpool.Pool[Any]) -> None:
        """It runs already."""
        assert pool.start() is pool
        assert pool.stats().epoch == 1

    def test_does_not_fail_because_of_a_worker(self, clock: VirtualClock, maker: Maker) -> None:
        """Part 2: starts that fail are weather."""
        maker.creates.extend([OSError("down")] * 3)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        pool.start()
        settle()
        assert pool.healthy()
        assert pool.stats().start_failures == 1

    def test_of_a_name_that_is_taken(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Refused, and the other pool does not notice."""
        with pytest.raises(gpool.NameTaken, match="'db' is taken"):
            gpool.Pool(maker.resource(), name="db").start()
        assert_whole(pool, maker)

    def test_a_starter_that_is_killed_does_not_stop_it(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Part 2: the start is nobody's own."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        starter = gpool.spawn(pool.start)
        gevent.sleep(0)
        gpool.exit(starter, "kill")
        settle()
        assert pool.healthy()
        assert_whole(pool, maker)

    def test_racing_first_users(self, clock: VirtualClock, maker: Maker) -> None:
        """1(a): all are served within their deadlines, by one pool, and nobody is refused."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2)

        def use() -> None:
            with pool.checkout(timeout=1.0) as thing, thing.used():
                gevent.sleep(0)

        clients = [Client(use) for _ in range(20)]
        settle()
        assert all(client.done and client.error is None for client in clients)
        assert (len(maker.made), pool.stats().epoch) == (2, 1)

    def test_again_after_a_stop(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """A stopped pool may start again, as often as you like."""
        for _ in range(3):
            pool.stop()
            assert (pool.status().state, maker.open) == ("stopped", 0)
            with pytest.raises(gpool.PoolClosed, match=r"'db' is closed; start\(\) opens it"):
                pool.checkout()
            pool.start()
            assert_whole(pool, maker)

    def test_no_manager_in_time(self, clock: VirtualClock, maker: Maker) -> None:
        """It is told, and goes on."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        with pytest.raises(gpool.PoolNotReady, match=r"0 of 1 workers up after 0 s"):
            pool.start(timeout=0)
        settle()
        assert pool.healthy()

    @pytest.mark.parametrize("timeout", [-1, "1", True])
    def test_refuses_bad_timeouts(self, maker: Maker, timeout: Any) -> None:
        """Bad input: nothing was started."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource())
        for method in (pool.start, pool.wait_ready, pool.drain, pool.stop):
            with pytest.raises((TypeError, ValueError), match="timeout: expected seconds"):
                method(timeout=timeout)
        with pytest.raises((TypeError, ValueError), match="timeout: expected seconds"):
            pool.checkout(timeout=timeout)
        assert application.root is None

    @pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True, object()])
    def test_refuses_a_bad_timeout_of_a_checkout_that_need_not_wait(
        self, maker: Maker, timeout: Any
    ) -> None:
        """It would be found out on the day on which it has to."""
        with gpool.Pool(maker.resource(), size=1) as pool:
            pool.wait_ready()
            with pytest.raises((TypeError, ValueError), match="timeout: expected seconds"):
                pool.checkout(timeout)
            assert pool.stats().idle == 1

    def test_as_soon_as_the_first_pool_lends(self, maker: Maker) -> None:
        """The Application has not quite started then: the second one is not forgotten."""
        first: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        second: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        gevent.spawn(first.checkout).join()
        assert second.start(timeout=1.0).healthy()

    def test_by_one_whose_exit_was_accepted(self, clock: VirtualClock, maker: Maker) -> None:
        """It starts nothing, and the name stays free for the next one."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, name="db")

        def first_user() -> None:
            gevent.sleep(0)
            pool.checkout()

        doomed = gpool.spawn(first_user)
        gevent.sleep(0)
        gpool.exit(doomed, "bye")  # when it runs next it does not know yet
        settle()
        assert not gpool.is_alive(doomed)
        assert pool.start().healthy()


class TestWaitReady:
    def test_until_all_are_up(self, clock: VirtualClock, maker: Maker) -> None:
        """Not one less than `size`."""
        gate = Gate()
        maker.creates.append(gate.wait)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2)
        client = Client(pool.wait_ready, None)
        settle()
        assert not client.done
        gate.open()
        settle()
        assert client.done
        pool.wait_ready(timeout=0)

    def test_waits_again_after_a_fall(self, clock: VirtualClock, maker: Maker) -> None:
        """What the manager before had up is not what this one has."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2)
        pool.wait_ready()
        gpool.exit(pool._ledger.man.pid, "kill")
        with pytest.raises(gpool.PoolNotReady):
            pool.wait_ready(timeout=0)
        pool.wait_ready()
        assert pool.status().idle == 2

    def test_raises_with_the_last_failure_as_its_cause(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Part 2: the error says how many are up, the cause why not all."""
        maker.creates.extend([OSError("no route")] * 100)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2, name="far")
        client = Client(pool.wait_ready, 1.0)
        clock.advance(1.0)
        assert isinstance(client.error, gpool.PoolNotReady)
        assert str(client.error).startswith("pool 'far': 0 of 2 workers up after 1 s")
        assert isinstance(client.error.__cause__, OSError)

    @pytest.mark.parametrize("options", [{"lazy": True}, {"size": 0, "max_overflow": 1}])
    def test_of_a_pool_without_workers(
        self, clock: VirtualClock, maker: Maker, options: dict[str, Any]
    ) -> None:
        """Its manager is all that there is to wait for."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), **options)
        pool.wait_ready()
        assert maker.made == []

    def test_of_a_closed_pool(self, pool: gpool.Pool[Any]) -> None:
        """It does not wait for what does not come."""
        pool.stop()
        with pytest.raises(gpool.PoolClosed):
            pool.wait_ready()


class TestCheckout:
    def test_starts_the_pool(self, clock: VirtualClock, maker: Maker) -> None:
        """At its first use, within the caller's deadline."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        with pool.checkout() as thing:
            assert thing is maker.made[0]

    @pytest.mark.parametrize("strategy", ["lifo", "fifo"])
    @pytest.mark.parametrize("dead", [(2,), (3, 1), (1, 2, 3), (0, 2, 4)])
    def test_when_idle_workers_have_just_died(
        self, clock: VirtualClock, maker: Maker, strategy: Any, dead: tuple[int, ...]
    ) -> None:
        """The others are lent, each once; those that died leave no gap and no ghost."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=5, strategy=strategy)
        pool.start()
        settle()
        pool.checkout().checkin()
        idle = books(pool).idle.all()
        for number in dead:
            gpool.exit(idle[number].pid, "kill")
            check(pool)
        leases = []
        for _ in range(5 - len(dead)):
            leases.append(pool.checkout(timeout=0))
            check(pool)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        assert {lease.slot for lease in leases} == set(idle) - {idle[number] for number in dead}
        for lease in leases:
            lease.checkin()
        del leases, lease
        assert_whole(pool, maker)

    def test_gives_up_at_its_timeout_and_not_before(
        self, clock: VirtualClock, pool: gpool.Pool[Any]
    ) -> None:
        """The error names the pool, the counts and the oldest holder with its line."""
        holder = Holder(pool)
        clock.advance(3.0)
        Holder(pool)
        client = Client(pool.checkout)
        clock.advance(4.9)
        assert not client.done
        clock.advance(0.1)
        error = client.error
        assert isinstance(error, gpool.CheckoutTimeout)
        assert (error.pool, error.timeout, error.busy, error.waiting) == ("db", 5.0, 2, 0)
        assert error.oldest.pid is holder.pid
        assert "for 8 s, from" in str(error)
        assert "workshop.py:" in str(error)

    def test_names_the_last_start_failure(self, clock: VirtualClock, maker: Maker) -> None:
        """Part 2: as the cause, while starts fail."""
        maker.creates.extend([OSError("no route")] * 100)
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        client = Client(pool.checkout, timeout=1.0)
        clock.advance(1.0)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        assert isinstance(client.error.__cause__, OSError)

    def test_the_pools_own_timeout(self, clock: VirtualClock, maker: Maker) -> None:
        """Used if none is given; None waits for ever, 0 never."""
        for own, given, ends in [(1.0, ..., True), (1.0, None, False), (None, ..., False)]:
            pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, timeout=own)
            lease = pool.checkout(timeout=None)
            client = Client(pool.checkout, **({} if given is ... else {"timeout": given}))
            clock.advance(1000.0)
            assert client.done is ends
            lease.checkin()
        pool = gpool.Pool(maker.resource(), size=1, timeout=0)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout()

    def test_one_deadline_for_all_of_it(self, clock: VirtualClock, maker: Maker) -> None:
        """Rule 8: the start of the pool, of a worker, and its retries together."""
        maker.creates.extend([OSError("down"), Gate().wait])
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        client = Client(pool.checkout, timeout=2.0)
        clock.advance(1.99)
        assert not client.done
        clock.advance(0.01)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        assert client.error.starting == 1

    @pytest.mark.parametrize("limit", [0, 1, 2])
    def test_max_waiting(self, clock: VirtualClock, maker: Maker, limit: int) -> None:
        """Nobody else is let into the queue; the error says why, at once."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, max_waiting=limit)
        pool.start()
        settle()
        lease = pool.checkout()
        waiters = [Holder(pool) for _ in range(limit)]
        what = f"{limit} clients wait already" if limit else "nobody may wait"
        with pytest.raises(gpool.PoolFull, match=f"{what}, for 1 workers"):
            pool.checkout()
        assert pool.stats().refused == 1
        lease.checkin()
        assert all(waiter.thing is None for waiter in waiters[1:])

    def test_is_a_new_lease_each_time(self, pool: gpool.Pool[Any]) -> None:
        """Part 2: no two leases are the same object, nor have the same number."""
        first = pool.checkout()
        first.checkin()
        second = pool.checkout()
        assert first is not second
        assert first.number != second.number

    def test_in_a_finally_block_of_a_dying_process(self, pool: gpool.Pool[Any]) -> None:
        """A process that unwinds may still use the pool to clean up."""
        used: list[Any] = []

        def client() -> None:
            try:
                gpool.receive()
            finally:
                with pool.checkout() as thing:
                    used.append(thing)

        pid = gpool.spawn(client)
        settle()
        gpool.exit(pid, "boom")
        settle()
        assert len(used) == 1
        check(pool)

    def test_in_the_hub(self, pool: gpool.Pool[Any]) -> None:
        """A callback of the loop may take what is idle, but cannot wait."""
        seen: list[Any] = []

        def callback() -> None:
            with pool.checkout() as thing:
                seen.append(thing)
            leases = [pool.checkout(), pool.checkout()]
            try:
                pool.checkout()
            except BaseException as error:  # noqa: BLE001  # gevent's own AssertionError
                seen.append(type(error).__name__)
            for lease in leases:
                lease.checkin()

        gevent.get_hub().loop.run_callback(callback)
        settle()
        assert seen[1:] == ["BlockingSwitchOutError"]
        assert_whole(pool)


class TestCheckin:
    def test_gives_back(self, pool: gpool.Pool[Any]) -> None:
        """As the lease's own."""
        lease = pool.checkout()
        pool.checkin(lease)
        assert pool.status().busy == 0

    def test_of_another_pools_lease(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """5-7: misuse is told to the caller, and disturbs nobody."""
        other: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, name="other")
        lease = other.checkout()
        with pytest.raises(ValueError, match="lease: expected one of pool 'db', got <Lease of 'ot"):
            pool.checkin(lease)
        with pytest.raises(TypeError, match="lease: expected a Lease, got 3"):
            pool.checkin(3)  # type: ignore[arg-type]
        assert lease.worker is not None


class TestTransaction:
    def test_returns_what_the_function_returns(self, pool: gpool.Pool[Any]) -> None:
        """And the worker comes back."""
        assert pool.transaction(lambda thing: thing.number) in (1, 2)
        assert pool.status().busy == 0

    def test_is_held_from_the_callers_line(self, pool: gpool.Pool[Any]) -> None:
        """Not from one of gpool's own."""
        [holder] = pool.transaction(lambda thing: pool.holders())
        assert holder.line.endswith("in TestTransaction.test_is_held_from_the_callers_line")

    def test_refuses_what_cannot_be_called(self, pool: gpool.Pool[Any]) -> None:
        """Before anything is borrowed."""
        with pytest.raises(TypeError, match="fn: expected a callable, got 3"):
            pool.transaction(3)  # type: ignore[arg-type]


class TestDrain:
    def test_of_an_idle_pool(self, pool: gpool.Pool[Any]) -> None:
        """Nothing to wait for; nobody is let in any more."""
        assert pool.drain() is True
        with pytest.raises(gpool.PoolClosed):
            pool.checkout()
        assert gpool.Pool(Echo).drain() is True  # never started

    def test_serves_those_who_wait(self, pool: gpool.Pool[Any]) -> None:
        """Those who came before it, each in turn."""
        holders = [Holder(pool) for _ in range(4)]
        drained = Client(pool.drain)
        settle()
        for holder in holders:
            assert not drained.done
            assert holder.thing is not None
            holder.let_go()
        assert drained.value is True

    @pytest.mark.parametrize("end", ["kill", "cut"])
    def test_a_holder_or_waiter_that_dies(self, pool: gpool.Pool[Any], end: str) -> None:
        """What it had is back, too."""
        holders = [Holder(pool) for _ in range(3)]
        drained = Client(pool.drain)
        settle()
        for holder in holders:
            getattr(holder, end)()
            settle()
        assert drained.value is True

    def test_a_manager_that_dies_meanwhile(self, pool: gpool.Pool[Any]) -> None:
        """The waiters are served by the next one, then it is over."""
        holders = [Holder(pool) for _ in range(3)]
        drained = Client(pool.drain)
        settle()
        assert pool._ledger is not None
        assert pool._ledger.man is not None
        gpool.exit(pool._ledger.man.pid, "kill")
        settle()
        assert not drained.done
        for holder in holders:
            holder.let_go()
        assert holders[2].thing is not None
        assert drained.value is True

    def test_not_in_time(self, clock: VirtualClock, pool: gpool.Pool[Any]) -> None:
        """It says so; it may be called again."""
        holder = Holder(pool)
        drained = Client(pool.drain, 2.0)
        clock.advance(2.0)
        assert drained.value is False
        holder.let_go()
        assert pool.drain() is True


class TestStop:
    def test_ends_the_tree(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Everything of the pool is gone, the Application stays."""
        ledger: Any = pool._ledger
        tree = [ledger.sup, ledger.man.pid, ledger.worker_sup, *[s.pid for s in ledger.slots]]
        pool.stop()
        assert [pid.state for pid in tree] == ["dead"] * len(tree)
        assert [pid.reason for pid in tree] == ["shutdown"] * len(tree)
        assert maker.open == 0
        assert application.root is not None

    def test_twice_and_never_started(self, pool: gpool.Pool[Any]) -> None:
        """Both are fine."""
        pool.stop()
        pool.stop()
        gpool.Pool(Echo).stop()

    def test_while_the_application_boots(self, clock: VirtualClock, maker: Maker) -> None:
        """What had begun ends at once."""
        for turns in range(1, 12):
            pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2, name=f"early-{turns}")
            Client(pool.start, None)
            for _ in range(turns):
                gevent.sleep(0)
            pool.stop()
            settle()
            assert maker.open == 0
            names = [gpool.process_info(pid).initial_call for pid in gpool.processes()]
            assert "PoolMan" not in names
            assert "WorkerSup" not in names
            application.stop()

    def test_during_a_restart(self, clock: VirtualClock, maker: Maker) -> None:
        """Whatever is being mended ends."""
        for turns in range(25):
            pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=2, name="mended")
            pool.start()
            settle()
            assert pool._ledger is not None
            assert pool._ledger.man is not None
            gpool.exit(pool._ledger.man.pid, "kill")
            for _ in range(turns):
                gevent.sleep(0)
            pool.stop()
            assert maker.open == 0
            assert not application.ledgers

    def test_of_a_failed_pool(self, clock: VirtualClock, maker: Maker) -> None:
        """It is not revived."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, max_restarts=0)
        pool.start()
        settle()
        assert pool._ledger is not None
        assert pool._ledger.man is not None
        gpool.exit(pool._ledger.man.pid, "kill")
        settle()
        assert pool.status().state == "failed"
        pool.stop()
        clock.advance(60.0)
        assert (pool.status().state, maker.open) == ("stopped", 0)

    def test_of_one_that_has_just_fallen_too_often(self, clock: VirtualClock, maker: Maker) -> None:
        """Its supervisor learns of the fall first, then of the stop: it is stopped all the same."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, max_restarts=0)
        pool.start()
        settle()
        gpool.exit(pool._ledger.man.pid, "kill")  # type: ignore[union-attr]
        stopper = Client(pool.stop)  # comes when the manager is dead
        settle()
        assert (stopper.done, stopper.error, pool.stats().phase) == (True, None, "stopped")
        assert pool.start().healthy()

    def test_by_two_at_once(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Both return when it is over, not before."""
        gate = Gate()
        maker.closes.append(gate.wait)
        clients = [Client(pool.stop), Client(pool.stop)]
        settle()
        assert [client.done for client in clients] == [False, False]
        gate.open()
        settle()
        assert [client.done for client in clients] == [True, True]

    def test_killed_midway_and_again(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """It goes on, and the second one waits for it."""
        gate = Gate()
        maker.closes.append(gate.wait)
        first = Client(pool.stop)
        settle()
        first.kill()
        settle()
        second = Client(pool.stop)
        settle()
        assert not second.done
        gate.open()
        settle()
        assert second.done
        assert maker.open == 0

    def test_killed_midway_then_started(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """The new run begins when the old tree is gone."""
        gate = Gate()
        maker.closes.append(gate.wait)
        first = Client(pool.stop)
        settle()
        first.kill()
        settle()
        holder = Holder(pool)
        assert isinstance(holder.error, gpool.PoolClosed)
        starter = Client(pool.start)
        settle()
        assert not starter.done
        gate.open()
        settle()
        assert starter.done
        assert_whole(pool, maker)
        assert maker.peak == 2

    def test_within_a_worker(self, clock: VirtualClock) -> None:
        """A server may stop its own pool; it dies of it."""
        pools: list[gpool.Pool[Any]] = []

        class Suicidal(gpool.GenServer):
            @gpool.cast
            def end(self) -> None:
                """Stop the pool that it belongs to."""
                pools[0].stop()

        pools.append(gpool.Pool(Suicidal, size=2))
        with pools[0].checkout() as worker:
            worker.end()
        settle()
        assert pools[0].status().state == "stopped"
        assert not gpool.is_alive(worker)

    def test_by_a_holder(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Its thing stays open until it lets go; later is a no-op."""
        lease = pool.checkout()
        stopper = Client(pool.stop)
        settle()
        assert not maker.made[1].closed
        assert stopper.done
        lease.checkin()
        settle()
        assert maker.open == 0

    def test_closes_that_hang(self, clock: VirtualClock) -> None:
        """It is over at its timeout, with all processes dead."""
        hanging = Maker()
        hanging.closes.extend([Gate().wait] * 9)
        sick: gpool.Pool[Any] = gpool.Pool(hanging.resource(), size=2, shutdown=None)
        sick.start()
        settle()
        ledger: Any = sick._ledger
        tree = [ledger.sup, ledger.man.pid, ledger.worker_sup]
        stopper = Client(sick.stop, 3.0)
        clock.advance(2.9)
        assert not stopper.done
        clock.advance(0.2)
        assert stopper.done
        assert [pid.state for pid in tree] == ["dead"] * 3

    def test_leaves_no_client_behind(self, clock: VirtualClock, maker: Maker) -> None:
        """A client that outlives many runs keeps none of them."""
        me = gpool.self()
        ledgers = []
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        for _ in range(3):
            pool.start()
            pool.checkout().checkin()
            ledgers.append(weakref.ref(pool._ledger))  # type: ignore[arg-type]
            pool.stop()
        assert not clients_of(me)
        settle()
        gc.collect()
        assert [ledger() is None for ledger in ledgers] == [True, True, False]

    def test_tells_of_the_end_of_its_workers(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """All that happens until it returns, and then, of what was still lent, the rest."""
        holder = Holder(pool)
        seen: list[Any] = []
        telemetry.attach(seen.append)
        pool.stop()
        kinds = [type(event) for event in seen]
        assert kinds.count(telemetry.WorkerStopping) == 2
        assert kinds.count(telemetry.WorkerDied) == 2
        assert kinds[-1] is telemetry.PoolStopped
        holder.let_go()
        telemetry.detach(seen.append)
        assert [type(event) for event in seen[len(kinds) :]] == [telemetry.ResourceClosed]


class TestWith:
    def test_drains_then_stops(self, clock: VirtualClock, maker: Maker) -> None:
        """Leaving waits five seconds for those who still hold a worker."""
        holders: list[Holder] = []

        def run() -> None:
            with gpool.Pool(maker.resource(), size=1, name="scoped") as pool:
                holders.append(Holder(pool))

        client = Client(run)
        settle()
        clock.advance(4.0)
        assert not client.done
        holders[0].let_go()
        assert client.done
        assert maker.open == 0

    def test_stops_all_the_same(self, clock: VirtualClock, maker: Maker) -> None:
        """After those five seconds."""

        def run() -> None:
            with gpool.Pool(maker.resource(), size=1, name="scoped") as pool:
                Holder(pool)

        client = Client(run)
        settle()
        clock.advance(5.0)
        assert client.done
        with pytest.raises(gpool.UnknownPool):
            gpool.get_pool("scoped")


class TestLooking:
    def test_stats(self, clock: VirtualClock, pool: gpool.Pool[Any]) -> None:
        """All of one moment, and frozen."""
        holders = [Holder(pool), Holder(pool)]
        waiter = Holder(pool)
        stats = pool.stats()
        assert (stats.busy, stats.idle, stats.waiting, stats.epoch) == (2, 0, 1, 1)
        assert (stats.name, stats.phase, stats.size) == ("db", "up", 2)
        with pytest.raises(AttributeError):
            stats.busy = 0  # type: ignore[misc]
        for holder in [*holders, waiter]:
            holder.let_go()

    def test_nobody_waits_while_one_is_idle(self, pool: gpool.Pool[Any]) -> None:
        """Whoever was granted a worker counts among those who hold one, and only there."""
        first, second = pool.checkout(), pool.checkout()
        waiter = Client(pool.checkout)
        settle()
        first.checkin()
        second.checkin()
        stats = pool.stats()
        assert (stats.busy, stats.idle, stats.waiting, stats.oldest_wait) == (1, 1, 0, 0.0)
        settle()
        assert waiter.done

    def test_holders(self, clock: VirtualClock, pool: gpool.Pool[Any]) -> None:
        """Who, what, for how long, since which line."""
        lease = pool.checkout()
        clock.advance(2.0)
        [holder] = pool.holders()
        assert (holder.pid, holder.worker, holder.age) == (gpool.self(), lease.worker, 2.0)
        assert holder.line.endswith("in TestLooking.test_holders")

    def test_those_who_hold_for_longest(self, clock: VirtualClock, pool: gpool.Pool[Any]) -> None:
        """Some of many: the oldest lease comes first, whatever its slot."""
        pool.resize(3)
        settle()
        leases = []
        for _ in range(3):
            leases.append(pool.checkout())
            clock.advance(1.0)
        assert [holder.age for holder in pool.holders(longest=2)] == [3.0, 2.0]
        leases.pop(0).checkin()
        leases.append(pool.checkout())
        assert [holder.age for holder in pool.holders(longest=9)] == [2.0, 1.0, 0.0]

    def test_holders_tell_the_process_of_a_worker(
        self, clock: VirtualClock, pool: gpool.Pool[Any]
    ) -> None:
        """That which owns the resource: a child of WorkerSup."""
        with pool.checkout():
            [holder] = pool.holders()
            assert holder.process is not None
            assert gpool.supervisor_of(holder.process) is pool.tree().worker_sup

    def test_waiters(self, clock: VirtualClock, pool: gpool.Pool[Any]) -> None:
        """Who waits, for how long, how long yet, at which line; the next one first."""
        with pool.checkout(), pool.checkout():
            one = gpool.spawn(lambda: pool.checkout(9.0))
            other = gpool.spawn(lambda: pool.checkout(None))
            settle()
            job = pool.cast(lambda thing: None)
            clock.advance(2.0)
            first, second, third = pool.waiters()
            assert [w.pid for w in (first, second, third)] == [one, other, job]
            assert (first.waited, first.left, second.left) == (2.0, 7.0, None)
            assert first.line.endswith("in TestLooking.test_waiters.<locals>.<lambda>")
            assert third.line.endswith("in TestLooking.test_waiters")  # where it was cast
            assert pool.waiters(first=1) == [first]
        settle()
        assert pool.waiters() == []

    def test_manager_is_seen_to_monitor(self, clock: VirtualClock, pool: gpool.Pool[Any]) -> None:
        """Workers and clients, each of whom shows that it is monitored by PoolMan."""
        with pool.checkout():
            man, worker_sup = pool.tree().pool_man, pool.tree().worker_sup
            supervision = gpool.supervision(worker_sup)
            assert supervision is not None
            expected = [gpool.self(), *(child.pid for child in supervision.children)]
            assert list(gpool.process_info(man).monitors) == expected
            for pid in expected:
                assert gpool.process_info(pid).monitored_by == (man,)

    def test_tree(self, clock: VirtualClock, pool: gpool.Pool[Any]) -> None:
        """Which processes run it; those that are restarted are others, stopped there are none."""
        before = pool.tree()
        calls = [gpool.process_info(pid, "initial_call") for pid in astuple(before)]
        assert calls == ["PoolSup", "PoolMan", "WorkerSup"]
        gpool.exit(before.pool_man, "kill")
        assert pool.tree().pool_man is None
        settle()
        after = pool.tree()
        assert after.pool_sup is before.pool_sup
        assert after.pool_man not in (None, before.pool_man)
        assert after.worker_sup not in (None, before.worker_sup)
        pool.stop()
        assert astuple(pool.tree()) == (None, None, None)

    def test_between_two_managers(self, pool: gpool.Pool[Any]) -> None:
        """Down, not up and not stopped."""
        assert pool._ledger is not None
        assert pool._ledger.man is not None
        gpool.exit(pool._ledger.man.pid, "kill")
        assert (pool.status().state, pool.stats().phase, pool.healthy()) == ("down", "down", False)
        settle()
        assert pool.healthy()


class TestByName:
    def test_the_facade(self, clock: VirtualClock) -> None:
        """start_pool, get_pool, stop_pool, as the article has them."""
        pool = gpool.start_pool(Echo, name="echoes", size=1)
        assert gpool.get_pool("echoes") is pool
        with gpool.get_pool("echoes").checkout() as echo:
            assert echo.say(3) == 3
        gpool.stop_pool("echoes")
        for look in (gpool.get_pool, gpool.stop_pool):
            with pytest.raises(gpool.UnknownPool, match="no pool 'echoes' is running"):
                look("echoes")

    def test_a_name_that_is_taken(self, clock: VirtualClock) -> None:
        """The second one is refused."""
        gpool.start_pool(Echo, name="echoes")
        with pytest.raises(gpool.NameTaken):
            gpool.start_pool(Echo, name="echoes")


class TestFailed:
    def fell(self, pool: gpool.Pool[Any]) -> None:
        """Have its manager die once."""
        ledger: Any = pool._ledger
        gpool.exit(ledger.man.pid, "kill")
        settle()

    def test_fails_its_waiters_at_once(self, clock: VirtualClock, maker: Maker) -> None:
        """With the reason; and it stays visible as failed, until it is revived."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, name="weak", max_restarts=1)
        holder = Holder(pool)
        waiter = Holder(pool)
        self.fell(pool)
        assert pool.healthy()
        self.fell(pool)
        assert isinstance(waiter.error, gpool.PoolFailed)
        assert waiter.error.reason == "killed"
        assert (pool.status().state, pool.healthy()) == ("failed", False)
        with pytest.raises(gpool.PoolFailed, match="'weak' has failed: 'killed'"):
            pool.checkout()
        holder.let_go()
        clock.advance(60.0)
        assert pool.healthy()
        assert_whole(pool, maker)
        assert maker.open == 1

    def test_its_revival_is_not_charged_to_pools_sup(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """However often it falls."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, max_restarts=0)
        pool.start()
        settle()
        pools_sup = application.pools_sup
        for _ in range(10):
            self.fell(pool)
            clock.advance(31.0)
        assert application.pools_sup is pools_sup
        assert_whole(pool, maker)


class TestClients:
    def test_main(self, pool: gpool.Pool[Any]) -> None:
        """The main greenlet is a client like any other, fast path and all."""
        pool.checkout().checkin()
        ledger: Any = pool._ledger
        assert greenlet.getcurrent() in ledger.clients

    def test_a_raw_greenlet(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Its death is noticed when nobody refers to it any more."""
        raw: Any = greenlet.greenlet(lambda: pool.checkout())
        raw.switch()
        assert pool.stats().busy == 1
        del raw
        gc.collect()
        settle()
        assert pool.stats().reclaimed == 1
        assert_whole(pool, maker)

    def test_a_raw_greenlet_that_is_kept(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """It is dead, but somebody refers to it: noticed when a client is about to wait."""
        raws: list[Any] = [greenlet.greenlet(pool.checkout) for _ in range(2)]
        leases = [raw.switch() for raw in raws]
        assert pool.stats().busy == len(leases) == 2
        waiter = Holder(pool)
        assert waiter.thing is not None

    def test_a_plain_greenlet(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """gevent.spawn: its death reclaims at once, whoever keeps it."""
        glet = gevent.spawn(pool.checkout)
        settle()
        assert glet.value is not None
        assert pool.stats().reclaimed == 1
        assert_whole(pool, maker)

    def test_a_dropped_lease(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Rule 13: nobody can ever check it in: reclaimed when somebody waits, dirty."""
        pool.checkout()
        kept = pool.checkout()
        assert pool.stats().busy == 2  # a living owner is not reaped behind its back
        waiter = Holder(pool)
        assert waiter.thing is maker.made[2]
        assert kept.worker is not None
        assert pool.stats().reclaimed == 1

    def test_a_lease_dropped_while_somebody_waits(
        self, clock: VirtualClock, pool: gpool.Pool[Any]
    ) -> None:
        """Rule 13: found within a second, by PoolMan."""
        leases = [pool.checkout(), pool.checkout()]
        waiters = [Holder(pool), Holder(pool)]
        leases.clear()
        settle()
        assert [waiter.thing for waiter in waiters] == [None, None]
        clock.advance(SWEEP)
        assert all(waiter.thing is not None for waiter in waiters)

    def test_one_that_is_granted_but_not_yet_accepted_is_not_dropped(
        self, pool: gpool.Pool[Any]
    ) -> None:
        """Only the books refer to it until its client wakes, here for its second wait."""
        leases = [pool.checkout(), pool.checkout()]
        things: list[Any] = []

        def wait_twice() -> None:
            for _ in range(2):
                with pool.checkout() as thing:
                    things.append(thing)

        client = Client(wait_twice)
        settle()
        leases.pop().checkin()
        leases.append(pool.checkout())  # behind it
        assert len(things) == 1
        leases.pop().checkin()
        ledger: Any = pool._ledger
        ledger.sweep()
        settle()
        assert (len(things), client.error) == (2, None)
        assert pool.stats().reclaimed == 0

    def test_leases_that_are_in_use_are_not_dropped(
        self, pool: gpool.Pool[Any], maker: Maker
    ) -> None:
        """Neither one that a `with` alone refers to, nor one in a suspended generator."""

        def generator() -> Any:
            with pool.checkout() as thing:
                yield thing

        kept = generator()
        next(kept)
        with pool.checkout():
            waiter = Holder(pool)
            assert waiter.thing is None
            assert maker.open == 2
        assert waiter.thing is None
        settle()
        assert waiter.thing is not None
        kept.close()

    def test_a_generator_that_is_never_finished(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Rule 4: its client's death reclaims what its `with` does not give back."""
        generators: list[Any] = []

        def generator() -> Any:
            with pool.checkout() as thing:
                yield thing

        def client() -> None:
            generators.append(generator())
            next(generators[0])

        Client(client)
        settle()
        assert pool.stats().reclaimed == 1
        assert_whole(pool)

    def test_one_whose_exit_was_accepted(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """It runs on to its next primitive: a checkout is one, on the fast path too."""
        used: list[Any] = []

        def client() -> None:
            pool.checkout().checkin()
            gevent.sleep(0)
            used.append(pool.checkout())

        pid = gpool.spawn(client)
        gevent.sleep(0)
        gpool.exit(pid, "kill")  # its wake-up is queued already
        settle()
        assert used == []
        assert (pool.stats().reclaimed, len(maker.made)) == (0, 2)

    def test_one_that_holds_and_waits(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Killed while it does: both are taken back."""

        def greedy() -> None:
            _leases = [pool.checkout() for _ in range(3)]

        client = Client(greedy)
        settle()
        assert (pool.stats().busy, pool.stats().waiting) == (2, 1)
        client.kill()
        settle()
        assert_whole(pool, maker)

    @pytest.mark.parametrize("swallow", [gevent.GreenletExit, BaseException])
    def test_one_that_swallows_its_exit(
        self, clock: VirtualClock, pool: gpool.Pool[Any], swallow: type[BaseException], maker: Maker
    ) -> None:
        """Rule 11: declared dead, its leases reclaimed, and the pool refuses it."""
        refusals: list[Any] = []

        def stubborn() -> None:
            lease = pool.checkout()
            for _ in range(12):
                try:
                    gevent.sleep(0)
                    Gate().wait()
                except swallow:
                    continue
            try:
                lease.checkin()
                pool.checkout()
            except gevent.GreenletExit as error:
                refusals.append(error)

        client = Client(stubborn)
        settle()
        client.kill()
        settle()
        clock.advance(30.0)
        assert pool.stats().reclaimed == 1
        assert_whole(pool, maker)

    @pytest.mark.skipif(IS_PURE, reason="gevent's own Python code makes one")
    def test_one_that_is_cut_down_leaves_no_cycle(self, pool: gpool.Pool[Any], quiet: None) -> None:
        """A server has a greenlet for each request: none is left to the garbage collector."""
        holders = [Holder(pool), Holder(pool)]
        gc.collect()
        gc.disable()
        try:
            one = gevent.spawn(pool.checkout)
            settle()
            one.kill()
            settle()
            alive = weakref.ref(one)
            del one
            assert alive() is None
        finally:
            gc.enable()
        for holder in holders:
            holder.let_go()

    @pytest.mark.skipif(IS_PURE, reason="gevent is Python code")
    def test_a_checkout_that_no_python_code_has_called(self, pool: gpool.Pool[Any]) -> None:
        """Its lease tells a line all the same, and nothing keeps it when it is dropped."""
        gc.collect()
        gc.disable()
        try:
            one = gevent.spawn(pool.checkout)
            settle()
            assert one.value.line.endswith("in Pool.checkout")
            del one
            left = [lease for lease in gc.get_objects() if type(lease) is gpool.Lease]
            assert not [lease for lease in left if lease.ledger is pool._ledger]
        finally:
            gc.enable()


class TestCost:
    def test_a_waiter_takes_one_timer(self, clock: VirtualClock, pool: gpool.Pool[Any]) -> None:
        """Rule 2: timers exist only for those who wait (one more for all), and go with them."""
        assert clock.next_due() is None
        holders = [Holder(pool), Holder(pool)]
        waiter = Holder(pool, timeout=7.0)
        assert clock.next_due() == SWEEP
        clock.advance(5.5)
        assert clock.next_due() == SWEEP / 2
        clock.advance(1.0)
        assert clock.next_due() == 0.5  # its own
        holders[0].let_go()
        assert waiter.thing is not None
        clock.advance(SWEEP)
        assert clock.next_due() is None
        assert books(pool).busy == 2
