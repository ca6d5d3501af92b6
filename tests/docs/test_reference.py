"""The reference: every public name is in it."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import gpool
import gpool.integrations
from gpool.telemetry import Event

PAGES = "".join(page.read_text() for page in (Path(__file__).parents[2] / "docs").rglob("*.md"))


def is_documented(name: str) -> bool:
    """Tell whether a public name is in the reference, by itself or with its whole module."""
    home = getattr(getattr(gpool, name), "__module__", None)
    return any(f":: {place}\n" in PAGES for place in (f"gpool.{name}", home))


class TestReference:
    def test_has_every_public_name(self) -> None:
        """What ``gpool`` exports is documented."""
        assert [name for name in gpool.__all__ if not is_documented(name)] == []

    def test_has_every_event(self) -> None:
        """They are members of a module that is documented whole."""
        assert {event.__module__ for event in Event.__subclasses__()} == {"gpool.telemetry"}
        assert ".. automodule:: gpool.telemetry\n" in PAGES

    def test_has_every_integration(self) -> None:
        """Each public module of ``gpool.integrations`` has its place in a page."""
        names = [module.name for module in pkgutil.iter_modules(gpool.integrations.__path__)]
        public = [name for name in names if not name.startswith("_")]
        assert "psycopg" in public
        missing = [n for n in public if f":: gpool.integrations.{n}\n" not in PAGES]
        assert missing == []
