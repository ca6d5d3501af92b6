"""Time: the real clock, and putting another one in its place."""

from __future__ import annotations

import weakref

import gevent
import pytest
from gevent.threadpool import ThreadPool

import gpool
from gpool import clock as clocks
from gpool.testing import VirtualClock, settle, virtual_clock


class TestNow:
    def test_never_goes_back(self):
        """Two readings are in order."""
        assert clocks.now() <= clocks.now()


class TestCallLater:
    def test_calls_in_the_hub_with_arguments(self):
        """The function gets its arguments, once, in the hub."""
        got, done = [], gevent.event.Event()

        def fn(*args):
            got.append((args, gevent.getcurrent()))
            done.set()

        clocks.call_later(0.001, fn, 1, 2)
        done.wait()
        assert got == [((1, 2), gevent.get_hub())]

    def test_of_a_negative_time_is_soon(self):
        """A time that has passed is no error."""
        done = gevent.event.Event()
        clocks.call_later(-1.0, done.set)
        assert done.wait(5.0)

    def test_can_be_cancelled_at_any_time(self):
        """A cancelled call is not made; cancelling twice, or after the call, is fine."""
        got, done = [], gevent.event.Event()
        cancelled = clocks.call_later(0.0, got.append, 1)
        cancelled.cancel()
        cancelled.cancel()
        made = clocks.call_later(0.001, done.set)
        done.wait()
        made.cancel()
        assert got == []

    def test_without_ref_does_not_keep_the_loop_alive(self):
        """A timer without ref lets a deadlocked main have its LoopExit."""

        def wait_in_vain():
            timer = clocks.call_later(3600.0, list, ref=False)
            with pytest.raises(gevent.exceptions.LoopExit):
                gevent.event.Event().wait()
            timer.cancel()

        gevent.get_hub().threadpool.apply(wait_in_vain)  # in a thread, where nothing else is

    def test_an_error_in_the_call_leaves_the_timer_closed(self, unnoticed_deaths):
        """A function that raises is reported by the hub, once."""
        clocks.call_later(0.0, int, "x")
        gevent.event.Event().wait(0.01)
        assert [type(error) for error in unnoticed_deaths] == [ValueError]
        unnoticed_deaths.clear()


class Wait:
    """Stands in a lane and notes when it expires."""

    def __init__(self, log, name=None):
        self.log, self.name = log, name

    def expire(self):
        """Note it."""
        self.log.append(self.name)


class Time:
    """What the lanes read, and the ring of their timers, by hand."""

    def __init__(self, patch):
        self.seconds = 100.0
        patch.setattr(clocks, "monotonic", lambda: self.seconds)

    def ring(self, lane, seconds):
        """Have the lane's timer ring after so many seconds."""
        self.seconds += seconds
        lane._ring()


@pytest.fixture
def time(monkeypatch):
    """Time that goes on only when it is told."""
    return Time(monkeypatch)


def entered(wait, seconds):
    """Have a wait stand in the shared lane of a length that has been asked for before."""
    lane = clocks.expire_later(wait, seconds)
    if isinstance(lane, clocks.OneOff):
        lane.leave(wait)
        lane = clocks.expire_later(wait, seconds)
    return lane


class TestExpireLater:
    def test_gives_waits_of_one_length_that_recurs_one_lane(self):
        """The first wait of a length has a timer of its own, later ones share one."""
        waits = [Wait([]) for _ in range(3)]
        lanes = [clocks.expire_later(wait, 123.0) for wait in waits]
        assert lanes[0] is not lanes[1]
        assert lanes[1] is lanes[2]
        for wait, lane in zip(waits, lanes, strict=True):
            lane.leave(wait)

    def test_expires_each_wait_at_its_own_deadline(self, time):
        """They expire in the order in which they entered, none before its time."""
        log = []
        for number in range(5):
            lane = entered(Wait(log, number), 1000.0)
            time.seconds += 1.0
        time.ring(lane, 997.0)
        assert log == [0, 1, 2]
        time.ring(lane, 1.5)
        assert log == [0, 1, 2, 3]
        time.ring(lane, 0.5)
        assert log == [0, 1, 2, 3, 4]

    def test_rings_when_the_first_is_due(self):
        """By the hub's own timer, which nobody has to ring."""
        over = gevent.event.Event()
        wait = Wait([])
        wait.expire = over.set
        entered(wait, 0.002)
        assert over.wait(10.0)

    def test_forgets_who_leaves(self, time):
        """A wait that has ended is kept by nobody; the others stay."""
        log = []
        waits = [Wait(log, number) for number in range(3)]
        lane = [entered(wait, 1000.0) for wait in tuple(waits)][-1]
        lane.leave(waits[0])
        lane.leave(waits[2])
        gone = weakref.ref(waits.pop())
        assert gone() is None
        time.ring(lane, 1000.0)
        assert log == [1]
        lane.leave(waits[1])  # harmless: it has expired

    def test_keeps_the_loop_alive_exactly_while_somebody_waits(self):
        """Who waits with a deadline gets there; a deadlock is told of at once, not after it."""

        def wait():
            for _ in range(3):
                with pytest.raises(gpool.ReceiveTimeout):
                    gpool.receive(timeout=0.01)
            me = gpool.self()
            for _ in range(3):
                gevent.spawn(gpool.send, me, "here")
                assert gpool.receive(timeout=3600.0) == "here"
            with pytest.raises(gevent.exceptions.LoopExit):
                gpool.receive()

        threads = ThreadPool(1)  # a new one, where nothing else is
        threads.apply(wait)
        threads.kill()

    def test_an_interrupt_forgets_nobody(self, time):
        """If a signal handler strikes while some expire, the others still do."""
        log = []

        class Struck:
            def expire(self):
                """Fail."""
                raise ValueError("struck")

        entered(Struck(), 1000.0)
        entered(Wait(log, "same moment"), 1000.0)
        time.seconds += 1.0
        lane = entered(Wait(log, "later"), 1000.0)
        with pytest.raises(ValueError, match="struck"):
            time.ring(lane, 999.0)
        time.ring(lane, 0.0)
        assert log == ["same moment"]
        time.ring(lane, 1.0)
        assert log == ["same moment", "later"]

    def test_odd_lengths_leave_nothing(self, time):
        """However many different lengths are asked for, few lanes are kept, and not for long."""
        for number in range(1000):
            wait = Wait([])
            entered(wait, 5000.0 + number).leave(wait)
        lanes = gevent.get_hub().gpool_lanes
        assert len(lanes) <= clocks.LANES
        for lane in list(lanes.values()):
            time.ring(lane, 10_000.0)
        assert lanes == {}


class TestInstall:
    def test_returns_the_one_before(self):
        """The clock in use is replaced, and put back."""
        virtual = VirtualClock(start=7.0)
        before = clocks.install(virtual)
        try:
            assert clocks.now() == 7.0
        finally:
            assert clocks.install(before) is virtual


class TestVirtualClock:
    def test_rings_in_order_of_time_then_of_making(self):
        """Timers fall due by time; of the same time in the order they were made."""
        got = []
        with virtual_clock() as clock:
            for name, seconds in (("c", 2.0), ("a", 1.0), ("b", 1.0)):
                clock.call_later(seconds, got.append, name)
            clock.advance(2.0)
        assert got == ["a", "b", "c"]

    def test_shows_the_time_of_each_timer_while_it_rings(self):
        """A timer that rings sees its own time, and may set another that falls due as well."""
        seen = []
        with virtual_clock() as clock:

            def ring():
                seen.append(clock.now())
                if len(seen) < 3:
                    clock.call_later(1.0, ring)

            clock.call_later(1.0, ring)
            clock.advance(10.0)
            assert clock.now() == 1010.0
        assert seen == [1001.0, 1002.0, 1003.0]

    def test_forgets_a_cancelled_timer(self):
        """A cancelled call is neither made nor counted as due."""
        got = []
        with virtual_clock() as clock:
            clock.call_later(1.0, got.append, 1).cancel()
            assert clock.next_due() is None
            clock.advance(2.0)
        assert got == []

    def test_puts_the_real_clock_back(self):
        """Leaving the block, however, ends the virtual time."""
        before = clocks._clock
        with pytest.raises(KeyError), virtual_clock():
            raise KeyError
        assert clocks._clock is before
        settle()
