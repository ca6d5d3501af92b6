"""Processes, exit signals, links and monitors: OTP's rules one by one, by their labels."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import itertools
import pickle
import sys
import weakref

import gevent
import pytest

import gpool
from gpool import Down, Exit, NoProcess, telemetry
from gpool.otp import greenlets, process, signal
from gpool.otp.pid import tie, watch
from gpool.testing import settle
from tests.otp.actor import Actor, mailbox, reason_of, sleeper
from tests.otp.nursery import Events

# Who sends, whether the target traps, the reason, and what happens to the target.
PARITY = [
    ("another", False, "normal", "lives"),
    ("another", True, "normal", "gets normal"),
    ("another", False, "shutdown", "dies shutdown"),
    ("another", True, "shutdown", "gets shutdown"),
    ("another", False, "boom", "dies boom"),
    ("another", True, "boom", "gets boom"),
    ("another", False, "killed", "dies killed"),
    ("another", True, "killed", "gets killed"),
    ("another", False, "kill", "dies killed"),
    ("another", True, "kill", "dies killed"),
    ("itself", False, "normal", "dies normal"),
    ("itself", True, "normal", "gets normal"),
    ("itself", False, "boom", "dies boom"),
    ("itself", True, "boom", "gets boom"),
    ("itself", False, "kill", "dies killed"),
    ("itself", True, "kill", "dies killed"),
    ("a link", False, "normal", "lives"),
    ("a link", True, "normal", "gets normal"),
    ("a link", False, "shutdown", "dies shutdown"),
    ("a link", True, "shutdown", "gets shutdown"),
    ("a link", False, "boom", "dies boom"),
    ("a link", True, "boom", "gets boom"),
    ("a link", False, "kill", "dies kill"),
    ("a link", True, "kill", "gets kill"),
    ("a link", False, "killed", "dies killed"),
    ("a link", True, "killed", "gets killed"),
]


def stubborn(log):
    """Swallow whatever ends it, for ever."""
    while True:
        try:
            gevent.sleep(60.0, ref=False)  # one that keeps no loop alive
        except BaseException as error:  # noqa: BLE001  # that is the point
            log.append(type(error).__name__)


class TestSpawn:
    def test_a_function_that_returns_dies_normally(self):
        """R1: a process whose function returns dies of `normal`."""
        assert reason_of(gpool.spawn(lambda: 42)) == "normal"

    def test_an_exception_is_the_reason(self):
        """R2: an exception that escapes is the reason, with its traceback as text."""
        pid = gpool.spawn(int, "x")
        reason = reason_of(pid)
        assert isinstance(reason, gpool.Error)
        assert isinstance(reason.exception, ValueError)
        assert "invalid literal" in reason.format()
        assert "Traceback" in reason.format()

    def test_runs_when_the_caller_blocks(self):
        """Spawning does not switch: the process first runs when the caller waits."""
        ran = []
        gpool.spawn(ran.append, 1)
        assert ran == []
        settle()
        assert ran == [1]

    def test_passes_arguments(self):
        """Positional and keyword arguments reach the function."""
        got = []
        gpool.spawn(lambda *args, **kwargs: got.append((args, kwargs)), 1, x=2)
        settle()
        assert got == [((1,), {"x": 2})]

    def test_refuses_what_cannot_be_called(self):
        """What is no callable is refused in the caller, and nothing is left behind."""
        before = [*gpool.processes(), gpool.self()]
        with pytest.raises(TypeError, match="expected a callable, got 42"):
            gpool.spawn(42)
        assert set(gpool.processes()) == set(before)

    def test_knows_its_parents(self):
        """A process knows who spawned it, and that one's spawner."""
        inner = Actor().do(gpool.spawn, gpool.receive)
        assert inner.ancestors == (inner.parent, gpool.self())

    def test_a_body_that_was_signalled_first_never_runs(self):
        """A process whose exit is accepted before its first turn dies without a turn."""
        ran = []
        pid = gpool.spawn(ran.append, 1)
        gpool.exit(pid, "boom")
        assert reason_of(pid) == "boom"
        assert ran == []


class TestSpawnLink:
    def test_is_one_step(self):
        """L5: of a function that dies at once the parent still gets its EXIT."""
        gpool.trap_exit(True)
        pid = gpool.spawn_link(gpool.exit, "boom")
        assert mailbox() == [Exit(pid, "boom")]

    def test_links_before_the_caller_blocks(self):
        """Both know of the link when spawn_link returns."""
        pid = gpool.spawn_link(gpool.receive)
        assert pid in gpool.self().links
        assert gpool.self() in pid.links
        gpool.unlink(pid)


class TestSpawnMonitor:
    def test_is_one_step(self):
        """M6: of a function that dies at once the parent still gets its DOWN."""
        pid, ref = gpool.spawn_monitor(gpool.exit, "boom")
        assert mailbox() == [Down(ref, pid, "boom")]


class TestExit:
    @pytest.mark.parametrize("reason", ["normal", "shutdown", ("shutdown", 1), "boom", None, {}])
    def test_in_oneself_gives_exactly_the_reason(self, reason):
        """R2: exit(R) in the process itself is exactly R, with nothing added."""
        assert reason_of(gpool.spawn(gpool.exit, reason)) == reason

    def test_can_be_caught(self):
        """exit(R) in oneself is an exception: caught, it ends nothing."""

        def body():
            with pytest.raises(gpool.ExitSignal):
                gpool.exit("boom")
            gpool.exit("better")

        assert reason_of(gpool.spawn(body)) == "better"

    def test_of_oneself_with_kill_is_kill(self):
        """R3: exit(kill) in oneself dies of `kill`, not `killed`, and links can trap it."""
        gpool.trap_exit(True)
        pid = gpool.spawn_link(gpool.exit, "kill")
        assert reason_of(pid) == "kill"
        assert mailbox() == [Exit(pid, "kill")]

    @pytest.mark.parametrize(("sender", "trap", "reason", "outcome"), PARITY)
    def test_does_what_otp_does(self, sender, trap, reason, outcome):
        """R4, R5, R6, R7, R8, R9: the table of who, trapping or not, and why."""
        target, other = Actor(trap=trap), Actor()
        if sender == "a link":
            other.do(gpool.link, target.pid)
            other.exit(reason)
        else:
            by = target if sender == "itself" else other
            other = by
            by.do(gpool.exit, target.pid, reason)
        verb, _, what = outcome.partition(" ")
        assert target.alive == (verb != "dies")
        assert target.got == ([Exit(other.pid, what)] if verb == "gets" else [])
        assert target.pid.reason == (what if verb == "dies" else None)

    def test_normal_to_another_is_nothing(self):
        """R4: exit(P, normal) of another does nothing, unless P traps: then it is a message."""
        plain, trapping = Actor(), Actor(trap=True)
        gpool.exit(plain.pid, "normal")
        gpool.exit(trapping.pid, "normal")
        settle()
        assert plain.alive
        assert trapping.got == [Exit(gpool.self(), "normal")]

    def test_normal_to_oneself_is_deadly(self):
        """R5: exit(self, normal) ends a process that does not trap, and only that."""
        assert reason_of(gpool.spawn(lambda: gpool.exit(gpool.self(), "normal"))) == "normal"

    def test_of_oneself_does_not_go_on(self):
        """R6: after exit(self, R) the next statement does not run."""
        ran = []

        def body():
            gpool.exit(gpool.self(), "boom")
            ran.append(1)

        assert reason_of(gpool.spawn(body)) == "boom"
        assert ran == []

    def test_kill_is_seen_as_killed_by_everybody(self):
        """R7: after exit(P, kill) links and monitors both report `killed`, trapping or not."""
        for trap in (False, True):
            target, linked = Actor(trap=trap), Actor(trap=True)
            linked.do(gpool.link, target.pid)
            ref = gpool.monitor(target.pid)
            gpool.exit(target.pid, "kill")
            assert mailbox() == [Down(ref, target.pid, "killed")]
            assert linked.got == [Exit(target.pid, "killed")]

    def test_kill_through_a_link_can_be_trapped(self):
        """R8: a link carries `kill` as an ordinary word; only a direct kill is untrappable."""
        dying, plain, trapping = Actor(), Actor(), Actor(trap=True)
        plain.do(gpool.link, dying.pid)
        trapping.do(gpool.link, dying.pid)
        dying.exit("kill")
        assert plain.pid.reason == "kill"
        assert trapping.got == [Exit(dying.pid, "kill")]

    def test_a_trapped_signal_is_a_message(self):
        """R9: a trapping process goes on, whatever comes but a kill."""
        target = Actor(trap=True)
        for reason in ("normal", "shutdown", ("mine", 1)):
            gpool.exit(target.pid, reason)
        settle()
        assert [message.reason for message in target.got] == ["normal", "shutdown", ("mine", 1)]
        assert target.alive

    def test_of_the_dead_is_nothing(self):
        """R10: exit and unlink of a dead process are no errors and change nothing."""
        dead = gpool.spawn(gpool.exit, "first")
        settle()
        gpool.exit(dead, "second")
        gpool.exit(dead, "kill")
        gpool.unlink(dead)
        assert reason_of(dead) == "first"

    def test_the_first_signal_fixes_the_reason(self):
        """R11: of a, b and kill, sent at once, the first one is the reason."""
        target = Actor()
        for reason in ("a", "b", "kill"):
            gpool.exit(target.pid, reason)
        assert reason_of(target.pid) == "a"

    def test_the_target_is_not_alive_when_it_returns(self):
        """R12: after exit(P, kill) is_alive is False at once; its name stays until it is dead."""
        target = Actor()
        gpool.register("target", target.pid)
        gpool.exit(target.pid, "kill")
        assert not gpool.is_alive(target.pid)
        assert gpool.whereis("target") is target.pid
        settle()
        assert gpool.whereis("target") is None

    def test_finally_runs_before_anybody_hears_of_the_death(self):
        """R14: a signal unwinds: EXIT and DOWN go out only when ``finally`` has ended."""
        log, opened = [], gevent.event.Event()

        def body():
            try:
                gpool.receive()
            finally:
                opened.wait()
                log.append("cleaned up")

        pid, ref = gpool.spawn_monitor(body)
        settle()
        gpool.exit(pid, "boom")
        assert mailbox() == []
        assert (pid.state, gpool.is_alive(pid)) == ("unwinding", False)
        opened.set()
        assert mailbox() == [Down(ref, pid, "boom")]
        assert log == ["cleaned up"]

    def test_primitives_work_while_it_unwinds_but_receive(self):
        """R14: cleanup may send and call; a loop that swallows its exit in receive may not."""
        log = []

        def body():
            try:
                gevent.sleep(60.0)
            finally:
                gpool.send(main, "cleaned up")
                try:
                    gpool.receive(timeout=0)
                except gpool.ExitSignal as error:
                    log.append(error.reason)

        main = gpool.self()
        pid = gpool.spawn(body)
        settle()
        gpool.exit(pid, "boom")
        assert mailbox() == ["cleaned up"]
        assert log == ["boom"]
        assert reason_of(pid) == "boom"

    @pytest.mark.parametrize("reason", ["normal", "shutdown", ("shutdown", "done")])
    def test_an_orderly_death_is_not_reported(self, reason, crashes):
        """R15: normal, shutdown and (shutdown, T) are not worth a report."""
        assert reason_of(gpool.spawn(gpool.exit, reason)) == reason
        assert crashes == []

    @pytest.mark.parametrize("reason", ["boom", "kill", ("normal", 1), None, ()])
    def test_any_other_death_is_reported_once(self, reason, crashes):
        """R15: any other reason gives one report a death."""
        pid = gpool.spawn(gpool.exit, reason)
        settle()
        assert crashes == [(pid, reason)]

    def test_the_report_says_what_there_was(self):
        """R15: the report has the name, the links, the ancestors, and what was unread."""
        reports = Events(
            telemetry.ProcessCrashed, "name", "links", "ancestors", "unread", "initial_call"
        )
        telemetry.attach(reports)

        def crash():
            gpool.register("crasher", gpool.self())
            gpool.send(gpool.self(), "unread")
            gpool.exit("boom")

        gpool.trap_exit(True)
        gpool.spawn_link(crash)
        settle()
        telemetry.detach(reports)
        me = gpool.self()
        qualname = "TestExit.test_the_report_says_what_there_was.crash"
        assert reports == [("crasher", (me,), (me,), 1, qualname)]

    def test_takes_names_and_handles_too(self):
        """Exit of a name or of a handle is exit of its process; a free name is an error."""
        target, server = Actor(), gpool.GenServer.start()
        gpool.register("target", target.pid)
        gpool.exit("target", "boom")
        gpool.exit(server, "boom")
        assert (reason_of(target.pid), reason_of(server.pid)) == ("boom", "boom")
        with pytest.raises(NoProcess):
            gpool.exit("target", "boom")
        with pytest.raises(TypeError, match="expected a Pid"):
            gpool.exit(42, "boom")

    def test_a_process_runs_no_further_than_its_next_primitive(self):
        """A process that was to run anyway when its exit was accepted ends at a primitive."""
        log = []

        def body():
            gevent.sleep(0)
            log.append("woke")
            gpool.self()
            log.append("never")

        pid = gpool.spawn(body)
        gevent.sleep(0)  # now its own wake-up is queued
        gpool.exit(pid, "boom")
        assert reason_of(pid) == "boom"
        assert log == ["woke"]


class TestUnwindLimit:
    def test_cuts_a_cleanup_that_takes_too_long(self, clock):
        """A cleanup that has not ended after `unwind_limit` seconds is killed."""
        log = []

        def body():
            try:
                gpool.receive()
            finally:
                sleeper(log, 1e9)

        pid = gpool.spawn(body)
        settle()
        gpool.exit(pid, "boom")
        clock.advance(4.9)
        assert pid.state == "unwinding"
        clock.advance(0.1)
        assert reason_of(pid) == "killed"
        assert log == ["ExitSignal", "cleanup"]

    def test_none_is_no_limit(self, clock):
        """With an `unwind_limit` of None cleanup may take as long as it likes."""
        opened = gevent.event.Event()

        def body():
            try:
                gpool.receive()
            finally:
                opened.wait()

        pid = gpool.spawn(body)
        pid.unwind_limit = None
        settle()
        gpool.exit(pid, "boom")
        clock.advance(1e6)
        assert pid.state == "unwinding"
        opened.set()
        assert reason_of(pid) == "boom"

    def test_a_kill_cuts_it_short(self):
        """A kill that comes while a process unwinds breaks its cleanup, and is the reason."""
        log = []

        def body():
            try:
                gpool.receive()
            finally:
                sleeper(log)

        pid = gpool.spawn(body)
        settle()
        gpool.exit(pid, "boom")
        settle()
        gpool.exit(pid, "kill")
        assert reason_of(pid) == "killed"
        assert log == ["ExitSignal", "cleanup"]

    def test_leaves_no_timer_behind(self, clock):
        """A process that unwinds in time takes its timer with it."""
        opened = gevent.event.Event()

        def body():
            try:
                gpool.receive()
            finally:
                opened.wait()

        pid = gpool.spawn(body)
        settle()
        gpool.exit(pid, "boom")
        settle()
        assert clock.next_due() == pytest.approx(5.0)
        opened.set()
        settle()
        assert clock.next_due() is None


class TestZombies:
    def test_one_that_swallows_kills_is_declared_dead(self):
        """After ten throws a process is dead to all others, its greenlet a zombie."""
        log, zombies = [], Events(telemetry.ProcessIsZombie, "process")
        telemetry.attach(zombies)
        pid, ref = gpool.spawn_monitor(stubborn, log)
        gpool.register("stubborn", pid)
        settle()
        gpool.exit(pid, "kill")
        assert mailbox() == [Down(ref, pid, "killed")]
        telemetry.detach(zombies)
        assert log == ["ExitSignal"] * signal.THROWS
        assert gpool.zombies() == [pid]
        assert gpool.whereis("stubborn") is None
        assert zombies == [(pid,)]

    def test_one_can_be_looked_at(self):
        """Where its greenlet runs on is what one wants to know of it."""
        pid = gpool.spawn(stubborn, [])
        settle()
        gpool.exit(pid, "kill")
        settle()
        assert gpool.zombies() == [pid]
        info = gpool.process_info(pid)
        assert (info.status, info.reason) == ("dead", "killed")
        assert info.current_function.startswith("stubborn (")
        assert "in stubborn" in "".join(gpool.process_info(pid, "current_stacktrace"))

    def test_one_that_swallows_an_exit_is_killed_later(self, clock):
        """A swallowed exit is given the limit for cleanup, then it is a kill."""
        log = []
        pid = gpool.spawn(stubborn, log)
        settle()
        gpool.exit(pid, "boom")
        clock.advance(4.9)
        assert log == ["ExitSignal"]
        clock.advance(0.1)
        assert reason_of(pid) == "killed"

    def test_a_loop_of_primitives_is_parked(self):
        """A loop that swallows what its primitives raise is stopped where it is."""

        def body():
            while True:
                with contextlib.suppress(BaseException):
                    gpool.receive()

        pid = gpool.spawn(body)
        settle()
        gpool.exit(pid, "boom")
        assert reason_of(pid) == "killed"
        assert gpool.zombies() == [pid]

    def test_every_primitive_in_it_raises(self):
        """A zombie that goes on can do nothing: each primitive raises its exit."""
        log, go = [], gevent.event.Event()

        def body():
            while not go.is_set():
                with contextlib.suppress(BaseException):
                    go.wait()
            for primitive in (gpool.self, gpool.receive, lambda: gpool.send(main, 1)):
                try:
                    primitive()
                except gpool.ExitSignal as error:
                    log.append(error.reason)

        main = gpool.self()
        pid = gpool.spawn(body)
        settle()
        gpool.exit(pid, "kill")
        settle()
        assert gpool.zombies() == [pid]
        go.set()
        assert mailbox() == []
        assert log == ["killed"] * 3
        assert gpool.zombies() == []


class TestTrapExit:
    def test_returns_what_it_was(self):
        """trap_exit answers what it was before."""
        assert gpool.trap_exit(True) is False
        assert gpool.trap_exit(False) is True

    def test_switched_off_leaves_queued_messages(self):
        """R13: an EXIT message that is queued stays when trap_exit is switched off."""
        gpool.trap_exit(True)
        pid = gpool.spawn_link(gpool.exit, "boom")
        settle()
        gpool.trap_exit(False)
        assert mailbox() == [Exit(pid, "boom")]


class TestLink:
    def test_a_pair_has_one_link(self):
        """L1: link, link, unlink: nothing arrives; a link to oneself is none."""
        target, watcher = Actor(), Actor(trap=True)
        for _ in range(2):
            watcher.do(gpool.link, target.pid)
        watcher.do(gpool.unlink, target.pid)
        watcher.do(gpool.link, watcher.pid)
        target.exit("boom")
        assert watcher.got == []
        assert watcher.pid.links == {}

    def test_to_the_dead_is_a_message_to_one_that_traps(self):
        """L2: a trapping process that links to a dead one gets EXIT noproc."""
        gpool.trap_exit(True)
        dead = gpool.spawn(gpool.exit, "boom")
        settle()
        gpool.link(dead)
        assert mailbox() == [Exit(dead, "noproc")]

    def test_to_the_dead_raises_otherwise(self):
        """L2: a process that does not trap cannot link to a dead one."""
        dead = gpool.spawn(gpool.exit, "boom")
        settle()
        with pytest.raises(NoProcess):
            gpool.link(dead)

    @pytest.mark.parametrize("reason", ["shutdown", "boom", ("shutdown", 1)])
    def test_carries_the_reason_along_the_chain(self, reason):
        """L3: every reason but normal kills who is linked, with the same reason, and so on."""
        actors = [Actor() for _ in range(5)]
        for one, next_one in itertools.pairwise(actors):
            one.do(gpool.link, next_one.pid)
        actors[0].exit(reason)
        assert [actor.pid.reason for actor in actors] == [reason] * 5

    def test_a_normal_death_harms_nobody(self):
        """L3: who is linked to a process that dies normally lives on, without the link."""
        one, two = Actor(), Actor()
        one.do(gpool.link, two.pid)
        one.exit("normal")
        assert two.alive
        assert two.pid.links == {}

    def test_is_symmetric(self):
        """Either end that dies takes the other one along."""
        one, two = Actor(), Actor()
        one.do(gpool.link, two.pid)
        two.exit("boom")
        assert one.pid.reason == "boom"

    def test_messages_come_before_exit_and_exit_before_down(self):
        """L6: who is linked reads first what the dead one sent, then EXIT, then DOWN."""

        def body():
            for number in range(3):
                gpool.send(main, number)
            gpool.exit("boom")

        main = gpool.self()
        gpool.trap_exit(True)
        pid, ref = gpool.spawn_monitor(body)
        gpool.link(pid)
        assert mailbox() == [0, 1, 2, Exit(pid, "boom"), Down(ref, pid, "boom")]

    def test_to_one_that_unwinds_brings_its_exit(self):
        """A link to a process whose exit is accepted still brings its real reason."""
        target = Actor()
        gpool.trap_exit(True)
        gpool.exit(target.pid, "boom")
        gpool.link(target.pid)
        assert mailbox() == [Exit(target.pid, "boom")]

    def test_an_error_that_comes_by_a_link_is_no_failed_cleanup(self):
        """It is the reason, not what the cleanup of the one that it ends has raised."""
        failures = Events(telemetry.CleanupFailed, "process", "exception")
        telemetry.attach(failures)
        linked = []

        def fail():
            linked.append(gpool.spawn_link(gevent.sleep, 60))
            gevent.sleep(0)
            raise ValueError("of its own")

        gpool.spawn(fail)
        settle()
        telemetry.detach(failures)
        assert reason_of(linked[0]).exception.args == ("of its own",)
        assert failures == []


class TestUnlink:
    def test_no_exit_arrives_afterwards(self):
        """L4: when unlink has returned no EXIT of that link can come any more."""
        gpool.trap_exit(True)
        pid = gpool.spawn_link(gpool.receive)
        gpool.unlink(pid)
        gpool.exit(pid, "boom")
        assert mailbox() == []

    def test_between_the_signal_and_the_death(self):
        """L4: also when the exit of the other one is accepted already."""
        gpool.trap_exit(True)
        pid = gpool.spawn_link(gpool.receive)
        settle()
        gpool.exit(pid, "boom")
        gpool.unlink(pid)
        assert mailbox() == []

    def test_a_queued_exit_stays_to_be_flushed(self):
        """L4: one queued before stays: flush by a receive with timeout 0."""
        gpool.trap_exit(True)
        pid = gpool.spawn_link(gpool.exit, "boom")
        settle()
        gpool.unlink(pid)
        is_exit = lambda message: type(message) is Exit and message.pid is pid  # noqa: E731
        assert gpool.receive(is_exit, timeout=0) == Exit(pid, "boom")

    def test_by_one_whose_exit_is_accepted_is_refused(self):
        """A process whose exit was accepted cannot untie itself any more."""
        watcher = Actor(trap=True)

        def body():
            gpool.link(watcher.pid)
            gevent.sleep(0)
            gpool.unlink(watcher.pid)

        pid = gpool.spawn(body)
        gevent.sleep(0)
        gpool.exit(pid, "boom")
        settle()
        assert watcher.got == [Exit(pid, "boom")]


class TestMonitor:
    @pytest.mark.parametrize("reason", ["normal", "shutdown", "boom", "kill"])
    def test_gives_one_down_each(self, reason):
        """M1: any death gives exactly one DOWN for each monitor, linked or not."""
        target = Actor()
        refs = [gpool.monitor(target.pid) for _ in range(2)]
        gpool.trap_exit(True)
        gpool.link(target.pid)
        target.exit(reason)
        downs = [message for message in mailbox() if type(message) is Down]
        assert downs == [Down(ref, target.pid, reason) for ref in refs]

    def test_of_the_dead_and_of_nobody_is_noproc(self):
        """M2: noproc is queued at once for a dead process and for a free name."""
        dead = gpool.spawn(gpool.exit, "boom")
        settle()
        refs = [gpool.monitor(dead), gpool.monitor("nobody")]
        assert [gpool.receive(timeout=0) for _ in refs] == [
            Down(refs[0], dead, "noproc"),
            Down(refs[1], "nobody", "noproc"),
        ]

    def test_by_name_reports_the_name(self):
        """M2: a monitor set on a name reports the name, and follows who had it then."""
        target = Actor()
        gpool.register("target", target.pid)
        ref = gpool.monitor("target")
        gpool.unregister("target")
        target.exit("boom")
        assert mailbox() == [Down(ref, "target", "boom")]

    def test_a_dead_watcher_leaves_nothing_behind(self):
        """M5: the target is untouched and forgets watchers and callers that die."""
        target = Actor()
        for _ in range(50):
            watcher = Actor()
            watcher.do(gpool.monitor, target.pid)
            watcher.exit("boom")
        assert target.alive
        assert target.pid.monitored_by == {}

    def test_of_oneself_never_fires(self):
        """M5: a monitor on oneself is legal and tells nobody."""
        ref = gpool.monitor(gpool.self())
        assert gpool.demonitor(ref) is False
        pid = gpool.spawn(lambda: gpool.monitor(gpool.self()))
        assert reason_of(pid) == "normal"

    def test_a_monitor_that_raises_harms_nobody(self):
        """A monitor function's error is reported; the others are told all the same."""

        class Bad:
            def down(self, pid, reason):
                raise ValueError("bad monitor")

        failures = Events(telemetry.CleanupFailed, "process", "exception")
        telemetry.attach(failures)
        target = Actor()
        watch(target.pid, Bad())
        ref = gpool.monitor(target.pid)
        target.exit("boom")
        telemetry.detach(failures)
        assert mailbox() == [Down(ref, target.pid, "boom")]
        assert [(pid, type(error)) for pid, error in failures] == [(target.pid, ValueError)]

    def test_a_monitor_may_take_another_back(self):
        """A monitor that an earlier one has taken back is not told any more."""

        class Watch:
            def __init__(self, other=None):
                self.told, self.other = False, other

            def down(self, pid, reason):
                self.told = True
                pid.monitored_by.pop(self.other, None)

        target = Actor()
        second = Watch()
        first = Watch(second)
        watch(target.pid, first)
        watch(target.pid, second)
        target.exit("boom")
        assert (first.told, second.told) == (True, False)


class TestDemonitor:
    def test_no_down_comes_afterwards(self):
        """M3: a demonitored process gives no DOWN; twice is fine."""
        target = Actor()
        ref = gpool.monitor(target.pid)
        gpool.demonitor(ref)
        gpool.demonitor(ref)
        target.exit("boom")
        assert mailbox() == []

    def test_a_queued_down_stays_unless_flushed(self):
        """M3: a DOWN that is queued stays, unless flush is asked for."""
        target = Actor()
        kept, flushed = gpool.monitor(target.pid), gpool.monitor(target.pid)
        target.exit("boom")
        gpool.demonitor(kept)
        gpool.demonitor(flushed, flush=True)
        assert mailbox() == [Down(kept, target.pid, "boom")]

    def test_tells_whether_it_was_active(self):
        """M4: True while no DOWN has been sent, False after that."""
        target = Actor()
        active, fired = gpool.monitor(target.pid), gpool.monitor(target.pid)
        assert gpool.demonitor(active) is True
        assert gpool.demonitor(active) is False
        target.exit("boom")
        assert gpool.demonitor(fired) is False


class TestSend:
    def test_to_nobody_raises_and_to_the_dead_is_silent(self):
        """N3: a free name raises, a dead pid swallows the message."""
        dead = gpool.spawn(gpool.exit, "boom")
        settle()
        with pytest.raises(NoProcess, match="nobody"):
            gpool.send("nobody", 1)
        gpool.send(dead, 1)
        assert len(dead.mailbox) == 0

    def test_keeps_the_order_of_signals_and_messages(self):
        """Q4: messages and signals of one sender arrive in the order they were sent."""
        target = Actor(trap=True)
        gpool.send(target.pid, 1)
        gpool.exit(target.pid, "two")
        gpool.send(target.pid, 3)
        settle()
        assert target.got == [1, Exit(gpool.self(), "two"), 3]

    def test_never_blocks_nor_fails_on_a_full_mailbox(self):
        """Q5: a hundred thousand messages are taken without a switch."""
        ran = []
        gpool.spawn(ran.append, 1)
        me = gpool.self()
        for number in range(100_000):
            gpool.send(me, number)
        assert ran == []
        assert len(me.mailbox) == 100_000

    def test_needs_a_receiver(self):
        """What is no process at all is refused in words."""
        with pytest.raises(TypeError, match="expected a Pid, a name or a server, got 42"):
            gpool.send(42, 1)


class Array:
    """A reason that cannot be compared, as an array of numbers cannot."""

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise ValueError("ambiguous")

    __hash__ = object.__hash__


class TestOddReasons:
    @pytest.mark.parametrize("wrap", [lambda reason: reason, lambda reason: (reason, 1)])
    def test_that_cannot_be_compared(self, wrap):
        """Any term is a reason: nobody asks it whether it equals a word."""
        reason = wrap(Array())
        linked = Actor(trap=True)
        pid = linked.do(gpool.spawn_link, gpool.receive)
        gpool.exit(pid, reason)
        assert reason_of(pid) is reason
        assert [message.reason for message in linked.got if message.pid is pid] == [reason]
        server = gpool.GenServer.start()
        gpool.stop(server, reason)
        assert reason_of(server.pid) is reason

    def test_whose_repr_fails(self):
        """An exception that cannot be shown is shown as that, at every place that words it."""

        class Mute(Exception):
            def __repr__(self):
                raise RuntimeError

        def run():
            raise Mute

        reason = reason_of(gpool.spawn(run))
        assert repr(reason).startswith("Error(<")
        assert "Mute, whose repr fails" in str(gpool.ServerExited("server", reason))

    def test_whose_repr_says_nothing(self):
        """The message of an exception is told, also if its class leaves it out of the repr."""

        class Terse(Exception):
            def __repr__(self):
                return "server:Terse"

        def run():
            raise Terse("wrong password")

        assert repr(reason_of(gpool.spawn(run))) == "Error(server:Terse: wrong password)"


class TestShells:
    def test_a_long_chain_falls_without_recursion(self):
        """Processes without greenlets die as others do: accepted at once, done by the hub."""
        hub = gevent.get_hub()
        chain = [gpool.Pid(hub, "shell", None, 0.0) for _ in range(3000)]
        for one, two in itertools.pairwise(chain):
            tie(one, two)
        gpool.exit(chain[0], "boom")
        assert not gpool.is_alive(chain[0])
        settle()
        assert {(pid.state, pid.reason) for pid in chain} == {("dead", "boom")}


class TestDeath:
    def test_unread_messages_vanish(self):
        """Q6: what a dead process has not read is gone; its report counts it."""
        counts = Events(telemetry.ProcessCrashed, "unread")
        telemetry.attach(counts)
        pid = gpool.spawn(gevent.sleep, 60.0)
        for number in range(3):
            gpool.send(pid, number)
        gpool.exit(pid, "boom")
        settle()
        telemetry.detach(counts)
        assert counts == [(3,)]
        assert len(pid.mailbox) == 0

    def test_an_interrupt_in_the_middle_loses_nothing(self):
        """A KeyboardInterrupt that strikes while a process dies keeps nobody from hearing."""

        class Struck:
            strikes = 1

            def down(self, pid, reason):
                self.strikes -= 1
                if self.strikes >= 0:
                    raise KeyboardInterrupt

        gpool.trap_exit(True)
        pid = gpool.spawn_link(gpool.receive)
        first = gpool.monitor(pid)
        watch(pid, Struck())
        second = gpool.monitor(pid)
        settle()
        gpool.exit(pid, "boom")
        with pytest.raises(KeyboardInterrupt):
            settle()
        assert mailbox() == [Exit(pid, "boom"), Down(first, pid, "boom"), Down(second, pid, "boom")]
        assert pid not in gpool.processes()

    def test_a_kill_gets_a_process_whose_signal_was_lost(self, monkeypatch):
        """If a KeyboardInterrupt strikes in the hub's throw, a later kill throws again."""

        def struck(_):
            raise KeyboardInterrupt

        target = Actor()
        with monkeypatch.context() as patch:
            patch.setattr(signal, "_interrupt", struck)
            gpool.exit(target.pid, "boom")
            with pytest.raises(KeyboardInterrupt):
                settle()
        settle()
        assert target.pid.state == "pending"
        gpool.exit(target.pid, "kill")
        assert reason_of(target.pid) == "boom"

    def test_an_interrupt_before_the_first_line_loses_nothing(self, monkeypatch):
        """A KeyboardInterrupt that strikes on the way into a process is a death as any other."""

        def struck(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(greenlets.Process, "_run", struck)
        pid, ref = gpool.spawn_monitor(gpool.receive)
        with pytest.raises(KeyboardInterrupt):
            settle()
        settle()
        down = gpool.receive(timeout=0)
        assert (down.ref, type(down.reason.exception)) == (ref, KeyboardInterrupt)
        assert pid not in gpool.processes()

    def test_an_interrupt_at_any_line_loses_nothing(self):
        """Wherever in the death a KeyboardInterrupt strikes, links and monitors are told."""
        ours = (signal.__file__, greenlets.__file__)
        for line in itertools.count():
            left = [line]

            def strike(frame, event, _, left=left):
                if frame.f_code.co_filename not in ours:
                    return None
                if event == "line":
                    left[0] -= 1
                    if left[0] == -1:
                        sys.settrace(None)
                        raise KeyboardInterrupt
                return strike

            linked, watcher = Actor(trap=True), Actor()

            def body(strike=strike, linked=linked, watcher=watcher):
                gpool.receive()
                sys.settrace(strike)

            pid = gpool.spawn(body)
            linked.do(gpool.link, pid)
            watcher.do(gpool.monitor, pid)
            gpool.register("struck", pid)
            gpool.send(pid, "end")
            with contextlib.suppress(KeyboardInterrupt):
                settle()
            sys.settrace(None)
            settle()
            assert pid.state == "dead", line
            assert gpool.whereis("struck") is None, line
            assert [type(message) for message in linked.got][:1] == [Exit], line
            assert [type(message) for message in watcher.got][:1] == [Down], line
            if left[0] >= 0:  # the death has fewer lines
                break
        assert line > 20

    def test_can_be_called_again(self):
        """Dying is idempotent: nobody hears twice, and the reason stays."""
        target = Actor()
        gpool.register("name", target.pid)
        ref = gpool.monitor(target.pid)
        target.exit("boom")
        gpool.register("name", gpool.self())
        signal.die(target.pid, "again", [])
        assert mailbox() == [Down(ref, target.pid, "boom")]
        assert gpool.whereis("name") is gpool.self()
        assert gpool.recently_ended().count(target.pid) == 1

    def test_keeps_no_frame_alive(self):
        """The reason, the pid and the ring of the ended hold no local of the dead."""

        class Local:
            pass

        def body():
            local = Local()
            witnesses.append(weakref.ref(local))
            try:
                raise KeyError(1)
            except KeyError:
                raise ValueError(2) from KeyError(3)

        witnesses = []
        pid = gpool.spawn(body)
        reason = reason_of(pid)
        assert isinstance(reason.exception.__context__, KeyError)
        gc.collect()
        assert witnesses[0]() is None

    def test_frees_its_greenlet(self):
        """A dead process lets go of its greenlet, its server and its arguments."""

        class Argument:
            pass

        argument = Argument()
        witness = weakref.ref(argument)
        pid = gpool.spawn(lambda _: None, argument)
        glet = weakref.ref(pid.greenlet)
        settle()
        del argument
        gc.collect()
        assert (witness(), glet()) == (None, None)

    def test_pids_are_not_kept_for_ever(self):
        """A thousand processes later, all but the ring of the ended are forgotten."""
        me = gpool.self()
        witnesses = []
        for _ in range(1000):
            pid, _ref = gpool.spawn_monitor(lambda: None)
            witnesses.append(weakref.ref(pid))
            settle()
            gpool.receive(timeout=0)
        del pid, _ref
        gc.collect()
        kept = sum(witness() is not None for witness in witnesses)
        assert kept <= 256
        assert (me.monitors, me.links, len(me.mailbox)) == ({}, {}, 0)

    def test_a_long_line_of_ancestors_is_forgotten(self):
        """Who is remembered does not keep the spawners of its spawners for ever."""

        def spawn_the_next(left):
            witnesses.append(weakref.ref(gpool.self()))
            if left:
                gpool.spawn(spawn_the_next, left - 1)

        witnesses = []
        gpool.spawn(spawn_the_next, 600)
        settle()
        gc.collect()
        assert sum(witness() is not None for witness in witnesses) < 300

    def test_a_listener_may_send_from_the_last_frame(self):
        """A listener that is told of a crash may send, although the process is dead."""

        def listener(event):
            gpool.send(main, type(event).__name__)

        main = gpool.self()
        telemetry.attach(listener)
        gpool.spawn(gpool.exit, "boom")
        settle()
        telemetry.detach(listener)
        assert mailbox() == ["ProcessCrashed"]


class TestAwaitDeath:
    def test_returns_the_reason_and_leaves_nothing(self):
        """await_death blocks until the death and sets no monitor that stays."""
        target = Actor()
        gevent.spawn(gpool.exit, target.pid, "boom")
        assert process.await_death(target.pid) == "boom"
        assert process.await_death(target.pid) == "boom"

    def test_gives_up(self, clock):
        """It raises Expired when the time is over, and takes its monitor back."""
        target = Actor()
        with pytest.raises(process.Expired):
            process.await_death(target.pid, 0)
        assert target.pid.monitored_by == {}


class TestProcessInfo:
    def test_tells_what_there_is(self):
        """process_info of a living process."""
        target, other = Actor(trap=True), Actor()
        target.do(gpool.link, other.pid)
        target.do(gpool.monitor, other.pid)
        gpool.monitor(target.pid)
        gpool.register("target", target.pid)
        info = gpool.process_info("target")
        assert (info.pid, info.name, info.status) == (target.pid, "target", "waiting")
        assert (info.links, info.monitors) == ((other.pid,), (other.pid,))
        assert (info.monitored_by, info.trap_exit) == ((gpool.self(),), True)
        assert (info.parent, info.message_queue_len, info.reason) == (gpool.self(), 0, None)
        assert info.current_function.startswith("Actor._run (")

    def test_shows_that_a_server_rests(self):
        """Of a server that has nothing to do the kit's own loop would be all there is to show."""
        server = gpool.GenServer.start()
        assert gpool.process_info(server).current_function == "at rest"
        assert gpool.process_info(gpool.self()).status == "running"

    def test_knows_the_dead(self):
        """process_info and the ring still know a process that has ended."""
        pid = gpool.spawn(gpool.exit, "boom")
        gpool.register("late", pid)
        settle()
        info = gpool.process_info(pid)
        assert (info.status, info.reason, info.name) == ("dead", "boom", "late")
        assert info.ended_at >= info.started_at
        assert gpool.recently_ended()[-1] is pid
        assert pid not in gpool.processes()

    def test_shows_one_that_is_going(self):
        """A process whose exit was accepted is shown as exiting."""
        target = Actor()
        gpool.exit(target.pid, "boom")
        assert gpool.process_info(target.pid).status == "exiting"

    def test_one_item(self):
        """Every field can be asked for alone; another word is an error that lists them."""
        target = Actor(trap=True)
        gpool.link(target.pid)
        info = gpool.process_info(target.pid)
        for field in dataclasses.fields(info)[1:]:
            assert gpool.process_info(target.pid, field.name) == getattr(info, field.name)
        for odd in ("pids", []):
            with pytest.raises(ValueError, match=r"item: expected one of \[.*'links'"):
                gpool.process_info(target.pid, odd)

    def test_the_stacktrace(self):
        """Frames as lines, outermost first: of one that waits, of the caller, of none."""
        target = Actor()
        settle()
        trace = gpool.process_info(target.pid, "current_stacktrace")
        places = [place for place, line in enumerate(trace) if "in _run\n" in line]
        assert places
        assert places[-1] < len(trace) - 1  # it waits deeper inside
        mine = gpool.process_info(gpool.self(), "current_stacktrace")
        assert any("in test_the_stacktrace" in line for line in mine)
        dead = gpool.spawn(lambda: None)
        settle()
        assert gpool.process_info(dead, "current_stacktrace") == []

    def test_is_read_from_another_thread(self):
        """Who runs there is seen to run, and where: the hub that is asked may be busy."""
        main, seen = gpool.self(), []

        def look():
            while gpool.process_info(main, "status") != "running":
                pass
            seen.append(gpool.process_info(main))
            seen.append(gpool.process_info(main, "current_stacktrace"))

        looking = gevent.get_hub().threadpool.spawn(look)
        while len(seen) < 2:  # the hub gets no turn
            pass
        looking.get()
        assert "test_is_read_from_another_thread" in seen[0].current_function
        assert any("test_is_read_from_another_thread" in line for line in seen[1])


class TestPeek:
    def test_shows_the_first_messages(self):
        """As many as are wanted, in order; none is taken."""
        target = gpool.spawn(gpool.receive, lambda message: message == "end")
        settle()
        for n in range(5):
            gpool.send(target, n)
        settle()
        assert gpool.peek(target, 3) == [0, 1, 2]
        assert gpool.peek(target) == [0, 1, 2, 3, 4]
        assert gpool.process_info(target, "message_queue_len") == 5

    def test_of_one_that_never_had_any(self):
        """And of a dead one: none."""
        dead = gpool.spawn(lambda: None)
        settle()
        assert gpool.peek(dead) == gpool.peek(gpool.self()) == []


class TestPid:
    def test_is_its_own_copy(self):
        """What holds a pid or a ref can be copied: an info, an event, a message."""
        ref = gpool.monitor(gpool.self())
        down = Down(ref, gpool.self(), "x")
        assert copy.deepcopy(down) == copy.copy(down) == down
        assert dataclasses.asdict(down)["ref"] is copy.copy(ref) is ref
        assert copy.copy(gpool.self()) is gpool.self()

    def test_is_equal_to_itself_only_and_cannot_leave(self):
        """A pid has no equal and cannot be pickled."""
        one, two = Actor().pid, Actor().pid
        assert one != two
        assert repr(one) == f"#PID<{one.id}>"
        with pytest.raises(TypeError, match="cannot leave"):
            pickle.dumps(one)
