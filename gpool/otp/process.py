"""Processes: greenlets with links, monitors, a mailbox, and an exit that is never lost.

    >>> def child():
    ...     exit("boom")
    >>> pid, ref = spawn_monitor(child)
    >>> receive(timeout=1.0) == Down(ref, pid, "boom")
    True

Rules:

* Every greenlet is a process: one of ours from its birth, any other (main, raw,
  foreign) from its first use of gpool.
* A process whose exit was accepted runs no further than to its next primitive:
  that raises.  While it unwinds all of them work but :func:`receive`; once it
  was declared dead none does.
* ``Greenlet.kill``, ``gevent.killall`` and the like count as ``killed``.

Differences to Erlang: ``finally`` runs at a signal (Python unwinds); EXIT is
promised to come before DOWN.

Not here: how a signal is accepted and what a death entails (``signal.py``),
waiting for a start (``proc_lib.py``), names (``registry.py``).
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable
from typing import Any, NoReturn, overload

import gevent
from gevent._hub_local import get_hub_if_exists  # never creates a hub, as get_hub() would
from greenlet import getcurrent

from gpool import clock
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
from gpool.otp.signal import THROWS, declare_dead, finish, limit_unwinding, reason_of, signal
from gpool.waiter import Expired, Waiter

# --- The greenlet of a process ------------------------------------------------------


class Process(gevent.Greenlet):  # type: ignore[type-arg]  # not generic at run time
    """The greenlet that runs one process of ours."""

    gpool_parks = True  # in a forked child: it is the parent's

    def __init__(
        self, pid: Pid, fn: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        super().__init__()
        self.gpool_pid = pid
        self._body = (fn, args, kwargs)

    def _run(self) -> None:
        pid = self.gpool_pid
        try:
            reason = self._live(pid)
            finish(pid, reason)
        finally:
            finish(pid, "killed")  # nothing is left to do, unless a KeyboardInterrupt struck
        if isinstance(reason, Error) and isinstance(reason.exception, KeyboardInterrupt):
            pid.hub.handle_system_error(type(reason.exception), reason.exception)

    def _live(self, pid: Pid) -> Any:
        (fn, args, kwargs), self._body = self._body, (_nothing, (), {})
        try:
            if pid.state is not RUNNING:
                raise ExitSignal(pid.reason)
            fn(*args, **kwargs)
        except BaseException as raised:  # noqa: BLE001  # whatever it is, it ends here
            return reason_of(raised)
        return "normal"

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
                if pid.doomed is not None:
                    pid.doomed(pid.reason)
        super().throw(*(() if self._is_unborn() else args))
        self._after_throw(args)

    def _after_throw(self, args: tuple[Any, ...]) -> None:
        pid = self.gpool_pid
        if self.dead and pid.state is not DEAD:
            self._died_unborn(args[0] if args else gevent.GreenletExit())
        elif pid.state is UNWINDING:
            limit_unwinding(pid)

    def _maybe_kill_before_start(self, exception: Any) -> bool:
        # gevent's name: Greenlet.kill, killall and Group.kill all pass through here.
        # It would print an exception of an unborn greenlet, so it is told of none.
        dead: bool = super()._maybe_kill_before_start(gevent.GreenletExit())  # type: ignore[misc]
        if dead and self.gpool_pid.state is not DEAD:
            self._died_unborn(exception)
        return dead

    def _is_unborn(self) -> bool:
        return self._body[0] is not _nothing

    def _died_unborn(self, exception: Any) -> None:
        if isinstance(exception, tuple):
            exception = exception[1] or exception[0]
        if isinstance(exception, type):
            exception = exception()
        finish(self.gpool_pid, reason_of(exception))


def _nothing() -> None:
    """Stand in for the body of a process that has started."""


def _is_exit(args: tuple[Any, ...]) -> bool:
    kind = args[0] if args else gevent.GreenletExit
    if not isinstance(kind, type):
        kind = type(kind)
    return issubclass(kind, gevent.GreenletExit)


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
    greenlet: Any = getcurrent()
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
            declare_dead(pid)
        park()


def park() -> NoReturn:
    """Leave the running greenlet where it is, for ever."""
    while True:
        gevent.get_hub().switch()


def _adopt(greenlet: Any) -> Pid:
    hub = gevent.get_hub()  # others will signal it through its hub
    pid = Pid(hub, _foreign_call(greenlet, hub), None, clock.now())
    table.processes[pid.id] = pid
    if isinstance(greenlet, gevent.Greenlet):
        pid.greenlet = greenlet
        greenlet.rawlink(_foreign_ended)
    elif greenlet is hub:
        pid.greenlet = greenlet
        pid.trapping = True  # a link made in a loop callback must not end the loop
    else:
        pid.weak_greenlet = weakref.ref(greenlet, lambda _: _raw_ended(pid))
        if greenlet.parent is not None:  # else the main greenlet of its thread
            table.raw[pid] = None
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
    finish(greenlet.gpool_pid, "normal" if exception is None else _foreign_reason(exception))


def _foreign_reason(exception: BaseException) -> Any:
    # gevent has reported it already, and may raise it again from get().
    if isinstance(exception, gevent.GreenletExit):
        return reason_of(exception)
    kept, error = exception.__traceback__, Error(exception)
    exception.__traceback__ = kept
    return error


def _raw_ended(pid: Pid) -> None:
    finish(pid, "normal")


def reap_raw() -> None:
    """Notice the raw greenlets that have ended but are still referenced by somebody.

    Nothing tells of their death; those who are about to wait ask.
    """
    hub = get_hub_if_exists()
    for pid in list(table.raw):
        if pid.hub is hub and _is_over(pid):
            _raw_ended(pid)


def _is_over(pid: Pid) -> bool:
    if pid.greenlet is None and pid.weak_greenlet is None:
        return False  # a shell
    greenlet = pid.runner()
    return greenlet is None or bool(greenlet.dead)


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
def exit(process: Any, reason: Any, /) -> None: ...
def exit(*args: Any) -> None:
    """End the caller with a reason, or send an exit signal to a process.

    ``exit(reason)`` raises in the caller and can be caught.  ``exit(process, reason)``
    takes a pid, a name or a handle, and never blocks: `normal` is ignored by
    others, `kill` cannot be trapped and shows as `killed`, anything else ends a
    process that does not trap exits and is an :class:`Exit` message to one that
    does.  Works from any thread.

    Source:
        Erlang ``exit/1`` and ``exit/2``.
    """
    if len(args) == 1:
        current()
        raise ExitSignal(args[0])
    process, reason = args
    pid = resolve(process)
    if pid.hub is not get_hub_if_exists():
        _in_its_thread(pid, _signal_directly, pid, _stranger(), reason)
        return
    me = current()
    signal(pid, me, reason, direct=True)
    if pid is me:
        current()


def _signal_directly(pid: Pid, sender: Pid, reason: Any) -> None:
    signal(pid, sender, reason, direct=True)


def _in_its_thread(pid: Pid, fn: Callable[..., object], *args: Any) -> None:
    loop = pid.hub.loop
    if loop is not None:  # else the thread has ended, and its processes with it
        loop.run_callback_threadsafe(fn, *args)


def _stranger() -> Pid:
    """Return who sends to another thread; a thread without a hub gets none for that."""
    if get_hub_if_exists() is not None:
        return current()
    return Pid(None, "thread", None, clock.now())


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

    A name is a text, or a pair of a registry and a key.

    Raises:
        NoProcess: The name is free, or the handle was never started.
        TypeError: It is none of these.
    """
    if type(process) is Pid:
        return process
    if isinstance(process, tuple):
        return _resolve_key(process)
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


def _resolve_key(name: tuple[Any, ...]) -> Pid:
    directory, key = directory_of(name)
    pid: Pid | None = directory.whereis_name(key)
    if pid is None:
        raise NoProcess(name)
    return pid


def directory_of(name: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return the registry's handle and the key that a name in a registry consists of.

    Whatever server has ``whereis_name`` and ``register_name`` is a registry.

    Raises:
        NoProcess: The registry is dead.
        TypeError: It is no such name.
    """
    if len(name) != 2:
        raise TypeError(f"expected a pair of a registry and a key, got {name!r}")
    pid = resolve(name[0])
    directory = pid.server
    if directory is None:
        raise NoProcess(pid)
    if not hasattr(directory, "whereis_name"):
        raise TypeError(f"expected a registry, got {name[0]!r}")
    return directory, name[1]


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
    me = getattr(getcurrent(), "gpool_pid", None)
    if me is not None and me.state is not RUNNING and not _is_reporting(me):
        current()
    pid = resolve(process)
    if pid.hub is not get_hub_if_exists():
        _in_its_thread(pid, _post, pid, message)
    else:
        _post(pid, message)


def _is_reporting(me: Pid) -> bool:
    # In its last frame telemetry is told of the death, and listeners may send.
    return me.state is DEAD and me not in table.zombies


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
    if table.raw:
        reap_raw()  # one of them may owe us its DOWN
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
    return pid.state is RUNNING and not _is_over(pid)


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
