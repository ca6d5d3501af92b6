"""Requests and their answers: what callers of a server do, and what travels to it.

A call does not use the caller's mailbox.  It is a :class:`From`, one wait for one
answer, which stands among the server's monitors: the reply, the server's death,
the caller's time-out or its own exit end it on both sides, whichever comes first.

    >>> from gpool.otp.gen_server import GenServer, Reply
    >>> class Echo(GenServer):
    ...     def handle_call(self, request, from_):
    ...         return Reply(request)
    >>> echo = Echo.start()
    >>> send_call(echo, "hello")
    'hello'
    >>> stop(echo)

Difference to OTP: calls raise errors, they do not exit; a second reply is dropped.

Source:
    OTP gen.erl, beneath gen_server.

Not here: what a server does with a request (``gen_server.py``).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Protocol

from greenlet import getcurrent

from gpool.errors import CallingSelf, CallTimeout, NoProcess, ServerExited
from gpool.otp import process
from gpool.otp.greenlets import current
from gpool.otp.mailbox import NO_MAIL, Mailbox
from gpool.otp.pid import DEAD, FORKED, NOBODY, RUNNING, Pid, mailbox_of
from gpool.waiter import Expired, Waiter, check_timeout

# --- What travels -------------------------------------------------------------------


class From(Waiter):
    """One caller's wait for one reply; it stands among the server's monitors meanwhile."""

    __slots__ = ("error", "is_answered", "server")

    def __init__(self, server: Pid) -> None:
        self.woken = False  # these first four are the Waiter's: its __init__ takes too long
        self.value = self._greenlet = self._callback = None
        self.server = server
        self.error: BaseException | None = None  # to be raised in the caller
        self.is_answered = False  # by the server, whether its caller still waits or not
        if server.monitored_by is NOBODY:
            server.monitored_by = {}
        server.monitored_by[self] = None

    def down(self, pid: Pid, reason: Any) -> None:
        """The server is dead: tell the caller."""
        self.fail(ServerExited(pid, reason))

    def answer(self, value: Any) -> bool:
        """Answer with a value; False if there is nobody to take it any more."""
        server = self.server
        if self in server.monitored_by:
            del server.monitored_by[self]
        self.is_answered = True
        woken = self.wake(value)
        mailbox = server.mailbox
        if mailbox.unanswered is not None and self in mailbox.unanswered:
            del mailbox.unanswered[self]
            if not mailbox.unanswered:
                answer_pings(mailbox)
        return woken

    def fail(self, error: BaseException) -> bool:
        """Answer with an error that is raised in the caller."""
        answered = self.answer(None)
        if answered:
            self.error = error
        return answered

    def result(self, timeout: float | None) -> Any:
        """Block until there is an answer; leave nothing behind, whatever happens."""
        try:
            value = self.wait(timeout, self.server.hub)
        except Expired:
            raise CallTimeout(self.server, timeout) from None
        finally:
            if not self.is_answered:
                self.woken = True
                self.server.monitored_by.pop(self, None)
        error, self.error = self.error, None  # no cycle with the traceback
        if error is None:
            return value
        if isinstance(error, ServerExited):
            raise error from getattr(error.reason, "exception", None)
        raise error


def answer_pings(mailbox: Mailbox) -> None:
    """Tell those who asked that a server owes nobody an answer any more."""
    unanswered, mailbox.unanswered = mailbox.unanswered, None
    if unanswered is not None:
        for ping in unanswered.pings:
            ping.answer(None)


class Call(From):
    """A request that wants an answer, together with its caller's wait."""

    __slots__ = ("request",)

    request: Any

    def __repr__(self) -> str:
        return f"Call({self.request!r})"


@dataclass(slots=True)
class Cast:
    """A request that wants none."""

    request: Any


class Asker(Protocol):
    """Whoever wants to know what came of a request; a :class:`From` is one."""

    def answer(self, value: Any) -> object:
        """Take an answer; must neither switch nor raise."""

    def fail(self, error: BaseException) -> object:
        """Take an error; must neither switch nor raise."""


@dataclass(slots=True)
class System:
    """A request of ``sys.py``; served also while the server is suspended."""

    from_: Asker | None
    verb: str
    argument: Any = None


# --- The caller's side --------------------------------------------------------------


def send_call(server: Any, request: Any, timeout: float | None = 5.0) -> Any:
    """Send `request` to a server's ``handle_call``; blocks until it answers.

    Args:
        server: A handle, a pid or a registered name.
        request: Anything; it is not copied.
        timeout: Seconds; None waits for ever, 0 does not wait.  The server runs
            the request all the same, and its late reply is dropped.

    Raises:
        NoProcess: It is dead or nobody has the name.
        CallTimeout: No answer in time.
        CallingSelf: The caller is the server, or the server waits for the caller.
        ServerExited: It died before it answered.
        WrongHub: It lives in another thread.

    Source:
        OTP ``gen_server:call/3``, which exits instead of raising.
    """
    if type(timeout) is not float or not timeout >= 0:  # seconds, as a rule
        check_timeout(timeout)
    pid = partner(server)
    call = Call(pid)
    call.request = request
    pid.mailbox.append(call)
    return call.result(timeout)


def partner(server: Any) -> Pid:
    """Return the pid of a server that the caller may wait for, and send to.

    Raises:
        NoProcess: It is dead or nobody has the name.
        CallingSelf: The caller is the server, or the server waits for the caller.
        WrongHub: It lives in another thread.
    """
    me = getattr(getcurrent(), "gpool_pid", None)
    if me is None or me.state is not RUNNING:
        me = current()
    pid = server
    if type(pid) is not Pid:
        pid = getattr(server, "pid", None)  # as a rule it is a handle
        if type(pid) is not Pid:
            pid = process.resolve(server)
    if pid is me:
        raise CallingSelf(pid)
    if pid.state is not RUNNING and (pid.state is DEAD or pid.state is FORKED):
        raise NoProcess(pid)
    if pid.hub is not me.hub:
        process.same_hub(pid)
    if pid.awaiting and _waits_for(pid, me):
        raise CallingSelf(pid, me)
    if pid.mailbox is NO_MAIL:
        mailbox_of(pid)
    return pid


def _waits_for(pid: Pid, me: Pid) -> bool:
    todo, seen = [pid], {pid}
    while todo:
        awaiting = todo.pop().awaiting
        if me in awaiting:
            return True
        further = {other for other in awaiting if other.awaiting} - seen
        seen |= further
        todo += further
    return False


def send_cast(server: Any, request: Any) -> None:
    """Send `request` to a server's ``handle_cast``; never blocks, works from any thread.

    Casts to the dead and to unknown names vanish.

    Source:
        OTP ``gen_server:cast/2``.
    """
    with contextlib.suppress(NoProcess):
        process.send(server, Cast(request))


def reply(from_: From, value: Any) -> bool:
    """Answer the caller that ``handle_call`` left waiting; any process of its thread may.

    Returns:
        False if it has its answer already, or waits no more: nothing is sent.

    Source:
        OTP ``gen_server:reply/2``, where a second reply leaves a stray message.
    """
    if not isinstance(from_, From):
        raise TypeError(f"reply: expected the from_ of a handle_call, got {from_!r}")
    process.same_hub(from_.server)
    return from_.answer(value)


def stop(server: Any, reason: Any = "normal", timeout: float | None = None) -> None:
    """Have a server run ``terminate(reason)`` and die so; blocks until it is dead.

    It first handles the messages that are there already.

    Args:
        server: A handle, a pid or a registered name.
        reason: What it dies of.
        timeout: Seconds; None waits for ever.  It stops all the same.

    Raises:
        NoProcess: It was dead, or nobody has the name.
        ServerExited: It died of another reason.
        CallTimeout: It is not dead yet.

    Source:
        OTP ``gen_server:stop/3``.
    """
    check_timeout(timeout)
    pid = partner(server)
    pid.mailbox.append(System(None, "terminate", reason))
    try:
        died_of = process.await_death(pid, timeout)
    except Expired:
        raise CallTimeout(pid, timeout) from None
    if died_of is not reason and died_of != reason:
        raise ServerExited(pid, died_of) from getattr(died_of, "exception", None)
