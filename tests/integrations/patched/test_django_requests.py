"""Django's engine on a real PostgreSQL, as requests use it: nothing is held between two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from django.core.wsgi import get_wsgi_application
from django.db import OperationalError, ProgrammingError, connections, transaction
from django.test import RequestFactory

import gpool
from tests.integrations.django_alias import add_alias, remove_alias
from tests.servers.postgresql import PostgreSQL
from tests.waiting import until

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


def backend(wrapper: Any) -> int:
    """Return the server's process that answers a wrapper."""
    with wrapper.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return int(cursor.fetchone()[0])


class TestLines:
    @pytest.fixture
    def alias(self, a_postgresql: PostgreSQL) -> Iterator[str]:
        """Give an alias with a pool of one connection; with ATOMIC_REQUESTS, Django borrows."""
        alias = add_alias(a_postgresql.port, gpool={"size": 1, "timeout": 10.0})
        yield alias
        remove_alias(alias)

    def test_are_those_of_views(self, alias: str, ask: Ask) -> None:
        """Of who holds a connection and of who waits, and in the error of who has waited."""
        _, body = ask(f"/one/{alias}")
        waiting = gevent.spawn(finished, ask, f"/one/{alias}")
        until(connections[alias].pool.waiters)
        [holder], [who] = connections[alias].pool.holders(), connections[alias].pool.waiters()
        assert holder.line.endswith("django_urls.py:15 in ask")
        assert who.line == holder.line
        with pytest.raises(gpool.CheckoutTimeout, match=r"oldest holder.*django_urls.py"):
            connections[alias].pool.checkout(0)
        body.close()
        assert waiting.get()[0] == "200 OK"


class TestScope:
    """A scope that ends, as a `RequestScope` does, while a wrapper has its connection."""

    def test_does_not_have_it_lent_to_a_second_client(self, alias: str) -> None:
        """The wrapper borrows another one, when it is used again."""
        connections[alias].pool.resize(1)
        with gpool.Scope():
            first = backend(connections[alias])
            stale = connections[alias].connection
        with connections[alias].pool.checkout() as second:
            assert second is not stale
            assert second.info.backend_pid != first
            connections[alias].pool.resize(2)
            assert backend(connections[alias]) not in (first, second.info.backend_pid)
        connections[alias].close()

    def test_is_noticed_at_once(self, alias: str) -> None:
        """Before the connection is closed, too."""
        with gpool.Scope():
            first = backend(connections[alias])
        assert backend(connections[alias]) != first
        assert held(alias) == 1
        connections[alias].close()

    def test_has_what_was_kept_of_it_fail(self, alias: str) -> None:
        """A cursor of that connection is of no use any more."""
        with gpool.Scope():
            cursor = connections[alias].cursor()
        until(lambda: connections[alias].pool.stats().idle == 0)
        with connections[alias].pool.checkout(), pytest.raises(OperationalError, match="closed"):
            cursor.execute("select 1")

    def test_ends_an_atomic_block(self, alias: str) -> None:
        """What was done in it is undone, and nothing goes on in that block."""
        block = transaction.atomic(alias)
        with gpool.Scope():
            block.__enter__()
            first = backend(connections[alias])
        with pytest.raises(ProgrammingError, match="Cannot open a new connection in an atomic"):
            backend(connections[alias])
        block.__exit__(None, None, None)
        assert backend(connections[alias]) != first
        connections[alias].close()

    def test_ends_a_transaction_that_was_begun_by_hand(self, alias: str) -> None:
        """Its second half is refused, until `close`."""
        wrapper = connections[alias]
        with gpool.Scope():
            wrapper.set_autocommit(False)
            backend(wrapper)
        for _ in range(2):
            with pytest.raises(OperationalError, match="closed"):
                backend(wrapper)
        wrapper.close()
        assert backend(wrapper)
        wrapper.close()

    def test_of_who_shares_a_wrapper_ends_it_for_all(self, alias: str) -> None:
        """Another greenlet that uses the wrapper borrows anew."""
        wrapper = connections[alias]
        wrapper.inc_thread_sharing()
        with gpool.Scope():
            first = backend(wrapper)
        assert gevent.spawn(backend, wrapper).get() != first
        wrapper.dec_thread_sharing()
        wrapper.close()
        assert held(alias) == 0
