"""The supervision trees: places that stay while processes come and go."""

from __future__ import annotations

import json

import gpool
from gpool.observer.node.tree import tree_of
from gpool.testing import settle
from tests.observer.node.traps import Trap, TrapText, hub_keeps_to_itself, unsprung
from tests.pool.workshop import Echo, fall, running


def look(text="", limit=100):
    """Return the trees; they have to be JSON."""
    found = tree_of(text=text, limit=limit)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    keys = [node["key"] for node in nodes(found)]
    assert len(keys) == len(set(keys))
    return found


def nodes(found):
    """Return all nodes that are shown, from the roots down."""
    todo, every = list(found["roots"]), []
    while todo:
        node = todo.pop()
        every.append(node)
        todo += node["children"]
    return every


def by_key(found):
    """Return the nodes by their places."""
    return {node["key"]: node for node in nodes(found)}


def spec(name, **options):
    """Return the specification of a worker."""
    return gpool.ChildSpec(name, Echo.start_link, **options)


def top(*specs, **options):
    """Return a supervisor that is a root."""
    return gpool.Supervisor.start(list(specs), server_name="top", **options)


class TestPools:
    def test_are_drawn_as_in_the_article(self):
        """PoolSup with PoolMan and WorkerSup below it, the workers below that."""
        pool = running(Echo, size=2, name="db")
        found = look()
        sup = by_key(found)["gpool/pools_sup/db"]
        assert (sup["type"], sup["strategy"], sup["pool"]) == ("supervisor", "one_for_all", "db")
        man, workers = sorted(sup["children"], key=lambda node: node["label"])
        assert (man["label"], workers["label"]) == ("PoolMan", "WorkerSup")
        assert (man["type"], man["children"]) == ("worker", [])
        assert [node["label"] for node in workers["children"]] == ["Echo", "Echo"]
        assert {node["pool"] for node in nodes(found) if "/db" in node["key"]} == {"db"}
        assert man["id"] == pool.tree().pool_man.id

    def test_keep_their_places_over_a_fall(self):
        """PoolMan is killed: the same keys, other processes, and one restart more."""
        pool = running(Echo, size=2, name="db")
        before = by_key(look())
        fall(pool)
        settle()
        after = by_key(look())
        man = next(key for key, node in before.items() if node["label"] == "PoolMan")
        sup = man.rpartition("/")[0]
        assert before[sup]["id"] == after[sup]["id"]
        assert before[man]["id"] != after[man]["id"]
        assert after[man]["restarts"] == before[man]["restarts"] + 1
        assert {key for key in before if "Echo" not in before[key]["label"]} <= set(after)


class TestChildren:
    def test_have_a_status_without_a_process(self, clock):
        """One is stopped, one waits for its restart."""
        dynamic = gpool.Supervisor.start(
            [
                spec("stopped"),
                spec("slow", backoff=gpool.Backoff(5.0)),
            ],
            server_name="top",
        )
        dynamic.terminate_child("stopped")
        gpool.exit(gpool.supervision(dynamic).children[1].pid, "bored")
        settle()
        found = by_key(look())
        assert found["top/stopped"]["status"] == "stopped"
        assert (found["top/slow"]["status"], found["top/slow"]["id"]) == ("restarting", None)
        assert found["top/slow"]["label"] == "slow"
        clock.advance(60.0)
        found = by_key(look())
        assert (found["top/slow"]["status"], found["top/slow"]["restarts"]) == ("waiting", 1)

    def test_with_one_text_have_places_of_their_own(self):
        """Ids that are written alike, and those that a dynamic supervisor's children share."""
        top(spec(1), spec("1"), spec((1,)), spec("(1,)"))
        dynamic = gpool.DynamicSupervisor.start(server_name="many")
        for _ in range(3):
            dynamic.start_child(spec("same"))
        look()

    def test_with_one_text_keep_their_places(self):
        """A static supervisor's children stay where they stand, running or stopped."""
        sup = top(spec(1), spec("1"))
        before = set(by_key(look()))
        gpool.exit(gpool.supervision(sup).children[0].pid, "kill")
        settle()
        assert set(by_key(look())) == before
        sup.terminate_child(1)
        sup.terminate_child("1")
        assert set(by_key(look())) == before

    def test_with_a_slash_in_their_ids_have_places_of_their_own(self):
        """A path that could be read in two ways would be two nodes with one key."""
        inner = gpool.ChildSpec(
            "a", gpool.Supervisor.start_link, args=([spec("b")],), type="supervisor"
        )
        top(inner, spec("a/b"))
        look()

    def test_may_have_any_ids(self, quiet):
        """What they are is written without their help."""
        top(spec((1, Trap())), spec(TrapText("x")), spec("password=swordfish"))
        with unsprung(), hub_keeps_to_itself():
            found = tree_of(text="", limit=100)
            tree_of(text="swordfish", limit=100)
        assert "swordfish" not in str(found["roots"])


class TestLimits:
    def test_say_how_many_are_not_shown(self):
        """Children beyond the limit are counted."""
        top(*[spec(str(n)) for n in range(10)])
        found = look(limit=3)
        assert [node["child_id"] for node in found["roots"][0]["children"]] == ["0", "1", "2"]
        assert found["roots"][0]["more"] == 7
        assert found["nodes"] == 11

    def test_hold_for_what_is_found_too(self):
        """A search in thousands shows the first, and how many more match."""
        top(*[spec(f"x{n}") for n in range(10)], spec("y"))
        found = look("x", limit=3)
        assert len(found["roots"][0]["children"]) == 3
        assert found["roots"][0]["more"] == 7

    def test_bear_any_depth(self):
        """Supervisors in supervisors: what is too deep is counted."""

        def nested(depth):
            child = spec("leaf") if not depth else nested(depth - 1)
            return gpool.ChildSpec(
                "in", gpool.Supervisor.start_link, args=([child],), type="supervisor"
            )

        top(nested(60))
        found = look()
        deepest = max(nodes(found), key=lambda node: node["key"].count("/"))
        assert deepest["key"].count("/") == 50
        assert deepest["more"] == 1


class TestFilter:
    def test_keeps_who_is_above(self):
        """What matches, and the way to it; the rest is left out."""
        inner = gpool.ChildSpec(
            "inner", gpool.Supervisor.start_link, args=([spec("wanted"), spec("other")],),
            type="supervisor",
        )  # fmt: skip
        top(spec("beside"), inner)
        found = look("WANTED")
        assert sorted(by_key(found)) == ["top", "top/inner", "top/inner/wanted"]
        assert found["nodes"] == 5
        assert found["filter"] == "WANTED"
        assert look("nothing is called so")["roots"] == []

    def test_finds_by_place_pid_label_and_status(self):
        """And a supervisor itself, without what is below it."""
        sup = top(spec("a"), spec("b"))
        pid = gpool.supervision(sup).children[0].pid
        assert sorted(by_key(look(repr(pid)))) == ["top", "top/a"]
        assert sorted(by_key(look("top"))) == ["top"]
        assert "top/b" in by_key(look("echo"))


class TestRoots:
    def test_are_supervisors_that_nobody_supervises(self):
        """Workers that nobody supervises are none; one without a name has its pid."""
        Echo.start(server_name="echo")
        sup = gpool.Supervisor.start([])
        dynamic = gpool.DynamicSupervisor.start(server_name="dyn")
        found = by_key(look())
        assert sorted(found) == sorted([repr(sup.pid), "dyn"])
        assert found["dyn"]["type"] == "supervisor"
        assert dynamic.pid.id == found["dyn"]["id"]
