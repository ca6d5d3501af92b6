"""The page of the documentation: bounds, tables, and the text around them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import report
from benchmarks.bounds import verdicts
from benchmarks.results import Result

HERE: Final = Path(__file__).parent


def page(results: Sequence[Result], facts: dict[str, str]) -> str:
    """Return the page."""
    machine = "; ".join(f"{name} {fact}" for name, fact in facts.items() if name != "day")
    parts = {
        "machine": f"Measured on {facts['day']}: {machine}.",
        "bounds": report.bounds(verdicts(results), report.markdown),
        "suites": "\n\n".join(map(section, results)),
        "profile": (HERE / "profile.md").read_text().strip(),
    }
    text = (HERE / "performance.md").read_text()
    for name, part in parts.items():
        text = text.replace(f"{{{name}}}", part)
    return text


def section(result: Result) -> str:
    """Return what a suite measures, in its own words, and its tables."""
    words = importlib.import_module(f"benchmarks.suites.{result.suite}").__doc__ or ""
    title = f"## {result.suite.capitalize()}"
    return "\n\n".join([title, words.strip(), report.table(result, report.markdown)])
