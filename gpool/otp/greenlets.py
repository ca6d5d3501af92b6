"""The greenlets of processes: their birth, their last frame, and who runs now.

A process is a :class:`~gpool.otp.pid.Pid`; what runs it is a greenlet:

* one of ours, a :class:`Process`, made by :func:`new_process` for ``spawn`` and
  its kin.  Whatever ends its body ends there, and the death is done in its last
  frame: nothing can run between the two.
* any other (the main one, a raw one, another library's): :func:`current` gives it
  a pid on its first use of gpool.  gevent tells of the end of its own greenlets;
  of a raw one's, :func:`reap_raw` and its garbage collection do.

One of ours may *hibernate*: its body returns a :class:`Hibernation`, its greenlet
ends, and the process lives on without one until a message or an exit signal comes.

Rules:

* :func:`current` is the gate that every primitive goes through first: it raises
  the exit of a process that may not go on, and lets an unwinding one pass.
* ``Greenlet.kill``, ``gevent.killall`` and the like count as ``killed``, before
  the first run and after.
* The processes of a thread go with it: at the latest when another thread first
  uses gpool.
* In a forked child the parent's greenlets stay where they are, for ever.

Not here: what a process may do (``process.py``); how it takes a signal, and what
its death entails (``signal.py``).
"""

from __future__ import annotations

import contextvars
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final, NoReturn

import gevent
from gevent import get_hub
from gevent._hub_local import get_hub_if_exists  # never creates a hub, as get_hub() would
from greenlet import getcurrent

from gpool import clock
from gpool.otp.mailbox import Mailbox
from gpool.otp.pid import (
    DEAD,
    FORKED,
    NOBODY,
    PENDING,
    RUNNING,
    UNWINDING,
    Error,
    ExitSignal,
    Keeper,
    Monitor,
    Pid,
    doom,
    table,
    tie,
    watch,
)
from gpool.otp.signal import THROWS, declare_dead, finish, limit_unwinding, reason_of

_STARTED: Final[Any] = None  # the body of a process that has started

# --- The greenlet of a process ------------------------------------------------------


class Process(gevent.Greenlet):  # type: ignore[type-arg]  # not generic at run time
    """The greenlet that runs one process of ours."""

    __slots__ = ("_body", "gpool_pid")  # a dict for these two would take 200 bytes

    gpool_parks = True  # in a forked child: it is the parent's
    spawning_stack_limit = 0  # gevent's notes on who spawned it; a pid knows its ancestors

    def __init__(
        self, pid: Pid, fn: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        super().__init__()
        self.gpool_pid = pid
        self.rawlink(_ended)  # comes too late, but also if an interrupt strikes before our frame
        self._body = (fn, args, kwargs)

    def _run(self) -> None:
        pid = self.gpool_pid
        try:
            reason = self._live(pid)
            if pid.hibernation is None:
                finish(pid, reason)
                self.unlink(_ended)  # it would hear nothing new
        finally:
            if pid.hibernation is None and pid.state is not DEAD:
                finish(pid, "killed")  # nothing is left to do, unless a KeyboardInterrupt struck
        if isinstance(reason, Error) and isinstance(reason.exception, KeyboardInterrupt):
            pid.hub.handle_system_error(type(reason.exception), reason.exception)

    def _live(self, pid: Pid) -> Any:
        (fn, args, kwargs), self._body = self._body, _STARTED
        try:
            if pid.state is not RUNNING and pid.hibernation is None:
                raise ExitSignal(pid.reason)
            # Without arguments it is a call that takes no C stack, which would be saved and kept.
            end = fn(*args, **kwargs) if args or kwargs else fn()
            if isinstance(end, Hibernation):
                self.unlink(_ended)  # the process does not
                end.begin(pid, self.gr_context)
        except BaseException as raised:  # noqa: BLE001  # whatever it is, it ends here
            return reason_of(raised)
        return "normal"

    def throw(self, *args: Any) -> None:
        """Raise in the process; ``GreenletExit`` is the exit signal ``killed``."""
        pid = self.gpool_pid
        if _is_exit(args) and not self.dead:
            if pid.state is UNWINDING:
                return  # one exit a process: its cleanup is not cut by a second one
            if pid.state is RUNNING:
                pid.reason = "killed"
            if pid.state is not DEAD:
                pid.state = UNWINDING
                doom(pid)
        super().throw(*(() if self._is_unborn() else args))
        self._after_throw(args)

    def _after_throw(self, args: tuple[Any, ...]) -> None:
        pid = self.gpool_pid
        if self.dead and pid.greenlet is self:
            self._died_unborn(args[0] if args else gevent.GreenletExit())
        elif pid.state is UNWINDING:
            limit_unwinding(pid)

    def _maybe_kill_before_start(self, exception: Any) -> bool:
        # gevent's name: Greenlet.kill, killall and Group.kill all pass through here.
        # It would print an exception of an unborn greenlet, so it is told of none.
        dead: bool = super()._maybe_kill_before_start(gevent.GreenletExit())  # type: ignore[misc]
        if dead and self.gpool_pid.greenlet is self:
            self._died_unborn(exception)
        return dead

    def _is_unborn(self) -> bool:
        return self._body is not _STARTED

    def _died_unborn(self, exception: Any) -> None:
        if isinstance(exception, tuple):
            exception = exception[1] or exception[0]
        if isinstance(exception, type):
            exception = exception()
        finish(self.gpool_pid, reason_of(exception))


class Hibernation:
    """How processes go on that wait for a message without a greenlet.

    A body that returns one hibernates; then it goes on in a new greenlet and in the
    context that it had.  Those whose contexts are empty may all have the same one.

    Args:
        resume: Called there with the pid: a message has come, or an exit was accepted, or
            nothing at all has happened.  It may return one, to hibernate again.
        context: The context; None for an empty one.
    """

    __slots__ = ("context", "resume")

    def __init__(
        self,
        resume: Callable[[Pid], Hibernation | None],
        context: contextvars.Context | None = None,
    ) -> None:
        self.resume = resume
        self.context = context

    def begin(self, pid: Pid, context: contextvars.Context | None) -> None:
        """Let the process wait without the running greenlet, which ends now."""
        pid.mailbox.hibernate(pid)
        pid.greenlet = None
        pid.hibernation = Hibernation(self.resume, context) if context else self
        if pid.mailbox.messages:  # a signal handler or a finalizer has sent it
            pid.wake()

    def rouse(self, pid: Pid) -> Process:
        """Let the process go on, at once, until it ends or blocks; in the hub."""
        try:
            greenlet = Process(pid, self._get_up, (pid,), {})
            greenlet.gr_context = self.context
            greenlet.switch()
        except BaseException:  # a KeyboardInterrupt struck before it ran
            pid.wake()
            raise
        return greenlet

    def _get_up(self, pid: Pid) -> Hibernation | None:
        pid.greenlet, pid.hibernation = getcurrent(), None
        pid.mailbox.rouse()
        return self.resume(pid)


def _is_exit(args: tuple[Any, ...]) -> bool:
    kind = args[0] if args else gevent.GreenletExit
    if not isinstance(kind, type):
        kind = type(kind)
    return issubclass(kind, gevent.GreenletExit)


def name_of(fn: Callable[..., object]) -> str:
    """Return what a process is shown as that runs `fn`."""
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return sys.intern(name.replace("<locals>.", "")) if "<" in name else name


def new_process(
    fn: Callable[..., object],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    *,
    initial_call: str | None = None,
    link: bool = False,
    monitor: Monitor | None = None,
    keeper: Keeper | None = None,
    context: contextvars.Context | None = None,
    parent: Pid | None = None,
) -> Pid:
    """Make a process, linked and monitored before it first runs, and start it.

    The public ways are ``spawn`` and its kin.

    Args:
        fn: The body; what it returns is dropped.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        initial_call: What the process is shown as; the name of `fn` if None.
        link: Whether to link it to the caller.
        monitor: Told of its death.
        keeper: Told of it, too, and before that when it is about to die.
        context: Its context variables; a copy of the caller's if None.
        parent: The caller, if it has been found out.
    """
    if parent is None:
        parent = current()
    if not callable(fn):
        raise TypeError(f"fn: expected a callable, got {fn!r}")
    pid = Pid(get_hub(), initial_call or name_of(fn), parent, clock.now())
    greenlet = Process(pid, fn, args, kwargs or {})
    # An empty context is as good as none, which takes no memory.
    greenlet.gr_context = (contextvars.copy_context() if context is None else context) or None
    pid.greenlet, pid.mailbox = greenlet, Mailbox()
    pid.keeper = keeper
    table.processes[pid.id] = pid
    if link:
        tie(pid, parent)
    if monitor is not None:
        watch(pid, monitor)
    greenlet.start()
    return pid


# --- Who runs -----------------------------------------------------------------------


def current() -> Pid:
    """Return the running process, if it may go on; raise its exit if it may not."""
    greenlet: Any = getcurrent()
    pid: Pid | None = getattr(greenlet, "gpool_pid", None)
    if pid is None:
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
        note_refusal(pid)
    raise ExitSignal(pid.reason)


def note_refusal(pid: Pid) -> None:
    """Count that a primitive refuses to work; give up on a process that will not hear it."""
    # A loop that swallows what its primitives raise would never let the hub run.
    pid.exiting.raised += 1
    if pid.exiting.raised > THROWS:
        if pid.state is not DEAD:
            declare_dead(pid)
        park()


def park() -> NoReturn:
    """Leave the running greenlet where it is, for ever."""
    while True:
        gevent.get_hub().switch()


def _adopt(greenlet: Any) -> Pid:
    hub: Any = get_hub()  # others will signal it through its hub
    pid = Pid(hub, _foreign_call(greenlet, hub), None, clock.now())
    table.processes[pid.id] = pid
    if isinstance(greenlet, gevent.Greenlet):
        pid.greenlet = greenlet
        greenlet.rawlink(_ended)
    elif greenlet is hub:
        pid.greenlet = greenlet
        pid.trapping = True  # a link made in a loop callback must not end the loop
    else:
        pid.weak_greenlet = weakref.ref(greenlet, lambda _: _raw_collected(pid))
        if greenlet.parent is not None:
            table.raw[pid] = None
        else:  # the main greenlet of its thread
            _bury_ended_threads(hub)
    greenlet.gpool_pid = pid
    if not table.has_begun:
        table.begin()
    return pid


def _bury_ended_threads(hub: Any) -> None:
    """Forget the processes of threads that have ended.

    Nothing tells of that, and their hubs can run nothing any more: so they are
    dead without links or monitors being told, all of which ended with them.
    """
    others = set(sys._current_frames()) - {hub.thread_ident}  # an ident may be ours by now
    for pid in list(table.processes.values()):
        if pid.hub is not hub and pid.hub.thread_ident not in others:
            pid.links = pid.monitored_by = NOBODY
            pid.keeper = None
            finish(pid, "shutdown")


def _foreign_call(greenlet: Any, hub: Any) -> str:
    if greenlet is hub:
        return "hub"
    if greenlet.parent is None:
        return "main"
    run = getattr(greenlet, "_run", None)
    return name_of(run) if run is not None else type(greenlet).__name__


def _ended(greenlet: Any) -> None:
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


def _raw_collected(pid: Pid) -> None:
    # In whatever thread let go of it last.
    if pid.hub is get_hub_if_exists():
        _raw_ended(pid)
    elif pid.hub.loop is not None:
        pid.hub.loop.run_callback_threadsafe(_raw_ended, pid)


def reap_raw() -> None:
    """Notice the raw greenlets that have ended but are still referenced by somebody.

    Nothing tells of their death; those who are about to wait ask.
    """
    hub = get_hub_if_exists()
    for pid in list(table.raw):
        if pid.hub is hub and is_over(pid):
            _raw_ended(pid)


def is_over(pid: Pid) -> bool:
    """Tell whether the greenlet of a process has ended, even if nobody has noticed yet."""
    if pid.greenlet is None and pid.weak_greenlet is None:
        return False  # a shell
    greenlet = pid.runner()
    return greenlet is None or bool(greenlet.dead)
