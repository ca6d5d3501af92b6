"""Greenlets that are no processes of ours: each becomes one on its first use of gpool."""

from __future__ import annotations

import gc

import gevent
import greenlet
import pytest
from gevent._hub_local import get_hub_if_exists

import gpool
from gpool import Down
from gpool.otp.pid import table, watch
from gpool.testing import settle
from tests.otp.actor import mailbox, reason_of, sleeper


class TestForeign:
    def test_the_main_greenlet_is_a_process(self):
        """The greenlet that runs the test has a pid, the same one each time."""
        assert gpool.self() is gpool.self()
        assert gpool.process_info(gpool.self()).initial_call == "main"
        assert gpool.is_alive(gpool.self())

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (lambda: 42, "normal"),
            (lambda: gpool.exit("boom"), "boom"),
            (lambda: gevent.getcurrent().kill(), "killed"),
        ],
    )
    def test_the_death_of_a_gevent_greenlet_is_told(self, body, reason):
        """A plain gevent.Greenlet is a process from its first use; its end is its death."""
        pids = []

        def run():
            pids.append(gpool.self())
            gevent.sleep(0)
            return body()

        gevent.spawn(run)
        gevent.sleep(0)
        ref = gpool.monitor(pids[0])
        assert mailbox() == [Down(ref, pids[0], reason)]

    def test_its_error_is_its_reason_and_stays_gevents(self, unnoticed_deaths):
        """The exception of a gevent.Greenlet is the reason; get() still raises it, with frames."""
        pids = []

        def run():
            pids.append(gpool.self())
            raise ValueError("boom")

        glet = gevent.spawn(run)
        settle()
        reason = reason_of(pids[0])
        assert reason.exception is glet.exception
        with pytest.raises(ValueError, match="boom"):
            glet.get()
        unnoticed_deaths.clear()

    def test_it_can_be_linked_and_signalled(self):
        """A signal ends a gevent.Greenlet, with its reason."""
        pids = []

        def run():
            pids.append(gpool.self())
            gevent.sleep(60.0)

        glet = gevent.spawn(run)
        settle()
        gpool.exit(pids[0], "boom")
        assert reason_of(pids[0]) == "boom"
        assert glet.dead

    def test_a_raw_greenlet_is_missed_when_it_is_collected(self):
        """The death of a raw greenlet is told when it goes away."""
        pids = []
        raw = greenlet.greenlet(lambda: pids.append(gpool.self()))
        raw.switch()
        ref = gpool.monitor(pids[0])
        assert not gpool.is_alive(pids[0])
        del raw
        gc.collect()
        assert mailbox() == [Down(ref, pids[0], "normal")]

    def test_a_raw_greenlet_may_be_collected_by_another_thread(self):
        """Its death is dealt with in its own thread, whoever lets go of it last."""
        pids = []
        kept = [gevent.spawn_raw(lambda: pids.append(gpool.self()))]
        settle()
        down = gpool.monitor(pids[0])
        hubs = []

        class Watch:
            def down(self, pid, reason):
                hubs.append(get_hub_if_exists())

        watch(pids[0], Watch())
        table.raw.clear()  # those who wait would find it first
        gevent.get_hub().threadpool.apply(kept.clear)
        assert gpool.receive(timeout=10.0) == Down(down, pids[0], "normal")
        assert hubs == [gevent.get_hub()]

    def test_a_raw_greenlet_that_is_kept_is_reaped_by_who_waits(self):
        """A raw greenlet that has ended, but is referenced, is noticed by those who wait."""
        pids = []
        raw = gevent.spawn_raw(lambda: pids.append(gpool.self()))
        settle()
        gpool.monitor(pids[0])
        assert raw.dead
        assert gpool.receive(timeout=0).reason == "normal"
        assert pids[0] not in table.raw

    def test_a_raw_greenlet_can_be_signalled(self):
        """A signal is thrown into a raw greenlet as into any other."""
        pids, log = [], []

        def run():
            pids.append(gpool.self())
            sleeper(log)

        raw = gevent.spawn_raw(run)
        settle()
        gpool.exit(pids[0], "boom")
        assert reason_of(pids[0]) == "boom"
        assert (log, raw.dead) == (["ExitSignal", "cleanup"], True)

    def test_a_loop_callback_may_use_gpool(self):
        """Code in a loop callback acts as the hub's process, which no link can end."""

        def callback():
            gpool.spawn_link(gpool.exit, "boom")
            hub = gpool.self()
            gpool.send(main, (hub, gpool.process_info(hub).initial_call))

        main = gpool.self()
        gevent.get_hub().loop.run_callback(callback)
        ((hub, call),) = mailbox()
        assert call == "hub"
        assert gpool.is_alive(hub)

    def test_a_signal_can_end_the_main_greenlet(self):
        """The main greenlet gets its exit where it waits, as an exception."""
        gpool.exit(gpool.spawn(gpool.receive), "normal")
        main = gpool.self()
        gpool.spawn(gpool.exit, main, "boom")
        with pytest.raises(gpool.ExitSignal) as signalled:
            gevent.sleep(60.0)
        assert signalled.value.reason == "boom"
