"""What the kit's functions are given by mistake: refused at once, with what was expected."""

from __future__ import annotations

import math

import pytest

import gpool
from gpool import BadName, GenServer, NoProcess, SpecError, telemetry
from gpool.testing import settle


class Echo(GenServer):
    """Answers with what it gets."""

    def handle_call(self, request, from_):
        """Answer."""
        return gpool.Reply(request)


@pytest.fixture
def echo() -> Echo:
    """Give a server."""
    return Echo.start()


# Each waits for something that does not come, for as long as it is told.
WAITS = {
    "receive": lambda echo, timeout: gpool.receive(timeout=timeout),
    "send_call": lambda echo, timeout: gpool.send_call(echo, 1, timeout),
    "call": lambda echo, timeout: echo.call(1, timeout),
    "stop": lambda echo, timeout: gpool.stop(echo, timeout=timeout),
    "sys": lambda echo, timeout: gpool.sys.suspend(echo, timeout),
    "start": lambda echo, timeout: Echo.start(start_timeout=timeout),
    "join": lambda echo, timeout: gpool.Supervisor.start().join(timeout),
    "@call": lambda echo, timeout: gpool.call(timeout=timeout),
    "IdleTimeout": lambda echo, timeout: gpool.IdleTimeout(timeout),
}


class TestTimeouts:
    @pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
    @pytest.mark.parametrize(
        ("timeout", "error"),
        [
            (-1, ValueError),
            (math.nan, ValueError),
            ("1", TypeError),
            (True, TypeError),
            ([], TypeError),
        ],
        ids=repr,
    )
    def test_are_seconds(self, echo, wait, timeout, error):
        """Nothing is sent, and nobody waits; NaN once made libev spin for ever."""
        with pytest.raises(error, match="expected seconds"):
            wait(echo, timeout)
        assert gpool.sys.get_status(echo).status == "running"

    def test_may_be_without_end(self, echo):
        """Infinity is as good as None, on every loop."""
        assert echo.call(1, math.inf) == 1
        gpool.send(gpool.self(), "there")
        assert gpool.receive(lambda message: message == "there", timeout=math.inf) == "there"

    def test_of_an_idle_server_are_not_none(self):
        """None is what a callback answers that wants none."""
        with pytest.raises(TypeError, match="answer None instead"):
            gpool.IdleTimeout(None)


# Each takes a process as its subject.
SUBJECTS = {
    "link": gpool.link,
    "unlink": gpool.unlink,
    "monitor": gpool.monitor,
    "send": lambda process: gpool.send(process, "x"),
    "exit": lambda process: gpool.exit(process, "normal"),
    "is_alive": gpool.is_alive,
    "process_info": gpool.process_info,
    "register": lambda process: gpool.register("name", process),
    "register_name": lambda process: gpool.Registry.start().register_name("key", process),
    "send_call": lambda process: gpool.send_call(process, 1),
    "send_cast": lambda process: gpool.send_cast(process, 1),
}


@pytest.mark.parametrize("use", SUBJECTS.values(), ids=SUBJECTS)
class TestSubjects:
    @pytest.mark.parametrize("odd", [None, 3, [], object(), (1, 2)])
    def test_are_processes(self, use, odd):
        """What is no process is named."""
        with pytest.raises(TypeError, match="expected a Pid, a name or a server, got"):
            use(odd)

    def test_may_be_handles_pids_and_names(self, use, echo):
        """Whatever takes a process takes its handle, its pid and its names."""
        names = gpool.Registry.start()
        names.register_name("echo", echo)
        for subject in (echo, echo.pid, (names, "echo")):
            if use is SUBJECTS["register"] and gpool.whereis("name"):
                gpool.unregister("name")
            use(subject)

    def test_that_were_never_started(self, use):
        """A handle that was never started says so, to those who listen."""
        silent = (SUBJECTS["is_alive"], SUBJECTS["send_cast"])
        if use in silent:
            assert not use(Echo())
            return
        with pytest.raises(NoProcess, match="<Echo None> was never started"):
            use(Echo())


class TestMonitor:
    def test_of_a_handle_reports_the_pid(self, echo):
        """The DOWN message of a handle bears its pid; that of a name the name."""
        names = gpool.Registry.start()
        names.register_name("echo", echo)
        by_handle, by_name = gpool.monitor(echo), gpool.monitor((names, "echo"))
        gpool.stop(echo)
        assert gpool.receive() == gpool.Down(by_handle, echo.pid, "normal")
        assert gpool.receive() == gpool.Down(by_name, (names, "echo"), "normal")

    def test_of_a_free_key(self):
        """A free key in a registry is as a free name: noproc."""
        names = gpool.Registry.start()
        ref = gpool.monitor((names, "nobody"))
        assert gpool.receive(timeout=0) == gpool.Down(ref, (names, "nobody"), "noproc")


# Each is a mistake, the error that it gets, and the words in it.
MISTAKES = {
    "exit of nothing": (lambda: gpool.exit(), TypeError, r"expected \(reason\) or"),
    "exit of too much": (lambda: gpool.exit(1, 2, 3), TypeError, r"got \(1, 2, 3\)"),
    "trap_exit": (lambda: gpool.trap_exit("no"), TypeError, "expected True or False, got 'no'"),
    "demonitor": (lambda: gpool.demonitor(3), TypeError, "expected a Ref, got 3"),
    "reply": (lambda: gpool.reply(3, 1), TypeError, "expected the from_ of a handle_call, got 3"),
    "whereis": (lambda: gpool.whereis([]), BadName, "expected a text that is not empty"),
    "unregister": (lambda: gpool.unregister(3), BadName, "expected a text that is not empty"),
    "attach": (lambda: telemetry.attach(3), TypeError, "expected a callable, got 3"),
    "intensity": (lambda: gpool.RestartIntensity(-1, 5), SpecError, "an integer >= 0, got -1"),
    "period": (lambda: gpool.RestartIntensity(1, math.nan), SpecError, "seconds > 0, got nan"),
    "replace_state": (
        lambda: gpool.sys.replace_state(Echo.start(), 3),
        TypeError,
        "expected a callable, got 3",
    ),
}


class TestMistakes:
    @pytest.mark.parametrize(("mistake", "error", "words"), MISTAKES.values(), ids=MISTAKES)
    def test_are_named(self, mistake, error, words):
        """The error says what was expected and what came."""
        with pytest.raises(error, match=words):
            mistake()

    def test_leave_no_process(self, echo):
        """None of them starts or ends anything."""
        before = gpool.processes()
        for mistake, error, _ in list(MISTAKES.values())[:-1]:
            with pytest.raises(error):
                mistake()
        settle()
        assert gpool.processes() == before


class TestErrors:
    def test_say_who_is_meant(self, echo):
        """A number is nothing to go by at night: errors tell what a process runs, or its name."""
        gpool.sys.suspend(echo)
        with pytest.raises(
            gpool.CallTimeout, match=r"#PID<\d+> \(Echo\) did not answer within 0 s"
        ):
            echo.call(1, timeout=0)
        gpool.register("the echo", echo)
        with pytest.raises(gpool.NameTaken, match=r"taken by 'the echo' #PID<\d+>"):
            gpool.register("the echo", gpool.self())
