"""Dynamic supervisors: OTP's simple_one_for_one and Elixir's DynamicSupervisor."""

from __future__ import annotations

import gc
import weakref

import gevent
import pytest

import gpool
from gpool import Backoff, ChildError, ChildInfo, ChildSpec, Counts, SpecError, StartError
from gpool import DynamicSupervisor as Dyn
from gpool.testing import settle
from tests.otp.nursery import Attempt, Boom, Toy


def wait(*_):
    """Be a process that waits for a message."""
    gpool.receive()


def template(nursery, **options):
    """Give a template whose start function takes the id of the toy."""
    return ChildSpec("template", Toy.start_link, (nursery,), **options)


class TestInit:
    @pytest.mark.parametrize(
        ("options", "fault"),
        [
            ({"max_children": -1}, "invalid_max_children"),
            ({"max_children": 1.5}, "invalid_max_children"),
            ({"max_children": True}, "invalid_max_children"),
            ({"max_restarts": -1}, "invalid_intensity"),
            ({"max_seconds": 0}, "invalid_period"),
            ({"template": "abc"}, "invalid_child_spec"),
            ({"extra_arguments": [1]}, "invalid_extra_arguments"),
            ({"template": ChildSpec("a", wait), "extra_arguments": (1,)}, "bad_combination"),
        ],
    )
    def test_refuses_bad_options(self, options, fault):
        """S2: bad options are refused before anything starts."""
        before = gpool.processes()
        with pytest.raises(SpecError, match=rf"^{fault}: expected .*, got "):
            Dyn.start(**options)
        assert gpool.processes() == before

    def test_has_no_auto_shutdown(self, nursery):
        """S17: auto_shutdown is refused, as in OTP 26; so are significant children."""
        with pytest.raises(SpecError, match="bad_combination"):
            Dyn.start(auto_shutdown="any_significant")
        significant = nursery.spec("a", restart="transient", significant=True)
        with pytest.raises(SpecError, match="bad_combination"):
            Dyn.start(template=significant)
        with pytest.raises(SpecError, match="bad_combination"):
            Dyn.start().start_child(significant)

    def test_starts_empty(self):
        """D1: nothing runs until somebody asks."""
        supervisor = Dyn.start()
        assert supervisor.which_children() == []
        assert supervisor.count_children() == Counts(0, 0, 0, 0)


class TestTemplate:
    """D1: children that are all alike."""

    def test_arguments_are_joined(self):
        """D1: start_child(args) = template args + args; keywords likewise."""
        seen = []

        def start(*args, **kwargs):
            seen.append((args, kwargs))
            return gpool.spawn_link(wait)

        supervisor = Dyn.start(template=ChildSpec("t", start, (1,), {"x": 1, "y": 1}))
        supervisor.start_child(2, 3, y=2)
        assert seen == [((1, 2, 3), {"x": 1, "y": 2})]

    def test_ids_are_none(self, nursery):
        """D1, which_children_simple_one_for_one: the id is None; specs is 1, the template."""
        supervisor = Dyn.start(template=template(nursery))
        assert supervisor.count_children() == Counts(1, 0, 0, 0)
        child = supervisor.start_child("a")
        assert supervisor.which_children() == [ChildInfo(None, child.pid, "worker")]
        supervisor.start_child("b")
        assert supervisor.count_children() == Counts(1, 2, 0, 2)

    def test_calls_by_id_are_errors(self, nursery):
        """D1: terminate, restart, delete by id: errors."""
        supervisor = Dyn.start(template=template(nursery))
        child = supervisor.start_child("a")
        for method in ("terminate_child", "restart_child", "delete_child"):
            with pytest.raises(ChildError, match="simple_one_for_one"):
                getattr(supervisor, method)("template")
        for method in ("restart_child", "delete_child"):
            with pytest.raises(ChildError, match="simple_one_for_one"):
                getattr(supervisor, method)(child.pid)

    def test_child_adm_simple(self, nursery):
        """child_adm_simple: start, look, count, stop; twice the same arguments are two children."""
        supervisor = Dyn.start(template=template(nursery))
        first, second = supervisor.start_child("a"), supervisor.start_child("a")
        assert first.pid is not second.pid
        supervisor.terminate_child(first.pid)
        assert [info.child for info in supervisor.which_children()] == [second.pid]
        supervisor.terminate_child(second.pid)
        assert supervisor.count_children() == Counts(1, 0, 0, 0)

    def test_a_failing_child_is_not_saved(self, nursery):
        """sup_start_child_returns_error_simple: StartError with the reason."""
        supervisor = Dyn.start(template=template(nursery))
        nursery.scripts["a"].append(gpool.Stop("no"))
        with pytest.raises(StartError) as caught:
            supervisor.start_child("a")
        assert caught.value.reason == "no"
        assert supervisor.which_children() == []

    @pytest.mark.parametrize("restart", ["permanent", "temporary"])
    def test_an_ignored_child_is_not_kept(self, nursery, restart):
        """sup_start_ignore_*_start_child_simple: ignored is not kept, whatever its type."""
        supervisor = Dyn.start(template=template(nursery, restart=restart))
        nursery.scripts["a"].append(gpool.Ignore())
        assert supervisor.start_child("a") is None
        assert supervisor.count_children() == Counts(1, 0, 0, 0)
        gpool.stop(supervisor)


class TestStartChild:
    def test_of_a_specification(self, nursery):
        """D1: without a template children are all different; ids may repeat."""
        supervisor = Dyn.start()
        supervisor.start_child(nursery.spec("a"))
        inner = ChildSpec("b", gpool.Supervisor.start_link, type="supervisor")
        supervisor.start_child(inner)
        supervisor.start_child(nursery.spec("a"))
        assert supervisor.count_children() == Counts(3, 3, 1, 2)
        assert sorted(info.id for info in supervisor.which_children()) == ["a", "a", "b"]

    @pytest.mark.parametrize("arguments", [(), ("abc",), (None,), (1, 2)])
    def test_of_nonsense(self, arguments):
        """S16: nonsense is refused, and harms nobody."""
        supervisor = Dyn.start()
        with pytest.raises(SpecError, match="invalid_child_spec"):
            supervisor.start_child(*arguments)
        assert gpool.is_alive(supervisor)

    def test_max_children(self, nursery):
        """D4: one too many: max_children, and the start function is not called."""
        supervisor = Dyn.start(max_children=2)
        first = supervisor.start_child(nursery.spec("a"))
        supervisor.start_child(nursery.spec("b"))
        nursery.take()
        with pytest.raises(ChildError, match="max_children"):
            supervisor.start_child(nursery.spec("c"))
        assert nursery.take() == []
        supervisor.terminate_child(first.pid)
        supervisor.start_child(nursery.spec("c"))
        assert nursery.take()[-1] == ("start", "c")

    def test_max_children_zero(self, nursery):
        """D4: with 0 nobody is started."""
        with pytest.raises(ChildError, match="max_children"):
            Dyn.start(max_children=0).start_child(nursery.spec("a"))

    def test_restarting_ones_count(self, nursery, clock):
        """D4: a restarting child keeps its room."""
        supervisor = Dyn.start(max_children=1)
        backoff = Backoff(first=1, maximum=1, jitter=0)
        supervisor.start_child(nursery.spec("a", backoff=backoff))
        nursery.kill("a")
        assert supervisor.which_children()[0].child == "restarting"
        with pytest.raises(ChildError, match="max_children"):
            supervisor.start_child(nursery.spec("b"))

    def test_ended_ones_do_not(self, nursery):
        """D4: the end of a temporary child makes room, and so does an ignored or failed start."""
        supervisor = Dyn.start(max_children=1)
        nursery.scripts["a"].extend([gpool.Ignore(), gpool.Stop("no")])
        spec = nursery.spec("a", restart="temporary")
        assert supervisor.start_child(spec) is None
        with pytest.raises(StartError):
            supervisor.start_child(spec)
        supervisor.start_child(spec)
        nursery.end("a", "normal")
        supervisor.start_child(spec)
        assert supervisor.count_children() == Counts(1, 1, 0, 1)

    def test_extra_arguments(self):
        """D4: extra_arguments are put before the child's own, at restarts too."""
        seen = []

        def start(*args):
            seen.append(args)
            return gpool.spawn_link(wait)

        supervisor = Dyn.start(extra_arguments=(1, 2))
        child = supervisor.start_child(ChildSpec("a", start, (3,)))
        gpool.exit(child, "kill")
        settle()
        assert seen == [(1, 2, 3), (1, 2, 3)]

    @pytest.mark.parametrize("value", [42, "pid", (1, 2, 3)])
    def test_a_bad_start_value(self, value):
        """D4: a bad start value is an error."""
        supervisor = Dyn.start()
        with pytest.raises(StartError) as caught:
            supervisor.start_child(ChildSpec("a", lambda: value))
        assert caught.value.reason == value

    def test_different_returns(self):
        """Elixir's "different returns": pid, pair, handle, ignore."""
        supervisor = Dyn.start()
        pid, info = supervisor.start_child(
            ChildSpec("a", lambda: (gpool.spawn_link(wait), "info"))
        )  # fmt: skip
        assert (type(pid), info) == (gpool.Pid, "info")
        assert isinstance(
            supervisor.start_child(ChildSpec("a", gpool.spawn_link, (wait,))), gpool.Pid
        )
        assert supervisor.start_child(ChildSpec("a", lambda: None)) is None
        assert supervisor.count_children() == Counts(2, 2, 0, 2)

    @pytest.mark.parametrize("error", [Boom("x"), gpool.ExitSignal("x")])
    def test_throw_error_and_exit_in_start(self, error):
        """Elixir's throw/error/exit in start: each is a StartError."""

        def start():
            raise error

        supervisor = Dyn.start()
        with pytest.raises(StartError):
            supervisor.start_child(ChildSpec("a", start))
        assert supervisor.count_children() == Counts(0, 0, 0, 0)

    def test_get_childspec(self, nursery):
        """S20: get_childspec by pid."""
        supervisor = Dyn.start()
        spec = nursery.spec("a")
        child = supervisor.start_child(spec)
        assert supervisor.get_childspec(child.pid) is spec


class TestTerminateChild:
    def test_a_live_one(self, nursery):
        """D1: by pid; it is dead and forgotten then."""
        supervisor = Dyn.start()
        child = supervisor.start_child(nursery.spec("a"))
        supervisor.terminate_child(child.pid)
        assert child.pid.reason == "shutdown"
        assert supervisor.which_children() == []

    def test_a_dead_one(self, nursery):
        """D1: ok even if it is dead already, as in OTP."""
        supervisor = Dyn.start()
        child = supervisor.start_child(nursery.spec("a", restart="temporary"))
        nursery.end("a", "normal")
        supervisor.terminate_child(child.pid)

    def test_a_dead_one_whose_exit_is_not_handled(self, nursery):
        """D1: one that dies just before is not restarted afterwards."""
        supervisor = Dyn.start()
        child = supervisor.start_child(nursery.spec("a"))
        gpool.exit(child.pid, "kill")
        supervisor.terminate_child(child.pid)
        settle()
        assert supervisor.which_children() == []

    def test_a_live_stranger(self):
        """D1: a live stranger: not_found."""
        stranger = gpool.spawn(wait)
        with pytest.raises(ChildError, match="not_found"):
            Dyn.start().terminate_child(stranger)
        assert gpool.is_alive(stranger)

    def test_a_restarting_one(self, nursery, clock):
        """Elixir's terminate of a restarting child: by its last pid; the retry is cancelled."""
        supervisor = Dyn.start()
        backoff = Backoff(first=1, maximum=1, jitter=0)
        child = supervisor.start_child(nursery.spec("a", backoff=backoff))
        nursery.kill("a")
        supervisor.terminate_child(child.pid)
        clock.advance(60)
        assert supervisor.which_children() == []
        assert gpool.is_alive(nursery.latest["a"]) is False


class TestRestart:
    def test_simple_one_for_one(self, nursery):
        """simple_one_for_one: a crash is restarted, old pids are gone, the third is too much."""
        supervisor = Dyn.start(template=template(nursery), max_restarts=2)
        old = [supervisor.start_child(id).pid for id in "ab"]
        nursery.kill("a")
        new = {info.child for info in supervisor.which_children()}
        assert new == {nursery.latest["a"], old[1]}
        nursery.kill("b")
        nursery.kill("a")
        assert supervisor.pid.reason == "shutdown"
        assert not any(gpool.is_alive(pid) for pid in nursery.latest.values())

    @pytest.mark.parametrize(
        ("restart", "reason", "lives"),
        [
            ("permanent", "normal", True),
            ("permanent", "boom", True),
            ("transient", "normal", False),
            ("transient", ("shutdown", "x"), False),
            ("transient", "boom", True),
            ("temporary", "boom", False),
        ],
    )
    def test_types(self, nursery, restart, reason, lives):
        """S6: as with static ones, but who is not restarted is forgotten."""
        supervisor = Dyn.start()
        supervisor.start_child(nursery.spec("a", restart=restart))
        nursery.end("a", reason)
        expected = [nursery.latest["a"]] if lives else []
        assert [info.child for info in supervisor.which_children()] == expected

    def test_simple_one_for_one_extra(self):
        """simple_one_for_one_extra: a start may return more than a pid, at restarts too."""
        supervisor = Dyn.start(template=ChildSpec("t", lambda n: (gpool.spawn_link(wait), n)))
        pid, n = supervisor.start_child(7)
        assert n == 7
        gpool.exit(pid, "kill")
        settle()
        assert supervisor.count_children() == Counts(1, 1, 0, 1)

    def test_escalation(self, nursery):
        """simple_one_for_one_escalation: a restart that always fails ends the supervisor."""
        supervisor = Dyn.start(max_restarts=4)
        for id in "ab":
            supervisor.start_child(nursery.spec(id))
        nursery.scripts["a"].extend([gpool.Stop("no")] * 9)
        nursery.kill("a")
        assert supervisor.pid.reason == "shutdown"
        assert nursery.latest["b"].reason == "shutdown"

    def test_restart_ignore(self, nursery):
        """D3, simple_one_for_one_restart_ignore: ignore on restart drops the child."""
        supervisor = Dyn.start()
        supervisor.start_child(nursery.spec("a"))
        nursery.scripts["a"].append(gpool.Ignore())
        nursery.kill("a")
        assert supervisor.which_children() == []
        assert gpool.is_alive(supervisor)

    def test_a_failing_restart(self, nursery):
        """D3, count_restarting_children: entry restarting, counted in workers, not active."""
        gate = gevent.event.Event()

        def hang():
            gate.wait()
            return gpool.Stop("no")

        supervisor = Dyn.start(max_restarts=10**6)
        nursery.scripts["a"].extend([None, *[hang] * 100])
        for id in "ab":
            supervisor.start_child(nursery.spec(id))
        nursery.kill("a")
        calls = [
            Attempt(supervisor.which_children),
            Attempt(supervisor.count_children),
            Attempt(supervisor.terminate_child, nursery.latest["a"]),
        ]
        gate.set()
        settle()
        which, count, terminate = calls
        shown = {info.id: info.child for info in which.value}
        assert shown == {"a": "restarting", "b": nursery.latest["b"]}
        assert count.value == Counts(2, 1, 0, 2)
        assert terminate.done
        assert [info.id for info in supervisor.which_children()] == ["b"]

    def test_try_again(self, nursery):
        """Elixir's "try again": a restart that fails once succeeds at the second attempt."""
        supervisor = Dyn.start()
        supervisor.start_child(nursery.spec("a"))
        nursery.scripts["a"].append(Boom())
        nursery.take()
        nursery.kill("a")
        assert nursery.take() == [("down", "a", "killed"), ("fail", "a"), ("start", "a")]
        assert [info.child for info in supervisor.which_children()] == [nursery.latest["a"]]

    def test_a_second_exit_of_the_same_pid(self, nursery, clock):
        """A child that signals its supervisor and dies counts once, also while it waits."""
        supervisor = Dyn.start(max_restarts=1)
        backoff = Backoff(first=1, maximum=1, jitter=0)

        def run(sup):
            gpool.exit(sup, "boom")
            gpool.exit("boom")

        def start():
            return gpool.spawn_link(run, gpool.self())

        supervisor.start_child(ChildSpec("a", start, backoff=backoff))
        settle()
        assert supervisor.children == {}
        assert [info.child for info in supervisor.which_children()] == ["restarting"]

    def test_backoff(self, nursery, clock):
        """A child with a backoff is restarted later, and that does not count."""
        supervisor = Dyn.start(max_restarts=0)
        backoff = Backoff(first=1, maximum=8, jitter=0)
        supervisor.start_child(nursery.spec("a", backoff=backoff))
        nursery.scripts["a"].append(gpool.Stop("no"))
        nursery.kill("a")
        assert supervisor.count_children() == Counts(1, 0, 0, 1)
        clock.advance(1 + 2 + 0.1)
        assert supervisor.count_children() == Counts(1, 1, 0, 1)

    def test_counts_restart(self, nursery):
        """A subclass may leave restarts uncounted, as with a static supervisor."""

        class Lenient(Dyn):
            def counts_restart(self, spec, reason):
                return False

        supervisor = Lenient.start(max_restarts=0)
        supervisor.start_child(nursery.spec("a"))
        for _ in range(5):
            nursery.kill("a")
        assert gpool.is_alive(supervisor)


class TestEnd:
    """D2: all children are stopped at once."""

    @pytest.fixture
    def slow(self, nursery, clock):
        """Have a child take some seconds for its terminate."""

        def slow(id, seconds):
            def cleanup(reason):
                gate = gevent.event.Event()
                clock.call_later(seconds, gate.set)
                gate.wait()

            nursery.cleanups[id] = cleanup

        return slow

    def start(self, nursery, **shutdowns):
        """Start children with these shutdown values."""
        supervisor = Dyn.start()
        for id, shutdown in shutdowns.items():
            supervisor.start_child(nursery.spec(id, shutdown=shutdown, trap=True))
        return supervisor

    def test_at_once(self, nursery, clock, slow):
        """D2, simple_one_for_one_shutdown: one common timer: 3 x 0.1 s = 0.1 s."""
        for id in "abc":
            slow(id, 0.1)
        supervisor = self.start(nursery, a=5, b=5, c=5)
        stopping = Attempt(gpool.stop, supervisor)
        clock.advance(0.09)
        assert not stopping.done
        clock.advance(0.02)
        assert stopping.done
        assert {nursery.latest[id].reason for id in "abc"} == {"shutdown"}

    def test_bounded_by_the_timer(self, nursery, clock, slow):
        """D2, sup_stop_timeout_dynamic: who is not done in time is killed."""
        for id, seconds in {"a": 0.1, "b": 3600, "c": 3600}.items():
            slow(id, seconds)
        supervisor = self.start(nursery, a=1, b=1, c=1)
        stopping = Attempt(gpool.stop, supervisor)
        clock.advance(0.99)
        assert not stopping.done
        clock.advance(0.02)
        assert stopping.done
        assert [nursery.latest[id].reason for id in "abc"] == ["shutdown", "killed", "killed"]

    def test_each_has_its_own_time(self, nursery, clock, slow, reports):
        """D2: mixed shutdown kinds: each child within its own value, the timers grouped."""
        for id in "abcde":
            slow(id, 3)
        supervisor = self.start(nursery, a="brutal_kill", b=1, c=2, d=5, e=None)
        stopping = Attempt(gpool.stop, supervisor)
        dead_at = {}
        for _ in range(8):
            for id in "abcde":
                if not gpool.is_alive(nursery.latest[id]):
                    dead_at.setdefault(id, clock.now() - 1000)
            clock.advance(0.5)
        assert stopping.done
        assert dead_at == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 3}
        reasons = {id: nursery.latest[id].reason for id in "abcde"}
        assert reasons == {
            "a": "killed", "b": "killed", "c": "killed", "d": "shutdown", "e": "shutdown"
        }  # fmt: skip
        assert sorted(child for _, _, child in reports) == ["b", "c"]

    def test_brutal_kill(self, nursery, reports):
        """sup_stop_brutal_kill_dynamic: no terminate; all killed, and no error."""
        ran = []
        nursery.cleanups["a"] = ran.append
        gpool.stop(self.start(nursery, a="brutal_kill", b="brutal_kill"))
        assert {nursery.latest[id].reason for id in "ab"} == {"killed"}
        assert ran == []
        assert list(reports) == []

    def test_an_expired_integer_shutdown(self, nursery, clock, slow):
        """Elixir's "expired integer shutdown": 0 does not wait."""
        slow("a", 1)
        gpool.stop(self.start(nursery, a=0))
        assert nursery.latest["a"].reason == "killed"

    def test_with_a_restarting_child(self, nursery, clock):
        """hanging_restart_loop_simple: a child that waits for its restart is no trouble."""
        supervisor = Dyn.start()
        supervisor.start_child(nursery.spec("a", backoff=Backoff(first=1, maximum=1)))
        nursery.kill("a")
        gpool.stop(supervisor)
        assert clock.next_due() is None

    def test_all_that_call_it_meanwhile_are_told(self, nursery):
        """S21: each of the children that are stopped at once gets CallingSelf."""
        errors = []

        def ask(reason):
            try:
                supervisor.count_children()
            except gpool.CallingSelf as error:
                errors.append(error)

        for id in "abc":
            nursery.cleanups[id] = ask
        supervisor = self.start(nursery, a=None, b=None, c=None)
        gpool.stop(supervisor)
        assert len(errors) == 3


class TestReports:
    def test_temporary_children_end_in_silence(self, nursery, reports):
        """Temporary children that end orderly are nobody's business."""
        supervisor = Dyn.start()
        for reason in ("normal", "shutdown", ("shutdown", "x")):
            supervisor.start_child(nursery.spec("a", restart="temporary"))
            nursery.end("a", reason)
        assert list(reports) == []
        supervisor.start_child(nursery.spec("a", restart="temporary"))
        nursery.end("a", "boom")
        assert list(reports) == [("child_terminated", "boom", "a")]


class TestAdopt:
    """How a subclass starts children without waiting for their init."""

    class Launcher(Dyn):
        """Spawns what it is told to, and goes on at once."""

        @gpool.call(raises=(ChildError, SpecError, gpool.WrongHub))
        def launch(self, spec):
            """Spawn a process and adopt it."""
            pid = gpool.spawn_link(spec.start, *spec.args)
            try:
                self.adopt(pid, spec)
            except ChildError:
                gpool.exit(pid, "kill")
                raise
            return pid

        @gpool.call(raises=ChildError)
        def adopt_again(self, pid, spec):
            """Adopt one twice."""
            self.adopt(pid, spec)

    def test_is_a_child_at_once(self):
        """The process is linked, listed and counted; its slow start holds nobody up."""
        supervisor = self.Launcher.start()
        spec = ChildSpec("a", wait, restart="temporary", shutdown=2)
        pid = supervisor.launch(spec)
        assert supervisor.which_children() == [ChildInfo("a", pid, "worker")]
        assert pid in supervisor.pid.links
        assert pid.unwind_limit == 2
        gpool.exit(pid, "boom")
        settle()
        assert supervisor.which_children() == []

    def test_goes_down_with_the_others(self):
        """Its end is that of any other child."""
        supervisor = self.Launcher.start()
        pid = supervisor.launch(ChildSpec("a", wait, restart="temporary"))
        gpool.stop(supervisor)
        assert pid.reason == "shutdown"

    def test_respects_max_children(self):
        """D4: one too many is refused."""
        supervisor = self.Launcher.start(max_children=1)
        spec = ChildSpec("a", wait, restart="temporary")
        supervisor.launch(spec)
        with pytest.raises(ChildError, match="max_children"):
            supervisor.launch(spec)

    def test_refuses_a_child(self):
        """Once is enough."""
        supervisor = self.Launcher.start()
        spec = ChildSpec("a", wait, restart="temporary")
        pid = supervisor.launch(spec)
        with pytest.raises(ChildError, match="already_started"):
            supervisor.adopt_again(pid, spec)

    def test_a_dead_one_is_noticed(self):
        """One that died before it was adopted ends like any other."""
        supervisor = self.Launcher.start()
        pid = gpool.spawn(lambda: None)
        settle()
        supervisor.adopt_again(pid, ChildSpec("a", wait, restart="temporary"))
        settle()
        assert supervisor.which_children() == []

    def test_only_in_the_supervisors_process(self):
        """From anywhere else it is a mistake."""
        with pytest.raises(ValueError, match="in #PID"):
            Dyn.start().adopt(gpool.spawn(wait), ChildSpec("a", wait))


class TestScale:
    def cost(self, n):
        """Return the seconds of CPU that n children take to start and stop, each way."""
        import time

        supervisor = Dyn.start(max_restarts=0)
        spec = ChildSpec("a", gpool.spawn_link, (wait,), restart="temporary")
        began = time.process_time()
        pids = [supervisor.start_child(spec) for _ in range(n)]
        for pid in pids[: n // 3]:
            supervisor.terminate_child(pid)
        for pid in pids[n // 3 : 2 * n // 3]:
            gpool.send(pid, "end")
        settle()
        assert supervisor.count_children().specs == n - 2 * n // 3
        gpool.stop(supervisor)
        return time.process_time() - began

    def test_many_temporary_children(self):
        """simple_one_for_one_scale_many_temporary_children, scale_start_stop: it is linear."""
        self.cost(500)
        gc.disable()
        try:
            small = min(self.cost(1000) for _ in range(3))
            large = self.cost(10_000)
        finally:
            gc.enable()
        assert large < small * 10 * 3  # quadratic would be 10 times more

    def test_temporary_arguments_are_not_kept(self):
        """D3, simple_one_for_one_corruption: temporary children keep no start arguments."""

        class Large:
            pass

        large = Large()
        alive = weakref.ref(large)
        supervisor = Dyn.start(
            template=ChildSpec("t", lambda _: gpool.spawn_link(wait), restart="temporary")
        )
        pid = supervisor.start_child(large)
        second = supervisor.start_child(None)
        del large
        gc.collect()
        assert alive() is None
        assert supervisor.get_childspec(pid).args == ()
        gpool.exit(pid, "kill")
        settle()
        assert [info.child for info in supervisor.which_children()] == [second]
