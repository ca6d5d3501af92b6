"""The documentation: ``sphinx-build -W -n --keep-going docs docs/_build``."""

from __future__ import annotations

import sys
from pathlib import Path

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
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "notes")]

nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!gpool\.).*")]  # other projects are not linked to

html_theme = "furo"
html_title = "gpool"
