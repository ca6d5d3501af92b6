"""What pools did lately: gauges always, percentiles while somebody looks."""

from __future__ import annotations

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.observer.node import history as module
from gpool.observer.node.history import GAUGES, KEPT, SERIES, History
from tests.pool.workshop import Echo, Holder, running, use
from tests.waiting import until


class Here:
    """Reads at once, in the running hub; or beside it, if that is blocked."""

    def __init__(self):
        self.hub = gevent.get_hub()
        self.blocked = False

    def read(self, fn, *args):
        """Return what `fn` returns."""
        if not self.blocked:
            return fn(*args), {"blocked": False}
        hub, self.hub = self.hub, None
        found = fn(*args)
        self.hub = hub
        return found, {"blocked": True}


@pytest.fixture
def now(monkeypatch):
    """Give the time, in a list, that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "time", lambda: 5000.0 + now[0])
    return now


@pytest.fixture
def history(now):
    """Give a history that nobody looks at, of a hub that is not blocked."""
    history = History(Here(), always=False)
    yield history
    history.close()


def last(history, pool="db"):
    """Return the latest of each series."""
    return {name: column[-1] for name, column in history.of(pool, 0.0).items()}


class TestGauges:
    def test_are_sampled_also_if_nobody_looks(self, history, now):
        """Each sample is the pool's numbers, and when that was; nothing is measured."""
        pool = running(Echo, size=2, name="db")
        history.sample()
        holder = Holder(pool)
        now[0] += 5.0
        history.sample()
        found = history.of("db", 0.0)
        assert list(found) == list(SERIES)
        assert found["at"] == [6000.0, 6005.0]
        assert (found["idle"], found["busy"]) == ([2, 1], [0, 1])
        assert all(found[name] == [None, None] for name in SERIES[len(GAUGES) + 1 :])
        assert telemetry.meters == ()
        holder.let_go()

    def test_are_told_from_a_moment_on(self, history, now):
        """Whoever has the old ones gets the new."""
        running(Echo, size=1, name="db")
        for _ in range(3):
            history.sample()
            now[0] += 1.0
        assert history.of("db", 6000.0)["at"] == [6001.0, 6002.0]
        assert history.of("db", 9999.0)["at"] == []
        assert set(map(len, history.of("none", 0.0).values())) == {0}

    def test_are_kept_for_so_long(self, history, now):
        """The oldest are forgotten, and all of a pool that has stopped."""
        pool = running(Echo, size=1, name="db")
        for _ in range(KEPT + 10):
            history.sample()
            now[0] += 1.0
        assert len(history.of("db", 0.0)["at"]) == KEPT
        pool.stop()
        history.sample()
        assert history.of("db", 0.0)["at"] == []

    def test_have_a_gap_while_the_hub_is_blocked(self, history):
        """What is read beside it is of no single moment."""
        running(Echo, size=1, name="db")
        history._reader.blocked = True
        history.sample()
        assert history.of("db", 0.0)["at"] == []


class TestMeasuring:
    def test_begins_when_somebody_looks_and_ends_some_time_after(self, history, now):
        """So that a checkout costs nothing else."""
        pool = running(Echo, size=1, name="db")
        assert telemetry.meters == ()
        history.look()
        history.sample()
        assert telemetry.meters == (history._metrics,)
        assert history.measures
        now[0] += module.WATCHED - 1.0
        history.sample()
        assert history.measures
        now[0] += 2.0
        history.sample()
        assert telemetry.meters == ()
        assert not history.measures
        use(pool)

    def test_is_of_what_came_since_the_last_sample(self, history, now, clock):
        """Percentiles of waits and holds, and checkouts a second."""
        pool = running(Echo, size=1, name="db")
        history.look()
        history.sample()
        assert last(history)["checkouts"] is None
        for _ in range(4):
            holder = Holder(pool)
            clock.advance(0.2)
            holder.let_go()
        now[0] += 2.0
        history.sample()
        found = last(history)
        assert found["checkouts"] == 2.0
        assert 0.1 <= found["hold_p50"] <= found["hold_p95"] <= found["hold_p99"] <= 0.5
        assert found["wait_p50"] is not None
        now[0] += 1.0
        history.sample()
        found = last(history)
        assert (found["checkouts"], found["hold_p50"], found["wait_p99"]) == (0.0, None, None)

    def test_counts_a_block_of_the_hub_in(self, history, now):
        """The rate after it is of all the time since the sample before it."""
        pool = running(Echo, size=1, name="db")
        history.look()
        history.sample()
        for _ in range(10):
            use(pool)
        history._reader.blocked = True
        now[0] += 9.0
        history.sample()
        history._reader.blocked = False
        now[0] += 1.0
        history.sample()
        assert last(history)["checkouts"] == 1.0

    def test_bears_a_pool_that_is_started_again(self, history, now):
        """Its numbers begin anew."""
        history.look()
        for _ in range(2):
            pool = running(Echo, size=1, name="db")
            history.sample()
            use(pool)
            now[0] += 1.0
            history.sample()
            assert last(history)["checkouts"] == 1.0
            pool.stop()
        assert last(history)["at"]

    def test_goes_on_always_if_so_told(self, now):
        """Then it costs a checkout what it costs."""
        history = History(Here(), always=True)
        history.sample()
        now[0] += 10 * module.WATCHED
        history.sample()
        assert telemetry.meters == (history._metrics,)
        history.close()
        assert telemetry.meters == ()

    def test_never_begins_beside_a_hub_that_is_blocked(self, history):
        """Others attach listeners there: two threads at once could lose one."""
        history.look()
        history._reader.blocked = True
        history.sample()
        assert telemetry.meters == ()

    def test_has_ended_for_good_once_it_is_closed(self, history):
        """A sample that was on its way attaches nothing."""
        history.look()
        history.sample()
        history.close()
        history.look()
        history.sample()
        assert telemetry.meters == ()

    def test_begins_also_if_somebody_looks_during_a_sample(self, history):
        """The next one comes at once, not a period later."""
        history.sample()
        history.look()
        history.wait()
        history.sample()
        assert history.measures


class TestQuantile:
    def test_is_none_without_anything(self):
        """There is no percentile of nothing."""
        assert module._quantile((1.0,), None, 0.5) is None
        assert module._quantile((1.0,), (0, 0), 0.5) is None
        assert module._quantile((1.0,), (2, 0), 0.5) == 0.5

    def test_of_numbers_that_shrank_is_of_the_new_ones(self):
        """Their pool was stopped and started meanwhile."""
        assert module._since((5, 5), (1, 6)) == (1, 6)
        assert module._since((5, 5), (6, 7)) == (1, 2)


class TestPool:
    def test_is_watched_through_the_api(self, node):
        """Whoever asks for a pool has it measured; who looks at processes does not."""
        running(Echo, size=1, name="db")
        node.get("/v1/processes")
        assert node.get("/v1/node")["measures"] is False
        assert telemetry.meters == ()
        node.get("/v1/pools")
        until(lambda: node.get("/v1/pools/db")["pool"]["measured"])
        assert len(telemetry.meters) == 1
        gpool.observer.stop()
        assert telemetry.meters == ()
