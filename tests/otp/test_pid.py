"""What a process takes that does nothing."""

from __future__ import annotations

import sys

import gevent
import pytest

import gpool
from gpool.otp import gen
from gpool.otp.mailbox import NO_MAIL
from gpool.otp.pid import Pid, Ref, Shared, tie, untie, watch
from gpool.testing import settle
from gpool.waiter import Gate
from tests.otp.actor import Actor


def own_bytes(pid):
    """Return the size of a pid and of what belongs to it alone."""
    parts = [pid, pid.id, pid.started_at]
    parts += [] if pid.mailbox is NO_MAIL else [pid.mailbox]
    ties = pid.links, pid.monitors, pid.monitored_by
    parts += [own for own in ties if type(own) is not Shared]
    return sum(map(sys.getsizeof, parts))


class TestSize:
    def test_of_a_process_without_ties(self):
        """There may be many; only those that use links, names or messages pay for them."""
        pid = Pid(None, "shell", None, 0.5)
        assert own_bytes(pid) <= 320

    def test_of_a_process_with_one_link_and_one_monitor(self):
        """As others may set them."""
        pid = Pid(gevent.get_hub(), "shell", None, 0.5)
        tie(pid, gpool.self())
        gpool.monitor(pid)
        assert own_bytes(pid) <= 790
        untie(pid, gpool.self())

    def test_of_a_supervised_one(self):
        """Its link to its parent takes nothing: all the parent's children share it."""
        one, two = (Pid(None, "child", gpool.self(), 0.0) for _ in range(2))
        for pid in one, two:
            tie(pid, gpool.self())
        assert own_bytes(one) <= 320
        assert one.links is two.links
        untie(one, gpool.self())
        assert (list(one.links), list(two.links)) == ([], [gpool.self()])
        untie(two, gpool.self())

    def test_of_siblings_ancestors(self):
        """All children of a process share what they know of their ancestors."""
        one, two = Pid(None, "a", gpool.self(), 0.0), Pid(None, "b", gpool.self(), 0.0)
        assert one.ancestors is two.ancestors
        assert one.ancestors == (gpool.self(), *gpool.self().ancestors)


class TestMailboxOf:
    @pytest.mark.parametrize("how", ["message", "call", "noproc", "down", "exit"])
    def test_makes_one_when_the_first_message_comes(self, how):
        """Most of those whom we only meet never get one."""
        other, gate, met, got = Actor(), Gate(), [], []
        gone = gpool.spawn(int)
        settle()

        def live():
            met.append(gpool.self())
            gpool.monitor(gone if how == "noproc" else other.pid)
            if how == "exit":
                gpool.trap_exit(True)
                gpool.link(other.pid)
            gate.wait()
            got.append(gpool.receive(timeout=0))

        greenlet = gevent.spawn(live)
        gevent.sleep(0)
        [pid] = met
        assert (pid.mailbox is NO_MAIL) == (how != "noproc")
        assert gpool.process_info(pid).message_queue_len == (how == "noproc")
        match how:
            case "message":
                gpool.send(pid, "hello")
            case "call":
                with pytest.raises(gpool.CallTimeout):
                    gen.send_call(pid, "hello", 0)
            case "down" | "exit":
                other.exit("boom")
        settle()
        assert len(pid.mailbox) == (2 if how == "exit" else 1)
        gate.open()
        greenlet.join()
        assert len(got) == 1
        assert len(NO_MAIL) == 0

    def test_refuses_what_is_written_to_nobody(self):
        """It would be everybody's."""
        with pytest.raises(TypeError, match="no mailbox of its own"):
            NO_MAIL.append("lost")


class TestTie:
    def test_gives_both_a_link(self):
        """A link belongs to both, and to nobody else."""
        one, two, other = Actor(), Actor(), Actor()
        tie(one.pid, two.pid)
        assert (list(one.pid.links), list(two.pid.links)) == ([two.pid], [one.pid])
        assert other.pid.links == {}

    def test_of_a_child_and_of_others(self):
        """Whom a child links to, or leaves, is no matter of its siblings."""
        parent, other = Actor(), Actor()
        one, two = (parent.do(gpool.spawn_link, gpool.receive) for _ in range(2))
        tie(one, parent.pid)
        assert one.links is two.links
        tie(one, other.pid)
        assert list(one.links) == [parent.pid, other.pid]
        assert list(two.links) == [parent.pid]
        assert untie(one, parent.pid)
        assert not untie(one, parent.pid)
        assert list(one.links) == [other.pid]
        assert list(parent.pid.links) == [two]

    def test_what_is_shared_cannot_be_written(self):
        """Who forgets to give a process its own dict hears of it."""
        me, child = gpool.self(), gpool.spawn_link(gpool.receive)
        with pytest.raises(TypeError, match="no dict of its own"):
            child.links[child] = None
        with pytest.raises(TypeError, match="no dict of its own"):
            child.links.pop(me)
        assert child.links.pop(child, "default") == "default"
        gpool.unlink(child)


class TestWatch:
    def test_gives_a_process_a_dict_of_its_own(self):
        """Until then it shares that of those who are not monitored."""
        one, two = Actor(), Actor()
        watch(one.pid, ref := Ref(two.pid, one.pid, one.pid))
        assert list(one.pid.monitored_by) == [ref]
        assert two.pid.monitored_by == {}
