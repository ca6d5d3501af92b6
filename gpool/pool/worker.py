"""The workers of a pool: servers, owners of resources, or whatever a specification starts.

Each kind of pool (:class:`Servers`, :class:`Resources`, :class:`Children`) says how
a worker is started without waiting for it, in what condition it comes back, and
whether something is left to close when its process is dead.

Not here: what a resource is (``resource.py``), who has which worker
(``pool_state.py``), their supervisor (``worker_sup.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from gpool import clock
from gpool.errors import StartError
from gpool.otp import gen_server, process
from gpool.otp.child_spec import ChildSpec
from gpool.otp.gen_server import GenServer
from gpool.otp.pid import Pid
from gpool.otp.signal import signal
from gpool.otp.supervisor import Supervisor
from gpool.pool.options import Options
from gpool.pool.resource import Resource, ResourceOwner, close
from gpool.pool.slot import NOTHING, Slot, Verdict


class Fall:
    """Tells that a process of the pool's own is doomed (its exit is accepted) or dead.

    Args:
        pid: The process.
        tell: Called with the reason, once or twice; must neither switch nor raise.
    """

    __slots__ = ("tell",)

    def __init__(self, pid: Pid, tell: Callable[[Any], object]) -> None:
        self.tell = pid.doomed = tell
        pid.monitored_by[self] = None

    def down(self, pid: Pid, reason: Any) -> None:
        """It is dead."""
        self.tell(reason)


class Watch:
    """The ties of one worker process to the books: told when it is up and when it is dead."""

    __slots__ = ("books", "failure", "owner", "slot")

    def __init__(self, books: Any, slot: Slot) -> None:
        self.books = books  # the Ledger
        self.slot = slot
        self.owner: Pid | None = None  # nobody waits for the start: its EXIT is no secret
        self.failure: Any = None  # why it was killed while it started

    def wake(self, outcome: tuple[str, Any]) -> None:
        """The start is over, one way or the other."""
        if outcome[0] == "ok":
            self.books.staff.started(self.slot)

    def too_slow(self, pid: Pid, supervisor: Pid, seconds: float) -> None:
        """The start has not ended in time: kill it."""
        self.failure = ("start_timeout", seconds)
        signal(pid, supervisor, "kill", direct=True)

    def doomed(self, reason: Any) -> None:
        """An exit of the worker's process was accepted."""
        self.books.staff.doomed(self.slot)

    def down(self, pid: Pid, reason: Any) -> None:
        """The worker's process is dead."""
        self.books.staff.died(self.slot, pid, self.failure or reason)


def bound(slot: Slot, seconds: float | None, fn: Callable[..., object], *args: Any) -> None:
    """Call ``fn(*args)`` unless what the slot's process does now is over in `seconds`."""
    cancel_timer(slot)
    if seconds is not None:
        slot.timer = clock.call_later(seconds, fn, *args)


def cancel_timer(slot: Slot) -> None:
    """What the slot's process did is over."""
    timer, slot.timer = slot.timer, None
    if timer is not None:
        timer.cancel()


class Servers:
    """The kind of pool whose workers are servers."""

    def __init__(
        self, server: type[GenServer], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.server, self.args, self.kwargs = server, args, kwargs

    quick = True  # a worker at rest may be lent again at once
    checks = False  # whether what is lent can be checked

    def launch(self, slot: Slot, watch: Watch, limit: float | None) -> Pid:
        """Start a worker in the running process's name, without waiting for it."""
        slot.thing = server = self.server(*self.args, **self.kwargs)
        pid = gen_server.launch(server, starter=watch, monitor=watch)
        slot.mailbox = pid.mailbox
        return pid

    def verdict(self, slot: Slot, error: BaseException | None) -> tuple[Verdict, Any]:
        """A worker that still works at what its holder asked for has to finish first."""
        return ("clean" if slot.mailbox.resting else "finish"), None

    def is_open(self, slot: Slot) -> bool:
        """A server is gone with its process."""
        return False

    def close(self, slot: Slot, limit: float | None) -> None:
        """Nothing is left to close."""


class Resources:
    """The kind of pool whose workers own resources."""

    def __init__(self, resource: Resource[Any]) -> None:
        self.resource = resource
        self.quick = resource.reset is None and resource.is_dirty is None
        self.checks = resource.check is not None

    def launch(self, slot: Slot, watch: Watch, limit: float | None) -> Pid:
        """Start a worker in the running process's name, without waiting for it."""
        owner = ResourceOwner(self.resource, slot, limit)
        return gen_server.launch(owner, starter=watch, monitor=watch)

    def verdict(self, slot: Slot, error: BaseException | None) -> tuple[Verdict, Any]:
        """Ask the resource; a hook that raises has it closed."""
        return self.resource.verdict(slot.thing, error)

    def is_open(self, slot: Slot) -> bool:
        """A resource outlives its worker until it is closed."""
        return slot.thing is not NOTHING

    def close(self, slot: Slot, limit: float | None) -> None:
        """Close a resource that has lost its worker; runs in a process of its own."""
        close(self.resource, slot, limit)


class Children:
    """The kind of pool whose workers are whatever a child specification starts.

    Each one lives under a supervisor of its own, so that its start blocks nobody.
    """

    quick = True
    checks = False

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec

    def launch(self, slot: Slot, watch: Watch, limit: float | None) -> Pid:
        """Start a worker in the running process's name, without waiting for it."""
        start = partial(self._start, slot, watch)
        spec = replace(self.spec, start=start, restart="temporary", significant=True, backoff=None)
        supervisor = Supervisor([spec], auto_shutdown="any_significant")
        return gen_server.launch(supervisor, starter=watch, monitor=watch)

    def _start(self, slot: Slot, watch: Watch, *args: Any, **kwargs: Any) -> Any:
        """Start the child, in its supervisor's process, and note what the client gets."""
        value = self.spec.start(*args, **kwargs)
        thing = value[0] if isinstance(value, tuple) else value
        if thing is None or getattr(thing, "pid", thing) is None:
            raise StartError(self.spec.id, "ignore")
        pid = process.resolve(thing)
        Fall(pid, watch.doomed)
        slot.thing = thing
        slot.mailbox = None if pid.server is None else pid.mailbox
        return value

    def verdict(self, slot: Slot, error: BaseException | None) -> tuple[Verdict, Any]:
        """A server that still works at what its holder asked for has to finish first."""
        busy = slot.mailbox is not None and not slot.mailbox.resting
        return ("finish" if busy else "clean"), None

    def is_open(self, slot: Slot) -> bool:
        """A child is gone with its supervisor."""
        return False

    def close(self, slot: Slot, limit: float | None) -> None:
        """Nothing is left to close."""


Kind = Servers | Resources | Children


def check_fit(kind: Kind, options: Options) -> None:
    """Raise if an option wants something of what is lent that it cannot do."""
    if options.keepalive is not None and not kind.checks:
        raise ValueError(
            f"keepalive: expected None, or a Resource with a check, got {options.keepalive!r}"
        )


def kind_of(worker: Any, args: Any, kwargs: Any) -> Kind:
    """Return the kind of pool for what a user wants to lend.

    Raises:
        TypeError: It is nothing that a pool can lend, or the arguments do not fit.
    """
    if not isinstance(args, tuple):
        raise TypeError(f"args: expected a tuple, got {args!r}")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs: expected a mapping, got {kwargs!r}")
    if isinstance(worker, type) and issubclass(worker, GenServer):
        return Servers(worker, args, dict(kwargs or {}))
    if not isinstance(worker, Resource | ChildSpec):
        expected = "a GenServer subclass, a Resource or a ChildSpec"
        raise TypeError(f"worker: expected {expected}, got {worker!r}")
    if args or kwargs:
        raise TypeError(f"args, kwargs: expected none with {worker!r}, got {args!r}, {kwargs!r}")
    return Resources(worker) if isinstance(worker, Resource) else Children(worker)
