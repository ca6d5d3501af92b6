"""A supervision tree as text: what Erlang's Observer draws."""

from collections.abc import Mapping

import gpool


def show(top: gpool.Pid, notes: Mapping[gpool.Pid, str] | None = None, indent: str = "") -> None:
    """Print a process and, below it, those that it has started and is linked to.

    Args:
        top: Where to begin.
        notes: What else is to be said of some of them.
        indent: What stands before each line.
    """
    info = gpool.process_info(top)
    what = info.initial_call if info.name is None else f"{info.initial_call} {info.name!r}"
    facts = f"{top!r:<10} parent {info.parent!r:<10} {info.status}"
    print(f"{indent + what:<36}{facts}  {(notes or {}).get(top, '')}".rstrip())
    for pid in info.links:
        if gpool.process_info(pid).parent is top:
            show(pid, notes, indent + "    ")


def find(initial_call: str) -> gpool.Pid:
    """Return the oldest living process that runs something of that name."""
    infos = map(gpool.process_info, gpool.processes())
    return next(info.pid for info in infos if info.initial_call == initial_call)
