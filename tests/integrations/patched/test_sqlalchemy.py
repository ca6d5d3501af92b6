"""SQLAlchemy on a real PostgreSQL, by psycopg 3 and by psycopg2 with its wait callback."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psycopg
import psycopg2
import psycopg2.extensions
import pytest
from gevent import select
from gevent.event import Event
from sqlalchemy import Engine, ForeignKey, create_engine, event, exc, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import gpool
from gpool.integrations.sqlalchemy import SupervisedPool
from gpool.testing import settle
from tests.integrations.torture import LONG, Outages, Subject, Torture, assert_whole
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL
from tests.servers.program import until

NAP = "select pg_sleep(20)"


def wait(connection: Any) -> None:
    """Wait for a psycopg2 connection without blocking the others."""
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        ways = ([connection], []) if state == psycopg2.extensions.POLL_READ else ([], [connection])
        select.select(*ways, [])


class Borrower(Subject):
    """Whoever connects by an engine, and ends its transactions."""

    errors = (exc.DBAPIError, exc.TimeoutError, gpool.GPoolError)
    refusals = (exc.TimeoutError, exc.OperationalError)

    def __init__(self, url: str, *, size: int, timeout: float = LONG, **options: Any) -> None:
        self.engine = create_engine(
            url, poolclass=SupervisedPool, pool_size=size, max_overflow=0,
            pool_timeout=timeout, **{"pool_pre_ping": True} | options,
        )  # fmt: skip
        self.checkout = self.engine.connect

    @property
    def pool(self) -> gpool.Pool[Any]:
        return self.engine.pool.supervised

    def echo(self, connection: Any, word: str) -> str:
        answer = connection.scalar(text("select cast(:word as text)"), {"word": word})
        connection.commit()
        return answer

    def stop(self) -> None:
        self.engine.dispose()


class Psycopg:
    """By psycopg 3."""

    driver = "psycopg"

    def make(self, gate: Gate, *, password: str = "", **options: Any) -> Borrower:
        """Return a borrower."""
        user = f"ann:{password}" if password else "postgres"
        url = f"postgresql+{self.driver}://{user}@127.0.0.1:{gate.port}/postgres"
        return Borrower(url, **options)


class Psycopg2(Psycopg):
    """By psycopg2."""

    driver = "psycopg2"

    @pytest.fixture(autouse=True)
    def green(self) -> Iterator[None]:
        """Have psycopg2 cooperate."""
        psycopg2.extensions.set_wait_callback(wait)
        yield
        psycopg2.extensions.set_wait_callback(None)


class OnASharedServer:
    @pytest.fixture
    def server(self, a_postgresql: PostgreSQL) -> PostgreSQL:
        return a_postgresql


class OnItsOwnServer:
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


class TestTorture(Psycopg, OnASharedServer, Torture):
    pass


class TestTortureByPsycopg2(Psycopg2, OnASharedServer, Torture):
    pass


class TestOutages(Psycopg, OnItsOwnServer, Outages):
    pass


class TestOutagesByPsycopg2(Psycopg2, OnItsOwnServer, Outages):
    pass
