"""A gunicorn on gevent for the tests: its master, and all its workers."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import TracebackType

from tests.observer import wire
from tests.servers.program import HOST, Server, family, missing
from tests.waiting import until

CHECKOUT = Path(__file__).parents[2]


class Gunicorn(Server):
    """A gunicorn that serves an application, at a port that the system chooses.

    Its folder is its home, and has its log and, in ``run``, the sockets of gpool's agents.

    Args:
        application: As gunicorn takes it, ``module:name``.
        options: Of the command line.
        config: Its settings, as text, or the file that has them.  Default: none but ``gevent``.
        cwd: Where it runs.
        environment: What it has beside ours.
    """

    name = "gunicorn"

    def __init__(
        self, application: str, *options: str, config: str | Path = "", cwd: Path = CHECKOUT,
        **environment: str,
    ) -> None:  # fmt: skip
        if importlib.util.find_spec("gunicorn") is None:
            missing("gunicorn", "pip install gunicorn")
        super().__init__()
        self.application, self.options, self.cwd = application, options, cwd
        self.config = config
        if not isinstance(config, Path):
            self.config = self.folder / "gunicorn.conf.py"
            self.config.write_text(f'{config}\nworker_class = "gevent"\n')
        self.environment = os.environ | {
            "PYTHONPATH": str(CHECKOUT), "HOME": str(self.folder),
            "GPOOL_RUN_DIR": str(self.run_dir), **environment,
        }  # fmt: skip
        self.environment.pop("PYTHONSAFEPATH", None)

    @property
    def run_dir(self) -> Path:
        """Where the agents of its workers have their sockets."""
        return self.folder / "run"

    def command(self) -> list[str | Path]:
        """Return what starts it."""
        ours = ["-c", self.config, "-b", f"{HOST}:0", "--worker-tmp-dir", self.folder]
        return [sys.executable, "-m", "gunicorn", *ours, *self.options, self.application]

    def answers(self) -> bool:
        """Tell whether it listens, and has a worker."""
        ports = re.findall(rf"Listening at: http://{HOST}:(\d+)", self.log)
        self.port = int(ports[-1]) if ports else 0
        return bool(ports) and "Booting worker" in self.log

    def sockets(self) -> set[int]:
        """Return the processes whose agents have sockets."""
        return {int(path.stem) for path in self.run_dir.glob("*.sock")}

    def workers(self) -> set[int]:
        """Return the workers that have got as far as to serve: their agents have sockets."""
        return set(family(self.pid)) & self.sockets()

    @property
    def pid(self) -> int:
        """The process of the master."""
        assert self.process is not None
        return self.process.pid

    def end(self) -> int:
        """Wait for its end, and return its exit code."""
        assert self.process is not None
        until(lambda: self.process.poll() is not None, "gunicorn to end")
        return int(self.process.returncode)

    def get(self, path: str) -> wire.Reply:
        """Return what it answers."""
        return wire.ask(self.port, path)

    def text(self, path: str) -> str:
        """Return what it answers, if that is well."""
        reply = self.get(path)
        assert reply.status == 200, reply.body.decode() + self.log
        return reply.body.decode()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.log)
        super().__exit__(kind, error, t)
