"""Where gpool differs from the recorded OTP 25 on purpose.

A rule looks at a step and what was recorded for it (with the case's setup and
the steps before, never its id), and says what gpool is to show instead.  Each
names its reason; the replay counts the steps that each rewrote.

Not here: the pools' rules (``rules_pool.py``), reading cases (``reading.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.conformance.terms import Json

NOT_COMPARED: Final = None
"""The expectation of a step from which on the case is another one than the recorded."""


@dataclass(frozen=True)
class Context:
    """One step of a case, and the steps before it."""

    case: Json
    index: int  # of the step in its case

    @property
    def kind(self) -> Json:
        """Return the kind of the case."""
        return self.case["kind"]

    @property
    def step(self) -> Json:
        """Return the step."""
        return self.case["steps"][self.index]

    @property
    def recorded(self) -> Json:
        """Return what was recorded for the step, before any rule."""
        return self.case["expect"][self.index]

    def until_now(self) -> Iterator[tuple[Json, Json]]:
        """Yield the steps before, each with what was recorded for it."""
        yield from zip(self.case["steps"][: self.index], self.case["expect"], strict=False)


@dataclass(frozen=True)
class Rule:
    """One deliberate deviation.

    Args:
        name: What it is called in reports.
        reason: Why gpool differs, and whose decision that is.
        rewrite: Takes a step's context and its expected observation; returns
            what gpool is to show: the same, if the rule does not apply, or
            :data:`NOT_COMPARED`.
    """

    name: str
    reason: str
    rewrite: Callable[[Context, Json], Json]


def expectation(context: Context, rules: Iterable[Rule], rewrites: Counter[str]) -> Json:
    """Return what gpool is to show in a step; count the rules that had a say.

    Where one says that nothing is to be compared any more, none after it is asked.
    """
    expected = context.recorded
    for rule in rules:
        changed = rule.rewrite(context, expected)
        if changed != expected:
            rewrites[rule.name] += 1
        expected = changed
        if expected is NOT_COMPARED:
            break
    return expected


# --- Kind supervisor ----------------------------------------------------------------


def failed_supervisor_is_quiet(context: Context, expected: Json) -> Json:
    """A supervisor that does not start, or is ignored, sends its parent no EXIT."""
    if not _is_failed_start(context, "supervisor"):
        return expected
    return {name: value for name, value in expected.items() if name != "exit"}


def dynamic_auto_shutdown_is_refused(context: Context, expected: Json) -> Json:
    """With ``simple_one_for_one`` there is no ``auto_shutdown``: no supervisor ever starts."""
    if not _has_dynamic_auto_shutdown(context):
        return expected
    match context.step["op"]:
        case "start":
            result: Json = {"error": {"start_spec": "bad_combination"}}
        case "crash":
            result = "not_running"
        case "sleep":
            result = "ok"
        case _:
            result = "noproc"
    return {"result": result, "sup": "down"}


def _has_dynamic_auto_shutdown(context: Context) -> bool:
    """Return whether a case has it, and no fault that is found before."""
    setup = context.case["setup"]
    if context.kind != "supervisor" or setup.get("strategy") != "simple_one_for_one":
        return False
    if setup.get("auto_shutdown") not in ("any_significant", "all_significant"):
        return False
    starts = [
        recorded["result"]
        for step, recorded in zip(context.case["steps"], context.case["expect"], strict=True)
        if step["op"] == "start"
    ]
    return not any(isinstance(r, dict) and isinstance(r.get("error"), dict) for r in starts)


def _is_failed_start(context: Context, kind: str) -> bool:
    recorded = context.recorded["result"]
    return context.kind == kind and context.step["op"] == "start" and recorded != "ok"


# --- Kind gen_server ----------------------------------------------------------------


def failed_server_is_quiet(context: Context, expected: Json) -> Json:
    """A server whose ``start_link`` fails, or is ignored, sends its caller no EXIT."""
    if not _is_failed_start(context, "gen_server"):
        return expected
    exit_of_server = {"exit": context.step["server"]}
    received = {
        who: [message for message in messages if not exit_of_server.items() <= message.items()]
        for who, messages in expected.get("received", {}).items()
    }
    return expected | {"received": {who: some for who, some in received.items() if some}}


def signalled_server_terminates(context: Context, expected: Json) -> Json:
    """A server that does not trap exits runs ``terminate`` when a signal ends it."""
    log = dict(expected.get("log", {}))
    for server in signalled_servers(context):
        log[server] = [*log.get(server, []), ["terminate", expected["died"][server]]]
    return expected | {"log": log} if log else expected


def terminate_answers_callers(context: Context, expected: Json) -> Json:
    """Callers that such a ``terminate`` replies to get the reply, not the exit."""
    completed = dict(expected.get("completed", {}))
    for server in signalled_servers(context):
        died_of = {"exit": expected["died"][server]}
        callers = callers_left(context, server)
        for release in _start_of(context, server).get("terminate", {}).get("release", []):
            caller = callers[release["n"]] if release["n"] < len(callers) else None
            if completed.get(caller) == died_of:
                completed[caller] = {"reply": release["value"]}
    return expected | {"completed": completed} if completed else expected


def signalled_servers(context: Context) -> list[str]:
    """Return the running servers that an exit signal other than a kill ends in this step."""
    if context.kind != "gen_server":
        return []
    return [
        label
        for label, reason in context.recorded.get("died", {}).items()
        if reason != "killed"
        and _is_running(context, label)
        and not _start_of(context, label).get("trap", False)
        and not _ran_terminate(context.recorded, label)
    ]


def _is_running(context: Context, label: str) -> bool:
    """Return whether the server was started before this step, and did not begin to end."""
    return bool(_start_of(context, label)) and not any(
        _ran_terminate(recorded, label) for _, recorded in context.until_now()
    )


def _ran_terminate(recorded: Json, label: str) -> bool:
    entries = recorded.get("log", {}).get(label, [])
    return any(entry[0] == "terminate" for entry in entries)


def _start_of(context: Context, label: str) -> Json:
    """Return the step that has started a server; {} if none has."""
    for step, recorded in context.until_now():
        if step["op"] == "start" and step["server"] == label and recorded["result"] == "ok":
            return step
    return {}


def callers_left(context: Context, server: str) -> list[str | None]:
    """Return the callers that a server has left without a reply, oldest first.

    A caller that appears again later had its first call answered: None there.
    """
    left: list[str | None] = []
    sent: list[tuple[str, Json]] = []  # calls not handled yet: client, action
    names: Json = {}
    for step, recorded in context.until_now():
        sent += [(step["c"], op["action"]) for op in _calls_to(server, step, names)]
        names = recorded.get("names", {})
        for entry in recorded.get("log", {}).get(server, []):
            if entry[0] != "call":
                continue
            client, action = next(call for call in sent if call[1].get("tag") == entry[1])
            sent.remove((client, action))
            if _is_left(action):
                left = [None if before == client else before for before in left]
                left.append(client)
    return left


def _calls_to(server: str, step: Json, names: Json) -> list[Json]:
    to = step.get("to")
    if isinstance(to, dict):
        to = names.get(to["name"])
    if to != server:
        return []
    return [op for op in step.get("ops", [step]) if op["op"] == "call"]


def _is_left(action: Json) -> bool:
    if action.get("ret") == "throw" and "as" in action:
        return _is_left(action["as"] | {"reply_first": action.get("reply_first")})
    return action.get("ret") == "noreply" and action.get("reply_first") is None


RULES: Final = (
    Rule(
        "failed-server-is-quiet",
        "OTP 26 and newer: a start call returns when the child is dead and its EXIT is "
        "consumed (otp-semantics G3); gpool raises StartError, and the caller lives",
        failed_server_is_quiet,
    ),
    Rule(
        "failed-supervisor-is-quiet",
        "the same, for the parent of a supervisor whose children do not start, whose options "
        "are wrong (gpool raises SpecError before anything starts), or that is ignored "
        "(otp-semantics G3, S2)",
        failed_supervisor_is_quiet,
    ),
    Rule(
        "dynamic-auto-shutdown-is-refused",
        "OTP 26 and newer refuse auto_shutdown with simple_one_for_one (otp-semantics S17)",
        dynamic_auto_shutdown_is_refused,
    ),
    Rule(
        "signalled-server-terminates",
        "Python unwinds a signalled greenlet anyway, and users expect cleanup: terminate runs "
        "within the unwind limit, never for a kill (otp-semantics, recommendation 8)",
        signalled_server_terminates,
    ),
    Rule(
        "terminate-answers-callers",
        "what such a terminate does is done: a caller that it replies to has its answer before "
        "the server's death could reach it (otp-semantics, recommendation 8)",
        terminate_answers_callers,
    ),
)
