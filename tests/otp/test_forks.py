"""Forked children: what was the parent's stays untouched, and the child starts afresh."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import gc, os, sys, warnings
{patch}
import gevent, gpool
from gevent import monkey
from gpool.otp.pid import table
from gpool.testing import settle

log = []

class Server(gpool.GenServer):
    def handle_call(self, request, from_):
        return gpool.Reply(request)

    def handle_info(self, message):
        log.append(message)
        return gpool.IdleTimeout(0.01)

    def terminate(self, reason):
        log.append("terminate")

def cleaning():
    try:
        while True:
            gevent.sleep(0.01)
            gpool.self()
            log.append("tick")
    finally:
        log.append("finally")

def fork(child):
    if sys.version_info >= (3, 12):
        warnings.simplefilter("ignore", DeprecationWarning)
    pid = os.fork()
    if pid:
        # Not gevent's: that one may miss a child which is faster than its first watcher.
        _, status = monkey.get_original("os", "waitpid")(pid, 0)
        assert status == 0, status
        return
    code = 1
    try:
        child()
        code = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(code)
"""


@pytest.fixture(params=["unpatched", "patched"])
def run(request):
    """Run a script in an interpreter of its own, patched by gevent or not."""
    patch = "from gevent import monkey; monkey.patch_all()" if request.param == "patched" else ""

    def run_script(script):
        source = PRELUDE.format(patch=patch) + textwrap.dedent(script)
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=25
        )
        assert done.returncode == 0, done.stderr

    return run_script


class TestFork:
    def test_sets_the_parents_processes_aside(self, run):
        """T23: in the child the parent's processes are no more, and never ran to their end."""
        run("""
            server, other = Server.start(server_name="server"), gpool.spawn(cleaning)
            main = gpool.self()
            gevent.sleep(0.02)

            def child():
                log.clear()
                assert gpool.processes() == []
                assert gpool.whereis("server") is None
                assert not gpool.is_alive(server) and not gpool.is_alive(other)
                assert gpool.self() is not main
                gevent.sleep(0.1)
                del globals()["server"], globals()["other"]
                gc.collect()
                gevent.sleep(0)
                assert log == [], log

            fork(child)
            gevent.sleep(0.02)
            assert server.call(1) == 1, "the parent goes on"
        """)

    def test_lets_the_child_start_afresh(self, run):
        """T23: the child's first use makes processes of its own, with new pids."""
        run("""
            mine = gpool.spawn(gpool.receive)
            settle()

            def child():
                pid, ref = gpool.spawn_monitor(gpool.exit, "boom")
                assert pid.id > mine.id
                assert gpool.receive(timeout=5.0) == gpool.Down(ref, pid, "boom")
                server = Server.start(server_name="server")
                assert server.call(2) == 2
                gpool.stop(server)
                for gone in (mine,):
                    assert gpool.monitor(gone)
                    assert gpool.receive(timeout=0).reason == "noproc"
                    gpool.send(gone, 1)
                    gpool.exit(gone, "kill")

            fork(child)
            assert gpool.is_alive(mine)
        """)

    def test_parks_waits_that_began_before(self, run):
        """T23: a server of the parent whose idle timeout fires in the child does not run there."""
        run("""
            server = Server.start()
            gpool.send(server, "begin")
            gevent.sleep(0.005)
            assert log[0] == "begin"

            def child():
                log.clear()
                gevent.sleep(0.1)
                assert log == [], log

            fork(child)
            gevent.sleep(0.05)
            assert "timeout" in log
        """)

    def test_wakes_nobody_who_hibernates(self, run):
        """T23: no wake-up is for the child, whether it was queued before or comes later."""
        run("""
            class Bear(Server):
                def init(self):
                    return gpool.Hibernate()

            bears = [Bear.start() for _ in range(3)]
            settle()
            assert all(bear.pid.greenlet is None for bear in bears)
            gpool.send(bears[0], "queued")
            gpool.exit(bears[1], "boom")

            def child():
                gpool.send(bears[2], "late")
                bears[2].pid.wake()
                gevent.sleep(0.05)
                assert log == [], log
                assert not any(map(gpool.is_alive, bears))

            fork(child)
            settle()
            assert log == ["queued", "terminate"], log
            assert bears[2].call(1) == 1
        """)

    def test_from_a_process_makes_it_the_childs_own(self, run):
        """T23: a process that forks goes on in the child, under a new pid."""
        run("""
            pids, done = [], []

            def forker():
                before = gpool.self()
                def child():
                    assert gpool.self() is not before
                    pid, ref = gpool.spawn_monitor(lambda: None)
                    assert gpool.receive(timeout=5.0).reason == "normal"
                fork(child)
                assert gpool.self() is before
                done.append(True)

            pid, ref = gpool.spawn_monitor(forker)
            assert gpool.receive(timeout=20.0).reason == "normal"
            assert done == [True]
        """)
