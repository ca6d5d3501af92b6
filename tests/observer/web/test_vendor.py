"""What the page has from others: unmodified, and licensed."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import pytest

import gpool

VENDOR = Path(gpool.__file__).parent / "observer" / "web" / "static" / "vendor"
PACKAGES: dict[str, Any] = tomllib.loads((VENDOR / "VENDOR.toml").read_text())


@pytest.mark.parametrize("name", PACKAGES)
class TestPackage:
    def test_its_files_are_those_that_were_published(self, name: str) -> None:
        """Each file has the hash that VENDOR.toml gives: nobody has edited it."""
        found = {
            str(path.relative_to(VENDOR / name)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (VENDOR / name).rglob("*")
            if path.is_file()
        }
        assert found == PACKAGES[name]["sha256"]

    def test_has_a_licence(self, name: str) -> None:
        """Its licence is named, and its text is kept beside the code."""
        assert PACKAGES[name]["licence"]
        assert "opyright" in (VENDOR / name / "LICENSE").read_text()

    def test_says_where_it_is_from(self, name: str) -> None:
        """The source is the published package of that very version."""
        assert PACKAGES[name]["source"].endswith(f"-{PACKAGES[name]['version']}.tgz")


def test_nothing_stands_here_unlisted() -> None:
    """Every file and folder beside VENDOR.toml is a package that it lists."""
    assert {path.name for path in VENDOR.iterdir()} == {"VENDOR.toml", *PACKAGES}
