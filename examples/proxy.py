"""A TCP proxy with a bounded upstream: few connections to it, however many clients come.

Each client gets a fresh connection to the upstream, or waits until one may be opened; if
the upstream is away they wait as well, and the pool goes on trying.  Ctrl-C or SIGTERM: no
more clients, those connected have ten seconds to finish.

    python examples/proxy.py 127.0.0.1:6543 127.0.0.1:5432 --size 4
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import gevent
from gevent import socket
from gevent.server import StreamServer

import gpool


def pump(source: Any, sink: Any) -> None:
    """Copy what comes until the source has ended, then end the sink's side of it."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class Proxy:
    """Lends every client a connection to the upstream, `size` at once."""

    def __init__(self, upstream: tuple[str, int], size: int) -> None:
        connection = gpool.Resource(
            create=lambda: socket.create_connection(upstream), close=socket.socket.close
        )
        # Opened when a client comes, and never used by a second one.
        self.pool = gpool.Pool(
            connection, size=size, lazy=True, max_uses=1, timeout=30.0, name="upstream"
        )

    def serve(self, client: Any, address: Any) -> None:
        """Serve a client; runs in a greenlet of its own."""
        try:
            with self.pool.checkout() as server:
                there = gevent.spawn(pump, client, server)
                try:
                    pump(server, client)  # when the upstream has ended, all has
                finally:
                    there.kill()
        except gpool.PoolError as error:
            print(f"{address[0]} was not served: {error}", flush=True)


def address(text: str) -> tuple[str, int]:
    """Return a host and a port."""
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("listen", type=address)
    arguments.add_argument("upstream", type=address)
    arguments.add_argument("--size", type=int, default=4)
    given = arguments.parse_args()
    proxy = Proxy(given.upstream, given.size)
    server = StreamServer(given.listen, proxy.serve)
    gpool.run(server, lambda: print("listening at port", server.server_port, flush=True))
