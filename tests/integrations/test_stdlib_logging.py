"""Events in words, for the logging module."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import gpool
from gpool import telemetry
from gpool.integrations.stdlib_logging import log
from gpool.testing import settle

PID = "#PID<7>"

SAID = [
    (telemetry.ProcessCrashed(PID, "db", "boom", "Doubler", (), (), 0), "'db' '#PID<7>' crashed"),
    (
        telemetry.ProcessCrashed(PID, None, "boom", "Doubler", (), (), 0),
        "(Doubler) crashed: 'boom'",
    ),
    (
        telemetry.SupervisorReport(PID, "start_error", "boom", "a", None),
        "child 'a' None: start error",
    ),
    (telemetry.WorkerStartFailed(PID, "db", "boom", 0.25), "next try in 0.25 s: 'boom'"),
    (telemetry.PoolHasFailed(PID, "db", "boom"), "pool 'db' has failed: 'boom'"),
    (
        telemetry.LeaseReclaimed(PID, "db", "killed", "app.py:3 in view", 1.5),
        "worker from app.py:3 in view",
    ),
    (
        telemetry.LeaseForgotten(PID, "db", "app.py:3 in view", 1.5),
        "forgot to give back the worker from app.py:3 in view, held for 1.5 s",
    ),
    (
        telemetry.HeldTooLong(PID, "db", 30.0, "app.py:3 in view", ("in view\n",), revoked=True),
        "held a worker from app.py:3 in view for 30 s; it was taken away; it is at\nin view",
    ),
    (telemetry.ResourceClosed(PID, "db", gave_up=True), "may still be open"),
    (telemetry.ReturnedLate(PID, "db", 31.0, "app.py:3 in view"), "after 31 s"),
    (telemetry.CheckoutFailed(PID, "db", "deadlock"), "would have waited for ever"),
    (telemetry.ProcessIsZombie(PID, ("line 1\n",)), "swallows its exit and runs on:\nline 1"),
    (telemetry.CleanupFailed(PID, ValueError("x")), "CleanupFailed: ValueError('x')"),
    (telemetry.ListenerFailed(PID, telemetry.Event(PID), ValueError("x")), "ListenerFailed"),
    (telemetry.HookFailed(PID, "close", ValueError("x")), "close of '#PID<7>' raised ValueError"),
    (telemetry.UnexpectedMessage(PID, "hello"), "unexpected message: 'hello'"),
]
NOTED = [
    (
        telemetry.PoolStarted(PID, "db", 5, 3),
        "pool 'db' runs: at most 8 workers in this process; each process has a pool of its own",
    ),
    (telemetry.PoolResized(PID, "db", 6, 3), "pool 'db' resized: at most 9 workers in this proc"),
]
SILENT = [
    telemetry.WorkerStarting(PID, "db"),
    telemetry.WorkerStarted(PID, "db", 0.5),
    telemetry.WorkerRecovered(PID, "db", "reset", 0.5),
    telemetry.WorkerStopping(PID, "db", "max_age"),
    telemetry.WorkerDied(PID, "db", "shutdown", None),
    telemetry.ResourceClosed(PID, "db", gave_up=False),
    telemetry.LeaseBroken(PID, "db", "killed", "app.py:3 in view", 1.5),  # its client raises
    telemetry.CheckoutFailed(PID, "db", "timeout"),  # its client raises
    telemetry.BreakerChanged(PID, "db", "open"),  # the start that failed is told
    telemetry.PoolRose(PID, "db", 1),
    telemetry.PoolReady(PID, "db", 5),
    telemetry.PoolFell(PID, "db", "killed", 1),
    telemetry.PoolSuspended(PID, "db"),
    telemetry.PoolResumed(PID, "db"),
    telemetry.PoolRecycled(PID, "db", 60.0),
    telemetry.PoolClosing(PID, "db"),
    telemetry.PoolReopened(PID, "db"),
    telemetry.PoolStopped(PID, "db", 0),
]


class TestLog:
    @pytest.mark.parametrize(("event", "words"), SAID, ids=lambda value: type(value).__name__)
    def test_words_what_somebody_should_read(
        self, event: telemetry.Event, words: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One record an event, which carries the event itself."""
        log(event)
        (record,) = caplog.records
        assert words in record.getMessage()
        assert record.levelno >= logging.WARNING
        assert vars(record)["gpool_event"] is event

    @pytest.mark.parametrize(("event", "words"), NOTED, ids=lambda value: type(value).__name__)
    def test_says_how_many_workers_there_may_be(
        self, event: telemetry.Event, words: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """At level INFO: the numbers are each process's own, not those of the whole service."""
        caplog.set_level(logging.INFO, "gpool")
        log(event)
        (record,) = caplog.records
        assert words in record.getMessage()
        assert record.levelno == logging.INFO

    @pytest.mark.parametrize("event", SILENT, ids=lambda event: type(event).__name__)
    def test_is_silent_about_the_ordinary(
        self, event: telemetry.Event, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What happens in any healthy pool is no news."""
        log(event)
        assert not caplog.records

    def test_every_event_is_either(self) -> None:
        """An event that is added has to be decided upon here."""
        decided = {
            type(event).__name__ for event in (*(event for event, _ in SAID + NOTED), *SILENT)
        }
        assert decided == {kind.__name__ for kind in telemetry.EVENTS}

    def test_shows_the_traceback_of_a_crash(self, caplog: pytest.LogCaptureFixture) -> None:
        """The report of an exception is where it was raised, not only what it was."""

        def crash() -> Any:
            raise ZeroDivisionError("here")

        telemetry.attach(log)
        try:
            gpool.spawn(crash)
            settle()
        finally:
            telemetry.detach(log)
        (record,) = caplog.records
        assert "in crash" in record.getMessage()
        assert "ZeroDivisionError: here" in record.getMessage()


class TestApplication:
    def test_attaches_it_when_it_starts(self, caplog: pytest.LogCaptureFixture) -> None:
        """DESIGN 4.13: a bare script that uses a pool sees what fails."""
        with gpool.Pool(gpool.Resource(create=lambda: 1 / 0), size=1, name="bad"):
            settle()
        assert any("pool 'bad': a worker did not start" in r.getMessage() for r in caplog.records)
