"""What the tests of the pool lend, who borrows it, and how they look for harm.

>>> maker = Maker()
>>> with gpool.Pool(maker.resource(), size=1) as pool, pool.checkout() as thing, thing.used():
...     check(pool)
>>> maker.faults, maker.open, maker.peak
([], 0, 1)
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import gevent
import greenlet

import gpool
from gpool import telemetry
from gpool.pool import lease
from gpool.testing import VirtualClock, settle
from gpool.waiter import Expired, Gate

IS_PURE = gevent.Greenlet.__module__ == "gevent.greenlet"  # PURE_PYTHON: not compiled

# --- What is lent -------------------------------------------------------------------


class Thing:
    """One resource; it notices when two use it at once, or one that is closed."""

    def __init__(self, maker: Maker, number: int) -> None:
        self.maker = maker
        self.number = number
        self.closed = False
        self.dirty = False
        self.resets = 0
        self.user: Any = None  # who uses it now

    @contextlib.contextmanager
    def used(self) -> Iterator[Thing]:
        """Be in somebody's hands."""
        if self.user is not None or self.closed:
            self.maker.faults.append(("used", self, self.user))
        self.user = me = object()
        try:
            yield self
        finally:
            if self.user is not me or self.closed:
                self.maker.faults.append(("taken away", self, self.user))
            self.user = None

    def __repr__(self) -> str:
        return f"<Thing {self.number}>"


class Maker:
    """Makes things; each of its steps follows a script, and is well once that is used up.

    A step that is an exception is raised, one that can be called is called.
    """

    def __init__(self) -> None:
        self.made: list[Thing] = []  # oldest first
        self.open = self.peak = 0  # things that a server would see
        self.faults: list[Any] = []  # what must never happen
        self.creates: deque[Any] = deque()
        self.resets: deque[Any] = deque()
        self.checks: deque[Any] = deque()
        self.closes: deque[Any] = deque()
        self.connects = 0  # creates begun
        self.checked: list[Thing] = []  # in the order of their checks

    def resource(self, **hooks: Any) -> gpool.Resource[Thing]:
        """Return the resource that this makes."""
        return gpool.Resource(create=self.create, close=self.close, **hooks)

    def create(self) -> Thing:
        """Make a thing."""
        self.connects += 1
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            _follow(self.creates)
        except BaseException:
            self.open -= 1
            raise
        thing = Thing(self, len(self.made) + 1)
        self.made.append(thing)
        return thing

    def reset(self, thing: Thing) -> None:
        """Make a thing fit for the next one."""
        if thing.user is not None or thing.closed:
            self.faults.append(("reset", thing, thing.user))
        _follow(self.resets)
        thing.resets += 1

    def check(self, thing: Thing) -> Any:
        """Find out whether a thing is alive: a step of the script is the answer."""
        if thing.user is not None or thing.closed:
            self.faults.append(("checked", thing, thing.user))
        self.checked.append(thing)
        return _follow(self.checks)

    def close(self, thing: Thing) -> None:
        """End a thing."""
        if thing.closed or thing.user is not None:
            self.faults.append(("closed", thing, thing.user))
        _follow(self.closes)
        thing.closed = True
        self.open -= 1


def _follow(script: deque[Any]) -> Any:
    step = script.popleft() if script else None
    if isinstance(step, BaseException):
        raise step
    return step() if callable(step) else step


class Echo(gpool.GenServer):
    """A server that answers at once, or when a gate opens."""

    starts: ClassVar[deque[Any]] = deque()  # script of its `init`s

    def init(self) -> None:
        """Start as the script says."""
        _follow(self.starts)

    @gpool.call(timeout=None)
    def say(self, value: Any, gate: Gate | None = None) -> Any:
        """Answer with `value`."""
        if gate is not None:
            gate.wait()
        return value

    @gpool.cast
    def work(self, gate: Gate) -> None:
        """Be busy until the gate opens."""
        gate.wait()

    @gpool.call
    def crash(self) -> None:
        """Die of an error."""
        raise ValueError("crashed")


# --- What takes time ----------------------------------------------------------------


def pause(seconds: float) -> None:
    """Block for so long, by gpool's clock."""
    with contextlib.suppress(Expired):
        Gate().wait(seconds)


def takes(seconds: float, outcome: Any = None) -> Callable[[], Any]:
    """Return a step of a script that takes its time, then is what a step may be."""

    def step() -> Any:
        pause(seconds)
        return _follow(deque([outcome]))

    return step


# --- Who borrows --------------------------------------------------------------------


class Client:
    """A process that runs `fn`, because that may block; it keeps what came of it."""

    def __init__(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.done = False
        self.value: Any = None  # what it returned
        self.error: BaseException | None = None  # what it raised
        self.pid = gpool.spawn(self._run, fn, args, kwargs)

    def _run(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            self.value = fn(*args, **kwargs)
        except (Exception, gevent.Timeout) as error:  # noqa: BLE001  # the test will ask
            self.error = error
        finally:
            self.done = True

    def kill(self) -> None:
        """Have it killed; that takes until the hub next runs."""
        gpool.exit(self.pid, "kill")

    def cut(self) -> gevent.Timeout:
        """Have a gevent.Timeout fire in it, at the hub's next turn."""
        timeout = gevent.Timeout()
        gevent.get_hub().loop.run_callback(self._throw, timeout)
        return timeout

    def _throw(self, timeout: gevent.Timeout) -> None:
        target = self.pid.greenlet
        if target is not None and not target.dead:
            target.throw(timeout)


class Holder(Client):
    """A client that checks out, and checks in when it is told to."""

    def __init__(self, pool: gpool.Pool[Any], timeout: float | None = 5.0) -> None:
        self.pool = pool
        self.timeout = timeout
        self.lease: Any = None
        self.thing: Any = None
        self.gate = Gate()
        super().__init__(self._hold)
        settle()

    def _hold(self) -> Any:
        with self.pool.checkout(timeout=self.timeout) as self.thing:
            if isinstance(self.thing, Thing):
                with self.thing.used():
                    self.gate.wait()
            else:
                self.gate.wait()
        return self.thing

    def let_go(self) -> None:
        """Have it check in."""
        self.gate.open()
        settle()


# --- What they borrow from ----------------------------------------------------------


def running(worker: Any, **options: Any) -> gpool.Pool[Any]:
    """Return a running pool whose workers are up, if they start at all."""
    pool: gpool.Pool[Any] = gpool.Pool(worker, **options)
    pool.start()
    settle()
    return pool


def use(pool: gpool.Pool[Any]) -> Any:
    """Have a client check out and in; return what it got."""
    client = Client(_use, pool)
    settle()
    assert client.done
    if client.error is not None:
        raise client.error
    return client.value


def _use(pool: gpool.Pool[Any]) -> Any:
    with pool.checkout() as thing:
        return thing


def pids(pool: gpool.Pool[Any]) -> Tree:
    """Return the processes of a pool's tree."""
    ledger: Any = pool._ledger
    workers = [slot.pid for slot in ledger.slots if slot.pid is not None]
    return Tree(ledger.sup, ledger.man and ledger.man.pid, ledger.worker_sup, workers)


class Tree(NamedTuple):
    """The processes of a pool."""

    sup: Any
    man: Any
    worker_sup: Any
    workers: list[Any]


def fall(pool: gpool.Pool[Any], who: str = "man") -> None:
    """Have PoolMan or WorkerSup die, and all be mended."""
    gpool.exit(getattr(pids(pool), who), "kill")
    settle()


class Events(list[Any]):
    """What listeners hear."""

    def __enter__(self) -> Events:
        telemetry.attach(self.append)
        return self

    def __exit__(self, *exc: object) -> None:
        telemetry.detach(self.append)

    def of(self, kind: type) -> list[Any]:
        """Return those of one kind."""
        return [event for event in self if isinstance(event, kind)]

    def why(self) -> list[Any]:
        """Return why workers had to go."""
        return [event.reason for event in self.of(telemetry.WorkerStopping)]


def clients_of(pid: gpool.Pid) -> list[Any]:
    """Return the clients, each of one pool, that hear of a process's death."""
    return [one for one in lease.keepers_of(pid) if isinstance(one, lease.Client)]


# --- Looking for harm ---------------------------------------------------------------


def books(pool: gpool.Pool[Any]) -> Any:
    """Return the PoolState of whoever is in charge."""
    ledger: Any = pool._ledger
    assert ledger.man is not None, "nobody is in charge"
    return ledger.man.state


def check(pool: gpool.Pool[Any]) -> None:
    """Assert the invariants of the books, those between the tables included."""
    ledger: Any = pool._ledger
    man = ledger.in_charge()
    if man is not None:
        man.state.check()
        state, queue = man.state, ledger.queue
        tickets = [client.ticket for client in ledger.clients.values() if client.ticket]
        assert queue.line is state.waiting
        assert set(queue.tickets()) == {ticket for ticket in tickets if ticket.still_waits}
        is_up = not state.held_up and ledger.phase == "up"
        is_free = is_up and not state.waiting.length
        assert not ledger.idle or (is_free and ledger.idle is state.idle.row)
        if ledger.line is not None:  # to be written to as it is: nobody can be served or started
            assert ledger.line is queue.line
            assert is_up
            assert ledger.line.length
            assert not state.idle.count
            assert state.is_full
        if ledger.back is not None:
            assert not state.held_up
            assert (ledger.back[0] == man.hand_over) == bool(state.waiting.length)
    else:
        assert ledger.idle == ()
        assert ledger.back is None
        assert ledger.line is None
    held = {slot.lease for slot in ledger.slots if slot.lease is not None}
    known = {lease for client in ledger.clients.values() for lease in client.leases}
    assert held == known, (held, known)
    for key, client in ledger.clients.items():
        assert key in (client.pid, client.greenlet)
        assert client in clients_of(client.pid)
        assert client.pid.state != "dead"
        assert client.ledger is ledger


def assert_whole(pool: gpool.Pool[Any], maker: Maker | None = None) -> None:
    """Assert that nothing is lost: all `size` workers can be lent, at once, again."""
    settle()
    check(pool)
    ledger: Any = pool._ledger
    assert not any(client.ticket for client in ledger.clients.values())
    assert ledger.held == 0, ledger.slots
    size = ledger.options.size
    leases = []
    for _ in range(size):
        client = Client(pool.checkout, timeout=None)
        leases.append(client)
        settle()
        # Its death reclaims it at once; what counts is that it was served.
        assert client.done, (pool.stats(), ledger.slots)
        assert client.error is None, client.error
    check(pool)
    assert len(ledger.slots) <= ledger.options.cap
    if maker is not None:
        assert maker.faults == []
        assert maker.open == len(ledger.slots), (maker.open, ledger.slots)
        assert maker.peak <= ledger.options.cap


def pass_time(clock: VirtualClock, seconds: float) -> None:
    """Let time pass in small steps, so that whoever backs off gets its turns."""
    clock.advance(seconds)


# --- Striking at a chosen moment ----------------------------------------------------


class AtTurn:
    """Does something when the hub gets control for the n-th time.

    The action runs in the hub's greenlet, between two others' turns.
    """

    def __init__(self, turn: int, action: Callable[[], object]) -> None:
        self.left = turn
        self.action = action
        self.done = False

    def again(self, turns: int) -> None:
        """Do it once more, so many turns later."""
        self.done, self.left = False, turns

    def __enter__(self) -> AtTurn:
        self._hub = gevent.get_hub()
        self._before = greenlet.settrace(self._trace)
        return self

    def __exit__(self, *exc: object) -> None:
        greenlet.settrace(self._before)

    def _trace(self, event: str, pair: Any) -> None:
        if pair[1] is self._hub and not self.done:
            self.left -= 1
            if self.left <= 0:
                self.done = True
                self.action()


@contextlib.contextmanager
def no_switch() -> Iterator[None]:
    """Fail if the running greenlet switches."""
    seen: list[Any] = []
    before = greenlet.settrace(lambda event, pair: seen.append((event, pair)))
    try:
        yield
    finally:
        greenlet.settrace(before)
    assert seen == []
