"""Django's engine on a real PostgreSQL: the torture table, outages, and how connections go back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import Error, OperationalError, connections

from gpool.integrations.django import close_connection
from tests.integrations.django_alias import add_alias, remove_alias
from tests.integrations.torture import LONG, Outages, Subject, Torture
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL


class Borrower(Subject):
    """A greenlet outside requests."""

    errors = (Error,)
    refusals = (OperationalError,)

    def __init__(self, port: int, *, user: str, password: str, **options: Any) -> None:
        self.alias = add_alias(
            port, USER=user, PASSWORD=password, gpool={"timeout": LONG} | options
        )
        self.pool = connections[self.alias].pool

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Any]:
        """Give the wrapper, once it has a connection."""
        with close_connection():
            connections[self.alias].ensure_connection()
            yield connections[self.alias]

    def echo(self, connection: Any, word: str) -> str:
        """Have the server say a word."""
        with connection.cursor() as cursor:
            cursor.execute("select %s::text", [word])
            return cursor.fetchone()[0]

    def stop(self) -> None:
        """End its pool, and its alias."""
        remove_alias(self.alias)


def make(self, gate: Gate, *, password: str = "", **options: Any) -> Borrower:
    """Return a borrower."""
    return Borrower(gate.port, user="ann" if password else "postgres", password=password, **options)


class TestTorture(Torture):
    make = make

    @pytest.fixture
    def server(self, a_postgresql: PostgreSQL) -> PostgreSQL:
        """Give the server that all share."""
        return a_postgresql


class TestOutages(Outages):
    make = make

    @pytest.fixture
    def server(self, a_frail_postgresql: PostgreSQL) -> PostgreSQL:
        """Give the server that may be hurt."""
        return a_frail_postgresql
