"""Pools, as the API shows them: numbers, who holds what since which line, who waits."""

from __future__ import annotations

from typing import Any, Final

import gpool
from gpool.observer.node.processes import ref_of
from gpool.observer.node.text import cut, shown

LIST: Final = 200  # holders and waiters that are told

_TOLD: Final = (
    "phase", "suspended", "size", "max_overflow", "idle", "busy", "starting", "finishing",
    "resetting", "closing", "lost", "overflow", "waiting", "epoch", "breaker", "timed_out",
    "refused", "failed_fast", "deadlocks", "cancelled", "stale", "reclaimed", "overheld",
    "revoked", "start_failures", "unclosed",
)  # fmt: skip


def pools_of() -> dict[str, Any]:
    """Return all pools that run, by name."""
    pools = sorted(gpool.running_pools(), key=lambda pool: pool.name)
    return {"pools": [summary_of(pool) for pool in pools]}


def caps() -> dict[str, int]:
    """Return how many workers each pool may have in this process."""
    stats = (pool.stats() for pool in gpool.running_pools())
    return {one.name: one.size + one.max_overflow for one in stats}


def find(name: str) -> gpool.Pool[Any] | None:
    """Return the running pool of that name, if there is one."""
    return next((pool for pool in gpool.running_pools() if pool.name == name), None)


def summary_of(pool: gpool.Pool[Any]) -> dict[str, Any]:
    """Return a pool's numbers, and its processes."""
    stats, tree, failure = pool.stats(), pool.tree(), None
    oldest = pool.holders(longest=1)
    if stats.last_start_failure is not None:
        failure = shown(stats.last_start_failure)
    return {
        "name": pool.name,
        "state": pool.status().state,
        "healthy": pool.healthy(),
        **{name: getattr(stats, name) for name in _TOLD},
        "oldest_wait": round(stats.oldest_wait, 3),
        "oldest_hold": round(oldest[0].age, 3) if oldest else None,
        "last_start_failure": failure,
        "sup": ref_of(tree.pool_sup),
        "man": ref_of(tree.pool_man),
        "worker_sup": ref_of(tree.worker_sup),
    }


def detail_of(pool: gpool.Pool[Any]) -> dict[str, Any]:
    """Return a pool's numbers, who has its workers, and who waits for one."""
    summary = summary_of(pool)
    holders, waiters = pool.holders(longest=LIST), pool.waiters(first=LIST)
    held = summary["busy"] + summary["lost"]
    return {
        **summary,
        "holders": [_holder(holder) for holder in holders],
        "holders_more": max(held - len(holders), 0),
        "waiters": [_waiter(waiter) for waiter in waiters],
        "waiters_more": max(summary["waiting"] - len(waiters), 0),
    }


def _holder(holder: gpool.Holder) -> dict[str, Any]:
    return {
        "client": ref_of(holder.pid),
        "worker": shown(holder.worker, 80),
        "worker_process": ref_of(holder.process),
        "age": round(holder.age, 3),
        "line": cut(holder.line),
    }


def _waiter(waiter: gpool.WaitingClient) -> dict[str, Any]:
    return {
        "client": ref_of(waiter.pid),
        "waited": round(waiter.waited, 3),
        "left": None if waiter.left is None else round(waiter.left, 3),
        "line": cut(waiter.line),
    }
