"""Pools behind one protocol: each is driven by its own public API, as its documentation says.

A peer is imported when it is made, after ``monkey.patch_all()``.  What it lends has
``ask()``, which tells whether the reply was the right one, and ``done()``.

Pools of anything lend an echo connection that behaves as their driver's does: it
shows, in the driver's own way, that a reply has not been read.  Pools of HTTP
clients talk HTTP: to borrow is to send a request and to read the head of the
response, to give back is to read its body.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol

import gevent.queue

import gpool
from benchmarks import pools
from benchmarks.torture.echo import Connection, Connector


class Lent(Protocol):
    """What a client has in its hands."""

    lent: bool

    def ask(self) -> bool:
        """Send a request, read the reply, tell whether it is the right one."""

    def done(self) -> None:
        """Bring it into the condition in which it can be given back."""


class Peer(Protocol):
    """A pool.

    It is made by ``Peer(connector, size, timeout)``: of `size` connections, for each of
    which a client waits for `timeout` seconds, if the pool has such a thing.
    """

    package: ClassVar[str]  # the distribution that it comes from
    needs_try_finally: ClassVar[bool]  # it has no ``with`` of its own
    asks: ClassVar[int]  # requests that a client may send before it gives back, at most

    def checkout(self) -> AbstractContextManager[Lent]:
        """Borrow one, in the way that is documented, and give it back at the end."""

    def close(self) -> None:
        """Close the pool."""


class Base:
    """What most peers have in common."""

    needs_try_finally: ClassVar[bool] = False
    asks: ClassVar[int] = 3


class Gpool(Base):
    """This package's."""

    package = "gpool"

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        def create() -> Connection:
            connector.step()
            return Connection(connector.address, connector.reply)

        resource = gpool.Resource(
            create, close=Connection.close, is_dirty=lambda connection: connection.is_dirty
        )
        self.pool: gpool.Pool[Connection] = gpool.Pool(
            resource, size=size, timeout=timeout, lazy=True, max_restarts=1_000_000
        )

    def checkout(self) -> AbstractContextManager[Lent]:
        """``with pool.checkout() as resource``."""
        return self.pool.checkout()

    def close(self) -> None:
        """Stop the pool."""
        self.pool.stop()


# --- Databases ----------------------------------------------------------------------


class DatabaseError(Exception):
    """As PEP 249 has it."""


class Database(Connection):
    """An echo connection that looks like a database's, to pools of such.

    Whatever it is asked for while a reply has not been read fails, as it does with
    psycopg: another command is already in progress.
    """

    autocommit = True

    def rollback(self) -> None:
        """Raise if it is dirty."""
        if self.is_dirty or self.closed:
            raise DatabaseError("another command is already in progress")

    commit = rollback

    def cursor(self) -> Database:
        """Return what has ``execute``: itself."""
        return self

    def execute(self, statement: str) -> None:
        """Take a round trip."""
        self.rollback()
        self.ask()


def database(connector: Connector) -> Database:
    """Connect to the database."""
    connector.step()
    return Database(connector.address, connector.reply)


class PsycopgPool(Base):
    """psycopg_pool, with a connection class of ours."""

    package = "psycopg-pool"

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        from psycopg.pq import TransactionStatus

        class Psycopg(Database, pools.PsycopgConnection):
            """Shows in its transaction status whether it is dirty."""

            @classmethod
            def connect(cls, conninfo: str, **kwargs: Any) -> Psycopg:
                connector.step()
                return cls(connector.address, connector.reply)

            @property
            def transaction_status(self) -> TransactionStatus:
                if self.closed:
                    return TransactionStatus.UNKNOWN
                return TransactionStatus.ACTIVE if self.is_dirty else TransactionStatus.IDLE

            def __enter__(self) -> Psycopg:
                return self

            def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
                if kind is None and not self.closed:
                    self.commit()  # psycopg's, after an error, rolls back and ignores failures

        self.pool = pools.psycopg_pool(Psycopg, size=size, timeout=timeout)

    def checkout(self) -> AbstractContextManager[Lent]:
        """``with pool.connection() as connection``."""
        connection: AbstractContextManager[Lent] = self.pool.connection()
        return connection

    def close(self) -> None:
        """Close the pool."""
        self.pool.close()


class SQLAlchemy(Base):
    """SQLAlchemy's QueuePool, without overflow."""

    package = "SQLAlchemy"

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        self.pool = pools.queue_pool(lambda: database(connector), size=size, timeout=timeout)

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Any]:
        """``with closing(pool.connect()) as connection``."""
        with contextlib.closing(self.pool.connect()) as connection:
            yield connection.dbapi_connection

    def close(self) -> None:
        """Dispose of it."""
        self.pool.dispose()


class Django(Base):
    """django-db-geventpool's pool for psycopg 3; it has no timeout."""

    package = "django-db-geventpool"
    needs_try_finally = True

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        from django_db_geventpool.backends.postgresql_psycopg3.base import PostgresConnectionPool

        class Pool(PostgresConnectionPool):  # type: ignore[misc]
            DBERROR = DatabaseError

        self.pool = Pool(connect=lambda **_: database(connector), MAX_CONNS=size)

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Database]:
        """``pool.get()`` and ``pool.put(connection)``, as its DatabaseWrapper does."""
        connection = self.pool.get()
        try:
            yield connection
        finally:
            self.pool.put(connection)

    def close(self) -> None:
        """Close what is idle."""
        self.pool.close()


class DBUtils(Base):
    """DBUtils' PooledDB; it has no timeout."""

    package = "DBUtils"

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        self.pool = pools.pooled_db(
            lambda: database(connector),
            size=size,
            failures=DatabaseError,
            ping=lambda connection: not connection.is_dirty,
        )

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Any]:
        """``with pool.connection() as connection``."""
        with self.pool.connection() as connection:
            yield connection.dbapi_connection

    def close(self) -> None:
        """Close what is idle."""
        self.pool.close()


class QueueIdiom(Base):
    """A gevent queue of connections made on demand: what many write, after gevent's example."""

    package = "gevent"

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        self.connector, self.size, self.timeout = connector, size, timeout
        self.made = 0
        self.idle: Any = gevent.queue.Queue()

    def get(self) -> Database:
        """Take an idle one, make one, or wait for one."""
        if self.made >= self.size or self.idle.qsize():
            connection: Database = self.idle.get(timeout=self.timeout)
            return connection
        self.made += 1
        try:
            return database(self.connector)
        except:
            self.made -= 1
            raise

    def put(self, connection: Database) -> None:
        """Put one back, if it is fit to be used again."""
        try:
            connection.rollback()
        except DatabaseError:
            try:
                connection.close()
            finally:
                self.made -= 1
        else:
            self.idle.put(connection)

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Database]:
        """The context manager that comes with the idiom."""
        connection = self.get()
        try:
            yield connection
        finally:
            self.put(connection)

    def close(self) -> None:
        """Close what is idle."""
        while self.idle.qsize():
            self.idle.get().close()


# --- Redis, HTTP --------------------------------------------------------------------


class Redis(Base):
    """redis-py's BlockingConnectionPool, with a connection class of ours."""

    package = "redis"
    needs_try_finally = True

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        class RedisConnection:
            """Disconnects if it is cut off before the end of a reply, as redis-py's does."""

            def __init__(self, **kwargs: Any) -> None:
                self.pid = os.getpid()
                self.echo: Connection | None = None
                self.lent = False

            def connect(self) -> None:
                if self.echo is None:
                    connector.step()
                    self.echo = Connection(connector.address, connector.reply)

            def disconnect(self, *args: object) -> None:
                echo, self.echo = self.echo, None
                if echo is not None:
                    echo.close()

            def can_read(self, timeout: float = 0) -> bool:
                return False

            def should_reconnect(self) -> bool:
                return False

            def ask(self) -> bool:
                self.connect()
                assert self.echo is not None
                try:
                    return self.echo.ask()
                except BaseException:
                    self.disconnect()
                    raise

            def done(self) -> None:
                pass

        self.pool = pools.redis_pool(RedisConnection, size=size, timeout=timeout)

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Any]:
        """``pool.get_connection()`` and ``pool.release(connection)``, as its client does."""
        connection = self.pool.get_connection()
        try:
            yield connection
        finally:
            self.pool.release(connection)

    def close(self) -> None:
        """Disconnect them all."""
        self.pool.disconnect()


class GeventHttpClient(Base):
    """geventhttpclient's pool of sockets; it has no timeout for those who wait."""

    package = "geventhttpclient"
    needs_try_finally = True

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        from geventhttpclient.connectionpool import ConnectionPool

        class Pool(ConnectionPool):
            def after_connect(self, sock: Any) -> None:
                connector.step()

        host, port = connector.address
        self.reply = connector.reply
        self.pool = Pool(host, port, host, port, size=size)

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Connection]:
        """``get_socket``, then ``return_socket``, or ``release_socket`` after a failure."""
        sock: Any = self.pool.get_socket()
        connection = Connection.over(sock, self.reply)
        try:
            yield connection
        except BaseException:
            self.pool.release_socket(sock)
            raise
        if connection.is_dirty:
            self.pool.release_socket(sock)
        else:
            self.pool.return_socket(sock)

    def close(self) -> None:
        """Close what is idle."""
        self.pool.close()


class Exchange:
    """A response whose head has come; its body has to be the nonce of its request."""

    def __init__(self, read: Callable[[], bytes], nonce: bytes) -> None:
        self.read, self.nonce = read, nonce
        self.lent = False

    def ask(self) -> bool:
        """Read the body."""
        return self.read() == self.nonce

    def done(self) -> None:
        """Read the body: without that the connection cannot be used again."""
        self.read()


class Urllib3(Base):
    """urllib3's HTTPConnectionPool, with ``block=True``."""

    package = "urllib3"
    asks = 1

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        from urllib3 import HTTPConnectionPool
        from urllib3.connection import HTTPConnection

        class Connecting(HTTPConnection):
            def connect(self) -> None:
                connector.step()
                super().connect()

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connecting

        self.connector, self.timeout = connector, timeout
        self.pool = Pool(*connector.address, maxsize=size, block=True)

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Exchange]:
        """``with pool.urlopen(..., preload_content=False)``, then ``release_conn()``."""
        nonce, path = self.connector.path()
        response = self.pool.urlopen(
            "GET", path, retries=False, preload_content=False, pool_timeout=self.timeout
        )
        try:
            with response:
                yield Exchange(response.read, nonce)
        finally:
            response.release_conn()

    def close(self) -> None:
        """Close what is idle."""
        self.pool.close()


class Httpcore(Base):
    """httpcore's ConnectionPool, which httpx uses."""

    package = "httpcore"
    asks = 1

    def __init__(self, connector: Connector, size: int, timeout: float) -> None:
        import httpcore

        class Backend(httpcore.NetworkBackend):
            def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
                connector.step()
                return httpcore.SyncBackend().connect_tcp(*args, **kwargs)

        self.connector, self.timeout = connector, timeout
        self.pool = httpcore.ConnectionPool(max_connections=size, network_backend=Backend())

    @contextlib.contextmanager
    def checkout(self) -> Iterator[Exchange]:
        """``with pool.stream(...) as response``."""
        nonce, path = self.connector.path()
        url = "http://{}:{}".format(*self.connector.address) + path
        patience = {"timeout": {"pool": self.timeout}}
        with self.pool.stream("GET", url, extensions=patience) as response:
            yield Exchange(response.read, nonce)

    def close(self) -> None:
        """Close all."""
        self.pool.close()


PEERS: dict[str, type[Any]] = {
    "gpool": Gpool,
    "psycopg_pool": PsycopgPool,
    "SQLAlchemy": SQLAlchemy,
    "django-db-geventpool": Django,
    "redis": Redis,
    "gevent queue": QueueIdiom,
    "geventhttpclient": GeventHttpClient,
    "DBUtils": DBUtils,
    "urllib3": Urllib3,
    "httpcore": Httpcore,
}
