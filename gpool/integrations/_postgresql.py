"""What the integrations of PostgreSQL's drivers have in common: what an error means.

Not here: anything that needs a driver (``psycopg.py``, ``psycopg2.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import gpool

W = TypeVar("W")

DEFAULT: Final[Any] = object()  # the pool's own timeout
GONE: Final = ("08", "57P")  # how the SQLSTATEs of a lost connection and of a shutdown begin
OWN_FAULT: Final = ("25P03", "25P04")  # its time-outs, in a transaction: others are not concerned
READ_ONLY: Final = "25006"  # said by a standby, or by a transaction that is to be so


def says_gone(state: str | None, *, standby: Callable[[], bool]) -> bool | None:
    """Tell whether a SQLSTATE means that the server is not what it was; None: it does not tell.

    Args:
        state: The SQLSTATE.
        standby: Tells whether the server is a standby.
    """
    if state is None:
        return None
    if state in OWN_FAULT:
        return False
    return state.startswith(GONE) or (state == READ_ONLY and standby()) or None


def checkout(pool: gpool.Pool[W], timeout: Any) -> gpool.Lease[W]:
    """Borrow a connection for the caller of the caller: it is that line which has it."""
    lease = pool.checkout() if timeout is DEFAULT else pool.checkout(timeout)
    frame = sys._getframe(2)
    lease.code, lease.lasti = frame.f_code, frame.f_lasti
    return lease


def callable_or_none(**hooks: Any) -> None:
    """Raise unless each of them can be called, or is None."""
    for name, hook in hooks.items():
        if hook is not None and not callable(hook):
            raise TypeError(f"{name}: expected a callable or None, got {hook!r}")
