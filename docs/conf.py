"""The documentation: ``sphinx-build -W -n --keep-going docs docs/_build``."""

from __future__ import annotations

import pydoc
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # last: an installed gpool comes first

import gpool

project = "gpool"
author = "the gpool contributors"
project_copyright = "the gpool contributors"
version = release = gpool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]

nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!gpool\.).*")]  # other projects are not linked to

html_theme = "furo"
html_title = "gpool"


def of_the_public_name(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Link a name of an inner module to the public one; leave one that is not public unlinked."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("gpool."):
        return None
    module, _, name = target.rpartition(".")
    if name in gpool.__all__ and module != "gpool":
        domain = env.get_domain("py")
        return domain.resolve_xref(
            env, node["refdoc"], app.builder, node["reftype"], f"gpool.{name}", node, text
        )
    return text if pydoc.locate(target) is not None else None


def setup(app: Any) -> None:
    """Have Sphinx ask us for what it does not find."""
    app.connect("missing-reference", of_the_public_name)
