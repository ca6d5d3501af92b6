"""The app: tabs, one of which is visible and asks the node again and again.

A thread asks; the screen never waits for it.  There is one request at a time: a look that
is due while another one is under way comes right after it.

    >>> EVERY
    (1, 2, 5, 15)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Protocol, cast

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.theme import Theme
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Footer, Input, Static, TabbedContent, TabPane

from gpool import GPoolError
from gpool.observer.client import Client, NodeError, NodeGone
from gpool.observer.run_dir import RunDir
from gpool.observer.terminal import plain
from gpool.observer.terminal.layout import clean, duration
from gpool.observer.terminal.top.actions import ACTIONS, Act
from gpool.observer.terminal.top.dialogs import Confirm, Help
from gpool.observer.terminal.top.events import Events
from gpool.observer.terminal.top.pools import Pools
from gpool.observer.terminal.top.process import ProcessWindow
from gpool.observer.terminal.top.processes import Processes
from gpool.observer.terminal.top.tree import SupervisionTree
from gpool.observer.terminal.top.view import (
    GOOD,
    STYLES,
    Answer,
    OpenProcess,
    Question,
    View,
    lines,
    text,
)

EVERY: Final = (1, 2, 5, 15)  # s between two looks
PATIENCE: Final = 0.2  # s between two looks at an action that is under way
TABS: Final = ("processes", "tree", "pools", "events")
CALM: Final = Theme(
    "gpool", primary="#7fa7c9", secondary="#9aa3b2", accent="#c9b27f", warning="#dbab79",
    error="#e88388", success="#8fbf9f", foreground="#d5d9e0", background="#15181d",
    surface="#1a1e24", panel="#232830", dark=True,
    variables={"footer-key-foreground": "#c9b27f", "block-cursor-text-style": "none"},
)  # fmt: skip


class Asked(Protocol):
    """A client of a node."""

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Return what the node answers."""

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Have the node do something."""


class Nodes:
    """The nodes of a run directory."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir

    def names(self) -> list[str]:
        """Return what they are called."""
        return self._run_dir.nodes()

    def client(self, node: str) -> Asked:
        """Return a client of one."""
        return Client(self._run_dir.socket(node))


class Top(App[None]):
    """``gpool top``.

    Args:
        nodes: Those there are.
        node: The one to begin with; None: the first.
    """

    CSS_PATH = "top.tcss"
    TITLE = "gpool"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow-screen"), (110, "-wide-screen")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(at), f"tab('{tab}')", show=False) for at, tab in enumerate(TABS, 1)),
        # Has priority, so that it is there for what one types right after it.
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        Binding("p", "pause", "Pause"),
        Binding("plus,equals_sign", "faster", "Faster", show=False),
        Binding("minus", "slower", "Slower", show=False),
        Binding("left_square_bracket", "node(-1)", "Node before", show=False),
        Binding("right_square_bracket", "node(1)", "Next node", show=False),
        *(
            Binding(key, f"act('{key}')", act.__name__.partition("_")[0].capitalize())
            for key, act in ACTIONS.items()
        ),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, nodes: Nodes, node: str | None = None) -> None:
        super().__init__()
        self.animation_level = "none"  # at the other end of a slow line it is only flicker
        self._observed = nodes
        self._names: list[str] = nodes.names()
        self.node = node if node is not None else next(iter(self._names), "")
        self._is_chosen = node is not None  # by the command line
        self._about: Answer | None = None  # what the node says of itself
        self._hub: Answer | None = None  # the latest answer
        self._gone = False
        self._refused = ""  # why the last look failed
        self._every = 2
        self._paused = False
        self._looking = False
        self._again = False  # a look became due while another one was under way
        self._timer: Timer | None = None
        self._offered: object = None  # the screen, and the actions that its footer shows

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(id="bar")
        yield Static(id="banner")
        with TabbedContent(initial="processes"):
            for tab, view in zip(TABS, (Processes, SupervisionTree, Pools, Events), strict=True):
                with TabPane(tab.capitalize(), id=tab):
                    yield view()
        yield Input(placeholder="filter; Enter applies it, Escape drops it", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.register_theme(CALM)
        self.theme = CALM.name
        self._focus_view()
        self.call_after_refresh(self._set_timer)

    # Looking.

    def shown_view(self) -> View | None:
        """Return the view whose questions are asked; None while a dialog is in front."""
        if isinstance(self.screen, ProcessWindow):
            return self.screen if self.screen.is_ready else None
        if len(self.screen_stack) > 1:
            return None
        pane = self.query_one(TabbedContent).active_pane
        return cast(View, pane.children[0]) if pane is not None else None

    def look(self) -> None:
        """Ask the questions of the visible view, unless that is being done."""
        if self._looking:
            self._again = True
        elif self.node:
            self._looking = True
            self.run_worker(self._look(), group="look")

    async def _look(self) -> None:
        try:
            if (view := self.shown_view()) is not None:
                await self._look_for(view)
        finally:
            self._looking = False
        if self._again:
            self._again = False
            self.look()

    async def _look_for(self, view: View) -> None:
        questions, node = list(view.questions()), self.node
        try:
            names, about, answers = await asyncio.to_thread(self._ask, node, questions)
        except GPoolError as error:
            if node == self.node:
                self._fail(error)
            return
        if node != self.node:
            return
        self._names, self._about, self._gone = names, about, False
        if view is self.shown_view() and questions == list(view.questions()):
            self._take(view, answers)

    def _ask(
        self, node: str, questions: Sequence[Question]
    ) -> tuple[list[str], Answer, list[Answer | NodeError]]:
        """Ask a node; in a thread, so it touches nothing of the app that changes."""
        client = self._observed.client(node)
        about = self._about if self._about and self._about["node"] == node else None
        about = about or client.get("/v1/node")
        answers: list[Answer | NodeError] = []
        for path, query in questions:
            try:
                answers.append(client.get(path, **dict(query)))
            except NodeError as error:
                answers.append(error)
        return self._observed.names(), about, answers

    def _take(self, view: View, answers: list[Answer | NodeError]) -> None:
        self._refused = ""
        try:
            view.show_answers(answers)
            self._hub = next(answer for answer in answers if not isinstance(answer, NodeError))
        except NodeError as error:
            self._refused = str(error)
        except NoMatches:
            return  # the view is being taken down, with the app
        self._say()
        self._offer()

    def _offer(self) -> None:
        """Have the footer show what may be done now, if that is not what it shows."""
        offered = self.screen, [key for key in ACTIONS if self._act_of(key) is not None]
        if offered != self._offered:
            self._offered = offered
            self.refresh_bindings()

    def _fail(self, error: GPoolError) -> None:
        self._names = self._observed.names()
        # One whose socket is still there hangs as a whole, or is stopped: it may come back.
        self._gone = isinstance(error, NodeGone) and self.node not in self._names
        self._refused = "" if self._gone else str(error)
        if self._gone and self._about is None and not self._is_chosen:
            self._gone, self.node = False, ""  # a crash has left its socket, and nothing to see
            self._find_first()
            self.look()
        self._say()

    def _say(self) -> None:
        """Say above the view what node it is, and what is wrong with it."""
        for bar in self.screen.query("#bar").results(Static):
            bar.update(self._bar())
        for banner in self.screen.query("#banner").results(Static):
            said = self._banner()
            banner.update(said)
            banner.display = bool(said.plain)

    def _bar(self) -> Text:
        bar = text("").append("gpool  ", STYLES["head"])
        bar.append(self.node or "no node", f"bold {GOOD}")
        if len(self._names) > 1:
            at = self._names.index(self.node) + 1 if self.node in self._names else "-"
            bar.append(f"  [ {at} of {len(self._names)} ]", STYLES["dim"])
        how = "  PAUSED" if self._paused else f"  every {self._every} s"
        bar.append(how, STYLES["warn" if self._paused else "dim"])
        if self._about is not None:
            about = self._about
            bar.append(f"  {clean(about['title'])}")
            if self._hub is not None:
                bar.append(
                    f"  up {duration(self._hub['now'] - about['started_at'])}", STYLES["dim"]
                )
            bar.append(f"  Python {about['python']}, gevent {about['gevent']}", STYLES["dim"])
        return bar

    def _banner(self) -> Text:
        if not self.node:
            return text("no observed process yet; start one with GPOOL_OBSERVER=1", "warn")
        if self._gone:
            others = [name for name in self._names if name != self.node]
            there = f"; ] goes on to {others[0]}" if others else ""
            return text(f"NODE {self.node} IS GONE; below is the last of it{there}", "bad")
        if self._refused:
            return text(f"NOT ANSWERED: {self._refused}", "warn")
        said = plain.hub(self._hub) if self._hub is not None else []
        parts = [line.text for line in (said[0], said[-1])] if said else []  # the innermost frame
        return lines().append("\n".join(parts), STYLES["bad"])

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_interval(self._every, self._tick)
        self.look()
        self._say()

    def _tick(self) -> None:
        if not self._paused:
            self._find_first()
            self.look()

    def _find_first(self) -> None:
        if not self.node:
            self._names = self._observed.names()
            self.node = next(iter(self._names), "")

    def on_look_now(self) -> None:
        """Look, since a view has new questions."""
        self._say()
        self.look()

    # What the keys do.

    def action_tab(self, tab: str) -> None:
        """Go to a tab."""
        if len(self.screen_stack) == 1:
            self.query_one(TabbedContent).active = tab

    def on_tabbed_content_tab_activated(self) -> None:
        """Look at what is visible now."""
        self._focus_view()
        self.look()

    def _focus_view(self) -> None:
        pane = self.query_one(TabbedContent).active_pane
        found = pane.query("Table, Branches").first(Widget) if pane is not None else None
        if found is not None:
            self.set_focus(found)

    def action_filter(self) -> None:
        """Ask what to look for."""
        view = self.shown_view()
        if view is not None and len(self.screen_stack) == 1:
            field = self.query_one("#filter", Input)
            field.value = view.filter_text
            field.display = True
            self.set_focus(field)  # at once: the next key may be under way already

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Look for that."""
        if event.input.id == "filter":
            self._apply(event.value.strip())

    def on_key(self, event: Any) -> None:
        """Drop the filter at Escape."""
        if event.key == "escape" and self.focused is self.query_one("#filter", Input):
            event.stop()
            self._apply("")

    def _apply(self, said: str) -> None:
        self.query_one("#filter", Input).display = False
        self._focus_view()
        if (view := self.shown_view()) is not None:
            view.filter_text = said
            self.look()

    def action_pause(self) -> None:
        """Stop looking by itself, or go on."""
        self._paused = not self._paused
        self._say()
        if not self._paused:
            self.look()

    def action_faster(self) -> None:
        """Look more often."""
        self._every = EVERY[max(0, EVERY.index(self._every) - 1)]
        self._set_timer()

    def action_slower(self) -> None:
        """Look less often."""
        self._every = EVERY[min(len(EVERY) - 1, EVERY.index(self._every) + 1)]
        self._set_timer()

    def action_node(self, step: int) -> None:
        """Go on to another node; the window of a process is of its own node."""
        self._names = self._observed.names()
        others = [name for name in self._names if name != self.node]
        if not others or isinstance(self.screen, ProcessWindow):
            return
        at = self._names.index(self.node) + step if self.node in self._names else 0
        self.node = self._names[at % len(self._names)]
        self._about, self._hub, self._gone, self._refused = None, None, False, ""
        self._say()
        self.look()

    def on_open_process(self, event: OpenProcess) -> None:
        """Show the window of a process."""
        if isinstance(self.screen, ProcessWindow):
            self.screen.follow(event.id)
            return
        self.push_screen(ProcessWindow(event.id), lambda _: self.look())

    def action_help(self) -> None:
        """Show all keys."""
        self.push_screen(Help())

    # Actions.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer an action only where it can be done."""
        if action == "act":
            return self._act_of(str(parameters[0])) is not None
        if action == "filter":
            return len(self.screen_stack) == 1 and not isinstance(self.focused, Input)
        return True

    def _act_of(self, key: str) -> Act | None:
        view = self.shown_view() if self.is_running else None
        if view is None or self._about is None or not self._about["actions"] or self._gone:
            return None
        target = view.target()
        return ACTIONS[key](target) if target is not None else None

    def action_act(self, key: str) -> None:
        """Do something, once it is confirmed."""
        act, node = self._act_of(key), self.node
        if act is None:
            return

        def confirmed(numbers: dict[str, float] | None) -> None:
            if numbers is not None:
                self.run_worker(self._do(node, act.body | numbers))

        self.push_screen(Confirm(act, node), confirmed)

    async def _do(self, node: str, body: dict[str, Any]) -> None:
        """Have a node do it, and say what has come of it."""
        client = self._observed.client(node)
        try:
            answer = await asyncio.to_thread(client.post, "/v1/actions", body)
            while answer["action"]["state"] == "running":
                await asyncio.sleep(PATIENCE)
                path = f"/v1/actions/{answer['action']['id']}"
                answer = await asyncio.to_thread(client.get, path)
        except GPoolError as error:
            self.notify(clean(error), severity="error", markup=False)
            return
        state, said = answer["action"]["state"], clean(answer["action"]["text"])
        severity: Any = "error" if state == "failed" else "information"
        self.notify(f"{state}: {said}", severity=severity, markup=False)
        self.look()
