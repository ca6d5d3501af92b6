"""Supervisors: OTP's rules one by one (the labels), then what its own suite has beyond them."""

from __future__ import annotations

import contextvars

import gevent
import pytest

import gpool
from gpool import Backoff, ChildError, ChildInfo, ChildSpec, Counts, SpecError, StartError
from gpool import Supervisor as Sup
from gpool.testing import settle
from tests.otp.nursery import Attempt, Boom

ORDERLY = ["normal", "shutdown", ("shutdown", "done")]
CRASHES = ["boom", "killed", "noproc", ("normal", "not")]


def shown(supervisor):
    """Return which_children as a dict of what is shown, oldest first."""
    return {info.id: info.child for info in reversed(supervisor.which_children())}


def running(supervisor):
    """Return the ids of the running children, oldest first."""
    return [id for id, child in shown(supervisor).items() if isinstance(child, gpool.Pid)]


def started(*ids):
    """Return the events of these starts."""
    return [("start", id) for id in ids]


def downs(reason, *ids):
    """Return the events of these deaths."""
    return [("down", id, reason) for id in ids]


class TestInit:
    def test_defaults(self):
        """S1: one_for_one, 3 restarts in 5 s (as in Elixir), never an auto_shutdown."""
        supervisor = Sup.start()
        assert (supervisor.strategy, supervisor.auto_shutdown) == ("one_for_one", "never")
        intensity = supervisor.intensity
        assert (intensity.max_restarts, intensity.max_seconds) == (3, 5.0)

    @pytest.mark.parametrize(
        ("options", "fault"),
        [
            ({"strategy": "all_for_nothing"}, "invalid_strategy"),
            ({"strategy": "simple_one_for_one"}, "invalid_strategy"),
            ({"strategy": None}, "invalid_strategy"),
            ({"max_restarts": -1}, "invalid_intensity"),
            ({"max_restarts": 1.0}, "invalid_intensity"),
            ({"max_restarts": True}, "invalid_intensity"),
            ({"max_restarts": None}, "invalid_intensity"),
            ({"max_seconds": 0}, "invalid_period"),
            ({"max_seconds": -1}, "invalid_period"),
            ({"max_seconds": "5"}, "invalid_period"),
            ({"max_seconds": float("nan")}, "invalid_period"),
            ({"auto_shutdown": "sometimes"}, "invalid_auto_shutdown"),
            ({"auto_shutdown": True}, "invalid_auto_shutdown"),
            ({"children": None}, "bad_start_spec"),
            ({"children": 7}, "bad_start_spec"),
            ({"children": "abc"}, "bad_start_spec"),
            ({"children": ["abc"]}, "invalid_child_spec"),
            ({"children": [{"id": "a"}]}, "invalid_child_spec"),
        ],
    )
    def test_bad_flags(self, options, fault):
        """S2: bad flags are refused before anything starts, by OTP's names (sup_flags)."""
        before = gpool.processes()
        with pytest.raises(SpecError, match=rf"^{fault}: expected .*, got ") as caught:
            Sup.start(**options)
        assert caught.value.fault == fault
        assert gpool.processes() == before

    def test_a_single_spec_is_no_list(self, nursery):
        """S2: children are a list, even one child."""
        with pytest.raises(SpecError, match="bad_start_spec"):
            Sup.start(nursery.spec("a"))

    def test_duplicate_ids(self, nursery):
        """S2: two children of one id are refused, and nothing starts."""
        with pytest.raises(SpecError, match="duplicate_child_name"):
            Sup.start([nursery.spec("a"), nursery.spec("a")])
        assert nursery.take() == []

    def test_a_significant_child_needs_auto_shutdown(self, nursery):
        """S2: significant and auto_shutdown never do not go together, at start_child either."""
        spec = nursery.spec("a", restart="transient", significant=True)
        with pytest.raises(SpecError, match="bad_combination"):
            Sup.start([spec])
        with pytest.raises(SpecError, match="bad_combination"):
            Sup.start([]).start_child(spec)
        assert nursery.take() == []

    def test_unknown_options(self):
        """S2: an unknown option is refused; OTP ignores it."""
        with pytest.raises(TypeError, match="intensity"):
            Sup.start([], intensity=3)

    def test_children_start_in_order_each_after_the_other(self, nursery):
        """S3: children start in list order, and each start waits for init."""
        gate = gevent.event.Event()
        nursery.scripts["a"].append(lambda: gate.wait() and None)
        attempt = Attempt(Sup.start, [nursery.spec("a"), nursery.spec("b")])
        assert nursery.take() == []
        assert not attempt.done
        gate.set()
        assert nursery.take() == started("a", "b")
        assert attempt.done

    def test_order_is_that_of_the_list_not_of_ids(self, nursery):
        """order_of_children: ids are not sorted, stops are in the reverse order."""
        ids = ["c", 3, "a", ("x", 1), "b"]
        supervisor = Sup.start([nursery.spec(id) for id in ids])
        assert nursery.take() == started(*ids)
        gpool.stop(supervisor)
        assert nursery.take() == downs("shutdown", *reversed(ids))

    def test_a_failing_child_fails_the_start(self, nursery, reports):
        """S3: child k fails: the started ones go down in reverse, start raises OTP's reason."""
        nursery.scripts["c"].append(gpool.Stop("no_luck"))
        specs = [nursery.spec(id) for id in "abcd"]
        with pytest.raises(StartError) as caught:
            Sup.start_link(specs)
        assert caught.value.reason == ("shutdown", ("failed_to_start_child", "c", "no_luck"))
        assert nursery.take() == [
            *started("a", "b"), ("fail", "c"), *downs("shutdown", "b", "a")
        ]  # fmt: skip
        assert list(reports) == [("start_error", "no_luck", "c")]

    def test_a_failed_start_leaves_nothing(self, nursery):
        """sup_start_fail: no EXIT, no message, no name, no process is left (G3)."""
        gpool.trap_exit(True)
        before = gpool.processes()
        nursery.scripts["a"].append(Boom())
        with pytest.raises(StartError):
            Sup.start_link([nursery.spec("a")], server_name="sup")
        settle()
        assert gpool.processes() == before
        assert gpool.whereis("sup") is None
        with pytest.raises(gpool.ReceiveTimeout):
            gpool.receive(timeout=0)

    def test_a_raising_child_fails_the_start(self, nursery):
        """S3: what init raises is the reason, as an Error."""
        error = Boom("x")
        nursery.scripts["a"].append(error)
        with pytest.raises(StartError) as caught:
            Sup.start([nursery.spec("a")])
        assert caught.value.reason == (
            "shutdown", ("failed_to_start_child", "a", gpool.Error(error))
        )  # fmt: skip

    def test_init_may_ignore(self, nursery):
        """sup_start_ignore_init: a subclass's init may ignore; no child starts, no EXIT comes."""

        class Ignoring(Sup):
            def init(self):
                return gpool.Ignore()

        gpool.trap_exit(True)
        assert Ignoring.start_link([nursery.spec("a")]).pid is None
        settle()
        assert nursery.take() == []
        with pytest.raises(gpool.ReceiveTimeout):
            gpool.receive(timeout=0)

    def test_a_bad_answer_of_init(self):
        """sup_start_error_return: a bad answer is bad_return_value."""

        class Bad(Sup):
            def init(self):
                return "invalid"

        with pytest.raises(StartError) as caught:
            Bad.start()
        assert caught.value.reason == ("bad_return_value", "invalid")

    def test_start_and_shutdown(self):
        """sup_start_normal: starts, and dies of its parent's shutdown."""
        gpool.trap_exit(True)
        supervisor = Sup.start_link()
        gpool.exit(supervisor.pid, "shutdown")
        assert gpool.receive(timeout=1) == gpool.Exit(supervisor.pid, "shutdown")

    def test_an_ignored_child_is_kept(self, nursery):
        """S4, sup_start_ignore_child: ignore keeps the child, stopped; restart_child starts it."""
        nursery.scripts["a"].append(gpool.Ignore())
        supervisor = Sup.start([nursery.spec("a"), nursery.spec("b")])
        assert shown(supervisor) == {"a": None, "b": nursery.latest["b"]}
        assert supervisor.count_children() == Counts(2, 1, 0, 2)
        supervisor.restart_child("a")
        assert running(supervisor) == ["a", "b"]

    def test_an_ignored_temporary_child_is_dropped(self, nursery):
        """S4, sup_start_ignore_temporary_child: a temporary one is dropped, in start_child too."""
        nursery.scripts["a"].extend([gpool.Ignore(), gpool.Ignore()])
        spec = nursery.spec("a", restart="temporary")
        supervisor = Sup.start([spec])
        assert shown(supervisor) == {}
        assert supervisor.start_child(spec) is None
        assert shown(supervisor) == {}

    def test_starts_children_in_an_empty_context(self):
        """A supervised process starts in an empty context, whoever started its supervisor."""
        variable = contextvars.ContextVar("variable", default="empty")
        variable.set("mine")
        seen = []

        class Looking(gpool.GenServer):
            def init(self):
                seen.append(variable.get())

        supervisor = Sup.start([ChildSpec("a", Looking.start_link)])
        gpool.exit(supervisor.which_children()[0].child, "kill")
        settle()
        assert seen == ["empty", "empty"]


class TestRestartTypes:
    """S6: who is restarted after which death."""

    @pytest.mark.parametrize("reason", [*ORDERLY, *CRASHES])
    def test_permanent(self, nursery, reason):
        """S6, permanent_normal/_shutdown/_abnormal: always restarted."""
        supervisor = Sup.start([nursery.spec("a")])
        first = nursery.latest["a"]
        nursery.end("a", reason)
        assert nursery.latest["a"] is not first
        assert shown(supervisor) == {"a": nursery.latest["a"]}

    @pytest.mark.parametrize("reason", ORDERLY)
    def test_transient_orderly(self, nursery, reason):
        """S6, transient_normal/_shutdown: not restarted; the specification stays."""
        supervisor = Sup.start([nursery.spec("a", restart="transient")])
        nursery.end("a", reason)
        assert shown(supervisor) == {"a": None}
        assert supervisor.count_children() == Counts(1, 0, 0, 1)

    @pytest.mark.parametrize("reason", CRASHES)
    def test_transient_crash(self, nursery, reason):
        """S6, transient_abnormal: restarted."""
        supervisor = Sup.start([nursery.spec("a", restart="transient")])
        nursery.end("a", reason)
        assert running(supervisor) == ["a"]

    @pytest.mark.parametrize("reason", [*ORDERLY, *CRASHES])
    def test_temporary(self, nursery, reason):
        """S6, temporary_normal/_shutdown/_abnormal: never restarted, and forgotten."""
        supervisor = Sup.start([nursery.spec("a", restart="temporary")])
        nursery.end("a", reason)
        assert shown(supervisor) == {}

    @pytest.mark.parametrize("restart", ["permanent", "transient"])
    def test_an_exception_is_a_crash(self, nursery, restart):
        """S6: an Error is a crash like any other."""
        supervisor = Sup.start([nursery.spec("a", restart=restart)])
        gpool.send(nursery.latest["a"], ("raise", Boom()))
        settle()
        assert running(supervisor) == ["a"]

    @pytest.mark.parametrize("restart", ["permanent", "transient"])
    def test_a_kill_is_a_crash(self, nursery, restart):
        """S6: killed is a crash like any other."""
        supervisor = Sup.start([nursery.spec("a", restart=restart)])
        nursery.kill("a")
        assert running(supervisor) == ["a"]

    def test_the_name_is_free_for_the_next_one(self, nursery):
        """simple_global_supervisor: a named child gets its name again; so does a supervisor."""
        child = ChildSpec("a", gpool.GenServer.start_link, kwargs={"server_name": "child"})
        inner = ChildSpec(
            "sup", Sup.start_link, args=([child],), kwargs={"server_name": "sup"}, type="supervisor"
        )
        Sup.start([inner])
        first = gpool.whereis("child"), gpool.whereis("sup")
        gpool.exit(first[0], "kill")
        settle()
        second = gpool.whereis("child"), gpool.whereis("sup")
        assert second[0] is not first[0]
        assert second[1] is first[1]
        gpool.exit(second[1], "kill")
        settle()
        third = gpool.whereis("child"), gpool.whereis("sup")
        assert None not in third
        assert third[0] is not second[0]
        assert third[1] is not second[1]

    def test_extra_information_survives(self, nursery):
        """extra_return: a start may return a pair; so may restart_child and a restart."""
        calls = []

        def start():
            calls.append(1)
            return gpool.GenServer.start_link(), {"number": len(calls)}

        supervisor = Sup.start([ChildSpec("a", start)])
        gpool.exit(supervisor.which_children()[0].child, "kill")
        settle()
        supervisor.terminate_child("a")
        handle, info = supervisor.restart_child("a")
        assert info == {"number": 3}
        assert shown(supervisor) == {"a": handle.pid}
        pid, info = supervisor.start_child(
            ChildSpec("b", lambda: (gpool.spawn_link(gpool.receive), "info"))
        )
        assert shown(supervisor)["b"] is pid


class TestStrategies:
    """S7: who goes with whom."""

    @pytest.fixture
    def start(self, nursery):
        """Start a, b, c under a strategy."""

        def start(strategy, **kinds):
            specs = [nursery.spec(id, restart=kinds.get(id, "permanent")) for id in "abc"]
            supervisor = Sup.start(specs, strategy=strategy)
            nursery.take()
            return supervisor

        return start

    def test_one_for_one(self, nursery, start):
        """S7, one_for_one: only the dead child is restarted, and keeps its place."""
        supervisor = start("one_for_one")
        nursery.end("b", "boom")
        assert nursery.take() == [("down", "b", "boom"), ("start", "b")]
        assert running(supervisor) == ["a", "b", "c"]

    def test_one_for_all(self, nursery, start):
        """S7, one_for_all: the others stop in reverse order, then all start in order."""
        supervisor = start("one_for_all")
        nursery.end("b", "boom")
        assert nursery.take() == [
            ("down", "b", "boom"), *downs("shutdown", "c", "a"), *started("a", "b", "c")
        ]  # fmt: skip
        assert running(supervisor) == ["a", "b", "c"]

    def test_rest_for_one(self, nursery, start):
        """S7, rest_for_one: the same for those after it; those before are untouched."""
        supervisor = start("rest_for_one")
        nursery.end("b", "boom")
        assert nursery.take() == [
            ("down", "b", "boom"), ("down", "c", "shutdown"), *started("b", "c")
        ]  # fmt: skip
        assert running(supervisor) == ["a", "b", "c"]

    @pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
    def test_temporary_siblings_vanish(self, nursery, start, strategy):
        """S7, temporary_bystander: a temporary child stops with its group, for good."""
        supervisor = start(strategy, c="temporary")
        nursery.end("a", "boom")
        assert running(supervisor) == ["a", "b"]
        assert list(shown(supervisor)) == ["a", "b"]

    @pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
    def test_a_temporary_death_touches_nobody(self, nursery, start, strategy):
        """S7: who is not restarted takes nobody along."""
        start(strategy, a="temporary")
        nursery.end("a", "boom")
        assert nursery.take() == [("down", "a", "boom")]

    @pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
    def test_a_stopped_sibling_is_started_again(self, nursery, start, strategy):
        """S7: a child stopped by terminate_child, and a finished transient, start again."""
        supervisor = start(strategy, c="transient")
        supervisor.terminate_child("b")
        nursery.end("c", "normal")
        nursery.take()
        nursery.end("a", "boom")
        assert running(supervisor) == ["a", "b", "c"]

    @pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
    def test_the_third_crash_is_one_too_many(self, nursery, strategy):
        """one_for_one, one_for_all, rest_for_one of the suite: intensity 2, three crashes."""
        supervisor = Sup.start(
            [nursery.spec("a"), nursery.spec("b")], strategy=strategy, max_restarts=2
        )
        for _ in range(2):
            nursery.kill("a")
            assert running(supervisor) == ["a", "b"]
        nursery.kill("a")
        assert not gpool.is_alive(supervisor)
        assert supervisor.pid.reason == "shutdown"

    @pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
    def test_escalation(self, nursery, strategy):
        """*_escalation: a restart that always fails spends the intensity."""
        supervisor = Sup.start(
            [nursery.spec("a"), nursery.spec("b")], strategy=strategy, max_restarts=4
        )
        nursery.scripts["a"].extend([gpool.Stop("no")] * 9)
        nursery.kill("a")
        assert supervisor.pid.reason == "shutdown"
        assert not gpool.is_alive(nursery.latest["b"])
        assert len(nursery.scripts["a"]) == 5  # four attempts


class TestIntensity:
    """S8, S9: how many restarts are too many."""

    def test_counts_inclusively(self, clock):
        """S8: a restart exactly max_seconds old still counts; one a moment older does not."""
        intensity = gpool.RestartIntensity(1, 5.0)
        assert intensity.add()
        clock.advance(5.0)
        assert not intensity.add()
        clock.advance(5.001)
        assert intensity.add()

    def test_takes_any_clock(self):
        """S8: the clock is injectable, and read at each restart only."""
        times = iter([0.0, 1.0, 2.5, 2.6])
        intensity = gpool.RestartIntensity(2, 2.0, now=lambda: next(times))
        assert [intensity.add() for _ in range(4)] == [True, True, True, False]

    def test_zero_allows_none(self):
        """S8: with 0 the first is one too many."""
        assert not gpool.RestartIntensity(0, 5.0).add()

    def test_the_window_in_a_supervisor(self, nursery, clock):
        """S8: in the window one crash too many is fatal; after it it is not."""
        supervisor = Sup.start([nursery.spec("a")], max_restarts=1, max_seconds=1.0)
        nursery.kill("a")
        clock.advance(1.1)
        nursery.kill("a")
        assert running(supervisor) == ["a"]
        clock.advance(0.9)
        nursery.kill("a")
        assert supervisor.pid.reason == "shutdown"

    def test_multiple_restarts(self, nursery, clock):
        """multiple_restarts: crashes that lie apart stay under the intensity, for ever."""
        supervisor = Sup.start([nursery.spec("a")], max_restarts=1, max_seconds=1.0)
        for _ in range(10):
            nursery.kill("a")
            clock.advance(1.5)
        assert running(supervisor) == ["a"]

    def test_spent_it_stops_all_in_reverse(self, nursery, reports):
        """S8: beyond it: report, stop all in reverse order, die of shutdown."""
        supervisor = Sup.start([nursery.spec(id) for id in "abc"], max_restarts=0)
        nursery.take()
        nursery.end("b", "boom")
        assert nursery.take() == [("down", "b", "boom"), *downs("shutdown", "c", "a")]
        assert supervisor.pid.reason == "shutdown"
        assert list(reports) == [
            ("child_terminated", "boom", "b"),
            ("shutdown", "reached_max_restart_intensity", "b"),
        ]

    def test_an_orderly_death_of_a_permanent_child_counts(self, nursery):
        """S8: whatever is restarted counts."""
        supervisor = Sup.start([nursery.spec("a")], max_restarts=0)
        nursery.end("a", "normal")
        assert supervisor.pid.reason == "shutdown"

    def test_who_is_not_restarted_does_not_count(self, nursery):
        """S8: temporary and finished transient children cost nothing."""
        supervisor = Sup.start(
            [nursery.spec("a", restart="temporary"), nursery.spec("b", restart="transient")],
            max_restarts=0,
        )
        nursery.end("a", "boom")
        nursery.end("b", "normal")
        assert gpool.is_alive(supervisor)

    def test_restart_child_does_not_count(self, nursery):
        """S8: what is started by the API costs nothing."""
        supervisor = Sup.start([nursery.spec("a")], max_restarts=0)
        for _ in range(5):
            supervisor.terminate_child("a")
            supervisor.restart_child("a")
        assert running(supervisor) == ["a"]

    def test_one_event_is_one_count(self, nursery):
        """S9: two siblings dead at once: one_for_all counts 1, their EXITs are consumed."""
        supervisor = Sup.start(
            [nursery.spec("a"), nursery.spec("b")], strategy="one_for_all", max_restarts=1
        )
        nursery.kill("a", "b")
        assert running(supervisor) == ["a", "b"]

    def test_two_events_are_two(self, nursery):
        """S9: two siblings dead at once: one_for_one counts 2."""
        supervisor = Sup.start([nursery.spec("a"), nursery.spec("b")], max_restarts=1)
        nursery.kill("a", "b")
        assert supervisor.pid.reason == "shutdown"

    def test_a_subclass_may_leave_some_uncounted(self, nursery):
        """counts_restart is asked with the specification and the reason."""
        asked = []

        class Lenient(Sup):
            def counts_restart(self, spec, reason):
                asked.append((spec.id, reason))
                return reason != ("shutdown", "planned")

        supervisor = Lenient.start([nursery.spec("a")], max_restarts=1)
        for _ in range(5):
            nursery.end("a", ("shutdown", "planned"))
        assert running(supervisor) == ["a"]
        nursery.end("a", "boom")
        nursery.end("a", "boom")
        assert supervisor.pid.reason == "shutdown"
        assert asked == [("a", ("shutdown", "planned"))] * 5 + [("a", "boom")] * 2


class TestFailingRestart:
    """S10, S11: a restart that fails is tried again, and the mailbox is served in between."""

    @pytest.fixture
    def hanging(self, nursery):
        """Give a gate: starts of "a" after the first wait for it, then fail."""
        gate = gevent.event.Event()

        def hang():
            gate.wait()
            return gpool.Stop("no")

        nursery.scripts["a"].extend([None, *[hang] * 1000])
        nursery.gate = gate
        return gate

    def test_each_try_counts(self, nursery):
        """S10: intensity 3: three tries, then shutdown."""
        supervisor = Sup.start([nursery.spec("a")], max_restarts=3)
        nursery.scripts["a"].extend([gpool.Stop("no")] * 9)
        nursery.take()
        nursery.end("a", "boom")
        assert nursery.take() == [("down", "a", "boom"), *[("fail", "a")] * 3]
        assert supervisor.pid.reason == "shutdown"

    def test_reports_each_failure(self, nursery, reports):
        """S10: every failed attempt is a start_error."""
        Sup.start([nursery.spec("a")])
        nursery.scripts["a"].append(gpool.Stop("no"))
        nursery.end("a", "boom")
        assert list(reports) == [("child_terminated", "boom", "a"), ("start_error", "no", "a")]

    def test_serves_its_mailbox_in_between(self, nursery, hanging):
        """S10, hanging_restart_loop: during an endless retry calls are answered: restarting."""
        supervisor = Sup.start([nursery.spec("a"), nursery.spec("b")], max_restarts=10**6)
        nursery.kill("a")
        calls = [
            Attempt(supervisor.which_children),
            Attempt(supervisor.count_children),
            Attempt(supervisor.restart_child, "a"),
            Attempt(supervisor.delete_child, "a"),
            Attempt(supervisor.start_child, nursery.spec("a")),
            Attempt(supervisor.terminate_child, "a"),
        ]
        assert not any(call.done for call in calls)
        hanging.set()
        settle()
        which, count, *errors, terminate = calls
        assert [(info.id, info.child) for info in which.value] == [
            ("b", nursery.latest["b"]), ("a", "restarting")
        ]  # fmt: skip
        assert count.value == Counts(2, 1, 0, 2)
        reasons = [call.error.reason for call in errors]
        assert reasons == ["restarting", "restarting", "already_present"]
        assert terminate.done
        assert shown(supervisor) == {"a": None, "b": nursery.latest["b"]}

    @pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
    def test_may_be_stopped_in_between(self, nursery, hanging, strategy):
        """hanging_restart_loop, _rest_for_one: a shutdown is served during an endless retry."""
        supervisor = Sup.start(
            [nursery.spec("a"), nursery.spec("b")], strategy=strategy, max_restarts=10**6
        )
        nursery.kill("a")
        stopping = Attempt(gpool.stop, supervisor)
        hanging.set()
        settle()
        assert stopping.done
        assert supervisor.pid.reason == "normal"

    def test_starves_nobody(self, nursery):
        """A start that fails at once, again and again, lets the others run."""
        turns = []

        def fail():
            turns.append("start")
            raise Boom

        supervisor = Sup.start([nursery.spec("a")], max_restarts=50)
        gpool.exit(nursery.latest["a"], "kill")
        supervisor.children["a"].spec = ChildSpec("a", fail)

        def other():
            for _ in range(5):
                turns.append("other")
                gevent.sleep(0)

        gpool.spawn(other)
        settle()
        assert "other" in turns[:3]
        assert turns.index("start", turns.index("other")) < len(turns) - 5

    def test_terminate_child_cancels_the_retry(self, nursery, hanging):
        """S11: terminate_child of a restarting child cancels the retry; then delete works."""
        supervisor = Sup.start([nursery.spec("a")])
        nursery.kill("a")
        terminating = Attempt(supervisor.terminate_child, "a")
        hanging.set()
        settle()
        assert terminating.done
        supervisor.delete_child("a")
        assert nursery.take() == [("start", "a"), ("down", "a", "killed"), ("fail", "a")]
        assert gpool.is_alive(supervisor)

    def test_a_stale_retry_is_ignored(self, nursery, hanging):
        """S11: the message of a cancelled retry starts nothing."""
        supervisor = Sup.start([nursery.spec("a")], max_restarts=2)
        nursery.kill("a")
        calls = [Attempt(supervisor.terminate_child, "a"), Attempt(supervisor.restart_child, "a")]
        hanging.set()
        settle()
        assert calls[1].error.reason == "no"
        assert shown(supervisor) == {"a": None}

    def test_an_exit_from_a_stranger_is_ignored(self, nursery, unexpected):
        """S11: EXIT from an unknown pid is ignored."""
        supervisor = Sup.start([nursery.spec("a")])
        gpool.exit(supervisor.pid, "boom")
        settle()
        assert running(supervisor) == ["a"]
        assert list(unexpected) == []

    def test_a_childs_signal_is_not_its_death(self, nursery):
        """A living child that sends its supervisor an exit signal is not taken for dead."""
        supervisor = Sup.start([nursery.spec("a"), ChildSpec("b", spawn_signaller)])
        settle()
        first = shown(supervisor)
        gpool.send(first["b"], supervisor.pid)
        settle()
        assert shown(supervisor) == first
        assert all(map(gpool.is_alive, first.values()))

    def test_one_for_all_other_child_fails_restart(self, nursery):
        """S10, one_for_all_other_child_fails_restart: a is stopped again, and all start."""
        Sup.start([nursery.spec(id) for id in "abc"], strategy="one_for_all")
        nursery.scripts["b"].append(gpool.Stop("no"))
        nursery.take()
        nursery.end("a", "boom")
        assert nursery.take() == [
            ("down", "a", "boom"), *downs("shutdown", "c", "b"), ("start", "a"), ("fail", "b"),
            ("down", "a", "shutdown"), *started("a", "b", "c"),
        ]  # fmt: skip

    def test_rest_for_one_other_child_fails_restart(self, nursery):
        """S10, rest_for_one_other_child_fails_restart: starts from b, a stays."""
        Sup.start([nursery.spec(id) for id in "abc"], strategy="rest_for_one")
        nursery.scripts["b"].append(gpool.Stop("no"))
        nursery.take()
        nursery.end("a", "boom")
        assert nursery.take() == [
            ("down", "a", "boom"), *downs("shutdown", "c", "b"), ("start", "a"), ("fail", "b"),
            *started("b", "c"),
        ]  # fmt: skip

    def test_an_ignored_restart_leaves_it_stopped(self, nursery):
        """S10: a restart that is ignored is none that fails."""
        supervisor = Sup.start([nursery.spec("a")])
        nursery.scripts["a"].append(gpool.Ignore())
        nursery.kill("a")
        assert shown(supervisor) == {"a": None}


def spawn_signaller():
    """Start a child that sends an exit signal to whom it is told."""
    return gpool.spawn_link(lambda: [gpool.exit(gpool.receive(), "boom") for _ in range(9)])


class TestBackoff:
    """Restarts that wait: asked for in every ecosystem, refused in OTP."""

    @pytest.fixture
    def spec(self, nursery):
        """Give a specification whose delays are 1, 2, 4, 8, 8 ... seconds."""
        backoff = Backoff(first=1, maximum=8, factor=2, jitter=0)
        return nursery.spec("a", backoff=backoff)

    def test_is_off_by_default(self, nursery, clock):
        """Without one the restart is immediate, as in OTP."""
        Sup.start([nursery.spec("a")])
        nursery.kill("a")
        assert ("start", "a") in nursery.take()[1:]

    def test_waits_before_a_restart(self, nursery, clock, spec):
        """After a death the child is restarting until the delay is over; calls are served."""
        supervisor = Sup.start([spec])
        nursery.kill("a")
        assert shown(supervisor) == {"a": "restarting"}
        assert supervisor.count_children() == Counts(1, 0, 0, 1)
        clock.advance(0.99)
        assert shown(supervisor) == {"a": "restarting"}
        clock.advance(0.02)
        assert running(supervisor) == ["a"]

    def test_is_not_counted(self, nursery, clock, spec):
        """Such restarts spend no intensity, failing ones neither."""
        supervisor = Sup.start([spec], max_restarts=0)
        nursery.scripts["a"].extend([gpool.Stop("no")] * 5)
        nursery.kill("a")
        clock.advance(1 + 2 + 4 + 8 + 8 + 8 + 0.1)
        assert running(supervisor) == ["a"]

    def test_grows_with_quick_failures(self, nursery, clock, spec):
        """Each quick death or failed start doubles the delay, up to the maximum."""
        Sup.start([spec])
        for delay in (1, 2, 4, 8, 8):
            nursery.kill("a")
            nursery.take()
            clock.advance(delay - 0.01)
            assert nursery.take() == []
            clock.advance(0.02)
            assert nursery.take() == started("a")

    def test_starts_again_after_a_long_life(self, nursery, clock, spec):
        """A child that has lived for `maximum` seconds starts at the first delay again."""
        supervisor = Sup.start([spec])
        for delay in (1, 2):
            nursery.kill("a")
            clock.advance(delay + 0.01)
        clock.advance(8)
        nursery.kill("a")
        clock.advance(1.01)
        assert running(supervisor) == ["a"]

    def test_terminate_child_cancels_it(self, nursery, clock, spec):
        """A child stopped while it waits is not started when the time has come."""
        supervisor = Sup.start([spec])
        nursery.kill("a")
        supervisor.terminate_child("a")
        clock.advance(60)
        assert shown(supervisor) == {"a": None}
        supervisor.restart_child("a")
        assert running(supervisor) == ["a"]

    def test_the_group_stops_at_once_and_starts_together(self, nursery, clock, spec):
        """In one_for_all the others do not run without it while it waits."""
        supervisor = Sup.start([nursery.spec("b"), spec, nursery.spec("c")], strategy="one_for_all")
        nursery.take()
        nursery.end("a", "boom")
        assert nursery.take() == [("down", "a", "boom"), *downs("shutdown", "c", "b")]
        assert shown(supervisor) == {"b": None, "a": "restarting", "c": None}
        clock.advance(1.01)
        assert nursery.take() == started("b", "a", "c")

    def test_a_siblings_restart_takes_it_along(self, nursery, clock, spec):
        """In rest_for_one the restart of one before it does not wait for it."""
        supervisor = Sup.start([nursery.spec("b"), spec], strategy="rest_for_one")
        nursery.kill("a")
        nursery.kill("b")
        assert running(supervisor) == ["b", "a"]
        nursery.take()
        clock.advance(60)
        assert nursery.take() == []

    def test_ends_with_its_supervisor(self, nursery, clock, spec):
        """A supervisor that stops takes its timers along; one that was killed is not missed."""
        gpool.stop(Sup.start([spec]))
        supervisor = Sup.start([spec])
        nursery.kill("a")
        gpool.stop(supervisor)
        assert clock.next_due() is None
        supervisor = Sup.start([spec])
        nursery.kill("a")
        gpool.exit(supervisor.pid, "kill")
        nursery.take()
        clock.advance(60)
        assert nursery.take() == []

    def test_does_not_keep_the_loop_alive(self, nursery, clock, spec, monkeypatch):
        """Rule 15: a main that waits for nothing else gets its LoopExit."""
        refs = []

        def call_later(seconds, fn, *args, ref=True):
            refs.append(ref)
            return clock.call_later(seconds, fn, *args, ref=ref)

        monkeypatch.setattr(gpool.clock, "call_later", call_later)
        Sup.start([spec])
        nursery.kill("a")
        assert refs == [False]


class TestEnd:
    """S15: how a supervisor ends."""

    @pytest.fixture
    def parent(self, nursery):
        """Give a supervisor of a, b, c (c traps exits) and its parent."""
        box = []

        def parent():
            gpool.trap_exit(True)
            specs = [nursery.spec("a"), nursery.spec("b"), nursery.spec("c", trap=True)]
            box.append(Sup.start_link(specs))
            gpool.exit(gpool.receive(match=lambda message: isinstance(message, str)))

        pid = gpool.spawn(parent)
        nursery.take()
        return pid, box[0]

    @pytest.mark.parametrize("reason", ["normal", "boom", "shutdown"])
    def test_dies_with_its_parent(self, nursery, parent, reason):
        """S15: parent dies R: children stop in reverse order, the supervisor dies R."""
        pid, supervisor = parent
        gpool.send(pid, reason)
        assert nursery.take() == downs("shutdown", "c", "b", "a")
        assert supervisor.pid.reason == reason

    def test_dies_with_its_killed_parent(self, nursery, parent):
        """S15: a killed parent takes it along, orderly."""
        pid, supervisor = parent
        gpool.exit(pid, "kill")
        assert nursery.take() == downs("shutdown", "c", "b", "a")
        assert supervisor.pid.reason == "killed"

    def test_obeys_its_parents_shutdown_only(self, nursery):
        """S15: exit(Sup, shutdown) works from the parent and is ignored from a stranger."""
        gpool.trap_exit(True)
        supervisor = Sup.start_link([nursery.spec("a")])
        gpool.spawn(gpool.exit, supervisor.pid, "shutdown")
        settle()
        assert gpool.is_alive(supervisor)
        gpool.exit(supervisor.pid, "shutdown")
        settle()
        assert supervisor.pid.reason == "shutdown"
        assert not gpool.is_alive(nursery.latest["a"])

    def test_stop(self, nursery):
        """S15: stop(Sup) is orderly: it returns when all are dead, the reason is normal."""
        supervisor = Sup.start([nursery.spec("a"), nursery.spec("b")])
        nursery.take()
        gpool.stop(supervisor)
        assert nursery.log == downs("shutdown", "b", "a")
        assert supervisor.pid.reason == "normal"

    def test_kill(self, nursery):
        """S15: exit(Sup, kill): children get killed by links; trappers run terminate(killed)."""
        seen = []
        nursery.cleanups["c"] = seen.append
        supervisor = Sup.start([nursery.spec("a"), nursery.spec("c", trap=True)])
        gpool.exit(supervisor.pid, "kill")
        nursery.take()
        assert nursery.latest["a"].reason == "killed"
        assert nursery.latest["c"].reason == "killed"
        assert seen == ["killed"]

    def test_a_foreign_kill(self, nursery):
        """S15: gevent.kill on its greenlet is a kill like any other."""
        supervisor = Sup.start([nursery.spec("a")])
        supervisor.pid.greenlet.kill(block=False)
        settle()
        assert supervisor.pid.reason == "killed"
        assert nursery.latest["a"].reason == "killed"

    def test_a_kill_during_a_start(self, nursery):
        """S15: a supervisor killed while a child starts takes that one along."""
        gate = gevent.event.Event()
        nursery.scripts["a"].append(gate.wait)
        box = []

        class Telling(Sup):
            def init(self):
                box.append(gpool.self())
                return super().init()

        attempt = Attempt(Telling.start, [nursery.spec("a")])
        before = len(gpool.processes())
        gpool.exit(box[0], "kill")
        settle()
        assert attempt.error.reason == "killed"
        assert len(gpool.processes()) == before - 3  # it, its child, the attempt


class TestUnexpected:
    """S16: nothing that it does not know ends a supervisor."""

    def test_messages(self, nursery, unexpected):
        """S16: an unexpected message is logged, and it goes on."""
        supervisor = Sup.start([nursery.spec("a")])
        gpool.send(supervisor, "what")
        settle()
        assert list(unexpected) == [(supervisor.pid, "what")]
        assert running(supervisor) == ["a"]

    def test_calls(self, nursery, unexpected):
        """S16: an unexpected call gets an error for a reply; OTP's supervisor crashes."""
        supervisor = Sup.start([nursery.spec("a")])
        with pytest.raises(TypeError, match="handles no call 'what'"):
            supervisor.call("what")
        assert list(unexpected) == [(supervisor.pid, "what")]
        assert running(supervisor) == ["a"]

    def test_casts(self, nursery, unexpected):
        """S16: an unexpected cast is logged, and it goes on."""
        supervisor = Sup.start([nursery.spec("a")])
        supervisor.cast("what")
        settle()
        assert list(unexpected) == [(supervisor.pid, "what")]
        assert running(supervisor) == ["a"]

    def test_arguments(self, nursery):
        """S16: requests with nonsense in them get an error for a reply."""
        supervisor = Sup.start([nursery.spec("a")])
        with pytest.raises(SpecError, match="invalid_child_spec"):
            supervisor.start_child("b")
        with pytest.raises(ChildError, match="not_found"):
            supervisor.terminate_child(["unhashable"])
        assert running(supervisor) == ["a"]


class TestAutoShutdown:
    """S17: the end of significant children."""

    def start(self, nursery, auto_shutdown, **kinds):
        """Start x, not significant, and these significant children."""
        specs = [
            nursery.spec(id, restart=kind, significant=True) for id, kind in kinds.items()
        ]  # fmt: skip
        supervisor = Sup.start([nursery.spec("x"), *specs], auto_shutdown=auto_shutdown)
        nursery.take()
        return supervisor

    @pytest.mark.parametrize("reason", ORDERLY)
    def test_any_transient(self, nursery, reason):
        """S17, significant_transient: at a clean end it stops the rest and dies of shutdown."""
        supervisor = self.start(nursery, "any_significant", a="transient", b="transient")
        nursery.end("a", reason)
        assert nursery.take() == [("down", "a", reason), *downs("shutdown", "b", "x")]
        assert supervisor.pid.reason == "shutdown"

    def test_any_transient_crash(self, nursery):
        """S17, significant_transient: a crash is restarted instead."""
        supervisor = self.start(nursery, "any_significant", a="transient")
        nursery.end("a", "boom")
        assert running(supervisor) == ["x", "a"]

    @pytest.mark.parametrize("reason", [*ORDERLY, "boom"])
    def test_any_temporary(self, nursery, reason):
        """S17, significant_temporary: any end of a temporary one counts."""
        supervisor = self.start(nursery, "any_significant", a="temporary")
        nursery.end("a", reason)
        assert supervisor.pid.reason == "shutdown"

    def test_all(self, nursery):
        """S17, all_significant: only the last one's end counts."""
        supervisor = self.start(nursery, "all_significant", a="transient", b="temporary")
        nursery.end("b", "boom")
        assert running(supervisor) == ["x", "a"]
        nursery.end("a", "normal")
        assert supervisor.pid.reason == "shutdown"

    @pytest.mark.parametrize("restart", ["transient", "temporary"])
    def test_others(self, nursery, restart):
        """nonsignificant_temporary/_transient: the end of any other child does nothing."""
        supervisor = Sup.start(
            [nursery.spec("a", restart=restart), nursery.spec("b")], auto_shutdown="any_significant"
        )
        nursery.end("a", "normal")
        assert running(supervisor) == ["b"]

    @pytest.mark.parametrize("auto_shutdown", ["any_significant", "all_significant"])
    def test_not_by_terminate_child(self, nursery, auto_shutdown):
        """S17: a child that is stopped did not end by itself."""
        supervisor = self.start(nursery, auto_shutdown, a="temporary", b="transient")
        supervisor.terminate_child("a")
        supervisor.terminate_child("b")
        assert running(supervisor) == ["x"]

    def test_after_terminate_child(self, nursery):
        """S17: one that was stopped does not hold up the last one."""
        supervisor = self.start(nursery, "all_significant", a="transient", b="transient")
        supervisor.terminate_child("a")
        nursery.end("b", "normal")
        assert supervisor.pid.reason == "shutdown"

    @pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
    def test_not_by_a_siblings_restart(self, nursery, strategy):
        """S17, significant_bystander: one that goes with its group did not end by itself."""
        supervisor = Sup.start(
            [nursery.spec("a"), nursery.spec("b", restart="temporary", significant=True)],
            strategy=strategy,
            auto_shutdown="any_significant",
        )
        nursery.end("a", "boom")
        assert running(supervisor) == ["a"]

    def test_escalates(self, nursery):
        """S17, significant_escalation: a significant supervisor takes its parent along."""
        leaf = nursery.spec("leaf", restart="temporary", significant=True)
        inner = ChildSpec(
            "inner", Sup.start_link, ([leaf],), {"auto_shutdown": "any_significant"},
            restart="transient", type="supervisor", significant=True,
        )  # fmt: skip
        outer = Sup.start([nursery.spec("x"), inner], auto_shutdown="any_significant")
        nursery.end("leaf", "normal")
        assert outer.pid.reason == "shutdown"
        assert not gpool.is_alive(nursery.latest["x"])


class TestStartChild:
    """S18: start_child."""

    def test_is_the_last_in_order(self, nursery):
        """S18: it is appended; the answer is what its start function returned."""
        supervisor = Sup.start([nursery.spec("a")])
        child = supervisor.start_child(nursery.spec("b"))
        assert child.pid is nursery.latest["b"]
        assert running(supervisor) == ["a", "b"]
        nursery.take()
        gpool.stop(supervisor)
        assert nursery.take() == downs("shutdown", "b", "a")

    def test_a_running_id(self, nursery):
        """S18: a running id: already_started(pid)."""
        supervisor = Sup.start([nursery.spec("a")])
        with pytest.raises(ChildError) as caught:
            supervisor.start_child(nursery.spec("a"))
        assert caught.value.reason == ("already_started", nursery.latest["a"])
        assert caught.value.child == "a"
        assert caught.value.supervisor is supervisor

    def test_a_stopped_id(self, nursery):
        """S18: known but stopped: already_present."""
        supervisor = Sup.start([nursery.spec("a")])
        supervisor.terminate_child("a")
        with pytest.raises(ChildError, match="already_present"):
            supervisor.start_child(nursery.spec("a"))

    def test_a_failure(self, nursery, reports):
        """S18, sup_start_child_returns_error: failure: StartError with the reason, not saved."""
        supervisor = Sup.start([])
        nursery.scripts["a"].append(gpool.Stop("no"))
        with pytest.raises(StartError) as caught:
            supervisor.start_child(nursery.spec("a"))
        assert caught.value.reason == "no"
        assert shown(supervisor) == {}
        assert list(reports) == []

    def test_an_exception(self, nursery):
        """S18: what init raised is the reason, and the cause in the caller."""
        supervisor = Sup.start([])
        error = Boom("x")
        nursery.scripts["a"].append(error)
        with pytest.raises(StartError) as caught:
            supervisor.start_child(nursery.spec("a"))
        assert caught.value.reason == gpool.Error(error)
        assert caught.value.__cause__ is error

    def test_ignored(self, nursery):
        """sup_start_ignore_child_start_child: an ignored permanent one is kept, stopped."""
        supervisor = Sup.start([])
        nursery.scripts["a"].append(gpool.Ignore())
        assert supervisor.start_child(nursery.spec("a")) is None
        assert shown(supervisor) == {"a": None}

    def test_already_started_outside(self):
        """S18, already_started_outside_supervisor: that of the start function passes through."""
        outside = gpool.GenServer.start(server_name="taken")
        supervisor = Sup.start([])
        spec = ChildSpec("a", gpool.GenServer.start_link, kwargs={"server_name": "taken"})
        with pytest.raises(StartError) as caught:
            supervisor.start_child(spec)
        assert caught.value.reason == ("already_started", outside.pid)
        assert shown(supervisor) == {}


class TestManagement:
    """S19, S20: terminate, restart, delete, look."""

    def test_terminate_child(self, nursery):
        """S19: the specification stays; twice is fine."""
        supervisor = Sup.start([nursery.spec("a")])
        supervisor.terminate_child("a")
        supervisor.terminate_child("a")
        assert shown(supervisor) == {"a": None}

    def test_terminate_child_of_a_temporary_one(self, nursery):
        """S19: a temporary one is removed."""
        supervisor = Sup.start([nursery.spec("a", restart="temporary")])
        supervisor.terminate_child("a")
        assert shown(supervisor) == {}
        with pytest.raises(ChildError, match="not_found"):
            supervisor.terminate_child("a")

    @pytest.mark.parametrize("method", ["terminate_child", "restart_child", "delete_child"])
    def test_unknown(self, method):
        """S19: unknown: not_found."""
        with pytest.raises(ChildError, match="not_found"):
            getattr(Sup.start([]), method)("a")

    def test_restart_child(self, nursery):
        """S19: only stopped ones; it keeps its place."""
        supervisor = Sup.start([nursery.spec("a"), nursery.spec("b")])
        with pytest.raises(ChildError, match="running"):
            supervisor.restart_child("a")
        supervisor.terminate_child("a")
        child = supervisor.restart_child("a")
        assert child.pid is nursery.latest["a"]
        assert running(supervisor) == ["a", "b"]

    def test_restart_child_fails(self, nursery):
        """S19, sup_start_restart_child_returns_error: failure leaves it stopped."""
        supervisor = Sup.start([nursery.spec("a")])
        supervisor.terminate_child("a")
        nursery.scripts["a"].append(gpool.Stop("no"))
        with pytest.raises(StartError) as caught:
            supervisor.restart_child("a")
        assert caught.value.reason == "no"
        assert shown(supervisor) == {"a": None}

    def test_delete_child(self, nursery):
        """S19: only stopped ones."""
        supervisor = Sup.start([nursery.spec("a")])
        with pytest.raises(ChildError, match="running"):
            supervisor.delete_child("a")
        supervisor.terminate_child("a")
        supervisor.delete_child("a")
        assert shown(supervisor) == {}

    def test_child_adm(self, nursery):
        """child_adm: the five calls in a row, each with its result."""
        supervisor = Sup.start([])
        spec = nursery.spec("a", shutdown=1)
        assert supervisor.count_children() == Counts(0, 0, 0, 0)
        pid = supervisor.start_child(spec).pid
        assert supervisor.which_children() == [ChildInfo("a", pid, "worker")]
        assert supervisor.count_children() == Counts(1, 1, 0, 1)
        supervisor.terminate_child("a")
        assert supervisor.which_children() == [ChildInfo("a", None, "worker")]
        assert supervisor.count_children() == Counts(1, 0, 0, 1)
        pid = supervisor.restart_child("a").pid
        assert supervisor.which_children() == [ChildInfo("a", pid, "worker")]
        supervisor.terminate_child("a")
        supervisor.delete_child("a")
        assert supervisor.which_children() == []
        with pytest.raises(ChildError, match="not_found"):
            supervisor.restart_child("a")

    def test_which_children(self, nursery):
        """S20, which_children: newest first: id, pid or None or restarting, type."""
        inner = ChildSpec("inner", Sup.start_link, type="supervisor")
        supervisor = Sup.start([nursery.spec("a"), inner])
        supervisor.terminate_child("a")
        info = supervisor.which_children()
        assert [(it.id, it.type) for it in info] == [("inner", "supervisor"), ("a", "worker")]
        assert info[1].child is None

    def test_count_children(self, nursery):
        """S20, count_children: specs, active (alive), supervisors, workers."""
        inner = ChildSpec("inner", Sup.start_link, type="supervisor")
        supervisor = Sup.start([nursery.spec("a"), nursery.spec("b"), inner])
        supervisor.terminate_child("a")
        assert supervisor.count_children() == Counts(3, 2, 1, 2)

    def test_count_children_of_many(self):
        """count_children_supervisor: 1000 and 1000; all killed, none is active."""
        supervisor = Sup.start([])
        for n in range(1000):
            spec = ChildSpec(n, spawn_waiting, restart="temporary")
            supervisor.start_child(spec)
            kind = ChildSpec(-1 - n, spawn_waiting, restart="temporary", type="supervisor")
            supervisor.start_child(kind)
        assert supervisor.count_children() == Counts(2000, 2000, 1000, 1000)
        for info in supervisor.which_children():
            gpool.exit(info.child, "kill")
        settle()
        assert supervisor.count_children() == Counts(0, 0, 0, 0)

    def test_get_childspec(self, nursery):
        """S20, sup_start_map: the specification with its defaults; not_found."""
        spec = nursery.spec("a")
        supervisor = Sup.start([spec])
        assert supervisor.get_childspec("a") is spec
        with pytest.raises(ChildError, match="not_found"):
            supervisor.get_childspec("b")

    def test_temporary_arguments_are_not_kept(self, nursery):
        """do_not_save_start_parameters_/child_specs_for_temporary_children: they can be large."""
        supervisor = Sup.start([nursery.spec("a", restart="temporary"), nursery.spec("b")])
        supervisor.start_child(nursery.spec("c", restart="temporary"))
        for id, kept in (("a", False), ("b", True), ("c", False)):
            spec = supervisor.get_childspec(id)
            assert bool(spec.args) is kept
            assert bool(spec.kwargs) is kept

    @pytest.mark.parametrize(
        ("method", "arguments"),
        [
            ("which_children", ()),
            ("count_children", ()),
            ("terminate_child", ("a",)),
            ("restart_child", ("a",)),
            ("delete_child", ("a",)),
            ("get_childspec", ("a",)),
            ("start_child", (ChildSpec("a", print),)),
        ],
    )
    def test_on_a_dead_supervisor(self, method, arguments):
        """S20: on a dead supervisor: NoProcess."""
        supervisor = Sup.start([])
        gpool.stop(supervisor)
        with pytest.raises(gpool.NoProcess):
            getattr(supervisor, method)(*arguments)

    def test_there_is_no_timeout(self, nursery, clock):
        """S20: no timeout: a caller waits as long as the child takes to start."""
        gate = gevent.event.Event()
        nursery.scripts["a"].append(gate.wait)
        supervisor = Sup.start([])
        attempt = Attempt(supervisor.start_child, nursery.spec("a"))
        clock.advance(3600)
        assert not attempt.done

    def test_the_death_of_the_supervisor_wakes_the_caller(self, nursery):
        """S20: who waits for an answer when it dies gets ServerExited."""
        gate = gevent.event.Event()
        nursery.scripts["a"].append(gate.wait)
        supervisor = Sup.start([])
        attempt = Attempt(supervisor.start_child, nursery.spec("a"))
        gpool.exit(supervisor.pid, "kill")
        settle()
        assert isinstance(attempt.error, gpool.ServerExited)
        assert attempt.error.reason == "killed"


def spawn_waiting(*_):
    """Start a child that waits, and is nothing more."""
    return gpool.spawn_link(gpool.receive)


class TestDeadlock:
    """S21: a child that calls the supervisor which waits for it."""

    def test_in_init(self, nursery):
        """S21: a child that calls its own supervisor from init is told so; OTP waits for ever."""
        box = []

        class Curious(gpool.GenServer):
            def init(self):
                box[0].which_children()

        supervisor = Sup.start([])
        box.append(supervisor)
        with pytest.raises(StartError) as caught:
            supervisor.start_child(ChildSpec("a", Curious.start_link))
        assert isinstance(caught.value.__cause__, gpool.CallingSelf)
        assert caught.value.__cause__.server is supervisor.pid

    def test_in_init_of_a_grandchild(self, nursery):
        """S21: the chain of those who wait may be longer than one."""
        box = []

        class Curious(gpool.GenServer):
            def init(self):
                box[0].which_children()

        supervisor = Sup.start([])
        box.append(supervisor)
        leaf = ChildSpec("leaf", Curious.start_link)
        with pytest.raises(StartError) as caught:
            supervisor.start_child(ChildSpec("in", Sup.start_link, ([leaf],), type="supervisor"))
        kind, (_, id, reason) = caught.value.reason
        assert (kind, id) == ("shutdown", "leaf")
        assert isinstance(reason.exception, gpool.CallingSelf)

    def test_in_terminate(self, nursery):
        """S21: so is one that calls it while it is being stopped."""
        errors = []

        def ask(reason):
            try:
                supervisor.which_children()
            except gpool.CallingSelf as error:
                errors.append(error)

        nursery.cleanups["a"] = ask
        supervisor = Sup.start([nursery.spec("a", shutdown=None, trap=True)])
        supervisor.terminate_child("a")
        assert len(errors) == 1

    def test_from_the_supervisor_itself(self):
        """S21: a supervisor that calls itself is told so."""

        class Curious(Sup):
            @gpool.call
            def look(self):
                return self.which_children()

        supervisor = Curious.start([])
        with pytest.raises(gpool.ServerExited) as caught:
            supervisor.look()
        assert isinstance(caught.value.__cause__, gpool.CallingSelf)

    def test_a_call_after_init_is_fine(self, nursery):
        """S21: from handle_continue, or later, a child may call its supervisor."""
        seen = []

        class Curious(gpool.GenServer):
            def init(self):
                return gpool.Continue()

            def handle_continue(self, argument):
                seen.append(supervisor.count_children())

        supervisor = Sup.start([])
        supervisor.start_child(ChildSpec("a", Curious.start_link))
        settle()
        assert seen == [Counts(1, 1, 0, 1)]


class TestTree:
    def inner(self, nursery, id, *leaves, **options):
        """Give the specification of a supervisor of these toys."""
        specs = [nursery.spec(leaf) for leaf in leaves]
        return ChildSpec(id, Sup.start_link, (specs,), options, type="supervisor")

    def test_only_the_dead_one_restarts(self, nursery):
        """tree: nested supervisors: a crash is mended where it happens."""
        outer = Sup.start([self.inner(nursery, "x", "a", "b"), self.inner(nursery, "y", "c")])
        before = shown(outer)
        nursery.take()
        nursery.end("a", "boom")
        assert nursery.take() == [("down", "a", "boom"), ("start", "a")]
        assert shown(outer) == before

    def test_a_spent_one_is_restarted_by_its_own_supervisor(self, nursery):
        """tree: beyond its intensity a supervisor dies of shutdown, and is restarted whole."""
        outer = Sup.start(
            [self.inner(nursery, "x", "a", "b", max_restarts=0), nursery.spec("c")]
        )  # fmt: skip
        nursery.take()
        nursery.end("a", "boom")
        assert nursery.take() == [
            ("down", "a", "boom"), ("down", "b", "shutdown"), *started("a", "b")
        ]  # fmt: skip
        assert running(outer) == ["x", "c"]

    def test_a_restarted_one_loses_what_was_added(self, nursery):
        """tree: dynamic children are not started by a restarted sub-supervisor."""
        outer = Sup.start([self.inner(nursery, "x", "a")])
        shown(outer)["x"].server.start_child(nursery.spec("b"))
        gpool.exit(shown(outer)["x"], "kill")
        settle()
        assert running(shown(outer)["x"].server) == ["a"]

    def test_stops_from_the_leaves(self, nursery):
        """tree: each supervisor stops its own in reverse order, in its turn."""
        outer = Sup.start(
            [self.inner(nursery, "x", "a", "b"), nursery.spec("c"), self.inner(nursery, "y", "d")]
        )
        nursery.take()
        gpool.stop(outer)
        assert nursery.take() == downs("shutdown", "d", "c", "b", "a")


class TestJoin:
    def test_returns_the_reason(self, nursery):
        """Blocks until the supervisor is dead, and says what it died of."""
        supervisor = Sup.start([nursery.spec("a")], max_restarts=0)
        joining = Attempt(supervisor.join)
        assert not joining.done
        nursery.kill("a")
        assert joining.value == "shutdown"
        assert supervisor.join() == "shutdown"

    def test_keeps_the_loop_alive(self):
        """A main that joins an idle tree gets no LoopExit."""
        supervisor = Sup.start([])
        loop = gevent.get_hub().loop
        timer = loop.timer(0.01, ref=False)  # alone it would not keep the loop running
        timer.start(lambda: gpool.exit(supervisor.pid, "kill"))
        assert supervisor.join() == "killed"
        timer.close()

    def test_gives_up_at_its_timeout(self, clock):
        """After its seconds it raises, and the supervisor lives on."""
        supervisor = Sup.start([])
        joining = Attempt(supervisor.join, 5.0)
        clock.advance(4.9)
        assert not joining.done
        clock.advance(0.2)
        assert isinstance(joining.error, gpool.CallTimeout)
        assert gpool.is_alive(supervisor)

    def test_refuses_who_would_wait_for_ever(self):
        """One that never started, and the supervisor itself, are told so."""
        with pytest.raises(gpool.NoProcess):
            Sup().join()

        class Joining(Sup):
            @gpool.call(raises=gpool.CallingSelf)
            def join_itself(self):
                self.join()

        with pytest.raises(gpool.CallingSelf):
            Joining.start().join_itself()

    def test_the_linked_die_with_it(self):
        """Who is linked to it and does not trap exits dies of its reason instead."""
        seen = []

        def main():
            supervisor = Sup.start_link([])
            seen.append(supervisor)
            supervisor.join()
            seen.append("returned")

        pid = gpool.spawn(main)
        settle()
        gpool.exit(seen[0].pid, "kill")
        settle()
        assert pid.reason == "killed"
        assert len(seen) == 1


class TestReports:
    def test_a_crash(self, nursery, reports):
        """child_terminated: a crash, whatever the restart type; with the dead pid."""
        Sup.start([nursery.spec(id, restart=id) for id in ("permanent", "transient", "temporary")])
        for id in ("permanent", "transient", "temporary"):
            nursery.end(id, "boom")
        assert list(reports) == [
            ("child_terminated", "boom", id) for id in ("permanent", "transient", "temporary")
        ]

    def test_an_orderly_end(self, nursery, reports):
        """child_terminated: an orderly end only of a permanent child."""
        Sup.start([nursery.spec(id, restart=id) for id in ("permanent", "transient", "temporary")])
        for id in ("permanent", "transient", "temporary"):
            nursery.end(id, "shutdown")
        assert list(reports) == [("child_terminated", "shutdown", "permanent")]

    def test_a_subclass_may_keep_silent(self, nursery, reports):
        """reports_death is asked with the specification and the reason, once a death."""
        asked = []

        class Silent(Sup):
            def reports_death(self, spec, reason):
                asked.append((spec.id, reason))
                return False

        supervisor = Silent.start([nursery.spec("a")])
        nursery.end("a", "boom")
        assert running(supervisor) == ["a"]
        assert asked == [("a", "boom")]
        assert list(reports) == []

    def test_a_listener_that_raises_harms_nobody(self, nursery):
        """A failing user hook is an event, and the supervisor goes on."""

        def fail(event):
            raise Boom

        gpool.telemetry.attach(fail)
        try:
            supervisor = Sup.start([nursery.spec("a")])
            nursery.end("a", "boom")
            assert running(supervisor) == ["a"]
        finally:
            gpool.telemetry.detach(fail)


class TestSubclass:
    def test_may_have_calls_of_its_own(self, nursery):
        """Marked methods and own requests live beside the supervisor's."""

        class Counting(Sup):
            @gpool.call
            def size(self):
                return len(self.children)

            def handle_call(self, request, from_):
                if request == "size":
                    return gpool.Reply(self.size())
                return super().handle_call(request, from_)

        supervisor = Counting.start([nursery.spec("a")])
        assert supervisor.size() == 1
        assert supervisor.call("size") == 1
        assert running(supervisor) == ["a"]

    def test_may_choose_its_children(self, nursery):
        """A module-based supervisor hands its children to super().__init__."""

        class Fixed(Sup):
            def __init__(self, nursery):
                super().__init__([nursery.spec("a")], strategy="rest_for_one")

        assert running(Fixed.start(nursery)) == ["a"]

    def test_sys_looks_into_it(self, nursery):
        """A supervisor is a server: its state can be looked at, it can be suspended."""
        supervisor = Sup.start([nursery.spec("a")])
        assert gpool.sys.get_state(supervisor)["strategy"] == "one_for_one"
        gpool.sys.suspend(supervisor)
        nursery.take()
        nursery.kill("a")
        assert nursery.take() == [("down", "a", "killed")]
        gpool.sys.resume(supervisor)
        assert nursery.take() == started("a")
