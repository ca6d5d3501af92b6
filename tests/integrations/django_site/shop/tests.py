"""Tests of the site, run by its own ``manage.py test``."""

import threading

from django.db import connection
from django.test import LiveServerTestCase, TestCase, TransactionTestCase
from gevent import monkey

from shop.models import Item


class Rows(TestCase):
    """Each test is rolled back."""

    def test_first(self):
        """An item is there in its test."""
        Item.objects.create(name="one")
        assert self.client.get("/count").content == b"1"

    def test_second(self):
        """And not in the next one."""
        assert Item.objects.count() == 0

    def test_uses_a_pool_where_gevent_has_patched(self):
        """And a connection of its own elsewhere; of a test database in any case."""
        assert (connection.pool is not None) == monkey.is_module_patched("threading")
        with connection.cursor() as cursor:
            cursor.execute("select current_database()")
            assert "test_" in cursor.fetchone()[0]


class Threads(TransactionTestCase):
    """Committed, and flushed at the end."""

    def test_see_what_is_committed(self):
        """Each thread has a connection of its own."""
        Item.objects.create(name="one")
        found = []

        def look():
            found.append(Item.objects.count())
            connection.close()

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [1] * 8


class Live(LiveServerTestCase):
    """A server in a thread."""

    def test_answers(self):
        """With what was committed."""
        from urllib.request import urlopen

        Item.objects.create(name="one")
        with urlopen(f"{self.live_server_url}/count") as answer:
            assert answer.read() == b"1"
