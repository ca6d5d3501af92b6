"""Whose children processes are, read without asking anybody."""

from __future__ import annotations

import pytest

import gpool
from gpool.otp.child_spec import Backoff
from gpool.testing import settle


class Worker(gpool.GenServer):
    """A server that does nothing."""


def spec(name, **options):
    """Return the specification of a worker."""
    return gpool.ChildSpec(name, Worker.start_link, **options)


def children(supervisor):
    """Return what is seen of its children."""
    return gpool.supervision(supervisor).children


class TestSupervision:
    def test_is_of_supervisors_alone(self):
        """A worker, a plain process and a dead supervisor have none."""
        supervisor = gpool.Supervisor.start([])
        assert gpool.supervision(supervisor) == gpool.Supervision("one_for_one", 0, ())
        assert gpool.supervision(Worker.start()) is None
        assert gpool.supervision(gpool.self()) is None
        gpool.stop(supervisor)
        assert gpool.supervision(supervisor.pid) is None

    def test_lists_children_in_start_order(self):
        """With id, pid, type and restart, running or not; the first ones if asked so."""
        specs = [spec("a"), spec("b", restart="transient"), spec("c", type="supervisor")]
        supervisor = gpool.Supervisor.start(specs, strategy="rest_for_one")
        supervisor.terminate_child("b")
        a, b, c = children(supervisor)
        assert [(one.id, one.type, one.restart) for one in (a, b, c)] == [
            ("a", "worker", "permanent"),
            ("b", "worker", "transient"),
            ("c", "supervisor", "permanent"),
        ]
        assert (b.pid, b.restarting, b.last_exit) == (None, False, "shutdown")
        assert {a.pid, c.pid} <= set(gpool.processes())
        seen = gpool.supervision(supervisor, limit=1)
        assert (seen.strategy, seen.count, seen.children) == ("rest_for_one", 3, (a,))

    def test_counts_restarts(self):
        """Of the one that died, and under one_for_all of those that went with it."""
        supervisor = gpool.Supervisor.start([spec("a"), spec("b")], strategy="one_for_all")
        for times in (1, 2):
            a, b = children(supervisor)
            gpool.exit(a.pid, f"boom {times}")
            settle()
            a, b = children(supervisor)
            assert [one.restarts for one in (a, b)] == [times, times]
            assert (a.last_exit, b.last_exit) == (f"boom {times}", "shutdown")
            assert gpool.is_alive(a.pid)

    def test_shows_a_child_that_waits_for_its_restart(self, clock):
        """It has no process; once the backoff is over it has one."""
        backoff = Backoff(first=2.0, maximum=2.0, jitter=0.0)
        supervisor = gpool.DynamicSupervisor.start()
        supervisor.start_child(spec("a", backoff=backoff))
        [before] = children(supervisor)
        gpool.exit(before.pid, "boom")
        settle()
        [a] = children(supervisor)
        assert (a.pid, a.restarting, a.restarts, a.last_exit) == (None, True, 0, "boom")
        clock.advance(2.0)
        [a] = children(supervisor)
        assert (a.restarting, a.restarts) == (False, 1)
        assert gpool.is_alive(a.pid)

    def test_is_read_while_the_supervisor_is_busy(self):
        """One that waits for a child to start answers nobody, but can be looked at."""
        inner = gpool.ChildSpec("slow", Slow.start_link)
        pid = gpool.spawn(gpool.Supervisor.start_link, [spec("a"), inner])
        settle()
        [supervisor] = [p for p in gpool.processes() if p.parent is pid]
        a, slow = children(supervisor)
        assert (a.restarts, slow.pid) == (0, None)


class Slow(gpool.GenServer):
    """A server whose start never ends."""

    def init(self):
        """Wait for what never comes."""
        gpool.receive(lambda message: False)


class TestSupervisorOf:
    def test_a_child(self):
        """Its supervisor, and what that knows of it."""
        supervisor = gpool.Supervisor.start([spec("a")])
        [a] = children(supervisor)
        assert gpool.supervisor_of(a.pid) is supervisor.pid
        assert gpool.place_of(a.pid) == a
        assert gpool.restarts_of(a.pid) == 0

    @pytest.mark.parametrize("how", [gpool.supervisor_of, gpool.place_of, gpool.restarts_of])
    def test_what_is_no_child(self, how):
        """A process by itself, one that a child has spawned, one that is dead: None."""
        supervisor = gpool.Supervisor.start([spec("a", restart="temporary")])
        [a] = children(supervisor)
        gpool.exit(a.pid, "kill")
        settle()
        assert how(a.pid) is None
        assert how(gpool.self()) is None
        assert how(supervisor) is None

    def test_nobody(self):
        """A name that nobody has is an error, as everywhere."""
        with pytest.raises(gpool.NoProcess):
            gpool.supervisor_of("nobody")


class Private(gpool.GenServer):
    """Tells nobody anything, not even its class."""

    def __getattribute__(self, name):
        """Fail once somebody looks."""
        if name in ("__class__", "gpool_watched"):
            raise AssertionError("was looked at")
        return super().__getattribute__(name)


class TestLooking:
    def test_asks_a_server_for_nothing(self):
        """Not even for its class, which isinstance() does: it may have written how that is told."""
        server = Private.start()
        child = server.pid
        assert gpool.supervision(child) is None
        assert gpool.supervisor_of(child) is None
        assert gpool.restarts_of(child) is None
        assert gpool.process_info(child).monitors == ()
