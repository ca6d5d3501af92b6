"""Servers: processes that answer calls, one message at a time.

    >>> from gpool.otp.methods import call
    >>> class Counter(GenServer):
    ...     count = 0
    ...
    ...     @call
    ...     def add(self, n: int) -> int:
    ...         self.count += n
    ...         return self.count
    >>> counter = Counter.start()
    >>> counter.add(2), counter.add(3)
    (2, 5)
    >>> from gpool.otp.gen import stop
    >>> stop(counter)

The instance is the handle and holds the state.  ``__init__`` only stores what it
is given, in the starter; :meth:`GenServer.init` runs in the process.  Beneath
methods marked ``call`` and ``cast`` stand OTP's callbacks, and what they may answer:

    ============================  ====================================================
    ``init``                      None, Continue, IdleTimeout, Hibernate, Ignore, Stop
    ``handle_call``               Reply, NoReply, Stop
    ``handle_cast``,              None, Continue, IdleTimeout, Hibernate, Stop
    ``handle_info``,
    ``handle_continue``
    ``terminate``                 anything; it is dropped
    ============================  ====================================================

Anything else ends the server with ``("bad_return_value", answer)``.

After every 100 messages a server gives way: one that has always more to do, or
that feeds itself, starves nobody.  (A plain process that loops over ``receive``
does: like ``gevent.queue`` it switches only if it has to wait.)

Differences to OTP: state is the instance's attributes, so what a callback has
assigned before it raises stays assigned; a second reply is dropped; a signalled
server that does not trap exits still runs ``terminate``, within its
``unwind_limit`` (never for a kill); calls raise errors, not exit signals.

Not here: methods as requests (``methods.py``); calls to pids and names, replies,
stops (``gen.py``); looking into a server (``sys.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self, TypeVar

from gpool import telemetry
from gpool.errors import (
    CallbackFailed,
    StartError,
)
from gpool.otp import proc_lib, process, registry
from gpool.otp.gen import Call, Cast, From, System, send_call, send_cast
from gpool.otp.greenlets import Hibernation, current, new_process
from gpool.otp.methods import MethodCall
from gpool.otp.pid import (
    RUNNING,
    UNWINDING,
    Exit,
    ExitSignal,
    Keeper,
    Pid,
    Ref,
    Starter,
)
from gpool.otp.registry import Name
from gpool.otp.signal import is_word, reason_of
from gpool.waiter import Expired, Seat, Waiter, check_timeout

S = TypeVar("S", bound="GenServer")

TURN: Final = 100  # messages that a server handles before it lets others run
TIMEOUT: Final = "timeout"  # what handle_info gets when nothing came for an IdleTimeout
_MISSING: Final = object()
_NO_MESSAGE: Final = object()  # there is none: hibernate


# --- What callbacks may answer ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Continue:
    """Run ``handle_continue(argument)`` next, before any message."""

    argument: Any = None


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """Run ``handle_info(TIMEOUT)`` if no message comes for `seconds`; 0: if none is there."""

    seconds: float

    def __post_init__(self) -> None:
        if self.seconds is None:
            raise TypeError("IdleTimeout: expected seconds, got None; answer None instead")
        check_timeout(self.seconds, "IdleTimeout")


@dataclass(frozen=True, slots=True)
class Hibernate:
    """Wait for the next message without a greenlet, which costs memory.

    The process stays what it is: alive, linked, monitored, named.  Whatever comes, a
    message of any kind or an exit signal that has ``terminate`` run, gives it a new
    greenlet, in the same context.  So it does not pay for a server that is busy, and
    what is local to a greenlet (``gevent.local``) is gone.

    Source:
        OTP ``proc_lib:hibernate/3``, and ``hibernate`` as gen_server's time-out.
    """


Then = Continue | IdleTimeout | Hibernate | None


@dataclass(slots=True)  # not frozen: that would take as long as all else that a server does
class Reply:
    """Answer the caller with `value`."""

    value: Any
    then: Then = None


@dataclass(frozen=True, slots=True)
class NoReply:
    """Leave the caller waiting: somebody calls :func:`~gpool.otp.gen.reply` with its `from_`."""

    then: Then = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Run ``terminate(reason)``, answer the caller if there is a `reply`, and die so."""

    reason: Any = "normal"
    reply: Any = _MISSING


@dataclass(frozen=True, slots=True)
class Ignore:
    """Do not start after all; ``start_link`` returns None."""


# --- The server's side --------------------------------------------------------------


class GenServer:
    """A process that answers calls; subclass it.

    Every incarnation is a new instance, and the handle of a dead one raises
    :class:`~gpool.errors.NoProcess`.
    """

    pid: Pid | None = None  # None until started, and after an ``Ignore``

    @classmethod
    def start(
        cls, *args: Any, server_name: Name | None = None, start_timeout: float | None = None,
        **kwargs: Any,
    ) -> Self:  # fmt: skip
        """Start a server linked to nobody; blocks until ``init`` has finished.

        Args:
            args: For ``__init__``, which runs here, before anything starts.
            server_name: A name to register it under, before ``init``: a local
                one, or a pair of a registry and a key.
            start_timeout: Seconds that ``init`` may take; None for ever.
            kwargs: For ``__init__``.

        Returns:
            The handle; its `pid` is None if ``init`` answered :class:`Ignore`.

        Raises:
            StartError: ``init`` failed (its `reason` says how), was too slow
                ("timeout"), or the name is taken ("already_started", pid).
                Nothing is left behind.

        Source:
            OTP ``gen_server:start/4``.
        """
        return _start(cls(*args, **kwargs), server_name, start_timeout, link=False)

    @classmethod
    def start_link(
        cls, *args: Any, server_name: Name | None = None, start_timeout: float | None = None,
        **kwargs: Any,
    ) -> Self:  # fmt: skip
        """Start a server linked to the caller, its parent; otherwise as :meth:`start`.

        Source:
            OTP 26 ``gen_server:start_link/4``.
        """
        return _start(cls(*args, **kwargs), server_name, start_timeout, link=True)

    @classmethod
    def start_monitor(
        cls, *args: Any, server_name: Name | None = None, start_timeout: float | None = None,
        **kwargs: Any,
    ) -> tuple[Self, Ref]:  # fmt: skip
        """Start a server that the caller monitors; otherwise as :meth:`start`.

        Returns:
            The handle and the monitor's reference.

        Source:
            OTP ``gen_server:start_monitor/4``.
        """
        refs: list[Ref] = []
        server = cls(*args, **kwargs)
        try:
            _start(server, server_name, start_timeout, link=False, monitored=refs)
        except BaseException:
            _forget(refs)
            raise
        if server.pid is None:
            _forget(refs)
        return server, refs[0]

    def call(self, request: Any, timeout: float | None = 5.0) -> Any:
        """Send `request` to ``handle_call``; see :func:`~gpool.otp.gen.send_call`."""
        return send_call(self.pid or self, request, timeout)

    def cast(self, request: Any) -> None:
        """Send `request` to ``handle_cast``; see :func:`~gpool.otp.gen.send_cast`."""
        send_cast(self, request)

    def init(self) -> Then | Ignore | Stop:
        """Prepare; runs in the server's process, while the starter waits.  Optional.

        Returns:
            None, :class:`Continue`, :class:`IdleTimeout`, :class:`Hibernate`;
            :class:`Ignore` or :class:`Stop` not to start.  What it raises fails the start.
        """
        return None

    def handle_call(self, request: Any, from_: From) -> Reply | NoReply | Stop:
        """Answer a call that is no marked method; runs in the server's process.

        Args:
            request: What :func:`~gpool.otp.gen.send_call` sent.
            from_: The caller, for a later :func:`~gpool.otp.gen.reply`.
        """
        raise TypeError(f"{self!r} handles no call {request!r}")

    def handle_cast(self, request: Any) -> Then | Stop:
        """Take a cast that is no marked method; runs in the server's process."""
        raise TypeError(f"{self!r} handles no cast {request!r}")

    def handle_info(self, message: Any) -> Then | Stop:
        """Take any other message: Exit, Down, TIMEOUT, or what somebody sent.  Optional."""
        telemetry.emit(telemetry.UnexpectedMessage(self.pid, message))
        return None

    def handle_continue(self, argument: Any) -> Then | Stop:
        """Go on after a callback that answered :class:`Continue`, before any message."""
        raise TypeError(f"{self!r} handles no continuation {argument!r}")

    def terminate(self, reason: Any) -> object:
        """Clean up; the last thing to run in the server's process.  Optional.

        It runs on every stop, on a crash, when the parent dies, and on an exit
        signal (within ``unwind_limit`` if the server does not trap exits); not
        on a kill and not after a failed ``init``.

        Args:
            reason: What the server dies of.
        """
        return None

    def system_suspended(self) -> None:
        """Take note that ``sys.suspend`` holds the server.  Optional."""

    def system_resumed(self) -> None:
        """Take note that ``sys.resume`` lets it go on.  Optional."""

    def gpool_watched(self) -> Iterable[Pid]:
        """Return whom it monitors without a reference; for those of gpool's own that do."""
        return ()

    def format_status(self) -> Any:
        """Return what ``sys.get_status`` shows as state; leave out what is secret.  Optional."""
        return state_of(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.pid!r}>"


def state_of(server: GenServer) -> dict[str, Any]:
    """Return a shallow copy of a server's state: its instance's attributes."""
    return {name: value for name, value in vars(server).items() if name != "pid"}


def _start(
    server: S,
    name: Name | None,
    timeout: float | None,
    *,
    link: bool,
    monitored: list[Ref] | None = None,
) -> S:
    if timeout is not None:
        check_timeout(timeout)
    what = type(server).__qualname__.replace("<locals>.", "")
    loop = _Loop(server, current() if link else None)
    if name is not None and (owner := registry.owner_of(name)) is not None:
        raise StartError(what, ("already_started", owner))

    def prepare(pid: Pid) -> None:
        server.pid = loop.pid = pid
        pid.server = server
        if name is not None:
            registry.assign(name, pid)
        if monitored is not None:
            monitored.append(process.monitor(pid))

    if not proc_lib.start(loop.run, what=what, link=link, prepare=prepare, timeout=timeout):
        server.pid = None
    return server


def launch(server: GenServer, *, starter: Starter, keeper: Keeper) -> Pid:
    """Start a server linked to the caller, its parent, and wait for nothing.

    For supervisors that must not block on ``init``.

    Args:
        server: An instance that was never started.
        starter: Woken, in the server's process, with ``("ok", None)`` after
            ``init`` or ``("died", reason)``.
        keeper: Told when it is about to die, and of its death.
    """
    what = type(server).__qualname__.replace("<locals>.", "")
    me = current()
    loop = _Loop(server, me)
    pid = new_process(
        loop.run, initial_call=what, link=True, keeper=keeper, context=proc_lib.EMPTY, parent=me
    )
    server.pid = loop.pid = pid
    pid.server, pid.starter = server, starter
    return pid


def _forget(refs: list[Ref]) -> None:
    for ref in refs:
        process.demonitor(ref, flush=True)


class _Loop:
    """The engine of one server: takes messages and runs callbacks, in its process.

    A server that hibernates has none: all of it can be made again.
    """

    __slots__ = ("parent", "pid", "seat", "server", "suspended")

    pid: Pid  # set before it runs
    seat: Seat  # where it waits for messages

    def __init__(self, server: GenServer, parent: Pid | None) -> None:
        self.server = server
        self.parent = parent  # whose EXIT ends the server; None for a start without link
        self.suspended = False

    def run(self) -> Hibernation | None:
        """Be the body of the server's process."""
        pid = self.pid
        then = self._init()
        if pid.state is not RUNNING:
            raise ExitSignal(pid.reason)  # that `init` has swallowed: it has not started
        proc_lib.acknowledge(pid)
        return self.go_on(then)

    def go_on(self, then: Then) -> Hibernation | None:
        """Serve until the server stops, or is to hibernate."""
        try:
            self.seat = Seat()
            if self.pid.state is not RUNNING:
                raise ExitSignal(self.pid.reason)  # that has ended the hibernation
            stop, from_ = self._serve(then)
            if stop is None:
                return _LINKED if self.parent is not None else _ALONE
            reason, reply = stop.reason, stop.reply
        except BaseException as error:
            if self.pid.state is not RUNNING and is_word(self.pid.reason, "killed"):
                raise  # a kill must not be answered with cleanup of unknown length
            reason, from_, reply = reason_of(error), None, _MISSING  # it sees whatever it is
        self._terminate(reason, from_, reply)

    def _init(self) -> Then:
        match self.server.init():
            case None | Continue() | IdleTimeout() | Hibernate() as then:
                return then
            case Ignore():
                proc_lib.init_ignore()
            case Stop(reason):
                raise ExitSignal(reason)
            case answer:
                raise ExitSignal(("bad_return_value", answer))

    def _terminate(self, reason: Any, from_: From | None, reply: Any) -> NoReturn:
        ended = reason
        if self.pid.state is not RUNNING:
            reason = self.pid.reason  # a signal was accepted, be it while a callback ran
            if self.pid.state is not UNWINDING:
                with contextlib.suppress(ExitSignal):
                    current()  # from here on it unwinds, and primitives work again
        # A kill must not be answered with cleanup of unknown length.
        if not is_word(reason, "killed") or self.pid.state is RUNNING:
            try:
                self.server.terminate(reason)
            except BaseException as error:  # noqa: BLE001  # the death goes on
                ended = reason_of(error)
        if from_ is not None and reply is not _MISSING:
            from_.answer(reply)
        raise ExitSignal(ended)  # others see an accepted reason, but a Ctrl-C is passed on

    def _serve(self, then: Then) -> tuple[Stop | None, From | None]:
        """Handle messages until one of them stops the server, or it is to hibernate: None."""
        message: Any = None
        answer: Any
        pid, server, mailbox, seat = self.pid, self.server, self.pid.mailbox, self.seat
        if type(then) is Continue:
            self._give_way()  # to the starter: it returns before the continuation runs
        try:
            while True:
                for _ in range(TURN):
                    from_ = None
                    if then is None and pid.state is RUNNING and not self.suspended:  # as a rule
                        if not mailbox.messages:
                            message = request = answer = None  # nothing is kept while it waits
                            seat.rest(mailbox)
                        mailbox.taken += 1
                        message = mailbox.messages.popleft()
                    elif type(then) is Continue:
                        message = then
                    else:
                        message = request = answer = None
                        message = self._next_message(then)
                    if type(message) is Call:
                        request = message.request
                        if type(request) is MethodCall:
                            request.answer(server, message)
                            then = None
                            continue
                        answer = server.handle_call(request, message)
                        if type(answer) is Reply and answer.then is None:
                            message.answer(answer.value)
                            then = None
                            continue
                        from_ = message
                    elif type(message) is Cast:
                        answer = self._cast(message)
                    elif type(then) is Continue:
                        answer = server.handle_continue(then.argument)
                    elif type(message) is System:
                        if message.verb == "terminate":
                            return Stop(message.argument), None
                        self._system(message)
                        continue
                    elif type(message) is Exit and message.pid is self.parent:
                        return Stop(message.reason), None
                    elif message is _NO_MESSAGE:
                        return None, None
                    else:
                        answer = server.handle_info(message)
                    if type(answer) is Stop:
                        return answer, from_
                    then = self._then(answer, from_)
                self._give_way()
        except BaseException:
            pid.last_message = message
            raise

    def _give_way(self) -> None:
        """Block until all who could run have run: other greenlets, timers, sockets."""
        turn = Waiter()
        self.pid.hub.loop.run_callback(turn.wake)
        turn.wait()

    def _next_message(self, then: Then) -> Any:
        pid = self.pid
        if pid.state is not RUNNING:
            current()
        mailbox = pid.mailbox
        if self.suspended:
            return mailbox.take(self._is_urgent)
        if not mailbox.messages:
            if type(then) is Hibernate and pid.state is RUNNING:
                return _NO_MESSAGE
            if type(then) is not IdleTimeout:
                self.seat.rest(mailbox)
            else:
                try:
                    mailbox.wait(then.seconds)
                except Expired:
                    if not mailbox.messages:
                        return TIMEOUT
        mailbox.taken += 1
        return mailbox.messages.popleft()

    def _is_urgent(self, message: Any) -> bool:
        return type(message) is System or (type(message) is Exit and message.pid is self.parent)

    def _cast(self, message: Cast) -> Any:
        request = message.request
        if type(request) is not MethodCall:
            return self.server.handle_cast(request)
        request.run(self.server)
        return None

    def _then(self, answer: Any, from_: From | None) -> Then:
        """Take an answer apart that goes on; anything unexpected ends the server."""
        match answer:
            case None if from_ is None:
                return None
            case Reply(value, Continue() | IdleTimeout() | Hibernate() as then) if (
                from_ is not None
            ):
                from_.answer(value)
                return then
            case NoReply(None | Continue() | IdleTimeout() | Hibernate() as then) if (
                from_ is not None
            ):
                if not from_.is_answered:
                    self.pid.mailbox.leave_unanswered(from_)
                return then
            case Continue() | IdleTimeout() | Hibernate() if from_ is None:
                return answer
        raise ExitSignal(("bad_return_value", answer))

    def _system(self, message: System) -> None:
        assert message.from_ is not None
        unanswered = self.pid.mailbox.unanswered
        if message.verb == "ping" and unanswered:
            unanswered.pings.append(message.from_)
            return
        try:
            value = self._system_answer(message.verb, message.argument)
        except CallbackFailed as error:
            message.from_.fail(error)
        else:
            message.from_.answer(value)

    def _system_answer(self, verb: str, argument: Any) -> Any:
        match verb:
            case "get_state":
                return state_of(self.server)
            case "replace_state":
                return self._replace_state(argument)
            case "suspend":
                self.suspended = True
                self.server.system_suspended()
            case "resume":
                self.suspended = False
                self.server.system_resumed()
            case "ping":
                pass
            case "get_status":
                status = "suspended" if self.suspended else "running"
                return status, self.parent, self._format_status()
            case _:
                raise CallbackFailed(self.pid, ValueError(f"unknown system request {verb!r}"))
        return None

    def _format_status(self) -> Any:
        try:
            return self.server.format_status()
        except Exception as error:
            raise CallbackFailed(self.pid, error) from error

    def _replace_state(self, fn: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        try:
            state = dict(fn(state_of(self.server)))
            state.pop("pid", None)  # it is what it is
            if odd := [name for name in state if not isinstance(name, str)]:
                raise TypeError(f"replace_state: expected names of attributes, got {odd}")
        except Exception as error:
            raise CallbackFailed(self.pid, error) from error
        vars(self.server).clear()
        vars(self.server).update(state, pid=self.pid)
        return state


def _resume(pid: Pid, parent: Pid | None) -> Hibernation | None:
    """Be the body of a server's process after a hibernation."""
    loop = _Loop(pid.server, parent)
    loop.pid = pid
    return loop.go_on(Hibernate())


_LINKED: Final = Hibernation(lambda pid: _resume(pid, pid.parent))  # whose parent's EXIT ends it
_ALONE: Final = Hibernation(lambda pid: _resume(pid, None))
