"""What becomes of a PostgreSQL connection that comes back, whichever driver it is of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from tests.integrations.torture import LONG
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL
from tests.waiting import until

Lend = Callable[..., gpool.Pool[Any]]


def execute(connection: Any, query: str) -> list[Any]:
    """Run a query, and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall()) if cursor.description else []


def value(connection: Any, query: str) -> Any:
    """Return the one value that a query has."""
    return execute(connection, query)[0][0]


def backend(pool: gpool.Pool[Any]) -> int:
    """Return which process of the server a connection of the pool talks to."""
    with pool.checkout() as connection:
        return int(connection.info.backend_pid)


def in_transaction(connection: Any) -> None:
    """Leave a transaction open."""
    execute(connection, "select 1")


def in_failed_transaction(connection: Any) -> None:
    """Leave a transaction that has failed."""
    with contextlib.suppress(Exception):
        execute(connection, "select 1/0")


def in_a_transaction_by_hand(connection: Any) -> None:
    """Leave a transaction of which the driver does not know."""
    connection.autocommit = True
    execute(connection, "begin")


def in_named_cursor(connection: Any) -> None:
    """Leave a cursor on the server that is read in part."""
    execute(connection, "declare few cursor for select generate_series(1, 100000)")
    execute(connection, "fetch 1 from few")


def cut_by(error: type[BaseException]) -> Callable[[Any], None]:
    """Return what is cut short in a query, and swallows that."""

    def cut(connection: Any) -> None:
        with contextlib.suppress(error), gevent.Timeout(0.02, error):
            execute(connection, "select pg_sleep(60)")

    cut.__name__ = f"cut_by_{error.__name__}"
    return cut


def closed(connection: Any) -> None:
    """Close it."""
    connection.close()


def in_two_phases(connection: Any) -> None:
    """Leave a transaction that a rollback refuses to end."""
    connection.tpc_begin("left-open")
    execute(connection, "select 1")


def prepared(connection: Any) -> None:
    """Leave a transaction prepared: it outlives its connection, as it is to."""
    in_two_phases(connection)
    connection.tpc_prepare()


OPTIONS = ("timeout", "start_timeout", "shutdown")  # of the pool
KEPT = [in_transaction, in_failed_transaction, in_named_cursor, in_a_transaction_by_hand]
REPLACED = [cut_by(gevent.Timeout), cut_by(gevent.GreenletExit), closed, in_two_phases, prepared]


class Decisions:
    """Each test is given a server that all share by `server`."""

    driver: Any  # the module that has the errors
    integration: Any  # gpool's module
    resource: Any  # its class

    @pytest.fixture
    def lend(self, server: PostgreSQL, request: pytest.FixtureRequest) -> Lend:
        """Give what makes pools, of one connection each, which end with the test."""

        def make(dsn: Any = None, size: int = 1, **hooks: Any) -> gpool.Pool[Any]:
            options = {key: hooks.pop(key) for key in list(hooks) if key in OPTIONS}
            resource = self.resource(dsn or server.dsn(), **hooks)
            pool: gpool.Pool[Any] = gpool.Pool(resource, size=size, **{"timeout": LONG} | options)
            request.addfinalizer(pool.stop)
            return pool

        return make

    @pytest.fixture
    def boss(self, server: PostgreSQL) -> Iterator[Any]:
        """Give a connection of nobody's, in autocommit mode."""
        with contextlib.closing(self.driver.connect(server.dsn())) as connection:
            connection.autocommit = True
            yield connection

    @pytest.fixture
    def errors(self) -> Iterator[list[str]]:
        """Give what hooks and connects have raised, in words."""
        seen: list[str] = []

        def note(event: telemetry.Event) -> None:
            if isinstance(event, telemetry.HookFailed):
                seen.append(str(event.exception))
            elif isinstance(event, telemetry.WorkerStartFailed):
                seen.append(str(getattr(event.reason, "exception", event.reason)))

        telemetry.attach(note)
        yield seen
        telemetry.detach(note)

    # --- At the checkin ---

    @pytest.mark.parametrize("use", KEPT, ids=lambda use: use.__name__)
    def test_a_transaction_is_rolled_back(self, lend: Lend, use: Callable[[Any], None]) -> None:
        """The next client has the same connection, with nothing open."""
        pool = lend()
        with pool.checkout() as connection:
            use(connection)
            before = connection.info.backend_pid
        with pool.checkout() as connection:
            assert connection.info.backend_pid == before
            assert connection.info.transaction_status == 0

    @pytest.mark.parametrize("use", REPLACED, ids=lambda use: use.__name__)
    def test_what_a_rollback_does_not_mend_is_replaced(
        self, lend: Lend, boss: Any, use: Callable[[Any], None]
    ) -> None:
        """The next client has another connection, and the server has no such client any more."""
        pool = lend()
        with pool.checkout() as connection:
            before = connection.info.backend_pid
            use(connection)
        assert backend(pool) != before
        if use is prepared:
            execute(boss, "rollback prepared 'left-open'")
        if not (use.__name__.startswith("cut_by") and self.driver.__name__ == "psycopg2"):
            gone = f"select count(*) from pg_stat_activity where pid = {before}"
            until(lambda: value(boss, gone) == 0, "the server to let go of it")
        else:
            execute(boss, f"select pg_terminate_backend({before})")

    def test_an_idle_one_is_lent_again_without_a_round_trip(
        self, lend: Lend, server: PostgreSQL, gate: Gate
    ) -> None:
        """Nothing gets through to the server, and nobody notices."""
        pool = lend(server.dsn(gate.port))
        with pool.checkout() as connection:
            execute(connection, "select 1")
            connection.rollback()
            gate.block()
        with pool.checkout() as again:
            assert again is connection
        gate.unblock()

    def test_what_was_not_committed_is_gone(self, lend: Lend) -> None:
        """A checkout does not commit."""
        pool = lend()
        with pool.checkout() as connection:
            execute(connection, "create table not_committed (i int)")
        with pool.checkout() as connection:
            assert value(connection, "select to_regclass('not_committed')") is None

    @pytest.mark.parametrize(("name", "changed"), [("autocommit", True), ("deferrable", True)])
    def test_what_a_client_has_changed_is_restored(
        self, lend: Lend, name: str, changed: Any
    ) -> None:
        """In the same connection, which was idle."""
        pool = lend()
        with pool.checkout() as connection:
            before = getattr(connection, name)
            setattr(connection, name, changed)
        with pool.checkout() as again:
            assert again is connection
            assert getattr(again, name) == before

    def test_configure_may_change_it_for_all(self, lend: Lend) -> None:
        """What it has set is what clients get back."""
        pool = lend(configure=lambda connection: setattr(connection, "autocommit", True))
        with pool.checkout() as connection:
            connection.autocommit = False
        with pool.checkout() as again:
            assert again is connection
            assert again.autocommit

    # --- After an exception ---

    def test_an_error_of_the_client_breaks_nothing(self, lend: Lend, boss: Any) -> None:
        """A violation of a constraint: rolled back, and the same connection goes on."""
        execute(boss, "create table if not exists only_one (i int primary key)")
        pool = lend()
        with pytest.raises(self.driver.IntegrityError), pool.checkout() as connection:
            execute(connection, "insert into only_one values (1), (1)")
        assert backend(pool) == connection.info.backend_pid

    def test_a_timeout_breaks_it_wherever_it_strikes(self, lend: Lend) -> None:
        """Not in a query, even: what was cut short is not lent again."""
        pool = lend()
        before = backend(pool)
        with pytest.raises(gevent.Timeout), pool.checkout():
            raise gevent.Timeout
        assert backend(pool) != before

    def test_a_generator_that_is_closed_breaks_nothing(self, lend: Lend) -> None:
        """It was at a ``yield``: the connection itself shows whether a query is under way."""
        pool = lend()

        def numbers() -> Iterator[Any]:
            with pool.checkout() as connection:
                yield from execute(connection, "select generate_series(1, 3)")

        before = backend(pool)
        for _ in numbers():
            break
        assert backend(pool) == before

    def test_a_generator_is_closed_whose_consumer_was_cut_short(self, lend: Lend) -> None:
        """It saw nothing of that, but the connection did."""
        pool = lend()

        def lent() -> Generator[Any, None, None]:
            with pool.checkout() as connection:
                yield connection

        before = backend(pool)
        lender = lent()
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.02):
            execute(next(lender), "select pg_sleep(60)")
        lender.close()
        assert backend(pool) != before

    def test_a_lost_connection_brings_the_others_under_suspicion(
        self, lend: Lend, boss: Any
    ) -> None:
        """The server ended one: the idle ones, which were as old, are replaced, too."""
        pool = lend(size=2)
        pool.wait_ready()
        with pool.checkout() as one, pool.checkout() as other:
            before = {one.info.backend_pid, other.info.backend_pid}
        execute(boss, f"select pg_terminate_backend({backend(pool)})")  # lent next, again
        with pytest.raises(self.driver.OperationalError), pool.checkout() as connection:
            execute(connection, "select 1")
        with pool.checkout() as one, pool.checkout() as other:
            assert before.isdisjoint({one.info.backend_pid, other.info.backend_pid})

    def test_one_that_died_idle_is_found_by_its_check(self, server: PostgreSQL, boss: Any) -> None:
        """It was idle for long enough to be checked, and nobody gets it."""
        resource = self.resource(server.dsn())
        with gpool.Pool(resource, size=1, check_after=0, timeout=LONG) as pool:
            before = backend(pool)
            execute(boss, f"select pg_terminate_backend({before})")
            with pool.checkout() as connection:
                assert value(connection, "select 1") == 1
                assert connection.info.backend_pid != before

    def test_a_check_leaves_it_as_it_was(self, lend: Lend) -> None:
        """No transaction, and no other mode."""
        with lend().checkout() as connection:
            self.integration.check(connection)
            assert connection.info.transaction_status == 0
            assert not connection.autocommit

    # --- The user's hooks ---

    def test_what_connects_is_asked_anew_for_each_connect(
        self, lend: Lend, server: PostgreSQL
    ) -> None:
        """The connection string and the keyword arguments may be callables."""
        names = iter(("first", "second"))
        pool = lend(server.dsn, kwargs=lambda: {"application_name": next(names)})
        for name in ("first", "second"):
            lease = pool.checkout()
            assert value(lease.worker, "show application_name") == name
            lease.discard()

    @pytest.mark.parametrize("hook", ["configure", "reset"])
    def test_a_hook_that_leaves_a_transaction_is_told_so(
        self, lend: Lend, errors: list[str], hook: str
    ) -> None:
        """The connection is closed: nobody gets it."""
        pool = lend(**{hook: in_transaction}, timeout=0.2)
        with contextlib.suppress(gpool.CheckoutTimeout), pool.checkout():
            pass
        until(lambda: errors, "an error")
        assert errors[0].startswith(f"{hook}: expected <function in_transaction")
        assert "got INTRANS; have it commit at its end" in errors[0]

    def test_reset_runs_after_the_rollback(self, lend: Lend) -> None:
        """At every checkin, also of an idle one."""
        seen: list[int] = []
        pool = lend(reset=lambda connection: seen.append(connection.info.transaction_status))
        for use in (in_transaction, id):
            with pool.checkout() as connection:
                use(connection)
        backend(pool)
        assert seen == [0, 0]

    def test_discard_all_ends_what_is_set_up_on_the_server(self, lend: Lend) -> None:
        """Settings, locks and temporary tables; the same connection goes on."""
        pool = lend(reset=self.integration.discard_all)
        with pool.checkout() as connection:
            execute(connection, "set statement_timeout = 12345")
            execute(connection, "select pg_advisory_lock(1)")
            execute(connection, "create temporary table mine (i int)")
            connection.commit()
        with pool.checkout() as again:
            assert again is connection
            assert value(again, "show statement_timeout") == "0"
            locks = "select count(*) from pg_locks where locktype = 'advisory' and pid = "
            assert value(again, f"{locks} pg_backend_pid()") == 0
            assert value(again, "select to_regclass('mine')") is None

    # --- transaction() ---

    @pytest.mark.parametrize("autocommit", [False, True])
    def test_transaction_commits_at_a_normal_end_only(
        self, lend: Lend, boss: Any, autocommit: bool
    ) -> None:
        """An error, a kill and a time-out roll back; in autocommit mode, too."""
        execute(boss, "drop table if exists kept; create table kept (word text)")
        pool = lend(configure=lambda one: setattr(one, "autocommit", autocommit))
        with self.integration.transaction(pool) as connection:
            execute(connection, "insert into kept values ('normal')")
        for error in (ValueError, gevent.Timeout, gevent.GreenletExit):
            with pytest.raises(error):
                self.insert(pool, f"insert into kept values ('{error.__name__}')", error)
        backend(pool)
        assert execute(boss, "select word from kept") == [("normal",)]

    def insert(self, pool: gpool.Pool[Any], query: str, error: type[BaseException]) -> None:
        """Run a query in a transaction that an error ends."""
        with self.integration.transaction(pool, LONG) as connection:
            execute(connection, query)
            raise error

    def test_transaction_may_commit_earlier(self, lend: Lend, boss: Any) -> None:
        """What was committed stays, whatever comes."""
        execute(boss, "drop table if exists early; create table early (word text)")
        pool = lend()
        with self.integration.transaction(pool) as connection:
            execute(connection, "insert into early values ('early')")
            connection.commit()
            execute(connection, "insert into early values ('late')")
            connection.rollback()
        assert execute(boss, "select word from early") == [("early",)]

    @pytest.mark.parametrize("autocommit", [False, True])
    def test_transaction_begins_another_one_after_an_early_commit(
        self, lend: Lend, boss: Any, autocommit: bool
    ) -> None:
        """What was not committed is rolled back, in autocommit mode, too, which is restored."""
        execute(boss, "drop table if exists again; create table again (word text)")
        pool = lend(configure=lambda one: setattr(one, "autocommit", autocommit))
        for late, error in (("normal", None), ("lost", ValueError)):
            with contextlib.suppress(ValueError), self.integration.transaction(pool) as connection:
                execute(connection, "insert into again values ('early')")
                connection.commit()
                execute(connection, f"insert into again values ('{late}')")
                if error:
                    raise error
            with pool.checkout() as connection:
                assert connection.autocommit == autocommit
        words = [word for (word,) in execute(boss, "select word from again")]
        assert words == ["early", "normal", "early"]

    def test_transaction_borrows_when_it_is_entered(self, lend: Lend) -> None:
        """One that never is has no connection."""
        pool = lend()
        pool.checkout().checkin()  # the connect is not what is to be quick
        transactions = [self.integration.transaction(pool, 0.01) for _ in range(2)]
        assert pool.stats().busy == 0
        for one in transactions:
            with one:
                assert pool.stats().busy == 1

    def test_a_commit_that_fails_is_told_and_the_connection_goes_on(
        self, lend: Lend, boss: Any
    ) -> None:
        """A deferred constraint."""
        execute(boss, "drop table if exists twice")
        execute(boss, "create table twice (i int unique deferrable initially deferred)")
        pool = lend()
        with (
            pytest.raises(self.driver.IntegrityError),
            self.integration.transaction(pool) as connection,
        ):
            execute(connection, "insert into twice values (1), (1)")
        assert backend(pool) == connection.info.backend_pid

    def test_transaction_is_held_from_the_line_that_asked_for_it(self, lend: Lend) -> None:
        """Not from one of gpool's; while it waits for it, too."""
        pool = lend()

        def wait_for_one() -> None:
            with self.integration.transaction(pool):
                pass

        with contextlib.ExitStack() as stack:
            stack.enter_context(self.integration.transaction(pool))
            assert __file__ in pool.holders()[0].line
        with self.integration.transaction(pool):
            assert __file__ in pool.holders()[0].line
            waiter = gevent.spawn(wait_for_one)
            until(pool.waiters, "somebody to wait")
            assert pool.waiters()[0].line.endswith("wait_for_one")
        waiter.get()

    def test_transaction_that_a_scope_has_outrun_is_not_lent_to_a_second_client(
        self, lend: Lend, boss: Any
    ) -> None:
        """Its end would commit what the second client has begun; nothing of its own is, either."""
        execute(boss, "drop table if exists outrun; create table outrun (word text)")
        pool, blocks = lend(), contextlib.ExitStack()
        with gpool.Scope():
            first = blocks.enter_context(self.integration.transaction(pool))
            execute(first, "insert into outrun values ('first')")
        with pool.checkout() as second:
            assert second is not first
            execute(second, "insert into outrun values ('second')")
            with pytest.raises(self.driver.Error, match="closed"):
                execute(first, "select 1")
            with pytest.raises(gpool.LeaseLost):
                blocks.close()
            assert value(boss, "select count(*) from outrun") == 0

    # --- Connecting ---

    def test_a_connect_that_is_cut_short_leaves_no_socket(
        self, server: PostgreSQL, gate: Gate
    ) -> None:
        """Not even while somebody has the exception, whose traceback saw the socket."""
        gate.hold()
        seen: list[BaseException] = []

        def connect() -> None:
            try:
                self.resource(server.dsn(gate.port)).create()
            except BaseException as error:  # noqa: BLE001  # kept, with its traceback
                seen.append(error)

        connecting = gevent.spawn(connect)
        until(lambda: gate.open == 1, "a connect")
        connecting.kill()
        until(lambda: gate.open == 0, "its socket to be closed")
        assert isinstance(seen[0], gevent.GreenletExit)

    def test_a_start_that_takes_too_long_leaves_no_socket(
        self, lend: Lend, server: PostgreSQL, gate: Gate
    ) -> None:
        """However many of them there were."""
        gate.hold()
        pool = lend(server.dsn(gate.port), start_timeout=0.02)
        pool.start()
        until(lambda: pool.stats().start_failures >= 3, "failed starts")
        pool.suspend()
        until(lambda: pool.stats().starting == 0, "what has begun to end")
        until(lambda: gate.open == 0, "what was opened to be closed")

    def test_a_connect_timeout_is_heeded_and_leaves_no_socket(
        self, server: PostgreSQL, gate: Gate
    ) -> None:
        """It is the driver's own, so it is the driver's error that users see."""
        gate.hold()
        with pytest.raises(self.driver.OperationalError, match="timeout expired") as seen:
            self.resource(server.dsn(gate.port, connect_timeout=1)).create()
        until(lambda: gate.open == 0, "its socket to be closed")
        assert seen.tb is not None

    def test_closing_does_not_wait_for_a_server_that_is_silent(
        self, lend: Lend, server: PostgreSQL, gate: Gate
    ) -> None:
        """Even if there is more to be sent than the socket takes."""
        hooks = {"cancel_timeout": 0} if self.driver.__name__ == "psycopg" else {}
        pool = lend(server.dsn(gate.port), **hooks)
        with contextlib.suppress(gevent.Timeout), pool.checkout() as connection:
            gate.block()
            with gevent.Timeout(0.1):
                execute(connection, "select '" + "x" * 50_000_000 + "'")
        pool.stop()
        assert connection.closed
        gate.unblock()


class OnStandby:
    """A server that only reads: the test has it to itself."""

    driver: Any
    resource: Any

    def test_a_write_that_a_standby_refuses_breaks_the_connection(self) -> None:
        """The next one may find the primary; a transaction that is to be read-only breaks none."""
        with PostgreSQL() as server:
            pool = gpool.Pool(self.resource(server.dsn()), size=1, timeout=LONG)
            assert self.survives(pool, "start transaction read only; create table a (i int)")
            pool.stop()
            server.stand_by()
            pool = gpool.Pool(self.resource(server.dsn()), size=1, timeout=LONG)
            assert not self.survives(pool, "create table a (i int)")
            pool.stop()

    def survives(self, pool: gpool.Pool[Any], query: str) -> bool:
        """Tell whether a connection is lent again after a query that is refused."""
        error = self.driver.errors.ReadOnlySqlTransaction
        before = backend(pool)
        with pytest.raises(error), pool.checkout() as connection:
            execute(connection, query)
        return backend(pool) == before
