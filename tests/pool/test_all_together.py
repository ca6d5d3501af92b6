"""Random lives of pools with every feature on: whatever was done, all is whole at the end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import gevent
import pytest

import gpool
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import (
    AtTurn,
    Client,
    Echo,
    Holder,
    Maker,
    assert_whole,
    check,
    pids,
    running,
)

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(autouse=True)
def no_script_is_left() -> Iterator[None]:
    """Let the servers of the next test start well."""
    yield
    Echo.starts.clear()


class Life:
    """One pool, its clients, and what befalls them."""

    def __init__(self, seed: int, clock: VirtualClock) -> None:
        self.dice = random.Random(seed)
        random.seed(seed)  # jitter
        self.clock = clock
        self.maker = Maker()
        self.gates: list[Gate] = []  # what hangs
        self.clients: list[Client] = []
        self.leases: list[Any] = []  # handed on
        self.cap = 0  # the highest yet
        self.is_well = False
        self.pool = self._pool()

    def _pool(self) -> gpool.Pool[Any]:
        dice, maker = self.dice, self.maker
        self.lends_servers = dice.random() < 0.3
        hooks: dict[str, Any] = {}
        if dice.random() < 0.4:
            hooks["reset"] = maker.reset
        if not self.lends_servers and dice.random() < 0.6:
            hooks["check"] = maker.check
        if dice.random() < 0.5:
            hooks["is_broken"] = lambda error, thing: isinstance(error, OSError | gevent.Timeout)
        size = dice.randint(1, 3)
        more = dice.randint(0, 2)
        self.cap = size + more
        return gpool.Pool(
            Echo if self.lends_servers else maker.resource(**hooks),
            size=size,
            max_overflow=more,
            overflow_ttl=dice.choice([None, 0, 2.0]),
            strategy=dice.choice(["lifo", "fifo"]),
            lazy=dice.random() < 0.4,
            min_ready=dice.choice([None, dice.randint(0, size)]),
            max_waiting=dice.choice([None, None, 3]),
            fail_fast=dice.random() < 0.2,
            max_hold=dice.choice([None, 4.0]),
            max_age=dice.choice([None, 10.0]),
            max_uses=dice.choice([None, 3]),
            idle_timeout=dice.choice([None, 3.0]),
            check_after=dice.choice([None, 0, 1.0]),
            keepalive=2.0 if "check" in hooks and dice.random() < 0.5 else None,
            max_starting=dice.choice([None, 1, 2]),
            max_start_failures=dice.choice([None, None, 4]),
            start_timeout=dice.choice([2.0, 30.0]),
            check_timeout=1.0,
            finish_timeout=dice.choice([None, 0, 1.0]),
            shutdown=dice.choice([None, 0, 1.0]),
            max_restarts=1000,
        )

    def step(self) -> None:
        """Have something happen."""
        dice, pool, maker = self.dice, self.pool, self.maker
        ledger: Any = pool._ledger
        match dice.randrange(24):
            case 0 | 1 | 2 | 3 | 4:
                timeout = dice.choice([0, 0.5, 5.0, None])
                self.clients.append(Client(self._use, timeout, dice.randrange(5)))
            case 5 if self.clients:
                dice.choice(self.clients).kill()
            case 6 if self.clients:
                dice.choice(self.clients).cut()
            case 7 if pids(pool).workers:
                gpool.exit(dice.choice(pids(pool).workers), dice.choice(["kill", "boom"]))
            case 8 if dice.random() < 0.4:
                who = pids(pool)[dice.randrange(3)]
                if who is not None:
                    gpool.exit(who, "kill")
            case 9:
                (Echo.starts if self.lends_servers else maker.creates).append(self._trouble())
            case 10:
                maker.checks.append(dice.choice([False, None, self._trouble()]))
            case 11:
                maker.closes.append(dice.choice([None, self._hang()]))
            case 12:
                maker.resets.append(self._trouble())
            case 13 | 14 | 15:
                self.clock.advance(dice.choice([0.1, 1.0, 3.0]))
            case 16 if dice.random() < 0.5:
                size, more = dice.randint(1, 3), dice.randint(0, 2)
                floor = ledger.options.min_ready or 0
                self.cap = max(self.cap, max(size, floor) + more)
                pool.resize(max(size, floor), more)
            case 17 if dice.random() < 0.5:
                pool.recycle(dice.choice([0.0, 3.0]))
            case 18 if dice.random() < 0.5:
                (pool.resume if ledger.suspended else pool.suspend)()
            case 19 if dice.random() < 0.4:
                pool.close(dice.choice(["serve", "fail"]))
            case 20:
                Client(pool.start, 1.0)
            case 21 if self.gates:
                self.gates.pop().open()
            case 22 if dice.random() < 0.3:
                Client(pool.drain, dice.choice([0.0, 2.0, None]))
            case 23 if self.leases:
                self.leases.pop(dice.randrange(len(self.leases))).checkin()
        if dice.random() < 0.6:
            gevent.sleep(0)
        else:
            settle()

    def _trouble(self) -> Any:
        return self.dice.choice([None, OSError("gone"), gevent.Timeout(), self._hang()])

    def _hang(self) -> Any:
        self.gates.append(Gate())
        return self.gates[-1].wait

    def _use(self, timeout: float | None, way: int) -> None:
        lease = self.pool.checkout(timeout=timeout)
        if self.lends_servers and not self.is_well and self.dice.random() < 0.4:
            ask = self.dice.choice([lease.worker.work, partial(lease.worker.say, 1)])
            self.gates.append(Gate())
            ask(self.gates[-1])
        match way:
            case 0:
                self.clock_wait(0.5)
                lease.checkin()
            case 1:
                with lease:
                    gevent.sleep(0)
                    raise self.dice.choice([OSError("bad"), ValueError("well")])
            case 2:
                self.leases.append(lease)  # kept by another one than its owner
                self.clock_wait(3.0)
            case 3:
                with lease, self.pool.checkout(timeout=timeout):
                    gevent.sleep(0)
            case 4:
                lease.transfer(self.dice.choice(self.clients).pid)
                self.clock_wait(1.0)
                lease.discard()

    def clock_wait(self, seconds: float) -> None:
        """Hold for a time."""
        gate = Gate()
        self.clock.call_later(seconds, gate.open)
        gate.wait()

    def heal(self) -> None:
        """Have all go well from now on, what hangs too."""
        self.is_well = True
        maker = self.maker
        for script in (maker.creates, maker.checks, maker.resets, maker.closes, Echo.starts):
            script.clear()
        for gate in self.gates:
            gate.open()

    def end(self) -> None:
        """Let everything be well again, and all clients go."""
        pool = self.pool
        self.heal()
        Client(pool.start, None)
        self.clock.advance(60.0)  # if it has failed it is revived
        pool.resume()
        self.clock.advance(120.0)


@pytest.mark.parametrize("seed", range(100))
def test_a_random_life(clock: VirtualClock, seed: int) -> None:
    """No slot, no waiter, no close is lost, and the cap holds at every step."""
    life = Life(seed, clock)
    life.pool.start()
    settle()
    for _ in range(80):
        life.step()
        checked(life)
    life.end()
    stuck = [client for client in life.clients if not client.done]
    assert not stuck, (life.pool.stats(), [client.pid for client in stuck])
    life.maker.peak = 0  # the cap may have been higher
    life.maker.open -= life.pool.stats().unclosed
    assert_whole(life.pool, None if life.lends_servers else life.maker)


@pytest.mark.parametrize("seed", range(1000, 1100))
def test_a_random_life_that_is_stopped(clock: VirtualClock, seed: int) -> None:
    """Whenever that is: it returns by its deadline, tells all who wait, and closes everything."""
    before = set(gpool.processes())  # a close that another test has left is not ours
    life = Life(seed, clock)
    life.pool.start()
    for _ in range(life.dice.randrange(60)):
        life.step()
    ledger: Any = life.pool._ledger
    tree, timeout = pids(life.pool), life.dice.choice([0.0, 0.5, 3.0])
    begun, ended = clock.now(), []

    def stop() -> None:
        life.pool.stop(timeout)
        ended.append(clock.now() - begun)

    stoppers = [Client(stop), Client(stop)]
    clock.advance(timeout)
    assert all(stopper.done for stopper in stoppers), (timeout, life.pool.stats())
    assert max(ended) <= timeout
    assert not ledger.queue.tickets()
    assert not any(map(gpool.is_alive, filter(None, tree[:3])))
    life.heal()
    life.leases.clear()
    clock.advance(30.0)
    assert all(client.done for client in life.clients)
    assert (life.maker.open - ledger.staff.unclosed, life.maker.faults) == (0, [])
    assert not ledger.slots
    assert clock.next_due() is None
    ours = set(gpool.processes()) - before
    names = [gpool.process_info(pid).initial_call for pid in ours]
    assert not {"PoolSup", "PoolMan", "WorkerSup", "ResourceOwner", "close"} & set(names)


def checked(life: Life) -> None:
    """Look for harm."""
    ledger: Any = life.pool._ledger
    if len(ledger.slots) <= ledger.options.cap:
        check(life.pool)
    assert life.maker.faults == []
    assert life.maker.open - ledger.staff.unclosed <= life.cap


# --- A kill at every turn of the loop, while one feature is at work -------------------


def stale(pool: gpool.Pool[Any], maker: Maker, clock: VirtualClock) -> None:
    """A dead generation is found by three clients."""
    clock.advance(5.0)
    maker.checks.extend([OSError("gone"), gevent.Timeout()])
    for _ in range(3):
        Holder(pool).let_go()


def kept_alive(pool: gpool.Pool[Any], maker: Maker, clock: VirtualClock) -> None:
    """Keepalives, one of which finds a dead one."""
    maker.checks.extend([None, False])
    clock.advance(10.0)


def recycled(pool: gpool.Pool[Any], maker: Maker, clock: VirtualClock) -> None:
    """All are replaced, one of them held, one waited for."""
    holder = Holder(pool)
    pool.recycle()
    waiter = Holder(pool, timeout=None)
    holder.let_go()
    waiter.let_go()


def resized(pool: gpool.Pool[Any], maker: Maker, clock: VirtualClock) -> None:
    """Down below what is busy, and up again, with a waiter."""
    holders = [Holder(pool, timeout=None) for _ in range(3)]
    pool.resize(1, 0)
    waiter = Holder(pool, timeout=None)
    for holder in holders:
        holder.let_go()
    pool.resize(2, 1)
    waiter.let_go()


def held_up(pool: gpool.Pool[Any], maker: Maker, clock: VirtualClock) -> None:
    """Suspended, and resumed with two who wait."""
    pool.suspend()
    waiters = [Holder(pool, timeout=None) for _ in range(2)]
    pool.resume()
    settle()
    for waiter in waiters:
        waiter.let_go()


def reopened(pool: gpool.Pool[Any], maker: Maker, clock: VirtualClock) -> None:
    """Closed and drained, then opened again."""
    holder, waiter = Holder(pool, timeout=None), Holder(pool, timeout=None)
    Client(pool.drain, None)
    settle()
    holder.let_go()
    waiter.let_go()
    Client(pool.start)
    settle()


def failing(pool: gpool.Pool[Any], maker: Maker, clock: VirtualClock) -> None:
    """Starts fail, with a client that waits for one."""
    maker.creates.extend([OSError("down")] * 2)
    leases = [Holder(pool, timeout=None) for _ in range(2)]
    for holder in leases:
        holder.kill()
    settle()
    Holder(pool, timeout=None).let_go()
    clock.advance(1.0)


SCENES = [stale, kept_alive, recycled, resized, held_up, reopened, failing]


def kill(pid: gpool.Pid) -> None:
    """Have a process killed, as a process does it."""
    gpool.exit(pid, "kill")


def cut(pid: gpool.Pid) -> None:
    """Throw a gevent.Timeout into a process, as foreign code does it."""
    gevent.get_hub().loop.run_callback(_cut, pid)


def _cut(pid: gpool.Pid) -> None:
    greenlet = pid.runner()
    if greenlet is not None and not greenlet.dead:
        greenlet.throw(gevent.Timeout())


@pytest.mark.parametrize("strike", [kill, cut])
@pytest.mark.parametrize("victim", ["man", "worker_sup", "sup", "worker"])
@pytest.mark.parametrize("scene", SCENES)
def test_a_strike_at_every_turn(clock: VirtualClock, scene: Any, victim: str, strike: Any) -> None:
    """All is whole again by itself, whatever was at work."""
    for turn in range(1, 400):
        maker = Maker()
        pool = running(
            maker.resource(check=maker.check),
            size=2, max_overflow=1, keepalive=8.0, max_restarts=1000, shutdown=1.0,
        )  # fmt: skip
        tree = pids(pool)
        target = tree.workers[0] if victim == "worker" else getattr(tree, victim)
        with AtTurn(turn, partial(strike, target)) as moment:
            scene(pool, maker, clock)
        settle()
        maker.creates.clear()
        maker.checks.clear()
        clock.advance(40.0)
        assert maker.open - pool.stats().unclosed <= 3, turn
        assert_whole(pool, maker)
        pool.stop()
        if not moment.done:
            assert turn > 5
            return
    pytest.fail("the scene never ends")
