"""Starting a process and waiting until it is initialised.

:func:`start` returns when the new process has called :func:`init_ack`, or
raises once it is dead.  Of a start that failed nothing is left: no process, no
link, no message in the caller's mailbox, and the caller lives.

What is started so outlives the moment of its start: it begins with an empty
context, not with its starter's variables.

Source:
    OTP 26 ``proc_lib:start_link/5``.  (Up to OTP 25 a failed ``start_link``
    also sent the caller an exit signal.)

Not here: what a server does once it runs (``gen_server.py``).
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Final, NoReturn

from gpool.errors import StartError
from gpool.otp import process
from gpool.otp.greenlets import current, new_process
from gpool.otp.pid import ExitSignal, Pid
from gpool.otp.signal import signal
from gpool.waiter import Expired, Waiter

_OK: Final = ("ok", None)
EMPTY: Final = contextvars.Context()  # never entered: a process that starts in it has its own


class Start(Waiter):
    """The wait of one starter; while it lasts the link to it reports no EXIT."""

    __slots__ = ("ignored", "owner")

    def __init__(self, owner: Pid | None) -> None:
        Waiter.__init__(self)
        self.owner = owner
        self.ignored = False


def start(
    body: Callable[..., object],
    *,
    what: str,
    link: bool,
    prepare: Callable[[Pid], object],
    timeout: float | None = None,
) -> bool:
    """Start a process and block until it calls :func:`init_ack`.

    Args:
        body: Runs in the process.
        what: Names it in errors and lists.
        link: Whether to link it to the caller.
        prepare: Called with the pid before the process first runs; must not raise.
        timeout: Seconds that initialisation may take; None for ever.

    Returns:
        True, or False if the process chose not to run (:func:`init_ignore`).

    Raises:
        StartError: It died first, or was killed for being too slow.
    """
    me = current()
    pid = new_process(body, initial_call=what, link=link, context=EMPTY, parent=me)
    pid.starter = attempt = Start(me)
    prepare(pid)
    me.awaiting = (pid,)
    try:
        outcome, reason = attempt.wait(timeout)
    except Expired:
        signal(pid, me, "kill", direct=True)
        process.await_death(pid)
        raise StartError(what, "timeout") from None
    except BaseException:
        signal(pid, me, "kill", direct=True)
        raise
    finally:
        me.awaiting = ()
    if outcome == "died" and not attempt.ignored:
        raise StartError(what, reason) from getattr(reason, "exception", None)
    return bool(outcome == "ok")


def init_ack() -> None:
    """Tell the starter that the running process is initialised; never blocks."""
    acknowledge(current())


def acknowledge(pid: Pid) -> None:
    """Tell the starter of a process that it is initialised."""
    starter = pid.starter
    if starter is not None:
        starter.wake(_OK)  # first: if a signal handler strikes, its death wakes it
        if starter.owner is not None:
            starter.owner.awaiting = ()  # from here on its EXIT is heard
        pid.starter = None


def init_ignore() -> NoReturn:
    """End the running process, which has nothing to do; its start returns all the same."""
    starter = current().starter
    if isinstance(starter, Start):
        starter.ignored = True
    raise ExitSignal("normal")
