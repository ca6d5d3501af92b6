"""The workers of a real gunicorn: each can be looked into, by the page of any of them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.observer import wire
from tests.waiting import until

CHECKOUT = Path(__file__).parents[2]
HOOKS = "from gpool.integrations.gunicorn import child_exit, post_worker_init, worker_exit\n"
SAYS_PORT = """
def when_ready(server):
    print("port", server.LISTENERS[0].getsockname()[1], flush=True)
"""
WORKERS = 3
PATIENCE = 15.0  # s until what should come has come


class Gunicorn:
    """Three workers, and a run directory of their own."""

    def __init__(self, process: subprocess.Popen[str], port: int, run_dir: Path) -> None:
        self.process, self.port, self.run_dir = process, port, run_dir

    def ask(self, path: str) -> Any:
        """Return what some worker answers, if it is one that can."""
        with contextlib.suppress(OSError), gevent.Timeout(2.0, False):
            return wire.ask(self.port, path).body.decode()
        return ""

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return what the page of some worker knows of all of them."""
        said = self.ask("/observer/api/nodes")
        return {one["node"]: one for one in json.loads(said)["nodes"]} if said else {}

    def sockets(self) -> set[str]:
        """Return the nodes that have a socket."""
        return {path.stem for path in self.run_dir.glob("*.sock")}

    def all_up(self) -> dict[str, dict[str, Any]]:
        """Return the nodes once as many are known as there are workers."""
        nodes = self.nodes()
        return nodes if len(nodes) == WORKERS else {}


@pytest.fixture(params=[(), ("--preload",)], ids=["", "preload"])
def gunicorn(request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    """Give a gunicorn that runs."""
    if importlib.util.find_spec("gunicorn") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("gunicorn is not installed")
    with wire.a_run_dir() as folder:
        run_dir, config = folder / "run", folder / "gunicorn.conf.py"
        config.write_text(HOOKS + SAYS_PORT)
        command = [
            sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", str(WORKERS), *request.param,
            "-b", "127.0.0.1:0", "-c", str(config), "tests.observer.gunicorn_app:application",
        ]  # fmt: skip
        env = os.environ | {
            "GPOOL_RUN_DIR": str(run_dir), "PYTHONPATH": str(CHECKOUT), "HOME": str(folder),
        }  # fmt: skip
        with subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline().split()[1])
            yield Gunicorn(process, port, run_dir)
            process.terminate()
            for pid in map(int, {path.stem for path in run_dir.glob("*.sock")}):
                with contextlib.suppress(OSError):  # a blocked one hears no TERM
                    os.kill(pid, signal.SIGKILL)


class TestWorkers:
    def test_are_seen_by_each_other(self, gunicorn: Gunicorn) -> None:
        """Any worker's page shows all three; one is blocked, one is killed, and replaced."""
        before = until(gunicorn.all_up)
        assert set(before) == gunicorn.sockets()
        assert not any(node["hub"]["blocked"] for node in before.values())

        blocked = until(lambda: gunicorn.ask("/block"))
        hub = until(lambda: _hub_of(gunicorn.nodes().get(blocked)))
        assert "in block" in hub["stack"][-1]

        victim = next(node for node in before if node != blocked)
        os.kill(int(victim), signal.SIGKILL)
        after = until(lambda: victim not in (nodes := gunicorn.all_up()) and nodes)
        assert blocked in after
        assert victim not in gunicorn.sockets()
        assert len(set(after) - set(before)) == 1

    def test_take_their_sockets_along(self, gunicorn: Gunicorn) -> None:
        """At an orderly end nothing is left."""
        until(gunicorn.all_up)
        gunicorn.process.terminate()
        until(lambda: gunicorn.process.poll() is not None)
        assert gunicorn.sockets() == set()


def _hub_of(node: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the state of a node's hub if it is blocked."""
    return node["hub"] if node and node.get("hub", {}).get("blocked") else None
