"""Tables, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.bounds import Verdict
from benchmarks.results import Result, Row

Line = Sequence[str]
Format = Callable[[Sequence[Line]], str]  # the first line is the head

DIGITS: Final = 3


def figure(value: float | None) -> str:
    """Return a number as a table shows it: three digits, thousands apart."""
    if value is None:
        return ""
    if value == int(value) or abs(value) >= 10 ** (DIGITS - 1):
        return f"{value:,.0f}"
    return f"{value:#.{DIGITS}g}"


def text(lines: Sequence[Line]) -> str:
    """Return a table for a terminal: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(lines: Sequence[Line]) -> str:
    """Return a table in Markdown."""
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    rule = "| --- " + "| ---: " * (len(lines[0]) - 1) + "|"
    return "\n".join([head, rule, *rest])


def table(result: Result, form: Format) -> str:
    """Return the tables of a suite: rows that have no column in common stand in different ones."""
    parts: list[list[Row]] = []
    for row in result.rows:
        if not parts or row.figures.keys().isdisjoint(_columns(parts[-1])):
            parts.append([])
        parts[-1].append(row)
    tables = [_part(result.suite, part, form) for part in parts]
    left_out = [f"Not installed: {peer}." for peer in result.left_out]
    return "\n\n".join([*tables, *left_out, *result.notes])


def _part(title: str, rows: list[Row], form: Format) -> str:
    columns = _columns(rows)
    lines = [[row.what, *(figure(row.figures.get(c)) for c in columns)] for row in rows]
    return form([[title, *columns], *lines])


def _columns(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row.figures))


def bounds(verdicts: Sequence[Verdict], form: Format) -> str:
    """Return the table of the bounds beside what was measured."""
    lines = [
        [
            verdict.bound.what,
            verdict.bound.words,
            "not measured" if verdict.value is None else figure(verdict.value),
            "yes" if verdict.is_met else "no",
        ]
        for verdict in verdicts
    ]
    return form([["bounds", "limit", "measured", "met"], *lines])
