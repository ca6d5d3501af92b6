"""The fixtures of the pytest plugin, which every project has that installs gpool.

::

    def test_a_lease_comes_back(gpool_pool, gpool_no_leaks):
        pool = gpool_pool(gpool.Resource(create=list), size=1, ready=True)
        with pool.checkout():
            assert pool.status().busy == 1
        assert pool.status().idle == 1

========================  ==================================================================
``gpool_pool``            makes pools, and stops them at the end: :class:`Pools`
``gpool_clock``           a :class:`gpool.testing.VirtualClock`, in place for the test
``gpool_no_leaks``        fails a test that leaves something behind: :class:`Leaks`
========================  ==================================================================

Rules:

* ``pytest_gpool.py`` declares them, and imports this when a test asks for one: in a project
  that has gpool installed and does not use it, neither gpool nor gevent is imported.
* What was there before the test is never counted: begin what is to last in a fixture of a
  wider scope.

Limits: one thread.  gevent has a hub in each, and a pool lends in one.

Source:
    Go's ``goleak`` and Ecto's SQL sandbox, which tell who has what at the end of a test.
"""

from __future__ import annotations

import contextlib
import gc
import os
import stat
import tracemalloc
from _socket import socket as RawSocket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import gevent
import pytest

import gpool
from gpool import clock, telemetry
from gpool.testing import settle

PATIENCE: Final = 0.25  # s that what is about to end gets to do so
STOP: Final = 1.0  # s for the end of a pool that a test has left
ROUNDS: Final = 10  # of killing what is left: supervisors start others meanwhile
KINDS: Final = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe", stat.S_IFREG: "file"}

# --- Pools --------------------------------------------------------------------------


class Pools:
    """Makes pools for a test, and stops them at its end; what the fixture ``gpool_pool`` is.

    Args:
        leaks: Told of what is still lent when they are stopped; None: nobody looks.
    """

    def __init__(self, leaks: Leaks | None = None) -> None:
        self._hub = gevent.get_hub()
        self._leaks = leaks
        self._made: list[gpool.Pool[Any]] = []

    def __call__(
        self, worker: Any, *args: Any, ready: bool = False, **options: Any
    ) -> gpool.Pool[Any]:
        """Make a pool and start it.

        Args:
            worker: As for :class:`gpool.Pool`.
            args: Likewise.
            ready: Whether to wait until its workers are up.
            options: As for :class:`gpool.Pool`.

        Raises:
            TypeError, ValueError: An argument is wrong.
            PoolNotReady: Its workers were not up within 5 seconds.
            RuntimeError: The test runs in another thread than its fixtures, or than the pools
                that there are.
        """
        if gevent.get_hub() is not self._hub:
            raise RuntimeError(_OTHER_THREAD)
        pool: gpool.Pool[Any] = gpool.Pool(worker, *args, **options)
        try:
            pool.start()
        except gpool.WrongHub as error:
            raise RuntimeError(_OTHER_THREAD) from error
        self._made.append(pool)
        if ready:
            pool.wait_ready()
        return pool

    def stop(self) -> None:
        """Stop them all, the one that was made last first; what is still lent comes back first."""
        if self._leaks is not None:
            self._leaks.look_at_leases()
        for pool in reversed(self._made):
            _take_back(pool)
            pool.stop()
        self._made.clear()


_OTHER_THREAD: Final = (
    "gpool's pools lend in one thread, since gevent has a hub in each: expected the test in the "
    "thread of its fixtures and of all other pools, got another one.  Plugins that run tests in "
    "threads do that; pytest-xdist, which runs them in processes, does not"
)


def _take_back(pool: gpool.Pool[Any]) -> None:
    """Give back what a pool has lent; its stop would wait for that."""
    for holder in pool.holders():
        for lease in gpool.leases(holder.pid):
            with contextlib.suppress(ValueError):  # another pool's
                pool.checkin(lease)


# --- What a test leaves behind ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file descriptor, and what it refers to."""

    fd: int
    kind: str  # socket, pipe or file
    device: int
    inode: int


class Leaks:
    """What is there and was not when this was made; what the fixture ``gpool_no_leaks`` is.

    ============  ============================================================================
    processes     of this thread, greenlets that use gpool included.  Not those that something
                  from before has spawned: a supervisor that lasts may start children
    pools         that run, and were not made before: one that is only first used is none
    slots         leases that were neither given back nor reclaimed
    descriptors   sockets, pipes and files.  Not if a pool from before has started workers
                  meanwhile: they could be theirs
    ============  ============================================================================
    """

    def __init__(self) -> None:
        self._main = gpool.self()
        self._processes = set(gpool.processes())
        self._pools = {*gpool.running_pools(), *gpool.declared_pools()}
        self._leases = {lease.number for lease in _all_leases()}
        self._files = set(_open_files())
        self._growing: set[str] = set()  # names of pools that have started workers since
        self._slots: dict[int, str] = {}  # number of a lease that was seen in time -> its report
        telemetry.attach(self._hear)

    def _hear(self, event: telemetry.Event) -> None:
        if isinstance(event, telemetry.WorkerStarting | telemetry.WorkerStarted):
            self._growing.add(event.pool)

    def look_at_leases(self) -> None:
        """Take note of what is lent now, since its pool is about to be stopped."""
        settle()
        self._slots |= {lease.number: _of_lease(lease) for lease in self._new_leases()}

    def check(self) -> None:
        """Fail the test if there is anything, then end it, so that the next one has its peace.

        What is about to end by itself gets a quarter of a second to do so.
        """
        settle()
        end = clock.now() + PATIENCE
        while self._is_any_left() and clock.now() < end:
            gc.collect()  # what it frees was dropped, not left behind
            gevent.sleep(0.01)  # noqa: TID251  # in real time
            settle()
        try:
            found = self._report()
        finally:
            telemetry.detach(self._hear)
            self._clean_up()
        if found:
            lines = "\n".join(f"left behind: {one}" for one in found)
            pytest.fail(lines, pytrace=False)

    def _is_any_left(self) -> bool:
        new = (self._new_leases, self._new_pools, self._new_processes, self._new_files)
        return any(look() for look in new)

    def _report(self) -> list[str]:
        slots = self._slots | {lease.number: _of_lease(lease) for lease in self._new_leases()}
        pools = [f"pool {pool.name!r}, which runs: {pool.status()}" for pool in self._new_pools()]
        processes = [_of_process(pid) for pid in self._new_processes()]
        return [*slots.values(), *pools, *processes, *map(_of_file, self._new_files())]

    def _new_leases(self) -> list[gpool.Lease[Any]]:
        return [lease for lease in _all_leases() if lease.number not in self._leases]

    def _new_pools(self) -> list[gpool.Pool[Any]]:
        return [pool for pool in gpool.running_pools() if pool not in self._pools]

    def _new_processes(self) -> list[gpool.Pid]:
        hub = gevent.get_hub()
        everyone = gpool.processes()
        # What the test and the hub have spawned is the test's, though they were there before.
        ours = {self._main, gpool.self(), *(pid for pid in everyone if pid.runner() is hub)}
        known = {*(self._processes - ours), *_root_of_pools()}
        new = [pid for pid in everyone if pid.hub is hub and pid not in known | ours]
        return [pid for pid in new if known.isdisjoint(pid.ancestors)]

    def _new_files(self) -> list[OpenFile]:
        lasting = {pool.name for pool in gpool.running_pools() if pool in self._pools}
        if not self._growing.isdisjoint(lasting):
            return []
        return [file for file in _open_files() if file not in self._files]

    def _clean_up(self) -> None:
        """End what is left, but for descriptors: whose they are is not known."""
        for lease in self._new_leases():
            lease.discard()
        for pool in self._new_pools():
            pool.stop(STOP)
        for number in range(ROUNDS):
            left = self._new_processes()
            for pid in left:
                gpool.exit(pid, "kill" if number else "shutdown")
            settle()
            if not left:
                break


def _all_leases() -> Iterator[gpool.Lease[Any]]:
    for pid in gpool.processes():
        yield from gpool.leases(pid)


def _root_of_pools() -> Iterator[gpool.Pid]:
    """Yield the supervisor above all pools: it stays when they have gone."""
    for pid in gpool.processes():
        root = gpool.supervision(pid)
        if root is not None and [child.id for child in root.children] == ["registry", "pools_sup"]:
            yield pid


def _open_files() -> Iterator[OpenFile]:
    """Yield the sockets, pipes and files that are open; not what event loops are made of."""
    for fd in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # the listing's own
            status = os.fstat(fd)
            kind = KINDS.get(stat.S_IFMT(status.st_mode))
            if kind is not None:
                yield OpenFile(fd, kind, status.st_dev, status.st_ino)


# --- The report ---------------------------------------------------------------------


def _of_lease(lease: gpool.Lease[Any]) -> str:
    owner = _name(lease.owner.pid)
    return f"a slot of pool {lease.ledger.name!r}, borrowed by {owner} at {lease.line}"


def _of_process(pid: gpool.Pid) -> str:
    where = gpool.process_info(pid, "current_function") or gpool.process_info(pid, "status")
    spawned = f", spawned by {_name(pid.parent)}" if pid.parent is not None else ""
    return f"process {_name(pid)}{spawned}, at: {where}"


def _name(pid: gpool.Pid) -> str:
    call = gpool.process_info(pid, "initial_call")
    called = "" if pid.name is None else f", registered as {pid.name!r}"
    return f"{pid!r} ({call}{called})" if call else f"{pid!r}{called}"


def _of_file(file: OpenFile) -> str:
    owner = _object_of(file.fd)
    parts = [f"{file.kind}, descriptor {file.fd}", _target(file)]
    if owner is not None:
        parts += [f"of {owner!r}", _opened_at(owner)]
    return ": ".join(part for part in parts if part)


def _target(file: OpenFile) -> str:
    """Say what a descriptor is connected to, or the path of a file."""
    if file.kind == "socket":
        return _addresses(file.fd)
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{file.fd}")
    return ""


def _addresses(fd: int) -> str:
    # Neither closes the descriptor nor changes how it blocks, as gevent's own sockets would.
    raw = RawSocket(fileno=os.dup(fd))
    try:
        ends = []
        for ask in (raw.getsockname, raw.getpeername):
            with contextlib.suppress(OSError):
                ends.append(_address(ask()))
        return " -> ".join(filter(None, ends))
    finally:
        raw.close()


def _address(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address or "")


def _object_of(fd: int) -> Any:
    """Return the Python object that has a descriptor, if one has: a driver's own may not."""
    for thing in gc.get_objects():
        name = str(type(thing).__module__)  # some classes have another thing there
        if name.partition(".")[0] in _OF_FILES and hasattr(type(thing), "fileno"):
            with contextlib.suppress(Exception):  # it is closed
                if thing.fileno() == fd:
                    return thing
    return None


_OF_FILES: Final = ("_io", "_socket", "gevent", "io", "socket", "ssl")


def _opened_at(thing: Any) -> str:
    """Say where an object was made, if Python takes note of that."""
    trace = tracemalloc.get_object_traceback(thing)
    return "" if trace is None else "\n".join(("opened at", *trace.format()))
