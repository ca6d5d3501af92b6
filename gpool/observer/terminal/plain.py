"""What nodes answer, as lines of text: pure functions, one for each thing to see.

    >>> node = {"key": "a", "id": 1, "label": "App", "initial_call": "App", "child_id": None,
    ...         "status": "waiting", "type": "supervisor", "restarts": 0, "strategy": "one_for_all",
    ...         "mailbox": 0, "pool": None, "children": [], "more": 3}
    >>> for line in tree({"roots": [node], "nodes": 4, "filter": ""}):
    ...     print(line.text)
    App (one_for_all)  #PID<1>
    └── … 3 more

`limit` is how many columns the terminal has; None: as many as it takes.

Not here: alignment and numbers (``layout.py``), who asks and prints (``gpool/cli.py``).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from gpool.observer.terminal.layout import (
    Column,
    Line,
    Tone,
    bar,
    clean,
    cut,
    duration,
    moment,
    sparkline,
    table,
    width,
    without_folders,
)

Answer = Mapping[str, Any]

ORDINARY: Final = ("running", "waiting", "hibernating")  # nobody needs to be told of these
LEVELS: Final[dict[str, Tone]] = {"error": "bad", "warning": "warn", "info": "plain"}
FRAMES: Final = 6  # of a blocked hub, the innermost
BAR: Final = 40  # columns


def hub(answer: Answer, limit: int | None = None) -> list[Line]:
    """Return that the hub is blocked, and where it hangs; nothing if it runs."""
    found = answer["hub"]
    if not found["blocked"]:
        return []
    stack = [frame_line(frame) for frame in found.get("stack", ())]
    said = f"HUB BLOCKED for {duration(found.get('seconds'))}; what follows is of no single moment"
    where = [line for frame in stack[-FRAMES:] for line in _folded(frame, "  ", limit)]
    return [Line(line, "bad") for line in [cut(said, limit), *where]]


def frame_line(frame: str) -> str:
    """Return a frame of a stack, which may have its code in a second line, as one line."""
    return clean(": ".join(line.strip() for line in frame.splitlines()))


def frame_lines(stack: Iterable[str]) -> list[str]:
    """Return the lines of a stack, each frame's code below its place."""
    return [clean(line) for frame in stack for line in textwrap.dedent(frame).splitlines()]


def nodes(found: Mapping[str, Answer], limit: int | None = None) -> list[Line]:
    """Return a table of nodes, and below it what is wrong with some."""
    columns = (
        Column("NODE"), Column("TITLE", least=10), Column("UP", right=True), Column("PYTHON"),
        Column("GEVENT"), Column("GPOOL"), Column("PROCS", right=True), Column("POOLS", right=True),
        Column("ENDED", right=True), Column("ZOMBIES", right=True), Column("ACTIONS"),
        Column("HUB"),
    )  # fmt: skip
    well = {name: answer for name, answer in found.items() if "error" not in answer}
    lines = _titled(table(columns, map(_node, well.values()), limit))
    for name, answer in found.items():
        if "error" in answer:
            lines.append(Line(cut(f"{name}  {clean(answer['error'])}", limit), "bad"))
    return lines


def _node(answer: Answer) -> tuple[Any, ...]:
    counts, blocked = answer["counts"], answer["hub"]["blocked"]
    return (
        answer["node"], answer["title"], duration(answer["now"] - answer["started_at"]),
        answer["python"], answer["gevent"], answer["gpool"], counts["processes"],
        counts["pools"], counts["ended"], counts["zombies"],
        "yes" if answer["actions"] else "no", "BLOCKED" if blocked else "runs",
    )  # fmt: skip


def processes(answer: Answer, limit: int | None = None) -> list[Line]:
    """Return a table of processes; below it, how many there are beyond these."""
    columns = [
        Column("PID"), Column("NAME OR INITIAL CALL", least=12),
        Column("CURRENT FUNCTION", least=8),
        Column("STATUS"), Column("MSGQ", right=True), Column("RESTARTS", right=True),
        Column("LINKS", right=True), Column("MON", right=True), Column("BY", right=True),
        Column("AGE", right=True),
    ]  # fmt: skip
    ended = answer["which"] != "live"
    if ended:
        columns[2:3] = [Column("REASON", least=8)]
        columns.append(Column("ENDED", right=True))
    short = clean if limit is None else without_folders
    rows = [_process_row(row, ended, short) for row in answer["processes"]]
    lines = _titled(table(columns, rows, limit)) or [Line(_none(answer), "dim")]
    if answer["total"] > len(rows) > 0:
        lines.append(Line(f"{len(rows)} of {answer['total']}; --limit 0 shows all", "dim"))
    return lines


def _none(answer: Answer) -> str:
    which = {"live": "processes", "ended": "ended processes", "zombies": "zombies"}[answer["which"]]
    return f"no {which} match {clean(answer['filter'])}" if answer["filter"] else f"no {which}"


def _process_row(row: Answer, ended: bool, short: Callable[[str], str | None]) -> tuple[Any, ...]:
    cells = (
        row["pid"], row["label"], row["reason"] if ended else short(row["current_function"] or "-"),
        row["status"], row["mailbox"], row["restarts"], row["links"], row["monitors"],
        row["monitored_by"], duration(row["age"]),
    )  # fmt: skip
    return (*cells, duration(row["ended"])) if ended else cells


def tree(answer: Answer, limit: int | None = None) -> list[Line]:
    """Return the supervision tree, drawn with lines."""
    lines = [line for root in answer["roots"] for line in _branch(root, "", "", limit)]
    if not lines:
        said = clean(answer["filter"])
        return [Line(f"nothing in the tree matches {said}" if said else "no tree", "dim")]
    return lines


def _branch(node: Answer, first: str, rest: str, limit: int | None) -> Iterator[Line]:
    yield Line(cut(first + branch_label(node), limit), branch_tone(node))
    children, more = node["children"], node["more"]
    for at, child in enumerate(children, 1):
        last = at == len(children) and not more
        yield from _branch(
            child, rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "), limit
        )
    if more:
        yield Line(cut(f"{rest}└── … {more} more", limit), "dim")


def branch_label(node: Answer) -> str:
    """Return what a node of the tree says of itself."""
    return "  ".join([branch_name(node), *branch_badges(node)])


def branch_name(node: Answer) -> str:
    """Return what a node of the tree is: PoolSup "db" (one_for_all)."""
    label, call = clean(node["label"]), clean(node["initial_call"] or node["label"])
    child = clean(node["child_id"] or "")
    words = [label] if label == call else [call, f'"{label}"']
    is_telling = child != node["type"]  # the workers of a pool are all called "worker"
    if label == call and child and is_telling and _begins_with(child, label):
        words = [label if _bare(child) == _bare(label) else child]
    elif is_telling and _bare(child) not in _bare("".join(words)):
        words.append(child)
    if node["strategy"]:
        words.append(f"({node['strategy']})")
    return " ".join(words)


def _begins_with(child: str, label: str) -> bool:
    """Tell whether a child's id is its label, or that and a number: not W of web."""
    head, rest = _bare(child)[: len(_bare(label))], _bare(child)[len(_bare(label)) :]
    return head == _bare(label) and not rest[:1].isalpha()


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


def branch_badges(node: Answer) -> list[str]:
    """Return a node's pid, and what is not ordinary about it."""
    badges = [] if node["id"] is None else [f"#PID<{node['id']}>"]
    if node["status"] not in ORDINARY:
        badges.append(str(node["status"]))
    if node["restarts"]:
        badges.append(f"restarted {node['restarts']}x")
    if node["mailbox"]:
        badges.append(f"mailbox {node['mailbox']}")
    return badges


def branch_tone(node: Answer) -> Tone:
    """Return how a node of the tree is shown."""
    if node["id"] is None or node["status"] in ("dead", "zombie", "exiting"):
        return "bad"
    return "warn" if node["restarts"] else "plain"


def process(answer: Answer, limit: int | None = None) -> list[Line]:
    """Return all that a node tells of one process.

    Beside the process, `answer` may hold "messages" with "length", and "state".
    """
    found = answer["process"]
    dead = "" if found["ended"] is None else f"  {ending(found)}"
    lines = [Line(cut(f"{found['pid']} {clean(found['label'])}{dead}", limit), "head")]
    lines += _pairs(facts(found), limit)
    for heading, refs in relations(found):
        more = found.get(f"{heading.replace(' ', '_')}_more", 0)
        lines += _pairs([(heading, _refs(refs, more))], limit)
    lines += _section("last exit", last_exit(found), limit)
    lines += _section("stack, outermost first", frame_lines(found["stack"]), limit)
    if "messages" in answer:
        heading = f"messages, the first {len(answer['messages'])} of {answer['length']}"
        lines += _section(heading, answer["messages"] or ["none"], limit)
    if "state" in answer:
        lines += _section("state", answer["state"].splitlines(), limit)
    return lines


def ending(found: Answer) -> str:
    """Return how a process that ended is marked: one whose greenlet runs on is a zombie."""
    return "ZOMBIE" if found["status"] == "zombie" else "DEAD"


def facts(found: Answer) -> list[tuple[str, str]]:
    """Return what there is to say of a process in a line; links are not among it."""
    is_dead = found["ended"] is not None
    said = {
        "name": found["name"],
        "status": found["status"],
        "exit reason": found["reason"],
        "initial call": found["initial_call"],
        "current function": None if is_dead else found["current_function"],
        "mailbox": found["mailbox"],
        "restarts": found["restarts"],
        "lived" if is_dead else "age": duration(found["age"]),
        "ended": f"{duration(found['ended'])} ago" if is_dead else None,
        "child": " ".join(filter(None, (found["child_id"], found["type"], found["strategy"]))),
        "pool": found["pool"],
        "traps exits": "yes" if found["trap_exit"] else None,
    }
    return [(name, clean(value)) for name, value in said.items() if value not in (None, "")]


def last_exit(found: Answer) -> list[str]:
    """Return the lines that tell how a process, or the one before it, ended."""
    said = found["last_exit"]
    if not said or said == found["reason"]:
        return []
    return [clean(line) for line in said.splitlines()]


def relations(found: Answer) -> list[tuple[str, list[Answer]]]:
    """Return the processes that a process has to do with, under headings."""
    one = [(name, [found[name]] if found[name] else []) for name in ("supervisor", "parent")]
    many = [
        (name.replace("_", " "), list(found[name]))
        for name in ("ancestors", "links", "monitors", "monitored_by")
    ]
    return one + many


def ref(found: Answer | None) -> str:
    """Return how a process is called where another one speaks of it."""
    if found is None:
        return "-"
    label = clean(found["label"])
    if found["id"] is None:
        return label
    status = "" if found["status"] in (*ORDINARY, None) else f" {found['status']}"
    return f"{label} #PID<{found['id']}>{status}"


def _refs(refs: Sequence[Answer], more: int) -> str:
    said = ", ".join(map(ref, refs)) or "-"
    return f"{said}, … {more} more" if more else said


def pools(answer: Answer, limit: int | None = None) -> list[Line]:
    """Return a table of pools."""
    columns = (
        Column("POOL", least=8), Column("STATE"), Column("SIZE", right=True),
        Column("BUSY", right=True), Column("IDLE", right=True), Column("START", right=True),
        Column("WAIT", right=True), Column("LONGEST", right=True), Column("HELD", right=True),
        Column("TIMEOUTS", right=True), Column("REFUSED", right=True), Column("BREAKER"),
    )  # fmt: skip
    return _titled(table(columns, map(_pool_row, answer["pools"]), limit)) or [
        Line("no pools", "dim")
    ]


def _pool_row(pool: Answer) -> tuple[Any, ...]:
    return (
        pool["name"], pool_state(pool), pool_size(pool), pool["busy"], pool["idle"],
        pool["starting"], pool["waiting"], duration(pool["oldest_wait"] or None),
        duration(pool["oldest_hold"]), pool["timed_out"], pool["refused"] + pool["failed_fast"],
        pool["breaker"],
    )  # fmt: skip


def pool_state(pool: Answer) -> str:
    """Return how a pool is, in a word or two."""
    words = ["starts fail" if starts_fail(pool) else pool["state"]]
    if pool["phase"] not in ("up", pool["state"]):
        words.append(pool["phase"])
    if pool["suspended"]:
        words.append("suspended")
    return " ".join(words)


def starts_fail(pool: Answer) -> bool:
    """Tell whether a pool that is up has no worker, as none can be started."""
    workers = sum(pool[name] for name in ("idle", "busy", "finishing", "resetting"))
    return pool["phase"] == "up" and pool["breaker"] != "closed" and not workers


def is_well(pool: Answer) -> bool:
    """Tell whether a pool can do what it is there for."""
    return bool(pool["healthy"]) and not starts_fail(pool)


def pool_size(pool: Answer) -> str:
    """Return how many workers a pool keeps, and how many more it may have."""
    return f"{pool['size']}+{pool['max_overflow']}" if pool["max_overflow"] else str(pool["size"])


def pool(answer: Answer, limit: int | None = None) -> list[Line]:
    """Return all that a node tells of one pool."""
    found = answer["pool"]
    head = f"pool {clean(found['name'])}: {pool_state(found)}"
    tone: Tone = "head" if is_well(found) else "bad"
    lines = [Line(cut(head, limit), tone)]
    lines += _pairs(pool_facts(found, min(BAR, (limit or 80) - 20)), limit)
    lines += _section("holders, the oldest first", holders(found, limit), limit)
    lines += _section("waiters, the next one first", waiters(found, limit), limit)
    lines += [Line("last errors", "head")] if found["errors"] else []
    return lines + [
        _indented(line) for line in _told(found["errors"], answer["now"], limit and limit - 2)
    ]


def pool_facts(found: Answer, columns: int) -> list[tuple[str, str]]:
    """Return a pool's numbers, in words; a bar or a chart takes so many columns."""
    said = [
        ("workers", pool_bar(found, columns)),
        ("", _workers(found)),
        ("size", f"{pool_size(found)}, of them {found['overflow']} overflow now"),
        ("waiting", f"{found['waiting']}, the longest {duration(found['oldest_wait'] or None)}"),
        ("longest hold", duration(found["oldest_hold"])),
        ("wait", percentiles(found, "wait")),
        ("hold", percentiles(found, "hold")),
        ("checkouts", rate(found)),
        ("breaker", f"{found['breaker']}, epoch {found['epoch']}"),
        ("got none", _counted(found, _GOT_NONE)),
        ("mishaps", _counted(found, _MISHAPS)),
        ("last failure", clean(found["last_start_failure"] or "")),
    ]
    said += charts(found, columns)
    return [(name, value) for name, value in said if value]


_UNDER_WAY: Final = ("starting", "finishing", "resetting", "closing")
_GOT_NONE: Final = ("timed_out", "refused", "failed_fast", "deadlocks", "cancelled")
_MISHAPS: Final = (
    "stale", "reclaimed", "overheld", "revoked", "start_failures", "unclosed", "lost",
)  # fmt: skip


def pool_bar(found: Answer, columns: int) -> str:
    """Return a bar of a pool's workers: busy, under way, idle, not there."""
    under_way = sum(found[name] for name in _UNDER_WAY)
    total = found["size"] + found["max_overflow"]
    parts = ((found["busy"], "█"), (under_way, "▓"), (found["idle"], "░"))
    return bar(parts, total, min(columns, max(total, 10)))


def _workers(found: Answer) -> str:
    always = f"{found['busy']} busy, {found['idle']} idle"
    return ", ".join(filter(None, (always, _counted(found, _UNDER_WAY))))


def _counted(found: Answer, names: Iterable[str]) -> str:
    told = [(found[name], name.replace("_", " ")) for name in names]
    return ", ".join(f"{count} {name}" for count, name in told if count)


def percentiles(found: Answer, what: str) -> str:
    """Return the latest percentiles of waits or holds."""
    latest = [(p, _latest(found, f"{what}_{p}")) for p in ("p50", "p95", "p99")]
    if all(value is None for _, value in latest):
        return "not measured yet: it is while somebody looks"
    return "  ".join(f"{p} {duration(value)}" for p, value in latest)


def rate(found: Answer) -> str:
    """Return how many checkouts there are in a second."""
    latest = _latest(found, "checkouts")
    return "" if latest is None else f"{latest:.1f} a second"


def _latest(found: Answer, name: str) -> float | None:
    values = [value for value in found["history"].get(name, ()) if value is not None]
    return values[-1] if values else None


def charts(found: Answer, columns: int) -> list[tuple[str, str]]:
    """Return what was busy and what waited, lately, as little charts."""
    history, cap = found["history"], found["size"] + found["max_overflow"]
    if len(history.get("at", ())) < 2:
        return []
    peak = max((n for n in history["waiting"][-columns:] if n), default=0)
    return [
        ("busy lately", f"{sparkline(history['busy'], columns, cap)} of {cap}"),
        ("waiting lately", f"{sparkline(history['waiting'], columns)} at most {peak}"),
    ]


def holders(found: Answer, limit: int | None = None) -> list[str]:
    """Return a table of who holds a worker, since when, and from which line on."""
    columns = (
        Column("HELD", right=True), Column("CLIENT", least=10), Column("WORKER", least=10),
        Column("CHECKED OUT AT", least=12),
    )  # fmt: skip
    short = clean if limit is None else without_folders
    rows = [
        (duration(one["age"]), ref(one["client"]), one["worker"], short(one["line"]))
        for one in found["holders"]
    ]
    return _cut_off(table(columns, rows, limit and limit - 2), found["holders_more"])


def waiters(found: Answer, limit: int | None = None) -> list[str]:
    """Return a table of who waits for a worker."""
    columns = (
        Column("WAITED", right=True), Column("LEFT", right=True), Column("CLIENT", least=10),
        Column("WAITS AT", least=12),
    )  # fmt: skip
    short = clean if limit is None else without_folders
    rows = [
        (duration(one["waited"]), duration(one["left"]), ref(one["client"]), short(one["line"]))
        for one in found["waiters"]
    ]
    return _cut_off(table(columns, rows, limit and limit - 2), found["waiters_more"])


def _cut_off(lines: list[str], more: int) -> list[str]:
    return [*lines, f"… {more} more"] if more else lines


def events(answer: Answer, limit: int | None = None) -> list[Line]:
    """Return events, the oldest first."""
    return _told(answer["events"], answer["now"], limit) or [Line("no events", "dim")]


def _told(found: Iterable[Answer], now: float, limit: int | None) -> list[Line]:
    return [line for event in found for line in event_lines(event, now, limit)]


def event_process(event: Answer) -> str | None:
    """Return whom an event is about; how that one is now is no part of it."""
    found = event["process"]
    return ref({**found, "status": None}) if found else None


def event_lines(event: Answer, now: float, limit: int | None = None) -> list[Line]:
    """Return an event: a line of what, when and who, and its text, folded if need be."""
    who = event_process(event)
    pool = f"pool {clean(event['pool'])}" if event["pool"] else None
    times = f"{event['count']}x" if event["count"] > 1 else None
    said = (moment(event["at"], now), f"{event['level']:7}", clean(event["kind"]), times, who, pool)
    tone = LEVELS.get(event["level"], "plain")
    head = Line(cut("  ".join(filter(None, said)), limit), tone)
    return [head, *(Line(line, "dim") for line in _folded(clean(event["text"]), "    ", limit))]


def _folded(text: str, indent: str, limit: int | None) -> list[str]:
    if limit is None or width(indent + text) <= limit:
        return [indent + text]
    return textwrap.wrap(text, limit, initial_indent=indent, subsequent_indent=indent)


def _titled(lines: Sequence[str]) -> list[Line]:
    return [Line(line, "plain" if at else "head") for at, line in enumerate(lines)]


def _pairs(pairs: Iterable[tuple[str, str]], limit: int | None) -> list[Line]:
    lines = []
    for name, value in pairs:
        first, *rest = _folded(value, " " * 20, limit)
        lines += [f"  {name:16}  {first[20:]}", *rest]
    return [Line(line) for line in lines]


def _section(heading: str, texts: Sequence[str], limit: int | None) -> list[Line]:
    lines = [Line(cut(f"  {clean(text)}", limit)) for text in texts]
    return [Line(heading, "head"), *lines] if lines else []


def _indented(line: Line) -> Line:
    return Line(f"  {line.text}", line.tone)
