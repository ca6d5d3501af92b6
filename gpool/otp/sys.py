"""Looking into a running server, and holding it: for people, tools and tests.

    >>> from gpool.otp.gen import stop
    >>> from gpool.otp.gen_server import GenServer
    >>> class Lamp(GenServer):
    ...     def init(self):
    ...         self.lit = False
    >>> lamp = Lamp.start()
    >>> replace_state(lamp, lambda state: {**state, "lit": True})
    {'lit': True}
    >>> get_state(lamp)
    {'lit': True}
    >>> stop(lamp)

All of it travels through the mailbox: a server that is busy answers when it is
done, one that is no server at all never does.

Not here: statistics, logs and traces of single servers; what they run for is
covered by telemetry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpool.errors import NoProcess
from gpool.otp import process
from gpool.otp.gen import Asker, From, System, partner
from gpool.otp.pid import DEAD, FORKED, Pid, mailbox_of
from gpool.waiter import check_timeout


@dataclass(frozen=True, slots=True)
class Status:
    """What :func:`get_status` tells of a server."""

    pid: Pid
    module: str  # its class
    status: str  # "running" or "suspended"
    parent: Pid | None
    state: Any  # as ``format_status`` shows it


def get_state(server: Any, timeout: float | None = 5.0) -> dict[str, Any]:
    """Return a shallow copy of a server's attributes; blocks until it answers.

    Args:
        server: A handle, a pid or a registered name.
        timeout: Seconds; None waits for ever.

    Raises:
        NoProcess: It is dead or nobody has the name.
        CallTimeout: It is busy, or no server.

    Source:
        OTP ``sys:get_state/2``.
    """
    state: dict[str, Any] = _request(server, "get_state", None, timeout)
    return state


def replace_state(
    server: Any, fn: Callable[[dict[str, Any]], dict[str, Any]], timeout: float | None = 5.0
) -> dict[str, Any]:
    """Replace a server's attributes by what `fn` makes of them, in its process.

    Returns:
        The new state.

    Raises:
        CallbackFailed: `fn` raised; the state is unchanged.
        NoProcess, CallTimeout: As :func:`get_state`.

    Source:
        OTP ``sys:replace_state/3``.
    """
    if not callable(fn):
        raise TypeError(f"replace_state: expected a callable, got {fn!r}")
    state: dict[str, Any] = _request(server, "replace_state", fn, timeout)
    return state


def suspend(server: Any, timeout: float | None = 5.0) -> None:
    """Have a server serve nothing but this module, ``stop`` and its parent's exit.

    The rest waits in order; once suspended, further suspends change nothing.

    Source:
        OTP ``sys:suspend/2``.
    """
    _request(server, "suspend", None, timeout)


def resume(server: Any, timeout: float | None = 5.0) -> None:
    """Let a suspended server go on with the messages that wait.

    Source:
        OTP ``sys:resume/2``.
    """
    _request(server, "resume", None, timeout)


def get_status(server: Any, timeout: float | None = 5.0) -> Status:
    """Describe a server; its state goes through its ``format_status``.

    Source:
        OTP ``sys:get_status/2``.
    """
    pid = process.resolve(server)
    return _status(pid, _request(pid, "get_status", None, timeout))


def post_status_request(server: Any, asker: Asker) -> None:
    """Have a server tell `asker` what :func:`get_status` would return; never blocks.

    Whoever asks need not be a process, as a callback of the hub is none.

    Args:
        server: A handle, a pid or a registered name, of the running thread.
        asker: Its ``answer`` is called in the server's process, with a :class:`Status`, or
            its ``fail``, with an error.  It hears nothing if the server dies before.

    Raises:
        NoProcess: It is dead or nobody has the name.
    """
    pid = process.resolve(server)
    if pid.state is DEAD or pid.state is FORKED:
        raise NoProcess(pid)
    mailbox_of(pid).append(System(_StatusAsker(pid, asker), "get_status"))


@dataclass(frozen=True, slots=True)
class _StatusAsker:
    """Makes a status of what a server answers."""

    pid: Pid
    asker: Asker

    def answer(self, value: Any) -> None:
        self.asker.answer(_status(self.pid, value))

    def fail(self, error: BaseException) -> None:
        self.asker.fail(error)


def _status(pid: Pid, answer: Any) -> Status:
    status, parent, state = answer
    return Status(pid, pid.initial_call, status, parent, state)


def _request(server: Any, verb: str, argument: Any, timeout: float | None) -> Any:
    check_timeout(timeout)
    from_ = From(partner(server))
    from_.server.mailbox.append(System(from_, verb, argument))
    return from_.result(timeout)
