"""Hibernation: a server that waits without a greenlet, and is otherwise what it was."""

from __future__ import annotations

import contextvars

import gevent
import pytest

import gpool
from gpool import Continue, Down, Exit, Hibernate, IdleTimeout, NoReply, Reply, ServerExited, Stop
from gpool.otp import gen, gen_server, greenlets, signal
from gpool.testing import settle
from tests.lightning import Lightning
from tests.otp.actor import Actor, mailbox, reason_of
from tests.otp.nursery import Attempt
from tests.otp.test_no_switch import no_switch

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


class Bear(gpool.GenServer):
    """A server that hibernates whenever it can; it logs what it is told, and where it ran."""

    def __init__(self, trap=False):
        self.trap = trap
        self.log = []
        self.lives = []  # its greenlets, oldest first

    def _note(self, *entry):
        if not any(greenlet is gevent.getcurrent() for greenlet in self.lives):
            self.lives.append(gevent.getcurrent())
        self.log.append(entry)

    def init(self):
        """Hibernate from the start."""
        gpool.trap_exit(self.trap)
        self._note("init")
        return Hibernate()

    def handle_call(self, request, from_):
        """Run a request that is a function; answer any other."""
        self._note("call", request)
        return Reply(request() if callable(request) else request, Hibernate())

    def handle_cast(self, request):
        """Take it down."""
        self._note("cast", request)
        return request if isinstance(request, Stop | Continue | IdleTimeout) else Hibernate()

    def handle_continue(self, argument):
        """Take it down."""
        self._note("continue", argument)
        return Hibernate()

    def handle_info(self, message):
        """Take it down."""
        self._note("info", message)
        return Hibernate()

    def terminate(self, reason):
        """Take it down, in several turns."""
        self._note("terminate", reason)
        gevent.sleep(0)
        self._note("gone")


def hibernating(**options):
    """Return a server that has gone to sleep."""
    bear = Bear.start(**options)
    settle()
    assert_hibernates(bear)
    bear.log.clear()
    return bear


def assert_hibernates(bear):
    """Check that it is alive and at rest, without a greenlet."""
    pid = bear.pid
    assert pid.greenlet is None
    assert pid.runner() is None
    assert pid.hibernation is not None
    assert pid.mailbox.resting
    assert gpool.is_alive(bear)
    assert all(greenlet.dead for greenlet in bear.lives)


class SlowToEnd(Bear):
    """A server whose end lasts until it is cut."""

    def terminate(self, reason):
        """Take it down, and block."""
        self._note("terminate", reason)
        try:
            gevent.event.Event().wait()
        finally:
            self._note("cut")


def slow_to_end():
    """Return one that has gone to sleep."""
    slow = SlowToEnd.start()
    settle()
    slow.log.clear()
    return slow


class TestHibernate:
    @pytest.mark.parametrize(
        "go_to_sleep",
        [
            lambda bear: bear.call(1),
            lambda bear: bear.cast(1),
            lambda bear: bear.cast(Continue(1)),
            lambda bear: gpool.send(bear, 1),
        ],
        ids=["call", "cast", "continue", "info"],
    )
    def test_is_what_any_callback_may_answer(self, go_to_sleep):
        """OTP's hibernate: in the place of a time-out; the greenlet ends each time."""
        bear = hibernating()
        for lives in (2, 3):
            go_to_sleep(bear)
            settle()
            assert_hibernates(bear)
            assert len(bear.lives) == lives

    def test_after_no_reply(self):
        """A caller may be left without an answer, and gets it from a server that hibernates."""
        froms = []

        class Late(Bear):
            def handle_call(self, request, from_):
                froms.append(from_)
                return NoReply(Hibernate())

        late = Late.start()
        attempt = Attempt(lambda: late.call("when?"))
        settle()
        assert late.pid.greenlet is None
        assert not late.pid.mailbox.resting  # it owes an answer
        gpool.reply(froms[0], "now")
        settle()
        assert attempt.value == "now"

    def test_is_no_answer_of_terminate_nor_of_a_message_that_looks_like_it(self):
        """Only what a callback returns counts."""
        bear = hibernating()
        gpool.send(bear, Hibernate())
        settle()
        assert bear.log == [("info", Hibernate())]

    def test_a_message_that_is_there_already_comes_first(self):
        """Nobody sleeps on a message, and no greenlet is made for it."""
        bear = hibernating()
        for n in range(3):
            bear.cast(n)
        settle()
        assert bear.log == [("cast", 0), ("cast", 1), ("cast", 2)]
        assert len(bear.lives) == 2
        assert_hibernates(bear)

    def test_a_message_of_the_last_moment_wakes(self):
        """One that a finalizer sends, after the server has seen that there is none."""
        bear = hibernating()
        hibernation, pid = bear.pid.hibernation, bear.pid
        pid.hibernation, pid.mailbox.waiter = None, None
        bear.cast("late")
        hibernation.begin(pid, None)
        assert not pid.mailbox.resting
        settle()
        assert bear.log == [("cast", "late")]
        assert_hibernates(bear)

    def test_a_wake_up_for_nothing_is_slept_on(self):
        """As after a message that was taken back."""
        bear = hibernating()
        bear.pid.wake()
        settle()
        assert bear.log == []
        assert_hibernates(bear)

    def test_other_answers_keep_the_greenlet(self):
        """Who answers None, or an IdleTimeout, waits in its greenlet as ever."""

        class Waking(Bear):
            def handle_cast(self, request):
                return request

        waking = hibernating()
        waking.__class__ = Waking
        for then in (None, IdleTimeout(60.0)):
            waking.cast(then)
            settle()
            assert waking.pid.greenlet is not None
            assert waking.pid.hibernation is None

    def test_gives_way_after_a_hundred_messages(self):
        """A server that feeds itself and wants to hibernate starves nobody."""

        class Restless(Bear):
            def handle_cast(self, request):
                self.cast(request)
                return Hibernate()

        restless = Restless.start()
        restless.cast("again")
        gevent.sleep(0)  # comes back
        gpool.exit(restless, "kill")

    def test_a_waking_does_not_switch(self):
        """Who sends only queues it."""
        bear = hibernating()
        with no_switch():
            gpool.send(bear, 1)
            send = gen.From(bear.pid)
            gpool.exit(bear, "boom")
        assert send.server is bear.pid
        settle()


class TestProcess:
    def test_keeps_its_name_its_links_and_its_monitors(self):
        """It is the same process all the time."""
        bear = hibernating(trap=True, server_name="bear")
        friend = Actor(trap=True)
        friend.do(gpool.link, bear.pid)
        ref = gpool.monitor(bear)
        assert gpool.whereis("bear") is bear.pid
        assert bear.call(gpool.self) is bear.pid
        assert_hibernates(bear)
        bear.cast(Stop("why"))
        settle()
        assert mailbox() == [Down(ref, bear.pid, "why")]
        assert friend.got == [Exit(bear.pid, "why")]
        assert gpool.whereis("bear") is None

    def test_keeps_its_context(self):
        """What one life has set the next one sees, and a token is still good."""
        bear = hibernating()
        token = bear.call(lambda: VARIABLE.set("set"))
        assert_hibernates(bear)
        assert bear.call(VARIABLE.get) == "set"
        bear.call(lambda: VARIABLE.reset(token))
        assert bear.call(VARIABLE.get) == "unset"
        assert VARIABLE.get() == "unset"

    def test_is_shown_as_waiting_in_hibernate(self):
        """OTP's current_function is erlang:hibernate/3."""
        info = gpool.process_info(hibernating())
        assert (info.status, info.current_function) == ("waiting", "hibernate")

    def test_reports_the_message_that_it_crashed_on(self, crashes):
        """A crash in a later life is a crash."""
        bear = hibernating()
        with pytest.raises(ServerExited):
            bear.call(lambda: 1 / 0)
        assert isinstance(bear.pid.reason, gpool.Error)
        assert bear.log[-1] == ("gone",)
        assert crashes == [(bear.pid, bear.pid.reason)]

    def test_works_through_all_of_sys(self):
        """System messages wake it, and it goes to sleep again; not while it is suspended."""
        bear = hibernating()
        assert gpool.sys.get_state(bear)["trap"] is False
        settle()
        assert_hibernates(bear)
        gpool.sys.suspend(bear)
        bear.cast("later")
        settle()
        assert bear.log == []
        assert gpool.sys.get_status(bear).status == "suspended"
        gpool.sys.resume(bear)
        settle()
        assert bear.log == [("cast", "later")]
        assert_hibernates(bear)

    def test_is_stopped(self):
        """gen_server:stop/1 runs terminate in a new greenlet."""
        bear = hibernating()
        gpool.stop(bear)
        assert bear.log == [("terminate", "normal"), ("gone",)]
        assert len(bear.lives) == 2

    def test_its_callers_hear_of_its_death(self):
        """A call to a server that is killed before it wakes ends."""
        bear = hibernating()
        from_ = gen.Call(bear.pid)
        gpool.send(bear, from_)
        gpool.exit(bear, "kill")
        with pytest.raises(ServerExited):
            from_.result(1.0)
        assert bear.log == []

    def test_may_be_a_client_of_a_pool_all_the_time(self):
        """It is met once, and known by whatever greenlet it runs in."""
        with gpool.Pool(gpool.Resource(create=list), size=2, name="honey") as pool:
            bear = hibernating()
            lease = bear.call(pool.checkout)
            assert_hibernates(bear)
            settle()
            assert [holder.pid for holder in pool.holders()] == [bear.pid]
            bear.call(lambda: pool.checkout().checkin())
            assert set(bear.lives[:-1]).isdisjoint(pool._ledger.clients)
            bear.call(lease.checkin)
            assert pool.status().busy == 0
            bear.call(pool.checkout)
            gpool.exit(bear, "kill")
            settle()
            assert pool.status().busy == 0


class TestExit:
    @pytest.mark.parametrize("reason", ["boom", "shutdown"])
    def test_a_signal_runs_terminate(self, reason):
        """As in a server that waits: in a greenlet, in its own time."""
        bear = hibernating()
        gpool.exit(bear, reason)
        assert not gpool.is_alive(bear)
        assert reason_of(bear.pid) == reason
        assert bear.log == [("terminate", reason), ("gone",)]
        assert bear.pid.hibernation is None

    def test_a_signal_that_is_trapped_is_a_message(self):
        """And it goes to sleep again."""
        bear = hibernating(trap=True)
        gpool.exit(bear, "boom")
        settle()
        assert bear.log == [("info", Exit(gpool.self(), "boom"))]
        assert_hibernates(bear)

    def test_the_death_of_its_parent_ends_it(self):
        """Its EXIT wakes a server that traps."""
        bears = []
        parent = Actor()
        bears.append(parent.do(lambda: Bear.start_link(trap=True)))
        settle()
        assert_hibernates(bears[0])
        parent.exit("why")
        assert reason_of(bears[0].pid) == "why"
        assert bears[0].log[1:] == [("terminate", "why"), ("gone",)]

    def test_a_kill_needs_no_greenlet(self):
        """Nor does it run terminate."""
        bear = hibernating(trap=True)
        friend = Actor(trap=True)
        friend.do(gpool.link, bear.pid)
        gpool.exit(bear, "kill")
        assert reason_of(bear.pid) == "killed"
        assert bear.log == []
        assert len(bear.lives) == 1
        assert friend.got == [Exit(bear.pid, "killed")]

    def test_a_kill_right_after_a_signal(self):
        """The reason is fixed; terminate begins, and is cut where it blocks."""
        slow = slow_to_end()
        gpool.exit(slow, "boom")
        gpool.exit(slow, "kill")
        assert reason_of(slow.pid) == "boom"
        assert slow.log == [("terminate", "boom"), ("cut",)]

    @pytest.mark.parametrize("parent_dies_of", ["killed", "kill"])
    def test_a_link_to_one_that_was_killed(self, parent_dies_of):
        """Nothing is cleaned up after `killed`, be it no kill: as without hibernation."""
        ends = []
        for then in (None, Hibernate()):

            class Child(Bear):
                def init(self, then=then):
                    super().init()
                    return then

            parent = Actor()
            child = parent.do(Child.start_link)
            gpool.exit(parent.pid, parent_dies_of)
            ends.append((reason_of(child.pid), child.log))
        assert ends[0] == ends[1]

    def test_a_kill_cuts_its_terminate_short(self):
        """Which has begun in a new greenlet."""
        slow = slow_to_end()
        gpool.exit(slow, "boom")
        settle()
        assert slow.pid.state == "unwinding"
        assert slow.log == [("terminate", "boom")]
        gpool.exit(slow, "kill")
        assert reason_of(slow.pid) == "killed"
        assert slow.log == [("terminate", "boom"), ("cut",)]

    def test_its_terminate_has_its_limit(self, clock):
        """The unwind limit holds in the new greenlet too."""
        slow = slow_to_end()
        gpool.exit(slow, "boom")
        settle()
        clock.advance(4.9)
        assert slow.pid.state == "unwinding"
        clock.advance(0.2)
        assert reason_of(slow.pid) == "killed"

    @pytest.mark.parametrize("message_first", [True, False])
    def test_a_signal_beside_a_message(self, message_first):
        """An accepted exit is stronger than any message, whichever came first."""
        bear = hibernating()
        if message_first:
            bear.cast("never")
        gpool.exit(bear, "boom")
        if not message_first:
            bear.cast("never")
        assert reason_of(bear.pid) == "boom"
        assert bear.log == [("terminate", "boom"), ("gone",)]
        assert len(bear.lives) == 2

    def test_a_kill_beside_a_message(self):
        """The wake-up comes too late and does nothing."""
        bear = hibernating()
        gpool.exit(bear, "kill")
        bear.cast("never")
        assert reason_of(bear.pid) == "killed"
        assert bear.log == []


class TestGreenlet:
    def test_a_kill_of_an_earlier_life_does_nothing(self):
        """Whoever has kept a greenlet of it has kept a dead one."""
        bear = hibernating()
        bear.lives[0].kill()
        bear.lives[0].throw(gevent.GreenletExit())
        bear.lives[0].throw(ValueError())
        settle()
        assert bear.call(1) == 1
        assert_hibernates(bear)

    def test_a_foreign_kill_of_the_present_one_counts(self):
        """As ever: it is the exit signal killed."""
        bear = hibernating()
        Attempt(lambda: bear.call(lambda: gevent.sleep(60.0)))
        settle()
        bear.pid.greenlet.kill(block=False)
        assert reason_of(bear.pid) == "killed"

    def test_an_exception_that_a_callback_swallows(self):
        """Thrown into a life that goes to sleep thereby: it hibernates, and lives."""
        bear = hibernating()

        def swallow():
            try:
                gevent.sleep(60.0)
            except gevent.Timeout:
                return "swallowed"

        attempt = Attempt(lambda: bear.call(swallow))
        settle()
        gevent.get_hub().loop.run_callback(bear.pid.greenlet.throw, gevent.Timeout())
        settle()
        assert attempt.value == "swallowed"
        assert_hibernates(bear)

    def test_is_a_process_from_its_first_moment(self):
        """And the hub has it as its parent, whoever sent the message."""
        bear = hibernating()
        seen = bear.call(lambda: (greenlets.current(), gevent.getcurrent().parent))
        assert seen == (bear.pid, gevent.get_hub())

    def test_what_strikes_its_birth_is_made_good(self, monkeypatch, unnoticed_deaths):
        """A KeyboardInterrupt between the wake-up and the first step loses no message."""
        bear = hibernating()

        def interrupted(*args):
            monkeypatch.undo()
            raise ZeroDivisionError

        monkeypatch.setattr(greenlets, "Process", interrupted)
        bear.cast("kept")
        settle()
        assert isinstance(unnoticed_deaths.pop(), ZeroDivisionError)
        assert bear.log == [("cast", "kept")]
        assert_hibernates(bear)

    @pytest.mark.parametrize("use", [gpool.send, gpool.exit], ids=["message", "signal"])
    def test_a_strike_at_any_bytecode_of_a_waking(self, use):
        """A signal handler raises in whoever wakes it: it hears that one or the next one."""
        hits = 0
        for bytecode in range(1, 200):
            bear = hibernating()
            hits += Lightning(bytecode).run(lambda bear=bear: use(bear, "first"))
            settle()
            assert bear.pid.state in ("running", "dead")
            use(bear, "second")
            settle()
            if use is gpool.exit:
                assert bear.log in (
                    [("terminate", "first"), ("gone",)],
                    [("terminate", "second"), ("gone",)],
                )
            else:
                assert bear.log[-1] == ("info", "second")
                assert_hibernates(bear)
        assert 50 < hits < 199

    def test_dying_frees_the_server(self):
        """Of a process that is dead nothing is kept that could be woken."""
        bear = hibernating()
        signal.die(bear.pid, "boom", [])
        assert bear.pid.hibernation is None
        assert bear.pid.mailbox.waiter is None
        assert not bear.pid.mailbox.resting


def test_launched_servers_hibernate_too():
    """A start that nobody waits for is acknowledged all the same."""
    outcomes = []

    class Told:
        owner = next = None

        def wake(self, outcome):
            outcomes.append(outcome)

        def doomed(self, reason):
            outcomes.append("doomed")

        def down(self, pid, reason):
            outcomes.append(reason)

    told, bear = Told(), Bear(trap=True)
    gen_server.launch(bear, starter=told, keeper=told)
    settle()
    assert_hibernates(bear)
    gpool.stop(bear)
    assert outcomes == [("ok", None), "normal"]
