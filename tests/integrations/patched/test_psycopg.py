"""psycopg 3 on a real PostgreSQL: torture and outages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gevent
import psycopg
import pytest
from psycopg.rows import dict_row

from gpool.integrations import psycopg as integration
from tests.integrations.borrowers import BorrowersOutages, BorrowersTorture, OnASharedServer
from tests.integrations.decisions import Decisions, Lend, OnStandby, backend, value
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL
from tests.waiting import until


def reading_a_copy(connection: Any) -> object:
    """Leave rows of a COPY unread."""
    manager = connection.cursor().copy("copy (select generate_series(1, 100000)) to stdout")
    manager.__enter__().read()
    return manager


def writing_a_copy(connection: Any) -> object:
    """Leave a COPY that has not been ended."""
    connection.execute("create temporary table copied (i int)")
    manager = connection.cursor().copy("copy copied from stdin")
    manager.__enter__().write_row([1])
    return manager


def streaming(connection: Any) -> object:
    """Leave rows unread."""
    rows = connection.cursor().stream("select generate_series(1, 100000)")
    next(rows)
    return rows


def in_a_pipeline(connection: Any) -> object:
    """Leave a pipeline with answers to come."""
    pipeline = connection.pipeline()
    pipeline.__enter__()
    connection.execute("select 1")
    return pipeline


def listening(connection: Any) -> object:
    """Leave an iterator over notifications, which has the connection's lock."""
    connection.execute("listen here")
    connection.execute("notify here")
    connection.commit()
    notifications = connection.notifies()
    next(notifications)
    return notifications


def idle_until_it_is_ended(connection: Any) -> None:
    """Idle in a transaction until the server ends it, and use it then."""
    connection.execute("select 1")
    gevent.socket.wait_read(connection.fileno())
    connection.execute("select 1")


LEFTOVERS = [reading_a_copy, writing_a_copy, streaming, in_a_pipeline, listening]


class TestTorture(BorrowersTorture):
    driver, resource = psycopg, integration.PsycopgResource


class TestOutages(BorrowersOutages):
    driver, resource = psycopg, integration.PsycopgResource


class TestDecisions(OnASharedServer, Decisions):
    driver, integration, resource = psycopg, integration, integration.PsycopgResource

    # psycopg 3.2's copy() wants the connection once more when it is dropped
    @pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <generator object Cursor.copy:"
        "pytest.PytestUnraisableExceptionWarning"
    )
    @pytest.mark.parametrize("leave", LEFTOVERS, ids=lambda leave: leave.__name__)
    def test_a_protocol_that_is_left_in_the_middle_is_not_lent_again(
        self, lend: Lend, leave: Callable[[Any], object]
    ) -> None:
        """COPY, rows that were not read, a pipeline, an iterator that has the lock."""
        pool = lend()
        with pool.checkout() as connection:
            before = connection.info.backend_pid
            left = leave(connection)
        assert backend(pool) != before
        del left

    def test_a_pipeline_that_was_left_is_in_order(self, lend: Lend) -> None:
        """Leaving it reads all that is to come."""
        pool = lend()
        with pool.checkout() as connection, connection.pipeline():
            connection.execute("select 1")
        assert backend(pool) == connection.info.backend_pid

    def test_a_query_that_is_cut_short_is_cancelled_on_the_server(
        self, lend: Lend, boss: Any
    ) -> None:
        """It would go on otherwise, with its locks."""
        pool = lend()
        before = backend(pool)
        with contextlib.suppress(gevent.Timeout), gevent.Timeout(0.02), pool.checkout() as one:
            one.execute("select pg_sleep(60)")
        gone = f"select count(*) from pg_stat_activity where pid = {before}"
        until(lambda: value(boss, gone) == 0, "the server to be told")

    def test_cancelling_can_be_declined(self, lend: Lend, boss: Any, gate: Gate) -> None:
        """The server gets no other connection than the one that is closed."""
        pool = lend(f"{boss.info.dsn} port={gate.port}", cancel_timeout=0)
        before = backend(pool)
        with contextlib.suppress(gevent.Timeout), gevent.Timeout(0.02), pool.checkout() as one:
            one.execute("select pg_sleep(60)")
        backend(pool)
        assert gate.opened == 2
        boss.execute("select pg_terminate_backend(%s)", [before])

    def test_cancelling_does_not_outlast_the_pool(
        self, lend: Lend, server: PostgreSQL, gate: Gate
    ) -> None:
        """The server is silent: the close gives up at its limit, and leaves no socket."""
        pool = lend(server.dsn(gate.port), shutdown=0.05)
        with contextlib.suppress(gevent.Timeout), gevent.Timeout(0.02), pool.checkout() as one:
            gate.block()
            one.execute("select 1")
        pool.stop()
        assert one.closed
        gate.unblock()
        until(lambda: gate.open == 0, "both sockets to be closed")
        assert gate.opened >= 2

    def test_a_clients_own_fault_concerns_no_other_connection(self, lend: Lend) -> None:
        """The server ended a transaction that had idled for too long."""
        pool = lend(size=2)
        pool.wait_ready()
        with pool.checkout() as one, pool.checkout() as other:
            before = {one.info.backend_pid, other.info.backend_pid}
        error = psycopg.errors.IdleInTransactionSessionTimeout
        with pool.checkout() as connection:  # that will be lent next, again
            connection.execute("set idle_in_transaction_session_timeout = 100")
            connection.commit()
        with pytest.raises(error), pool.checkout() as connection:
            idle_until_it_is_ended(connection)
        with pool.checkout() as one, pool.checkout() as other:
            assert len(before & {one.info.backend_pid, other.info.backend_pid}) == 1

    def test_factories_are_restored(self, lend: Lend) -> None:
        """The next client's rows are what it expects."""
        pool = lend()
        with pool.checkout() as connection:
            connection.row_factory = dict_row
        with pool.checkout() as again:
            assert again is connection
            assert again.execute("select 1").fetchone() == (1,)

    def test_prepared_statements_are_prepared_anew_after_discard_all(self, lend: Lend) -> None:
        """The driver forgets them when the server does."""
        pool = lend(reset=integration.discard_all, kwargs={"prepare_threshold": 0})
        for _ in range(3):
            with pool.checkout() as connection:
                assert connection.execute("select %s::int", [1]).fetchone() == (1,)

    def test_a_class_of_connections_of_ones_own(self, lend: Lend) -> None:
        """Its connect() is called."""

        class Mine(psycopg.Connection[Any]):
            pass

        with lend(connection_class=Mine).checkout() as connection:
            assert type(connection) is Mine


class TestOnStandby(OnStandby):
    driver, resource = psycopg, integration.PsycopgResource
