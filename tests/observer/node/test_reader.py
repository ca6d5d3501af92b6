"""Reading in a hub from another thread, and beside one that is blocked."""

from __future__ import annotations

import gevent
import gevent.monkey
import pytest

import gpool
from gpool.observer.client import NodeError
from gpool.observer.node import reader as module
from gpool.observer.node.reader import Reader
from gpool.otp import signal
from gpool.testing import settle
from tests.observer.conftest import blocking, outside
from tests.waiting import until

get_ident = gevent.monkey.get_original("_thread", "get_ident")


@pytest.fixture
def impatient(monkeypatch):
    """Wait for no hub for long."""
    monkeypatch.setattr(module, "PATIENCE", 0.02)


class TestReading:
    def test_is_done_in_the_hub(self):
        """By a callback: no other greenlet runs meanwhile."""
        hub, main = gevent.get_hub(), get_ident()
        reader, done = Reader(hub), gevent.event.AsyncResult()

        def ask():
            found = reader.read(lambda: (get_ident(), gevent.getcurrent() is hub))
            hub.loop.run_callback_threadsafe(done.set, found)

        gevent.monkey.get_original("_thread", "start_new_thread")(ask, ())
        assert done.get(timeout=10) == ((main, True), {"blocked": False})

    def test_raises_what_the_function_raises(self):
        """In the reader's thread; the hub goes on."""
        hub = gevent.get_hub()
        reader, done = Reader(hub), gevent.event.AsyncResult()

        def ask():
            try:
                reader.read(lambda: [][1])
            except IndexError as error:
                hub.loop.run_callback_threadsafe(done.set, error)

        gevent.monkey.get_original("_thread", "start_new_thread")(ask, ())
        assert isinstance(done.get(timeout=10), IndexError)


class TestBlockedHub:
    @pytest.mark.parametrize("busy", [True, False], ids=["in Python", "in C"])
    def test_is_said_with_seconds_and_place(self, node, busy):
        """What is asked for is told all the same, by every route."""
        pid = gpool.spawn(gpool.receive)
        settle()
        answers = blocking(ask_all, outside(node), pid.id, busy=busy)
        for answer in answers:
            assert answer["hub"]["blocked"] is True
            assert 0.15 < answer["hub"]["seconds"] < 20
            assert any("in blocking" in line for line in answer["hub"]["stack"])
        seconds = [answer["hub"]["seconds"] for answer in answers]
        assert seconds == sorted(seconds)
        assert answers[0]["total"] >= 2
        assert node.get("/v1/node")["hub"] == {"blocked": False}

    def test_does_what_was_asked_when_it_goes_on(self, observe):
        """An action runs until then; a state is not waited for."""
        node = observe(allow_actions=True, show_state=True)
        server = gpool.GenServer.start()
        body = {"action": "kill", "process": server.pid.id, "confirm": repr(server.pid)}
        action = blocking(outside(node).post, "/v1/actions", body)["action"]
        assert (action["id"], action["state"]) == (1, "running")
        with pytest.raises(NodeError, match="the hub is blocked, nobody can be asked"):
            blocking(outside(node).get, f"/v1/processes/{server.pid.id}/state")
        until(lambda: node.get("/v1/actions/1")["action"]["state"] == "done")
        assert not gpool.is_alive(server)

    def test_is_read_while_it_changes_everything(self, node, impatient):
        """Processes come and go under the reader, and no answer fails."""
        answers = []

        def look():
            plain = outside(node)
            answers.extend(plain.get(f"/v1/{path}") for path in ("processes", "tree", "events"))

        ended = gevent.monkey.get_original("_thread", "allocate_lock")()
        ended.acquire()
        gevent.monkey.get_original("_thread", "start_new_thread")(
            lambda: (look(), ended.release()), ()
        )
        while not ended.acquire(blocking=False):  # and the hub never runs
            pid = gpool.spawn(gpool.receive)
            gpool.register("busy", pid)
            signal.die(pid, "normal", [])
        assert len(answers) == 3
        assert all(answer["hub"]["blocked"] for answer in answers)

    def test_owes_no_answers_when_it_goes_on(self, impatient):
        """One callback is on its way to it, however often was asked; and that does nothing."""
        calls = []
        reader = Reader(gevent.get_hub())
        blocking(lambda: [reader.read(calls.append, get_ident()) for _ in range(10)])
        assert len(calls) == 10
        settle()
        assert len(calls) == 10
        assert get_ident() not in calls

    def test_is_read_again_when_it_changes_meanwhile(self, impatient):
        """A dictionary that grows under the reader is read once more."""
        tries = []

        def read():
            tries.append(1)
            if len(tries) < 5:
                raise RuntimeError("dictionary changed size during iteration")
            return "read"

        assert blocking(Reader(gevent.get_hub()).read, read)[0] == "read"

    def test_tells_no_secret_of_its_code(self, node):
        """A line of the stack may have one in it."""
        answer = blocking(outside(node).get, "/v1/node")  # password="swordfish"
        assert "swordfish" not in str(answer["hub"]["stack"])
        assert "***" in str(answer["hub"]["stack"])

    def test_is_told_from_one_that_has_ended(self, impatient):
        """A hub whose loop is gone never answers; nothing breaks."""
        hub = gevent.hub.Hub(default=False)
        loop = hub.loop
        hub.destroy(destroy_loop=True)
        reader = Reader(hub)
        assert blocking(reader.read, len, "abc")[0] == 3
        hub.loop = loop  # libev's knows that it was destroyed
        value, state = blocking(reader.read, len, "abc")
        assert (value, state["blocked"]) == (3, True)


def ask_all(client, number):
    """Return what all routes answer."""
    paths = ["processes", "node", "tree", "pools", "events", f"processes/{number}"]
    return [client.get(f"/v1/{path}") for path in [*paths, f"processes/{number}/messages"]]
