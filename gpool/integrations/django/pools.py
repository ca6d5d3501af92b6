"""The pools of the engine: one for each alias, in each process.

A pool goes with its settings: an alias whose settings have changed, as when a test database
takes the place of the real one, gets another pool, and the old one is stopped as soon as
nobody has anything of it.

A connection comes back in whatever state a request has left it.  The worker then ends its
transaction and has the server forget the session, but for prepared statements: parameters,
role, time zone, advisory locks, cursors, LISTEN, temporary tables.

Source:
    The reset: asyncpg's, and the ``DISCARD ALL`` of pgbouncer.
"""

from __future__ import annotations

import copy
import itertools
import sys
from typing import Any, Final, Protocol

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from gevent import monkey
from gevent.local import local
from psycopg import sql
from psycopg.pq import ConnStatus, TransactionStatus

import gpool

Connection = psycopg.Connection[Any]

KEYS: Final = (
    "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS", "TIME_ZONE", "CONN_HEALTH_CHECKS",
)  # fmt: skip
KEPT: Final = (  # of a connection object, over a reset
    "autocommit", "isolation_level", "read_only", "deferrable", "prepare_threshold",
)  # fmt: skip
FORGET: Final = sql.SQL(
    "RESET SESSION AUTHORIZATION; RESET ALL; CLOSE ALL; UNLISTEN *; "
    "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"
)
ENDED: Final = ("08", "57P", "25006")  # SQLSTATEs: connection gone, shutdown, read-only now
OURS: Final = ("gpool.", "django.", "contextlib", "asgiref.")  # modules that call on behalf of others


class Wrapper(Protocol):
    """What a pool needs of a wrapper."""

    alias: str
    settings_dict: dict[str, Any]
    timezone_name: str
    is_template: bool

    def get_connection_params(self) -> dict[str, Any]:
        """Return what ``psycopg.connect`` gets."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        """Connect."""

    def _configure_connection(self, connection: Connection) -> object:
        """Set role and time zone."""
