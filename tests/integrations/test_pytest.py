"""The pytest plugin, in processes of their own that pytest starts there."""

from __future__ import annotations

import textwrap
import tomllib
from pathlib import Path

import gevent
import pytest

import gpool
from gpool.integrations.pytest import Pools

pytest_plugins = "pytester"

CHECKOUT = Path(__file__).parents[2]
HEAD = """
import os
import socket

import gevent
import pytest

import gpool
from gpool.testing import settle

kept = []
"""


@pytest.fixture
def in_reach(pytester, monkeypatch):
    """Have processes that pytester starts import the gpool that is under test."""
    monkeypatch.setenv("PYTHONPATH", str(Path(gpool.__file__).parents[1]))


@pytest.fixture
def run(pytester, in_reach, monkeypatch):
    """Give a function that runs pytest on a text, warnings being errors, with our plugin alone."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(text, *options):
        pytester.makepyfile(HEAD + textwrap.dedent(text))
        return pytester.runpytest_subprocess("-p", "pytest_gpool", "-W", "error", *options)

    return run


@pytest.fixture
def installed(pytester, in_reach):
    """Have pytest find the plugin by the entry point of pyproject.toml, installed or not."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    [(name, module)] = project["entry-points"]["pytest11"].items()
    folder = pytester.mkdir("gpool-0.dist-info")
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: gpool\nVersion: 0\n")
    (folder / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")


class TestEntryPoint:
    def test_is_inert(self, pytester, installed):
        """A project that does not use the fixtures has neither gpool nor gevent imported."""
        pytester.makepyfile(
            """
            import sys


            def test_has_the_plugin_alone(request):
                assert request.config.pluginmanager.has_plugin("gpool")
                assert "pytest_gpool" in sys.modules
                assert {"gpool", "gevent"}.isdisjoint(sys.modules)
            """
        )
        result = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
        result.assert_outcomes(passed=1)

    def test_can_be_switched_off(self, pytester, installed):
        """``-p no:gpool``: its fixtures are not there."""
        pytester.makepyfile("def test_it(gpool_pool): pass")
        result = pytester.runpytest_subprocess("-p", "no:gpool")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*fixture 'gpool_pool' not found"])


class TestFixtures:
    def test_do_as_they_say(self, run):
        """Pools start, are ready and end with the test; the clock goes by hand."""
        result = run(
            """
            def lists():
                return gpool.Resource(create=list)

            class Counter(gpool.GenServer):
                def __init__(self, first, step=1):
                    super().__init__()
                    self.number, self.step = first, step

                @gpool.call
                def next(self):
                    self.number += self.step
                    return self.number

            def test_pool(gpool_pool):
                pool = gpool_pool(lists(), ready=True, size=2, name="lists")
                assert pool.status().idle == 2
                assert gpool_pool(Counter, (1,), {"step": 2}, size=1).call(Counter.next) == 3
                kept.append(pool.checkout())

            def test_pool_has_ended():
                assert gpool.running_pools() == []
                with pytest.raises(gpool.LeaseLost):
                    kept.pop().worker

            def test_clock(gpool_clock, gpool_pool, gpool_no_leaks):
                def wait():
                    with pytest.raises(gpool.CheckoutTimeout):
                        pool.checkout(timeout=3600.0)
                    return "in vain"

                pool = gpool_pool(lists(), size=1, ready=True)
                with pool.checkout():
                    waiting = gevent.spawn(wait)
                    gpool_clock.advance(3599.9)
                    assert not waiting.ready()
                    gpool_clock.advance(0.1)
                    assert waiting.value == "in vain"

            def test_clock_is_real_again():
                from time import monotonic
                from gpool import clock
                assert clock.now is monotonic

            def test_bad_options_start_nothing(gpool_pool, gpool_no_leaks):
                with pytest.raises(TypeError, match="create"):
                    gpool_pool(gpool.Resource(create=1))
                with pytest.raises(TypeError, match="sizes"):
                    gpool_pool(lists(), sizes=1)
            """
        )
        result.assert_outcomes(passed=5)


class TestNoLeaks:
    def test_tells_each_kind(self, run):
        """Who has what, and from which line; what is left is ended for the next test's sake."""
        result = run(
            """
            pytestmark = pytest.mark.usefixtures("gpool_no_leaks")
            db = gpool.Pool(gpool.Resource(create=list), size=1, name="db")

            @pytest.fixture(scope="module", autouse=True)
            def running():
                with db:
                    db.wait_ready()
                    yield

            def ticker():
                gpool.receive()

            def test_processes():
                def park():
                    gpool.self()
                    gevent.sleep(3600.0)

                gpool.spawn(ticker)
                gevent.spawn(park)

            def test_slot():
                kept.append(db.checkout())

            def test_holder():
                def hold():
                    with db.checkout(timeout=0):
                        gevent.sleep(3600.0)
                gpool.spawn(hold)

            def test_pool():
                gpool.start_pool(gpool.Resource(create=list), size=1, name="mine").wait_ready()

            def test_slot_of_a_pool_that_ends(gpool_pool):
                kept.append(gpool_pool(gpool.Resource(create=list), name="brief").checkout())

            def test_descriptors(tmp_path):
                import gevent.socket

                kept.append(socket.create_server(("127.0.0.1", 0)))
                kept.append(gevent.socket.socket())
                kept.append(open(tmp_path / "notes", "w"))
                os.pipe()
            """
        )
        result.assert_outcomes(passed=6, errors=6)
        result.stdout.fnmatch_lines(
            [
                "*teardown of test_processes _*",
                "left behind: process #PID<*> (ticker), spawned by * (main), at: ticker (*.py:*)",
                "left behind: process #PID<*> (test_processes.park), at: *.park (*.py:*)",
                "*teardown of test_slot _*",
                "left behind: a slot of pool 'db', borrowed by * (main) at *.py:* in test_slot",
                "*teardown of test_holder _*",
                "left behind: a slot of pool 'db', borrowed by * (test_holder.hold) at *.hold",
                "left behind: process #PID<*> (test_holder.hold), *",
                "*teardown of test_pool _*",
                "left behind: pool 'mine', which runs: Status(*idle=1*)",
                "*teardown of test_slot_of_a_pool_that_ends _*",
                "left behind: a slot of pool 'brief', borrowed by * in test_slot_of_*",
                "*teardown of test_descriptors _*",
                "left behind: socket, descriptor *: 127.0.0.1:*: of <socket.socket *",
                "left behind: socket, descriptor *: of <gevent.*socket *",
                "left behind: file, descriptor *notes*: of <_io.*",
                "left behind: pipe, descriptor *",
                "left behind: pipe, descriptor *",
            ]
        )
        assert "crashed" not in result.stdout.str()

    def test_counts_nothing_else(self, run):
        """What was there before, what it spawns, what is about to end, and the loop's own."""
        result = run(
            """
            db = gpool.Pool(gpool.Resource(create=lambda: socket.socket()), size=1, name="db")

            class Ticker(gpool.GenServer):
                pass

            @pytest.fixture(scope="module")
            def supervisor():
                return gpool.DynamicSupervisor.start()

            @pytest.fixture
            def lent_by_a_fixture(lists):
                with lists.checkout() as thing:
                    yield thing

            @pytest.fixture
            def lists(gpool_pool):
                return gpool_pool(gpool.Resource(create=list), size=1)

            def test_a_pool_that_is_only_first_used():
                with db.checkout():
                    pass

            def test_a_child_of_one_that_lasts(supervisor):
                supervisor.start_child(gpool.ChildSpec("ticker", Ticker.start_link))

            def test_a_fixture_that_lends(lent_by_a_fixture):
                pass

            def test_what_is_about_to_end():
                gpool.spawn(gevent.sleep, 0.05)

            class Owner:
                def __init__(self):
                    self.itself, self.pipe = self, os.pipe()

                def __del__(self):
                    for fd in self.pipe:
                        os.close(fd)

            def test_what_the_collector_frees():
                Owner()

            def test_threads_and_children_of_the_loop():
                import gevent.subprocess
                gevent.get_hub().threadpool.apply(int)
                gevent.subprocess.check_call(["true"])
            """,
            "-o",
            "usefixtures=gpool_no_leaks",
        )
        result.assert_outcomes(passed=6)

    def test_is_switched_on_for_all_by_pytests_own_option(self, run):
        """``usefixtures`` in the configuration: it is the first fixture, so it looks last."""
        result = run(
            """
            @pytest.fixture(autouse=True)
            def mine():
                yield
                gpool.spawn(gpool.receive)

            def test_it():
                pass

            class TestThatMeansIt:
                @pytest.fixture
                def gpool_no_leaks(self):
                    pass

                def test_is_let_alone(self, gpool_pool):
                    pass
            """,
            "-o",
            "usefixtures=gpool_no_leaks",
        )
        result.assert_outcomes(passed=2, errors=1)

    def test_says_where_a_socket_was_opened_if_python_knows(self, run):
        """By tracemalloc, as for a ResourceWarning."""
        result = run(
            """
            import tracemalloc

            def test_it(gpool_no_leaks):
                tracemalloc.start(20)
                kept.append(socket.socket())
            """
        )
        result.stdout.fnmatch_lines(["left behind: socket,*: opened at", "*kept.append(socket*"])


class TestThreads:
    def test_a_pool_for_a_test_in_another_thread_is_refused(self):
        """The error names what does that, and what does not."""
        pools = Pools()
        errors = []

        def test():
            with pytest.raises(RuntimeError) as caught:
                pools(gpool.Resource(create=list))
            errors.append(str(caught.value))
            gevent.get_hub().destroy(destroy_loop=True)

        gevent.get_hub().threadpool.apply(test)
        assert "pytest-xdist, which runs them in processes, does not" in errors[0]

    def test_fixtures_in_another_thread_than_the_pools_are_refused(self):
        """So is a pool where the pools that there are run in another thread."""
        errors = []

        def test():
            with pytest.raises(RuntimeError, match="in one thread") as caught:
                Pools()(gpool.Resource(create=list))
            errors.append(caught.value.__cause__)
            gevent.get_hub().destroy(destroy_loop=True)

        with gpool.Pool(gpool.Resource(create=list), name="here"):
            gevent.get_hub().threadpool.apply(test)
        assert type(errors[0]) is gpool.WrongHub
