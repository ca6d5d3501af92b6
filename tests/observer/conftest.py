"""What the Observer's tests share: an agent of the test's own process, and who asks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.monkey
import gevent.socket
import pytest

import gpool
import gpool.observer
from gpool.observer.client import Client
from tests.pool.conftest import maker, own_application, quiet

__all__ = ["maker", "own_application", "quiet"]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """Give a directory whose path is short enough for a socket."""
    path = tempfile.mkdtemp(prefix="gp", dir="/tmp")
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def observe(run_dir: Path) -> Iterator[Callable[..., Client]]:
    """Give what starts the agent of this process, and returns a client of it."""
    agents: list[Any] = []

    def start(**options: Any) -> Client:
        agents.append(gpool.observer.start(run_dir=run_dir, **options))
        return Client(agents[-1].path, kind=gevent.socket.socket)

    yield start
    gpool.observer.stop()
    for agent in agents:
        agent._leave()


@pytest.fixture
def node(observe: Callable[..., Client]) -> Client:
    """Give a client of this process's agent."""
    return observe()


@pytest.fixture
def agent(node: Client) -> Any:
    """Give this process's agent."""
    return gpool.observer._agent


HEAD = """
import gc, os, signal, sys, threading, time
{patch}
import gevent, gpool, gpool.observer
from gevent.socket import socket
from gpool.observer.client import Client, NodeError, NodeGone, find
from gpool.observer.run_dir import RunDir
from gpool.testing import settle
RUN = sys.argv[1]

def start(**options):
    agent = gpool.observer.start(run_dir=RUN, **options)
    return agent, Client(agent.path, kind=socket)

def in_a_child(fn):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        gevent.reinit()  # as every child has to, unless os.fork is patched
        fn()
        sys.stdout.flush()
        os._exit(0)
    # Not gevent's: that one may miss a child which is faster than its first watcher.
    from gevent import monkey
    assert monkey.get_original("os", "waitpid")(pid, 0)[1] == 0
"""


@pytest.fixture
def script(run_dir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give what runs a script in an interpreter of its own, where it has to end well."""

    def run(
        text: str, *, patched: bool = False, status: int = 0, silent: bool = True, **env: str
    ) -> Any:
        patch = "from gevent import monkey; monkey.patch_all()" if patched else ""
        done = subprocess.run(
            [
                sys.executable, "-W", "ignore::DeprecationWarning", "-c",
                HEAD.format(patch=patch) + textwrap.dedent(text), str(run_dir),
            ],
            capture_output=True, text=True, timeout=25, check=False, env={**os.environ, **env},
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert not silent or done.stderr == ""
        return done

    return run


def blocking(fn: Callable[..., Any], *args: Any, busy: bool = False) -> Any:
    """Call `fn` in a native thread, and block this one and its hub, in C or Python, meanwhile."""
    thread = gevent.monkey.get_original("_thread", "start_new_thread")
    done = gevent.monkey.get_original("_thread", "allocate_lock")()
    done.acquire()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(fn(*args))
        except BaseException as error:  # noqa: BLE001  # raised again, where it is noticed
            outcome.append(error)
        finally:
            done.release()

    thread(run, ())
    while busy and not outcome:
        pass
    assert done.acquire(timeout=20)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def outside(client: Client) -> Client:
    """Return a client that asks from another thread."""
    return Client(client.path, kind=gevent.monkey.get_original("socket", "socket"))
