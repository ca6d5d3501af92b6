"""Who is who in a case: labels, processes, names and monitors.

A label stays with its process after its death.  The roster also remembers which
deaths were reported, so that each is told in one step only.
"""

from __future__ import annotations

from typing import Any

import gpool
from tests.conformance.terms import Json, canonical_order, decode_name, encode, values_of


class Roster:
    """The processes of one case.

    Args:
        case: The case; the registered names it mentions are those looked up.
    """

    def __init__(self, case: Json) -> None:
        self.pids: dict[str, gpool.Pid] = {}  # label -> process, dead or alive
        self.refs: dict[str, gpool.Ref] = {}  # label -> monitor
        self._labels: dict[gpool.Pid, str] = {}
        self._ref_labels: dict[gpool.Ref, str] = {}
        self._reported: set[str] = set()  # labels whose death was told
        self._names = sorted(set(values_of("name", case["steps"])) - {"undefined"})

    def enrol(self, label: str, pid: gpool.Pid) -> None:
        """Give a process its label, for ever."""
        self.pids[label] = pid
        self._labels[pid] = label

    def enrol_ref(self, label: str, ref: gpool.Ref) -> None:
        """Give a monitor its label."""
        self.refs[label] = ref
        self._ref_labels[ref] = label

    def label(self, pid: gpool.Pid) -> str:
        """Return a process's label; a process without one shows as its repr."""
        return self._labels.get(pid, repr(pid))

    def target(self, to: Json) -> Any:
        """Return what an operation is aimed at: a process, or a registered name."""
        return to["name"] if isinstance(to, dict) else self.pids[to]

    def alive(self) -> list[str]:
        """Return the labels of living processes, sorted."""
        return sorted(label for label, pid in self.pids.items() if gpool.is_alive(pid))

    def is_alive(self, label: str) -> bool:
        """Return whether the process lives."""
        return label in self.pids and gpool.is_alive(self.pids[label])

    def newly_dead(self) -> dict[str, Json]:
        """Return label -> reason of the processes that died since the last time."""
        fresh = [
            label
            for label, pid in self.pids.items()
            if label not in self._reported and not gpool.is_alive(pid)
        ]
        self._reported.update(fresh)
        return {label: self.encode(self.pids[label].reason) for label in fresh}

    def names(self) -> dict[str, str]:
        """Return registered name -> label."""
        owners = {name: gpool.whereis(name) for name in self._names}
        return {name: self.label(pid) for name, pid in owners.items() if pid is not None}

    def whereis(self, name: str) -> str | None:
        """Return the label of the process registered as `name`, or None."""
        pid = gpool.whereis(decode_name(name))
        return None if pid is None else self.label(pid)

    def encode(self, term: Any) -> Json:
        """Return the JSON term for a Python term, processes as their labels."""
        return encode(term, self.label)

    def received(self, messages: list[Any]) -> list[Json]:
        """Return messages as the traces show them, in their canonical order."""
        return sorted(map(self._message, messages), key=canonical_order)

    def _message(self, message: Any) -> Json:
        match message:
            case gpool.Exit(pid=pid, reason=reason):
                return {"exit": self.label(pid), "reason": self.encode(reason)}
            case gpool.Down(ref=ref, process=process, reason=reason):
                shown = {"name": process} if isinstance(process, str) else self.label(process)
                return {
                    "down": shown,
                    "ref": self._ref_labels.get(ref, repr(ref)),
                    "reason": self.encode(reason),
                }
            case (str() as sender, content):
                return {"from": sender, "msg": self.encode(content)}
            case _:
                return {"from": "?", "msg": repr(message)}
