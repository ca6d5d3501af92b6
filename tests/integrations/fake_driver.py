"""A driver and a dialect that only take notes, and pools of their connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from sqlalchemy import event

from gpool.integrations.sqlalchemy import SupervisedPool
from gpool.testing import settle

EVENTS = (
    "first_connect", "connect", "checkout", "checkin", "reset", "invalidate", "soft_invalidate",
    "close", "detach", "close_detached",
)  # fmt: skip


class Connection:
    """A connection of the fake driver, which notes what is done to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls: list[str] = []
        self.broken = False

    def rollback(self) -> None:
        """Undo."""
        self.calls.append("rollback")

    def commit(self) -> None:
        """Keep."""
        self.calls.append("commit")

    def close(self) -> None:
        """End it."""
        self.calls.append("close")

    @property
    def is_open(self) -> bool:
        """Tell whether nobody has closed it."""
        return "close" not in self.calls


class Driver:
    """A fake driver."""

    class Error(Exception):
        """Its error."""

    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.is_down = False
        self.gate = Event()  # connects wait for it
        self.gate.set()

    def connect(self) -> Connection:
        """Make one."""
        self.gate.wait()
        if self.is_down:
            raise self.Error("no connection")
        self.made.append(Connection(len(self.made)))
        return self.made[-1]

    @property
    def open(self) -> int:
        """Return how many are open."""
        return sum(one.is_open for one in self.made)


class Dialect:
    """A fake dialect."""

    name = "fake"
    is_async = False
    has_terminate = False

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.pinged: list[int] = []

    def do_rollback(self, connection: Any) -> None:
        """Undo."""
        self.calls.append("rollback")

    def do_commit(self, connection: Any) -> None:
        """Keep."""
        self.calls.append("commit")

    def do_close(self, connection: Any) -> None:
        """End it."""
        self.calls.append("close")

    def do_terminate(self, connection: Any) -> None:
        """End it at once."""
        self.calls.append("terminate")

    def get_driver_connection(self, connection: Any) -> Any:
        """Return it itself."""
        return connection

    def _do_ping_w_event(self, connection: Any) -> bool:
        self.pinged.append(connection.number)
        return not connection.broken


def listen(pool: SupervisedPool, *names: str) -> list[str]:
    """Return the list of the events of these names, or all, as they come."""
    told: list[str] = []
    for name in names or EVENTS:
        event.listen(pool, name, lambda *args, name=name: told.append(name))
    return told


def status(pool: SupervisedPool) -> tuple[int, int, int, int]:
    """Return size, idle, overflow, lent."""
    return pool.size(), pool.checkedin(), pool.overflow(), pool.checkedout()


class Client:
    """A greenlet that connects, and keeps what it gets until it is told."""

    def __init__(self, pool: SupervisedPool) -> None:
        self.pool = pool
        self.got: Any = None  # its connection, or its error
        self.may_go = Event()
        self.greenlet = gevent.spawn(self._run)
        settle()

    def _run(self) -> None:
        try:
            self.got = self.pool.connect()
        except Exception as error:  # noqa: BLE001  # its test looks at it
            self.got = error
        else:
            self.may_go.wait()
            self.got.close()

    def let_go(self) -> None:
        """Have it close its connection; blocks until it has."""
        assert not isinstance(self.got, Exception), self.got
        self.may_go.set()
        self.greenlet.join()
        assert self.got is not None


def maker_of_pools(driver: Driver, request: Any, **usual: Any) -> Callable[..., SupervisedPool]:
    """Return what makes pools, with the usual options, which are disposed of after a test."""

    def make(**options: Any) -> SupervisedPool:
        pool = SupervisedPool(driver.connect, **usual | options)
        request.addfinalizer(pool.dispose)
        return pool

    return make
