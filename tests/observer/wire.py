"""Both ends of the Observer's wires, as plain as can be: raw requests, and nodes that are none.

Requests are sent as they are written, since a client of the library would mend them.  All
of it waits in gevent's way: the servers under test run in the same hub.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import gevent.socket
from gevent.pywsgi import WSGIHandler, WSGIServer


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@contextlib.contextmanager
def connected(port: int) -> Iterator[Any]:
    """Give a socket that is connected to a port."""
    sock = gevent.socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        yield sock
    finally:
        sock.close()


def exchange(port: int, raw: bytes, method: str = "GET") -> Reply:
    """Send bytes, and read one reply."""
    with connected(port) as sock:
        sock.sendall(raw)
        return reply_of(sock, method)


def reply_of(sock: Any, method: str = "GET") -> Reply:
    """Read one reply."""
    response = HTTPResponse(sock, method=method)
    try:
        response.begin()
        return Reply(response.status, response.headers, response.read())
    finally:
        response.close()


def ask(
    port: int,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    **headers: str | None,
) -> Reply:
    """Send a request; underscores in headers' names are hyphens, None leaves one out."""
    return exchange(port, request(port, path, method, body, **headers), method)


def request(
    port: int,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    **headers: str | None,
) -> bytes:
    """Return the bytes of a request."""
    defaults = {"Host": f"127.0.0.1:{port}", "Connection": "close"}
    if body is not None:
        defaults["Content-Length"] = str(len(body))
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (defaults | given).items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


@contextlib.contextmanager
def served(app: Any) -> Iterator[int]:
    """Serve an app with a bare pywsgi; gives the port."""
    server = WSGIServer(("127.0.0.1", 0), app, spawn=64, log=None, environ={"SERVER_NAME": "x"})
    server.start()
    try:
        yield server.server_port
    finally:
        server.stop()


@contextlib.contextmanager
def a_run_dir() -> Iterator[Path]:
    """Give an empty run directory; pytest's own folders are too long for a socket's path."""
    path = Path(tempfile.mkdtemp(prefix="gpool"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def listen(path: Path, backlog: int = 16) -> Any:
    """Listen at the path of a Unix socket, in the place of whoever did before."""
    path.unlink(missing_ok=True)
    sock = gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen(backlog)
    return sock


@dataclass
class FakeNode:
    """A node that says always the same, and remembers what it was asked."""

    path: Path
    status: str = "200 OK"
    content: bytes | None = None  # None: an answer to /v1/node
    headers: list[tuple[str, str]] = field(default_factory=list)
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)  # method, target, body
    environs: list[dict[str, str]] = field(default_factory=list)

    def __enter__(self) -> FakeNode:
        """Begin to listen."""
        self._server = WSGIServer(
            listen(self.path), self._answer, spawn=64, log=None, handler_class=_Raw
        )
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Listen no more; the socket's file stays, as that of a killed process does."""
        self._server.stop()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        self.seen.append((environ["REQUEST_METHOD"], environ["raw"], body))
        # Without the input: it holds the connection, which libuv wants closed in good order.
        self.environs.append({key: value for key, value in environ.items() if type(value) is str})
        start_response(self.status, self.headers)
        node = {"api": 1, "node": self.path.stem, "os_pid": 1}
        return [json.dumps(node).encode() if self.content is None else self.content]


class _Raw(WSGIHandler):
    def get_environ(self) -> Any:
        return {**super().get_environ(), "raw": self.path}


@contextlib.contextmanager
def hanging_node(path: Path, backlog: int = 16) -> Iterator[None]:
    """Give a node that takes every request and answers none."""
    sock = listen(path, backlog)
    try:
        yield
    finally:
        sock.close()


@contextlib.contextmanager
def full_line(path: Path) -> Iterator[None]:
    """Have so many connect to the path of a Unix socket that it takes nobody more."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(str(path))
        yield
