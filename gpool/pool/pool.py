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
PoolMan is in charge.  The leases of a worker's last two checkouts are lent in turn, if
nobody refers to them.  Whoever comes while others wait lines up without PoolMan, too.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from sys import _getframe, getrefcount
from types import TracebackType
from typing import (
    Any,
    Concatenate,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    Unpack,
    cast,
    overload,
)

import gevent
from greenlet import getcurrent

from gpool import clock, telemetry
from gpool.errors import PoolNotReady
from gpool.otp import greenlets
from gpool.otp.child_spec import ChildSpec
from gpool.otp.gen_server import GenServer
from gpool.otp.pid import Pid
from gpool.pool.application import application
from gpool.pool.dispatch import Job, check_map, run_in_turn, run_on_all_idle
from gpool.pool.lease import SPARE, Holder, Lease, WaitingClient
from gpool.pool.ledger import Ledger
from gpool.pool.options import Options, OptionsDict, check_choice, check_seconds
from gpool.pool.pool_sup import stop_tree
from gpool.pool.resource import Resource
from gpool.pool.slot import BUSY, IDLE
from gpool.pool.stats import Stats, Status, stats_of, status_of
from gpool.pool.worker import check_fit, kind_of
from gpool.waiter import Expired, Gate, get_ident

W = TypeVar("W")
G = TypeVar("G", bound=GenServer)
R = TypeVar("R")
T = TypeVar("T")
Item = TypeVar("Item")
P = ParamSpec("P")

DRAIN: Final = 5.0  # s that leaving `with` gives to those who still hold a worker
_DEFAULT: Final[Any] = object()
_names = itertools.count(1)
_numbers = itertools.count(1)  # of pools with a name, for the Application


@dataclass(frozen=True, slots=True)
class PoolTree:
    """The processes that run a pool; None: it has none now."""

    pool_sup: Pid | None
    pool_man: Pid | None
    worker_sup: Pid | None


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
        check_fit(self._kind, self._options)
        if name is not None and not (isinstance(name, str) and name):
            raise TypeError(f"name: expected a text that is not empty, got {name!r}")
        self.name = name if name is not None else f"pool-{next(_names)}"
        self._ledger: Ledger | None = None  # of the run that was started last
        if name is not None:
            application.declared[next(_numbers)] = self

    # --- Borrowing ---

    # Not keyword-only: CPython runs such a call without a C frame, in a tenth less time.
    def checkout(self, timeout: float | None = _DEFAULT) -> Lease[W]:
        """Borrow a worker; blocks until one is free, unless one is idle.

        Clients are served in the order in which they asked.  Prefer
        ``with pool.checkout() as worker``; whatever happens, a worker comes back
        when the greenlet that checked it out is dead.  Without ``with``, keep the lease
        as long as you use the worker: one that is dropped is reclaimed.

        Args:
            timeout: Seconds to wait, for a start of the pool and of a worker too;
                None waits for ever, 0 never waits; the pool's `timeout` if left out.

        Returns:
            The lease; as a context manager it yields the worker.

        Raises:
            CheckoutTimeout: No worker became free in time.
            PoolFull: `max_waiting` clients wait already.
            StartsFailing: No worker is up and starts fail, with `fail_fast`.
            CheckoutDeadlock: It would wait for ever: without a timeout, for a worker
                that only clients hold who wait for one themselves.
            PoolClosed: The pool is stopping or was stopped.
            PoolFailed: It fell too often and is not yet revived.
            NameTaken: It is the first use, and another pool of that name runs.
            TypeError, ValueError: `timeout` is no number of seconds.
            WrongHub: It runs in another thread.

        Source:
            poolboy ``checkout/3``; ``timeout=0`` stands for its ``Block = false``.
        """
        if timeout is not _DEFAULT:
            check_seconds("timeout", timeout)
        ledger = self._ledger
        if ledger is not None and ledger.idle:
            try:
                frame = _getframe(1)
                code, lasti = frame.f_code, frame.f_lasti
            except ValueError:
                code, lasti = _NO_LINE
            client = ledger.clients.get(getcurrent())
            if client is None and not ledger.is_gone:
                client = ledger.meet()
            now = clock.now()
            # From here to the pop there is no call: signal handlers and finalizers, which may
            # take the last worker or close the pool, run between calls.
            idle = ledger.idle
            if idle and client is not None and (now < ledger.due or now < idle[-1].due):
                try:
                    slot = idle.pop()
                    lease: Lease[W] = slot.spare
                    slot.spare, slot.last = slot.last, lease
                    if getrefcount(lease) == SPARE:
                        lease.owner, lease.since, lease.waited = client, now, 0.0
                        lease.code, lease.lasti = code, lasti
                        lease.slot, lease.number_drawn = slot, 0
                    else:
                        slot.last = lease = Lease(ledger, client, now, code, lasti, slot)
                    is_alive = slot.state is IDLE
                    if is_alive:
                        slot.lease = lease
                        slot.state = BUSY
                        if client.lease is None:
                            client.lease = lease
                        else:
                            client.take(lease)
                    else:  # it had died there, or a signal handler has killed it since
                        ledger.took_a_dead_one(idle)
                except BaseException:
                    ledger.struck()
                    raise
                if is_alive:
                    if telemetry.meters:
                        telemetry.checked_out(lease, now)
                    return lease
                lease.slot = None  # nobody's: the slot may keep it for another time
        seconds = self._options.timeout if timeout is _DEFAULT else timeout
        granted: Lease[W] | None = None
        if seconds and ledger is not None and (line := ledger.line) is not None:
            client = ledger.clients.get(getcurrent())
            if client is not None and line.length < ledger.line_limit:
                granted = ledger.queue.redeem(client.draw(seconds), seconds)
        lease = granted or self._running().checkout(seconds)
        try:
            frame = _getframe(1)  # not before the wait: it takes memory until its function ends
            lease.code, lease.lasti = frame.f_code, frame.f_lasti
        except ValueError:
            lease.code, lease.lasti = _NO_LINE
        if telemetry.meters:
            telemetry.checked_out(lease, lease.since)
        return lease

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
            TypeError: `fn` cannot be called.
            Exception: As :meth:`checkout`, and whatever `fn` raises.

        Source:
            poolboy ``transaction/2``.
        """
        job = Job.of(fn)
        lease = self.checkout(timeout=timeout)
        lease.code, lease.lasti = job.code, job.lasti  # not from this line
        with lease as worker:
            return fn(worker)

    # --- Dispatching: see dispatch.py ---

    def call(
        self, fn: Callable[..., T], *args: Any, timeout: float | None = _DEFAULT, **kwargs: Any
    ) -> T:
        """Return ``fn(worker, *args, **kwargs)``, run in the caller with a borrowed worker.

        ``pool.call(Doubler.compute, 21)`` calls a server's method.  If the worker dies
        before it has begun with the job, another one gets it, within the same deadline.

        Args:
            fn: The job; a ``call`` method taken from its class, or any callable.
            args: Its arguments after the worker.
            timeout: Seconds to wait for a worker, as in :meth:`checkout`; for a job
                that has a `timeout` of its own use ``functools.partial``.
            kwargs: Its keyword arguments.

        Raises:
            TypeError: `fn` cannot be called.
            NoProcess, ServerExited: Its worker died after it had begun with the job.
            Exception: As :meth:`checkout`, and whatever `fn` raises.

        Source:
            worker_pool ``call/4`` with ``available_worker``.
        """
        job, seconds = Job.of(fn, args, kwargs), self._seconds(timeout)
        return cast("T", job.run(self._running(), seconds))

    def cast(
        self, fn: Callable[Concatenate[W, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> Pid:
        """Have ``fn(worker, *args, **kwargs)`` run some time; never blocks.

        It runs in a process of its own, which has its place in the queue at once,
        waits without limit, and outlives the caller.  A job that fails crashes that
        process (``ProcessCrashed``), and harms nobody else; so does the pool's stop
        one that waits.

        Returns:
            The process, to be monitored or killed.

        Raises:
            TypeError: `fn` cannot be called.
            PoolFull: `max_waiting` clients wait already.
            PoolClosed, PoolFailed, WrongHub: As :meth:`checkout`.

        Source:
            worker_pool ``cast/3``.
        """
        return Job.of(fn, args, kwargs).start(self._running())

    @overload
    def map(
        self, fn: Callable[[W, Item], T], iterable: Iterable[Item], *,
        concurrency: int | None = None, timeout: float | None = ...,
        on_error: Literal["raise"] = "raise",
    ) -> list[T]: ...  # fmt: skip
    @overload
    def map(
        self, fn: Callable[[W, Item], T], iterable: Iterable[Item], *,
        concurrency: int | None = None, timeout: float | None = ...,
        on_error: Literal["return"],
    ) -> list[T | Exception]: ...  # fmt: skip
    def map(
        self,
        fn: Callable[[W, Item], T],
        iterable: Iterable[Item],
        *,
        concurrency: int | None = None,
        timeout: float | None = _DEFAULT,
        on_error: Literal["raise", "return"] = "raise",
    ) -> list[Any]:
        """Return ``[fn(worker, item) for item in iterable]``, run side by side; blocks.

        Each job runs in a process of its own, as by :meth:`call`.  An item is taken
        from the iterable when a job may start, in the caller.  A caller that is
        killed, or cut by a ``gevent.Timeout``, takes its jobs with it.

        Args:
            fn: The job.
            iterable: The items; need not end, if it is to raise.
            concurrency: Jobs that may run or wait for a worker at once; as many as
                the pool may have workers if None.
            timeout: Seconds that each job waits for a worker, as in :meth:`checkout`.
            on_error: "raise": after the first error no further item is taken, jobs
                that run are let finish, then it is raised.  "return": the error
                stands in the list in its item's place.

        Returns:
            The results, in the order of the items.

        Raises:
            TypeError, ValueError: An argument is wrong; nothing was started.
            ServerExited: A job's process was killed, or died of a BaseException.
            Exception: As :meth:`call`; and what the iterable raises, which ends it as
                an error of a job does, whatever `on_error` is.
        """
        job, seconds = Job.of(fn), self._seconds(timeout)
        check_map(iterable, concurrency, on_error)
        return run_in_turn(
            self._running(), job, iterable,
            concurrency=concurrency, timeout=seconds, on_error=on_error,
        )  # fmt: skip

    def broadcast(
        self, fn: Callable[Concatenate[W, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> list[T | Exception]:
        """Run ``fn(worker, *args, **kwargs)`` on every worker that is idle now.

        Blocks until all have ended.  They run at once, each in a process of its own,
        and each once: if its worker dies that is its error.  Workers that clients
        hold, or that start, reset or close, are left out; it waits for none.

        Returns:
            The results, those that are errors included, in no particular order; none
            if no worker is idle.

        Raises:
            TypeError: `fn` cannot be called.
            PoolClosed, PoolFailed, WrongHub: As :meth:`checkout`.

        Source:
            worker_pool ``broadcast/2``, which waits for no result and reaches busy workers too.
        """
        job = Job.of(fn, args, kwargs)
        return run_on_all_idle(self._running(), job)

    def _seconds(self, timeout: float | None) -> float | None:
        """Return how long to wait for a worker."""
        if timeout is _DEFAULT:
            return self._options.timeout
        check_seconds("timeout", timeout)
        return timeout

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
        ledger.reopen()
        try:
            ledger.risen.wait(timeout)
        except Expired:
            raise PoolNotReady(self.name, timeout or 0.0, 0, self._options.size) from None
        if not ledger.risen.is_open:
            ledger.admission.refuse_unless_open()
        return self

    def wait_ready(self, timeout: float | None = 5.0) -> None:
        """Block until the pool had so many workers up as `min_ready` says, or all of `size`.

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
        ledger.admission.refuse_unless_open()
        if ledger.man is not None:
            ledger.man.keep_trying()
        try:
            ledger.ready.wait(timeout)
        except Expired:
            up = 0 if ledger.man is None else ledger.man.state.up
            why, least = ledger.staff.last_failure, ledger.options.ready_at
            cause = getattr(why, "exception", None)
            raise PoolNotReady(self.name, timeout or 0.0, up, least, why) from cause
        if not ledger.ready.is_open:
            ledger.admission.refuse_unless_open()

    def resize(self, size: int, max_overflow: int | None = None) -> None:
        """Have another number of workers from now on; never blocks.

        What is too many goes at once if it is starting or idle, else when it comes back;
        what is missing is started.

        Args:
            size: Workers that are kept.
            max_overflow: More on demand; None: as many as before.

        Raises:
            TypeError, ValueError: An argument is wrong, or `min_ready` exceeds `size`.
            WrongHub: It runs in another thread.
        """
        more = self._options.max_overflow if max_overflow is None else max_overflow
        options = replace(self._options, size=size, max_overflow=more)
        ledger = self._its_ledger()
        self._options = options
        if ledger is not None:
            ledger.resize(options)

    def recycle(self, within: float = 0.0) -> None:
        """Replace all workers that there are, evenly spread over `within` seconds; never blocks.

        Idle ones are stopped when it is their turn, those that are lent when they come
        back after it.

        Args:
            within: Seconds until the last one's turn; 0: all at once.

        Raises:
            TypeError, ValueError: It is no number of seconds.
            WrongHub: It runs in another thread.

        Source:
            HikariCP ``softEvictConnections``, spread out.
        """
        if within is None or within == math.inf:
            raise ValueError(f"within: expected seconds >= 0, got {within!r}")
        check_seconds("within", within)
        ledger = self._its_ledger()
        if ledger is not None:
            ledger.recycle(within)

    def suspend(self) -> None:
        """Lend and start nothing until :meth:`resume`; never blocks.

        Clients wait meanwhile, within their deadlines; what is lent comes back as
        always.

        Raises:
            PoolClosed: It was stopped.
            NameTaken, WrongHub: As :meth:`start`, since it starts the pool.

        Source:
            HikariCP ``suspendPool``, where the deadlines stand still.
        """
        self._hold_up(suspended=True)

    def resume(self) -> None:
        """End :meth:`suspend`: serve those who wait; never blocks.

        Raises:
            PoolClosed, NameTaken, WrongHub: As :meth:`suspend`.
        """
        self._hold_up(suspended=False)

    def _hold_up(self, *, suspended: bool) -> None:
        ledger = self._running()
        ledger.in_its_thread()
        if ledger.phase == "stopped":
            ledger.admission.refuse_unless_open()
        ledger.hold_up(suspended=suspended)

    def close(self, waiters: Literal["serve", "fail"] = "serve") -> None:
        """Let nobody in any more; never blocks; twice is fine.  ``start()`` opens it again.

        Args:
            waiters: Whether those who wait are still served, or raise PoolClosed now.

        Raises:
            ValueError: It is neither.
            WrongHub: It runs in another thread.
        """
        check_choice("waiters", waiters, Literal["serve", "fail"])
        ledger = self._its_ledger()
        if ledger is not None and ledger.phase != "stopped":
            ledger.close(fail_waiting=waiters == "fail")

    def drain(self, timeout: float | None = DRAIN) -> bool:
        """Let nobody in any more; blocks until those who wait were served and all is back.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            Whether all came back in time, and before ``start()`` opened it again.

        Raises:
            TypeError, ValueError: It is no number of seconds.
            WrongHub: It runs in another thread.
        """
        check_seconds("timeout", timeout)
        ledger = self._its_ledger()
        if ledger is None or ledger.phase == "stopped":
            return True
        drained = ledger.drained = ledger.drained or Gate()
        ledger.close(fail_waiting=False)
        ledger.note_quiet()
        with contextlib.suppress(Expired):
            drained.wait(timeout)
        return drained.is_open

    def stop(self, timeout: float | None = 5.0) -> None:
        """Stop the pool and its workers; blocks until all are gone; twice is fine.

        Those who wait raise :class:`PoolClosed` at once.  Servers that are lent are
        stopped in their holders' hands; resources are closed when they are let go.

        Args:
            timeout: Seconds until what still runs is killed; None waits for ever.

        Raises:
            TypeError, ValueError: It is no number of seconds.
            WrongHub: It runs in another thread.
        """
        check_seconds("timeout", timeout)
        ledger = self._its_ledger()
        if ledger is None:
            return
        greenlets.current()
        if ledger.phase != "stopped":
            ledger.shut()
            application.forget(ledger)
        end = None if timeout is None else clock.now() + timeout
        if ledger.sup is not None:
            stop_tree(ledger, ledger.sup, end)
        emptied = ledger.emptied = ledger.emptied or Gate()
        ledger.note_quiet()
        with contextlib.suppress(Expired):
            emptied.wait(None if end is None else end - clock.now())
        ledger.teller.tell_the_end()

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
        return status_of(self.stats())

    def stats(self) -> Stats:
        """Return the pool's numbers, all of one moment; never blocks."""
        ledger = self._ledger
        if ledger is None or ledger.is_gone:
            ledger = Ledger(self.name, self._kind, self._options)
            ledger.phase = "stopped"
        return stats_of(ledger)

    def holders(self, longest: int | None = None) -> list[Holder]:
        """Return who holds which worker, for how long, since which line; never blocks.

        Args:
            longest: So many of them, those who hold for longest first; None: all.
        """
        ledger = self._ledger
        return [] if ledger is None or ledger.is_gone else ledger.holders(longest)

    def waiters(self, first: int | None = None) -> list[WaitingClient]:
        """Return who waits for a worker, for how long, on which line; never blocks.

        Args:
            first: So many of them; None: all.  They are in the order of their turns.
        """
        ledger = self._ledger
        return [] if ledger is None or ledger.is_gone else ledger.waiters(first)

    def tree(self) -> PoolTree:
        """Return the processes that run the pool; never blocks."""
        ledger = self._ledger
        if ledger is None or ledger.is_gone or ledger.phase == "stopped":
            return PoolTree(None, None, None)
        man = None if ledger.man is None else ledger.man.pid
        return PoolTree(ledger.sup, man, ledger.worker_sup)

    def healthy(self) -> bool:
        """Tell whether the pool runs, is open, and is managed, be it suspended."""
        ledger = self._ledger
        if ledger is None or ledger.is_gone:
            return False
        return ledger.phase == "up" and ledger.man is not None

    @property
    def is_unused(self) -> bool:
        """Whether this process has never started it."""
        return self._ledger is None or self._ledger.is_gone

    def __repr__(self) -> str:
        return f"<Pool {self.name!r}: {self.status().state}>"

    # --- Running ---

    def _running(self) -> Ledger:
        """Return the books, starting the pool at its first use; never blocks."""
        ledger = self._ledger
        if ledger is None or ledger.is_gone:
            ledger = self._open()
        return ledger

    def _its_ledger(self) -> Ledger | None:
        """Return the books if the pool was started, and not left behind by a fork.

        Raises:
            WrongHub: It runs in another thread.
        """
        ledger = self._ledger
        if ledger is None or ledger.is_gone:
            return None
        ledger.in_its_thread()
        return ledger

    def _open(self) -> Ledger:
        greenlets.current()  # one whose exit was accepted must not take the name with it
        ledger = Ledger(self.name, self._kind, self._options)
        ledger.pool, ledger.hub, ledger.thread = self, gevent.get_hub(), get_ident()
        ledger.predecessor = self._ledger
        application.open(ledger)
        self._ledger = ledger
        return ledger


# Of who checks out by ``gevent.spawn(pool.checkout)``: no Python code has called.
# Not a frame of ours: standing in its own variables, it would keep the lease.
_NO_LINE: Final = (Pool.checkout.__code__, 0)


def _options(options: dict[str, Any]) -> Options:
    known = {field.name for field in fields(Options)}
    for name in options:
        if name not in known:
            near = "".join(f" (did you mean {one!r}?)" for one in get_close_matches(name, known, 1))
            raise TypeError(f"options: expected some of {sorted(known)}, got {name!r}{near}")
    return Options(**options)
