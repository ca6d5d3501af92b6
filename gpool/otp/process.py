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

Differences to Erlang: ``finally`` runs at a signal (Python unwinds); EXIT is
promised to come before DOWN.

Not here: the greenlet that runs a process (``greenlets.py``), how a signal is
accepted and what a death entails (``signal.py``), waiting for a start
(``proc_lib.py``), names (``registry.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, overload

from gevent._hub_local import get_hub_if_exists  # never creates a hub, as get_hub() would
from greenlet import getcurrent

from gpool import clock
from gpool.errors import NoProcess, ReceiveTimeout, WrongHub
from gpool.otp.greenlets import current, is_over, new_process, note_refusal, reap_raw
from gpool.otp.pid import (
    DEAD,
    FORKED,
    NOBODY,
    RUNNING,
    UNWINDING,
    Down,
    Exit,
    ExitSignal,
    Pid,
    Ref,
    mailbox_of,
    table,
    tie,
    untie,
    watch,
)
from gpool.otp.signal import signal
from gpool.waiter import Expired, Waiter, check_timeout

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


def link(process: Any) -> None:
    """Tie the caller's life to that of a process, both ways; once is enough.

    Args:
        process: A pid, a handle or a name.

    Raises:
        NoProcess: It is dead and the caller does not trap exits; if it does, it
            gets ``Exit(pid, "noproc")``.  Or nobody has the name.
        WrongHub: It lives in another thread.

    Source:
        Erlang ``link/1``.
    """
    me, pid = current(), resolve(process)
    same_hub(pid)
    if pid is me:
        return
    if pid.state is DEAD or pid.state is FORKED:
        if not me.trapping:
            raise NoProcess(pid)
        mailbox_of(me).append(Exit(pid, "noproc"))
        return
    tie(me, pid)


def unlink(process: Any) -> None:
    """Untie the caller from a process; no EXIT of that link arrives afterwards.

    One that is queued already stays: take it with ``receive(..., timeout=0)``.

    Args:
        process: A pid, a handle or a name.

    Raises:
        NoProcess: Nobody has the name.
        WrongHub: It lives in another thread.

    Source:
        Erlang ``unlink/1``.
    """
    me, pid = current(), resolve(process)
    same_hub(pid)
    untie(me, pid)


def monitor(process: Any) -> Ref:
    """Ask for one :class:`Down` message when `process` dies, of whatever reason.

    Args:
        process: A pid, a handle, or a name: then it is set on whoever has that
            now, and the message reports the name.

    Returns:
        A reference; if nobody is there its ``Down(..., "noproc")`` is queued already.

    Raises:
        NoProcess: The handle was never started.
        WrongHub: The process lives in another thread.

    Source:
        Erlang ``monitor/2``.
    """
    me = current()
    pid: Pid | None
    if isinstance(process, str | tuple):
        try:
            pid = resolve(process)
        except NoProcess:
            pid = None
    else:
        process = pid = resolve(process)
    if pid is not None:
        same_hub(pid)
    return _watch(me, pid, process)


def _watch(me: Pid, pid: Pid | None, process: Any) -> Ref:
    ref = Ref(me, pid, process)
    if pid is None or pid.state is DEAD or pid.state is FORKED:
        mailbox_of(me).append(Down(ref, process, "noproc"))
    elif pid is not me:
        if me.monitors is NOBODY:
            me.monitors = {}
        watch(pid, ref)
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
    if not isinstance(ref, Ref):
        raise TypeError(f"demonitor: expected a Ref, got {ref!r}")
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
    if len(args) != 2:
        raise TypeError(f"exit: expected (reason) or (process, reason), got {args!r}")
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
    loop = getattr(pid.hub, "loop", None)
    if loop is not None:  # else the thread has ended, or never had a process
        loop.run_callback_threadsafe(fn, *args)


def _stranger() -> Pid:
    """Return who sends to another thread; a thread without a hub gets none for that."""
    if get_hub_if_exists() is not None:
        return current()
    stranger = Pid(None, "thread", None, clock.now())
    stranger.state, stranger.ended_at = DEAD, stranger.started_at  # nobody can answer it
    return stranger


def trap_exit(flag: bool) -> bool:
    """Choose whether exit signals end the caller or become :class:`Exit` messages.

    Returns:
        What it was before.

    Source:
        Erlang ``process_flag(trap_exit, Flag)``.
    """
    if not isinstance(flag, bool):
        raise TypeError(f"trap_exit: expected True or False, got {flag!r}")
    me = current()
    before, me.trapping = me.trapping, flag
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
    if isinstance(process, (str, tuple)):
        return _resolve_name(process)
    try:
        found = process.pid
    except AttributeError:
        raise TypeError(f"expected a Pid, a name or a server, got {process!r}") from None
    if type(found) is Pid:
        return found
    if found is None:
        raise NoProcess(process)
    return resolve(found)


def _resolve_name(name: str | tuple[Any, ...]) -> Pid:
    pid: Pid | None
    if isinstance(name, str):
        pid = table.names.get(name)
    else:
        directory, key = directory_of(name)
        pid = directory.whereis_name(key)
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
        mailbox_of(pid).append(message)


def receive(match: Callable[[Any], bool] | None = None, timeout: float | None = None) -> Any:
    """Take the first message that matches; blocks until there is one.

    Args:
        match: A predicate on messages, which neither blocks nor receives; None
            takes any.  The others keep their order.
        timeout: Seconds; None waits for ever, 0 polls.  Other messages do not extend it.

    Raises:
        ReceiveTimeout: No message matched in time.

    Source:
        Erlang ``receive ... after``.
    """
    check_timeout(timeout)
    me = current()
    if me.state is UNWINDING:
        note_refusal(me)
        raise ExitSignal(me.reason)
    if table.raw:
        reap_raw()  # one of them may owe us its DOWN
    try:
        return mailbox_of(me).take(match, timeout)
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
    return pid.state is RUNNING and not is_over(pid)


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
    watch(pid, death)
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
