"""Text for terminals: widths, tables, ages, bars; pure, for ``plain.py`` and ``top``.

    >>> duration(75.0)
    '1m15s'
    >>> bar([(3, "#"), (1, "=")], 8, 8)
    '###=....'
    >>> sparkline([0, 4, 8], 3)
    '▁▅█'

What an observed process says may hold anything, escape sequences too: :func:`clean`
makes it harmless before it reaches a terminal.

Not here: what the lines are about (``plain.py``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

Tone = Literal["plain", "head", "bad", "warn", "dim"]
MORE: Final = "…"
GAP: Final = "  "  # between two columns
_FOLDERS: Final = re.compile(r"[^\s(]*/")
_STEPS: Final = "▁▂▃▄▅▆▇█"
# For a terminal that has no more than ASCII; a column for a column.
ASCII: Final = str.maketrans("├└─│…█▓░·▲▼▁▂▃▄▅▆▇", "|`-|~#=.-^v_.,-=+*")


class Line(NamedTuple):
    """A line, and how it is meant; the words say as much without the colour."""

    text: str
    tone: Tone = "plain"


class Column(NamedTuple):
    """A column of a table."""

    heading: str
    right: bool = False  # flush right: numbers
    least: int | None = None  # columns of the terminal to which it may be cut; None: never


def clean(text: Any) -> str:
    """Return a text on one line, with everything that a terminal would obey escaped."""
    text = str(text)
    return text if text.isprintable() else "".join(map(_harmless, text))


def _harmless(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()


def without_folders(text: str | None) -> str | None:
    """Return a place in the code with the file's name alone: f (app.py:3)."""
    return None if text is None else _FOLDERS.sub("", text)


def width(text: str) -> int:
    """Return how many columns of a terminal a clean text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, columns: int | None) -> str:
    """Return a text that fits so many columns (None: any), with "…" for what is left out."""
    if columns is None or width(text) <= columns:
        return text
    kept, left = [], columns - 1
    for char in text:
        left -= _width(char)
        if left < 0:
            break
        kept.append(char)
    return "".join(kept) + MORE if columns > 0 else ""


def pad(text: str, columns: int, right: bool = False) -> str:
    """Return a text cut or filled up to so many columns."""
    text = cut(text, columns)
    space = " " * (columns - width(text))
    return space + text if right else text + space


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[Any]], limit: int | None = None
) -> list[str]:
    """Return aligned lines, the headings first; nothing without rows.

    Args:
        columns: What stands in them.
        rows: A cell for each column; None is shown as "-".
        limit: Columns of the terminal; None: as many as it takes.
    """
    cells = [["-" if cell is None else clean(cell) for cell in row] for row in rows]
    if not cells:
        return []
    cells.insert(0, [column.heading for column in columns])
    widths = fit(columns, [max(map(width, column)) for column in zip(*cells, strict=True)], limit)
    return [cut(_row(columns, row, widths), limit) for row in cells]


def _row(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        pad(cell, columns, column.right)
        for column, cell, columns in zip(columns, row, widths, strict=True)
    ]
    return GAP.join(padded).rstrip()


def fit(
    columns: Sequence[Column], widths: Sequence[int], limit: int | None, gap: int = len(GAP)
) -> list[int]:
    """Return widths that fit in all: the widest columns that may be cut are cut first."""
    fitted = list(widths)
    if limit is None:
        return fitted
    excess = sum(fitted) + gap * (len(fitted) - 1) - limit
    while excess > 0:
        room = [
            (fitted[at], at)
            for at, column in enumerate(columns)
            if column.least is not None and fitted[at] > column.least
        ]
        if not room:
            break
        fitted[max(room)[1]] -= 1
        excess -= 1
    return fitted


def duration(seconds: float | None) -> str:
    """Return a duration in at most six columns: 0ms, 1.5ms, 12.5s, 3m20s, 2h05m, 4d01h."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{seconds * 1000:.1f}ms" if 0 < seconds < 0.00995 else f"{seconds * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}m"
    return f"{hours // 24}d{hours % 24:02}h"


def counted(number: int, noun: str) -> str:
    """Return how many there are: 1 pool, 2 pools."""
    many = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else many}"


def moment(at: float, now: float) -> str:
    """Return the local time of day, and the date unless it is today's."""
    then = datetime.fromtimestamp(at)
    today = datetime.fromtimestamp(now).date() == then.date()
    return f"{then:%H:%M:%S}" if today else f"{then:%m-%d %H:%M:%S}"


def bar(parts: Sequence[tuple[float, str]], total: float, columns: int) -> str:
    """Return parts of a total, each as so many of its character; the rest is dots.

    A part that is not zero takes a column at least.
    """
    drawn = ""
    for amount, char in parts:
        share = round(amount * columns / total) if total else 0
        drawn += char * max(share, amount > 0)
    return drawn[:columns].ljust(columns, ".")


def sparkline(values: Sequence[float | None], columns: int, top: float | None = None) -> str:
    """Return the last so many values as blocks; a blank where nothing was measured.

    Args:
        values: Oldest first.
        columns: Values to show.
        top: What a full block stands for; None: the greatest of them.
    """
    shown = values[-columns:] if columns > 0 else []
    highest = top or max((value for value in shown if value is not None), default=0)
    return "".join(_step(value, highest) for value in shown)


def _step(value: float | None, highest: float) -> str:
    if value is None:
        return " "
    if value <= 0 or highest <= 0:
        return _STEPS[0]
    return _STEPS[max(1, min(7, round(value * 7 / highest)))]
