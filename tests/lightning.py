"""What strikes at any bytecode: a signal handler's exception, or a RecursionError."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
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
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            fn()
        except Struck:
            return True
        finally:
            sys.settrace(before)
        assert self.left > 0, "a transition has swallowed an exception that is not its own"
        return False

    def _trace(self, frame: Any, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(HOME) or getcurrent() is not self.greenlet:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                raise Struck
        return self._trace
