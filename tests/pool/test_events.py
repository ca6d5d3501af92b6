"""DESIGN 4.13: every event that is declared is emitted, and none that is not."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

import pytest

import gpool
from gpool import telemetry
from gpool.pool import pool_state
from gpool.pool.slot import Slot
from gpool.telemetry import Event, ListenerFailed, PoolEvent
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.scenarios import (
    KINDS,
    SCENES,
    Stage,
    all_that_can_be_told,
    kind_of,
    manager_of,
    worker_of,
)
from tests.pool.workshop import AtTurn, Client, Echo, Holder, Maker, assert_whole, check

pytestmark = pytest.mark.usefixtures("quiet")

# Where a slot may go, and what tells of it: one of these is heard at the latest when all is quiet.
ENDS = {"checked_in", "LeaseReclaimed"}
EDGES: dict[tuple[str, str], set[str]] = {
    ("starting", "idle"): {"WorkerStarted"},
    ("starting", "busy"): {"WorkerStarted"},
    ("starting", "closing"): {"WorkerStopping"},
    ("idle", "busy"): {"checked_out"},
    ("idle", "resetting"): {"WorkerRecovered", "WorkerStopping"},
    ("idle", "closing"): {"WorkerStopping", "PoolFell"},
    ("busy", "idle"): ENDS,
    ("busy", "finishing"): ENDS,
    ("busy", "resetting"): ENDS,
    ("busy", "closing"): {"WorkerStopping"},
    ("busy", "lost"): {"WorkerDied", "PoolFell"},
    ("finishing", "idle"): {"WorkerRecovered"},
    ("finishing", "busy"): {"WorkerRecovered"},
    ("finishing", "closing"): {"WorkerStopping"},
    ("resetting", "idle"): {"WorkerRecovered"},
    ("resetting", "busy"): {"WorkerRecovered"},
    ("resetting", "closing"): {"WorkerStopping"},
    ("lost", "closing"): {"WorkerStopping"},
}


class Audience:
    """A meter that remembers everything."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.leases: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        """Remember an event."""
        self.events.append(event)

    def checked_out(self, lease: Any, now: float) -> None:
        """Count it."""
        assert lease.since == now
        assert lease.waited >= 0
        self.leases["checked_out"] += 1

    def checked_in(self, lease: Any, now: float) -> None:
        """Count it."""
        assert now >= lease.since
        self.leases["checked_in"] += 1

    def of(self, kind: type[Event]) -> list[Any]:
        """Return the events of one type."""
        return [event for event in self.events if type(event) is kind]

    @property
    def told(self) -> set[tuple[Any, str]]:
        """What it has heard: types and kinds of events, and the meters' calls."""
        told: set[tuple[Any, str]] = {(type(event), kind_of(event)) for event in self.events}
        return told | {(name, "") for name in self.leases}

    @property
    def names(self) -> set[str]:
        """The names of what it has heard."""
        return {event if isinstance(event, str) else event.__name__ for event, _ in self.told}


@pytest.fixture
def audience() -> Any:
    """Somebody who listens while the test runs."""
    audience = Audience()
    telemetry.attach(audience)
    yield audience
    telemetry.detach(audience)


@pytest.fixture
def stage(clock: VirtualClock, maker: Maker) -> Stage:
    """Where scenes are played."""
    return Stage(clock, maker)


@pytest.fixture
def trail(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every move of every slot."""
    trail: list[tuple[str, str]] = []
    field: Any = Slot.__dict__["state"]

    class Traced(Slot):
        """A slot that writes down where it goes."""

        __slots__ = ()

        def _go(self, state: str) -> None:
            before = getattr(self, "fate", None) and field.__get__(self)
            if before not in (None, state):
                trail.append((before, state))
            field.__set__(self, state)

        state: Any = property(field.__get__, _go)

    monkeypatch.setattr(pool_state, "Slot", Traced)
    return trail


class TestDeclared:
    def test_every_event_is_listed(self) -> None:
        """EVENTS holds every concrete event of telemetry.py, once, and nothing else."""
        defined = [
            value
            for value in vars(telemetry).values()
            if inspect.isclass(value) and issubclass(value, Event)
        ]
        assert sorted(telemetry.EVENTS, key=repr) == sorted(
            set(defined) - {Event, PoolEvent}, key=repr
        )
        assert len(set(telemetry.EVENTS)) == len(telemetry.EVENTS)

    def test_every_reason_is_explained(self) -> None:
        """The docstrings name each kind of reason."""
        for kind, words in KINDS.items():
            if kind not in (telemetry.ResourceClosed, telemetry.HeldTooLong, telemetry.HookFailed):
                text = f"{kind.__doc__} {inspect.getsource(telemetry)}"
                assert [word for word in words if f'"{word}"' not in text] == []

    def test_the_scenes_tell_all(self) -> None:
        """Each event, in each of its kinds, is sure to be told in some scene."""
        told = {pair for scene in SCENES.values() for pair in scene.tells}
        assert all_that_can_be_told() - told == set()
        assert told - all_that_can_be_told() == {("checked_out", ""), ("checked_in", "")}


@pytest.mark.parametrize("name", SCENES)
class TestEveryScene:
    def test_tells_what_it_should(self, stage: Stage, audience: Audience, name: str) -> None:
        """It brings about what it says, and nothing that is not declared."""
        SCENES[name].play(stage)
        settle()
        assert set(SCENES[name].tells) - audience.told == set()
        declared = all_that_can_be_told() | {("checked_out", ""), ("checked_in", "")}
        assert audience.told - declared == set()

    def test_tells_of_every_move(
        self, stage: Stage, audience: Audience, trail: list[tuple[str, str]], name: str
    ) -> None:
        """A slot moves along the edges that PoolState draws, and each move is told of."""
        SCENES[name].play(stage)
        settle()
        assert set(trail) - set(EDGES) == set()
        untold = {edge for edge in trail if not EDGES[edge] & audience.names}
        assert untold == set()

    def test_balances(self, stage: Stage, audience: Audience, name: str) -> None:
        """Each start and each lease that was told of is told the end of, once, if it has one."""
        SCENES[name].play(stage)
        settle()
        counts = Counter(type(event).__name__ for event in audience.events)
        revoked = sum(event.revoked for event in audience.of(telemetry.HeldTooLong))
        ended = audience.leases["checked_in"] + counts["LeaseReclaimed"] + counts["LeaseBroken"]
        running = [pool.stats() for pool in gpool.running_pools()]
        held = sum(stats.busy + stats.lost for stats in running)
        assert audience.leases["checked_out"] == ended + revoked + held
        dead = counts["WorkerStartFailed"] + counts["WorkerDied"]
        alive = sum(stats.accounted - stats.lost for stats in running)
        assert counts["WorkerStarting"] == dead + alive


class TestAllScenes:
    def test_walk_every_edge(self, stage: Stage, trail: list[tuple[str, str]]) -> None:
        """The table above holds no edge that is none."""
        for scene in SCENES.values():
            scene.play(stage)
        assert set(trail) == set(EDGES)


class TestReasons:
    def test_of_one_that_was_told_to_go_while_it_was_lent(
        self, stage: Stage, audience: Audience
    ) -> None:
        """It dies in its client's hands; the lease is broken, not given back."""
        pool = stage.pool(Echo)
        client = Holder(pool)
        gpool.exit(worker_of(pool), "shutdown")
        settle()
        client.let_go()
        [broken] = audience.of(telemetry.LeaseBroken)
        assert (broken.process, broken.reason) == (client.pid, "shutdown")
        assert "_hold" in broken.line
        assert pool.stats().stale == 1


class TestWhoTells:
    def test_an_event_outlives_the_manager(self, stage: Stage, audience: Audience) -> None:
        """It falls before it has told: what was noted is told all the same, once."""
        pool = stage.pool()
        lease = pool.checkout()
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        gpool.exit(manager_of(pool), "kill")
        assert audience.of(telemetry.CheckoutFailed) == []
        settle()
        assert len(audience.of(telemetry.CheckoutFailed)) == 1
        assert len(audience.of(telemetry.PoolFell)) == 1
        lease.checkin()

    def test_while_nobody_is_in_charge(self, stage: Stage, audience: Audience) -> None:
        """A pool that has failed has no manager for a while: nobody waits for the next one."""
        pool = stage.pool(max_restarts=0)
        heir = gpool.spawn(gpool.receive)
        pool.checkout().transfer(heir)
        gpool.exit(manager_of(pool), "kill")
        settle()
        assert pool.stats().phase == "failed"
        gpool.exit(heir, "kill")
        settle()
        assert len(audience.of(telemetry.LeaseReclaimed)) == 1
        assert len(audience.of(telemetry.PoolFell)) == 1
        assert pool.stats().phase == "failed"

    def test_at_the_stop(self, stage: Stage, audience: Audience) -> None:
        """When stop() returns all has been told, and the end comes last, once; it is no fall."""
        pool = stage.pool(size=2)
        pool.stop()
        kinds = [type(event).__name__ for event in audience.events]
        assert kinds[-6:-1] == ["PoolClosing", *["WorkerStopping"] * 2, *["WorkerDied"] * 2]
        assert kinds[-1] == "PoolStopped"
        pool.stop()
        assert len(audience.of(telemetry.PoolStopped)) == 1
        assert audience.of(telemetry.PoolFell) == []

    def test_after_the_stop(self, stage: Stage, audience: Audience) -> None:
        """A resource that is still held is closed when it is let go, and that is told."""
        pool = stage.pool()
        client = Holder(pool)
        pool.stop(timeout=0)
        settle()
        [stopped] = audience.of(telemetry.PoolStopped)
        assert stopped.left == 1
        client.let_go()
        assert audience.leases["checked_in"] == 1
        assert len(audience.of(telemetry.ResourceClosed)) == 1

    def test_a_start_that_a_stop_cuts_short_has_not_failed(
        self, stage: Stage, audience: Audience
    ) -> None:
        """Nothing is wrong with its server: it is a death, and nobody is alarmed."""
        stage.maker.creates.append(Gate().wait)
        pool = stage.pool(size=1)
        pool.stop()
        assert audience.of(telemetry.WorkerStartFailed) == []
        assert len(audience.of(telemetry.WorkerDied)) == 1
        assert pool.stats().start_failures == 0

    @pytest.mark.parametrize("turn", range(1, 31))
    def test_whenever_the_manager_falls(self, stage: Stage, audience: Audience, turn: int) -> None:
        """Each lease and each start has one end, and each fall is told, at any moment."""
        pool = stage.pool(size=2, hooks={"reset": stage.maker.reset})
        with AtTurn(turn, lambda: gpool.exit(manager_of(pool), "kill")):
            clients = [Holder(pool) for _ in range(4)]
            clients[0].kill()
            for client in clients:
                client.let_go()
            settle()
        settle()
        assert_whole(pool, stage.maker)
        counts = Counter(type(event) for event in audience.events)
        ended = audience.leases["checked_in"] + counts[telemetry.LeaseReclaimed]
        assert audience.leases["checked_out"] == ended
        assert counts[telemetry.PoolFell] == counts[telemetry.PoolRose] - 1
        dead = counts[telemetry.WorkerDied] + pool.stats().accounted
        assert counts[telemetry.WorkerStarting] == dead


class Bad:
    """A meter that always fails."""

    def __call__(self, event: Event) -> None:
        """Fail."""
        raise KeyError(event)

    def checked_out(self, lease: Any, now: float) -> None:
        """Fail."""
        raise KeyError("checked_out")

    def checked_in(self, lease: Any, now: float) -> None:
        """Fail."""
        raise KeyError("checked_in")


@pytest.fixture
def bad() -> Any:
    """Somebody who fails while the test runs."""
    bad = Bad()
    telemetry.attach(bad)
    yield bad
    telemetry.detach(bad)


class TestListenersThatFail:
    @pytest.mark.parametrize("name", SCENES)
    def test_harm_nobody(self, stage: Stage, bad: Bad, audience: Audience, name: str) -> None:
        """Whatever happens, it happens all the same, is told the others, and they hear of it."""
        SCENES[name].play(stage)
        settle()
        assert set(SCENES[name].tells) - audience.told == set()
        assert all(failed.process is not audience for failed in audience.of(ListenerFailed))
        assert audience.of(ListenerFailed) or not gpool.running_pools()
        for pool in gpool.running_pools():
            if pool.healthy():
                check(pool)

    @pytest.mark.parametrize("waits", [False, True])
    def test_leave_the_client_its_lease(
        self, stage: Stage, bad: Bad, audience: Audience, waits: bool
    ) -> None:
        """It has its worker, on the fast path and after a wait, and gives it back."""
        pool = stage.pool()
        first = pool.checkout()
        if waits:
            client = Client(pool.transaction, lambda thing: thing)
            settle()
            first.checkin()
            settle()
            assert client.value is not None
        else:
            first.checkin()
            with pool.checkout() as thing:
                assert thing is not None
        calls = [f.exception.args[0] for f in audience.of(ListenerFailed) if f.event is None]
        assert calls.count("checked_out") == calls.count("checked_in") == 2
        assert_whole(pool, stage.maker)


class TestMeters:
    def test_jobs_are_leases_too(self, stage: Stage, audience: Audience) -> None:
        """Whoever dispatches borrows and gives back."""
        pool = stage.pool(Echo, size=2)
        assert pool.call(Echo.say, 1) == 1
        assert pool.map(Echo.say, [2, 3]) == [2, 3]
        assert pool.broadcast(Echo.say, 4) == [4, 4]
        pool.cast(Echo.say, 5)
        settle()
        assert audience.leases == {"checked_out": 6, "checked_in": 6}

    def test_a_grant_that_nobody_has_taken_is_no_checkout(
        self, stage: Stage, audience: Audience
    ) -> None:
        """Its client dies before it wakes: nothing was lent, and it was cancelled."""
        pool = stage.pool()
        holder = Holder(pool)
        waiting = Client(pool.checkout)
        settle()
        holder.gate.open()
        waiting.kill()
        settle()
        assert audience.leases == {"checked_out": 1, "checked_in": 1}
        assert [event.reason for event in audience.of(telemetry.CheckoutFailed)] == ["cancelled"]
        assert pool.stats().cancelled == 1
