"""Servers: OTP's rules one by one, by their labels."""

from __future__ import annotations

import contextvars

import gevent
import pytest

import gpool
from gpool import (
    CallingSelf,
    CallTimeout,
    Continue,
    Down,
    Exit,
    IdleTimeout,
    Ignore,
    NoProcess,
    NoReply,
    Reply,
    ServerExited,
    StartError,
    Stop,
    telemetry,
)
from gpool.otp import gen_server, signal
from gpool.otp.gen import From, send_call, send_cast
from gpool.otp.gen_server import TIMEOUT
from gpool.testing import settle
from tests.otp.actor import Actor, mailbox, reason_of
from tests.otp.nursery import Attempt, Events

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


class Scripted(gpool.GenServer):
    """A server whose callbacks are functions that the test gives; it logs what it is asked."""

    def __init__(self, trap=False, **callbacks):
        self.trap = trap
        self.callbacks = callbacks
        self.log = []

    def _run(self, callback, *args, default=None):
        self.log.append((callback, *args))
        fn = self.callbacks.get(callback)
        return default if fn is None else fn(*args)

    def init(self):
        """Run the script."""
        gpool.trap_exit(self.trap)
        return self._run("init")

    def handle_call(self, request, from_):
        """Answer with the request, or as the script says."""
        self.log.append(("call", request))
        fn = self.callbacks.get("call")
        return Reply(request) if fn is None else fn(request, from_)

    def handle_cast(self, request):
        """Run the script."""
        return self._run("cast", request)

    def handle_info(self, message):
        """Run the script."""
        return self._run("info", message)

    def handle_continue(self, argument):
        """Run the script."""
        return self._run("continue", argument)

    def terminate(self, reason):
        """Run the script."""
        self._run("terminate", reason)

    def terminations(self):
        """Return the reasons that terminate has seen."""
        return [entry[1] for entry in self.log if entry[0] == "terminate"]


def raising(error):
    """Return a callback that raises."""

    def callback(*_):
        raise error

    return callback


def answering(answer):
    """Return a callback that returns `answer`."""
    return lambda *_: answer


class TestStart:
    @pytest.mark.parametrize("answer", [None, IdleTimeout(5.0), Continue("next")])
    def test_returns_when_init_has_finished(self, answer):
        """G1: start_link returns the handle after init, which may answer three things."""
        go = gevent.event.Event()
        server = Scripted(init=lambda: [go.wait(), answer][1])
        attempt = Attempt(lambda: gen_server._start(server, None, None, link=True))
        assert not attempt.done
        go.set()
        settle()
        assert attempt.value is server
        assert server.log[0] == ("init",)

    @pytest.mark.parametrize(
        ("init", "reason"),
        [
            (lambda: gpool.exit("why"), "why"),
            (answering(Stop("why")), "why"),
            (answering(42), ("bad_return_value", 42)),
            (answering(Reply(1)), ("bad_return_value", Reply(1))),
        ],
    )
    @pytest.mark.parametrize("start", ["start", "start_link", "start_monitor"])
    def test_fails_with_the_reason(self, init, reason, start):
        """G2: what init answers or exits with is the reason of the StartError."""
        with pytest.raises(StartError) as failed:
            getattr(Scripted, start)(init=init)
        assert failed.value.reason == reason
        assert mailbox() == []

    def test_fails_with_the_exception(self):
        """G2: what init raises is the reason, and the cause of the StartError."""
        error = ValueError("no")
        with pytest.raises(StartError, match="Scripted did not start") as failed:
            Scripted.start(init=raising(error))
        assert failed.value.reason == gpool.Error(error)
        assert failed.value.__cause__ is error

    def test_ignore_is_no_error(self):
        """G2: a server that ignores its start dies normally; its handle has no pid."""
        pids = []
        server = Scripted.start_link(init=lambda: [pids.append(gpool.self()), Ignore()][1])
        assert server.pid is None
        assert reason_of(pids[0]) == "normal"
        with pytest.raises(NoProcess):
            server.call(1)

    def test_a_slow_init_is_killed(self, clock):
        """G2: init slower than start_timeout is killed, and leaves no message."""
        attempt = Attempt(
            lambda: Scripted.start_link(
                init=lambda: gevent.event.Event().wait(), start_timeout=2.0, server_name="slow"
            )
        )
        slow = gpool.whereis("slow")
        clock.advance(1.9)
        assert not attempt.done
        clock.advance(0.1)
        assert attempt.error.reason == "timeout"
        assert slow.reason == "killed"
        assert gpool.whereis("slow") is None
        assert len(attempt.pid.mailbox) == 0

    @pytest.mark.parametrize("trap", [False, True])
    @pytest.mark.parametrize(
        "init", [raising(ValueError()), answering(Stop("x")), lambda: gpool.exit("x")]
    )
    def test_a_failed_start_leaves_nothing(self, trap, init):
        """G3: the caller lives, its mailbox is empty, the name free, the child dead."""
        pids = []
        gpool.trap_exit(trap)
        with pytest.raises(StartError):
            Scripted.start_link(
                init=lambda: [pids.append(gpool.self()), init()][1], server_name="name"
            )
        assert pids[0].state == "dead"
        assert gpool.whereis("name") is None
        assert gpool.self().links == {}
        assert mailbox() == []

    def test_a_failed_start_monitor_leaves_no_down(self):
        """M6: a start_monitor that fails or is ignored leaves no DOWN behind."""
        with pytest.raises(StartError):
            Scripted.start_monitor(init=raising(ValueError()))
        server, _ = Scripted.start_monitor(init=answering(Ignore()))
        assert server.pid is None
        assert mailbox() == []
        assert gpool.self().monitors == {}

    def test_without_a_link_has_no_parent(self):
        """G4: an EXIT of the starter of an unlinked server is an ordinary message."""
        starter = Actor()
        server = starter.do(lambda: Scripted.start(trap=True))
        starter.do(gpool.exit, server.pid, "boom")
        assert server.log[-1] == ("info", Exit(starter.pid, "boom"))
        assert gpool.is_alive(server)

    def test_start_monitor_gives_handle_and_reference(self):
        """G4: start_monitor returns the server and the monitor that is set on it."""
        server, ref = Scripted.start_monitor()
        gpool.stop(server)
        assert mailbox() == [Down(ref, server.pid, "normal")]

    @pytest.mark.parametrize("blow", ["exit", "kill", "timeout", "foreign kill"])
    def test_a_starter_that_is_struck_leaves_nothing(self, blow):
        """G3: a starter that is cut down while it waits takes the half-started server along."""
        log = []

        def start():
            try:
                with gevent.Timeout(0.0 if blow == "timeout" else None):
                    Scripted.start_link(init=lambda: gevent.sleep(60.0), server_name="half")
            except gevent.Timeout:
                log.append("timeout")
                gpool.receive()

        starter = gpool.spawn(start)
        if blow == "timeout":
            gevent.sleep(0.001)
        settle_until(lambda: gpool.whereis("half") is not None or log)
        half = gpool.whereis("half")
        match blow:
            case "exit":
                gpool.exit(starter, "boom")
            case "kill":
                gpool.exit(starter, "kill")
            case "foreign kill":
                starter.greenlet.kill(block=False)
        settle()
        assert gpool.whereis("half") is None
        assert half is None or half.state == "dead"
        assert (starter.links, len(starter.mailbox)) == ({}, 0)
        assert log == (["timeout"] if blow == "timeout" else [])

    @pytest.mark.parametrize("timeout", [-1, "5", True, float("nan")])
    def test_refuses_a_bad_timeout(self, timeout):
        """A start_timeout that is no number of seconds is refused before anything starts."""
        with pytest.raises((TypeError, ValueError), match="expected seconds"):
            Scripted.start(start_timeout=timeout)

    def test_an_error_in_the_constructor_is_the_callers(self):
        """What __init__ raises is raised where it is called, and nothing starts."""
        with pytest.raises(TypeError):
            gpool.GenServer.start(42)


def settle_until(condition):
    """Let others run until `condition` holds."""
    for _ in range(100):
        settle()
        if condition():
            return


class TestContinue:
    def test_runs_after_the_start_and_before_any_message(self):
        """G5: handle_continue runs when start_link has returned, before queued messages."""
        log = []

        def init():
            gpool.send(gpool.self(), "queued")
            return Continue(1)

        def go_on(argument):
            log.append(argument)
            return Continue(argument + 1) if argument < 3 else None

        Scripted.start_link(
            init=init, **{"continue": go_on}, info=lambda message: log.append(message)
        )
        log.append("returned")
        settle()
        assert log == ["returned", 1, 2, 3, "queued"]

    def test_after_a_call(self):
        """G5: a continuation that a reply asks for runs before the next message."""
        server = Scripted.start(call=lambda request, _: Reply(request, Continue(request)))
        send_cast(server, "later")
        server.call(7)
        settle()
        assert [entry[0] for entry in server.log] == ["init", "cast", "call", "continue"]


class TestCall:
    def test_is_answered(self):
        """A call returns what handle_call replies."""
        assert Scripted.start().call({"a": 1}) == {"a": 1}

    def test_of_the_dead_and_of_nobody_raises_at_once(self):
        """G6: NoProcess for a dead server, its handle, and a free name."""
        server = Scripted.start()
        gpool.stop(server)
        for who in (server, server.pid, "nobody"):
            with pytest.raises(NoProcess):
                send_call(who, 1)

    def test_of_oneself_raises(self):
        """G6: a server that calls itself would wait for ever; it is told."""
        server = Scripted.start(call=lambda request, _: send_call(gpool.self(), request))
        with pytest.raises(ServerExited) as exited:
            server.call(1)
        assert isinstance(exited.value.__cause__, CallingSelf)

    def test_with_timeout_0_does_not_wait(self):
        """G6: timeout 0 times out at once; the server gets the request all the same."""
        server = Scripted.start()
        with pytest.raises(CallTimeout, match="within 0 s"):
            server.call(1, timeout=0)
        settle()
        assert ("call", 1) in server.log

    @pytest.mark.parametrize("reason", ["normal", "shutdown", ("shutdown", 1), "boom", "kill"])
    def test_fails_for_everybody_when_the_server_dies(self, reason):
        """G7: each pending caller gets ServerExited with the reason at once."""
        server = Scripted.start(call=answering(NoReply()))
        attempts = [Attempt(server.call, number) for number in range(3)]
        if reason == "normal":
            gpool.stop(server)
        else:
            gpool.exit(server.pid, reason)
        settle()
        died_of = "killed" if reason == "kill" else reason
        assert [type(attempt.error) for attempt in attempts] == [ServerExited] * 3
        assert {str(attempt.error.reason) for attempt in attempts} == {str(died_of)}

    def test_a_crash_is_the_cause(self):
        """G7: the exception that the server died of is the cause of each caller's error."""
        error = ValueError("boom")
        server = Scripted.start(call=raising(error))
        with pytest.raises(ServerExited, match="died before it answered") as exited:
            server.call(1)
        assert exited.value.__cause__ is error
        assert exited.value.reason == gpool.Error(error)

    def test_gives_up_after_its_timeout(self, clock):
        """G8: the default is 5 s; the server lives, runs the request, and nobody gets the reply."""
        go = gevent.event.Event()
        server = Scripted.start(call=lambda request, _: [go.wait(), Reply(request)][1])
        attempt = Attempt(server.call, 1)
        clock.advance(4.9)
        assert not attempt.done
        clock.advance(0.1)
        assert (attempt.error.timeout, attempt.error.server) == (5.0, server.pid)
        go.set()
        settle()
        assert server.log == [("init",), ("call", 1)]
        assert server.pid.monitored_by == {}
        assert len(attempt.pid.mailbox) == 0

    def test_a_reply_that_is_there_wins(self, clock):
        """G8: a reply that came before the timer fired is taken."""
        froms = []
        server = Scripted.start(call=lambda _, from_: [froms.append(from_), NoReply()][1])
        attempt = Attempt(server.call, 1)
        assert gpool.reply(froms[0], "in time") is True
        froms[0].expire()
        settle()
        assert attempt.value == "in time"

    def test_a_late_reply_is_dropped(self):
        """G8: a reply to a caller that has given up is dropped, and reply says so."""
        froms = []
        server = Scripted.start(call=lambda _, from_: [froms.append(from_), NoReply()][1])
        with pytest.raises(CallTimeout):
            server.call(1, timeout=0)
        settle()
        assert gpool.reply(froms[0], "late") is False
        assert mailbox() == []

    def test_leaves_nothing_behind_when_the_caller_dies(self):
        """M5: a caller that is killed while it waits leaves no entry at the server."""
        server = Scripted.start(call=answering(NoReply()))
        attempts = [Attempt(server.call, number) for number in range(20)]
        for attempt in attempts:
            gpool.exit(attempt.pid, "kill")
        settle()
        assert server.pid.monitored_by == {}

    def test_a_users_timeout_leaves_nothing_behind(self):
        """A gevent.Timeout of the caller's passes through a call and leaves no entry."""
        server = Scripted.start(call=answering(NoReply()))
        mine = gevent.Timeout(0.001)
        with pytest.raises(gevent.Timeout) as raised, mine:
            server.call(1)
        assert raised.value is mine
        assert server.pid.monitored_by == {}

    def test_a_server_may_call_another(self):
        """Calls nest."""
        inner = Scripted.start(call=lambda request, _: Reply(request + 1))
        outer = Scripted.start(call=lambda request, _: Reply(inner.call(request) * 10))
        assert outer.call(1) == 20


class TestReply:
    def test_from_any_process_works(self):
        """G9: after NoReply any process may answer."""
        froms = []
        server = Scripted.start(call=lambda _, from_: [froms.append(from_), NoReply()][1])
        attempt = Attempt(server.call, 1)
        assert Actor().do(gpool.reply, froms[0], "other") is True
        settle()
        assert attempt.value == "other"

    def test_a_second_one_is_dropped(self):
        """G9: the second reply is dropped, and says so."""
        froms = []
        server = Scripted.start(call=lambda _, from_: [froms.append(from_), NoReply()][1])
        attempt = Attempt(server.call, 1)
        assert gpool.reply(froms[0], 1) is True
        assert gpool.reply(froms[0], 2) is False
        settle()
        assert attempt.value == 1
        assert len(attempt.pid.mailbox) == 0

    def test_with_stop_comes_after_terminate(self):
        """G10: Stop with a reply: terminate, then the reply, then EXIT."""
        log = []
        server = Scripted.start_link(
            call=answering(Stop("shutdown", reply="bye")), terminate=log.append
        )
        gpool.trap_exit(True)
        log.append(server.call(1))
        log.extend(message.reason for message in mailbox())
        assert log == ["shutdown", "bye", "shutdown"]

    def test_with_stop_is_sent_although_terminate_raises(self):
        """G10: the reply goes out even if terminate fails; its error is the reason then."""
        server = Scripted.start(
            call=answering(Stop("normal", reply="bye")), terminate=raising(ValueError("late"))
        )
        assert server.call(1) == "bye"
        assert isinstance(reason_of(server.pid).exception, ValueError)

    def test_stop_without_one_is_the_reason(self):
        """G10: a caller that is not answered learns why the server stopped."""
        server = Scripted.start(call=answering(Stop("why")))
        with pytest.raises(ServerExited) as exited:
            server.call(1)
        assert exited.value.reason == "why"


class TestBadAnswers:
    @pytest.mark.parametrize("callback", ["call", "cast", "info", "continue"])
    @pytest.mark.parametrize("answer", [42, Ignore(), "ok", Reply(1, then=7)])
    def test_end_the_server(self, callback, answer):
        """G11: an answer that is none ends the server, and terminate sees why."""
        server = Scripted.start(
            **{callback: answering(answer)},
            **({"init": answering(Continue(1))} if callback == "continue" else {}),
        )
        trigger(server, callback)
        reason = ("bad_return_value", answer)
        assert reason_of(server.pid) == reason
        assert server.terminations() == [reason]

    @pytest.mark.parametrize("callback", ["cast", "info"])
    def test_a_reply_to_nobody_is_one(self, callback):
        """G11: only a call can be answered."""
        server = Scripted.start(**{callback: answering(Reply(1))})
        trigger(server, callback)
        assert reason_of(server.pid) == ("bad_return_value", Reply(1))

    def test_none_is_one_for_a_call(self):
        """G11: handle_call must say whether it replies."""
        server = Scripted.start(call=answering(None))
        trigger(server, "call")
        assert reason_of(server.pid) == ("bad_return_value", None)


def trigger(server, callback):
    """Have one callback of a server called."""
    match callback:
        case "call":
            Attempt(server.call, 1)
        case "cast":
            server.cast(1)
        case "info":
            gpool.send(server, 1)
    settle()


class TestCrash:
    @pytest.mark.parametrize("callback", ["call", "cast", "info", "continue"])
    def test_runs_terminate_with_the_error(self, callback):
        """G11: a callback that raises: terminate sees the Error, then the server dies of it."""
        error = ValueError("boom")
        server = Scripted.start(
            **{callback: raising(error)},
            **({"init": answering(Continue(1))} if callback == "continue" else {}),
        )
        trigger(server, callback)
        assert reason_of(server.pid) == gpool.Error(error)
        assert server.terminations() == [gpool.Error(error)]

    def test_exit_normal_is_a_clean_stop(self, crashes):
        """G11: exit(normal) in a handler stops the server without a report."""
        server = Scripted.start(cast=lambda _: gpool.exit("normal"))
        trigger(server, "cast")
        assert reason_of(server.pid) == "normal"
        assert server.terminations() == ["normal"]
        assert crashes == []

    def test_the_report_has_the_last_message(self):
        """R15: the report of a server says which message it crashed on."""
        reports = Events(telemetry.ProcessCrashed, "last_message")
        telemetry.attach(reports)
        server = Scripted.start(info=raising(ValueError()))
        gpool.send(server, "bad message")
        settle()
        telemetry.detach(reports)
        assert reports == [("bad message",)]


class TestAbandonedRequests:
    def test_a_timeout_abandons_the_request(self):
        """G12: gpool has no request ids; a call in a process of its own can be given up."""
        froms = []
        server = Scripted.start(call=lambda _, from_: [froms.append(from_), NoReply()][1])
        attempt = Attempt(server.call, 1, None)
        gpool.exit(attempt.pid, "kill")
        settle()
        assert gpool.reply(froms[0], "late") is False

    def test_to_a_missing_name_is_an_error_not_an_exit(self):
        """G12: nobody there is an exception of the caller's, never an exit signal."""
        attempt = Attempt(send_call, "nobody", 1)
        assert type(attempt.error) is NoProcess
        assert attempt.pid.reason == "normal"


class TestDefaults:
    def test_an_unknown_message_is_reported_and_dropped(self, unexpected):
        """G13: without handle_info the server says so and goes on."""
        server = gpool.GenServer.start()
        gpool.send(server, "what")
        settle()
        assert unexpected == [(server.pid, "what")]
        assert gpool.is_alive(server)

    @pytest.mark.parametrize("verb", ["call", "cast"])
    def test_an_unknown_request_is_a_crash(self, verb):
        """G13: a call or cast that the server does not handle ends it."""
        server = gpool.GenServer.start()
        trigger(server, verb)
        assert isinstance(reason_of(server.pid).exception, TypeError)


class TestIdleTimeout:
    def test_fires_after_silence(self, clock):
        """G14: handle_info(TIMEOUT) is called when nothing came for so long, once."""
        server = Scripted.start(init=answering(IdleTimeout(2.0)))
        clock.advance(1.9)
        assert server.log == [("init",)]
        clock.advance(0.1)
        assert server.log[1:] == [("info", TIMEOUT)]
        clock.advance(100.0)
        assert len(server.log) == 2

    def test_any_message_cancels_it(self, clock):
        """G14: a message takes the timeout back."""
        server = Scripted.start(init=answering(IdleTimeout(2.0)))
        clock.advance(1.9)
        server.cast(1)
        clock.advance(100.0)
        assert server.log[1:] == [("cast", 1)]

    def test_0_fires_only_if_the_mailbox_is_empty(self):
        """G14: a message that is there comes first, and cancels it."""

        def init():
            gpool.send(gpool.self(), "there")
            return IdleTimeout(0)

        busy, idle = Scripted.start(init=init), Scripted.start(init=answering(IdleTimeout(0)))
        settle()
        assert busy.log[1:] == [("info", "there")]
        assert idle.log[1:] == [("info", TIMEOUT)]

    def test_a_system_message_restarts_it(self, clock):
        """G14: looking into the server starts the full time again."""
        server = Scripted.start(init=answering(IdleTimeout(2.0)))
        clock.advance(1.5)
        gpool.sys.get_state(server)
        clock.advance(1.9)
        assert server.log == [("init",)]
        clock.advance(0.1)
        assert server.log[1:] == [("info", TIMEOUT)]

    @pytest.mark.parametrize("answer", ["reply", "noreply", "cast"])
    def test_can_follow_any_callback(self, clock, answer):
        """G14: Reply, NoReply and the others may ask for it."""
        idle = IdleTimeout(1.0)
        server = Scripted.start(
            call=answering(Reply(1, idle) if answer == "reply" else NoReply(idle)),
            cast=answering(idle),
        )
        trigger(server, "cast" if answer == "cast" else "call")
        clock.advance(1.0)
        assert server.log[-1] == ("info", TIMEOUT)


class TestInterrupts:
    def test_that_strike_in_a_signalled_server_reach_main(self):
        """A Ctrl-C is not lost because the server that it strikes is being stopped."""

        class Struck(gpool.GenServer):
            def handle_cast(self, request):
                try:
                    gevent.sleep(60)
                except gevent.GreenletExit:
                    raise KeyboardInterrupt from None

        server = Struck.start()
        server.cast("wait")
        settle()
        gpool.exit(server, "boom")
        with pytest.raises(KeyboardInterrupt):
            settle()
        assert reason_of(server.pid) == "boom"


class TestTurns:
    def test_a_server_that_feeds_itself_starves_nobody(self):
        """After every hundred messages a server gives way: timers and other greenlets run."""

        class Busy(gpool.GenServer):
            handled = 0

            def handle_info(self, message):
                self.handled += 1
                if not self.done():
                    gpool.send(self, message)

        seen = []
        Busy.done = lambda self: seen or self.handled > 1_000_000
        server = Busy.start()
        timer = gevent.spawn_later(0.001, seen.append, "a timer")
        gpool.send(server, "again")
        settle()
        timer.join()
        assert seen == ["a timer"]
        assert server.handled <= 1_000_000

    def test_so_does_one_that_always_continues(self):
        """An endless chain of Continue gives way too, and can be stopped from outside."""

        class Endless(gpool.GenServer):
            def init(self):
                return Continue(0)

            def handle_continue(self, argument):
                return Continue(argument + 1) if argument < 1_000_000 else Stop("never stopped")

        server = Endless.start()
        gpool.exit(server, "enough")
        assert reason_of(server.pid) == "enough"

    def test_a_short_backlog_is_handled_at_once(self):
        """Fewer messages than that are one turn: nobody runs in between."""
        log = []

        class Writer(gpool.GenServer):
            def handle_info(self, message):
                log.append(message)

        server = Writer.start()
        for number in range(gen_server.TURN - 1):
            gpool.send(server, number)
        gevent.spawn(log.append, "another")
        settle()
        assert log == [*range(gen_server.TURN - 1), "another"]


class TestTerminate:
    @pytest.mark.parametrize(
        ("end", "reason"),
        [
            (lambda server: trigger(server, "cast"), "stopped"),
            (lambda server: gpool.stop(server, "asked"), "asked"),
            (lambda server: gpool.send(server, "crash"), "crashed"),
        ],
    )
    def test_is_called_at_every_stop(self, end, reason):
        """G15: at a Stop, at stop(), and at an exit of the handler's own."""
        server = Scripted.start(
            cast=answering(Stop("stopped")), info=lambda _: gpool.exit("crashed")
        )
        end(server)
        assert reason_of(server.pid) == reason
        assert server.terminations() == [reason]

    @pytest.mark.parametrize("reason", ["normal", "shutdown", "boom"])
    def test_is_called_when_the_parent_dies_and_it_traps(self, reason):
        """G15: the EXIT of the parent ends a trapping server, whatever the reason."""
        parent = Actor()
        server = parent.do(lambda: Scripted.start_link(trap=True))
        parent.exit(reason)
        assert reason_of(server.pid) == reason
        assert server.terminations() == [reason]

    def test_is_not_called_at_a_kill_nor_after_a_failed_init(self):
        """G16: no terminate for a kill, and none for a server that never was."""
        for trap in (False, True):
            server = Scripted.start(trap=trap)
            gpool.exit(server.pid, "kill")
            assert reason_of(server.pid) == "killed"
            assert server.terminations() == []
        log = []
        with pytest.raises(StartError):
            Scripted.start(init=raising(ValueError()), terminate=log.append)
        assert log == []

    def test_of_a_signalled_server_is_bounded(self, clock):
        """G16: a server that does not trap still cleans up at a signal, within its limit."""
        server = Scripted.start(terminate=lambda _: gevent.event.Event().wait())
        gpool.exit(server.pid, "boom")
        clock.advance(4.9)
        assert server.terminations() == ["boom"]
        assert server.pid.state == "unwinding"
        clock.advance(0.1)
        assert reason_of(server.pid) == "killed"

    def test_may_use_primitives_after_a_signal(self):
        """G16: terminate of a signalled server may send and call."""
        other, main = Scripted.start(), gpool.self()
        server = Scripted.start(terminate=lambda why: gpool.send(main, (why, other.call("bye"))))
        gpool.exit(server.pid, "boom")
        assert mailbox() == [("boom", "bye")]
        assert reason_of(server.pid) == "boom"

    def test_sees_a_signal_that_came_while_a_callback_ran(self):
        """G16: if a callback fails after the signal, terminate sees the signal's reason."""
        for end in (raising(ValueError("late")), answering(Stop("late"))):
            server = Scripted.start(
                cast=lambda _, end=end: end_after(end),
                terminate=lambda _: gpool.self(),
            )
            server.cast(1)
            gevent.sleep(0)
            gpool.exit(server.pid, "boom")
            assert reason_of(server.pid) == "boom"
            assert server.terminations() == ["boom"]

    def test_sees_a_signal_that_the_callback_has_not_met(self):
        """G16: a callback that fails before it meets its signal: terminate may use primitives."""

        def fail(_):
            signal.signal(server.pid, server.pid, "boom")
            raise ValueError("late")

        main = gpool.self()
        server = Scripted.start(cast=fail, terminate=lambda why: gpool.send(main, why))
        server.cast(1)
        assert mailbox() == ["boom"]
        assert reason_of(server.pid) == "boom"

    def test_ignores_a_second_signal_if_it_traps(self):
        """G16: a signal that comes while terminate runs is ignored; kill cuts it short."""
        go = gevent.event.Event()
        quick, cut = (Scripted.start(trap=True, terminate=lambda _: go.wait()) for _ in range(2))
        for server in (quick, cut):
            gpool.send(server, 1)
            server.callbacks["info"] = answering(Stop("first"))
        settle()
        gpool.exit(quick.pid, "second")
        gpool.exit(cut.pid, "kill")
        settle()
        assert reason_of(cut.pid) == "killed"
        go.set()
        assert reason_of(quick.pid) == "first"

    @pytest.mark.parametrize(
        ("trap", "reason", "dies", "terminated"),
        [
            (True, "normal", True, True),
            (False, "normal", False, False),
            (True, "boom", True, True),
            (False, "boom", True, True),  # within unwind_limit: gpool adds that to OTP
            (True, "kill", True, True),
            (False, "kill", True, True),
        ],
    )
    def test_table_of_the_parents_death(self, trap, reason, dies, terminated):
        """G17: parent dies normally: only a trapper follows; else both die of the reason."""
        parent = Actor()
        server = parent.do(lambda: Scripted.start_link(trap=trap))
        parent.exit(reason)
        assert gpool.is_alive(server) is not dies
        assert server.pid.reason == (reason if dies else None)
        assert server.terminations() == ([reason] if terminated else [])

    def test_an_exit_of_anybody_else_is_a_message(self):
        """G18: a trapping server gets the EXIT of another link in handle_info, and lives."""
        server, other = Scripted.start_link(trap=True), Actor()
        other.do(gpool.link, server.pid)
        other.exit("boom")
        assert server.log[-1] == ("info", Exit(other.pid, "boom"))
        assert gpool.is_alive(server)
        gpool.unlink(server.pid)


def end_after(end):
    """Let others run once, then end as told."""
    gevent.sleep(0)
    gevent.sleep(0)
    return end()


class TestStop:
    def test_waits_its_turn_and_returns_when_it_is_dead(self):
        """G19: what is queued is handled first; when stop returns the server is dead."""
        server = Scripted.start()
        for number in range(3):
            server.cast(number)
        gpool.stop(server, "shutdown")
        assert server.pid.state == "dead"
        assert server.log[1:] == [("cast", 0), ("cast", 1), ("cast", 2), ("terminate", "shutdown")]

    def test_raises_when_it_dies_of_another_reason(self):
        """G19: another reason of death is ServerExited with that."""
        server = Scripted.start(terminate=raising(ValueError("boom")))
        with pytest.raises(ServerExited) as exited:
            gpool.stop(server)
        assert isinstance(exited.value.__cause__, ValueError)

    def test_gives_up_after_its_timeout(self, clock):
        """G19: it times out in the caller, and the server goes down later all the same."""
        go = gevent.event.Event()
        server = Scripted.start(terminate=lambda _: go.wait())
        attempt = Attempt(gpool.stop, server, "normal", 2.0)
        clock.advance(2.0)
        assert type(attempt.error) is CallTimeout
        go.set()
        assert reason_of(server.pid) == "normal"

    def test_of_the_dead_raises(self):
        """G19: NoProcess for a dead server and for a free name."""
        server = Scripted.start()
        gpool.stop(server)
        for who in (server, "nobody"):
            with pytest.raises(NoProcess):
                gpool.stop(who)

    def test_by_itself_is_refused(self):
        """A server that stops itself by stop() would wait for ever; it is told."""
        server = Scripted.start(cast=lambda _: gpool.stop(gpool.self()))
        server.cast(1)
        assert isinstance(reason_of(server.pid).exception, CallingSelf)


class TestContexts:
    def test_spawn_copies_and_a_server_starts_empty(self):
        """A spawned process inherits a copy; a server begins with an empty context."""
        seen = []
        token = VARIABLE.set("spawner's")
        try:
            gpool.spawn(lambda: [seen.append(VARIABLE.get()), VARIABLE.set("changed")])
            server = Scripted.start_link(init=lambda: seen.append(VARIABLE.get()))
            settle()
            assert VARIABLE.get() == "spawner's"
        finally:
            VARIABLE.reset(token)
        assert sorted(seen) == ["spawner's", "unset"]
        gpool.unlink(server.pid)


class TestFrom:
    def test_an_answer_is_given_once(self):
        """A From is woken once, by an answer, an error or a death, and then is off the list."""
        server = Scripted.start()
        from_ = From(server.pid)
        assert from_.answer(1) is True
        assert from_.fail(ValueError()) is False
        assert from_.result(None) == 1
        assert server.pid.monitored_by == {}


class TestAwaiting:
    def test_a_server_that_calls_its_starter_from_init_is_told(self):
        """A call to somebody who waits for one's own start would never end: CallingSelf."""
        parent = Scripted.start(
            call=lambda *_: Reply(Scripted.start(init=lambda: send_call(parent, "hello", None)).pid)
        )
        with pytest.raises(ServerExited) as exited:
            parent.call(1)
        assert isinstance(exited.value.__cause__, StartError)
        assert isinstance(exited.value.__cause__.__cause__, CallingSelf)
