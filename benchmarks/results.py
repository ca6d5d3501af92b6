"""What a suite has found: rows of figures, and who could not take part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a suite's table."""

    what: str
    figures: Mapping[str, float]  # column -> value, in the unit that the column names


@dataclass(frozen=True, slots=True)
class Result:
    """All of one suite."""

    suite: str
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # peers that are not installed
    notes: list[str] = field(default_factory=list)  # sentences

    def figure(self, what: str, column: str) -> float | None:
        """Return one figure, None if it was not measured."""
        for row in self.rows:
            if row.what == what:
                return row.figures.get(column)
        return None

    def as_json(self) -> dict[str, Any]:
        """Return what `json` can write."""
        return {
            "suite": self.suite,
            "rows": [{"what": row.what, **row.figures} for row in self.rows],
            "left_out": self.left_out,
            "notes": self.notes,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return what was written so."""
        rows = [Row(row.pop("what"), row) for row in (dict(row) for row in data["rows"])]
        return cls(data["suite"], rows, data["left_out"], data["notes"])
