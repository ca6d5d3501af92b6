"""The three kinds of workers that a pool can lend."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import gpool
from gpool.testing import VirtualClock, settle


class Echo(gpool.GenServer):
    """Says what it is told, once it may."""

    def handle_call(self, request: object, from_: gpool.From) -> gpool.Reply:
        """Answer, after as many seconds as the request says."""
        if isinstance(request, float):
            with contextlib.suppress(gpool.ReceiveTimeout):
                gpool.receive(lambda message: message == "go", timeout=request)
        return gpool.Reply(request)


def sleeper() -> gpool.Pid:
    """Start a process that is no server."""
    return gpool.spawn_link(gpool.receive)


@pytest.fixture
def pools(clock: VirtualClock) -> Iterator[list[gpool.Pool[object]]]:
    """Stop the pools that a test puts here."""
    made: list[gpool.Pool[object]] = []
    yield made
    for pool in made:
        pool.stop()


class TestKindOf:
    @pytest.mark.parametrize("worker", [None, 3, list, object(), "Echo"])
    def test_refuses_what_it_cannot_lend(self, worker: object) -> None:
        """Bad input: expected and got, and nothing starts."""
        with pytest.raises(TypeError, match="worker: expected a GenServer subclass, a Resource"):
            gpool.Pool(worker)
        assert gpool.whereis("gpool") is None

    def test_refuses_arguments_that_belong_nowhere(self) -> None:
        """A Resource takes no arguments: its `create` knows them."""
        with pytest.raises(TypeError, match="args, kwargs: expected none"):
            gpool.Pool(gpool.Resource(create=list), (1,))


class Later(gpool.GenServer):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[gpool.From] = []

    def handle_call(self, request: object, from_: gpool.From) -> gpool.NoReply:
        """Leave the caller waiting."""
        self.asked.append(from_)
        return gpool.NoReply()

    def handle_info(self, message: object) -> None:
        """Answer whoever asked first."""
        gpool.reply(self.asked.pop(0), message)


class Stubborn(gpool.GenServer):
    """A server whose start swallows the exit that is to end it."""

    def init(self) -> None:
        """Take longer than is allowed."""
        with contextlib.suppress(gpool.ExitSignal):
            gpool.receive()


class TestServers:
    def test_finish_what_they_left_unanswered(self, pools: list[gpool.Pool[object]]) -> None:
        """Rule 7: a holder that is dead may still be owed a reply; idle at the reply."""
        pool = gpool.Pool(Later, size=1)
        pools.append(pool)
        handles: list[Later] = []

        def client() -> None:
            with pool.checkout() as later:
                handles.append(later)
                later.call("when?", timeout=None)

        pid = gpool.spawn(client)
        settle()
        gpool.exit(pid, "kill")
        settle()
        assert pool.stats().finishing == 1
        gpool.send(handles[0], "now")
        settle()
        assert pool.status() == gpool.Status("ready", idle=1, overflow=0, busy=0)
        with pool.checkout():
            pass
        settle()
        assert pool.status().idle == 1

    def test_are_stopped_if_they_never_answer(
        self, pools: list[gpool.Pool[object]], clock: VirtualClock
    ) -> None:
        """Rule 7: within `finish_timeout`, and another one takes the place."""
        pool = gpool.Pool(Later, size=1, finish_timeout=5.0)
        pools.append(pool)
        with pool.checkout() as later, pytest.raises(gpool.CallTimeout):
            later.call("when?", timeout=0)
        settle()
        assert pool.stats().finishing == 1
        clock.advance(5.0)
        assert not gpool.is_alive(later)
        assert pool.status().idle == 1

    def test_one_that_swallows_its_time_limit_has_failed(
        self, pools: list[gpool.Pool[object]], clock: VirtualClock
    ) -> None:
        """Its `init` returns after all, but too late: nobody is given what is about to die."""
        pool = gpool.Pool(Stubborn, size=1, lazy=True, start_timeout=1.0)
        pools.append(pool)
        client = gpool.spawn(pool.checkout)
        settle()
        clock.advance(1.0)
        stats = pool.stats()
        assert (stats.start_failures, stats.breaker, stats.waiting) == (1, "open", 1)
        gpool.exit(client, "kill")


class TestChildren:
    def test_lends_what_the_specification_starts(self, pools: list[gpool.Pool[object]]) -> None:
        """The client gets the handle that the start function returned."""
        pool = gpool.Pool(gpool.ChildSpec("echo", Echo.start_link), size=2)
        pools.append(pool)
        with pool.checkout() as echo:
            assert echo.call("hello") == "hello"

    def test_lends_a_plain_process(self, pools: list[gpool.Pool[object]]) -> None:
        """A start function may return a pid; there is no server to wait for."""
        pool = gpool.Pool(gpool.ChildSpec("sleeper", sleeper), size=1)
        pools.append(pool)
        with pool.checkout() as pid:
            assert gpool.is_alive(pid)
        assert pool.status().idle == 1

    def test_replaces_a_child_that_dies(self, pools: list[gpool.Pool[object]]) -> None:
        """The child's death is the worker's; the next client gets another one."""
        pool = gpool.Pool(gpool.ChildSpec("sleeper", sleeper), size=1)
        pools.append(pool)
        with pool.checkout() as first:
            gpool.exit(first, "kill")
        settle()
        with pool.checkout() as second:
            assert second is not first
            assert gpool.is_alive(second)

    def test_does_not_lend_a_child_whose_exit_was_accepted(
        self, pools: list[gpool.Pool[object]]
    ) -> None:
        """In the same turn as the signal the worker is out of reach."""
        pool = gpool.Pool(gpool.ChildSpec("sleeper", sleeper), size=2)
        pools.append(pool)
        with pool.checkout() as first:
            pass
        settle()
        gpool.exit(first, "kill")
        with pool.checkout() as other:
            assert other is not first

    def test_lets_a_server_finish_what_a_dead_client_asked_for(
        self, pools: list[gpool.Pool[object]]
    ) -> None:
        """Rule 7: a worker with an unanswered request is finishing, then idle."""
        pool = gpool.Pool(gpool.ChildSpec("echo", Echo.start_link), size=1)
        pools.append(pool)
        got: list[gpool.Pid] = []

        def client() -> None:
            with pool.checkout() as echo:
                got.append(echo.pid)
                echo.call(60.0, timeout=None)

        pid = gpool.spawn(client)
        settle()
        gpool.exit(pid, "kill")
        settle()
        assert pool.stats().finishing == 1
        gpool.send(got[0], "go")
        settle()
        assert pool.status() == gpool.Status("ready", idle=1, overflow=0, busy=0)

    def test_a_start_that_is_ignored_is_a_failed_start(
        self, pools: list[gpool.Pool[object]]
    ) -> None:
        """A pool has no use for a worker that is not there."""
        pool = gpool.Pool(gpool.ChildSpec("none", lambda: None), size=1)
        pools.append(pool)
        pool.start()
        settle()
        assert pool.stats().start_failures == 1
        assert pool.stats().starting == 0
