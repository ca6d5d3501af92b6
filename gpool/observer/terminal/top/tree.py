"""The supervision tree: what is open stays open while it changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static, Tree
from textual.widgets.tree import TreeNode

from gpool.observer.client import NodeError
from gpool.observer.terminal import plain
from gpool.observer.terminal.layout import clean
from gpool.observer.terminal.top.view import (
    STYLES,
    Answer,
    OpenProcess,
    Question,
    Target,
    answered,
    text,
)

LIMIT: Final = 200  # children shown of each supervisor
OPEN: Final = 150  # nodes; a tree that has more opens with its workers folded away

MORE: Final = "…"  # key of the line that counts those that are left out

Branch = TreeNode[dict[str, Any]]


class Branches(Tree[dict[str, Any]]):
    """The tree itself; Enter opens a window, the arrows fold and unfold."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right", "unfold", "Unfold", show=False),
        Binding("left", "fold", "Fold", show=False),
    ]
    auto_expand = False

    def __init__(self) -> None:
        super().__init__("")
        self.show_root = False
        self.guide_depth = 3
        self._open: dict[str, bool] = {}  # key -> is unfolded; also of those that are away

    def show(self, roots: Sequence[Answer], unfold: bool) -> None:
        """Show these; what is the same stays as it is.

        Args:
            roots: As the node tells them.
            unfold: Whether supervisors of workers alone are unfolded at first.
        """
        cursor = _key(self.cursor_node)
        self._remember(self.root)
        self._reconcile(self.root, roots, 0, unfold)
        if _key(self.cursor_node) != cursor or self.cursor_node is None:
            self.call_after_refresh(self._find, cursor)

    def _remember(self, branch: Branch) -> None:
        for child in branch.children:
            if child.allow_expand:
                self._open[_key(child)] = child.is_expanded
                self._remember(child)

    def _reconcile(self, branch: Branch, wanted: Sequence[Answer], more: int, unfold: bool) -> None:
        rows = [*wanted, *([{"key": MORE, "more": more}] if more else [])]
        keys = [row["key"] for row in rows]
        _rearrange(branch, keys)
        for at, row in enumerate(rows):
            if at >= len(branch.children) or _key(branch.children[at]) != keys[at]:
                is_open = self._open.get(keys[at], unfold or not _holds_workers(row))
                before = at if at < len(branch.children) else None
                branch.add("", {"key": keys[at]}, before=before, expand=is_open)
            child = branch.children[at]
            _update(child, row)
            self._reconcile(
                child, row.get("children", ()), row["more"] if "id" in row else 0, unfold
            )

    def _find(self, key: str) -> None:
        """Put the cursor where it was, or to the top."""
        lines = range(self.last_line + 1)
        nodes = [node for line in lines if (node := self.get_node_at_line(line)) is not None]
        found = [node for node in nodes if _key(node) == key] or nodes[:1]
        if found:
            self.move_cursor(found[0])

    def action_unfold(self) -> None:
        """Show the children of a supervisor."""
        if self.cursor_node is not None:
            self.cursor_node.expand()

    def action_fold(self) -> None:
        """Hide the children of a supervisor; of a child: go to its supervisor."""
        node = self.cursor_node
        if node is not None and node.is_expanded and node.allow_expand:
            node.collapse()
        else:
            self.action_cursor_parent()


class SupervisionTree(Vertical):
    """The tab with the tree."""

    def __init__(self) -> None:
        super().__init__()
        self.filter_text = ""

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Static(classes="caption")
        yield Branches()

    def questions(self) -> Sequence[Question]:
        """Ask for the tree."""
        return [Question("/v1/tree", (("filter", self.filter_text), ("limit", LIMIT)))]

    def show_answers(self, answers: Sequence[Answer | NodeError]) -> None:
        """Show the tree."""
        answer = answered(answers[0])
        said = f"{answer['nodes']} nodes"
        if answer["filter"]:
            said += f", those shown lead to {answer['filter']!r}"
        self.query_one(".caption", Static).update(text(f"{said}; space folds", "dim"))
        unfold = bool(answer["filter"]) or answer["nodes"] <= OPEN
        self.query_one(Branches).show(answer["roots"], unfold)

    def target(self) -> Target | None:
        """Return the child under the cursor."""
        node = self.query_one(Branches).cursor_node
        if node is None or node.data is None or "id" not in node.data:
            return None
        found = node.data
        supervisor = (node.parent.data or {}).get("id") if node.parent else None
        pid = f"#PID<{found['id']}>" if found["id"] is not None else None
        name = " ".join(filter(None, (pid, clean(found["label"]))))
        return Target(
            "process", name, pid or found["child_id"] or "", id=found["id"],
            supervisor=supervisor, child=found["child_id"],
        )  # fmt: skip

    def on_tree_node_selected(self, event: Tree.NodeSelected[dict[str, Any]]) -> None:
        """Open the window of a process."""
        if (id := (event.node.data or {}).get("id")) is not None:
            self.post_message(OpenProcess(id))


def _key(branch: Branch | None) -> str:
    return "" if branch is None or branch.data is None else str(branch.data["key"])


def _rearrange(branch: Branch, keys: Sequence[str]) -> None:
    """Remove the children that are not wanted, and all if the others stand in another order."""
    for child in list(branch.children):
        if _key(child) not in keys:
            child.remove()
    left = [_key(child) for child in branch.children]
    if left != [key for key in keys if key in left]:
        branch.remove_children()


def _update(branch: Branch, row: Answer) -> None:
    changed = _label(row)
    if branch.label != changed:
        branch.set_label(changed)
    branch.data = dict(row)
    allow = bool(row.get("children") or ("id" in row and row["more"]))
    if branch.allow_expand != allow:
        branch.allow_expand = allow


def _holds_workers(row: Answer) -> bool:
    children = row.get("children") or ()
    return bool(children) and all(child["type"] == "worker" for child in children)


def _label(row: Answer) -> Text:
    if "id" not in row:
        return text(f"… {row['more']} more; a filter finds them", "dim")
    label = text(plain.branch_name(row))
    if row["type"] == "supervisor":
        label.stylize("bold")
    for badge in plain.branch_badges(row):
        tone = "dim" if badge.startswith("#PID") else plain.branch_tone(row)
        label.append(f"  {badge}", STYLES["head" if tone == "plain" else tone])
    return label
