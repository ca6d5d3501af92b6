"""The databases of the web example: connections that run statements and show dirt."""

from __future__ import annotations

import sqlite3
from typing import Any

import gevent

Rows = list[tuple[Any, ...]]


class Database:
    """One connection."""

    begin = "begin"

    def __init__(self, where: str) -> None:
        self.connection = self.connect(where)

    def connect(self, where: str) -> Any:
        """Open a connection."""
        raise NotImplementedError

    def run(self, sql: str, *values: object) -> Rows:
        """Run a statement and return its rows; blocks nobody but the caller."""
        raise NotImplementedError

    def is_dirty(self) -> bool:
        """Tell, without asking the database, whether the next client must not get it."""
        raise NotImplementedError

    def close(self) -> None:
        """Close it; what a transaction left half done is undone."""
        self.connection.close()


class SQLite(Database):
    """A connection to a file; a thread runs its statements, so that the others go on."""

    begin = "begin immediate"
    job: Any = None  # the statement that runs, or ran last

    def connect(self, where: str) -> sqlite3.Connection:
        """Open a file."""
        db = sqlite3.connect(where, timeout=1.0, isolation_level=None, check_same_thread=False)
        db.execute("pragma journal_mode = wal")  # who reads does not hold up who writes
        db.execute("pragma synchronous = off")
        return db

    def run(self, sql: str, *values: object) -> Rows:
        """Run a statement in the thread."""
        self.job = gevent.get_hub().threadpool.spawn(self._run, sql, values)
        rows, error = self.job.get()
        if error is not None:
            raise error
        return rows  # type: ignore[no-any-return]

    def _run(self, sql: str, values: tuple[object, ...]) -> tuple[Rows, sqlite3.Error | None]:
        try:
            return self.connection.execute(sql, values).fetchall(), None
        except sqlite3.Error as error:
            return [], error

    def is_dirty(self) -> bool:
        """Look at the thread and at the transaction."""
        busy = self.job is not None and not self.job.ready()
        return busy or bool(self.connection.in_transaction)

    def close(self) -> None:
        """Close it, once the thread is through: a dead client may have left it at work."""
        self.connection.interrupt()
        if self.job is not None:
            self.job.wait()
        super().close()


class PostgreSQL(Database):
    """A connection to a server; psycopg cooperates with gevent by itself."""

    def connect(self, where: str) -> Any:
        """Connect to a server."""
        import psycopg

        return psycopg.connect(where, autocommit=True)

    def run(self, sql: str, *values: object) -> Rows:
        """Run a statement."""
        cursor = self.connection.execute(sql.replace("?", "%s"), values)
        rows: Rows = cursor.fetchall() if cursor.description else []
        return rows

    def is_dirty(self) -> bool:
        """Look at the transaction."""
        return bool(self.connection.info.transaction_status)  # 0: idle, between transactions
