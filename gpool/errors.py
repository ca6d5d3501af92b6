"""Every exception that gpool raises, in one tree under :class:`GPoolError`.

Facts go to the constructor and to attributes; ``str`` words them: which thing,
what happened, the numbers, what to try.

The exit signal of a process is not here: it is no error but a way to die, see
:class:`gpool.otp.pid.ExitSignal`.
"""

from __future__ import annotations

from typing import Any


class GPoolError(Exception):
    """Base of all errors that gpool raises."""


def _who(process: Any) -> str:
    """Word a process, a handle or a name so that its reader knows which one is meant."""
    pid = getattr(process, "pid", process)
    name, runs = getattr(pid, "name", None), getattr(pid, "initial_call", None)
    if name is not None:
        return f"{name!r} {pid!r}"
    return f"{process!r}" if runs is None else f"{pid!r} ({runs})"


def one_line(error: BaseException) -> str:
    """Word an exception on one line, though a driver's text may have many.

    :meta private:
    """
    kind, text = type(error).__name__, " ".join(str(error).split())
    return f"{kind}: {text}" if text else kind


def in_words(reason: Any) -> str:
    """Word on one line why a start, or a pool, has failed.

    :meta private:
    """
    match reason:
        case ("start_timeout", float() | int() as seconds):
            return f"one took longer than start_timeout, {seconds:g} s"
        case ("start_failures", last):
            return f"its starts fail, the last one by {in_words(last)}"
    error = getattr(reason, "exception", None)
    return repr(reason) if error is None else one_line(error)


class Timeout(GPoolError):
    """Base of every gpool time-out; on purpose not the builtin, an ``OSError``."""


class ReceiveTimeout(Timeout):
    """No matching message came in time."""

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.timeout = timeout

    def __str__(self) -> str:
        return f"no matching message within {self.timeout:g} s"


class NoProcess(GPoolError, LookupError):
    """The process is dead, or nobody is registered under the name."""

    def __init__(self, process: Any) -> None:
        super().__init__(process)
        self.process = process

    def __str__(self) -> str:
        if isinstance(self.process, str):
            return f"no process is registered as {self.process!r}"
        if isinstance(self.process, tuple):
            return f"no process is registered as {self.process[-1]!r} in {self.process[0]!r}"
        if getattr(self.process, "pid", self) is None:
            return f"{self.process!r} was never started"
        return f"{_who(self.process)} is not alive"


class NameTaken(GPoolError, ValueError):
    """The name belongs to another process, or the process has a name already."""

    def __init__(self, name: Any, owner: Any) -> None:
        super().__init__(name, owner)
        self.name, self.owner = name, owner

    def __str__(self) -> str:
        return f"the name {self.name!r} is taken by {_who(self.owner)}"


class BadName(GPoolError, ValueError):
    """A process cannot be registered so: it is dead, or the name is no name."""

    def __init__(self, name: Any, why: str) -> None:
        super().__init__(name, why)
        self.name, self.why = name, why

    def __str__(self) -> str:
        return f"cannot register {self.name!r}: {self.why}"


class WrongHub(GPoolError):
    """A process of another thread was used for more than send, cast or exit."""

    def __init__(self, process: Any) -> None:
        super().__init__(process)
        self.process = process

    def __str__(self) -> str:
        return (
            f"{_who(self.process)} belongs to another thread's hub; across threads only send, cast "
            "and exit work: do the rest from a greenlet of the thread that started it"
        )


class CallTimeout(Timeout):
    """The server did not answer in time; it still runs the request."""

    def __init__(self, server: Any, timeout: float | None) -> None:
        super().__init__(server, timeout)
        self.server, self.timeout = server, timeout

    def __str__(self) -> str:
        return (
            f"{_who(self.server)} did not answer within {self.timeout:g} s; what it is at, "
            "process_info tells"
        )


class CallingSelf(GPoolError):
    """A process called itself, or one that waits for it: it would wait for ever."""

    def __init__(self, server: Any, waits_for: Any = None) -> None:
        super().__init__(server, waits_for)
        self.server, self.waits_for = server, waits_for

    def __str__(self) -> str:
        if self.waits_for is None:
            return f"{_who(self.server)} called itself and would wait for ever"
        return (
            f"{_who(self.waits_for)} called {_who(self.server)}, which waits for it to start or "
            "stop: both would wait for ever; cast instead, or call from handle_continue"
        )


class ServerExited(GPoolError):
    """The server died before it answered; the cause is its exception, if it had one."""

    def __init__(self, server: Any, reason: Any) -> None:
        super().__init__(server, reason)
        self.server, self.reason = server, reason

    def __str__(self) -> str:
        return f"{_who(self.server)} died before it answered: {self.reason!r}"


class CallbackFailed(GPoolError):
    """What ``sys`` had a server run for the caller raised; the server's state is unchanged."""

    def __init__(self, server: Any, exception: BaseException) -> None:
        super().__init__(server, exception)
        self.server, self.exception = server, exception

    def __str__(self) -> str:
        return f"what ran in {_who(self.server)} for the caller raised {self.exception!r}"


class StartError(GPoolError):
    """A process did not start; nothing of it is left behind."""

    def __init__(self, what: Any, reason: Any) -> None:
        super().__init__(what, reason)
        self.what, self.reason = what, reason

    def __str__(self) -> str:
        return f"{self.what} did not start: {in_words(self.reason)}"


class SpecError(GPoolError, ValueError):
    """A child specification or a supervisor's option is wrong; nothing was started."""

    def __init__(self, fault: str, expected: str, got: Any) -> None:
        super().__init__(fault, expected, got)
        self.fault, self.expected, self.got = fault, expected, got

    def __str__(self) -> str:
        return f"{self.fault}: expected {self.expected}, got {self.got!r}"


class ChildError(GPoolError):
    """A supervisor refused a request about one child; `reason` is OTP's word."""

    def __init__(self, supervisor: Any, child: Any, reason: Any) -> None:
        super().__init__(supervisor, child, reason)
        self.supervisor, self.child, self.reason = supervisor, child, reason

    def __str__(self) -> str:
        return f"child {self.child!r} of {self.supervisor!r}: {self.reason!r}"


class RunError(GPoolError):
    """Something that ``gpool.run`` ran has failed; the cause is its exception, if it had one."""

    def __init__(self, what: str, reason: Any) -> None:
        super().__init__(what, reason)
        self.what, self.reason = what, reason

    def __str__(self) -> str:
        return f"{self.what} has failed: {self.reason!r}; all else was stopped"


# --- Pools --------------------------------------------------------------------------


class PoolError(GPoolError):
    """Base of the errors of one pool; `pool` is its name."""


class CheckoutTimeout(PoolError, Timeout):
    """No worker became free before the client's time-out.

    Its cause is the last start failure, if the pool cannot start workers now.
    """

    def __init__(
        self,
        pool: str,
        timeout: float,
        busy: int,
        starting: int,
        waiting: int,
        oldest: Any = None,
        start_failure: Any = None,
        suspended: bool = False,
    ) -> None:
        super().__init__(pool, timeout, busy, starting, waiting, oldest, start_failure, suspended)
        self.pool, self.timeout = pool, timeout
        self.busy, self.starting, self.waiting = busy, starting, waiting
        self.oldest = oldest  # the holder that has had its worker for the longest time, or None
        self.start_failure = start_failure  # why workers cannot be started now, or None
        self.suspended = suspended  # nothing is lent or started until it is resumed

    def __str__(self) -> str:
        what = (
            f"pool {self.pool!r}: no worker free after {self.timeout:g} s ({self.busy} busy, "
            f"{self.starting} starting, {self.waiting} clients waiting)"
        )
        if self.suspended:
            return f"{what}; it is suspended, until resume()"
        if self.oldest is not None:
            what += f"; oldest holder: {self.oldest}"
        if self.start_failure is not None:
            return (
                f"{what}; workers do not start: {in_words(self.start_failure)}; it goes on trying"
            )
        if self.starting and self.oldest is None:
            return f"{what}; a start has not ended yet: look at what workers connect to"
        return f"{what}; raise size or timeout, or look for clients that never check in"


class PoolFull(PoolError):
    """As many clients wait as may; nobody else is let into the queue."""

    def __init__(self, pool: str, max_waiting: int, cap: int) -> None:
        super().__init__(pool, max_waiting, cap)
        self.pool, self.max_waiting, self.cap = pool, max_waiting, cap

    def __str__(self) -> str:
        what = f"{self.max_waiting} clients wait already" if self.max_waiting else "nobody may wait"
        return (
            f"pool {self.pool!r}: {what}, for {self.cap} workers; shed load, or raise max_waiting "
            "or size"
        )


class PoolClosed(PoolError):
    """The pool is stopping or has stopped."""

    def __init__(self, pool: str) -> None:
        super().__init__(pool)
        self.pool = pool

    def __str__(self) -> str:
        return f"pool {self.pool!r} is closed; start() opens it again"


class PoolFailed(PoolError):
    """The pool fell, or its starts failed, more often than they may; it will be revived.

    Its cause is the last start failure, if that was it.
    """

    def __init__(self, pool: str, reason: Any) -> None:
        super().__init__(pool, reason)
        self.pool, self.reason = pool, reason

    def __str__(self) -> str:
        return (
            f"pool {self.pool!r} has failed: {in_words(self.reason)}; it is revived by itself, "
            "look for what kills its manager or keeps its workers from starting"
        )


class StartsFailing(PoolError):
    """No worker is up and starts fail; the cause is the last one's, if it was an exception.

    Only a pool with ``fail_fast`` raises it.
    """

    def __init__(self, pool: str, failures: int, reason: Any) -> None:
        super().__init__(pool, failures, reason)
        self.pool, self.failures, self.reason = pool, failures, reason

    def __str__(self) -> str:
        return (
            f"pool {self.pool!r}: no worker is up, and starts fail ({self.failures} in a row): "
            f"{in_words(self.reason)}; it goes on trying"
        )


class CheckoutDeadlock(PoolError):
    """This checkout could never succeed: all who hold a worker wait for another one.

    `holders` are they; raised in the client that would have closed the circle.  That
    another greenlet may check in one of their leases is not looked for: give such a
    checkout a timeout.
    """

    def __init__(self, pool: str, holders: tuple[Any, ...]) -> None:
        super().__init__(pool, holders)
        self.pool, self.holders = pool, holders

    def __str__(self) -> str:
        who = "; ".join(map(str, self.holders))
        return (
            f"pool {self.pool!r}: all {len(self.holders)} workers are held by clients that wait "
            f"for another one without a timeout: {who}; do not nest checkouts, or give a timeout"
        )


class LeaseLost(PoolError):
    """The lease is over: its worker was given back, or died, or its pool fell."""

    def __init__(self, pool: str, lease: Any) -> None:
        super().__init__(pool, lease)
        self.pool, self.lease = pool, lease

    def __str__(self) -> str:
        return f"pool {self.pool!r}: {self.lease} is over; check out again"


class WrongHolder(PoolError):
    """In debug mode: a greenlet used, or gave back, what another one holds."""

    def __init__(self, pool: str, user: Any, holder: Any) -> None:
        super().__init__(pool, user, holder)
        self.pool = pool
        self.user = user  # its pid; the greenlet itself, if that is no process
        self.holder = holder  # who has the worker, for how long, since which line

    def __str__(self) -> str:
        return (
            f"pool {self.pool!r}: {_who(self.user)} used, or gave back, what "
            f"{_who(self.holder.pid)} holds, for {self.holder.age:.3g} s, from "
            f"{self.holder.line}; check out another worker, or transfer() the lease"
        )


class PoolNotReady(PoolError, Timeout):
    """The pool's workers were not up in time; its cause is the last start failure."""

    def __init__(
        self, pool: str, timeout: float, ready: int, size: int, start_failure: Any = None
    ) -> None:
        super().__init__(pool, timeout, ready, size, start_failure)
        self.pool, self.timeout, self.ready, self.size = pool, timeout, ready, size
        self.start_failure = start_failure  # the last one, or None

    def __str__(self) -> str:
        what = f"pool {self.pool!r}: {self.ready} of {self.size} workers up"
        why = ""
        if self.start_failure is not None:
            why = f"; the last start failed: {in_words(self.start_failure)}"
        return f"{what} after {self.timeout:g} s{why}; it goes on trying"


class UnknownPool(PoolError, LookupError):
    """No pool of that name is running."""

    def __init__(self, pool: str) -> None:
        super().__init__(pool)
        self.pool = pool

    def __str__(self) -> str:
        return f"no pool {self.pool!r} is running"
