"""Processes as the API shows them: rows, pages, and one of them whole."""

from __future__ import annotations

import json

import gevent
import greenlet
import pytest

import gpool
from gpool.observer.node import processes
from gpool.observer.node.processes import COLUMNS, STATUSES, detail_of, find, page_of, row_of
from gpool.testing import settle
from tests.observer.node.traps import (
    Trap,
    TrapError,
    TrapMeta,
    TrapText,
    hub_keeps_to_itself,
    sprung,
    traps,
    unsprung,
)
from tests.otp.actor import Actor
from tests.pool.workshop import Echo, running


def page(**asked):
    """Return a page, as it is if nothing else is asked for."""
    usual = {"which": "live", "sort": "id", "descending": False, "text": "", "page": 1}
    return page_of(**{**usual, "per": 100, **asked})


def ids(**asked):
    """Return the processes of a page."""
    return [row["id"] for row in page(**asked)["processes"]]


def whole(pid):
    """Return what is told of a process; it has to be JSON."""
    told = detail_of(pid, lambda _: False)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    return told


def child_of(supervisor, number=0):
    """Return one of its children."""
    return gpool.supervision(supervisor).children[number].pid


class Sleeper(gpool.GenServer):
    """Hibernates."""

    def init(self):
        """Begin with a rest."""
        return gpool.Hibernate()


class TestRow:
    def test_tells_what_a_process_is(self, clock):
        """Names, where it is, how much it has to do, and for how long it has lived."""
        one, two = Actor(), Actor()
        one.do(gpool.link, two.pid)
        two.do(gpool.monitor, one.pid)
        gpool.register("shop", one.pid)
        clock.advance(2.5)
        row = row_of(one.pid)
        assert row.pop("current_function").startswith("Actor._run (")
        assert row == {
            "id": one.pid.id, "pid": repr(one.pid), "label": "shop", "name": "shop",
            "initial_call": "Actor._run", "status": "waiting", "mailbox": 0, "restarts": None,
            "links": 1, "monitors": 0, "monitored_by": 1, "age": 2.5, "ended": None,
            "reason": None,
        }  # fmt: skip
        assert row_of(two.pid)["monitors"] == 1
        assert row_of(two.pid)["label"] == "Actor._run"

    def test_tells_of_a_dead_one_how_long_it_lived(self, clock):
        """Its age stands still, and since when and of what it is dead is told."""
        pid = gpool.spawn(gpool.receive)
        clock.advance(2.0)
        gpool.exit(pid, "password=swordfish")
        clock.advance(3.0)
        row = row_of(pid)
        assert (row["status"], row["age"], row["ended"]) == ("dead", 2.0, 3.0)
        assert row["reason"] == "'password=***'"

    def test_knows_every_status(self, unnoticed_deaths):
        """Running, waiting, hibernating, exiting, dead, and a zombie."""
        me, actor, sleeper = gpool.self(), Actor(), Sleeper.start()
        settle()
        assert row_of(me)["status"] == "running"
        assert row_of(actor.pid)["status"] == "waiting"
        assert row_of(sleeper.pid)["status"] == "hibernating"
        gpool.exit(actor.pid, "kill")
        assert row_of(actor.pid)["status"] == "exiting"
        settle()
        assert row_of(actor.pid)["status"] == "dead"
        zombie = gpool.spawn(swallow)
        settle()
        gpool.exit(zombie, "kill")
        settle()
        assert row_of(zombie)["status"] == "zombie"
        assert ids(which="zombies") == [zombie.id]
        assert set(STATUSES) == {
            "running", "waiting", "hibernating", "exiting", "dead", "zombie"
        }  # fmt: skip

    def test_counts_restarts(self):
        """Of a supervised process; of others there is none to count."""
        sup = gpool.Supervisor.start([gpool.ChildSpec("a", Echo.start_link)])
        assert row_of(child_of(sup))["restarts"] == 0
        gpool.exit(child_of(sup), "kill")
        settle()
        assert row_of(child_of(sup))["restarts"] == 1
        assert row_of(sup.pid)["restarts"] is None

    def test_shows_greenlets_that_are_not_ours(self):
        """A plain and a raw greenlet are processes once they use gpool."""
        gate = gevent.event.Event()

        def body():
            gpool.self()
            gate.wait()

        plain = gevent.spawn(body)
        raw = greenlet.greenlet(body, parent=gevent.get_hub())
        gevent.get_hub().loop.run_callback(raw.switch)
        settle()
        rows = [row_of(plain.gpool_pid), row_of(raw.gpool_pid)]
        assert [row["label"].rpartition(".")[2] for row in rows] == ["body", "greenlet"]
        assert all("body (" in row["current_function"] for row in rows)
        gate.set()
        plain.join()


def swallow():
    """Refuse to go."""
    while True:
        try:
            gevent.get_hub().switch()
        except BaseException:  # noqa: BLE001  # that is what a zombie does
            continue


def sorted_by(column, row):
    """Return what a row is sorted by."""
    value = row[column]
    if column == "label":
        return value.lower()
    return {"restarts": -1, "name": ""}[column] if value is None else value


class TestPage:
    @pytest.mark.parametrize("column", COLUMNS)
    def test_is_sorted_by_any_column_both_ways(self, column, clock):
        """The order is that of the column, whoever has equal values."""
        clock.advance(1.0)
        sup = gpool.Supervisor.start([gpool.ChildSpec(n, Echo.start_link) for n in "abc"])
        for _ in range(2):
            gpool.exit(child_of(sup, 1), "kill")
            settle()
        gpool.register("zebra", Actor().pid)
        gpool.send(gpool.spawn(swallow_messages), 1)
        Sleeper.start()
        gpool.monitor(sup.pid)
        clock.advance(1.0)
        gpool.exit(gpool.spawn(gpool.receive), "bored")
        clock.advance(1.0)
        Actor()
        which = "ended" if column == "ended" else "live"
        up, down = [
            [
                sorted_by(column, row)
                for row in page(which=which, sort=column, per=500, descending=descending)[
                    "processes"
                ]
                if row["status"] != "running" or column != "current_function"  # ours: it goes on
            ]
            for descending in (False, True)
        ]
        assert len(set(up)) > 1
        assert up == sorted(up)
        assert down == sorted(up, reverse=True)

    def test_is_cut_out_of_all(self):
        """A page of so many, and how many there are; one beyond the last is empty."""
        pids = [Actor().pid.id for _ in range(7)]
        assert ids(per=3, page=2, text="Actor") == pids[3:6]
        found = page(per=3, page=3, text="Actor")
        assert (found["pages"], found["total"], len(found["processes"])) == (3, 7, 1)
        assert ids(per=3, page=10**9) == []
        assert page(text="nobody is called so")["pages"] == 1

    @pytest.mark.parametrize(
        "text", ["ZEBRA", "zeb", "actor._run", "#pid<{id}>", "{id}", "waiting", "run ("]
    )
    def test_finds_a_text_anywhere(self, text):
        """In names, calls, pids, states and whereabouts, in capitals or not."""
        actor = Actor()
        gpool.register("Zebra", actor.pid)
        assert actor.pid.id in ids(text=text.format(id=actor.pid.id))
        assert ids(text="\x00") == []

    def test_has_the_latest_of_the_dead(self):
        """So many as are remembered; the first ones are forgotten, whole."""
        pids = [gpool.spawn(len, ()) for _ in range(300)]
        settle()
        assert page(which="ended", per=500)["total"] == 256
        assert ids(which="ended", per=500) == [pid.id for pid in pids[-256:]]
        assert find(pids[0].id) is None
        assert find(pids[-1].id) is pids[-1]

    def test_leaves_the_observers_errands_out(self):
        """Whoever looks does not want to see who looks."""
        gate = gevent.event.Event()

        class ObserverErrand:
            def run(self):
                gpool.self()
                gate.wait()

        gevent.spawn(ObserverErrand().run)
        settle()
        errand = [pid for pid in gpool.processes() if pid.initial_call.endswith("Errand.run")]
        assert len(errand) == 1
        errand[0].initial_call = processes.IS_ERRAND
        assert errand[0].id not in ids()
        gate.set()
        settle()


def swallow_messages():
    """Let messages wait."""
    gevent.get_hub().switch()


class TestOne:
    def test_is_told_whole(self):
        """Its family, its links, its supervisor and its place there."""
        sup = gpool.Supervisor.start(
            [gpool.ChildSpec("a", Echo.start_link)], strategy="rest_for_one", server_name="top"
        )
        child = child_of(sup)
        watcher = Actor()
        watcher.do(gpool.monitor, child)
        told = whole(child)
        ref = {"id": sup.pid.id, "label": "top", "status": "waiting"}
        assert told["parent"] == told["supervisor"] == ref
        assert told["links"] == [ref]
        assert told["ancestors"][0] == ref
        assert told["monitored_by"][0]["id"] == watcher.pid.id
        assert (told["child_id"], told["type"], told["strategy"]) == ("a", "worker", None)
        assert (told["links_more"], told["trap_exit"], told["pool"]) == (0, False, None)
        assert any("Echo" in line or "gen_server" in line for line in told["stack"])
        top = whole(sup.pid)
        assert (top["type"], top["strategy"], top["child_id"]) == (
            "supervisor",
            "rest_for_one",
            None,
        )

    def test_is_told_when_it_is_dead(self):
        """Its window stays: of what it died, with the traceback."""
        pid = Echo.start().pid
        gpool.send_cast(pid, "no such method")
        settle()
        told = whole(pid)
        assert told["status"] == "dead"
        assert told["last_exit"].startswith("Traceback (most recent call last):")
        assert told["stack"] == []
        assert told["state_shown"] is False

    def test_tells_what_its_predecessor_died_of(self):
        """A child that was started again knows why."""
        sup = gpool.Supervisor.start([gpool.ChildSpec("a", Echo.start_link)])
        gpool.exit(child_of(sup), "bored")
        settle()
        assert whole(child_of(sup))["last_exit"] == "'bored'"

    def test_knows_its_pool(self):
        """Every process in a pool's tree belongs to it."""
        pool = running(Echo, size=1, name="db")
        tree = pool.tree()
        worker = gpool.supervision(tree.worker_sup).children[0].pid
        for pid in (tree.pool_sup, tree.pool_man, tree.worker_sup, worker):
            assert whole(pid)["pool"] == "db"
        assert whole(gpool.self())["pool"] is None

    def test_lists_so_many_links_and_counts_the_others(self):
        """A process may be linked to thousands."""
        hub = Actor(trap=True)
        for _ in range(210):
            hub.do(gpool.spawn_link, gpool.receive)
        told = whole(hub.pid)
        assert (len(told["links"]), told["links_more"]) == (200, 10)

    def test_lists_a_monitor_of_a_name(self):
        """It was set on a name, so that is told."""
        target, watcher = Actor(), Actor()
        gpool.register("target", target.pid)
        watcher.do(gpool.monitor, "target")
        assert whole(watcher.pid)["monitors"] == [
            {"id": target.pid.id, "label": "target", "status": "waiting"}
        ]
        gpool.unregister("target")
        assert whole(watcher.pid)["monitors"] == [{"id": None, "label": "target", "status": None}]

    def test_leaves_secrets_out_of_its_stack(self):
        """A line of code may have one in it."""
        gate = gevent.event.Event()

        def body(password):
            gate.wait()

        pid = gpool.spawn(lambda: body(password="swordfish"))
        settle()
        assert "swordfish" not in "".join(whole(pid)["stack"])
        assert "***" in "".join(whole(pid)["stack"])

    def test_has_a_stack_of_limited_depth(self):
        """Of a deep one the innermost frames are told."""
        gate = gevent.event.Event()

        def even(n):
            return odd(n - 1) if n else gate.wait()

        def odd(n):
            return even(n - 1)

        pid = gpool.spawn(even, 600)
        settle()
        stack = whole(pid)["stack"]
        assert len(stack) == 101
        assert stack[0].startswith("... ")


class TestLooking:
    def test_neither_switches_nor_runs_a_users_code(self, quiet):
        """Names, ids, messages and reasons of whatever kind: all are shown from outside."""

        class Evil(gpool.GenServer, metaclass=TrapMeta):
            def __getattribute__(self, name):
                if TrapMeta.is_set:
                    sprung.append(f"Evil.{name}")
                return super().__getattribute__(name)

        sup = gpool.DynamicSupervisor.start()
        for number, value in enumerate(traps()):
            pid = gpool.spawn(swallow_messages)
            gpool.send(pid, value)
            gpool.register(f"name {number}", pid)
            gpool.exit(gpool.spawn(gpool.receive), value)
        keys = gpool.Registry.start()
        for key in (TrapText("x"), Trap(), (Trap(), TrapError())):
            Echo.start(server_name=(keys, key))
        static = gpool.Supervisor.start([gpool.ChildSpec((1, Trap()), Evil.start_link)])
        sup.start_child(gpool.ChildSpec(TrapText("x"), Evil.start_link))
        settle()
        pids = [*gpool.processes(), *gpool.recently_ended()]
        assert static.count_children().active == 1
        with unsprung(), hub_keeps_to_itself():
            for which in processes.KINDS:
                for column in COLUMNS:
                    page(which=which, sort=column, text="e", per=500)
            for pid in pids:
                whole(pid)

    def test_bears_processes_of_a_thread_that_has_ended(self, script):
        """Their hub is gone."""
        script("""
            pids = []
            def other():
                pids.append(gpool.spawn(gpool.receive))
                gevent.sleep(0)
                gevent.get_hub().destroy(destroy_loop=True)
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            agent, node = start(allow_actions=True, show_state=True)
            path = f"/v1/processes/{pids[0].id}"
            assert node.get("/v1/processes")["total"]
            assert node.get(path)["process"]["status"] == "waiting"
            for ask in (lambda: node.get(f"{path}/state"), lambda: node.get(f"{path}/messages")):
                try:
                    ask()
                except NodeError as error:
                    assert error.status in (403, 409), error
            answer = node.post("/v1/actions", {
                "action": "kill", "process": pids[0].id, "confirm": repr(pids[0])})
            assert answer["action"]["state"] == "failed", answer
            assert "thread" in answer["action"]["text"], answer
        """)
