"""What strikes at every bytecode misses none, on any interpreter."""

from __future__ import annotations

import contextlib
import dis
import sys
import traceback
from collections.abc import Callable
from types import CodeType

import gpool
from gpool.waiter import Gate, Waiter
from tests.lightning import Lightning, Struck


def test_strikes_at_each_bytecode_of_a_straight_line() -> None:
    """In their order, and once more tells that there are no more."""
    code = Waiter.renew.__code__
    bytecodes = [i.offset for i in dis.get_instructions(code) if i.opname != "RESUME"]
    assert [offset for offset in strikes(Waiter().renew, code) if offset in bytecodes] == bytecodes


def test_strikes_in_what_is_called() -> None:
    """As often as in that function alone, and in the caller before and after it."""
    called = strikes(Gate().open, Gate.turn_away.__code__)
    assert called == strikes(Gate().turn_away, Gate.turn_away.__code__)
    assert len(set(called)) > 3
    assert len(set(strikes(Gate().open, Gate.open.__code__))) > 3


def test_leaves_no_exception_behind() -> None:
    """What strikes at the end of an ``except`` clause keeps its exception from being taken back."""
    gpool.self()  # so that nothing has to be set up meanwhile
    bytecode = 1
    while Lightning(bytecode).run(poll):
        assert sys.exception() is None
        bytecode += 1
    assert bytecode > 100


def poll() -> None:
    """Find an empty mailbox, which gpool learns by an exception."""
    with contextlib.suppress(gpool.ReceiveTimeout):
        gpool.receive(timeout=0)


def strikes(fn: Callable[[], object], code: CodeType) -> list[int]:
    """Return where in `code`, or in what it calls from there, `fn` is struck; in order."""
    offsets: list[int] = []
    bolt = Noting(1)
    for bytecode in range(2, 200):
        if not bolt.run(fn):
            break
        frames = traceback.walk_tb(bolt.struck.__traceback__)
        offsets += [frame.f_lasti for frame, _ in frames if frame.f_code is code]
        bolt = Noting(bytecode)
    return offsets


class Noting(Lightning):
    """It keeps what it has raised."""

    struck: Struck

    def _bytecode(self) -> None:
        try:
            super()._bytecode()
        except Struck as error:
            self.struck = error
            raise
