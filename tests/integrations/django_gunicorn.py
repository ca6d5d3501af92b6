"""A gunicorn that serves a Django application to tests: started, driven by HTTP, and ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.observer import wire
from tests.waiting import until

CHECKOUT = Path(__file__).parents[2]


class Gunicorn:
    """One that runs, and the port that it listens at."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.path = process, log
        until(lambda: self.log.count("Booting worker") and "Listening at" in self.log, "gunicorn")
        self.port = int(self.log.partition("http://127.0.0.1:")[2].partition(" ")[0])

    @property
    def log(self) -> str:
        """What it has said."""
        return self.path.read_text()

    def get(self, path: str) -> wire.Reply:
        """Return what it answers."""
        return wire.ask(self.port, path)

    def text(self, path: str) -> str:
        """Return what it answers, if that is well."""
        reply = self.get(path)
        assert reply.status == 200, reply.body.decode() + self.log
        return reply.body.decode()


@contextlib.contextmanager
def gunicorn(folder: Path, application: str, *options: str, **env: str) -> Iterator[Gunicorn]:
    """Give a gunicorn on gevent, of an application in a folder; it is ended in good order."""
    with tempfile.TemporaryDirectory(prefix="gpool-") as home:
        command = [
            sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0",
            "--chdir", str(folder), "--worker-tmp-dir", home, *options, application,
        ]  # fmt: skip
        surroundings = os.environ | {
            "HOME": home, "GPOOL_RUN_DIR": f"{home}/run", "PYTHONPATH": str(CHECKOUT),
            "PGHOST": "127.0.0.1", **env,
        }  # fmt: skip
        surroundings.pop("PYTHONSAFEPATH", None)
        log = Path(home) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=folder, env=surroundings, stdout=output, stderr=output
            )
        try:
            yield Gunicorn(process, log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
