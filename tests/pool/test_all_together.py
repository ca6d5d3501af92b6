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
from tests.pool.workshop import Client, Echo, Maker, assert_whole, check, pids

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
    assert not ledger.tickets
    assert not any(map(gpool.is_alive, filter(None, tree[:3])))
    life.heal()
    life.leases.clear()
    clock.advance(30.0)
    assert all(client.done for client in life.clients)
    assert (life.maker.open - ledger.unclosed, life.maker.faults) == (0, [])
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
    assert life.maker.open - ledger.unclosed <= life.cap
