"""The web application of the example: what you would write yourself."""

import json
import random
import time
from collections import deque
from typing import Any

from web_database import Database, Rows

import gpool

WRITE = "insert into gpool_entries values (?, ?)"
READ = "select account, amount from gpool_entries limit 10"


class Connections:
    """All that the pool has opened and closed, counted here, whatever its books say."""

    def __init__(self, kind: type[Database], where: str) -> None:
        self.kind, self.where = kind, where
        self.opened = self.closed = 0
        self.most = 0  # open at the same time

    def create(self) -> Database:
        """Open one."""
        database = self.kind(self.where)
        self.opened += 1
        self.most = max(self.most, self.opened - self.closed)
        return database

    def close(self, database: Database) -> None:
        """Close one."""
        database.close()
        self.closed += 1

    def resource(self) -> gpool.Resource[Database]:
        """Tell a pool what to do."""
        return gpool.Resource(self.create, close=self.close, is_dirty=self.kind.is_dirty)


class Application:
    """Answers GET with rows of a table; POST adds two that belong together."""

    def __init__(self, pool: gpool.Pool[Database]) -> None:
        self.pool = pool
        self.waits: deque[float] = deque(maxlen=100_000)  # s for a connection, the latest

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Answer a request; runs in the greenlet of its client."""
        asked = time.monotonic()
        try:
            with self.pool.checkout(timeout=2.0) as database:
                self.waits.append(time.monotonic() - asked)
                act = transfer if environ["REQUEST_METHOD"] == "POST" else entries
                status, body = "200 OK", json.dumps(act(database))
        except Exception as error:  # noqa: BLE001  # whatever it is, its name is the answer
            status, body = "503 Service Unavailable", type(error).__name__
        start_response(status, [("Content-Type", "application/json")])
        return [body.encode()]


def entries(database: Database) -> Rows:
    """Return some rows."""
    return database.run(READ)


def transfer(database: Database) -> int:
    """Move some money: both rows are written, or none."""
    amount = random.randint(1, 100)
    database.run(database.begin)
    database.run(WRITE, "savings", -amount)
    database.run(WRITE, "household", amount)
    database.run("commit")
    return amount
