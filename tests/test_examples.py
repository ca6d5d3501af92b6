"""The examples, run as a user runs them: in processes of their own, seen from outside."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from gevent.event import Event

import gpool

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))
RUN_HERE = {
    "01_first_pool.py", "02_supervisor.py", "03_links_and_monitors.py", "04_jobs.py",
    "05_outage.py", "06_observer.py", "web.py",
}  # fmt: skip
RUN_BY_OTHERS = {
    "web_load.py",  # by web.py
    "proxy.py",  # by test_example_proxy.py
    "django_app.py",  # by integrations/test_django_example.py
}
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(gpool.__file__).parents[1])}
ENVIRONMENT.pop("PYTHONSAFEPATH", None)  # an example imports those beside it


def command(name: str, *arguments: str) -> list[str]:
    """Return what starts an example."""
    return [sys.executable, str(EXAMPLES / name), *arguments]


def run(name: str, *arguments: str) -> str:
    """Run an example to its end, and return what it prints."""
    process = subprocess.run(
        command(name, *arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=25
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def pids(name: str, text: str) -> list[str]:
    """Return the pids of the processes of that name in a printed tree."""
    return re.findall(rf"^ *{name}\b.*?(#PID<\d+>)", text, re.MULTILINE)


class TestExamples:
    def test_are_all_run(self) -> None:
        """A new one that nobody runs does not go unnoticed."""
        runnable = {path.name for path in FILES if 'if __name__ == "__main__"' in path.read_text()}
        assert runnable == RUN_HERE | RUN_BY_OTHERS

    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
    def test_are_read_at_one_sitting(self, path: Path) -> None:
        """At most sixty lines of code; documentation and empty lines do not count."""
        code: set[int] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if isinstance(node, ast.expr | ast.alias | ast.arg) and not is_text:
                code.add(node.lineno)
        assert len(code) <= 60


@pytest.fixture(scope="module")
def parts() -> list[str]:
    """Give what the first example prints: start, jobs, before and after each kill, jobs."""
    return re.split(r"^== ", run("01_first_pool.py"), flags=re.MULTILINE)[1:]


class TestFirstPool:
    def test_shows_the_tree(self, parts: list[str]) -> None:
        """Who is whose parent, from the root of the Application to the workers."""
        start = parts[0]
        for parent, child in [("PoolSup", "WorkerSup"), ("PoolSup", "PoolMan")]:
            assert re.search(rf"{child} .* parent {pids(parent, start)[0]} .* waiting", start)
        assert len(pids("Doubler", start)) == 3

    def test_does_five_jobs_on_three_workers(self, parts: list[str]) -> None:
        """At the start, and again when everything was killed once."""
        for jobs in (parts[1], parts[-1]):
            assert re.findall(r"^Doubling (\d)$", jobs, re.MULTILINE) == list("12345")
            assert {int(n) for n in re.findall(r"got (\d+)", jobs)} == {2, 4, 6, 8, 10}
            workers = re.findall(r"from (<Doubler .*>)", jobs)
            assert (len(workers), len(set(workers))) == (5, 3)

    @pytest.mark.parametrize(
        ("number", "what", "survivors"),
        [(0, "its worker", 2), (1, "the client", 3), (2, "PoolMan", 0), (3, "WorkerSup", 0)],
    )
    def test_shows_what_a_kill_does(
        self, parts: list[str], number: int, what: str, survivors: int
    ) -> None:
        """PoolSup stays; if PoolMan or WorkerSup is killed, all below PoolSup is new."""
        before, after = parts[2 + 2 * number : 4 + 2 * number]
        assert re.match(rf"{what} #PID<\d+> is about to be killed", before)
        assert re.match(rf"{what} #PID<\d+> is dead", after)
        assert before.count("lent to") == 1
        assert "lent to" not in after
        assert pids("PoolSup", before) == pids("PoolSup", after)
        is_new = survivors == 0
        for manager in ("PoolMan", "WorkerSup"):
            assert (pids(manager, before) != pids(manager, after)) == is_new
        both = set(pids("Doubler", before)) & set(pids("Doubler", after))
        assert (len(both), len(pids("Doubler", after))) == (survivors, 3)


class TestSupervisor:
    def test_restarts_the_rest(self) -> None:
        """A new cook after the fall of the cook, both new after that of the board."""
        text = run("02_supervisor.py")
        first, second, third = pids("Board", text)
        assert first == second != third
        assert len(set(pids("Cook", text))) == 3
        assert re.findall(r"^(\w+) made by", text, re.MULTILINE) == ["soup", "salad", "omelette"]
        assert text.endswith("closed; who is left: [#PID<1>]\n")


class TestLinksAndMonitors:
    def test_tells_who_hears_of_whose_death(self) -> None:
        """Two DOWNs, an EXIT, and the DOWN of nobody."""
        lines = run("03_links_and_monitors.py").splitlines()
        expected = ["reason='done')", "reason='boom')", "reason='killed')", "reason='noproc')"]
        assert [line.rpartition(" ")[2] for line in lines] == expected


class TestJobs:
    def test_keeps_the_order_and_says_what_failed(self) -> None:
        """Three presses, one paper jam, and as many presses as before."""
        one, order, failed, each = run("04_jobs.py").splitlines()
        assert one.endswith("sheet 1")
        assert order.endswith(str([f"sheet {number}" for number in range(2, 8)]))
        assert re.search(r"\['sheet 12', <class '[\w.]*ServerExited'>, 'sheet 14'\]", failed)
        assert len(re.findall(r"\d+", each)) == 3


class TestOutage:
    def test_costs_one_check_after_a_restart(self) -> None:
        """The first client finds out for all; then one start at a time until it is back."""
        well, restart, away = re.split(r"\n\n", run("05_outage.py").strip())
        assert "server 0" in well
        assert "server 1" in restart
        assert (restart.count("checked one"), restart.count("suspected")) == (1, 3)
        assert "server 1" in away
        assert away.count("breaker open") >= 1
        assert "breaker='closed'" in away


class TestObserver:
    def test_can_be_looked_into(self) -> None:
        """While it runs, a second process sees its supervisors and its pools."""
        with tempfile.TemporaryDirectory(prefix="gpool-") as folder:
            environment = ENVIRONMENT | {"GPOOL_RUN_DIR": folder}
            example = subprocess.Popen(
                command("06_observer.py"), env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert example.stdout is not None
            with example.stdout:
                assert f"look into process {example.pid}" in example.stdout.readline()
                seen = subprocess.check_output(
                    [sys.executable, "-m", "gpool", "tree"], env=environment, text=True
                )
                example.send_signal(signal.SIGINT)
                assert example.wait(timeout=10) == 0
            for name in ("house", "customer 2", "painters", "brushes", "PoolMan", "WorkerSup"):
                assert name in seen
            assert not list(Path(folder).iterdir())  # it has taken its socket along


class TestWeb:
    def check(self, text: str, *, size: int, faults: bool = True) -> None:
        """Check the table at the end."""
        numbers = {
            label.strip(): int(number)
            for label, number in re.findall(r"^(\w[\w -]*?) +(\d+)(?:  |$)", text, re.MULTILINE)
        }
        remarks = {what: int(n) for n, what in re.findall(r"^ +(\d+)  (.+)$", text, re.MULTILINE)}
        assert remarks["answered"] > 0
        assert numbers["requests"] >= remarks["answered"]
        assert (numbers["faults"] > 0) == faults
        assert (remarks["of PoolMan and WorkerSup"] > 0) == faults
        assert numbers["slots lost"] == numbers["balance of entries"] == remarks["left open"] == 0
        assert f"opened, at most {size} at a time" in text
        assert re.search(r"^still answers +yes$", text, re.MULTILINE)
        assert re.search(r"^wait for a connection( +\d+\.\d ms){4}$", text, re.MULTILINE)

    def test_loses_no_slot(self) -> None:
        """On SQLite, while clients, workers, PoolMan and WorkerSup are killed."""
        text = run("web.py", "--seconds=3", "--faults=60", "--size=5", "--clients=20")
        self.check(text, size=5)
        assert "client killed" in text
        assert "worker killed" in text
        lines = re.findall(r"^ *\d+\.\d s: \d+ requests", text, re.MULTILINE)
        assert len(lines) >= 2  # one a second where there is time for it, and one at the end

    def test_fails_nobody_without_faults(self) -> None:
        """Then the only outcome is an answer."""
        text = run("web.py", "--seconds=1", "--no-faults", "--size=2")
        self.check(text, size=2, faults=False)
        assert re.search(r"^requests +(\d+) .*\n +\1  answered\nfaults", text, re.MULTILINE)

    def test_runs_on_postgresql(self, postgres: str) -> None:
        """By one option."""
        self.check(run("web.py", "--seconds=3", "--faults=60", "--dsn", postgres), size=10)

    def test_hurts_nobody_once_the_faults_are_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor by the one that was due next: what it hits then is what is being looked at."""
        monkeypatch.syspath_prepend(EXAMPLES)
        web_faults = importlib.import_module("web_faults")
        faults = web_faults.Faults(lambda environ, start_response: [], rate=1.0)
        client = gpool.spawn(Event().wait)

        def pause(seconds: float) -> None:
            faults.rate = 0
            faults.clients.add(client)  # the request that finds out whether all is well

        monkeypatch.setattr(web_faults, "gevent", SimpleNamespace(sleep=pause))
        monkeypatch.setattr(web_faults, "VICTIMS", {"client": 1})
        faults.run()
        assert not faults.counts
        assert gpool.is_alive(client)

    def test_lets_all_clients_send(self) -> None:
        """Also if each finds its answer there at once, and so never has to wait for it."""
        code = """if True:
            import gevent, http.client, web_load

            class Connection(http.client.HTTPConnection):
                status, read = 200, bytes
                def request(self, *args): print(next(tries), clients.index(gevent.getcurrent()))
                def getresponse(self): return self

            http.client.HTTPConnection = Connection
            is_over, tries = web_load.Event(), iter("abc")
            clients = [gevent.spawn(web_load.client, "", is_over) for _ in range(3)]
            gevent.spawn(is_over.set)
            gevent.joinall(clients)
            """
        environment = ENVIRONMENT | {"PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}:{EXAMPLES}"}
        text = subprocess.check_output(
            [sys.executable, "-c", code], env=environment, text=True, timeout=20
        )
        assert text == "a 0\nb 1\nc 2\n"

    def test_ends_with_the_table_at_ctrl_c(self, tmp_path: Path) -> None:
        """On a terminal, where one line is updated; its folder goes with it."""
        ours, theirs = pty.openpty()
        with open(theirs, "wb", buffering=0) as terminal:  # os.close, patched, would be late
            process = subprocess.Popen(
                command("web.py", "--seconds=60", "--faults=60"),
                env=ENVIRONMENT | {"TMPDIR": str(tmp_path)}, stdout=terminal, stderr=terminal,
            )  # fmt: skip
        text = b""
        with contextlib.suppress(OSError):  # Linux's way to say that the other side is closed
            while chunk := os.read(ours, 1000):
                if b"requests" in chunk and b"requests" not in text:
                    process.send_signal(signal.SIGINT)
                text += chunk
        os.close(ours)
        assert process.wait(timeout=10) == 0, text
        assert b"\r\x1b[K" in text
        self.check(text.decode().replace("\r", ""), size=10)
        assert not list(tmp_path.iterdir())

    def test_ends_with_the_table_at_ctrl_c_before_the_load_has_begun(self, tmp_path: Path) -> None:
        """As soon as the server answers: the pool has been hurt, if not by requests."""
        process = subprocess.Popen(
            command("web.py", "--seconds=60"), env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        with process.stdout:
            assert re.fullmatch(r"http://\S+ answers; Ctrl-C ends it\n", process.stdout.readline())
            process.send_signal(signal.SIGINT)
            text = process.stdout.read()
        assert process.wait(timeout=10) == 0, text
        assert re.search(r"^requests +\d+  in \d+\.\d s$", text, re.MULTILINE)
        assert re.search(r"^slots lost +0  of 10$", text, re.MULTILINE)
        assert re.search(r"^still answers +yes$", text, re.MULTILINE)
        assert not list(tmp_path.iterdir())

    def test_fails_if_the_load_does(self, tmp_path: Path) -> None:
        """Without requests there is nothing to show, unless somebody has ended it."""
        shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
        (tmp_path / "web_load.py").write_text("raise SystemExit(3)\n")
        process = subprocess.run(
            [sys.executable, str(tmp_path / "web.py")],
            env=ENVIRONMENT, capture_output=True, text=True, timeout=25,
        )  # fmt: skip
        assert process.returncode == 1
        assert "returned non-zero exit status 3" in process.stderr
