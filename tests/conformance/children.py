"""The children of kind ``supervisor``: how they start, run and end, written down as it happens.

The *chronicler* is a process that gets an event for each start and each
``terminate``, and monitors every child.  A child asks to be watched before its
start is complete, so that the monitor is there however soon it dies; as all of
this reaches one mailbox, it is in the order in which it happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import gpool
from tests.conformance.actors import Order
from tests.conformance.terms import Fault, Json, decode, encode, seconds

if TYPE_CHECKING:
    from tests.conformance.world_supervisor import SupervisorWorld

WATCHED: Final = object()  # the chronicler's answer


@dataclass(frozen=True)
class Life:
    """One start of one child: its id, and which start of the case it is."""

    child: str
    n: int


class Chronicler:
    """The process that writes down what happens to children, in order."""

    def __init__(self) -> None:
        self.events: list[Json] = []
        self.lives: dict[gpool.Pid, Life] = {}  # every child that ever ran
        self.latest: dict[str, gpool.Pid] = {}  # child id -> its latest process
        self.pid = gpool.spawn(self._live)

    def note(self, what: str, life: Life, *more: Json) -> None:
        """Write down an event; never blocks."""
        gpool.send(self.pid, [what, life.child, life.n, *more])

    def note_start(self, life: Life) -> None:
        """Write down that the calling process started, and its death once that comes."""
        me = gpool.self()
        self.lives[me] = life
        self.latest[life.child] = me
        gpool.send(self.pid, (me, life))
        gpool.receive(match=lambda message: message is WATCHED)
        self.note("start", life)

    def label(self, pid: gpool.Pid) -> Json:
        """Return ``[id, n]`` of a child's process."""
        life = self.lives.get(pid)
        return repr(pid) if life is None else [life.child, life.n]

    def take_events(self) -> list[Json]:
        """Return what was written down since the last time."""
        events, self.events = self.events, []
        return events

    def _live(self) -> None:
        watched: dict[gpool.Ref, Life] = {}
        while True:
            match gpool.receive():
                case (pid, life):
                    watched[gpool.monitor(pid)] = life
                    gpool.send(pid, WATCHED)
                case gpool.Down(ref=ref, reason=reason):
                    life = watched.pop(ref)
                    self.events.append(["down", life.child, life.n, encode(reason, self.label)])
                case event:
                    self.events.append(event)


class Child(gpool.GenServer):
    """A child that starts, runs and ends as its specification says."""

    def __init__(self, world: SupervisorWorld, spec: Json, life: Life) -> None:
        self._world = world
        self._chronicler = world.chronicler
        self._life = life
        self._run: Json = spec.get("run", "ok")
        outcomes = spec.get("init", ["ok"])
        self._outcome: Json = outcomes[min(life.n, len(outcomes)) - 1]
        self._ends_itself = False  # its terminate is not its supervisor's doing

    def init(self) -> Any:
        """Start, or not, as this start of the child is to go."""
        match self._outcome:
            case "ignore":
                self._chronicler.note("ignore", self._life)
                return gpool.Ignore()
            case "raise":
                self._chronicler.note("fail", self._life)
                raise Fault("init_crash")
            case {"error": reason, **more}:
                if "meanwhile" in more:
                    self._world.ask_meanwhile(*more["meanwhile"])
                self._chronicler.note("fail", self._life)
                return gpool.Stop(decode(reason))
        gpool.trap_exit(self._run != "ok")
        self._chronicler.note_start(self._life)
        if self._outcome == "ok":
            return None
        return gpool.Continue(decode(self._outcome["dies"]))

    def handle_continue(self, argument: Any) -> Any:
        """Exit right after the start."""
        self._ends_itself = True
        gpool.exit(argument)

    def handle_info(self, message: Any) -> Any:
        """Obey the order to end; leave other messages alone."""
        if isinstance(message, Order):
            self._obey(message)

    def terminate(self, reason: Any) -> object:
        """Answer to the supervisor's exit signal in the way the child runs."""
        if self._ends_itself or self._run == "ok":
            return None
        if self._run == "stubborn":
            while True:  # until killed, or told to end
                self._obey(gpool.receive(match=lambda message: isinstance(message, Order)))
        self._chronicler.note("terminate", self._life, encode(reason, self._chronicler.label))
        match self._run:
            case {"slow": milliseconds}:
                self._world.clock.sleep(seconds(milliseconds))
            case {"exits": last}:
                gpool.exit(decode(last))
        return None

    def _obey(self, order: Order) -> None:
        self._ends_itself = True
        order.carry_out()


def end_with(reason: Json) -> Callable[[], Any]:
    """Return what a child does to end itself with a reason."""

    def end() -> Any:
        match reason:
            case {"error": word}:
                raise Fault(word)
            case _:
                gpool.exit(decode(reason))

    return end


class Noted:
    """What the supervisors of a case have in common, whatever their strategy."""

    def __init__(self, world: SupervisorWorld, life: Life | None, setup: Json, **options: Any):
        self._world = world
        self._life = life  # None: it is nobody's child
        self._ignores = setup.get("init") == "ignore"
        super().__init__(**options)

    def init(self) -> Any:
        """Start the children, or do not even start; a child notes its own complete start."""
        self._world.has_begun(self, self._life)
        if self._ignores:
            return gpool.Ignore()
        answer = super().init()  # type: ignore[misc]
        if self._life is not None and not isinstance(answer, gpool.Stop):
            self._world.chronicler.note_start(self._life)
        return answer


class NotedSupervisor(Noted, gpool.Supervisor):
    """A supervisor of the three static strategies."""


class NotedDynamicSupervisor(Noted, gpool.DynamicSupervisor):
    """A supervisor ``simple_one_for_one``."""
