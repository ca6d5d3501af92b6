"""Django's engine, struck in the middle of a statement: a kill stays a kill, whatever was sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psycopg
import pytest
from django.core.wsgi import get_wsgi_application
from django.db import ProgrammingError, connections, transaction
from django.test import RequestFactory
from gevent.event import Event

from gpool.integrations.django import close_connection
from tests.integrations.django_alias import add_alias, remove_alias
from tests.integrations.django_urls import ask
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL
from tests.waiting import until

Block = Callable[[], None]
Place = Callable[[str, Block], None]

#: psycopg says so of a server's cursor whose CLOSE was cut short; its connection is closed anyway
pytestmark = pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")


@pytest.fixture
def server(a_postgresql: PostgreSQL) -> PostgreSQL:
    """Give the server that all share."""
    return a_postgresql


@pytest.fixture
def alias(gate: Gate) -> Iterator[str]:
    """Give an alias with a pool of one connection, through the gate."""
    options = {"size": 1, "timeout": 10.0}
    alias = add_alias(gate.port, ATOMIC_REQUESTS=True, gpool=options)
    yield alias
    gate.unblock()
    remove_alias(alias)


class Undo(Exception):
    """Has a block roll back."""


# --- Places where it may strike: each calls `block` before a statement that is not answered then --


def begin(alias: str, block: Block) -> None:
    """BEGIN, that goes before the first query."""
    with transaction.atomic(alias):
        block()
        ask(alias, "select 1")


def query(alias: str, block: Block) -> None:
    """A query in autocommit mode."""
    ask(alias, "select 1")
    block()
    ask(alias, "select 1")


def commit(alias: str, block: Block) -> None:
    """COMMIT."""
    with transaction.atomic(alias):
        ask(alias, "select 1")
        block()


def commit_durable(alias: str, block: Block) -> None:
    """COMMIT, of a block that has to be the outermost one."""
    with transaction.atomic(alias, durable=True):
        ask(alias, "select 1")
        block()


def commit_nested(alias: str, block: Block) -> None:
    """COMMIT, of a block that had others in it."""
    with transaction.atomic(alias):
        with transaction.atomic(alias), transaction.atomic(alias, savepoint=False):
            ask(alias, "select 1")
        block()


def rollback(alias: str, block: Block) -> None:
    """ROLLBACK, for an error."""
    with transaction.atomic(alias):
        ask(alias, "select 1")
        block()
        raise Undo


def set_rollback(alias: str, block: Block) -> None:
    """ROLLBACK, as the block has asked for."""
    with transaction.atomic(alias):
        ask(alias, "select 1")
        transaction.set_rollback(True, alias)
        block()


def query_nested(alias: str, block: Block) -> None:
    """A query between two savepoints, both of which want to roll back to theirs."""
    with transaction.atomic(alias), transaction.atomic(alias), transaction.atomic(alias):
        ask(alias, "select 1")
        block()
        ask(alias, "select 1")


def savepoint(alias: str, block: Block) -> None:
    """SAVEPOINT."""
    with transaction.atomic(alias), transaction.atomic(alias):
        ask(alias, "select 1")
        block()
        with transaction.atomic(alias):
            raise AssertionError


def release_savepoint(alias: str, block: Block) -> None:
    """RELEASE SAVEPOINT."""
    with transaction.atomic(alias), transaction.atomic(alias), transaction.atomic(alias):
        ask(alias, "select 1")
        block()


def roll_back_to_savepoint(alias: str, block: Block) -> None:
    """ROLLBACK TO SAVEPOINT."""
    with transaction.atomic(alias), transaction.atomic(alias), transaction.atomic(alias):
        ask(alias, "select 1")
        block()
        raise Undo


def fetch(alias: str, block: Block) -> None:
    """FETCH from a cursor of the server, that is closed on the way out."""
    with transaction.atomic(alias), connections[alias].chunked_cursor() as cursor:
        cursor.execute("select generate_series(1, 9)")
        block()
        cursor.fetchmany(2)


def close_cursor(alias: str, block: Block) -> None:
    """CLOSE of a cursor of the server."""
    with transaction.atomic(alias), connections[alias].chunked_cursor() as cursor:
        cursor.execute("select generate_series(1, 9)")
        block()


def on_commit(alias: str, block: Block) -> None:
    """A query after the COMMIT, of what was to be done then."""
    with transaction.atomic(alias):
        ask(alias, "select 1")
        transaction.on_commit(lambda: (block(), ask(alias, "select 1")), alias)


def by_hand(alias: str, block: Block) -> None:
    """A query in a transaction without a block."""
    transaction.set_autocommit(False, alias)
    try:
        ask(alias, "select 1")
        block()
        ask(alias, "select 1")
    finally:
        transaction.set_autocommit(True, alias)


def commit_by_hand(alias: str, block: Block) -> None:
    """COMMIT without a block, after one that is within the transaction."""
    transaction.set_autocommit(False, alias)
    try:
        with transaction.atomic(alias):
            ask(alias, "select 1")
        block()
        transaction.commit(alias)
    finally:
        transaction.set_autocommit(True, alias)


def atomic_request(alias: str, block: Block) -> None:
    """COMMIT of a whole request."""
    environ = RequestFactory().get(f"/one/{alias}").environ
    stock = connections[alias].commit
    connections[alias].commit = lambda: (block(), stock())
    get_wsgi_application()(environ, lambda *answer: None)


PLACES = [
    begin, query, commit, commit_durable, commit_nested, rollback, set_rollback, query_nested,
    savepoint, release_savepoint, roll_back_to_savepoint, fetch, close_cursor, on_commit, by_hand,
    commit_by_hand, atomic_request,
]  # fmt: skip


def struck(
    place: Place, alias: str, gate: Gate, by: BaseException,
    meanwhile: Callable[[], object] = int,
) -> BaseException | None:  # fmt: skip
    """Return what leaves a place where something strikes a statement that waits for its answer."""
    is_blocked = Event()

    def block() -> None:
        gate.block()
        is_blocked.set()

    def run() -> BaseException | None:
        try:
            close_connection(place)(alias, block)
        except BaseException as error:  # noqa: BLE001  # looked at by the test
            return error
        return None

    one = gevent.spawn(run)
    is_blocked.wait()  # from there it runs until it waits for the server
    meanwhile()
    one.kill(by)
    gate.unblock()
    error: BaseException | None = one.value
    return error


class TestStruck:
    @pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
    @pytest.mark.parametrize("kind", [gevent.GreenletExit, gevent.Timeout])
    def test_leaves_as_what_it_is(
        self, alias: str, gate: Gate, place: Place, kind: type[BaseException]
    ) -> None:
        """Not as an error of the database, that would be caught; and what it had is replaced."""
        by = kind()
        assert struck(place, alias, gate, by) is by
        stats = connections[alias].pool.stats
        until(lambda: stats().busy == 0)
        assert gevent.spawn(close_connection(ask), alias, "select 42").get() == 42

    def test_leaves_so_if_others_have_closed_the_connection(self, alias: str, gate: Gate) -> None:
        """As the pool does with one that was held for too long."""
        raw: list[psycopg.Connection[Any]] = []

        def place(alias: str, block: Block) -> None:
            with transaction.atomic(alias):
                ask(alias, "select 1")
                raw.append(connections[alias].connection)
                block()

        by = gevent.Timeout()
        assert struck(place, alias, gate, by, meanwhile=lambda: raw[0].close()) is by

    def test_borrows_nothing_on_its_way(self, alias: str, gate: Gate) -> None:
        """To set up another connection it would wait for that."""
        struck(commit, alias, gate, gevent.GreenletExit())
        assert connections[alias].pool.stats().busy == 0

    def test_commit_runs_nothing_that_was_to_follow_it(self, alias: str, gate: Gate) -> None:
        """Nobody knows whether it was committed."""
        ran: list[int] = []

        def place(alias: str, block: Block) -> None:
            with transaction.atomic(alias):
                transaction.on_commit(lambda: ran.append(1), alias)
                commit(alias, lambda: None)
                block()

        struck(place, alias, gate, gevent.Timeout())
        assert ran == []


class TestSwallowed:
    def test_is_over_with_close(self, alias: str, gate: Gate) -> None:
        """Who has swallowed a time-out, and closes, queries on: by another connection."""
        before: list[int] = []

        def place(alias: str, block: Block) -> None:
            try:
                before.append(ask(alias, "select pg_backend_pid()"))
                block()
                ask(alias, "select 1")
            except gevent.Timeout:
                gate.unblock()
                connections[alias].close()
            assert ask(alias, "select pg_backend_pid()") not in before

        assert struck(place, alias, gate, gevent.Timeout()) is None

    def test_is_refused_in_the_next_block_without_it(self, alias: str, gate: Gate) -> None:
        """A transaction does not begin in the middle of what was cut short."""

        def place(alias: str, block: Block) -> None:
            try:
                query(alias, block)
            except gevent.Timeout:
                with pytest.raises(ProgrammingError, match="ACTIVE"), transaction.atomic(alias):
                    raise AssertionError from None

        assert struck(place, alias, gate, gevent.Timeout()) is None
