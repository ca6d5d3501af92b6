"""SQLAlchemy on a real PostgreSQL, by psycopg 3 and by psycopg2 with its wait callback."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psycopg
import psycopg2
import psycopg2.extensions
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from gevent import select
from gevent.event import Event
from sqlalchemy import Engine, ForeignKey, create_engine, event, exc, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

import gpool
from gpool.integrations.sqlalchemy import SupervisedPool
from gpool.testing import settle
from tests.integrations.borrowers import OnAFrailServer, OnASharedServer
from tests.integrations.torture import LONG, Outages, Subject, Torture, assert_whole
from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL
from tests.waiting import until

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
        """The engine's."""
        return self.engine.pool.supervised

    def echo(self, connection: Any, word: str) -> str:
        """Have the server say a word, and end the transaction."""
        answer = connection.scalar(text("select cast(:word as text)"), {"word": word})
        connection.commit()
        return answer

    def stop(self) -> None:
        """End it."""
        self.engine.dispose()


class Psycopg:
    """By psycopg 3."""

    driver = "psycopg"
    asks = 1  # connections by which the server is asked to cancel what was cut short

    def make(self, gate: Gate, *, password: str = "", **options: Any) -> Borrower:
        """Return a borrower."""
        user = f"ann:{password}" if password else "postgres"
        url = f"postgresql+{self.driver}://{user}@127.0.0.1:{gate.port}/postgres"
        return Borrower(url, **options)


class Psycopg2(Psycopg):
    """By psycopg2."""

    driver = "psycopg2"
    asks = 0

    @pytest.fixture(autouse=True)
    def green(self) -> Iterator[None]:
        """Have psycopg2 cooperate."""
        psycopg2.extensions.set_wait_callback(wait)
        yield
        psycopg2.extensions.set_wait_callback(None)


class TestTorture(Psycopg, OnASharedServer, Torture):
    pass


class TestTortureByPsycopg2(Psycopg2, OnASharedServer, Torture):
    pass


class TestOutages(Psycopg, OnAFrailServer, Outages):
    pass


class TestOutagesByPsycopg2(Psycopg2, OnAFrailServer, Outages):
    pass


def pid_of(connection: Any) -> int:
    """Return the number of the server's process behind a connection."""
    return connection.scalar(text("select pg_backend_pid()"))


def is_napping(server: PostgreSQL, pid: int) -> bool:
    """Tell whether the server works at a query for that process."""
    with psycopg.connect(server.dsn()) as other:
        query = "select state, query from pg_stat_activity where pid = %s"
        return other.execute(query, [pid]).fetchone() == ("active", NAP)


class CutShort(OnASharedServer):
    """What becomes of a connection whose client was cut short."""

    @pytest.fixture
    def one(self, gate: Gate) -> Iterator[Borrower]:
        """Give a borrower of one connection."""
        one = self.make(gate, size=1, pool_pre_ping=False)
        yield one
        one.stop()

    @pytest.mark.parametrize("error", [gevent.GreenletExit, gevent.Timeout])
    @pytest.mark.parametrize("way", ["connection", "raw", "session"])
    def test_in_a_query(
        self, one: Borrower, gate: Gate, server: PostgreSQL, way: str, error: type[BaseException]
    ) -> None:
        """It is closed, by whichever way it was used, and not lent again."""
        pids: list[int] = []

        def connection() -> None:
            with one.engine.connect() as lent:
                pids.append(pid_of(lent))
                lent.execute(text(NAP))

        def raw() -> None:
            with contextlib.closing(one.engine.raw_connection()) as lent:
                cursor = lent.cursor()
                cursor.execute("select pg_backend_pid()")
                pids.append(cursor.fetchone()[0])
                cursor.execute(NAP)

        def session() -> None:
            with Session(one.engine) as session, session.begin():
                pids.append(pid_of(session))
                session.execute(text(NAP))

        client = gevent.spawn(self.quietly, locals()[way])
        until(lambda: pids and is_napping(server, pids[0]), "a query")
        client.kill(error)
        with one.checkout() as other:
            assert pid_of(other) != pids[0]
        assert_whole(one, gate)
        assert gate.opened == 2 + self.asks

    def quietly(self, fn: Callable[[], None]) -> None:
        """Run it until it is cut short."""
        with contextlib.suppress(gevent.Timeout):
            fn()

    @pytest.mark.parametrize("reset", ["rollback", None])
    def test_and_the_timeout_swallowed(self, gate: Gate, reset: str | None) -> None:
        """The driver tells that its query is under way: nobody gets the answer of another one."""
        one = self.make(gate, size=1, pool_pre_ping=False, pool_reset_on_return=reset)
        raw = one.engine.raw_connection()
        cursor = raw.cursor()
        with gevent.Timeout(0.05, False):
            cursor.execute(NAP)
        with contextlib.suppress(Exception):  # a cursor may refuse to be closed now
            cursor.close()
        raw.close()
        with one.checkout() as connection:
            assert one.echo(connection, "mine") == "mine"
        assert_whole(one, gate)
        assert gate.opened == 2 + self.asks
        one.stop()

    def test_and_the_timeout_swallowed_with_a_connection(self, one: Borrower, gate: Gate) -> None:
        """SQLAlchemy invalidates it; the next statement of its user says so."""
        with one.checkout() as connection:
            with gevent.Timeout(0.05, False):
                connection.execute(text(NAP))
            assert connection.invalidated
        with one.checkout() as connection:
            assert one.echo(connection, "mine") == "mine"
        assert gate.opened == 2 + self.asks

    def test_in_its_own_rollback(self, one: Borrower, gate: Gate) -> None:
        """The rollback of a Connection is the client's: cut short, the connection is closed."""
        may_end = Event()

        def use() -> None:
            with one.engine.connect() as connection:
                connection.execute(text("select 1"))
                may_end.wait()
                gate.block()

        client = gevent.spawn(use)
        until(lambda: one.pool.stats().busy == 1)
        settle()
        may_end.set()
        settle()
        client.kill()
        gate.unblock()
        assert_whole(one, gate)
        assert gate.opened == 2 + self.asks

    def test_while_a_worker_resets(self, one: Borrower, gate: Gate) -> None:
        """Nothing happens: the rollback goes on, and the connection is lent again."""
        raw = one.engine.raw_connection()
        raw.cursor().execute("select 1")
        gate.block()

        def give_back(raw: Any = raw) -> None:
            raw.close()

        client = gevent.spawn(give_back)
        del raw
        until(lambda: one.pool.stats().resetting == 1, "a reset")
        client.kill()
        assert one.pool.stats().resetting == 1
        gate.unblock()
        assert_whole(one, gate)
        assert gate.opened == 1

    def test_while_it_connects(self, one: Borrower, gate: Gate) -> None:
        """The connect goes on, and is for the next one."""
        gate.hold()
        client = gevent.spawn(one.checkout)
        until(lambda: gate.open == 1, "a connect")
        client.kill()
        gate.release()
        assert_whole(one, gate)
        assert gate.opened == 1


class TestCutShort(Psycopg, CutShort):
    @pytest.mark.parametrize("swallowed", [False, True])
    def test_is_cancelled_on_the_server(
        self, one: Borrower, server: PostgreSQL, swallowed: bool
    ) -> None:
        """Else it went on there, and the server had more connections than the pool may have."""

        def use() -> None:
            with one.checkout() as connection:
                pids.append(pid_of(connection))
                with gevent.Timeout(0.05, False if swallowed else None):
                    connection.execute(text(NAP))

        for _ in range(3):
            pids: list[int] = []
            self.quietly(use)
            until(lambda: not is_napping(server, pids[0]), "the server to be told")  # noqa: B023

    def test_is_not_cancelled_if_that_is_declined(self, gate: Gate, server: PostgreSQL) -> None:
        """The server gets no other connection than those that are lent."""
        one = self.make(gate, size=1, pool_pre_ping=False, cancel_timeout=0)
        with contextlib.suppress(gevent.Timeout), one.checkout() as connection:
            pid = pid_of(connection)
            with gevent.Timeout(0.05):
                connection.execute(text(NAP))
        assert_whole(one, gate)
        assert gate.opened == 2
        one.stop()
        with psycopg.connect(server.dsn()) as other:
            other.execute("select pg_terminate_backend(%s)", [pid])

    def test_is_closed_though_the_server_is_silent(self, gate: Gate) -> None:
        """It is asked in vain, for as long as a close may take; then no socket is left."""
        one = self.make(gate, size=1, pool_pre_ping=False, shutdown=0.05)
        with contextlib.suppress(gevent.Timeout), one.checkout() as connection:
            connection.execute(text("select 1"))
            gate.block()
            with gevent.Timeout(0.05):
                connection.execute(text(NAP))
        one.stop()
        gate.unblock()
        until(lambda: gate.open == 0, "both sockets to be closed")
        assert gate.opened == 2


class TestCutShortByPsycopg2(Psycopg2, CutShort):
    pass


class TestRestart(Psycopg, OnAFrailServer):
    """A server that is killed and comes back, while nobody asks."""

    def test_is_not_noticed_with_pre_ping(self, gate: Gate, server: PostgreSQL) -> None:
        """The first one who comes gets a connection that works, and so do all."""
        one = self.make(gate, size=3)
        assert_whole(one, gate)
        server.restart()
        assert_whole(one, gate)
        one.stop()

    def test_costs_one_client_an_error_without(self, gate: Gate, server: PostgreSQL) -> None:
        """SQLAlchemy tells that it was a disconnect: all of that generation are replaced."""
        one = self.make(gate, size=3, pool_pre_ping=False)
        assert_whole(one, gate)
        server.restart()
        with pytest.raises(exc.OperationalError) as caught, one.checkout() as connection:
            one.echo(connection, "mine")
        assert caught.value.connection_invalidated
        assert_whole(one, gate)
        one.stop()

    def test_replaces_those_that_are_lent(self, gate: Gate, server: PostgreSQL) -> None:
        """They are of that generation, too: they go when they come back."""
        one = self.make(gate, size=2, pool_pre_ping=False)
        with one.checkout() as lent:
            with one.checkout() as other:
                pass
            server.restart()
            with pytest.raises(exc.OperationalError), one.checkout() as other:
                one.echo(other, "mine")
            assert not lent.invalidated
        assert_whole(one, gate)
        assert gate.opened == 4
        one.stop()


class Base(DeclarativeBase):
    """The tables."""


class Account(Base):
    """Has entries."""

    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    entries: Mapped[list[Entry]] = relationship()


class Entry(Base):
    """Belongs to an account."""

    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[int] = mapped_column(ForeignKey(Account.id))
    amount: Mapped[int]


class TestOrm(OnASharedServer):
    @pytest.fixture
    def engine(self, server: PostgreSQL) -> Iterator[Engine]:
        """Give an engine on two tables."""
        engine = create_engine(
            server.url(driver="postgresql+psycopg"), poolclass=SupervisedPool, pool_size=4,
            max_overflow=2, pool_pre_ping=True, pool_logging_name="accounts",
        )  # fmt: skip
        Base.metadata.create_all(engine)
        yield engine
        Base.metadata.drop_all(engine)
        engine.dispose()

    def test_of_fifty_greenlets(self, engine: Engine) -> None:
        """Some fail, some are killed in their transaction: what is there is whole."""
        kept: list[int] = []

        def use(number: int) -> None:
            with contextlib.suppress(exc.IntegrityError, ZeroDivisionError):
                with Session(engine) as session, session.begin():
                    account = Account(entries=[Entry(amount=number), Entry(amount=-number)])
                    session.add(account)
                    session.flush()
                    if number % 5 == 1:
                        session.add(Entry(account=10**6, amount=1))
                    elif number % 5 == 2:
                        raise ZeroDivisionError
                    elif number % 5 == 3:
                        gevent.getcurrent().kill(block=False)
                    session.execute(text("select pg_sleep(0.001)"))
                kept.append(number)

        gevent.joinall([gevent.spawn(use, number) for number in range(50)], raise_error=True)
        assert sorted(kept) == [number for number in range(50) if number % 5 in (0, 4)]
        with Session(engine) as session:
            assert session.query(Account).count() == 20
            assert session.query(Entry).count() == 40
        until(lambda: engine.pool.checkedout() == 0)
        assert not engine.pool.supervised.waiters()

    def test_leaves_a_session_usable_after_a_failure(self, engine: Engine) -> None:
        """As with any pool: rolled back, it goes on with a connection that is clean."""
        with Session(engine) as session:
            session.add(Entry(account=10**6, amount=1))
            with pytest.raises(exc.IntegrityError):
                session.flush()
            with pytest.raises(exc.PendingRollbackError):
                session.execute(text("select 1"))
            session.rollback()
            assert session.scalar(text("select 1")) == 1

    def test_shows_the_users_lines(self, engine: Engine) -> None:
        """Who holds and who waits is shown by the lines of the program, not of SQLAlchemy."""
        [pool] = [pool for pool in gpool.running_pools() if pool.name == "accounts"]

        def handler() -> None:
            with Session(engine) as session:
                session.scalar(text("select pg_sleep(0.05)"))

        clients = [gevent.spawn(handler) for _ in range(8)]
        until(lambda: pool.waiters(), "clients to wait")
        lines = {one.line for one in [*pool.holders(), *pool.waiters()]}
        gevent.joinall(clients, raise_error=True)
        [line] = lines
        assert line.startswith(f"{__file__}:")
        assert line.endswith("handler")

    def test_connects_and_initialises_in_a_worker(self, engine: Engine) -> None:
        """Its events and the dialect's initialisation run in the process that has it."""
        engine.dispose()
        seen: list[Any] = []
        event.listen(engine, "do_connect", lambda *args: seen.append(gpool.self()))
        event.listen(engine, "connect", lambda *args: seen.append(gpool.self()))
        with engine.connect():
            [holder] = engine.pool.supervised.holders()
            assert seen == [holder.process] * 2
        assert engine.dialect.server_version_info
        assert engine.dialect.default_schema_name == "public"


class TestFork(OnASharedServer):
    def test_leaves_the_parents_alone(self, server: PostgreSQL) -> None:
        """A child disposes of the engine without closing, and gives back what is not its own."""
        url = server.url(driver="postgresql+psycopg")
        engine = create_engine(url, poolclass=SupervisedPool)
        with engine.connect() as connection:
            before = pid_of(connection)
        lent = engine.raw_connection()
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # it must not stay, whatever happens
            code = 1
            try:
                engine.dispose(close=False)
                lent.close()
                with engine.connect() as connection:
                    code = 0 if pid_of(connection) != before else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        lent.close()
        with engine.connect() as connection:
            assert pid_of(connection) == before
        engine.dispose()


class TestFlaskSqlalchemy(OnASharedServer):
    def test_has_its_engine_options(self, server: PostgreSQL) -> None:
        """Requests share the pool; one that is killed in a query gives its slot back."""
        app = Flask("app")
        app.config["SQLALCHEMY_DATABASE_URI"] = server.url(driver="postgresql+psycopg")
        app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
            "poolclass": SupervisedPool, "pool_size": 2, "max_overflow": 0, "max_waiting": 20,
            "pool_pre_ping": True, "pool_logging_name": "web",
        }  # fmt: skip
        db = SQLAlchemy(app)

        @app.get("/echo/<word>")
        def echo(word: str) -> str:
            return db.session.scalar(text("select cast(:word as text)"), {"word": word})

        @app.get("/nap")
        def nap() -> str:
            db.session.execute(text(NAP))
            return "awake"

        def get(path: str) -> str:
            return app.test_client().get(path).get_data(as_text=True)

        words = [f"w{number}" for number in range(20)]
        answers = [gevent.spawn(get, f"/echo/{word}") for word in words]
        assert [answer.get() for answer in answers] == words
        pool = gpool.get_pool("web")
        naps = [gevent.spawn(get, "/nap") for _ in range(2)]
        until(lambda: pool.stats().busy == 2, "naps")
        assert {one.line.rpartition(".")[2] for one in pool.holders()} == {"nap"}
        answer = gevent.spawn(get, "/echo/late")
        settle()
        gevent.killall(naps)
        assert answer.get() == "late"
        until(lambda: pool.stats().busy == 0)
        with app.app_context():
            db.engine.dispose()
