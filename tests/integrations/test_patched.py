"""The tests that want a patched program: each file of patched/, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gevent import monkey

HERE = Path(__file__).parent
FILES = sorted((HERE / "patched").glob("test_*.py"))
LIMIT = 240  # s


@pytest.mark.timeout(LIMIT + 20)
@pytest.mark.skipif(monkey.is_module_patched("socket"), reason="they are collected themselves")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem.removeprefix("test_"))
def test_in_a_patched_program(path: Path) -> None:
    """All its tests pass, where nothing was imported before gevent patched."""
    command = [sys.executable, "-m", "gevent.monkey", "--module", "pytest", str(path)]
    process = subprocess.run(
        [*command, "-q", "-p", "no:cacheprovider"],
        cwd=HERE.parents[1], env=os.environ | {"PYTHONSAFEPATH": "1"},
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    print(process.stdout)
    assert process.returncode == 0, process.stdout + process.stderr
