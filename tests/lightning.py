"""What strikes at any bytecode: a signal handler's exception, or a RecursionError."""

from __future__ import annotations

import contextlib
import dis
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from greenlet import getcurrent

import gpool

HOME = str(Path(gpool.__file__).parent)


class Struck(BaseException):
    """What the signal handler of a user raises."""


class Lightning:
    """Raises at the n-th bytecode that gpool runs in the calling greenlet."""

    def __init__(self, bytecode: int) -> None:
        self.left = bytecode
        self.greenlet = getcurrent()

    def run(self, fn: Callable[[], object]) -> bool:
        """Call `fn`; tell whether it came to that."""
        try:
            with _traced(self._bytecode):
                next(_apart(fn))
        except Struck:
            return True
        assert self.left > 0, "a transition has swallowed an exception that is not its own"
        return False

    def _bytecode(self) -> None:
        if getcurrent() is self.greenlet:
            self.left -= 1
            if self.left == 0:
                raise Struck


def _apart(fn: Callable[[], object]) -> Iterator[object]:
    """Call `fn` in a generator, which has a ``sys.exception()`` of its own.

    What strikes where an ``except`` ends would leave it set for whoever comes after.
    """
    yield fn()


if sys.version_info >= (3, 12):  # there a trace function misses some of them

    @contextlib.contextmanager
    def _traced(strike: Callable[[], None]) -> Iterator[None]:
        """Call `strike` before each bytecode of gpool's."""
        monitoring: Any = sys.monitoring
        tool, events = monitoring.DEBUGGER_ID, monitoring.events

        def instruction(code: CodeType, offset: int) -> Any:
            return strike() if code.co_filename.startswith(HOME) else monitoring.DISABLE

        monitoring.use_tool_id(tool, "lightning")
        monitoring.register_callback(tool, events.INSTRUCTION, instruction)
        monitoring.set_events(tool, events.INSTRUCTION)
        try:
            yield
        finally:
            monitoring.set_events(tool, events.NO_EVENTS)
            monitoring.free_tool_id(tool)

else:

    @contextlib.contextmanager
    def _traced(strike: Callable[[], None]) -> Iterator[None]:
        """Call `strike` before each bytecode of gpool's."""

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            if not frame.f_code.co_filename.startswith(HOME):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if event == "opcode":
                strike()
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)


class Handler:
    """Calls `fn` at the n-th moment at which a signal handler might run, in gpool's code.

    That is after a call of C, at the begin of a function, and where a loop begins again.
    """

    AFTER = frozenset(
        dis.opmap[name]
        for name in ("RESUME", "CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD")
        if name in dis.opmap
    )

    def __init__(self, moment: int, fn: Callable[[], object]) -> None:
        self.left, self.fn = moment, fn
        self.last: tuple[FrameType, int] | None = None  # instruction, and where

    def run(self, act: Callable[[], object]) -> bool:
        """Call `act`; tell whether it came to that."""
        sys.settrace(self._trace)
        try:
            act()
        finally:
            sys.settrace(None)
            self.last = None
        return self.left <= 0

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if self.left <= 0 or not frame.f_code.co_filename.startswith(HOME):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        last = self.last
        if event != "opcode":
            self.last = (frame, dis.opmap["RESUME"]) if event == "call" else None
            return self._trace
        self.last = frame, frame.f_code.co_code[frame.f_lasti]
        if last is not None and last[0] is frame and last[1] in self.AFTER:
            self.left -= 1
            if self.left == 0:
                self.last = None
                self.fn()
        return self._trace
