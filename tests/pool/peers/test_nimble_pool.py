"""Nimble_pool's forty-six tests: a worker's callbacks, and what happens to it in whose hands.

Its `init_worker` is our ``create``, its `handle_checkout` our ``check``, its
`handle_checkin` our ``is_dirty`` and ``reset``, its `handle_ping` our ``check`` by
``keepalive``, its `terminate_worker` our ``close``; its `handle_info` is a GenServer's.
"""

from __future__ import annotations

from typing import Any

import pytest

import gpool
from gpool import telemetry
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.peers.stage import Checks, Events, leave, manager, running
from tests.pool.workshop import Client, Echo, Holder, Maker, Thing, assert_whole

pytestmark = pytest.mark.usefixtures("clock")


def numbers(maker: Maker) -> list[int]:
    """Return which of the things that were ever made are still open."""
    return [thing.number for thing in maker.made if not thing.closed]


class Nosy(gpool.GenServer):
    """A server that does with a message what it is told to."""

    starts = 0  # over all of its class

    def init(self) -> None:
        """Count."""
        type(self).starts += 1
        self.heard: list[Any] = []

    def handle_info(self, message: Any) -> gpool.Stop | None:
        """Keep it, stop, or crash."""
        if message == "stop":
            return gpool.Stop("normal")
        if message == "crash":
            raise ValueError("crashed")
        self.heard.append(message)
        return None

    @gpool.call
    def what_it_heard(self) -> list[Any]:
        """Return the messages."""
        return self.heard


class TestStart:
    def test_01_without_a_worker(self) -> None:
        """There is none, or it is nothing that can be lent."""
        with pytest.raises(TypeError, match="worker"):
            gpool.Pool()  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=r"worker: expected a GenServer subclass, .* got 'x'"):
            gpool.Pool("x")  # type: ignore[call-overload]

    @pytest.mark.parametrize("size", ["1", 1.5, 0, -1])
    def test_02_with_a_bad_size(self, size: Any) -> None:
        """It is no whole number, or too small."""
        with pytest.raises((TypeError, ValueError), match="size: expected"):
            gpool.Pool(Echo, size=size)

    def test_04_a_worker_whose_init_returns_junk(self) -> None:
        """The start fails with OTP's word for it, where nimble_pool lists what would be right."""

        class Junk(gpool.GenServer):
            def init(self) -> Any:
                return 42

        pool = running(Junk, size=1)
        assert pool.stats().last_start_failure == ("bad_return_value", 42)

    def test_05_an_unknown_pool(self) -> None:
        """It is named in the error; so is one that has stopped."""
        with pytest.raises(gpool.UnknownPool, match="no pool 'nowhere' is running"):
            gpool.get_pool("nowhere")
        pool = running(Echo, size=1, name="was here")
        pool.stop()
        with pytest.raises(gpool.PoolClosed, match="'was here' is closed"):
            pool.checkout()

    def test_21_a_start_that_takes_time(self, clock: VirtualClock, maker: Maker) -> None:
        """A client that cannot wait so long raises; later it is served."""
        gate = Gate()
        maker.creates.append(gate.wait)
        pool = running(maker.resource(), size=1)
        client = Client(pool.checkout, timeout=0.05)
        clock.advance(0.05)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        gate.open()
        settle()
        assert pool.checkout(timeout=0).worker is maker.made[0]

    def test_22_a_start_that_fails(self, clock: VirtualClock, maker: Maker) -> None:
        """It is made again, after a moment; then a client is served."""
        maker.creates.append(OSError("down"))
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        clock.advance(0.1)
        assert holder.thing is maker.made[0]
        assert pool.stats().start_failures == 1

    def test_28_replacements_that_fail(self, clock: VirtualClock, maker: Maker) -> None:
        """Other clients are served between the attempts; the third one succeeds."""
        pool = running(maker.resource(), size=2)
        maker.creates.extend([OSError("down")] * 2)
        lease = pool.checkout()
        lease.discard()
        settle()
        for attempt in (1, 2):
            assert pool.stats().start_failures == attempt
            pool.checkout(timeout=0).checkin()
            clock.advance(0.02)
        assert (pool.stats().start_failures, pool.stats().idle) == (2, 2)


class TestCheckout:
    def test_03_from_the_start_to_the_stop(self, maker: Maker) -> None:
        """Made, lent, returned, closed, in that order; nothing is left in the mailbox."""
        steps: list[str] = []
        resource = gpool.Resource(
            create=lambda: steps.append("create"),
            check=lambda _: steps.append("check"),
            reset=lambda _: steps.append("reset"),
            close=lambda _: steps.append("close"),
        )
        pool = running(resource, size=1, check_after=0)

        def use(thing: None) -> str:
            steps.append("use")
            return "result"

        assert pool.transaction(use) == "result"
        settle()
        pool.stop()
        assert steps == ["create", "check", "use", "reset", "close"]
        with pytest.raises(gpool.ReceiveTimeout):
            gpool.receive(timeout=0)

    def test_06_a_manager_killed_during_the_check(self, clock: VirtualClock, maker: Maker) -> None:
        """Where nimble_pool's client exits, ours keeps its place and is served later."""
        gate = Gate()
        pool = running(maker.resource(check=Checks(lambda _: gate.wait())), size=1, check_after=0)
        holder = Holder(pool, timeout=None)
        assert holder.thing is None
        gpool.exit(manager(pool), "kill")
        clock.advance(5.0)  # `shutdown`: the check hangs
        assert holder.thing is maker.made[1]
        assert maker.made[0].closed
        holder.let_go()
        assert_whole(pool, maker)

    def test_07_a_client_that_raises(self, maker: Maker) -> None:
        """The same exception comes out; what it held is closed, and replaced once."""
        pool = running(maker.resource(), size=1)
        error = ValueError("mine")
        with pytest.raises(ValueError, match="mine") as caught, pool.checkout():
            raise error
        assert caught.value is error
        settle()
        assert numbers(maker) == [2]
        pool.checkout(timeout=0).checkin()
        assert_whole(pool, maker)

    def test_08_a_client_that_is_killed(self, maker: Maker) -> None:
        """What it held is closed, and replaced once."""
        pool = running(maker.resource(), size=1)
        holder = Holder(pool)
        holder.kill()
        settle()
        assert numbers(maker) == [2]
        pool.checkout(timeout=0).checkin()
        assert_whole(pool, maker)

    def test_09_a_manager_suspended_past_the_deadline(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Who cannot wait raises; nothing of its request is left when it resumes."""
        pool = running(maker.resource(), size=1)
        gpool.sys.suspend(manager(pool))
        client = Client(pool.checkout, timeout=1.0)
        with pytest.raises(gpool.CheckoutTimeout):
            pool.checkout(timeout=0)
        clock.advance(1.0)
        assert isinstance(client.error, gpool.CheckoutTimeout)
        gpool.sys.resume(manager(pool))
        settle()
        assert (pool.stats().idle, pool.stats().waiting) == (1, 0)
        assert numbers(maker) == [1]

    def test_10_a_client_that_times_out_in_the_queue(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """Nothing is closed or made for it; the next one is served."""
        pool = running(maker.resource(), size=1)
        holder, late = Holder(pool), Holder(pool, timeout=1.0)
        clock.advance(1.0)
        assert isinstance(late.error, gpool.CheckoutTimeout)
        holder.let_go()
        pool.checkout(timeout=0).checkin()
        assert len(maker.made) == 1
        assert numbers(maker) == [1]

    def test_11_two_clients_of_one_worker(self, maker: Maker) -> None:
        """The second one is served when the first has returned it."""
        pool = running(maker.resource(), size=1)
        first, second = Holder(pool), Holder(pool)
        assert second.thing is None
        first.let_go()
        assert second.thing is first.thing

    @pytest.mark.parametrize("lazy", [False, True])
    def test_12_and_13_three_clients_of_two_workers(
        self, clock: VirtualClock, maker: Maker, lazy: bool
    ) -> None:
        """The third one times out, the others finish; no third worker is ever made."""
        pool = running(maker.resource(), size=2, lazy=lazy)
        holders = [Holder(pool), Holder(pool)]
        third = Holder(pool, timeout=0.001)
        clock.advance(0.001)
        assert isinstance(third.error, gpool.CheckoutTimeout)
        for holder in holders:
            holder.let_go()
            assert holder.error is None
        assert (len(maker.made), maker.peak) == (2, 2)

    def test_14_two_in_a_row(self, maker: Maker) -> None:
        """They get worker 1, then worker 2, if the one used first is lent first."""
        pool = running(maker.resource(), size=2, strategy="fifo")
        assert [leave(pool).number for _ in range(4)] == [1, 2, 1, 2]

    def test_15_two_in_a_row_if_it_is_lazy(self, maker: Maker) -> None:
        """They get worker 1 both times; worker 2 is never made."""
        pool = running(maker.resource(), size=2, lazy=True)
        assert maker.made == []
        assert [leave(pool).number for _ in range(2)] == [1, 1]
        assert len(maker.made) == 1

    def test_16_two_at_once_if_it_is_lazy(self, maker: Maker) -> None:
        """Worker 2 is made on demand."""
        pool = running(maker.resource(), size=2, lazy=True)
        first, second = Holder(pool), Holder(pool)
        assert (first.thing.number, second.thing.number) == (1, 2)

    def test_23_a_check_that_finds_it_dead(self, maker: Maker) -> None:
        """It is closed and replaced, and the same client is served."""
        pool = running(maker.resource(check=Checks(False)), size=1, check_after=0)
        holder = Holder(pool)
        assert holder.thing is maker.made[1]
        assert numbers(maker) == [2]

    def test_29_a_check_that_raises(self, maker: Maker) -> None:
        """It is told; the client is served with the replacement."""
        error = OSError("gone")
        with Events() as events:
            pool = running(maker.resource(check=Checks(error)), size=1, check_after=0)
            holder = Holder(pool)
        assert holder.thing is maker.made[1]
        assert [(e.hook, e.exception) for e in events.of(telemetry.HookFailed)] == [
            ("check", error)
        ]

    def test_34_a_client_that_raises_and_broke_nothing(self, maker: Maker) -> None:
        """`{:skip, exception}`: what was lent is lent again."""
        pool = running(maker.resource(reset=maker.reset), size=1)
        with pytest.raises(ValueError, match="skip"), pool.checkout():
            raise ValueError("skip")
        settle()
        assert leave(pool) is maker.made[0]
        assert numbers(maker) == [1]

    def test_35_a_client_that_is_turned_away(self, maker: Maker) -> None:
        """Before it waits: nothing is checked or made for it, and the pool is as it was."""
        checks = Checks()
        pool = running(maker.resource(check=checks), size=1, max_waiting=0, check_after=0)
        holder, client = Holder(pool), Client(pool.checkout)
        settle()
        assert isinstance(client.error, gpool.PoolFull)
        assert (checks.seen, len(maker.made)) == ([1], 1)
        holder.let_go()
        assert_whole(pool, maker)


class TestCheckin:
    def test_24_one_that_comes_back_dirty(self, maker: Maker) -> None:
        """The client has its result; it is closed and replaced."""
        pool = running(maker.resource(is_dirty=lambda thing: thing.dirty), size=1)

        def soil(thing: Thing) -> str:
            thing.dirty = True
            return "result"

        assert pool.transaction(soil) == "result"
        settle()
        assert numbers(maker) == [2]
        pool.checkout(timeout=0).checkin()

    def test_30_a_reset_that_raises(self, maker: Maker) -> None:
        """The client keeps its result; it is told, closed and replaced."""
        pool = running(maker.resource(reset=maker.reset), size=1)
        maker.resets.append(OSError("gone"))
        with Events() as events:
            assert pool.transaction(lambda thing: thing.number) == 1
            settle()
        assert [event.hook for event in events.of(telemetry.HookFailed)] == ["reset"]
        assert numbers(maker) == [2]

    def test_32_a_close_that_raises(self, maker: Maker) -> None:
        """It counts as closed, and the replacement starts all the same."""
        maker.closes.append(OSError("gone"))
        with Events() as events:
            pool = running(maker.resource(), size=1)
            pool.checkout().discard()
            settle()
        assert [event.hook for event in events.of(telemetry.HookFailed)] == ["close"]
        assert (pool.stats().idle, pool.stats().closing) == (1, 0)
        assert pool.checkout(timeout=0).worker is maker.made[1]

    def test_26_what_close_gets_of_a_client_that_raised(self, maker: Maker) -> None:
        """The very thing that was made; why, listeners are told; the pool lives."""
        closed: list[Thing] = []
        with Events() as events:
            pool = running(gpool.Resource(create=maker.create, close=closed.append), size=1)
            error = ValueError("mine")
            leave(pool, error)
        assert closed == [maker.made[0]]
        assert [e.reason for e in events.of(telemetry.WorkerStopping)] == [("left_by", error)]
        assert pool.stats().idle == 1

    def test_27_what_close_gets_of_a_client_that_changed_it(self, maker: Maker) -> None:
        """The thing as the client has left it."""
        closed: list[bool] = []
        resource = gpool.Resource(create=maker.create, close=lambda t: closed.append(t.dirty))
        pool = running(resource, size=1)

        def soil(thing: Thing) -> None:
            thing.dirty = True
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            pool.transaction(soil)
        settle()
        assert closed == [True]


class TestMessages:
    def test_17_one_for_every_idle_worker(self) -> None:
        """Whoever wants to tell them all does: `broadcast` reaches each idle one once."""
        pool = running(Nosy, size=3)
        held = pool.checkout()
        pool.broadcast(lambda server: gpool.send(server, "news"))
        settle()
        heard = pool.broadcast(Nosy.what_it_heard)
        assert heard == [["news"]] * 2
        assert held.worker.what_it_heard() == []

    @pytest.mark.parametrize("kind", ["text", "Down", "tuple", "Exit"])
    def test_17_to_20_one_that_nobody_expects(self, maker: Maker, kind: str) -> None:
        """The manager drops it and says so; nimble_pool passes it on to its workers."""
        pool = running(maker.resource(), size=1)
        ref = gpool.monitor(manager(pool))
        messages = {"text": "text", "Down": gpool.Down(ref, gpool.self(), "x"), "tuple": (ref, 1)}
        with Events() as events:
            if kind == "Exit":
                gpool.exit(manager(pool), "strange")
            else:
                gpool.send(manager(pool), messages[kind])
            settle()
        [unexpected] = events.of(telemetry.UnexpectedMessage)
        if kind == "Exit":
            assert isinstance(unexpected.message, gpool.Exit)
        else:
            assert unexpected.message is messages[kind]
        assert pool.stats().epoch == 1
        assert_whole(pool, maker)

    @pytest.mark.parametrize("message", ["stop", "crash"])
    def test_25_and_31_one_that_ends_the_worker(self, message: str) -> None:
        """By a stop or by an error: it is replaced, and the next client is served."""
        pool = running(Nosy, size=1)
        before, starts = pool.transaction(lambda server: server.pid), Nosy.starts
        gpool.send(before, message)
        settle()
        assert not gpool.is_alive(before)
        assert Nosy.starts == starts + 1
        assert pool.checkout(timeout=0).worker.what_it_heard() == []


class TestPing:
    """`keepalive`: who is idle for so long is checked where it lies."""

    def test_36_only_those_that_are_idle_for_so_long(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """One that was just used is not."""
        checks = Checks()
        pool = running(maker.resource(check=checks), size=2, keepalive=10.0, check_after=None)
        clock.advance(6.0)
        assert leave(pool).number == 2
        clock.advance(4.0)
        assert checks.seen == [1]
        clock.advance(6.0)
        assert checks.seen == [1, 2]

    def test_37_that_changes_it(self, clock: VirtualClock, maker: Maker) -> None:
        """The next client sees that."""
        checks = Checks(lambda thing: setattr(thing, "dirty", "pinged"))
        pool = running(maker.resource(check=checks), size=1, keepalive=10.0, check_after=None)
        clock.advance(10.0)
        assert leave(pool).dirty == "pinged"

    def test_38_that_finds_it_dead(self, clock: VirtualClock, maker: Maker) -> None:
        """It is closed for that reason and replaced; the pool lives."""
        pool = running(maker.resource(check=Checks(False)), size=1, keepalive=10.0)
        with Events() as events:
            clock.advance(10.0)
        assert [e.reason for e in events.of(telemetry.WorkerStopping)] == ["check_failed"]
        assert numbers(maker) == [2]
        assert_whole(pool, maker)

    def test_39_that_has_the_pool_stopped(self, clock: VirtualClock, maker: Maker) -> None:
        """By a process of its own, since it cannot wait for its own end: all are closed."""
        checks = Checks(lambda _: gpool.spawn(pool.stop))
        pool = running(maker.resource(check=checks), size=2, keepalive=10.0)
        clock.advance(10.0)
        assert pool.status().state == "stopped"
        assert (maker.open, maker.faults) == (0, [])

    @pytest.mark.parametrize("strategy", ["lifo", "fifo"])
    def test_40_keeps_their_order(self, clock: VirtualClock, maker: Maker, strategy: Any) -> None:
        """Round after round, and then they are lent as if there had been none."""
        checks = Checks()
        pool = running(
            maker.resource(check=checks), size=3, keepalive=10.0, check_after=None,
            strategy=strategy,
        )  # fmt: skip
        clock.advance(1.0)
        first = leave(pool).number
        clock.advance(30.0)
        assert len(checks.seen) == 9
        assert checks.seen[:3] == checks.seen[3:6] == checks.seen[6:]
        order = [Holder(pool).thing.number for _ in range(3)]
        assert order.index(first) == (0 if strategy == "lifo" else 2)

    def test_41_of_two_of_three(self, clock: VirtualClock, maker: Maker) -> None:
        """There is no `max_idle_pings`, it is one: the others can be lent meanwhile."""
        gate = Gate()
        checks = Checks(*[lambda _: gate.wait()] * 2)
        pool = running(maker.resource(check=checks), size=3, keepalive=10.0, check_after=None)
        clock.advance(5.0)
        leave(pool)
        clock.advance(5.0)
        assert checks.seen == [1]
        assert leave(pool).number == 3
        gate.open()
        settle()
        assert checks.seen == [1, 2]
        assert_whole(pool, maker)

    def test_42_before_one_is_due(self, clock: VirtualClock, maker: Maker) -> None:
        """A look at one that is not yet due does not lose it."""
        checks = Checks()
        pool = running(maker.resource(check=checks), size=2, keepalive=10.0, check_after=None)
        clock.advance(9.0)
        leave(pool)
        for _ in range(3):
            clock.advance(1.0)
        assert checks.seen == [1]
        assert pool.stats().idle == 2
        assert_whole(pool, maker)


class TestStop:
    def test_43_ends_the_workers_before_their_manager(self, maker: Maker) -> None:
        """All with the same reason."""
        pool = running(Echo, size=2)
        ledger: Any = pool._ledger
        pids = [slot.pid for slot in ledger.slots]
        for pid in [*pids, manager(pool)]:
            gpool.monitor(pid)
        pool.stop()
        settle()
        order = [gpool.receive(timeout=0) for _ in range(3)]
        assert {down.process for down in order[:2]} == set(pids)
        assert [down.reason for down in order] == ["shutdown"] * 3


class TestCancelled:
    """`handle_cancelled`: listeners are told of each client that did not get to its end."""

    def test_44_one_that_raised(self, maker: Maker) -> None:
        """Why its worker has to go."""
        pool = running(maker.resource(), size=1)
        error = ValueError("mine")
        with Events() as events:
            leave(pool, error)
        [stopping] = events.of(telemetry.WorkerStopping)
        assert stopping.reason == ("left_by", error)

    def test_45_one_that_timed_out_in_the_queue(self, clock: VirtualClock, maker: Maker) -> None:
        """Who it was, and that it was time."""
        pool = running(maker.resource(), size=1)
        holder, late = Holder(pool), Holder(pool, timeout=1.0)
        with Events() as events:
            clock.advance(1.0)
        [failed] = events.of(telemetry.CheckoutFailed)
        assert (failed.process, failed.reason) == (late.pid, "timeout")
        holder.let_go()

    def test_46_one_that_timed_out_while_the_manager_was_suspended(
        self, clock: VirtualClock, maker: Maker
    ) -> None:
        """It is told of when the manager goes on; the next client is served."""
        pool = running(maker.resource(), size=1)
        gpool.sys.suspend(manager(pool))
        late = Holder(pool, timeout=1.0)
        clock.advance(1.0)
        assert isinstance(late.error, gpool.CheckoutTimeout)
        with Events() as events:
            gpool.sys.resume(manager(pool))
            settle()
        [failed] = events.of(telemetry.CheckoutFailed)
        assert (failed.process, failed.reason) == (late.pid, "timeout")
        pool.checkout(timeout=0).checkin()
