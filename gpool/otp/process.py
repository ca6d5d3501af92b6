"""Processes: greenlets with links, monitors, a mailbox, and an exit that is never lost.

    >>> def child():
    ...     exit("boom")
    >>> pid, ref = spawn_monitor(child)
    >>> receive(timeout=1.0) == Down(ref, pid, "boom")
    True

Rules:

* Every greenlet is a process: one of ours from its birth, any other (main, raw,
  foreign) from its first use of gpool.
* An exit signal is accepted in the sender: from then on the process is not
  alive, its reason is fixed, and the first primitive that it calls raises.
  Otherwise the hub throws into it, once.  ``finally`` blocks run, within
  ``unwind_limit``; only ``exit(pid, "kill")`` cuts them short.
* Everything that a death entails (names, EXIT to links, DOWN to monitors, in
  that order) happens in one function, once, in the last frame of the dying
  greenlet, without a switch.
* A greenlet that swallows its exit is thrown at again, at most ten times, then
  declared dead: its process is a zombie, and every primitive in it raises.
* ``Greenlet.kill``, ``gevent.killall`` and the like count as ``killed``.

Differences to Erlang: ``finally`` runs at a signal (Python unwinds); EXIT is
promised to come before DOWN.

Not here: waiting for a start (``proc_lib.py``), names (``registry.py``).
"""

from __future__ import annotations

import contextvars
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, overload

import gevent
from gevent._hub_local import get_hub_if_exists  # never creates a hub, as get_hub() would
from greenlet import getcurrent

from gpool import clock, telemetry
from gpool.errors import NoProcess, ReceiveTimeout, WrongHub
from gpool.otp.pid import (
    DEAD,
    FORKED,
    PENDING,
    RUNNING,
    UNWINDING,
    Down,
    Error,
    Exit,
    ExitSignal,
    Monitor,
    Pid,
    Ref,
    table,
)
from gpool.waiter import Expired, Waiter

THROWS = 10  # times an exit is thrown into a greenlet that swallows it


# --- The greenlet of a process ------------------------------------------------------


class Process(gevent.Greenlet):
    """The greenlet that runs one process of ours."""

    def __init__(
        self, pid: Pid, fn: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        super().__init__()
        self.gpool_pid = pid
        self._body = (fn, args, kwargs)

    def _run(self) -> None:
        pid = self.gpool_pid
        (fn, args, kwargs), self._body = self._body, (_nothing, (), {})
        error: BaseException | None = None
        reason: Any = "normal"
        try:
            if pid.state is not RUNNING:
                raise ExitSignal(pid.reason)
            fn(*args, **kwargs)
        except BaseException as raised:
            error, reason = raised, reason_of(raised)
        del fn, args, kwargs
        _finish(pid, reason)
        if isinstance(error, KeyboardInterrupt):
            pid.hub.handle_system_error(type(error), error)

    def throw(self, *args: Any) -> None:
        """Raise in the process; ``GreenletExit`` is the exit signal ``killed``."""
        pid = self.gpool_pid
        if _is_exit(args):
            if pid.state is UNWINDING:
                return  # one exit a process: its cleanup is not cut by a second one
            if pid.state is RUNNING:
                pid.reason = "killed"
            if pid.state is not DEAD:
                pid.state = UNWINDING
        super().throw(*args)
        self._after_throw(args)

    def deliver(self, signal: ExitSignal) -> None:
        """Throw an exit signal that was accepted; in the hub."""
        super().throw(signal)
        self._after_throw((signal,))

    def _after_throw(self, args: tuple[Any, ...]) -> None:
        pid = self.gpool_pid
        if self.dead and pid.state is not DEAD:
            self._died_unborn(args[0] if args else gevent.GreenletExit())
        elif pid.state is UNWINDING:
            _limit_unwinding(pid)

    def _maybe_kill_before_start(self, exception: Any) -> bool:
        # gevent's name: Greenlet.kill, killall and Group.kill all pass through here.
        dead: bool = super()._maybe_kill_before_start(exception)
        if dead and self.gpool_pid.state is not DEAD:
            self._died_unborn(exception)
        return dead

    def _died_unborn(self, exception: Any) -> None:
        if isinstance(exception, tuple):
            exception = exception[1] or exception[0]
        if isinstance(exception, type):
            exception = exception()
        _finish(self.gpool_pid, reason_of(exception))


def _nothing() -> None:
    """Stand in for the body of a process that has started."""


def _is_exit(args: tuple[Any, ...]) -> bool:
    kind = args[0] if args else gevent.GreenletExit
    if not isinstance(kind, type):
        kind = type(kind)
    return issubclass(kind, gevent.GreenletExit)


def reason_of(error: BaseException) -> Any:
    """Return the reason of a process that `error` ended."""
    if isinstance(error, ExitSignal):
        return error.reason
    if isinstance(error, gevent.GreenletExit):
        return "killed"
    return Error(error)


def _initial_call(fn: Callable[..., object]) -> str:
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return name.replace("<locals>.", "")


def new_process(
    fn: Callable[..., object],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    initial_call: str | None = None,
    link: bool = False,
    monitor: Monitor | None = None,
    context: contextvars.Context | None = None,
) -> Pid:
    """Make a process, linked and monitored before it first runs, and start it.

    The public ways are :func:`spawn` and its kin.

    Args:
        fn: The body; what it returns is dropped.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        initial_call: What the process is shown as; the name of `fn` if None.
        link: Whether to link it to the caller.
        monitor: Told of its death.
        context: Its context variables; a copy of the caller's if None.
    """
    parent = current()
    if not callable(fn):
        raise TypeError(f"fn: expected a callable, got {fn!r}")
    pid = Pid(gevent.get_hub(), initial_call or _initial_call(fn), parent, clock.now())
    greenlet = Process(pid, fn, args, kwargs or {})
    greenlet.gr_context = context if context is not None else contextvars.copy_context()
    pid.greenlet = greenlet
    table.processes[pid.id] = pid
    if link:
        pid.links[parent] = parent.links[pid] = None
    if monitor is not None:
        pid.monitored_by[monitor] = None
    greenlet.start()
    return pid


# --- Who runs -----------------------------------------------------------------------


def current() -> Pid:
    """Return the running process, if it may go on; raise its exit if it may not."""
    greenlet = getcurrent()
    try:
        pid: Pid = greenlet.gpool_pid
    except AttributeError:
        return _adopt(greenlet)
    if pid.state is not RUNNING:
        return _refuse(pid, greenlet)
    return pid


def _refuse(pid: Pid, greenlet: Any) -> Pid:
    if pid.state is UNWINDING:
        return pid
    if pid.state is FORKED:
        if isinstance(greenlet, Process):
            park()
        return _adopt(greenlet)
    if pid.state is PENDING:
        pid.state = UNWINDING
    else:
        _note_refusal(pid)
    raise ExitSignal(pid.reason)


def _note_refusal(pid: Pid) -> None:
    # A loop that swallows what its primitives raise would never let the hub run.
    pid.raised += 1
    if pid.raised > THROWS:
        if pid.state is not DEAD:
            _declare_dead(pid)
        park()


def park() -> NoReturn:
    """Leave the running greenlet where it is, for ever."""
    while True:
        gevent.get_hub().switch()


def _adopt(greenlet: Any) -> Pid:
    hub = get_hub_if_exists()
    pid = Pid(hub, _foreign_call(greenlet, hub), None, clock.now())
    table.processes[pid.id] = pid
    if isinstance(greenlet, gevent.Greenlet):
        pid.greenlet = greenlet
        greenlet.rawlink(_foreign_ended)
    elif greenlet is hub or greenlet.parent is None:
        pid.greenlet = greenlet  # the hub, or the main greenlet of its thread
    else:
        pid.weak_greenlet = weakref.ref(greenlet, lambda _: _raw_ended(pid))
    greenlet.gpool_pid = pid
    return pid


def _foreign_call(greenlet: Any, hub: Any) -> str:
    if greenlet is hub:
        return "hub"
    if greenlet.parent is None:
        return "main"
    run = getattr(greenlet, "_run", None)
    return _initial_call(run) if run is not None else type(greenlet).__name__


def _foreign_ended(greenlet: Any) -> None:
    exception = greenlet.exception
    if exception is None and isinstance(greenlet.value, gevent.GreenletExit):
        exception = greenlet.value
    _finish(greenlet.gpool_pid, "normal" if exception is None else _foreign_reason(exception))


def _foreign_reason(exception: BaseException) -> Any:
    # gevent has reported it already, and may raise it again from get().
    if isinstance(exception, gevent.GreenletExit):
        return reason_of(exception)
    kept, error = exception.__traceback__, Error(exception)
    exception.__traceback__ = kept
    return error


def _raw_ended(pid: Pid) -> None:
    if pid.state is not FORKED:
        _finish(pid, "normal")


def reap_raw() -> None:
    """Notice the raw greenlets that have ended but are still referenced by somebody.

    Nothing tells of their death; those who are about to wait ask.
    """
    for pid in list(table.processes.values()):
        if pid.weak_greenlet is not None and _is_over(pid):
            _raw_ended(pid)


def _is_over(pid: Pid) -> bool:
    greenlet = pid.weak_greenlet() if pid.weak_greenlet is not None else pid.greenlet
    return greenlet is None or bool(greenlet.dead)


# --- Death --------------------------------------------------------------------------


def _finish(pid: Pid, reason: Any) -> None:
    """Do all that the end of a greenlet entails; the last thing that happens in it."""
    if pid.state is DEAD:
        table.zombies.pop(pid, None)
        return
    failed = None
    if pid.state is not RUNNING:  # the reason was fixed when the signal was accepted
        if isinstance(reason, Error):
            failed = reason.exception
        reason = pid.reason
    _end(pid, reason)
    if failed is not None:
        telemetry.emit(telemetry.CleanupFailed(pid, failed))


def _end(pid: Pid, reason: Any) -> None:
    # Of a process that is being started, its starter hears.
    silent = pid.starter is not None or is_orderly(reason)
    report = None if silent else _crash_report(pid, reason)
    for error in die(pid, reason):
        telemetry.emit(telemetry.CleanupFailed(pid, error))
    if report is not None:
        telemetry.emit(report)


def is_orderly(reason: Any) -> bool:
    """Tell whether a process that dies so is not worth a report."""
    return reason in ("normal", "shutdown") or (
        isinstance(reason, tuple) and reason[:1] == ("shutdown",)
    )


def _crash_report(pid: Pid, reason: Any) -> telemetry.ProcessCrashed:
    return telemetry.ProcessCrashed(
        pid, pid.name, reason, pid.initial_call, pid.ancestors, tuple(pid.links),
        len(pid.mailbox), pid.last_message,
    )  # fmt: skip


def die(pid: Pid, reason: Any) -> list[Exception]:
    """Make `pid` dead: names, links, monitors, in this order; never switches.

    Returns:
        What monitor functions raised, for a report once it is safe to switch.
    """
    pid.state, pid.reason, pid.ended_at = DEAD, reason, clock.now()
    table.processes.pop(pid.id, None)
    table.remember(pid)
    if pid.unwind_timer is not None:
        pid.unwind_timer.cancel()
        pid.unwind_timer = None
    for names, key in pid.names:
        if names.get(key) is pid:
            del names[key]
    starter, pid.starter = pid.starter, None
    if starter is not None:
        if starter.owner is not None and pid.links.pop(starter.owner, True) is None:
            starter.owner.links.pop(pid, None)
        starter.wake(("died", reason))
    _tell_links(pid, reason)
    errors = _tell_monitors(pid, reason)
    pid.greenlet = pid.server = pid.last_message = pid.awaiting = None
    pid.mailbox.messages.clear()
    return errors


def _tell_links(pid: Pid, reason: Any) -> None:
    links, pid.links = pid.links, {}
    for linked in links:
        linked.links.pop(pid, None)
        signal(linked, pid, reason)


def _tell_monitors(pid: Pid, reason: Any) -> list[Exception]:
    errors = []
    watchers, pid.monitored_by = pid.monitored_by, {}
    for watcher in watchers:
        try:
            watcher.down(pid, reason)
        except Exception as error:
            errors.append(error)
    refs, pid.monitors = pid.monitors, {}
    for ref in refs:
        if ref.target is not None:
            ref.target.monitored_by.pop(ref, None)
    return errors


# --- Exit signals -------------------------------------------------------------------


def signal(target: Pid, sender: Pid, reason: Any, *, direct: bool = False) -> None:
    """Deliver an exit signal; accepted at once, thrown later, never a switch.

    Args:
        target: Who gets it.
        sender: Who is named in the EXIT message.
        reason: Why.
        direct: Sent by ``exit(pid, reason)``, not by a link: only then is
            `kill` untrappable, and `normal` to oneself deadly.
    """
    if direct and reason == "kill":
        _accept_kill(target)
    elif target.state is not RUNNING:
        pass  # the first signal fixes the reason
    elif target.trapping:
        target.mailbox.append(Exit(sender, reason))
    elif reason != "normal" or (direct and sender is target):
        _accept(target, reason)


def _accept(target: Pid, reason: Any) -> None:
    target.reason = reason
    if target.greenlet is None and target.weak_greenlet is None:
        _end(target, reason)  # a shell has nothing to unwind
        return
    target.state = PENDING
    target.hub.loop.run_callback(_interrupt, target)


def _accept_kill(target: Pid) -> None:
    if target.state is RUNNING:
        target.killed = True
        _accept(target, "killed")
    elif target.state is PENDING:
        target.killed = True
    elif target.state is UNWINDING and not target.killed:
        _cut_unwinding(target)


def _interrupt(pid: Pid) -> None:
    if pid.state is PENDING:
        pid.state = UNWINDING
        _throw(pid)
    elif pid.state is UNWINDING:  # a primitive raised before we could throw
        _limit_unwinding(pid)


def _throw(pid: Pid) -> None:
    """Throw the exit into the greenlet; in the hub, which goes on when it died or blocked."""
    greenlet: Any = pid.greenlet if pid.weak_greenlet is None else pid.weak_greenlet()
    pid.thrown += 1
    if isinstance(greenlet, Process):
        greenlet.deliver(ExitSignal(pid.reason))
        return
    if greenlet is not None and not greenlet.dead:
        greenlet.throw(ExitSignal(pid.reason))
    if greenlet is None or greenlet.dead:
        _finish(pid, pid.reason)
    else:
        _limit_unwinding(pid)


def _limit_unwinding(pid: Pid) -> None:
    """See to it that the cleanup of `pid` ends: it has blocked, or swallowed its exit."""
    if pid.state is not UNWINDING:
        return
    if pid.killed:
        if pid.thrown >= THROWS:
            _declare_dead(pid)
        else:
            pid.hub.loop.run_callback(_throw_again, pid)
    elif pid.unwind_timer is None and pid.unwind_limit is not None:
        pid.unwind_timer = clock.call_later(pid.unwind_limit, _cut_unwinding, pid)


def _throw_again(pid: Pid) -> None:
    if pid.state is UNWINDING:
        _throw(pid)


def _cut_unwinding(pid: Pid) -> None:
    pid.killed, pid.reason, pid.thrown = True, "killed", 0
    pid.hub.loop.run_callback(_throw_again, pid)


def _declare_dead(pid: Pid) -> None:
    table.zombies[pid] = pid.greenlet or (pid.weak_greenlet and pid.weak_greenlet())
    stack = tuple(traceback.format_stack(getattr(table.zombies[pid], "gr_frame", None)))
    _end(pid, "killed")
    telemetry.emit(telemetry.ProcessIsZombie(pid, stack))


# --- The public primitives ----------------------------------------------------------


def self() -> Pid:
    """Return the pid of the running greenlet, which thereby becomes a process.

    Source:
        Erlang ``self/0``.
    """
    return current()


def spawn(fn: Callable[..., object], *args: Any, **kwargs: Any) -> Pid:
    """Start a process that runs ``fn(*args, **kwargs)``; it shares the caller's context.

    Returns:
        Its pid; the process first runs when the caller next blocks.

    Source:
        Erlang ``spawn/1``.
    """
    return new_process(fn, args, kwargs)


def spawn_link(fn: Callable[..., object], *args: Any, **kwargs: Any) -> Pid:
    """Start a process linked to the caller, in one step.

    Source:
        Erlang ``spawn_link/1``.
    """
    return new_process(fn, args, kwargs, link=True)


def spawn_monitor(fn: Callable[..., object], *args: Any, **kwargs: Any) -> tuple[Pid, Ref]:
    """Start a process that the caller monitors, in one step.

    Returns:
        Its pid and the reference that its :class:`Down` message will carry.

    Source:
        Erlang ``spawn_monitor/1``.
    """
    pid = new_process(fn, args, kwargs)
    return pid, _watch(current(), pid, pid)


def link(pid: Pid) -> None:
    """Tie the caller's life to that of `pid`, both ways; once is enough.

    Raises:
        NoProcess: `pid` is dead and the caller does not trap exits; if it does,
            it gets ``Exit(pid, "noproc")``.
        WrongHub: `pid` lives in another thread.

    Source:
        Erlang ``link/1``.
    """
    me = current()
    same_hub(pid)
    if pid is me:
        return
    if pid.state is DEAD or pid.state is FORKED:
        if not me.trapping:
            raise NoProcess(pid)
        me.mailbox.append(Exit(pid, "noproc"))
        return
    me.links[pid] = pid.links[me] = None


def unlink(pid: Pid) -> None:
    """Untie the caller from `pid`; no EXIT of that link arrives afterwards.

    One that is queued already stays: take it with ``receive(..., timeout=0)``.

    Source:
        Erlang ``unlink/1``.
    """
    me = current()
    me.links.pop(pid, None)
    pid.links.pop(me, None)


def monitor(process: Pid | str) -> Ref:
    """Ask for one :class:`Down` message when `process` dies, of whatever reason.

    Args:
        process: A pid, or a registered name: then that of whoever has it now,
            and the message reports the name.

    Returns:
        A reference; if nobody is there its ``Down(..., "noproc")`` is queued already.

    Raises:
        WrongHub: The process lives in another thread.

    Source:
        Erlang ``monitor/2``.
    """
    me = current()
    pid = table.names.get(process) if isinstance(process, str) else process
    if pid is not None:
        same_hub(pid)
    return _watch(me, pid, process)


def _watch(me: Pid, pid: Pid | None, process: Pid | str) -> Ref:
    ref = Ref(me, pid, process)
    if pid is None or pid.state is DEAD or pid.state is FORKED:
        me.mailbox.append(Down(ref, process, "noproc"))
    elif pid is not me:
        pid.monitored_by[ref] = None
        me.monitors[ref] = None
    return ref


def demonitor(ref: Ref, *, flush: bool = False) -> bool:
    """Take a monitor back; twice is fine.

    Args:
        ref: What :func:`monitor` gave, to this process.
        flush: Whether to remove its DOWN message if that is queued already.

    Returns:
        True if the monitor was still active, so no DOWN has been sent.

    Source:
        Erlang ``demonitor/2`` with its option ``info``.
    """
    me = current()
    active = me.monitors.pop(ref, True) is None
    if active and ref.target is not None:
        ref.target.monitored_by.pop(ref, None)
    if flush and not active:
        me.mailbox.discard(lambda message: type(message) is Down and message.ref is ref)
    return active


@overload
def exit(reason: Any, /) -> NoReturn: ...
@overload
def exit(pid: Pid, reason: Any, /) -> None: ...
def exit(*args: Any) -> None:
    """End the caller with a reason, or send an exit signal to a process.

    ``exit(reason)`` raises in the caller and can be caught.  ``exit(pid, reason)``
    never blocks: `normal` is ignored by others, `kill` cannot be trapped and
    shows as `killed`, anything else ends a process that does not trap exits and
    is an :class:`Exit` message to one that does.  Works from any thread.

    Source:
        Erlang ``exit/1`` and ``exit/2``.
    """
    if len(args) == 1:
        current()
        raise ExitSignal(args[0])
    pid, reason = args
    me = current()
    if pid.hub is not get_hub_if_exists():
        pid.hub.loop.run_callback_threadsafe(_signal_from_thread, pid, me, reason)
        return
    signal(pid, me, reason, direct=True)
    if pid is me:
        current()


def _signal_from_thread(pid: Pid, sender: Pid, reason: Any) -> None:
    signal(pid, sender, reason, direct=True)


def trap_exit(flag: bool) -> bool:
    """Choose whether exit signals end the caller or become :class:`Exit` messages.

    Returns:
        What it was before.

    Source:
        Erlang ``process_flag(trap_exit, Flag)``.
    """
    me = current()
    before, me.trapping = me.trapping, bool(flag)
    return before


def resolve(process: Any) -> Pid:
    """Return the pid of a pid, a registered name or a server's handle.

    Raises:
        NoProcess: The name is free, or the handle was never started.
        TypeError: It is none of these.
    """
    if type(process) is Pid:
        return process
    if isinstance(process, str):
        pid = table.names.get(process)
        if pid is None:
            raise NoProcess(process)
        return pid
    try:
        found = process.pid
    except AttributeError:
        raise TypeError(f"expected a Pid, a name or a server, got {process!r}") from None
    if found is None:
        raise NoProcess(process)
    return resolve(found)


def send(process: Any, message: Any) -> None:
    """Put `message` into a process's mailbox; never blocks, works from any thread.

    Args:
        process: A pid (a dead one swallows the message), a name or a handle.
        message: Anything; it is not copied.

    Raises:
        NoProcess: Nobody has that name.

    Source:
        Erlang ``!``.
    """
    pid = _sender_to(process)
    if pid.hub is not get_hub_if_exists():
        pid.hub.loop.run_callback_threadsafe(_post, pid, message)
    else:
        _post(pid, message)


def _sender_to(process: Any) -> Pid:
    me = getattr(getcurrent(), "gpool_pid", None)
    if me is not None and me.state is not RUNNING:
        current()
    return resolve(process)


def _post(pid: Pid, message: Any) -> None:
    if pid.state is not DEAD and pid.state is not FORKED:
        pid.mailbox.append(message)


def receive(match: Callable[[Any], bool] | None = None, timeout: float | None = None) -> Any:
    """Take the first message that matches; blocks until there is one.

    Args:
        match: A predicate on messages; None takes any.  The others keep their order.
        timeout: Seconds; None waits for ever, 0 polls.  Other messages do not extend it.

    Raises:
        ReceiveTimeout: No message matched in time.

    Source:
        Erlang ``receive ... after``.
    """
    me = current()
    if me.state is UNWINDING:
        _note_refusal(me)
        raise ExitSignal(me.reason)
    try:
        return me.mailbox.take(match, timeout)
    except Expired:
        assert timeout is not None
        raise ReceiveTimeout(timeout) from None


def is_alive(process: Any) -> bool:
    """Tell whether a process lives; False from the moment that an exit is accepted.

    Source:
        Erlang ``is_process_alive/1``.
    """
    try:
        pid = resolve(process)
    except NoProcess:
        return False
    return pid.state is RUNNING and not (pid.weak_greenlet is not None and _is_over(pid))


def await_death(pid: Pid, timeout: float | None = None) -> Any:
    """Block until `pid` is dead and return its reason.

    Args:
        pid: A process of this thread.
        timeout: Seconds; None waits for ever.

    Raises:
        Expired: It lives on.
    """
    if pid.state is DEAD or pid.state is FORKED:
        return pid.reason
    death = _Death()
    pid.monitored_by[death] = None
    try:
        return death.waiter.wait(timeout)
    finally:
        pid.monitored_by.pop(death, None)


class _Death:
    __slots__ = ("waiter",)

    def __init__(self) -> None:
        self.waiter = Waiter()

    def down(self, pid: Pid, reason: Any) -> None:
        self.waiter.wake(reason)


def same_hub(pid: Pid) -> None:
    """Raise :class:`WrongHub` unless `pid` lives in the caller's thread."""
    if pid.hub is not get_hub_if_exists():
        raise WrongHub(pid)


# --- Looking ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What there is to know of one process, at one moment.

    Source:
        Erlang ``process_info/1`` and the Observer's process window.
    """

    pid: Pid
    name: Any
    initial_call: str
    current_function: str
    status: str  # running, waiting, exiting or dead
    parent: Pid | None
    ancestors: tuple[Pid, ...]
    links: tuple[Pid, ...]
    monitors: tuple[Pid | str, ...]
    monitored_by: tuple[Pid, ...]
    message_queue_len: int
    trap_exit: bool
    reason: Any  # of its death
    started_at: float  # seconds of gpool's clock
    ended_at: float | None


def processes() -> list[Pid]:
    """Return the processes that are not dead yet, oldest first.

    Source:
        Erlang ``processes/0``.
    """
    return list(table.processes.values())


def zombies() -> list[Pid]:
    """Return the processes whose greenlets swallowed their exit and still run."""
    return list(table.zombies)


def recently_ended() -> list[Pid]:
    """Return the latest dead processes, oldest first; :func:`process_info` knows them still."""
    return list(table.ended)


def process_info(process: Any) -> ProcessInfo:
    """Describe a process, dead or alive.

    Raises:
        NoProcess: Nobody has that name.
    """
    pid = resolve(process)
    return ProcessInfo(
        pid=pid,
        name=pid.name,
        initial_call=pid.initial_call,
        current_function=_current_function(pid),
        status=_status(pid),
        parent=pid.parent,
        ancestors=pid.ancestors,
        links=tuple(pid.links),
        monitors=tuple(ref.process for ref in pid.monitors),
        monitored_by=tuple(r.watcher for r in pid.monitored_by if isinstance(r, Ref)),
        message_queue_len=len(pid.mailbox),
        trap_exit=pid.trapping,
        reason=pid.reason,
        started_at=pid.started_at,
        ended_at=pid.ended_at,
    )


def _status(pid: Pid) -> str:
    if pid.state is RUNNING:
        running = getattr(getcurrent(), "gpool_pid", None) is pid
        return "running" if running else "waiting"
    return "dead" if pid.state in (DEAD, FORKED) else "exiting"


def _current_function(pid: Pid) -> str:
    greenlet: Any = pid.greenlet if pid.weak_greenlet is None else pid.weak_greenlet()
    frame = getattr(greenlet, "gr_frame", None)
    if frame is None:
        return ""
    return f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
