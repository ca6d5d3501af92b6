"""The agent: its socket, its thread, and how it ends, whatever ends the process."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys

import gevent
import gevent.socket
import pytest

import gpool
import gpool.observer
from gpool import telemetry
from gpool.observer.client import Client, NodeGone, find
from gpool.observer.run_dir import RunDir
from tests.pool.workshop import Echo, no_switch, running, use
from tests.waiting import until

PATCHED = pytest.mark.parametrize("patched", [False, True], ids=["unpatched", "patched"])


def descriptors():
    """Return how many files and threads this process has."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


class TestStart:
    def test_lets_this_user_look_and_nobody_else(self, node, run_dir, agent):
        """The socket is 0600, in a directory that is 0700."""
        assert stat.S_ISSOCK(os.stat(node.path).st_mode)
        assert os.stat(node.path).st_mode & 0o777 == 0o600
        assert run_dir.stat().st_mode & 0o777 == 0o700
        assert os.listdir(run_dir) == [f"{os.getpid()}.sock"]
        assert agent.is_serving

    def test_twice_changes_nothing(self, observe, run_dir):
        """Whoever is second gets the first one's."""
        first = observe()
        second = observe(allow_actions=True)
        assert first.path == second.path
        assert second.get("/v1/node")["actions"] is False
        assert len(os.listdir(run_dir)) == 1

    @pytest.mark.parametrize("option", ["allow_actions", "show_state", "measure"])
    @pytest.mark.parametrize("value", [1, None, "yes"])
    def test_takes_true_or_false(self, run_dir, option, value):
        """What is neither is a mistake, and nothing was started."""
        with pytest.raises(TypeError, match=f"{option}: expected True or False"):
            gpool.observer.start(run_dir=run_dir, **{option: value})
        assert os.listdir(run_dir) == []

    def test_never_switches(self, run_dir):
        """A program may start it anywhere."""
        with no_switch():
            gpool.observer.start(run_dir=run_dir)
            gpool.observer.stop()

    def test_takes_the_place_of_one_that_was_killed(self, observe, run_dir):
        """Its number is ours now; what it left hidden is removed, too."""
        for name in (f"{os.getpid()}.sock", f".{os.getpid()}"):
            with socket.socket(socket.AF_UNIX) as stale:
                stale.bind(str(run_dir / name))
        node = observe()
        assert node.get("/v1/node")["node"] == str(os.getpid())
        assert os.listdir(run_dir) == [f"{os.getpid()}.sock"]

    def test_finds_another_name_if_somebody_has_its_number(self, observe, run_dir):
        """In another namespace of pids there may be one of the same number."""
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(run_dir / f"{os.getpid()}.sock"))
            other.listen()
            (run_dir / f"{os.getpid()}-2.sock").write_text("what is this?")
            node = observe()
            assert node.get("/v1/node")["node"] == f"{os.getpid()}-3"
        assert len(os.listdir(run_dir)) == 3

    def test_is_no_use_where_nothing_can_be_bound(self, run_dir):
        """It is an error there, not in the thread."""
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(run_dir / f"{os.getpid()}.sock"))
            other.listen()
            for n in range(2, 100):
                (run_dir / f"{os.getpid()}-{n}.sock").touch()
            with pytest.raises(OSError, match="are taken"):
                gpool.observer.start(run_dir=run_dir)

    def test_hides_its_thread_from_those_who_count(self, agent, node):
        """It is none of Python's threads, nor a process of gpool's."""
        import threading

        node.get("/v1/node")
        assert threading.active_count() == len(threading.enumerate())
        assert all("observer" not in pid.initial_call.lower() for pid in gpool.processes())


class TestCost:
    def test_is_nothing_at_a_checkout_while_nobody_looks(self, node):
        """No meter is told of it, and telemetry has but one listener more."""
        pool = running(Echo, size=1, name="db")
        node.get("/v1/node")
        assert telemetry.meters == ()
        use(pool)
        gpool.observer.stop()
        assert gpool.observer._agent is None


class TestStop:
    def test_removes_the_socket(self, observe, run_dir):
        """At once; twice is fine."""
        node = observe()
        gpool.observer.stop()
        assert os.listdir(run_dir) == []
        gpool.observer.stop()
        with pytest.raises(NodeGone):
            node.get("/v1/node")

    def test_lets_another_one_start(self, observe):
        """With other options."""
        observe()
        gpool.observer.stop()
        assert observe(allow_actions=True).get("/v1/node")["actions"] is True

    def test_leaves_no_listener(self, node, agent):
        """Telemetry tells it nothing more."""
        assert agent.api.events in telemetry._listeners
        gpool.observer.stop()
        assert agent.api.events not in telemetry._listeners

    def test_ends_those_who_are_being_answered(self, observe, agent):
        """Shortly: one that hangs does not keep the thread."""
        sock = gevent.socket.socket(socket.AF_UNIX)
        sock.connect(str(agent.path))
        sock.sendall(b"GET /v1/no")
        gpool.observer.stop()
        agent._leave()
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
        sock.close()

    def test_leaves_neither_files_nor_threads(self, observe):
        """However often it is started."""
        before = descriptors()
        for _ in range(50):
            node = observe()
            node.get("/v1/node")
            agent = gpool.observer._agent
            gpool.observer.stop()
            agent._leave()
        until(lambda: descriptors()[1] == before[1])  # the last one's is just ending
        assert descriptors() == before

    def test_prints_nothing_while_somebody_asks(self, observe, capfd):
        """Neither who asks nor the hub that owes an answer notices more than its end."""
        for _ in range(20):
            node = observe()
            clients = [gevent.spawn(ask, node) for _ in range(5)]
            gevent.sleep(0)
            gpool.observer.stop()
            gevent.joinall(clients)
        assert capfd.readouterr().err == ""

    def test_before_it_has_begun_is_as_good(self, run_dir):
        """The thread learns of it when it gets there."""
        for _ in range(20):
            gpool.observer.start(run_dir=run_dir)
            gpool.observer.stop()
        assert os.listdir(run_dir) == []


def ask(node):
    """Ask until nobody is there."""
    with contextlib.suppress(gpool.GPoolError):
        while True:
            node.get("/v1/processes")


class TestSampler:
    def test_survives_what_it_cannot_read(self, node, agent, monkeypatch, caplog):
        """It is told in the log, and the next sample is taken."""
        tried = []

        def fail():
            tried.append(1)
            agent.api.history._soon.set()
            raise ZeroDivisionError

        with caplog.at_level(logging.ERROR, "gpool.observer"):
            monkeypatch.setattr(agent.api.history, "sample", fail)
            agent.api.history.wait = lambda: gevent.sleep(0.001)
            node.get("/v1/pools")
            until(lambda: len(tried) > 1)
        assert "the Observer's agent has missed a sample" in caplog.text
        assert node.get("/v1/node")


class TestPeers:
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    def test_of_other_users_are_not_answered(self, node, run_dir):
        """Even if the directory lets them in: the kernel tells who they are."""
        run_dir.chmod(0o755)
        os.chmod(node.path, 0o666)
        text = f"""
            import os, socket
            os.setgid(65534); os.setuid(65534)
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(5)
            sock.connect({node.path!r})
            try:
                sock.sendall(b"GET /v1/node HTTP/1.0\\r\\n\\r\\n")
                print(sock.recv(100))
            except (BrokenPipeError, ConnectionResetError):
                print(b"")
        """
        command = [
            sys.executable,
            "-c",
            "import textwrap; exec(textwrap.dedent(" + repr(text) + "))",
        ]
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (other.stdout, other.stderr) == ("b''\n", "")
        assert node.get("/v1/node")


class TestForks:
    @PATCHED
    def test_child_has_no_agent_but_may_start_one(self, script, patched):
        """It closes the listener; the parent's goes on, and is not removed by the child's end."""
        script(
            """
            agent, node = start(allow_actions=True)
            node.get("/v1/node")

            def child():
                assert gpool.observer._agent is None
                assert not agent.is_serving
                mine = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
                links = [os.readlink(path) for path in mine if os.path.lexists(path)]
                listening = [line.split()[6] for line in open("/proc/net/unix")
                             if line.split()[3] == "00010000"]  # it takes connections
                assert not [one for one in listening if f"socket:[{one}]" in links], links
                agent.stop()
                assert os.path.exists(agent.path)
                gc.collect()
                mine, client = start()
                assert client.get("/v1/node")["os_pid"] == os.getpid()
                assert client.get("/v1/node")["actions"] is False
                gc.collect()
                with open("/dev/null") as kept:  # whose number may be that of the listener
                    gc.collect()
                    os.fstat(kept.fileno())
                assert len(os.listdir(RUN)) == 2
                gpool.observer.stop()

            for _ in range(3):
                in_a_child(child)
            assert os.listdir(RUN) == [f"{os.getpid()}.sock"]
            assert node.get("/v1/node")["os_pid"] == os.getpid()
            assert agent.is_serving
            """,
            patched=patched,
        )

    def test_child_that_ends_by_itself_leaves_the_parents_socket(self, script):
        """Its atexit functions are the parent's, too."""
        script(
            """
            agent, node = start()

            def child():
                import atexit
                atexit._run_exitfuncs()

            in_a_child(child)
            pid = os.fork()
            if pid == 0:
                sys.exit(0)
            from gevent import monkey
            monkey.get_original("os", "waitpid")(pid, 0)
            assert node.get("/v1/node")["os_pid"] == os.getpid()
            """
        )

    def test_programs_that_are_run_get_none_of_it(self, script):
        """A listener that they held would go on taking connections."""
        script("""
            import subprocess
            agent, node = start()
            count = subprocess.run(
                [sys.executable, "-c", "import os; print(len(os.listdir('/proc/self/fd')))"],
                capture_output=True, text=True).stdout
            assert int(count) == 4, count
            other = subprocess.Popen(["sleep", "60"])
            gpool.observer.stop()
            try:
                node.get("/v1/node")
            except NodeGone:
                pass
            other.kill()
            other.wait()
        """)

    def test_worker_processes_have_agents_of_their_own(self, script):
        """All are found in the one directory; one that is killed is found to be gone."""
        script("""
            agent, node = start()
            pids = []
            ready, tell = os.pipe()
            for _ in range(2):
                pid = os.fork()
                if pid == 0:
                    gevent.reinit()  # as every child has to, unless os.fork is patched
                    start()
                    os.write(tell, b"x")
                    gevent.sleep(60)
                    os._exit(0)
                pids.append(pid)
            for _ in pids:
                gevent.os.tp_read(ready, 1)
            found = find(RunDir(RUN), kind=socket)
            assert sorted(one["os_pid"] for one in found.values()) == sorted([os.getpid(), *pids])
            os.kill(pids[0], signal.SIGKILL)
            from gevent import monkey
            monkey.get_original("os", "waitpid")(pids[0], 0)
            assert os.path.exists(RunDir(RUN).socket(str(pids[0])))
            found = find(RunDir(RUN), kind=socket)
            assert sorted(found) == sorted([str(os.getpid()), str(pids[1])])
            assert not os.path.exists(RunDir(RUN).socket(str(pids[0])))
            os.kill(pids[1], signal.SIGKILL)
            monkey.get_original("os", "waitpid")(pids[1], 0)
        """)


ENDS = {
    "the end of the script": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "an error": ("1 / 0", 1, "ZeroDivisionError"),
    "a deadlock": ("gevent.get_hub().switch()", 1, "LoopExit"),
    "stop, and the end": ("gpool.observer.stop()", 0, ""),
    "os._exit": ("os._exit(4)", 4, ""),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); gevent.sleep(9)", -signal.SIGTERM, ""),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL); gevent.sleep(9)", -signal.SIGKILL, ""),
    "SIGINT": ("os.kill(os.getpid(), signal.SIGINT); gevent.sleep(9)", -signal.SIGINT, "Keyboard"),
    "a destroyed hub": ("gevent.get_hub().destroy(destroy_loop=True)", 0, ""),
    "a pool that runs": ("gpool.start_pool(gpool.Resource(create=list), name='db')", 0, ""),
}


class TestEnd:
    @pytest.mark.parametrize("how", ENDS)
    def test_of_the_process_is_not_hindered(self, script, run_dir, how):
        """It comes as ever, prints nothing of the agent, and the socket is gone or found stale."""
        text, status, words = ENDS[how]
        done = script(
            f"""
            agent, node = start()
            gpool.self()
            client = gevent.spawn(lambda: [node.get("/v1/tree") for _ in range(3)])
            client.join()
            {text}
            """,
            status=status, silent=not words,
        )  # fmt: skip
        assert words in done.stderr
        assert "observer" not in re.sub(r'File "<string>".*', "", done.stderr)
        assert find(RunDir(run_dir)) == {}
        assert os.listdir(run_dir) == []

    @pytest.mark.parametrize("how", ["", "1 / 0", "gevent.get_hub().switch()"])
    def test_while_somebody_looks_crashes_nobody(self, script, how):
        """What the thread reads is not torn down under it."""
        script(
            f"""
            import subprocess
            agent, node = start()
            gpool.self()
            looker = subprocess.Popen([sys.executable, "-c", '''if True:
                import sys
                from gpool.observer.client import Client
                try:
                    while True:
                        Client(sys.argv[1]).get("/v1/tree")
                        print("x", flush=True)
                except Exception:
                    pass
                ''', str(agent.path)], stdout=subprocess.PIPE)
            gevent.os.tp_read(looker.stdout.fileno(), 10)
            {how}
            """,
            status=int(bool(how)), silent=not how,
        )  # fmt: skip

    @pytest.mark.parametrize("loop", ["libev-cext", "libuv-cffi"])
    @PATCHED
    def test_comes_on_every_loop(self, script, loop, patched):
        """Which also can be blocked, and asked."""
        pytest.importorskip("cffi")
        script(
            """
            agent, node = start()
            from gevent import monkey
            sleep = monkey.get_original("time", "sleep")
            lock = monkey.get_original("_thread", "allocate_lock")()
            lock.acquire()
            answers = []

            def look():
                try:
                    plain = Client(agent.path, kind=monkey.get_original("socket", "socket"))
                    answers.append(plain.get("/v1/node")["hub"])
                finally:
                    lock.release()

            assert node.get("/v1/node")["hub"] == {"blocked": False}
            monkey.get_original("_thread", "start_new_thread")(look, ())
            lock.acquire()
            assert answers[0]["blocked"] and answers[0]["seconds"] > 0.1, answers
            assert "in <module>" in answers[0]["stack"][-1], answers
            assert node.get("/v1/node")["hub"] == {"blocked": False}
            """,
            patched=patched, GEVENT_LOOP=loop,
        )  # fmt: skip


class TestThreads:
    def test_observes_the_hub_of_who_started_it(self, script):
        """Processes of other threads are seen as well, and acted upon where they live."""
        script(
            """
            pids, go = [], threading.Event()

            def other():
                pids.append(gpool.spawn(gpool.receive))
                gate = gevent.event.Event()
                stops.append((gevent.get_hub().loop, gate))
                go.set()
                gate.wait(20)

            stops = []
            thread = threading.Thread(target=other)
            thread.start()
            go.wait()
            agent, node = start(allow_actions=True)
            [pid] = pids
            assert node.get(f"/v1/processes/{pid.id}")["process"]["status"] == "waiting"
            answer = node.post(
                "/v1/actions", {"action": "kill", "process": pid.id, "confirm": repr(pid)})
            assert answer["action"]["state"] == "done", answer
            while node.get(f"/v1/processes/{pid.id}")["process"]["status"] != "dead":
                pass
            loop, gate = stops[0]
            loop.run_callback_threadsafe(gate.set)
            thread.join()
            """,
            silent=False,
        )  # an action is logged


class TestFind:
    def test_never_takes_a_socket_away_that_is_just_being_made(self, run_dir, monkeypatch):
        """It is in sight only once somebody listens there."""
        seen, kind = [], gevent.monkey.get_original("socket", "socket")
        real = kind.listen

        def listen(sock, *args):
            seen.append(RunDir(run_dir).nodes())
            return real(sock, *args)

        monkeypatch.setattr(kind, "listen", listen, raising=False)
        agent = gpool.observer.start(run_dir=run_dir)
        try:
            assert seen == [[]]
            assert Client(agent.path, kind=gevent.socket.socket).get("/v1/node")
        finally:
            gpool.observer.stop()
            agent._leave()
