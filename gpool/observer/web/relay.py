"""The way from a web server to the nodes: every request passed on, no hub held up.

A node is another process, and may hang.  Whoever waits for one waits in gevent's way,
patched or not, so that all others of this server are answered meanwhile;
:meth:`Relay.nodes` asks all nodes side by side and names those that do not answer.

What a node answers is passed on byte for byte, as JSON whatever it calls it, and
without its headers: nothing that stands in a node can become a page of this origin.

Not here: who may ask, and what (``app.py``); the protocol (``client.py``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Final

import gevent
import gevent.socket
from gevent._hub_local import get_hub_if_exists

from gpool import GPoolError
from gpool.observer.client import Client, NodeGone, introduce
from gpool.observer.run_dir import RunDir

ROLL_CALL: Final = 1.0  # s that a node may take to say what it is
TIMEOUT: Final = 2.0  # s that any other answer may take; a node waits 0.2 s for a blocked hub


class RelayError(GPoolError):
    """A node has not answered."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(status, problem)
        self.status = status  # HTTP's
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class Relay:
    """Asks the nodes of one run directory.

    Args:
        run_dir: The directory; None: that of this user.

    Raises:
        TypeError: It is no path.
        RunDirError: It is somebody else's, or open to others.
    """

    def __init__(self, run_dir: str | os.PathLike[str] | None = None) -> None:
        self.path = RunDir(run_dir).path

    def _run_dir(self) -> RunDir:
        """Return the directory, looked at anew: it may have been made, or swapped, since."""
        return RunDir(self.path)

    def nodes(self) -> list[dict[str, Any]]:
        """Return what each node says of itself, or ``{"node": ..., "error": ...}``.

        Those whose processes have ended are left out.  Blocks for about ``ROLL_CALL``
        at most, however many of them hang.

        Raises:
            RunDirError: The run directory is not fit.
        """
        run_dir = self._run_dir()
        with _a_hub():
            asked = [
                gevent.spawn(introduce, run_dir, node, ROLL_CALL, gevent.socket.socket)
                for node in run_dir.nodes()
            ]
            gevent.joinall(asked)
        return [answer.value for answer in asked if answer.value is not None]

    def ask(
        self, node: str, method: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        """Return status and content of a node's answer.

        Raises:
            RelayError: It is gone, does not answer, or makes no sense.
            RunDirError: The run directory is not fit.
        """
        path = self._run_dir().socket(node)
        try:
            with _a_hub():
                client = Client(path, TIMEOUT, gevent.socket.socket)
                status, _, content = client.request(method, target, body, headers)
        except NodeGone as error:
            if path.exists():
                raise RelayError(502, f"node {node} does not answer") from error
            raise RelayError(404, f"node {node} is gone: its process has ended") from error
        if not (200 <= status < 300 or 400 <= status < 600):
            raise RelayError(502, f"node {node} answers with status {status}")
        return status, content


@contextlib.contextmanager
def _a_hub() -> Iterator[None]:
    """Take away the hub that a native thread gets in here: each would keep files open."""
    had_one = get_hub_if_exists() is not None
    try:
        yield
    finally:
        hub = get_hub_if_exists()
        if hub is not None and not had_one and not hub.loop.default:
            hub.destroy(destroy_loop=True)
