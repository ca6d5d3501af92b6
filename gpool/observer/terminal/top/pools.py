"""The pools, and below them all about the one under the cursor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from gpool.observer.client import NodeError
from gpool.observer.terminal import plain
from gpool.observer.terminal.layout import Column, Tone, clean, counted, duration, without_folders
from gpool.observer.terminal.top.table import Cell, Heading, Row, Table
from gpool.observer.terminal.top.view import (
    GOOD,
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

HEADINGS: Final = [
    Heading(Column("Pool", least=8)), Heading(Column("State")), Heading(Column("Workers")),
    Heading(Column("Busy", right=True)), Heading(Column("Size", right=True)),
    Heading(Column("Wait", right=True)), Heading(Column("Longest", right=True)),
    Heading(Column("Held", right=True)), Heading(Column("Timeouts", right=True)),
    Heading(Column("Breaker", least=6)),
]  # fmt: skip
CLIENTS: Final = [
    Heading(Column("Client", least=14)), Heading(Column("")), Heading(Column("For", right=True)),
    Heading(Column("Left", right=True)), Heading(Column("Worker", least=8)),
    Heading(Column("At", least=20)),
]  # fmt: skip
BAR: Final = 12  # columns


class Pools(Vertical):
    """The tab with the pools."""

    def __init__(self) -> None:
        super().__init__()
        self.filter_text = ""
        self._answer: Answer | None = None
        self._detail: Answer | None = None
        self._pool: str | None = None  # the one whose details are shown

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(classes="caption")
        yield Table(id="pool-table")
        with Vertical(id="pool"):
            with VerticalScroll(id="facts"):
                yield Static(id="pool-facts")
            yield Table(id="clients")

    def questions(self) -> Sequence[Question]:
        """Ask for all, and for more of one."""
        asked = [Question("/v1/pools")]
        if self._pool is not None:
            asked.append(Question(f"/v1/pools/{quote(self._pool, safe='')}"))
        return asked

    def show_answers(self, answers: Sequence[Answer | NodeError]) -> None:
        """Show the pools; a pool that has gone meanwhile has no details."""
        self._answer = answered(answers[0])
        detail = answers[1] if len(answers) > 1 else None
        self._detail = None if isinstance(detail, NodeError) else detail
        self._draw()

    def target(self) -> Target | None:
        """Return the pool under the cursor."""
        found = [pool for pool in self._pools() if pool["name"] == self._pool]
        if not found:
            return None
        pool = found[0]
        return Target(
            "pool", f"pool {clean(pool['name'])}", pool["name"],
            size=pool["size"], max_overflow=pool["max_overflow"],
            is_suspended=pool["suspended"], is_up=pool["phase"] == "up",
        )  # fmt: skip

    def on_resize(self) -> None:
        """Give the columns their new widths."""
        if self._answer is not None:
            self._draw()

    def on_data_table_row_highlighted(self, event: Table.RowHighlighted) -> None:
        """Show the details of another pool."""
        if event.data_table.id == "pool-table":
            self._choose()

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        """Open the window of a client, or go from a pool to its clients."""
        table = event.data_table
        if table.id == "pool-table":
            self.screen.set_focus(self.query_one("#clients", Table))
        elif isinstance(table, Table) and (table.current or "").isdecimal():
            self.post_message(OpenProcess(int(table.current or 0)))

    def _choose(self) -> None:
        chosen = self.query_one("#pool-table", Table).current
        if chosen != self._pool:
            self._pool, self._detail = chosen, None
            self._draw_detail()
            self.post_message(LookNow())

    def _pools(self) -> list[Answer]:
        pools = self._answer["pools"] if self._answer else []
        return [pool for pool in pools if self.filter_text.lower() in pool["name"].lower()]

    def _draw(self) -> None:
        pools = self._pools()
        said = counted(len(pools), "pool")
        if self.filter_text:
            said += f" that match {self.filter_text!r}"
        self.query_one(".caption", Static).update(text(said, "dim"))
        rows = [Row(pool["name"], list(_cells(pool))) for pool in pools]
        self.query_one("#pool-table", Table).fill(HEADINGS, rows)
        self._choose()
        self._draw_detail()

    def _draw_detail(self) -> None:
        detail = self._detail["pool"] if self._detail else None
        columns = max(10, self.query_one("#facts").size.width - 32)
        drawn = (
            _facts(detail, self._detail["now"], columns) if detail and self._detail else Text("")
        )
        self.query_one("#pool-facts", Static).update(drawn)
        self.query_one("#clients", Table).fill(CLIENTS, list(_clients(detail)) if detail else [])


def _cells(pool: Answer) -> Iterator[Cell]:
    state = plain.pool_state(pool)
    tone: Tone = "bad" if not plain.is_well(pool) else "plain" if state == "ready" else "warn"
    yield Cell(pool["name"], "head")
    yield Cell(state, tone)
    yield Cell(plain.pool_bar(pool, BAR))
    yield Cell(pool["busy"])
    yield Cell(plain.pool_size(pool), "dim")
    yield Cell(pool["waiting"], "warn" if pool["waiting"] else "dim")
    yield Cell(duration(pool["oldest_wait"] or None), "dim")
    yield Cell(duration(pool["oldest_hold"]), "dim")
    yield Cell(pool["timed_out"], "warn" if pool["timed_out"] else "dim")
    yield Cell(pool["breaker"], "dim" if pool["breaker"] == "closed" else "bad")


def _facts(pool: Answer, now: float, columns: int) -> Text:
    drawn = lines().append(f"{clean(pool['name'])}  ", STYLES["head"])
    drawn.append(f"{plain.pool_state(pool)}\n", GOOD if plain.is_well(pool) else STYLES["bad"])
    for name, value in sorted(plain.pool_facts(pool, columns), key=_importance):
        drawn.append(f"{name:15} ", STYLES["dim"])
        drawn.append(f"{value}\n")
    for event in pool["errors"]:
        for line in plain.event_lines(event, now):
            drawn.append(f"{line.text}\n", STYLES[line.tone])
    return drawn


def _importance(fact: tuple[str, str]) -> bool:
    """The charts stand right below the bar."""
    return not (fact[0] in ("workers", "") or fact[0].endswith("lately"))


def _clients(pool: Answer) -> Iterator[Row]:
    for at, one in enumerate(pool["holders"]):
        worker = Cell(one["worker"], "dim")
        yield _client(one, f"h{at}", Cell("holds"), one["age"], Cell(None, "dim"), worker)
    for at, one in enumerate(pool["waiters"]):
        left = Cell(duration(one["left"]), "dim")
        yield _client(one, f"w{at}", Cell("waits", "warn"), one["waited"], left, Cell(None, "dim"))


def _client(one: Any, key: str, does: Cell, age: float, left: Cell, worker: Cell) -> Row:
    id = one["client"]["id"]
    cells = [Cell(plain.ref(one["client"])), does, Cell(duration(age)), left, worker,
             Cell(without_folders(one["line"]), "dim")]  # fmt: skip
    return Row(key if id is None else str(id), cells)
