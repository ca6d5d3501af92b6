"""The names of SQLAlchemy that are nobody's promise, and that the integration is built on."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool, base

MODULE = (
    "ConnectionPoolEntry", "_ConnectionFairy", "_ConnectionRecord", "reset_commit",
    "reset_rollback",
)  # fmt: skip
POOL = (
    "_close_connection", "_creator", "_dialect", "_do_return_conn", "_invalidate",
    "_invalidate_time", "_is_asyncio", "_orig_logging_name", "_pre_ping", "_recycle",
    "_reset_on_return", "_should_log_debug", "dispatch", "echo", "logger",
)  # fmt: skip
FAIRY = (
    "_checkin", "_close_special", "_connection_record", "_counter", "_echo", "_pool", "_reset",
    "dbapi_connection", "detach", "invalidate", "is_valid",
)  # fmt: skip
RECORD = (
    "_checkin_failed", "_soft_invalidate_time", "checkin", "close", "dbapi_connection",
    "fairy_ref", "fresh", "in_use", "invalidate", "record_info", "starttime",
)  # fmt: skip
DIALECT = ("_do_ping_w_event", "do_close", "do_terminate", "driver", "get_driver_connection")


class TestPrivateNames:
    def test_are_there(self) -> None:
        """Else a new version has to be looked at before its users are told that it will do."""
        engine = create_engine("sqlite://", poolclass=QueuePool)
        fairy: Any = engine.raw_connection()
        homes: dict[Any, tuple[str, ...]] = {
            base: MODULE, engine.pool: POOL, fairy: FAIRY, fairy._connection_record: RECORD,
            engine.dialect: DIALECT,
        }  # fmt: skip
        lacking = [
            f"{getattr(home, '__name__', type(home).__name__)}.{name}"
            for home, names in homes.items()
            for name in names
            if not hasattr(home, name)
        ]
        fairy.close()
        engine.dispose()
        assert not lacking, (
            f"SQLAlchemy {sqlalchemy.__version__} lacks {', '.join(lacking)}, which "
            "gpool/integrations/sqlalchemy.py and _sqlalchemy.py are built on"
        )
