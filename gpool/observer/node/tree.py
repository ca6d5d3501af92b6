"""The supervision tree, as the API shows it.

A node's *key* is its place, not its process: the ids on the way to it.  So it stays the
same when a child is restarted, and whoever draws the tree can leave it where it was.
Children whose ids are written alike have their turn in the key as well; those of a
dynamic supervisor, where they come and go, as a pool's workers do, the pid.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import gpool
from gpool.observer.node.processes import (
    Search,
    label_of,
    list_of,
    named,
    pool_sups,
    short,
    status_of,
)

DEPTH: Final = 50  # of supervisors in supervisors

Node = dict[str, Any]


def tree_of(*, text: str, limit: int) -> dict[str, Any]:
    """Return all supervision trees.

    Args:
        text: Only what matches it is shown, and who is above that; "": all.
        limit: Children that are shown of each supervisor.
    """
    drawing = _Drawing(Search(text) if text else None, limit)
    roots = [drawing.root(pid) for pid in list_of("live") if _is_root(pid)]
    return {
        "roots": [node for node in roots if node is not None],
        "nodes": drawing.count,
        "filter": text,
    }


def _is_root(pid: gpool.Pid) -> bool:
    return gpool.supervision(pid, 0) is not None and gpool.supervisor_of(pid) is None


class _Drawing:
    """One look at the trees."""

    def __init__(self, search: Search | None, limit: int) -> None:
        self.pools = pool_sups()
        self.search = search
        self.limit = limit
        self.count = 0  # nodes there are, shown or not

    def root(self, pid: gpool.Pid) -> Node | None:
        """Return the tree below a supervisor that is nobody's child."""
        self.count += 1
        key = label_of(pid) if pid.name is not None else repr(pid)
        return self._supervisor(pid, _node(pid, None, key, None), DEPTH)

    def _supervisor(self, pid: gpool.Pid, node: Node, depth: int) -> Node | None:
        """Return the node of a supervisor with its children; None if none of it is looked for."""
        # What is looked for may be any of its children.
        seen = gpool.supervision(pid, self.limit if self.search is None else None)
        assert seen is not None
        node["type"], node["strategy"] = "supervisor", seen.strategy
        node["pool"] = self.pools.get(pid, node["pool"])
        self.count += seen.count
        if depth:
            self._grow(node, seen.children, _places(pid, seen.children), depth - 1)
        node["more"] += seen.count - (len(seen.children) if depth else 0)
        return node if node["children"] or self._finds(pid, node["child_id"]) else None

    def _grow(
        self, node: Node, children: tuple[gpool.Supervised, ...], places: list[str], depth: int
    ) -> None:
        for child, place in zip(children, places, strict=True):
            found = self._child(node, child, f"{node['key']}/{place}", depth)
            if found is not None:
                node["children"].append(found)

    def _child(self, node: Node, child: gpool.Supervised, key: str, depth: int) -> Node | None:
        pid = child.pid
        is_supervisor = pid is not None and gpool.supervision(pid, 0) is not None
        if not is_supervisor and not self._finds(pid, named(child.id)):
            return None
        if len(node["children"]) >= self.limit:
            node["more"] += 1
            return None
        made = _node(pid, child, key, node["pool"])
        return made if pid is None or not is_supervisor else self._supervisor(pid, made, depth)

    def _finds(self, pid: gpool.Pid | None, child_id: str | None) -> bool:
        search = self.search
        if search is None:
            return True
        return search.has(child_id or "") or (pid is not None and search.finds(pid))


def _places(supervisor: gpool.Pid, children: tuple[gpool.Supervised, ...]) -> list[str]:
    """Return what each child adds to its supervisor's key: no two the same."""
    names = [named(child.id).replace("%", "%25").replace("/", "%2F") for child in children]
    counts, turns = Counter(names), Counter[str]()
    come_and_go = issubclass(type(supervisor.server), gpool.DynamicSupervisor)
    for i, name in enumerate(names):
        if counts[name] > 1:
            turns[name] += 1
            names[i] += (
                repr(children[i].pid) if come_and_go and children[i].pid else f"#{turns[name]}"
            )
    return names


def _node(
    pid: gpool.Pid | None, place: gpool.Supervised | None, key: str, pool: str | None
) -> Node:
    child_id = None if place is None else named(place.id)
    return {
        "key": key,
        "id": None if pid is None else pid.id,
        "label": str(child_id) if pid is None else label_of(pid),
        "child_id": child_id,
        "initial_call": None if pid is None else short(pid.initial_call),
        "type": "worker" if place is None else place.type,
        "status": _status(pid, place),
        "restarts": 0 if place is None else place.restarts,
        "strategy": None,
        "mailbox": 0 if pid is None else gpool.process_info(pid, "message_queue_len"),
        "pool": pool,
        "children": [],
        "more": 0,
    }


def _status(pid: gpool.Pid | None, place: gpool.Supervised | None) -> str:
    if pid is not None:
        return status_of(pid)
    return "restarting" if place is not None and place.restarting else "stopped"
