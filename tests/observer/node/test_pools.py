"""Pools as the API shows them: numbers, who holds what since which line, who waits."""

from __future__ import annotations

import json

import pytest

import gpool
from gpool.observer.node.pools import LIST, caps, detail_of, find, pools_of, summary_of
from gpool.testing import settle
from tests.observer.node.traps import Trap, hub_keeps_to_itself, unsprung
from tests.pool.workshop import Client, Echo, Holder, running

FIELDS = {
    "name", "state", "phase", "suspended", "healthy", "size", "max_overflow", "idle", "busy",
    "starting", "finishing", "resetting", "closing", "lost", "overflow", "waiting", "oldest_wait",
    "oldest_hold", "epoch", "breaker", "timed_out", "refused", "failed_fast", "deadlocks",
    "cancelled", "stale", "reclaimed", "overheld", "revoked", "start_failures", "unclosed",
    "last_start_failure", "sup", "man", "worker_sup",
}  # fmt: skip


def whole(pool):
    """Return what is told of a pool; it has to be JSON."""
    told = detail_of(pool)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    return told


class TestSummary:
    def test_has_the_numbers_of_a_moment(self, maker, clock):
        """Of a pool of resources with a holder and one that waits."""
        pool = running(maker.resource(), size=1, name="db")
        Holder(pool)
        Client(pool.checkout, timeout=60.0)
        clock.advance(2.5)
        told = summary_of(pool)
        assert set(told) == FIELDS
        assert (told["state"], told["phase"], told["healthy"]) == ("full", "up", True)
        assert (told["busy"], told["idle"], told["waiting"]) == (1, 0, 1)
        assert (told["oldest_wait"], told["oldest_hold"]) == (2.5, 2.5)
        tree = pool.tree()
        pids = [told[key]["id"] for key in ("sup", "man", "worker_sup")]
        assert pids == [tree.pool_sup.id, tree.pool_man.id, tree.worker_sup.id]

    def test_tells_why_the_last_start_failed(self, maker, clock):
        """Without what is secret."""
        maker.creates.append(ConnectionError("postgresql://ann:swordfish@host/db"))
        pool = running(maker.resource(), size=1, name="db")
        told = summary_of(pool)
        assert told["start_failures"] == 1
        assert "ConnectionError('postgresql://ann:***@host/db')" in told["last_start_failure"]

    def test_is_there_for_a_pool_in_any_state(self, maker):
        """Suspended, stopped, and one that never ran."""
        pool = running(maker.resource(), size=1, name="db")
        pool.suspend()
        assert summary_of(pool)["suspended"] is True
        pool.stop()
        for one in (pool, gpool.Pool(Echo, size=1, name="new")):
            told = summary_of(one)
            assert (told["phase"], told["healthy"], told["man"]) == ("stopped", False, None)
            assert told["oldest_hold"] is None
        assert pools_of() == {"pools": []}


class TestAll:
    def test_are_sorted_by_name(self, maker):
        """And how many workers each may have here is told."""
        running(Echo, size=1, name="b")
        running(maker.resource(), size=2, max_overflow=3, name="a/ä")
        assert [pool["name"] for pool in pools_of()["pools"]] == ["a/ä", "b"]
        assert caps() == {"a/ä": 5, "b": 1}
        assert find("a/ä").name == "a/ä"
        assert find("c") is None


class TestDetail:
    def test_tells_who_holds_what_and_who_waits(self, clock):
        """Those who hold for longest first, those who wait in the order of their turns."""
        pool = running(Echo, size=2, name="db")
        first = Holder(pool)
        clock.advance(1.0)
        second = Holder(pool)
        waiters = [Client(pool.checkout, timeout=timeout) for timeout in (10.0, None)]
        clock.advance(0.5)
        told = whole(pool)
        assert [h["client"]["id"] for h in told["holders"]] == [first.pid.id, second.pid.id]
        assert [holder["age"] for holder in told["holders"]] == [1.5, 0.5]
        assert all("workshop.py:" in holder["line"] for holder in told["holders"])
        assert told["holders"][0]["worker_process"]["label"] == "Echo"
        assert told["holders"][0]["worker"].startswith("<Echo #PID<")
        assert [w["client"]["id"] for w in told["waiters"]] == [client.pid.id for client in waiters]
        assert [(w["waited"], w["left"]) for w in told["waiters"]] == [(0.5, 9.5), (0.5, None)]
        assert (told["holders_more"], told["waiters_more"]) == (0, 0)

    @pytest.mark.parametrize("what", ["holders", "waiters"])
    def test_lists_so_many_and_counts_the_others(self, what, maker):
        """There may be thousands of either."""
        count = LIST + 5
        pool = running(maker.resource(), size=count if what == "holders" else 1, name="db")
        clients = [Holder(pool, None) for _ in range(count if what == "holders" else count + 1)]
        assert len(clients) >= count
        told = whole(pool)
        assert len(told[what]) == LIST
        assert told[f"{what}_more"] == 5

    def test_neither_switches_nor_runs_a_users_code(self):
        """A resource may be anything."""
        pool = running(gpool.Resource(create=Trap), size=2, name="db")
        Holder(pool)
        for timeout in (None, 5.0):
            Client(pool.checkout, timeout=timeout)
        settle()
        with unsprung(), hub_keeps_to_itself():
            told = detail_of(pool)
            pools_of()
            caps()
        assert told["holders"][0]["worker"] == "<Trap>"
