"""GPOOL_OBSERVER: whoever starts a process may have it looked into, and change no line of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpool
from tests.observer.wire import a_run_dir

USE = """
import os, gpool
def nodes():
    return sorted(name.removesuffix(".sock") for name in os.listdir(os.environ["GPOOL_RUN_DIR"]))
def mine():
    return str(os.getpid()) in nodes()
before = mine()
gpool.self()
"""


def run(code: str, value: str | None, run_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run code that uses gpool, with the variable set so."""
    env = os.environ | {
        "GPOOL_RUN_DIR": str(run_dir), "PYTHONPATH": str(Path(gpool.__file__).parents[1]),
    }  # fmt: skip
    env.pop("GPOOL_OBSERVER", None)
    if value is not None:
        env["GPOOL_OBSERVER"] = value
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", USE + code]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=True)


@pytest.mark.parametrize("value", ["1", "on", "true", "Yes"])
def test_starts_an_agent_at_the_first_use(value: str) -> None:
    """Not at the import, which does nothing."""
    with a_run_dir() as run_dir:
        done = run("print(before, mine())", value, run_dir)
    assert (done.stdout, done.stderr) == ("False True\n", "")


@pytest.mark.parametrize("value", [None, "", "0", "off", "false", "no"])
def test_starts_none_unless_it_says_so(value: str | None) -> None:
    """Whoever writes "false" means it."""
    with a_run_dir() as run_dir:
        done = run("print(mine(), 'gpool.observer' in __import__('sys').modules)", value, run_dir)
    assert (done.stdout, done.stderr) == ("False False\n", "")


def test_starts_one_in_a_forked_child_too() -> None:
    """At its own first use; the parent's goes on."""
    code = """
parent = nodes()
if not os.fork():
    alone = nodes() == parent
    gpool.self()
    print(alone, mine(), parent[0] in nodes(), flush=True)
    os._exit(0)
os.wait()
print(mine())
"""
    with a_run_dir() as run_dir:
        done = run(code, "1", run_dir)
    assert done.stdout == "True True True\nTrue\n"


def test_that_cannot_be_heeded_fails_nobody() -> None:
    """It is said in a line, and gpool is used all the same."""
    with a_run_dir() as folder:
        folder.chmod(0o755)
        done = run("print(gpool.is_alive(gpool.self()))", "1", folder)
    assert done.stdout == "True\n"
    [line] = done.stderr.splitlines()
    assert line.startswith("GPOOL_OBSERVER: no agent was started: run directory")
