"""The core of the kit runs in a process that gevent has patched, and in one that it has not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gevent import monkey

ROOT = Path(__file__).parents[1]
CORE = (
    "process", "greenlets", "mailbox", "registry_names", "gen_server", "methods", "sys",
    "proc_lib", "gevent_traps",
)  # fmt: skip


def test_the_core_runs_the_other_way_too():
    """What this run has not done, patching all or nothing, a second run does for the core."""
    patched = monkey.is_module_patched("threading")
    how = [] if patched else ["gevent.monkey", "--module"]
    files = [f"tests/otp/test_{name}.py" for name in CORE]
    command = [sys.executable, "-m", *how, "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=25
    )
    assert done.returncode == 0, done.stdout + done.stderr
