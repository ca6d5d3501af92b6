"""What every test gets: a clean table of processes, and no greenlet that dies unnoticed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import greenlet
import pytest

# Last, not first: under tox the tests import the installed wheel, not the checkout.
sys.path.append(str(Path(__file__).parents[1]))

import gpool
from gpool import telemetry
from gpool.integrations import stdlib_logging
from gpool.otp import signal
from gpool.otp.pid import table
from gpool.testing import VirtualClock, settle, virtual_clock
from tests.servers.postgresql import PostgreSQL


def pytest_report_header() -> str:
    """Say which gpool is under test, and on what."""
    loop = type(gevent.get_hub().loop).__module__
    return (
        f"gpool {gpool.__version__} from {Path(gpool.__file__).parent}, "
        f"gevent {gevent.__version__} ({loop}), greenlet {greenlet.__version__}"
    )


def pytest_configure() -> None:
    """Have everything logged: what one test has logged is not to be left out of the next."""
    stdlib_logging.install(stdlib_logging.Log(limit=None))


def pytest_collection_finish() -> None:
    """Spare the collector the thousands of tests: it runs often, and tests call it, too."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def unnoticed_deaths() -> Iterator[list[BaseException]]:
    """Fail a test whose greenlets died of an error that nobody saw.

    gpool's processes never get that far.  A test that means it clears the list.
    """
    hub = gevent.get_hub()
    report = hub.handle_error
    deaths: list[BaseException] = []

    def handle_error(context: object, kind: type, value: BaseException, trace: object) -> None:
        if context is None or issubclass(kind, hub.SYSTEM_ERROR):
            report(context, kind, value, trace)
        elif issubclass(kind, Exception | gevent.Timeout):
            report(context, kind, value, trace)
            deaths.append(value)
        elif not issubclass(kind, hub.NOT_ERROR):
            hub.handle_system_error(kind, value)  # pytest's own: a time-out struck in a greenlet

    hub.handle_error = handle_error
    yield deaths
    del hub.handle_error
    assert not deaths, f"greenlets died unnoticed: {deaths}"


@pytest.fixture(autouse=True)
def no_process_survives(unnoticed_deaths: list[BaseException]) -> Iterator[None]:
    """End every process that the test has left, and give the next test a new main process."""
    before = set(gpool.processes())
    yield
    _end_main()
    for _ in range(20):  # a supervisor may start another child while we kill, a pool a closer
        left = [pid for pid in gpool.processes() if pid not in before and not _is_ours(pid)]
        for pid in left:
            gpool.exit(pid, "kill")
        settle()
        if not left:
            break
    _end_main()
    table.zombies.clear()


def _end_main() -> None:
    pid = vars(greenlet.getcurrent()).pop("gpool_pid", None)
    if pid is not None and pid.state != "dead":
        signal.die(pid, "normal", [])


def _is_ours(pid: gpool.Pid) -> bool:
    hub = gevent.get_hub()
    return pid.hub is not hub or pid.runner() in (greenlet.getcurrent(), hub)


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    """Give the test the clock: time passes only by ``clock.advance(seconds)``."""
    with virtual_clock() as virtual:
        yield virtual


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Give the connection string of an empty PostgreSQL server that only the tests use.

    Skips, and says so, where PostgreSQL is not installed; in CI that is a failure.
    """
    with PostgreSQL() as server:
        yield server.dsn()


@pytest.fixture
def forgotten() -> Iterator[list[telemetry.LeaseForgotten]]:
    """Give what is told of leases that nobody has given back."""
    told: list[telemetry.LeaseForgotten] = []

    def listen(event: telemetry.Event) -> None:
        if isinstance(event, telemetry.LeaseForgotten):
            told.append(event)

    telemetry.attach(listen)
    yield told
    telemetry.detach(listen)
