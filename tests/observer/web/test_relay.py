"""The way from a web server to the nodes."""

from __future__ import annotations

import sys

import pytest
from gevent import subprocess

from gpool.observer.web.relay import Relay, RelayError
from tests.observer.wire import FakeNode, a_run_dir, full_line, hanging_node


@pytest.fixture
def run_dir():
    """Give an empty run directory."""
    with a_run_dir() as path:
        yield path


class TestAsk:
    def test_waits_for_no_place_in_a_line(self, run_dir):
        """A stopped process, before whose socket the line is full, costs no time and no CPU."""
        path = run_dir / "1.sock"
        with (
            hanging_node(path, backlog=0),
            full_line(path),
            pytest.raises(RelayError, match="node 1 does not answer") as caught,
        ):
            Relay(run_dir).ask("1", "GET", "/v1/node", None, {})
        assert caught.value.status == 502
        gone = caught.value.__cause__
        assert gone is not None
        assert isinstance(gone.__cause__, BlockingIOError)  # gevent's own would spin, and time out


class TestThreads:
    def test_need_no_hub_and_keep_none(self, run_dir):
        """Under a server of threads that nobody patched each request leaves no file open."""
        code = f"""
import os, sys, threading
from wsgiref.util import setup_testing_defaults
sys.path.append({sys.path[-1]!r})
from gpool.observer.web.app import App

app = App(lambda environ: True, run_dir={str(run_dir)!r})
bodies = []

def request(path):
    environ = dict(PATH_INFO=path)
    setup_testing_defaults(environ)
    bodies.append(app(environ, lambda status, headers: bodies.append(status[:3])))

def ask(path):
    thread = threading.Thread(target=request, args=(path,))
    thread.start()
    thread.join()

ask("/api/nodes")
before = len(os.listdir("/proc/self/fd"))
for _ in range(3):
    ask("/api/nodes")
    ask("/api/nodes/4711/v1/pools")
assert len(os.listdir("/proc/self/fd")) == before, "files were left open"
print(*bodies)
"""
        with FakeNode(run_dir / "4711.sock"):
            out = subprocess.check_output([sys.executable, "-W", "error", "-c", code], text=True)
        assert out.count("200") == 7
        assert "error" not in out
