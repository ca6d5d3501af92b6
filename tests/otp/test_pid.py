"""What a process takes that does nothing."""

from __future__ import annotations

import sys

import gevent
import pytest

import gpool
from gpool.otp.pid import NOBODY, Pid, tie
from tests.otp.actor import Actor


def own_bytes(pid):
    """Return the size of a pid and of what belongs to it alone."""
    parts = [pid, pid.id, pid.started_at, pid.mailbox, pid.monitored_by]
    parts += [own for own in (pid.links, pid.monitors) if own is not NOBODY]
    return sum(map(sys.getsizeof, parts))


class TestSize:
    def test_of_a_process_without_ties(self):
        """There may be many; only those that use links, names or messages pay for them."""
        pid = Pid(None, "shell", None, 0.5)
        assert own_bytes(pid) <= 428

    def test_of_a_process_with_one_link_and_one_monitor(self):
        """As a supervised worker has them."""
        pid = Pid(gevent.get_hub(), "shell", None, 0.5)
        tie(pid, gpool.self())
        gpool.monitor(pid)
        assert own_bytes(pid) <= 900
        del gpool.self().links[pid]

    def test_of_siblings_ancestors(self):
        """All children of a process share what they know of their ancestors."""
        one, two = Pid(None, "a", gpool.self(), 0.0), Pid(None, "b", gpool.self(), 0.0)
        assert one.ancestors is two.ancestors
        assert one.ancestors == (gpool.self(), *gpool.self().ancestors)


class TestTie:
    def test_gives_both_a_link(self):
        """A link belongs to both, and to nobody else."""
        one, two, other = Actor(), Actor(), Actor()
        tie(one.pid, two.pid)
        assert (list(one.pid.links), list(two.pid.links)) == ([two.pid], [one.pid])
        assert other.pid.links == {}

    def test_what_all_share_cannot_be_written(self):
        """Who forgets to give a process its own dict hears of it."""
        with pytest.raises(TypeError, match="no dict of its own"):
            NOBODY[gpool.self()] = None
