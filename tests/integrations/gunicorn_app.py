"""What the workers of the gunicorn under test serve: requests that use a pool of connections.

The connections go to an upstream in the test's process (``Upstream``), which is told with
each line who speaks: a process that uses another one's connection gives itself away.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import gevent
from gevent.event import Event

import gpool

ADDRESS = ("127.0.0.1", int(os.environ["UPSTREAM"]))


class Connection:
    """A connection to the upstream."""

    def __init__(self) -> None:
        self.socket = socket.create_connection(ADDRESS, timeout=10)
        self.socket.settimeout(None)
        self.say("hello")

    def say(self, word: str) -> None:
        """Say a word, as this process, and wait for the echo."""
        self.socket.sendall(f"{os.getpid()} {word}\n".encode())
        answer = b""
        while not answer.endswith(b"\n"):
            data = self.socket.recv(100)
            if not data:
                raise ConnectionError("the upstream has hung up")
            answer += data

    def close(self) -> None:
        """Say good-bye."""
        self.say("bye")
        self.socket.close()


db = gpool.Pool(
    gpool.Resource(create=Connection, close=Connection.close), size=2, name="db", timeout=20.0
)
if os.environ.get("AT_IMPORT"):  # under --preload this is the master
    with db.checkout() as first:
        first.say("import")
hanging = [
    gpool.Pool(gpool.Resource(create=list, close=lambda _: Event().wait()), size=1, name=f"{i}")
    for i in range(int(os.environ.get("HANGING", "0")))
]


held = Event()


def hold() -> None:
    """Keep a connection, as a listener in the background does."""
    with db.checkout() as connection:
        connection.say("hold")
        held.set()
        Event().wait()


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Use a connection: ``/0.5`` for half a second; ``/hold`` for ever, in the background.

    ``/idle`` needs none.
    """
    path = environ["PATH_INFO"].strip("/")
    if path == "hold":
        gevent.spawn(hold)
        held.wait()
    elif path != "idle":
        with db.checkout() as connection:
            connection.say(f"begin {path}")
            gevent.sleep(float(path or 0))
            connection.say(f"end {path}")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
