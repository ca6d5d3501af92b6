"""The engine: Django's own for PostgreSQL, whose connections are borrowed.

A :class:`DatabaseWrapper` belongs to one greenlet and one alias.  It borrows when it is first
asked for a cursor, and ``close()`` gives back, where Django's own connects and disconnects.
For PostGIS, or an engine of your own, :class:`Pooled` goes before another wrapper::

    class DatabaseWrapper(Pooled, postgis.DatabaseWrapper): ...

Not here: how connections are made and reset (``pools.py``).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

import gevent
import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base as postgresql
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property

import gpool
from gpool.integrations._postgresql import KEPT, RESETTABLE
from gpool.integrations.django.pools import (
    Pools,
    borrow,
    clashes,
    is_per_greenlet,
    set_role,
)
from gpool.integrations.psycopg import is_broken

if TYPE_CHECKING:
    Wrapper = postgresql.DatabaseWrapper
else:
    Wrapper = object


class ErrorWrapper(DatabaseErrorWrapper):
    """Notes the error that broke a wrapper's connection, on its way to become Django's."""

    wrapper: Pooled

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, psycopg.Error):
            self.wrapper.note(error)
        super().__exit__(kind, error, trace)


class Pooled(Wrapper):
    """What makes a wrapper of PostgreSQL borrow its connections."""

    pools: ClassVar = Pools()
    is_template = False  # it makes connections for the pool, and never borrows one
    _lease: gpool.Lease[psycopg.Connection[Any]] | None = None  # of the connection, if borrowed
    _broken_by: psycopg.Error | None = None  # what ended the borrowed connection
    _sharer: gpool.Pid | None = None  # who lets other greenlets use this wrapper

    @property
    def pool(self) -> gpool.Pool[psycopg.Connection[Any]] | None:
        """The pool of its alias; None where the wrapper connects by itself."""
        if self.is_template or self.alias == NO_DB_ALIAS or not is_per_greenlet():
            return None
        if not gevent.get_hub().main_hub:
            return None  # in another thread than the program's: pools run in one
        return self.pools.of(self)

    # --- Borrowing ---

    def connect(self) -> None:
        """Do as Django does; why no query can ever go well is logged, too.

        Raises:
            ImproperlyConfigured: The settings are wrong, or greenlets would share connections.
        """
        try:
            super().connect()
        except ImproperlyConfigured as error:
            self.pools.report(self, error)
            raise

    def check_settings(self) -> None:
        """Refuse what contradicts a pool, as the system checks do.

        Raises:
            ImproperlyConfigured: Something does.
        """
        super().check_settings()
        for fault in clashes(self.alias, self.settings_dict):
            raise ImproperlyConfigured(f"{fault.text} {fault.remedy}")

    def get_connection_params(self) -> dict[str, Any]:
        """Return Django's, without what is ours."""
        params = super().get_connection_params()
        params.pop("gpool", None)
        return params

    def ensure_connection(self) -> None:
        """Have a connection: borrow one, also if others have given back what it had.

        That ends a transaction as Django's ``close()`` does.  One that was begun by hand is
        refused from then on, until ``close()``.
        """
        lease = self._lease
        if lease is not None and (lease.slot is None or lease.lost):
            self._part_from(lease)
        super().ensure_connection()

    def _part_from(self, lease: gpool.Lease[Any]) -> None:
        if self.in_atomic_block or self.autocommit or lease.is_the_parents:
            self.close()
        elif self.connection is not None:
            self.connection.close()  # it would commit the second half

    def get_new_connection(self, conn_params: dict[str, Any]) -> psycopg.Connection[Any]:
        """Borrow a connection; blocks until there is one, within the pool's `timeout`.

        Raises:
            OperationalError: There is none in time, or the pool refuses: its cause says why.
        """
        pool = self.pool
        if pool is None:
            connection: psycopg.Connection[Any] = super().get_new_connection(conn_params)
            return connection
        self.isolation_level = isolation_level(self.settings_dict)
        try:
            lease = borrow(pool)
            connection = lease.worker
        except gpool.GPoolError as error:
            raise psycopg.OperationalError(str(error)) from error
        if self._sharer is not None:
            with contextlib.suppress(gpool.NoProcess):  # then its borrower keeps it
                lease.transfer(self._sharer)
        lease.locate()
        KEPT.add(connection)
        self._lease, self._broken_by = lease, None
        return connection

    def inc_thread_sharing(self) -> None:
        """Let other greenlets use it; what they borrow outlives them, and not the caller."""
        super().inc_thread_sharing()
        if is_per_greenlet():
            self._sharer = gpool.self()

    def dec_thread_sharing(self) -> None:
        """End that."""
        super().dec_thread_sharing()
        if not self.allow_thread_sharing:
            self._sharer = None

    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:
        """Do as Django does, but borrow nothing for what a new connection has anyway.

        Django asks for it when a transaction has ended with its connection, as in a greenlet
        that is killed: that would wait for another one, only to die.  What was struck in its
        COMMIT is closed first: the error that it cannot change would take the place of the kill.
        """
        self.validate_no_atomic_block()
        is_over = autocommit and self.is_cut_short
        if is_over:
            self.close()
        as_always = autocommit == self.settings_dict["AUTOCOMMIT"]
        if self.connection is None and as_always and (is_over or self.pool is not None):
            self.autocommit = autocommit
        else:
            super().set_autocommit(autocommit, *args, **kwargs)

    @property
    def is_cut_short(self) -> bool:
        """Whether something has struck in the middle of a statement, or ended it; no I/O."""
        raw = self.connection
        return (
            raw is not None
            and raw.pgconn.transaction_status not in RESETTABLE
            and not raw.lock.locked()  # another greenlet, that shares it, waits for its answer
        )

    def init_connection_state(self) -> None:
        """Leave the session as it was lent; one of its own is configured by Django."""
        if self._lease is None:
            super().init_connection_state()
        else:
            super(postgresql.DatabaseWrapper, self).init_connection_state()

    def _configure_role(self, connection: psycopg.Connection[Any]) -> bool:
        role = self.settings_dict["OPTIONS"].get("assume_role")
        if not role:
            return False
        # Django's own way asks the wrapper for a cursor: it would borrow, within a worker.
        connection.execute(set_role(role))
        return True

    # --- Giving back ---

    def _close(self) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            super()._close()  # type: ignore[misc]
            return
        KEPT.discard(self.connection)
        self.connection = None
        error, self._broken_by = self._broken_by, None
        if error is None:
            lease.checkin()
        else:
            lease.__exit__(type(error), error, None)

    def note(self, error: psycopg.Error) -> None:
        """Remember that an error ended the connection, to tell the pool at the return."""
        if self._lease is not None and is_broken(error, self.connection):
            self._broken_by = type(error)(str(error))  # without its frames, and what they hold

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrorWrapper:
        """Django's, that notes what broke the connection."""
        return ErrorWrapper(self)

    def close_if_unusable_or_obsolete(self) -> None:
        """Give back what was borrowed, whatever its state: its worker sees to that."""
        if self._lease is None:
            super().close_if_unusable_or_obsolete()
        else:
            self.close()

    def close_if_health_check_failed(self) -> None:
        """Check a connection of its own; the pool lends none that is dead."""
        if self._lease is None:
            super(postgresql.DatabaseWrapper, self).close_if_health_check_failed()

    # --- Changes of the settings ---

    def close_pool(self) -> None:
        """Stop the pools of its alias; blocks until they have no connection, or 5 s."""
        if not self.is_template and self.alias != NO_DB_ALIAS:
            self.pools.close(self.alias)

    def ensure_timezone(self) -> bool:
        """Set the time zone of the connection at hand; later ones are made with it."""
        if self.connection is None:
            return False
        changed: bool = self._configure_timezone(self.connection)  # type: ignore[attr-defined]
        return changed


class DatabaseWrapper(Pooled, postgresql.DatabaseWrapper):
    """Django's wrapper of PostgreSQL, whose connections are borrowed."""


def isolation_level(settings: dict[str, Any]) -> psycopg.IsolationLevel:
    """Return the level that the settings of an alias ask for.

    Raises:
        ImproperlyConfigured: It is none.
    """
    level = settings["OPTIONS"].get("isolation_level", psycopg.IsolationLevel.READ_COMMITTED)
    try:
        return psycopg.IsolationLevel(level)
    except ValueError:
        raise ImproperlyConfigured(  # in Django's words
            f"Invalid transaction isolation level {level} specified. Use one of the "
            "psycopg.IsolationLevel values."
        ) from None
