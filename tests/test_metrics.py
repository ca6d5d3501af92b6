"""Counters, gauges and histograms: what telemetry tells, added up."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from typing import Any, get_args

import pytest

import gpool
from gpool import METRICS, Histogram, Metric, Metrics, telemetry
from gpool.metric_catalogue import STOP_REASONS, stop_reason
from gpool.pool.slot import SlotState
from gpool.testing import VirtualClock, settle
from tests.pool.conftest import maker, own_application, quiet  # noqa: F401  # fixtures
from tests.pool.scenarios import SCENES, Stage, manager_of
from tests.pool.workshop import Client, Echo, Holder, Maker

pytestmark = pytest.mark.usefixtures("quiet", "own_application")


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    """Metrics that are attached."""
    with Metrics() as metrics:
        yield metrics


@pytest.fixture
def stage(clock: VirtualClock, maker: Maker) -> Stage:  # noqa: F811
    """Where scenes are played."""
    return Stage(clock, maker)


def nonzero(metrics: Metrics) -> set[str]:
    """Return the names of the metrics that have counted or measured something."""
    return {
        sample.metric.name
        for sample in metrics.snapshot()
        if (sample.value.count if isinstance(sample.value, Histogram) else sample.value)
    }


class TestDeclared:
    def test_names(self) -> None:
        """They end in the unit, counters in _total; each one is there once."""
        names = [metric.name for metric in METRICS]
        assert len(set(names)) == len(names)
        for metric in METRICS:
            assert metric.name.endswith("_total") == (metric.kind == "counter")
            assert metric.name.endswith("_seconds") == (metric.unit == "seconds")
            assert metric.kind != "histogram" or metric.unit == "seconds"
            assert metric.help
            assert "." not in metric.help

    def test_labels(self) -> None:
        """The pool's, and at most one more, which is a closed set."""
        for metric in METRICS:
            assert ("pool" in metric.labels) != metric.is_global
            assert set(metric.labels) <= {"pool", "reason", "state"}
            assert bool(metric.label) == (metric.values != ("",))
            assert len(set(metric.values)) == len(metric.values)

    def test_nothing_is_there_that_is_not_declared(self, stage: Stage, metrics: Metrics) -> None:
        """One sample for each metric and each value of its label, whatever has happened."""
        SCENES["fall"].play(stage)
        expected = [(metric.name, value) for metric in METRICS for value in metric.values]
        found = [
            (sample.metric.name, dict(sample.labels).get(sample.metric.label, ""))
            for sample in metrics.snapshot()
        ]
        assert sorted(found) == sorted(expected)

    def test_each_metric_is_moved_by_some_scene(self, stage: Stage, metrics: Metrics) -> None:
        """None is declared that nothing can ever move; each member of a label neither."""
        moved: set[str] = set()
        for scene in SCENES.values():
            scene.play(stage)
            settle()
            moved |= nonzero(metrics)
        holder = Holder(stage.pool(max_overflow=1))
        others = [Holder(holder.pool) for _ in range(2)]
        holder.pool.suspend()
        stage.clock.advance(1.0)
        lease = stage.pool().checkout()
        lease.checkin()
        lease.checkin()
        moved |= nonzero(metrics)
        assert {metric.name for metric in METRICS} - moved == set()
        assert others
        for name in ("workers_stopping_total", "checkout_failures_total", "breaker_changes_total"):
            [metric] = [metric for metric in METRICS if metric.name == name]
            values = {
                value: metrics.value(None, name, **{metric.label: value}) for value in metric.values
            }
            values.pop("stopped", None)  # their series have gone with their pools
            assert all(values.values()), values

    def test_every_event_counts(self) -> None:
        """No event passes unnoticed, but PoolStopped, after which nobody would ask."""
        moves: set[type] = set()
        for kind in telemetry.EVENTS:
            series: Any = Metrics()._global if not issubclass(kind, telemetry.PoolEvent) else None
            series = series or gpool.metrics._Series((1.0,))
            before = str(dict(series.counts)) + str([b.counts for b in series.histograms.values()])
            series.take(_an(kind))
            after = str(dict(series.counts)) + str([b.counts for b in series.histograms.values()])
            moves |= {kind} if before != after else set()
        assert set(telemetry.EVENTS) - moves == {telemetry.PoolStopped}


def _an(kind: type) -> Any:
    """Return an event of a type, with some value in each field."""
    words = {
        "context": "shutdown", "hook": "reset", "reason": "timeout", "breaker": "open",
        "chore": "reset", "seconds": 0.5, "revoked": True, "gave_up": True,
    }  # fmt: skip
    return kind(**{field.name: words.get(field.name) for field in dataclasses.fields(kind)})


class TestStopReason:
    @pytest.mark.parametrize("kind", STOP_REASONS)
    def test_of_gpools_own(self, kind: str) -> None:
        """A word is itself, a tuple its first word."""
        facts = kind in ("owner_died", "left_by", "broken", "hook_failed")
        assert stop_reason((kind, ValueError()) if facts else kind) == kind

    @pytest.mark.parametrize("reason", ["no luck", None, 3, (), ("max_age", 1), object(), ["a"]])
    def test_of_what_discard_was_told(self, reason: Any) -> None:
        """Whatever it is, it makes no new series."""
        assert stop_reason(reason) == "discarded"


class TestHistograms:
    def test_wait(self, stage: Stage, metrics: Metrics) -> None:
        """Seconds that a client has waited; 0 on the fast path; no failure counts."""
        pool = stage.pool()
        first, second = Holder(pool), Holder(pool)
        stage.clock.advance(2.0)
        first.let_go()
        second.let_go()
        with pool.checkout(), pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        wait = metrics.histogram("db-1", "wait_seconds")
        assert (wait.count, wait.sum, wait.counts[0]) == (3, 2.0, 2)
        assert wait.counts[wait.bounds.index(2.5)] == 1

    def test_hold(self, stage: Stage, metrics: Metrics) -> None:
        """Seconds from the grant to the end, however it ended."""
        pool = stage.pool(Echo, size=4, max_hold=100.0, on_max_hold="revoke")
        lease = pool.checkout()  # given back after 1 s
        stage.clock.advance(1.0)
        lease.checkin()
        heir, crasher, holder = gpool.spawn(gpool.receive), pool.checkout(), Holder(pool)
        pool.checkout().transfer(heir)
        stage.clock.advance(2.0)
        gpool.exit(heir, "kill")  # reclaimed after 2 s
        stage.clock.advance(2.0)
        gpool.exit(crasher.worker.pid, "kill")  # broken after 4 s
        stage.clock.advance(96.0)  # revoked after 100 s
        holder.let_go()
        hold = metrics.histogram("db-1", "hold_seconds")
        assert hold.count == 4
        assert hold.sum == pytest.approx(1.0 + 2.0 + 4.0 + 100.0)
        kinds = ("checkins", "leases_reclaimed", "leases_broken", "leases_revoked")
        assert [metrics.value("db-1", f"{kind}_total") for kind in kinds] == [1, 1, 1, 1]
        assert metrics.value("db-1", "checkouts_total") == 4

    def test_start_and_recovery(self, stage: Stage, metrics: Metrics) -> None:
        """Seconds that a start, and that a reset took."""
        start, reset = gpool.waiter.Gate(), gpool.waiter.Gate()
        stage.maker.creates.append(start.wait)
        stage.maker.resets.append(reset.wait)
        pool = stage.pool(hooks={"reset": stage.maker.reset})
        stage.clock.advance(3.0)
        start.open()
        settle()
        pool.checkout().checkin()
        stage.clock.advance(0.25)
        reset.open()
        settle()
        assert metrics.histogram("db-1", "start_seconds").sum == 3.0
        recovery = metrics.histogram("db-1", "recovery_seconds", reason="reset")
        assert (recovery.count, recovery.sum) == (1, 0.25)
        assert metrics.histogram("db-1", "recovery_seconds", reason="check").count == 0

    def test_a_quantile_is_estimated(self) -> None:
        """Within a bucket evenly, as Prometheus does; above the last bound, that bound."""
        histogram = Histogram((1.0, 2.0, 4.0), (10, 10, 0, 0), 20.0)
        assert [histogram.quantile(q) for q in (0.0, 0.25, 0.5, 0.75, 1.0)] == [
            0.0, 0.5, 1.0, 1.5, 2.0,
        ]  # fmt: skip
        assert Histogram((1.0, 2.0), (0, 0, 5), 50.0).quantile(0.5) == 2.0
        assert Histogram((1.0, 2.0), (0, 4, 0), 50.0).quantile(0.5) == 1.5
        assert math.isnan(Histogram((1.0,), (0, 0), 0.0).quantile(0.5))
        with pytest.raises(ValueError, match=r"q: expected a share from 0 to 1, got 1\.5"):
            histogram.quantile(1.5)

    def test_a_value_on_a_bound_is_below_it(self) -> None:
        """A bound belongs to its bucket: "at most so many seconds"."""
        buckets = gpool.metrics._Buckets((1.0, 2.0))
        for seconds in (0.0, 1.0, 1.5, 2.0, 2.1):
            buckets.add(seconds)
        assert buckets.counts == [2, 2, 1]

    @pytest.mark.parametrize(
        "bounds", [(), (0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (-1.0,), (1.0, math.inf), (math.nan,)]
    )
    def test_bounds_have_to_grow(self, bounds: tuple[float, ...]) -> None:
        """Expected and got, at construction."""
        with pytest.raises(ValueError, match="bounds: expected seconds > 0 that grow, got"):
            Metrics(bounds)
        with pytest.raises(TypeError, match="bounds: expected seconds > 0 that grow, got '1'"):
            Metrics((0.5, "1"))  # type: ignore[arg-type]

    def test_bounds_can_be_chosen(self, stage: Stage) -> None:
        """For those whose work takes hours."""
        with Metrics((60.0, 3600.0)) as metrics:
            stage.pool().checkout().checkin()
            settle()
            assert metrics.histogram("db-1", "hold_seconds").bounds == (60.0, 3600.0)


class TestGauges:
    def test_are_read_from_stats(self, stage: Stage, metrics: Metrics) -> None:
        """They are of the moment of the snapshot."""
        pool = stage.pool(size=1, max_overflow=1)
        holders = [Holder(pool) for _ in range(3)]
        stage.clock.advance(2.0)
        pool.suspend()
        read = {
            name: metrics.value("db-1", name)
            for name in ("workers", "workers_overflow", "size", "max_overflow", "clients_waiting",
                         "oldest_wait_seconds", "suspended", "up")
        }  # fmt: skip
        assert list(read.values()) == [2, 1, 1, 1, 1, 2.0, 1, 1]
        states = {s: metrics.value("db-1", "workers", state=s) for s in get_args(SlotState)}
        assert states == dict.fromkeys(states, 0) | {"busy": 2}
        assert metrics.value("db-1", "breaker", state="closed") == 1
        assert metrics.value("db-1", "breaker", state="open") == 0
        assert len(holders) == 3

    def test_of_a_pool_that_has_failed(self, stage: Stage, metrics: Metrics) -> None:
        """It is there, and not up."""
        pool = stage.pool(max_restarts=0)
        gpool.exit(manager_of(pool), "kill")
        settle()
        assert metrics.value("db-1", "up") == 0
        assert metrics.value("db-1", "manager_falls_total") == 1
        assert metrics.value("db-1", "pool_failures_total") == 1


class TestSeries:
    def test_go_when_their_pool_is_stopped(self, stage: Stage, metrics: Metrics) -> None:
        """And no late news brings them back."""
        pool = stage.pool()
        client = Holder(pool)
        assert metrics.value("db-1", "checkouts_total") == 1
        pool.stop(timeout=0)
        client.let_go()
        assert metrics._pools == {}
        assert {dict(sample.labels).get("pool") for sample in metrics.snapshot()} == {None}
        with pytest.raises(gpool.UnknownPool):
            metrics.value("db-1", "checkouts_total")

    def test_go_when_whoever_stopped_it_was_killed(self, stage: Stage, metrics: Metrics) -> None:
        """The next look finds out."""
        pool = stage.pool()
        client = Holder(pool)
        stopper = Client(pool.stop)
        settle()
        stopper.kill()
        settle()
        metrics.snapshot()
        assert metrics._pools == {}
        client.let_go()
        assert metrics._pools == {}

    def test_begin_at_0_when_it_is_started_again(self, stage: Stage, metrics: Metrics) -> None:
        """As its stats() do."""
        pool = stage.pool()
        pool.checkout().checkin()
        pool.stop()
        pool.start()
        settle()
        assert metrics.value("db-1", "checkouts_total") == 0
        assert metrics.value("db-1", "workers_started_total") == 1

    def test_do_not_grow(self, stage: Stage, metrics: Metrics) -> None:
        """Neither with events nor with pools that come and go."""
        pool = stage.pool()

        def keys() -> int:
            return sum(len(s.counts) + len(s.histograms) for s in metrics._pools.values())

        before = keys()
        for number in range(50):
            pool.checkout().discard(f"reason {number}")
            stage.pool().stop()
        assert keys() == before

    def test_are_apart(self, stage: Stage, metrics: Metrics) -> None:
        """Each pool has its own; without a pool's name it is the sum."""
        one, other = stage.pool(), stage.pool()
        one.checkout().checkin()
        other.checkout().checkin()
        other.checkout().checkin()
        counts = [metrics.value(name, "checkins_total") for name in ("db-1", "db-2", None)]
        assert counts == [1, 2, 3]

    def test_of_a_pool_that_was_there_before(self, stage: Stage) -> None:
        """Counts begin with the attachment, gauges are there at once."""
        pool = stage.pool()
        pool.checkout().checkin()
        with Metrics() as metrics:
            assert metrics.value("db-1", "workers", state="idle") == 1
            assert metrics.value("db-1", "checkouts_total") == 0
            pool.checkout().checkin()
            assert metrics.value("db-1", "checkouts_total") == 1
        pool.checkout().checkin()
        assert metrics.value("db-1", "checkouts_total") == 1


class TestSnapshot:
    def test_is_frozen(self, stage: Stage, metrics: Metrics) -> None:
        """What came later is in the next one."""
        pool = stage.pool()
        snapshot = metrics.snapshot()
        pool.checkout().checkin()
        assert snapshot.value("checkouts_total") == 0
        [wait] = snapshot.find("wait_seconds")
        assert isinstance(wait.value, Histogram)
        assert wait.value.count == 0
        for thing in (snapshot, wait, wait.value, wait.metric):
            field = dataclasses.fields(thing)[0].name
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(thing, field, None)

    @pytest.mark.parametrize(
        ("name", "labels"), [("nothing", {}), ("size", {"reason": "full"}), ("size", {"poool": ""})]
    )
    def test_refuses_what_is_not_declared(
        self, metrics: Metrics, name: str, labels: dict[str, str]
    ) -> None:
        """A typing error is no 0."""
        with pytest.raises(ValueError, match="expected one of METRICS, got"):
            metrics.snapshot().find(name, **labels)

    def test_of_some_metrics(self, stage: Stage, metrics: Metrics) -> None:
        """In their order, those of one pool together; one that is not declared is refused."""
        stage.pool(name="a")
        stage.pool(name="b")
        found = [(s.metric.name, s.labels) for s in metrics.snapshot("up", "zombies_total", "size")]
        assert found == [
            ("zombies_total", ()),
            ("up", (("pool", "a"),)), ("size", (("pool", "a"),)),
            ("up", (("pool", "b"),)), ("size", (("pool", "b"),)),
        ]  # fmt: skip
        with pytest.raises(ValueError, match="expected some of METRICS"):
            metrics.snapshot("up", "down")

    def test_refuses_to_mix_kinds(self, stage: Stage, metrics: Metrics) -> None:
        """A histogram has no value, a counter no quantile, and three histograms are not one."""
        stage.pool()
        with pytest.raises(ValueError, match="expected a counter or gauge, got 'wait_seconds'"):
            metrics.value("db-1", "wait_seconds")
        for name in ("size", "recovery_seconds"):
            with pytest.raises(ValueError, match="expected one histogram, got"):
                metrics.histogram("db-1", name)

    def test_of_none(self) -> None:
        """No pool runs, nothing was started by looking: the global ones are all there is."""
        samples = Metrics().snapshot().samples
        assert {sample.metric.is_global for sample in samples} == {True}
        assert all(sample.value == 0 for sample in samples)


class TestBalance:
    @pytest.mark.parametrize("name", SCENES)
    def test_each_lease_ends_once(self, stage: Stage, metrics: Metrics, name: str) -> None:
        """Checkouts are all ends together, and what is held; holds are all ends."""
        SCENES[name].play(stage)
        settle()
        for pool in gpool.running_pools():
            ends = sum(
                metrics.value(pool.name, f"{end}_total")
                for end in ("checkins", "leases_reclaimed", "leases_broken", "leases_revoked")
            )
            held = pool.stats().busy + pool.stats().lost
            assert metrics.value(pool.name, "checkouts_total") == ends + held
            assert metrics.histogram(pool.name, "hold_seconds").count == ends
            checkouts = metrics.histogram(pool.name, "wait_seconds").count
            assert checkouts == ends + held
            started = metrics.value(pool.name, "workers_started_total")
            assert metrics.histogram(pool.name, "start_seconds").count == started


class TestCost:
    def test_an_event_leaves_nothing(self, stage: Stage, metrics: Metrics) -> None:
        """A checkout and a checkin take no memory that stays."""
        pool = stage.pool()
        series = metrics._pools["db-1"]
        pool.checkout().checkin()
        before = [sys.getsizeof(series.counts), len(series.hold.counts)]
        for _ in range(1000):
            pool.checkout().checkin()
        assert [sys.getsizeof(series.counts), len(series.hold.counts)] == before


def test_a_metric_says_what_it_is_labelled_with() -> None:
    """Its own labels, in the order of a sample's."""
    assert Metric("x_total", "counter", "X", "reason", ("a",)).labels == ("pool", "reason")
    assert Metric("x_total", "counter", "X", "reason", ("a",), is_global=True).labels == ("reason",)
