"""What a view is: it has questions to a node, and shows the answers.

The app asks the questions of the view that is visible, and of no other.  Answers to
questions that the view no longer has (it was sorted anew meanwhile) are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from rich.text import Text
from textual.message import Message

from gpool.observer.client import NodeError
from gpool.observer.terminal.layout import Tone, clean

Answer = Mapping[str, Any]

STYLES: Final[dict[Tone, str]] = {
    "plain": "", "head": "bold", "bad": "bold #e88388", "warn": "#dbab79", "dim": "#7f8896",
}  # fmt: skip
GOOD: Final = "#8fbf9f"
QUIET: Final = "#9aa3b2"


class Question(NamedTuple):
    """A thing to ask a node."""

    path: str
    query: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """What an action would be done to."""

    kind: str  # process or pool
    name: str  # how the user knows it
    confirm: str  # what the node wants to hear: the pid, or the pool's name
    id: int | None = None  # of a process
    supervisor: int | None = None  # of a process, if it is a child
    child: str | None = None  # what its supervisor calls it
    size: int = 0  # of a pool
    max_overflow: int = 0
    is_suspended: bool = False
    is_up: bool = True  # lets clients in


class View(Protocol):
    """What the app knows of a view."""

    filter_text: str

    def questions(self) -> Sequence[Question]:
        """Return what is to be asked now; the first one is what the view is about."""

    def show_answers(self, answers: Sequence[Answer | NodeError]) -> None:
        """Show what was answered, one for each question."""

    def target(self) -> Target | None:
        """Return what the cursor is on."""


class OpenProcess(Message):
    """Somebody wants to see the window of a process."""

    def __init__(self, id: int) -> None:
        super().__init__()
        self.id = id


class LookNow(Message):
    """A view has other questions than before."""


def text(said: Any, tone: Tone = "plain") -> Text:
    """Return a text that is shown as it is: nothing in it is markup, or an escape."""
    return Text(clean(said), STYLES[tone], no_wrap=True, end="")


def lines() -> Text:
    """Return an empty text, for several lines; those that are too long are folded."""
    return Text("", end="")


def status_tone(status: str | None) -> Tone:
    """Return how a status is shown."""
    if status in ("dead", "zombie", "exiting", "stopped", "restarting"):
        return "bad"
    return "plain" if status == "running" else "dim"


def answered(answer: Answer | NodeError) -> Answer:
    """Return an answer; a refusal is raised."""
    if isinstance(answer, NodeError):
        raise answer
    return answer
