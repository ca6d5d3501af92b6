"""Starts that fail: weather, until somebody has said that it is not."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.otp import sys as otp_sys
from gpool.pool.application import application
from gpool.pool.pool_man import START_BACKOFF
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
    pids,
    running,
    use,
)


class Weather:
    """Whether a server can be reached; what its maker makes goes by it."""

    def __init__(self, maker: Maker) -> None:
        self.maker = maker
        self.bad = False

    def turn(self, *, bad: bool) -> None:
        """Have it be bad or fine from now on."""
        self.bad = bad
        self.maker.creates.clear()
        self.maker.creates.extend([self.blow] * 10_000)

    def blow(self) -> None:
        """Fail a connect, if it is bad."""
        if self.bad:
            raise OSError("no route to host")


@pytest.fixture
def weather(maker: Maker) -> Weather:
    """Give the test bad weather."""
    weather = Weather(maker)
    weather.turn(bad=True)
    return weather


def intensities(pool: gpool.Pool[Any]) -> list[int]:
    """Return how many restarts each supervisor above and in a pool has counted."""
    tree = pids(pool)
    found = []
    for pid in (tree.sup, tree.worker_sup, application.pools_sup, application.root.pid):
        server: Any = pid.server
        found.append(len(server.intensity._stamps))
    return found


class TestBackoff:
    def test_while_demand_lasts(self, clock: VirtualClock, maker: Maker, weather: Weather) -> None:
        """Full jitter from 10 ms to 5 s: dozens of tries in a minute, not millions."""
        running(maker.resource(), size=1)
        with Events() as events:
            clock.advance(60.0)
        delays = [event.delay for event in events.of(telemetry.WorkerStartFailed)]
        assert all(0 <= delay <= 5.0 for delay in delays)
        assert 12 <= len(delays) <= 200
        assert max(delays) > 1.0

    def test_not_when_nobody_wants_one_any_more(
        self, clock: VirtualClock, maker: Maker, weather: Weather
    ) -> None:
        """A lazy pool stops trying when its last waiter leaves."""
        pool = running(maker.resource(), size=2, lazy=True)
        client = Client(pool.checkout, timeout=1.0)
        clock.advance(1.0)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        clock.advance(10.0)
        tries = maker.connects
        clock.advance(1000.0)
        assert maker.connects == tries
        assert clock.next_due() is None
        weather.turn(bad=False)
        assert use(pool) is maker.made[0]

    def test_those_that_fail_together_are_one_step(
        self, clock: VirtualClock, maker: Maker, weather: Weather
    ) -> None:
        """Ten connects that one blip has cut do not make the pool wait for five seconds."""
        running(maker.resource(), size=10, max_starting=10)
        assert maker.connects == 10
        weather.turn(bad=False)
        clock.advance(START_BACKOFF.first)
        assert maker.open == 10

    def test_one_at_a_time_until_one_is_up(
        self, clock: VirtualClock, maker: Maker, weather: Weather
    ) -> None:
        """Nobody storms a server that is down; once it is back all come at once."""
        pool = running(maker.resource(), size=5)
        gate = Gate()
        maker.creates.clear()
        maker.creates.append(gate.wait)
        clock.advance(10.0)
        assert (pool.stats().starting, pool.stats().breaker) == (1, "half_open")
        gate.open()
        settle()
        assert (pool.stats().idle, pool.stats().breaker) == (5, "closed")

    @pytest.mark.parametrize("step", [gevent.Timeout(), gpool.ExitSignal("no"), AssertionError()])
    def test_whatever_a_connect_raises(self, clock: VirtualClock, maker: Maker, step: Any) -> None:
        """It is a start that failed, and the next one may go well."""
        maker.creates.append(step)
        pool = running(maker.resource(), size=1)
        assert pool.stats().start_failures == 1
        clock.advance(1.0)
        assert_whole(pool, maker)
        assert intensities(pool) == [0, 0, 0, 0]

    def test_a_server_that_does_not_init(self, clock: VirtualClock) -> None:
        """The same."""
        Echo.starts.append(OSError("no licence"))
        pool = running(Echo, size=1)
        assert pool.stats().start_failures == 1
        clock.advance(1.0)
        assert_whole(pool)

    def test_starts_afresh_with_a_new_manager(
        self, clock: VirtualClock, maker: Maker, weather: Weather
    ) -> None:
        """It knows of no failures; its waiters are served when it is fine."""
        pool = running(maker.resource(), size=1)
        waiter = Holder(pool, timeout=None)
        clock.advance(100.0)
        weather.turn(bad=False)
        fall(pool)
        assert waiter.thing is maker.made[0]
        waiter.let_go()
        assert_whole(pool, maker)


class TestStartTimeout:
    def test_a_connect_that_hangs(self, clock: VirtualClock, maker: Maker) -> None:
        """Cut after `start_timeout`: a failed start like any other."""
        maker.creates.append(Gate().wait)
        pool = running(maker.resource(), size=1, start_timeout=3.0)
        client = Holder(pool, timeout=5.0)
        clock.advance(2.9)
        assert pool.stats().starting == 1
        clock.advance(0.2)
        assert client.thing is maker.made[0]
        assert pool.stats().start_failures == 1
        client.let_go()
        assert_whole(pool, maker)

    def test_says_what_it_was(self, clock: VirtualClock, maker: Maker) -> None:
        """Not that something was killed, but that it took too long."""
        maker.creates.extend([Gate().wait] * 9)
        pool = running(maker.resource(), size=1, start_timeout=3.0)
        client = Client(pool.checkout, timeout=5.0)
        clock.advance(5.0)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        assert client.error.start_failure == ("start_timeout", 3.0)
        assert pool.stats().last_start_failure == ("start_timeout", 3.0)

    def test_does_not_cut_one_that_is_up(self, clock: VirtualClock, maker: Maker) -> None:
        """Its time is that of the start."""
        pool = running(maker.resource(), size=1, start_timeout=3.0)
        clock.advance(100.0)
        assert use(pool) is maker.made[0]


class TestService:
    @pytest.mark.parametrize("outage", [0.5, 60.0, 3600.0])
    def test_back_again(
        self, clock: VirtualClock, maker: Maker, weather: Weather, outage: float
    ) -> None:
        """Every live waiter is served within one backoff step, in order of arrival."""
        pool = running(maker.resource(), size=3)
        holders = [Holder(pool, timeout=None) for _ in range(3)]
        gone = Holder(pool, timeout=0.1)
        clock.advance(outage)
        assert isinstance(gone.error, gpool.CheckoutTimeout)
        assert all(holder.thing is None for holder in holders)
        weather.turn(bad=False)
        clock.advance(START_BACKOFF.maximum)
        assert [holder.thing for holder in holders] == maker.made
        for holder in holders:
            holder.let_go()
        assert_whole(pool, maker)

    def test_a_worker_that_comes_back_is_not_held_up(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Starts back off; what is there is lent."""
        pool = running(maker.resource(), size=2)
        maker.creates.extend([OSError("down")] * 99)
        kept, lost = Holder(pool), Holder(pool)
        lost.kill()
        settle()
        waiter = Holder(pool)
        assert pool.stats().breaker == "open"
        kept.let_go()
        assert waiter.thing is kept.thing


class TestBreaker:
    def test_is_seen(self, clock: VirtualClock, maker: Maker, weather: Weather) -> None:
        """In the stats, and as an event for each change."""
        with Events() as events:
            pool = running(maker.resource(), size=1)
            assert pool.stats().breaker == "open"
            assert pool.stats().start_failures == 1
            weather.turn(bad=False)
            clock.advance(1.0)
        assert pool.stats().breaker == "closed"
        changes = [event.breaker for event in events.of(telemetry.BreakerChanged)]
        assert changes == ["open", "half_open", "closed"]

    def test_is_closed_where_nothing_has_failed(self, clock: VirtualClock, maker: Maker) -> None:
        """A pool without a manager has none to open."""
        assert gpool.Pool(maker.resource()).stats().breaker == "closed"


class TestFailFast:
    def test_those_who_wait(self, clock: VirtualClock, maker: Maker) -> None:
        """They raise at the first failure, with it as the cause."""
        gate = Gate()

        def fails() -> None:
            gate.wait()
            raise OSError("no route to host")

        maker.creates.append(fails)
        pool = running(maker.resource(), size=1, fail_fast=True)
        waiters = [Holder(pool), Holder(pool, timeout=None)]
        gate.open()
        settle()
        for waiter in waiters:
            assert isinstance(waiter.error, gpool.StartsFailing)
            assert isinstance(waiter.error.__cause__, OSError)
        assert pool.stats().failed_fast == 2
        assert pool.stats().waiting == 0
        clock.advance(5.0)
        assert_whole(pool, maker)

    def test_those_who_come(self, clock: VirtualClock, maker: Maker, weather: Weather) -> None:
        """At once, while starts back off or one is tried; then they are served as ever."""
        pool = running(maker.resource(), size=1, fail_fast=True)
        with pytest.raises(gpool.StartsFailing, match="no route to host") as caught:
            pool.checkout()
        assert isinstance(caught.value.__cause__, OSError)
        weather.turn(bad=False)
        clock.advance(5.0)
        assert_whole(pool, maker)

    def test_not_while_one_is_up(self, clock: VirtualClock, maker: Maker) -> None:
        """There is hope: it may come back."""
        pool = running(maker.resource(), size=2, fail_fast=True)
        maker.creates.extend([OSError("down")] * 99)
        kept, lost = Holder(pool), Holder(pool)
        lost.kill()
        settle()
        waiter = Holder(pool)
        clock.advance(3.0)
        assert not waiter.done
        kept.let_go()
        assert waiter.thing is kept.thing

    def test_when_the_last_one_goes(self, clock: VirtualClock, maker: Maker) -> None:
        """Those who hoped for it fail with the next start that does."""
        pool = running(maker.resource(), size=1, fail_fast=True)
        maker.creates.extend([OSError("down")] * 99)
        holder, waiter = Holder(pool), Holder(pool, timeout=None)
        holder.kill()
        settle()
        assert isinstance(waiter.error, gpool.StartsFailing)

    def test_a_lazy_pool_recovers(
        self, clock: VirtualClock, maker: Maker, weather: Weather
    ) -> None:
        """Nobody wants a worker in between, so it is clients who find out."""
        pool = running(maker.resource(), size=1, lazy=True, fail_fast=True)
        for _ in range(3):
            client = Client(pool.checkout)
            settle()
            assert isinstance(client.error, gpool.StartsFailing)
            clock.advance(10.0)
        weather.turn(bad=False)
        assert use(pool) is maker.made[0]

    def test_a_client_that_does_not_wait(
        self, clock: VirtualClock, maker: Maker, weather: Weather
    ) -> None:
        """It is told what it is always told."""
        pool = running(maker.resource(), size=1, fail_fast=True)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)


class TestMaxStartFailures:
    def test_takes_the_pool_down(self, clock: VirtualClock, maker: Maker, weather: Weather) -> None:
        """Those who wait and come are told why; it is revived; no intensity was spent."""
        pool = running(maker.resource(), size=1, max_start_failures=3, name="weak")
        waiter = Holder(pool, timeout=None)
        with Events() as events:
            while pool.stats().phase == "up":
                clock.advance(0.001)
        assert maker.connects == 3
        assert isinstance(waiter.error, gpool.PoolFailed)
        assert isinstance(waiter.error.__cause__, OSError)
        [event] = events.of(telemetry.PoolHasFailed)
        assert event.pool == "weak"
        assert pool.stats().phase == "failed"
        with pytest.raises(gpool.PoolFailed, match="no route") as caught:
            pool.checkout()
        assert isinstance(caught.value.__cause__, OSError)
        weather.turn(bad=False)
        clock.advance(1.0)
        assert pool.healthy()
        assert_whole(pool, maker)
        assert intensities(pool) == [0, 0, 0, 0]

    def test_however_often(self, clock: VirtualClock, maker: Maker, weather: Weather) -> None:
        """It is revived again and again, ever more slowly, and harms no sibling."""
        sibling = running(Echo, size=1, name="sibling")
        before, held = pids(sibling), sibling.checkout()
        pool = running(maker.resource(), size=1, max_start_failures=2)
        with Events() as events:
            clock.advance(3600.0)
        assert 100 <= len(events.of(telemetry.PoolHasFailed)) <= 400
        assert pids(sibling) == before
        assert held.worker.say(1) == 1
        assert intensities(sibling) == [0, 0, 0, 0]
        weather.turn(bad=False)
        clock.advance(60.0)
        assert_whole(pool, maker)

    def test_not_if_they_are_far_between(
        self, clock: VirtualClock, maker: Maker, weather: Weather
    ) -> None:
        """They count within `start_failure_window`."""
        pool = running(
            maker.resource(), size=1, lazy=True, max_start_failures=2, start_failure_window=1.0
        )
        for _ in range(9):
            Client(pool.checkout, timeout=0.001)
            clock.advance(0.001)
            clock.advance(10.0)
        assert pool.healthy()

    def test_with_a_holder(self, clock: VirtualClock, maker: Maker) -> None:
        """What it has is lost, and closed when it lets go: not under its hands."""
        pool = running(maker.resource(), size=2, max_start_failures=1)
        holder, victim = Holder(pool), Holder(pool)
        maker.creates.append(OSError("down"))
        victim.kill()
        settle()
        assert pool.stats().phase == "failed"
        clock.advance(10.0)
        assert not holder.thing.closed
        holder.let_go()
        assert holder.thing.closed
        assert_whole(pool, maker)

    def test_of_a_pool_that_is_stopped_meanwhile(
        self, clock: VirtualClock, maker: Maker, weather: Weather
    ) -> None:
        """It is not revived."""
        pool = running(maker.resource(), size=1, max_start_failures=1)
        pool.stop()
        clock.advance(60.0)
        assert (pool.stats().phase, maker.connects) == ("stopped", 1)

    def test_of_one_that_is_closed_meanwhile(self, clock: VirtualClock, maker: Maker) -> None:
        """Those who still wait are served when it is revived; nobody else is let in."""
        pool = running(maker.resource(), size=1, max_start_failures=1)
        holder, waiter = Holder(pool), Holder(pool, timeout=None)
        pool.close()
        maker.creates.append(OSError("down"))
        holder.kill()
        settle()
        assert not waiter.done  # a pool that is draining goes on trying
        clock.advance(5.0)
        assert waiter.thing is maker.made[1]
        check(pool)


class TestWaitReady:
    def test_min_ready(self, clock: VirtualClock, maker: Maker) -> None:
        """Ready once so many are up, though others hang."""
        maker.creates.extend([None, None, *[Gate().wait] * 3])
        pool = running(maker.resource(), size=5, min_ready=2)
        with Events():
            pool.wait_ready(timeout=0)
        assert pool.stats().starting == 3

    def test_its_event(self, clock: VirtualClock, maker: Maker) -> None:
        """PoolReady says how many are up, once an epoch."""
        with Events() as events:
            pool = running(maker.resource(), size=3)
            fall(pool)
        assert [event.up for event in events.of(telemetry.PoolReady)] == [3, 3]
        assert otp_sys.get_status(pids(pool).man) is not None
        assert books(pool).up == 3
