"""Pools by name: started, found and stopped by whoever knows what they are called.

Source:
    The facade of the PoolToy articles.

Not here: the supervisor of all pools (``pools_sup.py``), the table of those that
should run (``application.py``).
"""

from __future__ import annotations

import contextlib
from typing import Any, Final, cast

from gpool import clock
from gpool.otp import process
from gpool.otp.pid import Pid, watch
from gpool.pool.application import application
from gpool.pool.options import check_seconds
from gpool.pool.pool import DRAIN, Pool
from gpool.waiter import Expired

CLOSE: Final = 1.0  # s that a pool gets at least to close what it has
_stopping: Final[dict[Pid, Pool[Any]]] = {}  # processes of stop_pools, each stops a pool


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


def declared_pools() -> list[Pool[Any]]:
    """Return the pools with a name that were made and never used, in the order of their making.

    A pool that only a parent process has used counts: in a forked child it is unused.
    """
    return [pool for pool in list(application.declared.values()) if pool.is_unused]


def stop_pools(drain: float | None = DRAIN) -> bool:
    """Drain and stop all running pools, the one that was started last first; blocks.

    The next one's turn comes when a pool is stopped: what it closes may need those that were
    started before it.  But one that takes more than a second to close holds up nobody, and
    beyond `drain` all close side by side.

    A call sees as well to what another one has begun to stop, with its own patience.

    Args:
        drain: Seconds for all together, until what is still lent is no longer waited for;
            None waits for ever.  Closing takes a second at most beyond that, for all together.

    Returns:
        Whether everything had come back in time.

    Raises:
        TypeError, ValueError: `drain` is no number of seconds.
        WrongHub: They run in another thread.
    """
    check_seconds("drain", drain)
    end = None if drain is None else clock.now() + drain
    all_back = True
    me = process.self()
    begun = [pool for pid, pool in list(_stopping.items()) if pid.hub is me.hub]
    stops = [_begin_to_stop(pool, end) for pool in begun]
    for pool in reversed(running_pools()):
        all_back &= pool.drain(None if end is None else max(end - clock.now(), 0.0))
        stops.append(_begin_to_stop(pool, end))
        with contextlib.suppress(Expired):
            process.await_death(stops[-1], CLOSE if end is None else min(end - clock.now(), CLOSE))
    for pid in stops:
        process.await_death(pid)
    return all_back


def _begin_to_stop(pool: Pool[Any], end: float | None) -> Pid:
    """Have a pool stopped in a process of its own, whatever becomes of the caller."""
    pid = process.spawn(pool.stop, CLOSE if end is None else max(end - clock.now(), CLOSE))
    _stopping[pid] = pool
    watch(pid, _Stops())
    return pid


class _Stops:
    """Forgets a process that has stopped a pool."""

    __slots__ = ()

    def down(self, pid: Pid, reason: Any) -> None:
        """It has."""
        _stopping.pop(pid, None)


def stop_pool(name: str, timeout: float | None = 5.0) -> None:
    """Stop the running pool of that name; see :meth:`Pool.stop`.

    Raises:
        UnknownPool: There is none.
    """
    get_pool(name).stop(timeout)
