"""What redis-py's supervised pool lends: connections that know how they are, and its errors.

Not here: the pool (``redis.py``), where the errors are public.
"""

from __future__ import annotations

import functools
import select
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

from gevent import monkey
from redis import exceptions
from redis.connection import AbstractConnection

import gpool
from gpool.integrations._sockets import poll_now

# --- Errors -------------------------------------------------------------------------


class CheckoutTimeout(gpool.CheckoutTimeout, exceptions.MaxConnectionsError):
    """No connection in time: gpool's facts, and a ``redis.ConnectionError``."""


class PoolFull(gpool.PoolFull, exceptions.MaxConnectionsError):
    """As many clients wait as may: gpool's facts, and a ``redis.ConnectionError``."""


class StartsFailing(gpool.StartsFailing, exceptions.ConnectionError):
    """No connection is up and none can be made, with `fail_fast`; the cause says why."""


class PoolClosed(gpool.PoolClosed, exceptions.ConnectionError):
    """The pool is stopping or was stopped; a ``redis.ConnectionError``, too."""


class PoolFailed(gpool.PoolFailed, exceptions.ConnectionError):
    """The pool fell too often, and will be revived; a ``redis.ConnectionError``, too."""


class PoolNotReady(gpool.PoolNotReady, exceptions.ConnectionError):
    """It was closed, and does not open again in time; a ``redis.ConnectionError``, too."""


class CheckoutDeadlock(gpool.CheckoutDeadlock, exceptions.ConnectionError):
    """It would wait for ever for who waits as well; a ``redis.ConnectionError``, too."""


class NameTaken(gpool.NameTaken, exceptions.RedisError):
    """Another pool of its name runs; no ``redis.ConnectionError``: the server is not at fault."""


class LeaseLost(gpool.LeaseLost, exceptions.RedisError):
    """The connection was taken back; no ``redis.ConnectionError``, which would be retried."""


IN_REDIS: Final[dict[type[Exception], Any]] = {
    gpool.CheckoutTimeout: CheckoutTimeout,
    gpool.PoolFull: PoolFull,
    gpool.StartsFailing: StartsFailing,
    gpool.PoolClosed: PoolClosed,
    gpool.PoolFailed: PoolFailed,
    gpool.PoolNotReady: PoolNotReady,
    gpool.NameTaken: NameTaken,
    gpool.CheckoutDeadlock: CheckoutDeadlock,
    gpool.LeaseLost: LeaseLost,
}
for _error in IN_REDIS.values():
    _error.__module__ = "gpool.integrations.redis"

# --- Connections --------------------------------------------------------------------

_LISTENS: Final = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"})
#: What leaves a connection in a state that its next client must not find.
_OPENS: Final = _LISTENS | {"MULTI", "WATCH", "MONITOR", "RESET"}
#: ... unless redis-py itself sends it when it logs in; there is no way back but another log-in.
_SESSION: Final = {"AUTH", "HELLO", "READONLY", "READWRITE", "ASKING"}
_SESSION_OF: Final = {
    "CLIENT": {"SETNAME", "SETINFO", "TRACKING", "CACHING", "REPLY", "NO-EVICT", "NO-TOUCH"},
    "SCRIPT": {"DEBUG"},
}
_ENDS: Final = {"EXEC": {"MULTI", "WATCH"}, "DISCARD": {"MULTI", "WATCH"}, "UNWATCH": {"WATCH"}}


_Connection: Any = AbstractConnection  # few of its methods have annotations
_SAID: Final = select.POLLIN
_ENDED: Final = (  # the last one: it hung up, which not every system has
    select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)
)
_get_ident: Callable[[], int] = monkey.get_original("threading", "get_ident")


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


class Supervised(_Connection):  # type: ignore[misc]
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
        self.gpool_thread = _get_ident()  # its pool's
        super().__init__(*args, **kwargs)

    @property
    def gpool_dirty(self) -> bool:
        """Whether it must not be lent again."""
        return (
            self.gpool_lease is not None  # others give it back: an object of redis-py has it still
            or self._sock is None
            or self.gpool_pending != 0
            or bool(self.gpool_open)
            or bool(getattr(self, "should_reconnect", bool)())  # since redis-py 7
        )

    @property
    def gpool_is_anothers(self) -> bool:
        """Whether it is of a pool of another thread than this one."""
        return self.gpool_thread != _get_ident()

    @property
    def gpool_is_over(self) -> bool:
        """Whether its client has it no more: it was taken back, and is closed, or will be."""
        lease = self.gpool_lease
        return self.gpool_ended or (lease is not None and (lease.slot is None or lease.lost))

    def gpool_refuse(self) -> None:
        """Raise if its client has it no more.

        Raises:
            LeaseLost: So it is.
        """
        if self.gpool_is_over:
            raise LeaseLost(self.gpool_pool, self.gpool_lease or self)

    def gpool_end(self) -> None:
        """Close it for good; never blocks."""
        self.gpool_ended = True
        self.disconnect()

    # --- What redis-py calls ---

    def connect(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().connect(*args, **kwargs)
        except BaseException as error:
            self._gpool_part(error)
            raise

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        """Connect it, if it is not; cut short, it is not connected."""
        self.gpool_refuse()
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
        self.gpool_refuse()
        try:
            if self._re_auth_token is not None and self._gpool_is_quiet:
                self.re_auth()
            super().send_packed_command(command, check_health)
        except BaseException as error:
            self._gpool_part(error)
            raise
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
        first, *others = _word(name).split()  # redis-py splits it as well, when it packs
        words = [*others, *args]
        word = first.upper()
        if word in _OPENS:
            self.gpool_open.add(word)
        elif word in _ENDS:
            self.gpool_open -= _ENDS[word]
        elif self.gpool_logs_in or not (words or word in _SESSION):
            return
        elif word == "AUTH" and self.credential_provider is not None:
            return  # redis/event.py: a new token of the same user
        elif word == "SELECT":
            is_back = _word(words[0]) == str(self.db)
            (self.gpool_open.discard if is_back else self.gpool_open.add)(word)
        elif word in _SESSION or _word(words[0]).upper() in _SESSION_OF.get(word, ()):
            self.gpool_open.add(word)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        if self.gpool_unsent:
            self.gpool_unsent = False
            return b"OK"
        self.gpool_refuse()
        if self.gpool_open and not _LISTENS.isdisjoint(self.gpool_open):
            self._gpool_adopt()
        try:
            response = super().read_response(*args, **kwargs)
        except BaseException as error:
            if isinstance(error, exceptions.ResponseError):
                self.gpool_pending -= 1
            self._gpool_part(error)
            raise
        if not kwargs.get("push_request"):
            self.gpool_pending -= 1
        return response

    def _gpool_part(self, error: BaseException) -> None:
        """Give it back, to be closed, if the pipeline that has it is being dropped.

        That sends UNWATCH, and waits.  What strikes there, as a ``gevent.Timeout``, Python or
        redis-py swallows before `release` is called, and nobody is left who could call it.
        Whoever has taken the connection out of the pipeline, and uses it, is refused.
        """
        lease = self.gpool_lease
        if lease is None or self.gpool_is_over or self.gpool_is_anothers:
            return
        if _is_last(error, lease):
            self.gpool_lease, self.gpool_ended = None, True
            lease.discard("dropped")

    def _gpool_adopt(self) -> None:
        """Make the greenlet that listens the one whose death takes the connection back."""
        lease = self.gpool_lease
        if lease is not None and not lease.lost and not self._gpool_is_mine:
            lease.transfer(gpool.self())


def _is_last(error: BaseException, lease: gpool.Lease[Any]) -> bool:
    """Tell whether an exception ends the ``__del__`` of an object of redis-py that has a lease.

    It does not if redis-py will try again what has raised it.
    """
    frame: Any = sys._getframe(2)
    while frame is not None:
        name, module = frame.f_code.co_name, f"{frame.f_globals.get('__name__')}."
        if name == "__del__" and module.startswith("redis."):
            mine = getattr(frame.f_locals.get("self"), "connection", None)
            if getattr(unwrapped(mine), "gpool_lease", None) is lease:
                return True
        if module == "redis.retry." and isinstance(error, Exception):
            return False
        frame = frame.f_back
    return False


def _word(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


@functools.cache
def supervised(connection_class: Any) -> Any:
    """Return a connection class with what a supervised one has beside it."""
    is_class = isinstance(connection_class, type)
    if not is_class or not issubclass(connection_class, AbstractConnection):
        expected = "a subclass of redis.connection.AbstractConnection"
        raise TypeError(f"connection_class: expected {expected}, got {connection_class!r}")
    if issubclass(connection_class, Supervised):
        return connection_class
    bases = (Supervised, connection_class)
    return type(f"Supervised{connection_class.__name__}", bases, {"__module__": __name__})


def unwrapped(connection: Any) -> Any:
    """Return the connection that redis-py's client-side cache wraps, or the connection."""
    return getattr(connection, "_conn", connection)


def news(connection: Any) -> Literal["said", "ended"] | None:
    """Return what the server has done to a connection that nobody has; never waits, nor switches.

    Returns:
        "ended": it has closed it, or that is closed here; "said": it has sent something.
    """
    sock = connection._sock
    if sock is None:
        return "ended"
    events = poll_now(sock.fileno(), _SAID | _ENDED)
    if events:
        return "ended" if events & _ENDED else _what_came(connection)
    return "said" if _has_buffered(sock, connection._parser) else None


def _what_came(connection: Any) -> Literal["said", "ended"] | None:
    """Have redis-py read what has come: TLS has words of its own, and one of them is goodbye."""
    if getattr(connection._parser, "_reader", None) is not None:
        return "said"  # hiredis's parser polls only, with gevent's
    try:
        return "said" if connection.can_read() else None
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError):
        return "ended"


def _has_buffered(sock: Any, parser: Any) -> bool:
    """Tell whether something was read and is not yet parsed."""
    reader = getattr(parser, "_reader", None)  # hiredis's
    if reader is not None:
        is_left = reader.has_data()
    else:
        is_left = getattr(getattr(parser, "_buffer", None), "unread_bytes", int)()
    return bool(is_left or (hasattr(type(sock), "pending") and sock.pending()))  # a TLS record's


def ask(connection: Any) -> None:
    """Have the server answer; raises if it does not, or lets nobody in."""
    connection.send_command("PING", check_health=False)
    try:
        connection.read_response()
    except exceptions.ResponseError:
        return  # PING may be forbidden; it lives


def is_dirty(connection: Any) -> bool:
    """Tell whether it must not be lent again."""
    dirty: bool = unwrapped(connection).gpool_dirty
    return dirty


def is_broken(error: BaseException, connection: Any) -> bool:
    """Tell whether an exception has broken it: a kill may strike anywhere.

    A GeneratorExit strikes at a ``yield``: what it has cut short there, the connection knows.
    """
    is_cut_short = not isinstance(error, Exception | GeneratorExit)
    return is_cut_short or unwrapped(connection)._sock is None


def no_reset(connection: Any) -> bool:
    """Do nothing; but without a `reset` one that comes back by an exception would be closed."""
    return False


def re_auth(connection: Any) -> None:
    """Log in with its new token, if it has one."""
    connection.re_auth()
