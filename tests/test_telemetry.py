"""Events and who listens to them."""

from __future__ import annotations

import pytest

from gpool import telemetry
from gpool.telemetry import CleanupFailed, ListenerFailed


@pytest.fixture
def seen():
    """Collect every event while the test runs."""
    events = []
    listener = events.append
    telemetry.attach(listener)
    yield events
    telemetry.detach(listener)


EVENT = CleanupFailed("pid", ValueError("boom"))


class TestAttach:
    def test_twice_is_once(self, seen):
        """A listener hears each event once, however often it was attached."""
        telemetry.attach(seen.append)
        telemetry.emit(EVENT)
        assert seen == [EVENT]


class TestDetach:
    def test_ends_it_and_is_harmless_otherwise(self, seen):
        """A detached listener hears nothing; one that never listened can be detached."""
        telemetry.detach(print)
        telemetry.detach(seen.append)
        telemetry.emit(EVENT)
        assert seen == []


class TestEmit:
    def test_a_failing_listener_harms_nobody(self, seen):
        """What a listener raises becomes an event for the others; the emitter goes on."""
        failure = KeyError("listener")

        def bad(event):
            raise failure

        telemetry.attach(bad)
        try:
            telemetry.emit(EVENT)
        finally:
            telemetry.detach(bad)
        assert ListenerFailed(bad, EVENT, failure) in seen
        assert EVENT in seen
        assert len(seen) == 2

    def test_a_listener_may_detach_itself(self, seen):
        """The listeners of an event are those there were when it was emitted."""

        def once(event):
            telemetry.detach(once)

        telemetry.attach(once)
        telemetry.emit(EVENT)
        telemetry.emit(EVENT)
        assert seen == [EVENT, EVENT]

    def test_exit_signals_pass(self):
        """What is no Exception, a kill or a Timeout, is the emitter's own and passes."""

        def killed(event):
            raise KeyboardInterrupt

        telemetry.attach(killed)
        try:
            with pytest.raises(KeyboardInterrupt):
                telemetry.emit(EVENT)
        finally:
            telemetry.detach(killed)


class TestEvent:
    def test_cannot_be_changed(self):
        """Events are frozen: a listener cannot spoil them for the next one."""
        with pytest.raises(AttributeError):
            EVENT.process = "other"
