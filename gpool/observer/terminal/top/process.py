"""The window of a process: what it is, whom it is linked to, where it is in its code.

A link is followed by Enter, and Escape goes back the way one came.  A process that dies
keeps its window, marked DEAD, also when the node does not know it any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Static

from gpool.observer.client import NodeError
from gpool.observer.terminal import plain
from gpool.observer.terminal.layout import Column, Tone, clean, width
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
    status_tone,
)

HEADINGS: Final = [
    Heading(Column("Process", least=14)),
    Heading(Column("Is its", least=10)),
    Heading(Column("Status")),
]
SINGULAR: Final = {"ancestors": "ancestor", "links": "link", "monitors": "monitored",
                   "monitored by": "monitors it"}  # fmt: skip
NAME: Final = 18  # columns of what a fact is called
MESSAGES: Final = 20


class ProcessWindow(Screen[None]):
    """All about one process, until one follows a link to the next."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back"),
        Binding("m", "messages", "Messages"),
        Binding("s", "state", "State"),
        Binding("p", "app.pause", "Pause", show=False),  # no room for all beside the actions
    ]

    def __init__(self, id: int) -> None:
        super().__init__()
        self.filter_text = ""
        self.is_ready = False  # all of its parts are there
        self.trail = [id]  # the processes looked at; the last one is shown
        self._answer: Answer | None = None
        self._more: dict[str, Answer | NodeError] = {}  # messages and state, once asked for
        self._wanted: list[str] = []  # of these, what is still to be asked

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(id="bar")
        yield Static(id="banner")
        yield Static(id="who")
        with Vertical(id="window"):
            with Vertical(id="left"):
                with VerticalScroll(id="facts"):
                    yield Static(id="process-facts")
                yield Table(id="relatives")
            with VerticalScroll(id="code"):
                yield Static(id="process-code")
        yield Footer()

    def on_mount(self) -> None:
        """Begin where links can be followed."""
        self.query_one("#relatives", Table).focus()
        self.call_after_refresh(self._start)

    def _start(self) -> None:
        self.is_ready = True
        self.post_message(LookNow())

    def questions(self) -> Sequence[Question]:
        """Ask for the process, and what was wanted of it."""
        path = f"/v1/processes/{self.trail[-1]}"
        asked = {"messages": Question(f"{path}/messages", (("limit", MESSAGES),)),
                 "state": Question(f"{path}/state")}  # fmt: skip
        return [Question(path), *(asked[name] for name in self._wanted)]

    def show_answers(self, answers: Sequence[Answer | NodeError]) -> None:
        """Show the process."""
        self._more |= dict(zip(self._wanted, answers[1:], strict=True))
        self._wanted = []
        self._answer = answered(answers[0])
        self._draw()

    def target(self) -> Target | None:
        """Return the process, unless it is dead."""
        found = self._answer["process"] if self._answer else None
        if found is None or found["ended"] is not None:
            return None
        supervisor = found["supervisor"]["id"] if found["supervisor"] else None
        return Target(
            "process", f"{found['pid']} {clean(found['label'])}", found["pid"],
            id=found["id"], supervisor=supervisor, child=found["child_id"],
        )  # fmt: skip

    def follow(self, id: int) -> None:
        """Go on to another process."""
        if id != self.trail[-1]:
            self.trail.append(id)
            self._begin()

    def action_back(self) -> None:
        """Go back to the process before, or to where one came from."""
        self.trail.pop()
        if self.trail:
            self._begin()
        else:
            self.dismiss()

    def action_messages(self) -> None:
        """Have a look at the first messages in its mailbox."""
        self._want("messages")

    def action_state(self) -> None:
        """Have a look at its state, if its owner shows it."""
        self._want("state")

    def _want(self, what: str) -> None:
        self._wanted = [what]
        self.post_message(LookNow())

    def _begin(self) -> None:
        self._answer, self._more, self._wanted = None, {}, []
        for one in ("#who", "#process-facts", "#process-code"):
            self.query_one(one, Static).update("")
        self.query_one("#relatives", Table).fill(HEADINGS, [])
        self.post_message(LookNow())

    def on_resize(self) -> None:
        """Give the columns their new widths."""
        if self._answer is not None:
            self.call_after_refresh(self._draw)

    def on_data_table_row_selected(self) -> None:
        """Follow a link."""
        key = self.query_one("#relatives", Table).current or ""
        if key.isdecimal():
            self.post_message(OpenProcess(int(key)))

    def _draw(self) -> None:
        if self._answer is None:
            return
        found = self._answer["process"]
        self.query_one("#who", Static).update(_who(found, len(self.trail)))
        self.query_one("#process-facts", Static).update(
            _facts(found, self.query_one("#facts").size.width - 2)
        )
        self.query_one("#relatives", Table).fill(HEADINGS, list(_relatives(found)))
        self.query_one("#process-code", Static).update(self._code(found))

    def _code(self, found: Answer) -> Text:
        drawn = lines()
        if said := plain.last_exit(found):
            drawn.append("Last exit\n", STYLES["head"]).append("\n".join([*said, "", ""]))
        drawn.append("Stack", STYLES["head"]).append(", outermost first\n", STYLES["dim"])
        drawn.append("\n".join([*plain.frame_lines(found["stack"] or ["none"]), ""]))
        for name in ("messages", "state"):
            drawn.append(f"\n{name.capitalize()}", STYLES["head"])
            drawn.append_text(_told(name, self._more.get(name)))
        return drawn


def _who(found: Answer, depth: int) -> Text:
    drawn = lines().append(f"{found['pid']} {clean(found['label'])}", STYLES["head"])
    if found["ended"] is not None:
        drawn.append(f"  {plain.ending(found)}", STYLES["bad"])
    if depth > 1:
        drawn.append(f"   {depth - 1} before it", STYLES["dim"])
    return drawn


def _facts(found: Answer, columns: int) -> Text:
    """Return what there is to say; two short facts share a line that has room for them."""
    half = columns // 2
    drawn, column = lines(), 0
    for name, value in plain.facts(found):
        is_long = _is_long(value, half)
        if column:
            drawn.append("\n" if is_long else " " * (half - column))
        drawn.append_text(_fact(name, value))
        column = 0 if is_long or (column and not is_long) else NAME + width(value)
        drawn.append("" if column else "\n")
    drawn.rstrip()
    return drawn


def _is_long(value: str, columns: int) -> bool:
    return NAME + width(value) >= columns


def _fact(name: str, value: str) -> Text:
    tone: Tone = "bad" if name == "exit reason" else "plain"
    if name == "status":
        tone = status_tone(value)
    drawn = lines().append(f"{name:{NAME}}", STYLES["dim"])
    return drawn.append(value, STYLES[tone])


def _relatives(found: Answer) -> Iterator[Row]:
    """Yield each process once, with all that it is to this one."""
    relations: dict[tuple[int | None, str], list[str]] = {}
    statuses = {}
    for name, refs in plain.relations(found):
        for ref in refs:
            who = (ref["id"], clean(ref["label"]))
            relations.setdefault(who, []).append(SINGULAR.get(name, name))
            statuses[who] = ref["status"]
    for (id, label), names in relations.items():
        said = label if id is None else f"{label} #PID<{id}>"
        status = statuses[id, label]
        cells = [Cell(said), Cell(", ".join(names), "dim"), Cell(status, status_tone(status))]
        yield Row(label if id is None else str(id), cells)
    for name, _ in plain.relations(found):
        if more := found.get(f"{name.replace(' ', '_')}_more", 0):
            yield Row(name, [Cell(f"… {more} more", "dim"), Cell(name, "dim"), Cell("")])


def _told(name: str, answer: Answer | NodeError | None) -> Text:
    drawn = lines()
    if answer is None:
        return drawn.append(f", key {name[0]}\n", STYLES["dim"])
    if isinstance(answer, NodeError):
        return drawn.append(f"\n{clean(answer.message)}\n", STYLES["warn"])
    if name == "state":
        said = [clean(line) for line in answer["state"].splitlines()]
        return drawn.append("\n" + "\n".join(said) + "\n")
    drawn.append(f", the first {len(answer['messages'])} of {answer['length']}\n", STYLES["dim"])
    return drawn.append("".join(f"{clean(message)}\n" for message in answer["messages"]))
