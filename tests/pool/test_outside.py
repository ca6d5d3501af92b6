"""What only a whole interpreter shows: forks, patched processes, ends without a stop.

Each script runs in an interpreter of its own, unpatched and patched; it prints what
the test compares.
"""

from __future__ import annotations

import functools

import pytest

from tests.pool.interpreter import script


@pytest.fixture(params=[False, True], ids=["unpatched", "patched"])
def run(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """Run a script in an interpreter of its own; return the lines that it prints."""
    return functools.partial(script, patched=request.param)


class TestFork:
    def test_the_child_starts_afresh(self, run) -> None:  # type: ignore[no-untyped-def]
        """Rule 12: its first use opens a pool of its own; the parent does not notice."""
        assert run(
            """
            pool = gpool.Pool(things, size=2, name="db").start()
            pool.wait_ready()
            held = pool.checkout()

            def child():
                with pool.checkout() as thing:
                    print("child's own:", thing.pid == os.getpid())
                print(pool.stats().epoch, held.lost)
                held.checkin()          # the parent's: a counted no-op
                held.discard()
                print(pool.status().idle, gpool.get_pool("db") is pool)
                gevent.sleep(0.01)
                pool.stop()

            in_a_child(child)
            print("parent:", held.lost, held.resource.closed, pool.status().busy)
            held.checkin()
            with pool.checkout() as thing:
                print("parent's own:", thing.pid == os.getpid(), pool.stats().epoch)
            pool.stop()
            """
        ) == [
            "child's own: True",
            "1 True",
            "2 True",
            "closed by child",
            "closed by child",
            "parent: False False 1",
            "parent's own: True 1",
            "closed by parent",
            "closed by parent",
        ]

    def test_the_child_touches_nothing(self, run) -> None:  # type: ignore[no-untyped-def]
        """Rule 12: what the parent owns is kept, never finalised, closed or used."""
        assert run(
            """
            class Loud(Thing):
                def __del__(self):
                    print("finalised in", "parent" if os.getpid() == PARENT else "child")

            pool = gpool.Pool(gpool.Resource(create=Loud, close=Thing.close), size=2).start()
            pool.wait_ready()
            leases = [pool.checkout(), pool.checkout()]
            waiters = [gevent.spawn(pool.checkout) for _ in range(3)]
            gevent.sleep(0)

            def child():
                global pool, leases, waiters
                leases[0].checkin()
                del pool, leases, waiters
                gc.collect()
                gevent.sleep(0.05)
                gc.collect()

            in_a_child(child)
            print("whole", pool.stats().waiting, pool.stats().busy)
            os._exit(0)
            """
        ) == ["whole 3 2"]

    def test_within_a_client(self, run) -> None:  # type: ignore[no-untyped-def]
        """A greenlet that forks while it holds goes on in both, with its own in each."""
        assert run(
            """
            pool = gpool.Pool(things, size=1).start()

            def client():
                with pool.checkout() as thing:
                    def child():
                        with pool.checkout(timeout=1.0) as other:
                            print("child:", other is not thing)
                    in_a_child(child)
                    print("parent:", thing.closed)
                print(pool.status().idle)

            gevent.spawn(client).get()
            os._exit(0)
            """
        ) == ["child: True", "parent: False", "1"]

    def test_of_a_stopped_pool(self, run) -> None:  # type: ignore[no-untyped-def]
        """What is still held then is the parent's all the same."""
        assert run(
            """
            pool = gpool.Pool(things, size=1).start()
            lease = pool.checkout()
            pool.stop(timeout=0.1)

            def child():
                lease.checkin()
                gevent.sleep(0.01)

            in_a_child(child)
            lease.checkin()
            gevent.sleep(0.01)
            """
        ) == ["closed by parent"]


class TestExit:
    def test_without_a_stop(self, run) -> None:  # type: ignore[no-untyped-def]
        """Scenario 19: clean and quick, whatever is open, held or waited for."""
        assert run(
            """
            pool = gpool.Pool(things, size=2).start()
            servers = gpool.Pool(Echo, size=3, max_overflow=2).start()
            leases = [pool.checkout(), pool.checkout(), servers.checkout()]
            waiters = [gevent.spawn(pool.checkout, timeout=None) for _ in range(3)]
            gevent.sleep(0)
            print("end")
            """
        ) == ["end"]

    def test_without_a_stop_while_clients_are_served(self, run) -> None:  # type: ignore[no-untyped-def]
        """Some may still get what they wait for: gevent's loop goes on, for how long is its own."""
        first, *rest = run(
            """
            pool = gpool.Pool(things, size=2).start()
            lease = pool.checkout()
            waiters = [gevent.spawn(pool.checkout, timeout=None) for _ in range(3)]
            gevent.sleep(0)
            print("end")
            """
        )
        assert first == "end"
        assert set(rest) <= {"closed by parent"}

    def test_nothing_keeps_the_loop_alive(self, run) -> None:  # type: ignore[no-untyped-def]
        """Rule 15: a main that joins the loop returns, one that is deadlocked is told."""
        assert run(
            """
            pool = gpool.Pool(things, size=1, max_overflow=1).start()
            leases = [pool.checkout(), pool.checkout()]
            leases[0].transfer(gpool.spawn(gpool.receive))  # else it were a CheckoutDeadlock
            try:
                pool.checkout(timeout=None)
            except gevent.exceptions.LoopExit:
                print("LoopExit")
            for lease in leases:
                lease.checkin()
            gevent.wait(timeout=None)
            print("end", pool.stats().overflow)
            """
        ) == ["LoopExit", "end 1"]

    def test_a_deadlocked_main_gets_its_timeout(self, run) -> None:  # type: ignore[no-untyped-def]
        """Scenario 22: CheckoutTimeout, not LoopExit."""
        assert run(
            """
            pool = gpool.Pool(things, size=1).start()
            lease = pool.checkout()
            try:
                pool.checkout(timeout=0.02)
            except gpool.CheckoutTimeout as error:
                print(error.busy)
            """
        ) == ["1"]

    def test_starts_that_fail_do_not_end_a_main_that_waits(self, run) -> None:  # type: ignore[no-untyped-def]
        """Its backoff keeps the loop alive for whoever waits, be it for ever."""
        assert run(
            """
            left = [OSError("down")] * 3
            def create():
                if left:
                    raise left.pop()
                return Thing()
            pool = gpool.Pool(gpool.Resource(create=create), size=1)
            with pool.checkout(timeout=None) as thing:
                print(thing.number, pool.stats().start_failures)
            left += [OSError("down")] * 3
            other = gpool.Pool(gpool.Resource(create=create), size=1)
            other.wait_ready(timeout=None)
            print(other.stats().start_failures)
            """
        ) == ["1 3", "3"]

    def test_by_a_signal(self, run) -> None:  # type: ignore[no-untyped-def]
        """KeyboardInterrupt in a waiting main: its own, and the pool is stopped by `with`."""
        assert run(
            """
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                with gpool.Pool(things, size=1) as pool:
                    lease = pool.checkout()
                    signal.setitimer(signal.ITIMER_REAL, 0.05)
                    try:
                        pool.checkout(timeout=5.0)
                    finally:
                        lease.checkin()
            except KeyboardInterrupt:
                print("interrupted", pool.status().state)
            """,
            may_complain=True,  # gevent reports it as well
        ) == ["closed by parent", "interrupted stopped"]


class TestThreads:
    def test_a_pool_in_each_of_two_threads(self, run) -> None:  # type: ignore[no-untyped-def]
        """Rule 12: one thread's Application is not another's; the other is told so."""
        assert run(
            """
            pool = gpool.Pool(things, size=1).start()
            pool.checkout().checkin()
            lease = pool.checkout()
            said = []

            def thread():
                for act in (pool.checkout, lease.checkin, gpool.Pool(Echo).start):
                    try:
                        act()
                    except gpool.WrongHub as error:
                        said.append("another thread's hub" in str(error))

            hub = gevent.get_hub()
            hub.threadpool.apply(thread)
            print(said)
            lease.checkin()
            print(pool.status().idle)
            """
        ) == ["[True, True, True]", "1"]

    def test_a_thread_that_has_ended(self, run) -> None:  # type: ignore[no-untyped-def]
        """Its Application is gone with it; the next thread starts its own."""
        assert run(
            """
            pool = gpool.Pool(Echo, size=1, name="p")

            def thread():
                with pool.checkout() as echo:
                    print(echo.say("in a thread"))
                gevent.get_hub().destroy(destroy_loop=True)

            from gevent import monkey
            real = monkey.get_original("_thread", "start_new_thread")
            lock = monkey.get_original("_thread", "allocate_lock")()
            lock.acquire()
            def body():
                try:
                    thread()
                finally:
                    lock.release()
            real(body, ())
            lock.acquire()
            print(pool.status().state, pool.stats().accounted, pool.holders(), pool.healthy())
            with pool.checkout() as echo:
                print(echo.say("in main"))
            """
        ) == ["in a thread", "stopped 0 [] False", "in main"]


class TestMain:
    def test_the_quickest_way(self, run) -> None:  # type: ignore[no-untyped-def]
        """Main, a plain greenlet and a greenlet that is a checkout and nothing else."""
        assert run(
            """
            pool = gpool.Pool(Echo, size=2)
            with pool.checkout() as echo:
                print(echo.say("main"))
            def work(n):
                with pool.checkout() as echo:
                    return echo.say(n)
            print([g.get() for g in [gevent.spawn(work, n) for n in range(5)]])
            print(type(gevent.spawn(pool.checkout).get()).__name__)
            pool.stop()
            """
        ) == ["main", "[0, 1, 2, 3, 4]", "Lease"]
