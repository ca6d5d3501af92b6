"""What the tests of the benchmarks share: they leave nothing running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpool.pool.application import application


@pytest.fixture(autouse=True)
def no_application_survives() -> Iterator[None]:
    """Stop the pools that a suite has started: other tests want an Application of their own."""
    yield
    application.stop()
