"""Resources: things that a pool lends and the client uses directly.

A :class:`Resource` says how one is made, checked, reset and closed.  Each one belongs to
a worker process, its owner: clients never connect and never clean up, so a kill
or a time-out of a client cannot interrupt either.

    >>> resource = Resource(create=list, close=list.clear)

Not here: other kinds of workers (``worker.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Literal, TypeVar

import gevent

from gpool import clock, telemetry
from gpool.otp import greenlets, process
from gpool.otp.gen_server import TIMEOUT, GenServer, Hibernate, IdleTimeout, Stop, Then
from gpool.otp.pid import DEAD, RUNNING
from gpool.otp.signal import is_word, signal
from gpool.pool.slot import NOTHING, Slot, Verdict
from gpool.pool.watch import Limit, Watch

R = TypeVar("R")

LINGER: Final = 0.1  # s for which the next reset is awaited: a greenlet each costs more
CUTS: Final = 10  # times that others may cut a close short before that counts
HOOK_FAILED: Final = (Exception, gevent.Timeout)  # noqa: TID251  # the hook's own: it ends here


@dataclass(frozen=True, slots=True)
class Resource(Generic[R]):
    """How to make and end the things that a pool lends.

    Each callable runs in a worker process and may block, within the pool's time limit
    for it, but for `is_dirty`, `is_broken` and `needs_reset`: they run at the checkin, in
    the client, and must be quick.  The process has a greenlet only while one of them runs, not
    always the same: what is local to a greenlet (``gevent.local``, in a patched program
    ``threading.local``) does not last from one to the next; context variables do.

    Args:
        create: Makes one; what it raises is a failed start.
        close: Ends one.  Without it there is nothing to close.
        reset: Makes a returned one fit for the next client, at every checkin that
            does not discard it; what it raises has the resource closed.  Without
            it one that comes back by an exception is discarded.
        check: Finds out whether an idle one is still alive, by raising or returning
            False if it is not.  It runs before a checkout if the resource was idle for
            ``check_after`` seconds, and while it is idle every ``keepalive`` seconds.
            One that is dead puts all under suspicion that were alive with it: the idle
            ones are closed, those that are lent are checked when they come back.
        is_dirty: Whether a returned one must not be lent again, seen without I/O:
            how a driver shows a ``gevent.Timeout`` that somebody swallowed.
        is_broken: ``is_broken(exception, resource)``: whether the exception that
            ended the ``with`` block broke the resource.  Without it a
            ``BaseException`` that is no ``Exception`` does, an ``Exception`` does not.
            So does the ``GeneratorExit`` of a generator that is closed: it was at a ``yield``,
            but whoever it gave the resource to there may have been cut short.  A hook whose
            driver shows that may be of another opinion.
            If it says so of an ``Exception`` (the server went away, it is read-only
            now), that puts all others under suspicion as well.
        needs_reset: Whether a returned one needs its `reset`, seen without I/O.  One that
            does not is lent again at once.  Without it each one does.

    Source:
        Suspicion: SQLAlchemy's ``pool_pre_ping`` and ``is_disconnect``, which
        invalidate a generation.  The bypass of the check: HikariCP.
    """

    create: Callable[[], R]
    close: Callable[[R], object] | None = None
    reset: Callable[[R], object] | None = None
    check: Callable[[R], object] | None = None
    is_dirty: Callable[[R], bool] | None = None
    is_broken: Callable[[BaseException, R], bool] | None = None
    needs_reset: Callable[[R], bool] | None = None

    def __post_init__(self) -> None:
        for name in (
            "create", "close", "reset", "check", "is_dirty", "is_broken", "needs_reset",
        ):  # fmt: skip
            hook = getattr(self, name)
            if not callable(hook) and (hook is not None or name == "create"):
                raise TypeError(f"{name}: expected a callable, got {hook!r}")

    def verdict(self, resource: R, error: BaseException | None) -> tuple[Verdict, Any]:
        """Say what is to become of a resource that comes back, ended by `error` or not, and why."""
        if error is not None and self.is_broken is not None:
            if self.is_broken(error, resource):
                return "close", ("broken", error)
        elif error is not None and not isinstance(error, Exception):
            return "close", ("left_by", error)
        if self.is_dirty is not None and self.is_dirty(resource):
            return "close", "dirty"
        if self.reset is not None:
            needs = self.needs_reset is None or self.needs_reset(resource)
            return ("reset" if needs else "clean"), None
        return ("clean", None) if error is None else ("close", ("left_by", error))


@dataclass(frozen=True, slots=True)
class Chore:
    """What makes a resource fit for its next client, and who is to be told of the outcome."""

    hook: Literal["reset", "check"]
    done: Callable[[], object]
    failed: Callable[[str], object]  # told why


class ResourceOwner(Watch, GenServer):
    """The worker process that owns one resource, from its creation to its end.

    It hibernates but for the time in which it creates, checks, resets or closes it, and a
    moment after a reset: where there is one it comes with every checkin.  There may be
    many of them, so each is its own watch, and has no attribute outside its slots.
    """

    __slots__ = ("pid",)

    def __init__(self, books: Any, slot: Slot) -> None:
        super().__init__(books, slot)
        self.pid = None

    @property
    def resource(self) -> Resource[Any]:
        """How to make and to end it."""
        found: Resource[Any] = self.books.kind.resource
        return found

    def init(self) -> Hibernate:
        """Create the resource; until that is done an exit signal interrupts it."""
        self.slot.thing = self.resource.create()
        assert self.pid is not None
        if self.pid.state is DEAD and self.resource.close is not None:
            # It swallowed its exit until it was given up: nobody else knows what it made now.
            self.resource.close(self.slot.thing)
        process.trap_exit(True)
        return Hibernate()

    def handle_cast(self, chore: Chore) -> Then:
        """Reset or check the resource; if that fails, whoever is told has it closed."""
        try:
            outcome = getattr(self.resource, chore.hook)(self.slot.thing)
        except HOOK_FAILED as error:  # that is no crash
            telemetry.emit(telemetry.HookFailed(self.pid, chore.hook, error))
            chore.failed(f"{chore.hook}_failed")
        else:
            if outcome is False and chore.hook == "check":
                chore.failed("check_failed")
            else:
                chore.done()
        return IdleTimeout(LINGER) if chore.hook == "reset" else Hibernate()

    def handle_info(self, message: Any) -> Then | Stop:
        """Nothing came, or what nobody should send it."""
        if is_word(message, TIMEOUT):
            return Hibernate()
        return super().handle_info(message) or Hibernate()

    def terminate(self, reason: Any) -> None:
        """Close the resource, unless a client has it: then it is closed at the release."""
        if self.slot.lease is None:
            close(self.resource, self.slot, self.books.options.shutdown)

    def format_status(self) -> Any:
        """Show the resource, not what is in it."""
        return {"resource": type(self.slot.thing).__name__, "lent": self.slot.lease is not None}


def close(resource: Resource[Any], slot: Slot, limit: float | None) -> None:
    """Close the slot's resource in the running process, which dies if it takes too long.

    Whatever else `close` raises, the resource counts as closed then.
    """
    if resource.close is not None and slot.thing is not NOTHING:
        slot.attempts += 1
        me, begun = greenlets.current(), clock.now()
        timer = None
        if limit is not None:
            timer = Limit(limit, partial(signal, me, me, "kill", direct=True))
        try:
            resource.close(slot.thing)
        except Exception as error:  # noqa: BLE001  # reported, and nothing is left to do
            telemetry.emit(telemetry.HookFailed(me, "close", error))
        except BaseException:
            if me.state is not RUNNING and not _had_its_time(begun, limit) and slot.cuts < CUTS:
                slot.attempts -= 1  # somebody else's fall took it along; it goes well next time
                slot.cuts += 1  # unless it is `close` itself that ends its process
            raise
        finally:
            if timer is not None:
                timer.cancel()
    slot.thing = NOTHING
    slot.attempts = slot.cuts = 0


def _had_its_time(begun: float, limit: float | None) -> bool:
    # Nearly: whoever stops the process began to count a moment before us.
    return limit is not None and clock.now() - begun >= 0.9 * limit
