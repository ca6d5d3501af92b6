"""What pooler's suite asks beyond the others: returns, replacement, age, metrics, properties."""

from __future__ import annotations

import random
from typing import Any

import pytest

import gpool
from gpool import telemetry
from gpool.testing import VirtualClock, settle
from tests.pool.peers.stage import Events, running, slots
from tests.pool.workshop import Client, Holder, Maker, assert_whole, check

pytestmark = pytest.mark.usefixtures("clock")


def test_37_returns_of_one(maker: Maker) -> None:
    """Thirty-six of them are counted and change nothing."""
    pool = running(maker.resource(), size=3)
    lease = pool.checkout()
    for _ in range(37):
        lease.checkin()
    assert (pool.stats().stale, pool.stats().idle, len(maker.made)) == (36, 3, 3)
    assert_whole(pool, maker)


@pytest.mark.parametrize("kind", ["discard", "kill", "client"])
def test_replacement_never_exceeds_the_cap(maker: Maker, kind: str) -> None:
    """A slot is freed after the close, so the server never sees one too many."""
    pool = running(maker.resource(), size=3, max_overflow=2)
    for _ in range(20):
        holders = [Holder(pool) for _ in range(5)]
        for holder in holders:
            [slot] = [slot for slot in slots(pool) if slot.thing is holder.thing]
            match kind:
                case "discard":
                    slot.lease.discard()
                case "kill":
                    gpool.exit(slot.pid, "kill")
                case "client":
                    holder.kill()
        for holder in holders:
            holder.let_go()
        check(pool)
    assert maker.peak == 5


def test_one_in_use_past_its_age(clock: VirtualClock, maker: Maker) -> None:
    """It is replaced when it is returned, not taken away."""
    pool = running(maker.resource(), size=1, max_age=10.0)
    holder = Holder(pool)
    clock.advance(100.0)
    assert not holder.thing.closed
    holder.let_go()
    assert [thing.closed for thing in maker.made] == [True, False]


@pytest.mark.parametrize("within", [0.0, 10.0])
def test_an_age_that_is_imposed_live(clock: VirtualClock, maker: Maker, within: float) -> None:
    """`recycle(within)` ends those that there are, with or without a `max_age`."""
    pool = running(maker.resource(), size=4, max_age=1000.0)
    pool.recycle(within=within)
    clock.advance(within)
    assert [thing.closed for thing in maker.made] == [True] * 4 + [False] * 4
    assert_whole(pool, maker)


def test_no_undeclared_event_is_ever_emitted(clock: VirtualClock, maker: Maker) -> None:
    """Every event that there is stands in `EVENTS`, so whoever lists them misses none."""
    ours = {
        kind
        for kind in vars(telemetry).values()
        if isinstance(kind, type) and issubclass(kind, telemetry.Event)
    }
    assert ours - {telemetry.Event, telemetry.PoolEvent} == set(telemetry.EVENTS)
    maker.creates.append(OSError("down"))
    with Events() as events:
        pool = running(maker.resource(), size=1, max_hold=1.0)
        holder, late = Holder(pool), Holder(pool, timeout=0.5)
        clock.advance(2.0)
        late.kill()
        holder.let_go()
        pool.recycle()
        settle()
        pool.stop()
    assert len({type(event) for event in events}) > 8
    assert {type(event) for event in events} <= set(telemetry.EVENTS)


class TestProperties:
    """For pools of any size."""

    @pytest.fixture(params=range(8))
    def pool(self, request: pytest.FixtureRequest, maker: Maker) -> gpool.Pool[Any]:
        """Return a pool of some size."""
        dice = random.Random(request.param)
        size = dice.randint(0, 10)
        return running(
            maker.resource(), size=size, max_overflow=dice.randint(0 if size else 1, 10),
            overflow_ttl=dice.choice([0.0, 5.0]),
        )  # fmt: skip

    @staticmethod
    def take_all(pool: gpool.Pool[Any]) -> list[Holder]:
        """Check out until it is full."""
        stats = pool.stats()
        return [Holder(pool) for _ in range(stats.size + stats.max_overflow)]

    def test_take_all(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """So many, all different, and not one more."""
        holders = self.take_all(pool)
        assert len({holder.thing for holder in holders} - {None}) == len(holders)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        assert pool.status().state == "full"

    def test_return_all(self, pool: gpool.Pool[Any], clock: VirtualClock, maker: Maker) -> None:
        """`size` are idle in the end."""
        for holder in self.take_all(pool):
            holder.let_go()
        clock.advance(5.0)
        assert pool.stats().idle == maker.open == pool.stats().size
        assert_whole(pool, maker)

    def test_return_all_as_failed(
        self, pool: gpool.Pool[Any], clock: VirtualClock, maker: Maker
    ) -> None:
        """All are closed, and `size` new ones are there."""
        holders = self.take_all(pool)
        for holder in holders:
            holder.cut()
        settle()
        assert all(holder.thing.closed for holder in holders)
        assert pool.stats().idle == maker.open == pool.stats().size
        assert_whole(pool, maker)

    def test_all_holders_die(
        self, pool: gpool.Pool[Any], clock: VirtualClock, maker: Maker
    ) -> None:
        """The same."""
        holders = self.take_all(pool)
        waiters = [Client(pool.checkout) for _ in holders]
        for holder in holders:
            holder.kill()
        settle()
        assert all(waiter.done and waiter.error is None for waiter in waiters)
        settle()
        assert pool.stats().busy == 0
        assert pool.stats().reclaimed == len(waiters)
        assert maker.peak == len(holders)
        assert_whole(pool, maker)
