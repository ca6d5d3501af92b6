"""What SQLAlchemy's supervised pool lends: records, which workers own, and their proxies.

Not here: the pool (``sqlalchemy.py``), whose docstring says which process does what.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent import monkey
from gevent.event import Event
from sqlalchemy import exc, util
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord

import gpool
from gpool.integrations._frames import drop_locals, warn_user

if TYPE_CHECKING:
    from gpool.integrations.sqlalchemy import SupervisedPool

BUSY: Final = (1, 4)  # libpq's transaction status: a query is under way, or nobody knows
get_ident: Callable[[], int] = monkey.get_original("threading", "get_ident")


@dataclass(slots=True)
class Reset:
    """What a client asks of the worker to which it hands its connection."""

    was_reset: bool
    echo: Any
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    done: Event = field(default_factory=Event)
    error: Exception | None = None  # of a listener of `checkin`, for the client


class Connections(gpool.Resource["Record"]):
    """How to make and to end pooled connections."""

    __slots__ = ()

    def verdict(self, record: Record, error: BaseException | None) -> Any:
        """Say what is to become of one that comes back: only clean ones are lent again."""
        if error is not None and not isinstance(error, Exception):
            return "close", ("left_by", error)
        if record.lease is not None:  # others gave it back, as a scope does: its proxy has it still
            return "close", "forgotten"
        if record.is_stale:
            return "close", "invalidated"
        if record.is_dirty:
            return "close", "dirty"
        return ("clean" if record.asked is None else "reset"), None


class Record(_ConnectionRecord):
    """An entry of the pool: what a worker owns.  It refers to the pool weakly.

    Args:
        pool: Whose it is; the record connects, in the running process.
    """

    def __init__(self, pool: SupervisedPool) -> None:
        self.owner = weakref.ref(pool)
        self.dialect = pool._dialect
        self.thread = get_ident()  # the pool's
        self.lease: gpool.Lease[Record] | None = None  # of whoever has it ...
        self.keeps: SupervisedPool | None = None  # ... until it is idle again, or closed
        self.asked: Reset | None = None  # by the client that has handed it over
        self.left_open: Any = None  # a connection that is not the record's any more
        self.forgotten = ""  # the line of the checkout that was never followed by a close
        self.cancel_timeout = pool._given["cancel_timeout"]
        if pool._entries:
            self.__dict__["record_info"] = pool._entries.popleft()
        try:
            super().__init__(weakref.proxy(pool))
        except BaseException as error:
            if self.dbapi_connection is not None:  # a listener has failed
                with contextlib.suppress(Exception):
                    self.dialect.do_terminate(self.dbapi_connection)
            drop_locals(error)  # the socket of a connect that was cut short is in one
            raise

    @property
    def is_stale(self) -> bool:
        """Whether it was invalidated, be it softly."""
        return self.dbapi_connection is None or self._soft_invalidate_time > self.starttime

    @property
    def is_dirty(self) -> bool:
        """Whether its driver says that it is busy, or closed; without I/O."""
        assert self.dbapi_connection is not None
        return _is_dirty(self.dialect.get_driver_connection(self.dbapi_connection))

    def is_held_by(self, fairy: Fairy) -> bool:
        """Tell whether a client still has it; else it was closed, or is a parent process's."""
        lease, ref = self.lease, self.fairy_ref
        if lease is None or lease.is_the_parents:
            return False
        return ref is not None and ref() is fairy

    @property
    def is_anothers(self) -> bool:
        """Whether it is lent by a pool of another thread than this one."""
        lease = self.lease
        return self.thread != get_ident() and lease is not None and not lease.is_the_parents

    def __repr__(self) -> str:
        return f"<pooled {self.dbapi_connection!r}>"

    # --- In a client, or in the worker ---

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Tell the listeners; what is to be closed is left to the worker."""
        pool, connection = self.owner(), self.dbapi_connection
        if soft or connection is None or pool is None:
            return super().invalidate(e, soft)
        self.left_open = connection
        pool._left_open.add(id(connection))
        try:
            super().invalidate(e)
        finally:
            pool._left_open.discard(id(connection))
            self.dbapi_connection = None  # also if a listener has failed

    def checkin(self, _fairy_was_created: bool = True) -> None:
        """Tell the listeners, and give it back; if one of them fails it is discarded."""
        try:
            super().checkin(_fairy_was_created)
        except BaseException:
            self.give_up("checkin_failed")
            raise

    def give_up(self, reason: str) -> None:
        """Give it back to be closed; never blocks."""
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.discard(reason)

    def reclaim(self) -> None:
        """Give back what a client has dropped; in the pool's hub."""
        if self.lease is not None:
            self.forgotten = self.lease.line
            self.give_up("forgotten")

    # --- In the worker ---

    def ping(self) -> bool:
        """Tell whether the server answers."""
        if self.dialect._do_ping_w_event(self.dbapi_connection):  # type: ignore[arg-type]
            return True
        self.invalidate(exc.InvalidatePoolError())
        return False

    def reset(self) -> None:
        """Do what its last client has asked for."""
        asked, self.asked = self.asked, None
        assert asked is not None
        try:
            asked.context.run(self._reset, asked)
        finally:
            asked.done.set()

    def _reset(self, asked: Reset) -> None:
        pool = self.owner()
        assert pool is not None
        assert self.dbapi_connection is not None
        fairy = Fairy(pool, self.dbapi_connection, self, asked.echo)
        fairy._finalizer.detach()
        try:
            fairy._reset(pool, asked.was_reset, terminate_only=False, asyncio_safe=True)
        except Exception as error:
            pool.logger.error("Exception during reset or similar", exc_info=True)
            self.invalidate(error)
            raise
        finally:
            self._tell_checkin(asked)
        self.keeps = None

    def _tell_checkin(self, asked: Reset) -> None:
        try:
            self.checkin()
        except Exception as error:
            asked.error = error
            raise

    def end(self) -> None:
        """Close what is open; if that is cut short, it can be done again."""
        try:
            self._take_leave()
        finally:
            self._end()
        if self.forgotten:
            self._warn()
        self.keeps = None

    def _take_leave(self) -> None:
        """Do what its last client has asked for, though it goes: it may be a commit."""
        if self.asked is not None and self.dbapi_connection is not None and not self.is_dirty:
            with contextlib.suppress(Exception):  # it is told
                self.reset()
        elif self.asked is not None:
            self.asked.done.set()
            self.asked = None
        if self.in_use:  # its client is dead, or left it in a way that nobody may trust
            self.checkin()

    def _end(self) -> None:
        connection = self.dbapi_connection if self.left_open is None else self.left_open
        self.left_open = connection
        if connection is not None:
            try:
                cancel(self.dialect, connection, self.cancel_timeout)
            finally:
                self._close(connection)
            self.left_open = None

    def _close(self, connection: Any) -> None:
        pool = self.owner()
        if pool is None:  # nobody has the engine any more
            self.dialect.do_close(connection)
        elif self.dbapi_connection is None:
            pool._close_connection(connection, terminate=True)
        else:
            try:
                self.close()
            except Exception:  # a listener's: it is still open
                pool._close_connection(connection, terminate=True)
                raise

    def _warn(self) -> None:
        message = (
            f"The connection that was checked out at {self.forgotten} was never closed; it was "
            "found by the garbage collector, and is closed now. Call close(), or use `with`."
        )
        pool = self.owner()
        if pool is not None:
            pool.logger.error(message)
        util.warn(message)


class Fairy(_ConnectionFairy):
    """What a client has: a proxy of its connection, which gives it back."""

    _pool: SupervisedPool
    _connection_record: Record | None
    _finalizer: Any

    def __init__(self, pool: SupervisedPool, connection: Any, record: Record, echo: Any) -> None:
        super().__init__(pool, connection, record, echo)
        if hasattr(self, "_finalizer"):  # SQLAlchemy 2.1's, which would reset it then and there
            self._finalizer.detach()
        self._finalizer = weakref.finalize(self, pool._finalisers.forgotten, record)
        self._finalizer.atexit = False

    def _checkin(self, transaction_was_reset: bool = False) -> None:
        self._assert_here()
        record, pool = self._connection_record, self._pool
        self._finalizer.detach()
        if record is None:  # it is detached
            super()._checkin(transaction_was_reset)
        elif not record.is_held_by(self):
            self._part()
            record.give_up("lost")
        elif self.dbapi_connection is None or not pool._has_to_reset(transaction_was_reset):
            super()._checkin(transaction_was_reset)
        else:
            self._hand_over(record, transaction_was_reset)

    def _assert_here(self) -> None:
        """Raise WrongHub in a thread that cannot give it back, before anything has changed."""
        record = self._connection_record
        if record is not None and record.is_anothers:
            self._counter = 1  # `close` has counted already: its owner's has to do something
            raise gpool.WrongHub(self._pool.supervised)

    def _part(self) -> None:
        self.dbapi_connection = self._connection_record = None  # type: ignore[assignment]

    def _hand_over(self, record: Record, was_reset: bool) -> None:
        """Have the worker reset it; blocks until it has."""
        lease, record.lease = record.lease, None
        assert lease is not None
        asked = Reset(was_reset, self._echo)
        self._part()
        if isinstance(sys.exception() or Exception(), Exception):
            record.asked = asked
        else:  # the client is being killed: who knows what it has left undone
            asked.done.set()
        lease.checkin()
        if gevent.getcurrent() is not gevent.get_hub():
            asked.done.wait()
        if asked.error is not None:
            raise asked.error

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Tell the listeners, and give it back to be closed."""
        self._assert_here()
        super().invalidate(e, soft)

    def detach(self) -> None:
        """Keep it for good; its slot is given back."""
        self._assert_here()
        self._finalizer.detach()
        super().detach()


class Finalisers:
    """What finalisers do for one of gpool's pools; they must neither block nor switch.

    They run in whatever greenlet and thread; what is to be done is done in the pool's hub.
    """

    def __init__(self) -> None:
        self.hub: Any = None  # the pool's, once it is used

    def forgotten(self, record: Record) -> None:
        """A client has dropped a connection that it has not given back."""
        self.later(record.reclaim)

    def later(self, fn: Callable[..., object], *args: Any) -> None:
        """Have something done in the hub."""
        if self.hub is not None and self.hub.loop is not None:
            self.hub.loop.run_callback_threadsafe(fn, *args)

    def abandoned(self, pool: gpool.Pool[Record]) -> None:
        """Nobody has the engine any more."""
        self.later(gevent.spawn, pool.stop)


@dataclass(frozen=True, slots=True)
class Creator:
    """Makes entries of a pool, in its workers."""

    owner: weakref.ref[SupervisedPool]

    def __call__(self) -> Record:
        pool = self.owner()
        if pool is None:
            raise ReferenceError("the engine is gone")
        first = pool._first
        if first is None:
            return Record(pool)
        with first:
            record = Record(pool)
        pool._first = None
        return record


def _is_dirty(connection: Any) -> bool:
    """Tell whether a driver says that a connection is busy or closed; without I/O."""
    status = getattr(getattr(connection, "info", None), "transaction_status", None)
    closed, is_open = getattr(connection, "closed", None), getattr(connection, "open", None)
    return status in BUSY or (isinstance(closed, int) and closed != 0) or is_open is False


# --- Drivers ------------------------------------------------------------------------


def cancel(dialect: Any, connection: Any, timeout: float) -> None:
    """Have the server cancel a query that was cut short, if the driver can: psycopg."""
    if getattr(dialect, "driver", None) == "psycopg":
        from gpool.integrations import psycopg  # not everybody has it

        psycopg.cancel(dialect.get_driver_connection(connection), timeout)


def warn_if_it_blocks(dialect: Any) -> None:
    """Warn of a driver that is known to cooperate with gevent, and does not here."""
    driver = getattr(dialect, "driver", None)
    if driver == "psycopg2" and _has_no_callback():
        why = "psycopg2 has no wait callback"
        remedy = "call gpool.integrations.psycopg2.install()"
    elif driver == "psycopg" and not _psycopg_cooperates():
        why = "psycopg does not cooperate with gevent here"
        remedy = "call gevent.monkey.patch_all() before psycopg is imported"
    else:
        return
    message = f"{why}: each query blocks all greenlets, and no timeout can cut one short; {remedy}"
    warn_user(message, "sqlalchemy", "flask_sqlalchemy")


def _has_no_callback() -> bool:
    extensions = sys.modules.get("psycopg2.extensions")
    return extensions is not None and extensions.get_wait_callback() is None


def _psycopg_cooperates() -> bool:
    from gpool.integrations import psycopg  # not everybody has it

    return psycopg.cooperates()
