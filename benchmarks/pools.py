"""How the other pools are made: one constructor call each, for the torture and for the speed.

What is lent is theirs who ask: connections that notice a foreign reply in the
torture, plain objects where only the pool's own cost is measured.  A pool is
imported when it is made, after ``monkey.patch_all()``.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import gpool


def version(package: str) -> str | None:
    """Return the version of a package, None if it is not installed; gpool's need not be."""
    if package == "gpool":
        return gpool.__version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class PsycopgConnection:
    """Has what psycopg_pool looks at; a subclass says in which state it is."""

    _pool: Any = None  # set by the pool: in its hands, or out of them
    closed = False

    @property
    def pgconn(self) -> Any:
        """Return what has a transaction status: itself."""
        return self

    @property
    def transaction_status(self) -> Any:
        """Return that nothing is going on."""
        from psycopg.pq import TransactionStatus

        return TransactionStatus.IDLE


def psycopg_pool(connection_class: Any, *, size: int, timeout: float, min_size: int = 0) -> Any:
    """Make psycopg_pool's ConnectionPool."""
    from psycopg_pool import ConnectionPool

    return ConnectionPool(
        connection_class=connection_class,
        min_size=min_size,
        max_size=size,
        timeout=timeout,
        open=True,
    )


def queue_pool(create: Callable[[], Any], *, size: int, timeout: float) -> Any:
    """Make SQLAlchemy's QueuePool, without overflow."""
    from sqlalchemy.pool import QueuePool

    return QueuePool(create, pool_size=size, max_overflow=0, timeout=timeout)


def redis_pool(connection_class: Any, *, size: int, timeout: float) -> Any:
    """Make redis-py's BlockingConnectionPool."""
    from redis import BlockingConnectionPool

    return BlockingConnectionPool(
        max_connections=size, timeout=timeout, connection_class=connection_class
    )


def pooled_db(create: Any, *, size: int, **options: Any) -> Any:
    """Make DBUtils' PooledDB, whose clients wait for ever."""
    from dbutils.pooled_db import PooledDB

    create.threadsafety = 1
    return PooledDB(create, maxconnections=size, blocking=True, **options)


def geventconnpool() -> Any:
    """Return geventconnpool's ConnectionPool, written for Python 2: two names are put in place."""
    spec = importlib.util.find_spec("geventconnpool")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).with_name("pool.py")
    import gevent.lock

    sys.modules.setdefault("gevent.coros", gevent.lock)
    module = ModuleType("geventconnpool.pool")
    vars(module)["xrange"] = range
    exec(compile(path.read_text(), path, "exec"), vars(module))
    return vars(module)["ConnectionPool"]
