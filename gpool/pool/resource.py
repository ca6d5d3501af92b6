"""Resources: things that a pool lends and the client uses directly.

A :class:`Resource` says how one is made, reset and closed.  Each one belongs to
a worker process, its owner: clients never connect and never clean up, so a kill
or a time-out of a client cannot interrupt either.

    >>> resource = Resource(create=list, close=list.clear)

Not here: other kinds of workers (``worker.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from gpool import clock, telemetry
from gpool.otp import gen_server, greenlets, process
from gpool.otp.gen_server import GenServer
from gpool.otp.pid import RUNNING
from gpool.otp.signal import signal
from gpool.pool.pool_state import NOTHING, Slot, Verdict

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Resource(Generic[R]):
    """How to make and end the things that a pool lends.

    Each callable runs in a worker process and may block, but for `is_dirty` and
    `is_broken`: they run at the checkin, in the client, and must be quick.

    Args:
        create: Makes one; what it raises is a failed start.
        close: Ends one.  Without it there is nothing to close.
        reset: Makes a returned one fit for the next client, at every checkin that
            does not discard it; what it raises has the resource closed.  Without
            it one that comes back by an exception is discarded.
        is_dirty: Whether a returned one must not be lent again, seen without I/O:
            how a driver shows a ``gevent.Timeout`` that somebody swallowed.
        is_broken: ``is_broken(exception, resource)``: whether the exception that
            ended the ``with`` block broke the resource.  Without it a
            ``BaseException`` that is no ``Exception`` does, an ``Exception`` does not.
    """

    create: Callable[[], R]
    close: Callable[[R], object] | None = None
    reset: Callable[[R], object] | None = None
    is_dirty: Callable[[R], bool] | None = None
    is_broken: Callable[[BaseException, R], bool] | None = None

    def __post_init__(self) -> None:
        for name in ("create", "close", "reset", "is_dirty", "is_broken"):
            hook = getattr(self, name)
            if not callable(hook) and (hook is not None or name == "create"):
                raise TypeError(f"{name}: expected a callable, got {hook!r}")

    def verdict(self, resource: R, error: BaseException | None) -> Verdict:
        """Say what is to become of a resource that comes back, ended by `error` or not."""
        broken = error is not None and not isinstance(error, Exception)
        if error is not None and self.is_broken is not None:
            broken = bool(self.is_broken(error, resource))
        if broken or (self.is_dirty is not None and self.is_dirty(resource)):
            return "close"
        if self.reset is not None:
            return "reset"
        return "clean" if error is None else "close"


class ResourceOwner(GenServer):
    """The worker process that owns one resource, from its creation to its end."""

    def __init__(self, resource: Resource[Any], slot: Slot, limit: float | None) -> None:
        self.resource = resource
        self.slot = slot
        self.limit = limit  # seconds that its close may take

    def init(self) -> None:
        """Create the resource; until that is done an exit signal interrupts it."""
        self.slot.thing = self.resource.create()
        process.trap_exit(True)

    def handle_cast(self, request: Any) -> gen_server.Stop | None:
        """Reset the resource; then whoever asked may lend it again."""
        assert self.resource.reset is not None
        try:
            self.resource.reset(self.slot.thing)
        except Exception as error:  # noqa: BLE001  # a failed reset is no crash
            telemetry.emit(telemetry.HookFailed(self.pid, "reset", error))
            return gen_server.Stop(("shutdown", "reset_failed"))
        request()
        return None

    def terminate(self, reason: Any) -> None:
        """Close the resource, unless a client has it: then it is closed at the release."""
        if self.slot.lease is None:
            close(self.resource, self.slot, self.limit)

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
            timer = clock.call_later(limit, partial(signal, me, me, "kill", direct=True))
        try:
            resource.close(slot.thing)
        except Exception as error:  # noqa: BLE001  # reported, and nothing is left to do
            telemetry.emit(telemetry.HookFailed(me, "close", error))
        except BaseException:
            if me.state is not RUNNING and not _had_its_time(begun, limit):
                slot.attempts -= 1  # somebody else's fall took it along; it goes well next time
            raise
        finally:
            if timer is not None:
                timer.cancel()
    slot.thing = NOTHING
    slot.attempts = 0


def _had_its_time(begun: float, limit: float | None) -> bool:
    # Nearly: whoever stops the process began to count a moment before us.
    return limit is not None and clock.now() - begun >= 0.9 * limit
