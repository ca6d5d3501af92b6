"""The last crashes, restarts and timeouts, the latest on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from gpool.observer.client import NodeError
from gpool.observer.terminal import plain
from gpool.observer.terminal.layout import Column, clean, counted, moment
from gpool.observer.terminal.top.table import Cell, Heading, Row, Table
from gpool.observer.terminal.top.view import (
    STYLES,
    Answer,
    LookNow,
    OpenProcess,
    Question,
    Target,
    answered,
    lines,
    text,
)

LEVELS: Final = ("info", "warning", "error")
HEADINGS: Final = [
    Heading(Column("Time")), Heading(Column("Level")), Heading(Column("Event")),
    Heading(Column("Times", right=True)), Heading(Column("Who", least=10)),
    Heading(Column("What", least=20)),
]  # fmt: skip


class Events(Vertical):
    """The tab with the events."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("l", "level", "Level")]

    def __init__(self) -> None:
        super().__init__()
        self.filter_text = ""
        self._level = "info"
        self._answer: Answer | None = None
        self._shown: list[dict[str, Any]] = []  # the latest first

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(classes="caption")
        yield Table()
        yield Static(id="event")

    def questions(self) -> Sequence[Question]:
        """Ask for all: an event that is joined with a later one moves."""
        return [Question("/v1/events", (("level", self._level),))]

    def show_answers(self, answers: Sequence[Answer | NodeError]) -> None:
        """Show the events."""
        self._answer = answered(answers[0])
        found = [event for event in self._answer["events"] if self._matches(event)]
        self._shown = found[::-1]
        self._draw()

    def _matches(self, event: Answer) -> bool:
        said = f"{event['kind']} {plain.event_process(event)} {event['pool']} {event['text']}"
        return self.filter_text.lower() in said.lower()

    def target(self) -> Target | None:
        """Return nothing: what an event tells of is over."""
        return None

    def action_level(self) -> None:
        """Show all, then warnings and errors, then errors."""
        self._level = LEVELS[(LEVELS.index(self._level) + 1) % len(LEVELS)]
        self.post_message(LookNow())

    def on_resize(self) -> None:
        """Give the columns their new widths."""
        if self._answer is not None:
            self._draw()

    def on_data_table_row_highlighted(self) -> None:
        """Show the whole text of the event under the cursor."""
        event = self._current()
        told = lines().append(clean(f"{event['kind']}: {event['text']}") if event else "")
        self.query_one("#event", Static).update(told)

    def on_data_table_row_selected(self) -> None:
        """Open the window of the process that it is about."""
        event = self._current()
        if event and event["process"] and event["process"]["id"] is not None:
            self.post_message(OpenProcess(event["process"]["id"]))

    def _current(self) -> dict[str, Any] | None:
        current = self.query_one(Table).current
        return next((event for event in self._shown if str(event["seq"]) == current), None)

    def _draw(self) -> None:
        assert self._answer is not None
        self.query_one(".caption", Static).update(self._caption())
        now = self._answer["now"]
        rows = [Row(str(event["seq"]), _cells(event, now)) for event in self._shown]
        self.query_one(Table).fill(HEADINGS, rows)

    def _caption(self) -> Text:
        found = len(self._shown)
        said = {
            "info": counted(found, "event"), "error": counted(found, "error"),
            "warning": f"{found} warnings and errors",
        }[self._level]  # fmt: skip
        if self.filter_text:
            said += f" that match {self.filter_text!r}"
        caption = text(f"{said}, the latest first; ", "dim")
        caption.append("l", f"{STYLES['dim']} underline")
        return caption.append(" levels", STYLES["dim"])


def _cells(event: Answer, now: float) -> list[Cell]:
    who = plain.event_process(event)
    if who is None and event["pool"]:
        who = f"pool {event['pool']}"
    tone = plain.LEVELS.get(event["level"], "plain")
    return [
        Cell(moment(event["at"], now), "dim"), Cell(event["level"], tone),
        Cell(event["kind"], tone),
        Cell(event["count"], "dim" if event["count"] == 1 else "head"),
        Cell(who), Cell(clean(event["text"]), "dim"),
    ]  # fmt: skip
