"""``gpool top``, driven key by key, in front of a node that only plays one."""

from __future__ import annotations

import asyncio
import html
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict

import pytest

try:
    from textual.events import Key
except ModuleNotFoundError:
    if os.environ.get("CI"):
        raise
    pytest.skip("Textual is not installed", allow_module_level=True)

from gpool.observer.client import NodeError, NodeSilent
from gpool.observer.terminal.top.app import EVERY, Top
from tests.observer.terminal.fake_node import (
    STACK,
    FakeNode,
    FakeNodes,
    branch,
    event,
    row,
)
from tests.observer.terminal.looked_into import environment, looked_into
from tests.waiting import until

PATIENCE = 300  # looks at the screen until a test gives up


class Driver:
    """Presses keys, and waits for what is to be seen."""

    def __init__(self, app, pilot):
        self.app = app
        self._pilot = pilot

    async def press(self, *keys):
        """Press keys, one after the other; the pilot would wait thrice for each."""
        for key in keys:
            self.type(key)
            await self._pilot.pause()

    def type(self, *keys):
        """Press keys faster than the app takes them."""
        for key in keys:
            self.app.post_message(Key(key, key if len(key) == 1 else None))

    async def click(self, widget, offset):
        """Click somewhere on a widget."""
        await self._pilot.click(widget, offset=offset)

    async def look(self, *parts):
        """Have the app ask again, without waiting for its time, and wait for what is seen."""
        self.app.look()
        await self.sees(*parts)

    async def sees(self, *parts):
        """Wait until all of these are on the screen."""
        await self.until(lambda shown: all(part in shown for part in parts), parts)

    async def misses(self, *parts):
        """Wait until none of these is on the screen."""
        await self.until(lambda shown: not any(part in shown for part in parts), parts)

    async def until(self, condition, what=None):
        """Wait until the screen fulfils a condition."""
        for _ in range(PATIENCE):
            shown = self.screen()
            if condition(shown):
                return
            await self._pilot.pause()
        pytest.fail(f"{what!r}: not so in\n{shown}")

    def screen(self):
        """Return what is drawn, as text."""
        lines = defaultdict(dict)
        found = re.findall(
            r'<text [^>]*?x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', self.app.export_screenshot()
        )
        for x, y, text in found:
            lines[float(y)][float(x)] = html.unescape(text).replace("\xa0", " ")
        return "\n".join(_line(lines[y]) for y in sorted(lines))

    def line(self, part):
        """Return the line of the screen that holds something."""
        return next(line for line in self.screen().splitlines() if part in line)


def _line(parts):
    drawn = ""
    for x in sorted(parts):
        drawn = drawn.ljust(round(x / 12.2)) + parts[x]
    return drawn


@pytest.fixture
def node():
    """Give a node."""
    return FakeNode("4711")


def drive(scenario, *nodes, size=(80, 24)):
    """Run the app in front of nodes, and a scenario in front of the app."""

    async def run():
        app = Top(FakeNodes(*nodes))
        async with app.run_test(size=size, notifications=True) as pilot:
            await scenario(Driver(app, pilot))

    asyncio.run(run())


class TestProcesses:
    def test_are_seen_first(self, node):
        """The node, and its processes by name, in 80 columns."""

        async def scenario(top):
            await top.sees("4711", "gunicorn app:app", "every 2 s", "Name or Initial Func▲")
            assert "waiting" in top.line("PoolMan")
            assert "12" in top.line("PoolMan")
            assert "Links" not in top.screen()

        drive(scenario, node)

    def test_have_all_columns_where_there_is_room(self, node):
        """A wide terminal shows links and monitors, too."""

        async def scenario(top):
            await top.sees("Links", "Mon", "MonBy", "Age")

        drive(scenario, node, size=(140, 40))

    def test_are_sorted_by_a_letter(self, node):
        """Numbers from the greatest; the same letter again turns the order."""

        async def scenario(top):
            await top.sees("PoolMan")
            await top.press("m")
            await top.sees("MsgQ▼")
            assert node.asked[-1][1]["sort"] == "mailbox"
            assert node.asked[-1][1]["order"] == "desc"
            await top.press("m")
            await top.sees("MsgQ▲")
            await top.press("l")
            await top.sees("Links▼")

        drive(scenario, node)

    def test_are_sorted_by_a_click(self, node):
        """On a heading, as by its letter."""

        async def scenario(top):
            await top.sees("PoolMan")
            await top.click("Table", (75, 0))
            await top.sees("Age▼")

        drive(scenario, node)

    def test_are_filtered(self, node):
        """By what is typed after a slash; Escape there drops it."""

        async def scenario(top):
            await top.sees("WorkerSup")
            top.type("slash", *"pool", "enter")
            await top.sees("2 processes that match 'pool'", "PoolMan", "PoolSup")
            assert "WorkerSup" not in top.screen()
            await top.press("slash", "escape")
            await top.sees("5 processes", "WorkerSup")

        drive(scenario, node)

    def test_are_turned_page_by_page(self, node):
        """Thousands of them come in pages."""
        node.rows = [row(id, f"worker_{id}") for id in range(1000, 1450)]

        async def scenario(top):
            await top.sees("450 processes, 1 to 200", "worker_1000")
            await top.press("full_stop", "full_stop", "full_stop")
            await top.sees("401 to 450", "worker_1400")
            await top.press("comma")
            await top.sees("201 to 400")

        drive(scenario, node)

    def test_keep_the_cursor_on_the_same_one(self, node):
        """Also when others come before it, or it moves."""

        async def scenario(top):
            await top.sees("WorkerSup")
            await top.press("down", "down")
            await top.press("enter")
            await top.sees("#PID<5> PoolSup")
            await top.press("escape")
            node.rows += [row(99, "A"), row(98, "B")]
            await top.look("7 processes")
            await top.press("enter")
            await top.sees("#PID<5> PoolSup")

        drive(scenario, node)

    def test_that_ended_are_a_key_away(self, node):
        """With their reasons; then the zombies, then the living again."""

        async def scenario(top):
            await top.sees("PoolMan")
            await top.press("z")
            await top.sees("1 ended process", "Reason", "ValueError('no')")
            await top.press("z")
            await top.sees("0 zombies")
            await top.press("z")
            await top.sees("5 processes")

        drive(scenario, node)

    def test_cannot_write_to_the_terminal(self, node):
        """A name is text: no markup, no escape."""
        node.rows = [row(1, "[bold]x[/bold]\x1b[2J")]

        async def scenario(top):
            await top.sees(r"[bold]x[/bold]\x1b[2J")

        drive(scenario, node)


class TestTheWindow:
    def test_tells_all_of_a_process(self, node):
        """Facts, relatives, stack; messages and state once one asks for them."""

        async def scenario(top):
            await top.sees("PoolMan")
            await top.press("m")
            await top.sees("MsgQ▼")
            await top.press("enter")
            await top.sees("#PID<17> PoolMan", "pool_man worker", "supervisor, parent, ancestor")
            await top.sees("view(request)", "row = db.checkout()")
            assert "Down(...)" not in top.screen()
            await top.press("m")
            await top.sees("the first 2 of 12", "Down(...)")
            await top.press("s")
            await top.sees("PoolState(", "idle=3")

        drive(scenario, node, size=(80, 40))

    def test_says_that_the_state_is_not_shown(self, node):
        """A refusal stands in its place, the rest stays."""

        async def scenario(top):
            await top.sees("Application")
            await top.press("enter")
            await top.sees("#PID<1> Application")
            await top.press("s")
            await top.sees("state: this process shows none", "row = db.checkout()")

        drive(scenario, node, size=(80, 40))

    def test_follows_links_and_goes_back(self, node):
        """Enter goes on, Escape goes back the same way, and out."""

        async def scenario(top):
            await top.sees("PoolMan")
            await top.press("m")
            await top.sees("MsgQ▼")
            await top.press("enter")
            await top.sees("#PID<17> PoolMan")
            await top.press("enter")
            await top.sees("#PID<5> PoolSup", "1 before it")
            await top.press("down", "enter")
            await top.sees("#PID<1> Application", "2 before it")
            await top.press("escape")
            await top.sees("#PID<5> PoolSup", "1 before it")
            await top.press("escape")
            await top.until(lambda shown: "#PID<17> PoolMan" in shown and "before" not in shown)
            await top.press("escape")
            await top.sees("5 processes")

        drive(scenario, node)

    def test_of_a_process_that_dies_stays(self, node):
        """It is marked; and it stays when the node has forgotten the process."""

        async def scenario(top):
            await top.sees("PoolMan")
            await top.press("m")
            await top.sees("MsgQ▼")
            await top.press("enter")
            await top.sees("#PID<17> PoolMan")
            node.ended += [row(17, "PoolMan", status="dead", ended=1.0, reason="KeyError(3)")]
            node.rows = node.rows[:3]
            await top.look("#PID<17> PoolMan  DEAD", "KeyError(3)")
            node.ended.clear()
            await top.look("NOT ANSWERED: no process #PID<17>", "PoolMan  DEAD", "KeyError(3)")

        drive(scenario, node)


class TestTheTree:
    def test_is_drawn_with_badges(self, node):
        """Names, strategies, pids, restarts."""

        async def scenario(top):
            await top.press("2")
            await top.sees(
                'PoolSup "db" (one_for_all)', "PoolMan  #PID<17>  restarted 2x", "worker"
            )

        drive(scenario, node)

    def test_stays_as_one_left_it(self, node):
        """What is folded stays so, and the cursor where it is, while children come and go."""
        workers = node.tree["children"][0]["children"][0]

        async def scenario(top):
            await top.press("2")
            await top.sees("worker  #PID<30>")
            await top.press("down", "down", "left")
            await top.misses("worker  #PID<30>")
            workers["children"].append(branch("a/p/db/w/1", 31, "worker"))
            node.tree["children"].insert(0, branch("a/r", 2, "Registry"))
            await top.look("Registry")
            assert "worker  " not in top.screen()
            await top.press("right")
            await top.sees("worker  #PID<30>", "worker  #PID<31>")
            await top.press("enter")
            await top.sees("#PID<6> WorkerSup")

        drive(scenario, node)

    def test_remembers_what_was_folded_of_a_branch_that_comes_back(self, node):
        """A restarted supervisor has its old key, so it looks as before."""
        pool = node.tree["children"].pop()

        async def scenario(top):
            node.tree["children"].append(pool)
            await top.press("2")
            await top.sees("worker  #PID<30>")
            await top.press("down", "down", "left")
            await top.misses("worker  #PID<30>")
            node.tree["children"].clear()
            top.app.look()
            await top.misses("PoolSup")
            node.tree["children"].append(pool)
            await top.look("WorkerSup", "PoolMan")
            assert "worker  " not in top.screen()

        drive(scenario, node)

    def test_opens_with_workers_folded_if_it_is_large(self, node):
        """Hundreds of workers do not hide what is above them; what is cut is counted."""
        workers = node.tree["children"][0]["children"][0]
        workers["children"] = [branch(f"w{at}", 100 + at, "worker") for at in range(200)]
        workers["more"] = 77
        answer = node._answer
        node._answer = lambda parts, query: answer(parts, query) | {"nodes": 282}

        async def scenario(top):
            await top.press("2")
            await top.sees("282 nodes", "WorkerSup", "PoolMan")
            assert "worker  #PID<100>" not in top.screen()
            await top.press("down", "down", "right", "end")
            await top.sees("… 77 more")

        drive(scenario, node)

    def test_is_filtered_by_the_node(self, node):
        """What is typed is asked for."""

        async def scenario(top):
            await top.press("2")
            await top.sees("PoolMan")
            await top.press("slash", *"wo", "enter")
            await top.sees("lead to 'wo'")
            assert node.asked[-1] == ("/v1/tree", {"filter": "wo", "limit": 200})

        drive(scenario, node)


class TestPools:
    def test_have_bars_and_details(self, node):
        """The one under the cursor with its chart, percentiles, holders and waiters."""

        async def scenario(top):
            await top.press("3")
            await top.sees("███████░░░..", "busy lately", "▂▄▅ of 12", "p50 2.0ms", "14.5 a second")
            await top.sees("handle_41 #PID<41>", "app.py:12 in view", "nobody let go in 5 s")
            assert "holds" in top.line("#PID<41>")
            assert "waits" in top.line("#PID<43>")

        drive(scenario, node, size=(80, 50))

    def test_show_another_one(self, node):
        """The details follow the cursor; they are asked for at once."""

        async def scenario(top):
            await top.press("3")
            await top.sees("7 busy, 3 idle")
            await top.press("down")
            await top.sees("0 busy, 10 idle")

        drive(scenario, node)

    def test_lead_to_the_window_of_a_client(self, node):
        """Enter goes to the clients, Enter on one opens it."""
        node.rows.append(row(42, "handle_42"))

        async def scenario(top):
            await top.press("3")
            await top.sees("handle_42")
            await top.press("enter", "down", "enter")
            await top.sees("#PID<42> handle_42", "Stack")

        drive(scenario, node, size=(120, 30))


class TestEvents:
    def test_are_told_the_latest_first(self, node):
        """In a table; the whole text of one below it; Enter opens who it is about."""
        node.events.append(event(4, "error", "Long", "word " * 30 + "the end"))

        async def scenario(top):
            await top.press("4")
            await top.sees("4 events", "CheckoutFailed", "PoolMan #PID<17>", "the end")
            await top.press("down", "down", "enter")
            await top.sees("#PID<17> PoolMan", "Stack")

        drive(scenario, node)

    def test_have_levels_and_a_filter(self, node):
        """A letter leaves out what matters less."""

        async def scenario(top):
            await top.press("4")
            await top.sees("PoolReady")
            await top.press("l")
            await top.sees("2 warnings and errors")
            await top.press("l")
            await top.sees("1 error,")
            await top.press("slash", *"x", "enter")
            await top.sees("0 errors that match 'x'")

        drive(scenario, node)


class TestLooking:
    def test_asks_for_what_is_visible_only(self, node):
        """The other tabs cost the node nothing."""

        async def scenario(top):
            await top.sees("PoolMan")
            await top.press("4")
            await top.sees("CheckoutFailed")
            node.asked.clear()
            await top.look("CheckoutFailed")
            await top.until(lambda _: node.asked)
            assert {path for path, _ in node.asked} == {"/v1/events"}

        drive(scenario, node)

    def test_pauses(self, node):
        """Nothing is asked until one goes on; what one asks for oneself is."""

        async def scenario(top):
            await top.sees("PoolMan")
            await top.press("p")
            await top.sees("PAUSED")
            node.rows.append(row(99, "late"))
            top.app._tick()
            await top.sees("5 processes")
            await top.press("m")
            await top.sees("6 processes", "PAUSED")
            await top.press("p")
            await top.sees("every 2 s")

        drive(scenario, node)

    def test_is_as_often_as_one_likes(self, node):
        """Plus and minus, within limits."""

        async def scenario(top):
            await top.sees("every 2 s")
            await top.press("plus", "plus")
            await top.sees("every 1 s")
            await top.press(*["minus"] * len(EVERY))
            await top.sees("every 15 s")

        drive(scenario, node)

    def test_never_has_two_requests_under_way(self, node):
        """However often it is due; the one that came last is not forgotten."""
        get, under_way, most = node.get, [], []

        def counted(path, **query):
            under_way.append(path)
            most.append(len(under_way))
            try:
                return get(path, **query)
            finally:
                under_way.pop()

        node.get = counted

        async def scenario(top):
            await top.sees("PoolMan")
            for _ in range(20):
                top.app.look()
            node.rows.append(row(99, "late"))
            top.app.look()
            await top.sees("late")

        drive(scenario, node)
        assert set(most) == {1}

    def test_says_that_the_hub_is_blocked(self, node):
        """And where it hangs; and that it runs again."""

        async def scenario(top):
            await top.sees("PoolMan")
            node.hub = {"blocked": True, "seconds": 3.2, "stack": STACK}
            await top.look("HUB BLOCKED for 3.2s", "row = db.checkout()", "PoolMan")
            node.hub = {"blocked": False}
            top.app.look()
            await top.misses("HUB BLOCKED")

        drive(scenario, node)

    def test_says_what_the_node_refuses(self, node):
        """The last picture stays."""

        async def scenario(top):
            await top.sees("PoolMan")
            node.refuses = NodeError(500, "it is broken")
            await top.look("NOT ANSWERED: it is broken", "PoolMan")
            node.refuses = None
            top.app.look()
            await top.misses("NOT ANSWERED")

        drive(scenario, node)


class TestNodes:
    def test_are_picked_by_brackets(self, node):
        """Each with its own processes."""
        other = FakeNode("4712")
        other.title = "celery"
        other.rows = [row(1, "Other")]

        async def scenario(top):
            await top.sees("4711", "[ 1 of 2 ]", "PoolMan")
            await top.press("right_square_bracket")
            await top.sees("4712", "[ 2 of 2 ]", "celery", "Other")
            assert "PoolMan" not in top.screen()
            await top.press("right_square_bracket")
            await top.sees("4711", "PoolMan")

        drive(scenario, node, other)

    def test_that_are_dead_are_passed_over(self, node):
        """One that crashed has left its socket, and is the first of the list."""
        crashed = FakeNode("4710")
        crashed.gone = True

        async def scenario(top):
            await top.sees("4711", "PoolMan")
            assert "GONE" not in top.screen()

        drive(scenario, crashed, node)

    def test_that_go_are_missed(self, node):
        """The last picture stays, and the others are offered."""
        other = FakeNode("4712")

        async def scenario(top):
            await top.sees("PoolMan")
            node.gone = True
            await top.look("NODE 4711 IS GONE", "] goes on to 4712", "PoolMan")
            await top.press("right_square_bracket")
            await top.misses("GONE")
            assert "4712" in top.screen()

        drive(scenario, node, other)

    def test_that_hang_are_not_gone(self, node):
        """One that is stopped may go on."""

        async def scenario(top):
            await top.sees("PoolMan")
            node.refuses = NodeSilent(node.path)
            await top.look("NOT ANSWERED", "no answer at", "PoolMan")
            node.refuses = None
            top.app.look()
            await top.misses("NOT ANSWERED")

        drive(scenario, node)

    def test_are_waited_for(self):
        """Without any, it says how to begin, and finds the first one."""
        nodes = FakeNodes()

        async def run():
            async with Top(nodes).run_test(size=(80, 24)) as pilot:
                top = Driver(pilot.app, pilot)
                await top.sees("GPOOL_OBSERVER=1")
                nodes.nodes["7"] = FakeNode("7")
                top.app._tick()
                await top.sees("PoolMan")
                await top.misses("GPOOL_OBSERVER=1")

        asyncio.run(run())


class TestHelp:
    def test_has_all_keys(self, node):
        """And goes away again."""

        async def scenario(top):
            await top.press("question_mark")
            await top.sees("look more often", "monitored by", "kill a process")
            await top.press("escape")
            await top.misses("look more often")

        drive(scenario, node, size=(80, 40))


class TestActions:
    def test_are_not_offered_unless_the_node_allows_them(self, node):
        """The keys do nothing, and are not shown."""

        async def scenario(top):
            await top.sees("PoolMan")
            assert "Kill" not in top.line("Quit")
            await top.press("K")
            await top.misses("Yes, do it")

        drive(scenario, node)
        assert node.posted == []

    def test_are_asked_for_once_more(self):
        """Enter alone, and Escape, change nothing."""
        node = FakeNode(actions=True)

        async def scenario(top):
            await top.sees("PoolMan", "Kill")
            await top.press("m")
            await top.sees("MsgQ▼")
            await top.press("K")
            await top.sees("Kill #PID<17> PoolMan?", "on node 4711")
            await top.press("enter")
            await top.misses("Yes, do it")
            await top.press("K")
            await top.sees("Yes, do it")
            await top.press("escape")
            await top.misses("Yes, do it")

        drive(scenario, node)
        assert node.posted == []

    def test_are_done_once_confirmed(self):
        """The node gets what it wants to hear, and what it says is shown."""
        node = FakeNode(actions=True)

        async def scenario(top):
            await top.sees("PoolMan", "Kill")
            await top.press("m")
            await top.sees("MsgQ▼")
            await top.press("K")
            await top.sees("Kill #PID<17> PoolMan?")
            await top.press("tab", "enter")
            await top.sees("done: kill")

        drive(scenario, node)
        assert node.posted == [{"action": "kill", "process": 17, "confirm": "#PID<17>"}]

    def test_of_a_child_name_its_supervisor(self):
        """From the tree: the branch above it."""
        node = FakeNode(actions=True)

        async def scenario(top):
            await top.press("2")
            await top.sees("PoolMan")
            await top.press("end")
            await top.sees("Restart")
            await top.press("enter")
            await top.sees("Stack", "Restart")
            await top.press("escape", "R")
            await top.sees("Restart #PID<17> PoolMan, a child of #PID<5>?")
            await top.sees("Its supervisor stops it, and it is started again.")
            await top.press("tab", "enter")
            await top.sees("done: restart_child")

        drive(scenario, node)
        assert node.posted == [
            {"action": "restart_child", "supervisor": 5, "process": 17, "confirm": "#PID<17>"}
        ]

    def test_take_numbers(self):
        """A pool's new size; what is no number is told, and nothing is done."""
        node = FakeNode(actions=True)

        async def scenario(top):
            await top.press("3")
            await top.sees("Resize", "7 busy")
            await top.press("Z")
            await top.sees("Resize pool db?", "max_overflow")
            await top.press("shift+tab", "shift+tab", "x", "tab", "tab", "tab", "enter")
            await top.sees("invalid literal")
            await top.press("shift+tab", "shift+tab", "shift+tab", "end", "backspace", "backspace")
            await top.press("backspace", "2", "0", "tab", "tab", "tab", "enter")
            await top.sees("done: resize")

        drive(scenario, node)
        assert node.posted == [
            {"action": "resize", "pool": "db", "size": 20, "max_overflow": 2, "confirm": "db"}
        ]

    def test_open_a_pool_that_was_drained(self):
        """Draining has a way back, which is offered in its place."""
        node = FakeNode(actions=True)

        async def scenario(top):
            await top.press("3")
            await top.sees("Drain", "7 busy")
            await top.press("N")
            await top.press("D")
            await top.sees("Drain pool db, and let nobody in any more?")
            await top.press("escape")
            node.pools["db"].update(state="down", phase="draining")
            await top.sees("down draining", "Open")
            await top.press("D")
            await top.press("N")
            await top.sees("Open pool db to clients again?")
            await top.press("tab", "enter")
            await top.sees("done: open")

        drive(scenario, node)
        assert node.posted == [{"action": "open", "pool": "db", "confirm": "db"}]

    def test_that_are_refused_are_told(self):
        """The node has the last word."""
        node = FakeNode(actions=True)

        async def scenario(top):
            await top.press("3")
            await top.sees("Drain", "7 busy")
            node.actions = False
            await top.press("D")
            await top.sees("Drain pool db")
            await top.press("shift+tab", "shift+tab", "tab", "tab", "tab", "enter")
            await top.sees("actions are not allowed here")

        drive(scenario, node)


class Terminal:
    """A terminal of tmux, with a command in it."""

    def __init__(self, folder, *command):
        self._tmux = ["tmux", "-u", "-S", str(folder / "tmux")]
        self._run("new-session", "-d", "-x", "100", "-y", "30", *command)

    def _run(self, *arguments):
        return subprocess.run(
            [*self._tmux, *arguments], env=environment(), check=True, capture_output=True, text=True
        ).stdout

    def press(self, *keys):
        """Press keys."""
        self._run("send-keys", *keys)

    def sees(self, *parts):
        """Wait until all of these are to be seen."""
        until(lambda: (shown := self.screen()) and all(part in shown for part in parts), f"{parts}")

    def screen(self):
        """Return what is to be seen."""
        return self._run("capture-pane", "-p")

    def close(self):
        """End tmux, and what runs in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True)  # it may have ended


@pytest.fixture
def terminal(tmp_path):
    """Give a terminal of a node's ``gpool top``; skips where tmux is not installed."""
    if shutil.which("tmux") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("tmux is not installed")
    run_dir = tmp_path / "run"
    with looked_into(run_dir, "--actions") as tell:
        terminal = Terminal(
            tmp_path, sys.executable, "-m", "gpool", "top", "--run-dir", str(run_dir)
        )
        terminal.tell = tell
        yield terminal
        terminal.close()


class TestInATerminal:
    """The real thing: an observed process, and a terminal."""

    def test_a_manager_is_killed_and_its_pool_heals(self, terminal):
        """Seen in the tree; the cursor stays on the manager, whose window says why."""
        terminal.sees("Name or Initial Func", "PoolMan")
        terminal.press("2")
        terminal.sees('PoolSup "db" (one_for_all)', "PoolMan")
        terminal.press("End")
        terminal.press("K")
        terminal.sees("PoolMan?", "Yes, do it")
        terminal.press("Tab", "Enter")
        terminal.sees("restarted 1x")
        terminal.press("Enter")
        terminal.sees("Last exit", "killed", "PoolMan")

    def test_a_blocked_hub_is_told_of(self, terminal):
        """With the line where it hangs; then it runs again, and is gone at last."""
        terminal.sees("PoolMan")
        terminal.tell("block")
        terminal.sees("HUB BLOCKED", "stand_still:", "PoolMan")
        terminal.tell("go on")
        terminal.press("3")
        terminal.sees("hold #PID<", "looked_into.py", "1 busy, 1 idle")
        terminal.tell(None)
        terminal.sees("IS GONE")
        terminal.press("q")
