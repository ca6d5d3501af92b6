"""``gpool.__all__`` is the contract: complete, sorted, documented."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import gpool


def kind_then_name(name: str) -> tuple[int, str]:
    """Sort as ruff's RUF022 does: constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


class TestAll:
    def test_is_sorted_and_names_each_once(self):
        """Constants come first, then classes, then functions, each by name."""
        assert list(gpool.__all__) == sorted(set(gpool.__all__), key=kind_then_name)

    def test_holds_all_that_the_package_shows(self):
        """What ``gpool`` imports without an underscore, and is no module, is public."""
        shown = {
            name
            for name, value in vars(gpool).items()
            if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
        }
        assert shown <= set(gpool.__all__)


@pytest.mark.parametrize("name", gpool.__all__)
class TestEveryName:
    def test_resolves_and_is_not_private(self, name):
        """Every name is there, and none begins with an underscore."""
        assert hasattr(gpool, name)
        assert not name.startswith("_") or name == "__version__"

    def test_is_documented(self, name):
        """Every public class, function and module has a docstring of its own."""
        value = getattr(gpool, name)
        if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
            assert value.__doc__
            assert not inspect.isclass(value) or value.__doc__ != value.__mro__[1].__doc__

    def test_is_called_what_it_is(self, name):
        """A class or function is exported under its own name."""
        value = getattr(gpool, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__name__ == name


def test_a_star_import_brings_all_and_no_hub():
    """``from gpool import *`` works, and neither it nor the import makes a hub or a greenlet."""
    code = (
        "from gpool import *\n"
        "from gevent._hub_local import get_hub_if_exists\n"
        "assert get_hub_if_exists() is None, 'importing gpool made a hub'"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
