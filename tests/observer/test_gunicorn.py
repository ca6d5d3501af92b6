"""The workers of a real gunicorn: each can be looked into, by the page of any of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from tests.servers.gunicorn import Gunicorn
from tests.waiting import until

HOOKS = "from gpool.integrations.gunicorn import child_exit, post_worker_init, worker_exit\n"
WORKERS = 3


class Observed(Gunicorn):
    """Three workers."""

    def __init__(self, *options: str) -> None:
        application = "tests.observer.gunicorn_app:application"
        super().__init__(application, "-w", str(WORKERS), *options, config=HOOKS)

    def ask(self, path: str) -> str:
        """Return what some worker answers, if it is one that can."""
        with contextlib.suppress(OSError), gevent.Timeout(2.0, False):
            return self.get(path).body.decode()
        return ""

    def nodes(self) -> dict[int, dict[str, Any]]:
        """Return what the page of some worker knows of all of them."""
        said = self.ask("/observer/api/nodes")
        return {int(one["node"]): one for one in json.loads(said)["nodes"]} if said else {}

    def all_up(self) -> dict[int, dict[str, Any]]:
        """Return the nodes once as many are known as there are workers."""
        nodes = self.nodes()
        return nodes if len(nodes) == WORKERS else {}


@pytest.fixture(params=[(), ("--preload",)], ids=["", "preload"])
def gunicorn(request: pytest.FixtureRequest) -> Iterator[Observed]:
    """Give a gunicorn that runs."""
    with Observed(*request.param) as gunicorn:
        yield gunicorn


class TestWorkers:
    def test_are_seen_by_each_other(self, gunicorn: Observed) -> None:
        """Any worker's page shows all three; one is blocked, one is killed, and replaced."""
        before = until(gunicorn.all_up)
        assert set(before) == gunicorn.sockets()
        assert not any(node["hub"]["blocked"] for node in before.values())

        blocked = int(until(lambda: gunicorn.ask("/block")))
        hub = until(lambda: _hub_of(gunicorn.nodes().get(blocked)))
        assert "in block" in hub["stack"][-1]

        victim = next(node for node in before if node != blocked)
        os.kill(victim, signal.SIGKILL)
        after = until(lambda: victim not in (nodes := gunicorn.all_up()) and nodes)
        assert blocked in after
        assert victim not in gunicorn.sockets()
        assert len(set(after) - set(before)) == 1

    def test_take_their_sockets_along(self, gunicorn: Observed) -> None:
        """At an orderly end nothing is left."""
        until(gunicorn.all_up)
        os.kill(gunicorn.pid, signal.SIGTERM)
        gunicorn.end()
        assert gunicorn.sockets() == set()


def _hub_of(node: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the state of a node's hub if it is blocked."""
    return node["hub"] if node and node.get("hub", {}).get("blocked") else None
