"""The servers that the tests start themselves."""

from __future__ import annotations

import os

import psycopg
import pytest

from tests.servers.postgresql import PostgreSQL


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to be somebody else")
def test_postgresql_starts_where_only_root_may_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a checkout in root's home: another user gets a copy, with all that belongs to it."""
    monkeypatch.setattr(PostgreSQL, "_is_open", lambda self: False)
    with PostgreSQL() as server, psycopg.connect(server.dsn()) as connection:
        assert server.programs.is_relative_to(server.folder)
        assert connection.execute("select 42").fetchone() == (42,)
