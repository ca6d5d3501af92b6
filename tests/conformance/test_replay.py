"""The recorded cases agree with gpool; and the replay would notice if they did not."""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.conformance import __main__ as command
from tests.conformance.reading import load, put_names_back
from tests.conformance.replay import replay
from tests.conformance.rules import RULES

FILES = ("signals", "gen_server", "supervisor")
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


def chunks():
    """Yield (file, first case) for all chunks of all files."""
    for name in FILES:
        for start in range(0, len(cases_of(name)), CHUNK):
            yield name, start


class TestRecordedCases:
    @pytest.mark.parametrize(("name", "start"), list(chunks()))
    def test_agree(self, name, start):
        """Every step of every recorded case shows what OTP, or a rule, says."""
        mismatches = [str(m) for verdict in verdicts_of(name, start) for m in verdict.mismatches]
        assert mismatches == []

    def test_need_every_rule(self, capsys):
        """There are five to ten rules, and each rewrites some step; prints how many."""
        rewrites = Counter()
        for name, start in chunks():
            for verdict in verdicts_of(name, start):
                rewrites += verdict.rewrites
        with capsys.disabled():
            print("", *(f"{rule.name}: {rewrites[rule.name]} steps" for rule in RULES), sep="\n  ")
        assert 5 <= len(RULES) <= 10
        assert {rule.name for rule in RULES} == rewrites.keys()


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
        [{"format": 2, "cases": []}, [], {"format": 1, "cases": [{"id": "x", "kind": "pool"}]}],
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
        pool = case_with([], [], kind="pool")
        with pytest.raises(SystemExit, match="2"):
            command.main([self.write(tmp_path, pool)])
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
