"""Each rule rewrites the steps it is meant for, and no others."""

from __future__ import annotations

import pytest

from tests.conformance.rules import (
    RULES,
    Context,
    callers_left,
    dynamic_auto_shutdown_is_refused,
    failed_server_is_quiet,
    failed_supervisor_is_quiet,
    signalled_server_terminates,
    terminate_answers_callers,
)
from tests.conformance.rules_pool import POOL_RULES

REPLIES = {"ret": "noreply", "release": [{"n": 0, "value": "bye"}]}
"""The action of a terminate that answers the first caller left without a reply."""


def gen_server_context(*history):
    """Return the context of the last of some (step, recorded) pairs."""
    steps, expect = zip(*history, strict=True)
    case = {"kind": "gen_server", "setup": {}, "steps": list(steps), "expect": list(expect)}
    return Context(case, len(steps) - 1)


def started(**options):
    """Return a start step that went well."""
    step = {"op": "start", "c": "c0", "server": "s0", "mode": "start"}
    return step | options, {"result": "ok", "log": {"s0": [["init"]]}}


def called(client, n=0):
    """Return a call that is left without a reply."""
    step = {"op": "call", "c": client, "to": "s0", "action": {"tag": f"t{n}", "ret": "noreply"}}
    return step, {"result": "pending", "log": {"s0": [["call", f"t{n}"]]}}


def signalled(**recorded):
    """Return a signal to s0 and what was recorded for it."""
    step = {"op": "exit_signal", "c": "c1", "to": "s0", "reason": "boom"}
    return step, {"result": "ok", "died": {"s0": "boom"}} | recorded


def test_every_rule_says_why():
    """Names are unique, and each reason points to where it was decided."""
    rules = (*RULES, *POOL_RULES)
    assert len({rule.name for rule in rules}) == len(rules)
    assert all("otp-semantics" in rule.reason or "DESIGN" in rule.reason for rule in rules)


class TestFailedServerIsQuiet:
    def rewrite(self, step, recorded):
        """Return what is expected of one step."""
        return failed_server_is_quiet(gen_server_context((step, recorded)), recorded)

    def test_removes_the_exit_of_the_server_only(self):
        """Other messages, also other exits, stay."""
        step, _ = started()
        received = [{"exit": "p9", "reason": "boom"}, {"exit": "s0", "reason": "boom"}]
        recorded = {"result": {"error": "boom"}, "received": {"c0": received, "c1": received[:1]}}
        assert self.rewrite(step, recorded)["received"] == {"c0": received[:1], "c1": received[:1]}

    def test_leaves_a_start_that_went_well(self):
        """A server that dies after its start is heard of."""
        step, _ = started()
        recorded = {"result": "ok", "received": {"c0": [{"exit": "s0", "reason": "boom"}]}}
        assert self.rewrite(step, recorded) == recorded

    def test_leaves_other_steps(self):
        """Only a start can be a failed start."""
        step = {"op": "stop", "c": "c0", "to": "s0"}
        recorded = {"result": "ok", "received": {"c0": [{"exit": "s0", "reason": "normal"}]}}
        assert self.rewrite(step, recorded) == recorded


def supervisor_context(step, recorded, **setup):
    """Return the context of the only step of a case."""
    case = {"kind": "supervisor", "setup": setup, "steps": [step], "expect": [recorded]}
    return Context(case, 0)


class TestFailedSupervisorIsQuiet:
    def rewrite(self, step, recorded):
        """Return what is expected of one step."""
        return failed_supervisor_is_quiet(supervisor_context(step, recorded), recorded)

    @pytest.mark.parametrize("result", ["ignore", {"error": "bad_start_spec"}])
    def test_removes_the_exit(self, result):
        """The parent of a supervisor that did not start gets no signal."""
        recorded = {"result": result, "exit": "normal", "sup": "down"}
        assert self.rewrite({"op": "start"}, recorded) == {"result": result, "sup": "down"}

    @pytest.mark.parametrize("op", ["start", "stop_sup"])
    def test_leaves_a_supervisor_that_has_started(self, op):
        """Also if it gives up in the same step."""
        recorded = {"result": "ok", "exit": "shutdown", "sup": "down"}
        assert self.rewrite({"op": op}, recorded) == recorded


class TestDynamicAutoShutdownIsRefused:
    def rewrite(self, step, recorded, **setup):
        """Return what is expected of one step."""
        dynamic = {"strategy": "simple_one_for_one", "auto_shutdown": "any_significant"}
        context = supervisor_context(step, recorded, **(dynamic | setup))
        return dynamic_auto_shutdown_is_refused(context, recorded)

    @pytest.mark.parametrize(
        ("op", "result"),
        [
            ("start", {"error": {"start_spec": "bad_combination"}}),
            ("start_child", "noproc"),
            ("which_children", "noproc"),
            ("stop_sup", "noproc"),
            ("crash", "not_running"),
            ("sleep", "ok"),
        ],
    )
    def test_leaves_the_case_without_a_supervisor(self, op, result):
        """The start fails; whoever asks later finds nobody."""
        recorded = {"result": "ok", "sup": "up", "which": [], "count": [1, 0, 0, 0]}
        assert self.rewrite({"op": op}, recorded) == {"result": result, "sup": "down"}

    def test_leaves_an_error_that_is_found_before(self):
        """A wrong option, or a wrong template, is what the start fails of."""
        recorded = {"result": {"error": {"supervisor_data": "invalid_period"}}, "sup": "down"}
        assert self.rewrite({"op": "start"}, recorded) == recorded

    @pytest.mark.parametrize(
        "setup",
        [{"strategy": "one_for_one"}, {"auto_shutdown": "never"}, {"auto_shutdown": "sometimes"}],
    )
    def test_leaves_other_setups(self, setup):
        """Static supervisors have it; a dynamic one without it is as in OTP."""
        recorded = {"result": "ok", "sup": "up", "which": [], "count": [1, 0, 0, 0]}
        assert self.rewrite({"op": "start"}, recorded, **setup) == recorded


class TestSignalledServerTerminates:
    def rewrite(self, *history):
        """Return what is expected of the log."""
        context = gen_server_context(*history)
        return signalled_server_terminates(context, context.recorded).get("log")

    def test_adds_terminate(self):
        """A signal that ends a server that does not trap exits runs its terminate."""
        assert self.rewrite(started(), signalled()) == {"s0": [["terminate", "boom"]]}

    def test_adds_it_after_the_callbacks_of_the_step(self):
        """It is the last thing that the server does."""
        log = {"s0": [["cast", "m1"]], "s1": [["init"]]}
        assert self.rewrite(started(), signalled(log=log)) == {
            "s0": [["cast", "m1"], ["terminate", "boom"]],
            "s1": [["init"]],
        }

    def test_leaves_a_trapping_server(self):
        """OTP runs its terminate, or it is killed."""
        assert self.rewrite(started(trap=True), signalled()) is None

    def test_leaves_a_kill(self):
        """Nothing runs after a kill."""
        assert self.rewrite(started(), signalled(died={"s0": "killed"})) is None

    def test_leaves_a_server_that_stops(self):
        """What stops or crashes runs terminate in OTP, too."""
        log = {"s0": [["cast", "m1"], ["terminate", "boom"]]}
        assert self.rewrite(started(), signalled(log=log)) == log

    def test_leaves_a_slow_stop(self):
        """A server whose terminate began in an earlier step does not run it again."""
        slow = {"result": {"exit": "timeout"}, "log": {"s0": [["terminate", "normal"]]}}
        stop = {"op": "stop", "c": "c1", "to": "s0", "timeout": 50}
        assert self.rewrite(started(), (stop, slow), signalled(died={"s0": "normal"})) is None

    def test_leaves_a_failed_start(self):
        """A server that never ran has nothing to clean up."""
        step, _ = started()
        assert self.rewrite((step, {"result": {"error": "boom"}, "died": {"s0": "boom"}})) is None


class TestTerminateAnswersCallers:
    def rewrite(self, *history):
        """Return what is expected of the calls that were pending."""
        context = gen_server_context(*history)
        return terminate_answers_callers(context, context.recorded).get("completed")

    def test_turns_the_exit_into_the_reply(self):
        """The caller that terminate replies to has its reply; others hear of the death."""
        exits = {"c1": {"exit": "boom"}, "c2": {"exit": "boom"}}
        history = [started(terminate=REPLIES), called("c1", 0), called("c2", 1)]
        assert self.rewrite(*history, signalled(completed=exits)) == {
            "c1": {"reply": "bye"},
            "c2": {"exit": "boom"},
        }

    def test_leaves_a_caller_that_was_answered_before(self):
        """The same client's later call is another number."""
        exits = {"c1": {"exit": "boom"}}
        history = [started(terminate=REPLIES), called("c1", 0), called("c1", 1)]
        assert self.rewrite(*history, signalled(completed=exits)) == exits

    def test_leaves_a_server_that_stops(self):
        """There OTP's terminate replies, too."""
        stopped = signalled(completed={"c1": {"reply": "bye"}}, log={"s0": [["terminate", "boom"]]})
        history = [started(terminate=REPLIES), called("c1", 0)]
        assert self.rewrite(*history, stopped) == {"c1": {"reply": "bye"}}


class TestCallersLeft:
    def test_counts_calls_in_the_order_in_which_they_were_handled(self):
        """Not in the order in which they were made: the server may be suspended."""
        call, _ = called("c1", 0)
        other, _ = called("c2", 0)
        resumed = {"result": "ok", "log": {"s0": [["call", "t0"], ["call", "t0"]]}}
        history = [
            started(),
            (call, {"result": "pending"}),
            (other, {"result": "pending"}),
            ({"op": "resume", "c": "c3", "to": "s0"}, resumed),
            signalled(),
        ]
        assert callers_left(gen_server_context(*history), "s0") == ["c1", "c2"]

    def test_knows_calls_by_name(self):
        """A call to a registered name is one to whoever has it."""
        start, ok = started(name="srv")
        call, pending = called("c1", 0)
        history = [
            (start, ok | {"names": {"srv": "s0"}}),
            (call | {"to": {"name": "srv"}}, pending),
            signalled(),
        ]
        assert callers_left(gen_server_context(*history), "s0") == ["c1"]

    def test_leaves_out_those_that_were_answered_at_once(self):
        """A reply before the return, or in it, leaves nobody waiting."""
        call, pending = called("c1", 0)
        early = call | {"action": call["action"] | {"reply_first": 1}}
        assert (
            callers_left(gen_server_context(started(), (early, pending), signalled()), "s0") == []
        )
