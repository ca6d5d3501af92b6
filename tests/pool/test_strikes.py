"""Rule 1: an exception struck at every bytecode of every transition loses no slot.

What a signal handler raises, or a RecursionError, can come anywhere.  Each test
runs one transition again and again, and has its n-th bytecode raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

import gpool
from gpool import clock as clocks
from gpool.otp.signal import finish
from gpool.pool import lease as leases
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.lightning import Lightning
from tests.pool.workshop import Echo, Holder, Maker, assert_whole, check


class Scene:
    """A pool of two, and whoever is about to act."""

    def __init__(self, kind: str, clock: VirtualClock) -> None:
        self.clock = clock
        self.maker = Maker()
        hooks: dict[str, Any] = {"reset": self.maker.reset} if kind == "reset" else {}
        options: Any = {}
        if kind == "aging":
            hooks["is_dirty"] = lambda thing: False
            options = {"idle_timeout": 1000.0, "max_uses": 1000}
        self.is_server = kind == "server"
        worker: Any = Echo if self.is_server else self.maker.resource(**hooks)
        self.pool: gpool.Pool[Any] = gpool.Pool(worker, size=2, max_restarts=0, **options)
        self.pool.start()
        settle()
        self.ledger: Any = self.pool._ledger
        self.clients: list[Holder] = []
        self.lease: Any = None  # of whoever acts
        self.heir: gpool.Pid | None = None

    def hold(self) -> Holder:
        """Have another client hold a worker, or wait for one."""
        self.clients.append(Holder(self.pool, timeout=None))
        return self.clients[-1]

    def cold_checkout(self) -> Callable[[], object]:
        """Be about to borrow for the first time."""
        return self._borrow

    def warm_checkout(self) -> Callable[[], object]:
        """Be about to borrow on the fast path."""
        self.pool.checkout().checkin()
        settle()
        return self._borrow

    def _borrow(self) -> None:
        self.lease = self.pool.checkout()

    def empty_checkout(self) -> Callable[[], object]:
        """Be about to find nothing."""
        self.hold(), self.hold()
        return lambda: attempt(self.pool)

    def wait_in_vain(self) -> Callable[[], object]:
        """Be about to wait until the deadline."""
        self.hold(), self.hold()
        helper = gevent.spawn(self.clock.advance, 1.0)
        return lambda: attempt(self.pool, 1.0, helper)

    def wait_and_be_served(self) -> Callable[[], object]:
        """Be about to wait for what another one gives back."""
        holder = self.hold()
        self.hold()
        helper = gevent.spawn(holder.let_go)
        return lambda: attempt(self.pool, 1.0, helper)

    def checkin(self) -> Callable[[], object]:
        """Be about to give back."""
        self.lease = self.pool.checkout()
        return self.lease.checkin

    def checkin_to_a_waiter(self) -> Callable[[], object]:
        """Be about to give back while another waits."""
        self.lease = lease = self.pool.checkout()
        self.hold(), self.hold()
        return lease.checkin

    def leave(self) -> Callable[[], object]:
        """Be about to leave a `with` block."""
        self.lease = lease = self.pool.checkout()
        lease.__enter__()
        return lambda: lease.__exit__(None, None, None)

    def leave_by_error(self) -> Callable[[], object]:
        """Be about to leave a `with` block by an exception."""
        self.lease = lease = self.pool.checkout()
        error = ValueError()
        return lambda: lease.__exit__(ValueError, error, None)

    def discard(self) -> Callable[[], object]:
        """Be about to discard, while another waits."""
        self.lease = lease = self.pool.checkout()
        self.hold(), self.hold()
        return lease.discard

    def transfer(self) -> Callable[[], object]:
        """Be about to give another process a lease."""
        self.lease = lease = self.pool.checkout()
        self.heir = heir = gpool.spawn(gpool.receive)
        settle()
        return lambda: lease.transfer(heir)

    def give_up(self) -> Callable[[], object]:
        """Be about to stop waiting."""
        self.hold(), self.hold(), self.hold()
        [ticket] = self.ledger.queue.tickets()
        return lambda: self._as(ticket, self.ledger.queue.give_up)

    def give_up_granted(self) -> Callable[[], object]:
        """Be about to stop waiting when a worker has just been granted."""
        lease = self.pool.checkout()
        self.hold(), self.hold()
        lease.checkin()  # nobody has run since: the waiter does not know yet
        [ticket] = [it.ticket for it in self.ledger.clients.values() if it.ticket]
        return lambda: self._as(ticket, self.ledger.queue.give_up)

    def _as(self, ticket: Any, fn: Callable[[Any], object]) -> None:
        # The client itself is asleep: it will find that it has left.
        ticket.error = gpool.PoolClosed("gone")
        ticket.wake()
        fn(ticket)

    def _lease_of(self, holder: Holder) -> Any:
        [client] = [c for c in self.ledger.clients.values() if c.pid is holder.pid]
        return next(iter(client.leases))

    def client_dies(self) -> Callable[[], object]:
        """Be about to die with a worker, while another waits."""
        self.heir = heir = gpool.spawn(gpool.receive)
        self.pool.checkout().transfer(heir)
        self.hold(), self.hold()
        return lambda: finish(heir, "killed")

    def worker_is_doomed(self) -> Callable[[], object]:
        """Be about to have an idle worker killed."""
        [pid, *_] = [slot.pid for slot in self.ledger.slots]
        return lambda: gpool.exit(pid, "kill")

    def worker_dies(self) -> Callable[[], object]:
        """Be about to be told of the death of a worker that is held, while another waits."""
        holder = self.hold()
        self.hold(), self.hold()
        slot = self._lease_of(holder).slot
        pid = slot.pid

        def act() -> None:
            finish(pid, "killed")

        return act

    def retry(self) -> Callable[[], object]:
        """Be about to try another start, after a backoff."""
        self.maker.creates.append(OSError("down"))
        self.pool.checkout().discard()
        settle()
        return self.ledger.man.housekeeper.retry  # type: ignore[no-any-return]

    def overdue(self) -> Callable[[], object]:
        """Be about to stop a worker that does not finish."""
        lease = self.pool.checkout()
        slot = lease.slot
        assert slot is not None
        if self.is_server:
            lease.worker.work(Gate())
            lease.checkin()

        def act() -> None:
            if self.ledger.man is not None:
                self.ledger.man._overdue(slot)

        self.again = act  # a timer that is struck before it has begun is lost
        return act

    def again(self) -> None:
        """Do what was to be done, if it came to nothing."""

    def verify(self) -> None:
        """Assert that nothing is lost, and nobody is to blame."""
        self.again()
        self.clock.advance(1.0)  # a start may have been backing off
        check(self.pool)
        if self.lease is not None:
            self.lease.checkin()  # struck before it began, it may be given back still
        if self.heir is not None:
            gpool.exit(self.heir, "kill")
        for client in self.clients:
            client.let_go()
        both = [self.hold(), self.hold()]  # what was dropped is found when somebody waits
        assert all(client.thing for client in both), self.ledger.slots
        for client in both:
            client.let_go()
        assert self.pool.stats().phase == "up", "the intensity was charged"
        assert_whole(self.pool, None if self.is_server else self.maker)
        self.pool.stop()
        assert self.maker.open == 0


def attempt(pool: gpool.Pool[Any], timeout: float = 0, *helpers: object) -> None:
    """Check out, or not."""
    try:
        pool.checkout(timeout=timeout).checkin()
    except gpool.CheckoutTimeout:
        return


SCENES = [
    name for name, fn in vars(Scene).items()
    if callable(fn) and not name.startswith("_") and name not in ("hold", "verify", "again")
]  # fmt: skip


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("act", "kind"),
    [
        *[(act, "plain") for act in SCENES if act != "overdue"],
        *[(act, "server") for act in SCENES if act.endswith(("client_dies", "_granted"))],
        ("overdue", "server"),
        *[(act, "aging") for act in ("warm_checkout", "checkin", "checkin_to_a_waiter", "leave")],
        *[(act, "reset") for act in SCENES if act in ("checkin_to_a_waiter", "leave_by_error")],
    ],
)
def test_struck_at_every_bytecode(clock: VirtualClock, act: str, kind: str) -> None:
    """Rule 1: the epoch closes, the caller keeps its exception, the pool is whole again."""
    for bytecode in range(1, 5000):
        scene = Scene(kind, clock)
        fn = getattr(scene, act)()
        try:
            struck = Lightning(bytecode).run(fn)
            del fn
            scene.verify()
        except BaseException as error:
            error.add_note(f"struck at bytecode {bytecode}")
            raise
        if not struck:
            return
    raise AssertionError("it never ends")


class TestUse:
    """A signal handler, or a finalizer, that uses the pool: between two calls, as they run."""

    @pytest.fixture
    def pool(self, clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
        """A pool of one that has met this client, for whom nothing is left if it is taken."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, timeout=0)
        pool.start()
        settle()
        pool.checkout().checkin()
        return pool

    def strike(
        self, patch: pytest.MonkeyPatch, module: Any, name: str, handler: Callable[[], object]
    ) -> None:
        """Have the handler run at the end of the next call of a function."""
        function = getattr(module, name)

        def struck() -> Any:
            patch.setattr(module, name, function)
            handler()
            return function()

        patch.setattr(module, name, struck)

    def test_takes_the_last_worker(
        self, pool: gpool.Pool[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is none left for whom it interrupted: no error of the books."""
        taken: list[Any] = []
        self.strike(monkeypatch, clocks, "now", lambda: taken.append(pool.checkout()))
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout()
        taken.pop().checkin()
        assert (pool.stats().epoch, pool.stats().idle) == (1, 1)

    def test_closes_the_pool(self, pool: gpool.Pool[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a SIGTERM: refused like whoever comes later."""
        self.strike(monkeypatch, clocks, "now", pool.close)
        with pytest.raises(gpool.PoolClosed):
            pool.checkout()
        assert pool.stats().epoch == 1

    def test_gives_back_what_is_being_given_back(
        self, pool: gpool.Pool[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once more is a counted no-op, here too."""
        lease = pool.checkout()
        self.strike(monkeypatch, leases, "getcurrent", lease.checkin)
        lease.checkin()
        assert (pool.stats().stale, pool.stats().epoch, pool.stats().idle) == (1, 1, 1)
