"""Time: the real clock, and putting another one in its place."""

from __future__ import annotations

import gevent
import pytest

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


class TestAlarm:
    def test_calls_in_the_hub_once(self):
        """An alarm that nobody cancels rings once all the same."""
        got = []
        clocks.alarm(0.001, lambda: got.append(gevent.getcurrent()))
        gevent.sleep(0.01)
        assert got == [gevent.get_hub()]

    def test_lasts_its_whole_length_each_time(self):
        """One that was cancelled before does not go on where it was."""
        rang = gevent.event.Event()
        first = clocks.alarm(0.02, list)
        gevent.sleep(0.015)
        first.cancel()
        began = clocks.now()
        second = clocks.alarm(0.02, rang.set)
        rang.wait()
        second.cancel()
        assert clocks.now() - began >= 0.019

    def test_takes_one_that_lies_idle(self):
        """Waits one after the other use the same timer."""
        first = clocks.alarm(123.0, list)
        first.cancel()
        second, third = clocks.alarm(123.0, list), clocks.alarm(123.0, list)
        assert second is first
        assert third is not first
        second.cancel()
        third.cancel()

    def test_odd_lengths_are_not_kept(self):
        """However many different lengths are asked for, a hub keeps a few idle alarms."""
        for number in range(1000):
            clocks.alarm(1000.0 + number, list).cancel()
        shelves = gevent.get_hub().gpool_alarms
        assert sum(map(len, shelves.values())) <= clocks.LENGTHS

    def test_after_a_rush_most_are_given_back(self):
        """Of those that many waits needed at once a hub keeps a few."""
        many = [clocks.alarm(77.0, list) for _ in range(1000)]
        for alarm in many:
            alarm.cancel()
        assert len(gevent.get_hub().gpool_alarms[77.0]) == clocks.ALARMS_KEPT

    def test_keeps_the_loop_alive_while_it_is_set(self):
        """Who waits with a deadline gets there, and nobody's LoopExit comes later for it."""

        def wait():
            with pytest.raises(gpool.ReceiveTimeout):
                gpool.receive(timeout=0.01)
            with pytest.raises(gevent.exceptions.LoopExit):
                gpool.receive()

        gevent.get_hub().threadpool.apply(wait)  # in a thread, where nothing else is


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
