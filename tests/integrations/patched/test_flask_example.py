"""examples/flask_app.py as its users run it: gunicorn, PostgreSQL, real HTTP, and trouble."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import psycopg
import pytest

from tests.servers.postgresql import PostgreSQL
from tests.servers.program import family, missing
from tests.waiting import until

CHECKOUT = Path(__file__).parents[3]
EXAMPLES = CHECKOUT / "examples"
FILES = [EXAMPLES / "flask_app.py", EXAMPLES / "gunicorn.conf.py"]
CAP = 2 * (5 + 5)  # connections of two workers
LINES = 40_000  # of 80 bytes: more than sockets buffer

if importlib.util.find_spec("gunicorn") is None:
    missing("gunicorn", "pip install gunicorn")


class Example:
    """The example, served."""

    def __init__(self, server: PostgreSQL, folder: Path) -> None:
        self.server = server
        self.env = os.environ | {
            "DATABASE_URL": server.url(driver="postgresql+psycopg"), "HOME": str(folder),
            "PYTHONPATH": str(CHECKOUT), "GPOOL_RUN_DIR": str(folder / "run"),
        }  # fmt: skip
        self.env.pop("PYTHONSAFEPATH", None)
        self.log = folder / "log"
        self.flask("init")
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = listener.getsockname()[1]
        command = ["-m", "gunicorn", "-c", "gunicorn.conf.py", "-b", f"fd://{listener.fileno()}"]
        with listener, self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, "flask_app:app"], cwd=EXAMPLES, env=self.env,
                pass_fds=[listener.fileno()], stdout=log, stderr=log,
            )  # fmt: skip
        until(lambda: self.status_of("GET", "/") == 200, "gunicorn to answer")

    def flask(self, *command: str) -> str:
        """Run a command of ``flask``, and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "flask_app", *command],
            cwd=EXAMPLES, env=self.env, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that is kept alive."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, method: str, path: str, name: str = "") -> tuple[int, str]:
        """Return the status and the text of an answer."""
        with contextlib.closing(self.connect()) as connection:
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request(method, path, f"name={name}" if name else None, form)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def status_of(self, method: str, path: str) -> int:
        """Return the status of an answer; 0 if there was none."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask(method, path)[0]
        return 0

    def sessions(self, where: str = "true") -> int:
        """Return how many connections the example has to the server."""
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            query = (
                "select count(*) from pg_stat_activity where pid <> pg_backend_pid()"
                f" and backend_type = 'client backend' and {where}"
            )
            return int(connection.execute(query).fetchone()[0])  # type: ignore[arg-type,index]

    def stop(self) -> None:
        """End it, however it is."""
        for pid in list(family(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """A server of the example's own."""
    with PostgreSQL(max_connections=CAP + 10) as server:
        yield server


@pytest.fixture(scope="module")
def example(server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """The example, which runs; the last test ends it."""
    example = Example(server, tmp_path_factory.mktemp("example"))
    yield example
    example.stop()


def all_of(count: int, fn: Callable[[int], Any]) -> list[Any]:
    """Return what so many clients get that come at once."""
    clients = [gevent.spawn(fn, number) for number in range(count)]
    return [client.get(timeout=30) for client in clients]


class TestExample:
    def test_takes_five_lines(self) -> None:
        """Those that are marked, and no other line mentions gpool."""
        lines = [line for path in FILES for line in _code(path)]
        assert [number for number in range(1, 9) if any(f"# ({number})" in x for x in lines)] == [
            1, 2, 3, 4, 5
        ]  # fmt: skip
        ours = [line for line in lines if "gpool" in line or "GPool" in line or "Super" in line]
        assert all("# (" in line for line in ours)
        assert len(ours) == 5

    def test_serves_two_hundred_at_once(self, example: Example) -> None:
        """Each is answered, and the server never sees more connections than it was promised."""
        peaks: list[int] = []

        def look() -> None:
            while True:
                peaks.append(example.sessions("datname = 'postgres'"))
                gevent.sleep(0.05)

        looker = gevent.spawn(look)
        before = int(example.ask("GET", "/")[1].split()[0])
        answers = all_of(200, lambda n: example.ask("POST" if n % 2 else "GET", "/", f"n{n}"))
        looker.kill()
        assert {status for status, _ in answers} == {200}
        assert example.ask("GET", "/")[1] == f"{before + 100} visits\n"
        assert max(peaks) <= CAP

    def test_bears_a_client_that_hangs_up(self, example: Example) -> None:
        """In the middle of a long answer, again and again: no connection is left busy."""
        with psycopg.connect(example.server.dsn()) as connection:
            query = "insert into visits (name) select repeat('x', 80) from generate_series(1, %s)"
            connection.execute(query, [LINES])
        for _ in range(CAP + 5):
            with contextlib.closing(example.connect()) as client:
                client.request("GET", "/all")
                assert client.getresponse().read(10)
        until(lambda: example.sessions("state <> 'idle'") == 0, "all to be idle")
        status, text = example.ask("GET", "/all")
        assert (status, text.count("\n") >= LINES) == (200, True)
        assert all_of(CAP, lambda n: example.ask("GET", "/")[0]) == [200] * CAP

    def test_bears_a_restart_of_its_server(self, example: Example) -> None:
        """Clients are told 503, and are served when it is back.

        500 is for those whose answer was ready: Flask-SQLAlchemy ends their sessions by a
        rollback, which fails.
        """
        seen: list[int] = []
        is_over = gevent.event.Event()

        def load(number: int) -> None:
            while not is_over.is_set():
                seen.append(example.ask("POST" if number % 2 else "GET", "/", "load")[0])

        clients = [gevent.spawn(load, number) for number in range(20)]
        until(lambda: seen.count(200) > 100, "answers")
        example.server.kill()
        until(lambda: 503 in seen, "an error")
        example.server.start()
        served = seen.count(200)
        until(lambda: seen.count(200) > served + 100, "answers again")
        is_over.set()
        gevent.joinall(clients, raise_error=True)
        assert {200, 503} <= set(seen) <= {200, 500, 503}
        assert all_of(CAP, lambda n: example.ask("GET", "/")[0]) == [200] * CAP

    def test_can_be_looked_into(self, example: Example) -> None:
        """By the commands of the app itself: a pool in each worker that has served."""
        all_of(50, lambda n: example.ask("GET", "/"))
        said = example.flask("gpool", "pools")
        assert "postgresql-1" in said
        assert example.flask("gpool", "nodes").count("gunicorn") == 2

    def test_answers_what_is_under_way_at_term(self, example: Example) -> None:
        """Then it ends, with code 0, and leaves no connection."""
        clients = [gevent.spawn(example.ask, "GET", "/sleep/1.0") for _ in range(10)]
        until(lambda: example.sessions("query like '%pg_sleep%'") == 10, "ten to sleep")
        example.process.send_signal(signal.SIGTERM)
        assert [client.get(timeout=20) for client in clients] == [(200, "slept\n")] * 10
        assert example.process.wait(timeout=20) == 0
        until(lambda: example.sessions() == 0, "connections to end")


def _code(path: Path) -> list[str]:
    """Return the lines of a file without its documentation."""
    text = path.read_text()
    return text.split('"""', 2)[2].splitlines()
