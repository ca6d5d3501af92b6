"""SQLAlchemy: engines whose connections a supervised pool has.

    >>> import gpool.integrations.sqlalchemy
    >>> from sqlalchemy import create_engine, text
    >>> engine = create_engine(
    ...     "sqlite://", poolclass=gpool.integrations.sqlalchemy.SupervisedPool, pool_size=2
    ... )
    >>> with engine.connect() as connection:
    ...     connection.scalar(text("select 42"))
    42
    >>> engine.dispose()

What ``create_engine`` calls ``pool_size``, ``max_overflow``, ``pool_timeout`` and so on is
what it is with ``QueuePool``; options of gpool stand beside them: ``max_hold=60``.  The
pool's name, in lists, metrics and the Observer, is ``pool_logging_name``.

Which process does what:

* A worker connects, with the events ``do_connect``, ``connect`` and ``first_connect`` and the
  dialect's initialisation; it pings, and it closes.  No client that is killed interrupts that.
* The event ``checkout`` runs in the client, whose context it is about.
* A connection whose transaction is over is given back by its client: there is nothing to do
  but for the event ``checkin``.  One that needs a reset (``raw_connection()``, a listener of
  ``reset``, ``reset_on_return="commit"``) is handed to its worker, which runs ``reset``, the
  rollback and ``checkin`` in the client's context variables, while ``close()`` waits.  A client
  that is killed meanwhile does not interrupt it.
* ``rollback()`` and ``commit()`` of a ``Connection`` or ``Session`` are SQLAlchemy's own, in the
  client.  If that is killed in one of them, the connection is closed and never lent.
* ``invalidate()`` tells the events ``invalidate`` and ``close`` at once; the close itself is the
  worker's.

A connection is discarded if its ``with`` was left by a kill or a ``gevent.Timeout``; if its
client is dead, or has dropped it without ``close()`` (then there is a warning); and if
its driver tells that a query is still under way, because somebody has swallowed a timeout
(psycopg, psycopg2), or that it is closed.  A finaliser does nothing but leave a note.

Limits: a pool belongs to one thread, and a connection to the greenlet that has taken it: at
that one's end it is reclaimed.  In another thread ``close()`` raises ``WrongHub`` and leaves it
to the owner (a ``Connection`` of SQLAlchemy 2.1 drops it: it is forgotten, thus reclaimed).
Asyncio engines are refused.

Not here: what is lent (``_sqlalchemy.py``).

Source:
    SQLAlchemy's ``QueuePool``, ``_ConnectionFairy`` and ``_ConnectionRecord``.  In addition
    one deadline, `pool_timeout`, holds for the queue, the connect and the ping together.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import weakref
from collections import deque
from typing import Any, Final

import gevent
from gevent import monkey
from gevent.lock import Semaphore
from sqlalchemy import exc
from sqlalchemy.pool import Pool, PoolProxiedConnection
from sqlalchemy.pool.base import (
    ConnectionPoolEntry,
    reset_commit,
    reset_rollback,
)

import gpool
from gpool import clock
from gpool.integrations._options import check_seconds, named
from gpool.integrations._sqlalchemy import (
    Connections,
    Creator,
    Fairy,
    Finalisers,
    Record,
    warn_if_it_blocks,
)

gpool.pass_over("sqlalchemy", "flask_sqlalchemy")

ATTEMPTS: Final = 2  # connections that listeners of `checkout` may refuse, one after the other
_numbers = itertools.count(1)


class SupervisedPool(Pool):
    """A pool for ``create_engine(url, poolclass=SupervisedPool, ...)``.

    Its arguments are named here as ``create_engine`` hands them on: ``pool_timeout`` becomes
    `timeout`, and ``pool_use_lifo``, ``pool_recycle``, ``pool_pre_ping``,
    ``pool_reset_on_return``, ``pool_logging_name`` and ``echo_pool`` likewise; all others keep
    their names.  What is not explained here is one of the options of :class:`gpool.Pool`.

    Args:
        creator: What makes a connection; ``create_engine`` gives it.
        pool_size: Connections that are kept; they are made on demand.
        max_overflow: More of them on demand; each goes when it was idle for `overflow_ttl`.
        timeout: Seconds that a client waits for a connection, all told; None: for ever,
            0: it waits for no other client, but for a connect.
        use_lifo: Whether the connection used last is lent first, not last.
        overflow_ttl: See :class:`gpool.Pool`, as for all that follow.
        min_ready: Connections that are made without demand, once the pool is used.
        max_waiting: Clients that may wait for others; one more gets a ``TimeoutError``.
        fail_fast: Whether clients get the error at once, instead of waiting, while no
            connection is up and connects fail.
        max_hold: Seconds; see `on_max_hold`.
        on_max_hold: "warn" or "revoke".
        max_uses: Checkouts after which a connection is replaced.
        idle_timeout: Seconds after which an idle connection is closed.
        check_after: With `pre_ping`, seconds for which a connection is trusted after its
            last use.
        keepalive: With `pre_ping`, seconds after which an idle connection is pinged.
        max_starting: Connects at once.
        start_timeout: Seconds for a connect and its events.
        check_timeout: Seconds for a ping.
        finish_timeout: Seconds for a reset by the worker.
        shutdown: Seconds for a close.
        cancel_timeout: Seconds of a close that it may take to have the server cancel a query
            that was cut short; 0: it is not cancelled.  psycopg 3.2 can, with libpq 17.
        kw: `recycle`, `pre_ping`, `reset_on_return`, `logging_name`, `echo`, `events` and
            `dialect`, as of any pool of SQLAlchemy.  `recycle` is the ``max_age`` of gpool:
            up to a tenth less, and with -1 none; with 0 each connection serves one checkout.

    Raises:
        TypeError, ValueError: An argument is wrong.  A pool without limit cannot be had:
            neither ``pool_size=0`` nor ``max_overflow=-1``.
    """

    _sqla_logger_namespace = "sqlalchemy.pool.impl.SupervisedPool"
    _is_asyncio = False

    # Not keyword-only: create_engine looks for names that may come by position.
    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = False,
        overflow_ttl: float | None = 5.0,
        min_ready: int | None = None,
        max_waiting: int | None = None,
        fail_fast: bool = False,
        max_hold: float | None = None,
        on_max_hold: str = "warn",
        max_uses: int | None = None,
        idle_timeout: float | None = None,
        check_after: float | None = 0.0,
        keepalive: float | None = None,
        max_starting: int | None = 10,
        start_timeout: float | None = 30.0,
        check_timeout: float | None = 2.0,
        finish_timeout: float | None = 5.0,
        shutdown: float | None = 5.0,
        cancel_timeout: float = 1.0,
        **kw: Any,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in ("self", "creator", "kw")}
        Pool.__init__(self, creator, **kw)
        self._given = given
        self._options = _options(given, self._recycle, self._pre_ping)
        self._patience = self._options["timeout"]
        self._entries: deque[Any] = deque()  # `record_info` of connections that were replaced
        self._left_open: set[int] = set()  # ids of connections that a worker is to close
        self._was_warned = False  # of a driver that blocks the hub
        # The lock that SQLAlchemy has around the first connect blocks the thread if not patched.
        self._first = None if monkey.is_module_patched("threading") else Semaphore()
        kind = getattr(self._dialect, "name", "sqlalchemy")
        self._name = self._orig_logging_name or f"{kind}-{next(_numbers)}"
        self._end: weakref.finalize[..., Any] | None = None
        self._supervise(self._name)

    def _supervise(self, name: str) -> None:
        """Have a pool of gpool's, which starts at its first use."""
        if self._end is not None:
            self._end.detach()
        connections = Connections(
            create=Creator(weakref.ref(self)),
            check=Record.ping if self._pre_ping else None,
            reset=Record.reset,
            close=Record.end,
        )
        with named(
            size="pool_size", timeout="pool_timeout", max_age="pool_recycle",
            name="pool_logging_name",
        ):  # fmt: skip
            self.supervised: gpool.Pool[Record] = gpool.Pool(
                connections, name=name, **self._options
            )
        self._finalisers = Finalisers()  # its own: the next pool may be another thread's
        self._end = weakref.finalize(self, self._finalisers.abandoned, self.supervised)
        self._end.atexit = False

    # --- Borrowing ---

    def connect(self) -> PoolProxiedConnection:
        """Return a connection; blocks until there is one.

        Raises:
            sqlalchemy.exc.TimeoutError: None came in time, or too many wait.
            sqlalchemy.exc.InvalidRequestError: Listeners of `checkout` refused what there was.
            gpool.GPoolError: The pool has failed, or it runs in another thread.
            Whatever the creator or the driver raises, if that is why none came in time.

        Warns:
            RuntimeWarning: The driver, psycopg or psycopg2, does not cooperate with gevent
                here; at the first connect by a greenlet that is not the thread's main one.
        """
        # Who is alone, as a command is, has no others to block.
        if not self._was_warned and gevent.getcurrent().parent is not None:
            self._was_warned = True
            warn_if_it_blocks(self._dialect)
        end = self._deadline()
        for _ in range(ATTEMPTS):
            fairy = self._lend(self._take(end))
            if self._is_taken(fairy):
                return fairy
        self.logger.info("Reconnection attempts exhausted on checkout")
        raise exc.InvalidRequestError("This connection is closed")

    def _take(self, end: float | None) -> Record:
        pool, finalisers = self.supervised, self._finalisers
        try:
            lease = pool.checkout(None if end is None else max(end - clock.now(), 0.0))
        except gpool.NameTaken:  # another engine has it: nobody has promised a name to each
            self._supervise(_free_name(self._name))
            return self._take(end)
        except gpool.PoolClosed:
            if pool is self.supervised:
                raise
            return self._take(end)  # it was disposed of meanwhile
        except (gpool.CheckoutTimeout, gpool.PoolFull, gpool.StartsFailing) as error:
            raise _as_users_know_it(error) from error
        lease.locate()
        finalisers.hub = gevent.get_hub()
        record = lease.worker
        record.lease, record.keeps = lease, self
        return record

    def _lend(self, record: Record) -> Fairy:
        echo = self._should_log_debug()
        fairy = Fairy(self, record.dbapi_connection, record, echo)
        fairy._counter = 1
        record.fairy_ref = weakref.ref(fairy)
        record.fresh = False
        if echo:
            self.logger.debug("Connection %r checked out from pool", record.dbapi_connection)
        return fairy

    def _is_taken(self, fairy: Fairy) -> bool:
        """Tell whether no listener of `checkout` refuses it."""
        record = fairy._connection_record
        assert record is not None
        try:
            self.dispatch.checkout(fairy.dbapi_connection, record, fairy)
        except exc.DisconnectionError as error:
            self._refuse(fairy, record, error)
            return False
        except BaseException as error:
            record._checkin_failed(error)
            fairy._finalizer.detach()  # not before: a listener may fail
            raise
        return True

    def _refuse(self, fairy: Fairy, record: Record, error: exc.DisconnectionError) -> None:
        self.logger.info("Disconnection detected on checkout (reason: %r)", error)
        record.invalidate(error)
        if error.invalidate_pool:
            self._invalidate(fairy, error, _checkin=False)
        fairy._finalizer.detach()
        fairy._part()
        record.fairy_ref = None
        self._do_return_conn(record)

    def _deadline(self) -> float | None:
        return None if self._patience is None else clock.now() + self._patience

    # --- Giving back ---

    def _has_to_reset(self, was_reset: bool) -> bool:
        """Tell whether there is more to do than to tell the listeners of `checkin`."""
        style = self._reset_on_return
        needs_it = style is reset_commit or (style is reset_rollback and not was_reset)
        return needs_it or bool(self.dispatch.reset)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        assert isinstance(record, Record)
        if record.dbapi_connection is None:
            if record.record_info:
                self._entries.append(record.record_info)
            record.give_up("invalidated")
        elif record.lease is not None:
            lease, record.lease, record.keeps = record.lease, None, None
            lease.checkin()

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        if id(connection) not in self._left_open:
            super()._close_connection(connection, terminate=terminate)

    def _invalidate(
        self,
        connection: PoolProxiedConnection,
        exception: BaseException | None = None,
        _checkin: bool = True,
    ) -> None:
        record = getattr(connection, "_connection_record", None)
        if isinstance(connection, Fairy) and record and not record.is_held_by(connection):
            connection._part()  # it was taken away, and closed: that tells nothing of the others
            return
        before = self._invalidate_time
        super()._invalidate(connection, exception, _checkin)
        if self._invalidate_time != before:
            self.supervised.recycle()

    # --- Life ---

    def recreate(self) -> SupervisedPool:
        """Return a pool of the same class, arguments, listeners and name, not started."""
        self.logger.info("Pool recreating")
        pool = self.__class__(
            self._creator,
            **self._given,
            recycle=self._recycle,
            pre_ping=self._pre_ping,
            reset_on_return=self._reset_on_return,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            dialect=self._dialect,
            _dispatch=self.dispatch,
        )
        pool._name = self._name
        pool._supervise(self._name)
        return pool

    def dispose(self) -> None:
        """Close what is idle; blocks until that is so.  What is lent is closed when it comes back.

        In a forked child nothing of the parent's is closed.  The pool can be used again.
        """
        disposed = self.supervised
        self._supervise(self._name)
        disposed.stop()
        self.logger.info("Pool disposed. %s", self.status())

    # --- Looking ---

    def status(self) -> str:
        """Return the pool at a glance, in words."""
        return (
            f"Pool size: {self.size()}  Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} Current Checked out "
            f"connections: {self.checkedout()}"
        )

    def size(self) -> int:
        """Return how many connections are kept."""
        return self.supervised.stats().size

    def timeout(self) -> float | None:
        """Return how many seconds a client waits; None: for ever."""
        timeout: float | None = self._given["timeout"]
        return timeout

    def checkedin(self) -> int:
        """Return how many connections are idle."""
        return self.supervised.stats().idle

    def checkedout(self) -> int:
        """Return how many connections clients have."""
        stats = self.supervised.stats()
        return stats.busy + stats.lost

    def overflow(self) -> int:
        """Return how many there are above `pool_size`; negative: so many could be added."""
        stats = self.supervised.stats()
        return stats.idle + stats.busy + stats.lost - stats.size


def _options(given: dict[str, Any], recycle: Any, pre_ping: bool) -> dict[str, Any]:
    """Return the options of gpool's pool."""
    if given["pool_size"] == 0:
        raise ValueError("pool_size: expected 1 or more, since a pool needs a limit, got 0")
    if given["max_overflow"] == -1:
        raise ValueError("max_overflow: expected 0 or more, since a pool needs a limit, got -1")
    if isinstance(recycle, bool) or not isinstance(recycle, int | float):
        raise TypeError(f"pool_recycle: expected seconds, or -1 for never, got {recycle!r}")
    for name, default in (("check_after", 0.0), ("keepalive", None)):
        if not pre_ping and given[name] != default:
            raise ValueError(f"{name}: expected pool_pre_ping=True beside it, got {given[name]!r}")
    check_seconds("cancel_timeout", given["cancel_timeout"])
    options = dict(given, size=given["pool_size"], lazy=True)
    options["strategy"] = "lifo" if given["use_lifo"] else "fifo"
    if given["timeout"] == 0:
        options |= {"timeout": given["start_timeout"], "max_waiting": 0}
    if recycle > 0:
        options["max_age"] = recycle
    elif recycle == 0:
        options["max_uses"] = 1
    del options["pool_size"], options["use_lifo"], options["cancel_timeout"]
    return options


def _free_name(name: str) -> str:
    taken = {pool.name for pool in gpool.running_pools()}
    return next(one for n in itertools.count(2) if (one := f"{name}-{n}") not in taken)


def _as_users_know_it(error: gpool.GPoolError) -> Exception:
    """Return the error of the driver, if starts fail, else SQLAlchemy's for a time-out."""
    why = error.__cause__
    if not isinstance(why, Exception):
        return exc.TimeoutError(str(error), code="3o7r")
    with contextlib.suppress(Exception):
        return copy.copy(why)  # each client its own, which knows the client's frames
    return why
