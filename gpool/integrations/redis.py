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
* redis-py's `Retry` goes on: a command that is tried again connects anew in its client, in
  the same slot, so the cap holds.  Cut short there, the connection is closed.
* A connection that listens belongs to the greenlet that reads from it.
* An error is one of gpool's and of redis-py's at once, so both kinds of ``except`` see it.
* ``pool.pool`` is the :class:`gpool.Pool`, with ``stats()``, ``holders()``, ``resize()`` ...

Not here: Sentinel and Cluster, which make pools of their own; ``redis.asyncio``.

Source:
    ``redis.BlockingConnectionPool``.  Other than there, a client waits in line, an idle
    connection is asked whether it is alive (`check_after`), ``close()`` makes those who
    wait fail, and redis-py's own metrics of connections are not recorded: gpool has them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterable
from typing import Any, ClassVar, Final

import gevent
import redis
from redis.connection import AbstractConnection, CacheProxyConnection
from redis.exceptions import (
    ConnectionError,  # noqa: A004  # that of redis-py
    MaxConnectionsError,
    RedisError,
    ResponseError,
)

import gpool

__all__ = [
    "CheckoutDeadlock",
    "CheckoutTimeout",
    "LeaseLost",
    "PoolClosed",
    "PoolFailed",
    "PoolFull",
    "SharedPool",
    "StartsFailing",
    "SupervisedPool",
]

_OPTIONS: Final = frozenset({
    "check_after", "check_timeout", "debug", "fail_fast", "finish_timeout", "idle_timeout",
    "keepalive", "lazy", "max_age", "max_hold", "max_overflow", "max_restarts", "max_seconds",
    "max_start_failures", "max_starting", "max_uses", "max_waiting", "min_ready", "on_max_hold",
    "overflow_ttl", "shutdown", "size", "start_failure_window", "start_timeout", "strategy",
    "timeout",
})  # fmt: skip

# --- Errors -------------------------------------------------------------------------


class CheckoutTimeout(gpool.CheckoutTimeout, MaxConnectionsError):
    """No connection in time: gpool's facts, and a ``redis.ConnectionError``."""


class PoolFull(gpool.PoolFull, MaxConnectionsError):
    """As many clients wait as may: gpool's facts, and a ``redis.ConnectionError``."""


class StartsFailing(gpool.StartsFailing, ConnectionError):
    """No connection is up and none can be made, with `fail_fast`; the cause says why."""


class PoolClosed(gpool.PoolClosed, ConnectionError):
    """The pool is stopping or was stopped; a ``redis.ConnectionError``, too."""


class PoolFailed(gpool.PoolFailed, ConnectionError):
    """The pool fell too often, and will be revived; a ``redis.ConnectionError``, too."""


class CheckoutDeadlock(gpool.CheckoutDeadlock, ConnectionError):
    """It would wait for ever for who waits as well; a ``redis.ConnectionError``, too."""


class LeaseLost(gpool.LeaseLost, RedisError):
    """The connection was taken back; no ``redis.ConnectionError``, which would be retried."""


_IN_REDIS: Final[dict[type[Exception], Any]] = {
    gpool.CheckoutTimeout: CheckoutTimeout,
    gpool.PoolFull: PoolFull,
    gpool.StartsFailing: StartsFailing,
    gpool.PoolClosed: PoolClosed,
    gpool.PoolFailed: PoolFailed,
    gpool.CheckoutDeadlock: CheckoutDeadlock,
    gpool.LeaseLost: LeaseLost,
}
_OURS: Final = tuple(_IN_REDIS)

# --- Connections --------------------------------------------------------------------

_LISTENS: Final = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"})
#: What leaves a connection in a state that its next client must not find.
_OPENS: Final = _LISTENS | {"MULTI", "WATCH", "MONITOR", "RESET"}
_ENDS: Final = {"EXEC": {"MULTI", "WATCH"}, "DISCARD": {"MULTI", "WATCH"}, "UNWATCH": {"WATCH"}}


_Connection: Any = AbstractConnection  # few of its methods have annotations
_Cached: Any = CacheProxyConnection


class _Packed(list[Any]):
    """What goes over the wire, and which commands it is."""

    commands: tuple[tuple[Any, ...], ...] = ()


class _Packer:
    """A packer of redis-py's that notes what it has packed."""

    def __init__(self, packer: Any) -> None:
        self.packer = packer

    def pack(self, *args: Any) -> _Packed:
        packed = _Packed(self.packer.pack(*args))
        packed.commands = (args,)
        return packed


class _Supervised(_Connection):  # type: ignore[misc]
    """A connection that knows what it has not been answered, and what was left open on it.

    Mixed into the class of connections that the user wants.
    """

    gpool_lease: gpool.Lease[Any] | None = None  # while it is lent
    gpool_pool = ""  # the name of its pool
    gpool_pending = 0  # commands that were sent, less the replies that were read
    gpool_ended = False  # closed for good: whoever still has it must not connect it anew
    gpool_logs_in = False  # by itself: it connects, or has a new token
    gpool_unsent = False  # a stranger has just logged it in: he is told that he has

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.gpool_open: set[str] = set()  # words of what was begun and not ended
        super().__init__(*args, **kwargs)

    @property
    def gpool_dirty(self) -> bool:
        """Whether it must not be lent again."""
        return (
            self._sock is None
            or self.gpool_pending != 0
            or bool(self.gpool_open)
            or bool(getattr(self, "should_reconnect", bool)())  # since redis-py 7
        )

    def gpool_end(self) -> None:
        """Close it for good; never blocks."""
        self.gpool_ended = True
        self.disconnect()

    # --- What redis-py calls ---

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        """Connect it, if it is not; cut short, it is not connected."""
        if self.gpool_ended:
            raise LeaseLost(self.gpool_pool, self.gpool_lease or self)
        if self._sock is not None:
            return
        self.gpool_logs_in = True
        try:
            super().connect_check_health(*args, **kwargs)
        except BaseException:
            self.disconnect()  # logged in, or in its database, or not yet
            raise
        finally:
            self.gpool_logs_in = False

    def re_auth(self) -> None:
        """Log in with its new token, if it has one."""
        self.gpool_logs_in = True
        try:
            super().re_auth()
        finally:
            self.gpool_logs_in = False

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        super().disconnect(*args, **kwargs)
        self.gpool_pending = 0
        self.gpool_open.clear()
        self._re_auth_token: Any = None  # it will ask for the newest when it connects

    def _construct_command_packer(self, packer: Any) -> _Packer:
        return _Packer(super()._construct_command_packer(packer))

    def pack_commands(self, commands: Iterable[tuple[Any, ...]]) -> _Packed:
        commands = tuple(commands)
        packed = _Packed(super().pack_commands(commands))
        packed.commands = commands
        return packed

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        if args[0] == "AUTH" and not self.gpool_logs_in and not self._gpool_is_mine:
            # redis/event.py sends every token to what was a subscription's, or a client's of
            # one connection, also when others have it; the pool has noted it for the next use.
            self.gpool_unsent = True
            return
        super().send_command(*args, **kwargs)

    @property
    def _gpool_is_mine(self) -> bool:
        lease = self.gpool_lease
        return lease is not None and not lease.lost and lease.holder().pid is gpool.self()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if self._re_auth_token is not None and self._gpool_is_quiet:
            self.re_auth()
        super().send_packed_command(command, check_health)
        # What was cut short until here has been disconnected by redis-py.
        if not isinstance(command, _Packed):
            self.gpool_open.add("unknown")  # packed elsewhere: how many are they?
            return
        self.gpool_pending += len(command.commands)
        for args in command.commands:
            self._gpool_note(*args)

    @property
    def _gpool_is_quiet(self) -> bool:
        return not (self.gpool_logs_in or self.gpool_pending or self.gpool_open)

    def _gpool_note(self, name: Any, *args: Any) -> None:
        word = (name.decode("latin-1") if isinstance(name, bytes) else str(name)).upper()
        if word in _OPENS:
            self.gpool_open.add(word)
        elif word in _ENDS:
            self.gpool_open -= _ENDS[word]
        elif word == "SELECT" and args and not self.gpool_logs_in:
            (self.gpool_open.discard if str(args[0]) == str(self.db) else self.gpool_open.add)(word)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        if self.gpool_unsent:
            self.gpool_unsent = False
            return b"OK"
        if self.gpool_ended:
            raise LeaseLost(self.gpool_pool, self.gpool_lease or self)
        if self.gpool_open and not _LISTENS.isdisjoint(self.gpool_open):
            self._gpool_adopt()
        try:
            response = super().read_response(*args, **kwargs)
        except ResponseError:
            self.gpool_pending -= 1
            raise
        if not kwargs.get("push_request"):
            self.gpool_pending -= 1
        return response

    def _gpool_adopt(self) -> None:
        """Make the greenlet that listens the one whose death takes the connection back."""
        lease = self.gpool_lease
        if lease is not None and not lease.lost and not self._gpool_is_mine:
            lease.transfer(gpool.self())


@functools.cache
def _supervised(connection_class: Any) -> Any:
    """Return a connection class with what a supervised one has beside it."""
    is_class = isinstance(connection_class, type)
    if not is_class or not issubclass(connection_class, AbstractConnection):
        expected = "a subclass of redis.connection.AbstractConnection"
        raise TypeError(f"connection_class: expected {expected}, got {connection_class!r}")
    if issubclass(connection_class, _Supervised):
        return connection_class
    bases = (_Supervised, connection_class)
    return type(f"Supervised{connection_class.__name__}", bases, {"__module__": __name__})


def _inner(connection: Any) -> Any:
    """Return the connection that redis-py's client-side cache wraps, or the connection."""
    return getattr(connection, "_conn", connection)


def _ask(connection: Any) -> None:
    """Have the server answer; raises if it does not, or lets nobody in."""
    connection.send_command("PING", check_health=False)
    try:
        connection.read_response()
    except ResponseError:
        return  # PING may be forbidden; it lives


# --- The pool -----------------------------------------------------------------------


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
        TypeError, ValueError, redis.DataError: An option is wrong; nothing was started.
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
        self._is_closed = False
        self._made: set[Any] = set()  # every connection that is not closed
        self.pool: gpool.Pool[Any] = gpool.Pool(
            gpool.Resource(
                create=self._create, close=self._close, check=_ask,
                is_dirty=_is_dirty, is_broken=_is_broken,
            ),
            name=name, **limits,
        )  # fmt: skip
        cap = limits["size"] + limits.get("max_overflow", 0)
        super().__init__(_supervised(connection_class), cap, **options)
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
        connection.gpool_pool = self.pool.name
        if self.cache is None:
            return connection
        return _Cached(connection, self.cache, self._lock)

    def _create(self) -> Any:
        connection = self._new_connection()
        try:
            connection.connect()
            _ask(connection)  # it may have been let in to be told that it is one too many
            if self._is_closed:
                raise PoolClosed(self.pool.name)
        except BaseException:
            connection.disconnect()
            raise
        self._made.add(connection)
        return connection

    def _close(self, connection: Any) -> None:
        self._made.discard(connection)
        if connection is not _inner(connection):
            connection.disconnect()  # which empties the cache
        _inner(connection).gpool_end()

    # --- What clients do ---

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """Borrow a connection; blocks until one is free.

        Args:
            command_name: Not looked at; redis-py deprecates it.
            keys: Likewise.
            options: Likewise.

        Raises:
            CheckoutTimeout, PoolFull, StartsFailing, PoolClosed, PoolFailed,
            CheckoutDeadlock: As :meth:`gpool.Pool.checkout`, of this module.
            gpool.WrongHub: The pool runs in another thread.
        """
        lease, connection = self._checkout()
        frame = sys._getframe(1)
        while frame.f_back is not None and _is_redis(frame.f_globals):
            frame = frame.f_back
        lease.code, lease.lasti = frame.f_code, frame.f_lasti
        _inner(connection).gpool_lease = lease
        return connection

    def _checkout(self) -> tuple[gpool.Lease[Any], Any]:
        if self._is_closed:
            self._is_closed = False
            self.pool.start().recycle()
        try:
            lease = self.pool.checkout()
            return lease, lease.worker
        except _OURS as error:
            cause, in_redis = error.__cause__, _IN_REDIS[type(error)](*error.args)
        raise in_redis from cause

    def release(self, connection: Any) -> None:
        """Give a connection back; never blocks; one that is not lent is let be."""
        inner = _inner(connection)
        lease = inner.gpool_lease
        if lease is None:
            return
        inner.gpool_lease = None
        inner.gpool_ended = inner.gpool_dirty  # from now on nobody must use what will be closed
        error = sys.exception()
        is_killed = isinstance(error, gevent.GreenletExit)
        if error and (is_killed or (isinstance(error, ConnectionError) and inner._sock is None)):
            lease.__exit__(type(error), error, None)  # an error puts others under suspicion, too
        else:
            lease.__exit__(None, None, None)  # whatever flies by: the connection says how it is

    # --- What redis-py asks of a pool ---

    def _checkpid(self) -> None:
        """Nothing: gpool notices a fork itself, and starts afresh in the child."""

    def reset(self) -> None:
        """Have all connections replaced: idle ones now, others when they come back."""
        self.pid = os.getpid()
        self.pool.recycle()

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the idle connections, and those that are lent; never blocks.

        Args:
            inuse_connections: Whether those that are lent are closed under their clients'
                hands; else they are when they come back.

        Raises:
            gpool.WrongHub: The pool runs in another thread.
        """
        lent = self._get_in_use_connections() if inuse_connections else ()
        self.pool.recycle()
        for connection in lent:
            connection.disconnect()

    def close(self) -> None:
        """Close all connections, and make those who wait fail; never blocks.

        Whoever asks for a connection afterwards opens it again, as in redis-py;
        ``pool.pool.stop()`` ends it.

        Raises:
            gpool.WrongHub: The pool runs in another thread.
        """
        self._is_closed = True
        self.pool.close(waiters="fail")
        self.disconnect()
        for connection in self._its_connections():  # what has just been made, too
            connection.disconnect()

    def set_retry(self, retry: Any) -> None:
        """Have all connections retry so from now on, new ones too."""
        self.connection_kwargs["retry"] = retry
        for connection in self._its_connections():
            connection.retry = retry
            _inner(connection).retry = retry

    def re_auth_callback(self, token: Any) -> None:
        """Log in anew with a token: idle connections now, others before their next command.

        Blocks until the idle ones have; one that is refused is closed.  Called from another
        thread, idle ones log in before their next command, too.  A subscription keeps its
        login until it connects anew: nobody else may read what it gets.
        """
        for connection in self._its_connections():
            connection.set_re_auth_token(token)
        if self.pool.healthy():
            with contextlib.suppress(gpool.WrongHub):
                self.pool.broadcast(_re_auth_idle)

    def disconnect_free_connections(self, moving_address_src: Any = None) -> None:
        """Have the connections to a server that moves replaced."""
        self.pool.recycle()

    def _its_connections(self) -> list[Any]:
        mine = os.getpid()  # in a child, the parent's are let be
        return [one for one in self._made if _inner(one).pid == mine]

    def _get_free_connections(self) -> list[Any]:
        lent = self._get_in_use_connections()
        return [connection for connection in self._its_connections() if connection not in lent]

    def _get_in_use_connections(self) -> set[Any]:
        return {one for one in self._its_connections() if _inner(one).gpool_lease is not None}

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


def _is_dirty(connection: Any) -> bool:
    dirty: bool = _inner(connection).gpool_dirty
    return dirty


def _is_broken(error: BaseException, connection: Any) -> bool:
    return not isinstance(error, Exception) or _inner(connection)._sock is None


def _is_redis(names: dict[str, Any]) -> bool:
    return str(names.get("__name__")).partition(".")[0] == "redis"


def _re_auth_idle(connection: Any) -> None:
    connection.re_auth()
