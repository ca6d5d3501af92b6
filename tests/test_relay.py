"""Relay: what was noted without a switch is carried later, where it may block."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpool
from gpool import Histogram, Measured, Metrics, Relay, telemetry
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.conftest import maker, own_application, quiet  # noqa: F401  # fixtures
from tests.pool.scenarios import SCENES, Stage
from tests.pool.workshop import Maker, no_switch

pytestmark = pytest.mark.usefixtures("quiet", "own_application")


class Exporter:
    """Adds up what is carried to it."""

    def __init__(self) -> None:
        self.counts: dict[Any, int] = {}  # name, labels -> sum
        self.seconds: dict[Any, float] = {}
        self.visits = 0
        self.gate: Gate | None = None  # where it blocks

    def carry(self, batch: list[Measured]) -> None:
        """Add."""
        self.visits += 1
        if self.gate is not None:
            self.gate.wait(None)
        for one in batch:
            key = (one.metric.name, one.labels)
            self.counts[key] = self.counts.get(key, 0) + one.count
            self.seconds[key] = self.seconds.get(key, 0.0) + sum(one.seconds)
            assert len(one.seconds) == (one.count if one.metric.kind == "histogram" else 0)

    def count(self, name: str) -> int:
        """Return a counter, over all labels."""
        return sum(count for (known, _), count in self.counts.items() if known == name)


@pytest.fixture
def exporter() -> Exporter:
    """Give an exporter that knows of nothing yet."""
    return Exporter()


@pytest.fixture
def relay(exporter: Exporter, clock: VirtualClock) -> Any:
    """A relay to it, attached."""
    relay = Relay(exporter.carry).attach()
    yield relay
    telemetry.detach(relay)


@pytest.fixture
def stage(clock: VirtualClock, maker: Maker) -> Stage:  # noqa: F811
    """Where scenes are played."""
    return Stage(clock, maker)


class TestWhatIsCarried:
    @pytest.mark.parametrize("name", SCENES)
    def test_is_what_metrics_count(
        self, name: str, stage: Stage, relay: Relay, exporter: Exporter
    ) -> None:
        """Every counter and every histogram, with the same labels, whatever happens."""
        with Metrics() as metrics:
            SCENES[name].play(stage)
            snapshot = metrics.snapshot()
            relay.flush()
        for sample in snapshot:
            key = (sample.metric.name, sample.labels)
            if isinstance(sample.value, Histogram):
                assert exporter.counts.get(key, 0) == sample.value.count, key
                assert exporter.seconds.get(key, 0.0) == pytest.approx(sample.value.sum)
            elif sample.metric.kind == "counter":
                assert exporter.counts.get(key, 0) == sample.value, key

    def test_is_not_lost_when_its_pool_stops(
        self, stage: Stage, relay: Relay, exporter: Exporter
    ) -> None:
        """Unlike the series of Metrics, which go with it."""
        pool = stage.pool(size=1)
        pool.checkout().checkin()
        pool.stop()
        relay.flush()
        assert exporter.count("checkins_total") == 1
        assert exporter.count("workers_died_total") == 1

    def test_counts_stale_checkins_once(
        self, stage: Stage, relay: Relay, exporter: Exporter
    ) -> None:
        """No event tells of them: the pool is asked; started again it begins at 0."""
        pool = stage.pool(size=1)
        for expected in (1, 2):
            lease = pool.checkout()
            lease.checkin()
            lease.checkin()
            relay.flush()
            relay.flush()
            assert exporter.count("stale_checkins_total") == expected
            pool.stop()
            pool.start()
            settle()


class TestWhen:
    def test_once_in_an_interval(
        self, clock: VirtualClock, stage: Stage, relay: Relay, exporter: Exporter
    ) -> None:
        """While a pool runs, whether something happens or not."""
        pool = stage.pool(size=1)
        clock.advance(0.9)
        assert exporter.visits == 0
        clock.advance(0.1)
        assert exporter.count("workers_started_total") == 1
        clock.advance(5.0)
        assert exporter.visits == 6
        pool.stop()
        clock.advance(1.0)
        assert clock.next_due() is None

    def test_of_a_crash_without_a_pool(
        self, clock: VirtualClock, relay: Relay, exporter: Exporter
    ) -> None:
        """An interval later, and then no more."""
        gpool.spawn(lambda: 1 / 0)
        settle()
        clock.advance(1.0)
        assert exporter.count("processes_crashed_total") == 1
        assert clock.next_due() is None

    def test_of_a_pool_that_was_there_before(
        self, clock: VirtualClock, stage: Stage, exporter: Exporter
    ) -> None:
        """The first interval begins when it is attached."""
        stage.pool(size=1)
        relay = Relay(exporter.carry, interval=0.5).attach()
        clock.advance(0.5)
        assert exporter.visits == 1
        relay.detach()
        assert exporter.visits == 2

    def test_the_rest_when_it_is_detached(
        self, stage: Stage, relay: Relay, exporter: Exporter
    ) -> None:
        """Nothing that was noted is lost; then nothing is noted."""
        pool = stage.pool(size=1)
        relay.detach()
        assert exporter.count("workers_started_total") == 1
        pool.checkout().checkin()
        relay.flush()
        assert exporter.count("checkouts_total") == 0

    def test_also_if_its_clock_has_gone(
        self, clock: VirtualClock, relay: Relay, exporter: Exporter
    ) -> None:
        """A timer that will not ring is replaced at the next event."""
        gpool.spawn(lambda: 1 / 0)
        settle()
        clock._timers.clear()
        clock.advance(2.5)
        gpool.spawn(lambda: 1 / 0)
        settle()
        clock.advance(1.0)
        assert exporter.count("processes_crashed_total") == 2

    def test_it_keeps_no_loop_alive(self) -> None:
        """A program that only waits for a tick is at its end, as gevent sees it."""
        program = (
            "import gevent, gpool\n"
            "relay = gpool.Relay(print).attach()\n"
            "relay(gpool.telemetry.CleanupFailed(None, ValueError()))\n"
            "try:\n    gevent.get_hub().switch()\n"
            "except gevent.hub.LoopExit:\n    print('over')\n"
        )
        path = str(Path(gpool.__file__).parents[1])
        said = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=20,
        ).stdout  # fmt: skip
        assert "over" in said


class TestNoSwitch:
    @pytest.fixture
    def busy(self, relay: Relay, exporter: Exporter, clock: VirtualClock) -> Gate:
        """An exporter whose lock somebody has."""
        exporter.gate = Gate()
        relay(telemetry.CleanupFailed(None, ValueError()))
        clock.advance(1.0)
        assert exporter.visits == 1
        return exporter.gate

    def test_of_checkouts_and_checkins(self, busy: Gate, stage: Stage, exporter: Exporter) -> None:
        """Nor do they wait while the exporter does."""
        pool = stage.pool(size=1)
        pool.checkout().checkin()
        settle()
        with no_switch():
            pool.checkout().checkin()
        busy.open()

    @pytest.mark.parametrize("kind", telemetry.EVENTS, ids=lambda kind: kind.__name__)
    def test_of_any_event(self, kind: Any, busy: Gate, relay: Relay) -> None:
        """The first one after a tick arms the timer, in the emitter's greenlet, too."""
        words = {"context": "shutdown", "hook": "reset", "reason": "timeout", "breaker": "open"}
        words |= {"chore": "reset", "pool": "db"}
        event = kind(**{name: words.get(name, 1) for name in kind.__dataclass_fields__})
        with no_switch():
            telemetry.emit(event)
        busy.open()

    def test_one_visit_at_a_time(
        self, busy: Gate, clock: VirtualClock, stage: Stage, exporter: Exporter
    ) -> None:
        """What happens while the exporter blocks waits for the next time."""
        stage.pool(size=1)
        clock.advance(3.0)
        assert exporter.visits == 1
        busy.open()
        clock.advance(1.0)
        assert exporter.count("workers_started_total") == 1


class TestFailure:
    def test_is_told(self, clock: VirtualClock, stage: Stage) -> None:
        """An exporter that raises harms nobody, and is asked again."""
        told: list[Any] = []
        relay = Relay(lambda batch: 1 // 0).attach()
        telemetry.attach(told.append)
        try:
            stage.pool(size=1)
            clock.advance(2.0)
        finally:
            telemetry.detach(told.append)
            telemetry.detach(relay)
        failures = [event for event in told if isinstance(event, telemetry.ListenerFailed)]
        assert [event.process for event in failures] == [relay, relay]

    def test_of_nobody_to_carry_is_bounded(self, exporter: Exporter) -> None:
        """The oldest measurements are lost, no count is."""
        relay = Relay(exporter.carry)
        event = telemetry.WorkerStarted(None, "db", 1.0)
        relay._noted["db", "start_seconds", ""] = noted = relay._note("db", "start_seconds", "")
        assert noted.seconds.maxlen == gpool.relay.KEPT
        relay(event)
        telemetry.detach(relay)

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            ({"carry": None}, TypeError),
            ({"interval": 0}, ValueError),
            ({"interval": "1"}, TypeError),
            ({"interval": None}, ValueError),
        ],
    )
    def test_of_bad_input_is_at_once(self, bad: dict[str, Any], error: type[Exception]) -> None:
        """Expected, and got."""
        with pytest.raises(error, match=r"expected .*, got"):
            Relay(**{"carry": print, **bad})


FORKS = """
import os, sys, warnings
{patch}
import gpool
from gevent import monkey
from gpool.testing import settle
if sys.version_info >= (3, 12):
    warnings.simplefilter("ignore", DeprecationWarning)
carried = []
relay = gpool.Relay(carried.extend).attach()
pool = gpool.Pool(gpool.Resource(create=list), size=1).start()
settle()
pid = os.fork()
if not pid:
    relay.flush()
    os._exit(len(carried))
_, status = monkey.get_original("os", "waitpid")(pid, 0)
relay.flush()
print(status, "workers_started_total" in [one.metric.name for one in carried])
"""


class TestFork:
    @pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"])
    def test_begins_with_nothing(self, patch: str) -> None:
        """What the parent has noted, the parent carries, once."""
        command = [sys.executable, "-W", "error", "-c", FORKS.format(patch=patch)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=25)
        assert (done.stdout, done.stderr) == ("0 True\n", "")
