"""Poolboy: its twenty tests, and the statements of its QuickCheck model.

Overflow leaves at its checkin (``overflow_ttl=0``), as poolboy's does.
"""

from __future__ import annotations

import random
from typing import Any

import gevent
import pytest

import gpool
from gpool.pool.housekeeper import SWEEP
from gpool.testing import VirtualClock, settle
from tests.pool.peers.stage import manager, running
from tests.pool.workshop import Client, Echo, Holder, check, clients_of

pytestmark = pytest.mark.usefixtures("clock")


KINDS = {"server": Echo, "child": gpool.ChildSpec("echo", Echo.start_link)}


def pool_of(size: int, overflow: int, kind: str = "server", **options: Any) -> gpool.Pool[Any]:
    """Return a running pool of servers, or of children that a specification starts."""
    options.setdefault("overflow_ttl", 0.0)
    return running(KINDS[kind], size=size, max_overflow=overflow, **options)


def take(pool: gpool.Pool[Any], count: int) -> list[Holder]:
    """Check out that many."""
    return [Holder(pool) for _ in range(count)]


def kill(worker: Any) -> None:
    """Kill a worker, and let the pool see to it."""
    gpool.exit(worker.pid, "kill")
    settle()


def workers(pool: gpool.Pool[Any]) -> tuple[int, int, int]:
    """Return how many workers there are, how many of them are idle, and how many held."""
    stats = pool.stats()
    return stats.idle + stats.busy, stats.idle, len(pool.holders())


# --- The twenty tests ---------------------------------------------------------------


class TestPoolboy:
    def test_01_two_out_one_in(self) -> None:
        """Nine of ten are idle, one holder is known, and the pool stops."""
        pool = pool_of(10, 5)
        holders = take(pool, 2)
        holders[0].let_go()
        assert pool.status() == gpool.Status("ready", idle=9, overflow=0, busy=1)
        assert [holder.pid for holder in pool.holders()] == [holders[1].pid]
        pool.stop()
        assert pool.status().state == "stopped"

    def test_02_overflow_shrinks_first(self) -> None:
        """The first that come back shrink the pool, then idle rises."""
        pool = pool_of(5, 5)
        seen = []
        for holder in take(pool, 7):
            holder.let_go()
            seen.append(workers(pool))
        assert seen == [
            (6, 0, 6), (5, 0, 5), (5, 1, 4), (5, 2, 3), (5, 3, 2), (5, 4, 1), (5, 5, 0),
        ]  # fmt: skip

    @pytest.mark.parametrize("overflow", [2, 0])
    def test_03_and_04_one_more_waits(self, clock: VirtualClock, overflow: int) -> None:
        """It waits as long as nothing comes back, and is served by the first that does."""
        pool = pool_of(5, overflow)
        holders = take(pool, 5 + overflow)
        waiter = Holder(pool, timeout=None)
        clock.advance(0.5)
        assert waiter.thing is None
        holders[0].let_go()
        assert waiter.thing is not None
        for holder in [*holders, waiter]:
            holder.let_go()
        assert pool.status() == gpool.Status("ready", idle=5, overflow=0, busy=0)

    def test_05_a_held_worker_dies(self) -> None:
        """Its death restores `size`, not the overflow."""
        pool = pool_of(5, 2)
        [holder] = take(pool, 1)
        kill(holder.thing)
        assert workers(pool) == (5, 5, 0)
        holders = take(pool, 7)
        seen = []
        for holder in holders[:3]:
            kill(holder.thing)
            seen.append(workers(pool))
        assert seen == [(6, 0, 6), (5, 0, 5), (5, 1, 4)]

    @pytest.mark.parametrize("overflow", [2, 0])
    def test_06_and_07_a_held_worker_dies_while_one_waits(self, overflow: int) -> None:
        """The waiter gets a fresh one in its place; who dies next is not missed."""
        pool = pool_of(5, overflow)
        holders = take(pool, 5 + overflow)
        waiter = Holder(pool, timeout=None)
        kill(holders[0].thing)
        assert waiter.thing is not None
        assert waiter.thing not in [holder.thing for holder in holders]
        kill(holders[1].thing)
        kill(holders[2].thing)
        assert workers(pool) == (5, 0 if overflow else 2, 3 + overflow)

    def test_08_full_then_the_one_that_came_back(self) -> None:
        """Who does not wait is refused twice, then gets the very worker that is returned."""
        pool = pool_of(5, 0)
        holders = take(pool, 5)
        for _ in range(2):
            with pytest.raises(gpool.CheckoutTimeout):
                pool.checkout(timeout=0)
        assert pool.status().state == "full"
        holders[2].let_go()
        assert pool.checkout(timeout=0).worker is holders[2].thing

    def test_09_overflow_that_comes_back_is_terminated(self) -> None:
        """The next client gets a new one; then the pool is full again."""
        pool = pool_of(5, 5)
        holders = take(pool, 10)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        holders[0].let_go()
        assert not gpool.is_alive(holders[0].thing)
        assert Holder(pool).thing is not holders[0].thing
        assert (pool.status().state, len(pool.holders())) == ("full", 10)

    def test_10_a_holder_exits(self) -> None:
        """Its worker comes back."""
        pool = pool_of(5, 5)
        [holder] = take(pool, 1)
        holder.kill()
        settle()
        assert workers(pool) == (5, 5, 0)

    def test_11_what_a_transaction_throws(self) -> None:
        """It reaches the caller, and nothing is lost."""
        pool = pool_of(2, 0)
        thrown = KeyError("thrown")

        def throw(worker: Any) -> None:
            raise thrown

        with pytest.raises(KeyError) as caught:
            pool.transaction(throw)
        assert caught.value is thrown
        assert pool.status().idle == 2

    @pytest.mark.parametrize(
        ("size", "overflow", "states"),
        [
            (2, 0, [("ready", 2, 0, 0), ("ready", 1, 0, 1), ("full", 0, 0, 2)]),
            (1, 1, [("ready", 1, 0, 0), ("overflow", 0, 0, 1), ("full", 0, 1, 2)]),
            (0, 2, [("overflow", 0, 0, 0), ("overflow", 0, 1, 1), ("full", 0, 2, 2)]),
        ],
    )
    def test_12_status(self, size: int, overflow: int, states: list[Any]) -> None:
        """The states at a glance; a pool of nothing is refused, where poolboy's is full."""
        pool = pool_of(size, overflow)
        seen = [pool.status()]
        for _ in range(2):
            take(pool, 1)
            seen.append(pool.status())
        assert seen == [gpool.Status(*state) for state in states]
        with pytest.raises(ValueError, match="expected at least 1"):
            gpool.Pool(Echo, size=0, max_overflow=0)

    def test_13_a_client_that_waited_is_monitored_once(self) -> None:
        """As is every client; once it holds nothing the books know of no holder."""
        pool = pool_of(1, 0)
        first, second = take(pool, 2)
        first.let_go()
        assert [holder.pid for holder in pool.holders()] == [second.pid]
        assert len(clients_of(second.pid)) == 1
        second.let_go()
        assert pool.holders() == []

    def test_14_a_client_that_holds_and_waits_is_monitored_once(self, clock: VirtualClock) -> None:
        """Where poolboy has two monitors; there is no more and no less after its time-out."""
        pool = pool_of(1, 0)
        monitors: list[int] = []

        def greedy() -> None:
            lease = pool.checkout()
            monitors.append(len(clients_of(gpool.self())))
            with pytest.raises(gpool.CheckoutTimeout):
                pool.checkout(timeout=1.0)
            monitors.append(len(clients_of(gpool.self())))
            lease.checkin()

        client = Client(greedy)
        clock.advance(1.0)
        assert client.done
        assert client.error is None
        assert monitors == [1, 1]

    @pytest.mark.parametrize("options", [{}, {"strategy": "lifo"}])
    def test_15_and_16_out_in_out(self, options: dict[str, Any]) -> None:
        """By default, and with lifo, it is the same worker."""
        pool = pool_of(2, 0, **options)
        lease = pool.checkout()
        worker = lease.worker
        lease.checkin()
        assert pool.checkout().worker is worker

    def test_17_out_in_out_with_fifo(self) -> None:
        """It is the other worker, then the first."""
        pool = pool_of(2, 0, strategy="fifo")
        lease = pool.checkout()
        worker = lease.worker
        lease.checkin()
        other = pool.checkout()
        assert other.worker is not worker
        assert pool.checkout().worker is worker

    def test_18_a_holder_waits_for_a_second_and_its_first_dies(self) -> None:
        """It is served with the replacement, and monitored once."""
        pool = pool_of(1, 0)
        got: list[Any] = []

        def greedy() -> None:
            first = pool.checkout()
            got.append(first.worker)
            got.append(pool.checkout(timeout=5.0).worker)
            assert len(clients_of(gpool.self())) == 1
            gpool.receive()

        client = Client(greedy)
        settle()
        kill(got[0])
        assert client.error is None
        assert len(got) == 2
        assert got[1] is not got[0]
        assert [holder.pid for holder in pool.holders()] == [client.pid]

    def test_19_a_spawned_transaction_that_times_out(self) -> None:
        """It dies of that, and the pool is as it was."""
        pool = pool_of(1, 0)
        lease = pool.checkout()
        worker = lease.worker
        pid, ref = gpool.spawn_monitor(pool.transaction, repr, timeout=0)
        down = gpool.receive(timeout=1.0)
        assert (down.process, down.ref) == (pid, ref)
        assert isinstance(down.reason.exception, gpool.CheckoutTimeout)
        lease.checkin()
        assert pool.status() == gpool.Status("ready", idle=1, overflow=0, busy=0)
        assert pool.checkout().worker is worker

    def test_20_a_transaction_that_times_out_in_the_caller(self) -> None:
        """It raises, and the pool is as it was."""
        pool = pool_of(1, 0)
        lease = pool.checkout()
        worker = lease.worker
        with pytest.raises(gpool.CheckoutTimeout):
            pool.transaction(repr, timeout=0)
        lease.checkin()
        assert pool.status() == gpool.Status("ready", idle=1, overflow=0, busy=0)
        assert pool.checkout().worker is worker


# --- The model ----------------------------------------------------------------------


class Model:
    """Poolboy's QuickCheck model: all that is to be known follows from how many are out."""

    def __init__(self, seed: int, kind: str) -> None:
        self.random = random.Random(seed)
        self.size = self.random.randint(0, 4)
        self.overflow = self.random.randint(0 if self.size else 1, 4)
        self.cap = self.size + self.overflow
        self.pool = pool_of(self.size, self.overflow, kind)
        self.other = pool_of(1, 0)  # whose workers are foreign
        self.out: list[Holder] = []
        self.over: list[Holder] = []  # those whose lease is over

    def compare(self) -> None:
        """Assert that the pool is as the model says."""
        check(self.pool)
        out = len(self.out)
        state = "full" if out == self.cap else "overflow" if out >= self.size else "ready"
        assert self.pool.status() == gpool.Status(
            state, idle=max(0, self.size - out), overflow=max(0, out - self.size), busy=out
        )
        assert len(self.pool.holders()) == out
        assert {holder.pid for holder in self.pool.holders()} == {one.pid for one in self.out}
        assert len({id(one.thing) for one in self.out}) == out

    def step(self, clock: VirtualClock) -> None:
        """Do one command."""
        commands = [
            self.checkout_at_once, self.checkout, self.checkout, self.checkin, self.checkin,
            self.check_in_again, self.kill_held, self.kill_idle, self.kill_stranger,
            self.kill_client,
        ]  # fmt: skip
        self.random.choice(commands)(clock)
        settle()

    def _pick(self, holders: list[Holder]) -> Holder | None:
        return holders.pop(self.random.randrange(len(holders))) if holders else None

    def checkout_at_once(self, clock: VirtualClock) -> None:
        """It gets an idle worker or nothing: to start one is to wait, which poolboy does."""
        holder = Holder(self.pool, timeout=0)
        settle()
        assert (holder.thing is not None) == (len(self.out) < self.size)
        if holder.thing is None:
            assert isinstance(holder.error, gpool.CheckoutTimeout)
        else:
            self.out.append(holder)

    def checkout(self, clock: VirtualClock) -> None:
        """It may time out only if all are out, and must not otherwise."""
        holder = Holder(self.pool, timeout=0.1)
        clock.advance(0.1)
        assert (holder.thing is not None) == (len(self.out) < self.cap)
        if holder.thing is None:
            assert isinstance(holder.error, gpool.CheckoutTimeout)
        else:
            self.out.append(holder)

    def checkin(self, clock: VirtualClock) -> None:
        """One comes back."""
        holder = self._pick(self.out)
        if holder is not None:
            holder.let_go()
            self.over.append(holder)

    def check_in_again(self, clock: VirtualClock) -> None:
        """What is not out, or another pool's, changes nothing."""
        lease = self.other.checkout()
        with pytest.raises(ValueError, match="expected one of pool"):
            self.pool.checkin(lease)
        lease.checkin()
        lease.checkin()

    def kill_held(self, clock: VirtualClock) -> None:
        """A worker dies in somebody's hands: it is not out any more."""
        holder = self._pick(self.out)
        if holder is not None:
            kill(holder.thing)
            holder.let_go()

    def kill_idle(self, clock: VirtualClock) -> None:
        """An idle worker dies: nothing has changed."""
        if len(self.out) < self.size:
            lease = self.pool.checkout()
            worker = lease.worker
            lease.checkin()
            kill(worker)

    def kill_stranger(self, clock: VirtualClock) -> None:
        """A stranger dies that has linked itself to the manager: nothing has changed."""
        stranger = Client(self._link)
        settle()
        stranger.kill()

    def _link(self) -> None:
        gpool.link(manager(self.pool))
        gpool.receive()

    def kill_client(self, clock: VirtualClock) -> None:
        """A client dies: what it held is not out any more."""
        holder = self._pick(self.out)
        if holder is not None:
            holder.kill()


class TestModel:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("seed", range(15))
    def test_sequential_runs(self, clock: VirtualClock, seed: int, kind: str) -> None:
        """After every command all numbers are what follows from how many are out."""
        model = Model(seed, kind)
        model.compare()
        for _ in range(30):
            model.step(clock)
            model.compare()
        assert model.pool.stats().epoch == 1

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("seed", range(5))
    def test_parallel_runs(self, clock: VirtualClock, seed: int, kind: str) -> None:
        """Clients that run at once: whatever the order, in the end nothing is out."""
        model = Model(seed, kind)
        pool, dice = model.pool, model.random

        def client() -> None:
            for _ in range(10):
                with pool.checkout(timeout=None) as worker:
                    for _ in range(dice.randrange(3)):
                        gevent.sleep(0)
                    if dice.random() < 0.2:
                        gpool.exit(worker.pid, "kill")
                    elif dice.random() < 0.2:
                        gpool.exit(gpool.self(), "killed by itself")

        clients = [Client(client) for _ in range(2 * model.cap + 2)]
        for _ in range(20):
            clock.advance(SWEEP)
        assert all(one.done for one in clients)
        model.compare()
