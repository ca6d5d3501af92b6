"""The table of the torture, for a terminal and for the documentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

TEMPLATE: Final = Path(__file__).with_name("page.md")

BARGING: Final = (
    "What comes back lies free until the waiter that was woken has run; whoever asks before it "
    "takes it."
)
NO_WITH: Final = "The pool has no `with` of its own: its user writes `try` and `finally`."

# Why: shown if the cell is not ok.
NOTES: Final = {
    ("psycopg_pool", "T1"): (
        "The waiter's place stays in the queue, because only an `Exception` takes it out, and "
        "accepts the connection on behalf of nobody."
    ),
    ("psycopg_pool", "T2"): "As T1: the connection goes to the place of the dead.",
    ("psycopg_pool", "T5"): "As T1: the connection that was being made goes there.",
    ("SQLAlchemy", "T2"): "The wake-up dies with the oldest waiter, and nobody passes it on.",
    ("SQLAlchemy", "T3"): "The failed connect frees its place but wakes nobody.",
    ("SQLAlchemy", "T4"): BARGING,
    ("django-db-geventpool", "T2"): (
        "Killed while the pool checks the connection (`SELECT 1`) that it is about to lend: that "
        "one is dropped, and nobody tells those who wait that they may connect."
    ),
    ("django-db-geventpool", "T4"): BARGING,
    ("django-db-geventpool", "T6"): "A connection is counted once it is made, not while it is.",
    ("django-db-geventpool", "T7"): NO_WITH,
    ("django-db-geventpool", "chaos"): "As T6.",
    ("redis", "T4"): BARGING,
    ("redis", "T7"): NO_WITH,
    ("gevent queue", "T3"): (
        "The failed connect frees its place, but the waiter listens to the queue."
    ),
    ("gevent queue", "T4"): BARGING,
    ("geventhttpclient", "T2"): (
        "Killed while the pool looks whether the socket that it is about to lend is alive: nothing "
        "puts that one back."
    ),
    ("geventhttpclient", "T4"): BARGING,
    ("geventhttpclient", "T7"): NO_WITH,
    ("geventhttpclient", "chaos"): "As T2.",
    ("DBUtils", "T2"): (
        "The wake-up dies with the oldest waiter, and the pool has no timeout: the next one waits "
        "for ever."
    ),
    ("DBUtils", "T4"): BARGING,
    ("DBUtils", "chaos"): (
        "A connection that is found dirty is closed once its successor is open, not before. What "
        "is gone is counted as lent, though nobody has it."
    ),
    ("urllib3", "T4"): BARGING,
    ("urllib3", "chaos"): (
        "A waiter that is killed puts back a connection that it never had: the pool has one more "
        "than it may."
    ),
    ("httpcore", "chaos"): (
        "Killed between the assignment of a new connection and its first use: the connection stays "
        "in the state of connecting, for ever."
    ),
    ("psycopg_pool", "chaos"): "As T1.",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What was found, and on what."""

    columns: list[str]
    rows: dict[str, list[str]]  # pool -> its cells
    versions: dict[str, str]  # pool -> version of its package
    python: str
    gevent: str
    system: str
    day: str
    settings: str

    def __str__(self) -> str:
        lines = [["", *self.columns], *([peer, *cells] for peer, cells in self.rows.items())]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )


def page(table: Table) -> str:
    """Return the page of the documentation."""
    numbers: dict[str, int] = {}  # footnote -> its number
    head = f"| pool | {' | '.join(table.columns)} |"
    lines = [head, "| --- " * (len(table.columns) + 1) + "|"]
    for peer, cells in table.rows.items():
        words = [
            cell + _mark(peer, column, cell, numbers)
            for column, cell in zip(table.columns, cells, strict=True)
        ]
        lines.append(f"| {peer} {table.versions[peer]} | {' | '.join(words)} |")
    notes = [f"{number}. {note}" for note, number in numbers.items()]
    about = (
        f"Run on {table.day}, {table.python}, gevent {table.gevent}, {table.system}; "
        f"chaos: {table.settings}."
    )
    text = TEMPLATE.read_text()
    return (
        text.replace("{table}", "\n".join(lines))
        .replace("{about}", about)
        .replace("{notes}", "\n".join(notes))
    )


def _mark(peer: str, column: str, cell: str, numbers: dict[str, int]) -> str:
    note = NOTES.get((peer, column.split()[0]))
    if cell == "ok" or note is None:
        return ""
    return f" <sup>{numbers.setdefault(note, len(numbers) + 1)}</sup>"
