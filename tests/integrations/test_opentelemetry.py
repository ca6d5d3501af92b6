"""OpenTelemetry: the conventions' names for databases, gpool's for the rest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Histogram,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
    Sum,
)
from opentelemetry.semconv._incubating.attributes import db_attributes
from opentelemetry.semconv._incubating.metrics import db_metrics

import gpool
from gpool import METRICS, telemetry
from gpool.integrations import opentelemetry as ours
from gpool.integrations.opentelemetry import (
    CONVENTIONS,
    REST,
    instrument,
    name_of,
    uninstrument,
)
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.conftest import maker, own_application, quiet  # noqa: F401
from tests.pool.scenarios import SCENES, Stage
from tests.pool.workshop import Holder, Maker, no_switch

pytestmark = pytest.mark.usefixtures("quiet", "own_application")

DB = "db.client.connection."


class Collected:
    """A meter provider, and all that it was told."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def all(self) -> dict[str, Any]:
        """Collect: a metric's name -> the metric."""
        data = self.reader.get_metrics_data()
        found = [] if data is None else data.resource_metrics
        return {
            metric.name: metric
            for resource in found for scope in resource.scope_metrics for metric in scope.metrics
        }  # fmt: skip

    def points(self, name: str) -> dict[tuple[tuple[str, Any], ...], Any]:
        """Collect: one metric's attributes -> the value, of a histogram its count."""
        found = self.all().get(name)
        points = () if found is None else found.data.data_points
        return {
            tuple(sorted(point.attributes.items())): getattr(point, "value", None)
            if hasattr(point, "value") else point.count
            for point in points
        }  # fmt: skip

    def value(self, name: str, **attributes: Any) -> Any:
        """Collect: one value; None if there is none."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        values = [
            value for found, value in self.points(name).items()
            if wanted.items() <= dict(found).items()
        ]  # fmt: skip
        return sum(values) if values else None


@pytest.fixture
def collected() -> Iterator[Collected]:
    """Where it is told, nothing as yet."""
    collected = Collected()
    yield collected
    uninstrument()
    collected.provider.shutdown()


@pytest.fixture
def stage(clock: VirtualClock, maker: Maker) -> Stage:  # noqa: F811
    """Where scenes are played."""
    return Stage(clock, maker)


class Recorder:
    """A meter that writes down what is made of it."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, str, str]] = {}  # name -> kind, unit, description

    def __getattr__(self, kind: str) -> Any:
        def create(name: str, *args: Any, **named: Any) -> Any:
            args = tuple(arg for arg in args if not isinstance(arg, list))
            unit = named.get("unit", args[0] if args else "")
            description = named.get("description", args[1] if len(args) > 1 else "")
            self.made[name] = (kind.replace("observable_", ""), unit, description.rstrip("."))
            return object()

        return create


class TestConventions:
    def test_are_those_of_opentelemetry(self) -> None:
        """Names, kinds, units and descriptions, all that there are of connections, no other."""
        theirs, mine = Recorder(), Recorder()
        for name, create in vars(db_metrics).items():
            if name.startswith("create_db_client_connection_"):
                create(theirs)
        provider: Any = type("Provider", (), {"get_meter": lambda self, *args: mine})()
        ours._Instruments(provider)
        made = {name: made for name, made in mine.made.items() if name.startswith("db.")}
        assert made == theirs.made

    def test_attributes_are_those_of_opentelemetry(
        self, stage: Stage, collected: Collected
    ) -> None:
        """The pool's name, and the state."""
        instrument(collected.provider, {"db"})
        stage.pool(name="db")
        assert set(collected.points(f"{DB}count")) == {
            (
                (db_attributes.DB_CLIENT_CONNECTION_POOL_NAME, "db"),
                (db_attributes.DB_CLIENT_CONNECTION_STATE, state.value),
            )
            for state in db_attributes.DbClientConnectionStateValues
        }

    def test_count_by_state(self, stage: Stage, collected: Collected) -> None:
        """What is open is idle or used; the cap, and who waits."""
        instrument(collected.provider, ["db"])
        pool = stage.pool(name="db", size=2, max_overflow=3, min_ready=1)
        lease = pool.checkout()
        assert collected.points(f"{DB}count") == {
            ((f"{DB}pool.name", "db"), (f"{DB}state", "idle")): 1,
            ((f"{DB}pool.name", "db"), (f"{DB}state", "used")): 1,
        }
        names = {"idle.max": 2, "idle.min": 1, "max": 5, "pending_requests": 0, "timeouts": 0}
        for name, value in names.items():
            assert collected.points(DB + name) == {((f"{DB}pool.name", "db"),): value}, name
        lease.checkin()

    def test_waiting_and_timeouts(
        self, clock: VirtualClock, stage: Stage, collected: Collected
    ) -> None:
        """Those who wait are pending; those who were refused at once are no timeouts."""
        instrument(collected.provider, ["db"])
        pool = stage.pool(name="db", max_waiting=1)
        lease = pool.checkout()
        Holder(pool)
        settle()
        assert collected.value(f"{DB}pending_requests") == 1
        with pytest.raises(gpool.PoolFull):
            pool.checkout()
        assert collected.value(f"{DB}timeouts") == 0
        clock.advance(5.0)
        assert collected.value(f"{DB}timeouts") == 1
        assert collected.value("gpool.checkout_failures", gpool__reason="full") == 1
        lease.checkin()

    def test_times_are_in_seconds(
        self, clock: VirtualClock, stage: Stage, collected: Collected
    ) -> None:
        """In buckets that are fit for seconds."""
        instrument(collected.provider, ["db"])
        pool = stage.pool(name="db")
        lease = pool.checkout()
        clock.advance(0.3)
        lease.checkin()
        clock.advance(1.0)
        (point,) = collected.all()[f"{DB}use_time"].data.data_points
        assert (point.count, point.sum) == (1, pytest.approx(0.3))
        assert point.explicit_bounds == gpool.Metrics().bounds
        assert dict(point.attributes) == {f"{DB}pool.name": "db"}
        for name in ("wait_time", "create_time"):
            assert collected.value(DB + name) == 1


class TestFamilies:
    def test_of_what_is_no_database(self, stage: Stage, collected: Collected) -> None:
        """The same, under gpool.pool; nothing of it is under the conventions' names."""
        instrument(collected.provider)
        stage.pool(name="workers")
        assert not [name for name in collected.all() if name.startswith("db.")]
        assert collected.points("gpool.pool.count") == {
            (("gpool.pool.name", "workers"), ("gpool.state", "idle")): 1,
            (("gpool.pool.name", "workers"), ("gpool.state", "used")): 0,
        }
        assert collected.all()["gpool.pool.count"].unit == "{worker}"

    def test_can_be_told_by_a_callable(self, stage: Stage, collected: Collected) -> None:
        """Names that are made up are no obstacle."""
        instrument(collected.provider, lambda pool: pool.startswith("db-"))
        stage.pool(name="db-17")
        stage.pool(name="workers")
        assert collected.value(f"{DB}max") == 1
        assert collected.value("gpool.pool.max") == 1

    @pytest.mark.parametrize("name", SCENES)
    def test_tell_every_declared_metric_and_nothing_else(
        self, name: str, stage: Stage, collected: Collected
    ) -> None:
        """Whatever happens: those of the conventions, and the rest of METRICS."""
        declared = {name_of(metric) for metric in REST}
        declared |= {f"gpool.pool.{one.suffix}" for one in CONVENTIONS}
        instrument(collected.provider)
        SCENES[name].play(stage)
        ours._on and ours._on[1].flush()  # type: ignore[func-returns-value]
        told = set(collected.all())
        assert told <= declared
        histograms = {"wait_time", "create_time", "use_time"}
        unmeasured = {"gpool.recovery"} | {f"gpool.pool.{one}" for one in histograms}
        if gpool.running_pools():
            assert declared - told <= unmeasured

    def test_each_metric_is_told_somewhere(self) -> None:
        """By the conventions, if they tell all of it; else under its own name."""
        conventional = {source for one in CONVENTIONS for source in one.sources}
        assert {metric.name for metric in METRICS} == conventional | {one.name for one in REST}
        names = [name_of(metric) for metric in REST]
        assert len(set(names)) == len(names)

    def test_the_rest_is_what_metrics_say(self, stage: Stage, collected: Collected) -> None:
        """Each sample."""
        instrument(collected.provider)
        with gpool.Metrics() as metrics:
            SCENES["fall"].play(stage)
            snapshot = metrics.snapshot()
        keys = {"pool": "gpool.pool.name", "reason": "gpool.reason", "state": "gpool.state"}
        for metric in REST:
            if metric.kind != "histogram":
                assert collected.points(name_of(metric)) == {
                    tuple(
                        sorted((keys[name], value) for name, value in sample.labels)
                    ): sample.value
                    for sample in snapshot.find(metric.name)
                }

    def test_kinds(self, stage: Stage, collected: Collected) -> None:
        """Counters only grow, what can be summed up is a sum."""
        instrument(collected.provider)
        stage.pool()
        found = collected.all()
        for metric in METRICS:
            data = found[name_of(metric)].data if name_of(metric) in found else None
            if isinstance(data, Sum):
                assert data.is_monotonic == (metric.kind == "counter")
            elif data is not None:
                assert isinstance(data, Histogram) == (metric.kind == "histogram")


class TestSeries:
    def test_go_with_their_pool(self, stage: Stage, collected: Collected) -> None:
        """But for the times, which an SDK keeps."""
        instrument(collected.provider, {"db"})
        pool = stage.pool(name="db")
        assert collected.value(f"{DB}max") == 1
        pool.stop()
        assert collected.value(f"{DB}max") is None
        assert collected.value("gpool.workers") is None
        assert collected.value("gpool.processes_crashed") == 0

    def test_go_when_it_is_uninstrumented(self, stage: Stage, collected: Collected) -> None:
        """And come back with the next time, once, by the new rules; nobody listens meanwhile."""
        before = telemetry._listeners
        instrument(collected.provider, {"db"})
        stage.pool(name="db")
        uninstrument()
        uninstrument()
        assert telemetry._listeners == before
        assert collected.value("gpool.workers") is None
        assert collected.value(f"{DB}create_time") == 1  # what was measured by then
        instrument(collected.provider)
        assert collected.value("gpool.pool.max") == 1
        assert collected.value(f"{DB}max") is None

    def test_twice_is_once(self, stage: Stage, collected: Collected) -> None:
        """The second time holds."""
        instrument(collected.provider)
        instrument(collected.provider, {"db"})
        pool = stage.pool(name="db")
        pool.checkout().checkin()
        uninstrument()
        assert collected.value(f"{DB}wait_time") == 1


class Slow(MetricExporter):
    """An exporter that blocks, in a thread or a greenlet of the SDK's."""

    def __init__(self) -> None:
        super().__init__()
        self.exported = 0

    def export(self, *args: Any, **kwargs: Any) -> MetricExportResult:
        """Take it."""
        self.exported += 1
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """There is nothing."""
        return True

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """There is nothing."""


class TestNoSwitch:
    def test_of_callbacks(self, stage: Stage, collected: Collected) -> None:
        """A collection reads, whatever it collects."""
        instrument(collected.provider, {"db"})
        pool = stage.pool(name="db")
        pool.checkout().checkin()
        settle()
        with no_switch():
            collected.reader.collect()

    def test_of_listeners(self, clock: VirtualClock, stage: Stage, collected: Collected) -> None:
        """An SDK whose lock is taken holds up nobody but the one who records."""
        instrument(collected.provider, {"db"})
        gate = Gate()
        assert ours._on is not None
        for histogram in ours._on[0]._histograms.values():
            record = histogram.record
            histogram.record = lambda *args, record=record: (gate.wait(None), record(*args))
        pool = stage.pool(name="db")
        pool.checkout().checkin()
        clock.advance(1.0)  # whoever records waits
        with no_switch():
            pool.checkout().checkin()
            telemetry.emit(telemetry.WorkerStarted(None, "db", 1.0))
        gate.open()
        clock.advance(1.0)
        assert collected.value(f"{DB}use_time") == 2

    def test_with_a_reader_of_its_own(self, stage: Stage) -> None:
        """An SDK's thread collects beside a pool at work."""
        exporter = Slow()
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=2)
        provider = MeterProvider([reader], shutdown_on_exit=False)
        instrument(provider, {"db"})
        try:
            pool = stage.pool(name="db")
            while exporter.exported < 5:
                for _ in range(100):
                    pool.checkout().checkin()
                gevent.idle()
        finally:
            uninstrument()
            provider.shutdown()


class TestArguments:
    @pytest.mark.parametrize("bad", ["db", 3, None])
    def test_databases_are_names_or_a_callable(self, collected: Collected, bad: Any) -> None:
        """One name alone is a mistake."""
        with pytest.raises(TypeError, match="expected names of pools, or a callable"):
            instrument(collected.provider, bad)

    def test_provider_is_one(self) -> None:
        """A meter is none."""
        provider: Any = api.get_meter("x")
        with pytest.raises(TypeError, match="expected a MeterProvider"):
            instrument(provider)


class TestApiAlone:
    def test_suffices(self) -> None:
        """Without an SDK nothing is told, and nothing fails."""
        code = (
            "import sys\n"
            "sys.modules['opentelemetry.sdk'] = None\n"
            "import gpool\n"
            "from gpool.integrations.opentelemetry import instrument, uninstrument\n"
            "instrument()\n"
            "with gpool.Pool(gpool.Resource(create=list)) as pool: pool.checkout().checkin()\n"
            "uninstrument()\n"
            "assert 'opentelemetry.semconv' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=30)

    def test_a_provider_may_come_later(self) -> None:
        """As a program is written: instrumented at import, set up after the fork."""
        code = (
            "import gpool\n"
            "from opentelemetry import metrics\n"
            "from gpool.integrations.opentelemetry import instrument\n"
            "instrument()\n"
            "from opentelemetry.sdk.metrics import MeterProvider\n"
            "from opentelemetry.sdk.metrics.export import InMemoryMetricReader\n"
            "reader = InMemoryMetricReader()\n"
            "metrics.set_meter_provider(MeterProvider([reader]))\n"
            "with gpool.Pool(gpool.Resource(create=list), name='later') as pool:\n"
            "    pool.wait_ready()\n"
            "    print(reader.get_metrics_data().to_json())\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            check=True, timeout=30, capture_output=True, text=True,
        )  # fmt: skip
        assert '"gpool.pool.max"' in done.stdout
