"""What the tests of the pool share: a maker of things, and an Application of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpool import telemetry
from gpool.pool.application import application
from tests.pool.workshop import Maker


@pytest.fixture(autouse=True)
def own_application(no_process_survives: None) -> Iterator[None]:
    """Let every test start the Application, and forget what it left."""
    assert application.root is None
    yield
    for ledger in application.ledgers.values():
        ledger.phase = "stopped"
    application.ledgers.clear()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keep thousands of deaths out of the log."""
    listeners, application.listeners = application.listeners, []
    for listener in listeners:
        telemetry.detach(listener)
    yield
    application.listeners = listeners


@pytest.fixture
def maker() -> Maker:
    """Give the test somebody who makes things."""
    return Maker()
