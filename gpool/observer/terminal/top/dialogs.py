"""What stands before the rest: help, and an action that is to be confirmed."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from gpool.observer.terminal.top.actions import Act
from gpool.observer.terminal.top.view import text

HELP: Final = """\
1 2 3 4    processes, tree, pools, events
[ ]        the node before, the next one
enter      the window of a process; in it: follow a link
escape     back               /    filter; escape there: no filter
p          pause, go on       + -  look more often, less often
?          this               q    quit

Processes  a letter sorts by the column in which it is underlined
           (l links, o monitors, b monitored by), again: reverse
           z  ended ones, zombies     . ,  next page, page before
Window     m  messages in its mailbox    s  state, if it shows it
Tree       space, left, right  fold and unfold
Pools      enter, tab  go to the clients of a pool
Events     l  from which level on

Only if the node allows it, and asked once more:
K kill a process    S stop a child          R restart a child
Z resize a pool     Y replace its workers   D drain it
U suspend it        O let it go on          N open it again"""


class Help(ModalScreen[None]):
    """All keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "close", "Close")
    ]

    def compose(self) -> ComposeResult:
        """Lay it out."""
        with VerticalScroll(classes="dialog"):
            yield Static(Text(HELP))

    def action_close(self) -> None:
        """Go back."""
        self.dismiss()


class Confirm(ModalScreen[dict[str, float] | None]):
    """Asks once more; the answer is the numbers that an action needs, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "No")]

    def __init__(self, act: Act, node: str) -> None:
        super().__init__()
        self._act, self._node = act, node

    def compose(self) -> ComposeResult:
        """Lay it out; whoever only presses Enter does nothing."""
        with Vertical(classes="dialog", id="confirm"):
            yield Static(text(self._act.question), classes="title")
            if self._act.detail:
                yield Static(text(self._act.detail))
            yield Static(text(f"on node {self._node}", "dim"))
            for field in self._act.fields:
                with Horizontal(classes="field"):
                    yield Label(text(field.name))
                    yield Input(f"{field.value:g}", id=field.name)
            yield Static(id="wrong")
            with Horizontal(id="answers"):
                yield Button("No", id="no")
                yield Button("Yes, do it", id="yes", variant="error")

    def on_mount(self) -> None:
        """Begin at what changes nothing."""
        self.query_one("#no", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Take the answer."""
        if event.button.id == "yes":
            self._confirm()
        else:
            self.dismiss(None)

    def action_cancel(self) -> None:
        """Do nothing."""
        self.dismiss(None)

    def _confirm(self) -> None:
        try:
            numbers = {
                field.name: field.parsed(self.query_one(f"#{field.name}", Input).value)
                for field in self._act.fields
            }
        except ValueError as error:
            self.query_one("#wrong", Static).update(text(error, "bad"))
            return
        self.dismiss(numbers)
