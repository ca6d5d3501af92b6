"""Local names: OTP's rules one by one, by their labels."""

from __future__ import annotations

import pytest

import gpool
from gpool import BadName, NameTaken, NoProcess, StartError
from gpool.otp.gen import send_cast
from gpool.otp.pid import table, watch
from gpool.testing import settle
from tests.otp.actor import Actor, mailbox, reason_of


class Server(gpool.GenServer):
    """A server that writes down that it was initialised, and may fail to be."""

    def __init__(self, inits, fail=False):
        self.inits, self.fail = inits, fail

    def init(self):
        """Say so, or fail."""
        self.inits.append(gpool.whereis("server"))
        if self.fail:
            raise ValueError("no")


class TestRegister:
    def test_a_taken_name_is_an_error(self):
        """N1: a name that somebody has, be it oneself, cannot be registered."""
        one, two = Actor(), Actor()
        gpool.register("name", one.pid)
        for pid in (one.pid, two.pid):
            with pytest.raises(NameTaken) as taken:
                gpool.register("name", pid)
            assert taken.value.owner is one.pid

    def test_a_dead_process_is_an_error(self):
        """N1: a dead process, or one whose exit is accepted, gets no name."""
        dead, going = Actor(), Actor()
        dead.exit("boom")
        gpool.exit(going.pid, "boom")
        for pid in (dead.pid, going.pid):
            with pytest.raises(BadName, match="is not alive"):
                gpool.register("name", pid)
        assert gpool.whereis("name") is None

    def test_a_second_name_is_an_error(self):
        """N1: a process has one local name."""
        one = Actor()
        gpool.register("name", one.pid)
        with pytest.raises(BadName, match="registered as 'name' already"):
            gpool.register("other", one.pid)

    @pytest.mark.parametrize("name", ["", 1, None, ("a", "b"), b"name"])
    def test_a_name_is_a_text(self, name):
        """What is no text, or empty, is no name."""
        with pytest.raises(BadName, match="expected a text"):
            gpool.register(name, gpool.self())

    def test_a_freed_name_can_be_taken(self):
        """A name can be given to another process once it is taken back or its owner is dead."""
        one, two = Actor(), Actor()
        gpool.register("name", one.pid)
        gpool.unregister("name")
        gpool.register("name", two.pid)
        gpool.register("other", one.pid)
        two.exit("boom")
        gpool.register("name", gpool.self())
        assert gpool.whereis("name") is gpool.self()


class TestUnregister:
    def test_of_a_free_name_raises(self):
        """Nobody's name cannot be taken back."""
        with pytest.raises(NoProcess):
            gpool.unregister("nobody")

    def test_does_not_take_the_next_owners_name(self):
        """A process that had a name leaves it to its new owner when it dies."""
        one, two = Actor(), Actor()
        gpool.register("name", one.pid)
        gpool.unregister("name")
        gpool.register("name", two.pid)
        one.exit("boom")
        assert gpool.whereis("name") is two.pid


class TestDeath:
    def test_frees_the_name_before_anybody_hears(self):
        """N2: the name is free when EXIT or DOWN can be read, and for every monitor function."""
        seen = []

        class Watch:
            def down(self, pid, reason):
                seen.append(gpool.whereis("name"))

        one = Actor()
        gpool.register("name", one.pid)
        watch(one.pid, Watch())
        gpool.monitor(one.pid)
        one.exit("boom")
        assert len(mailbox()) == 1
        assert seen == [None]
        assert gpool.whereis("name") is None

    def test_leaves_no_name_behind(self):
        """The table of names holds the living only."""
        for number in range(20):
            actor = Actor()
            gpool.register(f"name-{number}", actor.pid)
            actor.exit("boom")
        assert not [name for name in table.names if name.startswith("name-")]


class TestMissingNames:
    def test_send_raises_and_cast_is_silent(self):
        """N3: send to a free name raises; to a dead pid it is silent, and cast is always."""
        one = Actor()
        one.exit("boom")
        with pytest.raises(NoProcess):
            gpool.send("nobody", 1)
        gpool.send(one.pid, 1)
        send_cast("nobody", 1)
        send_cast(one.pid, 1)


class TestStartWithName:
    def test_a_taken_name_is_already_started(self):
        """N4: the start says who has the name, and init never runs."""
        inits = []
        gpool.register("server", gpool.self())
        with pytest.raises(StartError) as failed:
            Server.start(inits, server_name="server")
        assert failed.value.reason == ("already_started", gpool.self())
        assert inits == []

    def test_a_failed_start_frees_the_name(self):
        """N4: when the start returns its error, the name is free."""
        inits = []
        with pytest.raises(StartError):
            Server.start(inits, fail=True, server_name="server")
        assert isinstance(inits[0], gpool.Pid)
        assert gpool.whereis("server") is None

    def test_stop_frees_the_name(self):
        """N5: when stop has returned, the name is free."""
        server = Server.start([], server_name="server")
        assert gpool.whereis("server") is server.pid
        gpool.stop("server")
        assert gpool.whereis("server") is None
        assert reason_of(server.pid) == "normal"

    def test_a_bad_name_starts_nothing(self):
        """What cannot be a name is refused before anything runs."""
        inits, before = [], len(gpool.processes())
        gpool.self()
        for name in ("", 7):
            with pytest.raises(BadName):
                Server.start(inits, server_name=name)
        settle()
        assert inits == []
        assert len(gpool.processes()) <= before + 1
