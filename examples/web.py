"""A web server that lends database connections, under load, while everything in it is killed.

    python examples/web.py                                        SQLite, 15 s
    python examples/web.py --dsn postgresql://localhost/postgres  needs gpool[postgres]

The application is in ``web_app.py``; the load comes from a second process
(``web_load.py``), the faults from this one (``web_faults.py``).  It ends, at
Ctrl-C too, with a table, and with exit code 0 if no slot was lost, no connection
was left open, no write was half done, and the server still answers.
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import argparse
import contextlib
import http.client
import json
import logging
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import web_report
from gevent.pywsgi import WSGIServer
from web_app import Application
from web_database import Connections, Database, PostgreSQL, SQLite
from web_faults import Faults

import gpool


def main() -> int:
    """Serve, have it loaded and hurt, and look at what is left; return the exit code."""
    options = parse()
    kind = SQLite if options.dsn is None else PostgreSQL
    with tempfile.TemporaryDirectory(prefix="gpool-web-") as folder:
        where = options.dsn or str(Path(folder, "entries.db"))
        connections = Connections(kind, where)
        with contextlib.closing(kind(where)) as database:
            database.run("drop table if exists gpool_entries")
            database.run("create table gpool_entries (account text, amount integer)")
            outcome = trial(connections, options)
            [(unbalanced,)] = database.run("select coalesce(sum(amount), 0) from gpool_entries")
            database.run("drop table gpool_entries")
    return web_report.table(outcome, connections, abs(unbalanced))


def trial(connections: Connections, options: argparse.Namespace) -> web_report.Outcome:
    """Run the server, the load and the faults."""
    # Managers are killed on purpose here, far more often than a pool allows by default.
    pool = gpool.Pool(connections.resource(), size=options.size, max_restarts=1000)
    application = Application(pool)
    faults = Faults(application, rate=options.faults)
    server = WSGIServer(("127.0.0.1", options.port), faults, log=None)
    server.start()
    # pywsgi sends head and body apart: do not hold the body back until the client has the head.
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with pool:
        address = f"127.0.0.1:{server.server_port}"
        gevent.spawn(faults.run, options.seconds)
        for load in loads(address, options):
            web_report.progress(load, faults.counts.total(), pool.stats())
        faults.rate = 0
        borrowed = borrow_all(pool, options.size)
        answers = is_answered(address)
        server.stop(timeout=1.0)
        return web_report.Outcome(
            load, application.waits, faults.counts, pool.stats(), borrowed, answers
        )


def loads(address: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Have a second process load the server; yield what it tells, until it ends or Ctrl-C."""
    program = str(Path(__file__).with_name("web_load.py"))
    command = [sys.executable, program, address, f"--clients={options.clients}"]
    command.append(f"--seconds={options.seconds}")
    # In a session of its own: Ctrl-C is for this process alone.
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, text=True, start_new_session=True) as load:
        gevent.signal_handler(signal.SIGINT, load.terminate)
        for line in load.stdout or ():
            yield json.loads(line)


def borrow_all(pool: gpool.Pool[Database], size: int) -> int:
    """Borrow as many workers as there should be, at once; return how many there are."""
    with contextlib.ExitStack() as stack, contextlib.suppress(gpool.PoolError):
        borrowed: set[Database] = set()
        for _ in range(size):
            borrowed.add(stack.enter_context(pool.checkout(timeout=5.0)))
    return len(borrowed)


def is_answered(address: str) -> bool:
    """Tell whether the server answers a request as it should."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=5.0)) as connection:
        connection.request("POST", "/")
        return connection.getresponse().status == 200


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--clients", type=int, default=40, help="that send requests (default 40)")
    parser.add_argument("--size", type=int, default=10, help="connections (default 10)")
    parser.add_argument("--faults", type=float, default=20.0, help="kills a second (default 20)")
    parser.add_argument("--no-faults", dest="faults", action="store_const", const=0.0)
    parser.add_argument("--dsn", help="of a PostgreSQL server; else SQLite, in a new file")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    return parser.parse_args()


if __name__ == "__main__":
    logging.getLogger("gpool").setLevel(logging.CRITICAL)  # it would report every kill
    sys.exit(main())
