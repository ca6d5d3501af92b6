"""What is easily got wrong on gevent, trap by trap, and what gpool makes of it."""

from __future__ import annotations

import contextvars
import gc
import sys
import weakref

import gevent
import gevent.pool
import pytest
from gevent import monkey
from gevent._hub_local import get_hub_if_exists

import gpool
from gpool import Down, GenServer, telemetry
from gpool.otp.pid import watch
from gpool.testing import settle
from tests.otp.actor import Actor, mailbox, reason_of
from tests.otp.nursery import Events

start_thread = monkey.get_original("_thread", "start_new_thread")  # a native one, patched or not
VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


def killall(greenlet):
    """Kill by gevent.killall."""
    gevent.killall([greenlet], block=False)


def kill_group(greenlet):
    """Kill by a gevent Group."""
    group = gevent.pool.Group()
    group.add(greenlet)
    group.kill(block=False)


FOREIGN_KILLS = [
    lambda greenlet: greenlet.kill(block=False),
    lambda greenlet: gevent.kill(greenlet),
    killall,
    kill_group,
]
foreign_kills = pytest.mark.parametrize("kill", FOREIGN_KILLS, ids=range(len(FOREIGN_KILLS)))


def cleaning(log, *steps):
    """Wait for ever; clean up in steps, each of which blocks."""
    try:
        gevent.sleep(60.0)
    finally:
        for step in steps:
            gevent.sleep(0)
            log.append(step)


class TestForeignKills:
    @foreign_kills
    def test_before_the_first_run(self, kill):
        """T1: a kill by gevent before the first run is a death as any other, told at once."""
        ran = []
        pid, ref = gpool.spawn_monitor(ran.append, 1)
        gpool.register("unborn", pid)
        kill(pid.greenlet)
        assert mailbox() == [Down(ref, pid, "killed")]
        assert ran == []
        assert gpool.whereis("unborn") is None
        assert pid not in gpool.processes()

    @foreign_kills
    def test_after_the_first_run(self, kill):
        """T1: a kill by gevent of a process that runs is `killed`, and its cleanup runs."""
        log = []
        pid, ref = gpool.spawn_monitor(cleaning, log, 1, 2)
        gevent.sleep(0)
        kill(pid.greenlet)
        assert mailbox() == [Down(ref, pid, "killed")]
        assert log == [1, 2]

    def test_with_another_exception(self):
        """T1: gevent may throw any exception; that one is the reason."""
        early, late = gpool.spawn(gpool.receive), gpool.spawn(gpool.receive)
        early.greenlet.kill(ValueError("early"), block=False)
        gevent.sleep(0)
        late.greenlet.kill(ValueError("late"), block=False)
        assert [str(reason_of(pid).exception) for pid in (early, late)] == ["early", "late"]

    def test_thrown_by_the_hub_before_the_first_run(self, unnoticed_deaths):
        """T1: a throw that comes before the first run is a death with that reason, unprinted."""
        ran, pids = [], []
        gevent.get_hub().loop.run_callback(lambda: pids[0].greenlet.throw(ValueError("early")))
        pids.append(gpool.spawn(ran.append, 1))
        assert str(reason_of(pids[0]).exception) == "early"
        assert ran == unnoticed_deaths == []

    def test_then_start_never_runs(self):
        """T2: a process that was killed before its first run stays dead, started again or not."""
        ran = []
        pid = gpool.spawn(ran.append, 1)
        greenlet = pid.greenlet
        greenlet.kill()
        greenlet.start()
        assert reason_of(pid) == "killed"
        assert ran == []

    def test_between_start_and_throw(self):
        """T3: the reason is fixed when the signal is accepted, not when it is thrown."""
        log = []
        pid = gpool.spawn(cleaning, log, 1)
        gevent.sleep(0)
        gpool.exit(pid, "first")
        pid.greenlet.kill(block=False)
        gpool.exit(pid, "third")
        assert reason_of(pid) == "first"
        assert log == [1]

    def test_of_a_trapping_process(self):
        """T1: trap_exit does not hold a kill by gevent."""
        target = Actor(trap=True)
        target.pid.greenlet.kill(block=False)
        assert reason_of(target.pid) == "killed"


class TestUnwinding:
    @pytest.mark.parametrize("second", ["signal", "foreign"])
    def test_is_not_cut_by_a_second_exit(self, second):
        """T4: one throw a process: a second exit does not abort a cleanup that blocks."""
        log = []
        pid = gpool.spawn(cleaning, log, 1, 2, 3)
        gevent.sleep(0)
        gpool.exit(pid, "first")
        for _ in range(3):
            gevent.sleep(0)
            if second == "signal":
                gpool.exit(pid, "second")
            else:
                pid.greenlet.kill(block=False)
        assert reason_of(pid) == "first"
        assert log == [1, 2, 3]

    def test_a_value_is_no_success(self):
        """T5: a body that turns its exit into a value has died of the exit all the same."""

        def body():
            try:
                gevent.sleep(60.0)
            except gevent.GreenletExit:
                return 42

        signalled, killed = gpool.spawn(body), gpool.spawn(body)
        gevent.sleep(0)
        gpool.exit(signalled, "boom")
        killed.greenlet.kill(block=False)
        assert (reason_of(signalled), reason_of(killed)) == ("boom", "killed")

    def test_except_exception_lets_an_exit_pass(self):
        """T6: user code that catches Exception does not swallow an exit."""

        def body():
            while True:
                try:
                    gpool.receive()
                except Exception:  # noqa: BLE001  # that is the point
                    continue

        pid = gpool.spawn(body)
        settle()
        gpool.exit(pid, "boom")
        assert reason_of(pid) == "boom"

    def test_a_swallower_does_not_hold_its_killer(self):
        """T6: exit(P, kill) returns at once, and DOWN comes, whatever P does."""

        def body():
            while True:
                try:
                    gevent.sleep(60.0, ref=False)
                except:  # noqa: E722  # that is the point
                    continue

        pid, ref = gpool.spawn_monitor(body)
        settle()
        gpool.exit(pid, "kill")
        assert mailbox() == [Down(ref, pid, "killed")]
        assert gpool.zombies() == [pid]

    def test_an_error_in_finally_does_not_replace_the_reason(self):
        """T16: the reason is the accepted one; the error of the cleanup is reported beside it."""

        def body():
            try:
                gevent.sleep(60.0)
            finally:
                raise ValueError("cleanup")

        failures = Events(telemetry.CleanupFailed, "process", "exception")
        telemetry.attach(failures)
        pid = gpool.spawn(body)
        settle()
        gpool.exit(pid, "boom")
        assert reason_of(pid) == "boom"
        telemetry.detach(failures)
        assert [(process, str(error)) for process, error in failures] == [(pid, "cleanup")]


class TestCrashes:
    def test_print_nothing(self, capfd, unnoticed_deaths):
        """T7: a crash never gets as far as the hub: it is one event, no text on stderr."""
        assert isinstance(reason_of(gpool.spawn(int, "x")), gpool.Error)
        assert capfd.readouterr() == ("", "")
        assert unnoticed_deaths == []

    def test_system_exit_ends_the_process_only(self):
        """T8: SystemExit in a process is its reason; main and the others go on."""
        other = Actor()
        reason = reason_of(gpool.spawn(exit_the_system))
        assert isinstance(reason.exception, SystemExit)
        assert other.alive

    def test_a_keyboard_interrupt_reaches_main_after_the_death(self):
        """T8: Ctrl-C that strikes in a process ends it, is told, and then is main's."""
        gpool.trap_exit(True)

        def body():
            raise KeyboardInterrupt

        other = Actor()
        pid = gpool.spawn_link(body)
        with pytest.raises(KeyboardInterrupt):
            settle()
        (message,) = mailbox()
        assert message.pid is pid
        assert isinstance(message.reason.exception, KeyboardInterrupt)
        assert other.alive

    def test_links_are_told_before_anybody_sees_it_dead(self):
        """T9: nobody runs between the end of the greenlet and EXIT and DOWN."""
        seen = []

        class Watch:
            def down(self, pid, reason):
                seen.append((greenlet.dead, pid.state, gpool.is_alive(pid)))

        pid, ref = gpool.spawn_monitor(lambda: None)
        greenlet = pid.greenlet
        watch(pid, Watch())

        def observe():
            while not greenlet.dead:
                gevent.sleep(0)
            seen.append(gpool.process_info(main).message_queue_len)

        main = gpool.self()
        gevent.spawn(observe)
        settle()
        assert seen == [(False, "dead", False), 1]
        assert mailbox() == [Down(ref, pid, "normal")]

    def test_a_monitor_may_do_what_a_gevent_link_may_not(self):
        """T10: one that raises harms nobody; set twice and taken back once is one."""
        target = Actor()
        refs = [gpool.monitor(target.pid) for _ in range(2)]
        gpool.demonitor(refs[0])
        target.exit("boom")
        assert mailbox() == [Down(refs[1], target.pid, "boom")]

    def test_a_frame_is_not_kept_by_a_reason(self):
        """T27: a reason that is kept keeps no locals of the dead, nor those of its causes."""

        class Local:
            pass

        def fail(local):
            raise ValueError

        def body():
            local = Local()
            witnesses.append(weakref.ref(local))
            try:
                fail(local)
            except ValueError as error:
                raise ExceptionGroup("all", [KeyError(1), error]) from error

        witnesses = []
        reason = reason_of(gpool.spawn(body))
        gc.collect()
        assert witnesses[0]() is None
        assert "in fail" in reason.format()


def exit_the_system():
    """Raise SystemExit."""
    raise SystemExit(3)


class TestSenders:
    def test_go_on_after_a_signal(self):
        """T11: exit(P, R) returns to the sender, who is not left unscheduled."""
        one, two = Actor(), Actor()
        assert one.do(lambda: [gpool.exit(two.pid, "boom"), "went on"][1]) == "went on"
        assert one.do(lambda: "and goes on") == "and goes on"

    def test_a_message_before_a_signal_is_not_lost_on_the_way(self):
        """T12: a message is in the mailbox once it is sent; the exit does not tear it out."""
        got = []

        def body():
            got.append(gpool.receive())
            got.append(gpool.receive())

        pid = gpool.spawn(body)
        settle()
        gpool.send(pid, "woke")
        gpool.exit(pid, "boom")
        assert reason_of(pid) == "boom"
        assert got == ["woke"]

    def test_a_message_after_a_signal_is_never_read(self):
        """T12: what is sent to a process whose exit is accepted stays unread, as in OTP."""
        got = []
        pid = gpool.spawn(lambda: got.append(gpool.receive()))
        settle()
        gpool.exit(pid, "boom")
        gpool.send(pid, "late")
        assert reason_of(pid) == "boom"
        assert got == []

    def test_a_stale_wake_up_does_not_end_the_next_wait(self):
        """T13: a wake-up that was queued for a wait that was left ends no other wait."""
        got = []

        def body():
            try:
                with gevent.Timeout(0):
                    gpool.receive(lambda _: False)
            except gevent.Timeout:
                got.append("timeout")
            got.append(gpool.receive(lambda message: message == "real"))

        pid = gpool.spawn(body)
        for _ in range(3):
            gpool.send(pid, "stale")
            gevent.sleep(0.001)
        assert got == ["timeout"]
        gpool.send(pid, "real")
        settle()
        assert got == ["timeout", "real"]

    def test_exit_of_oneself_raises_at_once(self):
        """T14: a process that ends itself runs no further, not even to its next wait."""
        log = []

        def body():
            gpool.exit(gpool.self(), "kill")
            log.append("went on")

        assert reason_of(gpool.spawn(body)) == "killed"
        assert log == []

    def test_a_killer_that_is_killed_has_killed(self):
        """T15: the signal is accepted when exit returns, whatever then becomes of the sender."""
        log = []
        target = gpool.spawn(cleaning, log, 1)
        killer = gpool.spawn(lambda: [gpool.exit(target, "boom"), gpool.receive()])
        settle_twice()
        gpool.exit(killer, "kill")
        assert (reason_of(target), reason_of(killer)) == ("boom", "killed")
        assert log == [1]


def settle_twice():
    """Let everybody run, and those whom they woke."""
    settle()
    settle()


class TestTimeouts:
    @pytest.mark.parametrize("wait", ["receive", "call", "start"])
    def test_of_the_user_pass_through(self, wait):
        """T17: a gevent.Timeout of the user's passes through a wait of gpool's as it is."""
        server = GenServer.start()
        gpool.sys.suspend(server)
        waits = {
            "receive": gpool.receive,
            "call": lambda: server.call(1),
            "start": lambda: Slow.start_link(),
        }
        mine = gevent.Timeout(0.001)
        with pytest.raises(gevent.Timeout) as raised, mine:
            waits[wait]()
        assert raised.value is mine
        settle()
        assert gpool.self().links == {}
        assert server.pid.monitored_by == {}
        assert mailbox() == []

    def test_that_leak_are_errors(self):
        """T17: a gevent.Timeout that nobody catches is the reason Error(Timeout)."""

        def body():
            with gevent.Timeout(0.001):
                gpool.receive()

        pid, _ = gpool.spawn_monitor(body)
        assert isinstance(gpool.receive(timeout=10.0).reason.exception, gevent.Timeout)
        assert pid.state == "dead"


class Slow(GenServer):
    """A server whose init never ends."""

    def init(self):
        """Wait."""
        gevent.event.Event().wait()


class TestIdentity:
    def test_pids_and_refs_are_never_used_again(self):
        """T18: two thousand processes one after the other have two thousand numbers."""
        numbers, refs = [], []
        for _ in range(2000):
            pid, ref = gpool.spawn_monitor(lambda: None)
            numbers.append(pid.id)
            refs.append(ref.id)
            settle()
        assert len(set(numbers)) == len(set(refs)) == 2000
        assert numbers == sorted(numbers)

    def test_a_process_that_nobody_references_is_found(self):
        """T19: a blocked process that nobody holds is in the table, and can be ended."""
        gpool.spawn(gpool.receive)
        settle()
        gc.collect()
        orphan = gpool.processes()[-1]
        assert gpool.process_info(orphan).initial_call == "receive"
        gpool.exit(orphan, "kill")
        assert reason_of(orphan) == "killed"

    def test_spawn_link_ties_a_life_to_its_spawners(self):
        """T20: killing the spawner ends what it has linked, and nothing else."""
        spawner = Actor()
        linked = spawner.do(gpool.spawn_link, gpool.receive)
        free = spawner.do(gpool.spawn, gpool.receive)
        gpool.exit(spawner.pid, "kill")
        assert reason_of(linked) == "killed"
        assert gpool.is_alive(free)

    def test_contexts_are_copied_not_shared(self):
        """T21: each process has its own context variables, a copy of its spawner's."""
        seen = []

        def body(value):
            seen.append(VARIABLE.get())
            VARIABLE.set(value)
            gevent.sleep(0)
            seen.append(VARIABLE.get())

        token = VARIABLE.set("main's")
        for value in ("one", "two"):
            gpool.spawn(body, value)
        settle()
        assert VARIABLE.get() == "main's"
        VARIABLE.reset(token)
        assert seen == ["main's", "main's", "one", "two"]


class TestThreads:
    @staticmethod
    def run(fn, *args):
        """Run something in a native thread while this thread's loop goes on."""
        return gevent.get_hub().threadpool.apply(fn, args)

    def test_may_send_and_exit(self):
        """T22: send, cast and exit from another thread arrive, and wake the loop."""
        casts = []

        class Server(GenServer):
            def handle_cast(self, request):
                casts.append(request)

        main, server = gpool.self(), Server.start()
        target, ref = gpool.spawn_monitor(gpool.receive)

        def elsewhere():
            gpool.send(main, "sent")
            server.cast("cast")
            gpool.exit(target, "boom")

        self.run(elsewhere)
        is_down = lambda message: type(message) is Down  # noqa: E731
        assert gpool.receive(is_down, timeout=10.0) == Down(ref, target, "boom")
        assert mailbox() == ["sent"]
        assert casts == ["cast"]

    def test_wake_an_idle_loop(self):
        """T22: a thread without a hub reaches a main greenlet that waits, and gets no hub."""
        main, hubs = gpool.self(), []

        def elsewhere():
            gpool.exit(main, "ignored by one that traps")
            gpool.send(main, "hello")
            hubs.append(get_hub_if_exists())
            gpool.send(main, "done")

        gpool.trap_exit(True)
        start_thread(elsewhere, ())
        for word in ("hello", "done"):
            assert gpool.receive(lambda message, word=word: message == word, timeout=10.0) == word
        stranger = gpool.receive(timeout=0).pid
        assert hubs == [None]
        gpool.send(stranger, "nobody is there")
        gpool.exit(stranger, "nobody is there")
        assert not gpool.is_alive(stranger)

    @pytest.mark.parametrize(
        "use",
        [
            gpool.link,
            gpool.unlink,
            gpool.monitor,
            lambda pid: gpool.register("name", pid),
            lambda pid: pid.server.call(1),
            gpool.stop,
            gpool.sys.get_state,
        ],
    )
    def test_may_do_nothing_else(self, use):
        """T22: everything else raises WrongHub, which says what to do."""
        server = GenServer.start()

        def elsewhere():
            with pytest.raises(gpool.WrongHub, match="across threads only send, cast and exit"):
                use(server.pid)

        self.run(elsewhere)
        assert server.pid.links == server.pid.monitored_by == {}

    def test_have_processes_of_their_own(self):
        """T22: a thread's own processes work there as here."""

        def elsewhere():
            pid, ref = gpool.spawn_monitor(gpool.exit, "boom")
            return gpool.receive(timeout=10.0) == Down(ref, pid, "boom")

        assert self.run(elsewhere) is True

    def test_leave_no_processes_behind(self):
        """T22: what an ended thread had, names too, is forgotten when another one uses gpool."""
        before, idents = gpool.processes(), []

        def elsewhere():
            gpool.spawn_link(gpool.receive)
            gpool.register("the thread's", gpool.spawn_monitor(gpool.receive)[0])
            gevent.sleep(0)
            idents.append(get_hub_if_exists().thread_ident)

        for count in (1, 2, 3):
            start_thread(elsewhere, ())
            while len(idents) < count or idents[-1] in sys._current_frames():
                gevent.sleep(0.001)
        left = set(gpool.processes()) - set(before)
        assert {pid.initial_call for pid in left} <= {"main", "receive"}
        assert len(left) == 3  # of the latest

    def test_that_have_ended_swallow_messages(self):
        """T22: a send to a process of a thread that is gone is a send to the dead."""
        pids, done = [], []

        def elsewhere():
            pids.append(gpool.spawn(gpool.receive))
            gevent.get_hub().destroy(destroy_loop=True)
            done.append(True)

        start_thread(elsewhere, ())
        while not done:
            gevent.sleep(0.001)
        gpool.send(pids[0], 1)
        gpool.exit(pids[0], "kill")


class TestTheLoop:
    def test_a_busy_process_dies_at_its_next_wait(self):
        """T25: a process that computes cannot be cut; the reason is that of the acceptance."""
        log = []

        def body():
            gevent.sleep(0)
            gpool_free_computing(log)
            gevent.sleep(60.0)
            log.append("never")

        pid = gpool.spawn(body)
        gevent.sleep(0)
        gpool.exit(pid, "boom")
        assert not gpool.is_alive(pid)
        assert reason_of(pid) == "boom"
        assert log == ["computed"]

    def test_signals_are_delivered_one_a_callback(self):
        """T26: accepting a thousand signals runs nothing; each throw is a callback of its own."""
        log = []
        pids = [gpool.spawn(cleaning, log, number) for number in range(1000)]
        settle()
        for pid in pids:
            gpool.exit(pid, "boom")
        assert log == []
        assert {pid.state for pid in pids} == {"pending"}
        settle()
        assert log == list(range(1000))

    def test_a_call_with_no_one_to_wake_it_is_a_deadlock(self):
        """T24: a main greenlet that waits for ever in an idle thread gets its LoopExit."""

        def elsewhere():
            with pytest.raises(gevent.exceptions.LoopExit):
                gpool.receive()

        gevent.get_hub().threadpool.apply(elsewhere)


def gpool_free_computing(log):
    """Compute something without a primitive and without a wait."""
    log.append("computed")
