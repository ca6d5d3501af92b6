"""The pages: every block of code runs, in an empty folder, beside real servers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.postgresql import PostgreSQL
from tests.servers.redis import Redis

CHECKOUT = Path(__file__).parents[2]
DOCS = CHECKOUT / "docs"
CODE = re.compile(r"^```(?:\w|\{code-block\})", re.MULTILINE)
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if CODE.search(page.read_text())]
PORT = re.compile(r"127\.0\.0\.1:[1-9]")
LIMIT = 60  # s


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Give the environment of a reader who has a PostgreSQL and a Redis."""
    with PostgreSQL() as postgresql, Redis() as redis:
        yield os.environ | {
            "DSN": postgresql.dsn(),
            "POSTGRES_URL": postgresql.url(driver="postgresql+psycopg"),
            "REDIS_URL": redis.url,
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": str(CHECKOUT),
        }


@contextlib.contextmanager
def alone_at_its_ports(page: Path) -> Iterator[None]:
    """Keep pages that name ports apart: several begin at 8000, and tests may run side by side."""
    with open(__file__) as lock:
        if PORT.search(page.read_text()):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.timeout(3 * LIMIT)  # it may have to wait for others
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_runs_as_it_stands(page: Path, environment: dict[str, str]) -> None:
    """All that a page shows, in its order, in a program that gevent has patched."""
    command = [sys.executable, "-m", "gevent.monkey", "--module", "pytest", str(page)]
    with alone_at_its_ports(page):
        process = subprocess.run(
            [*command, "-q", "-p", "no:cacheprovider", "--import-mode=importlib"],
            cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
    nothing_to_run = process.returncode == 5  # text, or run by others
    assert process.returncode == 0 or nothing_to_run, process.stdout + process.stderr
