"""All pools of a program: those that were only declared, and the stop of all that run."""

from __future__ import annotations

import gc
import os
from typing import Any

import gevent
import pytest
from gevent.event import Event

import gpool
from gpool.testing import VirtualClock, settle


def a_pool(name: str | None, log: list[str] | None = None) -> gpool.Pool[list[int]]:
    """Return a pool of one list, which notes its close."""
    noted: list[Any] = [] if log is None else log
    resource = gpool.Resource(create=list, close=lambda _: noted.append(name))
    return gpool.Pool(resource, size=1, name=name)


def _hanging(name: str) -> gpool.Pool[list[int]]:
    """Return a pool of one list, whose close never ends."""
    resource = gpool.Resource(create=list, close=lambda _: Event().wait())
    return gpool.Pool(resource, size=1, name=name)


def declared(names: str) -> list[gpool.Pool[Any]]:
    """Return those of these names that are declared: other tests' files have pools of their own."""
    return [pool for pool in gpool.declared_pools() if pool.name in names]


class TestDeclaredPools:
    def test_are_those_with_a_name_that_were_never_used(self) -> None:
        """In the order of their making; one that was stopped was used."""
        first, unnamed, stopped, used, last = map(a_pool, ("a", None, "b", "c", "d"))
        stopped.start().stop()
        with used.checkout():
            assert declared("abcd") == [first, last]
        assert unnamed.is_unused
        assert not stopped.is_unused

    def test_are_forgotten_with_their_owners(self) -> None:
        """They are not kept alive."""
        pool = a_pool("a")
        assert declared("a") == [pool]
        del pool
        gc.collect()
        assert declared("a") == []

    def test_of_a_child_are_those_that_its_parent_has_used(self) -> None:
        """In a forked process nothing runs of them."""
        pool = a_pool("a").start()
        assert declared("a") == []
        child = os.fork()
        if child == 0:
            os._exit(0 if declared("a") == [pool] else 1)
        assert os.waitpid(child, 0)[1] == 0
        pool.stop()


class TestStopPools:
    def test_stops_them_in_reverse(self) -> None:
        """The one that was started last goes first, when what is lent has come back."""
        log: list[str] = []
        pools = [a_pool(name, log).start() for name in ("a", "b")]
        for pool in pools:
            pool.wait_ready()
        lease = pools[1].checkout()
        stop = gevent.spawn(gpool.stop_pools)
        settle()
        assert log == []
        assert pools[0].healthy()  # the holder may need it
        lease.checkin()
        assert stop.get(timeout=5) is True
        assert log == ["b", "a"]
        assert gpool.running_pools() == []

    def test_waits_no_longer_than_told(self, clock: VirtualClock) -> None:
        """So many seconds for all of them; who still holds keeps what he has."""
        pools = [a_pool(name).start() for name in ("a", "b")]
        leases = [pool.checkout() for pool in pools]
        stop = gevent.spawn(gpool.stop_pools, 3.0)
        clock.advance(2.9)
        assert pools[0].healthy()
        clock.advance(0.2)
        assert not pools[0].healthy()
        clock.advance(2.0)  # each pool's last second
        assert stop.get(timeout=5) is False
        for lease in leases:
            lease.checkin()

    def test_closes_all_in_one_second_beyond_its_time(self, clock: VirtualClock) -> None:
        """However many hang; those that do not are closed in order, if late."""
        log: list[str] = []
        first = a_pool("first", log).start()
        many = [_hanging(f"{number}").start() for number in range(5)]
        for pool in (first, *many):
            pool.wait_ready()
        stop = gevent.spawn(gpool.stop_pools, 0.0)
        settle()
        assert log == ["first"]
        clock.advance(0.9)
        assert not stop.dead
        clock.advance(0.2)
        assert stop.get(timeout=5) is True
        assert [pool.status().state for pool in (first, *many)] == ["stopped"] * 6

    def test_waits_a_second_for_one_that_hangs_before_the_next(self, clock: VirtualClock) -> None:
        """Then it has what is left of the time beside the others."""
        log: list[str] = []
        a_pool("first", log).start().wait_ready()
        _hanging("last").start().wait_ready()
        stop = gevent.spawn(gpool.stop_pools, 4.0)
        clock.advance(0.9)
        assert log == []
        clock.advance(0.2)
        assert log == ["first"]
        clock.advance(2.8)
        assert not stop.dead
        clock.advance(0.2)
        assert stop.get(timeout=5) is True

    def test_goes_on_with_what_another_call_has_begun(self, clock: VirtualClock) -> None:
        """A call that was killed has left a pool half stopped; the next has its own patience."""
        pool = _hanging("one").start()
        pool.wait_ready()
        first = gevent.spawn(gpool.stop_pools, 60.0)
        clock.advance(0.5)
        first.kill()
        assert gpool.running_pools() == []
        second = gevent.spawn(gpool.stop_pools, 0.0)
        clock.advance(0.9)
        assert not second.dead
        clock.advance(0.2)
        assert second.get(timeout=5) is True
        assert pool.tree().pool_sup is None

    def test_refuses_what_is_no_time(self) -> None:
        """It stops nothing then."""
        pool = a_pool("a").start()
        with pytest.raises(ValueError, match="drain: expected seconds >= 0"):
            gpool.stop_pools(-1)
        assert pool.healthy()
