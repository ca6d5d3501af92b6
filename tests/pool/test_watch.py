"""Watches: what a pool hears of its processes, and the time that they have."""

from __future__ import annotations

from typing import Any

import pytest

import gpool
from gpool.pool.slot import Slot
from gpool.pool.watch import Fall, Limit, bound, cancel_timer
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import Maker, running


class TestFall:
    def test_tells_of_the_accepted_exit_and_of_the_death(self) -> None:
        """The first comes in the sender, before anybody else can run."""
        told: list[Any] = []
        pid = gpool.spawn(gpool.receive)
        Fall(pid, told.append)
        settle()
        gpool.exit(pid, "boom")
        assert told == ["boom"]
        settle()
        assert told == ["boom", "boom"]

    def test_of_a_process_that_has_a_keeper(self) -> None:
        """Both hear all."""
        first: list[Any] = []
        second: list[Any] = []
        pid = gpool.spawn(gpool.receive)
        Fall(pid, first.append)
        Fall(pid, second.append)
        settle()
        gpool.exit(pid, "boom")
        assert (first, second) == (["boom"], ["boom"])
        settle()
        assert (first, second) == (["boom", "boom"], ["boom", "boom"])

    def test_of_a_process_that_is_a_client(self, clock: VirtualClock, maker: Maker) -> None:
        """Of pools, met before or after: it hears all, and so do they."""
        before, after = (running(maker.resource(), size=1) for _ in range(2))
        met, told = Gate(), list[Any]()

        def work() -> None:
            leases = [before.checkout()]
            met.wait()
            leases.append(after.checkout())
            gpool.receive()
            assert leases

        pid = gpool.spawn(work)
        settle()
        Fall(pid, told.append)
        met.open()
        settle()
        gpool.exit(pid, "kill")
        assert told == ["killed"]
        settle()
        assert told == ["killed", "killed"]
        assert [pool.stats().reclaimed for pool in (before, after)] == [1, 1]

    def test_tells_before_the_monitors(self) -> None:
        """So the books are right when others hear of it."""
        told: list[Any] = []
        pid, _ = gpool.spawn_monitor(gpool.receive)
        me = gpool.self()
        Fall(pid, lambda reason: told.append(len(me.mailbox)))
        gpool.send(pid, "end")
        settle()
        assert told == [0]
        assert len(me.mailbox) == 1


class TestLimit:
    def test_calls_when_it_has_passed(self, clock: VirtualClock) -> None:
        """Once."""
        calls: list[Any] = []
        Limit(2.0, calls.append, "late")
        clock.advance(1.9)
        assert calls == []
        clock.advance(5.0)
        assert calls == ["late"]

    def test_does_not_once_it_is_cancelled(self, clock: VirtualClock) -> None:
        """Twice is fine; others of the same length are not touched."""
        calls: list[Any] = []
        limits = [Limit(2.0, calls.append, n) for n in range(3)]
        limits[1].cancel()
        limits[1].cancel()
        clock.advance(2.0)
        assert calls == [0, 2]
        limits[0].cancel()

    def test_of_a_slot_replaces_the_one_before(self, clock: VirtualClock) -> None:
        """A process does one thing at a time; no limit is none."""
        slot, calls = Slot(), list[Any]()
        bound(slot, 1.0, calls.append, "first")
        bound(slot, 2.0, calls.append, "second")
        clock.advance(1.5)
        assert calls == []
        bound(slot, None, calls.append, "none")
        clock.advance(5.0)
        assert calls == []
        cancel_timer(slot)


def test_limits_of_one_length_share_a_timer() -> None:
    """In real time, too, each one ends by itself."""
    calls: list[Any] = []
    limits = [Limit(0.01, calls.append, n) for n in range(4)]
    limits[2].cancel()
    with pytest.raises(gpool.ReceiveTimeout):
        gpool.receive(timeout=0.1)
    assert calls == [0, 1, 3]
