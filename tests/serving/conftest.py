"""What the tests of servers get: an application, and clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.web import Clients, Web, some_clients


@pytest.fixture
def web() -> Web:
    """Give an application."""
    return Web()


@pytest.fixture
def client() -> Iterator[Clients]:
    """Give clients."""
    with some_clients() as clients:
        yield clients
