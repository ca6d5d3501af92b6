"""Starting a process and waiting for it, without a server."""

from __future__ import annotations

import gevent
import pytest

import gpool
from gpool import StartError
from gpool.otp import proc_lib
from gpool.testing import settle
from tests.otp.actor import mailbox, reason_of
from tests.otp.nursery import Attempt


def start(body, link=True, timeout=None):
    """Start `body`; return what start says, and the pid."""
    pids = []
    ok = proc_lib.start(body, what="body", link=link, prepare=pids.append, timeout=timeout)
    return ok, pids[0]


def initialised():
    """Acknowledge, then live on."""
    proc_lib.init_ack()
    gpool.receive()


class TestStart:
    def test_returns_after_the_acknowledgement(self):
        """G1: start returns True once init_ack was called; the process lives and is linked."""
        ok, pid = start(initialised)
        assert ok
        assert gpool.is_alive(pid)
        assert pid in gpool.self().links
        gpool.unlink(pid)

    def test_a_process_that_ends_without_a_word_did_not_start(self):
        """G2: a body that returns before it acknowledges is a failed start."""
        with pytest.raises(StartError) as failed:
            start(lambda: None)
        assert failed.value.reason == "normal"

    def test_ignoring_is_no_error(self):
        """G2: init_ignore makes start return False, and the process dies normally."""
        ok, pid = start(proc_lib.init_ignore)
        assert not ok
        assert reason_of(pid) == "normal"
        assert mailbox() == []

    @pytest.mark.parametrize("link", [False, True])
    def test_returns_only_when_a_failed_one_is_dead(self, link):
        """G3: its cleanup has run and nothing arrives afterwards."""
        log = []

        def body():
            try:
                gpool.exit("no")
            finally:
                gevent.sleep(0)
                log.append("cleaned up")

        gpool.trap_exit(True)
        with pytest.raises(StartError):
            start(body, link)
        assert log == ["cleaned up"]
        assert mailbox() == []

    def test_a_foreign_kill_is_a_failed_start(self):
        """G3: a process that gevent kills while it starts was `killed`."""
        pids = []
        attempt = Attempt(
            lambda: proc_lib.start(gpool.receive, what="body", link=True, prepare=pids.append)
        )
        pids[0].greenlet.kill()
        settle()
        assert attempt.error.reason == "killed"

    def test_gives_up_on_one_that_swallows_its_kill(self, clock):
        """G3: a start that times out waits for the death, even of one that will not die."""

        def stubborn():
            while True:
                try:
                    gevent.sleep(60.0, ref=False)
                except BaseException:  # noqa: BLE001  # that is the point
                    continue

        attempt = Attempt(start, stubborn, True, 1.0)
        clock.advance(1.0)
        assert attempt.error.reason == "timeout"
        assert len(gpool.zombies()) == 1

    def test_a_failed_start_is_not_reported(self, crashes):
        """R15: of a process that did not start its starter hears, and nobody else."""
        with pytest.raises(StartError):
            start(lambda: gpool.exit("no"))
        assert crashes == []


class TestInitAck:
    def test_struck_by_an_interrupt_leaves_no_starter_waiting(self, monkeypatch):
        """A KeyboardInterrupt in the acknowledgement makes a failed start of it."""
        wake, left = proc_lib.Start.wake, ["once"]

        def struck(self, value=None):
            if left:
                left.clear()
                raise KeyboardInterrupt
            return wake(self, value)

        monkeypatch.setattr(proc_lib.Start, "wake", struck)
        starter = gpool.spawn(start, initialised)
        with pytest.raises(KeyboardInterrupt):
            settle()
        failed = reason_of(starter).exception
        assert isinstance(failed, StartError)
        assert isinstance(failed.reason.exception, KeyboardInterrupt)

    def test_twice_is_fine(self):
        """A second acknowledgement changes nothing, nor does one that nobody waits for."""

        def body():
            proc_lib.init_ack()
            proc_lib.init_ack()
            gpool.receive()

        ok, pid = start(body, link=False)
        assert ok
        assert reason_of(gpool.spawn(proc_lib.init_ack)) == "normal"
        assert gpool.is_alive(pid)
