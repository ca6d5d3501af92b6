"""Django's engine on a real PostgreSQL, as requests use it: nothing is held between two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.test import RequestFactory

from tests.integrations.django_alias import add_alias, remove_alias
from tests.servers.postgresql import PostgreSQL
from tests.servers.program import until

Ask = Callable[[str], Any]


@pytest.fixture
def alias(a_postgresql: PostgreSQL) -> Iterator[str]:
    """Give an alias with a pool of two connections, whose requests are atomic."""
    alias = add_alias(a_postgresql.port, ATOMIC_REQUESTS=True, gpool={"size": 2, "timeout": 10.0})
    yield alias
    remove_alias(alias)


@pytest.fixture
def ask() -> Ask:
    """Give what has the application answer: it returns status and body, which is to be closed."""
    application, factory = get_wsgi_application(), RequestFactory()

    def ask(path: str) -> Any:
        started: list[str] = []
        environ = factory.get(path).environ
        body = application(environ, lambda status, headers, error=None: started.append(status))
        return started[0], body

    return ask


def held(alias: str) -> int:
    """Return how many connections are lent."""
    return int(connections[alias].pool.stats().busy)


def finished(ask: Ask, path: str) -> tuple[str, bytes]:
    """Return what a server gets for a request, from its begin to its end."""
    status, body = ask(path)
    try:
        return status, b"".join(body)
    finally:
        body.close()


class TestRequests:
    def test_give_back_at_their_end(self, alias: str, ask: Ask) -> None:
        """One greenlet serves many, as with keep-alive: it holds nothing between them."""
        for _ in range(3):
            status, body = ask(f"/one/{alias}")
            assert (status, held(alias)) == ("200 OK", 1)
            body.close()
            assert held(alias) == 0

    def test_share_what_there_is(self, alias: str, ask: Ask) -> None:
        """A hundred at once are served by two connections."""
        many = [gevent.spawn(finished, ask, f"/one/{alias}") for _ in range(100)]
        gevent.joinall(many, raise_error=True)
        assert {status for status, _ in map(gevent.Greenlet.get, many)} == {"200 OK"}
        assert len({body for _, body in map(gevent.Greenlet.get, many)}) <= 2
        assert held(alias) == 0

    def test_that_fail_give_back(self, alias: str, ask: Ask) -> None:
        """In a transaction that the server has aborted."""
        assert finished(ask, f"/broken/{alias}")[0] == "500 Internal Server Error"
        assert held(alias) == 0
        assert finished(ask, f"/one/{alias}")[0] == "200 OK"

    def test_hold_while_their_body_is_sent(self, alias: str, ask: Ask) -> None:
        """A body that queries goes on to use the connection, and its end gives back."""
        _, body = ask(f"/stream/{alias}")
        parts = iter(body)
        assert [next(parts), next(parts)] == [b"0 ", b"1 "]
        assert held(alias) == 1
        body.close()  # the client has gone
        assert held(alias) == 0
        assert finished(ask, f"/stream/{alias}") == ("200 OK", b"0 1 2 ")

    def test_that_are_killed_lose_what_they_have(self, alias: str, ask: Ask) -> None:
        """Whoever waits gets a connection, though no end was ever told."""

        def serve() -> None:
            ask(f"/one/{alias}")
            gevent.sleep(60)

        killed = [gevent.spawn(serve) for _ in range(2)]
        until(lambda: held(alias) == 2)
        waiting = gevent.spawn(finished, ask, f"/one/{alias}")
        until(lambda: connections[alias].pool.waiters())
        gevent.killall(killed)
        assert waiting.get()[0] == "200 OK"
        until(lambda: held(alias) == 0)
