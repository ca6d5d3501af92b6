"""What these tests get: a driver that takes notes, and pools of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpool.integrations.sqlalchemy import SupervisedPool
from gpool.testing import VirtualClock
from tests.integrations.fake_driver import Driver


@pytest.fixture
def driver() -> Driver:
    """Give a driver that takes notes."""
    return Driver()


@pytest.fixture
def make(driver: Driver, clock: VirtualClock, request: Any) -> Callable[..., SupervisedPool]:
    """Give what makes pools, which are disposed of at the end."""

    def make(**options: Any) -> SupervisedPool:
        pool = SupervisedPool(driver.connect, **options)
        request.addfinalizer(pool.dispose)
        return pool

    return make


@pytest.fixture
def pool(make: Callable[..., SupervisedPool]) -> SupervisedPool:
    """Give a pool of one."""
    return make(pool_size=1, max_overflow=0, timeout=5)
