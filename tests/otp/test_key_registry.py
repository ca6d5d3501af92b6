"""Registries that users start: unique keys, gone at the death of their owner."""

from __future__ import annotations

import pytest

import gpool
from gpool import NameTaken, NoProcess, Registry, StartError
from gpool.testing import settle


@pytest.fixture
def names():
    """Give a registry."""
    return Registry.start()


@pytest.fixture
def owner(names):
    """Give a process that registers itself as it is told, and traps nothing."""

    def run():
        while True:
            gpool.receive()()

    pid = gpool.spawn(run)

    def do(fn, *args):
        box = []
        gpool.send(pid, lambda: box.append(fn(*args)))
        settle()
        return box[0] if box else None

    pid_and_do = (pid, do)
    return pid_and_do


class TestRegister:
    def test_keys_are_anything_hashable(self, names):
        """N6: a key is not only a text; a process may have many."""
        for key in ("a", 1, ("b", 2), None):
            names.register(key)
            assert names.whereis_name(key) is gpool.self()
        assert names.keys(gpool.self()) == ["a", 1, ("b", 2), None]
        assert names.count() == 4

    def test_a_taken_key(self, names, owner):
        """N6: register twice gives the owner in the error, also to the owner itself."""
        pid, do = owner
        do(names.register, "k")
        with pytest.raises(NameTaken) as caught:
            names.register("k")
        assert caught.value.owner is pid
        names.register("mine")
        with pytest.raises(NameTaken) as caught:
            names.register("mine")
        assert caught.value.owner is gpool.self()

    def test_keys_of_different_registries(self, names):
        """N6: each registry has its own."""
        other = Registry.start()
        names.register("k")
        other.register("k")
        other.unregister("k")
        assert names.whereis_name("k") is gpool.self()

    def test_of_a_just_killed_owner(self, names, owner):
        """N6: the key of a just-killed owner can be taken at once."""
        pid, do = owner
        do(names.register, "k")
        gpool.exit(pid, "kill")
        assert names.lookup("k") is None
        names.register("k", 2)
        settle()
        assert names.lookup("k") == (gpool.self(), 2)
        assert names.count() == 1

    def test_of_the_dead(self, names):
        """N1: a dead process gets no key."""
        pid = gpool.spawn(lambda: None)
        settle()
        with pytest.raises(gpool.BadName):
            names.register_name("k", pid)

    def test_of_another_process(self, names, owner):
        """N8: register_name gives a key to somebody else."""
        pid, _ = owner
        names.register_name("k", pid, "value")
        assert names.lookup("k") == (pid, "value")

    def test_on_a_dead_registry(self, names):
        """A registry that is dead raises NoProcess, whatever is asked."""
        names.register("k")
        gpool.stop(names)
        for ask in (
            lambda: names.register("x"),
            lambda: names.unregister("k"),
            lambda: names.whereis_name("k"),
            lambda: names.lookup("k"),
            lambda: names.update_value("k", str),
            lambda: names.keys(gpool.self()),
            names.count,
        ):
            with pytest.raises(NoProcess):
                ask()


class TestUnregister:
    def test_is_idempotent(self, names):
        """N6: unregister is idempotent, and the key is free."""
        names.register("k")
        names.unregister("k")
        names.unregister("k")
        assert names.lookup("k") is None
        names.register("k")

    def test_takes_only_ones_own(self, names, owner):
        """N6: another process's key stays."""
        pid, do = owner
        do(names.register, "k")
        names.unregister("k")
        assert names.whereis_name("k") is pid

    def test_links_and_unlinks(self, names):
        """Elixir's "links and unlinks": the link goes with the last key."""
        names.register("a")
        names.register("b")
        assert names.pid in gpool.self().links
        names.unregister("a")
        assert names.pid in gpool.self().links
        names.unregister("b")
        assert names.pid not in gpool.self().links

    def test_leaves_the_links_of_others_alone(self):
        """A registry's own parent that registers itself is still its parent afterwards."""
        names = Registry.start_link()
        names.register("k")
        names.unregister("k")
        assert names.pid in gpool.self().links

    def test_leaves_nothing_behind(self, names, owner):
        """Neither a death nor an unregister leaves an entry."""
        pid, do = owner
        do(names.register, "k")
        do(names.register, "l")
        do(names.unregister, "k")
        assert pid.names == [(names.owners, "l")]
        gpool.exit(pid, "kill")
        settle()
        owners = names.owners
        assert (dict(owners), owners.data, owners.keys_of, owners.linked) == ({}, {}, {}, set())


class TestUpdateValue:
    def test_only_by_the_owner(self, names, owner):
        """N6: update_value only by the owner; the answer is the new and the old one."""
        _, do = owner
        do(names.register, "k", 1)
        with pytest.raises(NameTaken):
            names.update_value("k", lambda n: n + 1)
        assert do(names.update_value, "k", lambda n: n + 1) == (2, 1)
        assert names.lookup("k")[1] == 2
        with pytest.raises(NoProcess):
            names.update_value("nobody's", str)


class TestDeath:
    def test_of_an_owner_clears_its_keys_first(self, names, owner):
        """N7: cleanup is synchronous: in the DOWN handler lookup and count know nothing of it."""
        pid, do = owner
        do(names.register, "k")
        gpool.monitor(pid)
        gpool.exit(pid, "boom")
        down = gpool.receive(timeout=1)
        assert down.reason == "boom"
        assert (names.lookup("k"), names.count(), names.keys(pid)) == (None, 0, [])

    def test_of_an_owner_harms_nobody(self, names, owner):
        """The registry traps exits: it outlives those who are linked to it."""
        pid, do = owner
        do(names.register, "k")
        gpool.exit(pid, "boom")
        settle()
        assert gpool.is_alive(names)

    def test_of_the_registry(self, names, owner):
        """N8: when the registry process is killed, its registrants die (linked)."""
        pid, do = owner
        do(names.register, "k")
        gpool.exit(names.pid, "kill")
        settle()
        assert pid.reason == "killed"


class TestVia:
    """N8: pairs of a registry and a key, wherever a local name may stand."""

    class Server(gpool.GenServer):
        """Says who it is."""

        @gpool.call
        def who(self):
            """Answer with the server's pid."""
            return gpool.self()

    def test_start_and_call(self, names):
        """N8: a server is started under a key, and called by it."""
        server = self.Server.start(server_name=(names, "k"))
        assert names.whereis_name("k") is server.pid
        assert gpool.is_alive((names, "k"))
        gpool.send((names, "k"), "hello")
        gpool.stop((names, "k"))
        assert names.whereis_name("k") is None

    def test_the_key_is_there_in_init(self, names):
        """N4: the name is registered before init runs."""
        seen = []

        class Looking(gpool.GenServer):
            def init(self):
                seen.append(names.whereis_name("k") is gpool.self())

        Looking.start(server_name=(names, "k"))
        assert seen == [True]

    def test_start_conflict(self, names):
        """N8: start conflict = already_started; init never runs."""
        server = self.Server.start(server_name=(names, "k"))
        with pytest.raises(StartError) as caught:
            self.Server.start(server_name=(names, "k"))
        assert caught.value.reason == ("already_started", server.pid)

    def test_a_missing_key(self, names):
        """N8: a call to a missing key = noproc."""
        with pytest.raises(NoProcess, match="'k' in <Registry"):
            gpool.send((names, "k"), "x")
        with pytest.raises(NoProcess):
            gpool.stop((names, "k"))

    def test_by_the_registrys_local_name(self):
        """A registry may be named by its own local name."""
        Registry.start(server_name="names")
        server = self.Server.start(server_name=("names", "k"))
        gpool.stop(("names", "k"))
        assert not gpool.is_alive(server)

    def test_a_dead_registry(self, names):
        """N8: with a dead registry nothing starts."""
        gpool.stop(names)
        before = gpool.processes()
        with pytest.raises(NoProcess):
            self.Server.start(server_name=(names, "k"))
        assert gpool.processes() == before

    @pytest.mark.parametrize(
        "name", ["", 5, (), ("a",), (1, 2, 3), (object(), "k"), ("nobody", "k")]
    )
    def test_nonsense(self, name):
        """What is no name is refused before anything starts."""
        before = gpool.processes()
        with pytest.raises((TypeError, gpool.GPoolError)):
            self.Server.start(server_name=name)
        assert gpool.processes() == before

    def test_another_server_is_no_registry(self):
        """A pair needs a registry in it."""
        server = self.Server.start()
        with pytest.raises(TypeError, match="expected a registry"):
            gpool.send((server, "k"), "x")

    def test_under_a_supervisor(self, names):
        """A restarted child gets its key again."""
        spec = gpool.ChildSpec("a", self.Server.start_link, kwargs={"server_name": (names, "k")})
        gpool.Supervisor.start([spec])
        first = names.whereis_name("k")
        gpool.exit(first, "kill")
        settle()
        second = names.whereis_name("k")
        assert second is not None
        assert second is not first


class TestProcess:
    def test_is_a_server(self, names):
        """A registry is a server: stop and sys work with it, a supervisor can own it."""
        assert "owners" in gpool.sys.get_state(names)
        gpool.stop(names)
        assert not gpool.is_alive(names)
        supervisor = gpool.Supervisor.start(
            [gpool.ChildSpec("r", Registry.start_link, kwargs={"server_name": "registry"})]
        )
        gpool.exit(gpool.whereis("registry"), "kill")
        settle()
        assert gpool.is_alive("registry")
        assert gpool.is_alive(supervisor)

    def test_drops_messages_that_it_does_not_know(self, names, unexpected):
        """Unknown messages are reported and dropped."""
        gpool.send(names, "what")
        settle()
        assert list(unexpected) == [(names.pid, "what")]
