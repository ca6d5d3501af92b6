"""A real browser, the Observer's server, and processes to look at: each a process of its own.

The browser is the system's Chromium, driven by Playwright: nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import monkey

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PROGRAM = Path(__file__).with_name("observed.py")
SERVER = "from gpool.observer.web.server import serve; serve(port=0, allow_actions=True)"

# Ask every second, unless the test has chosen.
SOON = "localStorage['gpool-observer-pace'] ??= JSON.stringify({ seconds: 1, paused: false })"
# A violation is no error by itself: it is made one, so that no test overlooks it.
REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error("CSP", event.violatedDirective, event.blockedURI, event.sourceFile, event.sample));
"""


def missing(what: str) -> Any:
    """Skip, and say why; in CI that is a failure."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


def program() -> str:
    """Return the path of the browser."""
    chosen = os.environ.get("GPOOL_BROWSER")
    found = chosen or next(filter(None, map(shutil.which, NAMES)), None)
    return found or missing(f"no browser: none of {', '.join(NAMES)} is on PATH")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Give a browser without a window."""
    if monkey.is_module_patched("socket"):
        pytest.skip("Playwright's event loop does not run in a process that gevent has patched")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed")
    executable = program()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Observed:
    """A process to look at, and its levers: see ``observed.py``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.node = str(process.pid)

    def pull(self, lever: str) -> None:
        """Pull a lever; blocks until it has been pulled."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{lever}\n")
        self.process.stdin.flush()
        self.wait()

    def wait(self) -> None:
        """Wait for the process to say that it is ready."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"


@contextlib.contextmanager
def observed(run_dir: Path, *, workers: int = 3) -> Iterator[Observed]:
    """Give a process with an agent, two pools, and those who hold and wait."""
    with _started(run_dir, str(PROGRAM), str(workers)) as process:
        it = Observed(process)
        it.wait()
        yield it


@contextlib.contextmanager
def served(run_dir: Path) -> Iterator[str]:
    """Give the address of the Observer, with its token."""
    with _started(run_dir, "-c", SERVER) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        yield next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))


@contextlib.contextmanager
def _started(run_dir: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    env = os.environ | {"GPOOL_RUN_DIR": str(run_dir), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
