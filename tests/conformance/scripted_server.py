"""The servers of kind ``gen_server``: in each callback they do what an action says.

Python has no ``throw``: as gen_server takes what a callback throws for its return
value, the callback returns it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import gpool
from tests.conformance.terms import Fault, Json, decode, seconds

if TYPE_CHECKING:
    from tests.conformance.world_gen_server import GenServerWorld

NOTHING: Final = {"ret": "ok"}


class ScriptedServer(gpool.GenServer):
    """A server of a trace.  Its public attributes are what ``sys`` sees: `state`."""

    def __init__(self, world: GenServerWorld, start: Json) -> None:
        self._world = world
        self._label: str = start["server"]
        self._start = start
        self._left: list[Any] = []  # callers left without a reply, oldest first; None: answered
        self.state: Json = 0

    def init(self) -> Any:
        """Take the label, then do as the step says."""
        self._world.roster.enrol(self._label, gpool.self())
        gpool.trap_exit(self._start.get("trap", False))
        self._log("init")
        return self._perform("init", self._start.get("init", NOTHING))

    def handle_call(self, request: Json, from_: Any) -> Any:
        """Do as the request says."""
        self._log("call", request.get("tag"))
        return self._perform("call", request, from_)

    def handle_cast(self, request: Json) -> Any:
        """Do as the request says."""
        self._log("cast", request.get("tag"))
        return self._perform("cast", request)

    def handle_continue(self, arg: Json) -> Any:
        """Do as the continue term says."""
        self._log("continue", arg.get("tag"))
        return self._perform("continue", arg)

    def handle_info(self, message: Any) -> Any:
        """Note a time-out or an EXIT; do as any other message says."""
        match message:
            case "timeout":
                return self._log("info", "timeout")
            case gpool.Exit(pid=pid, reason=reason):
                roster = self._world.roster
                shown = {"exit": roster.label(pid), "reason": roster.encode(reason)}
                return self._log("info", shown)
            case _:
                self._log("info", message.get("tag"))
                return self._perform("info", message)

    def terminate(self, reason: Any) -> Any:
        """Note it, then do as the start step says."""
        self._log("terminate", self._world.roster.encode(reason))
        return self._perform("terminate", self._start.get("terminate", NOTHING))

    def _log(self, *entry: Json) -> None:
        self._world.log.setdefault(self._label, []).append(list(entry))

    def _perform(self, callback: str, action: Json, from_: Any = None) -> Any:
        if "state" in action:
            self.state = action["state"]
        if "sleep" in action:
            self._world.clock.sleep(seconds(action["sleep"]))
        for message in action.get("self", []):
            gpool.send(gpool.self(), message)
        for release in action.get("release", []):
            self._release(release["n"], release["value"])
        if "reply_first" in action and from_ is not None:
            gpool.reply(from_, action["reply_first"])
            from_ = None
        return self._answer(callback, action, from_)

    def _release(self, n: int, value: Json) -> None:
        if n < len(self._left) and self._left[n] is not None:
            from_, self._left[n] = self._left[n], None
            gpool.reply(from_, value)

    def _answer(self, callback: str, action: Json, from_: Any) -> Any:
        """Return what gpool's callback returns in place of OTP's tuple."""
        match action.get("ret", "ok"):
            case "raise":
                raise Fault("oops")
            case "exit":
                gpool.exit(decode(action["reason"]))
            case "throw" if "as" in action:
                return self._answer(callback, action["as"], from_)
            case "throw":
                return action["value"]
            case "bad":
                return "garbage"
            case "ignore":
                return gpool.Ignore() if callback == "init" else "ignore"
            case "stop":
                return _stop(callback, action)
            case "reply":
                return gpool.Reply(action.get("value"), *_next(action))
            case "noreply":
                return self._no_reply(callback, action, from_)
            case "ok":
                return _ok(callback, action)
        raise ValueError(f"expected an action, got {action!r}")

    def _no_reply(self, callback: str, action: Json, from_: Any) -> Any:
        if callback == "call":
            if from_ is not None:
                self._left.append(from_)
            return gpool.NoReply(*_next(action))
        if callback == "init":
            return ("noreply", self.state)  # a bad return value
        return next(iter(_next(action)), None)


def _next(action: Json) -> tuple[Any, ...]:
    """Return what follows the callback: at most one element."""
    match action.get("next"):
        case {"timeout": milliseconds}:
            return (gpool.IdleTimeout(seconds(milliseconds)),)
        case {"continue": arg}:
            return (gpool.Continue(arg),)
        case "hibernate":
            return (gpool.Hibernate(),)
        case _:
            return ()


def _ok(callback: str, action: Json) -> Any:
    if callback in ("init", "terminate"):
        return next(iter(_next(action)), None)
    return ("ok", action.get("state"))  # a bad return value


def _stop(callback: str, action: Json) -> Any:
    reason = decode(action["reason"])
    if "value" in action:
        if callback == "call":
            return gpool.Stop(reason, reply=action["value"])
        return ("stop", reason, action["value"])  # a bad return value
    return gpool.Stop(reason)
