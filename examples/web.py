"""A web server that lends database connections, under load, while everything in it is killed.

    python examples/web.py                                        SQLite, 15 s
    python examples/web.py --dsn postgresql://localhost/postgres  needs gpool[psycopg]

The application is in ``web_app.py``, what is done to it in ``web_trial.py``: load
from a second process (``web_load.py``), faults from this one (``web_faults.py``).
It ends, at Ctrl-C too, with a table, and with exit code 0 if no slot was lost, no
connection was left open, no write was half done, and the server still answers.
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import argparse
import contextlib
import logging
import signal
import sys
import tempfile
from pathlib import Path

import gevent
from gevent.event import Event
from web_app import Connections
from web_database import PostgreSQL, SQLite
from web_report import table
from web_trial import trial


def main() -> int:
    """Serve, have it loaded and hurt, and look at what is left; return the exit code."""
    options, is_over = parse(), Event()
    gevent.signal_handler(signal.SIGINT, is_over.set)
    kind = SQLite if options.dsn is None else PostgreSQL
    with tempfile.TemporaryDirectory(prefix="gpool-web-") as folder:
        where = options.dsn or str(Path(folder, "entries.db"))
        connections = Connections(kind, where)
        with contextlib.closing(kind(where)) as database:
            database.run("drop table if exists gpool_entries")
            database.run("create table gpool_entries (account text, amount integer)")
            outcome = trial(connections, options, is_over)
            [(balance,)] = database.run("select coalesce(sum(amount), 0) from gpool_entries")
            code = table(outcome, connections, balance)
            database.run("drop table gpool_entries")
    return code


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
