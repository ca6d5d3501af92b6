"""One child of a supervisor while it lives: its start, its stop, its restarts to come.

Both functions that block are here, :func:`start` and :func:`stop`; they run in
the supervisor's process.

Rules:

* A child starts in an empty context, and is linked to its supervisor when
  :func:`start` returns, whoever started it.
* A stopping child keeps its link until it is dead, so that a supervisor that is
  killed meanwhile takes it along; while a supervisor waits for it there is no EXIT.
* Those who are stopped together are signalled together; each is killed when its
  own time is over.  A kill always ends a process, if only as a zombie.
* While a supervisor waits for a child, the child's calls to it raise ``CallingSelf``.

Source:
    ``do_start_child``, ``shutdown`` and ``terminate_dynamic_children`` of OTP's supervisor.erl.

Not here: which child is started or stopped when (``supervisor.py``).
"""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from functools import partial
from typing import Any

from gpool import clock, telemetry
from gpool.errors import StartError, WrongHub
from gpool.otp import process
from gpool.otp.child_spec import ChildSpec
from gpool.otp.greenlets import current
from gpool.otp.pid import DEAD, FORKED, RUNNING, Exit, ExitSignal, Pid, watch
from gpool.otp.signal import is_orderly, is_word, reason_of, signal
from gpool.waiter import Expired, Waiter


class Child:
    """What a supervisor knows of one child.

        stopped --started--> running --died, try again--> restarting
           ^                    |  ^--------started----------|
           +--ended or stopped--+--------stopped-------------+

    Invariants: only a running child has a live pid in its supervisor's index;
    only a restarting one has a `retry`.
    """

    __slots__ = ("failures", "lives_since", "pid", "reason", "retry", "spec", "starts")

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.pid: Pid | None = None  # its process; while restarting maybe its latest
        self.reason: Any = None  # of its latest death or failed start
        self.failures = 0  # in a row, for its backoff
        self.lives_since: float | None = None  # s of gpool's clock, for its backoff
        self.retry: TryAgain | None = None  # the message that it waits for
        self.starts = 0  # those that went well

    @property
    def restarting(self) -> bool:
        """Whether it is to be started again."""
        return self.retry is not None

    @property
    def shown(self) -> Pid | str | None:
        """Its pid, "restarting", or None, as ``which_children`` has it."""
        return "restarting" if self.restarting else self.pid

    @property
    def is_running(self) -> bool:
        """Whether it has a process, for all that the supervisor knows."""
        return self.pid is not None and self.retry is None

    @property
    def is_temporary(self) -> bool:
        """Whether it goes for good when it ends."""
        return self.spec.restart == "temporary"

    @property
    def restarts(self) -> int:
        """Times that it was started again, by whomever."""
        return max(self.starts - 1, 0)

    def forget_arguments(self) -> None:
        """Let go of what it was started with: it will never be started again."""
        if self.spec.args or self.spec.kwargs:
            self.spec = self.spec.with_arguments((), {})

    def has_started(self, pid: Pid | None) -> None:
        """Note that its start has returned; None: it was ignored."""
        if self.retry is not None:
            self.cancel_retry()
        self.pid = pid
        self.starts += 1
        if self.spec.backoff is not None:
            self.lives_since = clock.now()

    def has_stopped(self) -> None:
        """Note that it is stopped, for good or until somebody starts it."""
        if self.retry is not None:
            self.cancel_retry()
        self.pid = None

    def try_again(self, supervisor: Pid) -> None:
        """Have the supervisor get a message, at once or when the backoff is over."""
        self.cancel_retry()
        self.retry = message = TryAgain(self)
        if self.spec.backoff is None:
            # Through the hub: a start that always fails must not starve the others.
            supervisor.hub.loop.run_callback(_post, supervisor, message)
        else:
            message.timer = clock.call_later(self._delay(), _post, supervisor, message, ref=False)

    def cancel_retry(self) -> None:
        """Forget about the next attempt; its message, if on its way, is stale then."""
        retry, self.retry = self.retry, None
        if retry is not None and retry.timer is not None:
            retry.timer.cancel()

    def _delay(self) -> float:
        backoff, born = self.spec.backoff, self.lives_since
        assert backoff is not None
        if born is not None and clock.now() - born >= backoff.maximum:
            self.failures = 0
        self.lives_since = None
        delay = backoff.delay(self.failures)
        self.failures += 1
        return delay


class TryAgain:
    """The message that makes a supervisor restart a child once more."""

    __slots__ = ("child", "timer")

    def __init__(self, child: Child) -> None:
        self.child = child
        self.timer: clock.Timer | None = None  # brings it after a backoff

    @property
    def is_stale(self) -> bool:
        """Whether the child was stopped or started since."""
        return self.child.retry is not self


def _post(supervisor: Pid, message: TryAgain) -> None:
    if supervisor.state is RUNNING:
        supervisor.mailbox.append(message)


# --- Starting -----------------------------------------------------------------------


def start(spec: ChildSpec) -> tuple[Pid | None, Any]:
    """Start a child and link the caller to it; blocks as long as `spec.start` does.

    Returns:
        Its pid and what its start function returned; both None if it is ignored.

    Raises:
        StartError: The start function raised, or returned something odd.
    """
    me = current()
    try:
        value = contextvars.Context().run(spec.start, *spec.args, **spec.kwargs)
        pid = _pid_of(value, me)
        if pid is None:
            return None, None
        take(pid, spec, me)
    except BaseException as error:
        if me.state is not RUNNING or isinstance(error, KeyboardInterrupt):
            raise
        reason = error.reason if isinstance(error, StartError) else reason_of(error)
    else:
        return pid, value
    raise StartError(f"child {spec.id!r}", reason) from getattr(reason, "exception", None)


def _pid_of(value: Any, supervisor: Pid) -> Pid | None:
    started = value[0] if isinstance(value, tuple) and len(value) == 2 else value
    pid = started if isinstance(started, Pid) else getattr(started, "pid", started)
    if pid is not None and (not isinstance(pid, Pid) or pid is supervisor):
        raise ExitSignal(value)  # as OTP has it, the odd value is the reason
    return pid


def take(pid: Pid, spec: ChildSpec, supervisor: Pid) -> None:
    """Make a process a child of the running supervisor: link it and limit its cleanup.

    If it has died already the supervisor gets its EXIT all the same, once.

    Raises:
        WrongHub: It lives in another thread.
    """
    if pid.hub is not supervisor.hub:
        raise WrongHub(pid)
    if pid.state is not DEAD:
        if supervisor not in pid.links:
            process.link(pid)
    elif not supervisor.mailbox.holds(partial(_is_exit_of, {pid})):
        supervisor.mailbox.append(Exit(pid, pid.reason))
    if spec.shutdown != "brutal_kill":
        pid.unwind_limit = spec.shutdown


# --- Stopping -----------------------------------------------------------------------


class _Deaths:
    """A monitor on several processes: who of them lives still."""

    __slots__ = ("_waiter", "left")

    def __init__(self, pids: dict[Pid, ChildSpec]) -> None:
        self.left = pids
        self._waiter: Waiter | None = None  # while somebody waits

    def down(self, pid: Pid, reason: Any) -> None:
        """Note a death, in the dying frame."""
        self.left.pop(pid, None)
        if not self.left and self._waiter is not None:
            self._waiter.wake()

    def wait(self, seconds: float | None) -> None:
        """Block until all are dead or so much time has passed; None: however much."""
        if self.left:
            self._waiter = waiter = Waiter()
            try:
                waiter.wait(seconds)
            except Expired:
                self._waiter = None


def stop(children: Sequence[Child]) -> None:
    """Stop these children, all at once; blocks until they are dead, then reports.

    Those that are dead, restarting or never ran are no trouble.  The caller
    notes what has become of them.
    """
    me = current()
    left: dict[Pid, ChildSpec] = {}
    dead: set[Pid] = set()
    for child in children:
        if child.pid is None or child.retry is not None:
            continue
        if child.pid.state is DEAD or child.pid.state is FORKED:
            dead.add(child.pid)
        else:
            left[child.pid] = child.spec
    if left:
        _shut_down(me, left)
    if dead and me.mailbox.messages:
        me.mailbox.discard_all(partial(_is_exit_of, dead))
    for child in children:
        if child.is_running:
            _report_end(me, child)


def _shut_down(me: Pid, left: dict[Pid, ChildSpec]) -> None:
    deaths = _Deaths(left)
    me.awaiting = left
    waited = 0.0
    # A union would be slower.
    limits = sorted({s.shutdown for s in left.values() if isinstance(s.shutdown, (int, float))})
    try:
        for pid, spec in list(left.items()):
            watch(pid, deaths)
            reason = "kill" if spec.shutdown == "brutal_kill" else "shutdown"
            signal(pid, me, reason, direct=True)
        for limit in limits:
            deaths.wait(limit - waited)
            if not left:
                return
            waited = limit
            for pid in [pid for pid, spec in left.items() if spec.shutdown == limit]:
                signal(pid, me, "kill", direct=True)
        deaths.wait(None)
    finally:
        me.awaiting = ()
        for pid in left:
            pid.monitored_by.pop(deaths, None)


def _is_exit_of(pids: set[Pid], message: Any) -> bool:
    return type(message) is Exit and message.pid in pids


def _report_end(me: Pid, child: Child) -> None:
    """Report a child that did not end as it should when it was stopped."""
    assert child.pid is not None
    reason = child.pid.reason
    expected = "killed" if child.spec.shutdown == "brutal_kill" else "shutdown"
    if is_word(reason, expected) or (child.spec.restart != "permanent" and is_orderly(reason)):
        return
    report(me, "shutdown_error", reason, child)


def report(supervisor: Pid | None, context: str, reason: Any, child: Child) -> None:
    """Emit the supervisor's line about a child."""
    if telemetry.is_heard():
        telemetry.emit(
            telemetry.SupervisorReport(supervisor, context, reason, child.spec.id, child.pid)
        )
