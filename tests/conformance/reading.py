"""Reads trace files.

One thing in them is put right: for a monitor that was set on a registered name,
FORMAT.md has ``{"down": {"name": N}}``, but the recorder of kind ``gen_server``
wrote ``{"down": "other"}``.  A case is read as the format says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.conformance.terms import Json, canonical_order

KINDS: Final = ("signals", "supervisor", "gen_server", "pool")


def load(path: str | Path) -> list[Json]:
    """Return the cases of a trace file.

    Raises:
        ValueError: The file is of another format, or has a case of another kind.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != 1:
        raise ValueError(f"{path}: expected a trace file of format 1")
    for case in content["cases"]:
        if case["kind"] not in KINDS:
            raise ValueError(
                f"{path}: {case['id']}: expected a kind of {KINDS}, got {case['kind']!r}"
            )
    return [put_names_back(case) for case in content["cases"]]


def put_names_back(case: Json) -> Json:
    """Return the case with the names that its monitors were set on."""
    targets = {
        step["ref"]: step["to"]
        for step in case["steps"]
        if step["op"] == "monitor" and isinstance(step.get("to"), dict)
    }
    if not targets:
        return case
    return case | {"expect": [_put_back(recorded, targets) for recorded in case["expect"]]}


def _put_back(recorded: Json, targets: dict[str, Json]) -> Json:
    if "received" not in recorded:
        return recorded
    received = {
        who: sorted((_named(message, targets) for message in messages), key=canonical_order)
        for who, messages in recorded["received"].items()
    }
    return recorded | {"received": received}


def _named(message: Json, targets: dict[str, Any]) -> Json:
    match message:
        case {"down": "other", "ref": ref} if ref in targets:
            return message | {"down": targets[ref]}
        case _:
            return message
