"""Children for the tests of supervisors: they do as they are told, and it is written down.

>>> nursery = Nursery()
>>> supervisor = gpool.Supervisor.start([nursery.spec("a"), nursery.spec("b")])
>>> gpool.stop(supervisor)
>>> nursery.take()
[('start', 'a'), ('start', 'b'), ('down', 'b', 'shutdown'), ('down', 'a', 'shutdown')]
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import gpool
from gpool.otp.pid import watch
from gpool.testing import settle


class Boom(Exception):
    """What a child dies of that is told to raise."""


class Toy(gpool.GenServer):
    """A child that lives until it is told how to end."""

    def __init__(self, nursery: Nursery, id: Any, *, trap: bool = False) -> None:
        self.nursery = nursery
        self.id = id
        self.trap = trap

    def init(self) -> Any:
        """Start as the script of the nursery says."""
        gpool.trap_exit(self.trap)
        answer = self.nursery.outcome(self.id)
        if answer is None:
            self.nursery.note_start(self.id, gpool.self())
        return answer

    def handle_info(self, message: Any) -> Any:
        """End in the way that the message asks for."""
        match message:
            case ("exit", reason):
                gpool.exit(reason)
            case ("raise", error):
                raise error

    def terminate(self, reason: Any) -> None:
        """Run what the test has asked for."""
        cleanup = self.nursery.cleanups.get(self.id)
        if cleanup is not None:
            cleanup(reason)


class Nursery:
    """Makes children and remembers what became of them."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.scripts: dict[Any, deque[Any]] = defaultdict(deque)  # id -> outcomes of next starts
        self.cleanups: dict[Any, Callable[[Any], object]] = {}  # id -> its terminate
        self.latest: dict[Any, gpool.Pid] = {}  # id -> its newest process

    def spec(self, id: Any, *, trap: bool = False, **options: Any) -> gpool.ChildSpec:
        """Return a specification of a toy."""
        return gpool.ChildSpec(
            id, Toy.start_link, args=(self, id), kwargs={"trap": trap}, **options
        )

    def outcome(self, id: Any) -> Any:
        """Say how this start of a child goes: None is well, an answer of init, or it raises."""
        script = self.scripts[id]
        answer = script.popleft() if script else None
        if callable(answer):
            answer = answer()
        if answer is not None:
            self.log.append(("ignore" if isinstance(answer, gpool.Ignore) else "fail", id))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def note_start(self, id: Any, pid: gpool.Pid) -> None:
        """Write down that a child runs, and its death when it comes."""
        self.log.append(("start", id))
        self.latest[id] = pid
        watch(pid, _Watch(self.log, id))

    def end(self, id: Any, reason: Any) -> None:
        """Have a child end itself, and let everybody react."""
        gpool.send(self.latest[id], ("exit", reason))
        settle()

    def kill(self, *ids: Any) -> None:
        """Kill children at once, and let everybody react."""
        for id in ids:
            gpool.exit(self.latest[id], "kill")
        settle()

    def take(self) -> list[Any]:
        """Return what has happened since the last time, in order."""
        settle()
        log, self.log[:] = list(self.log), []
        return log


class _Watch:
    """A monitor that writes a death down in the dying frame."""

    def __init__(self, log: list[Any], id: Any) -> None:
        self._log, self._id = log, id

    def down(self, pid: gpool.Pid, reason: Any) -> None:
        """Write it down."""
        self._log.append(("down", self._id, reason))


class Attempt:
    """Something that another process does, because it may block."""

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self.done = False
        self.value: Any = None  # what it returned
        self.error: gpool.GPoolError | None = None  # what it raised
        self.pid = gpool.spawn(self._run, fn, args)
        settle()

    def _run(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.value = fn(*args)
        except gpool.GPoolError as error:
            self.error = error
        self.done = True


class Events(list[Any]):
    """The telemetry events of one kind while it is attached, as tuples of some fields."""

    def __init__(self, kind: type, *fields: str) -> None:
        super().__init__()
        self.kind, self.fields = kind, fields

    def __call__(self, event: Any) -> None:
        """Take an event."""
        if type(event) is self.kind:
            self.append(tuple(getattr(event, field) for field in self.fields))

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other or list(self) == other
