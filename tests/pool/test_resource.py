"""Resources: dirty until shown clean, and never cleaned up by a client."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import gevent
import pytest

import gpool
from gpool import telemetry
from gpool.pool.slot import NOTHING
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import Client, Events, Holder, Maker, assert_whole


def running(maker: Maker, size: int = 1, **hooks: Any) -> gpool.Pool[Any]:
    """Return a running pool of things with these hooks."""
    options = {name: hooks.pop(name) for name in list(hooks) if name.endswith("timeout")}
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(**hooks), size=size, **options)
    pool.start()
    settle()
    return pool


def leave(pool: gpool.Pool[Any], error: BaseException | None) -> None:
    """Leave a `with` block by an exception, or not."""
    lease = pool.checkout()
    lease.__enter__()
    lease.__exit__(type(error) if error else None, error, None)
    settle()


class TestInit:
    @pytest.mark.parametrize("hook", ["create", "close", "reset", "is_dirty", "needs_reset"])
    def test_refuses_what_cannot_be_called(self, hook: str) -> None:
        """Bad input: expected and got, at construction."""
        with pytest.raises(TypeError, match=f"{hook}: expected a callable, got 3"):
            gpool.Resource(**{"create": list, hook: 3})

    def test_create_is_required(self) -> None:
        """The others may be left out."""
        with pytest.raises(TypeError, match="create: expected a callable, got None"):
            gpool.Resource(create=None)  # type: ignore[arg-type]


class TestVerdict:
    @pytest.mark.parametrize(
        ("error", "hooks", "kept"),
        [
            (None, {}, True),
            (ValueError(), {}, False),  # no reset: nobody knows in what state it is
            (ValueError(), {"reset": True}, True),
            (KeyboardInterrupt(), {"reset": True}, False),
            (gevent.Timeout(), {"reset": True}, False),
            (gevent.GreenletExit(), {"reset": True}, False),
            (GeneratorExit(), {"reset": True}, False),  # nobody knows what its consumer did
            (gevent.Timeout(), {"reset": True, "is_broken": False}, True),
            (GeneratorExit(), {"reset": True, "is_broken": False}, True),
            (ValueError(), {"reset": True, "is_broken": True}, False),
            (ValueError(), {"is_broken": False}, False),
            (None, {"is_dirty": True}, False),
            (None, {"is_dirty": False}, True),
            (ValueError(), {"reset": True, "is_dirty": True}, False),
            (None, {"reset": True, "needs_reset": True}, True),
        ],
    )
    def test_dirty_until_shown_clean(
        self, clock: VirtualClock, maker: Maker, error: Any, hooks: dict[str, bool], kept: bool
    ) -> None:
        """Rule 7: what ends the block, and the hooks, decide."""
        answers: dict[str, Any] = {
            "reset": lambda _: maker.reset,
            "is_dirty": lambda yes: lambda thing: yes,
            "is_broken": lambda yes: lambda error, thing: yes,
            "needs_reset": lambda yes: lambda thing: yes,
        }
        pool = running(maker, **{name: answers[name](value) for name, value in hooks.items()})
        leave(pool, error)
        assert maker.made[0].closed is not kept
        assert maker.made[0].resets == (kept and "reset" in hooks)
        assert_whole(pool, maker)

    @pytest.mark.parametrize("error", [None, ValueError()])
    def test_what_needs_no_reset_goes_straight_back(
        self, clock: VirtualClock, maker: Maker, error: Any
    ) -> None:
        """`needs_reset` says so: neither reset nor closed, whatever Exception ended the block."""
        pool = running(maker, reset=maker.reset, needs_reset=lambda thing: False)
        leave(pool, error)
        assert (maker.made[0].resets, maker.made[0].closed) == (0, False)
        assert_whole(pool, maker)

    def test_a_generator_whose_consumer_was_cut_short(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """It was at a ``yield``, but its consumer in the middle of a conversation."""
        pool = running(maker, reset=maker.reset)

        def lent() -> Generator[Any, None, None]:
            with pool.checkout() as thing:
                yield thing

        def client() -> None:
            for _ in lent():
                gpool.receive()  # by way of the thing

        one = gevent.spawn(client)
        settle()
        assert pool.stats().busy == 1
        one.kill()
        settle()
        assert maker.made[0].closed
        assert_whole(pool, maker)

    def test_a_swallowed_timeout_shows(self, clock: VirtualClock, maker: Maker) -> None:
        """Rule 7: `is_dirty` runs at every checkin, before the first write."""
        pool = running(maker, is_dirty=lambda thing: thing.dirty)
        with pool.checkout() as thing:
            thing.dirty = True
        settle()
        assert thing.closed
        lease = pool.checkout()
        lease.resource.dirty = True
        lease.checkin()
        settle()
        assert maker.made[1].closed

    @pytest.mark.parametrize("hook", ["is_dirty", "is_broken"])
    def test_a_hook_that_raises(self, clock: VirtualClock, maker: Maker, hook: str) -> None:
        """Rule 13: it becomes an event, the thing is closed, the client does not notice."""

        def raises(*args: object) -> bool:
            raise ZeroDivisionError

        pool = running(maker, **{hook: raises}, reset=maker.reset)
        with Events() as events:
            leave(pool, ValueError())
        [event] = events.of(telemetry.HookFailed)
        assert isinstance(event.exception, ZeroDivisionError)
        assert maker.made[0].closed
        assert_whole(pool, maker)

    def test_a_hook_that_is_interrupted(self, clock: VirtualClock, maker: Maker) -> None:
        """The caller keeps its exception, the slot its way."""

        def interrupted(thing: object) -> bool:
            raise KeyboardInterrupt

        pool = running(maker, is_dirty=interrupted)
        lease = pool.checkout()
        with pytest.raises(KeyboardInterrupt):
            lease.checkin()
        settle()
        assert maker.made[0].closed

    def test_a_hook_that_gives_it_back_itself(self, clock: VirtualClock, maker: Maker) -> None:
        """Once is enough."""
        leases: list[Any] = []

        def is_dirty(thing: object) -> bool:
            if leases:
                leases.pop().discard()
            return False

        pool = running(maker, is_dirty=is_dirty)
        leases.append(pool.checkout())
        leases[0].checkin()
        settle()
        assert maker.made[0].closed
        assert_whole(pool)


class TestCreate:
    def test_runs_in_a_process_of_its_own(self, clock: VirtualClock, maker: Maker) -> None:
        """Rule 5: a client's kill or timeout cannot interrupt it."""
        where: list[Any] = []
        maker.creates.append(lambda: where.append(gpool.self()))
        pool = running(maker)
        [slot] = pool._ledger.slots  # type: ignore[union-attr]
        assert where == [slot.pid]

    @pytest.mark.parametrize("error", [OSError("down"), gevent.Timeout(), gpool.ExitSignal("no")])
    def test_that_fails_is_a_failed_start(
        self, clock: VirtualClock, maker: Maker, error: BaseException
    ) -> None:
        """Rule 9: whatever it raises; no crash report, no fall, another try."""
        maker.creates.append(error)
        with Events() as events:
            pool = running(maker)
            clock.advance(0.1)
        assert len(events.of(telemetry.WorkerStartFailed)) == 1
        assert events.of(telemetry.ProcessCrashed) == []
        assert events.of(telemetry.SupervisorReport) == []
        assert (pool.stats().start_failures, pool.stats().epoch) == (1, 1)
        assert_whole(pool, maker)

    def test_that_swallows_its_time_limit_has_failed(
        self, clock: VirtualClock, maker: Maker, quiet: None
    ) -> None:
        """Too late is not started: never lent, closed, and starts back off as after any failure."""

        def late() -> None:
            with contextlib.suppress(gevent.GreenletExit):
                Gate().wait()

        maker.creates.extend([late] * 100)
        pool = running(maker, start_timeout=1.0)
        waiter = Holder(pool, timeout=None)
        clock.advance(1.0)
        stats = pool.stats()
        assert (stats.start_failures, stats.breaker, waiter.thing) == (1, "open", None)
        assert (maker.made[0].closed, maker.open) == (True, 0)
        clock.advance(60.0)
        assert maker.peak == 1
        maker.creates.clear()
        clock.advance(10.0)
        assert waiter.thing is maker.made[-1]
        waiter.let_go()
        assert_whole(pool, maker)

    def test_that_swallows_its_exit_and_succeeds_at_last(
        self, clock: VirtualClock, maker: Maker, quiet: None
    ) -> None:
        """Its process was given up long ago; what it makes then is closed all the same."""
        gate = Gate()

        def stubborn() -> None:
            while not gate.is_open:
                with contextlib.suppress(gevent.GreenletExit):
                    gate.wait()

        maker.creates.append(stubborn)
        pool = running(maker, start_timeout=1.0)
        clock.advance(2.0)  # another one has been started
        assert (pool.stats().start_failures, pool.stats().idle) == (1, 1)
        gate.open()
        settle()
        assert (maker.open, maker.faults) == (1, [])
        assert_whole(pool)


class TestHibernation:
    """A worker has a greenlet only while it creates, checks, resets or closes."""

    def test_of_idle_and_of_lent_ones(self, clock: VirtualClock, maker: Maker) -> None:
        """What its resource is used for is none of its business."""
        pool = running(maker, size=2)
        lease = pool.checkout()
        assert [w.pid.greenlet for w in pool._ledger.slots] == [None, None]
        assert all(gpool.is_alive(w.pid) for w in pool._ledger.slots)
        lease.checkin()
        pool.stop()
        assert (maker.open, maker.faults) == (0, [])

    def test_ends_for_each_chore(self, clock: VirtualClock, maker: Maker) -> None:
        """A check takes a greenlet for as long as it lasts; so does a close."""
        gates = [Gate(), Gate()]
        maker.checks.append(gates[0].wait)
        maker.closes.append(gates[1].wait)
        pool = gpool.Pool(maker.resource(check=maker.check), size=1, check_after=0)
        pool.start()
        settle()
        (slot,) = pool._ledger.slots
        holder = Holder(pool)
        assert slot.pid.greenlet is not None
        gates[0].open()
        settle()
        assert slot.pid.greenlet is None
        holder.let_go()
        stopper = Client(pool.stop)
        settle()
        assert slot.pid.greenlet is not None
        gates[1].open()
        settle()
        assert stopper.done
        assert maker.open == 0

    def test_begins_a_moment_after_a_reset(self, clock: VirtualClock, maker: Maker) -> None:
        """They come with every checkin, and a greenlet for each would cost as much again."""
        pool = running(maker, reset=maker.reset)
        (slot,) = pool._ledger.slots
        for _ in range(3):
            pool.checkout().checkin()
            settle()
            greenlet = slot.pid.greenlet
            assert greenlet is not None
            clock.advance(0.05)
            pool.checkout().checkin()
            settle()
            assert slot.pid.greenlet is greenlet
            clock.advance(0.1)
            assert slot.pid.greenlet is None
        assert maker.made[0].resets == 6

    def test_goes_on_after_a_message_that_nobody_should_send(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """It is reported, as by any server."""
        pool = running(maker)
        (slot,) = pool._ledger.slots
        with Events() as events:
            gpool.send(slot.pid, "what?")
            settle()
        assert events == [telemetry.UnexpectedMessage(slot.pid, "what?")]
        assert slot.pid.greenlet is None


class TestReset:
    def test_runs_in_the_owner_and_keeps_the_client_out(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Rule 5: the checkin is O(1); the thing is lent again when it is reset."""
        gate = Gate()
        maker.resets.append(gate.wait)
        pool = running(maker, reset=maker.reset)
        holder = Holder(pool)
        holder.let_go()
        assert holder.done
        waiter = Holder(pool)
        assert (waiter.thing, pool.stats().resetting) == (None, 1)
        holder.kill()
        gate.open()
        settle()
        assert waiter.thing is maker.made[0]

    @pytest.mark.parametrize("error", [OSError("gone"), gevent.Timeout(), gevent.GreenletExit()])
    def test_that_fails_closes_it(
        self, clock: VirtualClock, maker: Maker, error: BaseException
    ) -> None:
        """Whatever it raises: closed and replaced."""
        maker.resets.append(error)
        pool = running(maker, reset=maker.reset)
        pool.checkout().checkin()
        settle()
        clock.advance(1.0)
        assert maker.made[0].closed
        assert_whole(pool, maker)

    @pytest.mark.parametrize("limit", [0, 2.0])
    def test_that_takes_too_long_closes_it(
        self, clock: VirtualClock, maker: Maker, limit: float
    ) -> None:
        """`finish_timeout` bounds it; with 0 there is no reset that could."""
        maker.resets.append(Gate().wait)
        pool = running(maker, reset=maker.reset, finish_timeout=limit)
        pool.checkout().checkin()
        settle()
        clock.advance(limit + 5.1)
        assert pool.stats().idle == 1
        assert pool.stats().resetting == 0

    def test_not_after_a_discard(self, clock: VirtualClock, maker: Maker) -> None:
        """What will be closed need not be clean."""
        pool = running(maker, reset=maker.reset)
        pool.checkout().discard()
        settle()
        assert maker.made[0].resets == 0


class TestClose:
    def test_by_the_owner(self, clock: VirtualClock, maker: Maker) -> None:
        """Rule 6: exactly once, and the slot is freed after it."""
        gate = Gate()
        maker.closes.append(gate.wait)
        pool = running(maker)
        pool.checkout().discard()
        settle()
        assert pool.stats().closing == 1
        gate.open()
        settle()
        assert (pool.stats().closing, pool.stats().idle) == (0, 1)
        assert maker.faults == []

    def test_that_raises_is_reported(self, clock: VirtualClock, maker: Maker) -> None:
        """The thing counts as closed."""
        maker.closes.append(OSError("already"))
        pool = running(maker)
        with Events() as events:
            pool.checkout().discard()
            settle()
        [event] = events.of(telemetry.HookFailed)
        assert event.hook == "close"
        assert pool.stats().idle == 1

    def test_without_a_close(self, clock: VirtualClock) -> None:
        """There is nothing to do."""
        pool: gpool.Pool[Any] = gpool.Pool(gpool.Resource(create=list), size=1)
        pool.checkout().discard()
        settle()
        assert pool.stats().idle == 1
        pool.stop()

    def test_of_an_idle_one_whose_owner_is_killed(self, clock: VirtualClock, maker: Maker) -> None:
        """Rule 6: begun by another process, since the first had no time to."""
        pool = running(maker)
        [slot] = pool._ledger.slots  # type: ignore[union-attr]
        gpool.exit(slot.pid, "kill")
        settle()
        assert slot.thing is NOTHING
        assert maker.made[0].closed
        assert_whole(pool, maker)

    def test_of_one_that_is_held_when_its_owner_is_killed(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Never under its holder's hands; the slot stays taken."""
        pool = running(maker)
        holder, waiter = Holder(pool), Holder(pool)
        [slot] = pool._ledger.slots  # type: ignore[union-attr]
        gpool.exit(slot.pid, "kill")
        settle()
        assert (maker.open, waiter.thing, pool.stats().lost) == (1, None, 1)
        holder.let_go()
        assert waiter.thing is maker.made[1]
        assert (maker.peak, maker.faults) == (1, [])

    def test_that_always_ends_its_own_process(
        self, clock: VirtualClock, maker: Maker, quiet: None
    ) -> None:
        """Not begun again for ever: it counts as unclosed, and the slot is freed."""
        maker.closes.extend([lambda: gpool.exit(gpool.self(), "kill")] * 100)
        pool = running(maker)
        pool.checkout().discard()
        settle()
        stats = pool.stats()
        assert (stats.unclosed, stats.closing, stats.idle) == (1, 0, 1)
        maker.closes.clear()

    @pytest.mark.parametrize("how", ["kill", "cut"])
    def test_a_client_cannot_interrupt_it(
        self, clock: VirtualClock, maker: Maker, how: str
    ) -> None:
        """Rule 5: clients never clean up."""
        gate = Gate()
        maker.closes.append(gate.wait)
        pool = running(maker)

        def client() -> None:
            pool.checkout().discard()
            gevent.sleep(0)
            Gate().wait()

        one = Client(client)
        settle()
        getattr(one, how)()
        settle()
        assert pool.stats().closing == 1
        gate.open()
        settle()
        assert_whole(pool, maker)


@pytest.mark.parametrize(
    "swallow", [gevent.GreenletExit, BaseException], ids=["exit", "everything"]
)
def test_a_driver_that_swallows_the_kill(
    clock: VirtualClock, maker: Maker, swallow: type[BaseException]
) -> None:
    """Scenario 3: decided by the owner's death, not by the exception that was seen."""
    pool = running(maker)

    def client() -> None:
        lease = pool.checkout()
        try:
            gpool.receive()
        except swallow:
            lease.checkin()  # it looks clean from here

    one = Client(client)
    settle()
    one.kill()
    settle()
    assert maker.made[0].closed
    assert_whole(pool, maker)


def test_a_driver_that_swallows_the_kill_of_who_uses_a_generator(
    clock: VirtualClock, maker: Maker
) -> None:
    """A ``GeneratorExit`` says nothing of the exit, even to a hook that takes it lightly."""
    pool = running(maker, reset=maker.reset, is_broken=lambda error, thing: False)

    def lent() -> Generator[None, None, None]:
        with pool.checkout():
            with contextlib.suppress(BaseException):
                gpool.receive()
            yield

    def client() -> None:
        lender = lent()
        next(lender)
        lender.close()

    one = Client(client)
    settle()
    one.kill()
    settle()
    assert maker.made[0].closed
    assert_whole(pool, maker)
