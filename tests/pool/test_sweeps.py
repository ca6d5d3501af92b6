"""The promise, swept: whoever is struck, at whatever turn of the hub, no slot is lost.

Five clients share two workers; at the n-th time that the hub gets control
somebody is struck, for every n until the script is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest

import gpool
from gpool.pool.application import application
from gpool.testing import VirtualClock, settle
from tests.pool.workshop import AtTurn, Client, Echo, Maker, Thing, assert_whole

TREE = ["man", "worker_sup", "pool_sup", "pools_sup", "registry", "root"]
HOWS = ["kill", "foreign", "boom", "shutdown"]
KINDS = ["plain", "slow", "server"]
SIZE = 2


pytestmark = pytest.mark.usefixtures("quiet")


def session(pool: gpool.Pool[Any], number: int) -> None:
    """Use the pool in both forms."""
    for _ in range(2):
        with pool.checkout(timeout=60.0) as thing:
            use(thing, number)
        lease = pool.checkout(timeout=60.0)
        gevent.sleep(0)
        lease.checkin()


def use(thing: Any, number: int) -> None:
    """Work with what was lent."""
    if isinstance(thing, Thing):
        with thing.used():
            gevent.sleep(0)
    else:
        assert thing.say(number) == number


def yield_twice() -> None:
    """Take some turns of the hub."""
    gevent.sleep(0)
    gevent.sleep(0)


class Trial:
    """A pool and its clients, one of which may be the victim."""

    def __init__(self, clock: VirtualClock, name: str, kind: str = "plain", **options: Any) -> None:
        self.clock = clock
        self.maker = Maker()
        reset = {}
        if kind == "slow":
            reset["reset"] = self.maker.reset
            for script in (self.maker.creates, self.maker.resets, self.maker.closes):
                script.extend([yield_twice] * 100)
        worker: Any = Echo if kind == "server" else self.maker.resource(**reset)
        self.kind = kind
        self.pool: gpool.Pool[Any] = gpool.Pool(worker, size=SIZE, name=name, **options)
        self.clients: list[Client] = []
        self.struck: Client | None = None

    def run(self, turn: int, *strikes: Callable[[Trial], object]) -> bool:
        """Run the script, striking from the n-th turn on; tell whether it came to that."""
        todo = list(strikes)

        def strike() -> None:
            todo.pop(0)(self)
            at.done, at.left = not todo, 7

        at = AtTurn(turn, strike)
        with at:
            self.starter = Client(self.pool.start, None)
            settle()
            self.clients = [Client(session, self.pool, n) for n in range(5)]
            settle()
        self.clock.advance(50.0)
        return at.done

    def pid(self, victim: str) -> gpool.Pid | None:
        """Return the process that a victim has now."""
        ledger: Any = self.pool._ledger
        if ledger is None:
            return None
        match victim:
            case "client":
                self.struck = self.clients[3] if len(self.clients) > 3 else None
                return self.struck and self.struck.pid
            case "man":
                return ledger.man and ledger.man.pid
            case "worker_sup":
                return ledger.worker_sup
            case "pool_sup":
                return ledger.sup
            case "pools_sup":
                return application.pools_sup
            case "registry":
                return application.registry and application.registry.pid
            case "root":
                return application.root and application.root.pid
            case "booting":
                return application.booting
            case "worker":
                return next((slot.pid for slot in ledger.slots), None)
        raise AssertionError(victim)

    def verify(self) -> None:
        """Assert that everybody else was served, and the pool is whole."""
        assert self.starter.done
        assert self.starter.error is None
        for client in self.clients:
            if client is self.struck:
                continue
            assert client.done, (self.pool.stats(), self.pool._ledger)
            if self.kind == "server":
                lost = (gpool.LeaseLost, gpool.NoProcess, gpool.ServerExited, type(None))
                assert isinstance(client.error, lost), client.error
            else:
                assert client.error is None, client.error
        assert_whole(self.pool, None if self.kind == "server" else self.maker)
        self.pool.stop()
        settle()
        assert self.pool.status().state == "stopped"
        assert self.maker.open == 0
        assert self.maker.faults == []


def striking(victim: str, how: str) -> Callable[[Trial], None]:
    """Return what strikes a victim in that way."""

    def strike(trial: Trial) -> None:
        pid = trial.pid(victim)
        if pid is None:
            return
        if how == "foreign":
            greenlet: Any = pid.greenlet
            if greenlet is not None:
                gevent.get_hub().loop.run_callback(greenlet.throw, gevent.GreenletExit())
        elif how == "timeout":
            assert trial.struck is not None
            trial.struck.cut()
        else:
            gpool.exit(pid, how)

    return strike


def sweep(
    clock: VirtualClock, kind: str, *strikes: Callable[[Trial], object], **options: Any
) -> None:
    """Run one trial for every turn."""
    for turn in range(1, 500):
        trial = Trial(clock, f"trial-{turn}", kind, **options)
        try:
            struck = trial.run(turn, *strikes)
            trial.verify()
        except BaseException as error:
            error.add_note(f"struck at turn {turn}")
            raise
        if not struck:
            return
    raise AssertionError("the script never ends")


class TestClients:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("how", [*HOWS, "timeout"])
    def test_one_struck_at_any_turn(self, clock: VirtualClock, kind: str, how: str) -> None:
        """T1, T2, T5, T7: a client killed or timed out anywhere costs nobody anything."""
        sweep(clock, kind, striking("client", how))

    @pytest.mark.parametrize("kind", KINDS)
    def test_struck_together_with_the_manager(self, clock: VirtualClock, kind: str) -> None:
        """Two faults in one turn, and again a little later."""
        both = [striking("client", "kill"), striking("man", "kill")]

        def strike(trial: Trial) -> None:
            for one in both:
                one(trial)

        sweep(clock, kind, strike, strike)


class TestTree:
    @pytest.mark.parametrize(
        ("kind", "how"),
        [*[("plain", how) for how in HOWS], ("slow", "kill"), ("server", "kill")],
    )
    @pytest.mark.parametrize("victim", [*TREE, "worker", "booting"])
    def test_a_process_struck_at_any_turn(
        self, clock: VirtualClock, kind: str, how: str, victim: str
    ) -> None:
        """Rule 10: whatever falls, waiters keep their places and the pool is whole again."""
        sweep(clock, kind, striking(victim, how))

    @pytest.mark.parametrize("victim", [*TREE, "worker"])
    def test_a_process_struck_three_times(self, clock: VirtualClock, victim: str) -> None:
        """A second and a third blow fall while the first is being mended."""
        sweep(clock, "plain", *[striking(victim, "kill")] * 3)

    def test_everything_killed_at_any_turn(self, clock: VirtualClock) -> None:
        """A foreign killall of all greenlets but the clients' is mended too."""

        def strike(trial: Trial) -> None:
            spared = {client.pid for client in [trial.starter, *trial.clients]}
            for pid in gpool.processes():
                if isinstance(pid.greenlet, gevent.Greenlet) and pid not in spared:
                    gevent.get_hub().loop.run_callback(pid.greenlet.throw, gevent.GreenletExit())

        sweep(clock, "plain", strike)
