"""The map of the package, enforced: imports point down, third parties stay outside the core."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpool

ROOT = Path(gpool.__file__).parent

# Lowest first.  Modules on one line may not import one another.
LAYERS = (
    ("errors", "clock", "telemetry"),
    ("waiter",),
    ("otp.child_spec",),
    ("otp.mailbox",),
    ("otp.pid",),
    ("otp.signal",),
    ("otp.greenlets",),
    ("otp.process",),
    ("otp.process_info", "otp.proc_lib"),
    ("otp.registry",),
    ("otp.gen",),
    ("otp.methods",),
    ("otp.gen_server",),
    ("otp.sys",),
    ("otp.key_registry",),
    ("otp.child",),
    ("otp.supervisor",),
    ("otp.dynamic_supervisor", "otp.supervision"),
    ("pool.options",),
    ("pool.slot", "pool.transition"),
    ("pool.idle", "pool.line"),
    ("pool.pool_state", "pool.watch"),
    ("pool.lease", "pool.resource"),
    ("pool.deadlines", "pool.scope"),
    ("pool.admission", "pool.debug", "pool.manager", "pool.queue", "pool.teller", "pool.worker"),
    ("pool.staff",),
    ("pool.ledger",),
    ("pool.dispatch", "pool.housekeeper", "pool.stats", "pool.worker_sup"),
    ("pool.pool_man",),
    ("pool.pool_sup",),
    ("pool.pools_sup",),
    ("pool.application",),
    ("pool.pool",),
    ("pool.pools",),
    ("serving.backlog",),
    ("serving.handlers",),
    ("serving.server_child",),
    ("serving.run",),
    ("metric_catalogue", "testing"),
    ("metrics",),
    ("relay",),
    ("integrations._logging_words",),
    ("integrations.stdlib_logging",),  # attached by gpool/__init__.py
    ("",),  # gpool/__init__.py: what it re-exports is public
    ("observer", "integrations", "cli", "__main__"),  # public names only
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
OUTSIDE = ("observer", "integrations", "cli", "__main__")
PUBLIC = {"", "clock", "telemetry", "testing", *OUTSIDE}  # what those outside may import of gpool
CORE_MAY_IMPORT = {"gpool", "gevent", "greenlet"} | sys.stdlib_module_names


def module_of(path: Path, root: Path = ROOT) -> str:
    """Return the name that LAYERS has for a file; ``otp`` for ``otp/__init__.py``."""
    parts = path.relative_to(root).with_suffix("").parts
    return _room(".".join(part for part in parts if part != "__init__"))


def _room(module: str) -> str:
    """Return the name that LAYERS has for a module: its own, or its outer room's."""
    first = module.partition(".")[0]
    return first if first in OUTSIDE and module not in RANK else module


def imports(tree: ast.AST, root: Path = ROOT) -> Iterator[str]:
    """Yield the full name of every module that is imported anywhere, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                name = f"{module}.{alias.name}"
                path = root.parent / name.replace(".", "/")
                inner = path.with_suffix(".py").exists() or path.is_dir()
                yield name if inner else module


def target_of(name: str) -> str:
    """Return the name that LAYERS has for an imported module of gpool."""
    inner = name.removeprefix("gpool").removeprefix(".")
    return _room(inner)


def faults(path: Path, root: Path = ROOT) -> list[str]:
    """Return what is wrong with the imports of one file, in words."""
    module = module_of(path, root)
    where = module or "gpool"
    found = []
    for name in imports(ast.parse(path.read_text()), root):
        top = name.partition(".")[0]
        target = target_of(name)
        if top != "gpool":
            if module not in OUTSIDE and top not in CORE_MAY_IMPORT:
                found.append(f"{where} may not import {name}: the core needs gevent only")
        elif module in ("otp", "pool", "serving"):
            found.append(f"{module}/__init__.py may not import {name}: it holds a docstring only")
        elif module in OUTSIDE and target not in PUBLIC:
            found.append(f"{where} may not import {name}: public names only")
        elif target not in RANK:
            found.append(f"{where} imports {name}, which has no rank in LAYERS")
        elif RANK[target] >= RANK[module] and module not in OUTSIDE:
            found.append(f"{where} may not import {name}")
    return found


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEveryFile:
    def test_has_a_rank(self, path):
        """A new module gets its place in LAYERS before it gets any code."""
        assert module_of(path) in RANK | dict.fromkeys(("otp", "pool", "serving"))

    def test_imports_point_down(self, path):
        """A module imports only what stands above it in LAYERS, and of third parties gevent."""
        assert faults(path) == []


PLUGIN = ROOT.parent / "pytest_gpool.py"


class TestThePlugin:
    def test_imports_pytest_alone(self):
        """It is imported in every project: at its top there is neither gpool nor gevent."""
        body = ast.parse(PLUGIN.read_text()).body
        top = [part for part in body if isinstance(part, ast.Import | ast.ImportFrom)]
        names = {name.partition(".")[0] for part in top for name in imports(part)}
        assert names <= {"pytest"} | sys.stdlib_module_names

    def test_imports_public_names_when_a_fixture_is_used(self):
        """What a fixture needs is imported by it, and public."""
        names = [name for name in imports(ast.parse(PLUGIN.read_text())) if "gpool" in name]
        assert {target_of(name) for name in names} == {"integrations", "testing"}


class TestTheCheck:
    @pytest.fixture
    def root(self, tmp_path):
        """Give a package of two files that are in LAYERS."""
        root = tmp_path / "gpool"
        (root / "otp").mkdir(parents=True)
        (root / "errors.py").touch()
        (root / "cli.py").touch()
        (root / "otp" / "pid.py").touch()
        return root

    @pytest.mark.parametrize(
        ("file", "line", "fault"),
        [
            ("errors.py", "from gpool.otp.pid import Pid", "errors may not import gpool.otp.pid"),
            ("errors.py", "from gpool.otp import pid", "errors may not import gpool.otp.pid"),
            ("errors.py", "import gpool.otp.pid", "errors may not import gpool.otp.pid"),
            ("errors.py", "def f():\n    import gpool", "errors may not import gpool"),
            ("errors.py", "import gpool.errors", "errors may not import gpool.errors"),
            ("errors.py", "import gpool.utils", "gpool.utils, which has no rank"),
            ("errors.py", "from . import clock", "may not import"),
            ("errors.py", "import redis", "the core needs gevent only"),
            ("cli.py", "from gpool.otp.pid import Pid", "public names only"),
            ("otp/__init__.py", "from gpool import errors", "it holds a docstring only"),
        ],
    )
    def test_finds(self, root, file, line, fault):
        """Each way to import what one may not is found."""
        (root / file).write_text(line)
        assert [found for found in faults(root / file, root) if fault in found]

    def test_lets_the_right_ones_pass(self, root):
        """Imports downwards, of the standard library and of gevent are no faults."""
        file = root / "otp" / "pid.py"
        file.write_text("import os, gevent.event\nfrom gpool.errors import NoProcess")
        assert faults(file, root) == []
