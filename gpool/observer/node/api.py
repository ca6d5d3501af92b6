"""The API of one node: what its agent answers, version 1.

    GET  /v1/node                        who it is, how many processes and pools
    GET  /v1/processes                   a page of them: which, sort, order, filter, page, per
    GET  /v1/processes/17                one, whole
    GET  /v1/processes/17/messages       the first that wait for it: limit
    GET  /v1/processes/17/state          what its format_status shows
    GET  /v1/tree                        the supervision trees: filter, limit
    GET  /v1/pools                       all
    GET  /v1/pools/db                    one, with holders, waiters and history: after
    GET  /v1/events                      the latest: after, level
    POST /v1/actions                     do something, if the agent allows it
    GET  /v1/actions/3                   what has become of that

Every answer is a JSON object with ``api``, ``node``, ``now`` and the state of the ``hub``;
an error has an ``error``, a sentence.  Looking changes nothing, messages nobody and calls
nothing that a user has written; but a state is the server's to tell, so its ``format_status``
is asked, and only where somebody wrote one (or the agent was told to show all).
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from itertools import islice
from time import time
from typing import Any, Final
from weakref import WeakKeyDictionary

import gevent

import gpool
from gpool.observer.node import pools, processes
from gpool.observer.node.actions import Actions
from gpool.observer.node.errand import Question, said_by
from gpool.observer.node.events import LEVELS, Events
from gpool.observer.node.history import History
from gpool.observer.node.raw import writer_of
from gpool.observer.node.reader import Reader
from gpool.observer.node.request import Refused, Request
from gpool.observer.node.secrets import HIDDEN, is_secret
from gpool.observer.node.text import cut, shown
from gpool.observer.node.tree import tree_of

VERSION: Final = 1
STATE_TIMEOUT: Final = 0.2  # s that a server may take to tell its state
STATE: Final = 4000  # characters of a state
ATTRIBUTES: Final = 100  # of a state
PAGE: Final = 500  # processes that a page may have at most
ERRORS: Final = 20  # events that a pool's detail tells
NUMBER: Final = 10**12  # no process, page or event has a higher one

Answer = dict[str, Any]


class Api:
    """The WSGI application of one agent.

    Args:
        node: What the node is called.
        hub: The observed one.
        allow_actions: Whether anything may be done.
        show_state: Whether every server's state is shown, not only by ``format_status``.
        measure: Whether waits and holds are measured while nobody looks.
    """

    def __init__(
        self, node: str, hub: Any, *, allow_actions: bool, show_state: bool, measure: bool
    ) -> None:
        self.node = node
        self.started_at = time()
        self.reader = Reader(hub)
        self.events = Events()
        self.history = History(self.reader, always=measure)
        self.actions = Actions(self.events, allowed=allow_actions)
        self._show_state = show_state
        self._asked: WeakKeyDictionary[gpool.Pid, Question] = WeakKeyDictionary()  # unanswered

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        hub: dict[str, Any] = {"blocked": False}
        try:
            answer, hub, status = self._answer(Request(environ))
        except Refused as refused:
            answer, status = {"error": refused.message}, refused.status
        except Exception as error:  # noqa: BLE001  # ours: whoever looks is to know
            answer, status = {"error": f"the agent failed: {shown(error)}"}, 500
        envelope = {"api": VERSION, "node": self.node, "now": round(time(), 3), "hub": hub}
        body = json.dumps({**envelope, **answer}, allow_nan=False).encode()
        start_response(
            f"{status} {HTTPStatus(status).phrase}",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body))),
             ("Cache-Control", "no-store")],
        )  # fmt: skip
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, request: Request) -> tuple[Answer, dict[str, Any], int]:
        if request.method == "POST":
            return self._act(request), {"blocked": False}, 202
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, f"method: expected GET, got {request.method[:20]!r}")
        match request.parts:
            case ["v1", "node"]:
                self.events.word()  # they are counted
                return *self._read(self._node, request), 200
            case ["v1", "processes"]:
                return *self._processes(request), 200
            case ["v1", "processes", number]:
                return *self._process(request, number, self._detail), 200
            case ["v1", "processes", number, "messages"]:
                return *self._messages(request, number), 200
            case ["v1", "processes", number, "state"]:
                return *self._state(request, number), 200
            case ["v1", "tree"]:
                return *self._tree(request), 200
            case ["v1", "pools"]:
                self.history.look()
                return *self._read(pools.pools_of, request), 200
            case ["v1", "pools", name]:
                return *self._pool(request, name), 200
            case ["v1", "events"]:
                return *self._events(request), 200
            case ["v1", "actions", number] if request.method == "GET":
                return {"action": self.actions.outcome(_number(number))}, {"blocked": False}, 200
        raise Refused(404, f"path: expected one of the API's, got {request.path[:80]!r}")

    def _read(
        self, fn: Callable[[], Answer], request: Request, *known: str
    ) -> tuple[Answer, dict[str, Any]]:
        request.only(*known)
        return self.reader.read(fn)

    # --- Who it is ---

    def _node(self) -> Answer:
        return {
            "os_pid": os.getpid(),
            "title": _title(),
            "python": platform.python_version(),
            "gevent": gevent.__version__,
            "gpool": gpool.__version__,
            "started_at": round(self.started_at, 3),
            "actions": self.actions.allowed,
            "measures": self.history.measures,
            "counts": {
                **{
                    "processes" if which == "live" else which: len(processes.list_of(which))
                    for which in processes.KINDS
                },
                "pools": len(gpool.running_pools()),
                "events": self.events.last,
            },
            "caps": pools.caps(),
        }

    # --- Processes ---

    def _processes(self, request: Request) -> tuple[Answer, dict[str, Any]]:
        request.only("which", "sort", "order", "filter", "page", "per")
        which = request.word("which", "live", processes.KINDS)
        sort = request.word("sort", "label", processes.COLUMNS)
        descending = request.word("order", "asc", ("asc", "desc")) == "desc"
        text = request.text("filter")
        page, per = request.number("page", 1, 1, NUMBER), request.number("per", 100, 1, PAGE)
        return self.reader.read(
            lambda: processes.page_of(
                which=which, sort=sort, descending=descending, text=text, page=page, per=per
            )
        )

    def _process(
        self, request: Request, number: str, look: Callable[[gpool.Pid], Answer]
    ) -> tuple[Answer, dict[str, Any]]:
        request.only()
        wanted = _number(number)

        def read() -> Answer:
            pid = processes.find(wanted)
            return {} if pid is None else look(pid)

        answer, hub = self.reader.read(read)
        if not answer:
            raise Refused(404, f"#PID<{wanted}>: it never was, or has ended long ago")
        return answer, hub

    def _detail(self, pid: gpool.Pid) -> Answer:
        return {"process": processes.detail_of(pid, self._shows_state)}

    def _messages(self, request: Request, number: str) -> tuple[Answer, dict[str, Any]]:
        request.only("limit")
        limit, wanted = request.number("limit", 20, 1, 100), _number(number)

        def read() -> tuple[int, list[Any]] | None:
            pid = processes.find(wanted)
            if pid is None:
                return None
            return gpool.process_info(pid, "message_queue_len"), gpool.peek(pid, limit)

        found, hub = self.reader.read(read)
        if found is None:
            raise Refused(404, f"#PID<{wanted}>: it never was, or has ended long ago")
        length, messages = found
        return {"length": length, "messages": [shown(message) for message in messages]}, hub

    # --- State ---

    def _shows_state(self, pid: gpool.Pid) -> bool:
        """Tell whether a process is a server, and one that shows its state."""
        kind = type(pid.server)
        if not issubclass(kind, gpool.GenServer):
            return False
        return self._show_state or writer_of(kind, "format_status") is not gpool.GenServer

    def _state(self, request: Request, number: str) -> tuple[Answer, dict[str, Any]]:
        def look(pid: gpool.Pid) -> Answer:
            return {"pid": pid if self._shows_state(pid) else None}

        found, hub = self._process(request, number, look)
        pid = found["pid"]
        if pid is None:
            raise Refused(403, "state: this process shows none; its class has no format_status")
        if hub["blocked"]:
            raise Refused(409, "state: the hub is blocked, nobody can be asked")
        return {"state": _lines(self._status(pid).state)}, hub

    def _status(self, pid: gpool.Pid) -> gpool.sys.Status:
        question = self._asked.get(pid)
        if question is None:  # else its last one still waits for it: another would be a burden
            question = self._asked[pid] = Question(pid)
            question.begin()
        if question.over.wait(STATE_TIMEOUT):
            self._asked.pop(pid, None)
        if question.failure is not None:
            raise Refused(409, f"state: {said_by(question.failure)}")
        if question.status is None:
            raise Refused(409, f"state: {pid!r} is busy, it did not answer in {STATE_TIMEOUT} s")
        return question.status

    # --- The rest ---

    def _tree(self, request: Request) -> tuple[Answer, dict[str, Any]]:
        request.only("filter", "limit")
        text, limit = request.text("filter"), request.number("limit", 100, 1, 1000)
        return self.reader.read(lambda: tree_of(text=text, limit=limit))

    def _pool(self, request: Request, name: str) -> tuple[Answer, dict[str, Any]]:
        request.only("after")
        after = request.seconds("after", 0.0)
        self.history.look()

        def read() -> Answer | None:
            pool = pools.find(name)
            if pool is None:
                return None
            return {**pools.detail_of(pool), "errors": [entry.told() for entry in errors]}

        errors = self.events.of_pool(name, ERRORS)
        found, hub = self.reader.read(read)
        if found is None:
            raise Refused(404, f"pool {name[:80]!r}: it does not run")
        found["measured"] = self.history.measures
        found["history"] = self.history.of(name, after)
        return {"pool": found}, hub

    def _events(self, request: Request) -> tuple[Answer, dict[str, Any]]:
        request.only("after", "level")
        after, level = request.number("after", 0, 0, NUMBER), request.word("level", "info", LEVELS)
        found = self.events.after(after, level)
        events, hub = self.reader.read(lambda: [entry.told() for entry in found])
        return {"events": events, "last": self.events.last}, hub

    def _act(self, request: Request) -> Answer:
        if request.parts != ["v1", "actions"]:
            raise Refused(405, "method: expected GET")
        if request.environ.get("HTTP_X_GPOOL_ACTION") != "1":
            raise Refused(403, "actions: expected the header X-GPool-Action: 1")
        peer = request.environ.get("gpool.peer", "somebody")
        return {"action": self.actions.begin(request.body(), peer)}


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise Refused(404, f"path: expected a number, got {text[:40]!r}")
    return int(text)


def _title() -> str:
    """Return the command line, without the secrets that it has."""
    program, *arguments = getattr(sys, "argv", []) or [""]
    return cut(" ".join([os.path.basename(program) or "python", *arguments]))


def _lines(state: Any) -> str:
    """Return a state as text, an attribute a line."""
    kind = type(state)
    if kind is str:
        return cut(state, STATE)
    if kind is dict:
        pairs = list(islice(state.items(), ATTRIBUTES))
        more = [f"... {len(state) - len(pairs)} more"] if len(state) > len(pairs) else []
        return cut("\n".join([*(_line(name, value) for name, value in pairs), *more]), STATE)
    return shown(state, STATE)


def _line(name: Any, value: Any) -> str:
    return f"{shown(name)}: {HIDDEN if is_secret(name) else shown(value)}"
