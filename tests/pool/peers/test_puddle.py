"""Puddle's tests and SQLAlchemy's that go beyond: who creates, misuse, cancelling, order.

Puddle's `TryAcquire` is our ``timeout=0``, its `AcquireAllIdle` our ``broadcast``, its
`Destroy` and SQLAlchemy's `invalidate` our ``discard``.
"""

from __future__ import annotations

import random
from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.peers.stage import Checks, Events, manager, running, slots
from tests.pool.workshop import Client, Holder, Maker, Thing, assert_whole, check, no_switch

pytestmark = pytest.mark.usefixtures("clock")


class TestTryAcquire:
    def test_never_blocks(self, maker: Maker) -> None:
        """Not when one is idle, not when none is; one is created in the background then."""
        pool = running(maker.resource(), size=1, lazy=True)
        pool.checkout().checkin()  # it is met, and the Application is up
        gpool.exit(slots(pool)[0].pid, "kill")
        settle()
        assert maker.open == 0
        with no_switch(), pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        settle()
        with no_switch():
            lease = pool.checkout(timeout=0)
        assert lease.worker is maker.made[1]

    def test_does_not_create_what_there_may_not_be(self, maker: Maker) -> None:
        """All are lent: it is refused, and nothing is created, now or later."""
        pool = running(maker.resource(), size=1, max_overflow=1)
        holders = [Holder(pool), Holder(pool)]
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        settle()
        assert (len(maker.made), maker.peak) == (2, 2)
        for holder in holders:
            holder.let_go()

    def test_of_a_closed_pool_creates_nothing(self, maker: Maker) -> None:
        """Puddle's fills the pool behind its back."""
        pool = running(maker.resource(), size=1, lazy=True)
        pool.close()
        with pytest.raises(gpool.PoolClosed):
            pool.checkout(timeout=0)
        settle()
        assert maker.made == []


class TestCreate:
    def test_without_a_client_respects_the_cap(self, maker: Maker) -> None:
        """Whatever asks for more: clients, resizes, deaths."""
        pool = running(maker.resource(), size=2, max_overflow=1)
        pool.resize(3, 0)
        settle()
        clients = [Client(pool.checkout) for _ in range(9)]
        for slot in slots(pool):
            gpool.exit(slot.pid, "kill")
        settle()
        assert all(client.done for client in clients)
        assert maker.peak == 3
        assert_whole(pool, maker)

    def test_that_fails_wakes_another_waiter(self, clock: VirtualClock, maker: Maker) -> None:
        """One start fails, one goes well: whoever is first in the queue gets that."""
        gate = Gate()

        def fail() -> None:
            gate.wait()
            raise OSError("down")

        pool = running(maker.resource(), size=2, lazy=True)
        maker.creates.append(fail)
        first, second = Holder(pool), Holder(pool)
        assert (first.thing, second.thing) == (maker.made[0], None)
        gate.open()
        clock.advance(0.1)
        assert second.thing is maker.made[1]

    def test_is_not_cancelled_with_its_client(self, maker: Maker) -> None:
        """What it makes goes to the pool."""
        gate = Gate()
        maker.creates.append(gate.wait)
        pool = running(maker.resource(), size=1, lazy=True)
        client = Holder(pool)
        client.kill()
        settle()
        gate.open()
        settle()
        assert (pool.stats().idle, maker.open) == (1, 1)
        assert pool.checkout(timeout=0).worker is maker.made[0]

    def test_one_that_hangs_blocks_no_other(self, maker: Maker) -> None:
        """SQLAlchemy: the others are made, lent and returned meanwhile."""
        gate = Gate()
        maker.creates.append(gate.wait)
        pool = running(maker.resource(), size=0, max_overflow=3)
        clients = [Holder(pool) for _ in range(3)]
        assert [client.thing is not None for client in clients] == [True, True, False]
        clients[0].let_go()
        assert clients[2].thing is clients[0].thing
        gate.open()
        clients[1].let_go()
        clients[2].let_go()
        assert_whole(pool, maker)

    def test_that_fails_gives_its_overflow_back(self, clock: VirtualClock, maker: Maker) -> None:
        """SQLAlchemy: as many can be made as before."""
        pool = running(maker.resource(), size=1, max_overflow=2)
        maker.creates.extend([OSError("down")] * 5)
        holders = [Holder(pool, timeout=30.0) for _ in range(3)]
        clock.advance(2.0)
        assert all(holder.thing is not None for holder in holders)
        assert (pool.stats().overflow, maker.peak) == (2, 3)


class TestHealthSweep:
    def test_has_all_that_are_idle_at_once(self, maker: Maker) -> None:
        """And gives them back as they were, those that are lent left alone."""
        pool = running(maker.resource(), size=3)
        holder = Holder(pool)
        seen: list[Any] = []

        def look(thing: Thing) -> int:
            seen.append(pool.stats().idle)
            gevent.sleep(0)
            return thing.number

        numbers = pool.broadcast(look)
        assert set(numbers) == {1, 2, 3} - {holder.thing.number}
        assert seen == [0, 0]
        assert pool.stats().idle == 2

    def test_one_that_is_found_dead(self, maker: Maker) -> None:
        """Whatever the job raises has it replaced."""
        pool = running(maker.resource(), size=2)

        def look(thing: Thing) -> None:
            if thing.number == 1:
                raise OSError("gone")

        results = pool.broadcast(look)
        settle()
        assert sorted(map(repr, results)) == ["None", "OSError('gone')"]
        assert [thing.closed for thing in maker.made] == [True, False, False]

    def test_a_reset_generation_is_replaced_at_its_return(self, maker: Maker) -> None:
        """`Reset()`: idle ones now, those that are lent when they come back."""
        pool = running(maker.resource(), size=2)
        holder = Holder(pool)
        pool.recycle()
        settle()
        newcomer = Holder(pool)
        assert newcomer.thing is maker.made[2]
        holder.let_go()
        assert holder.thing.closed
        newcomer.let_go()
        assert not newcomer.thing.closed


class TestMisuse:
    def test_a_release_too_many(self, maker: Maker) -> None:
        """Puddle panics; gpool counts it, and nobody's worker is taken away."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        lease.checkin()
        other = Holder(pool)
        lease.checkin()
        lease.discard()
        assert pool.stats().stale == 2
        assert pool.holders()[0].pid is other.pid
        assert pool.stats().idle == 0

    def test_use_after_the_release(self, maker: Maker) -> None:
        """It is an error at the line that does it; in debug mode for the thing itself too."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        lease.checkin()
        with pytest.raises(gpool.LeaseLost):
            _ = lease.worker
        strict = running(maker.resource(), size=1, debug=True)
        with strict.checkout() as thing:
            pass
        with pytest.raises(gpool.LeaseLost):
            _ = thing.number


class TestCancel:
    def test_before_it_waits(self, maker: Maker) -> None:
        """A client whose exit was accepted gets nothing."""
        pool = running(maker.resource(), size=1)

        def die_first() -> None:
            gpool.exit(gpool.self(), "kill")
            pool.checkout()

        Client(die_first)
        settle()
        assert_whole(pool, maker)

    @pytest.mark.parametrize("how", ["kill", "cut"])
    @pytest.mark.parametrize("when", ["while it waits", "while one is created"])
    def test_and_nothing_is_left(self, maker: Maker, when: str, how: str) -> None:
        """Neither a place in the queue nor a worker."""
        gate = Gate()
        if when == "while one is created":
            maker.creates.append(gate.wait)
        pool = running(maker.resource(), size=1, lazy=True)
        holder = Holder(pool) if when == "while it waits" else None
        client = Holder(pool)
        assert pool.stats().waiting == 1
        getattr(client, how)()
        settle()
        assert pool.stats().waiting == 0
        gate.open()
        if holder is not None:
            holder.let_go()
        assert_whole(pool, maker)

    @pytest.mark.parametrize("what", ["busy", "starting"])
    def test_is_told_apart(self, clock: VirtualClock, maker: Maker, what: str) -> None:
        """The error says what it waited for: others, or a start."""
        gate = Gate()
        if what == "starting":
            maker.creates.append(gate.wait)
        pool = running(maker.resource(), size=1)
        if what == "busy":
            Holder(pool)
        client = Client(pool.checkout, timeout=1.0)
        clock.advance(1.0)
        error: Any = client.error
        assert (error.busy, error.starting) == ((1, 0) if what == "busy" else (0, 1))


class TestSQLAlchemy:
    def test_waiters_survive_the_replacement_of_everything(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """`dispose` while they wait: they are served by what comes after, in order."""
        pool = running(maker.resource(), size=1)
        holder, first, second = Holder(pool), Holder(pool), Holder(pool)
        pool.recycle()
        gpool.exit(manager(pool), "kill")
        settle()
        holder.let_go()
        assert (first.thing, second.thing) == (maker.made[1], None)
        first.let_go()
        assert second.thing is not None
        second.let_go()
        assert_whole(pool, maker)

    def test_invalidate_wakes_a_waiter(self, maker: Maker) -> None:
        """It gets the replacement."""
        pool = running(maker.resource(), size=1)
        lease, waiter = pool.checkout(), Holder(pool)
        lease.discard("invalidated")
        settle()
        assert waiter.thing is maker.made[1]

    @pytest.mark.parametrize(("strategy", "order"), [("lifo", [3, 1]), ("fifo", [2, 1])])
    def test_the_order_of_the_idle(self, maker: Maker, strategy: Any, order: list[int]) -> None:
        """Last in, first out; or first in, first out."""
        pool = running(maker.resource(), size=3, strategy=strategy)
        leases = {lease.worker.number: lease for lease in [pool.checkout() for _ in range(3)]}
        for number in (2, 1, 3):
            leases[number].checkin()
        assert [pool.checkout().worker.number for _ in range(2)] == order

    def test_a_finalizer_does_not_give_back_twice(self, maker: Maker) -> None:
        """A lease that was given back and is then dropped is no lease any more."""
        pool = running(maker.resource(), size=1)
        lease = pool.checkout()
        lease.checkin()
        holder = Holder(pool)
        del lease
        waiter = Holder(pool)
        assert (pool.stats().reclaimed, pool.stats().stale) == (0, 0)
        holder.let_go()
        assert waiter.thing is holder.thing

    def test_hooks_are_called_in_order(self, maker: Maker) -> None:
        """From the first connect to the last close, and events as they happen."""
        steps: list[str] = []
        resource = gpool.Resource(
            create=lambda: steps.append("create"),
            check=lambda _: steps.append("check"),
            is_dirty=lambda _: steps.append("is_dirty"),  # type: ignore[arg-type,return-value]
            reset=lambda _: steps.append("reset"),
            close=lambda _: steps.append("close"),
        )
        with Events() as events:
            pool = running(resource, size=1, check_after=0)
            pool.transaction(lambda _: steps.append("use"))
            settle()
            pool.stop()
        assert steps == ["create", "check", "use", "is_dirty", "reset", "close"]
        kinds = [type(event).__name__ for event in events.of(telemetry.PoolEvent)]
        assert kinds == [
            "PoolStarted", "PoolRose", "WorkerStarting", "WorkerStarted", "PoolReady",
            "WorkerRecovered", "WorkerRecovered", "PoolClosing", "WorkerStopping", "WorkerDied",
            "PoolStopped",
        ]  # fmt: skip

    def test_all_who_hit_the_limit_wait_as_long(self, clock: VirtualClock, maker: Maker) -> None:
        """Nobody gives up early, however many wait."""
        pool = running(maker.resource(), size=1, max_overflow=2, timeout=2.0)
        for _ in range(3):
            Holder(pool, timeout=0.1)
        begun = clock.now()
        ends: list[float] = []

        def wait() -> None:
            with pytest.raises(gpool.CheckoutTimeout):
                pool.checkout()
            ends.append(clock.now() - begun)

        for _ in range(10):
            Client(wait)
        clock.advance(5.0)
        assert ends == pytest.approx([2.0] * 10)


@pytest.mark.parametrize("seed", range(5))
def test_random_stress(clock: VirtualClock, maker: Maker, seed: int) -> None:
    """Clients that do anything, and die of it; the invariants hold all the while."""
    dice = random.Random(seed)
    pool = running(
        maker.resource(check=Checks(*[None, None, False] * 9), reset=maker.reset),
        size=dice.randint(1, 4), max_overflow=dice.randint(0, 3), check_after=0.5,
        max_uses=7, strategy=dice.choice(["lifo", "fifo"]),
    )  # fmt: skip

    def work() -> None:
        for _ in range(10):
            lease = pool.checkout(timeout=dice.choice([0.0, 0.3, 5.0]))
            with lease.worker.used():
                if dice.random() < 0.5:
                    gevent.sleep(0)
            match dice.randrange(8):
                case 0:
                    lease.discard()
                case 1:
                    gpool.exit(gpool.self(), "kill")
                case 2:
                    lease.checkin()
                    lease.checkin()
                case _:
                    lease.checkin()

    for _ in range(30):
        Client(work)
        if dice.random() < 0.3:
            pool.recycle(within=dice.random())
        clock.advance(dice.random() / 2)
        check(pool)
    clock.advance(10.0)
    assert_whole(pool, maker)
