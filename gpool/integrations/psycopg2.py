"""psycopg2: connections that wait by gevent, and that no client can leave behind for the next.

A pool of them; patching is not needed for it::

    import gpool
    from gpool.integrations.psycopg2 import Psycopg2Resource, transaction

    pool = gpool.Pool(Psycopg2Resource("dbname=app"), size=10, name="db")
    with transaction(pool) as connection, connection.cursor() as cursor:
        cursor.execute("insert into visits default values")  # committed at the end

``with pool.checkout() as connection`` lends a connection and does **not** commit: what is
not committed at the end of the block is rolled back.  :func:`transaction` commits.

psycopg2 waits in C, unless it is given a callback.  Making the first Psycopg2Resource, or
:func:`install`, gives it :func:`wait`, for **all** its connections in this operating system
process; a callback that is there already, as psycogreen's, stays.  With any callback
psycopg2 refuses ``copy_from``, ``copy_to``, ``copy_expert`` and large objects.

Connecting, `configure`, `check`, rolling back and closing run in the connection's worker,
under the pool's time limits.  What becomes of a connection that comes back:

* Idle: it is lent again, without a round trip.
* In a transaction, failed or not: the worker rolls it back, then it is lent again.
* Cut short in a query (psycopg2 closes it then), or closed by anybody: it is replaced,
  whatever the client swallowed to get here.
* In a two-phase transaction, or left by a kill or a ``gevent.Timeout``: it is closed.  A
  generator that is closed at a ``yield`` in the block leaves it as it is: one of the above.
* Left by an error that says that the server has gone, or is a standby now: it is closed, and
  so are the idle ones, while those that are lent are checked when they come back.

``autocommit``, the transaction's characteristics and ``cursor_factory`` are restored.  What
a client has set on the *server* stays, unless ``reset=discard_all``.  Types that were
registered for the connection stay in any case: register them in `configure`, or for a cursor.

A query that is cut short goes on in the server until it wants to send something:
``options='-c client_connection_check_interval=1s'`` has the server look for it.

Source:
    psycogreen, for the idea of the callback; psycopg2's issues 944 (it forgets
    ``connect_timeout`` then, so :func:`wait` heeds it) and 410.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import psycopg2
from gevent.socket import wait_read, wait_write
from psycopg2 import extensions
from psycopg2.extensions import connection as Connection

from gpool import clock
from gpool.integrations import _postgresql
from gpool.integrations._options import named
from gpool.integrations._postgresql import (
    IDLE,
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

CONNECTED: Final = (
    extensions.STATUS_READY, extensions.STATUS_BEGIN, extensions.STATUS_PREPARED,
)  # fmt: skip


# --- Waiting ------------------------------------------------------------------------


def install() -> None:
    """Have psycopg2 wait by gevent from now on, in this operating system process.

    Nothing is done if it has a callback already.  Connections made before do not wait by it.
    """
    if extensions.get_wait_callback() is None:
        extensions.set_wait_callback(wait)


def wait(connection: Connection) -> None:
    """Let other greenlets run until a connection has its answer; psycopg2 calls it.

    It heeds ``connect_timeout`` (for the whole of a connect, where libpq does so for each of
    several hosts).  A kill or a ``gevent.Timeout`` that strikes here leaves the connection closed.

    Raises:
        psycopg2.OperationalError: No connection within ``connect_timeout``.
    """
    seconds = _connect_timeout(connection)
    deadline = clock.now() + seconds
    while (state := connection.poll()) != extensions.POLL_OK:
        left = None if seconds == _NEVER else max(deadline - clock.now(), 0.0)
        watch = wait_read if state == extensions.POLL_READ else wait_write
        watch(connection.fileno(), left, _late(seconds))


_NEVER: Final = float("inf")


def _connect_timeout(connection: Connection) -> float:
    """Return the seconds that a connection which is not yet one may take."""
    if connection.status in CONNECTED:
        return _NEVER
    text = connection.info.dsn_parameters.get("connect_timeout", "0")
    return float(text) if text.isdecimal() and int(text) > 0 else _NEVER


def _late(seconds: float) -> Exception:
    return psycopg2.OperationalError(f"connection timeout expired: connect_timeout={seconds:g}")


# --- Hooks to choose from -----------------------------------------------------------


def check(connection: Connection) -> None:
    """Have the server answer ``select 1``, outside of a transaction: one round trip.

    Raises:
        psycopg2.Error: It is dead.
    """
    _execute_alone(connection, "select 1")


def discard_all(connection: Connection) -> None:
    """End all that a client has set up on the server, as `reset`: settings, locks, LISTEN.

    Temporary tables and prepared statements go, too, and so does what `configure` has SET:
    put that into the connection string, as ``options='-c statement_timeout=5s'``.
    """
    _execute_alone(connection, "discard all")


def _execute_alone(connection: Connection, query: str) -> None:
    autocommit = connection.autocommit
    connection.autocommit = True
    with connection.cursor(cursor_factory=extensions.cursor) as cursor:
        cursor.execute(query)
    connection.autocommit = autocommit


# --- The resource -------------------------------------------------------------------


class Psycopg2Resource(DriverResource[Connection]):
    """Connections of psycopg2, for :class:`gpool.Pool`; it installs :func:`wait`.

    Args:
        dsn: The connection string, or a callable that returns it: it is called in the
            worker before each connect, and may block (a password that changes).
        kwargs: Keyword arguments of ``psycopg2.connect``: ``cursor_factory``,
            ``connection_factory``, parameters of the connection; or a callable, likewise.
        configure: ``configure(connection)`` prepares each new connection, in the worker,
            and has to leave it without a transaction: commit, if it has begun one.
        reset: ``reset(connection)`` makes one that came back fit for the next client, in
            the worker and after the rollback, at every checkin; :func:`discard_all` is one.
            It has to leave the connection without a transaction.  None: nothing
            more than a rollback, and that only if a transaction was left.
        check: Finds out whether an idle one is alive, by raising if it is not, before one
            is lent that was idle for the pool's ``check_after`` seconds.  None: never.

    Raises:
        TypeError: An argument is wrong.
    """

    __slots__ = ()

    def __init__(
        self,
        dsn: Conninfo = "",
        *,
        kwargs: Kwargs = None,
        configure: Callable[[Connection], object] | None = None,
        reset: Callable[[Connection], object] | None = None,
        check: Callable[[Connection], object] | None = check,
    ) -> None:
        with named(conninfo="dsn"):
            check_arguments(dsn, kwargs, configure=configure, reset=reset, check=check)
        connect: Any = psycopg2.connect
        hooks = _Hooks(partial(connected, connect, dsn, kwargs), configure, reset)
        super().__init__(hooks, check, is_dirty, is_broken)
        install()


class _Hooks(Hooks[Connection]):
    """What a pool's workers do with connections of psycopg2."""

    # `autocommit` last: while it is on, the others are set on the server, too
    kept = ("isolation_level", "readonly", "deferrable", "cursor_factory", "autocommit")
    complaint = psycopg2.ProgrammingError

    def status(self, connection: Connection) -> int:
        """Return the transaction's status, as libpq knows it without I/O."""
        return connection.info.transaction_status

    def roll_back(self, connection: Connection) -> None:
        """End a transaction, also one that psycopg2 does not know of."""
        connection.rollback()
        if connection.info.transaction_status != IDLE:  # begun by hand, in autocommit mode
            _execute_alone(connection, "rollback")


# --- Decisions ----------------------------------------------------------------------


def is_dirty(connection: Connection) -> bool:
    """Tell whether a connection cannot be made fit for another client by a rollback; no I/O."""
    return (
        connection.info.transaction_status not in RESETTABLE  # UNKNOWN, if it is closed
        or connection.status not in (extensions.STATUS_READY, extensions.STATUS_BEGIN)
        or connection in KEPT
    )


def is_broken(error: BaseException, connection: Connection) -> bool:
    """Tell whether the exception that ended a client's block has broken its connection; no I/O.

    A kill and a ``gevent.Timeout`` have, wherever they struck; the end of a generator that was
    closed has not.  An ``Exception`` has if it is
    psycopg2's and the connection was lost, or its SQLSTATE is of class 08 or 57P, or it
    is 25006 and the server is a standby (after a failover, or found by an old address).
    """
    if is_cut_short(error):
        return True
    for cause in causes(error):
        if isinstance(cause, psycopg2.DatabaseError):
            gone = says_gone(cause.pgcode, is_standby=partial(_is_standby, connection))
            return bool(connection.closed) if gone is None else gone
    return False


def _is_standby(connection: Connection) -> bool:
    return not connection.closed and connection.info.parameter_status("in_hot_standby") == "on"


# --- Borrowing ----------------------------------------------------------------------

transaction = _postgresql.transaction
