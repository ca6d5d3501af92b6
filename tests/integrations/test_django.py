"""Django's engine outside gevent servers: its system checks, and ``manage.py`` of a site."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import checks as django_checks
from django.test.utils import override_settings

from gpool.integrations.django import checks
from tests.integrations.django_alias import add_alias, connections
from tests.servers.postgresql import PostgreSQL

SITE = Path(__file__).parent / "django_site"
CHECKOUT = SITE.parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """Give a server with room for twenty, three of them reserved."""
    with PostgreSQL(max_connections=20) as server:
        yield server


class Manage:
    """Runs commands of a site, in processes of their own."""

    def __init__(self, server: PostgreSQL) -> None:
        self.environment = os.environ | {
            "PGPORT": str(server.port), "PYTHONPATH": str(CHECKOUT), "PYTHONWARNINGS": "error",
            "DJANGO_SUPERUSER_PASSWORD": "secret",
        }  # fmt: skip
        self.environment.pop("PYTHONSAFEPATH", None)

    def __call__(self, *words: str, patched: bool = False, fails: bool = False) -> str:
        """Return what a command says."""
        how = ["-m", "gevent.monkey"] if patched else []
        done = subprocess.run(
            [sys.executable, *how, "manage.py", *words], cwd=SITE, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def manage(server: PostgreSQL) -> Manage:
    """Give the command of a site that has its tables."""
    manage = Manage(server)
    manage("migrate")
    return manage


@pytest.mark.timeout(120)
class TestManage:
    @pytest.mark.parametrize("patched", [False, True], ids=["unpatched", "patched"])
    def test_runs_the_tests_of_a_site(self, manage: Manage, patched: bool) -> None:
        """In a database that is made for them, and can be dropped after them."""
        said = manage("test", "--noinput", patched=patched)
        assert "Ran 5 tests" in said
        assert "Destroying test database" in said

    def test_runs_tests_side_by_side(self, manage: Manage) -> None:
        """In clones of that database, which wants nobody in it."""
        said = manage("test", "--noinput", "--parallel=2")
        assert "Ran 5 tests" in said
        assert said.count("Destroying test database") == 3

    def test_runs_patched_as_well(self, manage: Manage) -> None:
        """Commands that migrate and write, on connections of the pool."""
        assert "No migrations to apply" in manage("migrate", patched=True)
        assert "No changes detected" in manage("makemigrations", "--check", patched=True)
        who = ("--username=admin", "--email=admin@example.com")
        assert "created" in manage("createsuperuser", "--noinput", *who, patched=True)
        manage("flush", "--noinput", patched=True)
        code = "from shop.models import Item as I; I(name='x').save(); print(I.objects.count())"
        assert manage("shell", "-v0", "-c", code, patched=True).split() == ["1"]

    def test_starts_the_shell_of_the_server(
        self, manage: Manage, server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``dbshell`` finds where it is."""
        path = os.pathsep.join([str(server.programs), manage.environment["PATH"]])
        monkeypatch.setitem(manage.environment, "PATH", path)
        said = manage("dbshell", "--", "-Atc", "select current_user, 2 * 21")
        assert said.strip() == "postgres|42"

    def test_says_what_is_wrong(self, manage: Manage, monkeypatch: pytest.MonkeyPatch) -> None:
        """``check`` fails on contradictions; whether gevent patches, it tells deployers."""
        assert "no issues" in manage("check", "--database=default")
        assert "gpool.W001" in manage("check", "--deploy")
        assert "gpool" not in manage("check", "--deploy", patched=True)
        monkeypatch.setitem(manage.environment, "SITE", '{"CONN_MAX_AGE": 60}')
        monkeypatch.setitem(manage.environment, "SITE_PROCESSES", '"four"')
        found = manage("check", fails=True)
        assert "gpool.E001" in found
        assert "gpool.E004" in found


@pytest.fixture
def alias(server: PostgreSQL, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the only alias there is, with the settings of the test's parameter."""
    yield from only(server, **getattr(request, "param", {}))


def only(server: PostgreSQL, **settings: Any) -> Iterator[str]:
    """Yield an alias of a server, and remove it."""
    alias = add_alias(server.port, **settings)
    hidden = connections.settings.pop("default")
    yield alias
    connections[alias].close()
    del connections[alias], connections.settings[alias]
    connections.settings["default"] = hidden


def said(found: list[django_checks.CheckMessage]) -> list[tuple[str | None, str]]:
    """Return number and text of each message; each says what to do."""
    assert all(message.hint for message in found)
    return [(message.id, message.msg) for message in found]


class TestSettings:
    def test_that_are_right_are_not_mentioned(self, alias: str) -> None:
        """With and without options."""
        assert checks.check_settings(None) == []

    @pytest.mark.parametrize(
        ("alias", "number", "fault"),
        [
            ({"CONN_MAX_AGE": 60}, "gpool.E001", "CONN_MAX_AGE: expected 0, got 60"),
            ({"CONN_MAX_AGE": None}, "gpool.E001", "CONN_MAX_AGE: expected 0, got None"),
            ({"OPTIONS": {"pool": True}}, "gpool.E002", "Django's pool within gpool's"),
            ({"OPTIONS": {"pool": {"max_size": 3}}}, "gpool.E002", "Django's pool"),
            ({"OPTIONS": {"gpool": True}}, "gpool.E003", "expected a dict, got True"),
            ({"gpool": {"sise": 3}}, "gpool.E003", "got 'sise'"),
            ({"gpool": {"size": "3"}}, "gpool.E003", "size: expected a whole number, got '3'"),
        ],
        indirect=["alias"],
    )
    def test_that_contradict_a_pool_are_errors(self, alias: str, number: str, fault: str) -> None:
        """Each names its alias."""
        ((found, text),) = said(checks.check_settings(None))
        assert (found, f"DATABASES['{alias}']" in text) == (number, True)
        assert fault in text

    @pytest.mark.parametrize(
        "alias", [{"ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": 60}], indirect=True
    )
    def test_of_other_engines_are_their_own_affair(self, alias: str) -> None:
        """Nothing is said of them."""
        for check in (checks.check_settings, checks.check_patched, checks.check_patched_at_all):
            assert check(None) == []


class TestProcesses:
    @pytest.mark.parametrize("number", ["four", "4", -4, 0, True, 2.0, [2]])
    def test_are_a_whole_number(self, number: Any) -> None:
        """Anything else is an error, and not ignored as if nothing had been said."""
        with override_settings(GPOOL_PROCESSES=number):
            ((found, text),) = said(checks.check_processes(None))
            assert checks.processes() is None
        assert found == "gpool.E004"
        assert text == f"GPOOL_PROCESSES: expected a whole number of at least 1, got {number!r}."

    @pytest.mark.parametrize("number", [1, 8, None])
    def test_that_are_one_or_not_said_are_right(self, number: int | None) -> None:
        """None is as if the setting was not there."""
        with override_settings(GPOOL_PROCESSES=number):
            assert checks.check_processes(None) == []
        assert checks.check_processes(None) == []


class TestPatched:
    @pytest.mark.parametrize(
        ("patched", "faults"),
        [
            (set(), []),
            ({"threading", "socket", "select"}, []),
            ({"socket", "select"}, ["has patched, but not threading"]),
            ({"threading"}, ["has patched, but not socket, select"]),
        ],
        ids=["nothing", "all", "no threads", "threads only"],
    )
    def test_is_all_or_nothing(
        self, alias: str, monkeypatch: pytest.MonkeyPatch, patched: set[str], faults: list[str]
    ) -> None:
        """Where nothing is patched, as under manage.py, nothing is wrong."""
        monkeypatch.setattr(checks, "cooperates", lambda: True)
        monkeypatch.setattr(checks, "assert_per_greenlet", lambda: None)
        monkeypatch.setattr(checks.monkey, "is_module_patched", patched.__contains__)
        found = said(checks.check_patched(None))
        assert [number for number, _ in found] == ["gpool.W001"] * len(faults)
        assert all(fault in text for fault, (_, text) in zip(faults, found, strict=True))

    def test_is_before_psycopg_and_django_are_imported(self) -> None:
        """Or queries block, and greenlets share a connection: both are said, one fails."""
        code = (
            "from tests.integrations.django_alias import add_alias, connections\n"
            "import gpool.integrations.django.base, gevent.monkey\n"
            "gevent.monkey.patch_all()\n"
            "from gpool.integrations.django import checks\n"
            "alias = add_alias(1)\n"
            "connections[alias]\n"
            "print(*checks.check_patched(None), sep='\\n')\n"
            "connections[alias].ensure_connection()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=30
        )
        assert "(gpool.W001) psycopg was imported before gevent patched" in done.stdout
        assert "(gpool.W001) all greenlets share one database connection" in done.stdout
        assert "ImproperlyConfigured: all greenlets share" in done.stderr

    @pytest.mark.parametrize("patched", [True, False])
    def test_is_what_a_deployment_wants(
        self, alias: str, monkeypatch: pytest.MonkeyPatch, patched: bool
    ) -> None:
        """Nothing patched is worth a warning there."""
        monkeypatch.setattr(checks.monkey, "is_module_patched", lambda name: patched)
        found = said(checks.check_patched_at_all(None))
        assert [number for number, _ in found] == ([] if patched else ["gpool.W001"])


class TestRoom:
    @pytest.fixture(autouse=True)
    def without_web_concurrency(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have nobody say how many processes there are."""
        monkeypatch.delenv("WEB_CONCURRENCY", raising=False)

    def test_is_not_looked_at_unless_asked(self, alias: str) -> None:
        """Only with ``--database`` the server is asked."""
        connections.settings[alias]["PORT"] = 1
        assert checks.check_room(None) == []

    @pytest.mark.parametrize("alias", [{"gpool": {"size": 10, "max_overflow": 7}}], indirect=True)
    def test_is_enough_if_the_sum_fits(self, alias: str) -> None:
        """Of twenty connections three are reserved."""
        assert checks.check_room(None, [alias]) == []

    @pytest.mark.parametrize("alias", [{"gpool": {"size": 10, "max_overflow": 8}}], indirect=True)
    def test_is_short_by_one(self, alias: str) -> None:
        """It says how it counts, and how to tell it of other processes."""
        ((number, text),) = said(checks.check_room(None, [alias]))
        assert number == "gpool.W002"
        assert f"18 connections (18 of '{alias}'); the server takes 17" in text
        assert "GPOOL_PROCESSES" in str(checks.check_room(None, [alias])[0].hint)

    @pytest.mark.parametrize("alias", [{"gpool": {"size": 5}}], indirect=True)
    def test_counts_all_processes_and_all_aliases(
        self, alias: str, server: PostgreSQL, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On one server, whichever alias was asked for."""
        other = add_alias(server.port, gpool={"size": 4})
        try:
            assert checks.check_room(None, [alias, other]) == []
            with override_settings(GPOOL_PROCESSES=2):
                ((_, text),) = said(checks.check_room(None, [other]))
            monkeypatch.setenv("WEB_CONCURRENCY", "2")
            assert said(checks.check_room(None, [alias])) == [("gpool.W002", text)]
        finally:
            del connections[other], connections.settings[other]
        assert f"18 connections (5 of '{alias}' + 4 of '{other}', in each of 2 processes)" in text


class TestRegister:
    def test_is_all_that_the_application_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its `ready` starts nothing, and registers each check once."""
        from django.apps import AppConfig

        registry = django_checks.registry.CheckRegistry()
        monkeypatch.setattr(checks.checks, "register", registry.register)
        AppConfig.create("gpool.integrations.django").ready()
        names = {check.__name__ for check in registry.get_checks(include_deployment_checks=True)}
        assert names == {
            "check_settings", "check_processes", "check_patched", "check_patched_at_all",
            "check_room",
        }  # fmt: skip
        assert {check.__name__ for check in registry.get_checks()} == names - {
            "check_patched_at_all"
        }
