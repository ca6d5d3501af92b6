"""Prometheus: one process, read when it asks; many, moved by a greenlet of their own."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent.lock import BoundedSemaphore
from gevent.pywsgi import WSGIServer

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

import gpool
from gpool import METRICS, telemetry
from gpool.integrations.prometheus import child_exit, register, worker_is_gone
from gpool.testing import VirtualClock, settle
from tests.observer import wire
from tests.pool.conftest import maker, own_application, quiet  # noqa: F401
from tests.pool.scenarios import SCENES, Stage
from tests.pool.workshop import Maker, no_switch
from tests.servers.gunicorn import Gunicorn
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("quiet", "own_application")

DECLARED = {
    (f"gpool_{metric.name}", metric.kind, metric.help, metric.labels): set(metric.values)
    for metric in METRICS
}


@pytest.fixture
def stage(clock: VirtualClock, maker: Maker) -> Stage:  # noqa: F811
    """Where scenes are played."""
    return Stage(clock, maker)


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of our own."""
    return CollectorRegistry()


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BoundedSemaphore]:
    """Be one of several processes that are added up; give the lock of all instruments."""
    lock, files = BoundedSemaphore(), []

    class File(values.MmapedDict):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            files.append(self)

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(values, "MmapedDict", File)
    monkeypatch.setattr(values, "Lock", lambda: lock)
    monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue())
    yield lock
    for file in files:  # or they stay open until the collector comes
        file.close()


@pytest.fixture
def all_of_them(several: Any) -> CollectorRegistry:
    """Where the sum over the processes is read."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry


def registered(registry: CollectorRegistry, **options: Any) -> Iterator[Any]:
    """Yield an exporter, registered until the end of the test."""
    exporter = register(registry, **options)
    yield exporter
    exporter.unregister()


@pytest.fixture
def collector(registry: CollectorRegistry) -> Iterator[Any]:
    """Register in a registry, as one process."""
    yield from registered(registry)


@pytest.fixture
def instruments(several: Any, registry: CollectorRegistry, clock: VirtualClock) -> Iterator[Any]:
    """Register, as one of several processes."""
    yield from registered(registry)


def told(text: str) -> dict[Any, set[str]]:
    """Return what an answer declares: name, type, help, labels, and the second label's values."""
    found: dict[Any, set[str]] = {}
    for family in text_string_to_metric_families(text):
        names = {label for sample in family.samples for label in sample.labels} - {"le"}
        order = tuple(name for name in ("pool", "reason", "state") if name in names)
        labels = {
            sample.labels.get("reason", sample.labels.get("state", "")) for sample in family.samples
        }
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name, family.type, family.documentation, order] = labels
    return found


class TestOneProcess:
    @pytest.mark.parametrize("name", SCENES)
    def test_tells_every_declared_metric_and_nothing_else(
        self, name: str, stage: Stage, registry: CollectorRegistry, collector: Any
    ) -> None:
        """Names, types, help, labels and all members of a label, whatever has happened."""
        SCENES[name].play(stage)
        if gpool.running_pools():
            assert told(generate_latest(registry).decode()) == DECLARED

    def test_tells_what_metrics_say(
        self, stage: Stage, registry: CollectorRegistry, collector: Any
    ) -> None:
        """Each sample; buckets add up to +Inf, which is the count."""
        with gpool.Metrics() as metrics:
            SCENES["fall"].play(stage)
            for sample in metrics.snapshot():
                name, labels = f"gpool_{sample.metric.name}", dict(sample.labels)
                if isinstance(sample.value, gpool.Histogram):
                    full = registry.get_sample_value(f"{name}_bucket", {**labels, "le": "+Inf"})
                    assert full == registry.get_sample_value(f"{name}_count", labels)
                    assert full == sample.value.count
                    assert registry.get_sample_value(f"{name}_sum", labels) == sample.value.sum
                else:
                    assert registry.get_sample_value(name, labels) == sample.value

    def test_speaks_openmetrics(
        self, stage: Stage, registry: CollectorRegistry, collector: Any
    ) -> None:
        """With units; a strict parser has nothing to say against it."""
        stage.pool(size=1, name="pool").checkout().checkin()
        families = {
            family.name: family
            for family in parse_openmetrics(openmetrics.generate_latest(registry).decode())
        }
        assert len(families) == len(METRICS)
        assert families["gpool_wait_seconds"].unit == "seconds"

    def test_never_switches(
        self, stage: Stage, registry: CollectorRegistry, collector: Any
    ) -> None:
        """Neither what is told of events nor what answers."""
        pool = stage.pool(size=1, name="pool")
        pool.checkout().checkin()
        settle()
        with no_switch():
            pool.checkout().checkin()
            generate_latest(registry)
            telemetry.emit(telemetry.CleanupFailed(None, ValueError()))

    def test_series_go_with_their_pool(
        self, stage: Stage, registry: CollectorRegistry, collector: Any
    ) -> None:
        """What is left is of the process."""
        pool = stage.pool(size=1, name="pool")
        assert 'pool="' in generate_latest(registry).decode()
        pool.stop()
        assert 'pool="' not in generate_latest(registry).decode()
        assert "gpool_processes_crashed_total 0.0" in generate_latest(registry).decode()

    @pytest.mark.parametrize("buckets", [(0.1, 2), [0.1, 2.0, math.inf]])
    def test_buckets_can_be_chosen(
        self, stage: Stage, registry: CollectorRegistry, buckets: Any
    ) -> None:
        """In seconds; an infinite one is there in any case, and once."""
        exporter = register(registry, buckets=buckets)
        stage.pool(size=1, name="pool")
        bounds = re.findall(r'wait_seconds_bucket{le="(.*?)"', generate_latest(registry).decode())
        assert bounds == ["0.1", "2.0", "+Inf"]
        exporter.unregister()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"interval": 0}, "interval: expected seconds > 0, got 0"),
            ({"interval": -1}, "interval: expected seconds > 0, got -1"),
            ({"interval": "x"}, "interval: expected seconds, got 'x'"),
            ({"buckets": 3}, "buckets: expected bounds in seconds, got 3"),
            ({"buckets": ("a",)}, "buckets: expected seconds > 0 that grow, got 'a' among them"),
            ({"buckets": (2, 1)}, r"buckets: expected seconds > 0 that grow, got \(2, 1\)"),
            ({"buckets": (math.inf,)}, r"buckets: expected seconds > 0 that grow, got \(\)"),
        ],
    )
    @pytest.mark.parametrize("multiprocess", [False, True])
    def test_is_told_what_is_wrong(
        self,
        registry: CollectorRegistry,
        monkeypatch: pytest.MonkeyPatch,
        options: dict[str, Any],
        message: str,
        multiprocess: bool,
    ) -> None:
        """On a laptop as under gunicorn; nothing is registered."""
        if multiprocess:
            monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
        with pytest.raises((TypeError, ValueError), match=message):
            register(registry, **options)
        assert not list(registry.collect())

    def test_twice_is_refused(self, registry: CollectorRegistry, collector: Any) -> None:
        """And leaves no listener behind."""
        before = telemetry._listeners
        with pytest.raises(ValueError, match="Duplicated"):
            register(registry)
        assert telemetry._listeners == before

    def test_once_unregistered_it_may_be_registered_again(
        self, registry: CollectorRegistry
    ) -> None:
        """Nothing is told meanwhile."""
        register(registry).unregister()
        assert generate_latest(registry) == b""
        register(registry).unregister()

    def test_one_name_can_be_asked_for(
        self, stage: Stage, registry: CollectorRegistry, collector: Any
    ) -> None:
        """As by ``/metrics?name[]=``."""
        stage.pool(size=1, name="pool")
        only = generate_latest(registry.restricted_registry(["gpool_up"])).decode()
        assert [line for line in only.splitlines() if line[0] != "#"] == [
            'gpool_up{pool="pool"} 1.0'
        ]

    @pytest.mark.parametrize("bad", [(), (2.0, 1.0), (0.0, 1.0)])
    def test_bad_buckets_are_refused(
        self, registry: CollectorRegistry, bad: tuple[float, ...]
    ) -> None:
        """At once."""
        with pytest.raises(ValueError, match="expected seconds > 0 that grow"):
            register(registry, bad)

    def test_over_http(self, registry: CollectorRegistry, collector: Any) -> None:
        """prometheus_client's own WSGI application, in a gevent server, beside a pool at work."""
        server = WSGIServer(("127.0.0.1", 0), make_wsgi_app(registry), log=None)
        server.start()
        with gpool.Pool(gpool.Resource(create=list), size=2, name="db") as pool:
            pool.wait_ready()
            with pool.checkout():
                text = wire.ask(server.server_port, "/metrics").body.decode()
        server.stop()
        ours = {key: told(text)[key] for key in told(text)}
        assert ours == DECLARED
        assert 'gpool_workers{pool="db",state="busy"} 1.0' in text


class TestSeveralProcesses:
    @pytest.mark.parametrize("name", SCENES)
    def test_tell_every_declared_metric_and_nothing_else(
        self,
        name: str,
        stage: Stage,
        all_of_them: CollectorRegistry,
        instruments: Any,
    ) -> None:
        """As one process does."""
        SCENES[name].play(stage)
        instruments.flush()
        if gpool.running_pools():
            assert told(generate_latest(all_of_them).decode()) == DECLARED

    def test_tell_what_metrics_say(
        self, stage: Stage, all_of_them: CollectorRegistry, instruments: Any
    ) -> None:
        """Each sample, once it is carried."""
        with gpool.Metrics() as metrics:
            SCENES["fall"].play(stage)
            snapshot = metrics.snapshot()
        instruments.flush()
        for sample in snapshot:
            name, labels = f"gpool_{sample.metric.name}", dict(sample.labels)
            if isinstance(sample.value, gpool.Histogram):
                total = all_of_them.get_sample_value(f"{name}_count", labels)
                assert total == sample.value.count
            else:
                assert all_of_them.get_sample_value(name, labels) == sample.value

    def test_a_lock_that_is_taken_switches_nobody(
        self, clock: VirtualClock, stage: Stage, all_of_them: CollectorRegistry, several: Any,
        instruments: Any,
    ) -> None:  # fmt: skip
        """What uses the pool goes on; the numbers come when the lock is free."""
        pool = stage.pool(size=1, name="pool")
        pool.checkout().checkin()
        several.acquire()
        clock.advance(1.0)  # whoever carries finds it taken
        with no_switch():
            pool.checkout().checkin()
        several.release()
        clock.advance(1.0)
        assert all_of_them.get_sample_value("gpool_checkins_total", {"pool": "pool"}) == 2

    def test_gauges_of_a_stopped_pool_are_0(
        self, clock: VirtualClock, stage: Stage, all_of_them: CollectorRegistry, instruments: Any
    ) -> None:
        """No process has it; counters stay, as those of dead processes do."""
        pool = stage.pool(size=1, name="pool")
        clock.advance(1.0)
        assert all_of_them.get_sample_value("gpool_up", {"pool": "pool"}) == 1
        pool.stop()
        instruments.flush()
        assert all_of_them.get_sample_value("gpool_up", {"pool": "pool"}) == 0
        assert all_of_them.get_sample_value("gpool_size", {"pool": "pool"}) == 0
        assert all_of_them.get_sample_value("gpool_workers_started_total", {"pool": "pool"}) == 1

    def test_gauges_are_0_once_unregistered(
        self, clock: VirtualClock, stage: Stage, all_of_them: CollectorRegistry,
        registry: CollectorRegistry, several: Any,
    ) -> None:  # fmt: skip
        """And it may be registered again."""
        exporter = register(registry)
        stage.pool(size=1, name="pool")
        clock.advance(1.0)
        exporter.unregister()
        assert all_of_them.get_sample_value("gpool_up", {"pool": "pool"}) == 0
        register(registry).unregister()

    def test_twice_is_refused(
        self, several: Any, registry: CollectorRegistry, instruments: Any
    ) -> None:
        """And leaves no listener behind."""
        before = telemetry._listeners
        with pytest.raises(ValueError, match="Duplicated"):
            register(registry)
        assert telemetry._listeners == before

    def test_a_dead_one_has_no_gauges(
        self, clock: VirtualClock, stage: Stage, all_of_them: CollectorRegistry, instruments: Any
    ) -> None:
        """Its counters stay."""
        stage.pool(size=1, name="pool")
        clock.advance(1.0)
        worker_is_gone(os.getpid())
        assert all_of_them.get_sample_value("gpool_up", {"pool": "pool"}) is None
        assert all_of_them.get_sample_value("gpool_workers_started_total", {"pool": "pool"}) == 1

    def test_where_there_are_none_nothing_is_forgotten(self) -> None:
        """The hook is harmless in a service that is not added up."""
        child_exit(None, type("Worker", (), {"pid": 1}))


HOOKS = (
    "from gpool.integrations.prometheus import child_exit",
    "from gpool.integrations.gunicorn import child_exit, post_worker_init, worker_exit",
)


@pytest.fixture(
    params=[(HOOKS[0],), (HOOKS[1], "--preload")], ids=["own hook", "hooks of gunicorn, preload"]
)
def gunicorn(request: Any, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Give what asks a gunicorn of two workers that are added up."""
    hook, *options = request.param
    application = "tests.integrations.prometheus_app:application"
    files = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with Gunicorn(application, "-w", "2", *options, config=hook, **files) as server:
        yield lambda path: _answer(server, path)


def _answer(server: Gunicorn, path: str) -> str:
    with contextlib.suppress(OSError):
        reply = server.get(path)
        return reply.body.decode() if reply.status == 200 else ""
    return ""


class TestGunicorn:
    def test_adds_up_its_workers(self, gunicorn: Callable[[str], str]) -> None:
        """Whichever answers; of one that was killed the counters stay, the gauges go."""

        def value(name: str, labels: str = "") -> float:
            found = re.search(rf'^{name}{{pool="db"{labels}}} (.*)$', gunicorn("/metrics"), re.M)
            return float(found[1]) if found else -1.0

        used = []
        until(lambda: used.append(gunicorn("/")) or len({*used} - {""}) == 2)
        answered = len(used) - used.count("")
        until(lambda: value("gpool_checkouts_total") == answered)
        until(lambda: value("gpool_up") == 2 and value("gpool_size") == 6)
        assert set(told(gunicorn("/metrics"))) == set(DECLARED)

        victim = int(used[-1])
        os.kill(victim, signal.SIGKILL)
        until(lambda: value("gpool_up") == 1)
        assert value("gpool_size") == 3
        assert value("gpool_checkouts_total") == answered

        until(lambda: (used.append(gunicorn("/")) or used[-1]) not in ("", *used[:-1]))
        until(lambda: value("gpool_up") == 2)
        answered = len(used) - used.count("")
        until(lambda: value("gpool_checkouts_total") == answered)
        until(lambda: (gunicorn("/stop"), value("gpool_up") == 0)[1])
        assert value("gpool_workers", ',state="idle"') == 0
