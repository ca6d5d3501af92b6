"""Every rule of OTP that gpool keeps, and every trap of gevent, has a test with its label.

R: reasons and signals, L: links, M: monitors, N: names, Q: receive, G: servers,
Y: sys, S: supervisors, D: dynamic supervisors, T: traps of gevent.  A label
stands at the beginning of a test's docstring: ``R7: ...``, ``R4, R5: ...``
or ``S3, sup_start_fail: ...``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
RULES = {"R": 15, "L": 6, "M": 6, "N": 8, "Q": 6, "G": 19, "Y": 4, "S": 21, "D": 4, "T": 27}
LABELS = [f"{letter}{number}" for letter, last in RULES.items() for number in range(1, last + 1)]


def labels(source: str) -> Iterator[str]:
    """Yield the labels at the beginning of the docstrings of the tests in a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            found = re.match(r"(?:[A-Z]\d+, )*[A-Z]\d+[:,] ", ast.get_docstring(node) or "")
            yield from re.findall(r"[A-Z]\d+", found[0] if found else "")


PROVEN = {label for path in TESTS.rglob("test_*.py") for label in labels(path.read_text())}


@pytest.mark.parametrize("label", LABELS)
def test_has_a_test(label):
    """Each label is found somewhere under tests."""
    assert label in PROVEN


def test_there_are_no_other_labels():
    """A label that is not in the list is a slip of the pen."""
    assert set(LABELS) >= PROVEN


def test_reads_docstrings_only():
    """Only the beginning of a test's docstring counts."""
    source = 'def test_a():\n    """R1, L2: yes, not M3."""\ndef helper():\n    """R4: no."""\n'
    assert list(labels(source)) == ["R1", "L2"]
