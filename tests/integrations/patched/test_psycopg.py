"""psycopg 3 on a real PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import gpool
from tests.integrations.torture import LONG, Outages, Subject, Torture
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL


class Borrower(Subject):
    """Whoever borrows from the pool itself."""

    errors = (psycopg.Error, gpool.GPoolError)
    refusals = (gpool.CheckoutTimeout,)

    def __init__(self, dsn: str, **options: Any) -> None:
        resource = gpool.Resource(
            create=lambda: psycopg.connect(dsn),
            reset=psycopg.Connection.rollback,
            check=lambda connection: connection.execute("select 1"),
            close=psycopg.Connection.close,
        )
        self.pool = gpool.Pool(resource, **{"timeout": LONG, "lazy": True} | options)
        self.checkout = self.pool.checkout

    def echo(self, connection: Any, word: str) -> str:
        return connection.execute("select %s::text", [word]).fetchone()[0]


def make(self, gate: Gate, *, password: str = "", **options: Any) -> Borrower:
    """Return a borrower."""
    more = {"user": "ann", "password": password} if password else {}
    return Borrower(
        f"host=127.0.0.1 port={gate.port} dbname=postgres "
        + " ".join(f"{k}={v}" for k, v in ({"user": "postgres"} | more).items()),
        **options,
    )


class TestTorture(Torture):
    make = make

    @pytest.fixture
    def server(self, a_postgresql: PostgreSQL) -> PostgreSQL:
        return a_postgresql


class TestOutages(Outages):
    make = make

    @pytest.fixture
    def server(self) -> Iterator[PostgreSQL]:
        with PostgreSQL(max_connections=8, superuser_reserved_connections=0) as server:
            yield server

    @contextlib.contextmanager
    def fill(self, server):
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(contextlib.closing(psycopg.connect(server.dsn())))
            yield
