"""Scripts that run in an interpreter of their own, unpatched or patched.

>>> script("print(gpool.__name__)")
['gpool']
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

PATCH = "from gevent import monkey; monkey.patch_all()\n"
HEAD = """
import gc, os, signal, sys, threading
import gevent, gpool
from gpool.pool.application import application
application.listeners.clear()

class Echo(gpool.GenServer):
    @gpool.call
    def say(self, value):
        return value

class Thing:
    number = 0
    def __init__(self):
        Thing.number += 1
        self.pid, self.number, self.closed = os.getpid(), Thing.number, False
    def close(self):
        print("closed by", "parent" if os.getpid() == PARENT else "child", flush=True)
        self.closed = True

PARENT = os.getpid()
things = gpool.Resource(create=Thing, close=Thing.close)

def in_a_child(fn):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fn()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
"""


def script(text: str, *, patched: bool = False, may_complain: bool = False) -> list[str]:
    """Run a script, with what HEAD defines; return the lines that it prints."""
    done = subprocess.run(
        [
            sys.executable, "-W", "ignore::DeprecationWarning", "-c",
            (PATCH if patched else "") + HEAD + textwrap.dedent(text),
        ],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert may_complain or done.stderr == ""
    return done.stdout.splitlines()
