"""The ten hardest cases, of every kind of worker, in each order of their events.

An order is a permutation of steps.  They are taken in one turn of the hub, or with
turns in between: whoever is woken has then run, or has not.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import gevent
import pytest

import gpool
from gpool.otp.pid import watch
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import (
    AtTurn,
    Client,
    Echo,
    Holder,
    Maker,
    Thing,
    assert_whole,
    books,
    check,
    fall,
    no_switch,
    pause,
    pids,
    running,
    takes,
)

pytestmark = [
    pytest.mark.usefixtures("quiet"),
    pytest.mark.parametrize("kind", ["resource", "server", "child"]),
]
TURNS = [0, 1, 2, 9]  # of the hub, between two steps


def orders(*steps: str) -> pytest.MarkDecorator:
    """Run the test in each order of its steps."""
    permutations = list(itertools.permutations(steps))
    return pytest.mark.parametrize("order", permutations, ids=["-".join(p) for p in permutations])


def take(order: tuple[str, ...], turns: int, **steps: Callable[[], object]) -> None:
    """Take the steps in that order, so many turns apart."""
    for name in order:
        steps[name]()
        for _ in range(turns):
            gevent.sleep(0)


class Mortal(Echo):
    """A server that notes its end."""

    ended: ClassVar[list[Any]] = []

    def terminate(self, reason: Any) -> None:
        """Note it."""
        Mortal.ended.append(self)


@pytest.fixture(autouse=True)
def nobody_has_ended() -> None:
    """Forget those of the test before."""
    Mortal.ended.clear()


class Stage:
    """A pool of some kind, and what has become of its workers."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind = kind
        self.maker = Maker()
        self.is_server = kind != "resource"
        worker = {
            "resource": self.maker.resource(), "server": Mortal,
            "child": gpool.ChildSpec("mortal", Mortal.start_link),
        }[kind]  # fmt: skip
        self.pool = running(worker, **options)

    @property
    def first(self) -> Any:
        """The worker of the oldest slot."""
        return next(iter(books(self.pool).slots)).thing

    def pid_of(self, thing: Any) -> Any:
        """Return the process of a worker."""
        if self.is_server:
            return thing.pid
        return next(slot.pid for slot in books(self.pool).slots if slot.thing is thing)

    def is_gone(self, thing: Any) -> bool:
        """Whether a worker has ended."""
        return bool(thing.closed) if isinstance(thing, Thing) else not gpool.is_alive(thing)

    def verify(self) -> None:
        """Nothing is lost, nobody has seen what must never happen."""
        assert_whole(self.pool, None if self.is_server else self.maker)
        assert self.maker.faults == []


# --- 1: a client dies while it waits --------------------------------------------------


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("how", ["kill", "cut"])
@orders("dies", "comes_back", "queues")
def test_01_a_client_dies_while_queued(
    clock: VirtualClock, kind: str, order: tuple[str, ...], how: str, turns: int
) -> None:
    """It is dropped at once, and no worker is touched: the next one gets it."""
    stage = Stage(kind, size=1)
    lease, thing = stage.pool.checkout(), stage.first
    waiter = Holder(stage.pool)
    others: list[Holder] = []
    take(
        order, turns, dies=getattr(waiter, how), comes_back=lease.checkin,
        queues=lambda: others.append(Holder(stage.pool)),
    )  # fmt: skip
    settle()
    assert waiter.done
    assert stage.pool.stats().waiting == 0
    [other] = others
    if waiter.thing is None or stage.is_server:
        assert other.thing is thing
    else:  # it died as a holder, of what is dirty now
        assert stage.is_gone(thing)
        assert other.thing is not None
    other.let_go()
    stage.verify()


def test_01_at_no_cost(clock: VirtualClock, kind: str) -> None:
    """O(1): a death among a thousand takes as many calls as a death among ten."""
    counts = []
    for crowd in (10, 1000):
        stage = Stage(kind, size=1)
        lease = stage.pool.checkout()
        waiters = [Client(stage.pool.checkout, timeout=None) for _ in range(crowd)]
        settle()
        victim = waiters[crowd // 2]
        victim.kill()
        calls = 0

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            gevent.sleep(0)
            gevent.sleep(0)
        finally:
            sys.setprofile(None)
        assert victim.done
        assert stage.pool.stats().waiting == crowd - 1
        counts.append(calls)
        lease.checkin()
    assert abs(counts[0] - counts[1]) <= 2, counts


# --- 2: a client dies between the grant and its wake-up -------------------------------


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("how", ["kill", "cut"])
@orders("dies", "granted")
def test_02_a_client_dies_between_grant_and_receipt(
    clock: VirtualClock, kind: str, order: tuple[str, ...], how: str, turns: int
) -> None:
    """It gives back an unused worker: not reset, not recycled, not counted as a use."""
    stage = Stage(kind, size=1, max_uses=2)
    lease, thing = stage.pool.checkout(), stage.first
    waiter, second = Holder(stage.pool), Holder(stage.pool)
    take(order, turns, dies=getattr(waiter, how), granted=lease.checkin)
    settle()
    if waiter.thing is None:
        assert second.thing is thing
        assert not stage.is_gone(thing)
        second.let_go()
        assert stage.is_gone(thing)  # after the second use, not before
    else:
        assert order == ("granted", "dies")
        second.let_go()
    settle()
    stage.verify()


@pytest.mark.parametrize("how", ["kill", "cut"])
def test_02_at_every_turn(clock: VirtualClock, kind: str, how: str) -> None:
    """Whichever turn of the hub it falls in."""
    for turn in itertools.count(1):
        stage = Stage(kind, size=1)
        lease = stage.pool.checkout()
        waiter, second = Holder(stage.pool), Holder(stage.pool)
        at = AtTurn(turn, getattr(waiter, how))
        with at:
            lease.checkin()
            settle()
        waiter.let_go()
        assert second.thing is not None
        second.let_go()
        stage.verify()
        stage.pool.stop()
        if not at.done:
            break
    assert turn > 2


# --- 3: a deadline at the moment of the hand-over -------------------------------------


@orders("deadline", "release", "queues")
def test_03_a_deadline_at_the_moment_of_the_hand_over(
    clock: VirtualClock, kind: str, order: tuple[str, ...]
) -> None:
    """Decided in one place; whoever loses, the worker is whole and goes to the next one."""
    stage = Stage(kind, size=1)
    lease, thing = stage.pool.checkout(), stage.first
    clients: list[Any] = []
    start = {
        "deadline": lambda: clients.append(Holder(stage.pool, timeout=5.0)),
        "release": lambda: clock.call_later(5.0, lease.checkin),
        "queues": lambda: clock.call_later(5.0, lambda: clients.append(late())),
    }

    def late() -> Client:
        return Client(stage.pool.checkout, timeout=0.0)

    for name in order:
        start[name]()
    clock.advance(5.0)
    waiter, other = clients
    in_time = order.index("release") < order.index("deadline")
    assert (waiter.thing is thing) == in_time
    assert isinstance(waiter.error, gpool.CheckoutTimeout) == (not in_time)
    assert other.done
    assert not stage.is_gone(thing) or other.error is None  # it dies with what it has got
    waiter.let_go()
    stage.verify()


@orders("deadline", "release", "dies")
@pytest.mark.parametrize("how", ["kill", "cut"])
def test_03_and_a_death(clock: VirtualClock, kind: str, order: tuple[str, ...], how: str) -> None:
    """All three in one instant: the second in the queue is served, by the same worker if it can."""
    stage = Stage(kind, size=1)
    lease, thing = stage.pool.checkout(), stage.first
    waiter: list[Holder] = []
    for name in order:
        match name:
            case "deadline":
                waiter.append(Holder(stage.pool, timeout=5.0))
            case "release":
                clock.call_later(5.0, lease.checkin)
            case "dies":
                clock.call_later(5.0, lambda: getattr(waiter[0], how)())
    second = Holder(stage.pool, timeout=6.0)
    clock.advance(5.5)
    assert waiter[0].done
    assert second.thing is thing or (waiter[0].thing is thing and second.thing is not None)
    second.let_go()
    stage.verify()


# --- 4: a worker dies while it is held ------------------------------------------------


@pytest.mark.parametrize("turns", TURNS)
@orders("dies", "comes_back", "queues")
def test_04_a_worker_dies_while_held(
    clock: VirtualClock, kind: str, order: tuple[str, ...], turns: int
) -> None:
    """The lease is lost, the capacity restored once, a late checkin a no-op."""
    stage = Stage(kind, size=1)
    lease, thing = stage.pool.checkout(), stage.first
    pid = stage.pid_of(thing)
    others: list[Holder] = []
    seen: list[bool] = []

    def dies() -> None:
        gpool.exit(pid, "kill")
        if "comes_back" not in order[: order.index("dies")]:
            settle()
            seen.append(lease.lost)

    take(
        order, turns, dies=dies, comes_back=lease.checkin,
        queues=lambda: others.append(Holder(stage.pool)),
    )  # fmt: skip
    settle()
    assert set(seen) <= {True}
    [other] = others
    assert other.thing is not None
    assert other.thing is not thing or order.index("queues") < order.index("dies")
    assert stage.pool.stats().accounted == 1
    late = stage.is_server and order.index("dies") < order.index("comes_back")
    assert stage.pool.stats().stale == late
    check(stage.pool)
    other.let_go()
    stage.verify()


def test_04_the_holder_is_told(clock: VirtualClock, kind: str) -> None:
    """By its next use; or at once, if it has linked to the worker."""
    stage = Stage(kind, size=2)
    leases: list[Any] = []

    def holder(links: bool) -> None:
        lease = stage.pool.checkout()
        leases.append(lease)
        thing = lease.worker
        if links:
            gpool.link(stage.pid_of(thing))
        pause(5.0)
        try:
            _ = lease.worker
        except gpool.LeaseLost:
            lease.checkin()
            raise

    plain, linked = Client(holder, False), Client(holder, True)
    settle()
    for lease in list(leases):
        gpool.exit(stage.pid_of(lease.worker), "boom" if stage.is_server else "kill")
    settle()
    assert [lease.lost for lease in leases] in ([True, True], [True, False])
    assert linked.done
    assert not plain.done
    clock.advance(5.0)
    assert isinstance(plain.error, gpool.LeaseLost)
    stage.verify()


# --- 5: the manager dies --------------------------------------------------------------


@pytest.mark.parametrize("who", ["man", "worker_sup", "sup"])
@pytest.mark.parametrize("turns", TURNS)
@orders("falls", "comes_back", "queues")
def test_05_the_manager_dies(
    clock: VirtualClock, kind: str, order: tuple[str, ...], turns: int, who: str
) -> None:
    """Waiters keep place and deadline; what the old epoch has lent can only be closed."""
    stage = Stage(kind, size=1)
    lease, thing = stage.pool.checkout(), stage.first
    first = Client(stage.pool.checkout, timeout=3.0)
    settle()
    clock.advance(1.0)
    later: list[Client] = []

    def queues() -> None:
        later.append(Client(queue))

    def queue() -> Any:
        with stage.pool.checkout(timeout=60.0) as other:
            return other

    take(
        order, turns, falls=lambda: gpool.exit(getattr(pids(stage.pool), who), "kill"),
        comes_back=lease.checkin, queues=queues,
    )  # fmt: skip
    clock.advance(1.9)
    assert first.error is None
    assert first.done  # served, in its own time
    clock.advance(10.0)
    assert later[0].done
    assert later[0].error is None
    assert stage.is_gone(thing)
    assert stage.pool.stats().epoch == 2
    lease.checkin()
    lease.discard()
    stage.verify()


@orders("falls", "deadline", "comes_back")
def test_05_and_a_deadline(clock: VirtualClock, kind: str, order: tuple[str, ...]) -> None:
    """All in one instant: a deadline holds over an epoch's end."""
    stage = Stage(kind, size=1)
    lease = stage.pool.checkout()
    waiters: list[Any] = []
    for name in order:
        match name:
            case "falls":
                clock.call_later(5.0, lambda: gpool.exit(pids(stage.pool).man, "kill"))
            case "deadline":
                waiters.append(Holder(stage.pool, timeout=5.0))
            case "comes_back":
                clock.call_later(5.0, lease.checkin)
    patient = Holder(stage.pool, timeout=60.0)
    clock.advance(5.0)
    [brief] = waiters
    assert brief.done or brief.thing is not None
    clock.advance(1.0)
    if brief.done:
        assert isinstance(brief.error, gpool.CheckoutTimeout)
        assert patient.thing is not None
    else:  # of servers the fall has taken its worker away, and patient has the next one
        assert stage.is_server or patient.thing is None
        brief.let_go()
        assert patient.thing is not None
    patient.let_go()
    stage.verify()


# --- 6: twice given back --------------------------------------------------------------

AGAIN = {
    "checkin": lambda pool, lease: lease.checkin(),
    "pool": lambda pool, lease: pool.checkin(lease),
    "discard": lambda pool, lease: lease.discard(),
    "exit": lambda pool, lease: lease.__exit__(None, None, None),
    "cut": lambda pool, lease: lease.__exit__(gevent.Timeout, gevent.Timeout(), None),
}


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("turns", [0, 2])
@orders("again", "b", "c")
def test_06_twice_given_back(
    clock: VirtualClock, kind: str, order: tuple[str, ...], turns: int, again: str
) -> None:
    """A's second release is a counted no-op: B and C never have the same worker."""
    stage = Stage(kind, size=1)
    lease = stage.pool.checkout()
    thing = lease.worker
    lease.checkin()
    holders: dict[str, Holder] = {}

    def comes(name: str) -> None:
        holders[name] = Holder(stage.pool)

    take(
        order, turns, again=lambda: AGAIN[again](stage.pool, lease),
        b=lambda: comes("b"), c=lambda: comes("c"),
    )  # fmt: skip
    settle()
    assert stage.pool.stats().stale == 1
    first, second = holders.values()
    assert (first.thing, second.thing) == (thing, None)
    first.let_go()
    assert second.thing is thing
    second.let_go()
    stage.verify()


@pytest.mark.parametrize("first", AGAIN)
@pytest.mark.parametrize("second", AGAIN)
def test_06_in_any_two_ways(clock: VirtualClock, kind: str, first: str, second: str) -> None:
    """However it is given back the first time, and the second."""
    stage = Stage(kind, size=2)
    lease = stage.pool.checkout()
    AGAIN[first](stage.pool, lease)
    AGAIN[second](stage.pool, lease)
    assert stage.pool.stats().stale == 1
    settle()
    stage.verify()


# --- 7: of another pool, by another one -----------------------------------------------


@pytest.mark.parametrize("when", ["held", "over", "lost"])
def test_07_into_another_pool(clock: VirtualClock, kind: str, when: str) -> None:
    """It is told to the caller, and disturbs neither pool."""
    stage, other = Stage(kind, size=1, name="mine"), Stage(kind, size=1, name="other")
    lease = stage.pool.checkout()
    if when == "over":
        lease.checkin()
    elif when == "lost":
        fall(stage.pool)
    with no_switch(), pytest.raises(ValueError, match="expected one of pool 'other'"):
        other.pool.checkin(lease)
    for nonsense in (None, 7, stage.first if when != "lost" else "worker"):
        with pytest.raises(TypeError, match="expected a Lease"):
            other.pool.checkin(nonsense)
    lease.checkin()
    other.verify()
    stage.verify()


def test_07_by_another_process(clock: VirtualClock, kind: str) -> None:
    """Whoever has the lease may give it back, once; its owner's own attempt is late then."""
    stage = Stage(kind, size=1)
    lease = stage.pool.checkout()
    Client(lease.checkin)
    settle()
    assert stage.pool.stats().idle == 1
    holder = Holder(stage.pool)
    lease.checkin()
    assert (stage.pool.stats().stale, stage.pool.stats().busy) == (1, 1)
    holder.let_go()
    stage.verify()


@orders("transfer", "owner_dies", "heir_dies")
@pytest.mark.parametrize("turns", [0, 1, 3])
def test_07_a_transfer_and_two_deaths(
    clock: VirtualClock, kind: str, order: tuple[str, ...], turns: int
) -> None:
    """The owner's death reclaims it, and nobody else's; a dead heir is refused."""
    stage = Stage(kind, size=1)
    leases: list[Any] = []
    gate = Gate()

    def hold() -> None:
        leases.append(stage.pool.checkout())
        gate.wait()

    owner, heir = Client(hold), Client(gate.wait)
    settle()
    refused: list[Exception] = []

    def transfer() -> None:
        try:
            leases[0].transfer(heir.pid)
        except (gpool.LeaseLost, gpool.NoProcess) as error:
            refused.append(error)

    for position, name in enumerate(order):
        take((name,), turns, transfer=transfer, owner_dies=owner.kill, heir_dies=heir.kill)
        if turns:
            reclaimed = {
                True: {"owner_dies"},  # the transfer has not come, or was refused
                False: {"heir_dies"},
            }["transfer" not in order[: position + 1] or bool(refused)]
            is_over = bool(reclaimed & set(order[: position + 1]))
            assert stage.pool.stats().reclaimed == is_over, (order, position)
    settle()
    assert stage.pool.stats().reclaimed == 1
    stage.verify()


# --- 8: a worker goes while others wait -----------------------------------------------


def discards(stage: Stage, lease: Any) -> None:
    """Its holder does not want it back."""
    lease.discard()


def dies(stage: Stage, lease: Any) -> None:
    """It is killed in its holder's hands."""
    gpool.exit(stage.pid_of(lease.worker), "kill")
    settle()
    lease.checkin()


def is_cut(stage: Stage, lease: Any) -> None:
    """Its holder's block ends by a gevent.Timeout."""
    lease.__exit__(gevent.Timeout, gevent.Timeout(), None)


def is_recycled(stage: Stage, lease: Any) -> None:
    """All are to be replaced."""
    stage.pool.recycle()
    lease.checkin()


def is_resized(stage: Stage, lease: Any) -> None:
    """There are too many, then too few."""
    stage.pool.resize(1)
    lease.checkin()
    stage.pool.resize(2)


@pytest.mark.parametrize("goes", [discards, dies, is_cut, is_recycled, is_resized])
@orders("1", "2")
def test_08_a_worker_is_removed_while_others_wait(
    clock: VirtualClock, kind: str, order: tuple[str, ...], goes: Callable[[Stage, Any], None]
) -> None:
    """b, c and d are served b, c and d, whatever becomes of the workers."""
    stage = Stage(kind, size=2)
    leases = {"1": stage.pool.checkout(), "2": stage.pool.checkout()}
    served: list[str] = []

    def wait(name: str) -> None:
        with stage.pool.checkout(timeout=None):
            served.append(name)
            pause(1.0)

    clients = [Client(wait, name) for name in "bcdef"]
    settle()
    goes(stage, leases[order[0]])
    clock.advance(0.5)
    leases[order[1]].checkin()
    clock.advance(20.0)
    assert served == list("bcdef")
    assert all(client.done and client.error is None for client in clients)
    stage.verify()


@pytest.mark.parametrize("ttl", [0.0, 5.0])
@orders("1", "2", "3")
def test_08_overflow_comes_back(
    clock: VirtualClock, kind: str, order: tuple[str, ...], ttl: float
) -> None:
    """Waiters first; then what was used last is kept, what has been idle for longest goes."""
    stage = Stage(kind, size=2, max_overflow=1, overflow_ttl=ttl)
    holders = {name: Holder(stage.pool) for name in "123"}
    waiters = [Holder(stage.pool), Holder(stage.pool)]
    for name in order:
        holders[name].let_go()
        clock.advance(1.0)
    things = [holders[name].thing for name in order]
    assert [waiter.thing for waiter in waiters] == things[:2]  # not one of them was stopped
    assert stage.pool.stats().overflow == (ttl > 0)
    waiters[1].let_go()
    clock.advance(1.0)
    waiters[0].let_go()
    clock.advance(10.0)
    assert stage.pool.status() == gpool.Status("ready", idle=2, overflow=0, busy=0)
    if ttl:
        assert stage.is_gone(things[2])
        lease = stage.pool.checkout()
        assert lease.worker is things[0]
        lease.checkin()
    stage.verify()


# --- 9: a shutdown with waiters and holders -------------------------------------------


@orders("closes", "comes_back", "waiter_dies", "stops")
@pytest.mark.parametrize("turns", [0, 3])
def test_09_a_shutdown_with_waiters_and_holders(
    clock: VirtualClock, kind: str, order: tuple[str, ...], turns: int
) -> None:
    """Nobody is left in the dark, and each worker is ended once, before its manager."""
    stage = Stage(kind, size=2)
    ends: list[str] = []
    man = pids(stage.pool).man
    workers = [slot.thing for slot in books(stage.pool).slots]
    owners = pids(stage.pool).workers
    for who, pid in [*(("worker", pid) for pid in owners), ("man", man)]:
        watch(pid, Note(ends, who))
    holder, second = Holder(stage.pool), Holder(stage.pool)
    dying, waiting = Holder(stage.pool, timeout=None), Holder(stage.pool, timeout=None)
    stoppers: list[Client] = []

    take(
        order, turns, closes=stage.pool.close, comes_back=holder.let_go,
        waiter_dies=dying.kill, stops=lambda: stoppers.append(Client(stage.pool.stop)),
    )  # fmt: skip
    settle()
    for late in (holder, second, waiting, dying):
        late.let_go()
    clock.advance(10.0)
    assert stoppers[0].done
    assert all(client.done for client in (holder, second, dying, waiting))
    assert waiting.thing is not None or isinstance(waiting.error, gpool.PoolClosed)
    assert all(map(stage.is_gone, workers))
    assert len(Mortal.ended) == len(set(Mortal.ended))
    if stage.is_server:
        assert set(workers) <= set(Mortal.ended)
    assert stage.maker.open == 0
    assert stage.maker.faults == []
    assert ends[-1] == "man"
    with pytest.raises(gpool.PoolClosed):
        stage.pool.checkout()


class Note:
    """A monitor that notes a death."""

    def __init__(self, ends: list[str], who: str) -> None:
        self.ends, self.who = ends, who

    def down(self, pid: Any, reason: Any) -> None:
        """It is dead."""
        self.ends.append(self.who)


@pytest.mark.parametrize("waiters", ["serve", "fail"])
@orders("closes", "comes_back")
def test_09_by_choice(clock: VirtualClock, kind: str, order: tuple[str, ...], waiters: Any) -> None:
    """`close` serves those who wait, or fails them."""
    stage = Stage(kind, size=1)
    holder, waiter = Holder(stage.pool), Holder(stage.pool)
    take(
        order, 0, closes=lambda: stage.pool.close(waiters), comes_back=holder.let_go
    )  # fmt: skip
    settle()
    served = waiters == "serve" or order[0] == "comes_back"
    assert (waiter.thing is not None) == served
    assert isinstance(waiter.error, gpool.PoolClosed) != served
    waiter.let_go()
    assert stage.pool.drain(0)


# --- 10: a storm of starts that fail --------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.05])
@orders("starts", "queues", "heals")
def test_10_a_storm_of_starts_that_fail(
    clock: VirtualClock, kind: str, order: tuple[str, ...], seconds: float
) -> None:
    """Each failure is followed by a pause; who waits is served when service returns."""
    sibling = Stage(kind, size=1, name="sibling")
    lease = sibling.pool.checkout()
    maker = Maker()
    failures = 9999
    tries: list[float] = []

    def start() -> Any:
        tries.append(clock.now())
        return takes(seconds, OSError("down") if failures else None)()

    class Sick(Echo):
        def init(self) -> None:
            start()

    def create() -> Thing:
        start()
        return maker.create()

    worker: Any = {
        "resource": gpool.Resource(create=create, close=maker.close), "server": Sick,
        "child": gpool.ChildSpec("sick", Sick.start_link),
    }[kind]  # fmt: skip
    pool: gpool.Pool[Any] = gpool.Pool(worker, size=3, name="sick")
    waiters: list[Holder] = []

    def heal() -> None:
        nonlocal failures
        failures = 0

    steps = {
        "starts": pool.start, "heals": heal,
        "queues": lambda: waiters.append(Holder(pool, timeout=None)),
    }  # fmt: skip
    for name in order:
        steps[name]()
        clock.advance(20.0)
    assert len(tries) < 3 + 60  # at most one in 10 ms, then 20 ms ... 5 s
    clock.advance(5.0)
    assert waiters[0].thing is not None
    assert pool.stats().epoch == sibling.pool.stats().epoch == 1
    waiters[0].let_go()
    clock.advance(1.0)
    assert_whole(pool)
    assert not lease.lost
    lease.checkin()
    sibling.verify()
