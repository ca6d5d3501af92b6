"""A server that a test starts, kills, freezes and starts again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.waiting import until

HOST = "127.0.0.1"


def missing(what: str, remedy: str) -> Any:
    """Skip the test that needs a server which is not installed; in CI it fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is not installed: {remedy}")


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


class Server:
    """One server process, with all that it forks.

    Leaving ``with`` ends it, frozen or not, and removes its folder.
    """

    name = "server"  # names its folder
    user: str | None = None  # whom it runs as, if not as we do
    farewell = "KILL"  # the signal that it gets if we are killed

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"gpool-{self.name}-"))
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str | Path]:
        """Return what starts it, in the foreground."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Tell whether it can be used."""
        raise NotImplementedError

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return HOST, self.port

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> Self:
        """Start it, or start it again; blocks until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._leash(), *(str(word) for word in self.command())],
                cwd=self.folder, user=self.user, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until(self._is_up, f"{self.name} to answer")
        return self

    def _leash(self) -> list[str]:
        """Return what has the kernel end it with us, where there is such a program."""
        found = shutil.which("setpriv")
        return [found, "--pdeathsig", self.farewell] if found else []

    def _is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.log}")
        return self.answers()

    def kill(self) -> None:
        """End it at once, as a crash of its machine does, with all that it has forked."""
        assert self.process is not None
        pids = list(family(self.process.pid))
        self.signal(signal.SIGKILL)
        self.process.wait()
        until(lambda: not any(map(is_running, pids)), f"all of {self.name} to end")

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def mend(self) -> Self:
        """Start it afresh, whatever was done to it: nobody is connected then."""
        assert self.process is not None
        if self.process.poll() is None:
            self.kill()
        return self.start()

    def freeze(self) -> None:
        """Have it answer nobody, without closing anything: a black hole."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)  # so that it forks no more
        for pid in reversed(list(family(self.process.pid))):  # those of a dead one are not found
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def filled(self) -> AbstractContextManager[object]:
        """Take every connection that it has; leaving it lets go of them."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it, and remove what it has left."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        self.stop()


def family(pid: int) -> Iterator[int]:
    """Yield a process, then all that it has forked: also those with a session of their own."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from family(int(child))


def is_running(pid: int) -> bool:
    """Tell whether a process is there, and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
