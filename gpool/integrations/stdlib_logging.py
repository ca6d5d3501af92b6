"""Words for what happens, to the logger ``gpool`` of the standard library.

The Application attaches :func:`log` when it starts, so that a bare script sees
crashes, supervisor reports and failed starts; ``detach(log)`` silences it, and
so does a level of the logger.  A kit without pools attaches it by hand:

    >>> from gpool import telemetry
    >>> telemetry.attach(log)
    >>> telemetry.detach(log)
"""

from __future__ import annotations

import logging
from typing import Any

from gpool import telemetry

logger = logging.getLogger("gpool")


def log(event: telemetry.Event) -> None:
    """Log an event that somebody should read; the event itself is the record's `gpool_event`."""
    if not logger.isEnabledFor(logging.ERROR):
        return  # no need to word it
    worded = _words(event)
    if worded is not None:
        level, message = worded
        logger.log(level, message, extra={"gpool_event": event})


def _words(event: telemetry.Event) -> tuple[int, str] | None:
    match event:
        case telemetry.ProcessCrashed(pid, name, reason, initial_call):
            who = f"{pid!r} ({initial_call})" if name is None else f"{name!r} {pid!r}"
            return logging.ERROR, f"{who} crashed: {_reason(reason)}"
        case telemetry.SupervisorReport(pid, context, reason, child, child_pid):
            what = context.replace("_", " ")
            return (
                logging.ERROR,
                f"supervisor {pid!r}, child {child!r} {child_pid!r}: {what}: {reason!r}",
            )
        case telemetry.WorkerStartFailed(_, pool, reason, delay):
            return (
                logging.WARNING,
                f"pool {pool!r}: a worker did not start, next try in {delay:.3g} s: {reason!r}",
            )
        case telemetry.PoolStarted(_, pool, size, more):
            return (
                logging.INFO,
                f"pool {pool!r} runs: at most {size + more} workers in this process; "
                "each process has a pool of its own",
            )
        case telemetry.PoolResized(_, pool, size, more):
            return (
                logging.INFO,
                f"pool {pool!r} resized: at most {size + more} workers in this process",
            )
        case telemetry.PoolHasFailed(_, pool, reason):
            return logging.ERROR, f"pool {pool!r} has failed: {reason!r}; it will be revived"
        case telemetry.LeaseReclaimed(pid, pool, reason, line, seconds):
            return (
                logging.WARNING,
                f"pool {pool!r}: {pid!r} died ({reason!r}) with a worker from {line}, "
                f"held for {seconds:.3g} s; reclaimed",
            )
        case telemetry.LeaseForgotten(pid, pool, line, seconds):
            return (
                logging.WARNING,
                f"pool {pool!r}: {pid!r} forgot to give back the worker from {line}, held for "
                f"{seconds:.3g} s; given back at the end of its scope",
            )
        case telemetry.HeldTooLong(pid, pool, seconds, line, stack, revoked):
            return (
                logging.WARNING,
                f"pool {pool!r}: {pid!r} has held a worker from {line} for {seconds:.3g} s"
                f"{'; it was taken away' if revoked else ''}; it is at\n{''.join(stack)}",
            )
        case telemetry.ReturnedLate(pid, pool, seconds, line):
            return (
                logging.WARNING,
                f"pool {pool!r}: {pid!r} returned the worker from {line} after {seconds:.3g} s",
            )
        case telemetry.ResourceClosed(pid, pool, gave_up=True):
            return (
                logging.ERROR,
                f"pool {pool!r}: {pid!r} did not get a resource closed in time, at the second "
                "try; it may still be open, and counts no more",
            )
        case telemetry.CheckoutFailed(pid, pool, "deadlock"):
            return (
                logging.ERROR,
                f"pool {pool!r}: {pid!r} would have waited for ever for what others hold who wait",
            )
        case telemetry.ProcessIsZombie(pid, stack):
            return logging.ERROR, f"{pid!r} swallows its exit and runs on:\n{''.join(stack)}"
        case telemetry.CleanupFailed(pid, error) | telemetry.ListenerFailed(pid, _, error):
            return logging.ERROR, f"{pid!r}: {type(event).__name__}: {error!r}"
        case telemetry.HookFailed(pid, hook, error):
            return logging.ERROR, f"{hook} of {pid!r} raised {error!r}; its resource is closed"
        case telemetry.UnexpectedMessage(pid, message):
            return logging.WARNING, f"{pid!r} dropped an unexpected message: {message!r}"
    return None


def _reason(reason: Any) -> str:
    return (
        str(reason.format())
        if hasattr(reason, "format") and not isinstance(reason, str)
        else repr(reason)
    )
