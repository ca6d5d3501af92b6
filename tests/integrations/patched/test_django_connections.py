"""Django's engine on a real PostgreSQL: when a connection is borrowed, and how it goes back."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import (
    DatabaseError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connections,
    transaction,
)
from django.db.backends.postgresql import base as postgresql
from django.db.backends.signals import connection_created
from django.test.utils import override_settings

import gpool
from gpool.integrations.django import base, close_connection
from gpool.integrations.django.pools import has_news
from tests.integrations.django_alias import add_alias, remove_alias
from tests.integrations.django_urls import ask
from tests.integrations.torture import LONG
from tests.servers.postgresql import PostgreSQL
from tests.waiting import until

Add = Callable[..., str]


@pytest.fixture
def server(a_postgresql: PostgreSQL) -> PostgreSQL:
    """Give the server that all share."""
    return a_postgresql


@pytest.fixture
def add(server: PostgreSQL) -> Iterator[Add]:
    """Give what adds an alias, with a pool of one connection; it goes with the test."""
    added: list[str] = []

    def add(**settings: Any) -> str:
        settings["gpool"] = {"size": 1, "timeout": 10.0} | settings.get("gpool", {})
        added.append(add_alias(server.port, **settings))
        return added[-1]

    yield add
    for alias in added:
        remove_alias(alias)


@pytest.fixture
def alias(add: Add) -> str:
    """Give an alias with a pool of one connection."""
    return add()


def elsewhere(fn: Callable[..., Any], *args: Any) -> Any:
    """Return, or raise, what a greenlet of its own does, which gives back what it borrows."""

    def run() -> tuple[Any, Exception | None]:
        try:
            return close_connection(fn)(*args), None
        except Exception as error:  # noqa: BLE001  # raised below
            return None, error

    result, error = gevent.spawn(run).get()
    if error is not None:
        raise error
    return result


def tell(alias: str, statement: str) -> None:
    """Have the server do something."""
    with connections[alias].cursor() as cursor:
        cursor.execute(statement)


def backend(alias: str) -> int:
    """Return the server's process that the connection of this greenlet has."""
    return int(ask(alias, "select pg_backend_pid()"))


def borrowed_by(wrapper: Any) -> int:
    """Return the server's process that a wrapper's connection has."""
    wrapper.ensure_connection()
    with wrapper.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return int(cursor.fetchone()[0])


def state(alias: str) -> tuple[int, int]:
    """Return how many connections of its pool are idle, and how many are lent."""
    stats = connections[alias].pool.stats()
    return stats.idle, stats.busy


class TestBorrowing:
    def test_happens_at_the_first_query(self, alias: str) -> None:
        """And lasts until `close`, over which the connection stays open."""
        wrapper = connections[alias]
        assert state(alias) == (0, 0)
        first = backend(alias)
        assert state(alias) == (0, 1)
        wrapper.close()
        assert wrapper.connection is None
        assert elsewhere(backend, alias) == first

    def test_has_a_pool_that_is_found_by_its_name(self, alias: str) -> None:
        """As everything that looks at pools finds it."""
        backend(alias)
        assert gpool.get_pool(f"django-{alias}") is connections[alias].pool

    def test_tells_the_line_that_needed_it(self, alias: str) -> None:
        """Not one of Django's, through which it came."""
        connections[alias].ensure_connection()
        assert "test_tells_the_line_that_needed_it" in connections[alias].pool.holders()[0].line

    def test_fails_as_connecting_does(self, add: Add) -> None:
        """By Django's OperationalError, whose causes are psycopg's and gpool's."""
        alias = add(gpool={"timeout": 0.01, "lazy": False})
        connections[alias].pool.wait_ready(LONG)
        backend(alias)
        with pytest.raises(OperationalError, match=r"1 busy.*oldest holder") as caught:
            elsewhere(backend, alias)
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        assert isinstance(caught.value.__cause__.__cause__, gpool.CheckoutTimeout)

    def test_tells_those_who_listen(self, alias: str) -> None:
        """The signal is sent at each borrow, as with Django's own pool."""
        told: list[str] = []

        def listen(connection: Any, **more: Any) -> None:
            told.append(connection.alias)

        connection_created.connect(listen)
        try:
            for _ in range(2):
                backend(alias)
                connections[alias].close()
        finally:
            connection_created.disconnect(listen)
        assert told == [alias, alias]

    def test_is_for_one_greenlet(self, alias: str) -> None:
        """Django's own check refuses another one."""
        wrapper = connections[alias]
        wrapper.ensure_connection()
        with pytest.raises(DatabaseError, match="can only be used in that same thread"):
            elsewhere(wrapper.cursor)

    def test_of_a_shared_wrapper_outlives_the_greenlet(self, alias: str) -> None:
        """Who shares it has it then; sharing ended, each borrows for itself again."""
        wrapper = connections[alias]
        wrapper.inc_thread_sharing()
        first = elsewhere(lambda: borrowed_by(wrapper))
        assert borrowed_by(wrapper) == first
        wrapper.dec_thread_sharing()
        wrapper.close()
        assert state(alias)[1] == 0

    def test_asks_for_the_parameters_at_each_connect(
        self, add: Add, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A password that changes is one that a subclass returns there."""
        alias, asked = add(USER="bob"), []
        with psycopg.connect(connections[add()].pool and server_dsn(alias)) as admin:
            admin.execute("drop role if exists bob")
            admin.execute("create role bob login password 'first'")
        stock = base.DatabaseWrapper.get_connection_params

        def params(self: Any) -> dict[str, Any]:
            found = stock(self)
            if self.is_template:
                asked.append(self.alias)
                found["password"] = "first"
            return found

        monkeypatch.setattr(base.DatabaseWrapper, "get_connection_params", params)
        for _ in range(2):  # whoever may log in may be reset
            assert elsewhere(ask, alias, "select current_user::text") == "bob"
        assert asked == [alias]

    def test_makes_connections_as_the_engine_beneath_does(self, alias: str) -> None:
        """PostGIS registers its types on each new one: in the worker, and once."""
        made: list[Any] = []

        class Beneath(postgresql.DatabaseWrapper):
            def get_new_connection(self, params: Any) -> Any:
                made.append(super().get_new_connection(params))
                return made[-1]

        class Engine(base.Pooled, Beneath):
            pass

        def borrow() -> Any:
            connections[alias] = Engine(connections.settings[alias], alias)
            connections[alias].ensure_connection()
            return connections[alias].connection

        assert [elsewhere(borrow), elsewhere(borrow)] == [made[0], made[0]]

    @pytest.mark.parametrize(
        ("settings", "fault"),
        [
            ({"CONN_MAX_AGE": 60}, "CONN_MAX_AGE: expected 0, got 60"),
            ({"CONN_MAX_AGE": None}, "CONN_MAX_AGE: expected 0, got None"),
            ({"OPTIONS": {"pool": True}}, "Django's pool"),
            ({"OPTIONS": {"gpool": 5}}, "expected a dict, got 5"),
            ({"gpool": {"sise": 5}}, "expected some of"),
            ({"gpool": {"size": -1}}, "size: expected 0 or more"),
            ({"gpool": {"session_reset": 1}}, "session_reset: expected True or False"),
            ({"OPTIONS": {"isolation_level": 9}}, "isolation level 9 specified"),
        ],
    )
    def test_refuses_bad_settings(self, add: Add, settings: Any, fault: str) -> None:
        """Whoever asks first is told what was expected."""
        wrapper = connections[add(**settings)]
        with pytest.raises(ImproperlyConfigured, match=fault):
            wrapper.ensure_connection()


def server_dsn(alias: str) -> str:
    """Return the connection string of the superuser."""
    port = connections.settings[alias]["PORT"]
    return f"host=127.0.0.1 port={port} user=postgres dbname=postgres"


class TestRefused:
    """Settings with which no query will ever be answered, where nobody runs the checks."""

    @pytest.mark.parametrize(
        ("settings", "faults"),
        [
            ({"CONN_MAX_AGE": 60, "OPTIONS": {"pool": True}, "gpool": {"sise": 5}},
             ["got 60", "(gpool.E001)", "(gpool.E002)", "got 'sise'", "(gpool.E003)"]),
            ({"gpool": {"size": -1}}, ["size: expected 0 or more", "(gpool.E003)"]),
            ({"OPTIONS": {"isolation_level": 9}}, ["isolation level 9 specified"]),
        ],
    )  # fmt: skip
    def test_are_logged_once(
        self, add: Add, caplog: pytest.LogCaptureFixture, settings: Any, faults: list[str]
    ) -> None:
        """All that is wrong with an alias, when it is asked first; each query raises."""
        alias, other = add(**settings), add(**settings)
        for one in (alias, alias, other):
            with pytest.raises(ImproperlyConfigured):
                elsewhere(backend, one)
        logged = [(record.levelname, record.getMessage()) for record in caplog.records
                  if record.name == "gpool.integrations.django"]  # fmt: skip
        for one, (level, text) in zip((alias, other), logged, strict=True):
            assert level == "ERROR"
            assert text.startswith(f"gpool refuses every query of '{one}': ")
            assert all(fault in text for fault in faults)


class TestReturn:
    @pytest.mark.parametrize("session", [True, False], ids=["reset", "kept"])
    @pytest.mark.parametrize(
        ("change", "look"),
        [
            ("set timezone = 'Asia/Tokyo'", "show timezone"),
            ("set application_name = 'mine'", "show application_name"),
            ("select set_config('app.tenant', 'mine', false)",
             "select coalesce(current_setting('app.tenant', true), '')"),
            ("set role pg_monitor", "select current_user::text"),
            ("set session authorization pg_monitor", "select session_user::text"),
            ("select pg_advisory_lock(7)", "select count(*)::int from pg_locks "
             "where locktype = 'advisory'"),
            ("create temp table mine as select 1", "select to_regclass('mine')::text"),
            ("listen mine", "select count(*)::int from pg_listening_channels()"),
            ("declare mine cursor with hold for select 1",
             "select count(*)::int from pg_cursors where name = 'mine'"),
        ],
        ids=lambda text: text.split(" (")[0][:24],
    )  # fmt: skip
    def test_leaves_nothing_in_the_session(
        self, add: Add, change: str, look: str, session: bool
    ) -> None:
        """Unless it is told to leave that to those who change it."""
        alias = add(gpool={"session_reset": session})
        first, before = elsewhere(backend, alias), elsewhere(ask, alias, look)

        elsewhere(tell, alias, change)
        assert (elsewhere(ask, alias, look) == before) is session
        assert elsewhere(backend, alias) == first

    def test_ends_a_transaction(self, alias: str) -> None:
        """One that was begun by hand, with all that was chosen for it."""

        def borrow() -> int:
            wrapper = connections[alias]
            wrapper.set_autocommit(False)
            ask(alias, "select txid_current()::text")
            raw = wrapper.connection
            wrapper.close()
            until(lambda: state(alias) == (1, 0))
            assert raw.autocommit
            return raw.info.backend_pid

        first = elsewhere(borrow)

        def set_up() -> None:
            connections[alias].ensure_connection()
            raw = connections[alias].connection
            raw.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            raw.read_only = True

        elsewhere(set_up)

        def look() -> tuple[Any, ...]:
            with transaction.atomic(alias):
                level = ask(alias, "show transaction_isolation")
                return backend(alias), level, ask(alias, "show transaction_read_only")

        assert elsewhere(look) == (first, "read committed", "off")

    def test_keeps_what_the_settings_ask_for(self, add: Add) -> None:
        """Level, role and time zone are there at each borrow, whatever was done to them."""
        alias = add(
            TIME_ZONE="Europe/Berlin",
            OPTIONS={"assume_role": "pg_monitor",
                     "isolation_level": psycopg.IsolationLevel.REPEATABLE_READ},
        )  # fmt: skip

        def look() -> tuple[str, ...]:
            with transaction.atomic(alias):
                return (
                    ask(alias, "show transaction_isolation"),
                    ask(alias, "select current_user::text"),
                    ask(alias, "show timezone"),
                )

        def change() -> None:
            tell(alias, "reset role")
            tell(alias, "set time zone 'UTC'")

        expected = ("repeatable read", "pg_monitor", "Europe/Berlin")
        assert elsewhere(look) == expected
        elsewhere(change)
        assert elsewhere(look) == expected

    def test_keeps_prepared_statements(self, add: Add) -> None:
        """The driver knows of them: they are used again by who borrows next."""
        alias = add(OPTIONS={"prepare_threshold": 0, "server_side_binding": True})
        count = "select count(*)::int from pg_prepared_statements where statement like %s"

        def borrow() -> int:
            return int(ask(alias, count, "%prepared_statements%"))

        assert [elsewhere(borrow) for _ in range(3)] == [1, 1, 1]

    def test_within_a_transaction_ends_it(self, alias: str) -> None:
        """As Django demands: nothing is committed, and nothing goes on in that block."""
        elsewhere(tell, alias, "create table if not exists closed(n int)")
        with transaction.atomic(alias):
            ask(alias, "insert into closed values (1) returning n")
            connections[alias].close()
            with pytest.raises(ProgrammingError, match="Cannot open a new connection"):
                ask(alias, "select 1")
        assert ask(alias, "select count(*)::int from closed") == 0

    def test_of_one_cut_short_discards_it(self, alias: str) -> None:
        """Though the client has swallowed the Timeout, and sees errors only."""

        def borrow() -> int:
            first = backend(alias)
            with contextlib.suppress(gevent.Timeout), gevent.Timeout(0.05):
                ask(alias, "select pg_sleep(60)::text")
            with pytest.raises(OperationalError, match="another command is already in progress"):
                ask(alias, "select 1")
            return first

        assert elsewhere(borrow) != elsewhere(backend, alias)

    def test_of_one_that_the_server_ended_has_the_others_looked_at(self, add: Add) -> None:
        """So that nobody else finds out by an error; the client is not held up to find out."""
        alias = add(gpool={"size": 3, "check_after": None})
        together = [gevent.spawn(close_connection(ask), alias, "select pg_sleep(0.1)::text")
                    for _ in range(3)]  # fmt: skip
        gevent.joinall(together, raise_error=True)
        until(lambda: state(alias) == (3, 0))
        connections[alias].ensure_connection()
        with psycopg.connect(server_dsn(alias)) as admin:
            admin.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                "where application_name = '' and pid <> pg_backend_pid() and "
                "backend_type = 'client backend'"
            )
        with pytest.raises(OperationalError, match="terminating connection"):
            ask(alias, "select 1")
        connections[alias].close()
        for _ in range(5):
            assert elsewhere(ask, alias, "select 1") == 1

    def test_of_one_that_was_ended_while_idle_is_not_noticed(self, add: Add) -> None:
        """Within `check_after` nobody asks the server, and nobody needs to."""
        alias, other = add(gpool={"check_after": None, "size": 2}), add()
        dead = elsewhere(lambda: [backend(alias), elsewhere(backend, alias)])
        until(lambda: state(alias) == (2, 0))
        for pid in dead:
            assert elsewhere(ask, other, "select pg_terminate_backend(%s, 5000)", pid)
        assert elsewhere(backend, alias) not in dead
        assert connections[alias].pool.stats().start_failures == 0

    def test_of_one_that_was_told_something_while_idle_lends_it_again(self, add: Add) -> None:
        """The server may say what nobody asked for, such as a NOTIFY, and go on."""
        alias, other = add(gpool={"check_after": None, "session_reset": False}), add()

        def listen() -> tuple[int, Any]:
            tell(alias, "listen news")
            return backend(alias), connections[alias].connection

        first, raw = elsewhere(listen)
        elsewhere(tell, other, "notify news")
        until(lambda: has_news(raw))
        assert elsewhere(backend, alias) == first

    def test_checks_as_often_as_django_would(self, add: Add) -> None:
        """With CONN_HEALTH_CHECKS a connection that was idle is checked whenever it is lent."""
        checked = add(CONN_HEALTH_CHECKS=True)
        dead = elsewhere(backend, checked)
        elsewhere(ask, add(), "select pg_terminate_backend(%s, 5000)", dead)
        assert elsewhere(ask, checked, "select 1") == 1


class TestStandby:
    @pytest.fixture
    def standby(self) -> Iterator[PostgreSQL]:
        """Give a server that a failover has made a standby."""
        with PostgreSQL(max_connections=10) as server:
            assert server.process is not None
            server.process.send_signal(signal.SIGINT)
            server.process.wait()
            (server.data / "standby.signal").touch()
            server.start()
            yield server

    def test_is_left_by_all_once_a_write_has_failed(self, standby: PostgreSQL) -> None:
        """Its connections, the idle ones too, are closed: the next ones may lead elsewhere."""
        alias = add_alias(standby.port, gpool={"size": 2, "check_after": None})
        before = elsewhere(lambda: {backend(alias), elsewhere(backend, alias)})
        until(lambda: state(alias) == (2, 0))
        with pytest.raises(InternalError, match="read-only transaction"):
            elsewhere(tell, alias, "create table written()")
        after = elsewhere(lambda: {backend(alias), elsewhere(backend, alias)})
        assert not before & after
        assert elsewhere(ask, alias, "select pg_promote()")
        until(lambda: state(alias)[1] == 0)
        remove_alias(alias)


class TestKilled:
    def test_in_nested_transactions_leaves_nothing(self, add: Add) -> None:
        """Neither a row, nor a lock, nor a connection that is lost."""
        alias = add()
        elsewhere(tell, alias, "create table if not exists killed(n int)")
        is_deep = gevent.event.Event()

        def nest() -> None:
            with transaction.atomic(alias):
                ask(alias, "insert into killed values (1) returning n")
                with transaction.atomic(alias):
                    ask(alias, "insert into killed values (2) returning n")
                    is_deep.set()
                    ask(alias, "select pg_sleep(60)::text")

        for _ in range(3):
            is_deep.clear()
            one = gevent.spawn(nest)
            is_deep.wait()
            one.kill()
            assert state(alias)[1] == 0  # nor has it borrowed again, to end its transaction
            assert elsewhere(ask, alias, "select count(*)::int from killed") == 0
        until(lambda: state(alias) == (1, 0))

    def test_or_ended_without_a_return_is_reclaimed(self, alias: str) -> None:
        """A greenlet that forgets to close loses what it has by its end."""
        gevent.spawn(backend, alias).get()
        until(lambda: state(alias)[1] == 0)
        assert elsewhere(ask, alias, "select 1") == 1


class TestCloseConnection:
    def test_is_a_decorator_and_a_context_manager(self, alias: str) -> None:
        """It passes on what the function is called, gets and returns."""

        @close_connection
        def job(alias: str, *, word: str) -> Any:
            """Say a word."""
            return ask(alias, "select %s::text", word)

        assert (job.__name__, job.__doc__) == ("job", "Say a word.")
        assert job(alias, word="mine") == "mine"
        assert connections[alias].connection is None
        with close_connection():
            backend(alias)
        assert connections[alias].connection is None

    def test_leaves_the_transactions_of_others(self, alias: str) -> None:
        """A job that is called within one uses its connection, and does not end it."""
        with transaction.atomic(alias):
            first = backend(alias)
            assert close_connection(backend)(alias) == first
            assert backend(alias) == first

    def test_closes_after_an_error_as_well(self, alias: str) -> None:
        """Which goes on to whoever has called."""
        with pytest.raises(DatabaseError, match="division by zero"):
            close_connection(ask)(alias, "select 1 / 0")
        until(lambda: state(alias) == (1, 0))


class TestSettings:
    def test_that_change_bring_another_pool(self, alias: str, server: PostgreSQL) -> None:
        """As with a test database; the old pool has let go of its connections then."""
        elsewhere(tell, alias, "create database other template template0")
        connections.settings[alias]["NAME"] = "other"
        assert elsewhere(ask, alias, "select current_database()::text") == "other"
        names = [pool.name for pool in gpool.running_pools()]
        assert len(names) == 1
        connections[alias].close_pool()
        connections.settings[alias]["NAME"] = "postgres"
        elsewhere(tell, alias, "drop database other")

    def test_of_a_copy_are_its_own(self, alias: str) -> None:
        """Both pools run while both have clients."""
        first = backend(alias)
        copied = connections[alias].copy()
        copied.settings_dict["OPTIONS"]["application_name"] = "copy"
        with copied.cursor() as cursor:
            cursor.execute("show application_name")
            assert cursor.fetchone() == ("copy",)
        copied.close()
        assert backend(alias) == first

    def test_of_the_time_zone_may_change(self, alias: str) -> None:
        """Now for the connection at hand, later for those that are made."""
        assert ask(alias, "show timezone") == "UTC"
        with override_settings(USE_TZ=False, TIME_ZONE="Africa/Nairobi"):
            assert ask(alias, "show timezone") == "Africa/Nairobi"
            connections[alias].close()
            assert ask(alias, "show timezone") == "Africa/Nairobi"
            connections[alias].close()
        assert ask(alias, "show timezone") == "UTC"


class TestFork:
    def test_leaves_the_parent_its_connection(self, alias: str) -> None:
        """The child borrows one of its own, from a pool of its own."""
        first = backend(alias)
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                connections[alias].close()
                second = backend(alias)
                connections[alias].close()
                code = 0 if second != first else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert backend(alias) == first


class TestThreads:
    def test_of_their_own_connect_by_themselves(self, alias: str) -> None:
        """A native thread has no part in the pool: it opens a connection, and closes it."""

        def query() -> tuple[Any, Any]:
            try:
                wrapper = connections[alias]
                with wrapper.cursor() as cursor:
                    cursor.execute("select 42")
                    found = cursor.fetchone()
                wrapper.close()
                return found, wrapper.connection
            finally:
                gevent.get_hub().destroy(destroy_loop=True)

        assert gevent.get_hub().threadpool.apply(query) == ((42,), None)
