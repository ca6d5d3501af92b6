"""Random schedules: whatever processes do to one another, the books are right.

A failing test names its seed: ``GPOOL_SEEDS=17 pytest tests/otp/test_random_schedule.py``
runs that one again, ``GPOOL_SEEDS=0-999`` many more.

Invariants, after every round:

* A process in the table is not dead, and one that is not dead is in the table.
* Links are symmetric, and so are monitors and what is monitored.
* A name belongs to a process that is not dead.
* There are no more zombies than processes that swallow their exits.

And at the end, when everybody was killed:

* Each monitor gave exactly one DOWN, and none once it was taken back.
* No EXIT of a link came after its unlink.
* No child of a dead supervisor lives, unless the supervisor was killed
  untrappably and the child traps exits and is no server.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

import gpool
from gpool.otp.pid import DEAD, Ref, table
from gpool.testing import settle

ROUNDS, STEPS = 25, 60
NAMES = [f"name-{number}" for number in range(8)]


def seeds() -> Iterator[int]:
    """Read which seeds to run: numbers and ranges, as in ``1,5,10-20``."""
    for part in os.environ.get("GPOOL_SEEDS", "0-19").split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


class Someone:
    """A process of the schedule: does what it is told, and remembers what it got."""

    def __init__(self, world: World, swallows: int = 0, parent: Someone | None = None) -> None:
        self.world = world
        self.swallows = swallows  # exits that it swallows before it lets itself be ended
        self.downs: Counter[Ref] = Counter()
        self.exits: Counter[gpool.Pid] = Counter()  # EXITs of deaths, by who died
        self.unlinked: dict[gpool.Pid, int] = {}  # EXITs there were when the link was cut
        self.cancelled: dict[Ref, int] = {}  # DOWNs there were when the monitor was taken back
        self.pid: Any = None

    def run(self) -> None:
        """Be the body of the process."""
        self.world.met(self, gpool.self())
        gpool.trap_exit(self.world.random.random() < 0.5)
        while True:
            try:
                self._take(gpool.receive())
            except BaseException:
                self.swallows -= 1
                if self.swallows < 0:
                    raise

    def _take(self, message: Any) -> None:
        match message:
            case gpool.Down(ref):
                self.downs[ref] += 1
            case gpool.Exit(pid, reason):
                self.exits[pid] += pid.state is DEAD and pid.reason is reason
            case step if callable(step):
                step(self)

    def queued(self, kind: type, key: Any) -> int:
        """Count what is in the mailbox already and may still be read."""
        messages = [m for m in self.pid.mailbox.messages if type(m) is kind]
        if kind is gpool.Down:
            return sum(m.ref is key for m in messages)
        return sum(m.pid is key and m.pid.reason is m.reason for m in messages)


class Ward(gpool.GenServer):
    """A child of a supervisor."""

    def __init__(self, world: World, trap: bool) -> None:
        self.world, self.trap = world, trap

    def init(self) -> None:
        """Trap exits if told so, and be known to the world."""
        gpool.trap_exit(self.trap)
        self.world.pids.append(gpool.self())


class World:
    """All processes of one schedule, and what was done to them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.people: list[Someone] = []
        self.pids: list[gpool.Pid] = []  # of everybody, wards and supervisors too
        self.refs: list[Ref] = []  # the test's own monitor on each of the people
        self.supervisors: list[gpool.Supervisor] = []
        self.swallowers = 0
        self.reasons = 0
        self.deadly = (
            self._exit, self._exit_itself, self._crash, self._kill, self._foreign_kill,
            self._killall,
        )  # fmt: skip
        self.harmless = (
            self._spawn, self._spawn_link, self._link, self._link, self._unlink, self._monitor,
            self._monitor, self._demonitor, self._trap, self._register, self._unregister,
            self._switch,
        )  # fmt: skip

    # Making and finding.

    def add(self) -> None:
        """Spawn somebody whom the test monitors."""
        someone = self._new()
        _, ref = gpool.spawn_monitor(someone.run)
        self.refs.append(ref)

    def _new(self) -> Someone:
        swallows = self.random.choice([0, 0, 0, 0, 1, 3, 10**9])
        self.swallowers += swallows > 0
        return Someone(self, swallows)

    def met(self, someone: Someone, pid: gpool.Pid) -> None:
        """Take note of somebody who has begun to run."""
        someone.pid = pid
        self.people.append(someone)
        self.pids.append(pid)

    def supervise(self) -> None:
        """Start a supervisor over a few wards."""
        children = [
            gpool.ChildSpec(number, Ward.start_link, args=(self, self.random.random() < 0.5))
            for number in range(self.random.randrange(1, 4))
        ]
        strategy = self.random.choice(["one_for_one", "one_for_all", "rest_for_one"])
        supervisor = gpool.Supervisor.start(children, strategy=strategy)
        self.supervisors.append(supervisor)
        self.pids.append(supervisor.pid)

    def anybody(self) -> gpool.Pid:
        """Return a process, dead or alive."""
        return self.random.choice(self.pids)

    def reason(self) -> Any:
        """Return a reason that no other signal has."""
        self.reasons += 1
        return ("reason", self.reasons)

    # What somebody does.

    def _spawn(self, someone: Someone) -> None:
        gpool.spawn(self._new().run)

    def _spawn_link(self, someone: Someone) -> None:
        pid = gpool.spawn_link(self._new().run)
        someone.unlinked.pop(pid, None)

    def _link(self, someone: Someone) -> None:
        pid = self.anybody()
        someone.unlinked.pop(pid, None)
        for other in self.people:
            if other.pid is pid:
                other.unlinked.pop(someone.pid, None)
        gpool.link(pid)

    def _unlink(self, someone: Someone) -> None:
        if someone.pid.links:
            pid = self.random.choice(list(someone.pid.links))
            gpool.unlink(pid)
            someone.unlinked[pid] = someone.exits[pid] + someone.queued(gpool.Exit, pid)

    def _monitor(self, someone: Someone) -> None:
        gpool.monitor(self.anybody())

    def _demonitor(self, someone: Someone) -> None:
        if someone.pid.monitors:
            ref = self.random.choice(list(someone.pid.monitors))
            gpool.demonitor(ref)
            someone.cancelled[ref] = someone.downs[ref] + someone.queued(gpool.Down, ref)

    def _trap(self, someone: Someone) -> None:
        gpool.trap_exit(self.random.random() < 0.5)

    def _exit(self, someone: Someone) -> None:
        gpool.exit(self.anybody(), self.reason())

    def _exit_itself(self, someone: Someone) -> None:
        gpool.exit(self.reason())

    def _crash(self, someone: Someone) -> None:
        raise ValueError(someone)

    def _kill(self, someone: Someone) -> None:
        gpool.exit(self.anybody(), "kill")

    def _foreign_kill(self, someone: Someone) -> None:
        pid = self.anybody()
        if pid.greenlet is not None:
            pid.greenlet.kill(block=False)

    def _killall(self, someone: Someone) -> None:
        found = [pid.greenlet for pid in (self.anybody(), self.anybody())]
        gevent.killall([greenlet for greenlet in found if greenlet is not None], block=False)

    def _register(self, someone: Someone) -> None:
        pid, name = self.anybody(), self.random.choice(NAMES)
        if gpool.whereis(name) is None and gpool.is_alive(pid) and pid.name is None:
            gpool.register(name, pid)

    def _unregister(self, someone: Someone) -> None:
        name = self.random.choice(NAMES)
        if gpool.whereis(name) is not None:
            gpool.unregister(name)

    def _switch(self, someone: Someone) -> None:
        gevent.sleep(0)

    def step(self) -> None:
        """Have somebody who may be dead do something, and let others run for a while."""
        acts = self.deadly if self.random.random() < 0.2 else self.harmless
        living = [someone for someone in self.people if gpool.is_alive(someone.pid)]
        gpool.send(self.random.choice(living or self.people).pid, self.random.choice(acts))
        for _ in range(self.random.choice([0, 0, 0, 1, 2])):
            gevent.sleep(0)

    # What has to hold.

    def check(self) -> None:
        """Assert the invariants of the table, the links, the monitors and the names."""
        listed = set(gpool.processes())
        for pid in self.pids:
            assert (pid in listed) == (pid.state is not DEAD), pid
        for pid in listed:
            assert all(pid in other.links for other in pid.links), f"links of {pid}"
            assert all(other in listed for other in pid.links), f"links of {pid} to the dead"
            for ref in pid.monitors:
                assert ref in ref.target.monitored_by, f"monitor {ref} of {pid}"
            for ref in pid.monitored_by:
                assert not isinstance(ref, Ref) or ref in ref.watcher.monitors, f"{ref} on {pid}"
        for name, pid in table.names.items():
            assert pid in listed, f"{name} belongs to {pid}, which is dead"
        assert len(gpool.zombies()) <= self.swallowers

    def check_the_end(self, main: gpool.Pid) -> None:
        """Assert what must hold once everybody is dead."""
        downs = Counter(m.ref for m in main.mailbox.messages if type(m) is gpool.Down)
        assert [downs[ref] for ref in self.refs] == [1] * len(self.refs)
        for someone in self.people:
            assert max(someone.downs.values(), default=1) == 1, f"{someone.pid} has heard twice"
            for ref, count in someone.cancelled.items():
                assert someone.downs[ref] <= count, f"a DOWN of {ref} after demonitor"
            for pid, count in someone.unlinked.items():
                assert someone.exits[pid] <= count, f"an EXIT of {pid} after unlink"

    def check_the_orphans(self) -> None:
        """Assert that no server outlives its supervisor."""
        for supervisor in self.supervisors:
            if not gpool.is_alive(supervisor):
                left = [pid for pid in self.pids if pid.parent is supervisor.pid]
                assert not any(map(gpool.is_alive, left)), f"children of {supervisor}"


@pytest.mark.parametrize("seed", list(seeds()))
def test_any_schedule_keeps_the_books(seed, clock):
    """Hundreds of processes, thousands of random steps: every invariant holds throughout."""
    world, main = World(seed), gpool.self()
    for _ in range(10):
        world.add()
    settle()
    for _ in range(ROUNDS):
        for _ in range(4):
            world.add()
        if world.random.random() < 0.3:
            world.supervise()
        gevent.sleep(0)
        for _ in range(STEPS):
            world.step()
        world.check()
        if world.random.random() < 0.3:
            clock.advance(6.0)  # cleanup that has not ended by now is cut
            world.check()
    clock.advance(6.0)
    world.check_the_orphans()
    for pid in gpool.processes():
        if pid is not main and pid.hub is main.hub and pid.runner() is not main.hub:
            gpool.exit(pid, "kill")
    clock.advance(6.0)
    world.check()
    assert all(pid.state is DEAD for pid in world.pids)
    world.check_the_end(main)


def test_seeds_can_be_given(monkeypatch):
    """The environment may name single seeds and ranges of them."""
    monkeypatch.setenv("GPOOL_SEEDS", "3,7-9")
    assert list(seeds()) == [3, 7, 8, 9]
