"""What a client has of a pool: its leases, and its ticket while it waits.

A :class:`Lease` is a capability: whoever has it may check it in, once; again,
or when it is lost, is a counted no-op.  The client that checked it out, its
owner, decides only whose death reclaims it.

The move busy -> idle stands here, in ``checkin`` and ``__exit__``, as well as in
``pool_state.py``: this is the fast way back, taken when nothing is special.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from sys import _getframe, exception, getrefcount
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from greenlet import getcurrent

from gpool import clock, telemetry
from gpool.errors import LeaseLost
from gpool.otp.pid import FORKED, Keeper, Pid
from gpool.pool.slot import BUSY, LOST, NOTHING, Slot, SlotState
from gpool.waiter import Waiter

W = TypeVar("W")

_numbers = itertools.count(1)
# Modules, and all in them, where clients wait on behalf of others; each with a dot at its end.
_passed_over: tuple[str, ...] = ("gpool.pool.", "gpool.waiter.", "gpool.integrations.")


#: Who sees to a worker that comes back, and the state that it comes back in.
Back = tuple[Callable[[Slot], object], SlotState]


class Books(Protocol):
    """What a lease needs of its pool; the Ledger has it."""

    name: str
    epoch: int
    phase: Any
    lease_class: type[Lease[Any]]
    back: Back | None  # sees to a worker that comes back, if all is ordinary
    man: Any  # the PoolMan in charge, or None

    def checkin(self, lease: Lease[Any], error: BaseException | None) -> None:
        """Take a worker back, in the condition that `error` tells."""

    def discard(self, lease: Lease[Any], reason: Any) -> None:
        """Take a worker back to be stopped."""

    def transfer(self, lease: Lease[Any], heir: Any) -> None:
        """Give a lease another owner."""

    def leave_fast_path(self, client: Client) -> None:
        """Know a client by its process alone."""

    def note(self, event: telemetry.Event) -> None:
        """Have the listeners told, later."""

    def client_died(self, client: Client, reason: Any) -> None:
        """Reclaim what a dead client holds."""

    def struck(self) -> None:
        """An exception hit a transition."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a worker: the client's pid, for how many seconds, since which line."""

    pid: Pid
    worker: Any
    age: float
    line: str
    process: Pid | None = None  # the worker's, or the one that owns or closes the resource

    def __str__(self) -> str:
        return f"{self.pid!r}, for {self.age:.3g} s, from {self.line}"


@dataclass(frozen=True, slots=True)
class WaitingClient:
    """Who waits for a worker: the client's pid, for how many seconds, how many are left, where."""

    pid: Pid
    waited: float
    left: float | None  # None: it waits for ever
    line: str


class Lease(Generic[W]):
    """One worker in the hands of one client, from checkout to checkin.

    As a context manager it yields the worker and checks it in at the end: kept
    after a normal end, discarded if a ``BaseException`` such as a kill or a
    ``gevent.Timeout`` ended the block.  A resource is also discarded if its owner was told to
    exit meanwhile and the block does not show it: a driver may have swallowed that.
    """

    __slots__ = (
        "code", "epoch", "lasti", "ledger", "number_drawn", "owner", "since", "slot", "waited",
    )  # fmt: skip

    def __init__(
        self,
        ledger: Books,
        owner: Client,
        since: float,
        code: CodeType | None = None,
        lasti: int = 0,
        slot: Slot | None = None,
    ) -> None:
        self.ledger = ledger
        self.owner = owner  # whose death reclaims it
        self.since = since  # seconds of gpool's clock
        self.waited = 0.0  # seconds until it was granted
        self.code = code  # where it was checked out; None until that is known ...
        self.lasti = lasti  # ... and at which instruction
        self.epoch = ledger.epoch
        self.slot = slot  # None until it is granted, and once it is given back
        self.number_drawn = 0  # drawn when it is read

    # --- The worker ---

    @property
    def worker(self) -> W:
        """The worker that is lent: a server's handle, or a resource.

        Raises:
            LeaseLost: It was given back, or it died.
        """
        slot = self.slot
        if slot is None or self.lost:
            raise LeaseLost(self.ledger.name, self)
        thing: W = slot.thing
        return thing

    resource = worker

    @property
    def lost(self) -> bool:
        """Whether the worker has died, or its pool has fallen, in the client's hands."""
        slot = self.slot
        return slot is not None and (
            slot.lease is not self or slot.state is LOST or self.is_the_parents
        )

    @property
    def is_the_parents(self) -> bool:
        """Whether it belongs to the operating system process that this one was forked off."""
        return self.owner.pid.state is FORKED

    @property
    def number(self) -> int:
        """A number that no other lease has."""
        if not self.number_drawn:
            self.number_drawn = next(_numbers)
        return self.number_drawn

    @property
    def line(self) -> str:
        """Where it was checked out: file, line and function."""
        if self.code is None:  # it was granted, and its client does not know yet
            return line_of_client(self.owner.pid.runner())
        return line_of(self.code, self.lasti)

    def locate(self) -> None:
        """Have `line` tell of who has called the modules that :func:`pass_over` names.

        For integrations, right after a checkout on behalf of others; never blocks.
        """
        frame = _frame_of_client(_getframe(1))
        if frame is not None:
            self.code, self.lasti = frame.f_code, frame.f_lasti

    def holder(self) -> Holder:
        """Describe who has it, for those who look."""
        slot, age = self.slot, clock.now() - self.since
        if slot is None:
            return Holder(self.owner.pid, NOTHING, age, self.line)
        return Holder(self.owner.pid, slot.thing, age, self.line, slot.pid)

    # --- Its end ---

    def checkin(self) -> None:
        """Give the worker back; never blocks.

        While a ``BaseException`` that is no ``Exception`` is being handled (a
        ``finally`` after a kill) a resource counts as dirty and is discarded.
        """
        error = exception()
        if error is not None and not isinstance(error, Exception):
            self.ledger.checkin(self, error)
            return
        # The moves of `__exit__`: calling that would cost as much as they do.
        owner = self.owner
        is_mine = getcurrent() is owner.greenlet
        # From here until it is over there is no call: signal handlers run between calls.
        slot, back = self.slot, self.ledger.back
        if (
            is_mine
            and back is not None
            and slot is not None
            and slot.lease is self
            and (slot.mailbox is None or slot.mailbox.resting)
        ):
            try:
                self.slot = slot.lease = None  # first: from then on it is over
                see_to, slot.state = back
                if owner.lease is self:
                    owner.lease = None
                else:
                    owner.drop(self)
                see_to(slot)
            except BaseException:
                self.ledger.struck()
                raise
            if telemetry.meters:
                telemetry.checked_in(self, clock.now())
            return
        self.ledger.checkin(self, None)

    def discard(self, reason: Any = "discarded") -> None:
        """Give the worker back to be stopped, not lent again; never blocks.

        Args:
            reason: What WorkerStopping tells.
        """
        self.ledger.discard(self, reason)

    def transfer(self, to: Any) -> None:
        """Make the death of process `to` reclaim the worker, instead of the owner's.

        Args:
            to: A pid, a handle or a name; a greenlet's pid it gets by ``self()``.

        Raises:
            LeaseLost: The lease is over.
            NoProcess: `to` is dead, or nobody has the name.
            TypeError: It is no process.
            WrongHub: It lives, or the pool runs, in another thread.
        """
        self.ledger.transfer(self, to)

    def __enter__(self) -> W:
        slot = self.slot
        if slot is None or slot.lease is not self or slot.state is not BUSY:
            raise LeaseLost(self.ledger.name, self)
        thing: W = slot.thing
        return thing

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            owner = self.owner
            is_mine = getcurrent() is owner.greenlet
            # From here until it is over there is no call: signal handlers run between calls.
            slot, back = self.slot, self.ledger.back
            if (
                is_mine
                and back is not None
                and slot is not None
                and slot.lease is self
                and (slot.mailbox is None or slot.mailbox.resting)
            ):
                try:
                    self.slot = slot.lease = None  # first: from then on it is over
                    see_to, slot.state = back
                    if owner.lease is self:
                        owner.lease = None
                    else:
                        owner.drop(self)
                    see_to(slot)
                except BaseException:
                    self.ledger.struck()
                    raise
                if telemetry.meters:
                    telemetry.checked_in(self, clock.now())
                return
        self.ledger.checkin(self, error)

    def __repr__(self) -> str:
        state = "lost" if self.lost else "over" if self.slot is None else "held"
        return f"<Lease of {self.ledger.name!r}, {state}, by {self.owner.pid!r} at {self.line}>"


def begun(lease: Lease[W], code: CodeType, lasti: int) -> Lease[W]:
    """Its client knows of a lease, which it has checked out there; the meters are told."""
    lease.code, lease.lasti = code, lasti
    if telemetry.meters:
        telemetry.checked_out(lease, lease.since)
    return lease


def line_of(code: CodeType, lasti: int) -> str:
    """Return file, line and function of an instruction."""
    position = next(itertools.islice(code.co_positions(), lasti // 2, None))
    return f"{code.co_filename}:{position[0]} in {code.co_qualname}"


def line_of_client(greenlet: Any) -> str:
    """Return the line at which a greenlet has called the pool that it waits for."""
    frame = _getframe() if greenlet is getcurrent() else getattr(greenlet, "gr_frame", None)
    frame = _frame_of_client(frame)
    return "?" if frame is None else line_of(frame.f_code, frame.f_lasti)


def _frame_of_client(frame: FrameType | None) -> FrameType | None:
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith(_passed_over):
        frame = frame.f_back
    return frame


def pass_over(*modules: str) -> None:
    """Have lines told of who calls these modules, not of a line in them.

    For integrations: who waits, and who holds what, is shown by the line of the user's own
    code.  Waiting clients are found so; a lease is by :meth:`Lease.locate`.

    Args:
        modules: Their full names.  ``"redis"`` is that package and all in it, as
            ``redis.client``, but not ``redis_app``.

    Raises:
        TypeError: One is no name of a module.
    """
    global _passed_over
    for module in modules:
        if not (isinstance(module, str) and all(map(str.isidentifier, module.split(".")))):
            raise TypeError(f"modules: expected names of modules, got {module!r}")
    _passed_over = tuple(dict.fromkeys((*_passed_over, *(f"{module}." for module in modules))))


def is_dropped(slot: Slot) -> bool:
    """Tell whether only the books refer to the lease of a slot: nobody can give it back."""
    return getrefcount(slot.lease) - (slot.last is slot.lease) <= _DROPPED


def _count_of_dropped() -> int:
    slot = Slot()
    slot.lease = object()
    owners = [slot.lease]
    return getrefcount(slot.lease) if owners else 0


def _count_of_spare() -> int:
    slot = Slot()
    slot.last = lease = object()
    return getrefcount(lease)


_DROPPED: Final = _count_of_dropped()
SPARE: Final = _count_of_spare()  # references to a lease that only its slot has, and a variable


class Ticket(Waiter):
    """A client's place in the queue: waiting, then granted, then accepted or given up."""

    __slots__ = ("client", "error", "lease", "number", "since", "timeout", "waits")

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.number = 0  # order of arrival
        self.since = 0.0  # seconds
        self.timeout: float | None = None  # seconds; None: for ever
        self.waits = False  # it stands in line
        self.lease: Lease[Any] | None = None  # it was granted that, and does not yet know it
        self.error: Exception | None = None  # why it gets nothing

    @property
    def deadline(self) -> float | None:
        """Until when it waits, in seconds of gpool's clock; None: for ever."""
        return None if self.timeout is None else self.since + self.timeout

    @property
    def line(self) -> str:
        """Where its client waits: file, line and function."""
        return line_of_client(self.client.pid.runner())

    def waiting(self) -> WaitingClient:
        """Describe who has it, for those who look."""
        waited = self.waited
        left = None if self.timeout is None else max(self.timeout - waited, 0.0)
        return WaitingClient(self.client.pid, waited, left, self.line)

    @property
    def still_waits(self) -> bool:
        """Whether it was neither granted a worker nor told that it gets none."""
        return self.lease is None and not (self.error is not None and self.woken)

    @property
    def waited(self) -> float:
        """Seconds since it was drawn."""
        return clock.now() - self.since

    def grant(self, slot: Slot) -> bool:
        """Let its client have a busy worker that nobody has; its lease is made or lent again.

        Returns:
            False if a signal handler has killed the worker meanwhile: nothing was done.
        """
        client = self.client
        lease: Lease[Any] = slot.spare
        slot.spare, slot.last = slot.last, lease
        if getrefcount(lease) == SPARE:
            lease.owner, lease.since, lease.code = client, self.since, None
            lease.number_drawn = 0
        else:
            lease = client.ledger.lease_class(client.ledger, client, self.since)
            slot.last = lease if type(lease) is Lease else None  # a proxy may know others
        if slot.state is not BUSY:
            return False
        lease.slot, slot.lease, self.lease = slot, lease, lease
        if client.lease is None:
            client.lease = lease
        else:
            client.take(lease)
        return True

    def __repr__(self) -> str:
        return f"<Ticket {self.number} of {self.client.pid!r}>"


class Booking(Ticket):
    """The ticket of a process that has not yet run, and waits for what others asked for."""

    __slots__ = ("code", "lasti")

    def __init__(self, client: Client, code: CodeType, lasti: int) -> None:
        super().__init__(client)
        self.code = code  # where they did ...
        self.lasti = lasti  # ... and at which instruction

    @property
    def line(self) -> str:
        """Where they asked."""
        return line_of(self.code, self.lasti)

    def grant(self, slot: Slot) -> bool:
        """As any ticket; but it knows from which line."""
        is_granted = super().grant(slot)
        if self.lease is not None:
            self.lease.code, self.lease.lasti = self.code, self.lasti
        return is_granted


class Client:
    """A process that a pool has met: what it holds, where it waits."""

    __slots__ = ("greenlet", "lease", "ledger", "more", "next", "pid", "spare", "ticket")

    def __init__(self, ledger: Books, pid: Pid) -> None:
        self.ledger = ledger
        self.pid = pid
        self.greenlet: Any = None  # its key in the ledger; None: for a raw one, and once it exits
        self.lease: Lease[Any] | None = None  # one that it has; few have several ...
        self.more: dict[Lease[Any], None] | None = None  # ... these are the others
        self.ticket: Ticket | None = None  # while it waits
        self.spare: Ticket | None = None  # that it redeemed last: used again
        self.next: Keeper | None = None

    @property
    def watcher(self) -> Pid | None:
        """PoolMan, if one is in charge."""
        man = self.ledger.man
        return None if man is None else cast("Pid", man.pid)

    @property
    def leases(self) -> list[Lease[Any]]:
        """All that it has."""
        one = [] if self.lease is None else [self.lease]
        return one + list(self.more or ())

    def take(self, lease: Lease[Any]) -> None:
        """It has one more."""
        if self.lease is None:
            self.lease = lease
        elif self.more is None:
            self.more = {lease: None}
        else:
            self.more[lease] = None

    def drop(self, lease: Lease[Any]) -> None:
        """It has one no more, if it had it."""
        if self.lease is lease:
            self.lease = None
        elif self.more is not None:
            self.more.pop(lease, None)

    def book(self, code: CodeType, lasti: int) -> Ticket:
        """Draw a ticket for a process that has not yet run, to wait for ever."""
        ticket = Booking(self, code, lasti)
        ticket.number, ticket.since = next(_numbers), clock.now()
        return ticket

    def draw(self, timeout: float | None) -> Ticket:
        """Draw a ticket to wait for so many seconds."""
        ticket, self.spare = self.spare, None  # a signal handler that waits draws another one
        if ticket is None:
            ticket = Ticket(self)
        else:
            ticket.woken = False  # as by `renew`: a call would cost as much again
            ticket._callback = ticket.error = None
        ticket.number, ticket.since, ticket.timeout = next(_numbers), clock.now(), timeout
        return ticket

    def has(self, lease: Lease[Any]) -> bool:
        """Tell whether it has it."""
        return self.lease is lease or (self.more is not None and lease in self.more)

    def part(self) -> None:
        """Keep its process no more."""
        if self.pid.keeper is self:
            self.pid.keeper = self.next
        for keeper in keepers_of(self.pid):
            if keeper.next is self:
                keeper.next = self.next

    def doomed(self, reason: Any) -> None:
        """Its exit was accepted: no fast path is open to it any more."""
        self.ledger.leave_fast_path(self)

    def down(self, pid: Pid, reason: Any) -> None:
        """It is dead: what it holds is reclaimed, its ticket withdrawn."""
        self.ledger.client_died(self, reason)


def keepers_of(pid: Pid) -> list[Keeper]:
    """Return all keepers of a process: the clients that it is, and who else must know."""
    found: list[Keeper] = []
    keeper = pid.keeper
    while keeper is not None:
        found.append(keeper)
        keeper = keeper.next
    return found
