"""The examples in the docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import gpool

MODULES = ["gpool", *(m.name for m in pkgutil.walk_packages(gpool.__path__, "gpool."))]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_of(name):
    """Every ``>>>`` line answers what stands below it."""
    failures = doctest.testmod(importlib.import_module(name)).failed
    assert failures == 0
