"""Django's engine on a real PostgreSQL: the torture table, outages, and how connections go back."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import django
import psycopg
import pytest
from django.conf import settings
from django.db import connections

if not settings.configured:
    settings.configure(USE_TZ=True, DATABASES={"default": {"ENGINE": "gpool.integrations.django"}})
    django.setup()

from gpool.integrations.django import close_connection
from tests.integrations.torture import LONG, Outages, Subject, Torture
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL

numbers = itertools.count(1)


def add_alias(port: int, *, options: dict[str, Any] | None = None, **more: Any) -> str:
    """Add an alias to DATABASES, and return its name."""
    alias = f"db{next(numbers)}"
    words = {
        "ENGINE": "gpool.integrations.django", "NAME": "postgres", "USER": "postgres",
        "HOST": "127.0.0.1", "PORT": port, "OPTIONS": options or {},
    }  # fmt: skip
    connections.settings[alias] = connections.configure_settings({"default": words | more})[
        "default"
    ]
    return alias


class Borrower(Subject):
    """A greenlet outside requests."""

    errors = (django.db.Error,)
    refusals = (django.db.OperationalError,)

    def __init__(self, port: int, *, user: str, password: str, **options: Any) -> None:
        self.alias = add_alias(
            port, USER=user, PASSWORD=password, options={"gpool": {"timeout": LONG} | options}
        )
        self.pool = connections[self.alias].pool

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Any]:
        with close_connection():
            connections[self.alias].ensure_connection()
            yield connections[self.alias]

    def echo(self, connection: Any, word: str) -> str:
        with connection.cursor() as cursor:
            cursor.execute("select %s::text", [word])
            return cursor.fetchone()[0]

    def stop(self) -> None:
        connections[self.alias].close()
        connections[self.alias].close_pool()
        del connections[self.alias], connections.settings[self.alias]


def make(self, gate: Gate, *, password: str = "", **options: Any) -> Borrower:
    """Return a borrower."""
    return Borrower(gate.port, user="ann" if password else "postgres", password=password, **options)


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
