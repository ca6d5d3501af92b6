"""A node that only plays one: it answers as the agent does, from a table.

:class:`FakeNode` has a client's methods, for those that take one; :func:`served` puts it
on a Unix socket.
"""

from __future__ import annotations

import contextlib
import copy
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from gpool import GPoolError
from gpool.observer.client import NodeError, NodeGone

NOW = 1764200000.0
STACK = ['  File "app.py", line 40, in handle\n    page = view(request)',
         '  File "app.py", line 12, in view\n    row = db.checkout()']  # fmt: skip


def row(id: int, label: str, **more: Any) -> dict[str, Any]:
    """Return the row of a process."""
    return {
        "id": id, "pid": f"#PID<{id}>", "label": label, "name": None, "initial_call": label,
        "current_function": "GenServer._loop (gen_server.py:100)", "status": "waiting",
        "mailbox": 0, "restarts": None, "links": 1, "monitors": 0, "monitored_by": 0,
        "age": 75.0, "ended": None, "reason": None,
    } | more  # fmt: skip


def ref(id: int | None, label: str, status: str | None = "waiting") -> dict[str, Any]:
    """Return a process to follow."""
    return {"id": id, "label": label, "status": status}


def branch(key: str, id: int | None, label: str, *children: Any, **more: Any) -> dict[str, Any]:
    """Return a node of the tree."""
    return {
        "key": key, "id": id, "label": label, "child_id": None, "initial_call": label,
        "type": "supervisor" if children else "worker", "status": "waiting", "restarts": 0,
        "strategy": None, "mailbox": 0, "pool": None, "children": list(children), "more": 0,
    } | more  # fmt: skip


def process(of: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return all of a process, whose row is given."""
    return of | {
        "parent": ref(5, "PoolSup"), "ancestors": [ref(5, "PoolSup"), ref(1, "Application")],
        "links": [ref(5, "PoolSup")], "monitors": [ref(None, "a_name", None)],
        "monitored_by": [], "links_more": 0, "monitors_more": 0, "monitored_by_more": 0,
        "supervisor": ref(5, "PoolSup"), "child_id": "pool_man", "type": "worker",
        "strategy": None, "pool": "db", "trap_exit": True, "last_exit": None,
        "stack": STACK, "state_shown": True,
    } | more  # fmt: skip


def pool(name: str = "db", **more: Any) -> dict[str, Any]:
    """Return a pool as it is in a list."""
    zero = (
        "starting finishing resetting closing lost overflow waiting timed_out refused "
        "failed_fast deadlocks cancelled stale reclaimed overheld revoked start_failures unclosed"
    )
    return dict.fromkeys(zero.split(), 0) | {
        "name": name, "state": "ready", "phase": "up", "suspended": False, "healthy": True,
        "size": 10, "max_overflow": 2, "idle": 3, "busy": 7, "oldest_wait": 0.0,
        "oldest_hold": 1.5, "epoch": 1, "breaker": "closed", "last_start_failure": None,
        "sup": ref(5, "PoolSup"), "man": ref(17, "PoolMan"), "worker_sup": ref(6, "WorkerSup"),
    } | more  # fmt: skip


HISTORY: dict[str, list[Any]] = {
    "at": [NOW - 3, NOW - 2, NOW - 1], "idle": [9, 5, 3], "busy": [1, 5, 7],
    "starting": [0, 0, 0], "waiting": [0, 0, 2], "overflow": [0, 0, 0],
    "wait_p50": [None, 0.0012, 0.002], "wait_p95": [None, 0.01, 0.02],
    "wait_p99": [None, 0.1, 0.2], "hold_p50": [None, 0.5, 0.6], "hold_p95": [None, 1.0, 1.1],
    "hold_p99": [None, 2.0, 2.5], "checkouts": [None, 12.0, 14.5],
}  # fmt: skip


def holder(id: int, age: float, line: str = "app.py:12 in view") -> dict[str, Any]:
    """Return who holds a worker."""
    return {"client": ref(id, f"handle_{id}"), "worker": "#PID<30>",
            "worker_process": ref(30, "worker"), "age": age, "line": line}  # fmt: skip


def event(seq: int, level: str, kind: str, text: str, **more: Any) -> dict[str, Any]:
    """Return an event."""
    return {"seq": seq, "at": NOW - 60 + seq, "count": 1, "level": level, "kind": kind,
            "process": None, "pool": None, "text": text} | more  # fmt: skip


EVENTS = [
    event(1, "info", "PoolReady", "pool 'db': 10 workers are up", pool="db"),
    event(2, "error", "ProcessCrashed", "PoolMan died of ValueError('no')",
          process=ref(17, "PoolMan")),
    event(3, "warning", "CheckoutFailed", "nobody let go in 5 s", pool="db", count=4),
]  # fmt: skip


class FakeNode:
    """Answers from its attributes, which a test may change; keeps what it was asked."""

    def __init__(self, node: str = "4711", actions: bool = False) -> None:
        self.node = node
        self.path = f"/nowhere/{node}.sock"
        self.actions = actions
        self.gone = False
        self.has_socket = True  # of one that has crashed, too, until it is asked
        self.refuses: GPoolError | None = None  # what it answers to everything
        self.hub: dict[str, Any] = {"blocked": False}
        self.title = "gunicorn app:app"
        self.rows = [
            row(1, "Application"), row(5, "PoolSup"), row(6, "WorkerSup"),
            row(17, "PoolMan", mailbox=12, restarts=2, monitors=7),
            row(30, "worker", current_function="Doubler.compute (app.py:12)", status="running"),
        ]  # fmt: skip
        self.ended = [row(9, "handle", status="dead", ended=3.0, reason="ValueError('no')")]
        worker = branch("a/p/db/w/0", 30, "worker", child_id="worker")
        workers = branch("a/p/db/w", 6, "WorkerSup", worker, child_id="worker_sup",
                         strategy="one_for_one")  # fmt: skip
        man = branch("a/p/db/m", 17, "PoolMan", child_id="pool_man", restarts=2, mailbox=12)
        sup = branch("a/p/db", 5, "db", workers, man, child_id="db", pool="db",
                     initial_call="PoolSup", strategy="one_for_all")  # fmt: skip
        self.tree = branch("a", 1, "Application", sup, strategy="rest_for_one")
        self.pools = {"db": pool(), "cache": pool("cache", busy=0, idle=10)}
        self.holders = [holder(41, 1.5), holder(42, 0.25)]
        self.waiters = [{"client": ref(43, "handle_43"), "waited": 0.5, "left": 4.5,
                         "line": "app.py:12 in view"}]  # fmt: skip
        self.events = list(EVENTS)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.posted: list[dict[str, Any]] = []

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Answer, as a client does."""
        if self.gone:
            self.has_socket = False
            raise NodeGone(self.path)
        if self.refuses is not None:
            raise self.refuses
        query = {name: value for name, value in query.items() if value not in (None, "")}
        self.asked.append((path, query))
        envelope = {"api": 1, "node": self.node, "now": NOW, "hub": self.hub}
        return envelope | copy.deepcopy(self._answer(path.split("/")[2:], query))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Take an action, and say that it is done."""
        if not self.actions:
            raise NodeError(403, "actions are not allowed here")
        self.posted.append(body)
        done = {"id": 1, "state": "done", "text": body["action"]}
        return {"api": 1, "node": self.node, "now": NOW, "hub": self.hub, "action": done}

    def _answer(self, parts: list[str], query: dict[str, Any]) -> dict[str, Any]:
        match parts:
            case ["node"]:
                return self._about()
            case ["processes"]:
                return self._page(**query)
            case ["processes", id, *rest]:
                return self._process(int(id), rest)
            case ["tree"]:
                return {"roots": [self.tree], "nodes": 5, "filter": query.get("filter", "")}
            case ["pools"]:
                return {"pools": list(self.pools.values())}
            case ["pools", name] if unquote(name) in self.pools:
                return {"pool": self.pools[unquote(name)] | self._details(unquote(name))}
            case ["events"]:
                return self._events(**query)
        raise NodeError(404, f"nothing is called {'/'.join(parts)}")

    def _about(self) -> dict[str, Any]:
        counts = {"processes": len(self.rows), "ended": len(self.ended), "zombies": 0,
                  "pools": len(self.pools), "events": 3}  # fmt: skip
        return {"os_pid": int(self.node), "title": self.title, "python": "3.11.7",
                "gevent": "26.9.0", "gpool": "0.1.0", "started_at": NOW - 7500,
                "actions": self.actions, "measures": False, "counts": counts,
                "caps": {"db": 12}}  # fmt: skip

    def _page(
        self, which: str = "live", sort: str = "label", order: str = "asc",
        page: Any = 1, per: Any = 100, **more: str,
    ) -> dict[str, Any]:  # fmt: skip
        text = more.get("filter", "")
        rows = {"live": self.rows, "ended": self.ended, "zombies": []}[which]
        found = [row for row in rows if text.lower() in row["label"].lower()]
        found.sort(key=lambda row: (row[sort] is not None, row[sort]), reverse=order == "desc")
        page, per = int(page), int(per)
        return {"which": which, "sort": sort, "order": order, "filter": text, "page": page,
                "pages": max(1, -(-len(found) // per)), "per": per, "total": len(found),
                "processes": found[(page - 1) * per : page * per]}  # fmt: skip

    def _process(self, id: int, rest: list[str]) -> dict[str, Any]:
        found = [row for row in self.rows + self.ended if row["id"] == id]
        if not found:
            raise NodeError(404, f"no process #PID<{id}> is known")
        match rest:
            case []:
                return {"process": process(found[0])}
            case ["messages"]:
                return {"length": 12, "messages": ["Down(...)", "('call', 'checkout')"]}
            case ["state"] if id == 17:
                return {"state": "PoolState(\n  idle=3\n)"}
        raise NodeError(403, "state: this process shows none")

    def _details(self, name: str) -> dict[str, Any]:
        here = name == "db"
        return {"holders": self.holders if here else [], "holders_more": 0,
                "waiters": self.waiters if here else [], "waiters_more": 0,
                "errors": [event for event in self.events[::-1] if event["pool"] == name],
                "measured": True, "history": HISTORY}  # fmt: skip

    def _events(self, after: Any = 0, level: str = "info") -> dict[str, Any]:
        levels = ("info", "warning", "error")
        found = [
            event for event in self.events
            if event["seq"] > int(after) and levels.index(event["level"]) >= levels.index(level)
        ]  # fmt: skip
        return {"events": found, "last": max(event["seq"] for event in self.events)}


class FakeNodes:
    """Nodes that need no run directory."""

    def __init__(self, *nodes: FakeNode) -> None:
        self.nodes = {node.node: node for node in nodes}

    def names(self) -> list[str]:
        """Return what those are called that have a socket, live or not."""
        return [name for name, node in self.nodes.items() if node.has_socket]

    def client(self, node: str) -> FakeNode:
        """Return a node, which answers by itself."""
        return self.nodes[node]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        try:
            status, answer = 200, self.server.fake.get(url.path, **dict(parse_qsl(url.query)))
        except NodeError as error:
            status, answer = error.status, {"api": 1, "error": error.message}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return "somebody"


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    fake: FakeNode


@contextlib.contextmanager
def served(fake: FakeNode, run_dir: Path) -> Iterator[FakeNode]:
    """Serve a node on its socket in a run directory, from a thread."""
    with _Server(str(run_dir / f"{fake.node}.sock"), _Handler) as server:
        server.fake = fake
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
