"""Pools by name: started, found and stopped by whoever knows what they are called.

Source:
    The facade of the PoolToy articles.

Not here: the supervisor of all pools (``pools_sup.py``), the table of those that
should run (``application.py``).
"""

from __future__ import annotations

from typing import Any, cast

from gpool.pool.application import application
from gpool.pool.pool import Pool


def start_pool(worker: Any, *args: Any, name: str, **options: Any) -> Pool[Any]:
    """Make a pool and start it; as ``Pool(worker, ...).start()``."""
    return Pool(worker, *args, name=name, **options).start()


def get_pool(name: str) -> Pool[Any]:
    """Return the running pool of that name.

    Raises:
        UnknownPool: There is none.
    """
    return cast("Pool[Any]", application.find(name).pool)


def running_pools() -> list[Pool[Any]]:
    """Return the pools that were started and not stopped, those that have failed included."""
    return [ledger.pool for ledger in list(application.ledgers.values())]


def stop_pool(name: str, timeout: float | None = 5.0) -> None:
    """Stop the running pool of that name; see :meth:`Pool.stop`.

    Raises:
        UnknownPool: There is none.
    """
    get_pool(name).stop(timeout)
