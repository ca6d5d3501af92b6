"""How costs are measured: side by side, in one process, as ratios.

A :class:`Case` does something `n` times and says how many seconds of CPU that has
taken.  :func:`measure` runs a slice of every case in each round, in a new random
order; a ratio is taken within each round, and the median of the rounds is what
counts.  So whatever else the machine does meanwhile befalls both sides alike.

    >>> def count(n):
    ...     for _ in range(n):
    ...         pass
    >>> def count_twice(n):
    ...     count(2 * n)
    >>> cases = [Case("once", timed(count)), Case("twice", timed(count_twice))]
    >>> rounds = measure(cases, Effort.quick())
    >>> rounds.ratio("twice", "once") > 0.0  # about 2
    True

The clock is the CPU time of the thread: time that others had the core does not count.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median
from time import thread_time
from typing import Final, Self

import gevent

Run = Callable[[int], float]  # does it n times, returns the seconds of CPU that all took

ENOUGH: Final = 0.1  # of a slice: from so much on its length can be extrapolated
SEED: Final = 1  # of the order of cases


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int
    slice: float  # s of CPU that a case gets in a round
    is_quick: bool
    ebin: str = ""  # folders of compiled Erlang pools, joined as in PATH

    @classmethod
    def full(cls) -> Self:
        """Return what a table in the documentation needs."""
        return cls(rounds=25, slice=0.05, is_quick=False)

    @classmethod
    def quick(cls) -> Self:
        """Return what tells a regression."""
        return cls(rounds=9, slice=0.01, is_quick=True)

    def heavy(self) -> Self:
        """Return the same for cases that take long: fewer rounds."""
        return replace(self, rounds=max(self.rounds // 6, 3))


@dataclass(frozen=True, slots=True)
class Case:
    """Something whose cost is measured."""

    name: str
    run: Run
    count: int = 0  # times a slice; 0: as many as fit into one


def timed(loop: Callable[[int], object]) -> Run:
    """Return a Run that takes the CPU time of all that `loop` does."""

    def run(n: int) -> float:
        start = thread_time()
        loop(n)
        return thread_time() - start

    return run


def crowded(number: int, act: Callable[[], object]) -> Run:
    """Return a Run of which each of so many greenlets does its part, all of them at once.

    They are there before the time begins, and have done it once: what a newcomer has to do
    first is not counted.
    """

    def run(n: int) -> float:
        parts, left, end, absent = max(n // number, 1), number, 0.0, number

        def live() -> None:
            nonlocal left, end, absent
            act()
            absent -= 1
            switch()
            for _ in range(parts):
                act()
            left -= 1
            if not left:
                end = thread_time()

        hub = gevent.get_hub()
        switch, run_callback = hub.switch, hub.loop.run_callback
        crowd = [gevent.spawn(live) for _ in range(number)]
        while absent:
            gevent.sleep(0)
        start = thread_time()
        for member in crowd:
            run_callback(member.switch)
        gevent.joinall(crowd, raise_error=True)
        return (end - start) * n / (parts * number)

    return run


class Rounds:
    """What was measured: for each case the seconds per operation, in each round."""

    def __init__(self, costs: dict[str, list[float]]) -> None:
        self.costs = costs  # case -> by round

    def cost(self, case: str) -> float:
        """Return the seconds that one operation took."""
        return median(self.costs[case])

    def ratio(self, case: str, to: str, *, less: str | None = None) -> float:
        """Return how many of `to` one of `case` costs, net of what `less` costs."""
        floors = self.costs[less] if less is not None else [0.0] * len(self.costs[case])
        rounds = zip(self.costs[case], self.costs[to], floors, strict=True)
        return median((mine - floor) / other for mine, other, floor in rounds)


def calibrated(case: Case, seconds: float) -> int:
    """Return how often a case has to be run to take so many seconds, about."""
    count = 1
    while True:
        taken = case.run(count)
        if taken >= seconds * ENOUGH:
            return max(round(count * seconds / taken), 1)
        count *= 4


def measure(cases: Iterable[Case], effort: Effort) -> Rounds:
    """Run every case in each round, in random order."""
    cases, dice = list(cases), random.Random(SEED)
    counts = {case.name: case.count or calibrated(case, effort.slice) for case in cases}
    costs: dict[str, list[float]] = {case.name: [] for case in cases}
    gc.collect()
    gc.freeze()
    try:
        for _ in range(effort.rounds):
            for case in dice.sample(cases, len(cases)):
                gc.collect()
                costs[case.name].append(case.run(counts[case.name]) / counts[case.name])
    finally:
        gc.unfreeze()
    return Rounds(costs)


def pin() -> None:
    """Stay on one core, where the system lets us; any one: another run may have another."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {random.choice(list(os.sched_getaffinity(0)))})
