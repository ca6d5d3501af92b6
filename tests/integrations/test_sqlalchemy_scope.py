"""SQLAlchemy's connections in scopes: one that was forgotten is nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, exc, text
from sqlalchemy.orm import Session

import gpool
from gpool.integrations.sqlalchemy import SupervisedPool
from gpool.testing import settle


class TestScope:
    def test_closes_a_connection_that_its_client_still_refers_to(self, tmp_path: Path) -> None:
        """Lent again, it would be used by two; the client is told that it is closed."""
        url = f"sqlite:///{tmp_path / 'db'}"
        engine = create_engine(url, poolclass=SupervisedPool, pool_size=1, max_overflow=0)
        with gpool.Scope():
            forgotten = engine.connect()
            before = forgotten.connection.dbapi_connection
        settle()
        with engine.connect() as connection:
            assert connection.connection.dbapi_connection is not before
            with pytest.raises(exc.ProgrammingError, match="closed"):
                forgotten.execute(text("select 1"))
            forgotten.close()
            assert connection.scalar(text("select 1")) == 1
        engine.dispose()

    def test_does_not_touch_what_was_closed(self, tmp_path: Path) -> None:
        """A session that was closed has given its connection back for the next one."""
        engine = create_engine(f"sqlite:///{tmp_path / 'db'}", poolclass=SupervisedPool)
        raw = set()
        for _ in range(3):
            with gpool.Scope(), Session(engine) as session:
                raw.add(session.connection().connection.dbapi_connection)
        assert len(raw) == 1
        engine.dispose()
