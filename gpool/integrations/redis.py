"""A supervised connection pool for redis-py: connections that cannot be lost, or mixed up.

::

    import redis
    from gpool.integrations.redis import SupervisedPool

    pool = SupervisedPool.from_url("redis://localhost:6379/0", max_connections=10, timeout=5)
    client = redis.Redis(connection_pool=pool)

It takes the place of ``redis.BlockingConnectionPool``, with the same defaults: at most
`max_connections` (50) connections in this process, made on demand, and a client waits
`timeout` seconds (20) for one.  All else that it is told goes to gpool's pool, if that
knows the name, or to each connection.  The program has to be patched by gevent.

Rules:

* Connections are made in gpool's workers, handshake and all; clients are served in order.
* A connection comes back when its client lets it go, or is dead.  It is lent again only if
  all that was asked on it was answered and read, whatever became of the exception that got
  in between, and if nothing was left open: MULTI, WATCH, a subscription, MONITOR, another
  database.  Else it is closed, and a worker makes another one.
* One that the server has closed meanwhile is not lent: as in redis-py, its socket is looked at.
* redis-py's `Retry` goes on: a command that is tried again connects anew in its client, in
  the same slot, so the cap holds.  Cut short there, the connection is closed.
* A connection that listens belongs to the greenlet that reads from it.
* One that others give back, as the end of a :class:`gpool.Scope` does, is closed, not lent
  again: an object of redis-py may still have it, and is told so by :class:`LeaseLost`.
* An error is one of gpool's and of redis-py's at once, so both kinds of ``except`` see it.
* ``pool.supervised`` is the :class:`gpool.Pool`, with ``stats()``, ``holders()``, ``resize()`` ...

Limits: the pools that Sentinel and Cluster make are their own; ``redis.asyncio`` is not served.
A pool belongs to one thread.  A connection that was taken by hand (``get_connection``), or by a
``Monitor``, and is dropped without `release`, stays lent until its greenlet ends, or until
`max_hold` with ``on_max_hold="revoke"``.

Not here: the connections, and the errors' definitions (``_redis.py``).

Source:
    ``redis.BlockingConnectionPool``.  Other than there, a client waits in line, an idle
    connection is asked whether it is alive (`check_after`), ``close()`` makes those who
    wait fail, and redis-py's own metrics of connections are not recorded: gpool has them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from typing import Any, ClassVar, Final

import gevent
import redis
from gevent import monkey
from redis.connection import CacheProxyConnection

import gpool
from gpool import clock
from gpool.integrations._frames import warn_user
from gpool.integrations._options import named
from gpool.integrations._redis import (
    IN_REDIS,
    CheckoutDeadlock,
    CheckoutTimeout,
    LeaseLost,
    NameTaken,
    PoolClosed,
    PoolFailed,
    PoolFull,
    PoolNotReady,
    StartsFailing,
    ask,
    is_broken,
    is_dirty,
    news,
    no_reset,
    re_auth,
    supervised,
    unwrapped,
)

__all__ = [
    "CheckoutDeadlock",
    "CheckoutTimeout",
    "LeaseLost",
    "NameTaken",
    "PoolClosed",
    "PoolFailed",
    "PoolFull",
    "PoolNotReady",
    "SharedPool",
    "StartsFailing",
    "SupervisedPool",
]

_ON_BEHALF: Final = ("redis", "django.core.cache", "flask_caching", "cachelib")
gpool.pass_over(*_ON_BEHALF)

_OPTIONS: Final = frozenset({
    "check_after", "check_timeout", "debug", "fail_fast", "finish_timeout", "idle_timeout",
    "keepalive", "lazy", "max_age", "max_hold", "max_overflow", "max_restarts", "max_seconds",
    "max_start_failures", "max_starting", "max_uses", "max_waiting", "min_ready", "on_max_hold",
    "overflow_ttl", "shutdown", "size", "start_failure_window", "start_timeout", "strategy",
    "timeout",
})  # fmt: skip
_BLOCKS: Final = (
    "redis-py does not cooperate with gevent here: each command blocks all greenlets, and no "
    "timeout can cut one short; call gevent.monkey.patch_all() before anything else"
)
_TRIES: Final = 3  # closed connections that are replaced before one is lent closed
_Cached: Any = CacheProxyConnection


class SupervisedPool(redis.ConnectionPool):
    """A pool of connections that ``redis.Redis(connection_pool=...)`` takes.

    Args:
        connection_class: As in redis-py; ``from_url`` chooses it by the URL's scheme.
        max_connections: The most connections in this process; 50 if neither this nor
            `size` is given.
        size: gpool's name for it.
        timeout: Seconds that a client waits for a connection, all told; None waits for
            ever, 0 never waits, for one to be made neither: give `min_ready` then.
        lazy: Whether connections are made only when a client waits for one.
        name: Names the pool in errors and lists; unique in the process.
        options: Those of :class:`gpool.Pool`, and those of the connection class.

    Raises:
        TypeError, ValueError, redis.DataError: An argument is wrong.

    Warns:
        RuntimeWarning: gevent has not patched: each command blocks all greenlets, and no time
            limit can cut one short; at the first checkout by a greenlet that is not the
            thread's main one.
    """

    def __init__(
        self,
        connection_class: Any = redis.Connection,
        max_connections: int | None = None,
        *,
        size: int | None = None,
        timeout: float | None = 20.0,
        lazy: bool = True,
        name: str | None = None,
        **options: Any,
    ) -> None:
        if None not in (max_connections, size):
            raise ValueError(
                f"size: expected it or max_connections, got {size!r} and {max_connections!r}"
            )
        limits = {key: options.pop(key) for key in _OPTIONS & options.keys()}
        limits |= {"timeout": timeout, "lazy": lazy, "size": _first(size, max_connections, 50)}
        self._timeout = timeout
        self._may_block = True  # as far as anybody knows
        self._is_closed = False
        self._made: set[Any] = set()  # every connection that is not closed
        with named(size="size" if max_connections is None else "max_connections"):
            self.supervised: gpool.Pool[Any] = gpool.Pool(
                gpool.Resource(
                    create=self._create, close=self._close, check=ask,
                    is_dirty=is_dirty, is_broken=is_broken,
                    reset=no_reset, needs_reset=no_reset,
                ),
                name=name, **limits,
            )  # fmt: skip
        cap = limits["size"] + limits.get("max_overflow", 0)
        super().__init__(supervised(connection_class), cap, **options)
        self._try_options(connection_class)

    def _try_options(self, connection_class: Any) -> None:
        try:
            self._new_connection()  # makes no socket
        except TypeError as error:
            raise TypeError(
                f"options: expected those of {connection_class.__name__} or some of "
                f"{sorted(_OPTIONS)}, got {sorted(self.connection_kwargs)}: {error}"
            ) from error

    # --- What gpool's workers do ---

    def _new_connection(self) -> Any:
        connection = self.connection_class(**self.connection_kwargs)
        connection.gpool_pool = self.supervised.name
        if self.cache is None:
            return connection
        return _Cached(connection, self.cache, self._lock)

    def _create(self) -> Any:
        connection = self._new_connection()
        try:
            connection.connect()
            ask(connection)  # it may have been let in to be told that it is one too many
            if self._is_closed:
                raise PoolClosed(self.supervised.name)
        except BaseException:
            connection.disconnect()
            raise
        self._made.add(connection)
        return connection

    def _close(self, connection: Any) -> None:
        self._made.discard(connection)
        if connection is not unwrapped(connection):
            connection.disconnect()  # which empties the cache
        unwrapped(connection).gpool_end()

    # --- What clients do ---

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """Borrow a connection; blocks until one is free.

        Give it to :meth:`release`: one that is dropped stays lent as long as its greenlet lives,
        as redis-py's does for ever.  The clients of redis-py give back when they are dropped.

        Args:
            command_name: Not looked at; redis-py deprecates it.
            keys: Likewise.
            options: Likewise.

        Raises:
            CheckoutTimeout, PoolFull, StartsFailing, PoolClosed, PoolFailed, NameTaken,
            CheckoutDeadlock: As :meth:`gpool.Pool.checkout`, of this module.
            PoolNotReady: It was closed, and has not opened again in five seconds.
            gpool.WrongHub: The pool runs in another thread.
        """
        if self._may_block:
            self._warn_if_it_blocks()
        lease, connection = self._checkout()
        lease.locate()
        unwrapped(connection).gpool_lease = lease
        return connection

    def _warn_if_it_blocks(self) -> None:
        if gevent.getcurrent().parent is None:
            return  # the main greenlet: a command has no others to block
        self._may_block = False  # or it has been said
        if not monkey.is_module_patched("socket"):
            warn_user(f"pool {self.supervised.name!r}: {_BLOCKS}", *_ON_BEHALF)

    def _checkout(self) -> tuple[gpool.Lease[Any], Any]:
        try:
            if self._is_closed:
                self._open()
            lease = self._borrow()
            return lease, lease.worker
        except tuple(IN_REDIS) as error:
            cause, in_redis = error.__cause__, IN_REDIS[type(error)](*error.args)
        raise in_redis from cause

    def _borrow(self) -> gpool.Lease[Any]:
        """Borrow a connection that the server has not closed, as far as is known without asking it.

        redis-py's own pools look as well.  One that is found has all idle ones looked at.
        """
        until = None if self._timeout is None else clock.now() + self._timeout
        lease = self.supervised.checkout()
        for tries in itertools.count(1):
            if self._may_be_lent(lease.worker):
                break
            lease.worker.disconnect()
            left = None if until is None else until - clock.now()
            if tries > _TRIES or (left is not None and left <= 0):
                break  # as it is: redis-py connects it anew, at the first command
            error = redis.ConnectionError("the server has closed the idle connection")
            lease.__exit__(type(error), error, None)
            lease = self.supervised.checkout(left)
        return lease

    def _may_be_lent(self, connection: Any) -> bool:
        what = news(unwrapped(connection))
        if what is None:
            return True
        is_told = self.cache is not None or getattr(self, "maint_notifications_enabled", bool)()
        return bool(what == "said" and is_told)  # redis-py reads what is pushed

    def _open(self) -> None:
        self._is_closed = False  # or no connection could be made
        try:
            self.supervised.start().recycle()
        except gpool.NameTaken:  # nothing has begun
            self._is_closed = True
            raise

    def release(self, connection: Any) -> None:
        """Give a connection back; never blocks; one that is not lent is let be.

        Raises:
            gpool.WrongHub: The pool runs in another thread; nothing has changed.
        """
        inner = unwrapped(connection)
        lease = inner.gpool_lease
        if lease is None:
            return
        if inner.gpool_is_anothers:
            raise gpool.WrongHub(self.supervised)
        was_taken, inner.gpool_lease = inner.gpool_is_over, None
        inner.gpool_ended = was_taken or inner.gpool_dirty  # nobody must use what will be closed
        error = sys.exception()
        is_lost = isinstance(error, redis.ConnectionError) and inner._sock is None
        if error is not None and (is_lost or isinstance(error, gevent.GreenletExit)):
            lease.__exit__(type(error), error, None)  # an error puts others under suspicion, too
        else:
            lease.__exit__(None, None, None)  # whatever flies by: the connection says how it is

    # --- What redis-py asks of a pool ---

    def _checkpid(self) -> None:
        """Nothing: gpool notices a fork itself, and starts afresh in the child."""

    def reset(self) -> None:
        """Have all connections replaced: idle ones now, others when they come back."""
        self.pid = os.getpid()
        self.supervised.recycle()

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the idle connections, and those that are lent; never blocks.

        Args:
            inuse_connections: Whether those that are lent are closed under their clients'
                hands; else they are when they come back.

        Raises:
            gpool.WrongHub: The pool runs in another thread.
        """
        lent = self._get_in_use_connections() if inuse_connections else ()
        self.supervised.recycle()
        for connection in lent:
            connection.disconnect()

    def close(self) -> None:
        """Close all connections, and make those who wait fail; never blocks.

        Whoever asks for a connection afterwards opens it again, as in redis-py;
        ``pool.supervised.stop()`` ends it.

        Raises:
            gpool.WrongHub: The pool runs in another thread.
        """
        self._is_closed = True
        self.supervised.close(waiters="fail")
        self.disconnect()
        for connection in self._its_connections():  # what has just been made, too
            connection.disconnect()

    def set_retry(self, retry: Any) -> None:
        """Have all connections retry so from now on, new ones too."""
        self.connection_kwargs["retry"] = retry
        for connection in self._its_connections():
            connection.retry = retry
            unwrapped(connection).retry = retry

    def re_auth_callback(self, token: Any) -> None:
        """Log in anew with a token: idle connections now, others before their next command.

        Blocks until the idle ones have; one that is refused is closed.  Called from another
        thread, idle ones log in before their next command, too.  A subscription keeps its
        login until it connects anew: nobody else may read what it gets.
        """
        for connection in self._its_connections():
            connection.set_re_auth_token(token)
        if self.supervised.healthy():
            with contextlib.suppress(gpool.WrongHub):
                self.supervised.broadcast(re_auth)

    def disconnect_free_connections(self, moving_address_src: Any = None) -> None:
        """Have the connections to a server that moves replaced."""
        self.supervised.recycle()

    def _its_connections(self) -> list[Any]:
        mine = os.getpid()  # in a child, the parent's are let be
        return [one for one in self._made if unwrapped(one).pid == mine]

    def _get_free_connections(self) -> list[Any]:
        lent = self._get_in_use_connections()
        return [connection for connection in self._its_connections() if connection not in lent]

    def _get_in_use_connections(self) -> set[Any]:
        return {one for one in self._its_connections() if unwrapped(one).gpool_lease is not None}

    def get_connection_count(self) -> list[tuple[int, dict[str, Any]]]:
        """Return how many connections are idle, and how many in use, with redis-py's labels."""
        if hasattr(super(), "get_connection_count"):  # redis-py 7
            counts: list[tuple[int, dict[str, Any]]] = super().get_connection_count()
            return counts
        return [(len(self._get_free_connections()), {}), (len(self._get_in_use_connections()), {})]

    def __del__(self) -> None:
        """Nothing: gpool's workers see to the connections."""


class SharedPool(SupervisedPool):
    """One pool for one URL in a process, however often it is asked for.

    For frameworks that make a pool for each thread, which in a patched program is one for
    each greenlet, as Django's cache does: ``"pool_class":
    "gpool.integrations.redis.SharedPool"``.
    """

    _shared: ClassVar[list[tuple[Any, SharedPool]]] = []

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Any:
        """Return the pool that was made of this URL and these options, or make it.

        Raises:
            As :class:`SupervisedPool`.
        """
        key = (cls, url, options.copy())
        for known, pool in SharedPool._shared:
            if known == key:
                return pool
        pool = super().from_url(url, **options)
        SharedPool._shared.append((key, pool))
        return pool


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
