"""One wait of one greenlet."""

from __future__ import annotations

import gc
import weakref

import gevent
import pytest

import gpool
from gpool.otp.mailbox import Mailbox
from gpool.testing import settle
from gpool.waiter import Expired, Gate, Seat, Waiter, throw_at_rest
from tests.lightning import Lightning


def waiting(waiter, got, timeout=None):
    """Start a greenlet that waits and writes down what came of it."""

    def body():
        try:
            got.append(waiter.wait(timeout))
        except Expired:
            got.append("expired")

    greenlet = gevent.spawn(body)
    settle()
    return greenlet


class Odd:
    """As an array it cannot be compared."""

    def __eq__(self, other):
        raise ValueError("ambiguous")

    def __hash__(self):
        return 1

    def __iter__(self):
        return iter(())


class TestWake:
    def test_hands_a_value_over(self):
        """The value of wake is what wait returns, whichever comes first."""
        early, late, got = Waiter(), Waiter(), []
        early.wake(1)
        waiting(early, got)
        waiting(late, got)
        late.wake(2)
        settle()
        assert got == [1, 2]

    def test_counts_once(self):
        """The first wake wins; later ones say that they came too late."""
        waiter, got = Waiter(), []
        waiting(waiter, got)
        assert [waiter.wake(number) for number in range(3)] == [True, False, False]
        settle()
        assert got == [0]

    def test_never_switches(self):
        """A wake queues the wake-up; the waker goes on."""
        waiter, got = Waiter(), []
        waiting(waiter, got)
        waiter.wake(1)
        assert got == []

    def test_after_the_waiter_left_is_refused(self):
        """A greenlet that was thrown out of its wait cannot be woken any more."""
        waiter, got = Waiter(), []
        waiting(waiter, got).kill()
        assert waiter.wake(1) is False

    def test_twice_after_an_interrupt_leaves_no_stray(self):
        """Every wake-up that is queued is stopped with the wait, whatever struck the waker."""
        waiter, got, hub = Waiter(), [], gevent.get_hub()

        def body():
            try:
                waiter.wait()
            except gevent.GreenletExit:
                got.append(hub.switch())  # takes whatever comes

        greenlet = gevent.spawn(body)
        settle()
        hub.loop.run_callback(greenlet.throw)
        waiter.wake("first")
        waiter.woken = False  # as if a KeyboardInterrupt had struck before the end of wake()
        waiter.wake("second")
        hub.loop.run_callback(greenlet.switch, "the next wait's own")
        settle()
        assert got == ["the next wait's own"]

    def test_struck_before_its_wake_up_is_noted_leaves_no_stray(self):
        """What was queued when a signal handler struck the waker never lands in a later wait."""
        waiter, got, hub = Waiter(), [], gevent.get_hub()

        class Struck:
            """The loop; a signal handler strikes as soon as something is queued."""

            _callbacks = property(lambda self: hub.loop._callbacks)

            def run_callback(self, *args):
                """Queue it, and be struck."""
                hub.loop.run_callback(*args)
                raise KeyboardInterrupt

        def body():
            try:
                waiter.wait()
            except gevent.GreenletExit:
                got.append(hub.switch())  # takes whatever comes

        greenlet = gevent.spawn(body)
        settle()
        hub.loop.run_callback(greenlet.throw)
        hub.loop.run_callback(list, Odd())  # others' callbacks are none of its business
        waiter._loop = Struck()
        with pytest.raises(KeyboardInterrupt):
            waiter.wake("first")
        hub.loop.run_callback(greenlet.switch, "the next wait's own")
        settle()
        assert got == ["the next wait's own"]

    def test_by_a_struck_waker_is_heard_once(self):
        """If the waker is struck after its wake-up was queued, no later one counts."""
        waiter, got = Waiter(), []
        waiting(waiter, got)
        waiter.wake("first")
        waiter.woken = False  # as if a KeyboardInterrupt had struck before the end of wake()
        settle()
        assert got == ["first"]
        assert waiter.wake("second") is False


class TestWait:
    def test_expires(self, clock):
        """Expired is raised when the time has passed, not before."""
        waiter, got = Waiter(), []
        waiting(waiter, got, 2.0)
        clock.advance(1.9)
        assert got == []
        clock.advance(0.1)
        assert got == ["expired"]

    @pytest.mark.parametrize("timeout", [0, -1.0])
    def test_0_does_not_block(self, timeout):
        """A timeout of 0 or less polls."""
        ran = []
        gevent.spawn(ran.append, 1)
        with pytest.raises(Expired):
            Waiter().wait(timeout)
        assert ran == []

    def test_cancels_its_timer(self, clock):
        """A wait that was ended otherwise leaves no timer."""
        woken, killed = Waiter(), Waiter()
        waiting(woken, [], 5.0)
        greenlet = waiting(killed, [], 5.0)
        woken.wake()
        greenlet.kill()
        settle()
        assert clock.next_due() is None

    def test_is_deaf_to_stray_switches(self):
        """A switch that was meant for another wait does not end this one."""
        waiter, got = Waiter(), []
        greenlet = waiting(waiter, got)
        gevent.get_hub().loop.run_callback(greenlet.switch, "stray")
        settle()
        assert got == []
        waiter.wake(1)
        settle()
        assert got == [1]

    def test_tells_a_greenlet_with_a_hook(self):
        """What gevent promises holds: ``switch_out`` of a greenlet is called before it waits."""
        waiter, log = Waiter(), []

        class Hooked(gevent.Greenlet):
            def switch_out(self):
                """Note it."""
                log.append("out")

        Hooked.spawn(waiter.wait)
        settle()
        assert log == ["out"]
        waiter.wake()
        settle()

    def test_leaves_no_wake_up_behind(self):
        """A greenlet that is thrown out after its wake-up was queued takes that along."""
        waiter, log = Waiter(), []

        def body():
            try:
                waiter.wait()
            except gevent.GreenletExit:
                log.append("thrown out")
            gevent.get_hub().switch()
            log.append("woken by a stray")

        greenlet = gevent.spawn(body)
        settle()
        gevent.get_hub().loop.run_callback(greenlet.throw, gevent.GreenletExit)
        waiter.wake()
        settle()
        assert log == ["thrown out"]
        greenlet.kill(block=False)

    def test_in_the_hub_is_refused(self, unnoticed_deaths):
        """A loop callback cannot wait: it would stop the loop."""
        gevent.get_hub().loop.run_callback(Waiter().wait)
        settle()
        assert [type(error).__name__ for error in unnoticed_deaths] == ["BlockingSwitchOutError"]
        unnoticed_deaths.clear()

    def test_does_not_keep_the_loop_alive(self):
        """T24: a main greenlet that nobody can wake gets its LoopExit."""

        def wait_in_vain(wait):
            with pytest.raises(gevent.exceptions.LoopExit):
                wait()

        for wait in (Waiter().wait, gpool.receive):  # in a thread, where nothing else is
            gevent.get_hub().threadpool.apply(wait_in_vain, (wait,))


class TestSeat:
    """It serves one greenlet again and again."""

    def serve(self, log):
        """Start a greenlet that waits for messages for ever, and notes them."""
        box, seats = Mailbox(), []

        def body():
            seats.append(Seat())
            try:
                while True:
                    seats[0].rest(box)
                    log.append(box.take())
            except gevent.GreenletExit:
                log.append("thrown out")
            gevent.get_hub().switch()
            log.append("woken by a stray")

        greenlet = gevent.spawn(body)
        settle()
        return greenlet, seats[0], box

    def test_is_left_as_often_as_something_comes(self):
        """Each rest ends by what comes in; neither a stray switch nor a wake alone ends it."""
        log = []
        greenlet, seat, box = self.serve(log)
        for number in range(3):
            gevent.get_hub().loop.run_callback(greenlet.switch, "stray")
            settle()
            box.append(number)
            assert seat.wake() is False  # it is woken
            settle()
            assert seat.wake() is True
            settle()
        assert log == [0, 1, 2]

    def test_is_at_rest_meanwhile(self):
        """Whoever looks at the mailbox sees that its owner has nothing to do."""
        _, _, box = self.serve([])
        assert box.resting
        box.append(1)
        assert not box.resting

    def test_hears_what_comes_before_the_switch(self):
        """What a signal handler puts in, however late, is not slept on."""
        log = []

        class Struck(Mailbox):
            """Something comes in just when it is known that there is nothing."""

            @property
            def unanswered(self):
                """Come in."""
                self.append("late")

            @unanswered.setter
            def unanswered(self, value):
                """Take it as it is."""

        def body():
            seat, box = Seat(), Struck()
            seat.rest(box)
            log.append(box.take())

        gevent.spawn(body)
        settle()
        assert log == ["late"]

    def test_leaves_no_wake_up_behind(self):
        """A greenlet that is thrown out of its rest takes a queued wake-up along."""
        log = []
        greenlet, _, box = self.serve(log)
        gevent.get_hub().loop.run_callback(greenlet.throw)
        box.append(1)
        settle()
        assert log == ["thrown out"]

    def test_struck_anywhere_leaves_no_wake_up_behind(self):
        """A signal handler may strike at any bytecode of a rest: what comes later wakes nobody."""
        hub, strikes, strays = gevent.get_hub(), 0, []

        def body(bytecode, box):
            nonlocal strikes
            seat = Seat()
            struck = Lightning(bytecode).run(lambda: seat.rest(box))
            strikes += struck
            if struck:
                strays.append(hub.switch())  # takes whatever comes

        for bytecode in range(1, 500):
            box, before = Mailbox(), strikes
            greenlet = gevent.spawn(body, bytecode, box)
            settle()
            box.append("late")
            settle()
            assert strays == []
            greenlet.kill()
            if strikes == before:
                break
        assert strikes > 20


class TestThrowAtRest:
    @pytest.mark.parametrize(
        "wait",
        [lambda: Waiter().wait(), lambda: Waiter().wait(5.0), lambda: Seat().rest(Mailbox())],
    )
    def test_raises_in_who_waits(self, wait):
        """At once, where it waits; nothing keeps what stood in its frames."""
        kept = []

        def wait_and_leave():
            thing = Odd()
            kept.append(weakref.ref(thing))
            with pytest.raises(gevent.GreenletExit):
                wait()
            kept.append("left")

        gc.disable()
        try:
            greenlet = gevent.spawn(wait_and_leave)
            settle()
            in_the_hub(throw_at_rest, greenlet, gevent.GreenletExit())
            assert greenlet.dead
            assert (kept[0](), kept[1]) == (None, "left")
        finally:
            gc.enable()

    def test_does_nothing_to_others(self):
        """Neither to who has not begun nor to who waits for gevent, nor to who runs."""
        waiting = gevent.spawn(gevent.sleep, 60.0)
        settle()
        unborn = gevent.Greenlet(gevent.sleep)
        for greenlet in (waiting, unborn, gevent.get_hub()):
            assert in_the_hub(throw_at_rest, greenlet, gevent.GreenletExit()) is False
        assert not waiting.dead
        waiting.kill()


def in_the_hub(fn, *args):
    """Return what a loop callback returns."""
    returned = []
    gevent.get_hub().loop.run_callback(lambda: returned.append(fn(*args)))
    settle()
    return returned[0]


class TestGate:
    def test_lets_all_pass_once_it_is_open(self):
        """Those who wait and those who come later pass; nobody stays on its list."""
        gate, got = Gate(), []
        for _ in range(3):
            gevent.spawn(lambda: got.append(gate.wait()))
        settle()
        assert got == []
        gate.open()
        settle()
        gate.wait(0)
        assert got == [None] * 3

    def test_expires(self):
        """A closed gate does not let anybody pass in no time."""
        with pytest.raises(Expired):
            Gate().wait(0)

    def test_can_be_shut_again(self):
        """Those who come later wait."""
        gate = Gate()
        gate.open()
        gate.shut()
        with pytest.raises(Expired):
            gate.wait(0)
