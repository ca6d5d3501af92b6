"""A client of one node's socket, with nothing but the standard library.

    client = Client(RunDir().socket("4711"))
    client.get("/v1/processes", sort="mailbox", order="desc")

In a process that gevent has patched it is cooperative.

Not here: what a node answers (``node/api.py``).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import stat
from typing import Any, Final
from urllib.parse import urlencode

from gpool import GPoolError
from gpool.observer.run_dir import RunDir

API: Final = 1  # the version of the API that this client speaks
TIMEOUT: Final = 2.0  # s that an answer may take; a node waits 0.2 s for a blocked hub
LARGEST: Final = 64 * 1024 * 1024  # bytes of an answer


class NodeGone(GPoolError):
    """The process of a node is not there any more."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"nobody listens at {self.path!r}: the process has ended"


class NodeSilent(NodeGone):
    """The process of a node is there, but does not answer in time, or breaks off."""

    def __str__(self) -> str:
        return f"no answer at {self.path!r}: the process is stopped, or has no time, or is ending"


class NodeError(GPoolError):
    """A node has refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status  # HTTP's
        self.message = message

    def __str__(self) -> str:
        return self.message


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float, kind: Any) -> None:
        super().__init__("gpool", timeout=timeout)
        self._path, self._kind = path, kind

    def connect(self) -> None:
        """Connect to the socket, which never takes time."""
        self.sock = self._kind(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        # gevent's takes the EAGAIN of a full line for a connection in progress, and would burn
        # the CPU until its time-out: that is what a process does that is stopped.
        real = getattr(self.sock, "_sock", self.sock)
        error: int = real.connect_ex(self._path)
        if error:
            raise OSError(error, os.strerror(error))


class Client:
    """Asks one node; a connection for each request.

    Args:
        path: Of its socket.
        timeout: Seconds that connecting, and each part of an answer, may take.
        kind: What makes sockets; in a process with an unpatched hub ``gevent.socket.socket``.
    """

    def __init__(
        self, path: str | os.PathLike[str], timeout: float = TIMEOUT, kind: Any = None
    ) -> None:
        self.path = os.fspath(path)
        self.timeout = timeout
        self._kind = kind if kind is not None else socket.socket

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Return what a node answers; parameters that are None are left out.

        Raises:
            NodeGone: It is not there; its stale socket is unlinked.
            NodeError: It says no.
        """
        query = {name: value for name, value in query.items() if value is not None}
        return self._parsed("GET", f"{path}?{urlencode(query)}" if query else path, None, {})

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Have a node do something; otherwise as :meth:`get`."""
        headers = {"Content-Type": "application/json", "X-GPool-Action": "1"}
        return self._parsed("POST", path, json.dumps(body).encode(), headers)

    def _parsed(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> dict[str, Any]:
        status, _, content = self.request(method, target, body, headers)
        try:
            answer = json.loads(content)
        except ValueError:
            raise NodeError(502, f"{self.path!r} does not speak JSON") from None
        if not isinstance(answer, dict) or answer.get("api") != API:
            raise NodeError(502, f"{self.path!r} speaks another version of the API than {API}")
        if status >= 400:
            raise NodeError(status, str(answer.get("error", status)))
        return answer

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and content of an answer, whatever they are.

        Raises:
            NodeGone: It is not there.
            NodeSilent: It does not answer.
            NodeError: The target is none.
        """
        connection = _Connection(self.path, self.timeout, self._kind)
        if not (target.isascii() and target.isprintable() and " " not in target):
            raise NodeError(400, f"target: expected a path, percent-encoded, got {target!r:.80}")
        try:
            connection.request(method, target, body, {**(headers or {}), "Connection": "close"})
            response = connection.getresponse()
            content = response.read(LARGEST)
            return response.status, dict(response.getheaders()), content
        except ConnectionRefusedError:
            _remove_stale(self.path)
            raise NodeGone(self.path) from None
        except FileNotFoundError as error:
            raise NodeGone(self.path) from error
        except (OSError, http.client.HTTPException) as error:
            raise NodeSilent(self.path) from error
        finally:
            connection.close()


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens at; what is no socket is none of ours."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def introduce(
    run_dir: RunDir, node: str, timeout: float = TIMEOUT, kind: Any = None
) -> dict[str, Any] | None:
    """Return what a node says of itself, or ``{"node": ..., "error": ...}``; None if it is gone."""
    path = run_dir.socket(node)
    try:
        return Client(path, timeout, kind).get("/v1/node")
    except GPoolError as error:
        return {"node": node, "error": str(error)} if path.exists() else None


def find(run_dir: RunDir, kind: Any = None) -> dict[str, dict[str, Any]]:
    """Return what each node says of itself, asked one after the other; see :func:`introduce`."""
    said = {node: introduce(run_dir, node, kind=kind) for node in run_dir.nodes()}
    return {node: answer for node, answer in said.items() if answer is not None}
