"""Exit signals, and the death that they lead to.

Rules:

* A signal is accepted in the sender: from then on the process is not alive and
  its reason is fixed.  The hub then throws into its greenlet, once.
* ``finally`` blocks run, within ``unwind_limit``; only a kill cuts them short.
* Everything that a death entails (names, EXIT to links, DOWN to monitors, in
  that order) happens in :func:`die`, once, without a switch.
* A greenlet that swallows its exit is thrown at again, at most ten times, then
  declared dead: its process is a zombie.

Nothing here ever switches to another greenlet, but for the hub's own throws.

Not here: how a greenlet comes to be a process (``greenlets.py``), and what it may do
(``process.py``).
"""

from __future__ import annotations

import traceback
from typing import Any, Final

import gevent

from gpool import clock, telemetry
from gpool.otp.pid import (
    DEAD,
    FORKED,
    PENDING,
    RUNNING,
    UNWINDING,
    Error,
    Exit,
    ExitSignal,
    Monitor,
    Pid,
    Starter,
    doom,
    mailbox_of,
    table,
    untie,
)
from gpool.waiter import throw_at_rest

NORMAL: Final = "normal"
SHUTDOWN: Final = "shutdown"
THROWS: Final = 10  # times an exit is thrown into a greenlet that swallows it


def reason_of(error: BaseException) -> Any:
    """Return the reason of a process that `error` ended."""
    if isinstance(error, ExitSignal):
        return error.args[0]  # its `reason`
    if isinstance(error, gevent.GreenletExit):
        return "killed"
    return Error(error)


def is_word(reason: Any, word: str) -> bool:
    """Tell whether a reason is a word; reasons may be anything, arrays that have no ``==`` too."""
    return reason is word or (isinstance(reason, str) and reason == word)


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
    if direct and is_word(reason, "kill"):
        _accept_kill(target)
    elif target.state is not RUNNING:
        pass  # the first signal fixes the reason
    elif target.trapping:
        mailbox_of(target).append(Exit(sender, reason))
    elif not is_word(reason, "normal") or (direct and sender is target):
        _accept(target, reason)


def _accept(target: Pid, reason: Any) -> None:
    target.hub.loop.run_callback(_interrupt, target)  # first: a signal handler may strike
    target.reason = reason
    target.state = PENDING
    doom(target)


def _accept_kill(target: Pid) -> None:
    if target.state is RUNNING:
        target.exiting.killed = True
        _accept(target, "killed")
    elif target.state is PENDING:
        target.exiting.killed = True
        target.hub.loop.run_callback(_insist, target)
    else:
        _cut_unwinding(target)


def _insist(pid: Pid) -> None:
    if pid.state is PENDING:  # a KeyboardInterrupt struck in the hub before we could throw
        _interrupt(pid)


def _interrupt(pid: Pid) -> None:
    if pid.state is PENDING:
        pid.state = UNWINDING
        _throw(pid)
    elif pid.state is UNWINDING:  # a primitive raised before we could throw
        limit_unwinding(pid)


def _throw(pid: Pid) -> None:
    """Throw the exit into the greenlet; in the hub, which goes on when it died or blocked.

    One that hibernates gets a greenlet to clean up in, but not after a kill.
    """
    greenlet: Any = pid.greenlet if pid.weak_greenlet is None else pid.runner()
    if pid.hibernation is not None and not is_word(pid.reason, "killed"):
        greenlet = pid.rouse()
    elif greenlet is not None and not greenlet.dead:
        _raise_in(greenlet, ExitSignal(pid.reason))
    if greenlet is None or greenlet.dead:
        if pid.state is not DEAD:
            finish(pid, pid.reason)
    else:
        pid.exiting.thrown += 1
        limit_unwinding(pid)


def _raise_in(greenlet: Any, exit: ExitSignal) -> None:
    if throw_at_rest(greenlet, exit):
        return
    if isinstance(greenlet, gevent.Greenlet):
        # Not its own throw, which drops a second exit: this one insists.
        gevent.Greenlet.throw(greenlet, exit)
    else:
        greenlet.throw(exit)


def limit_unwinding(pid: Pid) -> None:
    """See to it that the cleanup of `pid` ends: it has blocked, or swallowed its exit."""
    if pid.state is not UNWINDING:
        return
    exiting = pid.exiting
    if exiting.killed:
        if exiting.thrown >= THROWS:
            declare_dead(pid)
        else:
            pid.hub.loop.run_callback(_throw_again, pid)
    elif exiting.timer is None and pid.unwind_limit is not None:
        exiting.timer = clock.call_later(pid.unwind_limit, _cut_unwinding, pid)


def _throw_again(pid: Pid) -> None:
    if pid.state is UNWINDING:
        _throw(pid)


def _cut_unwinding(pid: Pid) -> None:
    if pid.state is UNWINDING and not pid.exiting.killed:
        pid.exiting.killed, pid.reason, pid.exiting.thrown = True, "killed", 0
        pid.hub.loop.run_callback(_throw_again, pid)


def declare_dead(pid: Pid) -> None:
    """Give up on a greenlet that will not go: its process is dead, it is a zombie."""
    table.zombies[pid] = greenlet = pid.runner()
    stack = tuple(traceback.format_stack(getattr(greenlet, "gr_frame", None)))
    _end(pid, "killed")
    telemetry.emit(telemetry.ProcessIsZombie(pid, stack))


# --- Death --------------------------------------------------------------------------


def finish(pid: Pid, reason: Any) -> None:
    """Do all that the end of a greenlet entails; the last thing that happens in it."""
    if pid.state is DEAD or pid.state is FORKED:
        table.zombies.pop(pid, None)
        return
    failed = None
    if pid.state is not RUNNING:  # the reason was fixed when the signal was accepted
        if isinstance(reason, Error) and reason is not pid.reason:  # as that of a link may be
            failed = reason.exception
        reason = pid.reason
    _end(pid, reason)
    if failed is not None:
        telemetry.emit(telemetry.CleanupFailed(pid, failed))


def _end(pid: Pid, reason: Any) -> None:
    # Of a process that is being started, its starter hears.
    silent = pid.starter is not None or not telemetry.is_heard() or is_orderly(reason)
    report = None if silent else _crash_report(pid, reason)
    errors: list[Exception] = []
    try:
        die(pid, reason, errors)
    except BaseException:  # a signal handler's, KeyboardInterrupt: nobody's message is lost
        die(pid, reason, errors)
        raise
    finally:
        for error in errors:
            telemetry.emit(telemetry.CleanupFailed(pid, error))
        if report is not None:
            telemetry.emit(report)


def is_orderly(reason: Any) -> bool:
    """Tell whether a process that dies so is not worth a report."""
    if reason is NORMAL or reason is SHUTDOWN:
        return True
    if isinstance(reason, tuple):
        return bool(reason) and is_word(reason[0], "shutdown")
    return is_word(reason, "normal") or is_word(reason, "shutdown")


def _crash_report(pid: Pid, reason: Any) -> telemetry.ProcessCrashed:
    return telemetry.ProcessCrashed(
        pid, pid.name, reason, pid.initial_call, pid.ancestors, tuple(pid.links),
        len(pid.mailbox), pid.last_message,
    )  # fmt: skip


def die(pid: Pid, reason: Any, errors: list[Exception]) -> None:
    """Make `pid` dead: names, links, monitors, in this order; never switches.

    If it is interrupted it can be called again, and goes on where it was: what
    is done is taken off the list after it was done.

    Args:
        pid: The process.
        reason: What it dies of.
        errors: Gets what monitor functions raise, for a report once it is safe
            to switch.
    """
    if pid.state is not DEAD:
        pid.reason, pid.ended_at, pid.state = reason, clock.now(), DEAD
    if table.processes.pop(pid.id, None) is not None:
        table.remember(pid)
    if pid.weak_greenlet is not None:
        table.raw.pop(pid, None)
    if pid.unwinding is not None:
        if pid.unwinding.timer is not None:
            pid.unwinding.timer.cancel()
        pid.unwinding = None
    if pid.names is not None:
        for names, key in pid.names:
            if names.get(key) is pid:
                del names[key]
    if pid.starter is not None:
        _tell_starter(pid, pid.starter, reason)
    if pid.links:
        _tell_links(pid, reason)
    if pid.keeper is not None or pid.monitored_by:
        _tell_monitors(pid, reason, errors)
    if pid.monitors:
        _take_monitors_back(pid)
    pid.greenlet = pid.weak_greenlet = pid.server = pid.last_message = None
    pid.hibernation = None
    pid.awaiting, pid.kin = (), None
    mailbox = pid.mailbox
    mailbox.waiter, mailbox.resting = None, False
    if mailbox.messages:
        mailbox.messages.clear()


def _take_monitors_back(pid: Pid) -> None:
    for ref in tuple(pid.monitors):
        if ref.target is not None:
            ref.target.monitored_by.pop(ref, None)
        pid.monitors.pop(ref, None)


def _tell_starter(pid: Pid, starter: Starter, reason: Any) -> None:
    if starter.owner is not None:
        untie(pid, starter.owner)
    starter.wake(("died", reason))
    pid.starter = None


def _tell_links(pid: Pid, reason: Any) -> None:
    for linked in tuple(pid.links):
        if pid not in linked.awaiting:  # its supervisor hears of it by other means
            signal(linked, pid, reason)
        untie(pid, linked)


def _tell_monitors(pid: Pid, reason: Any, errors: list[Exception]) -> None:
    while (keeper := pid.keeper) is not None:
        _tell(keeper, pid, reason, errors)
        if pid.keeper is keeper:  # still: it may have parted
            pid.keeper = keeper.next
    for watcher in tuple(pid.monitored_by):
        if watcher in pid.monitored_by:  # an earlier one may have taken it back
            _tell(watcher, pid, reason, errors)
            pid.monitored_by.pop(watcher, None)


def _tell(watcher: Monitor, pid: Pid, reason: Any, errors: list[Exception]) -> None:
    try:
        watcher.down(pid, reason)
    except Exception as error:  # noqa: BLE001  # the others are told all the same
        errors.append(error)
