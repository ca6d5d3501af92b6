"""What went wrong lately: put aside at once, worded later, kept by level."""

from __future__ import annotations

import gc
import json
import weakref

import pytest

import gpool
from gpool import telemetry
from gpool.observer.node import events as module
from gpool.observer.node.events import KEPT, WAITING, Events
from gpool.testing import settle
from tests.observer.node.traps import hub_keeps_to_itself, traps, unsprung
from tests.otp.actor import Actor
from tests.pool.workshop import Client, Echo, Holder, running


def crash(reason="boom", pid=None):
    """Return a crash."""
    return telemetry.ProcessCrashed(pid or gpool.self(), None, reason, "f", (), (), 0)


def refused(pool="db", reason="full"):
    """Return a checkout that failed."""
    return telemetry.CheckoutFailed(gpool.self(), pool, reason)


def told(events, after=0, level="info"):
    """Return what the API would tell."""
    found = [entry.told() for entry in events.after(after, level)]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


@pytest.fixture
def heard(no_process_survives):
    """Give the events of the test."""
    events = Events()
    telemetry.attach(events)
    yield events
    telemetry.detach(events)


def error(text="no luck"):
    """Return the reason of a process that died of an error."""
    try:
        raise ValueError(text)
    except ValueError as raised:
        return gpool.Error(raised)


class TestWords:
    def test_there_are_some_for_every_event(self):
        """Whatever is emitted has a level and a sentence, but for the chores of workers."""
        assert set(module._WORDS) == set(telemetry.EVENTS) - {telemetry.WorkerRecovered}

    @pytest.mark.parametrize("kind", telemetry.EVENTS)
    def test_are_made_of_anything(self, kind):
        """The fields of an event may hold what they want; nothing of it is called or told."""
        for value in traps():
            events = Events()
            fields = {name: value for name in kind.__dataclass_fields__}
            fields |= {n: "db" for n in ("pool", "line") if n in fields}
            fields |= {n: 1.5 for n in ("seconds", "delay", "within") if n in fields}
            fields |= {n: True for n in ("gave_up",) if n in fields}
            event = kind(**fields)
            with unsprung(), hub_keeps_to_itself():
                events(event)
                found = told(events)
            assert "swordfish" not in str(found)
            assert len(found) == (kind is not telemetry.WorkerRecovered)

    def test_tell_of_a_crash(self, heard):
        """Who, of what in a line, and when."""
        server = Echo.start(server_name="echo")
        Client(server.crash)
        settle()
        [entry] = told(heard)
        assert entry["level"] == "error"
        assert entry["kind"] == "ProcessCrashed"
        assert entry["process"] == {"id": server.pid.id, "label": "echo", "status": "dead"}
        assert entry["text"] == "crashed, 0 messages unread: ValueError: crashed"
        assert (entry["seq"], entry["count"], entry["pool"]) == (1, 1, None)

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("no luck", "ValueError: no luck"),
            ("no luck\nat all", "ValueError: no luck"),
            ("password=swordfish", "ValueError: password=***"),
            ("", "ValueError"),
            ("x" * 1000, "ValueError: " + "x" * 287 + "…"),
        ],
    )
    def test_have_the_errors_own_line(self, text, line):
        """Of a traceback the line that says what it is, also if others follow it."""
        events = Events()
        events(crash(error(text)))
        assert told(events)[0]["text"] == f"crashed, 0 messages unread: {line}"

    def test_have_the_errors_own_line_among_notes_causes_and_groups(self):
        """What is around it is left to the process's window."""
        events = Events()
        try:
            try:
                raise KeyError("first")
            except KeyError as first:
                raise ValueError("second") from first
        except ValueError as second:
            second.add_note("a note")
            events(crash(gpool.Error(second)))
        try:
            raise ExceptionGroup("several", [ValueError(1)])
        except ExceptionGroup as group:
            events(crash(gpool.Error(group)))
        words = [entry["text"].partition("unread: ")[2] for entry in told(events)]
        assert words == ["ValueError: second", "ExceptionGroup('several', [ValueError(1)])"]

    def test_tell_of_a_restart(self, heard):
        """The supervisor's line names the child and why."""
        sup = gpool.Supervisor.start([gpool.ChildSpec("a", Echo.start_link)], server_name="top")
        gpool.exit(gpool.supervision(sup).children[0].pid, "bored")
        settle()
        texts = {entry["kind"]: entry["text"] for entry in told(heard)}
        assert texts["SupervisorReport"].startswith("its child a #PID<")
        assert texts["SupervisorReport"].endswith(", child_terminated: bored")

    def test_know_what_is_no_process(self):
        """A listener that fails is none, so none can be followed."""
        events = Events()
        events(telemetry.ListenerFailed(print, None, ValueError("x")))
        assert told(events)[0]["process"] is None


class TestJoining:
    def test_counts_what_is_alike(self, heard, clock):
        """Time-outs, one after the other, are one entry with a count, of the latest."""
        pool = running(Echo, size=1, name="db")
        holder = Holder(pool)
        clients = [Client(pool.checkout, timeout=1.0) for _ in range(30)]
        clock.advance(1.0)
        holder.let_go()
        found = [entry for entry in told(heard) if entry["kind"] == "CheckoutFailed"]
        assert [(entry["count"], entry["pool"], entry["text"]) for entry in found] == [
            (30, "db", "got no worker: timeout")
        ]
        assert found[0]["process"]["id"] == clients[-1].pid.id
        assert found[0]["seq"] > 29
        assert heard.of_pool("db", 5)[0].count == 30
        assert heard.of_pool("other", 5) == []

    def test_joins_what_comes_by_turns(self):
        """Two pools that refuse at the same time take two entries, not a thousand."""
        events = Events()
        for n in range(1000):
            events(refused(("a", "b")[n % 2], ("full", "timeout")[n // 2 % 2]))
        assert [entry["count"] for entry in told(events)] == [250] * 4

    def test_tells_again_what_was_joined_since(self):
        """Whoever asks for what is new gets an old entry that has grown."""
        events = Events()
        events(refused())
        last = told(events)[0]["seq"]
        assert told(events, after=last) == []
        events(refused())
        assert [entry["count"] for entry in told(events, after=last)] == [2]

    def test_joins_what_differs_by_pids_and_times(self):
        """A crash loop is one event: the child that its supervisor reports is another each time."""
        events = Events()
        for _ in range(5):
            child = Actor().pid
            events(telemetry.SupervisorReport(gpool.self(), "child_terminated", "x", "c", child))
            events(telemetry.WorkerStartFailed(child, "db", "no", 0.01 * child.id))
        [report, failure] = told(events)
        assert (report["count"], failure["count"]) == (5, 5)
        assert repr(child) in report["text"]  # the latest


class TestFlood:
    def test_of_one_crash_pushes_no_other_out(self):
        """A loop whose errors all differ makes room itself."""
        events = Events()
        important, loop = gpool.spawn(lambda: None), gpool.self()
        events(crash("the one that matters", important))
        events.note(important, "db", "resize to 3: pool 'db', by somebody")
        for n in range(2 * KEPT):
            events(crash(f"user {n} not found", loop))
            events(refused())
            events(telemetry.UnexpectedMessage(loop, f"no {n}"))
        texts = [event["text"] for event in told(events)]
        assert sum("the one that matters" in text for text in texts) == 1
        assert sum("by somebody" in text for text in texts) == 1
        assert len(texts) <= 3 * KEPT
        assert f"crashed, 0 messages unread: user {2 * KEPT - 1} not found" in texts

    def test_of_refused_checkouts_pushes_no_crash_out(self):
        """Neither while they wait for their words, nor once they have them."""
        events = Events()
        events(crash())
        for _ in range(2 * WAITING):
            events(refused())
        assert [entry["kind"] for entry in told(events, level="error")] == ["ProcessCrashed"]
        for n in range(2 * KEPT):
            events(refused(f"other {n}"))
            events.word()
        assert [entry["kind"] for entry in told(events, level="error")] == ["ProcessCrashed"]
        assert len(told(events)) == KEPT + 1

    def test_of_workers_pushes_no_refusal_out(self):
        """What belongs to their ordinary life is kept apart."""
        events = Events()
        events(refused())
        for n in range(3 * WAITING):
            events(telemetry.WorkerStarted(gpool.self(), "db", float(n)))
        assert [entry["kind"] for entry in told(events, level="warning")] == ["CheckoutFailed"]
        assert told(events)[0]["kind"] == "CheckoutFailed"

    def test_is_told_in_order(self):
        """Whatever the level: as it happened."""
        events = Events()
        for n in range(50):
            events((crash, refused)[n % 2](str(n)))
        found = told(events)
        assert [entry["seq"] for entry in found] == sorted(entry["seq"] for entry in found)
        assert len({entry["seq"] for entry in found}) == 50


class Message:
    pass


class TestMemory:
    def test_lets_events_go(self, quiet):
        """Once it has words nothing of an event is kept: neither a message nor a process."""
        events, message = Events(), Message()
        pid = gpool.spawn(gpool.receive)
        gpool.exit(pid, message)
        settle()
        events(telemetry.UnexpectedMessage(pid, message))
        events(crash(message, pid))
        number, gone = pid.id, [weakref.ref(message), weakref.ref(pid)]
        told(events)
        del message, pid
        for _ in range(300):  # so many are remembered
            gpool.spawn(len, ())
        settle()
        gc.collect()
        assert [ref() for ref in gone] == [None, None]
        assert told(events)[0]["process"] == {"id": number, "label": "receive", "status": "dead"}

    def test_names_a_process_as_it_was_then(self):
        """One that has died has no name any more, but the event knows it."""
        events, actor = Events(), Actor()
        gpool.register("shop", actor.pid)
        events(crash("x", actor.pid))
        events.word()
        assert told(events)[0]["process"]["status"] == "waiting"
        gpool.exit(actor.pid, "kill")
        settle()
        assert told(events)[0]["process"] == {
            "id": actor.pid.id, "label": "shop", "status": "dead",
        }  # fmt: skip


class TestNote:
    def test_is_of_a_level_that_is_seen(self):
        """What somebody has done is told like a warning."""
        events = Events()
        events.note(None, "db", "resize pool 'db', by process 1 of uid 0")
        [entry] = told(events, level="warning")
        assert (entry["kind"], entry["pool"]) == ("ObserverAction", "db")
