"""A table that keeps its cursor on the same thing while its rows come, go and move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.text import Text
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from gpool.observer.terminal.layout import Column, Tone, clean, fit, pad, width
from gpool.observer.terminal.top.view import STYLES

SCROLLBAR = 1  # columns


class Cell(NamedTuple):
    """What stands in a cell."""

    said: Any
    tone: Tone = "plain"


class Row(NamedTuple):
    """A row, and what it is about."""

    key: str
    cells: Sequence[Cell]


class Heading(NamedTuple):
    """A column, and what is special about its heading."""

    column: Column
    letter: int | None = None  # which one of the heading sorts by it
    arrow: str = ""  # the order, if it is sorted by it


class Table(DataTable[Text]):
    """Rows that are told to :meth:`fill` it again and again."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row", cell_padding=0)
        self.rows_shown: list[Row] = []
        self._headings: list[Heading] = []
        self._widths: list[int] = []  # of the columns
        self._widest: list[int] = []  # what stood in them so far, so that they do not jump about

    @property
    def current(self) -> str | None:
        """What the cursor is on: a row's key."""
        at = self.cursor_row
        return self.rows_shown[at].key if 0 <= at < len(self.rows_shown) else None

    def fill(self, headings: Sequence[Heading], rows: Sequence[Row], is_new: bool = False) -> None:
        """Show these rows; what has not changed is not drawn anew.

        Args:
            headings: Of the columns.
            rows: All there are.
            is_new: It is another table than before, so begin at its top.
        """
        current, before = (None, 0) if is_new else (self.current, self.cursor_row)
        widths = self._fitted(headings, rows)
        if widths != self._widths or list(headings) != self._headings:
            self._set_up(headings, widths)
        self._fill(rows)
        keys = [row.key for row in rows]
        at = keys.index(current) if current in keys else min(before, len(keys) - 1)
        if at >= 0 and at != self.cursor_row:
            self.move_cursor(row=at)

    def _fitted(self, headings: Sequence[Heading], rows: Sequence[Row]) -> list[int]:
        natural = [width(_title(heading)) for heading in headings]
        if list(headings) == self._headings:
            natural = self._widest
        for row in rows:
            for at, cell in enumerate(row.cells):
                natural[at] = max(natural[at], width(clean(cell.said)))
        self._widest = natural
        columns = [heading.column for heading in headings]
        room = (self.size.width or self.app.size.width) - SCROLLBAR
        widths = fit(columns, natural, room, gap=1)
        return _stretched(columns, widths, room)

    def _set_up(self, headings: Sequence[Heading], widths: list[int]) -> None:
        self.clear(columns=True)
        self.rows_shown = []
        self._headings, self._widths = list(headings), widths
        for at, (heading, columns) in enumerate(zip(headings, widths, strict=True)):
            self.add_column(_heading(heading, columns), width=columns + 1, key=str(at))

    def _fill(self, rows: Sequence[Row]) -> None:
        for at, row in enumerate(rows):
            if at >= len(self.rows_shown):
                self.add_row(*map(self._drawn, range(len(row.cells)), row.cells), key=str(at))
            elif row != self.rows_shown[at]:
                self._update(at, row)
        for at in reversed(range(len(rows), len(self.rows_shown))):
            self.remove_row(str(at))
        self.rows_shown = list(rows)

    def _update(self, at: int, row: Row) -> None:
        for column, (old, new) in enumerate(zip(self.rows_shown[at].cells, row.cells, strict=True)):
            if old != new:
                self.update_cell_at(Coordinate(at, column), self._drawn(column, new))

    def _drawn(self, at: int, cell: Cell) -> Text:
        right = self._headings[at].column.right
        said = "-" if cell.said is None else clean(cell.said)
        return Text(pad(said, self._widths[at], right), STYLES[cell.tone], no_wrap=True)


def _stretched(columns: Sequence[Column], widths: list[int], room: int) -> list[int]:
    """Give what is left of the room to the last column that may be cut."""
    spare = room - sum(widths) - len(widths)
    flexible = [at for at, column in enumerate(columns) if column.least is not None]
    if spare > 0 and flexible:
        widths[flexible[-1]] += spare
    return widths


def _title(heading: Heading) -> str:
    return heading.column.heading + heading.arrow


def _heading(heading: Heading, columns: int) -> Text:
    padded = pad(_title(heading), columns, heading.column.right)
    drawn = Text(padded, STYLES["head" if heading.arrow else "plain"], no_wrap=True)
    if heading.letter is not None:
        start = padded.index(_title(heading)[:1]) if heading.column.right else 0
        drawn.stylize("underline", start + heading.letter, start + heading.letter + 1)
    return drawn
