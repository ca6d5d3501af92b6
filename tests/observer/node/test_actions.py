"""What may be done by the Observer: asked for twice, checked again, told to everybody."""

from __future__ import annotations

import logging
import os

import pytest

import gpool
from gpool.observer.client import NodeError
from gpool.observer.node import actions as module
from gpool.observer.node.actions import KEPT, Actions
from gpool.observer.node.events import Events
from gpool.observer.node.request import Refused
from gpool.testing import settle
from tests.pool.workshop import Client, Echo, Holder, running, use
from tests.waiting import until


@pytest.fixture
def events():
    """Give the events that actions are told to."""
    return Events()


@pytest.fixture
def actions(events, monkeypatch):
    """Give actions that may be done, asked for from the hub that they are about."""
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    return Actions(events, allowed=True)


def do(actions, **body):
    """Have an action done, and return what came of it."""
    begun = actions.begin(body, "a test")
    settle()
    return actions.outcome(begun["id"])


def texts(events):
    """Return what the events tell."""
    return [entry.text for entry in events.after(0, "info")]


def supervised(count=1, **options):
    """Return a supervisor of some workers, and its children's pids."""
    specs = [gpool.ChildSpec(f"w{n}", Echo.start_link, **options) for n in range(count)]
    sup = gpool.Supervisor.start(specs)
    return sup, [child.pid for child in gpool.supervision(sup).children]


class TestAsking:
    def test_is_refused_unless_it_was_allowed(self, events):
        """Nothing else about it is looked at."""
        with pytest.raises(Refused, match="without allow_actions") as caught:
            Actions(events, allowed=False).begin({}, "a test")
        assert caught.value.status == 403

    @pytest.mark.parametrize(
        ("body", "status", "words"),
        [
            ({}, 400, "action: expected one of kill, stop_child, restart_child, resize"),
            ({"action": ["kill"]}, 400, "action: expected one of"),
            ({"action": "KILL"}, 400, "action: expected one of"),
            ({"action": "__class__"}, 400, "action: expected one of"),
            ({"action": "kill"}, 404, "process: expected the number of a process"),
            ({"action": "kill", "process": "1"}, 404, "got '1'"),
            ({"action": "kill", "process": True}, 404, "got True"),
            ({"action": "kill", "process": 10**400}, 404, "process: expected"),
            ({"action": "kill", "process": 1.0}, 404, "process: expected"),
            ({"action": "stop_child", "supervisor": None}, 404, "supervisor: expected"),
            ({"action": "resize", "pool": "none"}, 404, "pool: expected the name of one that runs"),
            ({"action": "drain", "pool": 5}, 404, "pool: expected"),
        ],
    )
    def test_needs_a_target(self, actions, body, status, words):
        """That is there."""
        with pytest.raises(Refused, match=words) as caught:
            actions.begin(body, "a test")
        assert caught.value.status == status

    @pytest.mark.parametrize("confirm", [None, "", "echo", 5, ["#PID<1>"], True])
    def test_needs_to_be_confirmed(self, actions, events, confirm):
        """By what its target is called; else nothing is done, and nothing told."""
        pid = Echo.start().pid
        with pytest.raises(Refused, match=f"confirm: expected '{pid!r}'"):
            actions.begin({"action": "kill", "process": pid.id, "confirm": confirm}, "a test")
        settle()
        assert gpool.is_alive(pid)
        assert texts(events) == []

    def test_about_the_dead_is_refused(self, actions):
        """It was known, but is no more."""
        pid = gpool.spawn(len, ())
        settle()
        with pytest.raises(Refused, match="is dead") as caught:
            actions.begin({"action": "kill", "process": pid.id, "confirm": repr(pid)}, "a test")
        assert caught.value.status == 409


class TestOutcome:
    def test_of_none_is_refused(self, actions):
        """Nobody has asked for it, or that was long ago."""
        with pytest.raises(Refused, match="action 7: there is none") as caught:
            actions.outcome(7)
        assert caught.value.status == 404

    def test_is_kept_for_the_latest(self, actions):
        """Not for ever."""
        running(Echo, size=1, name="db")
        for _ in range(KEPT + 1):
            done = do(actions, action="suspend", pool="db", confirm="db")
        assert done["id"] == KEPT + 1
        actions.outcome(2)
        with pytest.raises(Refused):
            actions.outcome(1)

    def test_is_running_until_it_has_ended(self, actions, clock):
        """Whoever asks polls."""
        pool = running(Echo, size=1, name="db")
        holder = Holder(pool)
        done = do(actions, action="drain", pool="db", timeout=60, confirm="db")
        assert done["state"] == "running"
        holder.let_go()
        done = actions.outcome(done["id"])
        assert (done["state"], done["text"]) == ("done", "drain pool 'db': 'all is back'")

    def test_says_why_it_failed(self, actions, events, monkeypatch):
        """In gpool's words, or with the arguments of another's error; told to events, too."""
        pool = running(Echo, size=2, min_ready=2, name="db")
        done = do(actions, action="resize", pool="db", size=1, confirm="db")
        assert done["state"] == "failed"
        assert "min_ready" in done["text"]
        assert pool.stats().size == 2
        assert "failed: " in texts(events)[-1]

    def test_of_an_evil_error_is_told_without_its_help(self, actions, events, monkeypatch):
        """It could raise, or tell a secret."""

        class Evil(Exception):
            __str__ = __repr__ = lambda self: 1 / 0

        def fail(self):
            raise Evil("password=swordfish")

        running(Echo, size=1, name="db")
        monkeypatch.setattr(gpool.Pool, "suspend", fail)
        done = do(actions, action="suspend", pool="db", confirm="db")
        assert done["state"] == "failed"
        assert done["text"].endswith("Evil('password=***')")
        assert texts(events)[-1].endswith("Evil('password=***')")


class TestTelling:
    def test_names_who_did_what(self, actions, events, caplog):
        """In the log and in the events."""
        pid = Echo.start(server_name="echo").pid
        with caplog.at_level(logging.WARNING, "gpool.observer"):
            do(actions, action="kill", process=pid.id, confirm=repr(pid))
        line = f"kill {pid!r} (echo), by a test"
        assert line in caplog.messages
        [entry] = events.after(0, "info")
        assert (entry.text, entry.kind) == (line, "ObserverAction")
        assert entry.told()["process"]["id"] == pid.id


class TestProcesses:
    def test_are_killed(self, actions):
        """Untrappably."""
        pid = gpool.spawn(lambda: gpool.trap_exit(True) or gpool.receive())
        settle()
        done = do(actions, action="kill", process=pid.id, confirm=repr(pid))
        assert done["state"] == "done"
        assert gpool.process_info(pid).reason == "killed"


class TestChildren:
    def test_are_stopped_and_started_by_name(self, actions):
        """A stopped child has no process, but is called what its supervisor calls it."""
        sup, [first, second] = supervised(2)
        name = {"supervisor": sup.pid.id, "child": "w1"}
        assert do(actions, action="stop_child", confirm=repr(second), **name)["state"] == "done"
        assert not gpool.is_alive(second)
        assert gpool.supervision(sup).children[1].pid is None
        assert do(actions, action="restart_child", confirm="w1", **name)["state"] == "done"
        assert gpool.is_alive(gpool.supervision(sup).children[1].pid)
        assert gpool.is_alive(first)

    def test_are_restarted_by_pid(self, actions):
        """Only the one that is meant."""
        sup, [first, second] = supervised(2)
        done = do(actions, action="restart_child", process=first.id, confirm=repr(first))
        assert done["state"] == "done"
        children = gpool.supervision(sup).children
        assert not gpool.is_alive(first)
        assert gpool.is_alive(children[0].pid)
        assert children[1].pid is second

    def test_of_a_dynamic_supervisor_are_replaced_or_stopped(self, actions):
        """It knows them by their pids."""
        sup = gpool.DynamicSupervisor.start()
        for _ in range(2):
            sup.start_child(gpool.ChildSpec("same", Echo.start_link))
        first, second = [child.pid for child in gpool.supervision(sup).children]
        do(actions, action="restart_child", process=first.id, confirm=repr(first))
        children = gpool.supervision(sup).children
        assert len(children) == 2
        assert {child.pid for child in children} > {second}
        do(actions, action="stop_child", process=second.id, confirm=repr(second))
        assert len(gpool.supervision(sup).children) == 1

    @pytest.mark.parametrize("how", ["plain", "template", "extra"])
    def test_of_a_dynamic_supervisor_spend_no_intensity(self, actions, how):
        """They end orderly, and what is started has the same arguments, however often."""
        made = []

        def start(*args, **kwargs):
            made.append((args, kwargs))
            return Echo.start_link()

        spec = gpool.ChildSpec("w", start, (1,), {"a": 2})
        options = {"template": {"template": spec}, "extra": {"extra_arguments": (0,)}}
        sup = gpool.DynamicSupervisor.start(**options.get(how, {}))
        given = ((9,), {"b": 3}) if how == "template" else ((spec,), {})
        sup.start_child(*given[0], **given[1])
        for _ in range(5):
            [child] = gpool.supervision(sup).children
            done = do(
                actions, action="restart_child", process=child.pid.id, confirm=repr(child.pid)
            )
            assert done["state"] == "done"
            assert child.pid.reason == "shutdown"
        assert gpool.is_alive(sup.pid)
        assert len(made) == 6
        assert all(one == made[0] for one in made)

    def test_that_are_pools_are_restarted_but_not_stopped(self, actions):
        """Nobody could start a pool's tree again."""
        pool = running(Echo, size=1, name="db")
        sup = pool.tree().pool_sup
        body = {"process": sup.id, "confirm": repr(sup)}
        with pytest.raises(Refused, match="drain it"):
            actions.begin({"action": "stop_child", **body}, "a test")
        assert do(actions, action="restart_child", **body)["state"] == "done"
        assert pool.tree().pool_sup is not sup
        with pool.checkout() as echo:
            assert gpool.is_alive(echo)

    def test_that_wait_for_their_restart_can_be_started_at_once(self, actions, clock):
        """Somebody has mended what they need, and does not want to wait."""
        sup, [child] = supervised(backoff=gpool.Backoff(20.0))
        gpool.exit(child, "bored")
        settle()
        assert gpool.supervision(sup).children[0].restarting
        done = do(
            actions, action="restart_child", supervisor=sup.pid.id, child="w0", confirm="w0"
        )  # fmt: skip
        assert done["state"] == "done"
        assert gpool.is_alive(gpool.supervision(sup).children[0].pid)

    def test_that_are_temporary_can_be_stopped_only(self, actions):
        """Their supervisor forgets them, so whoever wants to restart one is told."""
        sup, [child] = supervised(restart="temporary")
        body = {"process": child.id, "confirm": repr(child)}
        with pytest.raises(Refused, match="it is temporary"):
            actions.begin({"action": "restart_child", **body}, "a test")
        assert gpool.is_alive(child)
        assert do(actions, action="stop_child", **body)["state"] == "done"
        assert gpool.supervision(sup).children == ()

    def test_that_a_pool_wants_are_replaced(self, actions):
        """A worker is temporary, but its pool's manager starts another one."""
        pool = running(Echo, size=1, name="db")
        [before] = [child.pid for child in gpool.supervision(pool.tree().worker_sup).children]
        do(actions, action="restart_child", process=before.id, confirm=repr(before))
        [after] = [child.pid for child in gpool.supervision(pool.tree().worker_sup).children]
        assert after is not before

    def test_are_known(self, actions):
        """What is nobody's child, no supervisor, or no single one is refused."""
        sup, _ = supervised()
        worker = Echo.start().pid
        dynamic = gpool.DynamicSupervisor.start()
        for _ in range(2):
            dynamic.start_child(gpool.ChildSpec("same", Echo.start_link))
        for body, words in (
            ({"process": worker.id}, "is no supervisor's child"),
            ({"supervisor": worker.id, "child": "x"}, "is no supervisor"),
            ({"supervisor": sup.pid.id, "child": "x"}, "child: expected the id of one child"),
            ({"supervisor": sup.pid.id}, "child: expected the id of one child"),
            ({"supervisor": dynamic.pid.id, "child": "same"}, "child: expected the id of one"),
        ):
            with pytest.raises(Refused, match=words):
                actions.begin({"action": "stop_child", **body}, "a test")

    def test_that_do_not_start_are_told_why(self, actions):
        """The action fails, not the one who asked."""
        _, [child] = supervised()
        Echo.starts.extend([ValueError("no luck")] * 20)
        try:
            done = do(actions, action="restart_child", process=child.id, confirm=repr(child))
        finally:
            Echo.starts.clear()
        assert done["state"] == "failed"
        assert "no luck" in done["text"]


class TestPools:
    def test_are_resized(self, actions):
        """Up and down, with or without another overflow."""
        pool = running(Echo, size=1, max_overflow=2, name="db")
        do(actions, action="resize", pool="db", size=3, confirm="db")
        assert (pool.stats().size, pool.stats().max_overflow, pool.stats().idle) == (3, 2, 3)
        do(actions, action="resize", pool="db", size=2, max_overflow=0, confirm="db")
        assert (pool.stats().size, pool.stats().max_overflow) == (2, 0)

    @pytest.mark.parametrize(
        "numbers",
        [
            {},
            {"size": -1},
            {"size": 1.5},
            {"size": "3"},
            {"size": True},
            {"size": float("nan")},
            {"size": 10**9},
            {"size": 10**400},
            {"size": 1, "max_overflow": -1},
        ],
    )
    def test_are_resized_to_sane_numbers_only(self, actions, numbers):
        """A slip of the finger starts no million workers."""
        running(Echo, size=1, name="db")
        with pytest.raises(Refused, match="expected a whole number"):
            actions.begin({"action": "resize", "pool": "db", "confirm": "db", **numbers}, "a test")

    def test_are_recycled(self, actions):
        """All workers are other ones then."""
        pool = running(Echo, size=2, name="db")
        before = {child.pid for child in gpool.supervision(pool.tree().worker_sup).children}
        assert do(actions, action="recycle", pool="db", confirm="db")["state"] == "done"
        after = {child.pid for child in gpool.supervision(pool.tree().worker_sup).children}
        assert len(after) == 2
        assert not before & after

    @pytest.mark.parametrize(
        "value", [-1, "1", None, float("inf"), float("nan"), 10**400, True, []]
    )
    def test_take_seconds(self, actions, value):
        """Finite ones, of a day at most."""
        running(Echo, size=1, name="db")
        for action, key in (("recycle", "within"), ("drain", "timeout")):
            with pytest.raises(Refused, match=f"{key}: expected seconds from 0 to 86400"):
                actions.begin({"action": action, "pool": "db", "confirm": "db", key: value}, "x")

    def test_are_suspended_and_resumed(self, actions):
        """Who comes meanwhile waits."""
        pool = running(Echo, size=1, name="db")
        do(actions, action="suspend", pool="db", confirm="db")
        client = Client(pool.checkout, timeout=None)
        settle()
        assert not client.done
        do(actions, action="resume", pool="db", confirm="db")
        assert client.done

    def test_are_drained_and_opened_again(self, actions, clock):
        """Nobody is let in until somebody opens it."""
        pool = running(Echo, size=1, name="db")
        holder = Holder(pool)
        done = do(actions, action="drain", pool="db", timeout=0, confirm="db")
        assert done["text"] == "drain pool 'db': 'some did not come back in time'"
        with pytest.raises(gpool.PoolClosed):
            use(pool)
        holder.let_go()
        assert do(actions, action="open", pool="db", confirm="db")["state"] == "done"
        use(pool)


class TestThroughTheApi:
    def test_is_done_with_the_header_only(self, observe):
        """A page of another site cannot send it."""
        node = observe(allow_actions=True)
        pid = Echo.start().pid
        body = b'{"action": "kill", "process": %d, "confirm": "#PID<%d>"}' % (pid.id, pid.id)
        kind = {"Content-Type": "application/json"}
        status, _, content = node.request("POST", "/v1/actions", body, kind)
        assert (status, b"X-GPool-Action: 1" in content) == (403, True)
        assert gpool.is_alive(pid)
        status, _, _ = node.request("POST", "/v1/actions", body, {**kind, "X-GPool-Action": "1"})
        assert status == 202
        assert not gpool.is_alive(pid)

    def test_is_told_with_who_asked(self, observe):
        """The kernel knows what process and user that was."""
        node = observe(allow_actions=True)
        running(Echo, size=1, name="db")
        answer = node.post("/v1/actions", {"action": "suspend", "pool": "db", "confirm": "db"})
        assert answer["action"]["state"] == "done"
        assert node.get("/v1/node")["actions"] is True
        events = node.get("/v1/events")["events"]
        [event] = [event for event in events if event["kind"] == "ObserverAction"]
        assert event["text"] == f"suspend pool 'db', by process {os.getpid()} of uid {os.geteuid()}"
        assert node.get("/v1/actions/1")["action"] == answer["action"]

    def test_leaves_no_process_in_sight(self, observe):
        """One that runs on is not shown, and does not wait for its own end."""
        node = observe(allow_actions=True)
        pool = running(Echo, size=1, name="db")
        holder = Holder(pool)
        body = {"action": "drain", "pool": "db", "timeout": 60, "confirm": "db"}
        answer = node.post("/v1/actions", body)
        assert answer["action"]["state"] == "running"
        rows = node.get("/v1/processes", per=500)["processes"]
        assert not [row for row in rows if "Errand" in row["initial_call"]]
        holder.let_go()
        until(lambda: node.get("/v1/actions/1")["action"]["state"] == "done")

    @pytest.mark.parametrize("path", ["/v1/actions/0", "/v1/actions/x", "/v1/actions/1e3"])
    def test_knows_no_other(self, node, path):
        """Of an action that was not begun."""
        with pytest.raises(NodeError) as caught:
            node.get(path)
        assert caught.value.status == 404
