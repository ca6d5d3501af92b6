"""psycopg 3: connections that no client can leave behind for the next one.

A pool of them, in a program that gevent has patched before psycopg is imported::

    import gpool
    from gpool.integrations.psycopg import PsycopgResource, transaction

    pool = gpool.Pool(PsycopgResource("dbname=app"), size=10, name="db")
    with transaction(pool) as connection:  # commits at a normal end
        connection.execute("insert into visits default values")

``with pool.checkout() as connection`` lends a connection and does **not** commit: what is
not committed at the end of the block is rolled back.  :func:`transaction` commits.

Everything that could hang runs in the connection's worker, under the pool's time limits:
connecting, `configure`, `check`, rolling back, closing.  What becomes of a connection that
comes back is decided by what libpq knows, without I/O:

* Idle: it is lent again, without a round trip.
* In a transaction, failed or not: the worker rolls it back, then it is lent again.
* A query under way, rows or a COPY unread, pipeline mode, a two-phase transaction: it is
  closed, whatever the client swallowed to get here; the query is cancelled on the server.
* Closed, by the client or by the server: it is replaced.
* Left by a ``BaseException`` (a kill, a ``gevent.Timeout``): it is closed.  A generator that is
  closed at a ``yield`` in the block leaves it as it is: one of the above.
* Left by an error that says that the server has gone, or is a standby now: it is closed, and
  so are the idle ones, while those that are lent are checked when they come back.

Attributes of the connection that a client has changed (``autocommit``, the transaction's
characteristics, factories) are restored.  What it has set on the *server*
stays, as with psycopg_pool: ``SET``, ``LISTEN``, advisory locks, temporary tables.
``reset=discard_all`` ends all of that, at the price of a round trip at each checkin.
Notice and notify handlers and adapters stay in any case, since psycopg does not show them: register
them in `configure`, or adapters on a cursor, and remove a handler of one's own.

Source:
    psycopg_pool's ``ConnectionPool``, for names and hooks; pgx, which cancels what is cut short.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Final, LiteralString, TypeVar, overload

import psycopg
from gevent import monkey
from psycopg import waiting
from psycopg.pq import PipelineStatus
from psycopg.rows import TupleRow

from gpool.integrations import _postgresql
from gpool.integrations._frames import drop_locals
from gpool.integrations._options import check_seconds
from gpool.integrations._postgresql import (
    ACTIVE,
    KEPT,
    RESETTABLE,
    Conninfo,
    DriverResource,
    Hooks,
    Kwargs,
    causes,
    check_arguments,
    connected,
    is_cut_short,
    says_gone,
)

C = TypeVar("C", bound=psycopg.Connection[Any])


# --- Hooks to choose from -----------------------------------------------------------


def check(connection: psycopg.Connection[Any]) -> None:
    """Have the server answer an empty query: the cheapest round trip there is.

    Raises:
        psycopg.Error: It is dead.

    Source:
        psycopg_pool ``check_connection``.
    """
    _execute_alone(connection, "")  # or a BEGIN would go before, and a ROLLBACK after it


def discard_all(connection: psycopg.Connection[Any]) -> None:
    """End all that a client has set up on the server, as `reset`: settings, locks, LISTEN.

    Temporary tables and prepared statements go, too, and so does what `configure` has SET:
    put that into the connection string, as ``options='-c statement_timeout=5s'``.
    """
    _execute_alone(connection, "discard all")  # it cannot run in a transaction


def _execute_alone(connection: psycopg.Connection[Any], query: LiteralString) -> None:
    autocommit = connection.autocommit
    connection.autocommit = True
    connection.execute(query)
    connection.autocommit = autocommit


# --- The resource -------------------------------------------------------------------


class PsycopgResource(DriverResource[C]):
    """Connections of psycopg 3, for :class:`gpool.Pool`.

    Args:
        conninfo: The connection string, or a callable that returns it: it is called in the
            worker before each connect, and may block (a password that changes).
        kwargs: Keyword arguments of ``connect``: ``autocommit``, ``row_factory``,
            ``prepare_threshold``, parameters of the connection; or a callable, likewise.
        connection_class: The class whose ``connect`` is called.
        configure: ``configure(connection)`` prepares each new connection, in the worker,
            and has to leave it without a transaction: commit, if it has begun one.
        reset: ``reset(connection)`` makes one that came back fit for the next client, in
            the worker and after the rollback, at every checkin; :func:`discard_all` is one.
            It has to leave the connection without a transaction.  None: nothing
            more than a rollback, and that only if a transaction was left.
        check: Finds out whether an idle one is alive, by raising if it is not, before one
            is lent that was idle for the pool's ``check_after`` seconds.  None: never.
        cancel_timeout: Seconds that the worker may take to have the server cancel a
            query that was cut short, before it closes the connection; 0: the query is not
            cancelled.  It takes psycopg 3.2 and libpq 17; with older ones it is not.

    Raises:
        TypeError, ValueError: An argument is wrong.

    Warns:
        RuntimeWarning: psycopg does not cooperate with gevent here: each query blocks all
            greenlets, and no time limit can cut one short.
    """

    __slots__ = ()

    @overload
    def __init__(
        self: PsycopgResource[psycopg.Connection[TupleRow]],
        conninfo: Conninfo = "", *, kwargs: Kwargs = None,
        configure: Callable[[psycopg.Connection[TupleRow]], object] | None = None,
        reset: Callable[[psycopg.Connection[TupleRow]], object] | None = None,
        check: Callable[[psycopg.Connection[TupleRow]], object] | None = ...,
        cancel_timeout: float = 1.0,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self, conninfo: Conninfo = "", *, kwargs: Kwargs = None, connection_class: type[C],
        configure: Callable[[C], object] | None = None,
        reset: Callable[[C], object] | None = None,
        check: Callable[[C], object] | None = ...,
        cancel_timeout: float = 1.0,
    ) -> None: ...  # fmt: skip
    def __init__(
        self,
        conninfo: Conninfo = "",
        *,
        kwargs: Kwargs = None,
        connection_class: Any = psycopg.Connection,
        configure: Callable[[Any], object] | None = None,
        reset: Callable[[Any], object] | None = None,
        check: Callable[[Any], object] | None = check,
        cancel_timeout: float = 1.0,
    ) -> None:
        check_arguments(conninfo, kwargs, configure=configure, reset=reset, check=check)
        if not (isinstance(connection_class, type) and issubclass(connection_class, _Sync)):
            expected = "a subclass of psycopg.Connection"
            raise TypeError(f"connection_class: expected {expected}, got {connection_class!r}")
        check_seconds("cancel_timeout", cancel_timeout)
        connect: Any = connection_class.connect
        hooks = _Hooks(partial(connected, connect, conninfo, kwargs), configure, reset)
        hooks.cancel_timeout = cancel_timeout
        super().__init__(hooks, check, is_dirty, is_broken)
        if not cooperates():
            warnings.warn(_BLOCKS, RuntimeWarning, stacklevel=2)


_Sync: Final = psycopg.Connection
OFF: Final = int(PipelineStatus.OFF)
_BLOCKS: Final = (
    "psycopg does not cooperate with gevent here: each query blocks all greenlets, and no "
    "timeout can cut one short; call gevent.monkey.patch_all() before psycopg is imported"
)


class _Hooks(Hooks[Any]):
    """What a pool's workers do with connections of psycopg 3."""

    kept = (
        "autocommit", "isolation_level", "read_only", "deferrable", "prepare_threshold",
        "row_factory", "cursor_factory", "server_cursor_factory",
    )  # fmt: skip
    complaint = psycopg.ProgrammingError
    cancel_timeout = 0.0  # s

    def status(self, connection: psycopg.Connection[Any]) -> int:
        """Return the transaction's status, as libpq knows it without I/O."""
        return connection.pgconn.transaction_status

    def close(self, connection: psycopg.Connection[Any]) -> None:
        """Cancel what was cut short, then close."""
        try:
            cancel(connection, self.cancel_timeout)
        finally:
            connection.close()


def cancel(connection: psycopg.Connection[Any], timeout: float) -> None:
    """Have the server cancel a query that was cut short, if there is one; never raises for that.

    Else it would go on, with its locks and its place among the server's connections, until
    it is done, however soon this end is closed.  It takes psycopg 3.2 and libpq 17: older ones
    cannot ask without blocking, and do not.

    Args:
        connection: The connection, which is to be closed.
        timeout: Seconds that it may take; 0: nothing is asked.
    """
    if not timeout or connection.pgconn.transaction_status != ACTIVE or not _can_cancel():
        return
    try:
        connection.cancel_safe(timeout=timeout)
    except psycopg.Error:
        return  # the server has gone, or is silent: nothing can be told to it
    except BaseException as error:
        drop_locals(error)
        raise


# --- Decisions ----------------------------------------------------------------------


def is_dirty(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a connection cannot be made fit for another client by a rollback; no I/O."""
    pgconn = connection.pgconn
    return (
        pgconn.transaction_status not in RESETTABLE  # UNKNOWN, if it is closed
        or pgconn.pipeline_status != OFF
        or connection.lock.locked()  # by an iterator over notifies() that lives on, or a greenlet
        or getattr(connection, "_tpc", None) is not None  # a rollback is refused then
        or connection in KEPT
    )


def is_broken(error: BaseException, connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the exception that ended a client's block has broken its connection; no I/O.

    A kill and a ``gevent.Timeout`` have, wherever they struck; the end of a generator that was
    closed has not.  An ``Exception`` has if the
    server went away: the connection was lost, or the SQLSTATE is of class 08 or 57P, or it
    is 25006 and the server is a standby (after a failover, or found by an old address).  A
    connection that the server ended for its client's own fault is closed as any that is dirty.
    """
    if is_cut_short(error):
        return True
    for cause in causes(error):
        state = getattr(cause, "sqlstate", None)
        gone = says_gone(state, is_standby=partial(_is_standby, connection))
        if gone is not None:
            return gone
    return connection.broken


def cooperates() -> bool:
    """Tell whether a query lets other greenlets run: gevent had patched when psycopg came."""
    return (
        monkey.is_module_patched("select")
        and getattr(waiting, "wait_c", None) is not waiting.wait  # chosen at its import
    )


# --- Borrowing ----------------------------------------------------------------------

transaction = _postgresql.transaction

# --- Details ------------------------------------------------------------------------


def _is_standby(connection: psycopg.Connection[Any]) -> bool:
    return connection.pgconn.parameter_status(b"in_hot_standby") == b"on"


def _can_cancel() -> bool:
    capabilities = getattr(psycopg, "capabilities", None)  # from psycopg 3.2 on
    return capabilities is not None and capabilities.has_cancel_safe()
