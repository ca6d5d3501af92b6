"""The life of a pool: closed, drained, stopped, resized, suspended, at the worst moments."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
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
    check,
    fall,
    no_switch,
    pids,
    running,
    use,
)

TREE = ["man", "worker_sup"]


class TestClose:
    def test_lets_nobody_in(self, clock: VirtualClock, maker: Maker) -> None:
        """Those who hold or wait go on; twice is fine; nothing switches."""
        pool = running(maker.resource(), size=1)
        holder, waiter = Holder(pool), Holder(pool)
        with no_switch():
            pool.close()
            pool.close()
        with pytest.raises(gpool.PoolClosed):
            pool.checkout()
        holder.let_go()
        assert waiter.thing is maker.made[0]
        waiter.let_go()
        assert (pool.stats().phase, pool.stats().idle) == ("draining", 1)

    def test_fails_those_who_wait(self, clock: VirtualClock, maker: Maker) -> None:
        """By choice; those who hold go on."""
        pool = running(maker.resource(), size=1)
        holder, waiter = Holder(pool), Holder(pool)
        pool.close(waiters="fail")
        settle()
        assert isinstance(waiter.error, gpool.PoolClosed)
        holder.let_go()
        assert holder.value is maker.made[0]
        check(pool)

    def test_after_all_fails_those_who_are_still_there(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """First "serve", then "fail"."""
        pool = running(maker.resource(), size=1)
        _holder, waiter = Holder(pool), Holder(pool)
        pool.close()
        pool.close(waiters="fail")
        settle()
        assert isinstance(waiter.error, gpool.PoolClosed)

    def test_tells_those_who_wait_for_it_to_be_ready(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """What is missing is not started any more."""
        maker.creates.append(Gate().wait)
        pool = running(maker.resource(), size=2, max_starting=1)
        client = Client(pool.wait_ready, None)
        settle()
        pool.close()
        settle()
        assert isinstance(client.error, gpool.PoolClosed)

    def test_refuses_other_words(self, maker: Maker) -> None:
        """Bad input: expected and got."""
        with pytest.raises(ValueError, match="waiters: expected 'serve' or 'fail', got 'drop'"):
            gpool.Pool(maker.resource()).close(waiters="drop")  # type: ignore[arg-type]

    def test_replaces_nobody_for_nobody(self, clock: VirtualClock, maker: Maker) -> None:
        """What goes is missed only by those who still wait."""
        pool = running(maker.resource(), size=2)
        holders = [Holder(pool) for _ in range(3)]
        pool.close()
        for holder in holders[:2]:
            holder.kill()
        settle()
        assert holders[2].thing is maker.made[2]
        assert pool.stats().accounted == 1
        holders[2].kill()
        settle()
        assert (pool.stats().accounted, maker.open) == (0, 0)

    @pytest.mark.parametrize("who", TREE)
    def test_stays_closed_when_it_falls(self, clock: VirtualClock, maker: Maker, who: str) -> None:
        """Those who wait are served by the next manager, and it starts nobody else."""
        pool = running(maker.resource(), size=2)
        holders = [Holder(pool) for _ in range(3)]
        pool.close()
        fall(pool, who)
        with pytest.raises(gpool.PoolClosed):
            pool.checkout()
        for holder in holders:
            holder.let_go()
        assert holders[2].thing is not None
        assert len(maker.made) == 3
        check(pool)

    def test_stays_closed_when_it_fails_and_is_revived(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Closed is closed, before and after."""
        pool = running(maker.resource(), size=1, max_restarts=0)
        pool.close()
        fall(pool)
        assert pool.stats().phase == "failed"
        clock.advance(60.0)
        assert pool.stats().phase == "draining"
        with pytest.raises(gpool.PoolClosed):
            pool.checkout()
        pool.start()
        assert_whole(pool, maker)

    def test_of_one_that_has_failed(self, clock: VirtualClock, maker: Maker) -> None:
        """It is revived, closed."""
        pool = running(maker.resource(), size=1, max_restarts=0)
        fall(pool)
        pool.close()
        clock.advance(60.0)
        with pytest.raises(gpool.PoolClosed):
            pool.checkout()

    def test_start_opens_it_again(self, clock: VirtualClock, maker: Maker) -> None:
        """With its workers, its waiters, and as many workers as it should have."""
        pool = running(maker.resource(), size=2)
        holder = Holder(pool)
        pool.close()
        holder.kill()
        settle()
        assert maker.open == 1
        with no_switch():
            pool.start()
        settle()
        assert pool.stats().idle == 2
        assert len(maker.made) == 3
        assert pool.stats().epoch == 1
        assert_whole(pool, maker)


class TestDrain:
    def test_until_all_is_back(self, clock: VirtualClock, maker: Maker) -> None:
        """By the fast ways and the slow ones."""
        pool = running(maker.resource(), size=2)
        holders = [Holder(pool), Holder(pool)]
        drained = Client(pool.drain)
        settle()
        holders[0].let_go()
        assert not drained.done
        holders[1].kill()
        settle()
        assert drained.value is True

    def test_by_many_at_once(self, clock: VirtualClock, maker: Maker) -> None:
        """Each within its own time."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        clients = [Client(pool.drain, seconds) for seconds in (1.0, 5.0, None)]
        clock.advance(2.0)
        assert [client.value for client in clients] == [False, None, None]
        holder.let_go()
        assert [client.value for client in clients] == [False, True, True]

    def test_of_a_pool_that_is_opened_again(self, clock: VirtualClock, maker: Maker) -> None:
        """It does not wait for what does not come: it says that not all came back."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        drained = Client(pool.drain, None)
        settle()
        pool.start()
        settle()
        assert drained.value is False
        holder.let_go()
        assert_whole(pool, maker)

    def test_of_one_that_has_failed(self, clock: VirtualClock, maker: Maker) -> None:
        """Nobody is let in when it is revived, either."""
        pool = running(maker.resource(), size=1, max_restarts=0)
        holder = Holder(pool)
        fall(pool)
        drained = Client(pool.drain)
        settle()
        assert not drained.done
        holder.let_go()
        assert drained.value is True
        clock.advance(60.0)
        assert pool.stats().phase == "draining"

    def test_starts_nobody_when_it_is_resized(self, clock: VirtualClock, maker: Maker) -> None:
        """More workers would be for nobody."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        drained = Client(pool.drain)
        settle()
        pool.resize(5)
        settle()
        assert len(maker.made) == 1
        holder.let_go()
        assert drained.value is True
        pool.start()
        settle()
        assert pool.stats().idle == 5
        assert_whole(pool, maker)

    def test_of_one_that_is_suspended(self, clock: VirtualClock, maker: Maker) -> None:
        """Those who wait are not served, and it says so; once it is resumed they are."""
        pool = running(maker.resource(), size=1)
        pool.suspend()
        waiter = Holder(pool, timeout=None)
        drained = Client(pool.drain, 3.0)
        clock.advance(3.0)
        assert drained.value is False
        pool.resume()
        settle()
        assert waiter.thing is maker.made[0]


class TestStop:
    @pytest.mark.parametrize("timeout", [0.0, 3.0, 30.0])
    def test_returns_by_its_deadline(
        self, clock: VirtualClock, maker: Maker, timeout: float
    ) -> None:
        """With waiters, holders, a hung connect, a hung reset and a hung close all present."""
        pool = running(
            maker.resource(reset=maker.reset), size=5, shutdown=None, start_timeout=None,
            finish_timeout=None,
        )  # fmt: skip
        holder = Holder(pool)
        maker.resets.append(Gate().wait)
        use(pool)
        maker.closes.extend([Gate().wait] * 9)
        pool.checkout().discard()
        settle()
        maker.creates.append(Gate().wait)
        pool.resize(6)
        settle()
        more = [Holder(pool), Holder(pool)]
        waiters = [Holder(pool, timeout=None) for _ in range(3)]
        stats = pool.stats()
        assert (stats.busy, stats.resetting, stats.closing, stats.starting) == (3, 1, 1, 1)
        tree = pids(pool)
        begun, ended = clock.now(), []

        def stop() -> None:
            pool.stop(timeout)
            ended.append(clock.now() - begun)

        stopper = Client(stop)
        settle()
        assert all(isinstance(waiter.error, gpool.PoolClosed) for waiter in waiters)
        clock.advance(100.0)
        assert stopper.error is None
        assert ended == [timeout]
        assert not any(map(gpool.is_alive, [tree.sup, tree.man, tree.worker_sup, *tree.workers]))
        for one in [holder, *more]:
            one.let_go()
            assert one.value is not None
        assert maker.faults == []

    def test_is_idempotent(self, clock: VirtualClock, maker: Maker) -> None:
        """However many call it, however often: all return when it is over."""
        pool = running(maker.resource(), size=2)
        gate = Gate()
        maker.closes.extend([gate.wait] * 2)
        stoppers = [Client(pool.stop, seconds) for seconds in (1.0, 5.0, None)]
        clock.advance(0.9)
        assert [stopper.done for stopper in stoppers] == [False] * 3
        gate.open()
        settle()
        assert [stopper.error for stopper in stoppers if stopper.done] == [None] * 3
        pool.stop()

    def test_terminates_every_worker_once_and_before_the_manager(self, clock: VirtualClock) -> None:
        """Idle, lent, finishing: the children go first, and each of them once."""
        ended: list[Any] = []

        class Mortal(Echo):
            def init(self) -> None:
                """Hear of the end."""
                gpool.trap_exit(True)

            def terminate(self, reason: Any) -> None:
                """Note who goes."""
                ended.append(self.pid)

        pool = running(Mortal, size=3)
        holder = Holder(pool)
        with pool.checkout() as worker:
            worker.work(Gate())
        settle()
        tree = pids(pool)
        deaths = [gpool.spawn(watch_death, pid, ended) for pid in (tree.man, tree.worker_sup)]
        settle()
        stopper = Client(pool.stop, 30.0)
        clock.advance(20.0)
        assert stopper.done
        assert not any(map(gpool.is_alive, deaths))
        workers = [pid for pid in ended if pid in tree.workers]
        assert len(workers) == len(set(workers)) >= 2  # the one that works never heard of it
        assert ended[len(workers) :] == [tree.man, tree.worker_sup]
        holder.let_go()

    @pytest.mark.parametrize("who", ["man", "worker_sup", "sup"])
    @pytest.mark.parametrize("turns", range(6))
    def test_while_it_falls_again(
        self, clock: VirtualClock, maker: Maker, who: str, turns: int
    ) -> None:
        """A kill in the middle of an orderly stop: it ends all the same, with all closed."""
        pool = running(maker.resource(), size=2, shutdown=2.0)
        holder = Holder(pool)
        gate = Gate()
        maker.closes.append(gate.wait)
        tree = pids(pool)
        stopper = Client(pool.stop, 5.0)
        for _ in range(turns):
            gevent.sleep(0)
        gpool.exit(getattr(tree, who), "kill")
        settle()
        gate.open()
        clock.advance(5.0)
        assert stopper.done
        holder.let_go()
        clock.advance(5.0)
        assert (maker.open, maker.faults) == (0, [])

    def test_of_one_that_is_suspended(self, clock: VirtualClock, maker: Maker) -> None:
        """Those who wait are told; the next run is not suspended."""
        pool = running(maker.resource(), size=1)
        pool.suspend()
        waiter = Holder(pool, timeout=None)
        pool.stop()
        settle()
        assert isinstance(waiter.error, gpool.PoolClosed)
        pool.start()
        assert not pool.stats().suspended
        assert_whole(pool, maker)

    @pytest.mark.parametrize("timeout", [0, 1.0, None])
    def test_tells_one_whose_grant_is_taken_back(
        self, clock: VirtualClock, maker: Maker, timeout: float | None
    ) -> None:
        """It was not among those who waited when the others were told."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        waiter = Client(pool.checkout, timeout=None)
        settle()
        lease.checkin()
        pool.stop(timeout)
        settle()
        assert waiter.done
        clock.advance(10.0)
        assert maker.open == 0

    def test_of_one_whose_supervisor_is_dead_already(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """What that one has left behind has the same time, and is killed then."""
        pool = running(maker.resource(), size=1, shutdown=None)
        maker.closes.append(Gate().wait)
        tree = pids(pool)
        gpool.exit(tree.sup, "kill")
        settle()
        stopper = Client(pool.stop, 3.0)
        clock.advance(2.9)
        assert not stopper.done
        clock.advance(0.1)
        assert stopper.done
        assert not any(map(gpool.is_alive, [*tree[:3], *tree.workers]))
        settle()
        assert maker.open == 0

    def test_wakes_those_who_drain(self, clock: VirtualClock, maker: Maker) -> None:
        """What is held comes back late or never: the drain ends when it does, or in time."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        drained = Client(pool.drain, 30.0)
        settle()
        pool.stop()
        settle()
        holder.let_go()
        assert drained.value is True

    def test_tells_of_what_is_left(self, clock: VirtualClock, maker: Maker) -> None:
        """PoolStopped counts what is not yet gone."""
        pool = running(maker.resource(), size=2)
        holder = Holder(pool)
        with Events() as events:
            pool.stop()
        assert [event.left for event in events.of(telemetry.PoolStopped)] == [1]
        holder.let_go()

    def test_then_start(self, clock: VirtualClock, maker: Maker) -> None:
        """A new run, with its options as they are now, and what the old one left to close."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        pool.resize(3)
        pool.stop()
        pool.start()
        settle()
        assert (pool.stats().idle, pool.stats().lost, pool.stats().epoch) == (2, 1, 1)
        holder.let_go()
        assert maker.made[0].closed
        assert pool.stats().idle == 3
        assert_whole(pool, maker)


def watch_death(pid: gpool.Pid, deaths: list[Any]) -> None:
    """Note when a process has died."""
    gpool.monitor(pid)
    gpool.receive()
    deaths.append(pid)


class TestStartAgain:
    def test_counts_what_is_still_held(self, clock: VirtualClock, maker: Maker) -> None:
        """Rule 6: the cap means what the server sees, whichever run it was opened in."""
        pool = running(maker.resource(), size=2)
        holders = [Holder(pool), Holder(pool)]
        for _ in range(2):  # the second time before anybody is in charge
            pool.stop()
            Client(pool.start)
        settle()
        waiter = Holder(pool)
        assert (pool.stats().lost, waiter.thing, maker.open) == (2, None, 2)
        holders[0].let_go()
        assert waiter.thing is maker.made[2]
        holders[1].kill()
        waiter.let_go()
        assert_whole(pool, maker)

    def test_counts_what_still_closes(self, clock: VirtualClock, maker: Maker) -> None:
        """A close that hangs takes its time from the next run's slots."""
        gate = Gate()
        pool = running(maker.resource(), size=1, shutdown=60.0)
        maker.closes.append(gate.wait)
        Client(pool.checkout)  # whose death has it closed
        settle()
        stopper = Client(pool.stop, timeout=None)
        settle()
        starter = Client(pool.start, timeout=None)
        settle()
        assert maker.open == 1
        gate.open()
        settle()
        assert stopper.done
        assert starter.done
        assert_whole(pool, maker)

    def test_hears_of_a_closer_that_is_a_client_elsewhere(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Its place under the cap is free once it is done, whatever its process is besides."""
        other = running(Maker().resource(), size=1)
        gate = Gate()

        def close(thing: Any) -> None:
            with other.checkout():
                gate.wait()
            maker.close(thing)

        pool = running(gpool.Resource(create=maker.create, close=close), size=1)
        lease = pool.checkout()
        pool.stop()
        lease.checkin()
        settle()
        assert other.status().busy == 1
        pool.start()
        settle()
        assert len(maker.made) == 1
        gate.open()
        settle()
        assert (len(maker.made), maker.open) == (2, 1)
        assert_whole(pool, maker)


class TestResize:
    def test_up(self, clock: VirtualClock, maker: Maker) -> None:
        """Those who wait are served by those who are new; nothing switches."""
        pool = running(maker.resource(), size=1)
        _holder, waiter = Holder(pool), Holder(pool)
        with no_switch():
            pool.resize(3)
        settle()
        assert waiter.thing is not None
        assert pool.stats().idle == 1

    def test_down_below_what_is_busy(self, clock: VirtualClock, maker: Maker) -> None:
        """Idle ones go now, those that are lent as they come back; then waiters are served."""
        pool = running(maker.resource(), size=4)
        holders = [Holder(pool) for _ in range(3)]
        pool.resize(1)
        settle()
        assert maker.open == 3
        waiter = Holder(pool, timeout=None)
        holders[0].let_go()
        holders[1].let_go()
        assert (maker.open, waiter.thing) == (1, None)
        holders[2].let_go()
        assert waiter.thing is holders[2].thing
        waiter.let_go()
        maker.peak = maker.open  # the cap was higher before
        assert_whole(pool, maker)

    def test_down_and_up_again(self, clock: VirtualClock, maker: Maker) -> None:
        """Before anybody came back: it is as if nothing had happened."""
        pool = running(maker.resource(), size=3)
        holders = [Holder(pool) for _ in range(3)]
        pool.resize(1)
        pool.resize(3)
        for holder in holders:
            holder.let_go()
        assert len(maker.made) == 3
        assert_whole(pool, maker)

    def test_down_while_they_start(self, clock: VirtualClock, maker: Maker) -> None:
        """The last connects are cut, not those who are up; that is no start that failed."""
        gate = Gate()
        maker.creates.extend([gate.wait] * 4)
        pool = running(maker.resource(), size=4)
        pool.resize(1)
        settle()
        assert (maker.open, pool.stats().starting, pool.stats().start_failures) == (1, 1, 0)
        gate.open()
        settle()
        assert (maker.open, pool.stats().idle) == (1, 1)
        maker.peak = maker.open  # the cap was higher before
        assert_whole(pool, maker)

    def test_down_before_they_start(self, clock: VirtualClock, maker: Maker) -> None:
        """In the same turn: what was decided on is not begun."""
        pool = running(maker.resource(), size=1)
        pool.resize(5)
        pool.resize(2)
        settle()
        assert (maker.connects, pool.stats().idle) == (2, 2)
        assert_whole(pool, maker)

    def test_down_to_what_is_up(self, clock: VirtualClock, maker: Maker) -> None:
        """Those who wait for it to be ready have waited for enough."""
        maker.creates.extend([None, None, Gate().wait])
        pool = running(maker.resource(), size=3)
        ready = Client(pool.wait_ready, None)
        settle()
        assert not ready.done
        pool.resize(2)
        settle()
        assert ready.done

    def test_to_none_but_on_demand(self, clock: VirtualClock, maker: Maker) -> None:
        """`size=0` with overflow: all leave once nobody wants them."""
        pool = running(maker.resource(), size=2, max_overflow=1, overflow_ttl=5.0)
        holder = Holder(pool)
        pool.resize(0)
        settle()
        assert maker.open == 1
        waiter = Holder(pool)
        holder.let_go()
        assert waiter.thing is holder.thing
        waiter.let_go()
        clock.advance(5.0)
        assert (maker.open, pool.stats().accounted) == (0, 0)
        assert use(pool) is not None
        clock.advance(5.0)
        assert maker.open == 0

    def test_leaves_overflow_its_time(self, clock: VirtualClock, maker: Maker) -> None:
        """What is idle beyond `size` but within the cap has `overflow_ttl` from now on."""
        pool = running(maker.resource(), size=3, overflow_ttl=5.0)
        clock.advance(100.0)
        pool.resize(1, max_overflow=2)
        clock.advance(4.9)
        assert pool.stats().idle == 3
        clock.advance(0.1)
        assert pool.stats().idle == 1

    @pytest.mark.parametrize("who", TREE)
    def test_across_a_fall(self, clock: VirtualClock, maker: Maker, who: str) -> None:
        """The new manager goes by the new numbers, and counts what is still held."""
        pool = running(maker.resource(), size=3)
        holders = [Holder(pool) for _ in range(3)]
        gpool.exit(getattr(pids(pool), who), "kill")
        pool.resize(1)
        settle()
        waiter = Holder(pool, timeout=None)
        holders[0].let_go()
        holders[1].let_go()
        assert (maker.open, waiter.thing) == (1, None)
        holders[2].let_go()
        assert waiter.thing is maker.made[3]
        waiter.let_go()
        maker.peak = maker.open  # the cap was higher before
        assert_whole(pool, maker)

    def test_ends_a_shrinking_by_idle_timeout(self, clock: VirtualClock, maker: Maker) -> None:
        """As many as it says are there again."""
        pool = running(maker.resource(), size=3, idle_timeout=10.0)
        clock.advance(10.0)
        pool.resize(2)
        settle()
        assert pool.stats().idle == 2

    def test_of_a_stopped_pool(self, clock: VirtualClock, maker: Maker) -> None:
        """It holds for the next run; below `min_ready` is refused, and changes nothing."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=3, min_ready=2)
        pool.resize(2)
        with pytest.raises(ValueError, match="min_ready: expected at most size, 1, got 2"):
            pool.resize(1)
        with pytest.raises(TypeError, match="size: expected a whole number, got None"):
            pool.resize(None)  # type: ignore[arg-type]
        pool.start()
        settle()
        assert pool.stats().idle == 2

    def test_of_a_lazy_pool(self, clock: VirtualClock, maker: Maker) -> None:
        """Nobody comes before he is wanted."""
        pool = running(maker.resource(), size=1, lazy=True)
        pool.resize(3)
        settle()
        assert maker.connects == 0
        holders = [Holder(pool) for _ in range(3)]
        assert all(holder.thing is not None for holder in holders)


class TestSuspend:
    def test_lends_nothing(self, clock: VirtualClock, maker: Maker) -> None:
        """Clients wait within their deadlines; what is lent comes back as always."""
        pool = running(maker.resource(), size=2)
        holder = Holder(pool)
        pool.suspend()
        waiter, other = Holder(pool, timeout=2.0), Holder(pool, timeout=None)
        holder.let_go()
        assert (waiter.thing, pool.stats().idle, pool.stats().suspended) == (None, 2, True)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        clock.advance(2.0)
        assert isinstance(waiter.error, gpool.CheckoutTimeout)
        assert str(waiter.error).endswith("it is suspended, until resume()")
        pool.resume()
        settle()
        assert other.thing is not None
        other.let_go()
        assert_whole(pool, maker)

    def test_starts_nothing(self, clock: VirtualClock, maker: Maker) -> None:
        """What goes is replaced once it is resumed; starts that back off wait as well."""
        pool = running(maker.resource(), size=2)
        maker.creates.append(OSError("down"))
        pool.suspend()
        pool.suspend()
        holder = Holder(pool, timeout=None)
        ledger: Any = pool._ledger
        gpool.exit(pids(pool).workers[0], "kill")
        clock.advance(100.0)
        assert maker.connects == 2
        assert len(ledger.slots) == 1
        pool.resume()
        clock.advance(1.0)
        assert holder.thing is not None
        holder.let_go()
        assert_whole(pool, maker)

    @pytest.mark.parametrize("who", TREE)
    def test_across_a_fall(self, clock: VirtualClock, maker: Maker, who: str) -> None:
        """The new manager is as suspended as the old one."""
        pool = running(maker.resource(), size=1)
        pool.suspend()
        waiter = Holder(pool, timeout=None)
        fall(pool, who)
        assert (waiter.thing, pool.stats().suspended, maker.open) == (None, True, 0)
        with Events() as events:
            pool.resume()
            settle()
        assert waiter.thing is maker.made[1]
        assert events.of(telemetry.PoolResumed)
        waiter.let_go()
        assert_whole(pool, maker)

    def test_resumed_between_two_managers(self, clock: VirtualClock, maker: Maker) -> None:
        """It holds for the next one."""
        pool = running(maker.resource(), size=1)
        pool.suspend()
        waiter = Holder(pool, timeout=None)
        gpool.exit(pids(pool).man, "kill")
        pool.resume()
        settle()
        assert waiter.thing is not None
        waiter.let_go()
        assert_whole(pool, maker)

    def test_while_a_check_is_under_way(self, clock: VirtualClock, maker: Maker) -> None:
        """Its client gets what it looks at when it is resumed, not before."""
        gate = Gate()
        pool = running(maker.resource(check=maker.check), size=1)
        clock.advance(1.0)
        maker.checks.append(gate.wait)
        waiter = Holder(pool, timeout=None)
        pool.suspend()
        gate.open()
        settle()
        assert (waiter.thing, pool.stats().idle) == (None, 1)
        pool.resume()
        settle()
        assert waiter.thing is maker.made[0]
        waiter.let_go()

    def test_with_a_manager_that_is_suspended_too(self, clock: VirtualClock, maker: Maker) -> None:
        """`sys.suspend` and this one are two matters: both have to end."""
        pool = running(maker.resource(), size=1)
        pool.suspend()
        gpool.sys.suspend(pids(pool).man)
        waiter = Holder(pool, timeout=None)
        pool.resume()
        settle()
        assert waiter.thing is None
        gpool.sys.resume(pids(pool).man)
        settle()
        assert waiter.thing is maker.made[0]
        waiter.let_go()
        assert books(pool).held_up is False
