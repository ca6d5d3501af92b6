"""What is built and installed: the wheel, alone with gevent, and the source archive."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gpool

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the wheel and the source archive, without asking any index."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder],
        cwd=CHECKOUT, check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    """Give the wheel."""
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Give the interpreter of a new environment that holds gevent, what it needs, and the wheel.

    gevent is the one that runs this test, linked in: nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    for distribution in needs_of("gevent"):
        for part in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / part).exists():
                (site / part).symlink_to(distribution.locate_file(part))
    with zipfile.ZipFile(wheel) as archive:  # installing pure Python is unpacking it
        archive.extractall(site)
    return folder / "bin" / "python"


def needs_of(name: str) -> Iterator[importlib.metadata.Distribution]:
    """Yield an installed distribution and those that it needs here, without extras."""
    distribution = importlib.metadata.distribution(name)
    yield distribution
    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from needs_of(requirement.name)


def run(python: Path, code: str) -> str:
    """Run code there, warnings being errors, with nothing of this checkout in reach."""
    command = [python, "-I", "-W", "error", "-c", code]
    # gevent's default loop: libuv would need cffi, which is not part of gevent alone.
    env = {key: value for key, value in os.environ.items() if key != "GEVENT_LOOP"}
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


class TestBareEnvironment:
    def test_holds_gevent_alone(self, python):
        """gevent, what gevent needs, and gpool: nothing else is installed there."""
        code = (
            "from importlib.metadata import distributions\n"
            "print(*(d.metadata['Name'] for d in distributions()))"
        )
        installed = {canonicalize_name(name) for name in run(python, code).split()}
        gevents = {canonicalize_name(d.metadata["Name"]) for d in needs_of("gevent")}
        assert installed == {"gpool"} | gevents

    def test_imports_every_public_name(self, python):
        """The core needs none of the extras."""
        names = run(python, "import gpool; print(*[n for n in gpool.__all__ if getattr(gpool, n)])")
        assert names.split() == list(gpool.__all__)

    def test_can_be_observed(self, python):
        """The agent, the command and the page's server need none of the extras either."""
        code = (
            "import os, tempfile, gpool.observer, gpool.cli, gpool.observer.web.server\n"
            "with tempfile.TemporaryDirectory() as folder:\n"
            "    agent = gpool.observer.start(run_dir=folder)\n"
            "    gpool.cli.main(['nodes', '--run-dir', folder])\n"
        )
        assert "PYTHON" in run(python, code)

    def test_runs_a_process(self, python):
        """A process runs, dies, and its death is told."""
        code = (
            "import gpool\n"
            "pid, ref = gpool.spawn_monitor(gpool.exit, 'done')\n"
            "print(gpool.receive(timeout=10.0) == gpool.Down(ref, pid, 'done'))"
        )
        assert run(python, code) == "True\n"


class TestWheel:
    def test_holds_the_package_and_its_types_only(self, wheel):
        """``py.typed`` is in it, tests and examples are not."""
        names = zipfile.ZipFile(wheel).namelist()
        assert "gpool/py.typed" in names
        assert {name.partition("/")[0] for name in names} == {
            "gpool",
            "pytest_gpool.py",
            f"gpool-{gpool.__version__}.dist-info",
        }

    def test_tells_pytest_of_its_plugin(self, wheel):
        """By an entry point, which names the module beside the package."""
        with zipfile.ZipFile(wheel) as archive:
            lines = archive.read(f"gpool-{gpool.__version__}.dist-info/entry_points.txt").decode()
        assert "[pytest11]\ngpool = pytest_gpool\n" in lines

    def test_holds_the_page(self, wheel):
        """With what it needs, the licences of that included."""
        page = "gpool/observer/web/static/"
        names = {name.removeprefix(page) for name in zipfile.ZipFile(wheel).namelist()}
        assert {"index.html", "app.js", "app.css", "vendor/VENDOR.toml"} <= names
        for library in ("lit-html", "d3-hierarchy", "uplot"):
            assert f"vendor/{library}/LICENSE" in names

    def test_needs_gevent_alone_and_caps_nothing(self, wheel):
        """One requirement outside the extras, with a lower bound and no other."""
        with zipfile.ZipFile(wheel) as archive:
            metadata = archive.read(f"gpool-{gpool.__version__}.dist-info/METADATA").decode()
        lines = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
        needs = [Requirement(line.partition(": ")[2]) for line in lines if "extra ==" not in line]
        assert [need.name for need in needs] == ["gevent"]
        assert [part.operator for part in needs[0].specifier] == [">="]


class TestSourceArchive:
    @pytest.mark.parametrize(
        "path", ["tests/conftest.py", "examples", "tox.ini", "LICENSE", "pytest_gpool.py"]
    )
    def test_holds(self, built, path):
        """Whoever has the archive can run the tests and the examples."""
        with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
            names = archive.getnames()
        assert any(f"{name}/".startswith(f"gpool-{gpool.__version__}/{path}/") for name in names)
