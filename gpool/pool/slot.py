"""Slot: one place under a pool's cap, and what can be decided about it.

The states of a slot and the edges between them are drawn at
:class:`~gpool.pool.pool_state.PoolState`, which alone moves a slot, but for the
fast paths: ``pool.py`` lends, ``lease.py`` and ``ledger.py`` take back, ``pool_man.py``
hands over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

SlotState = Literal["starting", "idle", "busy", "finishing", "resetting", "closing", "lost"]
STARTING: Final = "starting"
IDLE: Final = "idle"
BUSY: Final = "busy"
FINISHING: Final = "finishing"
RESETTING: Final = "resetting"
CLOSING: Final = "closing"
LOST: Final = "lost"

Verdict = Literal["clean", "unused", "finish", "reset", "close"]  # on a worker that comes back

NOTHING: Final = type("Nothing", (), {"__repr__": lambda _: "nothing", "__slots__": ()})()


class NeverAtRest:
    """Stands for the mailbox of a worker that is about to go, to keep it off the fast path."""

    resting: Final = False


class Slot:
    """One place under the cap, from the decision to fill it until it is proven empty."""

    __slots__ = (
        "attempts", "checking", "cuts", "doomed", "due", "expires", "fate", "generation",
        "idle_since", "is_orphan", "last", "lease", "mailbox", "pid", "seen", "spare", "state",
        "suspect", "thing", "timer", "uses",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state: SlotState = STARTING
        self.thing: Any = NOTHING  # what the client gets: a server's handle or a resource
        self.pid: Any = None  # the process that runs it, or closes it
        self.mailbox: Any = None  # its, if the worker is a server; tells whether it is at rest
        self.doomed = ""  # why it is not lent any more: an exit was accepted, its time is over
        self.lease: Any = None  # its holder's
        self.spare: Any = None  # the lease of the last checkout but one ...
        self.last: Any = None  # ... and of the last: lent in turn, if nobody else has it
        self.is_orphan = False  # its worker has died and left the resource open
        self.attempts = 0  # closes begun and not ended, but for ...
        self.cuts = 0  # ... those that others cut short
        self.timer: Any = None  # bounds whatever its process does now
        # Time, in seconds; what the fast way back leaves alone is kept only where it is barred.
        self.due = math.inf  # until then it may be lent as it is
        self.expires = math.inf  # its max_age, or the moment that `recycle` gave it ...
        self.fate = "max_age"  # ... and which of the two
        self.idle_since = 0.0  # its last use
        self.seen = 0.0  # its last use or check, or the begin of what it does now
        self.uses = 0  # checkouts that are over
        self.generation = 0  # of its birth, or of the last check that found it alive
        self.suspect = False  # one of its generation was found dead while this one was lent
        self.checking = False  # it is resetting, and what is done is a check

    def lose(self) -> None:
        """Its worker is gone, its resource is still in its holder's hands."""
        self.state, self.mailbox = LOST, NeverAtRest

    def __repr__(self) -> str:
        return f"<Slot {self.state} {self.thing!r} {self.pid!r}>"


# --- Decisions ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Have a worker started for this slot."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Grant:
    """Hand this slot's worker to the client of this ticket."""

    slot: Slot
    ticket: Any


@dataclass(frozen=True, slots=True)
class Finish:
    """Ask this slot's worker to say when it has done what it was asked for."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Reset:
    """Have this slot's resource reset."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Check:
    """Have this slot's resource checked."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop this slot's worker, or close the resource that has lost its worker."""

    slot: Slot
    reason: Any = None


Decision = Start | Grant | Finish | Reset | Check | Stop
