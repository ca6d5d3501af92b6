"""Scopes: what was borrowed inside goes back at the end, and nothing else."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.pool import scope as scope_module
from gpool.testing import settle
from gpool.waiter import Gate
from tests.pool.workshop import Echo, Holder, Maker, assert_whole, no_switch


@pytest.fixture
def pool(maker: Maker) -> gpool.Pool[Any]:
    """A pool of four things that are reset."""
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(reset=maker.reset), size=4, name="things")
    pool.start()
    settle()
    return pool


def in_a_greenlet(fn: Callable[[], Any]) -> Any:
    """Return what a function returns, in a greenlet that gpool has not met."""
    return gevent.spawn(fn).get()


def closed(maker: Maker) -> int:
    """Return how many things were closed."""
    return sum(thing.closed for thing in maker.made)


def left_by(error: BaseException, pool: gpool.Pool[Any]) -> gpool.Lease[Any]:
    """Return what was lent for a scope that an exception has ended."""
    lease = None
    with pytest.raises(type(error)), gpool.Scope() as scope:  # noqa: PT012
        lease = pool.checkout()
        scope.keep(lease)
        raise error
    return lease


class TestLeases:
    def test_are_none_of_who_never_borrowed(self) -> None:
        """Asking has no effect: the caller does not even become a process."""
        before = len(gpool.processes())
        assert in_a_greenlet(gpool.leases) == ()
        assert len(gpool.processes()) == before

    def test_are_those_of_all_pools_in_the_order_of_the_asking(
        self, pool: gpool.Pool[Any], clock: Any
    ) -> None:
        """Servers and resources; what was given back is none of them."""
        servers: gpool.Pool[Any] = gpool.Pool(Echo, size=2, name="servers")
        wanted = []
        for one in (pool, servers, pool, servers):
            wanted.append(one.checkout())
            clock.advance(1.0)
        with no_switch():
            assert gpool.leases() == tuple(wanted)
        wanted.pop(0).checkin()
        assert gpool.leases() == tuple(wanted)

    def test_are_those_of_another_process(self, pool: gpool.Pool[Any]) -> None:
        """By its pid, or its name; who is dead has none."""
        client = Holder(pool)
        pid = client.pid
        gpool.register("ann", pid)
        assert [lease.owner.pid for lease in gpool.leases(pid)] == [pid]
        assert gpool.leases("ann") == gpool.leases(pid)
        gpool.exit(pid, "kill")
        settle()
        assert gpool.leases(pid) == ()

    def test_go_to_whom_they_are_transferred_to(self, pool: gpool.Pool[Any]) -> None:
        """The owner has them."""
        heir = Holder(pool)
        lease = pool.checkout()
        lease.transfer(heir.pid)
        assert gpool.leases() == ()
        assert lease in gpool.leases(heir.pid)

    @pytest.mark.parametrize(
        ("of", "error"), [("nobody", gpool.NoProcess), (3.5, TypeError)], ids=["name", "number"]
    )
    def test_of_nobody(self, of: Any, error: type[Exception]) -> None:
        """A name that nobody has, and what is no process."""
        with pytest.raises(error):
            gpool.leases(of)

    def test_include_lost_ones(self, pool: gpool.Pool[Any]) -> None:
        """Whose worker or pool has fallen: they have to be given back, too."""
        lease = pool.checkout()
        man = pool.tree().pool_man
        gpool.exit(man, "kill")
        settle()
        assert lease.lost
        assert gpool.leases() == (lease,)

    def test_in_a_forked_child_are_none(self, pool: gpool.Pool[Any]) -> None:
        """They are the parent's, and a scope of the parent's leaves them alone."""
        scope, me = gpool.Scope(), gpool.self()
        scope.__enter__()
        lease = pool.checkout()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                scope.__exit__(None, None, None)
                code = 0 if gpool.leases() == gpool.leases(me) == () and lease.lost else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        scope.__exit__(None, None, None)
        settle()
        assert pool.status().busy == 0


class TestEnd:
    def test_gives_back_what_was_borrowed_inside(
        self, pool: gpool.Pool[Any], maker: Maker, forgotten: list[telemetry.LeaseForgotten]
    ) -> None:
        """What it was told to keep is reset, as after a ``with``, and nothing is told of it."""
        with gpool.Scope() as scope:
            things = [scope.keep(pool.checkout()), scope.keep(pool.checkout())]
        settle()
        assert pool.status().busy == 0
        assert [thing.resets for thing in things] == [1, 1]
        assert forgotten == []
        assert_whole(pool, maker)

    def test_lends_again_nothing_that_was_forgotten(
        self, pool: gpool.Pool[Any], maker: Maker, forgotten: list[telemetry.LeaseForgotten]
    ) -> None:
        """Whoever forgot it may still use it; an event names the line."""
        with gpool.Scope():
            leases = [pool.checkout(), pool.checkout()]
            things = [lease.worker for lease in leases]
        settle()
        assert pool.status().busy == 0
        assert [thing.closed for thing in things] == [True, True]
        assert len(forgotten) == len(leases)
        assert all("test_scope.py" in event.line for event in forgotten)
        assert {(event.pool, event.process) for event in forgotten} == {("things", gpool.self())}
        assert_whole(pool, maker)

    def test_tells_nothing_if_nothing_was_forgotten(
        self, pool: gpool.Pool[Any], forgotten: list[telemetry.LeaseForgotten]
    ) -> None:
        """What came back by itself is no news."""
        with gpool.Scope():
            with pool.checkout():
                pass
            pool.checkout().checkin()
        settle()
        assert forgotten == []

    def test_never_switches(self, pool: gpool.Pool[Any]) -> None:
        """Nor do its beginning and ``keep``."""
        lease = None
        with no_switch(), gpool.Scope() as scope:
            lease = pool.checkout()
            scope.keep(lease)
        assert lease.slot is None

    def test_after_an_exception_resets(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """It is an answer like any other."""
        lease = left_by(ZeroDivisionError(), pool)
        settle()
        assert lease.slot is None
        assert (sum(thing.resets for thing in maker.made), closed(maker)) == (1, 0)

    @pytest.mark.parametrize("error", [gevent.GreenletExit, gevent.Timeout, KeyboardInterrupt])
    def test_after_a_base_exception_discards(
        self, pool: gpool.Pool[Any], maker: Maker, error: type[BaseException]
    ) -> None:
        """Nobody knows in what state a resource is whose client was cut short."""
        lease = left_by(error(), pool)
        settle()
        assert lease.slot is None
        assert closed(maker) == 1
        assert_whole(pool, maker)

    def test_in_a_finally_after_a_kill_discards(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """As ``Lease.checkin`` does: the end itself was told of no error."""
        scope = gpool.Scope()
        scope.__enter__()
        lease = pool.checkout()
        with pytest.raises(gevent.GreenletExit):  # noqa: PT012
            try:
                raise gevent.GreenletExit
            finally:
                scope.__exit__(None, None, None)
        settle()
        assert lease.slot is None
        assert closed(maker) == 1

    def test_tells_each_resource_of_the_exception(self, maker: Maker) -> None:
        """Its ``is_broken`` is asked."""
        asked: list[BaseException] = []
        hooks = {"is_broken": lambda error, thing: bool(asked.append(error)) or True}
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(**hooks), size=1)
        error = ZeroDivisionError()
        lease = left_by(error, pool)
        assert asked == [error]
        assert lease.slot is None

    def test_of_a_killed_process_gives_back(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Its exit was accepted, and it unwinds."""

        def work() -> None:
            with gpool.Scope():
                lease = pool.checkout()
                gevent.get_hub().switch()
                assert lease

        pid = gpool.spawn(work)
        settle()
        assert pool.status().busy == 1
        gpool.exit(pid, "boom")
        settle()
        assert closed(maker) == 1
        assert_whole(pool, maker)

    def test_gives_back_what_was_lost(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """What is open in the hands of its client is closed."""
        with gpool.Scope():
            lease = pool.checkout()
            gpool.exit(pool.tree().pool_man, "kill")
            settle()
            assert lease.lost
            assert closed(maker) == 3
        settle()
        assert closed(maker) == 4
        assert_whole(pool, maker)

    def test_gives_back_all_though_one_raises(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """A hook that is cut short harms no other lease."""

        def is_dirty(thing: Any) -> bool:
            raise gevent.GreenletExit

        others: gpool.Pool[Any] = gpool.Pool(maker.resource(is_dirty=is_dirty), size=1)
        with pytest.raises(gevent.GreenletExit), gpool.Scope() as scope:  # noqa: PT012
            leases = [pool.checkout(), others.checkout(), pool.checkout()]
            for lease in leases[:2]:
                scope.keep(lease)
        assert all(lease.slot is None for lease in leases)


class TestTouchesNot:
    def test_what_was_borrowed_before(
        self, pool: gpool.Pool[Any], forgotten: list[telemetry.LeaseForgotten]
    ) -> None:
        """Its client still has it."""
        with pool.checkout(), gpool.Scope():
            inside = pool.checkout()
        first = pool.checkout()
        with gpool.Scope():
            pass
        assert gpool.leases() == (first,)
        assert inside.slot is None
        settle()
        assert len(forgotten) == 1

    def test_what_was_borrowed_before_and_came_home(self, pool: gpool.Pool[Any]) -> None:
        """It was transferred away and back: it is still the same lease."""
        friend = Holder(pool)
        lease = pool.checkout()
        me = gpool.self()
        with gpool.Scope():
            lease.transfer(friend.pid)
            lease.transfer(me)
        assert gpool.leases() == (lease,)

    def test_what_was_transferred_away(self, pool: gpool.Pool[Any]) -> None:
        """It is the heir's."""
        heir = Holder(pool)
        with gpool.Scope():
            lease = pool.checkout()
            lease.transfer(heir.pid)
        assert lease in gpool.leases(heir.pid)

    def test_what_a_helper_has(self, pool: gpool.Pool[Any]) -> None:
        """What another process has borrowed is that one's, whoever has spawned it."""
        with gpool.Scope():
            helper = Holder(pool)
        assert len(gpool.leases(helper.pid)) == 1

    def test_what_an_outer_one_has(self, pool: gpool.Pool[Any]) -> None:
        """An inner scope gives back its own; the outer one has the rest."""
        with gpool.Scope():
            outer = pool.checkout()
            with gpool.Scope():
                inner = pool.checkout()
            assert gpool.leases() == (outer,)
        assert gpool.leases() == ()
        assert inner.slot is None

    def test_but_a_lease_that_is_lent_again(self, maker: Maker) -> None:
        """The books use it once more for another checkout: that one was inside."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
        for _ in range(3):
            with pool.checkout():
                pass
        lease = pool.checkout()
        with gpool.Scope():
            for _ in range(3):
                lease.checkin()
                del lease
                lease = pool.checkout()
            assert gpool.leases() == (lease,)
        assert gpool.leases() == ()


class TestReferences:
    def test_let_a_dropped_lease_be_reclaimed(self, maker: Maker) -> None:
        """Inside of a scope as elsewhere, be it from before or from inside."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, timeout=1.0)
        lease = pool.checkout()
        with gpool.Scope():
            del lease
            pool.checkout()
            with pool.checkout():
                pass
        settle()
        assert pool.stats().reclaimed == 2

    def test_keep_nothing_alive(self, pool: gpool.Pool[Any]) -> None:
        """A scope that has ended knows no process and no lease."""
        with gpool.Scope() as scope:
            scope.keep(pool.checkout())
        settle()
        assert not [one for one in gc.get_referents(scope) if isinstance(one, gpool.Pid)]
        assert scope._kept == {}


class TestKeep:
    def test_gives_the_worker_and_is_no_news(
        self, pool: gpool.Pool[Any], maker: Maker, forgotten: list[telemetry.LeaseForgotten]
    ) -> None:
        """It comes back at the end, as it was meant to; the scope alone refers to it."""
        with gpool.Scope() as scope:
            thing = scope.keep(pool.checkout())
            gc.collect()
            assert pool.status().busy == 1
        settle()
        assert thing.resets == 1
        assert pool.status().busy == 0
        assert forgotten == []

    def test_takes_what_was_borrowed_before(self, pool: gpool.Pool[Any]) -> None:
        """It ends with the scope then."""
        lease = pool.checkout()
        with gpool.Scope() as scope:
            scope.keep(lease)
        assert gpool.leases() == ()

    def test_lets_it_be_given_back_before(self, pool: gpool.Pool[Any]) -> None:
        """The end finds nothing to do; giving back is not counted twice."""
        with gpool.Scope() as scope:
            lease = pool.checkout()
            scope.keep(lease)
            lease.checkin()
        assert pool.stats().stale == 0

    def test_of_an_outer_scope_outlasts_an_inner_one(
        self, pool: gpool.Pool[Any], forgotten: list[telemetry.LeaseForgotten]
    ) -> None:
        """Though it was borrowed inside; the inner one's end takes the rest."""
        with gpool.Scope() as outer:
            with gpool.Scope():
                lease, other = pool.checkout(), pool.checkout()
                outer.keep(lease)
            assert gpool.leases() == (lease,)
            assert other.slot is None
        assert gpool.leases() == ()
        settle()
        assert len(forgotten) == 1

    def test_of_the_scope_that_was_told_last_counts(self, pool: gpool.Pool[Any]) -> None:
        """An inner one may have what the outer one had, and the other way round."""
        with gpool.Scope() as outer, gpool.Scope() as middle, gpool.Scope() as inner:
            one, two = pool.checkout(), pool.checkout()
            for scope in (outer, middle):
                scope.keep(one)
            for scope in (inner, outer):
                scope.keep(two)
            inner.__exit__(None, None, None)
            assert gpool.leases() == (one, two)
            middle.__exit__(None, None, None)
            assert gpool.leases() == (two,)
        assert gpool.leases() == ()

    def test_counts_for_one_piece_of_work(self, pool: gpool.Pool[Any]) -> None:
        """What one process had kept is not left lying by another one that has it now."""
        held, outer = Gate(), gpool.Scope()

        def work() -> None:
            with outer:
                lease = pool.checkout()
                outer.keep(lease)
                lease.transfer(me)
                held.wait()

        me = gpool.self()
        with gpool.Scope():
            gpool.spawn(work)
            settle()
            assert len(gpool.leases()) == 1
        assert gpool.leases() == ()
        held.open()
        settle()

    def test_is_forgotten_at_the_end(self, pool: gpool.Pool[Any]) -> None:
        """A scope that is entered time and again gathers nothing."""
        before = len(scope_module._kept_by)
        with gpool.Scope() as scope:
            scope.keep(pool.checkout())
            assert len(scope_module._kept_by) == before + 1
        assert len(scope_module._kept_by) == before
        assert scope._kept == {}

    def test_refuses_what_it_cannot_keep(self, pool: gpool.Pool[Any]) -> None:
        """A lease that is over, another's, or no lease; and once the scope has ended."""
        scope = gpool.Scope()
        lease = pool.checkout()
        with pytest.raises(ValueError, match="expected a scope that has not ended, got <Lease"):
            scope.keep(lease)
        with scope:
            with pytest.raises(TypeError, match="expected a Lease, got 'db'"):
                scope.keep("db")  # type: ignore[arg-type]
            heir = Holder(pool)
            lease.transfer(heir.pid)
            with pytest.raises(ValueError, match=r"expected one of #PID<\d+>, got <Lease"):
                scope.keep(lease)
            lease.checkin()
            with pytest.raises(gpool.LeaseLost):
                scope.keep(lease)


class TestEnter:
    def test_twice_is_refused(self) -> None:
        """A scope is one piece of work; once it has ended it may be another."""
        scope = gpool.Scope()
        with scope, pytest.raises(RuntimeError, match="expected a scope that has ended"):
            scope.__enter__()
        with scope:
            pass

    def test_ends_once(self, pool: gpool.Pool[Any]) -> None:
        """A second end finds nothing to do."""
        with gpool.Scope() as scope:
            pass
        lease = pool.checkout()
        scope.__exit__(None, None, None)
        assert gpool.leases() == (lease,)
