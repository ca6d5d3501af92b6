"""Pool: what users hold.

    >>> pool = Pool(Resource(create=list), size=2, name="lists")
    >>> with pool.checkout() as things:
    ...     things.append(1)
    >>> pool.status()
    Status(state='ready', idle=2, overflow=0, busy=0)
    >>> pool.stop()

A pool does nothing before its first use: no hub, no greenlet, no lock.  Then it
runs under the Application until it is stopped.

The move idle -> busy stands here as well as in ``pool_state.py``: this is the
fast path of :meth:`Pool.checkout`, open while a worker is idle, nobody waits and
PoolMan is in charge.  A worker's last lease is used again if nobody refers to it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from sys import _getframe, getrefcount
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar, Unpack, cast, overload

import gevent
from greenlet import getcurrent

from gpool import clock
from gpool.errors import PoolNotReady
from gpool.otp import greenlets, process
from gpool.otp.child_spec import ChildSpec
from gpool.otp.gen_server import GenServer
from gpool.otp.pid import RUNNING, Pid
from gpool.otp.signal import signal
from gpool.pool.application import application
from gpool.pool.lease import Holder, Lease
from gpool.pool.ledger import Ledger
from gpool.pool.options import Options, OptionsDict, check_seconds
from gpool.pool.pool_state import BUSY
from gpool.pool.resource import Resource
from gpool.pool.worker import kind_of
from gpool.waiter import Expired, Gate, get_ident

W = TypeVar("W")
G = TypeVar("G", bound=GenServer)
R = TypeVar("R")
T = TypeVar("T")

DRAIN: Final = 5.0  # s that leaving `with` gives to those who still hold a worker
_DEFAULT: Final[Any] = object()
_names = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Status:
    """A pool at a glance.

    Source:
        poolboy ``status/1``; `state` is "down" in addition, between two managers.
    """

    state: Literal["ready", "overflow", "full", "down", "failed", "stopped"]
    idle: int
    overflow: int
    busy: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A pool's numbers, all of one moment; counts are since its start."""

    name: str
    phase: str
    size: int
    max_overflow: int
    idle: int
    busy: int
    starting: int
    finishing: int
    resetting: int
    closing: int
    lost: int  # resources without a worker that a client still holds
    overflow: int
    waiting: int
    epoch: int  # managers it has had; one less is its falls
    timed_out: int  # checkouts
    refused: int  # checkouts, by max_waiting
    stale: int  # checkins of a lease that was over
    reclaimed: int  # workers of clients that died
    start_failures: int
    unclosed: int  # resources whose close was begun twice and never ended
    last_start_failure: Any


class Pool(Generic[W]):
    """A supervised pool of workers.

    Args:
        worker: What is lent: a :class:`~gpool.otp.gen_server.GenServer` subclass, whose
            handles the clients get, a :class:`~gpool.pool.resource.Resource`, or a
            :class:`~gpool.otp.child_spec.ChildSpec`, what its `start` returns.
        args: Positional arguments of each server.
        kwargs: Keyword arguments of each server.
        name: Names it in errors and lists, and for :func:`get_pool`; unique.
        options: See :class:`~gpool.pool.options.Options`.

    Raises:
        TypeError, ValueError: An argument is wrong; nothing was started.
    """

    @overload
    def __init__(
        self: Pool[G], worker: type[G], args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None, *, name: str | None = None,
        **options: Unpack[OptionsDict],
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: Pool[Any], worker: ChildSpec, *, name: str | None = None,
        **options: Unpack[OptionsDict],
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self: Pool[R], worker: Resource[R], *, name: str | None = None,
        **options: Unpack[OptionsDict],
    ) -> None: ...  # fmt: skip
    def __init__(
        self,
        worker: type[GenServer] | Resource[Any] | ChildSpec,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        **options: Any,
    ) -> None:
        self._kind = kind_of(worker, args, kwargs)
        self._options = _options(options)
        if name is not None and not (isinstance(name, str) and name):
            raise TypeError(f"name: expected a text that is not empty, got {name!r}")
        self.name = name if name is not None else f"pool-{next(_names)}"
        self._ledger: Ledger | None = None  # of the run that was started last

    # --- Borrowing ---

    def checkout(self, *, timeout: float | None = _DEFAULT) -> Lease[W]:
        """Borrow a worker; blocks until one is free, unless one is idle.

        Clients are served in the order in which they asked.  Prefer
        ``with pool.checkout() as worker``; whatever happens, a worker comes back
        when the greenlet that checked it out is dead.

        Args:
            timeout: Seconds to wait, for a start of the pool and of a worker too;
                None waits for ever, 0 never waits; the pool's `timeout` if left out.

        Returns:
            The lease; as a context manager it yields the worker.

        Raises:
            CheckoutTimeout: No worker became free in time.
            PoolFull: `max_waiting` clients wait already.
            PoolClosed: The pool is stopping or was stopped.
            PoolFailed: It fell too often and is not yet revived.
            WrongHub: It runs in another thread.

        Source:
            poolboy ``checkout/3``; ``timeout=0`` stands for its ``Block = false``.
        """
        ledger = self._ledger
        try:
            frame = _getframe(1)
        except ValueError:  # gevent.spawn(pool.checkout): no Python code has called
            frame = _getframe()
        if ledger is not None and ledger.idle:
            client = ledger.clients.get(getcurrent())
            if client is not None and client.pid.state is RUNNING:
                try:
                    slot = ledger.idle.pop()
                    lease: Lease[W] = slot.spare
                    slot.spare = None
                    if lease is not None and getrefcount(lease) == SOLE:
                        lease.owner, lease.since = client, clock.now()
                        lease.code, lease.lasti = frame.f_code, frame.f_lasti
                        lease.slot, lease.number_drawn = slot, 0
                    else:
                        lease = Lease(
                            ledger, client, clock.now(), frame.f_code, frame.f_lasti, slot
                        )
                    slot.lease = lease
                    slot.state = BUSY
                    client.leases[lease] = None
                except BaseException:
                    ledger.struck()
                    raise
                return lease
        if timeout is _DEFAULT:
            timeout = self._options.timeout
        else:
            check_seconds("timeout", timeout)
        return self._running().checkout(timeout, frame.f_code, frame.f_lasti)

    def checkin(self, lease: Lease[W]) -> None:
        """Give a worker back; never blocks; see :meth:`Lease.checkin`.

        Raises:
            TypeError: It is no lease.
            ValueError: It is another pool's.
        """
        if not isinstance(lease, Lease):
            raise TypeError(f"lease: expected a Lease, got {lease!r}")
        if lease.ledger.name != self.name:
            raise ValueError(f"lease: expected one of pool {self.name!r}, got {lease!r}")
        lease.checkin()

    def transaction(self, fn: Callable[[W], T], *, timeout: float | None = _DEFAULT) -> T:
        """Return ``fn(worker)``, run with a worker that is borrowed for it.

        Raises:
            As :meth:`checkout`, and whatever `fn` raises.

        Source:
            poolboy ``transaction/2``.
        """
        with self.checkout(timeout=timeout) as worker:
            return fn(worker)

    # --- Life ---

    def start(self, timeout: float | None = 5.0) -> Self:
        """Start the pool, or start it again; blocks until its manager is in charge.

        Its workers start meanwhile, and may fail to: see :meth:`wait_ready`.

        Args:
            timeout: Seconds; None waits for ever.  It starts all the same.

        Raises:
            NameTaken: A pool of that name runs.
            PoolNotReady: No manager in time.
            PoolClosed: It was stopped meanwhile.
            WrongHub: It runs in another thread.
        """
        check_seconds("timeout", timeout)
        ledger = self._ledger
        if ledger is None or ledger.phase == "stopped" or ledger.is_gone:
            ledger = self._open()
        ledger.in_its_thread()
        try:
            ledger.risen.wait(timeout)
        except Expired:
            raise PoolNotReady(self.name, timeout or 0.0, 0, self._options.size) from None
        if not ledger.risen.is_open:
            ledger.refuse_unless_open()
        return self

    def wait_ready(self, timeout: float | None = 5.0) -> None:
        """Block until the pool had all its `size` workers up; a lazy or empty one: its manager.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            PoolNotReady: They were not up in time; its cause is the last start failure.
            PoolClosed, PoolFailed: It does not run, or no more.
            WrongHub: It runs in another thread.
        """
        check_seconds("timeout", timeout)
        ledger = self._running()
        ledger.in_its_thread()
        ledger.refuse_unless_open()
        has_workers = self._options.size > 0 and not self._options.lazy
        gate = ledger.ready if has_workers else ledger.risen
        if ledger.man is not None:
            ledger.man.keep_trying()
        try:
            gate.wait(timeout)
        except Expired:
            up = 0 if ledger.man is None else ledger.man.state.up
            cause = getattr(ledger.last_failure, "exception", None)
            raise PoolNotReady(self.name, timeout or 0.0, up, self._options.size) from cause
        if not gate.is_open:
            ledger.refuse_unless_open()

    def drain(self, timeout: float | None = DRAIN) -> bool:
        """Let nobody in any more; blocks until those who wait were served and all is back.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            Whether all came back in time.
        """
        check_seconds("timeout", timeout)
        ledger = self._ledger
        if ledger is None or ledger.phase not in ("up", "draining"):
            return True
        ledger.in_its_thread()
        ledger.phase = "draining"
        ledger.drained = ledger.drained or Gate()
        ledger.bar()
        if not ledger.held and not ledger.tickets:
            return True
        try:
            ledger.drained.wait(timeout)
        except Expired:
            return False
        return True

    def stop(self, timeout: float | None = 5.0) -> None:
        """Stop the pool and its workers; blocks until all are gone; twice is fine.

        Those who wait raise :class:`PoolClosed` at once.  Servers that are lent are
        stopped in their holders' hands; resources are closed when they are let go.

        Args:
            timeout: Seconds until what still runs is killed; None waits for ever.
        """
        check_seconds("timeout", timeout)
        ledger = self._ledger
        if ledger is None or ledger.is_gone:
            return
        greenlets.current()
        ledger.in_its_thread()
        if ledger.phase != "stopped":
            ledger.shut()
            application.forget(ledger)
        end = None if timeout is None else clock.now() + timeout
        if ledger.sup is not None:
            _stop_tree(ledger, ledger.sup, timeout)
        emptied = ledger.emptied = ledger.emptied or Gate()
        ledger.note_quiet()
        with contextlib.suppress(Expired):
            emptied.wait(None if end is None else end - clock.now())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.drain(DRAIN)
        finally:
            self.stop()

    # --- Looking ---

    def status(self) -> Status:
        """Return the pool at a glance; never blocks."""
        stats = self.stats()
        full = stats.size + stats.max_overflow
        if stats.phase != "up":
            state: Any = stats.phase if stats.phase in ("failed", "stopped") else "down"
        elif stats.busy >= full:
            state = "full"
        else:
            state = "overflow" if stats.busy >= stats.size else "ready"
        return Status(state, stats.idle, stats.overflow, stats.busy)

    def stats(self) -> Stats:
        """Return the pool's numbers, all of one moment; never blocks."""
        options, ledger = self._options, self._ledger
        if ledger is None:
            ledger = Ledger(self.name, self._kind, options)
            ledger.phase = "stopped"
        counts = ledger.counts()
        up = ledger.phase != "up" or ledger.man is not None
        return Stats(
            name=self.name,
            phase=ledger.phase if up else "down",
            size=options.size,
            max_overflow=options.max_overflow,
            overflow=max(
                sum(counts.values()) - counts["closing"] - counts["lost"] - options.size, 0
            ),
            waiting=len(ledger.tickets),
            epoch=ledger.epoch,
            timed_out=ledger.timed_out,
            refused=ledger.refused,
            stale=ledger.stale,
            reclaimed=ledger.reclaimed,
            start_failures=ledger.start_failures,
            unclosed=ledger.unclosed,
            last_start_failure=ledger.last_failure,
            **counts,
        )

    def holders(self) -> list[Holder]:
        """Return who holds which worker, for how long, since which line; never blocks."""
        return [] if self._ledger is None else self._ledger.holders()

    def healthy(self) -> bool:
        """Tell whether clients can check out: the pool runs and is managed."""
        return self._ledger is not None and self._ledger.phase == "up" and bool(self._ledger.man)

    def __repr__(self) -> str:
        return f"<Pool {self.name!r}: {self.status().state}>"

    # --- Running ---

    def _running(self) -> Ledger:
        """Return the books, starting the pool at its first use; never blocks."""
        ledger = self._ledger
        if ledger is None or ledger.is_gone:
            ledger = self._open()
        return ledger

    def _open(self) -> Ledger:
        ledger = Ledger(self.name, self._kind, self._options)
        ledger.pool, ledger.hub, ledger.thread = self, gevent.get_hub(), get_ident()
        application.open(ledger)
        self._ledger = ledger
        return ledger


def _stop_tree(ledger: Ledger, sup: Pid, timeout: float | None) -> None:
    """Stop the processes of a pool, and kill those that are not dead in time."""
    signal(sup, sup.parent or sup, "shutdown", direct=True)
    try:
        process.await_death(sup, timeout)
    except Expired:
        man = ledger.man.pid if ledger.man is not None else None
        for pid in [sup, ledger.worker_sup, man, *[slot.pid for slot in ledger.slots]]:
            if pid is not None:
                signal(pid, sup, "kill", direct=True)
        process.await_death(sup)


def _sole() -> int:
    """Return what ``getrefcount`` says of an object that only one variable refers to."""
    lease = object()
    return getrefcount(lease)


SOLE: Final = _sole()


def _options(options: dict[str, Any]) -> Options:
    known = {field.name for field in fields(Options)}
    for name in options:
        if name not in known:
            raise TypeError(f"options: expected some of {sorted(known)}, got {name!r}")
    return Options(**options)


# --- Pools by name ------------------------------------------------------------------


def start_pool(worker: Any, *args: Any, name: str, **options: Any) -> Pool[Any]:
    """Make a pool and start it; as ``Pool(worker, ...).start()``."""
    return Pool(worker, *args, name=name, **options).start()


def get_pool(name: str) -> Pool[Any]:
    """Return the running pool of that name.

    Raises:
        UnknownPool: There is none.
    """
    return cast("Pool[Any]", application.find(name).pool)


def stop_pool(name: str, timeout: float | None = 5.0) -> None:
    """Stop the running pool of that name; see :meth:`Pool.stop`.

    Raises:
        UnknownPool: There is none.
    """
    get_pool(name).stop(timeout)
