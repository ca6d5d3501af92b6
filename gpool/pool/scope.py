"""Scopes: what a process borrowed inside one, and still has at its end, goes back.

Where one greenlet does one piece of work after another (a keep-alive connection's requests,
a loop over jobs), its death comes too late to give anything back.  A scope is such a piece:

    >>> from gpool.pool.pool import Pool
    >>> from gpool.pool.resource import Resource
    >>> with Pool(Resource(create=list), size=1, name="lists") as pool:
    ...     with Scope() as scope:
    ...         things = scope.keep(pool.checkout())
    ...     leases(), pool.status().idle
    ((), 1)

Rules:

* A scope belongs to the process that enters it.  What others borrow meanwhile, those that
  it has spawned included, is theirs.
* What was borrowed before, or was given back or transferred to others since, is not touched.
  What others have transferred to the process is, as if it had borrowed it.
* Scopes may be nested: the inner one has taken its own when it ends.  What it finds that an
  outer one was told to keep is left to that.
* A lease that is meant to last for the scope is told to it by :meth:`Scope.keep`, and its
  worker is lent again.
* Any other that nobody has given back was forgotten, and :class:`LeaseForgotten` tells from
  which line; ``with pool.checkout()`` forgets none.  Nobody knows who still refers to its
  worker, so that is not lent again, as that of a lease which is dropped is not.
* A scope refers to no lease that it was not told of, so one that is dropped can still be
  reclaimed, and lent again.

Not here: requests (``integrations/wsgi.py``).

Source:
    The request scope of web frameworks' containers; HikariCP's ``ProxyConnection.close``
    likewise ends the statements that were left open.
"""

from __future__ import annotations

import contextlib
from operator import attrgetter
from sys import exception
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from weakref import WeakValueDictionary

from greenlet import getcurrent

from gpool import clock, telemetry
from gpool.otp import greenlets, process
from gpool.otp.pid import FORKED, Pid
from gpool.pool.lease import Client, Lease, keepers_of

W = TypeVar("W")

# Number of a lease -> the scope that was told last to keep it.
_kept_by: Final[WeakValueDictionary[int, Scope]] = WeakValueDictionary()


def leases(of: Any = None) -> tuple[Lease[Any], ...]:
    """Return what a process has borrowed, from any pool; never blocks, and has no effect.

    Args:
        of: A pid, a handle or a name; None: the caller.

    Returns:
        Its leases, those first that it asked for first; none if it is dead.  Whoever keeps
        them keeps them from being reclaimed when their owner drops them.

    Raises:
        NoProcess: Nobody has the name.
        TypeError: It is no process.
    """
    pid = getattr(getcurrent(), "gpool_pid", None) if of is None else process.resolve(of)
    return tuple(_leases_of(pid))


def _leases_of(pid: Pid | None) -> list[Lease[Any]]:
    if pid is None or pid.keeper is None or pid.state is FORKED:
        return []
    found: list[Lease[Any]] = []
    for client in keepers_of(pid):
        if type(client) is Client:
            found += client.leases
    return sorted(found, key=attrgetter("since"))


class Scope:
    """A piece of work at whose end goes back what its process borrowed in it and still has.

    As a context manager it ends with the block.  Workers that it was told to keep are checked
    in, each as by its own ``with``: resources are reset after a normal end or an
    ``Exception``, and discarded if a ``BaseException`` such as a kill or a ``gevent.Timeout``
    ended the block.  Those that were forgotten are discarded.  It may be entered again
    once it has ended.
    """

    __slots__ = ("__weakref__", "_before", "_kept", "_pid")

    def __init__(self) -> None:
        self._pid: Pid | None = None  # whose it is, while it lasts
        self._before: set[int] = set()  # numbers of the leases that it must not touch
        self._kept: dict[int, Lease[Any]] = {}  # number -> one that is to last that long

    def keep(self, lease: Lease[W]) -> W:
        """Have a lease last until the scope ends, on purpose; never blocks.

        It may still be given back before.  The end of another scope does not touch it,
        unless that one is told later to keep it.

        Returns:
            The worker that is lent.

        Raises:
            LeaseLost: It was given back, or it died.
            TypeError: It is no lease.
            ValueError: The scope has ended, or another process has the lease.
        """
        if not isinstance(lease, Lease):
            raise TypeError(f"lease: expected a Lease, got {lease!r}")
        worker = lease.worker
        if lease.owner.pid is not self._pid:
            whose = "a scope that has not ended" if self._pid is None else f"one of {self._pid!r}"
            raise ValueError(f"lease: expected {whose}, got {lease!r}")
        self._kept[lease.number] = lease
        _kept_by[lease.number] = self
        self._before.discard(lease.number)
        return worker

    def __enter__(self) -> Self:
        if self._pid is not None:
            raise RuntimeError(f"expected a scope that has ended, got one of {self._pid!r}")
        self._pid = greenlets.current()
        self._before = {lease.number for lease in _leases_of(self._pid)}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pid, self._pid = self._pid, None
        kept, self._kept = self._kept, {}
        for number in kept:
            if _kept_by.get(number) is self:
                del _kept_by[number]
        left = [one for one in _leases_of(pid) if not self._leaves(one, pid)]
        if not left:
            return
        if error is None:
            error = _that_is_handled()
        kind = None if error is None else type(error)
        with contextlib.ExitStack() as all_of_them:  # whatever one of them raises
            for lease in left:
                if lease.number in kept:
                    all_of_them.callback(lease.__exit__, kind, error, trace)
                else:
                    all_of_them.callback(_end_forgotten, lease)

    def _leaves(self, lease: Lease[Any], pid: Pid | None) -> bool:
        """Tell whether a lease of a process is not for this scope of it to end."""
        if lease.number in self._before:
            return True
        keeper = _kept_by.get(lease.number)
        return keeper is not None and keeper._pid is pid


def _that_is_handled() -> BaseException | None:
    """Return what kills the running greenlet if the end comes in a ``finally``."""
    error = exception()
    return None if isinstance(error, Exception) else error


def _end_forgotten(lease: Lease[Any]) -> None:
    held, ledger = clock.now() - lease.since, lease.ledger
    ledger.note(telemetry.LeaseForgotten(lease.owner.pid, ledger.name, lease.line, held))
    lease.discard("forgotten")
