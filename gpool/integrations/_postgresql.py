"""What the integrations of PostgreSQL's drivers have in common.

The hooks of their resources (:class:`Hooks`), what an exception means, and how a connection is
borrowed for a transaction.

Not here: anything that needs a driver (``psycopg.py``, ``psycopg2.py``).
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import gpool
from gpool.integrations._frames import drop_locals

C = TypeVar("C")

gpool.pass_over("contextlib")  # which calls `transaction`: users want the line of their ``with``

Conninfo = str | Callable[[], str]
Kwargs = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None

STATUS: Final = ("IDLE", "ACTIVE", "INTRANS", "INERROR", "UNKNOWN")  # libpq's numbers
IDLE, ACTIVE, INTRANS, INERROR = range(4)
RESETTABLE: Final = (IDLE, INTRANS, INERROR)  # by a rollback

DEFAULT: Final[Any] = object()  # the pool's own timeout
GONE: Final = ("08", "57P")  # how the SQLSTATEs of a lost connection and of a shutdown begin
OWN_FAULT: Final = ("25P03", "25P04")  # its time-outs, in a transaction: others are not concerned
READ_ONLY: Final = "25006"  # said by a standby, or by a transaction that is to be so

#: Connections that an object, or a block, is to give back itself: one that others give back, as
#: the end of a scope does, is closed and not lent again, since that object may go on with it.
KEPT: Final[WeakSet[Any]] = WeakSet()


class Hooks(Generic[C]):
    """What a pool's workers do with their connections; a subclass knows the driver.

    Args:
        connect: Makes a connection.
        configure: The user's hook for each new one, or None.
        reset: The user's hook for each one that came back, or None.
    """

    kept: tuple[str, ...]  # attributes that are the same for every client
    complaint: type[Exception]  # that a hook has left a transaction

    def __init__(
        self,
        connect: Callable[[], C],
        configure: Callable[[C], object] | None,
        reset: Callable[[C], object] | None,
    ) -> None:
        self.connect, self.configure, self.users_reset = connect, configure, reset
        self.values_of = operator.attrgetter(*self.kept)
        self.values: WeakKeyDictionary[C, tuple[Any, ...]] = WeakKeyDictionary()  # of `kept`

    def status(self, connection: C) -> int:
        """Return the transaction's status, as libpq knows it without I/O; see `STATUS`."""
        raise NotImplementedError

    def create(self) -> C:
        """Connect and configure, in the worker."""
        try:
            connection = self.connect()
        except BaseException as error:
            drop_locals(error)  # the socket is in one: a connect that was cut short has it open
            raise
        try:
            if self.configure is not None:
                self.configure(connection)
                self._assert_idle(connection, "configure", self.configure)
            self.values[connection] = self.values_of(connection)
        except BaseException:
            self.close(connection)
            raise
        return connection

    def needs_reset(self, connection: C) -> bool:
        """Whether a client has left a transaction, or changed what is to stay the same."""
        return (
            self.users_reset is not None
            or self.status(connection) != IDLE
            or self.values_of(connection) != self.values[connection]
        )

    def reset(self, connection: Any) -> None:
        """Roll back, restore, and have the user's hook do the rest; in the worker."""
        if self.status(connection) != IDLE:
            self.roll_back(connection)
        for name, value in zip(self.kept, self.values[connection], strict=True):
            if getattr(connection, name) != value:
                setattr(connection, name, value)
        if self.users_reset is not None:
            self.users_reset(connection)
            self._assert_idle(connection, "reset", self.users_reset)

    def roll_back(self, connection: Any) -> None:
        """End the transaction that a client has left."""
        connection.rollback()

    def close(self, connection: Any) -> None:
        """Close it; libpq sends what fits into the socket's buffer and waits for nothing."""
        connection.close()

    def _assert_idle(self, connection: C, name: str, hook: object) -> None:
        status = self.status(connection)
        if status != IDLE:
            raise self.complaint(
                f"{name}: expected {hook!r} to leave the connection idle, without a transaction, "
                f"got {STATUS[status]}; have it commit at its end"
            )


class DriverResource(gpool.Resource[C]):
    """Connections of a driver, as a pool's workers make, mend and close them.

    Args:
        hooks: What they do.
        check: The user's hook that finds out whether one is alive, or None.
        is_dirty: Whether one cannot be made fit for another client by a rollback.
        is_broken: Whether the exception that ended a client's block has broken one.
    """

    __slots__ = ()

    def __init__(
        self,
        hooks: Hooks[C],
        check: Callable[[C], object] | None,
        is_dirty: Callable[[C], bool],
        is_broken: Callable[[BaseException, C], bool],
    ) -> None:
        super().__init__(
            create=hooks.create, close=hooks.close, reset=hooks.reset, check=check,
            is_dirty=is_dirty, is_broken=is_broken, needs_reset=hooks.needs_reset,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # whose connection string may have a password


# --- Borrowing ----------------------------------------------------------------------


class Committing(Protocol):
    """What the connections of both drivers have."""

    autocommit: bool

    def commit(self) -> object:
        """Commit."""


D = TypeVar("D", bound=Committing)


@contextlib.contextmanager
def kept(lease: gpool.Lease[C]) -> Iterator[C]:
    """Borrow for a block that goes on to use the connection whatever happens to the lease."""
    with lease as connection:
        KEPT.add(connection)
        try:
            yield connection
        finally:
            KEPT.discard(connection)


@contextlib.contextmanager
def transaction(pool: gpool.Pool[D], timeout: float | None = DEFAULT) -> Iterator[D]:
    """Borrow a connection for a transaction: it is committed at a normal end, else rolled back.

    The rollback is the worker's, so nobody waits for it.  A connection in autocommit mode is
    taken out of it for the block.  The block may commit earlier, and begins another transaction
    by its next query.

    Args:
        pool: A pool of a PsycopgResource or a Psycopg2Resource.
        timeout: Seconds, as for :meth:`gpool.Pool.checkout`.

    Raises:
        As :meth:`gpool.Pool.checkout`; and what the commit raises: nothing was committed, unless
        the server went away just then; :class:`gpool.LeaseLost`: the connection was taken back.

    Source:
        psycopg_pool ``ConnectionPool.connection``.
    """
    lease = pool.checkout() if timeout is DEFAULT else pool.checkout(timeout)
    lease.locate()
    with kept(lease) as connection:
        autocommit = connection.autocommit
        if autocommit:
            connection.autocommit = False  # or nothing would begin another one after a commit
        yield connection
        lease.worker  # noqa: B018  # raises if it was taken back
        connection.commit()
        if autocommit:
            connection.autocommit = True


# --- Details ------------------------------------------------------------------------


def is_cut_short(error: BaseException) -> bool:
    """Tell whether an exception may strike in the middle of a query, whatever that is.

    A GeneratorExit strikes at a ``yield``.  If its consumer was cut short in a query, the
    connection itself shows that.
    """
    return not isinstance(error, Exception | GeneratorExit)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its cause, the cause of that, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def says_gone(state: str | None, *, is_standby: Callable[[], bool]) -> bool | None:
    """Tell whether a SQLSTATE means that the server is not what it was; None: it does not tell.

    Args:
        state: The SQLSTATE.
        is_standby: Tells whether the server is a standby.
    """
    if state is None:
        return None
    if state in OWN_FAULT:
        return False
    return state.startswith(GONE) or (state == READ_ONLY and is_standby()) or None


def check_arguments(conninfo: Any, kwargs: Any, **hooks: Any) -> None:
    """Raise unless a resource can be made of these."""
    if not isinstance(conninfo, str) and not callable(conninfo):
        raise TypeError(f"conninfo: expected a text or a callable, got {type(conninfo).__name__}")
    if not (kwargs is None or isinstance(kwargs, Mapping) or callable(kwargs)):
        raise TypeError(f"kwargs: expected a mapping or a callable, got {type(kwargs).__name__}")
    for name, hook in hooks.items():
        if hook is not None and not callable(hook):
            raise TypeError(f"{name}: expected a callable or None, got {hook!r}")


def connected(connect: Callable[..., C], conninfo: Conninfo, kwargs: Kwargs) -> C:
    """Return a connection made with what the arguments are now."""
    text = conninfo() if callable(conninfo) else conninfo
    more = kwargs() if callable(kwargs) else kwargs
    return connect(text, **(more or {}))
