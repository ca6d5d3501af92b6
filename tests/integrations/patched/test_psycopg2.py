"""psycopg2 on a real PostgreSQL: torture and outages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psycopg2
import pytest
from psycopg2 import extensions

import gpool
from gpool.integrations import psycopg2 as integration
from tests.integrations.borrowers import BorrowersOutages, BorrowersTorture, OnASharedServer
from tests.integrations.decisions import Decisions, Lend, OnStandby, backend, execute
from tests.integrations.torture import LONG
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL
from tests.waiting import until


def begin(connection: Any) -> object:
    """Have it begin a transaction."""
    return execute(connection, "select 1")


def commit(connection: Any) -> object:
    """Commit."""
    return connection.commit()


def rollback(connection: Any) -> object:
    """Roll back."""
    return connection.rollback()


def reset(connection: Any) -> object:
    """Reset the session."""
    return connection.reset()


def fetch(connection: Any) -> object:
    """Read from a cursor on the server."""
    return connection.cursor("some").execute("select 1")


def use_once_it_is_closed(connection: Any) -> None:
    """Close it, and use it."""
    connection.close()
    begin(connection)


COMMANDS = [begin, commit, rollback, reset, fetch]


class TestTorture(BorrowersTorture):
    driver, resource = psycopg2, integration.Psycopg2Resource


class TestOutages(BorrowersOutages):
    driver, resource = psycopg2, integration.Psycopg2Resource


class TestDecisions(OnASharedServer, Decisions):
    driver, integration, resource = psycopg2, integration, integration.Psycopg2Resource

    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
    @pytest.mark.parametrize("error", [gevent.Timeout, gevent.GreenletExit])
    def test_whatever_is_cut_short_shows_it(
        self,
        lend: Lend,
        server: PostgreSQL,
        gate: Gate,
        command: Callable[[Any], object],
        error: type[BaseException],
    ) -> None:
        """Its client gets the exception itself, and swallows it: the connection is closed."""
        pool = lend(server.dsn(gate.port))
        with pool.checkout() as connection:
            if command is not begin:
                begin(connection)
            gate.block()
            with pytest.raises(error), gevent.Timeout(0.02, error):
                command(connection)
            gate.unblock()
            assert connection.closed
        assert backend(pool)
        assert gate.opened == 2

    def test_an_interface_error_brings_nobody_under_suspicion(self, lend: Lend) -> None:
        """What was cut short and is used again has not lost its server."""
        pool = lend(size=2)
        pool.wait_ready()
        with pool.checkout() as one, pool.checkout() as other:
            before = {id(one), id(other)}
        with pytest.raises(psycopg2.InterfaceError), pool.checkout() as connection:
            use_once_it_is_closed(connection)
        with pool.checkout() as one, pool.checkout() as other:
            assert len(before & {id(one), id(other)}) == 1


class TestInstall:
    @pytest.fixture(autouse=True)
    def nothing_installed(self) -> Iterator[None]:
        """Take the callback away, and give it back."""
        before = extensions.get_wait_callback()
        extensions.set_wait_callback(None)
        yield
        extensions.set_wait_callback(before)

    def test_a_resource_installs_the_callback(self) -> None:
        """From its making on."""
        integration.Psycopg2Resource()
        assert extensions.get_wait_callback() is integration.wait

    def test_a_callback_that_is_there_stays(self) -> None:
        """It is the user's."""
        extensions.set_wait_callback(print)
        integration.install()
        assert extensions.get_wait_callback() is print

    def test_others_run_while_a_query_waits(self, a_postgresql: PostgreSQL) -> None:
        """One waits for what another one is to let go of, in the same thread."""
        integration.install()
        resource = integration.Psycopg2Resource(a_postgresql.dsn())
        lock = "select pg_advisory_xact_lock(1)"
        with gpool.Pool(resource, size=2, timeout=LONG) as pool:
            with pool.checkout() as connection:
                execute(connection, lock)
                waiter = gevent.spawn(pool.transaction, lambda other: execute(other, lock))
                waits = "select count(*) from pg_locks where not granted"
                until(lambda: execute(connection, waits) == [(1,)], "somebody to wait")
            assert len(waiter.get()) == 1


class TestOnStandby(OnStandby):
    driver, resource = psycopg2, integration.Psycopg2Resource
