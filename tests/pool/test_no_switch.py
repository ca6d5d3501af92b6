"""Rule 1: no transition that a client or a worker runs switches greenlets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gpool
from gpool import telemetry
from gpool.otp.signal import finish
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import Echo, Holder, Maker, books, no_switch

KINDS = ["plain", "reset", "server"]


@pytest.fixture(params=KINDS)
def pool(request: Any, clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
    """A pool of two workers of each kind, up and known to the caller."""
    hooks = {"reset": maker.reset, "is_dirty": bool} if request.param == "reset" else {}
    worker: Any = Echo if request.param == "server" else maker.resource(**hooks)
    pool: gpool.Pool[Any] = gpool.Pool(worker, size=2)
    pool.start()
    settle()
    pool.checkout().checkin()
    settle()
    return pool


class TestCheckout:
    def test_fast(self, pool: gpool.Pool[Any]) -> None:
        """Rule 2: the fast path runs in the caller's greenlet."""
        assert pool._ledger is not None
        assert pool._ledger.idle
        with no_switch():
            leases = [pool.checkout(), pool.checkout()]
        assert len(leases) == 2

    def test_slow_without_a_wait(self, pool: gpool.Pool[Any]) -> None:
        """The first checkout of a client is as quick."""

        def first() -> None:
            with no_switch():
                lease = pool.checkout()
            lease.checkin()

        ref = gpool.spawn_monitor(first)[1]
        settle()
        assert gpool.receive(lambda m: m.ref is ref, timeout=0).reason == "normal"

    def test_refused(self, pool: gpool.Pool[Any]) -> None:
        """Neither does one that finds nothing and may not wait."""
        leases = [pool.checkout(), pool.checkout()]
        with no_switch(), pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        assert len(leases) == 2


class TestTheWayBack:
    @pytest.mark.parametrize("waiting", [0, 2])
    @pytest.mark.parametrize(
        "back",
        [
            lambda lease: lease.checkin(),
            lambda lease: lease.discard(),
            lambda lease: lease.__exit__(None, None, None),
            lambda lease: lease.__exit__(ValueError, ValueError(), None),
            lambda lease: lease.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None),
        ],
        ids=["checkin", "discard", "with", "error", "interrupt"],
    )
    def test_every_form(
        self, pool: gpool.Pool[Any], back: Callable[[Any], None], waiting: int
    ) -> None:
        """Rule 5: O(1), whoever waits; the rest happens in other processes."""
        leases = [pool.checkout(), pool.checkout()]
        clients = [Holder(pool) for _ in range(waiting)]
        with no_switch():
            back(leases[0])
            back(leases[0])  # late, a no-op
        settle()
        assert [bool(client.thing) for client in clients] == [True, False][:waiting]

    def test_of_a_busy_server(self, clock: VirtualClock) -> None:
        """Rule 7: one that has to finish first is waited for by nobody."""
        pool: gpool.Pool[Echo] = gpool.Pool(Echo, size=1)
        pool.start()
        settle()
        lease = pool.checkout()
        gate = Gate()
        lease.worker.work(gate)
        with no_switch():
            lease.checkin()
        assert pool.stats().finishing == 1
        gate.open()
        settle()
        assert pool.stats().idle == 1

    def test_transfer(self, pool: gpool.Pool[Any]) -> None:
        """Another owner, at once."""
        heir, lease = gpool.spawn(gpool.receive), pool.checkout()
        with no_switch():
            lease.transfer(heir)


class TestDeath:
    def test_of_a_client_that_holds(self, pool: gpool.Pool[Any]) -> None:
        """Rule 11: all of it in the dying frame."""
        heir = gpool.spawn(gpool.receive)
        pool.checkout().transfer(heir)
        Holder(pool), Holder(pool)
        with no_switch():
            finish(heir, "killed")
        assert pool.stats().reclaimed == 1

    def test_of_a_client_that_waits(self, pool: gpool.Pool[Any]) -> None:
        """Its ticket is gone at once."""
        clients = [Holder(pool) for _ in range(3)]
        with no_switch():
            finish(clients[2].pid, "killed")
        assert pool.stats().waiting == 0
        clients[2].pid.greenlet = None

    @pytest.mark.parametrize("held", [0, 2])
    def test_of_a_worker(self, pool: gpool.Pool[Any], held: int) -> None:
        """It leaves the books in its own last frame; it is told later."""
        clients = [Holder(pool) for _ in range(held)]
        pid = next(iter(books(pool).slots)).pid
        with no_switch():
            finish(pid, "killed")
        assert next(iter(books(pool).slots)).pid is not pid
        assert len(clients) == held

    def test_an_exit_that_is_accepted(self, pool: gpool.Pool[Any]) -> None:
        """Rule 11: a worker that will die leaves in the sender's frame."""
        pid = next(iter(books(pool).slots)).pid
        with no_switch():
            gpool.exit(pid, "kill")
        assert pool.stats().idle == 1

    def test_of_the_manager(self, pool: gpool.Pool[Any]) -> None:
        """Rule 10: the epoch ends with the signal."""
        man = pool._ledger.man  # type: ignore[union-attr]
        assert man is not None
        with no_switch():
            gpool.exit(man.pid, "kill")
        assert not pool.healthy()


class TestListeners:
    def test_run_in_the_manager(self, pool: gpool.Pool[Any]) -> None:
        """Rule 13: what a client does is told by somebody else, later."""
        told: list[Any] = []

        def listener(event: telemetry.Event) -> None:
            told.append((type(event).__name__, gpool.self()))

        telemetry.attach(listener)
        try:
            heir = gpool.spawn(gpool.receive)
            pool.checkout().transfer(heir)
            finish(heir, "killed")
            assert "LeaseReclaimed" not in dict(told)
            settle()
        finally:
            telemetry.detach(listener)
        man = pool._ledger.man  # type: ignore[union-attr]
        assert man is not None
        assert ("LeaseReclaimed", man.pid) in told
