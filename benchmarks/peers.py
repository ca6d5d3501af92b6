"""The pools beside which gpool's speed is measured: ten of one plain object, used as documented.

Some are used by ``with``, some by hand, in ``try`` and ``finally``: a :class:`Peer` has
either `lend` or `get` and `put`.  What a pool does to a connection (rollback, ping) is
done to an object that does nothing.

Not here: what becomes of pools when their clients are killed (``torture/peers.py``);
both make their pools by ``pools.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any, Final

import gevent
from gevent.queue import LifoQueue

import gpool
from benchmarks import pools

SIZE: Final = 10
TIMEOUT: Final = 30.0  # s that a client waits, where the pool can be told


@dataclass(frozen=True, slots=True)
class Peer:
    """A pool that is ready: all it lends is there and idle."""

    lend: Callable[[], AbstractContextManager[Any]] | None = None
    get: Callable[[], Any] | None = None
    put: Callable[[Any], object] | None = None
    close: Callable[[], object] = int

    def loop(self, n: int) -> None:
        """Borrow and give back, so many times."""
        if self.lend is not None:
            lend = self.lend
            for _ in range(n):
                with lend():
                    pass
        else:
            get, put = self.get, self.put
            assert get is not None
            assert put is not None
            for _ in range(n):
                thing = get()
                try:
                    pass
                finally:
                    put(thing)


@contextmanager
def borrowed(peer: Peer) -> Iterator[Any]:
    """Borrow where the time does not count."""
    if peer.lend is not None:
        with peer.lend() as thing:
            yield thing
        return
    assert peer.get is not None
    assert peer.put is not None
    thing = peer.get()
    try:
        yield thing
    finally:
        peer.put(thing)


class Connection:
    """Does nothing."""

    closed = False

    def __init__(self, **kwargs: Any) -> None:
        self.pid = os.getpid()

    def nothing(self, *args: Any) -> None:
        """Do nothing."""

    rollback = commit = close = connect = disconnect = open = nothing
    can_read = should_reconnect = is_expired = nothing

    def cursor(self) -> Connection:
        """Return what has ``execute``: itself."""
        return self

    execute = nothing


class PsycopgConnection(pools.PsycopgConnection):
    """A connection as psycopg_pool wants it."""

    @classmethod
    def connect(cls, conninfo: str, **kwargs: Any) -> PsycopgConnection:
        """Return one."""
        return cls()

    def __enter__(self) -> PsycopgConnection:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def close(self) -> None:
        """Do nothing."""


# --- Making them --------------------------------------------------------------------


def queue(size: int = SIZE, timeout: float | None = None) -> Peer:
    """Return the idiom: a LifoQueue of what is lent."""
    things: Any = LifoQueue()
    for _ in range(size):
        things.put(Connection())
    get = things.get if timeout is None else partial(things.get, timeout=timeout)
    return Peer(get=get, put=things.put)


def gpool_pool(size: int = SIZE, timeout: float = TIMEOUT) -> Peer:
    """Return gpool's, with its default options."""
    pool = gpool.Pool(gpool.Resource(create=Connection), size=size, timeout=timeout).start()
    pool.wait_ready()
    return Peer(lend=pool.checkout, close=pool.stop)


def psycopg_pool(size: int = SIZE, timeout: float = TIMEOUT) -> Peer:
    """Return psycopg_pool's."""
    pool = pools.psycopg_pool(PsycopgConnection, size=size, timeout=timeout, min_size=size)
    pool.wait()
    return Peer(lend=pool.connection, close=pool.close)


def sqlalchemy(size: int = SIZE, timeout: float = TIMEOUT) -> Peer:
    """Return SQLAlchemy's QueuePool."""
    pool = pools.queue_pool(Connection, size=size, timeout=timeout)
    return _warmed(Peer(get=pool.connect, put=methodcaller("close"), close=pool.dispose), size)


def redis(size: int = SIZE, timeout: float = TIMEOUT) -> Peer:
    """Return redis-py's BlockingConnectionPool."""
    pool = pools.redis_pool(Connection, size=size, timeout=timeout)
    peer = Peer(get=pool.get_connection, put=pool.release, close=pool.disconnect)
    return _warmed(peer, size)


def dbutils(size: int = SIZE, timeout: float = TIMEOUT) -> Peer:
    """Return DBUtils' PooledDB."""
    pool = pools.pooled_db(lambda: Connection(), size=size, mincached=size, failures=RuntimeError)
    return Peer(lend=pool.connection, close=pool.close)


def geventconnpool(size: int = SIZE, timeout: float = TIMEOUT) -> Peer:
    """Return geventconnpool's, which was written for Python 2."""

    class Pool(pools.geventconnpool()):  # type: ignore[misc]
        SPAWN_FREQUENCY = 0.0

        def _new_connection(self) -> Connection:
            return Connection()

    pool = Pool(size)
    while len(pool.conn) < size:
        gevent.sleep(0.001)
    return Peer(lend=pool.get)


def gsocketpool(size: int = SIZE, timeout: float = TIMEOUT) -> Peer:
    """Return gsocketpool's."""
    from gsocketpool import Pool

    pool = Pool(Connection, initial_connections=size, max_connections=size)
    return Peer(lend=pool.connection, close=pool._reaper.kill)


def _warmed(peer: Peer, size: int) -> Peer:
    """Have all connections made."""
    assert peer.get is not None
    assert peer.put is not None
    for thing in [peer.get() for _ in range(size)]:
        peer.put(thing)
    return peer


Make = Callable[..., Peer]

# By the name that tables use: the package, and how it is made.
PEERS: Final[dict[str, tuple[str, Make]]] = {
    "psycopg_pool": ("psycopg-pool", psycopg_pool),
    "SQLAlchemy QueuePool": ("SQLAlchemy", sqlalchemy),
    "redis BlockingConnectionPool": ("redis", redis),
    "DBUtils PooledDB": ("DBUtils", dbutils),
    "geventconnpool": ("geventconnpool", geventconnpool),
    "gsocketpool": ("gsocketpool", gsocketpool),
}
# Those whose clients wait as long as the pool likes.
WITHOUT_TIMEOUT: Final = ("DBUtils PooledDB", "geventconnpool", "gsocketpool")


def installed() -> tuple[dict[str, Make], list[str]]:
    """Return those whose package is here, and the names of those whose is not."""
    here = {name: make for name, (package, make) in PEERS.items() if pools.version(package)}
    return here, [name for name in PEERS if name not in here]
