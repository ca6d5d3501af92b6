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

========================================  =====================================================
idle                                      lent again, without a round trip
in a transaction, failed or not           rolled back by the worker, then lent again
a query under way, rows or COPY unread,   closed, whatever the client swallowed to get here;
pipeline mode, two-phase transaction      the query is cancelled on the server
closed, by the client or by the server    replaced
left by a ``BaseException``: a kill,      closed
a ``gevent.Timeout``
left by an error that says that the       closed, and so are the idle ones, while those that are
server has gone, or is a standby now      lent are checked when they come back
========================================  =====================================================

Attributes of the connection that a client has changed (``autocommit``, the transaction's
characteristics, factories) are restored.  What it has set on the *server*
stays, as with psycopg_pool: ``SET``, ``LISTEN``, advisory locks, temporary tables.
``reset=discard_all`` ends all of that, at the price of a round trip at each checkin.

Source:
    psycopg_pool's ``ConnectionPool``, for names and hooks; pgx, which cancels what is cut short.
"""

from __future__ import annotations

import contextlib
import operator
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Generic, TypeVar, overload
from weakref import WeakKeyDictionary

import psycopg
from gevent import monkey
from psycopg import waiting
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import TupleRow

import gpool
from gpool.integrations._postgresql import DEFAULT, callable_or_none, checkout, says_gone

C = TypeVar("C", bound=psycopg.Connection[Any])
Conninfo = str | Callable[[], str]
Kwargs = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None

KEPT: Final = (  # attributes of a connection that are the same for every client
    "autocommit", "isolation_level", "read_only", "deferrable", "prepare_threshold",
    "row_factory", "cursor_factory", "server_cursor_factory",
)  # fmt: skip
_kept: Final = operator.attrgetter(*KEPT)
IDLE: Final = TransactionStatus.IDLE
RESETTABLE: Final = (IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR)


# --- Hooks to choose from -----------------------------------------------------------


def check(connection: psycopg.Connection[Any]) -> None:
    """Have the server answer an empty query: the cheapest round trip there is.

    Raises:
        psycopg.Error: It is dead.

    Source:
        psycopg_pool ``check_connection``.
    """
    autocommit = connection.autocommit
    connection.autocommit = True  # or a BEGIN would go before, and a ROLLBACK after it
    connection.execute("")
    connection.autocommit = autocommit


def discard_all(connection: psycopg.Connection[Any]) -> None:
    """End all that a client has set up on the server, as `reset`: settings, locks, LISTEN.

    Temporary tables and prepared statements go, too, and so does what `configure` has SET:
    put that into the connection string, as ``options='-c statement_timeout=5s'``.
    """
    autocommit = connection.autocommit
    connection.autocommit = True  # it cannot run in a transaction
    connection.execute("discard all")
    connection.autocommit = autocommit


# --- The resource -------------------------------------------------------------------


class PsycopgResource(gpool.Resource[C]):
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
        if not isinstance(conninfo, str) and not callable(conninfo):
            raise TypeError(f"conninfo: expected a text or a callable, got {conninfo!r}")
        if not (kwargs is None or isinstance(kwargs, Mapping) or callable(kwargs)):
            raise TypeError(f"kwargs: expected a mapping or a callable, got {kwargs!r}")
        if not (isinstance(connection_class, type) and issubclass(connection_class, _Sync)):
            expected = "a subclass of psycopg.Connection"
            raise TypeError(f"connection_class: expected {expected}, got {connection_class!r}")
        callable_or_none(configure=configure, reset=reset, check=check)
        _check_seconds(cancel_timeout)
        connect: Callable[[], Any] = partial(_connect, connection_class, conninfo, kwargs)
        hooks: _Hooks[C] = _Hooks(connect, configure, reset, cancel_timeout)
        super().__init__(
            create=hooks.create, close=hooks.close, reset=hooks.reset, check=check,
            is_dirty=is_dirty, is_broken=is_broken, needs_reset=hooks.needs_reset,
        )  # fmt: skip
        if not cooperates():
            warnings.warn(_BLOCKS, RuntimeWarning, stacklevel=2)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # whose connection string may have a password


_Sync: Final = psycopg.Connection
_BLOCKS: Final = (
    "psycopg does not cooperate with gevent here: each query blocks all greenlets, and no "
    "timeout can cut one short; call gevent.monkey.patch_all() before psycopg is imported"
)


class _Hooks(Generic[C]):
    """What a pool's workers do with their connections."""

    def __init__(
        self,
        connect: Callable[[], C],
        configure: Callable[[C], object] | None,
        reset: Callable[[C], object] | None,
        cancel_timeout: float,
    ) -> None:
        self.connect, self.configure, self.users_reset = connect, configure, reset
        self.cancel_timeout = cancel_timeout
        self.kept: WeakKeyDictionary[C, Any] = WeakKeyDictionary()  # -> values of KEPT

    def create(self) -> C:
        """Connect, in the worker."""
        try:
            connection = self.connect()
        except BaseException as error:
            _drop_locals(error)  # the socket is in one: a connect that was cut short has it open
            raise
        try:
            if self.configure is not None:
                self.configure(connection)
                _assert_idle(connection, "configure", self.configure)
            self.kept[connection] = _kept(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def needs_reset(self, connection: C) -> bool:
        """Whether a client has left a transaction, or changed what is to stay the same."""
        return (
            self.users_reset is not None
            or connection.pgconn.transaction_status != IDLE
            or _kept(connection) != self.kept[connection]
        )

    def reset(self, connection: C) -> None:
        """Roll back, restore, and have the user's hook do the rest; in the worker."""
        if connection.pgconn.transaction_status != IDLE:
            connection.rollback()
        for name, value in zip(KEPT, self.kept[connection], strict=True):
            if getattr(connection, name) != value:
                setattr(connection, name, value)
        if self.users_reset is not None:
            self.users_reset(connection)
            _assert_idle(connection, "reset", self.users_reset)

    def close(self, connection: C) -> None:
        """Close it, which sends what fits into the socket's buffer and waits for nothing."""
        try:
            if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self._cancel(connection)
        finally:
            connection.close()

    def _cancel(self, connection: C) -> None:
        if self.cancel_timeout == 0 or not _can_cancel():
            return
        try:
            connection.cancel_safe(timeout=self.cancel_timeout)
        except psycopg.Error:
            return  # the server has gone, or is silent: nothing can be told to it
        except BaseException as error:
            _drop_locals(error)
            raise


# --- Decisions ----------------------------------------------------------------------


def is_dirty(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether a connection cannot be made fit for another client by a rollback; no I/O."""
    pgconn = connection.pgconn
    return (
        pgconn.transaction_status not in RESETTABLE  # UNKNOWN, if it is closed
        or pgconn.pipeline_status != PipelineStatus.OFF
        or getattr(connection, "_tpc", None) is not None  # a rollback is refused then
    )


def is_broken(error: BaseException, connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the exception that ended a client's block has broken its connection; no I/O.

    A kill and a ``gevent.Timeout`` have, wherever they struck.  An ``Exception`` has if the
    server went away: the connection was lost, or the SQLSTATE is of class 08 or 57P, or it
    is 25006 and the server is a standby (after a failover, or found by an old address).  A
    connection that the server ended for its client's own fault is closed as any that is dirty.
    """
    if not isinstance(error, Exception):
        return True
    cause: BaseException | None = error
    while cause is not None:
        gone = says_gone(getattr(cause, "sqlstate", None), standby=partial(_standby, connection))
        if gone is not None:
            return gone
        cause = cause.__cause__
    return connection.broken


def cooperates() -> bool:
    """Tell whether a query lets other greenlets run: gevent had patched when psycopg came."""
    return (
        monkey.is_module_patched("select")
        and getattr(waiting, "wait_c", None) is not waiting.wait  # chosen at its import
    )


# --- Borrowing ----------------------------------------------------------------------


def transaction(
    pool: gpool.Pool[C], timeout: float | None = DEFAULT
) -> contextlib.AbstractContextManager[C]:
    """Borrow a connection for a transaction: it is committed at a normal end, else rolled back.

    The rollback is the worker's, so nobody waits for it.  A connection in autocommit mode gets a
    transaction, too; the block may commit earlier, and begins another one by its next query.

    Args:
        pool: A pool of a PsycopgResource.
        timeout: Seconds, as for :meth:`gpool.Pool.checkout`.

    Raises:
        As :meth:`gpool.Pool.checkout`; and what the commit raises: nothing was committed, unless
        the server went away just then.

    Source:
        psycopg_pool ``ConnectionPool.connection``.
    """
    return _committed(checkout(pool, timeout))


@contextlib.contextmanager
def _committed(lease: gpool.Lease[C]) -> Iterator[C]:
    with lease as connection:
        if connection.autocommit:
            connection.execute("begin")
        yield connection
        connection.commit()


# --- Details ------------------------------------------------------------------------


def _connect(kind: type[C], conninfo: Conninfo, kwargs: Kwargs) -> C:
    text = conninfo() if callable(conninfo) else conninfo
    more = kwargs() if callable(kwargs) else kwargs
    return kind.connect(text, **(more or {}))


def _assert_idle(connection: psycopg.Connection[Any], name: str, hook: object) -> None:
    status = connection.pgconn.transaction_status
    if status != IDLE:
        raise psycopg.ProgrammingError(
            f"{name}: expected {hook!r} to leave the connection without a transaction, "
            f"got {TransactionStatus(status).name}; commit at its end"
        )


def _standby(connection: psycopg.Connection[Any]) -> bool:
    return connection.pgconn.parameter_status(b"in_hot_standby") == b"on"


def _can_cancel() -> bool:
    capabilities = getattr(psycopg, "capabilities", None)  # from psycopg 3.2 on
    return capabilities is not None and capabilities.has_cancel_safe()


def _drop_locals(error: BaseException) -> None:
    """Clear the local variables of all frames that an exception and its causes have seen."""
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        one = errors.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            errors += [one.__cause__, one.__context__]


def _check_seconds(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"cancel_timeout: expected seconds, got {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"cancel_timeout: expected seconds >= 0, got {value!r}")
