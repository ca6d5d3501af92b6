"""Drivers cooperate with gevent only where it has patched: elsewhere there is nothing to collect.

``test_patched.py``, one folder up, runs each of these files in a process of its own, as does
``python -m gevent.monkey --module pytest tests/integrations/patched/test_NAME.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gevent import monkey

from tests.servers.gate import Gate
from tests.servers.postgresql import PostgreSQL
from tests.servers.redis import Redis

if not monkey.is_module_patched("socket"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def a_postgresql() -> Iterator[PostgreSQL]:
    """Give a server that tests must leave as they have found it, running."""
    with PostgreSQL(max_connections=30, max_prepared_transactions=4) as server:
        yield server


@pytest.fixture(scope="session")
def _a_small_postgresql() -> Iterator[PostgreSQL]:
    with PostgreSQL(max_connections=8, superuser_reserved_connections=0) as server:
        yield server


@pytest.fixture
def a_frail_postgresql(_a_small_postgresql: PostgreSQL) -> PostgreSQL:
    """Give a server that the test may kill, freeze and fill: it takes eight connections."""
    return _a_small_postgresql.mend()


@pytest.fixture(scope="session")
def a_redis() -> Iterator[Redis]:
    """Give a server that tests must leave as they have found it, running."""
    with Redis() as server:
        yield server


@pytest.fixture
def gate(server: PostgreSQL | Redis) -> Iterator[Gate]:
    """Give a gate before the fixture `server` of the test's file."""
    with Gate(server.address) as gate:
        yield gate
