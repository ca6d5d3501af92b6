"""Starting and stopping one child, as its supervisor does it (the labels are OTP's rules)."""

from __future__ import annotations

import contextlib

import gevent
import pytest

import gpool
from gpool import ChildSpec, Counts, StartError
from gpool import Supervisor as Sup
from gpool.otp.pid import untie
from gpool.testing import settle
from tests.otp.nursery import Attempt, Boom


def wait():
    """Be a process that waits for a message."""
    gpool.receive()


class TestStart:
    @pytest.mark.parametrize(
        "start",
        [
            lambda: gpool.spawn_link(wait),
            lambda: (gpool.spawn_link(wait), "info"),
            gpool.GenServer.start_link,
            lambda: (gpool.GenServer.start_link(), "info"),
        ],
    )
    def test_takes_a_pid_or_a_handle(self, start):
        """S4: a start gives ok or ok and more; a handle stands for its pid."""
        supervisor = Sup.start([ChildSpec("a", start)])
        assert supervisor.count_children() == Counts(1, 1, 0, 1)

    @pytest.mark.parametrize("start", [lambda: None, lambda: (None, "info")])
    def test_takes_none_for_ignore(self, start):
        """S4: None is ignore: kept with no pid."""
        supervisor = Sup.start([ChildSpec("a", start)])
        assert supervisor.which_children()[0].child is None

    @pytest.mark.parametrize("value", [42, "pid", (1, 2, 3), object(), gevent.getcurrent])
    def test_an_odd_value_is_a_failure(self, value):
        """S3: an odd-valued start function is an error, the value is its reason."""
        with pytest.raises(StartError) as caught:
            Sup.start([]).start_child(ChildSpec("a", lambda: value))
        assert caught.value.reason == value

    def test_the_supervisor_is_no_child_of_its_own(self):
        """S3: a start function that returns the supervisor itself is an odd one."""
        supervisor = Sup.start([])
        with pytest.raises(StartError):
            supervisor.start_child(ChildSpec("a", lambda: supervisor))
        assert gpool.is_alive(supervisor)

    def test_a_raising_start_function(self):
        """S3: what a start function raises is the reason, as an Error."""
        error = Boom("x")

        def start():
            raise error

        with pytest.raises(StartError) as caught:
            Sup.start([]).start_child(ChildSpec("a", start))
        assert caught.value.reason == gpool.Error(error)
        assert caught.value.__cause__ is error

    def test_an_exiting_start_function(self):
        """S3: so is what it exits with; the supervisor lives."""
        supervisor = Sup.start([])
        with pytest.raises(StartError) as caught:
            supervisor.start_child(ChildSpec("a", gpool.exit, ("oops",)))
        assert caught.value.reason == "oops"
        assert gpool.is_alive(supervisor)

    @pytest.mark.parametrize("error", [gevent.Timeout(1), SystemExit(3), gevent.GreenletExit()])
    def test_a_base_exception_is_no_exit_of_the_supervisor(self, error):
        """S3: whatever escapes from a start function fails that start only."""

        def start():
            raise error

        supervisor = Sup.start([])
        with pytest.raises(StartError):
            supervisor.start_child(ChildSpec("a", start))
        assert gpool.is_alive(supervisor)

    def test_keeps_no_frames_of_a_failure(self, nursery):
        """A reason that is kept while a child is retried holds no frames (T27)."""
        supervisor = Sup.start([nursery.spec("a")])
        error = Boom("x")
        nursery.scripts["a"].append(error)
        nursery.kill("a")
        assert supervisor.children["a"].reason == gpool.Error(error)
        assert error.__traceback__ is None

    def test_gives_arguments(self):
        """S1: args and kwargs are the start function's."""
        seen = []

        def start(*args, **kwargs):
            seen.append((args, kwargs))

        Sup.start([ChildSpec("a", start, (1, 2), {"x": 3})])
        assert seen == [((1, 2), {"x": 3})]

    def test_traps_exits_and_links(self):
        """S5: the supervisor traps exits, and makes the link itself if there is none."""
        supervisor = Sup.start([ChildSpec("a", gpool.spawn, (wait,))])
        child = supervisor.which_children()[0].child
        assert supervisor.pid.trapping
        assert child in supervisor.pid.links
        gpool.exit(child, "boom")
        settle()
        assert supervisor.which_children()[0].child not in (child, None)

    def test_an_unlinked_child_dies_unnoticed(self):
        """S5: one that unlinks itself dies unnoticed: active 0, which_children shows the pid."""
        supervisor = Sup.start([ChildSpec("a", gpool.spawn_link, (wait,))])
        child = supervisor.which_children()[0].child
        untie(child, supervisor.pid)
        gpool.exit(child, "boom")
        settle()
        assert supervisor.which_children()[0].child is child
        assert supervisor.count_children() == Counts(1, 0, 0, 1)

    @pytest.mark.parametrize("spawn", [gpool.spawn, gpool.spawn_link])
    @pytest.mark.parametrize("reason", ["normal", "boom"])
    def test_a_child_that_is_dead_already(self, spawn, reason):
        """S5: linked or not, its death is handled once, with its real reason."""
        starts = []

        def start():
            starts.append(1)
            if len(starts) > 1:
                return gpool.spawn_link(wait)
            pid = spawn(gpool.exit, reason)
            gevent.sleep(0)
            return pid

        supervisor = Sup.start([ChildSpec("a", start, restart="transient")])
        settle()
        assert len(starts) == (1 if reason == "normal" else 2)
        assert supervisor.count_children().active == len(starts) - 1

    def test_limits_the_cleanup_of_the_child(self):
        """The child's shutdown is also what its cleanup may take when others kill it."""
        specs = [
            ChildSpec("a", gpool.spawn_link, (wait,), shutdown=2.5),
            ChildSpec("b", gpool.spawn_link, (wait,), shutdown=None),
            ChildSpec("c", gpool.spawn_link, (wait,), shutdown="brutal_kill"),
        ]
        children = [info.child for info in reversed(Sup.start(specs).which_children())]
        assert [child.unwind_limit for child in children] == [2.5, None, 5.0]


@pytest.fixture
def slow(nursery, clock):
    """Have a child take some seconds for its terminate."""

    def slow(id, seconds):
        def cleanup(reason):
            gate = gevent.event.Event()
            clock.call_later(seconds, gate.set)
            gate.wait()
            nursery.log.append(("cleaned", id))

        nursery.cleanups[id] = cleanup

    return slow


class TestStop:
    """S12: how long a child may take, and what it dies of."""

    def test_in_time(self, nursery, clock, slow):
        """S12, sup_stop_timeout: shutdown=T: a child that ends in time dies of shutdown."""
        slow("a", 0.9)
        supervisor = Sup.start([nursery.spec("a", shutdown=1, trap=True)])
        stopping = Attempt(gpool.stop, supervisor)
        clock.advance(0.89)
        assert not stopping.done
        clock.advance(0.02)
        assert stopping.done
        assert nursery.latest["a"].reason == "shutdown"

    @pytest.mark.parametrize("trap", [True, False])
    def test_too_late(self, nursery, clock, slow, trap, reports):
        """S12, sup_stop_timeout: shutdown=T: signal, wait T, kill; the reason is killed."""
        slow("a", 5)
        supervisor = Sup.start([nursery.spec("a", shutdown=1, trap=trap)])
        stopping = Attempt(gpool.stop, supervisor)
        clock.advance(0.99)
        assert not stopping.done
        clock.advance(0.02)
        assert stopping.done
        assert nursery.latest["a"].reason == "killed"
        assert ("cleaned", "a") not in nursery.log
        assert list(reports) == [("shutdown_error", "killed", "a")]

    @pytest.mark.parametrize("trap", [True, False])
    def test_infinity(self, nursery, clock, slow, trap):
        """S12, sup_stop_infinity: None waits as long as it takes."""
        slow("a", 3600)
        supervisor = Sup.start([nursery.spec("a", shutdown=None, trap=trap)])
        stopping = Attempt(gpool.stop, supervisor)
        clock.advance(3599)
        assert not stopping.done
        clock.advance(2)
        assert stopping.done
        assert nursery.latest["a"].reason == "shutdown"

    @pytest.mark.parametrize("trap", [True, False])
    def test_brutal_kill(self, nursery, trap, reports):
        """S12, sup_stop_brutal_kill: no terminate; the reason is killed, and no error."""
        ran = []
        nursery.cleanups["a"] = ran.append
        supervisor = Sup.start([nursery.spec("a", shutdown="brutal_kill", trap=trap)])
        gpool.stop(supervisor)
        assert nursery.latest["a"].reason == "killed"
        assert ran == []
        assert list(reports) == []

    def test_zero(self, nursery, slow):
        """S12: shutdown=0 is a signal with the kill right behind it."""
        slow("a", 1)
        supervisor = Sup.start([nursery.spec("a", shutdown=0, trap=True)])
        gpool.stop(supervisor)
        assert nursery.latest["a"].reason == "killed"

    def test_one_at_a_time_in_reverse(self, nursery, clock, slow):
        """S12: reverse start order, one at a time: 3 x 0.1 s = 0.3 s."""
        for id in "abc":
            slow(id, 0.1)
        supervisor = Sup.start([nursery.spec(id, trap=True) for id in "abc"])
        nursery.take()
        stopping = Attempt(gpool.stop, supervisor)
        clock.advance(0.29)
        assert not stopping.done
        clock.advance(0.02)
        assert stopping.done
        assert nursery.take() == [
            entry for id in "cba" for entry in (("cleaned", id), ("down", id, "shutdown"))
        ]

    def test_a_slow_one_is_cut_its_siblings_get_their_time(self, nursery, clock, slow):
        """S12: a 0.3 s terminate under 0.05 s is cut, siblings still get theirs."""
        for id in "abc":
            slow(id, 0.3)
        limits = {"a": 1, "b": 0.05, "c": 1}
        supervisor = Sup.start([nursery.spec(id, shutdown=limits[id], trap=True) for id in "abc"])
        stopping = Attempt(gpool.stop, supervisor)
        clock.advance(0.66)
        assert stopping.done
        assert {id: nursery.latest[id].reason for id in "abc"} == {
            "a": "shutdown", "b": "killed", "c": "shutdown"
        }  # fmt: skip

    def test_a_swallower_is_declared_dead(self, clock):
        """S12: a greenlet that swallows even kills cannot hold its supervisor: it is a zombie."""

        def swallow():
            while True:
                with contextlib.suppress(BaseException):
                    gevent.event.Event().wait()

        supervisor = Sup.start([ChildSpec("a", gpool.spawn_link, (swallow,), shutdown=1)])
        child = supervisor.which_children()[0].child
        settle()
        stopping = Attempt(gpool.stop, supervisor)
        clock.advance(1.01)
        assert stopping.done
        assert child.reason == "killed"
        assert child in gpool.zombies()

    def test_is_served_while_nothing_blocks(self, nursery, clock, slow):
        """S12: a call that comes while a child is stopped is answered afterwards."""
        slow("a", 1)
        supervisor = Sup.start([nursery.spec("a", trap=True)])
        stopping = Attempt(supervisor.terminate_child, "a")
        asking = Attempt(supervisor.count_children)
        assert not asking.done
        clock.advance(1.01)
        assert stopping.done
        assert asking.value == Counts(1, 0, 0, 1)


class TestStopKeepsTheLink:
    """S13: monitor, keep the link until it is dead, flush its EXIT."""

    def test_a_killed_supervisor_orphans_nobody(self, nursery, clock, slow):
        """S13: killed while it waits for a child, it still takes that child along."""
        slow("a", 3600)
        supervisor = Sup.start([nursery.spec("a", shutdown=None), nursery.spec("b", shutdown=None)])
        terminating = Attempt(supervisor.terminate_child, "a")
        assert nursery.latest["a"] in supervisor.pid.links
        gpool.exit(supervisor.pid, "kill")
        settle()
        assert terminating.error.reason == "killed"
        assert not gpool.is_alive(nursery.latest["b"])
        assert nursery.latest["a"].reason == "shutdown"  # its signal was accepted before

    def test_its_exit_is_not_taken_for_a_crash(self, nursery, reports):
        """S13: the EXIT of a child that was stopped is removed."""
        supervisor = Sup.start([nursery.spec("a")])
        supervisor.terminate_child("a")
        supervisor.restart_child("a")
        settle()
        assert list(reports) == []
        assert nursery.take()[-1] == ("start", "a")

    @pytest.mark.parametrize("kind", [Sup, gpool.DynamicSupervisor])
    def test_its_exit_is_removed(self, nursery, kind):
        """S13: a subclass never sees the EXIT of a child that was stopped, other messages stay."""
        seen = []

        class Seeing(kind):
            def handle_info(self, message):
                seen.append(message)

        supervisor = Seeing.start()
        children = [supervisor.start_child(nursery.spec(id)) for id in "abc"]
        nursery.cleanups["a"] = lambda _: gpool.send(supervisor, "hello")
        supervisor.terminate_child("a" if kind is Sup else children[0].pid)
        settle()
        assert seen == ["hello"]
        supervisor.pid.mailbox.append("last")
        gpool.stop(supervisor)
        assert seen == ["hello", "last"]

    def test_leaves_no_monitor_behind(self, nursery):
        """S13: the monitors that it sets are gone when it is done."""
        supervisor = Sup.start([nursery.spec("a")])
        supervisor.terminate_child("a")
        assert supervisor.pid.monitors == {}
        assert supervisor.pid.awaiting == ()

    @pytest.mark.parametrize("shutdown", ["brutal_kill", 1, None])
    def test_a_child_that_unlinked_itself_cannot_hang_it(self, nursery, shutdown):
        """S13, child_unlink: a naughty child is stopped all the same."""

        def naughty(supervisor):
            gpool.unlink(supervisor)
            gpool.receive()

        def start():
            return gpool.spawn_link(naughty, gpool.self())

        supervisor = Sup.start([ChildSpec("a", start, shutdown=shutdown)])
        settle()
        child = supervisor.which_children()[0].child
        assert child not in supervisor.pid.links
        supervisor.terminate_child("a")
        assert not gpool.is_alive(child)

    def test_a_dead_ones_real_reason_is_seen(self, nursery, reports):
        """S13: one that died just before has its own reason reported, not noproc."""
        supervisor = Sup.start([nursery.spec("a"), nursery.spec("b")], strategy="one_for_all")
        gpool.exit(nursery.latest["a"], "first")
        gpool.exit(nursery.latest["b"], "second")
        settle()
        assert list(reports) == [
            ("child_terminated", "first", "a"),
            ("shutdown_error", "second", "b"),
        ]
        assert supervisor.count_children().active == 2


class TestStopReports:
    """S14: which ends of a stopped child are worth a report."""

    @pytest.mark.parametrize(
        ("restart", "reason", "silent"),
        [
            ("permanent", "shutdown", True),
            ("permanent", "normal", False),
            ("permanent", ("shutdown", "x"), False),
            ("permanent", "oops", False),
            ("transient", "normal", True),
            ("transient", ("shutdown", "x"), True),
            ("transient", "oops", False),
            ("temporary", "normal", True),
            ("temporary", ("shutdown", "x"), True),
            ("temporary", "oops", False),
        ],
    )
    def test_wrong_reasons(self, nursery, reports, restart, reason, silent):
        """S14: a wrong reason is a shutdown_error, and not fatal."""
        nursery.cleanups["a"] = lambda _: gpool.exit(reason)
        supervisor = Sup.start([nursery.spec("a", restart=restart, trap=True)])
        supervisor.terminate_child("a")
        assert list(reports) == ([] if silent else [("shutdown_error", reason, "a")])
        assert gpool.is_alive(supervisor)

    @pytest.mark.parametrize("dynamic", [False, True])
    def test_stop_race(self, nursery, reports, dynamic):
        """sup_stop_race, sup_stop_non_shutdown_exit_dynamic: 12 children end while it stops."""
        reasons = ["normal", "shutdown", ("shutdown", "x"), "oops"]
        kinds = ["permanent", "transient", "temporary"]
        specs = [
            nursery.spec((kind, reason), restart=kind, trap=True)
            for kind in kinds
            for reason in reasons
        ]
        if dynamic:
            supervisor = gpool.DynamicSupervisor.start(max_restarts=0)
            for spec in specs:
                supervisor.start_child(spec)
        else:
            supervisor = Sup.start(specs, max_restarts=0)
        stopping = gpool.spawn(gpool.stop, supervisor)
        for spec in specs:
            nursery.cleanups[spec.id] = lambda _, spec=spec: gpool.exit(spec.id[1])
        settle()
        assert stopping.reason == "normal"
        assert supervisor.pid.reason == "normal"
        for spec in specs:
            assert nursery.latest[spec.id].reason == spec.id[1]
        loud = {spec.id for spec in specs if spec.id[1] == "oops"}
        loud |= {("permanent", "normal"), ("permanent", ("shutdown", "x"))}
        assert {child for _, _, child in reports} == loud
        assert {context for context, _, _ in reports} == {"shutdown_error"}
