"""Events in words, for the logging module."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import subprocess
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.lock import RLock

import gpool
from gpool import telemetry
from gpool.integrations import stdlib_logging
from gpool.integrations.stdlib_logging import LIMIT, WINDOW, Log, install, log
from gpool.otp.pid import ENDED_KEPT
from gpool.pool.pool_man import START_BACKOFF
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.conftest import maker, own_application  # noqa: F401  # fixtures
from tests.pool.scenarios import SCENES, Stage
from tests.pool.workshop import Client, Maker, no_switch, use

PID = "#PID<7>"

SAID = [
    (telemetry.ProcessCrashed(PID, "db", "boom", "Doubler", (), (), 0), "'db' '#PID<7>' crashed"),
    (
        telemetry.ProcessCrashed(PID, None, "boom", "Doubler", (), (), 0),
        "(Doubler) crashed: 'boom'",
    ),
    (
        telemetry.SupervisorReport(PID, "start_error", "boom", "a", None),
        "child 'a' None: start error: 'boom'",
    ),
    (telemetry.WorkerStartFailed(PID, "db", "boom", 0.25), "next try in 250 ms: 'boom'"),
    (
        telemetry.WorkerStartFailed(PID, "db", ("start_timeout", 3.0), 1234.0),
        "next try in 1234 s: one took longer than start_timeout, 3 s",
    ),
    (
        telemetry.WorkerStartFailed(PID, "db", gpool.Error(OSError("no route\n\tto host")), 0.5),
        "next try in 500 ms: OSError: no route to host",
    ),
    (telemetry.PoolHasFailed(PID, "db", "boom"), "pool 'db' has failed: 'boom'"),
    (
        telemetry.PoolHasFailed(PID, "db", ("start_failures", gpool.Error(OSError("down")))),
        "pool 'db' has failed: its starts fail, the last one by OSError: down; it will be revived",
    ),
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
    (telemetry.CleanupFailed(PID, ValueError("x")), "'#PID<7>': its cleanup failed: ValueError: x"),
    (
        telemetry.ListenerFailed(print, telemetry.Event(PID), ValueError("x")),
        "listener <built-in function print> failed: ValueError: x",
    ),
    (
        telemetry.HookFailed(PID, "close", ValueError("x")),
        "close of '#PID<7>' raised ValueError: x",
    ),
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


AREAS = {
    "process": (
        telemetry.ProcessCrashed, telemetry.CleanupFailed, telemetry.ProcessIsZombie,
        telemetry.UnexpectedMessage,
    ),
    "supervisor": (telemetry.SupervisorReport,),
    "telemetry": (telemetry.ListenerFailed,),
    "pool": (telemetry.HookFailed, telemetry.PoolEvent),
}  # fmt: skip


class Doubler(gpool.GenServer):
    """A server that can be asked for too much."""

    @gpool.call
    def compute(self, n: int) -> float:
        """Divide."""
        return 1 / n


@pytest.fixture(autouse=True)
def fresh() -> Iterator[Log]:
    """Begin with nothing written, and leave nothing to be."""
    fresh = Log()
    before = install(fresh)
    yield fresh
    fresh._forget()
    telemetry.detach(log)
    install(before)


@pytest.fixture
def attached(fresh: Log) -> Log:
    """Listen, as the Application has it."""
    telemetry.attach(log)
    return fresh


@pytest.fixture
def stage(clock: VirtualClock, maker: Maker) -> Stage:  # noqa: F811
    """Where scenes are played."""
    return Stage(clock, maker)


@pytest.fixture
def server() -> Iterator[gpool.Supervisor]:
    """A supervisor of one server, which may crash as often as it likes."""
    supervisor = gpool.Supervisor.start(
        [gpool.ChildSpec("doubler", Doubler.start_link)], max_restarts=1000
    )
    yield supervisor
    if supervisor.pid.state != "dead":
        gpool.stop(supervisor)


def kinds_of(base: type[telemetry.Event]) -> Iterator[type[telemetry.Event]]:
    """Yield the events below one that the package declares: not those of tests."""
    for kind in base.__subclasses__():
        if kind.__module__ == telemetry.__name__:
            yield kind
        yield from kinds_of(kind)


def crash(supervisor: gpool.Supervisor, reason: Any = "boom") -> gpool.Pid:
    """Have its child crash; return who that was."""
    (child,) = supervisor.which_children()
    pid: gpool.Pid = child.child
    gpool.exit(pid, reason)
    settle()
    return pid


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged."""
    settle()
    return [record.getMessage() for record in caplog.records]


def about(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """Return the plain data of the one record that was logged."""
    settle()
    (record,) = caplog.records
    found: dict[str, Any] = vars(record)["gpool"]
    return found


class TestLog:
    @pytest.mark.parametrize(("event", "words"), SAID, ids=lambda value: type(value).__name__)
    def test_words_what_somebody_should_read(
        self, event: telemetry.Event, words: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One record an event, to the logger of its area, with plain data."""
        log(event)
        settle()
        (record,) = caplog.records
        assert words in record.getMessage()
        assert record.levelno >= logging.WARNING
        area = next(area for area, kinds in AREAS.items() if isinstance(event, kinds))
        assert record.name == f"gpool.{area}"
        facts = vars(record)["gpool"]
        assert facts["event"] == type(event).__name__
        assert facts["pid"]
        assert json.loads(json.dumps(facts)) == facts

    @pytest.mark.parametrize(("event", "words"), NOTED, ids=lambda value: type(value).__name__)
    def test_says_how_many_workers_there_may_be(
        self, event: telemetry.Event, words: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """At level INFO: the numbers are each process's own, not those of the whole service."""
        caplog.set_level(logging.INFO, "gpool")
        log(event)
        settle()
        (record,) = caplog.records
        assert words in record.getMessage()
        assert record.levelno == logging.INFO

    @pytest.mark.parametrize("event", SILENT, ids=lambda event: type(event).__name__)
    def test_is_silent_about_the_ordinary(
        self, event: telemetry.Event, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What happens in any healthy pool is no news."""
        log(event)
        assert said(caplog) == []

    def test_every_event_is_either(self) -> None:
        """An event that is added has to be decided upon here."""
        decided = {
            type(event).__name__ for event in (*(event for event, _ in SAID + NOTED), *SILENT)
        }
        assert decided == {kind.__name__ for kind in telemetry.EVENTS}
        assert decided == {kind.__name__ for kind in kinds_of(telemetry.Event)} - {"PoolEvent"}

    def test_obeys_levels(self, caplog: pytest.LogCaptureFixture) -> None:
        """Of gpool, and of one area."""
        logging.getLogger("gpool.pool").setLevel(logging.CRITICAL)
        try:
            log(telemetry.PoolHasFailed(PID, "db", "boom"))
            log(telemetry.UnexpectedMessage(PID, "hello"))
            assert len(said(caplog)) == 1
        finally:
            logging.getLogger("gpool.pool").setLevel(logging.NOTSET)

    def test_words_the_like_alike(self, caplog: pytest.LogCaptureFixture) -> None:
        """The text has placeholders: what collects records can group them."""
        log(telemetry.PoolHasFailed(PID, "db", "boom"))
        settle()
        (record,) = caplog.records
        assert record.msg == "pool %r has failed: %s; it will be revived"

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [
            (0.0, "at once"), (0.0004, "at once"), (0.0005001, "in 1 ms"), (0.00744, "in 7 ms"),
            (0.9994, "in 999 ms"), (0.9996, "in 1 s"), (1.04, "in 1 s"), (3.98, "in 4 s"),
            (9.96, "in 10 s"), (71.9, "in 72 s"), (1234.0, "in 1234 s"),
        ],
    )  # fmt: skip
    def test_says_a_time_as_somebody_would(
        self, seconds: float, words: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No more digits than matter; the record's data have all of them."""
        log(telemetry.WorkerStartFailed(PID, "db", "boom", seconds))
        assert f", next try {words}: 'boom'" in said(caplog)[0]
        assert about(caplog)["delay"] == seconds

    def test_says_of_a_moment_that_it_was_short(self, caplog: pytest.LogCaptureFixture) -> None:
        """Nothing is held for 0 s."""
        log(telemetry.ReturnedLate(PID, "db", 0.0001, "app.py:3 in view"))
        assert said(caplog)[0].endswith(" after less than 1 ms")

    def test_survives_a_bad_repr(self, caplog: pytest.LogCaptureFixture) -> None:
        """What is logged may be anything."""

        class Bad:
            def __repr__(self) -> str:
                raise ValueError("no words")

        log(telemetry.UnexpectedMessage(PID, Bad()))
        assert "whose repr fails" in said(caplog)[0]

    def test_cuts_what_is_too_long(self, caplog: pytest.LogCaptureFixture) -> None:
        """A message may be as large as memory."""
        log(telemetry.UnexpectedMessage(PID, "x" * 10**6))
        assert len(said(caplog)[0]) < 1100


class TestCrashes:
    def test_show_the_traceback(self, caplog: pytest.LogCaptureFixture, attached: Log) -> None:
        """The report of an exception is where it was raised, not only what it was."""

        def crash() -> Any:
            raise ZeroDivisionError("here")

        gpool.spawn(crash)
        settle()
        (record,) = caplog.records
        assert record.getMessage().endswith("crashed: ZeroDivisionError: here")
        assert record.exc_info is not None
        assert record.exc_info[0] is ZeroDivisionError
        formatted = logging.Formatter("%(message)s").format(record)
        assert formatted.count("Traceback") == 1
        assert "in crash" in formatted
        assert vars(record)["gpool"]["traceback"] in formatted

    def test_are_told_once(
        self, caplog: pytest.LogCaptureFixture, attached: Log, server: gpool.Supervisor,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        """Not by the supervisor, too, nor by gevent's hub; with the place in the tree."""
        pid = crash(server, ValueError("boom"))
        assert len(said(caplog)) == 1
        assert about(caplog) == {
            "event": "ProcessCrashed", "pid": repr(pid), "name": None, "initial_call": "Doubler",
            "supervisor": repr(server.pid), "child": "doubler", "restarts": 0, "unread": 0,
            "reason": "ValueError: boom", "error": "ValueError",
        }  # fmt: skip
        caplog.clear()
        crash(server)
        assert about(caplog)["restarts"] == 1
        assert capfd.readouterr().err == ""

    def test_of_a_pools_worker_name_the_pool(
        self, caplog: pytest.LogCaptureFixture, attached: Log
    ) -> None:
        """And nobody else tells of it."""
        with gpool.Pool(Doubler, size=1, name="doublers") as pool:
            with pytest.raises(gpool.ServerExited):
                pool.call(Doubler.compute, 0)
            settle()
            facts = about(caplog)
        assert facts["pool"] == "doublers"
        assert facts["child"] == "worker"
        assert facts["error"] == "ZeroDivisionError"
        assert len(said(caplog)) == 1

    @pytest.mark.usefixtures("own_application")
    @pytest.mark.parametrize("victim", ["pool_man", "worker_sup"])
    def test_of_a_pools_own_processes_are_told_once(
        self, caplog: pytest.LogCaptureFixture, attached: Log, victim: str
    ) -> None:
        """One fall, one record; those that it takes along by a link have none."""
        with gpool.Pool(Doubler, size=3, name="doublers") as pool:
            pool.wait_ready()
            gpool.exit(getattr(pool.tree(), victim), "kill")
            settle()
            assert about(caplog)["child"] == victim
            assert about(caplog)["pool"] == "doublers"

    @pytest.mark.parametrize("count", [1, 1000])
    def test_in_one_turn_are_told_once_however_many(
        self, caplog: pytest.LogCaptureFixture, attached: Log, count: int
    ) -> None:
        """Their supervisor hears of them when all are dead, and has nothing to add."""
        specs = [
            gpool.ChildSpec(number, Doubler.start_link, restart="temporary")
            for number in range(count)
        ]
        supervisor = gpool.Supervisor.start(specs)
        for child in supervisor.which_children():
            gpool.exit(child.child, "boom")
        settle()
        assert len(said(caplog)) == count
        assert {record.name for record in caplog.records} == {"gpool.process"}
        assert len(attached._told) == 0  # reported: nothing is left to be remembered
        gpool.stop(supervisor)

    def test_that_are_told_keep_no_process_alive(self, attached: Log) -> None:
        """Of those that nobody supervises no report will come; they are remembered by others."""

        def crash() -> Any:
            raise ZeroDivisionError

        refs = [weakref.ref(gpool.spawn(crash)) for _ in range(2 * ENDED_KEPT)]
        settle()
        gc.collect()
        assert sum(ref() is not None for ref in refs) <= ENDED_KEPT
        assert len(attached._told) <= ENDED_KEPT

    def test_that_take_many_along_are_one(
        self, caplog: pytest.LogCaptureFixture, attached: Log
    ) -> None:
        """A supervisor that is killed, and a thousand children by that."""
        specs = [gpool.ChildSpec(number, Doubler.start_link) for number in range(1000)]
        supervisor = gpool.Supervisor.start(specs)
        pid = supervisor.pid
        gpool.exit(supervisor, "kill")
        settle()
        assert about(caplog)["pid"] == repr(pid)
        assert len(attached._doomed) == 0

    def test_take_those_along_that_are_linked(
        self, caplog: pytest.LogCaptureFixture, attached: Log
    ) -> None:
        """A chain of links dies of one error: who raised it is told of."""
        chain: list[gpool.Pid] = []

        def link(length: int) -> None:
            if not length:
                raise ZeroDivisionError("here")
            chain.append(gpool.spawn_link(link, length - 1))
            gpool.receive()

        gpool.spawn(link, 3)
        settle()
        assert len(chain) == 3
        assert about(caplog)["pid"] == repr(chain[-1])

    def test_that_only_look_alike_are_told_of_each(
        self, caplog: pytest.LogCaptureFixture, attached: Log, server: gpool.Supervisor
    ) -> None:
        """A supervisor that is killed after its child, which had not taken it along."""
        crash(server, "kill")
        supervisor, stranger = server.pid, gpool.spawn(gevent.sleep, 60)
        for pid in (supervisor, stranger):
            gpool.exit(pid, "kill")
            settle()
        told = [vars(record)["gpool"]["pid"] for record in caplog.records]
        assert told[1:] == [repr(supervisor), repr(stranger)]
        assert len(told) == 3

    def test_to_kill_a_plain_greenlet_is_none(
        self,
        caplog: pytest.LogCaptureFixture,
        attached: Log,
        unnoticed_deaths: list[BaseException],
    ) -> None:
        """So does gevent: nothing is said of it; an error in one is told."""
        greenlets = [gevent.spawn(gpool.receive) for _ in range(2)]
        settle()
        greenlets[0].kill()
        greenlets[1].kill(ValueError("no"))
        settle()
        (record,) = caplog.records
        assert "ValueError: no" in record.getMessage()
        unnoticed_deaths.clear()

    def test_that_spend_the_intensity_are_told_of_as_well(
        self, caplog: pytest.LogCaptureFixture, attached: Log
    ) -> None:
        """That a supervisor gives up is more than the death."""
        supervisor = gpool.Supervisor.start(
            [gpool.ChildSpec("doubler", Doubler.start_link)], max_restarts=0
        )
        pid = supervisor.pid
        crash(supervisor)
        first, second = said(caplog)
        assert "crashed: 'boom'" in first
        assert "shutdown: 'reached_max_restart_intensity'" in second
        assert vars(caplog.records[1])["gpool"]["supervisor"] == repr(pid)
        assert {record.name for record in caplog.records} == {"gpool.process", "gpool.supervisor"}

    def test_that_nobody_has_told_are_reported(
        self, caplog: pytest.LogCaptureFixture, attached: Log, server: gpool.Supervisor
    ) -> None:
        """A child that should go on for ever and ends is no crash, and is told."""
        crash(server, "normal")
        crash(server, "shutdown")
        assert "child terminated: 'shutdown'" in said(caplog)[-1]


DOWN = ConnectionError("down")


class TestOutage:
    def outage(self, stage: Stage, seconds: float, *, error: Exception = DOWN) -> None:
        """Have all starts fail for some seconds, which one that has died needs; then none."""
        stage.maker.creates.extend([error] * 1000)
        with contextlib.suppress(gpool.CheckoutTimeout):
            gpool.get_pool("db").checkout(0).discard()
        stage.clock.advance(seconds)
        stage.maker.creates.clear()
        stage.clock.advance(START_BACKOFF.maximum)

    def test_has_a_beginning_and_an_end(
        self, caplog: pytest.LogCaptureFixture, attached: Log, stage: Stage
    ) -> None:
        """What many clients and workers see is two lines; the last one says that it is over."""
        pool = stage.pool(name="db", size=8)
        stage.maker.creates.extend([DOWN] * 10)
        leases = [pool.checkout() for _ in range(8)]
        for lease in leases:
            lease.discard()
        stage.clock.advance(60.0 - 0.1)
        first, last = said(caplog)
        assert first.startswith("pool 'db': a worker did not start, next try in ")
        assert first.endswith(" ms: ConnectionError: down")
        assert last.startswith("pool 'db': workers start again after ")
        assert last.endswith("s, 10 failed")
        assert {record.levelno for record in caplog.records} == {logging.WARNING}
        facts = vars(caplog.records[-1])["gpool"]
        assert (facts["event"], facts["pool"], facts["failed"]) == ("WorkerStarted", "db", 10)
        stage.clock.advance(10 * WINDOW)
        assert len(said(caplog)) == 2

    @pytest.mark.parametrize("size", [1, 3])
    @pytest.mark.usefixtures("own_application")
    def test_from_the_start_of_a_pool_on_has_one_beginning(
        self, caplog: pytest.LogCaptureFixture, attached: Log, stage: Stage, size: int
    ) -> None:
        """Though its processes, and those above, are not in the tree yet when the first fail."""
        failed = [DOWN, TimeoutError("slow"), ConnectionError("up, but full")] * 4
        stage.maker.creates.extend(failed)
        stage.pool(name="db", size=size)
        assert len(said(caplog)) == 1
        stage.clock.advance(WINDOW - 1.0)
        first, last = said(caplog)
        assert first.endswith("ConnectionError: down")
        assert last.endswith(f"{len(failed)} failed")

    def test_that_is_long_is_told_of_meanwhile(
        self, caplog: pytest.LogCaptureFixture, attached: Log, stage: Stage
    ) -> None:
        """Once in a window, and no other line; the end counts all of them."""
        stage.pool(name="db", size=1)
        self.outage(stage, 2.5 * WINDOW)
        first, *before, last = said(caplog)
        assert first.startswith("pool 'db': a worker did not start")
        assert len(before) == 2
        assert sum(" more in 60 s: pool 'db': a worker did not start" in one for one in before) == 2
        failed = gpool.get_pool("db").stats().start_failures
        assert last.endswith(f" s, {failed} failed")
        stage.clock.advance(WINDOW)
        assert said(caplog) == [first, *before, last]

    def test_that_comes_next_has_both_as_well(
        self, caplog: pytest.LogCaptureFixture, attached: Log, stage: Stage
    ) -> None:
        """In the same window: the limit has not eaten its beginning, or its end."""
        stage.pool(name="db", size=1)
        for _ in range(2):
            self.outage(stage, 1.0)
        assert ["start again" in one for one in said(caplog)] == [False, True, False, True]

    def test_one_after_the_other_is_limited(
        self, caplog: pytest.LogCaptureFixture, attached: Log, stage: Stage
    ) -> None:
        """Every second start fails: that is a flood, and told as one; its end is the last line."""
        pool = stage.pool(name="db", size=1)
        for _ in range(20):
            stage.maker.creates.append(DOWN)
            pool.checkout().discard()
            stage.clock.advance(START_BACKOFF.first)
        assert len(said(caplog)) == 2 * LIMIT + 1  # the beginning of the sixth, too
        stage.clock.advance(2 * WINDOW)
        assert len(said(caplog)) == 2 * LIMIT + 2
        assert said(caplog)[-1].startswith("15 more in 60 s: pool 'db': workers start again after")

    def test_counts_failed_checks_before_its_end(
        self, caplog: pytest.LogCaptureFixture, attached: Log, stage: Stage
    ) -> None:
        """A server's end is seen by many checks: one of them is told."""
        gate = Gate()

        def fail() -> None:
            gate.wait()
            raise DOWN

        pool = stage.pool(name="db", size=5, hooks={"check": stage.maker.check}, check_after=0.0)
        stage.maker.checks.extend([fail] * 5)
        stage.maker.creates.extend([DOWN] * 6)
        for _ in range(5):
            Client(use, pool)
        settle()
        gate.open()
        stage.clock.advance(10.0)
        told = said(caplog)
        assert ["check of" in one for one in told] == [True, False, True, False]
        assert told[2].startswith("4 more in ")
        assert told[3].endswith("s, 6 failed")

    def test_that_a_check_sees_is_one_line(
        self, caplog: pytest.LogCaptureFixture, attached: Log, stage: Stage
    ) -> None:
        """That a server has closed an idle connection is routine; the data have the traceback."""
        pool = stage.pool(name="db", size=1, hooks={"check": stage.maker.check}, check_after=0.0)
        stage.maker.checks.append(ConnectionError("closed\nby its server"))
        pool.checkout().checkin()
        settle()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        text = logging.Formatter("%(message)s").format(record)
        assert text.endswith("raised ConnectionError: closed by its server; its resource is closed")
        assert text.startswith("check of #PID<")
        assert "\n" not in text
        facts = vars(record)["gpool"]
        assert facts["traceback"].startswith("Traceback")
        assert (facts["event"], facts["hook"], facts["pool"]) == ("HookFailed", "check", "db")

    @pytest.mark.parametrize("hook", ["reset", "close", "is_dirty or is_broken"])
    def test_is_no_excuse_for_other_hooks(
        self, caplog: pytest.LogCaptureFixture, hook: str
    ) -> None:
        """They have to go well, or to say what is wrong: an error, with its traceback."""
        try:
            raise ValueError("here")
        except ValueError as error:
            log(telemetry.HookFailed(PID, hook, error))
        settle()
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        text = logging.Formatter("%(message)s").format(record)
        assert text.count("Traceback") == 1
        assert vars(record)["gpool"]["traceback"] in text

    def test_of_a_pool_that_was_stopped_has_no_end(
        self, caplog: pytest.LogCaptureFixture, attached: Log, stage: Stage
    ) -> None:
        """One of the same name that is started later has not failed."""
        stage.maker.creates.append(DOWN)
        stage.pool(name="db", size=1).stop()
        stage.pool(name="db", size=1)
        assert ["start again" in one for one in said(caplog)] == [False]


class TestLimit:
    def test_of_a_crash_loop(
        self, caplog: pytest.LogCaptureFixture, attached: Log, clock: VirtualClock,
        server: gpool.Supervisor,
    ) -> None:  # fmt: skip
        """The first few, then how many more there were, then the same again."""
        for _ in range(LIMIT + 7):
            crash(server)
        assert len(said(caplog)) == LIMIT
        clock.advance(WINDOW)
        *_, last = said(caplog)
        assert len(caplog.records) == LIMIT + 1
        assert last.startswith("7 more in 60 s: #PID<")
        assert last.endswith("(Doubler) crashed: 'boom'")
        record = caplog.records[-1]
        assert record.levelno == logging.ERROR
        assert vars(record)["gpool"]["left_out"] == 7
        assert vars(record)["gpool"]["child"] == "doubler"
        caplog.clear()
        crash(server)
        clock.advance(WINDOW)
        assert len(said(caplog)) == 1

    def test_is_of_each_child_and_each_error(
        self, caplog: pytest.LogCaptureFixture, attached: Log, clock: VirtualClock,
        server: gpool.Supervisor,
    ) -> None:  # fmt: skip
        """A flood of one does not hide another."""
        for _ in range(LIMIT + 1):
            crash(server, ValueError("a"))
        crash(server, TypeError("b"))
        gpool.spawn(gpool.exit, "c")
        assert len(said(caplog)) == LIMIT + 2

    @pytest.mark.parametrize(
        "make",
        [
            lambda text: telemetry.UnexpectedMessage(PID, text),
            lambda text: telemetry.ProcessCrashed(PID, None, text, "Doubler", (), (), 0),
            lambda text: telemetry.LeaseReclaimed(PID, "db", text, "app.py:3 in view", 1.5),
            lambda text: telemetry.PoolHasFailed(PID, "db", text),
            lambda text: telemetry.SupervisorReport(PID, "start_error", text, "a", None),
        ],
        ids=["message", "crash", "lease", "pool", "child"],
    )
    def test_is_the_same_whatever_a_text_says(
        self, make: Callable[[str], telemetry.Event], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A request's number in a reason, or a stray message, makes no other kind of error."""
        for number in range(100):
            log(make(f"request {number}"))
        assert len(said(caplog)) == LIMIT

    def test_is_of_each_word_that_gpool_has_for_a_death(
        self, caplog: pytest.LogCaptureFixture, attached: Log, server: gpool.Supervisor
    ) -> None:
        """To be killed is another matter than to end, or than a reason of one's own."""
        for reason in ("kill", "shutdown", "boom", "bang"):
            for _ in range(LIMIT):
                crash(server, reason)
        assert len(said(caplog)) == 3 * LIMIT

    def test_of_starts_that_fail(
        self, caplog: pytest.LogCaptureFixture, attached: Log, stage: Stage
    ) -> None:
        """An outage is told of, not each attempt."""
        stage.maker.creates.extend([ConnectionError("down")] * 1000)
        stage.pool(name="db")
        stage.clock.advance(WINDOW * 2.5)
        told = said(caplog)
        assert sum("more in 60 s: pool 'db': a worker did not start" in one for one in told) == 2
        assert len(told) == 3

    def test_can_be_chosen(
        self, caplog: pytest.LogCaptureFixture, attached: Log, clock: VirtualClock,
        server: gpool.Supervisor,
    ) -> None:  # fmt: skip
        """By a Log of one's own, in the place of gpool's."""
        own = Log(limit=1, window=10.0)
        assert install(own) is attached
        crash(server)
        crash(server)
        clock.advance(10.0)
        assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
        assert said(caplog)[1].startswith("1 more in 10 s")

    def test_can_be_none(
        self, caplog: pytest.LogCaptureFixture, attached: Log, server: gpool.Supervisor
    ) -> None:
        """All are written."""
        install(Log(limit=None))
        for _ in range(LIMIT * 3):
            crash(server)
        assert len(said(caplog)) == LIMIT * 3

    def test_windows_do_not_pile_up(self, fresh: Log, clock: VirtualClock) -> None:
        """Those that are over are forgotten."""
        for number in range(3 * stdlib_logging.OPEN):
            log(telemetry.PoolHasFailed(PID, f"pool-{number}", "boom"))
            clock.advance(WINDOW / 10)
            assert len(fresh._windows) <= 10

    def test_of_more_kinds_than_anybody_reads_counts_the_others(
        self, fresh: Log, clock: VirtualClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Together, in one window, which is said once; it counts them at the gravest's level."""
        for number in range(stdlib_logging.OPEN):
            log(telemetry.HeldTooLong(PID, f"pool-{number}", 1.0, "x", (), revoked=False))
        settle()
        caplog.clear()
        for number in range(30):
            log(telemetry.HeldTooLong(PID, f"other-{number}", 1.0, "x", (), revoked=False))
        log(telemetry.PoolHasFailed(PID, "db", ValueError("boom")))
        log(telemetry.HeldTooLong(PID, "last", 1.0, "x", (), revoked=False))
        assert len(fresh._windows) == stdlib_logging.OPEN + 1
        (first,) = said(caplog)
        assert first.startswith("more than 1024 kinds of events in ")
        assert "others are only counted: pool 'other-0': " in first
        clock.advance(WINDOW)
        last = caplog.records[-1]
        assert len(caplog.records) == 2
        assert last.getMessage().startswith("31 others in ")
        assert "one of them: pool 'db' has failed: ValueError: boom" in last.getMessage()
        assert last.levelno == logging.ERROR
        assert vars(last)["gpool"]["left_out"] == 31
        log(telemetry.HeldTooLong(PID, "another", 1.0, "x", (), revoked=False))
        assert len(fresh._windows) == 1
        assert said(caplog)[-1].startswith("pool 'another'")

    def test_of_more_kinds_than_that_costs_as_much_for_each(self, fresh: Log) -> None:
        """The listener does not look through all windows at each event: it runs in the hub."""

        class Counting(OrderedDict[Any, Any]):
            looked_at = 0

            def items(self) -> Any:
                for item in super().items():
                    self.looked_at += 1
                    yield item

        fresh._windows = windows = Counting()
        for number in range(3 * stdlib_logging.OPEN):
            log(telemetry.PoolHasFailed(PID, f"pool-{number}", "boom"))
        assert windows.looked_at <= 3 * stdlib_logging.OPEN

    def test_keeps_no_error_alive_for_its_count(self, fresh: Log) -> None:
        """What was left out is kept as text until its number is said."""

        class Boom(Exception):
            pass

        def fail() -> weakref.ref[Boom]:
            error = Boom()
            reason = gpool.Error(error)
            log(telemetry.ProcessCrashed(PID, None, reason, "Doubler", (), (), 0))
            settle()
            return weakref.ref(error)

        kept = [fail() for _ in range(LIMIT + 3)]
        gc.collect()
        assert [ref() for ref in kept[LIMIT:]] == [None] * 3
        assert [window.left_out for window in fresh._windows.values()] == [3]

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            ({"limit": -1}, ValueError), ({"limit": 1.5}, TypeError), ({"limit": True}, TypeError),
            ({"window": 0}, ValueError), ({"window": "60"}, TypeError),
            ({"window": None}, ValueError),
        ],
    )  # fmt: skip
    def test_of_bad_input_is_refused(self, bad: dict[str, Any], error: type[Exception]) -> None:
        """Expected, and got."""
        with pytest.raises(error, match=r"expected .*, got"):
            Log(**bad)

    def test_what_is_installed_is_a_log(self) -> None:
        """A function is none."""
        bad: Any = print
        with pytest.raises(TypeError, match="expected a Log"):
            install(bad)


class Blocking(logging.Handler):
    """A handler as those that write to a network: it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Wait, then write."""
        self.gate.wait(None)
        self.written.append(record.getMessage())


class TestNoSwitch:
    @pytest.fixture
    def handler(self) -> Iterator[Blocking]:
        """A handler that blocks until its gate is open."""
        handler = Blocking()
        handler.lock = RLock()  # type: ignore[assignment]  # its own is for threads, if not patched
        logging.getLogger("gpool").addHandler(handler)
        yield handler
        handler.gate.open()
        settle()
        logging.getLogger("gpool").removeHandler(handler)

    @pytest.mark.parametrize(
        "event", [event for event, _ in SAID + NOTED], ids=lambda event: type(event).__name__
    )
    def test_whatever_is_told(self, event: telemetry.Event, handler: Blocking, fresh: Log) -> None:
        """A handler that blocks holds up its own greenlet only."""
        log(event)
        settle()
        with no_switch():
            for _ in range(3 * LIMIT):
                log(event)
        handler.gate.open()

    def test_a_pool_goes_on(self, handler: Blocking, attached: Log) -> None:
        """Its manager, too, which tells of the pool's events."""
        with gpool.Pool(Doubler, size=1, name="doublers") as pool:
            for _ in range(3):
                with pytest.raises(gpool.ServerExited):
                    pool.call(Doubler.compute, 0)
            assert pool.call(Doubler.compute, 1) == 1
            assert handler.written == []
            handler.gate.open()
            settle()
            assert len(handler.written) == 3


class TestWriting:
    def test_is_in_the_context_of_who_emitted(self, caplog: pytest.LogCaptureFixture) -> None:
        """A filter that adds a request's id finds the right one."""
        import contextvars

        request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
        seen: list[str] = []
        logger = logging.getLogger("gpool.pool")
        keep = lambda record: bool(seen.append(request.get("none"))) or True  # noqa: E731
        logger.addFilter(keep)
        try:
            request.set("r1")
            log(telemetry.PoolHasFailed(PID, "db", "boom"))
            request.set("r2")
            settle()
        finally:
            logger.removeFilter(keep)
        assert seen == ["r1"]

    def test_of_a_filter_that_fails_goes_on(
        self, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is shown, as ``logging`` shows what a handler raises."""
        logger = logging.getLogger("gpool.pool")
        fail = lambda record: 1 / 0  # noqa: E731
        logger.addFilter(fail)
        try:
            log(telemetry.PoolHasFailed(PID, "db", "boom"))
            settle()
        finally:
            logger.removeFilter(fail)
        log(telemetry.PoolHasFailed(PID, "db", "boom"))
        assert len(said(caplog)) == 1
        assert "ZeroDivisionError" in capsys.readouterr().err

    @pytest.mark.usefixtures("own_application")
    @pytest.mark.parametrize("name", SCENES)
    def test_whatever_happens_is_plain_data(
        self, name: str, stage: Stage, caplog: pytest.LogCaptureFixture, attached: Log
    ) -> None:
        """Of real events, too."""
        SCENES[name].play(stage)
        settle()
        for record in caplog.records:
            facts = vars(record)["gpool"]
            assert json.loads(json.dumps(facts)) == facts


SCRIPT = """
import gevent, gpool
def crash(): raise ValueError("here")
def main():
    gpool.Pool(gpool.Resource(create=list), size=1, name="db").start()
    for _ in range({times}):
        gpool.spawn(crash).runner().join()
main()
"""


class TestBareScript:
    def run(self, code: str) -> str:
        """Return what it writes to stderr."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True, text=True, timeout=25, check=True,
        )  # fmt: skip
        assert done.stdout == ""
        return done.stderr

    @pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()\n"])
    def test_sees_a_crash_that_is_its_last_moment(self, patch: str) -> None:
        """Without any configuration, with the traceback, once."""
        stderr = self.run(patch + SCRIPT.format(times=1))
        assert stderr.count("ValueError: here") == 2  # in the line, and below the traceback
        assert stderr.count("Traceback") == 1
        assert stderr.startswith("#PID<")

    def test_sees_how_many_were_left_out(self) -> None:
        """At its end, if the window is not over."""
        stderr = self.run(SCRIPT.format(times=9))
        assert stderr.count("Traceback") == LIMIT
        assert stderr.splitlines()[-1].startswith("4 more in ")

    def test_that_spawns_by_gevent_sees_its_traceback_as_well(self) -> None:
        """A greenlet that gpool has not started is gevent's to tell of; gpool does not hush it."""
        spawns = {"gevent.spawn(use)": 2, "gpool.spawn(use).runner()": 1}
        for spawn, tracebacks in spawns.items():
            stderr = self.run(
                "import gevent, gpool\n"
                "pool = gpool.Pool(gpool.Resource(create=list), size=1, name='db')\n"
                "pool.start()\n"
                "def use():\n"
                "    with pool.checkout(): 1 / 0\n"
                f"{spawn}.join()\n"
                "gevent.idle()\n"  # gevent tells of its greenlets' ends a moment later
            )
            assert stderr.count("Traceback") == tracebacks
            assert stderr.count("crashed: ZeroDivisionError") == 1

    def test_that_catches_no_timeout_sees_what_it_died_of(self) -> None:
        """What a client is told by an exception is logged only if that ends the client."""
        stderr = self.run(
            "import contextlib, gevent, gpool\n"
            "pool = gpool.Pool(gpool.Resource(create=list), size=1, name='db')\n"
            "pool.start()\n"
            "lease = pool.checkout()\n"
            "def caught():\n"
            "    with contextlib.suppress(gpool.CheckoutTimeout): pool.checkout(0)\n"
            "for use in (caught, lambda: pool.checkout(0)):\n"
            "    gpool.spawn(use).runner().join()\n"
            "lease.checkin()\n"
        )
        assert stderr.count("crashed: CheckoutTimeout: pool 'db'") == 1
        assert "(caught)" not in stderr

    def test_without_a_pool_sees_nothing_until_it_attaches_the_log(self) -> None:
        """A kit alone is silent: gpool logs nothing by itself."""
        attach = "gpool.telemetry.attach(gpool.integrations.stdlib_logging.log)\n"
        for line, tracebacks in (("", 0), (attach, 1)):
            stderr = self.run(f"import gpool\n{line}gpool.spawn(lambda: 1 / 0).runner().join()\n")
            assert stderr.count("Traceback") == tracebacks

    def test_writes_before_its_handlers_end(self) -> None:
        """Those that were set up before the first record, as of a client that sends at exit."""
        stderr = self.run(
            "import atexit, logging, gpool, sys\n"
            "from gpool import telemetry\n"
            "from gpool.integrations.stdlib_logging import log\n"
            "class Sending(logging.Handler):\n"
            "    kept = []\n"
            "    def emit(self, record): self.kept.append(record.getMessage())\n"
            "    def send(self): print('sent', self.kept, file=sys.stderr)\n"
            "handler = Sending()\n"
            "logging.getLogger('gpool').addHandler(handler)\n"
            "atexit.register(handler.send)\n"
            "log(telemetry.PoolHasFailed(None, 'db', 'boom'))\n"
        )
        assert "sent [\"pool 'db' has failed: 'boom'; it will be revived\"]" in stderr

    def test_told_to_end_writes_its_last_moment(self) -> None:
        """By SIGTERM, which ends ``gpool.run``."""
        stderr = self.run(
            "import os, signal, gevent, gpool\n"
            "def serve():\n"
            "    os.kill(os.getpid(), signal.SIGTERM)\n"
            "    try: gevent.sleep(60)\n"
            "    finally: gpool.spawn(lambda: 1 / 0).runner().join()\n"
            "gpool.Pool(gpool.Resource(create=list), size=1, name='db').start()\n"
            "gpool.run(serve, drain=0)\n"
        )
        assert stderr.count("Traceback") == 1
        assert "crashed: ZeroDivisionError" in stderr

    def test_told_to_end_by_gunicorn_writes_its_last_moment(self, tmp_path: Path) -> None:
        """A worker that gets SIGTERM, of a gunicorn that does."""
        pytest.importorskip("gunicorn")
        (tmp_path / "gunicorn.conf.py").write_text(
            "import os, signal, gpool\n"
            "from gpool.integrations import gunicorn as hooks\n"
            "control_socket_disable = True\n"
            "def post_worker_init(worker):\n"
            "    hooks.post_worker_init(worker)\n"
            "    gpool.Pool(gpool.Resource(create=list), size=1, name='db').start()\n"
            "    os.kill(worker.ppid, signal.SIGTERM)\n"
            "def worker_exit(server, worker):\n"
            "    hooks.worker_exit(server, worker)\n"
            "    gpool.spawn(lambda: 1 / 0).runner().join()\n"
        )
        done = subprocess.run(
            [
                sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0",
                "-c", str(tmp_path / "gunicorn.conf.py"), "wsgiref.simple_server:demo_app",
            ],
            capture_output=True, text=True, timeout=25, check=True,
            env=os.environ | {"GPOOL_RUN_DIR": str(tmp_path / "run"), "HOME": str(tmp_path)},
        )  # fmt: skip
        assert done.stderr.count("crashed: ZeroDivisionError: division by zero") == 1

    def test_forked_writes_only_its_own(self) -> None:
        """What the parent has to write, the parent writes."""
        stderr = self.run(
            "import os, gevent, gpool, sys, warnings\n"
            "warnings.simplefilter('ignore', DeprecationWarning)\n"
            "from gpool import telemetry\n"
            "from gpool.integrations.stdlib_logging import log, flush\n"
            "log(telemetry.PoolHasFailed(None, 'db', 'boom'))\n"
            "pid = os.fork()\n"
            "if not pid: flush(); os._exit(0)\n"
            "os.waitpid(pid, 0)\n"
        )
        assert stderr.count("has failed") == 1


class TestApplication:
    def test_attaches_it_when_it_starts(self, caplog: pytest.LogCaptureFixture) -> None:
        """DESIGN 4.13: a bare script that uses a pool sees what fails."""
        with gpool.Pool(gpool.Resource(create=lambda: 1 / 0), size=1, name="bad"):
            settle()
        assert any("pool 'bad': a worker did not start" in r.getMessage() for r in caplog.records)
