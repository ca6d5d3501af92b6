"""Processes, as the API shows them: a page of rows, or one of them whole.

All of it is read from the books, by functions that the observed hub runs: they neither
switch nor call what a user has written, and do for all processes only what sorting and
finding needs; texts are made for one page.

Not here: who supervises whom (``tree.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Final

import gpool
from gpool import clock
from gpool.observer.node.errand import IS_ERRAND
from gpool.observer.node.text import cut, explained, shown, stack_of

STATUSES: Final = ("running", "waiting", "hibernating", "exiting", "dead", "zombie")
LIST: Final = 200  # links and the like of one process that are told
NAME: Final = 80  # characters of a label
REASON: Final = 120  # characters of a reason in a table

Row = dict[str, Any]


_place: Final = lru_cache(8192)(cut)
short: Final = lru_cache(8192)(partial(cut, limit=NAME))  # thousands have the same label


def name_of(pid: gpool.Pid) -> str | None:
    """Return the text of a process's registered name."""
    return None if pid.name is None else named(pid.name)


def named(name: Any) -> str:
    """Return the text of a name or id, which may be anything."""
    return short(name) if type(name) is str else shown(name, NAME)


def label_of(pid: gpool.Pid) -> str:
    """Return its name, or else its initial call: what Erlang's Observer shows first."""
    return name_of(pid) or short(pid.initial_call)


def status_of(pid: gpool.Pid) -> str:
    """Return what it does: running, waiting, hibernating, exiting, dead, or a zombie."""
    status: str = gpool.process_info(pid, "status")
    if status == "dead" and pid in gpool.zombies():
        return "zombie"
    return "hibernating" if status == "waiting" and pid.hibernation is not None else status


def ref_of(pid: gpool.Pid | None) -> Row | None:
    """Return what a process is called elsewhere, to be followed."""
    return None if pid is None else _ref(pid)


def _ref(pid: gpool.Pid) -> Row:
    return {"id": pid.id, "label": label_of(pid), "status": status_of(pid)}


# --- A page of them -----------------------------------------------------------------


def _counter(item: Any) -> Callable[[gpool.Pid], int]:
    return lambda pid: len(gpool.process_info(pid, item))


def _lived(pid: gpool.Pid) -> float:
    return (clock.now() if pid.ended_at is None else pid.ended_at) - pid.started_at


COLUMNS: Final[Mapping[str, Callable[[gpool.Pid], Any]]] = {
    "id": lambda pid: pid.id,
    "label": lambda pid: label_of(pid).lower(),
    "name": lambda pid: name_of(pid) or "",
    "initial_call": lambda pid: pid.initial_call,
    "current_function": lambda pid: gpool.process_info(pid, "current_function"),
    "status": status_of,
    "mailbox": lambda pid: gpool.process_info(pid, "message_queue_len"),
    "restarts": lambda pid: -1 if (times := gpool.restarts_of(pid)) is None else times,
    "links": _counter("links"),
    "monitors": _counter("monitors"),
    "monitored_by": _counter("monitored_by"),
    "age": _lived,
    "ended": lambda pid: -1.0 if pid.ended_at is None else clock.now() - pid.ended_at,
}
"""What processes can be sorted by."""

KINDS: Final[Mapping[str, Callable[[], list[gpool.Pid]]]] = {
    "live": gpool.processes,
    "ended": gpool.recently_ended,
    "zombies": gpool.zombies,
}
"""Which processes can be asked for."""


def list_of(which: str) -> list[gpool.Pid]:
    """Return processes of a kind, without those that do the Observer's own errands."""
    return [pid for pid in KINDS[which]() if pid.initial_call != IS_ERRAND]


def page_of(
    *, which: str, sort: str, descending: bool, text: str, page: int, per: int
) -> dict[str, Any]:
    """Return a page of processes, sorted and filtered."""
    pids = list_of(which)
    if text:
        pids = list(filter(Search(text).finds, pids))
    pids.sort(key=COLUMNS[sort], reverse=descending)
    first = (page - 1) * per
    return {
        "which": which,
        "sort": sort,
        "order": "desc" if descending else "asc",
        "filter": text,
        "page": page,
        "pages": max(-(-len(pids) // per), 1),
        "per": per,
        "total": len(pids),
        "processes": [row_of(pid) for pid in pids[first : first + per]],
    }


class Search:
    """Looks for a text in pids, names, initial calls, states and whereabouts.

    Args:
        text: In capitals or not.
    """

    def __init__(self, text: str) -> None:
        sought = text.lower()
        self._sought = sought
        self._is_status = any(sought in word for word in STATUSES)
        self._is_pid = sought in "#pid<" or any(letter.isdigit() for letter in sought)
        self.has = lru_cache(8192)(self._has)  # thousands have the same words

    def _has(self, words: str) -> bool:
        return self._sought in words.lower()

    def finds(self, pid: gpool.Pid) -> bool:
        """Tell whether a process is one that is looked for."""
        has = self.has
        return (
            has(label_of(pid))
            or has(pid.initial_call)
            or (self._is_status and has(status_of(pid)))
            or (self._is_pid and self._sought in f"#pid<{pid.id}>")
            or has(gpool.process_info(pid, "current_function"))
        )


def row_of(pid: gpool.Pid) -> Row:
    """Return what a table shows of a process."""
    ended = pid.ended_at
    return {
        "id": pid.id,
        "pid": repr(pid),
        "label": label_of(pid),
        "name": name_of(pid),
        "initial_call": short(pid.initial_call),
        "current_function": _place(gpool.process_info(pid, "current_function")),
        "status": status_of(pid),
        "mailbox": gpool.process_info(pid, "message_queue_len"),
        "restarts": gpool.restarts_of(pid),
        "links": len(pid.links),
        "monitors": len(gpool.process_info(pid, "monitors")),
        "monitored_by": len(gpool.process_info(pid, "monitored_by")),
        "age": round(_lived(pid), 3),
        "ended": None if ended is None else round(clock.now() - ended, 3),
        "reason": None if ended is None else shown(pid.reason, REASON),
    }


# --- One of them --------------------------------------------------------------------


def find(number: int) -> gpool.Pid | None:
    """Return the process of a number, if it lives or has ended lately."""
    for pids in (gpool.processes(), gpool.recently_ended(), gpool.zombies()):
        for pid in pids:
            if pid.id == number:
                return pid
    return None


def pool_sups() -> dict[gpool.Pid, str]:
    """Return the processes at the roots of the pools' trees, with the names of the pools."""
    found = ((pool.tree().pool_sup, pool.name) for pool in gpool.running_pools())
    return {sup: name for sup, name in found if sup is not None}


def pool_of(pid: gpool.Pid) -> str | None:
    """Return the name of the pool whose tree a process is in."""
    sups = pool_sups()
    return next((sups[one] for one in (pid, *pid.ancestors) if one in sups), None)


def detail_of(pid: gpool.Pid, shows_state: Callable[[gpool.Pid], bool]) -> Row:
    """Return all that is to be known of a process."""
    place, supervision = gpool.place_of(pid), gpool.supervision(pid, 0)
    kind = None if place is None else place.type
    info = gpool.process_info(pid)
    stack = gpool.process_info(pid, "current_stacktrace")
    last_exit = pid.reason if pid.ended_at is not None else place and place.last_exit
    return {
        **row_of(pid),
        "parent": ref_of(pid.parent),
        "ancestors": [_ref(one) for one in pid.ancestors],
        **_listed("links", info.links),
        **_listed("monitors", info.monitors),
        **_listed("monitored_by", info.monitored_by),
        "supervisor": ref_of(gpool.supervisor_of(pid)),
        "child_id": None if place is None else named(place.id),
        "type": "supervisor" if supervision is not None else kind,
        "strategy": None if supervision is None else supervision.strategy,
        "pool": pool_of(pid),
        "trap_exit": pid.trapping,
        "last_exit": None if last_exit is None else explained(last_exit),
        "stack": stack_of(stack),
        "state_shown": pid.ended_at is None and shows_state(pid),
    }


def _listed(what: str, found: tuple[Any, ...]) -> Row:
    refs = [_ref(one) if type(one) is gpool.Pid else _by_name(one) for one in found[:LIST]]
    return {what: refs, f"{what}_more": len(found) - len(refs)}


def _by_name(name: Any) -> Row:
    """Return what a monitor was set on that is no process: a name, and whose it is now."""
    pid = gpool.whereis(name) if type(name) is str else None
    if pid is None:
        return {"id": None, "label": named(name), "status": None}
    return {**_ref(pid), "label": named(name)}
