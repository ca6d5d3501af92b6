"""The command line: ``gpool nodes``, ``ps``, ``tree``, ``info``, ``pools``, ``events``, ``top``...

It looks into processes of this user on this machine that are observed: those started with
``GPOOL_OBSERVER=1`` in their environment, or that have called ``gpool.observer.start()``.

    $ gpool ps --sort mailbox --limit 3
    $ gpool info 4711/17 --messages 5
    $ gpool pools db --json

A command asks the nodes, prints what they say, and is done; it changes nothing.  Its exit
code is 0, or 1 if there was nobody to ask or somebody could not answer (stderr says why), or
2 if the command is wrong.

Not here: how it is worded (``observer/terminal/plain.py``), the screen that goes on looking
(``observer/terminal/top/``), the page (``observer/web/server.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

import gpool
from gpool.observer.client import Client, NodeError, NodeGone, find
from gpool.observer.run_dir import RunDir
from gpool.observer.terminal import plain
from gpool.observer.terminal.layout import ASCII, Line, Tone, clean

ABOUT: Final = """\
Look into running processes that use gpool: their processes, supervision trees and pools.

Start yours with GPOOL_OBSERVER=1 in its environment, or let it call gpool.observer.start().
Then `gpool nodes` lists it, `gpool tree` and `gpool pools` show what it does now, `gpool top`
keeps looking, and `gpool web` does so in a browser; `gpool COMMAND --help` has the options."""
NUMBERS: Final = ("mailbox", "restarts", "links", "monitors", "monitored_by", "age")
TEXTS: Final = ("id", "label", "name", "initial_call", "current_function", "status")
PAGE: Final = 500  # processes that a node puts into one answer at most
INTERVAL: Final = 1.0  # s between two looks of `events --follow`
NOT_FOUND: Final = 404
COLOURS: Final[dict[Tone, str]] = {"head": "1", "bad": "31", "warn": "33", "dim": "2"}
_PROCESS: Final = re.compile(r"(?:([0-9-]+)/)?(?:#PID<)?([0-9]{1,18})>?")

Answer = dict[str, Any]
Answers = dict[str, Answer]  # node -> what it says
Errors = dict[str, gpool.GPoolError]  # node -> why it does not answer
Question = Callable[[Client], Answer]
Command = Callable[[argparse.Namespace], int]


class Refused(gpool.GPoolError):
    """A command cannot do what it was asked to."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message, code)
        self.message = message
        self.code = code  # that the command exits with

    def __str__(self) -> str:
        return self.message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough; what Python would still flush at its exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (gpool.GPoolError, ValueError, OSError) as error:
        _complain(str(error))
        return error.code if isinstance(error, Refused) else 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code


# Whom to ask, and what comes of it.


def ask(options: argparse.Namespace, question: Question) -> tuple[Answers, Errors]:
    """Return what each node answers, and why some do not.

    Nodes whose processes have ended are left out, unless one was asked for by name; so are
    those that know nothing of something that another one knows.
    """
    run_dir = RunDir(options.run_dir)
    answers: Answers = {}
    errors: Errors = {}
    for node in [options.node] if options.node else run_dir.nodes():
        try:
            answers[node] = question(Client(run_dir.socket(node)))
        except NodeGone as error:
            if options.node or os.path.exists(error.path):
                errors[node] = error
        except NodeError as error:
            errors[node] = error
    if answers:
        errors = {node: error for node, error in errors.items() if not _is_not_found(error)}
    return answers, errors


def _is_not_found(error: gpool.GPoolError) -> bool:
    return isinstance(error, NodeError) and error.status == NOT_FOUND


def show(
    options: argparse.Namespace,
    question: Question,
    words: Callable[[Answer, int | None], list[Line]],
) -> int:
    """Ask, print what is answered, and return the exit code."""
    answers, errors = ask(options, question)
    if not answers and not errors:
        raise _nobody(options)
    if options.json and answers:
        (only, *others) = answers.values()
        print_json({"nodes": answers} if others else only)
    elif answers:
        for node, answer in answers.items():
            print_lines(_headed(answers, node))
            print_lines(plain.hub(answer, columns()) + words(answer, columns()))
    _complain_of(errors)
    return 1 if errors else 0


def _headed(answers: Answers, node: str) -> list[Line]:
    if len(answers) == 1:
        return []
    first = node == next(iter(answers))
    return [*([] if first else [Line("")]), Line(f"node {node}", "head")]


def _nobody(options: argparse.Namespace) -> Refused:
    where = str(RunDir(options.run_dir).path)
    return Refused(
        f"no observed process in {where!r}; start one with GPOOL_OBSERVER=1, "
        "or call gpool.observer.start() in it"
    )


def _complain_of(errors: Errors) -> None:
    for node, error in errors.items():
        _complain(f"node {node}: {error}")


def _complain(sentence: str) -> None:
    print(f"gpool: {clean(sentence)}", file=sys.stderr)


# How it is printed.


def columns() -> int | None:
    """Return how wide the terminal is; None if it is none: then nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_lines(lines: Iterable[Line]) -> None:
    """Print lines, in colours on a terminal unless NO_COLOR is set."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for text, tone in lines:
        text = printable(text, sys.stdout.encoding or "ascii")
        colour = COLOURS.get(tone) if coloured else None
        print(f"\x1b[{colour}m{text}\x1b[0m" if colour else text)


def printable(text: str, encoding: str) -> str:
    """Return a text without what an encoding lacks: lines and bars become ASCII."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(ASCII)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def print_json(answer: Answer) -> None:
    """Print an answer as one JSON object."""
    print(json.dumps(answer, indent=2))


# The commands.


def nodes(options: argparse.Namespace) -> int:
    """List the observed processes."""
    found = find(RunDir(options.run_dir))
    if not found:
        raise _nobody(options)
    if options.json:
        print_json({"nodes": found})
    else:
        print_lines(plain.nodes(found, columns()))
    return 1 if any("error" in answer for answer in found.values()) else 0


def ps(options: argparse.Namespace) -> int:
    """List the processes of a node."""
    order = options.order or ("desc" if options.sort in NUMBERS else "asc")
    if options.reverse:
        order = "asc" if order == "desc" else "desc"

    def question(client: Client) -> Answer:
        query = {"which": options.which, "sort": options.sort, "order": order}
        return _paged(client, options.limit, query | {"filter": options.filter})

    return show(options, question, plain.processes)


def _paged(client: Client, limit: int, query: dict[str, Any]) -> Answer:
    per = min(limit, PAGE) or PAGE
    answer = client.get("/v1/processes", per=per, page=1, **query)
    rows: list[Any] = answer["processes"]
    wanted = min(limit or answer["total"], answer["total"])
    for page in range(2, answer["pages"] + 1):
        if len(rows) >= wanted:
            return answer | {"processes": rows[:wanted]}
        rows += client.get("/v1/processes", per=per, page=page, **query)["processes"]
    return answer | {"processes": rows[: limit or None]}


def tree(options: argparse.Namespace) -> int:
    """Draw the supervision tree of a node."""

    def question(client: Client) -> Answer:
        return client.get("/v1/tree", filter=options.filter, limit=options.limit)

    return show(options, question, plain.tree)


def info(options: argparse.Namespace) -> int:
    """Tell all about one process."""
    options.node, id = _process(options)
    failed = []

    def question(client: Client) -> Answer:
        path = f"/v1/processes/{id}"
        answer = client.get(path)
        if options.messages:
            found = client.get(f"{path}/messages", limit=options.messages)
            answer |= {"length": found["length"], "messages": found["messages"]}
        if options.state:
            try:
                answer["state"] = client.get(f"{path}/state")["state"]
            except NodeError as error:
                failed.append(error)
        return answer

    code = show(options, question, plain.process)
    for error in failed:
        _complain(str(error))
    return 1 if failed else code


def _process(options: argparse.Namespace) -> tuple[str, int]:
    match = _PROCESS.fullmatch(options.pid)
    if match is None:
        raise Refused(f"PID: expected 17, #PID<17> or NODE/17, got {options.pid!r}", 2)
    node = match[1] or options.node
    if match[1] and options.node not in (None, match[1]):
        raise Refused(f"PID is of node {match[1]}, --node says {options.node}", 2)
    return node or _only_node(options), int(match[2])


def _only_node(options: argparse.Namespace) -> str:
    match list(find(RunDir(options.run_dir))):
        case [only]:
            return only
        case []:
            raise _nobody(options)
        case several:
            some = ", ".join(several)
            raise Refused(f"of which node? there are {some}: --node NODE, or NODE/PID", 2)


def pools(options: argparse.Namespace) -> int:
    """List the pools of a node, or tell all about one."""
    if options.name is None:
        return show(options, lambda client: client.get("/v1/pools"), plain.pools)
    path = f"/v1/pools/{quote(options.name, safe='')}"
    return show(options, lambda client: client.get(path), plain.pool)


def events(options: argparse.Namespace) -> int:
    """Tell the last crashes, restarts and timeouts of a node."""
    seen: dict[str, int] = {}  # path of a node's socket -> number of its latest event

    def question(client: Client) -> Answer:
        after = seen.get(client.path)
        answer = client.get("/v1/events", level=options.level, after=after)
        seen[client.path] = answer["last"]
        return answer if after else answer | {"events": answer["events"][-options.limit :]}

    return _follow(options, question) if options.follow else show(options, question, plain.events)


def _follow(options: argparse.Namespace, question: Question) -> int:
    answers, errors = ask(options, question)
    if not answers and not errors:
        raise _nobody(options)
    told: list[Line] = []  # what was last said of nodes that do not answer, or hang
    while answers or not options.node:
        trouble = list(_trouble(answers, errors))
        if trouble != told:
            print_lines(trouble)
            told = trouble
        for node, answer in answers.items():
            _print_new(options, node, answer)
        sys.stdout.flush()
        pause(INTERVAL)
        answers, errors = ask(options, question)
    _complain_of(errors)
    return 1


def pause(seconds: float) -> None:
    """Do nothing for a while; Ctrl-C ends it at any moment."""
    select.select((), (), (), seconds)


def _trouble(answers: Answers, errors: Errors) -> Iterator[Line]:
    for node, answer in answers.items():
        if answer["hub"]["blocked"]:
            where = answer["hub"]["stack"][-1:] or ["?"]
            yield Line(f"node {node}: hub blocked at {plain.frame_line(where[0])}", "bad")
    for node, error in errors.items():
        yield Line(f"node {node}: {clean(error)}", "bad")


def _print_new(options: argparse.Namespace, node: str, answer: Answer) -> None:
    if not answer["events"]:
        return
    if options.json:
        print(json.dumps(answer))  # a line for each look that saw something
        return
    if not options.node:
        print_lines([Line(f"node {node}", "dim")])
    print_lines(plain.events(answer, columns()))


def web(options: argparse.Namespace) -> int:
    """Serve the Observer's page to a browser on this machine."""
    from gpool.observer.web import server

    server.serve(
        port=server.PORT if options.port is None else options.port,
        run_dir=options.run_dir,
        allow_actions=options.allow_actions,
        allow_hosts=options.allow_host,
    )
    return 0


def top(options: argparse.Namespace) -> int:
    """Keep looking, in this terminal; needs Textual."""
    try:
        from gpool.observer.terminal.top.app import Nodes, Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise Refused("top needs Textual: pip install 'gpool[tui]'") from None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("top needs a terminal; `gpool ps` and its kin do not")
    run_dir = RunDir(options.run_dir)
    if not run_dir.nodes():
        raise _nobody(options)
    if options.node is not None:
        run_dir.socket(options.node)  # raises if no node can be called that
    screen = Top(Nodes(run_dir), node=options.node)
    screen.run()
    return screen.return_code or 0


# What they are called, and their options.


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    raw = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser("gpool", description=ABOUT, formatter_class=raw)
    whole.add_argument("--version", action="version", version=f"gpool {gpool.__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for run, add in COMMANDS:
        about = (run.__doc__ or "").partition(".")[0]
        command = commands.add_parser(
            run.__name__, help=about[0].lower() + about[1:], description=about + "."
        )
        add(command)
        command.add_argument("--run-dir", metavar="DIR", help="where the nodes' sockets are")
        command.set_defaults(run=run)
    return whole


def _for_nodes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="what the nodes answer, as JSON")


def _for_node(command: argparse.ArgumentParser) -> None:
    command.add_argument("--node", help="one of those that `gpool nodes` lists; default: all")
    _for_nodes(command)


def _for_ps(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--sort", metavar="COLUMN", default="label", choices=TEXTS + NUMBERS,
        help=f"{', '.join(TEXTS + NUMBERS)}; default: label")  # fmt: skip
    add("--order", choices=("asc", "desc"), help="default: texts ascending, numbers descending")
    add("-r", "--reverse", action="store_true", help="the other way round")
    _for_filter(command, "processes whose row has it")
    add("--which", default="live", choices=("live", "ended", "zombies"), help="default: live")
    _for_limit(command, 100, "processes")
    _for_node(command)


def _for_tree(command: argparse.ArgumentParser) -> None:
    _for_filter(command, "branches that lead to it")
    command.add_argument("--limit", type=_positive, default=100, metavar="N",
                         help="children shown of each supervisor; default: 100")  # fmt: skip
    _for_node(command)


def _for_info(command: argparse.ArgumentParser) -> None:
    command.add_argument("pid", metavar="PID", help="17, or NODE/17 where there are several nodes")
    command.add_argument("--messages", type=_positive, metavar="N",
                         help="show the first so many of its mailbox")  # fmt: skip
    command.add_argument("--state", action="store_true", help="show it, if its owner allows that")
    _for_node(command)


def _for_pools(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", nargs="?", help="tell all about this one")
    _for_node(command)


def _for_events(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--level", choices=("info", "warning", "error"), default="info",
        help="the least that matters; default: info")  # fmt: skip
    add("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    _for_limit(command, 100, "of the latest events")
    _for_node(command)


def _for_web(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--port", type=_natural, help="0: one that is free; default: 4747")
    add("--allow-actions", action="store_true",
        help="let the page change something, in nodes that allow it as well")  # fmt: skip
    add("--allow-host", action="append", default=[], metavar="HOST",
        help="another name that the page may be asked for by, say behind a tunnel")  # fmt: skip


def _for_top(command: argparse.ArgumentParser) -> None:
    command.add_argument("--node", help="one of those that `gpool nodes` lists; default: the first")


def _for_filter(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--filter", metavar="TEXT", default="", help=f"only {what}")


def _for_limit(command: argparse.ArgumentParser, default: int, what: str) -> None:
    command.add_argument("--limit", type=_natural, default=default, metavar="N",
                         help=f"so many {what}, 0: all; default: {default}")  # fmt: skip


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    number = _natural(text)
    if not number:
        raise argparse.ArgumentTypeError("expected 1 or more, got 0")
    return number


COMMANDS: Final[tuple[tuple[Command, Callable[[argparse.ArgumentParser], None]], ...]] = (
    (nodes, _for_nodes),
    (ps, _for_ps),
    (tree, _for_tree),
    (info, _for_info),
    (pools, _for_pools),
    (events, _for_events),
    (top, _for_top),
    (web, _for_web),
)
