"""Programs that serve: they end in order, and what is in flight finishes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer

import gpool
from gpool.serving import handlers
from gpool.testing import settle
from tests.servers.program import HOST
from tests.serving.web import Clients, Failing, Web, is_refused
from tests.waiting import until

SPAWNS: dict[str, Any] = {
    "default": "default", "a pool": lambda: Pool(10), "a number": 10, "raw": gevent.spawn_raw,
    "gpool": gpool.spawn,
}  # fmt: skip


class Program:
    """A ``gpool.run`` that runs beside the test."""

    def __init__(self, *what: Any, signals: tuple[int, ...] = (), **options: Any) -> None:
        self.signals = signals
        self.error: BaseException | None = None
        self.greenlet = gevent.spawn(self._run, *what, signals=signals, **options)
        for one in what:
            if isinstance(one, StreamServer):
                until(lambda one=one: one.started or self.greenlet.dead)
        gevent.idle()

    def _run(self, *what: Any, **options: Any) -> Any:
        try:
            return gpool.run(*what, **options)
        except (gpool.GPoolError, SystemExit) as error:
            self.error = error

    def signal(self) -> None:
        """Send it its first signal, in earnest."""
        os.kill(os.getpid(), self.signals[0])

    def result(self) -> Any:
        """Return what it returns, or raise what it raises."""
        result = self.greenlet.get(timeout=10)
        if self.error is not None:
            raise self.error
        return result

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return bool(self.greenlet.dead)


@pytest.fixture
def program() -> Iterator[Any]:
    """Give a way to start programs; what they raise is the test's own business."""
    programs: list[Program] = []

    def start(*what: Any, **options: Any) -> Program:
        programs.append(Program(*what, **options))
        return programs[-1]

    yield start
    for one in programs:
        one.greenlet.kill()


class Child(gpool.GenServer):
    """Notes its end."""

    def __init__(self, log: list[str], name: str = "tree") -> None:
        self.log, self.name = log, name

    def terminate(self, reason: Any) -> None:
        """Note it."""
        self.log.append(self.name)


def a_tree(log: list[str]) -> gpool.Supervisor:
    """Return a supervisor with a child that notes its end."""
    return gpool.Supervisor.start([gpool.ChildSpec("child", Child.start_link, (log,))])


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_end_it_and_are_as_before(self, web: Web, program: Any, number: int) -> None:
        """It returns True, since nothing was cut; then Python has its signals again."""
        before = signal.getsignal(number)
        server = web.server()
        running = program(server, signals=(number,))
        running.signal()
        assert running.result() is True
        assert is_refused(server.server_port)
        assert signal.getsignal(number) is before

    def test_are_those_of_python_afterwards(self, web: Web, program: Any) -> None:
        """Ctrl-C is a KeyboardInterrupt again: gevent alone would leave the system's default."""
        running = program(web.server(), signals=(signal.SIGINT,))
        running.signal()
        running.result()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)

    def test_the_second_ends_all_patience(
        self, web: Web, program: Any, client: Clients, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The first one waits for the request in flight, the second cuts it: that is no crash."""
        gpool.Pool(gpool.Resource(create=list), name="db").start()  # from here on it is logged
        server = web.server()
        running = program(server, signals=(signal.SIGTERM,), drain=None)
        client(server.server_port, "/wait")
        until(lambda: web.begun)
        running.signal()
        until(lambda: not server.started)
        gevent.idle()
        assert not running.is_over
        running.signal()
        assert running.result() is False
        assert web.log == ["cut"]
        assert caplog.records == []

    def test_two_at_once_are_as_good(self, web: Web, program: Any, client: Clients) -> None:
        """Nothing of the patience has begun by then."""
        server = web.server()
        program(server, signals=(both := (signal.SIGTERM, signal.SIGINT)), drain=None)
        client(server.server_port, "/wait")
        until(lambda: web.begun)
        for number in both:
            os.kill(os.getpid(), number)
        until(lambda: web.log == ["cut"])

    def test_the_third_is_not_ours(self, program: Any, clock: gpool.testing.VirtualClock) -> None:
        """From the second one on the handlers are those from before."""
        heard: list[int] = []
        before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
        try:
            never = Event()
            resource = gpool.Resource(create=list, close=lambda _: never.wait())
            gpool.Pool(resource, size=1, name="db").start().wait_ready()
            running = program(Event().wait, signals=(signal.SIGUSR1,))
            for _ in range(2):
                running.signal()
                settle()
            assert heard == []
            running.signal()
            assert heard == [signal.SIGUSR1]
            assert not running.is_over
            never.set()
            running.result()
        finally:
            signal.signal(signal.SIGUSR1, before)


class TestDraining:
    @pytest.mark.parametrize("spawn", SPAWNS)
    def test_lets_requests_finish(
        self, web: Web, program: Any, client: Clients, spawn: str
    ) -> None:
        """However the server spawns its handlers; who comes later is refused."""
        given = SPAWNS[spawn]
        server = web.server(spawn=given() if spawn == "a pool" else given)
        running = program(server)
        waiting = [client(server.server_port, "/wait") for _ in range(5)]
        until(lambda: web.begun == 5)
        port = server.server_port
        server.close()
        until(lambda: is_refused(port))
        assert not running.is_over
        web.go.set()
        assert running.result() is True
        until(lambda: all(one.has_ended for one in waiting))
        assert all(one.is_well and b"Connection: close" in one.answer for one in waiting)

    def test_serves_what_waits_for_a_place(self, web: Web, program: Any, client: Clients) -> None:
        """A full server begins with its backlog as requests finish; who comes later is refused."""
        server = web.server(spawn=2)
        running = program(server, signals=(signal.SIGTERM,), drain=None)
        many = [client(server.server_port, "/wait") for _ in range(6)]
        until(lambda: web.begun == 2)
        running.signal()
        until(lambda: is_refused(server.server_port))
        assert web.begun == 2
        web.go.set()
        assert running.result() is True
        until(lambda: all(one.has_ended for one in many))
        assert all(one.is_well for one in many)

    def test_tells_that_some_never_got_a_place(
        self, web: Web, program: Any, client: Clients, clock: gpool.testing.VirtualClock
    ) -> None:
        """When its time is over, they are cut, though no handler of theirs was killed."""
        server = web.server(spawn=1)
        running = program(server, signals=(signal.SIGTERM,), drain=8.0)
        many = [client(server.server_port, "/wait") for _ in range(2)]
        until(lambda: web.begun)
        running.signal()
        until(lambda: is_refused(server.server_port))
        clock.advance(8.1)
        assert running.result() is False
        until(lambda: all(one.has_ended for one in many))
        assert (web.begun, web.log) == (1, ["cut"])

    def test_hangs_up_on_idle_connections(self, web: Web, program: Any, client: Clients) -> None:
        """One that waits for its next request ends at once, beside one that is at a request."""
        server = web.server()
        running = program(server)
        idle, busy = client(server.server_port, "/"), client(server.server_port, "/wait")
        until(lambda: idle.is_well and web.begun)
        assert b"Connection" not in idle.answer
        server.close()
        until(lambda: idle.has_ended)
        assert not busy.has_ended
        web.go.set()
        assert running.result() is True

    def test_serves_what_has_come(self, web: Web, program: Any, client: Clients) -> None:
        """A request that is there when the server closes is answered, kept alive or new."""
        server = web.server()
        running = program(server, signals=(signal.SIGTERM,))
        kept = client(server.server_port, "/")
        until(lambda: kept.is_well)
        kept.answer = b""
        new = client(server.server_port, "/wait")
        kept.ask("/wait")
        running.signal()
        until(lambda: web.begun == 2)
        web.go.set()
        assert running.result() is True
        until(lambda: kept.is_well and new.is_well)

    def test_gives_newcomers_a_second(
        self, web: Web, program: Any, client: Clients, clock: gpool.testing.VirtualClock
    ) -> None:
        """Who is connected and asks within a second is answered; who does not is hung up on."""
        server = web.server()
        running = program(server)
        silent, slow = client(server.server_port), client(server.server_port)
        until(lambda: server.started)
        settle()
        server.close()
        slow.ask("/wait")
        until(lambda: web.begun)
        assert not silent.has_ended
        clock.advance(handlers.FIRST_REQUEST)
        until(lambda: silent.has_ended)
        assert silent.answer == b""
        web.go.set()
        assert running.result() is True
        until(lambda: slow.is_well)

    def test_cuts_what_takes_too_long(
        self, web: Web, program: Any, client: Clients, clock: gpool.testing.VirtualClock
    ) -> None:
        """Not before its time is over; it has let go of what it held by then."""
        server = web.server()
        pool: gpool.Pool[list[int]] = gpool.Pool(gpool.Resource(create=list), size=1, name="db")

        def hold(environ: Any, start_response: Any) -> list[bytes]:
            with pool.checkout():
                return web(environ, start_response)

        server.application = hold
        running = program(server, drain=8.0)
        client(server.server_port, "/wait")
        until(lambda: web.begun)
        server.close()
        settle()
        clock.advance(7.9)
        assert not running.is_over
        assert web.log == []
        clock.advance(0.2)
        assert running.result() is False
        assert web.log == ["cut"]
        assert pool.holders() == []
        assert pool.status().state == "stopped"

    def test_waits_a_second_for_those_who_swallow_their_kill(
        self, program: Any, client: Clients, clock: gpool.testing.VirtualClock
    ) -> None:
        """One for all of them, of gpool's clock; then all the rest is ended, too."""
        apps = [Web(), Web()]
        servers = [web.server() for web in apps]
        pool = gpool.Pool(gpool.Resource(create=list), size=1, name="db").start()
        tree = gpool.Supervisor.start()
        running = program(*servers, tree, drain=3.0, signals=(signal.SIGTERM,))
        for server in servers:
            client(server.server_port, "/swallow")
        until(lambda: all(web.begun for web in apps))
        running.signal()
        until(lambda: not servers[0].started)
        clock.advance(3.0)
        assert [web.log for web in apps] == [["swallowed"], ["swallowed"]]
        clock.advance(0.9)
        assert gpool.is_alive(tree)
        clock.advance(0.2)
        assert running.result() is False
        assert not gpool.is_alive(tree)
        assert pool.status().state == "stopped"
        for web in apps:
            web.go.set()

    def test_waits_for_no_handler_that_was_killed(
        self, web: Web, program: Any, client: Clients
    ) -> None:
        """It is gone, and nobody waits for it."""
        pool = Pool(10)
        server = web.server(spawn=pool)
        running = program(server, drain=None)
        client(server.server_port, "/wait")
        until(lambda: web.begun)
        pool.kill()
        server.close()
        assert running.result() is True

    def test_ends_streams_of_any_protocol(self, program: Any, client: Clients) -> None:
        """A handler of a StreamServer is at work as long as it runs."""
        go = Event()

        def echo(connection: Any, address: Any) -> None:
            connection.sendall(connection.recv(100))
            go.wait()
            connection.sendall(b"well")

        server = StreamServer((HOST, 0), echo)
        running = program(server)
        one = client(server.server_port, "/")
        until(lambda: one.answer)
        server.close()
        settle()
        assert not running.is_over
        go.set()
        assert running.result() is True
        until(lambda: one.has_ended)
        assert one.answer.endswith(b"well")


class TestOrder:
    def test_is_kept(
        self, web: Web, program: Any, client: Clients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No more connections, requests, trees, pools, the agent; a handler's pool works on."""
        log = web.log
        pool: gpool.Pool[list[int]] = gpool.Pool(
            gpool.Resource(create=list, close=lambda _: log.append("pool")), size=1, name="db"
        )
        monkeypatch.setattr("gpool.serving.run.endings", [lambda: log.append("agent")])
        server = web.server()

        def late(environ: Any, start_response: Any) -> list[bytes]:
            answer = web(environ, start_response)
            with pool.checkout():
                return answer

        server.application = late
        pool.start()
        running = program(server, a_tree(log))
        port = server.server_port
        one = client(port, "/wait")
        until(lambda: web.begun)
        server.close()
        until(lambda: is_refused(port))
        assert log == []
        web.go.set()
        assert running.result() is True
        assert log == ["answered", "tree", "pool", "agent"]
        until(lambda: one.is_well)

    def test_closes_all_servers_first(self, program: Any, client: Clients) -> None:
        """Two of them: none accepts while the other one's requests finish."""
        first, second = Web(), Web()
        servers = first.server(), second.server()
        running = program(*servers, signals=(signal.SIGTERM,))
        ports = [server.server_port for server in servers]
        busy = [client(port, "/wait") for port in ports]
        until(lambda: first.begun and second.begun)
        running.signal()
        until(lambda: all(map(is_refused, ports)))
        first.go.set()
        second.go.set()
        assert running.result() is True
        until(lambda: all(one.is_well for one in busy))

    def test_of_trees_is_the_reverse_of_the_arguments(self, program: Any) -> None:
        """The one given last goes first."""
        log: list[str] = []
        trees = [
            gpool.Supervisor.start([gpool.ChildSpec("child", Child.start_link, (log, name))])
            for name in ("first", "second")
        ]
        running = program(*trees, signals=(signal.SIGTERM,))
        running.signal()
        assert running.result() is True
        assert log == ["second", "first"]

    def test_of_pools_is_the_reverse_of_their_starts(self, program: Any) -> None:
        """As a supervisor would stop its children."""
        log: list[str] = []
        for name in ("first", "second"):
            close = gpool.Resource(create=list, close=lambda _, name=name: log.append(name))
            gpool.Pool(close, size=1, name=name).start().wait_ready()
        assert program(lambda: None).result() is True
        assert log == ["second", "first"]


class TestFailures:
    @pytest.mark.parametrize("error", [LookupError("nowhere"), gevent.Timeout(3), SystemExit(3)])
    def test_of_one_step_of_the_end_keeps_none_from_the_rest(
        self, program: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        """Whatever was raised; it is raised when all was shut."""
        log: list[str] = []

        def fail(*_: Any) -> None:
            log.append("failed")
            raise error

        monkeypatch.setattr("gpool.serving.run.stop_pools", fail)
        monkeypatch.setattr("gpool.serving.run.endings", [fail, lambda: log.append("agent")])
        tree = a_tree(log)
        with pytest.raises(type(error)) as caught:
            gpool.run(lambda: None, tree, lambda: gpool.stop(tree), signals=())
        assert caught.value is error
        assert log[-3:] == ["failed", "failed", "agent"]
        assert not gpool.is_alive(tree)

    def test_of_accept(
        self, program: Any, client: Clients, unnoticed_deaths: list[BaseException]
    ) -> None:
        """The error ends the program, and is the cause of what run raises."""
        server = Failing((HOST, 0), lambda connection, address: None)
        running = program(server, drain=0)
        server.fail()
        with pytest.raises(gpool.RunError, match=r"accept of <Failing .*Bad file desc") as caught:
            running.result()
        assert isinstance(caught.value.__cause__, OSError)
        unnoticed_deaths.clear()  # gevent has told of it, too

    @pytest.mark.filterwarnings("ignore::ResourceWarning")  # gevent's socket that cannot bind
    def test_of_a_start(self, web: Web, program: Any) -> None:
        """A port in use is named; what was started before it listens no more."""
        with Failing((HOST, 0), lambda connection, address: None) as taken:
            taken.start()
            first = web.server()
            running = program(first, web.server(taken.server_port))
            with pytest.raises(gpool.StartError) as caught:
                running.result()
            assert f"{HOST}:{taken.server_port} did not start" in str(caught.value)
            assert "in use" in str(caught.value)
            assert is_refused(first.server_port)
            running.error = caught = None
            gc.collect()

    def test_of_a_callable(self, web: Web, program: Any) -> None:
        """Its error is the cause; the servers are stopped."""

        def fail() -> None:
            raise LookupError("nowhere")

        server = web.server()
        with pytest.raises(gpool.RunError, match="fail has failed: LookupError") as caught:
            program(server, fail).result()
        assert isinstance(caught.value.__cause__, LookupError)
        assert is_refused(server.server_port)

    def test_of_a_tree(self, web: Web, program: Any) -> None:
        """A supervisor that gives up, or is killed, ends the program."""
        tree = a_tree([])
        running = program(web.server(), tree)
        gpool.exit(tree.pid, "kill")
        with pytest.raises(gpool.RunError, match=r"Supervisor #PID.* has failed: 'killed'"):
            running.result()

    def test_of_whoever_runs_it(self, web: Web, client: Clients) -> None:
        """A kill or a time-out of run itself ends all of it, without patience."""
        server = web.server()
        with gevent.Timeout(0.05, False):
            gpool.run(server, lambda: client(server.server_port, "/wait"), signals=())
        assert web.log == ["cut"]
        assert is_refused(server.server_port)

    def test_to_wait_for_anything_is_no_secret(self) -> None:
        """A program that would wait for ever is told so: run keeps no loop alive by itself."""
        code = "import gpool, gevent.event; gpool.run(gevent.event.Event().wait)"
        program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "LoopExit" in program.stderr


class TestCallables:
    def test_end_it_when_the_last_has_returned(self, program: Any) -> None:
        """If there is nothing else."""
        first, second = Event(), Event()
        running = program(first.wait, second.wait)
        first.set()
        gevent.idle()
        assert not running.is_over
        second.set()
        assert running.result() is True

    def test_may_choose_the_exit_code(self, program: Any) -> None:
        """A SystemExit is passed on."""

        def leave() -> None:
            raise SystemExit(3)

        with pytest.raises(SystemExit) as caught:
            program(leave).result()
        assert caught.value.code == 3

    def test_are_told_when_it_ends(self, web: Web, program: Any) -> None:
        """They get an exit signal, and their time for cleanup."""
        log: list[str] = []

        def work() -> None:
            try:
                Event().wait()
            finally:
                gevent.idle()
                log.append("cleaned up")

        server = web.server()
        running = program(server, work)
        server.close()
        assert running.result() is True
        assert log == ["cleaned up"]

    def test_that_do_not_end_are_killed(self, web: Web, program: Any) -> None:
        """When the time is over."""

        def trap() -> None:
            gpool.trap_exit(True)
            Event().wait()

        server = web.server()
        running = program(server, trap, drain=0.01)
        server.close()
        assert running.result() is False


class TestTrees:
    def test_that_are_stopped_end_it(self, program: Any) -> None:
        """By whoever has stopped it."""
        tree = a_tree([])
        running = program(tree)
        gpool.stop(tree)
        assert running.result() is True

    def test_keep_it_running(self) -> None:
        """One whose children all wait is no deadlock: a signal may come."""
        gevent.spawn(lambda: None)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.02):
            gpool.run(gpool.Supervisor.start())


class TestLoop:
    def test_is_left_as_it_was(self, web: Web) -> None:
        """Nothing of a program keeps a loop alive once it has ended."""
        gpool.run(lambda: None)
        loop: Any = gevent.get_hub().loop
        before = loop.activecnt
        server = web.server(spawn=10)
        gpool.run(server, gpool.Supervisor.start(), server.close)
        gevent.idle()
        assert loop.activecnt == before


class TestBadInput:
    @pytest.mark.parametrize(
        ("what", "options", "error", "text"),
        [
            ((), {}, TypeError, "expected a server, a supervisor or a callable, got nothing"),
            ((3,), {}, TypeError, "callable, got 3"),
            ((print,), {"drain": -1}, ValueError, "drain: expected seconds >= 0"),
            ((print,), {"signals": (9999,)}, ValueError, "signals: expected a tuple of signals"),
            ((print,), {"signals": [2]}, ValueError, "signals: expected a tuple of signals"),
        ],
    )
    def test_starts_nothing(
        self, what: Any, options: Any, error: type[Exception], text: str
    ) -> None:
        """It says what was expected."""
        with pytest.raises(error, match=text):
            gpool.run(*what, **options)

    def test_a_server_that_runs(self, web: Web) -> None:
        """Its handlers so far would be unknown; and one that was closed cannot start."""
        with web.server() as server:
            server.start()
            with pytest.raises(ValueError, match="expected one that is not started yet"):
                gpool.run(server)
        closed = StreamServer((HOST, 0), print)
        closed.close()
        with pytest.raises(ValueError, match="expected one that was not closed"):
            gpool.run(closed)

    def test_a_server_given_twice(self, web: Web) -> None:
        """It would be hooked twice: nothing was started."""
        server = web.server()
        with pytest.raises(ValueError, match=r"each server .* once, got <WSGIServer .*> twice"):
            gpool.run(server, print, server, signals=())
        assert not server.started
        gpool.run(server, server.close, signals=())

    def test_a_supervisor_given_twice(self) -> None:
        """It would be stopped twice; it runs on."""
        tree = a_tree([])
        with pytest.raises(ValueError, match=r"supervisor once, got #PID<.*> twice"):
            gpool.run(tree, tree, signals=())
        assert gpool.is_alive(tree)

    def test_a_callable_given_twice_is_none(self) -> None:
        """Two processes run it."""
        log: list[int] = []

        def work() -> None:
            log.append(1)

        assert gpool.run(work, work, signals=()) is True
        assert log == [1, 1]

    def test_signals_in_a_thread(self) -> None:
        """Only the main thread hears any."""

        def attempt() -> None:
            with pytest.raises(ValueError, match="only the main thread hears any"):
                gpool.run(print)
            assert gpool.run(list, signals=()) is True

        gevent.get_hub().threadpool.apply(attempt)
