"""The pytest plugin: fixtures that begin with ``gpool_``.

pytest imports this in every project that has gpool installed, perhaps before that project
patches.  So it stands beside the package and imports neither it nor gevent: what a fixture
needs is imported when a test asks for the fixture.

Not here: what the fixtures do (``gpool/integrations/pytest.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gpool.integrations.pytest import Leaks, Pools
    from gpool.testing import VirtualClock


@pytest.fixture
def gpool_no_leaks() -> Iterator[Leaks]:
    """Fail the test if it leaves processes, pools, slots (leases), sockets or files behind.

    Everywhere: ``usefixtures = ["gpool_no_leaks"]`` in pytest's configuration.
    """
    from gpool.integrations.pytest import Leaks

    leaks = Leaks()
    yield leaks
    leaks.check()


@pytest.fixture
def gpool_pool(request: pytest.FixtureRequest) -> Iterator[Pools]:
    """Make pools that end with the test: ``gpool_pool(worker, ready=True, size=2)``.

    It takes what ``gpool.Pool`` takes, starts the pool, and waits for its workers if `ready`.
    """
    from gpool.integrations.pytest import Pools

    is_checked = "gpool_no_leaks" in request.fixturenames
    # Asked for here, it is set up before, and looks once the pools have ended.
    pools = Pools(request.getfixturevalue("gpool_no_leaks") if is_checked else None)
    yield pools
    pools.stop()


@pytest.fixture
def gpool_clock(gpool_pool: Pools) -> Iterator[VirtualClock]:
    """Give the test gpool's clock: it stands still but for ``gpool_clock.advance(seconds)``."""
    # After gpool_pool: its pools are stopped in real time, so a stop that hangs has a limit.
    from gpool.testing import virtual_clock

    with virtual_clock() as clock:
        yield clock
