"""The line: first come, first served, and out at any place."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from gpool.pool.line import Line


@dataclass(eq=False)
class Ticket:
    """What the line needs of a ticket."""

    number: int
    waits: bool = False


def lined_up(count: int) -> tuple[Line, list[Ticket]]:
    """Return a line, and who stands there."""
    line, tickets = Line(), [Ticket(number) for number in range(count)]
    for ticket in tickets:
        line.join(ticket)
    return line, tickets


class TestLeave:
    def test_leaves_the_others_in_order(self) -> None:
        """From the middle, and from both ends."""
        line, tickets = lined_up(7)
        for gone in (3, 0, 6):
            line.leave(tickets[gone])
            line.check()
        assert line.present() == [tickets[number] for number in (1, 2, 4, 5)]
        assert line.length == 4

    def test_twice_is_fine(self) -> None:
        """The second time it does not stand there."""
        line, tickets = lined_up(3)
        line.leave(tickets[1])
        line.leave(tickets[1])
        assert line.length == 2

    def test_the_last_one_leaves_nobody(self) -> None:
        """Whoever has left before."""
        line, tickets = lined_up(5)
        for gone in (1, 3, 2, 4, 0):
            line.leave(tickets[gone])
        assert line.length == 0
        assert line.next() is None

    def test_those_who_left_are_not_kept_for_long(self) -> None:
        """Though some never leave, at the ends."""
        line, tickets = lined_up(1000)
        for ticket in tickets[1:-1]:
            line.leave(ticket)
            line.check()
        assert line.present() == [tickets[0], tickets[-1]]
        assert len(line) <= 4


class TestNext:
    def test_passes_over_who_has_left(self) -> None:
        """It is not there any more."""
        line, tickets = lined_up(6)
        line.leave(tickets[1])
        line.leave(tickets[2])
        assert [line.next(), line.next()] == [tickets[0], tickets[3]]
        assert not tickets[3].waits
        line.check()


class TestFirst:
    def test_passes_over_who_has_left(self) -> None:
        """Whoever was the first but one has left, and the first was served."""
        line, tickets = lined_up(3)
        line.leave(tickets[1])
        line.next()
        assert line.first() is tickets[2]
        line.next()
        assert line.first() is None


class TestPutBack:
    def test_in_its_old_place(self) -> None:
        """Before those who came later, behind those who were put back before it."""
        line, tickets = lined_up(4)
        first, second = line.next(), line.next()
        line.put_back(second)
        line.put_back(first)
        assert line.present() == tickets
        line.check()


class TestRefill:
    def test_once_more_if_a_signal_handler_comes_between(self) -> None:
        """It has let one join that would be forgotten."""
        line, tickets = lined_up(2)
        late = Ticket(2)

        def mark() -> list[Ticket]:
            found = line.present()
            if not late.waits:
                line.join(late)
            return found

        line.refill(mark)
        assert line.present() == [*tickets, late]
        line.check()


@pytest.mark.parametrize("seed", range(50))
def test_random_walk(seed: int) -> None:
    """Whatever comes and goes, it is what a plain list would be."""
    dice, line, model, number = random.Random(seed), Line(), list[Ticket](), 0
    taken: list[Ticket] = []
    for _ in range(300):
        match dice.randrange(6):
            case 0 | 1:
                number += 1
                model.append(Ticket(number))
                line.join(model[-1])
            case 2 if model:
                assert line.next() is model[0]
                taken.append(model.pop(0))
            case 3 if model:
                line.leave(model.pop(dice.randrange(len(model))))
            case 4 if taken:
                ticket = taken.pop(dice.randrange(len(taken)))
                line.put_back(ticket)
                model = sorted([*model, ticket], key=lambda one: one.number)
            case _:
                line.leave(Ticket(0))
        line.check()
        assert line.present() == model
        assert line.length == len(model)
