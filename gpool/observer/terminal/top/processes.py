"""The table of processes: sorted by any column, filtered, thousands of them in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from gpool.observer.client import NodeError
from gpool.observer.terminal.layout import Column, clean, counted, duration, without_folders
from gpool.observer.terminal.top.table import Cell, Heading, Row, Table
from gpool.observer.terminal.top.view import (
    Answer,
    LookNow,
    OpenProcess,
    Question,
    Target,
    answered,
    status_tone,
    text,
)

PAGE: Final = 200  # rows
WIDE: Final = 100  # columns of a terminal that has room for all of the table's
KINDS: Final = ("live", "ended", "zombies")


class Sortable(NamedTuple):
    """A column that one may sort by."""

    key: str  # what the node calls it
    letter: str  # the key that sorts by it
    column: Column
    is_number: bool = False
    only_wide: bool = False  # in a narrow terminal it is shown only if it is sorted by


COLUMNS: Final = (
    Sortable("id", "i", Column("Pid"), is_number=True),
    Sortable("label", "n", Column("Name or Initial Func", least=14)),
    Sortable("current_function", "c", Column("Current Function", least=14)),
    Sortable("status", "s", Column("Status")),
    Sortable("mailbox", "m", Column("MsgQ", right=True), is_number=True),
    Sortable("restarts", "r", Column("Restarts", right=True), is_number=True),
    Sortable("links", "l", Column("Links", right=True), is_number=True, only_wide=True),
    Sortable("monitors", "o", Column("Mon", right=True), is_number=True, only_wide=True),
    Sortable("monitored_by", "b", Column("MonBy", right=True), is_number=True, only_wide=True),
    Sortable("age", "a", Column("Age", right=True), is_number=True),
)
REASON: Final = Sortable("current_function", "c", Column("Reason", least=14))
BY_KEY: Final = {column.key: column for column in COLUMNS}


class Processes(Vertical):
    """The tab with the processes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(one.letter, f"sort('{one.key}')", show=False) for one in COLUMNS),
        Binding("z", "kind", "Ended, zombies"),
        Binding("full_stop", "page(1)", "Next page", show=False),
        Binding("comma", "page(-1)", "Page before", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.filter_text = ""
        self._kind = "live"
        self._sort, self._order = "label", "asc"
        self._page = 1
        self._answer: Answer | None = None
        self._shown: Sequence[Question] = ()  # what was asked for the table that is shown

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(classes="caption")
        yield Table()

    def questions(self) -> Sequence[Question]:
        """Ask for a page of the table."""
        query = {
            "which": self._kind, "sort": self._sort, "order": self._order,
            "filter": self.filter_text, "page": self._page, "per": PAGE,
        }  # fmt: skip
        return [Question("/v1/processes", tuple(query.items()))]

    def show_answers(self, answers: Sequence[Answer | NodeError]) -> None:
        """Show the page."""
        self._answer = answered(answers[0])
        self._page = min(self._page, max(1, self._answer["pages"]))
        is_new, self._shown = self._shown != self.questions(), self.questions()
        self._draw(is_new)

    def target(self) -> Target | None:
        """Return the process under the cursor."""
        current = self.query_one(Table).current
        rows = self._answer["processes"] if self._answer else ()
        for row in rows:
            if str(row["id"]) == current and row["ended"] is None:
                name = f"{row['pid']} {clean(row['label'])}"
                return Target("process", name, row["pid"], id=row["id"])
        return None

    def action_sort(self, column: str) -> None:
        """Sort by a column; numbers from the greatest; again: the other way round."""
        if column == self._sort:
            self._order = "asc" if self._order == "desc" else "desc"
        else:
            numbers_first = BY_KEY[column].is_number and column != "id"
            self._sort, self._order = column, "desc" if numbers_first else "asc"
        self._page = 1
        self.post_message(LookNow())

    def on_data_table_header_selected(self, event: Table.HeaderSelected) -> None:
        """Sort by the column whose heading is clicked."""
        shown = self._columns(self._kind)
        self.action_sort(shown[event.column_index].key)

    def action_kind(self) -> None:
        """Show the live ones, then the ended ones, then the zombies."""
        self._kind = KINDS[(KINDS.index(self._kind) + 1) % len(KINDS)]
        self._page = 1
        self.post_message(LookNow())

    def action_page(self, step: int) -> None:
        """Turn a page."""
        pages = self._answer["pages"] if self._answer else 1
        self._page = max(1, min(pages, self._page + step))
        self.post_message(LookNow())

    def on_resize(self) -> None:
        """Give the columns their new widths."""
        if self._answer is not None:
            self._draw()

    def on_data_table_row_selected(self) -> None:
        """Open the window of a process."""
        if (current := self.query_one(Table).current) is not None:
            self.post_message(OpenProcess(int(current)))

    def _draw(self, is_new: bool = False) -> None:
        assert self._answer is not None
        self.query_one(".caption", Static).update(text(_caption(self._answer), "dim"))
        columns = self._columns(self._answer["which"])
        rows = [
            Row(str(row["id"]), [_cell(column, row) for column in columns])
            for row in self._answer["processes"]
        ]
        self.query_one(Table).fill(list(map(self._heading, columns)), rows, is_new)

    def _columns(self, kind: str) -> list[Sortable]:
        is_wide = self.app.size.width >= WIDE
        shown = [
            column for column in COLUMNS
            if is_wide or not column.only_wide or column.key == self._sort
        ]  # fmt: skip
        if kind == "ended":
            shown = [REASON if column.key == REASON.key else column for column in shown]
        return shown

    def _heading(self, sortable: Sortable) -> Heading:
        letter = sortable.column.heading.lower().index(sortable.letter) \
            if sortable is not REASON else None  # fmt: skip
        arrow = ("▲" if self._order == "asc" else "▼") if sortable.key == self._sort else ""
        return Heading(sortable.column, letter, arrow)


def _cell(column: Sortable, row: Answer) -> Cell:
    value: Any = row[column.key]
    match column.key:
        case "id" | "age":
            return Cell(value if column.key == "id" else duration(value))
        case "status":
            return Cell(value, status_tone(value))
        case "mailbox":
            return Cell(value, "head" if value else "dim")
        case "restarts":
            return Cell(value, "warn" if value else "dim")
        case "current_function" if row["ended"] is not None:
            return Cell(row["reason"], "bad")
        case "current_function":
            return Cell(without_folders(value), "dim")
        case "links" | "monitors" | "monitored_by":
            return Cell(value, "dim")
    return Cell(value)


def _caption(answer: Answer) -> str:
    first = (answer["page"] - 1) * answer["per"] + 1
    last = first + len(answer["processes"]) - 1
    kind = {"live": "process", "ended": "ended process", "zombies": "zombie"}[answer["which"]]
    said = counted(answer["total"], kind)
    if answer["filter"]:
        said += f" that match {answer['filter']!r}"
    if answer["pages"] > 1:
        said += f", {first} to {last}; . and , turn the page"
    return said
