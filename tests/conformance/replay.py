"""Replays recorded cases on gpool and compares what it sees with what was recorded.

    >>> verdict = replay(a_case)            # doctest: +SKIP
    >>> verdict.differs, verdict.rewrites   # doctest: +SKIP

A case is replayed in a fresh world under a virtual clock.  Its expectation is
what was recorded, as rewritten by the rules (``rules.py``, ``rules_pool.py``).  A
rule may also say that nothing is to be compared any more: the replay ends there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import gpool
from gpool import clock
from tests.conformance.rules import NOT_COMPARED, RULES, Context, Rule, expectation
from tests.conformance.rules_pool import POOL_RULES
from tests.conformance.step_clock import StepClock
from tests.conformance.terms import Json
from tests.conformance.world_gen_server import GenServerWorld
from tests.conformance.world_pool import PoolWorld
from tests.conformance.world_signals import SignalsWorld
from tests.conformance.world_supervisor import SupervisorWorld

NEVER_LEFT_OUT: Final = ("result", "which", "count")
"""Fields whose presence means something even when they are empty (FORMAT.md)."""


class World(Protocol):
    """The processes of one case."""

    def step(self, step: Json) -> Json:
        """Carry out one step, wait until all is quiet, and observe."""

    def close(self) -> None:
        """Kill every process of the case."""


WORLDS: Final[dict[str, Any]] = {
    "signals": SignalsWorld,
    "gen_server": GenServerWorld,
    "supervisor": SupervisorWorld,
    "pool": PoolWorld,
}
ALL_RULES: Final = (*RULES, *POOL_RULES)


@dataclass(frozen=True)
class Mismatch:
    """One field of one observation that is not as expected; None: left out."""

    case_id: str
    index: int  # of the step
    field: str
    expected: Json
    got: Json

    def __str__(self) -> str:
        return (
            f"{self.case_id} step {self.index} {self.field}: "
            f"expected {json.dumps(self.expected)}, got {json.dumps(self.got)}"
        )


@dataclass(frozen=True)
class Verdict:
    """What became of one case."""

    mismatches: tuple[Mismatch, ...]
    rewrites: Counter[str] = field(default_factory=Counter)  # rule -> steps it rewrote
    left_out: int = 0  # steps at the end that, a rule says, are not to be compared

    @property
    def word(self) -> str:
        """Return `agree`, `rewritten` (agrees, thanks to a rule) or `differ`."""
        if self.mismatches:
            return "differ"
        return "rewritten" if self.rewrites else "agree"


def replay(case: Json, rules: Iterable[Rule] = ALL_RULES) -> Verdict:
    """Replay one case to its end.

    Or to the first step that cannot be carried out, or that is not to be compared.
    """
    left_out = 0
    rewrites: Counter[str] = Counter()
    mismatches: list[Mismatch] = []
    virtual = StepClock()
    previous = clock.install(virtual)
    try:
        world: World = WORLDS[case["kind"]](case, virtual)
        try:
            for index, step in enumerate(case["steps"]):
                expected = expectation(Context(case, index), rules, rewrites)
                if expected is NOT_COMPARED:
                    left_out = len(case["steps"]) - index
                    break
                observed = _observe(world, step)
                mismatches += compare(case["id"], index, expected, observed)
                if "crash" in observed:
                    break
        finally:
            world.close()
    finally:
        clock.install(previous)
    return Verdict(tuple(mismatches), rewrites, left_out)


def compare(case_id: str, index: int, expected: Json, observed: Json) -> Iterator[Mismatch]:
    """Yield the fields in which two observations differ."""
    expected, observed = _without_empty(expected), _without_empty(observed)
    for name in sorted(expected.keys() | observed.keys()):
        if expected.get(name) != observed.get(name):
            yield Mismatch(case_id, index, name, expected.get(name), observed.get(name))


def _without_empty(observation: Json) -> Json:
    return {
        name: value
        for name, value in observation.items()
        if name in NEVER_LEFT_OUT or value not in ([], {})
    }


def _observe(world: World, step: Json) -> Json:
    try:
        return world.step(step)
    except (gpool.GPoolError, ValueError, TypeError, LookupError, AttributeError) as error:
        # An operation that is unknown, or fails otherwise than the traces have words for.
        return {"crash": f"{type(error).__name__}: {error}"}
