"""Twenty-eight pains of those who use other pools, each as a promise that is kept.

What hurt, in issues and pull requests of many pools, is in each test's docstring.
"""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import random
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.errors import WrongHub
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.interpreter import script
from tests.pool.workshop import (
    AtTurn,
    Client,
    Echo,
    Events,
    Holder,
    Maker,
    Thing,
    assert_whole,
    check,
    fall,
    no_switch,
    pause,
    pids,
    running,
    takes,
    use,
)

KINDS = ["resource", "server"]


class Boom(BaseException):
    """What nobody catches."""


def lent(maker: Maker, kind: str) -> Any:
    """Return what a pool of that kind lends."""
    return Echo if kind == "server" else maker.resource()


def strike(client: Client, how: str) -> None:
    """Cut a client short."""
    greenlet: Any = client.pid.greenlet
    if client.done or greenlet is None:
        return
    match how:
        case "kill":
            client.kill()
        case "cut":
            client.cut()
        case "foreign":
            gevent.get_hub().loop.run_callback(greenlet.throw, gevent.GreenletExit())
        case "boom":
            gevent.get_hub().loop.run_callback(greenlet.throw, Boom())


# --- 1 to 5: those who wait, and those who come back ----------------------------------


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["kill", "cut", "foreign", "boom"])
def test_01_a_waiter_cut_short_at_any_turn(
    clock: VirtualClock, maker: Maker, kind: str, how: str
) -> None:
    """A waiter cut short leaked its slot: before, at or after the hand-over, none is lost."""
    for turn in itertools.count(1):
        pool = running(lent(maker, kind), size=1)
        holder, waiter = Holder(pool), Holder(pool)
        with AtTurn(turn, functools.partial(strike, waiter, how)) as at:
            settle()
            holder.let_go()
            waiter.let_go()
        if not at.done:
            break
        settle()
        stats = pool.stats()
        assert (stats.busy, stats.waiting, stats.idle) == (0, 0, 1), turn
        pool.checkout(timeout=0).checkin()
        check(pool)
        pool.stop()
    assert turn > 3
    assert maker.faults == []


class Plain(Holder):
    """A holder that is a greenlet as gevent makes them, no process of gpool's."""

    def __init__(self, pool: gpool.Pool[Any]) -> None:
        self.pool, self.timeout, self.thing, self.gate = pool, 5.0, None, Gate()
        self.done, self.error = False, None
        self.greenlet = gevent.spawn(self._run, self._hold, (), {})
        settle()

    def kill(self) -> None:
        """Have it killed."""
        self.greenlet.kill(block=False)

    def cut(self) -> gevent.Timeout:
        """Have a gevent.Timeout fire in it."""
        timeout = gevent.Timeout()
        gevent.get_hub().loop.run_callback(self.greenlet.throw, timeout)
        return timeout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["kill", "cut"])
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_01_a_plain_greenlet_cut_short_at_any_turn(
    clock: VirtualClock, maker: Maker, kind: str, how: str, victim: int
) -> None:
    """The same for what gevent.spawn starts, whether it holds, waits or is next."""
    for turn in itertools.count(1):
        pool = running(lent(maker, kind), size=1)
        clients = [Plain(pool), Plain(pool), Plain(pool)]
        with AtTurn(turn, getattr(clients[victim], how)) as at:
            settle()
            for client in clients:
                client.let_go()
        settle()
        stats = pool.stats()
        assert (stats.busy, stats.waiting, stats.idle) == (0, 0, 1), turn
        for number, client in enumerate(clients):
            assert client.done
            assert number == victim or client.thing is not None
        check(pool)
        pool.stop()
        if not at.done:
            break
    assert maker.faults == []


@pytest.mark.parametrize("hook", ["reset", "close"])
def test_02_a_kill_or_a_timeout_during_the_checkin(
    clock: VirtualClock, maker: Maker, hook: str
) -> None:
    """A release cut short lost the resource: the accounts are settled before anything blocks."""
    gate = Gate()
    (maker.resets if hook == "reset" else maker.closes).append(gate.wait)
    pool = running(maker.resource(reset=maker.reset), size=1)
    after = Gate()

    def client() -> None:
        lease = pool.checkout()
        lease.checkin() if hook == "reset" else lease.discard()
        after.wait()

    one = Client(client)
    settle()
    assert (pool.stats().busy, pool.stats().accounted) == (0, 1)
    one.kill()
    one.cut()
    one.kill()
    settle()
    assert one.done
    assert (pool.stats().busy, pool.stats().accounted) == (0, 1)
    gate.open()
    settle()
    assert maker.made[0].closed == (hook == "close")
    assert maker.made[0].resets == (hook == "reset")
    assert_whole(pool, maker)


@pytest.mark.usefixtures("quiet")
def test_02_ten_thousand_random_kills(clock: VirtualClock, maker: Maker) -> None:
    """The counters balance after all of them."""
    dice, seed = random.Random(), random.randrange(10**6)
    dice.seed(seed)
    pool = running(maker.resource(reset=maker.reset), size=4)

    def session() -> None:
        while True:
            with pool.checkout() as thing, thing.used():
                gevent.sleep(0)

    clients = deque(Client(session) for _ in range(8))
    for number in range(10_000):
        clients.rotate(dice.randrange(8))
        strike(clients.popleft(), dice.choice(["kill", "cut", "foreign"]))
        clients.append(Client(session))
        if number % dice.randrange(1, 9) == 0:
            gevent.sleep(0)
    for client in clients:
        client.kill()
    settle()
    stats = pool.stats()
    assert (stats.busy, stats.waiting, stats.accounted, stats.epoch) == (0, 0, 4, 1), seed
    assert maker.open == 4
    assert_whole(pool, maker)


class Wire:
    """A connection to an echo server: replies come in the order of the requests."""

    def __init__(self) -> None:
        self.unread: deque[str] = deque()
        self.closed = False

    def send(self, request: str) -> None:
        """Send; the reply is under way."""
        self.unread.append(request)

    def receive(self) -> str:
        """Wait for the reply."""
        gevent.sleep(0)
        return self.unread.popleft()


def end_it(wire: Wire) -> None:
    """Close a wire."""
    wire.closed = True


@pytest.mark.parametrize("reset", [None, lambda wire: None], ids=["plain", "reset"])
@pytest.mark.parametrize("how", ["kill", "cut", "foreign"])
def test_03_interrupted_between_send_and_receive(clock: VirtualClock, how: str, reset: Any) -> None:
    """The next client read the last one's reply: such a connection is never handed on."""
    pool = running(gpool.Resource(create=Wire, close=end_it, reset=reset), size=1)
    mine: list[Wire] = []

    def client() -> None:
        with pool.checkout() as wire:
            mine.append(wire)
            wire.send("mine")
            pause(60.0)
            wire.receive()

    one = Client(client)
    settle()
    strike(one, how)
    settle()
    with pool.checkout() as wire:
        wire.send("yours")
        assert wire.receive() == "yours"
    assert mine[0].closed


@pytest.mark.parametrize("how", ["kill", "foreign"])
@pytest.mark.parametrize("end", ["goes on", "raises"])
def test_03_by_a_driver_that_swallows_it(clock: VirtualClock, how: str, end: str) -> None:
    """A driver that catches GreenletExit hides it: what is dirty is asked, or the death counts."""
    pool = running(
        gpool.Resource(
            create=Wire, close=end_it, reset=lambda wire: None,
            is_dirty=lambda wire: bool(wire.unread),
        ),
        size=1,
    )  # fmt: skip
    mine: list[Wire] = []

    def client() -> None:
        with pool.checkout() as wire:
            mine.append(wire)
            wire.send("mine")
            try:
                pause(60.0)
                wire.receive()
            except gevent.GreenletExit:
                if end == "raises":
                    raise OSError("connection reset") from None

    one = Client(client)
    settle()
    strike(one, how)
    settle()
    assert one.done
    with pool.checkout() as wire:
        wire.send("yours")
        assert wire.receive() == "yours"
    assert mine[0].closed


@pytest.mark.parametrize("reset", [None, lambda wire: None], ids=["plain", "reset"])
@pytest.mark.parametrize("end", ["goes on", "raises"])
def test_03_killed_and_nothing_shows_it(clock: VirtualClock, end: str, reset: Any) -> None:
    """Without `is_dirty`: a client that was told to exit leaves its resource dirty all the same."""
    pool = running(gpool.Resource(create=Wire, close=end_it, reset=reset), size=1)
    mine: list[Wire] = []

    def client() -> None:
        with pool.checkout() as wire:
            mine.append(wire)
            wire.send("mine")
            try:
                gpool.receive()
            except gevent.GreenletExit:
                if end == "raises":
                    raise OSError("connection reset") from None

    one = Client(client)
    settle()
    one.kill()
    settle()
    assert one.done
    assert mine[0].closed


@pytest.mark.parametrize("how", ["kill", "cut", "foreign"])
@pytest.mark.parametrize("first", ["strike", "return"])
@pytest.mark.parametrize("kind", KINDS)
def test_04_the_oldest_waiter_dies_in_the_turn_of_the_return(
    clock: VirtualClock, maker: Maker, kind: str, first: str, how: str
) -> None:
    """The wake-up was lost with it: the next one is served in that turn or the next."""
    pool = running(lent(maker, kind), size=1)
    lease = pool.checkout()
    oldest, second = Holder(pool), Holder(pool)
    steps: list[Callable[[], object]] = [lambda: strike(oldest, how), lease.checkin]
    for step in steps if first == "strike" else reversed(steps):
        step()
    gevent.sleep(0)
    gevent.sleep(0)
    assert oldest.done
    if oldest.thing is not None and kind == "resource":  # it had it by then: that one is dirty
        settle()
        assert second.thing is maker.made[1]
    assert second.thing is not None
    second.let_go()
    assert_whole(pool)


def test_05_a_hot_loop_does_not_starve_those_who_wait(clock: VirtualClock, maker: Maker) -> None:
    """Whoever never yields between release and acquire got it again and again: it queues."""
    pool = running(maker.resource(), size=1)
    begun, served = clock.now(), []

    def work(name: str, times: int) -> None:
        for _ in range(times):
            with pool.checkout(timeout=None):
                served.append((name, clock.now() - begun))
                pause(1.0)

    for name, times in [("hot", 3), ("a", 1), ("b", 1), ("c", 1)]:
        Client(work, name, times)
    clock.advance(10.0)
    assert served == [("hot", 0), ("a", 1), ("b", 2), ("c", 3), ("hot", 4), ("hot", 5)]


# --- 6 to 10: limits and outages ------------------------------------------------------


@pytest.mark.parametrize("dies", [False, True])
def test_06_a_cold_start_keeps_the_cap(clock: VirtualClock, maker: Maker, dies: bool) -> None:
    """Two hundred cold callers opened two hundred: those that are closing count, too."""
    maker.creates.extend([takes(0.05)] * 1000)
    maker.closes.extend([takes(0.05)] * 1000)
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=4)

    def client() -> None:
        with pool.checkout(timeout=None) as thing, thing.used():
            pause(0.01)
            if dies:
                raise ValueError("its thing is discarded")

    clients = [Client(client) for _ in range(200)]
    clock.advance(10.0)
    assert all(client.done for client in clients)
    assert {type(client.error) for client in clients} == {ValueError if dies else type(None)}
    assert (maker.peak, len(maker.made) > 4, maker.faults) == (4, dies, [])


def exhausted(maker: Maker) -> gpool.Pool[Any]:
    """All is lent."""
    pool = running(maker.resource(), size=1, timeout=None)
    Holder(pool)
    return pool


def connecting(maker: Maker) -> gpool.Pool[Any]:
    """The connect hangs."""
    maker.creates.append(Gate().wait)
    return gpool.Pool(maker.resource(), size=1)


def checking(maker: Maker) -> gpool.Pool[Any]:
    """The checks hang, each up to its own limit, then the connects."""
    maker.checks.extend([Gate().wait] * 99)
    pool = running(
        maker.resource(check=maker.check), size=3, check_after=0, check_timeout=0.7,
    )  # fmt: skip
    maker.creates.extend([Gate().wait] * 99)
    return pool


def retrying(maker: Maker) -> gpool.Pool[Any]:
    """The starts fail, slowly."""
    maker.creates.extend([takes(0.3, OSError("down"))] * 99)
    return gpool.Pool(maker.resource(), size=1)


def resetting(maker: Maker) -> gpool.Pool[Any]:
    """The reset of the only one hangs."""
    maker.resets.append(Gate().wait)
    pool = running(maker.resource(reset=maker.reset), size=1, finish_timeout=None)
    use(pool)
    return pool


def suspended(maker: Maker) -> gpool.Pool[Any]:
    """Nothing is lent."""
    pool = running(maker.resource(), size=1)
    pool.suspend()
    return pool


def falling(maker: Maker) -> gpool.Pool[Any]:
    """Its manager dies on and on."""
    pool = exhausted(maker)
    fall(pool)
    return pool


@pytest.mark.parametrize(
    "state", [exhausted, connecting, checking, retrying, resetting, suspended, falling]
)
def test_07_nobody_waits_longer_than_asked(
    clock: VirtualClock, maker: Maker, state: Callable[[Maker], gpool.Pool[Any]]
) -> None:
    """A timeout left out the lock, the connect, the check or the retries: it is for all of it."""
    pool = state(maker)
    begun, ended = clock.now(), []

    def client() -> None:
        try:
            pool.checkout(timeout=2.0)
        finally:
            ended.append(clock.now() - begun)

    one = Client(client)
    clock.advance(1.99)
    assert ended == []
    clock.advance(60.0)
    assert isinstance(one.error, gpool.CheckoutTimeout)
    assert ended == [pytest.approx(2.0)]


def test_07_by_default(clock: VirtualClock, maker: Maker) -> None:
    """Nobody waits for ever who has not asked for it."""
    pool = running(maker.resource(), size=1)
    Holder(pool)
    waiter = Client(pool.checkout)
    clock.advance(5.0)
    assert isinstance(waiter.error, gpool.CheckoutTimeout)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["returns", "crashes", "is killed", "is cut"])
def test_08_an_owner_that_is_gone(
    clock: VirtualClock, maker: Maker, caplog: pytest.LogCaptureFixture, kind: str, end: str
) -> None:
    """Without `try` and `finally` it was never returned: the death returns it, and is told."""
    pool = running(lent(maker, kind), size=1)
    lease: list[Any] = []
    gate = Gate()

    def owner() -> None:
        lease.append(pool.checkout())
        gate.wait()
        if end == "crashes":
            raise ValueError("crashed")

    one = Client(owner)
    settle()
    waiter = Holder(pool)
    match end:
        case "is killed":
            one.kill()
        case "is cut":
            one.cut()
        case _:
            gate.open()
    settle()
    assert waiter.thing is not None
    assert pool.stats().reclaimed == 1
    if kind == "resource":
        assert maker.made[0].closed
        assert waiter.thing is maker.made[1]
    [said] = [r.getMessage() for r in caplog.records if "reclaimed" in r.getMessage()]
    assert "test_pains.py" in said
    assert "owner" in said


def test_09_a_live_owner_is_never_reaped(
    clock: VirtualClock, maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    """A leak detector closed what was in use: it warns, once, and tells if it comes back."""
    pool = running(maker.resource(), size=1, max_hold=10.0, max_age=60.0)
    holder = Holder(pool)
    clock.advance(3600.0)
    assert (maker.made[0].closed, pool.stats().overheld) == (False, 1)
    holder.let_go()
    assert maker.made[0].closed  # its age, now that nobody uses it
    said = [r.getMessage() for r in caplog.records]
    assert len([words for words in said if "has held" in words]) == 1
    assert len([words for words in said if "returned" in words]) == 1
    assert_whole(pool, maker)


@pytest.mark.parametrize("outage", ["refuses", "hangs", "both"])
def test_10_after_an_outage(clock: VirtualClock, maker: Maker, outage: str) -> None:
    """Pools stayed stuck: all who still wait are served within one backoff, and it is whole."""
    pool = running(maker.resource(), size=4, start_timeout=2.0, max_age=100.0)
    maker.creates.extend(
        {
            "refuses": [OSError("refused")] * 999,
            "hangs": [Gate().wait] * 999,
            "both": [OSError("refused"), Gate().wait] * 500,
        }[outage]
    )
    for _ in range(4):
        pool.checkout().discard()
    waiters = [Holder(pool, timeout=None) for _ in range(9)]
    brief = [Holder(pool, timeout=60.0) for _ in range(3)]
    clock.advance(600.0)
    assert all(isinstance(client.error, gpool.CheckoutTimeout) for client in brief)
    maker.creates.clear()
    clock.advance(5.0 + 2.0)  # the longest backoff, and one connect that still hangs
    for waiter in waiters:
        assert waiter.thing is not None
        waiter.let_go()
    assert pool.stats().accounted == 4
    assert_whole(pool, maker)


# --- 11 to 15: upkeep -----------------------------------------------------------------


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("who", ["man", "worker_sup"])
@pytest.mark.parametrize("how", ["kill", "boom", "foreign"])
def test_11_maintenance_that_dies(clock: VirtualClock, maker: Maker, who: str, how: str) -> None:
    """Workers of a pool exited, and it stayed "open": its supervisor starts them again."""
    pool = running(maker.resource(), size=2)
    holders = [Holder(pool), Holder(pool)]
    clock.advance(1.0)
    waiters = [Holder(pool, timeout=5.0) for _ in range(3)]
    victim = getattr(pids(pool), who)
    if how == "kill":
        gpool.exit(victim, "kill")
    else:
        error: BaseException = Boom() if how == "boom" else gevent.GreenletExit()
        gevent.get_hub().loop.run_callback(victim.greenlet.throw, error)
    settle()
    assert (pool.stats().epoch, pool.healthy()) == (2, True)
    assert not any(waiter.done or waiter.thing for waiter in waiters)
    for number, holder in enumerate([*holders, *waiters]):
        served = [waiter.thing is not None for waiter in waiters]
        assert served == [place < number for place in range(3)]  # in their old order
        holder.let_go()
    late = [Holder(pool), Holder(pool), Holder(pool, timeout=5.0)]
    clock.advance(5.0)
    assert isinstance(late[2].error, gpool.CheckoutTimeout)
    for one in late[:2]:
        one.let_go()
    assert_whole(pool, maker)


@pytest.mark.parametrize("what", ["connector", "resetter", "closer"])
@pytest.mark.parametrize("how", ["kill", "boom", "foreign"])
@pytest.mark.usefixtures("quiet")
def test_11_a_helper_that_dies(clock: VirtualClock, maker: Maker, what: str, how: str) -> None:
    """Whoever connects, resets or closes: somebody else goes on where it was."""
    script = {"connector": maker.creates, "resetter": maker.resets, "closer": maker.closes}[what]
    pool = running(maker.resource(reset=maker.reset), size=1)
    gate = Gate()
    script.append(gate.wait)
    lease = pool.checkout()
    lease.checkin() if what == "resetter" else lease.discard()
    settle()
    waiter = Holder(pool)
    assert waiter.thing is None
    [victim] = pids(pool).workers
    if how == "kill":
        gpool.exit(victim, "kill")
    else:
        error: BaseException = Boom() if how == "boom" else gevent.GreenletExit()
        gevent.get_hub().loop.run_callback(victim.greenlet.throw, error)
    clock.advance(1.0)
    assert waiter.thing is not None
    waiter.let_go()
    assert_whole(pool, maker)


@pytest.mark.usefixtures("quiet")
def test_11_too_often(clock: VirtualClock, maker: Maker) -> None:
    """Then those who wait are told at once, and the pool says "failed"."""
    pool = running(maker.resource(), size=1, max_restarts=2, max_seconds=60.0)
    holder, waiter = Holder(pool), Holder(pool, timeout=None)
    for _ in range(3):
        assert not waiter.done
        fall(pool)
    assert isinstance(waiter.error, gpool.PoolFailed)
    assert pool.status().state == "failed"
    holder.let_go()
    clock.advance(30.0)
    assert_whole(pool, maker)


def test_12_all_are_stale(clock: VirtualClock, maker: Maker) -> None:
    """Twenty stale ones were checked one by one: one check, one connect, and the rest goes."""
    pool = running(maker.resource(check=maker.check), size=20)
    clock.advance(60.0)
    maker.checks.extend([takes(0.1, False)] * 20)
    maker.creates.extend([takes(0.2)] * 20)
    begun, served = clock.now(), []

    def client() -> None:
        with pool.checkout() as thing:
            served.append((clock.now() - begun, thing.number))

    Client(client)
    clock.advance(0.31)
    assert served == [(pytest.approx(0.3), 21)]
    assert len(maker.checked) == 1
    clock.advance(10.0)
    assert all(thing.closed for thing in maker.made[:20])
    maker.checks.clear()
    assert_whole(pool, maker)


@pytest.mark.parametrize("held", [0, 4])
def test_13_a_failover_that_looks_healthy(clock: VirtualClock, maker: Maker, held: int) -> None:
    """Each connection to the read-only server failed once: one failure tells of all."""

    class ReadOnly(Exception):
        pass

    def is_broken(error: BaseException, thing: Thing) -> bool:
        return isinstance(error, ReadOnly)

    pool = running(maker.resource(reset=maker.reset, is_broken=is_broken), size=10)
    old, failures = set(maker.made), 0
    holders = [Holder(pool) for _ in range(held)]

    def write() -> None:
        nonlocal failures
        with pool.checkout() as thing:
            if thing in old:
                failures += 1
                raise ReadOnly

    for _ in range(30):
        Client(write)
        settle()
    assert failures == 1
    for holder in holders:
        holder.let_go()
    assert all(thing.closed for thing in old)
    assert_whole(pool, maker)


def test_14_a_lifetime_is_kept_while_idle(clock: VirtualClock, maker: Maker) -> None:
    """The old one was lent once more, and closed at its return: nobody gets it."""
    pool = running(maker.resource(), size=1, max_age=1.0)
    clock.advance(2.0)
    assert maker.made[0].closed
    assert use(pool).number > 1
    assert maker.faults == []


def test_14_by_an_age_that_has_just_passed(clock: VirtualClock, maker: Maker) -> None:
    """Not even if its timer is late: the hub was busy."""
    pool = running(maker.resource(), size=1, max_age=1.0)
    clock._now += 2.0
    assert use(pool) is maker.made[1]


def test_15_no_thundering_herd(clock: VirtualClock, maker: Maker) -> None:
    """Fifty that were born together died together: their deaths are spread, so are the births."""
    starting = peak = 0

    def create() -> Thing:
        nonlocal starting, peak
        starting += 1
        peak = max(peak, starting)
        pause(0.01)
        starting -= 1
        return maker.create()

    pool = running(
        gpool.Resource(create=create, close=maker.close), size=50, max_age=1000.0, max_starting=5
    )
    clock.advance(1.0)
    assert (pool.stats().idle, peak) == (50, 5)
    deaths = []
    with Events() as events:
        for second in range(1000):
            clock.advance(1.0)
            died = len(events.of(telemetry.WorkerStopping))
            deaths += [second] * (died - len(deaths))
    assert len(deaths) == 50
    assert min(deaths) >= 895
    assert max(deaths.count(second) for second in deaths) <= 8  # 2.5 in 5 s; by chance 8 at once
    assert len(set(deaths)) > 20
    assert peak == 5


def test_15_backoff_with_full_jitter(clock: VirtualClock, maker: Maker) -> None:
    """Many pools whose database is away do not come back in step."""
    maker.creates.extend([OSError("down")] * 9999)
    with Events() as events:
        for _ in range(40):
            gpool.Pool(maker.resource(), size=1).start()
        clock.advance(60.0)
    delays = [event.delay for event in events.of(telemetry.WorkerStartFailed)]
    late = [delay for delay in delays if delay > 1.0]
    assert max(delays) <= 5.0
    assert len({round(delay, 1) for delay in late}) > 20
    assert any(delay < 0.5 for delay in delays[-300:])


# --- 16 to 19: the interpreter --------------------------------------------------------

WIRED = """
import socket
from gevent import monkey
# The patched ones would let the parent's greenlets run, and speak.
select = monkey.get_original("select", "select")
waitpid = monkey.get_original("os", "waitpid")

class Connection:
    made = []  # our ends, and those of the server
    waits = False
    def __init__(self):
        self.ours, theirs = socket.socketpair()
        Connection.made.append((self, theirs))
        if Connection.waits:
            gevent.sleep(3600)
    def say(self, what):
        self.ours.send(what)
    def close(self):
        self.say(b"bye")
        self.ours.shutdown(socket.SHUT_RDWR)
        self.ours.close()
    def reset(self):
        self.say(b"rollback")
    def check(self):
        self.say(b"ping")
    def __del__(self):
        self.say(b"bye")  # as libpq does

def heard(which=None):
    pairs = Connection.made[:which]
    ready = select([theirs for _, theirs in pairs], [], [], 0)[0]
    return [theirs.recv(99) for theirs in ready]

wired = gpool.Resource(
    create=Connection, close=Connection.close, reset=Connection.reset, check=Connection.check
)
pool = gpool.Pool(wired, size=4, max_overflow=1, keepalive=0.6, max_hold=0.7,
                  max_age=1.0, check_after=None, name="db").start()
pool.wait_ready()
rest = gpool.Pool(wired, size=2, keepalive=0.6, max_age=1.0, idle_timeout=0.9).start()
rest.wait_ready()  # its two are idle
Connection.waits = True
held = [pool.checkout() for _ in range(4)]
def wait():
    try:
        pool.checkout(timeout=0.9)
    except gpool.CheckoutTimeout:
        pass
waiters = [gevent.spawn(wait) for _ in range(3)]  # one more starts
gevent.sleep(0)
while pool.stats().starting != 1 or pool.stats().waiting != 3:
    gevent.sleep(0)
held.pop().checkin()  # a reset, for a waiter
held[-1].resource.say(b"select")
heard()
before = len(Connection.made)
"""

FORKS = """
def idle():
    gevent.sleep(0.03)

def use():
    Connection.waits = False
    with pool.checkout(timeout=2.0) as own:
        assert own not in [ours for ours, _ in Connection.made[:before]]
        own.say(b"select")
        gevent.sleep(0.05)
    with rest.checkout(timeout=2.0) as own:
        assert own not in [ours for ours, _ in Connection.made[:before]]
    assert pool.stats().epoch == 1
    pool.stop()

def give_back():
    assert all(lease.lost for lease in held)
    held[0].checkin(); held[1].discard(); held[2].__exit__(None, None, None)
    pool.stop(); pool.resize(1); pool.recycle(); pool.close()
    rest.stop()
    gevent.sleep(0.03)

def collect():
    global held, waiters, pool, rest
    del held, waiters, pool, rest
    gc.collect()
    gevent.sleep(0.03)
    gc.collect()

def unwind():  # the blocks that were entered before the fork
    for lease, error in zip(held, (None, KeyError("x"), gevent.Timeout())):
        lease.__exit__(error and type(error), error, None)
    gevent.sleep(0.03)

# Nothing of the parent's runs meanwhile: in the children all its timers are overdue.
monkey.get_original("time", "sleep")(1.1)
for deed in (idle, use, give_back, collect, unwind):
    for end in (os._exit, sys.exit, lambda status: os.kill(os.getpid(), signal.SIGKILL)):
        pid = os.fork()
        if pid == 0:
            deed()
            end(0)
        status = waitpid(pid, 0)[1]
        said = heard(before)
        if status not in (0, signal.SIGKILL) or said:
            print(deed, end, status, said)
stats = pool.stats()
print(stats.busy, stats.waiting, stats.starting, stats.resetting, rest.stats().idle)
os._exit(0)
"""


@pytest.mark.parametrize("patched", [False, True])
def test_16_a_fork_under_load(patched: bool) -> None:
    """The child said goodbye on its parent's connections: no byte and no end comes from it.

    With what is held, idle, starting, being reset and waited for at that moment; whether the
    child does nothing, uses the pool, gives back what it inherited, or collects garbage;
    and whether it ends by ``_exit``, as an interpreter ends, or is killed.
    """
    assert script(WIRED + FORKS, patched=patched) == ["3 3 1 1 2"]


@pytest.mark.parametrize("patched", [False, True])
def test_16_the_parent_goes_on(patched: bool) -> None:
    """It notices nothing: those who wait are served, what is held comes back."""
    assert script(
        WIRED
        + """
Connection.waits = False
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        gevent.sleep(0.01)
        os._exit(0)
    assert waitpid(pid, 0)[1] == 0
more = [gevent.spawn(pool.checkout, timeout=2.0) for _ in range(2)]
for lease in held:
    lease.checkin()
gevent.joinall([*waiters, *more])
gevent.sleep(0.01)
print([type(g.value).__name__ for g in more], pool.stats().epoch, pool.stats().busy)
pool.stop()
print(pool.status().state)
os._exit(0)
""",
        patched=patched,
    ) == ["['Lease', 'Lease'] 1 0", "stopped"]


@pytest.mark.parametrize("debug", [False, True])
def test_16_what_the_child_sees(debug: bool) -> None:
    """Nothing of its parent's: neither by looking at the pool, nor by a lease that it inherits."""
    assert script(
        f"pool = gpool.Pool(things, size=2, name='db', debug={debug}).start()\n"
        """
with pool.checkout() as thing:
    lease = pool.checkout()
    job = pool.cast(lambda thing: print("never in the child"))

    def child():
        print(pool, pool.status().busy, pool.stats().phase, pool.holders(), pool.healthy())
        for use in (lambda: lease.resource, lambda: lease.__enter__(),
                    lambda: lease.transfer(gpool.self())):
            try:
                print(use())
            except gpool.LeaseLost:
                print("lost")
        lease.checkin()
        lease.discard()
        pool.checkin(lease)
        print(pool.drain(), pool.stop(), pool.status().busy)

    if os.fork() == 0:
        child()
        with pool.checkout() as own:
            print(own is not thing, pool.status().busy)
        pool.stop()
    else:
        os.wait()
print("out of the block")
os._exit(0)
"""
    ) == [
        "<Pool 'db': stopped> 0 stopped [] False", "lost", "lost", "lost", "True None 0",
        "True 1", "closed by child", "closed by child", "out of the block", "out of the block",
    ]  # fmt: skip


LATE = """
import sys, threading
import gpool
pool = gpool.Pool(gpool.Resource(create=list), size=2, timeout=2.0)
named = gpool.Pool(gpool.Resource(create=list), size=1, max_age=5.0, name="named")
import gevent, gc
import greenlet
from gevent import _hub_local
print(_hub_local.get_hub_if_exists(), threading.active_count(),
      [g for g in gc.get_objects() if isinstance(g, gevent.Greenlet)])
"""


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()\n"])
def test_17_a_pool_made_at_import_before_the_patch(patch: str) -> None:
    """A lock or a hub of before the patch broke it later: there is none before the first use."""
    program = LATE + patch + (
        "with pool.checkout() as things: things.append(1)\n"
        "with named.checkout() as things: pass\n"
        "print([g.get() for g in [gevent.spawn(pool.transaction, len) for _ in range(3)]])\n"
        "pool.stop(); named.stop(); print(pool.status().state)\n"
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "None 1 []"
    assert done.stdout.splitlines()[2:] == ["stopped"]


def test_17_patched_while_it_runs() -> None:
    """Used before and after, with a client that waits meanwhile."""
    assert script(
        """
        pool = gpool.Pool(things, size=1).start()
        held = pool.checkout()
        waiter = gevent.spawn(pool.transaction, lambda thing: thing.number, timeout=2.0)
        gevent.sleep(0)
        from gevent import monkey
        monkey.patch_all()
        held.checkin()
        print(waiter.get())
        with pool.checkout() as thing:
            print(thing.number)
        pool.stop()
        """,
        may_complain=True,  # gevent warns of what it cannot patch any more
    ) == ["1", "1", "closed by parent"]


class Knot:
    """A cycle, which only the garbage collector unties."""

    def __init__(self, lease: Any) -> None:
        self.lease, self.me = lease, self


def places(other: gpool.Pool[Any], drop: Callable[[], None]) -> dict[str, Callable[[], None]]:
    """Return where a lease may be dropped."""
    hub = gevent.get_hub()

    def in_the_hub() -> None:
        hub.loop.run_callback(drop)
        gevent.sleep(0)

    def in_a_transition() -> None:
        ledger: Any = other._ledger
        man = ledger.man
        before = man.checkin

        def checkin(*args: Any) -> None:
            with no_switch():
                drop()
                before(*args)

        man.checkin = checkin
        other.checkout().discard()
        del man.checkin

    def in_a_hook() -> None:
        other.checkout().checkin()

    return {"hub": in_the_hub, "transition": in_a_transition, "hook": in_a_hook}


@pytest.mark.parametrize("where", ["hub", "transition", "hook"])
@pytest.mark.parametrize("knotted", [False, True])
def test_18_dropped_by_the_collector(
    clock: VirtualClock, maker: Maker, where: str, knotted: bool
) -> None:
    """A finalizer that took a lock deadlocked: nothing blocks or switches, it is reclaimed."""
    pool = running(maker.resource(), size=1, name="one")
    box: list[Any] = [Knot(pool.checkout()) if knotted else pool.checkout()]
    gc.collect()
    gc.disable()

    def drop() -> None:
        with no_switch():
            box.clear()
            gc.collect()

    def is_dirty(thing: Thing) -> bool:
        if where == "hook":
            drop()
        return False

    other = running(Maker().resource(is_dirty=is_dirty), size=1, name="other")
    try:
        places(other, drop)[where]()
    finally:
        gc.enable()
    assert box == []
    waiter = Holder(pool)
    assert waiter.thing is maker.made[1]
    assert (maker.made[0].closed, pool.stats().reclaimed) == (True, 1)
    waiter.let_go()
    assert_whole(pool, maker)
    assert_whole(other)


def test_18_nothing_of_gpool_has_a_finalizer() -> None:
    """What is not there cannot block."""
    modules = [module for name, module in sys.modules.items() if name.startswith("gpool.")]
    for module in modules:
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__.startswith("gpool"):
                finalizer = vars(kind).get("__del__", _nothing)  # or it overrules another's
                assert finalizer.__code__.co_code == _nothing.__code__.co_code, kind


def _nothing(self: object) -> None:
    """Do so."""


def test_18_while_somebody_waits(clock: VirtualClock, maker: Maker) -> None:
    """Found within a second."""
    pool = running(maker.resource(), size=1)
    knot = Knot(pool.checkout())
    waiter = Holder(pool, timeout=5.0)
    del knot
    gc.collect()
    clock.advance(1.0)
    assert waiter.thing is maker.made[1]


def test_19_a_stop_is_over_in_time(clock: VirtualClock, maker: Maker) -> None:
    """Shutdowns hung: with waiters, holders, a hung connect and a hung close it ends in time."""
    pool = running(maker.resource(), size=3, shutdown=None, start_timeout=None)
    holder = Holder(pool)
    maker.closes.extend([Gate().wait] * 3)
    maker.creates.extend([Gate().wait] * 3)
    pool.checkout().discard()
    pool.resize(4)
    settle()
    second = Holder(pool)
    waiters = [Holder(pool, timeout=None) for _ in range(3)]
    stats = pool.stats()
    assert (stats.busy, stats.closing, stats.starting, stats.waiting) == (2, 1, 1, 3)
    begun, ended = clock.now(), []

    def stop() -> None:
        pool.stop(timeout=2.0)
        ended.append(clock.now() - begun)

    Client(stop)
    settle()
    assert all(isinstance(waiter.error, gpool.PoolClosed) for waiter in waiters)
    clock.advance(2.1)
    assert ended == [2.0]
    holder.let_go()
    second.let_go()
    assert maker.faults == []


def test_19_a_second_stop_is_a_no_op(clock: VirtualClock, maker: Maker) -> None:
    """And by a second one at once: both return when it is over."""
    pool = running(maker.resource(), size=2)
    maker.closes.append(takes(1.0))
    begun, ended = clock.now(), []

    def stop() -> None:
        pool.stop()
        ended.append(clock.now() - begun)

    Client(stop)
    Client(stop)
    clock.advance(2.0)
    Client(stop)
    settle()
    assert ended == [1.0, 1.0, 2.0]
    assert maker.open == 0


ENDS = {
    "end": "print('end')",
    "exit": "print('end'); sys.exit(0)",
    "in a client": "gevent.spawn(lambda: print('end')).join()",
    "with": (
        "with gpool.Pool(things, size=1) as last:\n    last.checkout().checkin()\nprint('end')"
    ),
}


@pytest.mark.parametrize(
    ("end", "patched"),
    [("end", False), ("exit", True), ("in a client", False), ("with", True)],
)
def test_19_the_interpreter_ends_without_a_stop(end: str, patched: bool) -> None:
    """Clean and quick, with waiters, holders, hung connects, resets and closes present."""
    said = script(
        """
pool = gpool.Pool(things, size=2, max_overflow=1, max_age=3600, max_hold=3600,
                  idle_timeout=3600, name="busy").start()
servers = gpool.Pool(Echo, size=2, name="servers").start()
def hang(*args):
    gevent.sleep(3600)
connecting = gpool.Pool(gpool.Resource(create=hang), size=2, name="connecting").start()
stuck = gpool.Pool(gpool.Resource(create=list, reset=hang, close=hang), size=2,
                   shutdown=None, finish_timeout=None, name="stuck").start()
down = gpool.Pool(gpool.Resource(create=lambda: 1 / 0), size=2, name="down").start()
leases = [pool.checkout(), pool.checkout(), pool.checkout(), servers.checkout()]
stuck.checkout().checkin()
stuck.checkout().discard()
waiters = [gevent.spawn(p.checkout, timeout=None) for p in (pool, connecting, stuck, down)]
waiters += [gpool.spawn(p.checkout, timeout=3600.0) for p in (pool, connecting, stuck, down)]
job = pool.cast(print)
gevent.sleep(0.01)
"""
        + ENDS[end],
        patched=patched,
    )
    assert said == (["closed by parent", "end"] if end == "with" else ["end"])


# --- 20 to 23: misuse -----------------------------------------------------------------


def test_20_two_greenlets_on_one_resource(clock: VirtualClock, maker: Maker) -> None:
    """Answers got mixed up, in silence: in debug mode it names both and the line."""
    pool = running(maker.resource(), size=1, debug=True)
    lease = pool.checkout()
    thing = lease.resource
    for trespass in (lambda: thing.number, lease.checkin, lease.discard):
        other = Client(trespass)
        settle()
        assert isinstance(other.error, gpool.WrongHolder)
        said = str(other.error)
        assert repr(other.pid) in said
        assert repr(gpool.self()) in said
        assert "test_20_two_greenlets_on_one_resource" in said
    gate = Gate()
    got: list[Any] = []

    def heir() -> None:
        gate.wait()
        got.append(lease.resource.number)
        lease.checkin()

    client = Client(heir)
    settle()
    lease.transfer(client.pid)
    gate.open()
    settle()
    assert (client.error, got) == (None, [1])
    with pytest.raises(gpool.LeaseLost):
        _ = thing.number
    assert_whole(pool, maker)


METHODS = {
    "checkout": lambda pool, lease: pool.checkout(timeout=0),
    "checkin": lambda pool, lease: pool.checkin(lease),
    "transaction": lambda pool, lease: pool.transaction(repr, timeout=1.0),
    "call": lambda pool, lease: pool.call(repr),
    "cast": lambda pool, lease: pool.cast(repr),
    "map": lambda pool, lease: pool.map(lambda thing, item: item, [1, 2]),
    "broadcast": lambda pool, lease: pool.broadcast(repr),
    "start": lambda pool, lease: pool.start(),
    "wait_ready": lambda pool, lease: pool.wait_ready(1.0),
    "resize": lambda pool, lease: pool.resize(3),
    "recycle": lambda pool, lease: pool.recycle(),
    "suspend": lambda pool, lease: pool.suspend(),
    "resume": lambda pool, lease: pool.resume(),
    "close": lambda pool, lease: pool.close(),
    "drain": lambda pool, lease: pool.drain(0.1),
    "stop": lambda pool, lease: pool.stop(0.1),
    "__enter__": lambda pool, lease: pool.__enter__(),
    "__exit__": lambda pool, lease: pool.__exit__(None, None, None),
    "lease.checkin": lambda pool, lease: lease.checkin(),
    "lease.discard": lambda pool, lease: lease.discard(),
    "lease.transfer": lambda pool, lease: lease.transfer(gpool.self()),
    "lease.__exit__": lambda pool, lease: lease.__exit__(None, None, None),
}
LOOKING = {
    "status": lambda pool, lease: pool.status(),
    "stats": lambda pool, lease: pool.stats(),
    "holders": lambda pool, lease: pool.holders(),
    "waiters": lambda pool, lease: pool.waiters(),
    "tree": lambda pool, lease: pool.tree(),
    "healthy": lambda pool, lease: pool.healthy(),
    "is_unused": lambda pool, lease: pool.is_unused,
    "__repr__": lambda pool, lease: repr(pool),
    "lease.worker": lambda pool, lease: lease.worker,
    "lease.resource": lambda pool, lease: lease.resource,
    "lease.lost": lambda pool, lease: lease.lost,
    "lease.is_the_parents": lambda pool, lease: lease.is_the_parents,
    "lease.number": lambda pool, lease: lease.number,
    "lease.line": lambda pool, lease: lease.line,
    "lease.locate": lambda pool, lease: lease.locate(),
    "lease.holder": lambda pool, lease: lease.holder(),
    "lease.__enter__": lambda pool, lease: lease.__enter__(),
    "lease.__repr__": lambda pool, lease: repr(lease),
}


def in_a_thread(fn: Callable[[], Any]) -> Any:
    """Return what `fn` does in a foreign thread, or what it raises."""

    def run() -> Any:
        try:
            return fn()
        except BaseException as error:  # noqa: BLE001  # the test will ask
            return error
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    return gevent.get_hub().threadpool.apply(run)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("method", [*METHODS, *LOOKING])
def test_21_from_a_foreign_thread(maker: Maker, method: str, debug: bool) -> None:
    """It ended in "cannot switch to a different thread": an error says what to do, or it works."""
    pool = running(maker.resource(), size=2, debug=debug)
    lease: Any = pool.checkout()
    call = {**METHODS, **LOOKING}[method]
    said = in_a_thread(lambda: call(pool, lease))
    if method in METHODS:
        assert isinstance(said, WrongHub | gpool.WrongHolder if debug else WrongHub), said
        assert isinstance(said, gpool.WrongHolder) or "another thread's hub" in str(said)
    elif not (debug and method == "lease.__enter__"):
        assert not isinstance(said, BaseException), said
    assert not lease.lost
    assert (pool.status().busy, pool.status().idle, pool.stats().epoch) == (1, 1, 1)
    check(pool)
    lease.checkin()
    assert_whole(pool, maker)


def test_21_is_asked_of_every_method() -> None:
    """A new one has to be decided upon here."""
    asked = {*METHODS, *LOOKING}
    public = {name for name in vars(gpool.Pool) if not name.startswith("_") and name != "name"}
    plain = {"code", "epoch", "lasti", "ledger", "number_drawn", "owner", "since", "slot", "waited"}
    of_leases = {name for name in vars(gpool.Lease) if not name.startswith("_")} - plain
    assert public <= asked
    assert {f"lease.{name}" for name in of_leases} <= asked


@pytest.mark.parametrize(
    "method", [name for name in METHODS if "lease" not in name and "check" not in name]
)
def test_21_of_a_pool_that_nobody_has_used(maker: Maker, method: str) -> None:
    """Another thread's first use is told as well, since pools run here; it starts nothing."""
    running(Maker().resource(), size=1)
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1)
    said = in_a_thread(lambda: METHODS[method](pool, None))
    harmless = method in ("resize", "recycle", "close", "drain", "stop", "__exit__")
    assert isinstance(said, WrongHub) != harmless, said
    settle()
    assert maker.connects == 0
    pool.start()
    assert_whole(pool, maker)


@pytest.mark.parametrize("patched", [False, True])
def test_22_an_error_not_a_loop_exit(patched: bool) -> None:
    """With nothing else to run gevent's LoopExit came instead of the timeout."""
    assert script(
        """
def said(fn, *args, **kwargs):
    try:
        fn(*args, **kwargs)
    except BaseException as error:
        print(type(error).__name__)

pool = gpool.Pool(things, size=1).start()
lease = pool.checkout()
said(pool.checkout, timeout=0.01)
said(pool.checkout, timeout=None)
pool.suspend()
said(pool.checkout, timeout=0.01)
hanging = gpool.Pool(gpool.Resource(create=lambda: gevent.sleep(3600)), size=1)
said(hanging.checkout, timeout=0.01)
said(hanging.wait_ready, timeout=0.01)
print(pool.drain(0.01))
os._exit(0)
""",
        patched=patched,
    ) == [
        "CheckoutTimeout", "CheckoutDeadlock", "CheckoutTimeout", "CheckoutTimeout",
        "PoolNotReady", "False",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 3])
def test_23_nested_checkouts(clock: VirtualClock, maker: Maker, count: int) -> None:
    """All held one and waited for a second, for ever: the one that closes the circle is told."""
    pool = running(maker.resource(), size=count)
    gate = Gate()

    def greedy() -> str:
        with pool.checkout(timeout=None):
            gate.wait()
            with pool.checkout(timeout=None):
                return "had two"

    clients = [Client(greedy) for _ in range(count)]
    settle()
    gate.open()
    settle()
    told = [client for client in clients if client.error is not None]
    assert [type(client.error) for client in told] == [gpool.CheckoutDeadlock]
    error: Any = told[0].error
    assert {holder.pid for holder in error.holders} == {client.pid for client in clients}
    assert "in test_23_nested_checkouts.<locals>.greedy" in str(error)
    assert all(client.done for client in clients)  # its worker has gone to the others
    assert pool.stats().deadlocks == 1
    assert_whole(pool, maker)


def test_23_with_a_timeout(clock: VirtualClock, maker: Maker) -> None:
    """It ends by itself, and the error names the oldest holder."""
    pool = running(maker.resource(), size=1)

    def greedy() -> None:
        with pool.checkout(), pool.checkout(timeout=1.0):
            pass

    client = Client(greedy)
    clock.advance(1.0)
    error: Any = client.error
    assert isinstance(error, gpool.CheckoutTimeout)
    assert error.oldest.pid == client.pid


# --- 24 to 28: slow connects, blind operators -----------------------------------------


@pytest.mark.parametrize("how", ["kill", "cut", "foreign"])
@pytest.mark.parametrize("kind", KINDS)
def test_24_assigned_but_not_started(
    clock: VirtualClock, maker: Maker, kind: str, how: str
) -> None:
    """A worker given to the dead was never free again: the books balance after every step."""
    pool = running(lent(maker, kind), size=2)
    sums = []

    def balance() -> None:
        check(pool)
        sums.append(pool.stats().accounted)

    leases = [pool.checkout(), pool.checkout()]
    waiters = [Holder(pool) for _ in range(4)]
    for waiter in waiters[:2]:  # each is struck before it wakes, and after it was given one
        strike(waiter, how)
        balance()
    for lease in leases:
        lease.checkin()
        balance()
    for _ in range(5):
        gevent.sleep(0)
        balance()
    assert [waiter.thing is not None for waiter in waiters] == [False, False, True, True]
    for waiter in waiters[2:]:
        waiter.let_go()
        balance()
    assert set(sums) == {2}
    assert len(maker.made) == (2 if kind == "resource" else 0)
    assert_whole(pool)


def test_25_a_connect_slower_than_every_caller(clock: VirtualClock, maker: Maker) -> None:
    """The connect died with its caller, so none ever succeeded: the pool fills all the same."""
    maker.creates.extend([takes(2.0)] * 99)
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=3, lazy=True)
    for _ in range(5):
        clients = [Holder(pool, timeout=1.0) for _ in range(5)]
        assert pool.stats().accounted <= 3
        clock.advance(1.0)
        served = [client for client in clients if client.thing is not None]
        for client in served:
            client.let_go()
    assert served
    assert (maker.connects, maker.peak, pool.stats().idle) == (3, 3, 3)


def test_26_the_error_tells_whether_it_is_exhausted_or_down(
    clock: VirtualClock, maker: Maker
) -> None:
    """Operators could not see which: totals, the oldest holder, and why no connect succeeds."""
    pool = running(maker.resource(), size=2)
    Holder(pool)
    clock.advance(30.0)
    maker.creates.extend([OSError("connection refused")] * 99)
    pool.checkout().discard()
    settle()
    waiter = Holder(pool, timeout=5.0)
    clock.advance(5.0)
    error: Any = waiter.error
    assert (error.busy, error.waiting) == (1, 0)
    assert error.oldest.age == pytest.approx(35.0)
    assert "workshop.py" in error.oldest.line
    assert str(error.__cause__) == "connection refused"
    for fact in ("1 busy", "oldest holder", "for 35 s", "connection refused"):
        assert fact in str(error)


def test_26_with_fail_fast(clock: VirtualClock, maker: Maker) -> None:
    """With nothing up and starts that fail, nobody waits for nothing."""
    pool = running(maker.resource(), size=1, fail_fast=True)
    pool.checkout().discard()
    maker.creates.extend([OSError("connection refused")] * 3)
    waiter = Holder(pool, timeout=None)
    assert isinstance(waiter.error, gpool.StartsFailing)
    with no_switch(), pytest.raises(gpool.StartsFailing, match="connection refused"):
        pool.checkout()
    clock.advance(5.0)
    assert_whole(pool, maker)


@pytest.mark.parametrize("hung", ["create", "check", "reset", "close"])
def test_27_a_black_hole(clock: VirtualClock, maker: Maker, hung: str) -> None:
    """What hung ate the deadline, or the slot: the checkout ends in time, the slot is freed."""
    pool = running(
        maker.resource(check=maker.check, reset=maker.reset), size=1, check_after=0.0,
        check_timeout=3.0, start_timeout=4.0, finish_timeout=2.0, shutdown=2.5,
    )  # fmt: skip
    script = getattr(maker, f"{hung}s")
    if hung == "create":
        script.append(Gate().wait)
        pool.checkout().discard()
        settle()
    elif hung == "check":
        script.append(Gate().wait)
    elif hung == "reset":
        script.append(Gate().wait)
        use(pool)
    else:
        script.extend([Gate().wait] * 2)
        pool.checkout().discard()
        settle()
    early, late = Holder(pool, timeout=1.0), Holder(pool, timeout=60.0)
    stats = pool.stats()
    assert (stats.starting, stats.resetting, stats.closing).count(1) == 1
    clock.advance(0.99)
    assert not early.done
    clock.advance(0.01)
    assert isinstance(early.error, gpool.CheckoutTimeout)
    limit = {"create": 4.0 + 0.02, "check": 3.0, "reset": 2.0, "close": 5.0}[hung]
    clock.advance(limit - 1.0)
    assert late.thing is not None
    assert pool.stats().unclosed == (hung == "close")
    late.let_go()
    settle()
    check(pool)
    assert pool.stats().accounted == 1


def test_28_how_many_there_may_be(
    clock: VirtualClock, maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    """Sizes were taken for the whole service: a line at the start says that they are not."""
    caplog.set_level(logging.INFO, "gpool")
    pool = running(maker.resource(), size=3, max_overflow=2, name="db")
    fall(pool)  # is no start
    [record] = [r for r in caplog.records if r.levelno == logging.INFO]
    assert record.getMessage() == (
        "pool 'db' runs: at most 5 workers in this process; each process has a pool of its own"
    )
    caplog.clear()
    pool.resize(10)
    settle()
    [record] = [r for r in caplog.records if r.levelno == logging.INFO]
    assert record.getMessage() == "pool 'db' resized: at most 12 workers in this process"
