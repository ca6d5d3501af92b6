"""Requests that borrow connections of psycopg 3 from a real PostgreSQL: Flask's, and any WSGI's."""

from __future__ import annotations

import contextlib
import io
import wsgiref.util
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest
from flask import Flask, Response

import gpool
from gpool.integrations.flask import GPool
from gpool.integrations.psycopg import PsycopgResource
from gpool.integrations.wsgi import SCOPE, RequestScope
from tests.integrations.torture import LONG, Outages, Subject, Torture
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL


class Request(Subject):
    """A client whose block is a request of its own; `pools` lend what it borrows."""

    errors = (psycopg.Error, gpool.GPoolError)
    refusals = (gpool.CheckoutTimeout,)

    def __init__(self, dsn: str, **options: Any) -> None:
        self.app = Flask("shop")
        defaults = {"timeout": LONG, "lazy": True, "worker": PsycopgResource(dsn)}
        self.app.config["GPOOL_POOLS"] = {"db": defaults | options}
        self.pools = GPool(self.app)
        self.pool = self.app.extensions["gpool"].pools["db"]

    def echo(self, connection: Any, word: str) -> str:
        """Have the server say a word."""
        said: str = connection.execute("select %s::text", [word]).fetchone()[0]
        return said


class InContext(Request):
    """The block runs where a view does: in a request context."""

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Any]:
        """Borrow for a request."""
        with self.app.test_request_context():
            yield self.pools.borrow("db")


class Streaming(Request):
    """The block runs while the body of a response is sent, after its view's context has ended."""

    def __init__(self, dsn: str, **options: Any) -> None:
        super().__init__(dsn, **options)

        @self.app.get("/")
        def view() -> Response:
            connection = self.pools.borrow("db")
            return Response(iter([connection]), direct_passthrough=True)

    def checkout(self) -> AbstractContextManager[Any]:
        """Borrow for a request."""
        return in_body_of(self.app)


class AnyApp(Streaming):
    """The same without Flask: by the scope in the environ."""

    def __init__(self, dsn: str, **options: Any) -> None:
        super().__init__(dsn, **options)

        def app(environ: dict[str, Any], start_response: Any) -> Iterator[Any]:
            start_response("200 OK", [])
            return iter([environ[SCOPE].keep(self.pool.checkout())])

        self.app = RequestScope(app)  # type: ignore[assignment]


@contextlib.contextmanager
def in_body_of(app: Any) -> Iterator[Any]:
    """Ask for a page as a server does, and give the first piece of its body."""
    environ: dict[str, Any] = {}
    wsgiref.util.setup_testing_defaults(environ)
    environ["wsgi.errors"] = io.StringIO()
    said: list[str] = []
    body = app(environ, lambda status, *more: said.append(status))
    try:
        piece = next(iter(body))
        if not said[0].startswith("200"):
            raise gpool.GPoolError(said[0])
        yield piece
        list(body)
    finally:
        body.close()


def of(kind: type[Request]) -> Any:
    """Return what makes subjects of a kind."""

    def make(self: Any, gate: Gate, *, password: str = "", **options: Any) -> Request:
        user = f"ann password={password}" if password else "postgres"
        dsn = f"host=127.0.0.1 port={gate.port} dbname=postgres user={user}"
        return kind(dsn, **options)

    return make


class OnServer:
    """Where the tortures find a server."""

    @pytest.fixture
    def server(self, a_postgresql: PostgreSQL) -> PostgreSQL:
        """Give a server that is left as it was found."""
        return a_postgresql


class OnServersOfTheirOwn:
    """Where the outages find theirs."""

    @pytest.fixture
    def server(self) -> Iterator[PostgreSQL]:
        """Give a server to be harmed."""
        with PostgreSQL(max_connections=8, superuser_reserved_connections=0) as server:
            yield server


class TestTortureInContext(OnServer, Torture):
    """What a view borrows."""

    make = of(InContext)


class TestTortureStreaming(OnServer, Torture):
    """What a body has of its view."""

    make = of(Streaming)


class TestTortureAnyApp(OnServer, Torture):
    """What a request has of its scope."""

    make = of(AnyApp)


class TestOutagesInContext(OnServersOfTheirOwn, Outages):
    """What a view borrows."""

    make = of(InContext)


class TestOutagesAnyApp(OnServersOfTheirOwn, Outages):
    """What a request has of its scope."""

    make = of(AnyApp)
