"""A real gunicorn: no request is lost by gpool, and no connection of a sibling is touched."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gevent
import pytest
from gevent.server import StreamServer

import gpool
from gpool import clock as clocks
from gpool.integrations import gunicorn as hooks
from gpool.testing import VirtualClock
from tests.observer import wire
from tests.waiting import until

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 20.0  # s until what should come has come
WORKERS = 2
CONFIG = f"""
from gpool.integrations.gunicorn import child_exit, post_worker_init, worker_exit

bind = "127.0.0.1:0"
worker_class = "gevent"
workers = {WORKERS}
control_socket_disable = True

def when_ready(server):
    with open(__file__ + ".port", "w") as file:
        print(server.LISTENERS[0].getsockname()[1], file=file)
"""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gunicorn") is None and not os.environ.get("CI"),
    reason="gunicorn is not installed",
)


@dataclass(eq=False)
class Line:
    """One connection to the upstream."""

    owner: int  # the process that has opened it
    said: list[str] = field(default_factory=list)
    is_open: bool = True

    @property
    def was_closed_in_order(self) -> bool:
        """Whether its owner has said good-bye."""
        return not self.is_open and self.said[-1] == "bye"


class Upstream:
    """What the workers' pools connect to; it knows who speaks."""

    def __init__(self) -> None:
        self.lines: list[Line] = []  # oldest first
        self.strangers: list[str] = []  # what was said by others than a line's owner
        self.server = StreamServer(("127.0.0.1", 0), self._serve)

    def _serve(self, connection: Any, address: Any) -> None:
        line: Line | None = None
        with contextlib.suppress(OSError), connection.makefile("rb") as words:
            for raw in words:
                who, _, word = raw.decode().strip().partition(" ")
                if line is None:
                    self.lines.append(line := Line(int(who)))
                line.said.append(word)
                if int(who) != line.owner:
                    self.strangers.append(raw.decode())
                connection.sendall(raw)
        if line is not None:
            line.is_open = False

    def of(self, pid: int) -> list[Line]:
        """Return the lines of a process."""
        return [line for line in self.lines if line.owner == pid]

    def open(self) -> list[Line]:
        """Return those that are open."""
        return [line for line in self.lines if line.is_open]

    def said(self, word: str) -> int:
        """Return how often a word was said."""
        return sum(line.said.count(word) for line in self.lines)


class Gunicorn:
    """A gunicorn that runs, and the requests that it gets."""

    def __init__(self, upstream: Upstream, *options: str, **environment: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gpool"))
        config = self.folder / "gunicorn.conf.py"
        config.write_text(CONFIG)
        self.log = self.folder / "log"
        env = os.environ | {
            "UPSTREAM": str(upstream.server.server_port), "PYTHONPATH": str(CHECKOUT),
            "HOME": str(self.folder), "GPOOL_RUN_DIR": str(self.folder / "run"),
        } | environment  # fmt: skip
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", str(config), *options,
                 "tests.integrations.gunicorn_app:application"],
                env=env, stdout=log, stderr=log,
            )  # fmt: skip
        self.pid = self.process.pid
        self.answers: list[str] = []  # of all that were asked: the worker's pid, or what else came
        self.is_loading = False
        self._asking: list[Any] = []

    def __enter__(self) -> Self:
        try:
            until(lambda: self._port() or self.process.poll() is not None)
            self.port = int(self._port())
            until(lambda: len(self.workers()) >= WORKERS)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        self.is_loading = False
        for pid in [self.pid, *self.children()] if self.process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        gevent.killall(self._asking)
        if error is not None:
            print(self.log.read_text())
        subprocess.run(["rm", "-rf", self.folder], check=True)

    def _port(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "gunicorn.conf.py.port").read_text().strip()
        return ""

    def children(self) -> list[int]:
        """Return the processes of the workers."""
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return list(map(int, text.split()))
        return []

    def workers(self) -> set[int]:
        """Return the workers that have got as far as to serve: their agents have sockets."""
        ready = {path.stem for path in (self.folder / "run").glob("*.sock")}
        return {pid for pid in self.children() if str(pid) in ready}

    def ask(self, path: str) -> None:
        """Send a request on a connection of its own; note what comes back."""
        try:
            reply = wire.ask(self.port, path)
            answer = reply.body.decode() if reply.status == 200 else f"{reply.status}"
        except (OSError, HTTPException) as error:
            answer = repr(error)
        self.answers.append(answer)

    def begin(self, path: str, times: int = 1) -> None:
        """Send requests that take a while."""
        self._asking += [gevent.spawn(self.ask, path) for _ in range(times)]

    def load(self, path: str, clients: int = 8) -> None:
        """Have clients ask one request after the other."""
        self.is_loading = True
        self._asking += [gevent.spawn(self._go_on, path) for _ in range(clients)]

    def _go_on(self, path: str) -> None:
        while self.is_loading:
            self.ask(path)

    def quiet(self) -> list[str]:
        """Have no more requests sent; return the answers to all."""
        self.is_loading = False
        gevent.joinall(self._asking, timeout=PATIENCE)
        return self.answers

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        os.kill(self.pid, number)

    def end_in_time(self) -> str:
        """Have it end by TERM, so that nobody has to be killed; return its log."""
        self.signal(signal.SIGTERM)
        assert self.end() == 0
        log = self.log.read_text()
        assert "SIGKILL" not in log
        return log

    def end(self) -> int:
        """Wait for its end, and return its exit code."""
        until(lambda: self.process.poll() is not None)
        return int(self.process.returncode)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """Give what the pools connect to."""
    upstream = Upstream()
    upstream.server.start()
    yield upstream
    upstream.server.stop()


BOTH = pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])


class TestStart:
    def test_opens_the_pools(self, upstream: Upstream) -> None:
        """Each worker's own connections are there before any request comes."""
        with Gunicorn(upstream) as gunicorn:
            until(lambda: len(upstream.open()) == 2 * WORKERS)
            assert {line.owner for line in upstream.lines} == gunicorn.workers()

    def test_of_a_worker_needs_no_database(self, upstream: Upstream) -> None:
        """While it is away workers start and answer what needs none; once it is back, the rest."""
        address = upstream.server.address
        upstream.server.stop()
        with Gunicorn(upstream) as gunicorn:
            gunicorn.ask("/hold")  # answers before it has one
            assert int(gunicorn.answers[0]) in gunicorn.workers()
            upstream.server = StreamServer(address, upstream._serve)
            upstream.server.start()
            gunicorn.ask("/0")
            assert int(gunicorn.answers[1]) in gunicorn.workers()

    def test_leaves_what_the_master_has_opened_alone(self, upstream: Upstream) -> None:
        """A preloaded pool that was used at import is the master's; workers have their own."""
        with Gunicorn(upstream, "--preload", AT_IMPORT="1") as gunicorn:
            of_master = upstream.of(gunicorn.pid)
            assert of_master
            until(lambda: len(upstream.open()) == 2 * WORKERS + len(of_master))
            gunicorn.begin("/0.1", 10)
            assert set(map(int, gunicorn.quiet())) <= gunicorn.workers()
            before = gunicorn.workers()
            gunicorn.signal(signal.SIGHUP)
            until(lambda: len(after := gunicorn.workers()) == WORKERS and not after & before)
            os.kill(victim := min(gunicorn.workers()), signal.SIGKILL)
            until(lambda: len(gunicorn.workers() - {victim}) == WORKERS)  # all can hear a TERM
            assert all(line.is_open for line in of_master)
            assert all(line.said[-1] in ("hello", "import") for line in of_master)
            gunicorn.signal(signal.SIGTERM)
            assert gunicorn.end() == 0
            until(lambda: not upstream.open())
            assert upstream.strangers == []


class TestEnd:
    @BOTH
    def test_by_hup_under_load_loses_no_request(
        self, upstream: Upstream, options: tuple[str, ...]
    ) -> None:
        """New workers take over; every answer is a 200; the old ones close what they had."""
        with Gunicorn(upstream, *options) as gunicorn:
            before = gunicorn.workers()
            gunicorn.load("/0.02")
            until(lambda: len(gunicorn.answers) > 50)
            gunicorn.signal(signal.SIGHUP)
            until(lambda: len(after := gunicorn.workers()) == WORKERS and not after & before)
            until(lambda: not any(line.is_open for pid in before for line in upstream.of(pid)))
            more = len(gunicorn.answers) + 50
            until(lambda: len(gunicorn.answers) > more)
            answered_by = set(map(int, gunicorn.quiet()))
            assert answered_by <= before | gunicorn.workers()
            assert answered_by & gunicorn.workers()
            assert all(line.was_closed_in_order for pid in before for line in upstream.of(pid))
            assert upstream.strangers == []

    @BOTH
    def test_by_term_lets_requests_finish(
        self, upstream: Upstream, options: tuple[str, ...]
    ) -> None:
        """Those in flight, and those who wait for a connection behind them, are answered."""
        with Gunicorn(upstream, *options) as gunicorn:
            workers = gunicorn.workers()
            gunicorn.begin("/0.5", 10)
            until(lambda: upstream.said("begin 0.5") >= 2)
            gunicorn.signal(signal.SIGTERM)
            assert set(map(int, gunicorn.quiet())) <= workers
            assert len(gunicorn.answers) == 10
            assert gunicorn.end() == 0
            until(lambda: not upstream.open())
            assert all(line.was_closed_in_order for line in upstream.lines)
            assert {line.owner for line in upstream.lines} == workers

    def test_by_term_waits_for_no_holder_for_ever(self, upstream: Upstream) -> None:
        """What a background greenlet holds is taken down in time: gunicorn need not kill."""
        with Gunicorn(upstream, "--graceful-timeout", "4") as gunicorn:
            gunicorn.ask("/hold")
            until(lambda: upstream.said("hold"))
            assert "something was still lent" in gunicorn.end_in_time()
            until(lambda: not upstream.open())

    def test_by_term_closes_in_time_though_pools_hang(self, upstream: Upstream) -> None:
        """Those that were started before them are closed in order: gunicorn need not kill."""
        with Gunicorn(upstream, "--graceful-timeout", "4", HANGING="5") as gunicorn:
            until(lambda: len(upstream.open()) == 2 * WORKERS)
            gunicorn.end_in_time()
            until(lambda: not upstream.open())
            assert all(line.was_closed_in_order for line in upstream.lines)
            assert list((gunicorn.folder / "run").glob("*.sock")) == []

    def test_by_term_hurries_a_worker_that_is_at_its_end(self, upstream: Upstream) -> None:
        """One that has had its `max_requests` drains for less than the five seconds then."""
        options = ("--graceful-timeout", "3", "--max-requests", "1")
        with Gunicorn(upstream, *options) as gunicorn:
            gunicorn.ask("/hold")
            until(lambda: "Worker exiting" in gunicorn.log.read_text())
            assert "something was still lent" in gunicorn.end_in_time()
            until(lambda: not upstream.open())

    def test_with_too_short_a_timeout_is_gunicorns(self, upstream: Upstream) -> None:
        """A request that takes longer is killed with its worker, as without gpool."""
        with Gunicorn(upstream, "--graceful-timeout", "1") as gunicorn:
            gunicorn.begin("/30", 2)
            until(lambda: upstream.said("begin 30"))
            gunicorn.signal(signal.SIGTERM)
            assert gunicorn.end() == 0
            assert not any(answer.isdigit() for answer in gunicorn.quiet())
            until(lambda: not upstream.open())

    def test_by_quit_is_at_once(self, upstream: Upstream) -> None:
        """Nobody waits for requests, nor for what they hold."""
        with Gunicorn(upstream) as gunicorn:
            gunicorn.begin("/30")
            until(lambda: upstream.said("begin 30"))
            gunicorn.signal(signal.SIGQUIT)
            assert gunicorn.end() == 0
            assert "SIGKILL" not in gunicorn.log.read_text()
            until(lambda: not upstream.open())

    def test_by_kill_concerns_one_worker(self, upstream: Upstream) -> None:
        """Its connections are gone without a good-bye; a new worker has new ones."""
        with Gunicorn(upstream) as gunicorn:
            before = gunicorn.workers()
            until(lambda: len(upstream.open()) == 2 * WORKERS)
            gunicorn.begin("/0.7", 6)
            until(lambda: upstream.said("begin 0.7") >= 3)
            victim, other = before
            os.kill(victim, signal.SIGKILL)
            until(lambda: len(gunicorn.workers() - {victim}) == WORKERS)
            until(lambda: not any(line.is_open for line in upstream.of(victim)))
            answers = gunicorn.quiet()
            assert answers.count(str(other)) >= 1
            assert str(victim) not in answers
            assert all(line.is_open for line in upstream.of(other))
            assert not any(line.was_closed_in_order for line in upstream.of(victim))
            until(lambda: len(upstream.open()) == 2 * WORKERS)
            assert victim not in {int(p.stem) for p in (gunicorn.folder / "run").iterdir()}
            assert upstream.strangers == []

    @BOTH
    def test_by_max_requests_loses_no_request(
        self, upstream: Upstream, options: tuple[str, ...]
    ) -> None:
        """Workers that are replaced under load, again and again."""
        recycling = ("--max-requests", "40", "--max-requests-jitter", "20")
        with Gunicorn(upstream, *options, *recycling) as gunicorn:
            gunicorn.load("/0.01")
            until(lambda: len({line.owner for line in upstream.lines}) >= WORKERS + 2)
            until(lambda: not all(line.is_open for line in upstream.lines))
            answered_by = set(map(int, gunicorn.quiet()))
            ended = {line.owner for line in upstream.lines if not line.is_open}
            assert answered_by <= {line.owner for line in upstream.lines}
            until(lambda: all(line.was_closed_in_order for line in upstream.of(min(ended))))
            assert upstream.strangers == []


class TestWorkerConnections:
    def test_are_bounded_by_gunicorn(self, upstream: Upstream) -> None:
        """What does not fit waits at the socket, through a reload, too, and is answered."""
        with Gunicorn(upstream, "--worker-connections", "2") as gunicorn:
            gunicorn.begin("/0.2", 12)
            until(lambda: upstream.said("begin 0.2"))
            gunicorn.signal(signal.SIGHUP)
            assert all(answer.isdigit() for answer in gunicorn.quiet())
            assert len(gunicorn.answers) == 12


class TestPatience:
    def test_is_what_is_left(self, clock: VirtualClock) -> None:
        """Of graceful_timeout since the first TERM, less a spare; five seconds at most."""
        orders = hooks._Orders()
        assert orders.patience(30) == hooks.DRAIN
        orders.hear(signal.SIGTERM)
        assert orders.patience(30) == hooks.DRAIN
        clock.advance(25.0)
        orders.hear(signal.SIGTERM)
        assert orders.patience(30) == pytest.approx(3.0)
        clock.advance(10.0)
        assert orders.patience(30) == 0.0
        assert clocks.now() == clock.now()

    @pytest.mark.parametrize(("number", "seconds"), [(signal.SIGTERM, 2.0), (signal.SIGQUIT, 0.0)])
    def test_grows_short_when_a_signal_comes(
        self, clock: VirtualClock, caplog: pytest.LogCaptureFixture, number: int, seconds: float
    ) -> None:
        """While a drain is under way, and that is no crash; a second TERM changes nothing."""
        pool = gpool.Pool(gpool.Resource(create=list), size=1, name="db").start()
        lease = pool.checkout()
        orders = hooks._Orders()
        stop = gevent.spawn(orders.stop_pools, 4)
        clock.advance(1.0)
        orders.hear(number)
        orders.hear(signal.SIGTERM)
        clock.advance(max(seconds - 0.1, 0.0))
        assert pool.status().state == ("down" if seconds else "stopped")
        clock.advance(0.2)
        assert pool.status().state == "stopped"
        clock.advance(1.0)
        assert stop.get(timeout=5) is False
        assert not any("_Orders" in record.getMessage() for record in caplog.records)
        lease.checkin()

    @pytest.mark.parametrize("number", hooks.AT_ONCE)
    def test_is_none_at_quit(self, number: int) -> None:
        """Whatever was said before."""
        orders = hooks._Orders()
        orders.hear(signal.SIGTERM)
        orders.hear(number)
        assert orders.patience(30) == 0.0


class Log:
    """gunicorn's log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, *args: Any) -> None:
        """Note a line."""
        self.lines.append(re.sub(r"\s+", " ", text % args))


class TestChildExit:
    @pytest.mark.parametrize("mode", ["livesum", "sum"])
    def test_has_prometheus_forget_live_gauges(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """Those of the worker that has ended; what it has counted stays."""
        pytest.importorskip("prometheus_client")
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        monkeypatch.setenv("GPOOL_RUN_DIR", str(tmp_path / "run"))
        files = [tmp_path / f"gauge_{mode}_{pid}.db" for pid in (11, 12)]
        for path in files:
            path.touch()

        class Worker:
            pid = 11

        hooks.child_exit(None, Worker())
        assert [path.exists() for path in files] == [mode == "sum", True]
