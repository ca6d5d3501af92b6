"""Supervisors: processes that start others, restart them and stop them.

    >>> from gpool.otp.gen import stop
    >>> from gpool.otp.gen_server import GenServer
    >>> from gpool.otp.methods import call
    >>> class Counter(GenServer):
    ...     count = 0
    ...
    ...     @call
    ...     def add(self, n: int) -> int:
    ...         self.count += n
    ...         return self.count
    >>> supervisor = Supervisor.start([ChildSpec("counter", Counter.start_link)])
    >>> [child] = supervisor.which_children()
    >>> child.id, child.child is not None, child.type
    ('counter', True, 'worker')
    >>> stop(supervisor)

Rules:

* Children start in the order given and stop in the reverse one, one at a time.
* Strategies say who is restarted when a child dies: `one_for_one` that child,
  `one_for_all` everybody, `rest_for_one` that child and those started after it.
* More than `max_restarts` restarts within `max_seconds`, and the supervisor
  stops its children and dies of `shutdown`.  One event counts once, however many
  children it restarts; so does every further attempt of a restart that fails.
* Between two attempts the supervisor serves its mailbox.
* `auto_shutdown` makes it die of `shutdown` when a significant child ends by
  itself and is not restarted: the first one, or the last one.
* A child with a backoff is restarted later, and that never counts.  In a group
  the others are stopped at once, and started together with it.  If a sibling's
  restart takes it along, it does not wait any longer.

Differences to OTP: 3 restarts in 5 s, as in Elixir; seconds are floats; requests
and messages that it does not know never end a supervisor; a child's calls to a
supervisor that waits for it raise ``CallingSelf``; it links to its children
itself; the arguments of temporary children are not kept.

Not here: children on demand (``dynamic_supervisor.py``), how a child is started
and stopped (``child.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import gevent

from gpool import clock, telemetry
from gpool.errors import CallingSelf, CallTimeout, ChildError, SpecError, StartError
from gpool.otp import child as children_of
from gpool.otp import process
from gpool.otp.child import Child, TryAgain
from gpool.otp.child_spec import ChildSpec, ChildType, check_word, is_number
from gpool.otp.gen import From
from gpool.otp.gen_server import GenServer, Ignore, NoReply, Reply, Stop, Then
from gpool.otp.greenlets import current
from gpool.otp.pid import DEAD, Exit, Pid
from gpool.otp.signal import is_orderly
from gpool.waiter import Expired, check_timeout

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown = Literal["never", "any_significant", "all_significant"]
Verb = Literal[
    "start_child",
    "terminate_child",
    "restart_child",
    "delete_child",
    "which_children",
    "count_children",
    "get_childspec",
]

SPENT: Final = Stop("shutdown")  # the supervisor gives up, or auto_shutdown has come


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One child, as :meth:`Supervisor.which_children` shows it."""

    id: Hashable
    child: Pid | str | None  # its pid, "restarting", or None: stopped
    type: ChildType


@dataclass(frozen=True, slots=True)
class Counts:
    """How many children a supervisor has."""

    specs: int  # all, running or not
    active: int  # those that live
    supervisors: int  # by type, running or not
    workers: int


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """What somebody asks of a supervisor."""

    verb: Verb
    argument: Any = None


class RestartIntensity:
    """Counts restarts, and tells when they are too many.

    A restart exactly `max_seconds` ago still counts.

    Args:
        max_restarts: Restarts that are allowed within `max_seconds`; 0: none.
        max_seconds: Length of the window.
        now: Tells the time, in seconds; None: gpool's clock.

    Raises:
        SpecError: invalid_intensity or invalid_period.

    Source:
        OTP ``add_restart``, whose stamps are whole seconds.
    """

    def __init__(
        self, max_restarts: int, max_seconds: float, now: Callable[[], float] | None = None
    ) -> None:
        whole = isinstance(max_restarts, int) and not isinstance(max_restarts, bool)
        if not (whole and max_restarts >= 0):
            raise SpecError("invalid_intensity", "max_restarts: an integer >= 0", max_restarts)
        if not (is_number(max_seconds) and max_seconds > 0):
            raise SpecError("invalid_period", "max_seconds: seconds > 0", max_seconds)
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self._now = now
        self._stamps: deque[float] = deque()  # those in the window, oldest first

    def __repr__(self) -> str:
        within = f"{self.max_restarts} in {self.max_seconds:g} s"
        return f"<RestartIntensity {within}, {len(self._stamps)} counted>"

    def add(self) -> bool:
        """Count a restart; False if it is one too many."""
        now = clock.now() if self._now is None else self._now()
        while self._stamps and self._stamps[0] < now - self.max_seconds:
            self._stamps.popleft()
        self._stamps.append(now)
        return len(self._stamps) <= self.max_restarts


class Supervisor(GenServer):
    """A process that keeps children running.

    Args:
        children: Their specifications, in start order.
        strategy: Who is restarted when one of them dies.
        max_restarts: Restarts that are allowed within `max_seconds`.
        max_seconds: Length of that window.
        auto_shutdown: Whether it ends when "any_significant" child ends by
            itself, or when "all_significant" ones have; or "never".

    Raises:
        SpecError: Something is wrong; nothing was started.

    Source:
        OTP ``supervisor``.
    """

    def __init__(
        self,
        children: Iterable[ChildSpec] = (),
        *,
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
    ) -> None:
        check_word("invalid_strategy", get_args(Strategy), strategy)
        check_word("invalid_auto_shutdown", get_args(AutoShutdown), auto_shutdown)
        self.strategy: Strategy = strategy
        self.auto_shutdown: AutoShutdown = auto_shutdown
        self.intensity = RestartIntensity(max_restarts, max_seconds)
        self.children: dict[Hashable, Child] = {}  # by id, in start order
        self.running: dict[Pid, Child] = {}  # those with a process, by it
        for spec in _listed(children):
            self._check_spec(spec)
            if spec.id in self.children:
                raise SpecError("duplicate_child_name", "ids that differ", spec.id)
            self.children[spec.id] = Child(spec)

    def _check_spec(self, spec: Any) -> None:
        if not isinstance(spec, ChildSpec):
            raise SpecError("invalid_child_spec", "a ChildSpec", spec)
        if spec.significant and self.auto_shutdown == "never":
            expected = "auto_shutdown for a supervisor with a significant child"
            raise SpecError("bad_combination", expected, self.auto_shutdown)

    # What others may ask.

    def start_child(self, spec: ChildSpec) -> Any:
        """Start another child, the last in order; blocks until it has started.

        Returns:
            What its start function returned; None if it was ignored.

        Raises:
            ChildError: There is one with that id, ("already_started", pid), or
                a stopped one, "already_present".
            StartError: It did not start, and is not kept.
            SpecError: It does not fit.
            NoProcess: The supervisor is dead.

        Source:
            OTP ``supervisor:start_child/2``.
        """
        return self._ask("start_child", spec)

    def terminate_child(self, id: Hashable) -> None:
        """Stop a child and do not restart it; blocks until it is dead.

        Its specification stays, unless it is temporary.  One that is stopped
        already is fine; the restart of a restarting one is cancelled.

        Raises:
            ChildError: "not_found".
            NoProcess: The supervisor is dead.

        Source:
            OTP ``supervisor:terminate_child/2``.
        """
        self._ask("terminate_child", id)

    def restart_child(self, id: Hashable) -> Any:
        """Start a child that is stopped; blocks until it has started.

        Returns:
            As :meth:`start_child`.

        Raises:
            ChildError: "running", "restarting" or "not_found".
            StartError: It did not start, and stays stopped.
            NoProcess: The supervisor is dead.

        Source:
            OTP ``supervisor:restart_child/2``.
        """
        return self._ask("restart_child", id)

    def delete_child(self, id: Hashable) -> None:
        """Forget a child that is stopped.

        Raises:
            ChildError: "running", "restarting" or "not_found".
            NoProcess: The supervisor is dead.

        Source:
            OTP ``supervisor:delete_child/2``.
        """
        self._ask("delete_child", id)

    def which_children(self) -> list[ChildInfo]:
        """Return the children, newest first; blocks while a child starts or stops.

        Raises:
            NoProcess: The supervisor is dead.

        Source:
            OTP ``supervisor:which_children/1``.
        """
        found: list[ChildInfo] = self._ask("which_children")
        return found

    def count_children(self) -> Counts:
        """Return how many children there are; blocks while a child starts or stops.

        Raises:
            NoProcess: The supervisor is dead.

        Source:
            OTP ``supervisor:count_children/1``.
        """
        counts: Counts = self._ask("count_children")
        return counts

    def get_childspec(self, id: Hashable) -> ChildSpec:
        """Return a child's specification; that of a temporary one lacks its arguments.

        Raises:
            ChildError: "not_found".
            NoProcess: The supervisor is dead.

        Source:
            OTP ``supervisor:get_childspec/2``.
        """
        spec: ChildSpec = self._ask("get_childspec", id)
        return spec

    def _ask(self, verb: Verb, argument: Any = None) -> Any:
        return self.call(ChildRequest(verb, argument), timeout=None)

    def join(self, timeout: float | None = None) -> Any:
        """Block until the supervisor is dead, and keep the loop alive meanwhile.

        A process that is linked to it dies of its reason instead of returning:
        use :meth:`start` to join.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            What it died of.

        Raises:
            CallTimeout: It lives on.
            CallingSelf: The caller is the supervisor.
            NoProcess: It was never started.
            WrongHub: It lives in another thread.
        """
        check_timeout(timeout)
        pid = process.resolve(self)
        if pid is current():
            raise CallingSelf(pid)
        process.same_hub(pid)
        keeper = gevent.get_hub().loop.async_()
        keeper.start(_nothing)
        try:
            return process.await_death(pid, timeout)
        except Expired:
            raise CallTimeout(pid, timeout) from None
        finally:
            keeper.stop()
            keeper.close()

    # What a subclass may say.

    def counts_restart(self, spec: ChildSpec, reason: Any) -> bool:
        """Tell whether a restart counts in the intensity.  Optional; must not block.

        It runs in the supervisor's process, before a restart of a child without
        a backoff.

        Args:
            spec: Of the child.
            reason: What it died of, or what its last start failed of.
        """
        return True

    def reports_death(self, spec: ChildSpec, reason: Any) -> bool:
        """Tell whether a child's death is worth a report.  Optional; must not block.

        Args:
            spec: Of the child.
            reason: What it died of.
        """
        return True

    # The process.

    def init(self) -> Then | Ignore | Stop:
        """Start the children; a subclass that has an ``init`` calls this one."""
        process.trap_exit(True)
        failed = self._start_all(list(self.children.values()))
        if failed is None:
            return None
        self._stop_all()
        return Stop(("shutdown", ("failed_to_start_child", failed.spec.id, failed.reason)))

    def terminate(self, reason: Any) -> None:
        """Stop the children, the last one first."""
        self._stop_all()

    def handle_call(self, request: Any, from_: From) -> Reply | NoReply | Stop:
        """Answer those who ask about children; a subclass passes on what it does not know."""
        try:
            return Reply(self._answer(request))
        except (ChildError, StartError, SpecError) as error:
            from_.fail(error.with_traceback(None))
        except _Unknown:
            telemetry.emit(telemetry.UnexpectedMessage(self.pid, request))
            from_.fail(TypeError(f"{self!r} handles no call {request!r}"))
        return NoReply()

    def handle_cast(self, request: Any) -> Then | Stop:
        """Drop a cast; a subclass passes on what it does not know."""
        telemetry.emit(telemetry.UnexpectedMessage(self.pid, request))
        return None

    def handle_info(self, message: Any) -> Then | Stop:
        """Care for a child that died; a subclass passes on what it does not know."""
        match message:
            case Exit():
                child = self.running.get(message.pid)
                # Anybody can send an exit signal, a living child too.
                died = child is not None and child.is_running and message.pid.state is DEAD
                return self._has_died(child) if child is not None and died else None
            case TryAgain():
                return None if message.is_stale else self._restart(message.child)
            case _:
                telemetry.emit(telemetry.UnexpectedMessage(self.pid, message))
                return None

    def format_status(self) -> dict[str, Any]:
        """Show how it restarts, and its children."""
        return {
            "strategy": self.strategy,
            "intensity": repr(self.intensity),
            "auto_shutdown": self.auto_shutdown,
            "children": {child.spec.id: child.shown for child in self.in_start_order()},
        }

    # Answers.

    def _answer(self, request: Any) -> Any:
        match request:
            case ChildRequest("start_child", argument):
                return self._start_child(argument)
            case ChildRequest("terminate_child", id):
                return self._terminate_child(id)
            case ChildRequest("restart_child", id):
                return self._restart_child(id)
            case ChildRequest("delete_child", id):
                return self._delete_child(id)
            case ChildRequest("which_children"):
                return [ChildInfo(c.spec.id, c.shown, c.spec.type) for c in self._newest_first()]
            case ChildRequest("count_children"):
                return self._counts()
            case ChildRequest("get_childspec", id):
                return self._find(id).spec
            case _:
                raise _Unknown

    def _start_child(self, spec: Any) -> Any:
        self._check_spec(spec)
        known = self.children.get(spec.id)
        if known is not None and known.is_running:
            raise ChildError(self, spec.id, ("already_started", known.pid))
        if known is not None:
            raise ChildError(self, spec.id, "already_present")
        child = Child(spec)
        value = self._start(child)
        if child.pid is not None or not child.is_temporary:
            self.children[spec.id] = child
        return value

    def _terminate_child(self, id: Any) -> None:
        self._stop([self._find(id)])

    def _restart_child(self, id: Any) -> Any:
        child = self._find_stopped(id)
        child.failures = 0
        return self._start(child)

    def _delete_child(self, id: Any) -> None:
        self._find_stopped(id)
        del self.children[id]

    def _find(self, id: Any) -> Child:
        child = self.children.get(id) if isinstance(id, Hashable) else None
        if child is None:
            raise ChildError(self, id, "not_found")
        return child

    def _find_stopped(self, id: Any) -> Child:
        child = self._find(id)
        if child.restarting:
            raise ChildError(self, id, "restarting")
        if child.is_running:
            raise ChildError(self, id, "running")
        return child

    def in_start_order(self) -> list[Child]:
        """Return the children; for those who look without asking."""
        return list(self.children.values())

    def _newest_first(self) -> list[Child]:
        return self.in_start_order()[::-1]

    def _counts(self) -> Counts:
        children = self._newest_first()
        active = sum(child.is_running and process.is_alive(child.pid) for child in children)
        supervisors = sum(child.spec.type == "supervisor" for child in children)
        return Counts(len(children), active, supervisors, len(children) - supervisors)

    # Restarts.

    def _has_died(self, child: Child) -> Stop | None:
        assert child.pid is not None
        child.reason = reason = child.pid.reason
        orderly = is_orderly(reason)
        if telemetry.is_heard() and (child.spec.restart == "permanent" or not orderly):
            self._report_death(child)
        if child.is_temporary or (child.spec.restart == "transient" and orderly):
            self._has_ended(child)
            return SPENT if self._ends_with(child) else None
        if child.spec.backoff is None:
            return self._restart(child)
        self._set_aside(child)
        self._try_again(child)
        return None

    def _report_death(self, child: Child) -> None:
        if self.reports_death(child.spec, child.reason):
            children_of.report(self.pid, "child_terminated", child.reason, child)

    def _ends_with(self, child: Child) -> bool:
        """Tell whether the end of a child by itself is that of the supervisor."""
        if self.auto_shutdown == "never" or not child.spec.significant:
            return False
        left = (c for c in self.children.values() if c.spec.significant and c.shown is not None)
        return self.auto_shutdown == "any_significant" or not any(left)

    def _restart(self, child: Child) -> Stop | None:
        """Restart a dead child and those that go with it, if it may be."""
        uncounted = child.spec.backoff is not None or not self.counts_restart(
            child.spec, child.reason
        )
        if not (uncounted or self.intensity.add()):
            children_of.report(self.pid, "shutdown", "reached_max_restart_intensity", child)
            self._has_ended(child)
            return SPENT
        failed = self._restart_group(child)
        if failed is not None:
            self._try_again(failed)
        return None

    def _restart_group(self, child: Child) -> Child | None:
        """Stop and start by the strategy; return the child that did not start."""
        self._set_aside(child)
        return self._start_all(self._group(child))

    def _set_aside(self, child: Child) -> None:
        """Note that a child is dead, and stop those that go with it."""
        self._has_ended(child)
        if self.strategy != "one_for_one":
            self._stop([other for other in self._group(child) if other is not child])

    def _try_again(self, child: Child) -> None:
        assert self.pid is not None
        child.try_again(self.pid)

    def _group(self, child: Child) -> list[Child]:
        """Return the children that are restarted with `child`, in start order."""
        if self.strategy == "one_for_one":
            return [child]
        children = list(self.children.values())
        return children if self.strategy == "one_for_all" else children[children.index(child) :]

    # Starting and stopping; the only places that block.

    def _start(self, child: Child) -> Any:
        """Start a child; it is running or ignored then, or StartError was raised."""
        pid, value = children_of.start(child.spec)
        self._enter(child, pid)
        return value

    def _enter(self, child: Child, pid: Pid | None) -> None:
        child.has_started(pid)
        if pid is not None:
            self.running[pid] = child
            if child.is_temporary:
                child.forget_arguments()

    def _start_all(self, group: list[Child]) -> Child | None:
        """Start these in order, up to one that fails; return that one."""
        for child in group:
            try:
                self._start(child)
            except StartError as error:
                child.reason = error.reason
                children_of.report(self.pid, "start_error", error.reason, child)
                return child
            if child.pid is None and child.is_temporary:
                self._has_ended(child)
        return None

    def _stop(self, group: list[Child]) -> None:
        """Stop these, the last one first, one at a time."""
        for child in reversed(group):
            children_of.stop([child])
            self._has_ended(child)

    def _stop_all(self) -> None:
        self._stop(list(self.children.values()))

    def _has_ended(self, child: Child) -> None:
        """Note that a child has no process any more; a temporary one is forgotten."""
        if child.pid is not None:
            self.running.pop(child.pid, None)
            child.reason = child.pid.reason
        child.has_stopped()
        if child.is_temporary:
            self.children.pop(child.spec.id, None)


class _Unknown(Exception):
    """The request is none of a supervisor's."""


def _nothing() -> None:
    """Stand in for the callback of a watcher that never fires."""


def _listed(children: Any) -> list[Any]:
    if isinstance(children, str | bytes | ChildSpec) or not isinstance(children, Iterable):
        raise SpecError("bad_start_spec", "a list of ChildSpec", children)
    return list(children)
