"""The example of Django, as its text says: gunicorn, PostgreSQL, and real HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.integrations.django_gunicorn import CHECKOUT, Gunicorn, gunicorn
from tests.observer import wire
from tests.servers.postgresql import PostgreSQL
from tests.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples"
FORM = "application/x-www-form-urlencoded"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """Give a server with the example's table."""
    with PostgreSQL(max_connections=20) as server:
        environment = os.environ | {
            "PYTHONPATH": str(CHECKOUT), "PGHOST": "127.0.0.1", "PGPORT": str(server.port),
        }  # fmt: skip
        said = subprocess.check_output(
            [sys.executable, EXAMPLES / "django_app.py"], env=environment, text=True
        )
        assert "no issues" in said
        yield server


@pytest.fixture(scope="module")
def guestbook(server: PostgreSQL) -> Iterator[Gunicorn]:
    """Give the example, served as it says."""
    options = ("-c", str(EXAMPLES / "django_gunicorn.conf.py"))
    with gunicorn(EXAMPLES, "django_app:application", *options, PGPORT=str(server.port)) as one:
        yield one


def write(guestbook: Gunicorn, text: bytes) -> int:
    """Write an entry, and return what it is answered."""
    body = b"text=" + text.replace(b" ", b"+")
    return wire.ask(guestbook.port, "/", "POST", body, content_type=FORM).status


def read(guestbook: Gunicorn) -> Any:
    """Return the latest entries."""
    return json.loads(guestbook.text("/"))["entries"]


class TestGuestbook:
    def test_keeps_what_many_write_at_once(self, guestbook: Gunicorn) -> None:
        """Each entry is in the latest or in the export, in the order of their numbers."""
        words = {f"word-{number}".encode() for number in range(40)}
        writing = [gevent.spawn(write, guestbook, word) for word in words]
        assert {one.get() for one in writing} == {201}
        assert set(guestbook.text("/export").encode().split()) == words
        assert len(read(guestbook)) == 10

    def test_sees_to_entries_outside_requests(self, guestbook: Gunicorn) -> None:
        """A greenlet of its own counts their words, and gives back what it has borrowed."""
        assert write(guestbook, b"one two three") == 201
        until(lambda: {"text": "one two three", "words": 3} in read(guestbook))

    def test_outlives_its_server(self, guestbook: Gunicorn, server: PostgreSQL) -> None:
        """Whoever comes after the restart is served, by either worker."""
        server.restart()
        assert {write(guestbook, b"after") for _ in range(20)} == {201}

    def test_says_so_while_its_server_is_away(
        self, guestbook: Gunicorn, server: PostgreSQL
    ) -> None:
        """Who asks is told after two seconds; the log says why no connection comes."""
        server.kill()
        assert write(guestbook, b"lost") == 500
        server.start()
        with gevent.Timeout(20):  # connects that fail are tried again after up to five seconds
            while {write(guestbook, b"back") for _ in range(9)} != {201}:
                gevent.sleep(0)
        assert "Connection refused" in guestbook.log
