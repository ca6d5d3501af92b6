"""The promise, swept: whoever is struck, at whatever switch point, no slot is lost.

A scene (``scenes.py``) is played once to see who is there at each turn of the hub,
which is where greenlets switch.  Then it is played again for each of them, at each of
these turns, in each way: the sweep is enumerated, not sampled, and its count is
printed.  After each trial the pool is whole, without time having passed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import gevent
import pytest

import gpool
from gpool.testing import VirtualClock
from tests.pool.scenes import SCENES, SESSION, Act, Scene, Stage
from tests.pool.workshop import AtTurn

CLIENTS = ["actor", "holder", "waiter", "heir", "job"]
WORKERS = ["worker", "other worker", "man", "worker_sup"]
TREE = ["pool_sup", "pools_sup", "registry", "root", "booting"]

Blow = tuple[str, str]  # a victim, and how it is struck

COUNT: Counter[str] = Counter()  # trials, by scene

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module", autouse=True)
def count(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print how many trials there were."""
    COUNT.clear()
    yield
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\nkill sweep: {COUNT.total()} trials of {len(COUNT)} scenes")


class Strike:
    """Strikes victims, one blow after the other, from the n-th turn on.

    Args:
        stage: Where.
        blows: Who is struck and how; one that strikes a victim again falls in its
            clean-up after the first, or misses.
        turn: The hub gets control for the n-th time.
        delay: Turns from one blow to the next.
        goes_on: Whether the successor of a victim that is dead is struck in its place.
    """

    def __init__(
        self, stage: Stage, blows: Iterable[Blow], turn: int, delay: int, *, goes_on: bool
    ) -> None:
        self.stage, self.blows = stage, list(blows)
        self.delay, self.goes_on = delay, goes_on
        self.struck: dict[str, gpool.Pid] = {}  # who each victim was when it was first struck
        self.at = AtTurn(turn, self._strike)
        self.misses = 0

    def play(self, act: Act | None) -> bool:
        """Play the scene; tell whether all blows have hit."""
        with self.at:
            self.stage.play(act)
        return not self.misses and not self.blows

    def _strike(self) -> None:
        victim, way = self.blows.pop(0)
        pid = self.struck.get(victim) or self.stage.pid(victim)
        if pid is not None and pid.state == "dead" and self.goes_on:
            pid = self.stage.pid(victim)
        if pid is not None and pid.state != "dead" and hit(pid, way):
            self.struck[victim] = pid
        else:
            self.misses += 1
        if self.blows:
            self.at.again(self.delay)


def hit(pid: gpool.Pid, way: str) -> bool:
    """Strike a process, in the hub; False if it hibernates, and there is no greenlet to strike."""
    greenlet: Any = pid.greenlet
    if greenlet is None and way in ("foreign", "timeout"):
        return False
    match way:
        case "foreign":
            gevent.get_hub().loop.run_callback(greenlet.throw, gevent.GreenletExit())
        case "timeout":
            gevent.get_hub().loop.run_callback(_cut, greenlet)
        case _:
            gpool.exit(pid, way)
    return True


def _cut(greenlet: Any) -> None:
    if not greenlet.dead:
        greenlet.throw(gevent.Timeout())


class Sweep:
    """All trials of one scene on one kind of pool."""

    def __init__(self, clock: VirtualClock, scene: Scene, kind: str) -> None:
        self.clock, self.scene, self.kind = clock, scene, kind
        self.number = 0  # of trials that were set up

    def set_up(self) -> tuple[Stage, Act | None]:
        """Set the scene up once more."""
        random.seed(0)  # the jitter of backoffs and ages
        self.number += 1
        name = f"{self.scene.name}-{self.number}"
        stage = Stage(self.clock, name, self.kind, **self.scene.options)
        return stage, self.scene.set_up(stage)

    def who_is_there(self, victims: list[str]) -> list[list[str]]:
        """Play it undisturbed, and return who of the victims was there at each turn."""
        stage, act = self.set_up()
        there: list[list[str]] = []

        def look() -> None:
            there.append([victim for victim in victims if stage.pid(victim) is not None])
            at.again(1)

        with AtTurn(1, look) as at:
            stage.play(act)
        stage.verify(self.scene, [])
        return there

    def run(self, victims: list[str], ways_of: Callable[[str], list[list[str]]]) -> None:
        """Strike each victim at each turn, in each way.

        If a way has several blows, their delay is swept, too, until one misses.
        """
        for turn, there in enumerate(self.who_is_there(victims), 1):
            for victim in there:
                for way in ways_of(victim):
                    blows, delay = [(victim, how) for how in way], 1
                    while self.trial(blows, turn, delay) and len(way) > 1:
                        delay += 1

    def trial(self, blows: list[Blow], turn: int, delay: int, *, goes_on: bool = False) -> bool:
        """Play it once, and see that all is well; tell whether all blows have hit."""
        stage, act = self.set_up()
        strike = Strike(stage, blows, turn, delay, goes_on=goes_on)
        try:
            has_hit = strike.play(act)
            stage.verify(self.scene, strike.struck.values())
        except BaseException as error:
            error.add_note(f"{self.scene.name}: {blows} at turn {turn} and {delay} later")
            raise
        assert strike.struck or not has_hit
        COUNT[self.scene.name] += 1
        return has_hit


@pytest.mark.parametrize(
    ("scene", "kind"),
    [pytest.param(s, kind, id=f"{s.name}-{kind}") for s in SCENES for kind in s.kinds],
)
def test_struck_at_every_turn(clock: VirtualClock, scene: Scene, kind: str) -> None:
    """Clients, workers and managers: by kill, gevent.Timeout, and a kill in the clean-up."""

    def ways_of(victim: str) -> list[list[str]]:
        cut = "timeout" if victim in CLIENTS else "foreign"
        if kind == "slow":  # a clean-up takes turns; the last delay has but the first blow hit
            return [["kill"], [cut, "kill"]]
        return [["kill"], ["foreign"], *([["timeout"]] if victim in CLIENTS else [])]

    Sweep(clock, scene, kind).run([*CLIENTS, *WORKERS], ways_of)


class TestSession:
    """A whole life, from the pool's start on, and the tree that the pool lives in."""

    @pytest.mark.parametrize("kind", SESSION.kinds)
    def test_struck_at_every_turn(self, clock: VirtualClock, kind: str) -> None:
        """Rule 10: whatever falls, waiters keep their places and the pool is whole again."""

        def ways_of(victim: str) -> list[list[str]]:
            ways = (
                [["kill"], ["foreign"], ["boom"], ["shutdown"]] if kind == "plain" else [["kill"]]
            )
            return [*ways, ["timeout"]] if victim == "client 3" else ways

        Sweep(clock, SESSION, kind).run(["client 3", *WORKERS, *TREE], ways_of)

    @pytest.mark.parametrize("kind", SESSION.kinds)
    def test_a_client_struck_together_with_the_manager(
        self, clock: VirtualClock, kind: str
    ) -> None:
        """Two faults in a row, in both orders."""
        sweep, blows = Sweep(clock, SESSION, kind), [("client 3", "kill"), ("man", "kill")]
        for turn in range(1, len(sweep.who_is_there([])) + 1):
            sweep.trial(blows, turn, 1)
            sweep.trial(blows[::-1], turn, 1)

    @pytest.mark.parametrize("victim", [*TREE, "worker", "man", "worker_sup"])
    def test_a_process_struck_three_times(self, clock: VirtualClock, victim: str) -> None:
        """A second and a third blow fall while the first is being mended."""
        sweep = Sweep(clock, SESSION, "plain")
        for turn in range(1, len(sweep.who_is_there([])) + 1):
            sweep.trial([(victim, "kill")] * 3, turn, 7, goes_on=True)

    def test_everything_killed_at_any_turn(self, clock: VirtualClock) -> None:
        """A foreign killall of all greenlets but the clients' is mended too."""
        sweep = Sweep(clock, SESSION, "plain")
        for turn in range(1, len(sweep.who_is_there([])) + 1):
            stage, act = sweep.set_up()
            with AtTurn(turn, partial(_kill_all_but, stage)):
                stage.play(act)
            stage.verify(SESSION, [])
            COUNT[SESSION.name] += 1


def _kill_all_but(stage: Stage) -> None:
    """Kill whatever is not a client."""
    spared = {client.pid for client in stage.cast.values()}
    for pid in gpool.processes():
        if isinstance(pid.greenlet, gevent.Greenlet) and pid not in spared:
            hit(pid, "foreign")
