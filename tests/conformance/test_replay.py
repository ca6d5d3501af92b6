"""The recorded cases agree with gpool; and the replay would notice if they did not."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path

import pytest

import gpool
from tests.conformance import __main__ as command
from tests.conformance.reading import load, put_names_back
from tests.conformance.replay import replay
from tests.conformance.rules import NOT_COMPARED, RULES, Rule
from tests.conformance.rules_pool import POOL_RULES

KIT = ("signals", "gen_server", "supervisor")
FILES = (*KIT, "pool")
HERE = Path(__file__).parent
CHUNK = 50  # cases a test


@functools.cache
def cases_of(name):
    """Return the cases of a recorded file."""
    return load(HERE / f"{name}.json")


@functools.cache
def verdicts_of(name, start):
    """Return the verdicts on one chunk of a file's cases."""
    return [replay(case) for case in cases_of(name)[start : start + CHUNK]]


def chunks(names=FILES):
    """Yield (file, first case) for all chunks of some files."""
    for name in names:
        for start in range(0, len(cases_of(name)), CHUNK):
            yield name, start


class TestRecordedCases:
    @pytest.mark.parametrize(("name", "start"), list(chunks()))
    def test_agree(self, name, start):
        """Every step of every recorded case shows what OTP, poolboy, or a rule says."""
        mismatches = [str(m) for verdict in verdicts_of(name, start) for m in verdict.mismatches]
        assert mismatches == []

    @pytest.mark.parametrize(
        ("names", "rules", "few"),
        [(KIT, RULES, range(5, 11)), (("pool",), POOL_RULES, range(1, 8))],
        ids=["kit", "pool"],
    )
    def test_need_every_rule(self, names, rules, few, capsys):
        """Of few rules each rewrites some step, and only of its kinds; prints how many."""
        rewrites = Counter()
        for name, start in chunks(names):
            for verdict in verdicts_of(name, start):
                rewrites += verdict.rewrites
        with capsys.disabled():
            print("", *(f"{rule.name}: {rewrites[rule.name]} steps" for rule in rules), sep="\n  ")
        assert len(rules) in few
        assert {rule.name for rule in rules} == rewrites.keys()

    @pytest.mark.parametrize(("name", "share"), [*((name, 0) for name in KIT), ("pool", 0.03)])
    def test_are_compared_to_their_ends(self, name, share):
        """Only after a pool was killed, robbed or in a circle steps are left out: a few."""
        left_out = sum(
            it.left_out for _, start in chunks([name]) for it in verdicts_of(name, start)
        )
        steps = sum(len(case["steps"]) for case in cases_of(name))
        assert left_out <= share * steps


def case_with(steps, expect, *, kind="signals", setup=None):
    """Return a case made up for a test."""
    case = {"id": f"{kind}/made-up", "kind": kind, "setup": setup or {}}
    return case | {"steps": steps, "expect": expect}


class TestReplay:
    def test_reports_each_field_that_differs(self):
        """A mismatch names the case, the step, the field, and both values."""
        case = case_with(
            [{"op": "spawn", "p": "p0", "trap": False}],
            [{"result": "badarg", "alive": ["p0"], "names": {"n0": "p0"}}],
        )
        verdict = replay(case)
        assert verdict.word == "differ"
        assert [str(mismatch) for mismatch in verdict.mismatches] == [
            'signals/made-up step 0 names: expected {"n0": "p0"}, got null',
            'signals/made-up step 0 result: expected "badarg", got "ok"',
        ]

    def test_counts_an_unexpected_observation(self):
        """A field that is recorded as empty, by being left out, must be empty."""
        case = case_with([{"op": "spawn", "p": "p0", "trap": False}], [{"result": "ok"}])
        assert [mismatch.field for mismatch in replay(case).mismatches] == ["alive"]

    def test_reports_an_operation_that_it_does_not_know(self):
        """What a runner cannot carry out is a mismatch, not a pass."""
        case = case_with([{"op": "dance"}], [{"result": "ok"}])
        assert replay(case).word == "differ"

    def test_says_when_a_rule_was_needed(self):
        """A case that agrees only as rewritten is counted apart, with the rule's name."""
        case = case_with(
            [{"op": "start", "c": "c0", "server": "s0", "mode": "start_link",
              "init": {"ret": "stop", "reason": "boom"}}],
            [{"result": {"error": "boom"}, "alive": ["c0"], "died": {"s0": "boom"},
              "log": {"s0": [["init"]]}, "received": {"c0": [{"exit": "s0", "reason": "boom"}]}}],
            kind="gen_server",
            setup={"clients": {"c0": True}},
        )  # fmt: skip
        verdict = replay(case)
        assert (verdict.word, verdict.rewrites) == ("rewritten", {"failed-server-is-quiet": 1})
        assert replay(case, rules=()).word == "differ"

    def test_ends_where_a_rule_says_so(self):
        """A step that is not to be compared, and what follows, is not carried out."""
        step = {"op": "spawn", "p": "p0", "trap": False}
        case = case_with([step, {"op": "dance"}, step], [{"result": "ok", "alive": ["p0"]}] * 3)

        def rewrite(context, expected):
            return NOT_COMPARED if context.step["op"] == "dance" else expected

        verdict = replay(case, rules=[Rule("no-dancing", "why not", rewrite)])
        assert (verdict.word, verdict.left_out) == ("rewritten", 2)
        assert verdict.rewrites == {"no-dancing": 1}

    def test_starts_each_case_in_a_fresh_world(self):
        """Names and processes of one case are gone in the next."""
        steps = [
            {"op": "spawn", "p": "p0", "trap": True},
            {"op": "register", "a": "p0", "name": "n0"},
        ]
        expect = [
            {"result": "ok", "alive": ["p0"]},
            {"result": "ok", "alive": ["p0"], "names": {"n0": "p0"}},
        ]
        assert [replay(case_with(steps, expect)).word for _ in range(2)] == ["agree", "agree"]


class TestTime:
    def steps(self, *steps):
        """Return steps that a server with an idle time-out of 60 ms comes before."""
        start = {"op": "start", "c": "c0", "server": "s0", "mode": "start"}
        idle = {"op": "cast", "c": "c0", "to": "s0",
                "action": {"tag": "a", "ret": "noreply", "next": {"timeout": 60}}}  # fmt: skip
        return [start, idle, *steps]

    def logs(self, *steps):
        """Return what the server logged in each of the steps."""
        steps = self.steps(*steps)
        case = case_with(steps, [{"result": "?"}] * len(steps), kind="gen_server",
                         setup={"clients": {"c0": False, "c1": False}})  # fmt: skip
        logs = {m.index: m.got for m in replay(case).mismatches if m.field == "log"}
        return [logs.get(index, {}).get("s0", []) for index in range(2, len(steps))]

    def test_passes_in_a_sleep_only(self):
        """An idle time-out is not waited for, but a sleep lets it pass."""
        whereis = {"op": "whereis", "name": "n0"}
        assert self.logs(whereis, {"op": "sleep", "ms": 59}, {"op": "sleep", "ms": 1}) == [
            [], [], [["info", "timeout"]],
        ]  # fmt: skip

    def test_passes_until_a_finite_operation_returns(self):
        """A call with a time-out lasts until it has returned; one without stays pending."""
        call = {"op": "call", "c": "c1", "to": "s0",
                "action": {"tag": "b", "ret": "reply", "value": 1, "sleep": 40}}  # fmt: skip
        steps = self.steps(call, {"op": "sleep", "ms": 40}, call | {"timeout": 5000})
        case = case_with(steps, [{"result": "?"}] * len(steps), kind="gen_server",
                         setup={"clients": {"c0": False, "c1": False}})  # fmt: skip
        results = {m.index: m.got for m in replay(case).mismatches if m.field == "result"}
        completed = {m.index: m.got for m in replay(case).mismatches if m.field == "completed"}
        assert (results[2], completed[3], results[4]) == (
            "pending", {"c1": {"reply": 1}}, {"reply": 1},
        )  # fmt: skip

    def test_stops_when_a_step_would_never_end(self):
        """A supervisor that restarts for ever, too slowly to give up, is left at it."""
        child = {"id": "a", "run": "stubborn", "init": ["ok"]}
        failing = {"id": "b", "init": ["ok", {"error": "no"}]}
        setup = {"strategy": "one_for_all", "intensity": 1, "period": 1}
        steps = [{"op": "start"}, {"op": "crash", "id": "b", "reason": "boom"}]
        case = case_with(steps, [{"result": "ok"}] * 2, kind="supervisor",
                         setup=setup | {"children": [child, failing]})  # fmt: skip
        events = {m.index: m.got for m in replay(case).mismatches if m.field == "events"}
        assert events[1].count(["fail", "b", 2]) == 1
        assert len(events[1]) > 10


class TestPool:
    def replay(self, steps, expect, **setup):
        """Return what a pool of one worker, or as set up, shows otherwise than expected."""
        setup = {"size": 1, "max_overflow": 0, "clients": 2} | setup
        verdict = replay(case_with(steps, expect, kind="pool", setup=setup), rules=())
        return {(m.index, m.field): m.got for m in verdict.mismatches}

    def checkout(self, client, **how):
        """Return a checkout that may block for ever, or as said."""
        return {"op": "checkout", "c": client, "block": True, "timeout": "infinity"} | how

    def test_would_notice_another_worker(self):
        """Which worker is lent is compared, and what the pool's books say."""
        wrong = {"result": {"worker": "w0"}, "status": ["full", 0, 0, 2], "workers": ["w1"]}
        assert self.replay([self.checkout("c0")], [wrong], size=2) == {
            (0, "result"): {"worker": "w1"},
            (0, "status"): ["ready", 1, 0, 1],
            (0, "workers"): ["w0", "w1"],
        }

    def test_tells_a_worker_that_was_waited_for(self):
        """A client that may not block gets an idle worker at once, a new one with some time."""
        steps = [self.checkout("c0", block=False), self.checkout("c1", block=False)]
        expect = [
            {"result": {"worker": "w0"}, "status": ["overflow", 0, 0, 1], "workers": ["w0"]},
            {"result": {"worker": "w1"}, "status": ["full", 0, 1, 2], "workers": ["w0", "w1"]},
        ]
        assert self.replay(steps, expect, max_overflow=1) == {(1, "result"): {"started": "w1"}}

    def test_takes_nothing_by_a_stale_checkin(self):
        """A client that had the worker uses its own lease, not that of the next one."""
        back = {"op": "checkin", "c": "c0", "w": "w0"}
        steps = [self.checkout("c0"), back, self.checkout("c1"), back]
        lent = {"result": {"worker": "w0"}, "status": ["full", 0, 0, 1], "workers": ["w0"]}
        idle = {"result": "ok", "status": ["ready", 1, 0, 0], "workers": ["w0"]}
        assert self.replay(steps, [lent, idle] * 2) == {(3, "status"): ["full", 0, 0, 1]}

    def test_leaves_nothing_behind(self):
        """The processes of a case are dead after it, also those that its steps left blocked."""
        before = set(gpool.processes())
        self.replay([self.checkout("c0"), self.checkout("c1")], [{"result": "ok"}] * 2)
        me = gpool.self()
        assert set(gpool.processes()) - before <= {me}


class TestReading:
    def test_puts_the_name_of_a_monitor_back(self):
        """The recorder's `other` becomes the name, where a monitor was set on one."""
        steps = [
            {"op": "monitor", "c": "c0", "to": {"name": "srv"}, "ref": "r1"},
            {"op": "monitor", "c": "c0", "to": "s0", "ref": "r0"},
        ]
        down = {"down": "other", "ref": "r1", "reason": "noproc"}
        plain = {"down": "s0", "ref": "r0", "reason": "noproc"}
        case = case_with(steps, [{"result": "ok", "received": {"c0": [down, plain]}}])
        named = {"down": {"name": "srv"}, "ref": "r1", "reason": "noproc"}
        assert put_names_back(case)["expect"][0]["received"] == {"c0": [named, plain]}

    @pytest.mark.parametrize(
        "content",
        [{"format": 2, "cases": []}, [], {"format": 1, "cases": [{"id": "x", "kind": "zoo"}]}],
    )
    def test_refuses_other_files(self, tmp_path, content):
        """A file of another format or kind is an error that names it."""
        path = tmp_path / "other.json"
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"other\.json: .*expected"):
            load(path)


class TestCommand:
    def test_refuses_what_it_cannot_read(self, tmp_path, capsys):
        """A file of another kind is an error of use: exit code 2, and a line that says so."""
        other = case_with([], [], kind="zoo")
        with pytest.raises(SystemExit, match="2"):
            command.main([self.write(tmp_path, other)])
        assert "expected a kind of" in capsys.readouterr().err

    def write(self, tmp_path, *cases):
        """Return the path of a trace file with these cases."""
        path = tmp_path / "cases.json"
        path.write_text(json.dumps({"format": 1, "oracle": "", "seed": 1, "cases": cases}))
        return str(path)

    def test_ends_with_the_counts(self, tmp_path, capsys):
        """One line a mismatch, then the counts; the exit code tells whether any differs."""
        step = {"op": "spawn", "p": "p0", "trap": False}
        good = case_with([step], [{"result": "ok", "alive": ["p0"]}])
        bad = case_with([step], [{"result": "ok", "alive": ["p1"]}])

        assert command.main([self.write(tmp_path, good)]) == 0
        assert capsys.readouterr().out == "cases 1, agree 1, rewritten 0, differ 0\n"
        assert command.main([self.write(tmp_path, good, bad)]) == 1
        assert capsys.readouterr().out.splitlines() == [
            'signals/made-up step 0 alive: expected ["p1"], got ["p0"]',
            "cases 2, agree 1, rewritten 0, differ 1",
        ]
