"""Errands in the observed hub, and questions to its servers."""

from __future__ import annotations

import gevent
import pytest

import gpool
from gpool.observer.node.errand import HubGone, ObserverErrand, Question, have_called, said_by
from gpool.testing import settle
from gpool.waiter import Gate
from tests.pool.workshop import Echo


class TestErrand:
    def test_is_done_in_a_greenlet_of_its_own(self):
        """It may block, and its outcome is kept."""
        gate = Gate()
        errand = ObserverErrand(gevent.get_hub(), gate.wait)
        errand.begin()
        settle()
        assert not errand.over.is_set()
        gate.open()
        settle()
        assert errand.over.is_set()

    @pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), gevent.GreenletExit()])
    def test_keeps_what_it_raises(self, error):
        """Whatever that is, it ends neither the hub nor the process."""

        def fail():
            raise error

        errand = ObserverErrand(gevent.get_hub(), fail)
        errand.begin()
        settle()
        assert errand.failure is error

    def test_leaves_no_process_behind(self):
        """Once it has ended only the memory of the dead has it."""
        before = set(gpool.processes())
        errand = ObserverErrand(gevent.get_hub(), gpool.self)
        errand.begin()
        settle()
        assert errand.outcome.initial_call == "ObserverErrand.run"
        assert set(gpool.processes()) <= before

    def test_fails_where_the_thread_has_ended(self):
        """There is nobody to do it."""
        hub = gevent.hub.Hub(default=False)
        hub.destroy(destroy_loop=True)
        errand = ObserverErrand(hub, len, "x")
        errand.begin()
        assert isinstance(errand.failure, HubGone)
        assert said_by(errand.failure) == "the thread that it ran in has ended"

    def test_tells_nobody_who_is_gone(self):
        """Whoever waited may have been stopped meanwhile, with the loop."""
        loop = gevent.get_hub().loop
        other = gevent.hub.Hub(default=False)
        gone = other.loop
        other.destroy(destroy_loop=True)
        assert not have_called(gone, len, "x")
        assert not have_called(None, len, "x")
        assert have_called(loop, len, "x")


class TestQuestion:
    def test_is_answered_by_no_process_of_ours(self):
        """The hub asks; who is busy answers when it is done."""
        gate, server = Gate(), Echo.start()
        server.work(gate)
        settle()
        before = gpool.processes()
        question = Question(server.pid)
        question.begin()
        settle()
        assert not question.over.is_set()
        assert gpool.processes() == before
        gate.open()
        settle()
        assert question.status.pid is server.pid

    def test_to_the_dead_fails(self):
        """At once."""
        server = Echo.start()
        gpool.stop(server)
        question = Question(server.pid)
        question.begin()
        settle()
        assert isinstance(question.failure, gpool.NoProcess)


class TestSaying:
    def test_why_runs_no_code_of_an_error_that_is_not_ours(self):
        """Errors of gpool word themselves, of others the arguments are told."""

        class Evil(Exception):
            __str__ = __repr__ = lambda self: 1 / 0

        assert said_by(Evil("password=x")).endswith("Evil('password=***')")
        assert "ValueError" in said_by(gpool.CallbackFailed(gpool.self(), ValueError("x")))
        assert said_by(gpool.CallbackFailed(gpool.self(), Evil("x"))).startswith("CallbackFailed(")
