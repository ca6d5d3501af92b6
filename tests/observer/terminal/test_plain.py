"""What nodes answer, as lines of text."""

from __future__ import annotations

import pytest

from gpool.observer.terminal import plain
from gpool.observer.terminal.layout import width
from tests.observer.terminal.fake_node import (
    STACK,
    FakeNode,
    branch,
    event,
    pool,
    process,
    ref,
    row,
)

DETAILS = {
    "holders": [], "holders_more": 0, "waiters": [], "waiters_more": 0, "errors": [],
    "measured": True, "history": {},
}  # fmt: skip


@pytest.fixture
def node():
    """Give a node to ask."""
    return FakeNode()


def texts(lines):
    """Return the texts of lines."""
    return [line.text for line in lines]


class TestHub:
    def test_is_silent_while_it_runs(self, node):
        """Nothing is said of what is fine."""
        assert plain.hub(node.get("/v1/pools")) == []

    def test_says_where_it_hangs(self, node):
        """A blocked one comes with its innermost frames, and the age of the block."""
        node.hub = {"blocked": True, "seconds": 3.2, "stack": [*["outer"] * 9, *STACK]}
        lines = plain.hub(node.get("/v1/pools"))
        assert lines[0].text.startswith("HUB BLOCKED for 3.2s")
        assert lines[-1].text == '  File "app.py", line 12, in view: row = db.checkout()'
        assert len(lines) == 1 + plain.FRAMES
        assert {line.tone for line in lines} == {"bad"}


class TestNodes:
    def test_tells_of_each_and_of_those_that_fail(self, node):
        """A node that does not answer is told of below the table."""
        lines = texts(
            plain.nodes({"4711": node.get("/v1/node"), "9": {"error": "does not answer"}})
        )
        assert lines[1].split()[:4] == ["4711", "gunicorn", "app:app", "2h05m"]
        assert lines[-1] == "9  does not answer"


class TestProcesses:
    def test_have_a_line_each(self, node):
        """All columns of the article, with the pid to go on with."""
        lines = texts(plain.processes(node.get("/v1/processes", sort="mailbox", order="desc")))
        assert lines[0].split()[:2] == ["PID", "NAME"]
        assert lines[1].split() == [
            "#PID<17>", "PoolMan", "GenServer._loop", "(gen_server.py:100)", "waiting", "12", "2",
            "1", "7", "0", "1m15s",
        ]  # fmt: skip

    def test_say_how_many_are_not_shown(self, node):
        """A cut list says so, and how to see the rest."""
        lines = texts(plain.processes(node.get("/v1/processes", per=2)))
        assert lines[-1] == "2 of 5; --limit 0 shows all"

    def test_of_the_dead_say_why(self, node):
        """An ended process has its reason and how long ago in place of what it does."""
        lines = texts(plain.processes(node.get("/v1/processes", which="ended")))
        assert "REASON" in lines[0]
        assert lines[1].split()[2:] == [
            "ValueError('no')",
            "dead",
            "0",
            "-",
            "1",
            "0",
            "0",
            "1m15s",
            "3.0s",
        ]

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ({"filter": "zzz"}, "no processes match zzz"),
            ({"which": "zombies"}, "no zombies"),
        ],
    )
    def test_that_are_not_there_are_missed(self, node, query, said):
        """An empty list is a sentence, not nothing."""
        assert texts(plain.processes(node.get("/v1/processes", **query))) == [said]

    @pytest.mark.parametrize("limit", [60, 80, 120])
    def test_fit_the_terminal(self, node, limit):
        """No line is wider than the terminal, whatever a process is called."""
        node.rows.append(row(99, "猫" * 90, current_function="f" * 200))
        lines = texts(plain.processes(node.get("/v1/processes"), limit))
        assert max(map(width, lines)) <= limit

    def test_cannot_write_to_the_terminal(self, node):
        """What a process is called reaches the terminal as text."""
        node.rows = [row(1, "\x1b]0;owned\x07")]
        lines = texts(plain.processes(node.get("/v1/processes")))
        assert r"\x1b]0;owned\x07" in lines[1]
        assert all(line.isprintable() for line in lines)


class TestTree:
    def test_is_drawn_as_the_readmes(self, node):
        """Supervisors with their strategies, badges for what is not ordinary."""
        assert texts(plain.tree(node.get("/v1/tree"))) == [
            "Application (rest_for_one)  #PID<1>",
            '└── PoolSup "db" (one_for_all)  #PID<5>',
            "    ├── WorkerSup (one_for_one)  #PID<6>",
            "    │   └── worker  #PID<30>",
            "    └── PoolMan  #PID<17>  restarted 2x  mailbox 12",
        ]

    @pytest.mark.parametrize(
        ("label", "call", "child", "name"),
        [
            ("PoolMan", "PoolMan", "pool_man", "PoolMan"),
            ("db", "PoolSup", "db", 'PoolSup "db"'),
            ("Doubler", "Doubler", "worker", "Doubler"),
            ("W", "W", "worker", "W"),
            ("Work", "Work", "worker", "Work"),
            ("Worker", "Worker", "worker", "Worker"),
            ("W", "W", "web", "W web"),
            ("customer", "customer", "customer 1", "customer 1"),
            ("worker", "worker", "('eu', 3)", "worker ('eu', 3)"),
            ("house", "Supervisor", None, 'Supervisor "house"'),
        ],
    )
    def test_says_once_what_a_child_is(self, label, call, child, name):
        """What it runs, what it is called, and its id, unless one has said it already."""
        node = branch("a", 1, label, initial_call=call, child_id=child)
        assert plain.branch_name(node) == name

    def test_shows_a_child_without_a_process(self, node):
        """One that is being restarted has its place, no pid, and is marked."""
        node.tree = branch("a", None, "worker", status="restarting", child_id="'w1'", restarts=4)
        (line,) = plain.tree(node.get("/v1/tree"))
        assert line == ("worker 'w1'  restarting  restarted 4x", "bad")

    def test_counts_what_it_leaves_out(self, node):
        """Children beyond the limit are a last branch."""
        node.tree = branch("a", 1, "Sup", branch("b", 2, "worker"), more=7)
        assert texts(plain.tree(node.get("/v1/tree")))[1:] == [
            "├── worker  #PID<2>",
            "└── … 7 more",
        ]

    def test_says_that_nothing_matches(self, node):
        """An empty tree is a sentence."""
        answer = node.get("/v1/tree") | {"roots": [], "filter": "zzz"}
        assert texts(plain.tree(answer)) == ["nothing in the tree matches zzz"]


class TestProcess:
    def test_tells_all(self, node):
        """Facts, relatives, stack; messages and state if they were asked for."""
        answer = node.get("/v1/processes/17") | node.get("/v1/processes/17/messages")
        answer |= node.get("/v1/processes/17/state")
        text = "\n".join(texts(plain.process(answer)))
        for part in (
            "#PID<17> PoolMan", 'child             pool_man worker', "traps exits       yes",
            "ancestors         PoolSup #PID<5>, Application #PID<1>", "monitors          a_name",
            f"stack, outermost first\n{STACK[0]}", "messages, the first 2 of 12\n  Down(...)",
            "state\n  PoolState(\n    idle=3\n  )",
        ):  # fmt: skip
            assert part in text

    def test_of_a_dead_one_says_so(self, node):
        """It is marked, with its reason and when it died."""
        lines = texts(plain.process(node.get("/v1/processes/9")))
        assert lines[0] == "#PID<9> handle  DEAD"
        assert "  ended             3.0s ago" in lines
        assert "  exit reason       ValueError('no')" in lines

    def test_tells_how_the_one_before_it_ended(self):
        """The traceback of its predecessor, line by line."""
        trace = "Traceback (most recent call last):\n  ...\nValueError: no"
        lines = texts(plain.process({"process": process(row(1, "worker"), last_exit=trace)}))
        at = lines.index("last exit")
        assert lines[at + 1 : at + 4] == [f"  {line}" for line in trace.splitlines()]

    @pytest.mark.parametrize("status", ["dead", "zombie"])
    def test_marks_one_that_ended(self, status):
        """A zombie is no ordinary dead one: its greenlet runs on."""
        found = process(row(1, "worker", status=status, ended=1.0, reason="'killed'"))
        assert texts(plain.process({"process": found}))[0] == f"#PID<1> worker  {status.upper()}"

    def test_folds_many_links(self):
        """Hundreds of links fill lines, and what was cut is counted."""
        links = [ref(id, "worker", "zombie") for id in range(100, 300)]
        answer = {"process": process(row(1, "Sup"), links=links, links_more=50)}
        lines = texts(plain.process(answer, 80))
        assert max(map(width, lines)) <= 80
        assert any(line.endswith("… 50 more") for line in lines)
        assert "worker #PID<100> zombie, " in "\n".join(lines)


class TestPools:
    def test_have_a_line_each(self, node):
        """Who is busy, who waits, and what was refused."""
        node.pools["db"].update(waiting=4, oldest_wait=0.5, refused=2, failed_fast=1)
        assert texts(plain.pools(node.get("/v1/pools")))[1].split() == [
            "db", "ready", "10+2", "7", "3", "0", "4", "500ms", "1.5s", "0", "3", "closed",
        ]  # fmt: skip

    def test_say_more_of_a_state_that_is_not_ordinary(self):
        """Draining and suspended are told beside the state."""
        assert plain.pool_state(pool(state="full", phase="draining")) == "full draining"
        assert (
            plain.pool_state(pool(state="down", phase="down", suspended=True)) == "down suspended"
        )

    @pytest.mark.parametrize("breaker", ["open", "half_open"])
    def test_without_workers_whose_starts_fail_are_not_ready(self, breaker):
        """An outage of what the workers need is what is said of them."""
        out = pool(breaker=breaker, idle=0, busy=0)
        assert plain.pool_state(out) == "starts fail"
        assert plain.pool_state(out | {"suspended": True}) == "starts fail suspended"
        assert not plain.is_well(out)
        (head, *_) = plain.pool({"pool": out | DETAILS, "now": 0.0})
        assert head == ("pool db: starts fail", "bad")

    def test_that_have_workers_are_ready_while_starts_fail(self):
        """Those who ask are served: the breaker stands in its own column."""
        for name in ("idle", "busy", "finishing", "resetting"):
            some = pool(breaker="open", idle=0, busy=0) | {name: 1}
            assert plain.pool_state(some) == "ready"
            assert plain.is_well(some)

    def test_that_are_not_there_are_missed(self, node):
        """No pools is a sentence."""
        node.pools = {}
        assert texts(plain.pools(node.get("/v1/pools"))) == ["no pools"]


class TestPool:
    def test_tells_all(self, node):
        """Workers as a bar, percentiles, charts, holders, waiters, last errors."""
        text = "\n".join(texts(plain.pool(node.get("/v1/pools/db"))))
        for part in (
            "pool db: ready", "workers           ███████░░░..", "wait              p50 2.0ms",
            "busy lately       ▂▄▅ of 12", "14.5 a second", "1.5s  handle_41 #PID<41>",
            "app.py:12 in view", "500ms  4.5s  handle_43 #PID<43>", "nobody let go in 5 s",
        ):  # fmt: skip
            assert part in text

    def test_admits_that_nothing_was_measured(self, node):
        """Percentiles that are not there are no zeros."""
        answer = node.get("/v1/pools/db")
        answer["pool"]["history"]["wait_p50"] = [None]
        answer["pool"]["history"]["wait_p95"] = [None]
        answer["pool"]["history"]["wait_p99"] = [None]
        lines = texts(plain.pool(answer))
        assert "  wait              not measured yet: it is while somebody looks" in lines

    def test_fits_the_terminal(self, node):
        """No line is wider than 80 columns."""
        node.events.append(event(4, "error", "Long", "word " * 60, pool="db"))
        assert max(map(width, texts(plain.pool(node.get("/v1/pools/db"), 80)))) <= 80


class TestEvents:
    def test_have_a_line_of_facts_and_their_text(self, node):
        """When, how bad, what, how often, who; and below it the sentence."""
        lines = plain.events(node.get("/v1/events"))
        assert lines[2].text.split()[1:] == ["error", "ProcessCrashed", "PoolMan", "#PID<17>"]
        assert [line.tone for line in lines[2:5]] == ["bad", "dim", "warn"]
        assert lines[3].text == "    PoolMan died of ValueError('no')"
        assert lines[4].text.endswith("CheckoutFailed  4x  pool db")

    def test_that_are_not_there_are_missed(self, node):
        """No events is a sentence."""
        assert texts(plain.events(node.get("/v1/events", level="error") | {"events": []})) == [
            "no events"
        ]
