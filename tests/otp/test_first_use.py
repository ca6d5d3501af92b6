"""The very first use of gpool, in a Python of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("first", ["gpool.self()", "gpool.trap_exit(True)", "Server.start()"])
def test_a_main_that_is_met_before_its_hub_has_one(first):
    """Whatever main does first, it can be sent to, linked and told of a death afterwards."""
    code = (
        "import gevent, gpool\n"
        "class Server(gpool.GenServer): pass\n"
        f"{first}\n"
        "me = gpool.self()\n"
        "gevent.spawn(gpool.send, me, 'hello')\n"
        "assert gpool.receive(timeout=5) == 'hello'\n"
        "names = gpool.Registry.start()\n"
        "names.register('main')\n"
        "assert names.whereis_name('main') is me\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
