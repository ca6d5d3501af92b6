"""Where a gpool pool differs from the recorded poolboy 1.5 on purpose.

Three of the rules end the comparison of their case: from there on the recorded
pool and gpool's have different workers in different hands.

Not here: what is only said otherwise (``world_pool.py``).
"""

from __future__ import annotations

from typing import Final

from tests.conformance.rules import NOT_COMPARED, Context, Rule
from tests.conformance.terms import Json


def pool_without_room_is_refused(context: Context, expected: Json) -> Json:
    """A pool that may never have a worker: poolboy starts it, gpool does not.

    In poolboy its clients wait for ever; gpool raises a ValueError when it is made.
    """
    setup = context.case["setup"]
    if not _is_pool(context) or setup.get("size", 5) + setup.get("max_overflow", 10) > 0:
        return expected
    return {"result": "no_pool"}


def start_is_waited_for(context: Context, expected: Json) -> Json:
    """A checkout that may not block gets no worker that has to be started first.

    poolboy starts one inside the call, which blocks client and pool for as long as
    that takes; gpool's ``timeout=0`` never waits: who wants the worker gives it time.
    """
    if not _is_pool(context, "checkout") or context.step["block"]:
        return expected
    match expected["result"]:
        case {"worker": worker} if worker not in _workers_before(context):
            return expected | {"result": {"started": worker}}
        case _:
            return expected


def _workers_before(context: Context) -> list[str]:
    if context.index == 0:
        return [f"w{n}" for n in range(context.case["setup"].get("size", 5))]
    return _before(context).get("workers", [])


def only_leases_are_checked_in(context: Context, expected: Json) -> Json:
    """The checkin of what nobody ever got from checkout raises a TypeError.

    poolboy takes any pid and ignores those that are not lent, in silence.
    """
    if not _is_pool(context, "checkin") or expected["result"] != "ok":
        return expected
    if _borrowers(context, context.step["w"]):
        return expected
    return expected | {"result": "badarg"}


def stale_checkin_takes_nothing(context: Context, expected: Json) -> Json:
    """A client that checks its worker in again does not take it from its next holder.

    In poolboy it does: the worker is lent a third time, to two clients at once.  In
    gpool the lease is over, and nothing happens.  The case is compared up to here.
    """
    if _steals(context):
        before = _before(context)
        kept = {name: before[name] for name in ("status", "workers", "waiting") if name in before}
        return {"result": "ok"} | kept
    if any(_steals(Context(context.case, index)) for index in range(context.index)):
        return NOT_COMPARED
    return expected


def _steals(context: Context) -> bool:
    if not _is_pool(context, "checkin"):
        return False
    borrowers, client = _borrowers(context, context.step["w"]), context.step["c"]
    if client not in borrowers or borrowers[-1] == client:
        return False
    recorded, before = context.recorded, _before(context)
    return "completed" in recorded or recorded.get("status") != before.get("status")


def pool_ends_with_shutdown(context: Context, expected: Json) -> Json:
    """A pool that is stopped ends with `shutdown`, whoever stops it and why.

    poolboy's pool is a server linked to its owner: it ends with `normal` when it is
    stopped, and with its owner's reason.  gpool's is a supervisor's child, and is
    stopped as one.
    """
    shutdown = {"exit": "shutdown"}
    ended = {"exit": expected["exit"]} if "exit" in expected else shutdown
    if not _is_pool(context, "stop", "owner_exit") or ended == shutdown:
        return expected
    completed = expected.get("completed", {})
    told = {who: shutdown if result == ended else result for who, result in completed.items()}
    return expected | shutdown | {"completed": told}


def killed_manager_is_replaced(context: Context, expected: Json) -> Json:
    """A pool whose manager is killed lives on; the case is compared up to there.

    poolboy's pool is dead then, and its clients with it unless they catch that; gpool
    starts manager and workers again, and those who wait keep their places.
    """
    if _is_pool(context, "signal_pool") and context.recorded.get("exit") == "killed":
        return NOT_COMPARED
    return expected


def circle_is_refused(context: Context, expected: Json) -> Json:
    """A client does not wait for ever for what only those hold who wait for ever themselves.

    In poolboy it does, itself among them; gpool raises CheckoutDeadlock.  The case is
    compared up to here: in poolboy that client waits on.
    """
    if _closes_circle(context):
        others = [who for who in expected["waiting"] if who != context.step["c"]]
        return expected | {"result": {"exit": "deadlock"}, "waiting": others}
    if any(_closes_circle(Context(context.case, index)) for index in range(context.index)):
        return NOT_COMPARED
    return expected


def _closes_circle(context: Context) -> bool:
    recorded = context.recorded
    waits = _is_pool(context, "checkout", "transaction") and recorded["result"] == "pending"
    if not waits:
        return False
    # All are lent, or it would not wait: who had a worker last has it now.
    holders = {_borrowers(context, worker)[-1] for worker in recorded.get("workers", [])}
    return context.step["c"] in holders <= set(recorded["waiting"])


def _is_pool(context: Context, *ops: str) -> bool:
    """Return whether a step is one of a pool, and one of `ops` if there are any."""
    return context.kind == "pool" and (not ops or context.step["op"] in ops)


def _before(context: Context) -> Json:
    """Return what was recorded for the step before."""
    return context.case["expect"][context.index - 1] if context.index else {}


def _borrowers(context: Context, worker: str) -> list[str]:
    """Return the clients that got a worker from checkout before this step, in order."""
    got = {"worker": worker}
    borrowers: list[str] = []
    for step, recorded in context.until_now():
        if recorded["result"] == got:
            borrowers.append(step["c"])
        borrowers += [who for who, it in recorded.get("completed", {}).items() if it == got]
    return borrowers


POOL_RULES: Final = (
    Rule(
        "pool-without-room-is-refused",
        "size=0 is an error unless there is overflow (DESIGN 2, options): what can never work "
        "is said at construction",
        pool_without_room_is_refused,
    ),
    Rule(
        "start-is-waited-for",
        "0 never waits (DESIGN 2, options; 4.2), and starts run beside everything else: one "
        "slow init holds nobody up (DESIGN 3)",
        start_is_waited_for,
    ),
    Rule(
        "only-leases-are-checked-in",
        "what is lent is a lease (DESIGN 2); anything else is a mistake of the caller's, and is "
        "said to be one",
        only_leases_are_checked_in,
    ),
    Rule(
        "stale-checkin-takes-nothing",
        "a lease may be checked in once, again is a counted no-op, and a worker is never in two "
        "hands (DESIGN 2)",
        stale_checkin_takes_nothing,
    ),
    Rule(
        "circle-is-refused",
        "no slot is lost, no waiter forgotten (DESIGN 1): those of a circle would be, so the "
        "checkout that would close it is raised",
        circle_is_refused,
    ),
    Rule(
        "pool-ends-with-shutdown",
        "every pool is a child of PoolsSup and linked to no client (DESIGN 1, 2); what clients "
        "are told is PoolClosed",
        pool_ends_with_shutdown,
    ),
    Rule(
        "killed-manager-is-replaced",
        "a pool cannot be lost: PoolSup respawns a manager that dies, for any reason, and "
        "waiters keep their place (DESIGN 1; 4.10)",
        killed_manager_is_replaced,
    ),
)
