"""Whoever borrows connections of PostgreSQL from a pool itself, whichever driver they are of."""

from __future__ import annotations

from typing import Any

import pytest

import gpool
from tests.integrations.torture import LONG, Outages, Subject, Torture
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL


class Borrower(Subject):
    """Clients of a pool of such connections."""

    refusals = (gpool.CheckoutTimeout,)

    def __init__(self, driver: Any, resource: gpool.Resource[Any], **options: Any) -> None:
        self.errors = (driver.Error, gpool.GPoolError)
        self.pool = gpool.Pool(resource, **{"timeout": LONG, "lazy": True} | options)
        self.checkout = self.pool.checkout

    def echo(self, connection: Any, word: str) -> str:
        """Have the server say a word."""
        with connection.cursor() as cursor:
            cursor.execute("select %s::text", [word])
            return str(cursor.fetchone()[0])


class Borrowers:
    """A subclass has a driver."""

    driver: Any  # the module that has the errors
    resource: Any  # gpool's class

    def make(self, gate: Gate, *, password: str = "", size: int = 1, **options: Any) -> Borrower:
        """Return a borrower."""
        who = f"user=ann password={password}" if password else "user=postgres"
        dsn = f"host=127.0.0.1 port={gate.port} dbname=postgres {who}"
        return Borrower(self.driver, self.resource(dsn), size=size, **options)


class OnASharedServer:
    @pytest.fixture
    def server(self, a_postgresql: PostgreSQL) -> PostgreSQL:
        """Give the server that all share."""
        return a_postgresql


class BorrowersTorture(OnASharedServer, Borrowers, Torture):
    """The torture table."""


class BorrowersOutages(Borrowers, Outages):
    """What servers do to the pool."""

    @pytest.fixture
    def server(self, a_frail_postgresql: PostgreSQL) -> PostgreSQL:
        """Give the server that may be hurt."""
        return a_frail_postgresql
