"""The run directory: where every observed process of this user has its socket.

    <run directory>/          mode 0700, ours
        4711.sock             mode 0600; its stem names the *node*, the observed process

It is ``$GPOOL_RUN_DIR`` if that is set, else ``gpool`` in ``$XDG_RUNTIME_DIR``, else
``gpool-<uid>`` in the folder for temporary files.  Whoever may enter the directory may
look into the processes, so one that is not ours, or that others may enter, is refused.

A process that is killed leaves its socket behind: whoever finds that nobody listens
there unlinks it.

Not here: what goes through the sockets (``node/agent.py``, ``client.py``).
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Final

from gpool import GPoolError

LONGEST: Final = 107  # bytes that the path of a Unix socket may have
_NODE: Final = re.compile(r"[0-9]{1,10}(-[0-9]{1,4})?")  # what a node may be called


class RunDirError(GPoolError):
    """The run directory is not one to put sockets into."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"run directory {str(self.path)!r}: {self.problem}; "
            "set GPOOL_RUN_DIR to a directory of yours with mode 0700"
        )


def default() -> Path:
    """Return the run directory of this user, which need not exist."""
    if chosen := os.environ.get("GPOOL_RUN_DIR"):
        return Path(chosen)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "gpool")
    return Path(tempfile.gettempdir(), f"gpool-{os.geteuid()}")


class RunDir:
    """One run directory.

    Args:
        path: Where it is; None: where this user's is.

    Raises:
        TypeError: `path` is no path.
        RunDirError: It is somebody else's, or open to others, or a path there would be
            too long for a socket.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is not None and not isinstance(path, str | os.PathLike):
            raise TypeError(f"run_dir: expected a path or None, got {path!r}")
        # As it is now: a daemon may go to another directory.
        self.path = Path(os.path.abspath(default() if path is None else path))
        if "\0" in str(self.path):
            raise RunDirError(self.path, "it has a NUL in it")
        longest = self.path / "0123456789-9999.sock"
        if len(os.fsencode(longest)) > LONGEST:
            raise RunDirError(self.path, f"too long for a socket's path ({LONGEST} bytes)")
        if self._exists():
            self._check()

    def _exists(self) -> bool:
        return os.path.lexists(self.path)

    def _check(self) -> None:
        found = os.lstat(self.path)
        if not stat.S_ISDIR(found.st_mode):
            raise RunDirError(self.path, "it is no directory")
        if found.st_uid != os.geteuid():
            raise RunDirError(self.path, f"it belongs to uid {found.st_uid}, not {os.geteuid()}")
        if found.st_mode & 0o077:
            raise RunDirError(self.path, f"others may enter it (mode {found.st_mode & 0o777:o})")

    def make(self) -> None:
        """Make the directory unless it is there.

        Raises:
            RunDirError: It cannot be made, or is not fit.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirError(self.path, f"it cannot be made: {error.strerror}") from error
        self._check()

    def nodes(self) -> list[str]:
        """Return the nodes that have a socket there, live or not, by number."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        found = [name.removesuffix(".sock") for name in names if name.endswith(".sock")]
        return sorted(filter(is_node, found), key=lambda node: [int(n) for n in node.split("-")])

    def socket(self, node: str) -> Path:
        """Return the path of a node's socket.

        Raises:
            ValueError: No node can be called that.
        """
        if not is_node(node):
            raise ValueError(f"node: expected the number of a process, got {node!r}")
        return self.path / f"{node}.sock"

    def __repr__(self) -> str:
        return f"<RunDir {str(self.path)!r}>"


def is_node(name: str) -> bool:
    """Tell whether a node can be called that."""
    return _NODE.fullmatch(name) is not None
