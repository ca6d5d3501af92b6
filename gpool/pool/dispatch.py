"""Jobs: functions that a pool runs on one of its workers, whichever is free.

    >>> from gpool.pool.pool import Pool
    >>> from gpool.pool.resource import Resource
    >>> with Pool(Resource(create=list), size=2) as pool:
    ...     pool.call(list.append, 1)
    ...     pool.map(lambda things, item: item * 2, range(4))
    [0, 2, 4, 6]

A job is ``fn(worker, *args, **kwargs)``.  A ``call`` method taken from its class is
one as well, since it is called with the handle: ``pool.call(Doubler.compute, 21)``.

Rules:

* A job whose worker dies before it has begun goes to another one: a resource has
  begun once `fn` is called, a server once it has taken a message out of its mailbox
  that came after that.  What `fn` did before its first request is done again.
* A job that has begun is never begun again; its error is the caller's.  When in
  doubt it has begun: somebody else's message may have been what the server took.
* ``call`` runs its job in the caller; the others' jobs have a process each.
* The jobs of ``map`` and ``broadcast`` belong to their caller and die with it, or
  when something cuts it short.  No message tells it about them: it may trap exits.
* A job that ``cast`` has started belongs to nobody.

Source:
    worker_pool (dispatch to available workers, a queue that outlives a worker),
    poolboy's ``transaction/2``.

Not here: who waits (``queue.py``), and in what order (``pool_state.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from sys import _getframe
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Literal, Self, get_args

from gpool import clock
from gpool.errors import NoProcess, ServerExited
from gpool.otp import greenlets
from gpool.otp.mailbox import Mailbox
from gpool.otp.pid import Pid, watch
from gpool.otp.signal import signal
from gpool.pool.lease import Lease, Ticket, begun
from gpool.pool.ledger import Ledger
from gpool.pool.options import check_count
from gpool.waiter import Waiter

OnError = Literal["raise", "return"]

_MISSING: Final = object()  # the outcome of a job that has none yet


# --- One job ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """``fn(worker, *args, **kwargs)``, and from which line it came."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(repr=False)
    code: CodeType = field(repr=False)
    lasti: int = field(repr=False)  # the instruction in `code`

    @classmethod
    def of(cls, fn: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Any = None) -> Self:
        """Make a job, in the name of whoever called the caller.

        Raises:
            TypeError: `fn` cannot be called.
        """
        if not callable(fn):
            raise TypeError(f"fn: expected a callable, got {fn!r}")
        frame = _caller()
        return cls(fn, args, kwargs or {}, frame.f_code, frame.f_lasti)

    def run(self, ledger: Ledger, timeout: float | None, ticket: Ticket | None = None) -> Any:
        """Run it on the first worker that is free, and that begins with it; blocks.

        Args:
            ledger: The books of the pool.
            timeout: Seconds to wait for workers, all told; None waits for ever.
            ticket: The place in the queue that the running process has, if it has one.
        """
        deadline = None if timeout is None else clock.now() + timeout
        while True:
            lease = self._borrow(ledger, deadline, ticket)
            ticket, start = None, _Start(lease)
            if lease.lost:
                lease.checkin()
                continue
            try:
                return self.run_on(lease)
            except (NoProcess, ServerExited) as error:
                if not start.is_to_come(error):
                    raise

    def _borrow(self, ledger: Ledger, deadline: float | None, ticket: Ticket | None) -> Lease[Any]:
        if ticket is not None:
            lease = ledger.queue.redeem(ticket, None)
            ticket.client.spare = None  # used again, it would name this job's line
        else:
            lease = ledger.checkout(None if deadline is None else max(deadline - clock.now(), 0.0))
        return begun(lease, self.code, self.lasti)

    def run_on(self, lease: Lease[Any]) -> Any:
        """Run it on a worker that was borrowed for it, and give that back.

        Raises:
            LeaseLost: The worker is not fit to be used any more.
        """
        with lease:
            return self.fn(lease.worker, *self.args, **self.kwargs)

    def start(self, ledger: Ledger) -> Pid:
        """Start a process that runs it; it stands in the queue, or has a worker, at once."""
        ledger.admit()
        pid = greenlets.new_process(self._run_booked, (ledger,), initial_call=self.name)
        ledger.book(pid, self.code, self.lasti)
        return pid

    def _run_booked(self, ledger: Ledger) -> None:
        self.run(ledger, None, ledger.meet().ticket)

    @property
    def name(self) -> str:
        """What a process is shown as that runs it."""
        return greenlets.name_of(self.fn)


def _caller() -> FrameType:
    """Return the frame of who called the Pool's method that called :meth:`Job.of`."""
    try:
        return _getframe(3)
    except ValueError:  # gevent.spawn(pool.call, ...): no Python code has called
        return _getframe(2)


class _Start:
    """How far a server had come when a job was about to be run on it."""

    __slots__ = ("mailbox", "queued")

    def __init__(self, lease: Lease[Any]) -> None:
        mailbox: Any = None if lease.slot is None else lease.slot.mailbox
        self.mailbox: Mailbox | None = None  # of the server, if it is one
        self.queued = 0  # messages that came before the job's own, taken out or not
        if isinstance(mailbox, Mailbox):
            self.mailbox = mailbox
            self.queued = mailbox.taken + len(mailbox)

    def is_to_come(self, error: NoProcess | ServerExited) -> bool:
        """Tell whether `error` is the death of this server before it began with the job."""
        dead = error.server if isinstance(error, ServerExited) else error.process
        return (
            self.mailbox is not None
            and getattr(dead, "mailbox", None) is self.mailbox
            and dead.mailbox.taken <= self.queued
        )


# --- Many jobs ----------------------------------------------------------------------


class Crew:
    """The processes of one ``map`` or ``broadcast``, and what came of their jobs.

    It stands among the monitors of its caller and of each process.  Leaving ``with``
    ends those that still run: all have ended, or the caller was cut short.

    Args:
        is_picky: Whether the first error of a job ends it all.
    """

    def __init__(self, *, is_picky: bool) -> None:
        self.is_picky = is_picky
        self.caller = greenlets.current()
        self.running: dict[Pid, int] = {}  # process -> its place in `outcomes`
        self.outcomes: list[Any] = []  # results and errors, in the order of the starts
        self.ending: Exception | None = None  # why no further job is to start
        self.waiter = Waiter()  # the caller's

    def __enter__(self) -> Self:
        watch(self.caller, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.caller.monitored_by.pop(self, None)
        self._cut()

    def start(self, name: str, run: Callable[..., Any], *args: Any) -> Pid:
        """Start a process for the next outcome: what ``run(*args)`` returns or raises."""
        place = len(self.outcomes)
        self.outcomes.append(_MISSING)
        pid = greenlets.new_process(self._work, (place, run, args), initial_call=name, monitor=self)
        self.running[pid] = place
        return pid

    def _work(self, place: int, run: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.outcomes[place] = run(*args)
        except Exception as error:  # noqa: BLE001  # the caller gets it
            self._fail(place, error)

    def _fail(self, place: int, error: Exception) -> None:
        self.outcomes[place] = error
        if self.is_picky:
            self.end(error)

    def end(self, error: Exception) -> None:
        """Start no further job; the first error counts."""
        self.ending = self.ending or error

    def down(self, pid: Pid, reason: Any) -> None:
        """A job has ended, or the caller is dead."""
        if pid is self.caller:
            self._cut()
            return
        place = self.running.pop(pid, None)
        if place is not None and self.outcomes[place] is _MISSING:
            error = ServerExited(pid, reason)
            error.__cause__ = getattr(reason, "exception", None)
            self._fail(place, error)
        self.waiter.wake()

    def wait(self, most: int = 0) -> bool:
        """Block until at most so many jobs run; tell whether a further one may start."""
        while len(self.running) > most:
            self.waiter = Waiter()
            self.waiter.wait()
        return self.ending is None

    def _cut(self) -> None:
        running, self.running = self.running, {}
        for pid in running:
            # Not a kill unless it must be: they end in order, which is no crash.
            signal(pid, self.caller, "kill" if pid.trapping else "shutdown", direct=True)

    def results(self) -> list[Any]:
        """Return all outcomes, or raise the error that has ended it; once."""
        outcomes, self.outcomes = self.outcomes, []  # no cycle with a traceback
        if self.ending is not None:
            outcomes.clear()
            raise self._take_ending()
        return outcomes

    def _take_ending(self) -> Exception:
        assert self.ending is not None
        error, self.ending = self.ending, None
        return error


def run_in_turn(
    ledger: Ledger,
    job: Job,
    iterable: Iterable[Any],
    *,
    concurrency: int | None,
    timeout: float | None,
    on_error: OnError,
) -> list[Any]:
    """Run a job for each item, a few at a time; blocks; see ``Pool.map``."""
    _begin(ledger)
    most = ledger.options.cap if concurrency is None else concurrency
    with Crew(is_picky=on_error == "raise") as crew:
        items = iter(iterable)
        while crew.wait(most - 1):
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001  # raised once the others have ended
                crew.end(error)
            else:
                crew.start(job.name, replace(job, args=(item,)).run, ledger, timeout)
        crew.wait()
    return crew.results()


def check_map(iterable: Any, concurrency: Any, on_error: Any) -> None:
    """Raise unless these arguments of ``Pool.map`` are sound."""
    if not (hasattr(iterable, "__iter__") or hasattr(iterable, "__getitem__")):
        raise TypeError(f"iterable: expected an iterable, got {iterable!r}")
    if concurrency is not None:
        check_count("concurrency", concurrency)
        if concurrency == 0:
            raise ValueError("concurrency: expected 1 or more, or None, got 0")
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error: expected 'raise' or 'return', got {on_error!r}")


def run_on_all_idle(ledger: Ledger, job: Job) -> list[Any]:
    """Run a job on each worker that is idle now; blocks; see ``Pool.broadcast``."""
    _begin(ledger)
    with Crew(is_picky=False) as crew:
        for lease in _all_idle(ledger, job):
            ledger.transfer(lease, crew.start(job.name, job.run_on, lease))
        crew.wait()
    return crew.results()


def _all_idle(ledger: Ledger, job: Job) -> list[Lease[Any]]:
    leases: list[Lease[Any]] = list(iter(ledger.checkout_unseen, None))
    return [begun(lease, job.code, job.lasti) for lease in leases]


def _begin(ledger: Ledger) -> None:
    """Raise, before any process is started, what each would raise."""
    ledger.in_its_thread()
    ledger.admission.refuse_unless_open()
