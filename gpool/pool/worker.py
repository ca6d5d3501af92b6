"""The workers of a pool: servers, owners of resources, or whatever a specification starts.

Each kind of pool (:class:`Servers`, :class:`Resources`, :class:`Children`) says how
a worker is started without waiting for it, in what condition it comes back, and
whether something is left to close when its process is dead.

Not here: what a resource is (``resource.py``), what a worker's process reports
(``watch.py``), who has which worker (``pool_state.py``), their supervisor
(``worker_sup.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from gpool.errors import StartError
from gpool.otp import gen_server, process
from gpool.otp.child_spec import ChildSpec
from gpool.otp.gen_server import GenServer
from gpool.otp.supervisor import Supervisor
from gpool.pool.options import Options
from gpool.pool.resource import Resource, ResourceOwner, close
from gpool.pool.slot import NOTHING, Slot, Verdict
from gpool.pool.watch import Fall, Watch


class Servers:
    """The kind of pool whose workers are servers."""

    def __init__(
        self, server: type[GenServer], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.server, self.args, self.kwargs = server, args, kwargs

    quick = True  # a worker at rest may be lent again at once
    checks = False  # whether what is lent can be checked

    def launch(self, slot: Slot, books: Any) -> Watch:
        """Start a worker in the running process's name, without waiting for it."""
        watch = Watch(books, slot)
        slot.thing = server = self.server(*self.args, **self.kwargs)
        slot.pid = gen_server.launch(server, starter=watch, keeper=watch)
        slot.mailbox = slot.pid.mailbox
        return watch

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

    def launch(self, slot: Slot, books: Any) -> Watch:
        """Start a worker in the running process's name, without waiting for it."""
        owner = ResourceOwner(books, slot)
        slot.pid = gen_server.launch(owner, starter=owner, keeper=owner)
        return owner

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

    def launch(self, slot: Slot, books: Any) -> Watch:
        """Start a worker in the running process's name, without waiting for it."""
        watch = Watch(books, slot)
        start = partial(self._start, slot, watch)
        spec = replace(self.spec, start=start, restart="temporary", significant=True, backoff=None)
        supervisor = Supervisor([spec], auto_shutdown="any_significant")
        slot.pid = gen_server.launch(supervisor, starter=watch, keeper=watch)
        return watch

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
