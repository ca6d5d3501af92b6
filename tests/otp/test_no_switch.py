"""The kit's own work never switches greenlets: seen by a tracer, not by trust."""

from __future__ import annotations

import contextlib

import gevent
import greenlet
import pytest

import gpool
from gpool.otp import signal
from gpool.otp.gen_server import From, send_cast
from gpool.testing import settle
from tests.otp.actor import Actor


@contextlib.contextmanager
def no_switch():
    """Fail if anything switches to another greenlet in the block."""
    switches = []
    before = greenlet.settrace(lambda event, args: switches.append((event, args)))
    try:
        yield
    finally:
        greenlet.settrace(before)
    assert switches == []


def connected():
    """Give a process with links, monitors, a name, unread messages and callers."""
    target = Actor()
    for _ in range(3):
        Actor().do(gpool.link, target.pid)
        Actor(trap=True).do(gpool.link, target.pid)
        Actor().do(gpool.monitor, target.pid)
        From(target.pid)
    gpool.register("target", target.pid)
    gpool.send(target.pid, "unread")
    return target.pid


class TestPrimitives:
    @pytest.mark.parametrize(
        "use",
        [
            gpool.link,
            gpool.unlink,
            gpool.monitor,
            lambda pid: gpool.demonitor(gpool.monitor(pid)),
            lambda pid: gpool.send(pid, 1),
            lambda pid: send_cast(pid, 1),
            lambda pid: gpool.exit(pid, "boom"),
            lambda pid: gpool.exit(pid, "kill"),
            lambda pid: gpool.unregister("target"),
            lambda pid: signal.die(pid, "boom", []),
            lambda _: gpool.spawn(gpool.receive),
            lambda _: gpool.spawn_link(lambda: None),
            lambda _: gpool.spawn_monitor(lambda: None),
            lambda _: gpool.processes(),
            gpool.process_info,
            gpool.is_alive,
            lambda _: gpool.whereis("target"),
        ],
        ids=range(17),
    )
    def test_do_not_switch(self, use):
        """Each primitive but those that wait runs in one piece."""
        target = connected()
        gpool.trap_exit(True)
        with no_switch():
            use(target)

    def test_a_poll_does_not_switch(self):
        """A receive with timeout 0, and of a message that is there, runs in one piece."""
        gpool.send(gpool.self(), 1)
        with no_switch():
            assert gpool.receive(timeout=0) == 1
            with contextlib.suppress(gpool.ReceiveTimeout):
                gpool.receive(timeout=0)

    def test_a_reply_does_not_switch(self):
        """A reply only queues the wake-up of its caller."""
        from_ = From(Actor().pid)
        with no_switch():
            assert gpool.reply(from_, 1)


class TestDeath:
    def test_of_a_running_process_is_one_piece(self):
        """Between the body's end and the end of its greenlet nobody else runs."""
        switches = []
        watchers = [Actor(trap=True) for _ in range(3)]

        def body():
            gpool.receive()
            greenlet.settrace(lambda _, args: switches.append(args))
            gpool.exit("boom")

        pid = gpool.spawn(body)
        dying = pid.greenlet
        gpool.register("dying", pid)
        for watcher in watchers:
            watcher.do(gpool.link, pid)
            watcher.do(gpool.monitor, pid)
        gpool.send(pid, "go")
        settle()
        greenlet.settrace(None)
        # The first switch that is seen is the one that leaves the dead greenlet.
        assert switches[0] == (dying, gevent.get_hub())
        assert [len(watcher.got) for watcher in watchers] == [2, 2, 2]
