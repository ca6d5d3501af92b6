"""Jobs: whom they go to, what becomes of them, and that none of them loses a worker."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import monkey

import gpool
from gpool import telemetry
from gpool.otp.signal import finish
from gpool.pool.ledger import Ledger
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.hearing import heard
from tests.pool.workshop import AtTurn, Client, Echo, Holder, Maker, assert_whole, check


@pytest.fixture
def pool(clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
    """A pool of two things, up."""
    return _up(gpool.Pool(maker.resource(), size=2, name="two"))


@pytest.fixture
def echoes(clock: VirtualClock) -> gpool.Pool[Echo]:
    """A pool of two servers, up."""
    return _up(gpool.Pool(Echo, size=2, name="echoes"))


def _up(pool: gpool.Pool[Any]) -> gpool.Pool[Any]:
    pool.start()
    settle()
    return pool


def servers(pool: gpool.Pool[Any]) -> list[Echo]:
    """Return the handles of all workers, the next one to be lent last."""
    ledger: Any = pool._ledger
    return [slot.thing for slot in ledger.man.state.idle.all()]


@pytest.fixture
def crashes(clock: VirtualClock) -> Iterator[list[telemetry.ProcessCrashed]]:
    """Collect the crashes that are reported."""
    with heard(telemetry.ProcessCrashed) as seen:
        yield seen


def wait_for(thing: Any, gate: Gate) -> Any:
    """Be a job that ends when the gate opens."""
    with thing.used():
        gate.wait()
    return thing


class TestCall:
    def test_of_a_method_of_the_server(self, echoes: gpool.Pool[Echo]) -> None:
        """Taken from the class it is called with the handle."""
        assert echoes.call(Echo.say, 21) == 21
        assert_whole(echoes)

    def test_of_a_function_on_a_resource(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """It gets the resource, then its own arguments."""
        fn: Callable[..., Any] = lambda thing, *args, **kwargs: (thing, args, kwargs)  # noqa: E731
        thing, args, kwargs = pool.call(fn, 1, 2, key=3)
        assert thing in maker.made
        assert (args, kwargs) == ((1, 2), {"key": 3})
        assert_whole(pool, maker)

    def test_runs_in_the_caller(self, pool: gpool.Pool[Any]) -> None:
        """In its process and its greenlet."""
        assert pool.call(lambda thing: gpool.self()) is gpool.self()

    def test_starts_the_pool(self, clock: VirtualClock, maker: Maker) -> None:
        """The first use, in whatever form."""
        assert gpool.Pool(maker.resource(), size=1).call(lambda thing: thing.number) == 1

    def test_that_fails(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Its error is the caller's, and the worker comes back as from any `with`."""
        with pytest.raises(ZeroDivisionError):
            pool.call(lambda thing: 1 / 0)
        assert_whole(pool, maker)
        assert maker.made[1].closed  # without a reset it is discarded

    def test_waits_no_longer_than_its_timeout(
        self, pool: gpool.Pool[Any], clock: VirtualClock
    ) -> None:
        """The pool's if it is left out; 0 never waits."""
        holders = [Holder(pool), Holder(pool)]
        given, usual = Client(pool.call, repr, timeout=2.0), Client(pool.call, repr)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.call(repr, timeout=0)
        clock.advance(2.0)
        assert isinstance(given.error, gpool.CheckoutTimeout)
        assert not usual.done
        clock.advance(3.0)
        assert isinstance(usual.error, gpool.CheckoutTimeout)
        assert len(holders) == 2

    def test_does_not_limit_the_job(self, pool: gpool.Pool[Any], clock: VirtualClock) -> None:
        """`timeout` is the wait for a worker; a job's own goes into a partial."""
        gate = Gate()
        job = functools.partial(lambda thing, timeout: gate.wait(timeout) or timeout, timeout=9.0)
        client = Client(pool.call, job, timeout=1.0)
        clock.advance(5.0)
        gate.open()
        settle()
        assert client.value == 9.0

    def test_is_shown_with_the_line_of_its_caller(self, pool: gpool.Pool[Any]) -> None:
        """Not with a line of gpool's."""
        [holder] = pool.call(lambda thing: pool.holders())
        assert "in TestCall.test_is_shown_with_the_line_of_its_caller" in holder.line

    @pytest.mark.parametrize("spawn", [gevent.spawn, gpool.spawn])
    def test_from_no_python_code(self, pool: gpool.Pool[Any], spawn: Any) -> None:
        """As the body of a greenlet."""
        seen: list[Any] = []
        spawn(pool.call, seen.append)
        settle()
        assert len(seen) == 1

    def test_refuses_what_cannot_be_called(self, maker: Maker) -> None:
        """Before anything is started."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource())
        for use in (pool.call, pool.cast, pool.broadcast, lambda fn: pool.map(fn, [])):
            with pytest.raises(TypeError, match="fn: expected a callable, got 5"):
                use(5)  # type: ignore[operator]
        with pytest.raises(ValueError, match="timeout: expected seconds >= 0"):
            pool.call(repr, timeout=-1)
        assert pool._ledger is None

    @pytest.mark.parametrize("cut", ["kill", "cut"])
    @pytest.mark.parametrize("turn", range(1, 9))
    def test_cut_short_at_any_turn(
        self, pool: gpool.Pool[Any], maker: Maker, clock: VirtualClock, turn: int, cut: str
    ) -> None:
        """Waiting, working or neither: no worker is lost."""

        def work(thing: Any) -> None:
            with thing.used():
                gevent.sleep(0)
                gevent.sleep(0)

        with AtTurn(turn, lambda: getattr(clients[2], cut)()):
            clients = [Client(pool.call, work) for _ in range(5)]
            settle()
        assert all(client.error is None for client in clients if client is not clients[2])
        assert_whole(pool, maker)


def kill(echo: Echo, gate: Gate) -> None:
    """Have it killed."""
    gpool.exit(echo.pid, "kill")


def stop(echo: Echo, gate: Gate) -> None:
    """Have it stopped in order."""
    gpool.exit(echo.pid, "shutdown")


def kill_the_manager(echo: Echo, gate: Gate) -> None:
    """Have the pool fall, and its workers with it."""
    man = next(p for p in gpool.processes() if gpool.process_info(p).initial_call == "PoolMan")
    gpool.exit(man, "kill")


def crash(echo: Echo, gate: Gate) -> None:
    """Have it die by itself, of what it is at."""
    gate.open()


class Fragile(Echo):
    """One that can be made to crash after a while."""

    @gpool.cast
    def fail(self, gate: Gate) -> None:
        """Crash when the gate opens."""
        gate.wait()
        raise ValueError("failed")


class TestAJobThatHasNotBegun:
    @pytest.fixture
    def pool(self, clock: VirtualClock) -> gpool.Pool[Any]:
        """A pool of two that may crash."""
        return _up(gpool.Pool(Fragile, size=2, name="fragile"))

    @pytest.mark.parametrize("die", [kill, stop, kill_the_manager, crash])
    @pytest.mark.parametrize("fn", [Echo.say, lambda echo, value: echo.say(value)])
    def test_goes_to_another_if_its_server_dies(
        self, pool: gpool.Pool[Any], die: Callable[[Echo, Gate], None], fn: Any
    ) -> None:
        """The request was sent, and died with the server, which was at somebody else's."""
        gate, first = Gate(), servers(pool)[-1]
        first.fail(gate)  # type: ignore[attr-defined]
        settle()
        client = Client(pool.call, fn, 21)
        settle()
        assert not client.done
        assert len(first.pid.mailbox) == 1  # type: ignore[union-attr]
        die(first, gate)
        settle()
        assert client.value == 21, client.error
        assert not gpool.is_alive(first)
        assert_whole(pool)

    def test_goes_to_another_if_its_server_was_suspended(self, pool: gpool.Pool[Any]) -> None:
        """The server took nothing that came after the job had started."""
        first = servers(pool)[-1]
        gpool.sys.suspend(first)
        client = Client(pool.call, Echo.say, 1)
        settle()
        gpool.exit(first.pid, "kill")
        settle()
        assert client.value == 1

    def test_may_stand_behind_others(self, pool: gpool.Pool[Any]) -> None:
        """What was in the mailbox before it does not count, taken out or not."""
        first, gate = servers(pool)[-1], Gate()
        first.work(gate)  # not taken out yet, when the job starts
        with AtTurn(2, lambda: gpool.exit(first.pid, "kill")):
            assert pool.call(Echo.say, 1) == 1
        assert not gpool.is_alive(first)

    def test_goes_to_another_if_its_server_died_before_the_first_request(
        self, pool: gpool.Pool[Any]
    ) -> None:
        """What it did before that is done again."""
        gate, used = Gate(), []

        def job(echo: Echo) -> Any:
            used.append(echo)
            gate.wait()
            return echo.say(1)

        client = Client(pool.call, job)
        settle()
        gpool.exit(used[0].pid, "kill")
        settle()
        gate.open()
        settle()
        assert client.value == 1
        assert len(used) == 2

    def test_within_the_same_deadline(self, pool: gpool.Pool[Any], clock: VirtualClock) -> None:
        """One for all the waiting, not one a try."""
        first, second = servers(pool)
        holder, gate = Holder(pool), Gate()
        assert holder.thing is second
        gpool.sys.suspend(first)
        client = Client(pool.call, Echo.say, 1, timeout=5.0)
        clock.advance(3.0)
        Echo.starts.append(gate.wait)
        gpool.exit(first.pid, "kill")
        clock.advance(1.9)
        assert not client.done
        clock.advance(0.1)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        gate.open()
        holder.let_go()
        assert_whole(pool)

    @pytest.mark.parametrize("kind", ["resource", "server"])
    def test_goes_to_another_if_its_lease_is_lost_at_once(
        self, clock: VirtualClock, maker: Maker, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the grant and the start; its resource is closed."""
        worker: Any = maker.resource() if kind == "resource" else Echo
        pool = _up(gpool.Pool(worker, size=2))
        checkout, used = Ledger.checkout, []

        def lose(*args: Any) -> Any:
            lease = checkout(*args)
            used.append(lease.slot.thing)
            if len(used) == 1:
                finish(lease.slot.pid, "killed")
            return lease

        monkeypatch.setattr(Ledger, "checkout", lose)
        assert pool.call(lambda thing: thing) is used[1] is not used[0]
        monkeypatch.undo()
        assert_whole(pool, maker if kind == "resource" else None)


class TestAJobThatHasBegun:
    def test_is_not_begun_again(self, echoes: gpool.Pool[Echo]) -> None:
        """The server had taken the request up: nobody knows what it has done."""
        client = Client(echoes.call, Echo.say, 1, Gate())
        settle()
        [holder] = echoes.holders()
        gpool.exit(holder.worker.pid, "kill")
        settle()
        assert isinstance(client.error, gpool.ServerExited)
        assert_whole(echoes)

    def test_is_not_begun_again_if_it_crashed(self, echoes: gpool.Pool[Echo]) -> None:
        """Once, and the caller sees the cause."""
        with pytest.raises(gpool.ServerExited) as caught:
            echoes.call(Echo.crash)
        assert isinstance(caught.value.__cause__, ValueError)
        assert_whole(echoes)

    @pytest.mark.parametrize("first", ["call", "cast"])
    @pytest.mark.parametrize("second", ["sent", "not sent"])
    def test_by_an_earlier_request(self, echoes: gpool.Pool[Echo], first: str, second: str) -> None:
        """Whatever the server did for it would be done twice."""
        runs, gate, later = [], Gate(), Gate()

        def job(echo: Echo) -> Any:
            runs.append(echo)
            echo.say(1) if first == "call" else echo.work(gate)
            if second == "not sent":
                later.wait()
            return echo.say(2, gate)

        gate.is_open = first == "cast" and second == "not sent"
        client = Client(echoes.call, job)
        settle()
        gate.is_open = False
        gpool.exit(runs[0].pid, "kill")
        settle()
        later.open()
        settle()
        expected = gpool.ServerExited if second == "sent" else gpool.NoProcess
        assert isinstance(client.error, expected)
        assert len(runs) == 1
        assert_whole(echoes)

    def test_if_it_failed_for_another_server(self, echoes: gpool.Pool[Echo]) -> None:
        """Its own worker has nothing to do with it, dead or not."""
        other, runs = Echo.start(), []
        gpool.stop(other)

        def job(echo: Echo) -> None:
            runs.append(echo)
            gpool.exit(echo.pid, "kill")
            settle_in_a_job()
            other.say(1)

        with pytest.raises(gpool.NoProcess):
            echoes.call(job)
        assert len(runs) == 1
        assert_whole(echoes)

    def test_on_a_resource(self, pool: gpool.Pool[Any]) -> None:
        """It has begun once it is called, whatever it raises."""
        runs = []

        def job(thing: Any) -> None:
            runs.append(thing)
            raise gpool.NoProcess("whoever")

        with pytest.raises(gpool.NoProcess):
            pool.call(job)
        assert len(runs) == 1


def settle_in_a_job() -> None:
    """Let others run."""
    for _ in range(5):
        gevent.sleep(0)


class TestCast:
    def test_returns_at_once(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """The job runs later, in a process of its own that is named after it."""
        seen: list[Any] = []

        def job(thing: Any, value: int) -> None:
            seen.append((thing, value, gpool.self()))

        pid = pool.cast(job, 1)
        assert seen == []
        assert gpool.process_info(pid).initial_call == "TestCast.test_returns_at_once.job"
        settle()
        assert seen == [(maker.made[1], 1, pid)]
        assert_whole(pool, maker)

    def test_of_a_method_of_the_server(self, echoes: gpool.Pool[Echo]) -> None:
        """A `cast` method is sent, a `call` method is waited for."""
        gate = Gate()
        echoes.cast(Echo.work, gate)
        echoes.cast(Echo.say, 1, gate)
        settle()
        assert (echoes.stats().finishing, echoes.stats().busy) == (1, 1)
        gate.open()
        settle()
        assert_whole(echoes)

    def test_outlives_its_caller(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """And does not harm it: they are not linked."""
        gate = Gate()
        client = Client(lambda: (pool.cast(wait_for, gate), gate.wait()))
        settle()
        client.kill()
        settle()
        assert (client.done, pool.stats().busy) == (True, 1)
        gate.open()
        settle()
        assert_whole(pool, maker)

    def test_waits_without_limit(self, pool: gpool.Pool[Any], clock: VirtualClock) -> None:
        """Longer than the pool's timeout."""
        holders = [Holder(pool), Holder(pool)]
        seen: list[Any] = []
        pool.cast(seen.append)
        clock.advance(1000.0)
        holders[0].let_go()
        assert seen == [holders[0].thing]

    def test_has_its_place_in_the_queue_at_once(self, pool: gpool.Pool[Any]) -> None:
        """Those who come in the same turn, but later, do not overtake it."""
        seen: list[str] = []
        client = Client(pool.call, lambda thing: seen.append("call"))
        leases = [pool.checkout(), pool.checkout()]
        pool.cast(lambda thing: seen.append("cast"))
        settle()
        assert pool.stats().waiting == 2
        leases[0].checkin()
        settle()
        assert seen == ["cast", "call"]
        assert client.done

    def test_is_refused_at_once(self, clock: VirtualClock, maker: Maker) -> None:
        """By `max_waiting`, in the caster, those counted that have not run yet."""
        pool = _up(gpool.Pool(maker.resource(), size=2, max_waiting=1))
        seen: list[Any] = []
        for _ in range(3):  # two are served, one waits
            pool.cast(seen.append)
        with pytest.raises(gpool.PoolFull):
            pool.cast(seen.append)
        assert pool.stats().refused == 1
        settle()
        assert len(seen) == 3
        assert_whole(pool, maker)

    def test_of_a_pool_that_is_closed(self, pool: gpool.Pool[Any]) -> None:
        """Whoever casts is told."""
        pool.stop()
        with pytest.raises(gpool.PoolClosed):
            pool.cast(repr)

    def test_of_a_pool_that_has_failed(self, pool: gpool.Pool[Any]) -> None:
        """Whoever casts is told."""
        ledger: Any = pool._ledger
        ledger.fail("tired")
        for use in (pool.cast, pool.broadcast, lambda fn: pool.map(fn, [])):
            with pytest.raises(gpool.PoolFailed):
                use(repr)

    def test_of_a_pool_that_stops_later(
        self, pool: gpool.Pool[Any], crashes: list[telemetry.ProcessCrashed]
    ) -> None:
        """A job that waited is not dropped silently."""
        lease = pool.checkout(), pool.checkout()
        pid = pool.cast(repr)
        settle()
        pool.stop()
        settle()
        assert [(crash.process, type(crash.reason.exception)) for crash in crashes] == [
            (pid, gpool.PoolClosed)
        ]
        assert len(lease) == 2

    def test_that_fails(
        self,
        pool: gpool.Pool[Any],
        maker: Maker,
        crashes: list[telemetry.ProcessCrashed],
    ) -> None:
        """Its process crashes, visibly; nobody else is harmed."""
        pid = pool.cast(lambda thing: 1 / 0)
        settle()
        assert [crash.process for crash in crashes] == [pid]
        assert isinstance(crashes[0].reason.exception, ZeroDivisionError)
        assert_whole(pool, maker)

    def test_goes_to_another_if_its_server_dies(self, echoes: gpool.Pool[Echo]) -> None:
        """As a call does."""
        first, seen = servers(echoes)[-1], []
        gpool.sys.suspend(first)
        echoes.cast(lambda echo: seen.append(echo.say(1)))
        settle()
        gpool.exit(first.pid, "kill")
        settle()
        assert seen == [1]
        assert_whole(echoes)

    def test_waits_on_over_a_fall_of_the_pool(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Granted and not yet begun, it keeps its place in the queue."""
        seen: list[Any] = []
        pool.cast(seen.append)
        kill_the_manager(None, Gate())  # type: ignore[arg-type]
        settle()
        assert len(seen) == 1
        assert_whole(pool, maker)

    @pytest.mark.parametrize("free", [0, 1])
    def test_killed_before_it_has_run(self, pool: gpool.Pool[Any], maker: Maker, free: int) -> None:
        """What it had, a worker or a place in the queue, is had by nobody."""
        leases = [pool.checkout() for _ in range(2 - free)]
        gpool.exit(pool.cast(repr), "kill")
        check(pool)
        settle()
        assert pool.stats().waiting == 0
        for lease in leases:
            lease.checkin()
        assert_whole(pool, maker)

    @pytest.mark.parametrize("turn", range(1, 9))
    def test_killed_at_any_turn(self, pool: gpool.Pool[Any], maker: Maker, turn: int) -> None:
        """Waiting or working: no worker is lost, nobody else is harmed."""
        seen: list[int] = []

        def job(thing: Any, number: int) -> None:
            with thing.used():
                gevent.sleep(0)
                gevent.sleep(0)
            seen.append(number)

        with AtTurn(turn, lambda: gpool.exit(pids[2], "kill")):
            pids = [pool.cast(job, number) for number in range(5)]
            settle()
        assert {0, 1, 3, 4} <= set(seen)
        assert_whole(pool, maker)


def numbers(taken: list[int], end: int = 5) -> Iterator[int]:
    """Yield numbers, and note which were asked for."""
    for number in range(end):
        taken.append(number)
        yield number


class TestMap:
    def test_keeps_the_order(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Of the items, whichever job ends first."""
        gates = [Gate() for _ in range(4)]
        client = Client(pool.map, lambda thing, n: gates[n].wait() or 10 * n, range(4))
        for n in (1, 0, 3, 2):
            settle()
            gates[n].open()
        settle()
        assert client.value == [0, 10, 20, 30]
        assert_whole(pool, maker)

    def test_of_a_method_of_the_server(self, echoes: gpool.Pool[Echo]) -> None:
        """Taken from the class."""
        assert echoes.map(Echo.say, "abc") == ["a", "b", "c"]

    def test_of_nothing(self, pool: gpool.Pool[Any]) -> None:
        """Is nothing, at once."""
        assert pool.map(Echo.say, []) == []

    @pytest.mark.parametrize(("concurrency", "expected"), [(None, 3), (1, 1), (2, 2), (9, 3)])
    def test_runs_so_many_at_once(
        self, clock: VirtualClock, maker: Maker, concurrency: int | None, expected: int
    ) -> None:
        """As many as the pool may have, overflow included, if it is not told."""
        pool = _up(gpool.Pool(maker.resource(), size=2, max_overflow=1))
        gate, taken = Gate(), []  # type: ignore[var-annotated]
        client = Client(pool.map, lambda t, n: wait_for(t, gate), numbers(taken, 5),
                        concurrency=concurrency)  # fmt: skip
        settle()
        assert pool.stats().busy == expected
        assert len(taken) == min(concurrency or 3, 5)
        gate.open()
        settle()
        assert (len(client.value), len(taken)) == (5, 5)
        assert_whole(pool, maker)

    def test_takes_items_in_the_caller(self, pool: gpool.Pool[Any]) -> None:
        """The iterable need not be fit for several processes; it may block."""
        runners = set()

        def items() -> Iterator[int]:
            for number in range(4):
                runners.add(gpool.self())
                gevent.sleep(0)
                yield number

        assert pool.map(lambda thing, n: n, items()) == [0, 1, 2, 3]
        assert runners == {gpool.self()}

    def test_raises_the_first_error_once_the_others_have_ended(
        self, pool: gpool.Pool[Any], maker: Maker
    ) -> None:
        """No further item is taken."""
        gate, taken, ended = Gate(), [], []  # type: ignore[var-annotated]

        def job(thing: Any, number: int) -> None:
            if number == 1:
                raise ValueError(number)
            gate.wait()
            ended.append(number)
            raise KeyError(number)

        client = Client(pool.map, job, numbers(taken))
        settle()
        assert (client.done, taken) == (False, [0, 1])
        gate.open()
        settle()
        assert (ended, repr(client.error)) == ([0], "ValueError(1)")
        assert_whole(pool, maker)

    def test_returns_errors_in_their_places(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """And goes on."""
        results = pool.map(lambda thing, n: 1 // n, [1, 0, 1], on_error="return")
        assert [type(result) for result in results] == [int, ZeroDivisionError, int]
        assert_whole(pool, maker)

    @pytest.mark.parametrize("on_error", ["raise", "return"])
    def test_of_an_iterable_that_raises(
        self, pool: gpool.Pool[Any], maker: Maker, on_error: Any
    ) -> None:
        """It ends it as an error of a job does."""
        gate, ended = Gate(), []  # type: ignore[var-annotated]

        def items() -> Iterator[int]:
            yield 0
            raise LookupError("no more")

        def job(thing: Any, number: int) -> None:
            gate.wait()
            ended.append(number)

        client = Client(pool.map, job, items(), on_error=on_error)
        settle()
        assert not client.done
        gate.open()
        settle()
        assert (ended, repr(client.error)) == ([0], "LookupError('no more')")
        assert_whole(pool, maker)

    def test_each_job_waits_so_long_for_a_worker(
        self, pool: gpool.Pool[Any], clock: VirtualClock
    ) -> None:
        """The error is that item's."""
        holders = [Holder(pool), Holder(pool)]
        client = Client(pool.map, lambda thing, n: n, [1, 2, 3], timeout=2.0, on_error="return")
        clock.advance(2.0)
        holders[0].let_go()
        error, other, result = client.value
        assert type(error) is type(other) is gpool.CheckoutTimeout
        assert result == 3

    def test_a_job_whose_process_is_killed(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Its item's error is no exit signal, which would end the caller."""

        def job(thing: Any, number: int) -> int:
            if number == 1:
                gpool.exit(gpool.self(), "kill")
            return number

        results = pool.map(job, range(3), on_error="return")
        assert (results[0], results[2]) == (0, 2)
        assert isinstance(results[1], gpool.ServerExited)
        assert results[1].reason == "killed"
        assert_whole(pool, maker)

    def test_a_job_that_ends_with_a_base_exception(self, pool: gpool.Pool[Any]) -> None:
        """Its process dies of it; it is the cause."""

        def job(thing: Any, number: int) -> None:
            raise gevent.Timeout

        with pytest.raises(gpool.ServerExited) as caught:
            pool.map(job, [1])
        assert isinstance(caught.value.__cause__, gevent.Timeout)

    @pytest.mark.parametrize("trapping", [False, True])
    @pytest.mark.parametrize("cut", ["kill", "cut"])
    @pytest.mark.parametrize("turn", range(1, 13))
    def test_cut_short_at_any_turn(
        self, pool: gpool.Pool[Any], maker: Maker, turn: int, cut: str, trapping: bool
    ) -> None:
        """It takes its jobs with it; no worker is lost, no message is left."""
        jobs: set[gpool.Pid] = set()
        taken: list[int] = []

        def job(thing: Any, number: int) -> None:
            jobs.add(gpool.self())
            gpool.trap_exit(trapping)
            with thing.used():
                gevent.sleep(0)
                gevent.sleep(0)

        def run() -> None:
            gpool.trap_exit(trapping)
            try:
                pool.map(job, numbers(taken), concurrency=3)
            finally:
                counts.append((len(taken), len(gpool.self().mailbox)))

        counts: list[Any] = []
        with AtTurn(turn, lambda: getattr(client, cut)()):
            client = Client(run)
            settle()
        if counts:
            assert counts == [(len(taken), 0)]
        assert not any(gpool.is_alive(job) for job in jobs)
        assert_whole(pool, maker)

    def test_killed_takes_jobs_that_wait(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Their places in the queue are free."""
        holders = [Holder(pool), Holder(pool)]
        client = Client(pool.map, lambda thing, n: n, range(9))
        settle()
        assert pool.stats().waiting == 2
        client.kill()
        settle()
        assert pool.stats().waiting == 0
        for holder in holders:
            holder.let_go()
        assert_whole(pool, maker)

    def test_its_jobs_are_no_crashes_when_it_is_cut(
        self, pool: gpool.Pool[Any], crashes: list[telemetry.ProcessCrashed]
    ) -> None:
        """They were ended in order."""
        client = Client(pool.map, lambda thing, n: wait_for(thing, Gate()), range(9))
        settle()
        client.cut()
        settle()
        assert pool.stats().idle == 2
        assert crashes == []

    def test_of_a_caller_that_will_not_go(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Declared dead, its jobs die with it, though it never leaves."""
        gate = Gate()

        def items() -> Iterator[int]:
            yield 1
            while True:
                with contextlib.suppress(BaseException):
                    gate.wait()

        pid = gpool.spawn(pool.map, lambda thing, n: wait_for(thing, gate), items())
        settle()
        assert pool.stats().busy == 1
        gpool.exit(pid, "kill")
        settle()
        assert pid in gpool.zombies()
        assert_whole(pool, maker)

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"iterable": 5}, "iterable: expected an iterable, got 5"),
            ({"concurrency": 0}, "concurrency: expected 1 or more, or None, got 0"),
            ({"concurrency": -1}, "concurrency: expected 0 or more, got -1"),
            ({"concurrency": 1.5}, "concurrency: expected a whole number, got 1.5"),
            ({"timeout": "5"}, "timeout: expected seconds or None, got '5'"),
            ({"on_error": "log"}, "on_error: expected 'raise' or 'return', got 'log'"),
        ],
    )
    def test_refuses_bad_arguments(
        self, maker: Maker, arguments: dict[str, Any], error: str
    ) -> None:
        """Before anything is started."""
        pool: gpool.Pool[Any] = gpool.Pool(maker.resource())
        taken: list[int] = []
        with pytest.raises((TypeError, ValueError), match=error):
            pool.map(**{"fn": repr, "iterable": numbers(taken), **arguments})
        assert pool._ledger is None
        assert taken == []

    def test_of_a_pool_that_is_closed(self, pool: gpool.Pool[Any]) -> None:
        """Refused before an item is taken."""
        pool.stop()
        taken: list[int] = []
        with pytest.raises(gpool.PoolClosed):
            pool.map(lambda thing, n: n, numbers(taken))
        assert taken == []

    def test_sees_the_caller_s_context(self, pool: gpool.Pool[Any]) -> None:
        """Each job has a copy of it."""
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
        variable.set("mine")
        assert pool.map(lambda thing, n: variable.get(), [1]) == ["mine"]

    def test_is_shown_with_the_line_of_its_caller(self, pool: gpool.Pool[Any]) -> None:
        """Not with a line of gpool's."""
        [[holder]] = pool.map(lambda thing, n: pool.holders(), [1])
        assert "in TestMap.test_is_shown_with_the_line_of_its_caller" in holder.line


class TestBroadcast:
    def test_reaches_every_idle_worker_once(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """All at once, each in a process of its own."""
        gate, runners = Gate(), set()

        def job(thing: Any, value: int) -> Any:
            runners.add(gpool.self())
            gate.wait()
            return thing.number, value

        client = Client(pool.broadcast, job, 7)
        settle()
        assert len(runners) == pool.stats().busy == 2
        gate.open()
        settle()
        assert sorted(client.value) == [(1, 7), (2, 7)]
        assert_whole(pool, maker)

    def test_of_a_method_of_the_server(self, echoes: gpool.Pool[Echo]) -> None:
        """Taken from the class."""
        assert echoes.broadcast(Echo.say, 1) == [1, 1]

    def test_leaves_out_what_is_not_idle(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """In clients' hands, or not there at all; it never waits."""
        first = Holder(pool)
        assert pool.broadcast(lambda thing: thing) == [maker.made[0]]
        second = Holder(pool)
        assert pool.broadcast(lambda thing: thing) == []
        first.let_go()
        second.let_go()
        assert_whole(pool, maker)

    def test_of_a_suspended_pool(self, pool: gpool.Pool[Any]) -> None:
        """Nothing is lent, so nothing is reached."""
        ledger: Any = pool._ledger
        gpool.sys.suspend(ledger.man)
        assert pool.broadcast(repr) == []
        assert pool.stats().timed_out == 0

    def test_before_the_pool_has_started(self, clock: VirtualClock, maker: Maker) -> None:
        """There is no worker yet."""
        assert gpool.Pool(maker.resource()).broadcast(repr) == []

    def test_errors_stand_in_the_list(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Those of the others do not suffer."""

        def job(thing: Any) -> int:
            return 1 // (thing.number - 1)

        results = pool.broadcast(job)
        assert {type(result) for result in results} == {int, ZeroDivisionError}
        assert_whole(pool, maker)

    @pytest.mark.parametrize("kind", ["resource", "server"])
    def test_a_worker_that_dies_before_its_job_begins(
        self, clock: VirtualClock, maker: Maker, kind: str
    ) -> None:
        """It goes to no other one: that has its own."""
        worker: Any = maker.resource() if kind == "resource" else Echo
        pool = _up(gpool.Pool(worker, size=2))
        ledger: Any = pool._ledger
        victim = ledger.man.state.idle.row[0].pid
        with AtTurn(1, lambda: finish(victim, "killed")):
            results = pool.broadcast(Echo.say if kind == "server" else lambda thing: "done", 1)
        assert sum(isinstance(result, gpool.LeaseLost) for result in results) == 1
        assert len(results) == 2
        assert_whole(pool, maker if kind == "resource" else None)

    @pytest.mark.parametrize("cut", ["kill", "cut"])
    @pytest.mark.parametrize("turn", range(1, 9))
    def test_cut_short_at_any_turn(
        self, pool: gpool.Pool[Any], maker: Maker, turn: int, cut: str
    ) -> None:
        """It takes its jobs with it; no worker is lost."""

        def job(thing: Any) -> None:
            with thing.used():
                gevent.sleep(0)
                gevent.sleep(0)

        with AtTurn(turn, lambda: getattr(client, cut)()):
            client = Client(pool.broadcast, job)
            settle()
        assert client.done or turn < 3
        assert_whole(pool, maker)

    @pytest.mark.parametrize("turn", range(1, 9))
    def test_a_job_killed_at_any_turn(self, pool: gpool.Pool[Any], maker: Maker, turn: int) -> None:
        """The caller is told of it as of any error."""
        jobs: list[gpool.Pid] = []

        def job(thing: Any) -> int:
            jobs.append(gpool.self())
            gevent.sleep(0)
            gevent.sleep(0)
            return 1

        with AtTurn(turn, lambda: [gpool.exit(pid, "kill") for pid in jobs[:1]]):
            client = Client(pool.broadcast, job)
            settle()
        assert [r for r in client.value if not isinstance(r, gpool.ServerExited)].count(1) >= 1
        assert len(client.value) == 2
        assert_whole(pool, maker)


def victim_of(pool: gpool.Pool[Any], name: str) -> gpool.Pid | None:
    """Return a process of the pool."""
    ledger: Any = pool._ledger
    if name == "PoolMan":
        return ledger.man and ledger.man.pid
    return ledger.worker_sup if name == "WorkerSup" else next(s.pid for s in ledger.slots)


class TestSweep:
    @pytest.mark.parametrize("victim", ["PoolMan", "WorkerSup", "worker"])
    @pytest.mark.parametrize("kind", ["resource", "server", "debug"])
    @pytest.mark.parametrize("turn", range(1, 25, 2))
    def test_any_fall_at_any_turn(
        self, clock: VirtualClock, maker: Maker, quiet: None, kind: str, victim: str, turn: int
    ) -> None:
        """Every job ends, none is done twice on servers that live, and the pool is whole."""
        worker: Any = Echo if kind == "server" else maker.resource()
        pool = _up(gpool.Pool(worker, size=2, debug=kind == "debug"))
        done: list[int] = []

        def job(thing: Any, number: int) -> int:
            with contextlib.nullcontext() if kind == "server" else thing.used():
                if kind == "server":
                    thing.say(number)
                gevent.sleep(0)
                done.append(number)
            return number

        def strike() -> None:
            pid = victim_of(pool, victim)
            if pid is not None:
                gpool.exit(pid, "kill")

        with AtTurn(turn, strike):
            clients = [
                Client(pool.map, job, range(6), on_error="return", timeout=None),
                Client(pool.broadcast, job, 6),
                *[Client(pool.call, job, number, timeout=None) for number in (7, 8)],
            ]
            pids = [pool.cast(job, number) for number in (9, 10)]
            settle()
        clock.advance(5.0)
        lost = (gpool.LeaseLost, gpool.NoProcess, gpool.ServerExited)
        assert all(client.done for client in clients), clients
        results, broadcast = clients[0].value, clients[1].value
        assert all(r == n or isinstance(r, lost) for n, r in enumerate(results))
        assert all(r == 6 or isinstance(r, lost) for r in broadcast)
        assert all(c.error is None or isinstance(c.error, lost) for c in clients)
        assert not any(gpool.is_alive(pid) for pid in pids)
        assert len(set(done) - {6}) == len(done) - done.count(6)
        assert_whole(pool, None if kind == "server" else maker)


class TestTheForeignThread:
    def test_is_refused(self, pool: gpool.Pool[Any]) -> None:
        """Rule 12: by each of them, before anything is done."""
        errors: list[Any] = []
        uses: list[Callable[[], object]] = [
            lambda: pool.call(repr),
            lambda: pool.cast(repr),
            lambda: pool.map(lambda thing, n: n, [1]),
            lambda: pool.broadcast(repr),
        ]

        def use() -> None:
            for act in uses:
                try:
                    act()
                except gpool.WrongHub as error:
                    errors.append(error)

        thread = monkey.get_original("threading", "Thread")(target=use)
        thread.start()
        thread.join()
        assert len(errors) == 4
        check(pool)
