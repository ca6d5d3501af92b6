"""``python -m gpool``: the command line, see :mod:`gpool.cli`."""

from __future__ import annotations

import sys

from gpool.cli import main

if __name__ == "__main__":
    sys.exit(main())
