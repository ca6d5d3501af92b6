"""psycopg where gevent has not patched: bad input, and what users are told."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import gevent
import psycopg
import pytest
from gevent import monkey

import gpool
from gpool.integrations import _postgresql, psycopg2
from gpool.integrations import psycopg as integration

UNPATCHED = pytest.mark.skipif(monkey.is_module_patched("select"), reason="it is patched")


def resource(*args: Any, **kwargs: Any) -> Any:
    """Return a resource, whether psycopg cooperates here or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return integration.PsycopgResource(*args, **kwargs)


class TestInit:
    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"conninfo": 3}, "conninfo: expected a text or a callable, got int"),
            ({"kwargs": 3}, "kwargs: expected a mapping or a callable, got int"),
            ({"configure": 3}, "configure: expected a callable or None, got 3"),
            ({"reset": "all"}, "reset: expected a callable or None, got 'all'"),
            ({"check": True}, "check: expected a callable or None, got True"),
        ],
    )
    def test_bad_input_is_refused_at_once(self, arguments: dict[str, Any], text: str) -> None:
        """Both drivers' resources say what they expected, and what they got."""
        with pytest.raises(TypeError, match=text):
            resource(**arguments)
        if "conninfo" in arguments:
            arguments, text = {"dsn": 3}, "^dsn: expected a text or a callable, got int"
        with pytest.raises(TypeError, match=text):
            psycopg2.Psycopg2Resource(**arguments)

    @pytest.mark.parametrize(
        ("arguments", "error", "text"),
        [
            ({"connection_class": 3}, TypeError, "a subclass of psycopg.Connection, got 3"),
            ({"connection_class": psycopg.AsyncConnection}, TypeError, "got <class"),
            ({"cancel_timeout": None}, TypeError, "cancel_timeout: expected seconds, got None"),
            ({"cancel_timeout": -1}, ValueError, "cancel_timeout: expected seconds >= 0, got -1"),
        ],
    )
    def test_what_only_psycopg_3_has(
        self, arguments: dict[str, Any], error: type[Exception], text: str
    ) -> None:
        """Expected and got, at construction."""
        with pytest.raises(error, match=text):
            resource(**arguments)

    def test_no_secret_is_shown(self) -> None:
        """A connection string may have a password."""
        assert "secret" not in repr(resource("password=secret"))
        assert "secret" not in repr(psycopg2.Psycopg2Resource("password=secret"))


class TestCooperates:
    @UNPATCHED
    def test_it_is_said_if_queries_block_the_hub(self) -> None:
        """At the line that makes the resource."""
        with pytest.warns(RuntimeWarning, match="each query blocks all greenlets") as seen:
            integration.PsycopgResource()
        assert seen[0].filename == __file__

    @pytest.mark.parametrize(
        ("before", "after", "warned"),
        [("", "import psycopg", False), ("import psycopg", "", True)],
        ids=["patched-first", "psycopg-first"],
    )
    def test_patching_has_to_come_before_psycopg(
        self, before: str, after: str, warned: bool
    ) -> None:
        """It chooses how to wait when it is imported, and in C it waits for good."""
        program = f"{before}\nfrom gevent import monkey; monkey.patch_all()\n{after}\n"
        program += "from gpool.integrations.psycopg import cooperates; print(cooperates())"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True
        )
        assert done.stdout == f"{not warned}\n", done.stderr

    @UNPATCHED
    def test_a_pool_works_all_the_same(self, postgres: str) -> None:
        """One greenlet at a time."""
        with gpool.Pool(resource(postgres), size=2) as pool:
            query = "select %s::int"
            rows = [
                gevent.spawn(pool.transaction, lambda one, i=i: one.execute(query, [i]).fetchone())
                for i in range(5)
            ]
            assert [row.get() for row in rows] == [(0,), (1,), (2,), (3,), (4,)]

    @UNPATCHED
    def test_psycopg2_cooperates_unpatched(self, postgres: str) -> None:
        """It has its callback."""
        with gpool.Pool(psycopg2.Psycopg2Resource(postgres), size=1) as pool:
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
                pool.transaction(lambda one: one.cursor().execute("select pg_sleep(60)"))
            with psycopg2.transaction(pool) as connection, connection.cursor() as cursor:
                cursor.execute("select 1")
                assert cursor.fetchone() == (1,)


class TestSaysGone:
    @pytest.mark.parametrize(
        ("state", "gone"),
        [
            (None, None),
            ("08006", True),  # connection_failure
            ("08P01", True),  # protocol_violation: PgBouncer's word for a server that is gone
            ("57P01", True),  # admin_shutdown
            ("57P02", True),  # crash_shutdown
            ("57P03", True),  # cannot_connect_now
            ("57P05", True),  # idle_session_timeout
            ("57014", None),  # query_canceled
            ("25P03", False),  # idle_in_transaction_session_timeout
            ("25P04", False),  # transaction_timeout
            ("25006", None),  # read_only_sql_transaction, on a primary
            ("23505", None),  # unique_violation
        ],
    )
    def test_which_states_mean_that_the_server_went_away(
        self, state: str | None, gone: bool | None
    ) -> None:
        """None: the connection itself has to tell."""
        assert _postgresql.says_gone(state, is_standby=lambda: False) is gone

    def test_a_standby_that_refuses_to_write_is_not_what_it_was(self) -> None:
        """25006, if the server says that it is one."""
        assert _postgresql.says_gone("25006", is_standby=lambda: True)
