"""The Ledger: what it keeps between two managers, and for those who look."""

from __future__ import annotations

import sys
from typing import Any, cast

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.pool import lease
from gpool.pool.ledger import EPOCH_CLOSED, Ledger
from gpool.pool.options import Options
from gpool.pool.resource import Resource
from gpool.pool.teller import UNSAID
from gpool.pool.worker import Resources
from gpool.testing import VirtualClock, settle
from tests.pool.workshop import Client, Holder, Maker, assert_whole, books, check, clients_of


@pytest.fixture
def pool(clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
    """A pool of one, running; its supervisor can be told to wait."""
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, name="one", max_restarts=3)
    pool.start()
    settle()
    return pool


def ledger_of(pool: gpool.Pool[Any]) -> Any:
    """Return the books of a pool's run."""
    return pool._ledger


def fell(pool: gpool.Pool[Any]) -> None:
    """Have the manager accept a kill; nobody has run since."""
    gpool.exit(ledger_of(pool).man.pid, "kill")
    assert ledger_of(pool).man is None


class TestMeet:
    def test_meets_a_client_once(self, pool: gpool.Pool[Any]) -> None:
        """Rule 4: one monitor, in every form of checkout."""
        me = gpool.self()
        for _ in range(3):
            pool.checkout().checkin()
            pool.transaction(repr)
        assert len(clients_of(me)) == 1
        assert [client.pid for client in ledger_of(pool).clients.values()] == [me]

    def test_not_whom_it_does_not_let_in(self, pool: gpool.Pool[Any]) -> None:
        """A client that comes too late would keep the books of a stopped pool in memory."""
        pool.stop()
        with pytest.raises(gpool.PoolClosed):
            pool.checkout()
        assert clients_of(gpool.self()) == []

    def test_forgets_it_at_its_death(self, pool: gpool.Pool[Any]) -> None:
        """All tables are empty again."""
        for _ in range(5):
            Client(pool.transaction, repr)
        settle()
        assert ledger_of(pool).clients == {}


class TestClientsOfSeveralPools:
    def test_each_reclaims_at_the_death(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Whoever met the client first or last."""
        others = [gpool.Pool(maker.resource(), size=1).start() for _ in range(2)]

        def hold() -> None:
            leases = [each.checkout() for each in (pool, *others)]
            gpool.receive()
            leases.clear()

        client = Client(hold)
        settle()
        assert [each.stats().busy for each in (pool, *others)] == [1, 1, 1]
        client.kill()
        settle()
        assert [each.stats().reclaimed for each in (pool, *others)] == [1, 1, 1]

    def test_one_that_parts_leaves_the_others(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """The pool between two is stopped: the first and the last are told all the same."""
        others = [gpool.Pool(maker.resource(), size=1).start() for _ in range(2)]

        def hold() -> None:
            first = pool.checkout()
            others[0].checkout().checkin()
            last = others[1].checkout()
            gpool.receive()
            first.checkin()
            last.checkin()

        client = Client(hold)
        settle()
        assert len(clients_of(client.pid)) == 3
        others[0].stop()
        assert [it.ledger.pool for it in clients_of(client.pid)] == [others[1], pool]
        client.kill()
        settle()
        assert [pool.stats().reclaimed, others[1].stats().reclaimed] == [1, 1]

    def test_more_pools_than_the_stack_has_room_for(self) -> None:
        """A program may have a pool for each of its tenants: all of them are told."""
        number = 2 * sys.getrecursionlimit()
        doomed, dead = list[Any](), list[Any]()

        class Books:
            def leave_fast_path(self, client: lease.Client) -> None:
                doomed.append(client)

            def client_died(self, client: lease.Client, reason: Any) -> None:
                dead.append(client)

        pid = gpool.spawn(gpool.receive)
        clients: list[Any] = [lease.Client(cast("Any", Books()), pid) for _ in range(number)]
        for client in clients:
            client.next, pid.keeper = pid.keeper, client
        settle()
        gpool.exit(pid, "kill")
        settle()
        assert doomed == dead == clients[::-1]
        assert pid.keeper is None

    def test_a_worker_that_is_a_client_itself(self, pool: gpool.Pool[Any]) -> None:
        """Its own pool hears of its death, too, and the one whose worker it holds."""

        class Borrower(gpool.GenServer):
            @gpool.call
            def borrow(self) -> None:
                self.lease = pool.checkout()

        borrowers: gpool.Pool[Any] = gpool.Pool(Borrower, size=1)
        with borrowers.checkout() as borrower:
            borrower.borrow()
        assert pool.stats().busy == 1
        gpool.exit(borrower.pid, "kill")
        assert borrowers.stats().idle == 0  # from the moment that the exit is accepted
        settle()
        assert (pool.stats().reclaimed, borrowers.stats().idle) == (1, 1)
        borrowers.stop()


class TestFastPath:
    def test_is_closed_to_a_client_whose_exit_is_accepted(self, pool: gpool.Pool[Any]) -> None:
        """Rule 7: it is as good as dead; what it holds is discarded."""
        ran: list[bool] = []

        def hold() -> None:
            pool.checkout().checkin()
            lease = pool.checkout()
            try:
                gevent.get_hub().switch()
            finally:
                ran.append(gevent.getcurrent() in ledger_of(pool).clients)
                lease.checkin()

        client = Client(hold)
        settle()
        assert client.pid.greenlet in ledger_of(pool).clients
        gpool.exit(client.pid, "boom")
        assert client.pid.greenlet not in ledger_of(pool).clients
        settle()
        assert ran == [False]
        assert_whole(pool)


class TestBetweenTwoManagers:
    def test_a_newcomer_waits(self, pool: gpool.Pool[Any]) -> None:
        """Rule 2: it queues, and is served by the next one."""
        fell(pool)
        check(pool)
        holder = Holder(pool)
        assert holder.thing is not None
        assert pool.stats().epoch == 2

    def test_one_that_may_not_wait_is_refused(self, pool: gpool.Pool[Any]) -> None:
        """Rule 2: timeout=0."""
        fell(pool)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)

    @pytest.mark.parametrize("act", ["checkin", "discard"])
    def test_what_comes_back_is_recorded(
        self, pool: gpool.Pool[Any], maker: Maker, act: str
    ) -> None:
        """Rule 10: it can only be closed."""
        lease = pool.checkout()
        fell(pool)
        getattr(lease, act)()
        check(pool)
        settle()
        assert maker.made[0].closed
        assert_whole(pool, maker)

    def test_a_holder_that_dies(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Its thing is closed by the next manager."""
        holder = Holder(pool)
        fell(pool)
        holder.kill()
        settle()
        assert_whole(pool, maker)

    def test_a_waiter_that_dies_or_gives_up(
        self, pool: gpool.Pool[Any], clock: VirtualClock
    ) -> None:
        """Nothing of it is taken over."""
        holder = Holder(pool)
        waiters = [Holder(pool), Holder(pool, timeout=1.0), Holder(pool)]
        fell(pool)
        waiters[0].kill()
        settle()
        clock.advance(1.0)
        assert pool.stats().waiting == 1
        holder.let_go()
        assert waiters[2].thing is not None

    def test_a_transfer(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """A thing that is still held may get another owner until then."""
        lease = pool.checkout()
        fell(pool)
        heir = gpool.spawn(gpool.receive)
        lease.transfer(heir)
        gpool.exit(heir, "kill")
        settle()
        assert_whole(pool, maker)

    def test_a_grant_that_was_not_accepted(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Rule 10: taken back; its client keeps its place, first in the line."""
        lease = pool.checkout()
        first, second = Holder(pool), Holder(pool)
        lease.checkin()  # granted to the first, which does not know yet
        fell(pool)
        settle()
        assert first.thing is maker.made[1]
        assert second.thing is None
        first.let_go()
        assert second.thing is not None

    def test_those_who_wait_keep_their_order(self, pool: gpool.Pool[Any]) -> None:
        """Rule 10: over many restarts."""
        holder = Holder(pool)
        waiters = [Holder(pool, timeout=None) for _ in range(4)]
        for _ in range(3):
            fell(pool)
            settle()
        numbers = [ticket.number for ticket in books(pool).waiting]
        assert numbers == sorted(numbers)
        holder.let_go()
        for waiter in waiters:
            assert waiter.thing is not None
            waiter.let_go()

    def test_events_are_kept(self, pool: gpool.Pool[Any]) -> None:
        """Rule 13: the next manager tells what happened meanwhile."""
        seen: list[Any] = []
        heir = gpool.spawn(gpool.receive)
        pool.checkout().transfer(heir)
        telemetry.attach(seen.append)
        fell(pool)
        gpool.exit(heir, "kill")
        settle()
        telemetry.detach(seen.append)
        kinds = [type(event) for event in seen]
        assert kinds.count(telemetry.LeaseReclaimed) == 1
        assert kinds.count(telemetry.PoolRose) == 1

    def test_events_that_the_last_manager_had_not_told_are_kept(
        self, pool: gpool.Pool[Any]
    ) -> None:
        """They stood in its mailbox when it fell: the next one tells them, once, in order."""
        seen: list[Any] = []
        telemetry.attach(seen.append)
        gpool.sys.suspend(ledger_of(pool).man.pid)
        pool.resize(2)
        pool.resize(1)
        fell(pool)
        settle()
        telemetry.detach(seen.append)
        kinds = [type(event) for event in seen if isinstance(event, telemetry.PoolEvent)]
        assert kinds[:3] == [telemetry.PoolResized, telemetry.PoolResized, telemetry.PoolFell]
        assert kinds.count(telemetry.PoolResized) == 2

    def test_events_are_bounded(self) -> None:
        """Nobody may ever come to tell them."""
        ledger = Ledger("x", Resources(Resource(list)), Options())
        for number in range(2 * UNSAID):
            ledger.note(telemetry.PoolRose(None, "x", number))
        assert len(ledger.teller.unsaid) == UNSAID


class TestStruck:
    def test_closes_the_epoch_and_charges_nobody(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Rule 1: PoolMan dies of a reason of its own, more often than it might fall."""
        for epoch in range(1, 12):
            man = ledger_of(pool).man.pid
            ledger_of(pool).struck()
            assert ledger_of(pool).idle == ()
            settle()
            assert man.reason == EPOCH_CLOSED
            assert pool.stats().epoch == epoch + 1
        assert_whole(pool, maker)

    def test_the_next_call_cleans_up(self, pool: gpool.Pool[Any]) -> None:
        """A client that comes in the same turn finds nobody in charge, and waits."""
        ledger_of(pool).struck()
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        assert ledger_of(pool).man is None
        holder = Holder(pool)
        assert holder.thing is not None

    def test_while_the_manager_is_suspended(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """It goes all the same."""
        gpool.sys.suspend(ledger_of(pool).man.pid)
        ledger_of(pool).struck()
        settle()
        assert pool.stats().epoch == 2
        assert_whole(pool, maker)
