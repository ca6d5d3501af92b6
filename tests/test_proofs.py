"""The documentation and the tests agree: what it names is there, and it names all the peers'."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
NAMED = re.compile(r"`(test_\w+(?:::\w+)+)`")  # module::class::test or module::test

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="not in a checkout")


def names_in(path: Path) -> list[str]:
    """Return the tests of a module, as ``docs/proofs.md`` names them."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    names = [f"{path.stem}::{name}" for name in functions_of(module)]
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            names += [f"{path.stem}::{node.name}::{name}" for name in functions_of(node)]
    return names


def functions_of(node: ast.ClassDef | ast.Module) -> list[str]:
    """Return the names of the test functions in the body of a class or a module."""
    names = [child.name for child in node.body if isinstance(child, ast.FunctionDef)]
    return [name for name in names if name.startswith("test_")]


def named(page: str = "proofs.md") -> set[str]:
    """Return the tests that a page names."""
    return set(NAMED.findall((DOCS / page).read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", ["proofs.md", "guarantees.md"])
def test_every_test_that_is_named_exists(page: str) -> None:
    """Whoever renames a test renames it there."""
    there = {name for path in TESTS.rglob("test_*.py") for name in names_in(path)}
    assert sorted(named(page) - there) == []


def test_every_test_of_the_peers_is_named() -> None:
    """Whoever adds one says there what it proves."""
    peers = {name for path in (TESTS / "pool/peers").glob("*.py") for name in names_in(path)}
    assert sorted(peers - named()) == []
