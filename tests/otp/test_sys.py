"""Looking into servers: OTP's rules one by one, by their labels."""

from __future__ import annotations

import gevent
import pytest

import gpool
from gpool import CallbackFailed, CallTimeout, NoProcess, Reply, Stop, sys
from gpool.otp.gen_server import From, System
from gpool.testing import settle
from tests.otp.actor import Actor, reason_of
from tests.otp.nursery import Attempt


class Counter(gpool.GenServer):
    """A server that counts, and writes down why it ended."""

    def __init__(self, trap=False):
        self.count = 0
        self._trap = trap
        self.ends = []

    def init(self):
        """Trap exits if told so."""
        gpool.trap_exit(self._trap)

    def handle_call(self, request, from_):
        """Block, or count."""
        if isinstance(request, gevent.event.Event):
            request.wait()
        self.count += 1
        return Reply(self.count)

    def handle_cast(self, request):
        """Stop, or count."""
        if request == "stop":
            return Stop("asked")
        self.count += 1
        return None

    def terminate(self, reason):
        """Write the reason down."""
        self.ends.append(reason)

    def format_status(self):
        """Show the count only."""
        return f"count={self.count}"


@pytest.fixture
def server():
    """Give the test a server."""
    return Counter.start()


class TestSuspend:
    def test_lets_everything_else_wait_in_order(self, server, clock):
        """Y1: a suspended server serves nothing; calls time out, the rest waits in order."""
        sys.suspend(server)
        server.cast(1)
        attempt = Attempt(server.call, "later", 2.0)
        clock.advance(2.0)
        assert type(attempt.error) is CallTimeout
        assert sys.get_state(server)["count"] == 0
        sys.resume(server)
        settle()
        assert sys.get_state(server)["count"] == 2

    def test_twice_needs_one_resume(self, server):
        """Y1: further suspends change nothing."""
        sys.suspend(server)
        sys.suspend(server)
        sys.resume(server)
        assert server.call(1) == 1

    def test_can_be_stopped(self, server):
        """Y1: stop works in a suspended server, and runs terminate."""
        sys.suspend(server)
        server.cast(1)
        gpool.stop(server, "enough")
        assert (server.ends, server.count) == (["enough"], 0)

    def test_ends_with_its_parent(self):
        """Y1: the EXIT of the parent ends a suspended server that traps, with terminate."""
        parent = Actor()
        server = parent.do(lambda: Counter.start_link(trap=True))
        sys.suspend(server)
        parent.exit("boom")
        assert reason_of(server.pid) == "boom"
        assert server.ends == ["boom"]

    def test_can_be_killed(self, server):
        """Y1: a signal ends a suspended server as any other."""
        sys.suspend(server)
        gpool.exit(server.pid, "kill")
        assert reason_of(server.pid) == "killed"


class TestState:
    @pytest.mark.parametrize("suspended", [False, True])
    def test_is_read_and_replaced(self, server, suspended):
        """Y2: get_state and replace_state work running and suspended."""
        if suspended:
            sys.suspend(server)
        state = sys.replace_state(server, lambda state: {**state, "count": 41})
        assert state["count"] == 41
        assert sys.get_state(server) == state
        sys.resume(server)
        assert server.call(1) == 42

    def test_never_touches_the_pid(self, server):
        """A server's pid is no state: it is neither shown nor replaced."""
        assert "pid" not in sys.replace_state(server, lambda state: {**state, "pid": 3})
        assert server.call(1) == 1

    def test_is_a_copy(self, server):
        """Y2: what get_state returns can be changed without harm."""
        sys.get_state(server)["count"] = 99
        assert sys.get_state(server)["count"] == 0

    @pytest.mark.parametrize(
        "fn", [lambda _: 1 / 0, lambda _: 42, lambda _: gpool.NoSuchName, lambda _: {3: 4}]
    )
    def test_a_bad_function_is_the_callers_error(self, server, fn):
        """Y2: a function that raises, or gives no state, changes nothing and ends nothing."""
        with pytest.raises(CallbackFailed, match="what ran in"):
            sys.replace_state(server, fn)
        assert server.call(1) == 1

    def test_of_a_busy_server_times_out(self, server, clock):
        """Y2: a server that is busy, or a process that is no server, answers in no time."""
        go = gevent.event.Event()
        Attempt(server.call, go)
        for who in (server, Actor().pid):
            attempt = Attempt(sys.get_state, who, 2.0)
            clock.advance(2.0)
            assert type(attempt.error) is CallTimeout
        go.set()

    def test_of_the_dead_raises(self, server):
        """Y2: NoProcess for a dead server and a free name."""
        gpool.stop(server)
        for who in (server, server.pid, "nobody"):
            for verb in (sys.get_state, sys.suspend, sys.resume, sys.get_status):
                with pytest.raises(NoProcess):
                    verb(who)

    def test_an_unknown_request_is_an_error(self, server):
        """Y2: a verb that the server does not know is an error reply, not a crash."""
        from_ = From(server.pid)
        gpool.send(server, System(from_, "dance"))
        with pytest.raises(CallbackFailed, match="unknown system request"):
            from_.result(1.0)
        assert server.call(1) == 1


class TestStatistics:
    def test_is_not_here(self):
        """Y3: gpool has no statistics, log, trace or install of its own: telemetry stands there."""
        assert not {"statistics", "log", "trace", "install"} & set(vars(sys))
        assert "telemetry" in sys.__doc__


class TestGetStatus:
    def test_tells_who_it_is(self):
        """Y4: pid, class, running or suspended, the parent, and what format_status shows."""
        parent = Actor()
        server = parent.do(Counter.start_link)
        status = sys.get_status(server)
        assert status == sys.Status(server.pid, "Counter", "running", parent.pid, "count=0")
        sys.suspend(server)
        assert sys.get_status(server).status == "suspended"

    def test_of_an_unlinked_server_has_no_parent(self, server):
        """Y4: a server that was started without a link has no parent."""
        assert sys.get_status(server).parent is None

    def test_shows_the_state_by_default(self):
        """Y4: without a format_status of its own the state is shown."""

        class Plain(gpool.GenServer):
            def init(self):
                self.x = 1

        assert sys.get_status(Plain.start()).state == {"x": 1}

    def test_a_bad_format_status_is_the_callers_error(self):
        """Y4: a format_status that raises is an error reply, not the server's end."""

        class Bad(gpool.GenServer):
            def format_status(self):
                raise ValueError("no")

        server = Bad.start()
        with pytest.raises(CallbackFailed):
            sys.get_status(server)
        assert gpool.is_alive(server)


class TestPostStatusRequest:
    class Asker:
        """Keeps what it is told."""

        def __init__(self):
            self.got = []
            self.answer = self.fail = self.got.append

    def test_is_answered_later_to_whom_it_was_for(self, server):
        """It never blocks, and a callback of the hub may ask, which is no process."""
        asker = self.Asker()
        before = gpool.processes()
        gevent.get_hub().loop.run_callback(sys.post_status_request, server, asker)
        settle()
        assert asker.got == [sys.get_status(server)]
        assert [pid for pid in gpool.processes() if pid not in before] in ([], [gpool.self()])

    def test_a_bad_format_status_is_told(self):
        """The asker gets the error, the server goes on."""

        class Bad(gpool.GenServer):
            def format_status(self):
                raise ValueError("no")

        server, asker = Bad.start(), self.Asker()
        sys.post_status_request(server, asker)
        settle()
        assert [type(error) for error in asker.got] == [CallbackFailed]
        assert gpool.is_alive(server)

    def test_of_the_dead_raises(self, server):
        """There is nobody to ask."""
        gpool.stop(server)
        with pytest.raises(NoProcess):
            sys.post_status_request(server.pid, self.Asker())
