"""A site of Django under ``gunicorn -k gevent``, over HTTP, on a PostgreSQL that is killed."""

from __future__ import annotations

import http.cookiejar
import itertools
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import gevent
import psycopg
import pytest

from tests.observer import wire
from tests.servers.gunicorn import CHECKOUT, Gunicorn
from tests.servers.postgresql import PostgreSQL
from tests.waiting import until

SITE = Path(__file__).parent / "django_site"
WORKERS, CAP = 2, 6  # processes, and what the pool of each may have

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """Give a server with the tables of the site, and a user of its admin."""
    with PostgreSQL(max_connections=WORKERS * CAP + 8) as server:
        environment = os.environ | {
            "PGPORT": str(server.port), "PYTHONPATH": str(CHECKOUT),
            "DJANGO_SUPERUSER_PASSWORD": "secret",
        }  # fmt: skip
        environment.pop("PYTHONSAFEPATH", None)
        user = ["--noinput", "--username=admin", "--email=admin@example.com"]
        for words in (["migrate", "-v0"], ["createsuperuser", "-v0", *user]):
            subprocess.run(
                [sys.executable, "manage.py", *words], cwd=SITE, env=environment, check=True
            )
        yield server


@pytest.fixture(scope="module")
def site(server: PostgreSQL) -> Iterator[Gunicorn]:
    """Give the site, served by two workers."""
    options = ("-w", str(WORKERS), "--worker-connections", "200", "--chdir", str(SITE))
    database = {"PGHOST": server.address[0], "PGPORT": str(server.port)}
    with Gunicorn("wsgi:application", *options, cwd=SITE, **database) as site:
        yield site


def names(server: PostgreSQL) -> set[str]:
    """Return the names of all items."""
    with psycopg.connect(server.dsn()) as connection:
        return {name for (name,) in connection.execute("select name from shop_item")}


def opened(server: PostgreSQL) -> int:
    """Return how many connections the site has."""
    with psycopg.connect(server.dsn(application_name="watcher")) as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity where backend_type = 'client backend' "
            "and application_name <> 'watcher'"
        ).fetchone()
    assert row is not None
    return int(row[0])


class TestRequests:
    def test_are_one_transaction_each(self, site: Gunicorn, server: PostgreSQL) -> None:
        """What a request has written before it failed is not there."""
        assert site.text("/add/kept") == "kept"
        assert site.get("/add/undone?fail").status == 500
        assert "undone" not in names(server)
        assert "kept" in names(server)

    def test_share_the_connections_of_their_worker(
        self, site: Gunicorn, server: PostgreSQL
    ) -> None:
        """Two hundred at once wait for one another, and the server sees what pools may have."""
        many = [gevent.spawn(site.get, "/count") for _ in range(200)]
        seen: list[int] = []
        until(lambda: seen.append(opened(server)) or all(one.dead for one in many))
        assert {one.get().status for one in many} == {200}
        assert 0 < max(seen) <= WORKERS * CAP

    def test_that_are_left_by_their_client_give_back(self, site: Gunicorn) -> None:
        """A browser that is closed amidst a long answer."""
        for number in range(9):
            site.text(f"/add/long-{number}")
        with wire.connected(site.port) as sock:
            sock.sendall(wire.request(site.port, "/stream?sleep=0.05"))
            assert sock.recv(10)
        for _ in range(2 * WORKERS):
            until(lambda: '"busy": 1' in site.text("/numbers"), "only the asker to be busy")

    def test_of_the_admin_log_in_and_write(self, site: Gunicorn, server: PostgreSQL) -> None:
        """Session, forms, redirects, as a browser goes."""
        base = f"http://127.0.0.1:{site.port}/admin"
        jar = http.cookiejar.CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

        def post(path: str, **form: str) -> str:
            page = browser.open(f"{base}{path}").read().decode()
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
            assert token is not None
            data = urllib.parse.urlencode(form | {"csrfmiddlewaretoken": token[1]}).encode()
            request = urllib.request.Request(f"{base}{path}", data, {"Referer": base})
            return str(browser.open(request).read().decode())

        assert "Site administration" in post(
            "/login/", username="admin", password="secret", next="/admin/"
        )
        assert "was added successfully" in post("/shop/item/add/", name="by admin", _save="Save")
        assert "by admin" in names(server)


class TestOutage:
    def test_costs_those_who_are_in_it(self, site: Gunicorn, server: PostgreSQL) -> None:
        """Killed and started again under load, twice: who comes after that is served."""
        numbers, told = itertools.count(), Told()

        def load() -> None:
            while not told.is_over:
                name = f"load-{next(numbers)}"
                before = told.life
                try:
                    status = site.get(f"/add/{name}").status
                except OSError:  # gunicorn itself is never away
                    status = 0
                told.statuses.append((before is told.life is not None, status))
                if status == 200:
                    told.added.add(name)

        clients = [gevent.spawn(load) for _ in range(10)]
        for _ in range(2):
            told.wait_for_more(50)
            told.life, begun = None, len(told.statuses)
            server.kill()
            told.wait_for_an_error(begun)
            server.start()
            told.life = object()
            told.wait_for_more(50)
        told.is_over = True
        gevent.joinall(clients, raise_error=True)
        assert {status for was_up, status in told.statuses if was_up} == {200}
        assert {status for _, status in told.statuses} == {200, 500}
        assert told.added <= names(server)
        assert opened(server) <= WORKERS * CAP


class TestRefused:
    """What makes every query fail is in the log, though Django's own settings hide the reason."""

    @pytest.mark.parametrize(
        ("options", "environment", "reason"),
        [
            ([], {"SITE": '{"CONN_MAX_AGE": 60}'}, "CONN_MAX_AGE: expected 0, got 60"),
            (
                [],
                {"SITE": '{"OPTIONS": {"gpool": {"sise": 4}}}'},
                "got 'sise' (did you mean 'size'?). OPTIONS",
            ),
            (["--preload"], {}, "patch first (with gunicorn --preload: at the top of gunicorn."),
        ],
        ids=["contradiction", "options", "not patched"],
    )
    def test_is_said_once(
        self, server: PostgreSQL, options: list[str], environment: dict[str, str], reason: str
    ) -> None:
        """For many requests, by each worker."""
        words = ("-w", "1", "--chdir", str(SITE), *options)
        environment |= {"PGHOST": server.address[0], "PGPORT": str(server.port)}
        with Gunicorn("wsgi:application", *words, cwd=SITE, **environment) as site:
            for _ in range(2):
                assert site.get("/count").status == 500
            said = [line for line in site.log.splitlines() if "refuses every query" in line]
            assert [reason in line for line in said] == [True], site.log


class Told:
    """What the clients of a test tell, and are told."""

    def __init__(self) -> None:
        self.statuses: list[
            tuple[bool, int]
        ] = []  # answers, and whether the server was up throughout
        self.added: set[str] = set()  # that were answered with 200
        self.life: object | None = object()  # of the server; None while it is away
        self.is_over = False

    def wait_for_an_error(self, begun: int) -> None:
        """Wait until one of the answers that came after so many was none."""
        until(lambda: any(status == 500 for _, status in self.statuses[begun:]))

    def wait_for_more(self, answers: int) -> None:
        """Wait until so many more were answered well."""
        enough = len(self.added) + answers
        until(lambda: len(self.added) >= enough)
