"""The harness: its arithmetic, its bounds, its tables; nothing is asserted of any time."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import gpool
from benchmarks import __main__ as program
from benchmarks import harness, peers, report
from benchmarks.bounds import BOUNDS, Bound, verdicts
from benchmarks.contest import Contest, jain
from benchmarks.harness import Case, Effort, Rounds, calibrated, crowded, measure
from benchmarks.machine import facts
from benchmarks.page import page
from benchmarks.results import Result, Row

TINY = Effort(rounds=2, slice=0.0, is_quick=True)
SUITES = Path(program.__file__).parent / "suites"


def test_harness_shows_what_it_says() -> None:
    """The example in its docstring."""
    assert doctest.testmod(harness).failed == 0


class TestRounds:
    def test_ratio_is_the_median_of_those_within_a_round(self) -> None:
        """A round in which everything was slow, or one case alone, does not count."""
        rounds = Rounds({"a": [2.0, 200.0, 9.0], "b": [1.0, 100.0, 1.0]})
        assert rounds.ratio("a", "b") == 2.0

    def test_ratio_is_net_of_the_floor(self) -> None:
        """The floor is taken off within the round, too."""
        rounds = Rounds({"a": [5.0, 7.0], "unit": [1.0, 2.0], "floor": [3.0, 1.0]})
        assert rounds.ratio("a", "unit", less="floor") == 2.5

    def test_cost_is_the_median(self) -> None:
        """One bad round does not count."""
        assert Rounds({"a": [1.0, 2.0, 50.0]}).cost("a") == 2.0


class TestMeasure:
    def test_runs_every_case_once_a_round_in_changing_order(self) -> None:
        """So that none is always the one after the same other."""
        ran: list[str] = []

        def case(name: str) -> Case:
            return Case(name, lambda n: ran.append(name) or float(n), count=3)

        rounds = measure([case(name) for name in "abcd"], Effort(6, 0.01, True))
        orders = {tuple(ran[i : i + 4]) for i in range(0, len(ran), 4)}
        assert all(sorted(order) == list("abcd") for order in orders)
        assert len(orders) > 1
        assert rounds.costs["a"] == [1.0] * 6

    def test_fills_the_slice(self) -> None:
        """A case that takes a millisecond each time runs fifty times in fifty milliseconds."""
        assert calibrated(Case("a", lambda n: n * 0.001), 0.05) == 50

    def test_lets_a_crowd_share_the_work(self) -> None:
        """Each does its part, after once that does not count."""
        acts: list[object] = []
        run = crowded(5, lambda: acts.append(gpool.self()))
        run(20)
        assert Counter(acts).most_common() == [(pid, 5) for pid in dict.fromkeys(acts)]


class TestJain:
    def test_of_equal_shares_is_one(self) -> None:
        """And of one client that has it all, one divided by their number."""
        assert jain([3, 3, 3], 3) == 1.0
        assert jain([9], 3) == pytest.approx(1 / 3)
        assert jain([4, 4], 4) == 0.5


class TestContest:
    @pytest.mark.parametrize("polite", [False, True])
    def test_is_fair_in_a_queue(self, polite: bool) -> None:
        """Everybody gets as many, and nobody waits for more grants than there are clients."""
        peer = peers.gpool_pool(size=2)
        contest = Contest(peer, clients=6, grants=60, polite=polite)
        contest.run()
        peer.close()
        assert (contest.jain, contest.starved, contest.errors) == (1.0, 0, 0)
        assert max(contest.longest) <= 6

    def test_finds_out_who_starves(self) -> None:
        """A queue whose greedy clients overtake those who wait gives to as many as it has."""
        contest = Contest(peers.queue(size=2), clients=6, grants=60, polite=False)
        contest.run()
        assert contest.starved == 4
        assert contest.jain == pytest.approx(2 / 6)
        assert max(contest.longest) >= 60


class TestBounds:
    def test_can_be_missed(self) -> None:
        """From above or from below, and by more than the margin or by less."""
        upper = Bound("x", "s", "r", "c", 2.0, margin=1.5)
        lower = Bound("x", "s", "r", "c", 5.0, at_least=True, margin=2.0)
        assert [upper.holds(value) for value in (2.0, 2.1)] == [True, False]
        assert [upper.holds(value, margin=1.5) for value in (3.0, 3.1)] == [True, False]
        assert [lower.holds(value) for value in (5.0, 4.9)] == [True, False]
        assert [lower.holds(value, margin=2.0) for value in (2.5, 2.4)] == [True, False]

    def test_are_judged_by_what_was_measured(self) -> None:
        """A figure that is missing offends, unless its peer is; suites not run do not count."""
        found = verdicts([Result("calls", [Row("handle_call", {": limit": 2.5, ": idiom": 9.0})])])
        by_row = {(v.bound.row, v.bound.column): (v.is_met, v.is_offended) for v in found}
        assert by_row["handle_call", ": limit"] == (False, False)
        assert by_row["handle_call", ": idiom"] == (False, True)
        assert by_row["@call method", ": limit"] == (False, True)
        assert {v.bound.suite for v in found} == {"calls"}
        absent = verdicts([Result("uncontended", [], ["DBUtils PooledDB"])])
        assert "DBUtils PooledDB" not in {v.bound.row for v in absent}

    def test_name_suites_that_there_are(self) -> None:
        """A bound whose suite was renamed would never be looked at."""
        assert {bound.suite for bound in BOUNDS} <= set(program.SUITES)


class TestReport:
    RESULT = Result(
        "s", [Row("a", {"ns": 1234.5}), Row("bb", {"ns": 1.0, ": a": 0.5})], ["gone"], ["So it is."]
    )

    def test_of_a_suite_is_a_table(self) -> None:
        """Columns are those of all rows; who is not installed is named."""
        assert report.table(self.RESULT, report.text).splitlines() == [
            "s      ns    : a",
            "a   1,234",
            "bb      1  0.500",
            "",
            "Not installed: gone.",
            "",
            "So it is.",
        ]
        assert "| bb | 1 | 0.500 |" in report.table(self.RESULT, report.markdown)

    def test_survives_json(self) -> None:
        """What a cell prints is what the program reads."""
        text = json.dumps(self.RESULT.as_json())
        assert Result.from_json(json.loads(text)) == self.RESULT


class TestProgram:
    @pytest.fixture
    def measured(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
        """Give the figure that every bound of the calls is looked up in, to be changed."""
        figures = {": limit": 1.5, ": idiom": 0.5}
        rows = [Row(what, figures) for what in ("handle_call", "@call method")]
        monkeypatch.setattr(program, "run", lambda suite, options: Result(suite, rows))
        return figures

    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
        """Run the program as by this command line."""
        monkeypatch.setattr(sys, "argv", ["benchmarks", "--only=calls", *arguments])
        program.main()

    def test_passes_what_is_within_its_bounds(
        self, measured: dict[str, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And what misses them by less than the margin."""
        measured[": limit"] = 3.5
        self.run(monkeypatch, "--check")

    def test_fails_what_is_not(
        self,
        measured: dict[str, float],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """With exit code 1, and it says what offends."""
        measured[": limit"] = 3.7
        with pytest.raises(SystemExit, match="1"):
            self.run(monkeypatch, "--check")
        offences = capsys.readouterr().err
        assert "handle_call : two greenlets through the hub" in offences
        assert "AsyncResult" not in offences

    def test_prints_json(
        self,
        measured: dict[str, float],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Where it was measured, and all figures."""
        self.run(monkeypatch, "--json")
        printed = json.loads(capsys.readouterr().out)
        assert printed["measured_on"]["gpool"] == gpool.__version__
        assert printed["suites"][0]["rows"][0] == {"what": "handle_call", **measured}

    def test_writes_the_page(
        self, measured: dict[str, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Whatever else it prints."""
        self.run(monkeypatch, "--markdown", f"--write={tmp_path / 'page.md'}")
        assert "| handle_call | 1.50 | 0.500 |" in (tmp_path / "page.md").read_text()

    def test_knows_its_suites(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that there is not is an error, before anything is measured."""
        with pytest.raises(SystemExit, match="2"):
            self.run(monkeypatch, "--only=cals")


class TestPage:
    def test_has_everything(self) -> None:
        """Where it was measured, each suite in its own words, where the time goes."""
        text = page([Result("calls", [Row("handle_call", {": limit": 1.25})])], facts())
        assert "gevent" in text
        assert "| handle_call | 1.25 |" in text
        assert "## Calls\n\nA call and its reply" in text
        assert "## Where the time goes" in text
        assert not re.search(r"{\w+}", text)


class TestSuites:
    def test_are_all_known(self) -> None:
        """A file that is no suite of the program would not be run."""
        files = {path.stem for path in SUITES.glob("*.py")} - {"__init__"}
        assert files == {*program.SUITES, program.BEAM}

    @pytest.mark.parametrize("suite", ["uncontended", "calls", "processes"])
    def test_run(self, suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """For one tiny round, and find every figure that has a bound."""
        monkeypatch.setattr(peers, "installed", lambda: ({}, list(peers.PEERS)))
        module: Any = importlib.import_module(f"benchmarks.suites.{suite}")
        if suite == "calls":
            monkeypatch.setattr(module, "version", lambda package: None)
        result = module.run(TINY)
        assert all(v.value is not None for v in verdicts([result]))

    def test_tell_how_contended_pools_are(self) -> None:
        """Few clients do for that; what the floor costs is no pool's."""
        module: Any = importlib.import_module("benchmarks.suites.contended")
        pools = {module.FLOOR: None, "gpool": peers.gpool_pool(), "queue": peers.queue()}
        rows = {row.what: row.figures for row in module.crowd(pools, 20, 100, TINY)}
        assert rows["gpool, 20 greedy"]["starved"] == 0
        assert rows["queue, 20 greedy"]["starved"] == 10
        assert rows["gpool, 20 polite"]["Jain"] == 1.0
        assert rows["floor, 20 polite"].keys() == {"µs"}

    def test_find_workers_that_are_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pool whose clients do not give back what they had when they were killed loses all."""
        module: Any = importlib.import_module("benchmarks.suites.contended")
        monkeypatch.setattr(module, "FAULTS", 200)
        monkeypatch.setattr(module, "PATIENCE", 0.05)
        things = list(range(peers.SIZE))

        @contextlib.contextmanager
        def lend() -> Iterator[int]:
            while not things:
                gevent.sleep(0.001)
            thing = things.pop()
            yield thing
            things.append(thing)

        assert module.lost(lambda: peers.Peer(lend=lend)) == peers.SIZE
        assert module.lost(peers.gpool_pool) == 0

    def test_see_everybody_give_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By time or by a kill, a few or many."""
        module: Any = importlib.import_module("benchmarks.suites.waiters")
        monkeypatch.setattr(module, "CROWDS", (2, 4))
        monkeypatch.setattr(module, "SLACK", 0.02)
        assert len(module.run(TINY).rows) == 4

    def test_see_pools_grow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lives and events, with two workers and with four; finds every figure with a bound."""
        module: Any = importlib.import_module("benchmarks.suites.growth")
        monkeypatch.setattr(module, "FEW", 2)
        monkeypatch.setattr(module, "MANY", 4)
        assert all(v.value is not None for v in verdicts([module.run(TINY)]))

    def test_set_the_beam_beside(self) -> None:
        """What is measured there stands beside what corresponds to it, and what is not is named."""
        module: Any = importlib.import_module("benchmarks.suites.beam")
        ours = {name: [4e-6, 9e-6] for names in module.PAIRS.values() for name in names}
        rounds = Rounds(ours | {f"{module.BEAM}{name}": [2e-6, 3e-6] for name in ("poolboy",)})
        rows = {row.what: row.figures["gpool : BEAM"] for row in module.rows(rounds)}
        assert rows == {f"poolboy: {name}": 2.5 for name in module.PAIRS["poolboy"]}
        assert module.left_out(rounds.costs) == ["nimble_pool"]

    def test_weigh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the batches after the first have added, per piece."""
        module: Any = importlib.import_module("benchmarks.suites.memory")
        sizes = iter([900_000, 1_000_000, 1_100_000])
        monkeypatch.setattr(module, "resident", lambda: next(sizes))
        made: list[int] = []
        assert module.growth(made.append, 3) == 10.0
        assert made == [10_000] * 3

    def test_say_what_they_measure(self) -> None:
        """The page is made of their docstrings."""
        for suite in (*program.SUITES, program.BEAM):
            words = importlib.import_module(f"benchmarks.suites.{suite}").__doc__
            assert re.match(r".+\.\n\n.+", words)
