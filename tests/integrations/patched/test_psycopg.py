"""psycopg 3 on a real PostgreSQL: torture and outages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import gpool
from gpool.integrations.psycopg import PsycopgResource
from tests.integrations.torture import LONG, Outages, Subject, Torture
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL


class Borrower(Subject):
    """Whoever borrows from the pool itself."""

    errors = (psycopg.Error, gpool.GPoolError)
    refusals = (gpool.CheckoutTimeout,)

    def __init__(self, dsn: str, **options: Any) -> None:
        self.pool = gpool.Pool(PsycopgResource(dsn), **{"timeout": LONG, "lazy": True} | options)
        self.checkout = self.pool.checkout

    def echo(self, connection: Any, word: str) -> str:
        """Have the server say a word."""
        return str(connection.execute("select %s::text", [word]).fetchone()[0])


def make(self: Any, gate: Gate, *, password: str = "", size: int = 1, **options: Any) -> Borrower:
    """Return a borrower."""
    who = f"user=ann password={password}" if password else "user=postgres"
    dsn = f"host=127.0.0.1 port={gate.port} dbname=postgres {who}"
    return Borrower(dsn, size=size, **options)


class TestTorture(Torture):
    make = make

    @pytest.fixture
    def server(self, a_postgresql: PostgreSQL) -> PostgreSQL:
        """Give the server that all share."""
        return a_postgresql


class TestOutages(Outages):
    make = make

    @pytest.fixture
    def server(self) -> Iterator[PostgreSQL]:
        """Give a server to each test."""
        with PostgreSQL(max_connections=8, superuser_reserved_connections=0) as server:
            yield server

    @contextlib.contextmanager
    def fill(self, server: PostgreSQL) -> Iterator[None]:
        """Connect until it refuses."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(contextlib.closing(psycopg.connect(server.dsn())))
            yield
