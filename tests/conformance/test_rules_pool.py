"""Each rule of the pools rewrites the steps it is meant for, and no others."""

from __future__ import annotations

import pytest

from tests.conformance.rules import NOT_COMPARED, Context
from tests.conformance.rules_pool import (
    POOL_RULES,
    circle_is_refused,
    killed_manager_is_replaced,
    only_leases_are_checked_in,
    pool_ends_with_shutdown,
    pool_without_room_is_refused,
    stale_checkin_takes_nothing,
    start_is_waited_for,
)

ONE_IDLE = {"status": ["ready", 1, 0, 0], "workers": ["w0"]}
ONE_LENT = {"status": ["full", 0, 0, 1], "workers": ["w0"]}


def pool_context(*history, size=1, max_overflow=0, kind="pool"):
    """Return the context of the last of some (step, recorded) pairs."""
    steps, expect = zip(*history, strict=True)
    setup = {"size": size, "max_overflow": max_overflow, "clients": 3}
    case = {"kind": kind, "setup": setup, "steps": list(steps), "expect": list(expect)}
    return Context(case, len(steps) - 1)


def borrowed(client, worker="w0", *, block=True, **observed):
    """Return a checkout that gets a worker."""
    step = {"op": "checkout", "c": client, "block": block, "timeout": "infinity"}
    return step, {"result": {"worker": worker}, **ONE_LENT, **observed}


def waiting(client):
    """Return a checkout that has to wait."""
    step = {"op": "checkout", "c": client, "block": True, "timeout": "infinity"}
    return step, {"result": "pending", **ONE_LENT, "waiting": [client]}


def returned(client, worker="w0", observed=ONE_IDLE):
    """Return a checkin."""
    return {"op": "checkin", "c": client, "w": worker}, {"result": "ok", **observed}


@pytest.mark.parametrize("rule", POOL_RULES, ids=lambda rule: rule.name)
def test_every_rule_leaves_other_kinds(rule):
    """Operations of the same name, on servers say, are none of theirs."""
    steps = [{"op": "stop", "c": "c0", "to": "s0"}, {"op": "checkin"}, {"op": "signal_pool"}]
    recorded = {"result": "ok", "exit": "killed"}
    contexts = [pool_context((step, recorded), size=0, kind="gen_server") for step in steps]
    assert [rule.rewrite(context, recorded) for context in contexts] == [recorded] * 3


class TestPoolWithoutRoomIsRefused:
    def rewrite(self, **setup):
        """Return what is expected of a checkout."""
        context = pool_context(waiting("c0"), **setup)
        return pool_without_room_is_refused(context, context.recorded)

    def test_leaves_the_case_without_a_pool(self):
        """No operation finds one, and nothing else is to be seen."""
        assert self.rewrite(size=0, max_overflow=0) == {"result": "no_pool"}

    @pytest.mark.parametrize("setup", [{"size": 1}, {"size": 0, "max_overflow": 1}])
    def test_leaves_a_pool_that_can_have_a_worker(self, setup):
        """One worker is enough, kept or not."""
        assert self.rewrite(**setup) == waiting("c0")[1]


class TestStartIsWaitedFor:
    def rewrite(self, *history):
        """Return what is expected as the last result."""
        context = pool_context(*history, max_overflow=2)
        return start_is_waited_for(context, context.recorded)["result"]

    def test_tells_a_worker_that_had_to_be_started(self):
        """It is new: it was not there in the step before."""
        assert self.rewrite(borrowed("c0"), borrowed("c1", "w1", block=False)) == {"started": "w1"}

    def test_knows_the_workers_of_a_new_pool(self):
        """In the first step the `size` first ones are there."""
        assert self.rewrite(borrowed("c0", "w0", block=False)) == {"worker": "w0"}
        assert self.rewrite(borrowed("c0", "w1", block=False)) == {"started": "w1"}

    def test_leaves_an_idle_worker(self):
        """Neither pool has to wait for it."""
        history = [borrowed("c0"), returned("c0"), borrowed("c1", block=False)]
        assert self.rewrite(*history) == {"worker": "w0"}

    def test_leaves_a_checkout_that_may_block(self):
        """It waits for the start in either pool."""
        assert self.rewrite(borrowed("c0"), borrowed("c1", "w1")) == {"worker": "w1"}

    @pytest.mark.parametrize("result", ["full", {"exit": "noproc"}])
    def test_leaves_a_client_that_gets_nothing(self, result):
        """There is nothing to start."""
        assert self.rewrite(borrowed("c0"), borrowed("c1", block=False, result=result)) == result


class TestOnlyLeasesAreCheckedIn:
    def rewrite(self, *history):
        """Return what is expected as the last result."""
        context = pool_context(*history)
        return only_leases_are_checked_in(context, context.recorded)

    @pytest.mark.parametrize("worker", ["other", "w0"])
    def test_refuses_what_was_never_lent(self, worker):
        """A pid that is no worker, or is one; the pool is as it was."""
        assert self.rewrite(returned("c0", worker)) == {"result": "badarg", **ONE_IDLE}

    def test_refuses_what_only_a_transaction_had(self):
        """Its lease never left it."""
        transaction = {"op": "transaction", "c": "c0", "does": "return", "timeout": "infinity"}
        used = (transaction, {"result": {"used": "w0"}, **ONE_IDLE})
        assert self.rewrite(used, returned("c0"))["result"] == "badarg"

    def test_leaves_what_was_lent(self):
        """Now or before, to this client or another."""
        history = [borrowed("c0"), returned("c0"), returned("c0"), returned("c1")]
        for end in (2, 3, 4):
            assert self.rewrite(*history[:end])["result"] == "ok"

    def test_leaves_what_was_got_by_waiting(self):
        """A worker that came in a later step was lent, too."""
        came = returned("c0", "w9", {"completed": {"c1": {"worker": "w0"}}})
        assert self.rewrite(waiting("c1"), came, returned("c1"))["result"] == "ok"

    def test_leaves_what_another_rule_has_settled(self):
        """Where there is no pool, nobody looks at what is checked in."""
        context = pool_context(returned("c0", "other"), size=0)
        expected = {"result": "no_pool"}
        assert only_leases_are_checked_in(context, expected) == expected


class TestStaleCheckinTakesNothing:
    def rewrite(self, *history):
        """Return what is expected of the last step."""
        context = pool_context(*history)
        return stale_checkin_takes_nothing(context, context.recorded)

    def robbed(self):
        """Return a history in which c0 takes from c1 what it had before."""
        return [borrowed("c0"), returned("c0"), borrowed("c1"), returned("c0")]

    def test_keeps_all_as_it_was(self):
        """The worker stays lent to the client that has it."""
        assert self.rewrite(*self.robbed()) == {"result": "ok", **ONE_LENT}

    def test_keeps_those_who_wait_waiting(self):
        """Nor is it handed over to the next one."""
        handed_over = returned("c0", observed={**ONE_LENT, "completed": {"c2": {"worker": "w0"}}})
        history = [*self.robbed()[:3], waiting("c2"), handed_over]
        assert self.rewrite(*history) == {"result": "ok", **ONE_LENT, "waiting": ["c2"]}

    def test_leaves_out_what_follows(self):
        """The worker is idle then in poolboy, and lent in gpool."""
        assert self.rewrite(*self.robbed(), borrowed("c2")) is NOT_COMPARED

    def test_leaves_a_second_checkin_of_a_worker_that_nobody_has(self):
        """Nothing happens in either pool."""
        history = [borrowed("c0"), returned("c0"), returned("c0")]
        assert self.rewrite(*history) == history[-1][1]
        history = [*self.robbed()[:3], returned("c1"), returned("c0"), borrowed("c2")]
        assert self.rewrite(*history[:5]) == history[4][1]
        assert self.rewrite(*history) == history[-1][1]

    def test_leaves_a_client_that_has_it_again(self):
        """It gives back what it has."""
        history = [*self.robbed()[:3], returned("c1"), borrowed("c0"), returned("c0")]
        assert self.rewrite(*history) == history[-1][1]

    def test_leaves_a_client_that_never_had_it(self):
        """It was given the lease: whoever has it may check it in."""
        history = [borrowed("c0"), returned("c1")]
        assert self.rewrite(*history) == history[-1][1]


class TestCircleIsRefused:
    def rewrite(self, *history):
        """Return what is expected of the last step."""
        context = pool_context(*history)
        return circle_is_refused(context, context.recorded)

    def test_raises_in_who_would_close_it(self):
        """It holds the only worker and wants another one, for ever."""
        expected = {"result": {"exit": "deadlock"}, **ONE_LENT, "waiting": []}
        assert self.rewrite(borrowed("c0"), waiting("c0")) == expected

    def test_leaves_out_what_follows(self):
        """In poolboy that client waits on."""
        assert self.rewrite(borrowed("c0"), waiting("c0"), waiting("c1")) is NOT_COMPARED

    def test_leaves_a_client_that_waits_for_another(self):
        """That one may let go."""
        history = [borrowed("c0"), waiting("c1")]
        assert self.rewrite(*history) == history[-1][1]


class TestPoolEndsWithShutdown:
    def rewrite(self, op, recorded):
        """Return what is expected of the last step."""
        context = pool_context(({"op": op}, recorded))
        return pool_ends_with_shutdown(context, recorded)

    @pytest.mark.parametrize(("op", "reason"), [("stop", "normal"), ("owner_exit", "boom")])
    def test_changes_the_reason(self, op, reason):
        """Of the pool, and of the exits of those who waited; other results stay."""
        left, other = {"exit": reason}, {"error": "oops"}
        recorded = {"result": "ok", "exit": reason, "completed": {"c0": left, "c1": other}}
        ended = {"exit": "shutdown"}
        told = {"c0": ended, "c1": other}
        assert self.rewrite(op, recorded) == {"result": "ok", **ended, "completed": told}

    def test_leaves_an_owner_that_ends_with_shutdown(self):
        """That is the reason in either pool."""
        told = {"c0": {"exit": "shutdown"}}
        recorded = {"result": "ok", "exit": "shutdown", "completed": told}
        assert self.rewrite("owner_exit", recorded) == recorded

    def test_leaves_a_pool_that_does_not_end(self):
        """A pool that was stopped before is not there to be stopped."""
        recorded = {"result": {"exit": "noproc"}}
        assert self.rewrite("stop", recorded) == recorded

    def test_leaves_a_killed_pool(self):
        """That is another rule's."""
        recorded = {"result": "ok", "exit": "killed"}
        assert self.rewrite("signal_pool", recorded) == recorded


class TestKilledManagerIsReplaced:
    def rewrite(self, reason, recorded):
        """Return what is expected of a signal to the pool."""
        context = pool_context(({"op": "signal_pool", "reason": reason}, recorded))
        return killed_manager_is_replaced(context, recorded)

    def test_leaves_out_the_step_and_what_follows(self):
        """In poolboy nothing is left to compare with."""
        assert self.rewrite("kill", {"result": "ok", "exit": "killed"}) is NOT_COMPARED

    def test_leaves_a_signal_that_does_not_end_the_pool(self):
        """Both managers trap exits; a dead pool takes no notice, either."""
        assert self.rewrite("boom", {"result": "ok", **ONE_IDLE}) == {"result": "ok", **ONE_IDLE}
        assert self.rewrite("kill", {"result": "ok"}) == {"result": "ok"}
