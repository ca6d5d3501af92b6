"""Receiving: OTP's rules one by one, by their labels, and the mailbox beneath."""

from __future__ import annotations

import gevent
import pytest

import gpool
from gpool.otp.mailbox import Mailbox
from gpool.testing import settle
from gpool.waiter import Expired, Seat
from tests.otp.actor import mailbox, reason_of
from tests.otp.nursery import Attempt


def send_all(*messages):
    """Send to the test itself."""
    for message in messages:
        gpool.send(gpool.self(), message)


class TestReceive:
    def test_is_selective(self):
        """Q1: what a selective receive passes over stays, in order."""
        send_all("a", "b", "c")
        assert gpool.receive(lambda message: message == "c") == "c"
        assert mailbox() == ["a", "b"]

    def test_messages_may_come_while_it_looks(self):
        """What runs in a predicate, a garbage collection say, may send to the same process."""
        send_all("a", "b")

        def match(message):
            if message == "a":
                send_all("c")
            return message == "c"

        assert gpool.receive(match, timeout=0) == "c"
        assert mailbox() == ["a", "b"]

    def test_a_predicate_that_receives_is_an_error(self):
        """A predicate that takes messages itself is told so; no message is taken by mistake."""
        send_all("a", "b", "c")

        def match(message):
            gpool.receive()
            return True

        with pytest.raises(RuntimeError, match="must neither receive nor block"):
            gpool.receive(match)
        assert mailbox() == ["b", "c"]

    def test_with_timeout_0_polls_once(self):
        """Q2: timeout 0 takes what is there and never waits; a message wins over the timeout."""
        ran = []
        gpool.spawn(ran.append, 1)
        send_all("a")
        assert gpool.receive(timeout=0) == "a"
        with pytest.raises(gpool.ReceiveTimeout, match="within 0 s"):
            gpool.receive(timeout=0)
        assert ran == []

    def test_other_messages_do_not_extend_the_deadline(self, clock):
        """Q3: messages that do not match do not put the deadline off."""
        attempt = Attempt(lambda: gpool.receive(lambda message: message == "this", timeout=5.0))
        for _ in range(4):
            clock.advance(1.0)
            gpool.send(attempt.pid, "other")
        clock.advance(0.9)
        assert not attempt.done
        clock.advance(0.1)
        assert attempt.error.timeout == 5.0

    def test_keeps_the_order_of_one_sender(self):
        """Q4: messages of one sender are read in the order in which they were sent."""
        send_all(*range(10))
        assert mailbox() == list(range(10))

    def test_a_full_mailbox_is_no_error(self):
        """Q5: a send to a process with many messages neither blocks nor fails."""
        send_all(*range(10_000))
        assert len(gpool.self().mailbox) == 10_000

    def test_a_message_that_comes_with_the_deadline_wins(self, clock):
        """Q2: a message that arrives in the same turn as the deadline is taken."""
        attempt = Attempt(lambda: gpool.receive(timeout=5.0))
        attempt.pid.mailbox.waiter.expire()  # the deadline has woken it, it has not run yet
        gpool.send(attempt.pid, "in time")
        settle()
        assert attempt.value == "in time"

    def test_blocks_until_a_match_comes(self):
        """A receive that nothing matches waits on, message after message."""
        attempt = Attempt(lambda: gpool.receive(lambda message: message > 2))
        for number in range(5):
            gpool.send(attempt.pid, number)
        settle()
        assert attempt.value == 3

    def test_a_predicate_that_raises_loses_no_message(self):
        """An error of the predicate is the caller's; the message stays."""
        send_all("a")
        with pytest.raises(ZeroDivisionError):
            gpool.receive(lambda _: 1 / 0)
        assert mailbox() == ["a"]

    def test_none_and_falsy_values_are_messages(self):
        """Every value is a message."""
        send_all(None, False, 0, "")
        assert mailbox() == [None, False, 0, ""]

    def test_unread_messages_die_with_the_process(self):
        """Q6: nobody ever sees what a dead process has not read."""
        pid = gpool.spawn(gevent.sleep, 0)
        gpool.send(pid, "unread")
        assert reason_of(pid) == "normal"
        assert len(pid.mailbox) == 0

    def test_a_wait_cut_short_takes_no_message(self):
        """A gevent.Timeout of the user's ends the wait; what comes later is kept."""
        with gevent.Timeout(0, False):
            gpool.receive()
        send_all("later")
        assert mailbox() == ["later"]


class TestMailbox:
    def test_append_never_switches(self):
        """Appending wakes the owner by a callback, not by a switch."""
        box, got = Mailbox(), []
        gevent.spawn(lambda: got.append(box.take()))
        settle()
        box.append(1)
        assert got == []
        settle()
        assert got == [1]

    def test_rest_returns_at_once_when_there_is_a_message(self):
        """rest() leaves the message where it is."""
        box = Mailbox()
        box.append(1)
        Seat().rest(box)
        assert len(box) == 1

    def test_wait_expires(self, clock):
        """wait() raises Expired when its time is over; 0 never blocks."""
        box = Mailbox()
        with pytest.raises(Expired):
            box.wait(0)

        def body():
            with pytest.raises(Expired):
                box.wait(2.0)

        attempt = Attempt(body)
        clock.advance(1.9)
        assert not attempt.done
        clock.advance(0.1)
        assert attempt.done

    def test_what_comes_while_it_discards_stays(self):
        """A message that is appended in the midst of discard_all() is the last one after it."""
        box = Mailbox()
        for number in (1, 2, 1, 3):
            box.append(number)

        def match(message):
            if message == 3:
                box.append(1)
            return message == 1

        box.discard_all(match)
        assert list(box.messages) == [2, 3, 1]

    def test_discard_removes_the_first_match_only(self):
        """discard() takes one, discard_all() every one; the rest stays in order."""
        box = Mailbox()
        for number in (1, 2, 1, 3, 1):
            box.append(number)
        box.discard(lambda message: message == 1)
        assert list(box.messages) == [2, 1, 3, 1]
        box.discard(lambda message: message == 9)
        box.discard_all(lambda message: message == 1)
        assert list(box.messages) == [2, 3]

    def test_counts_what_was_taken_out(self):
        """By whatever way; so one can tell whether a message that was there was begun with."""
        box = Mailbox()
        for number in range(6):
            box.append(number)
        box.take()
        box.take(lambda message: message == 3)
        box.discard(lambda message: message == 2)
        box.discard_all(lambda message: message > 4)
        assert (box.taken, list(box.messages)) == (4, [1, 4])

    def test_counts_what_a_server_took_out_before_it_died(self):
        """What died with it was never begun with."""
        server = gpool.GenServer.start()
        for _ in range(3):
            gpool.send(server, "something")
        settle()
        gpool.exit(server.pid, "kill")
        gpool.send(server, "too late")
        settle()
        assert server.pid.mailbox.taken == 3
