"""The command line, asking nodes that are served on sockets."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import socket
import subprocess
import sys

import pytest

from gpool import cli
from gpool.observer.client import NodeError
from tests.observer.terminal.fake_node import STACK, FakeNode, event, row, served
from tests.observer.terminal.looked_into import environment, looked_into

HANGS = 'File "app.py", line 12, in view: row = db.checkout()'


@pytest.fixture(autouse=True)
def run_dir(tmp_path, monkeypatch):
    """Give an empty run directory, in place of the user's."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    monkeypatch.setenv("GPOOL_RUN_DIR", str(run_dir))
    return run_dir


@pytest.fixture
def node(run_dir):
    """Give the only node."""
    with served(FakeNode("4711"), run_dir) as node:
        yield node


@pytest.fixture
def two(run_dir):
    """Give two nodes."""
    with served(FakeNode("4711"), run_dir) as one, served(FakeNode("4712"), run_dir) as other:
        yield one, other


@pytest.fixture
def run(capsys):
    """Give a function that runs a command: exit code, stdout, stderr."""

    def run(*arguments):
        try:
            code = cli.main(arguments)
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return run


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        """Say so."""
        return True


class TestAnyCommand:
    @pytest.mark.parametrize(
        "command", ["nodes", "ps", "tree", "info 1", "pools", "events", "events -f"]
    )
    def test_says_how_to_begin_if_there_is_nobody(self, run, command):
        """Nobody to look at is an error, with what to do, on stderr."""
        code, out, err = run(*command.split())
        assert (code, out) == (1, "")
        assert "GPOOL_OBSERVER=1" in err
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        "command",
        [
            "",
            "fly",
            "ps --sort size",
            "ps --limit x",
            "tree --limit 0",
            "info",
            "info x",
            "info 4711/1 --node 1",
        ],
    )  # fmt: skip
    def test_that_is_wrong_is_a_usage_error(self, run, node, command):
        """Exit code 2, and nothing on stdout."""
        code, out, err = run(*command.split())
        assert (code, out) == (2, "")
        assert err

    def test_finds_no_node_that_cannot_be_one(self, run, node):
        """A node's name is no path."""
        code, _, err = run("ps", "--node", "../4711")
        assert code == 1
        assert "expected the number of a process" in err

    def test_tells_that_the_node_asked_for_is_gone(self, run, node):
        """One asked for by name is missed, though others are there."""
        code, out, err = run("ps", "--node", "99")
        assert (code, out) == (1, "")
        assert "node 99: nobody listens" in err

    def test_forgets_a_stale_socket(self, run, node, run_dir):
        """A node that was killed is left out, and its socket removed."""
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(run_dir / "5000.sock"))
        code, out, err = run("pools")
        assert (code, err) == (0, "")
        assert out.startswith("POOL")
        assert not (run_dir / "5000.sock").exists()

    def test_refuses_a_run_directory_that_others_may_enter(self, run, run_dir):
        """Nobody is asked whose socket somebody else may have put there."""
        run_dir.chmod(0o755)
        code, _, err = run("ps")
        assert code == 1
        assert "others may enter it" in err

    def test_takes_another_run_directory(self, run, node, tmp_path):
        """--run-dir is stronger than the environment."""
        other = tmp_path / "other"
        other.mkdir(mode=0o700)
        assert run("ps", "--run-dir", str(other))[0] == 1

    def test_says_in_front_that_the_hub_is_blocked(self, run, node):
        """And where it hangs; the data is there all the same."""
        node.hub = {"blocked": True, "seconds": 3.2, "stack": STACK}
        code, out, _ = run("ps")
        assert code == 0
        assert out.startswith("HUB BLOCKED for 3.2s")
        assert out.index(HANGS) < out.index("PoolMan")

    def test_shows_each_of_several_nodes(self, run, two):
        """Under a heading each, or the one that is asked for."""
        _, out, _ = run("tree")
        assert out.startswith("node 4711\nApplication")
        assert "\n\nnode 4712\nApplication" in out
        assert "node" not in run("tree", "--node", "4712")[1]

    def test_answers_for_those_that_can(self, run, two):
        """If one of several fails, the others are shown, and it is told of."""
        two[0].refuses = NodeError(500, "it is broken")
        code, out, err = run("pools", "--json")
        assert code == 1
        assert json.loads(out)["node"] == "4712"
        assert err == "gpool: node 4711: it is broken\n"


class TestJson:
    def test_of_one_node_is_its_answer(self, run, node):
        """With its envelope, ready for jq."""
        answer = json.loads(run("pools", "--json")[1])
        assert (answer["api"], answer["node"]) == (1, "4711")
        assert [pool["name"] for pool in answer["pools"]] == ["db", "cache"]

    def test_of_several_nodes_is_by_node(self, run, two):
        """One object for all."""
        answer = json.loads(run("tree", "--json")[1])
        assert list(answer["nodes"]) == ["4711", "4712"]


class TestNodes:
    def test_lists_them(self, run, two):
        """A line for each."""
        two[1].hub = {"blocked": True, "seconds": 1.0, "stack": STACK}
        code, out, _ = run("nodes")
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == ["NODE", "4711", "4712"]
        assert out.splitlines()[2].endswith("BLOCKED")

    def test_has_json(self, run, two):
        """By node, also if there is one only."""
        assert json.loads(run("nodes", "--json")[1])["nodes"]["4712"]["os_pid"] == 4712


class TestPs:
    def test_sorts_numbers_from_the_greatest(self, run, node):
        """What one looks for stands on top; --reverse turns it."""
        assert run("ps", "--sort", "mailbox")[1].splitlines()[1].startswith("#PID<17>")
        assert node.asked[-1][1]["order"] == "desc"
        run("ps", "--sort", "mailbox", "--reverse")
        assert node.asked[-1][1]["order"] == "asc"
        run("ps")
        assert node.asked[-1][1] == {
            "which": "live", "sort": "label", "order": "asc", "per": "100", "page": "1",
        }  # fmt: skip

    def test_filters(self, run, node):
        """Only those that match."""
        _, out, _ = run("ps", "--filter", "pool")
        assert [line.split()[1] for line in out.splitlines()[1:]] == ["PoolMan", "PoolSup"]

    def test_shows_ended_processes(self, run, node):
        """With their reasons."""
        assert "ValueError('no')" in run("ps", "--which", "ended")[1]

    @pytest.mark.parametrize(("limit", "shown"), [("0", 2505), ("3", 3), ("1500", 1500)])
    def test_fetches_as_many_as_asked_for(self, run, node, limit, shown):
        """Page after page, since a node answers a thousand at most."""
        node.rows += [row(id, "worker") for id in range(1000, 3500)]
        answer = json.loads(run("ps", "--limit", limit, "--json")[1])
        assert len({row["id"] for row in answer["processes"]}) == shown
        assert answer["total"] == 2505


class TestTree:
    def test_draws_it(self, run, node):
        """With lines and badges."""
        assert "    └── PoolMan  #PID<17>  restarted 2x  mailbox 12\n" in run("tree")[1]


class TestInfo:
    @pytest.mark.parametrize("pid", ["17", "#PID<17>", "4711/17", "4711/#PID<17>"])
    def test_takes_a_pid_in_each_shape(self, run, two, pid):
        """With its node, where there are several."""
        node = [] if "/" in pid else ["--node", "4711"]
        code, out, _ = run("info", pid, *node)
        assert code == 0
        assert out.startswith("#PID<17> PoolMan")

    def test_wants_to_know_of_which_node(self, run, two):
        """A pid alone does not say, where there are several."""
        code, _, err = run("info", "17")
        assert code == 2
        assert "there are 4711, 4712" in err

    def test_shows_messages_and_state_if_asked(self, run, node):
        """Neither is fetched otherwise."""
        assert "Down(...)" not in run("info", "17")[1]
        _, out, _ = run("info", "17", "--messages", "5", "--state")
        assert "Down(...)" in out
        assert "PoolState(" in out
        assert ("/v1/processes/17/messages", {"limit": "5"}) in node.asked

    def test_says_that_the_state_is_not_shown(self, run, node):
        """The rest is shown all the same; the exit code tells."""
        code, out, err = run("info", "1", "--state")
        assert code == 1
        assert "Application" in out
        assert "state: this process shows none" in err

    def test_of_an_unknown_pid_is_an_error(self, run, node):
        """On stderr, in a line."""
        code, out, err = run("info", "999")
        assert (code, out) == (1, "")
        assert err == "gpool: node 4711: no process #PID<999> is known\n"


class TestPools:
    def test_lists_them(self, run, node):
        """A line for each."""
        assert [line.split()[0] for line in run("pools")[1].splitlines()] == ["POOL", "db", "cache"]

    def test_tells_all_of_one(self, run, node):
        """Its name may hold anything."""
        node.pools["a/b c?"] = node.pools["db"] | {"name": "a/b c?"}
        assert run("pools", "a/b c?")[1].startswith("pool a/b c?: ready")

    def test_that_only_one_node_has_is_shown(self, run, two):
        """The others need not have it."""
        del two[0].pools["cache"]
        code, out, err = run("pools", "cache")
        assert (code, err) == (0, "")
        assert out.startswith("pool cache")

    def test_that_nobody_has_is_an_error(self, run, two):
        """It is said for each node."""
        code, out, err = run("pools", "nix")
        assert (code, out) == (1, "")
        assert err.count("\n") == 2


class TestEvents:
    def test_tells_them(self, run, node):
        """The oldest first, from a level on."""
        _, out, _ = run("events", "--level", "warning")
        assert out.index("ProcessCrashed") < out.index("CheckoutFailed")
        assert "PoolReady" not in out

    def test_limits_them_to_the_latest(self, run, node):
        """0 is no limit."""
        assert "ProcessCrashed" not in run("events", "--limit", "1")[1]
        assert "PoolReady" in run("events", "--limit", "0")[1]

    def test_follows(self, run, node, monkeypatch):
        """What comes is told once, until Ctrl-C; a blocked hub too."""
        looks = iter(range(3))

        def pause(seconds):
            match next(looks):
                case 0:
                    node.events.append(event(4, "error", "WorkerDied", "one more"))
                case 1:
                    node.hub = {"blocked": True, "seconds": 1.0, "stack": STACK}
                case 2:
                    raise KeyboardInterrupt

        monkeypatch.setattr(cli, "pause", pause)
        code, out, err = run("events", "--follow", "--node", "4711")
        assert (code, err) == (130, "")
        assert out.count("WorkerDied") == out.count("ProcessCrashed") == 1
        assert out.endswith(f"node 4711: hub blocked at {HANGS}\n")

    def test_follows_until_the_node_is_gone(self, run, run_dir, monkeypatch):
        """The one asked for; without it there is nothing to wait for."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(served(FakeNode("4711"), run_dir))

            def pause(seconds):
                stack.close()

            monkeypatch.setattr(cli, "pause", pause)
            code, out, err = run("events", "--follow", "--node", "4711", "--json")
        assert code == 1
        assert len(out.splitlines()) == 1
        assert "nobody listens" in err


class TestOutput:
    def test_to_a_terminal_fits_and_has_colours(self, node, monkeypatch):
        """Unless NO_COLOR is set; the words are the same."""
        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setenv("COLUMNS", "70")
        monkeypatch.delenv("NO_COLOR", raising=False)
        cli.main(["ps"])
        heading = sys.stdout.getvalue().splitlines()[0]
        assert heading.startswith("\x1b[1mPID")
        assert len(heading) <= 70 + len("\x1b[1m\x1b[0m")

        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setenv("NO_COLOR", "1")
        cli.main(["ps"])
        assert "\x1b" not in sys.stdout.getvalue()

    def test_is_ascii_where_there_is_nothing_else(self):
        """Lines become ASCII's, anything else is escaped."""
        assert cli.printable("└── 猫 …", "ascii") == r"`-- \u732b ~"
        assert cli.printable("└── é", "utf-8") == "└── é"


class TestTheProgram:
    """As a user runs it: a process of its own."""

    def test_is_quiet_when_its_reader_has_enough(self, node):
        """``gpool ps | head -1`` ends without a word."""
        with start(f"sys.stdin.readline(); {RUN}", "ps") as process:
            process.stdout.close()
            process.stdout = None
            _, err = process.communicate("go\n", timeout=20)
        assert (process.returncode, err) == (0, "")

    def test_ends_at_ctrl_c(self, node):
        """Without a traceback."""
        # A shell's background job, which this may run in, has its children ignore it.
        heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        with start(f"{heed}; {RUN}", "events", "-f") as process:
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (130, "")

    def test_serves_the_page_until_it_is_told_to_end(self, run_dir):
        """It says where; a signal ends it well."""
        with start(RUN, "web", "--port", "0", "--run-dir", str(run_dir)) as process:
            said = process.stdout.readline() + process.stdout.readline()
            process.terminate()
            _, err = process.communicate(timeout=20)
        assert "http://127.0.0.1:" in said
        assert (process.returncode, err) == (0, "")

    def test_says_that_a_port_is_taken(self, run_dir):
        """In a line, as everything that is wrong."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            code, _, err = output(RUN, "web", "--port", str(taken.getsockname()[1]))
        assert code == 1
        assert err.startswith("gpool: ")
        assert err.count("\n") == 1

    def test_draws_in_ascii_if_it_must(self, node, monkeypatch):
        """A terminal that has no more than that is enough."""
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        assert "`-- PoolSup" in output(RUN, "tree")[1]

    def test_says_how_to_get_what_top_needs(self, node):
        """Without Textual, a line says what to install."""
        code, _, err = output(f"sys.modules['textual'] = None; {RUN}", "top")
        assert code == 1
        assert err == "gpool: top needs Textual: pip install 'gpool[tui]'\n"

    def test_draws_no_screen_without_a_terminal(self, node):
        """A screen into a file is of no use."""
        code, _, err = output(RUN, "top")
        assert code == 1
        assert "needs a terminal" in err

    def test_needs_the_standard_library_only(self):
        """Everything but ``top`` is there without an extra; importing it starts nothing."""
        unwanted = ("textual", "rich")
        code = (
            "import threading, gpool.cli;"
            f"print([name for name in {unwanted} if name in sys.modules], threading.active_count())"
        )
        assert output(code)[1] == "[] 1\n"

    def test_is_a_module_too(self, node):
        """``python -m gpool`` is the same."""
        command = [sys.executable, "-m", "gpool", "pools"]
        done = subprocess.run(command, env=environment(), capture_output=True, timeout=20)
        assert done.stdout.startswith(b"POOL")


RUN = "from gpool.cli import main; sys.exit(main(sys.argv[1:]))"


class TestAnObservedProcess:
    """The real thing: an agent in a process of its own."""

    def test_is_told_of_by_every_command(self, run, run_dir):
        """Also while it is blocked; and it is missed once it is gone."""
        with looked_into(run_dir) as tell:
            assert "looked_into.py" in run("nodes")[1]
            code, out, _ = run("ps", "--filter", "poolman")
            pid = re.search(r"#PID<\d+>", out)[0]
            assert code == 0
            assert 'PoolSup "db" (one_for_all)' in run("tree")[1]
            assert "supervisor        db #PID<" in run("info", pid)[1]
            assert re.search(r"hold #PID<\d+> .*looked_into.py:\d+ in hold", run("pools", "db")[1])
            assert "ValueError('no')" in run("ps", "--which", "ended")[1]
            assert "ProcessCrashed  crash #PID<" in run("events", "--level", "error")[1]
            tell("block")
            while "HUB BLOCKED" not in (out := run("tree")[1]):
                pass
            assert "in stand_still: sys.stdin.readline()" in out
            assert "PoolMan" in out
        assert run("ps")[0] == 1


def start(code, *arguments):
    """Start a Python of its own."""
    command = [sys.executable, "-c", f"import sys; {code}", *arguments]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=environment(), text=True, **pipes)


def output(code, *arguments):
    """Run a Python to its end: exit code, stdout, stderr."""
    with start(code, *arguments) as process:
        out, err = process.communicate(timeout=20)
    return process.returncode, out, err
