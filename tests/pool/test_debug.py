"""Debug mode: who uses what another one holds is told so."""

from __future__ import annotations

import contextlib
import gc
import io
import operator
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import greenlet
import pytest
from gevent import monkey
from gevent.util import print_run_info

import gpool
from gpool.pool.debug import DebugLease, Proxy
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import AtTurn, Client, Echo, Holder, Maker, Thing, assert_whole, check


class Everything:
    """Can do whatever Python has an operator for."""

    attribute = 1

    def __init__(self) -> None:
        self.items = [1, 2]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what it is given."""
        return args, kwargs

    def __getitem__(self, key: int) -> int:
        return self.items[key]

    def __setitem__(self, key: int, value: int) -> None:
        self.items[key] = value

    def __delitem__(self, key: int) -> None:
        del self.items[key]

    def __contains__(self, item: object) -> bool:
        return item in self.items

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[int]:
        return iter(self.items)

    def __reversed__(self) -> Iterator[int]:
        return reversed(self.items)

    def __enter__(self) -> Everything:
        return self

    def __exit__(self, *error: object) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Everything) or other == 7

    def __lt__(self, other: object) -> bool:
        return other == 8

    def __le__(self, other: object) -> bool:
        return other == 8

    def __gt__(self, other: object) -> bool:
        return other == 6

    def __ge__(self, other: object) -> bool:
        return other == 6

    def __hash__(self) -> int:
        return 7

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "everything"

    def __format__(self, spec: str) -> str:
        return f"everything {spec}"


def _block(thing: Any) -> Any:
    with thing as again:
        raise ValueError
    return type(again)


USES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "get": (lambda thing: thing.attribute, 1),
    "set": (lambda thing: setattr(thing, "mine", 2), None),
    "delete": (lambda thing: (setattr(thing, "x", 1), delattr(thing, "x")), (None, None)),
    "hasattr": (lambda thing: hasattr(thing, "nothing"), False),
    "call": (lambda thing: thing(1, key=2), ((1,), {"key": 2})),
    "getitem": (lambda thing: thing[1], 2),
    "setitem": (lambda thing: operator.setitem(thing, 0, 1), None),
    "delitem": (lambda thing: operator.delitem(thing, slice(2, 9)), None),
    "in": (lambda thing: 1 in thing, True),
    "len": (len, 2),
    "iter": (list, [1, 2]),
    "reversed": (lambda thing: list(reversed(thing)), [2, 1]),
    "with": (_block, Proxy),
    "eq": (lambda thing: (thing == 7, thing == 8, thing == thing), (True, False, True)),
    "ne": (lambda thing: thing != 8, True),
    "order": (lambda t: (t < 8, t <= 8, t > 6, t >= 6, t < 6), (True, True, True, True, False)),
    "hash": (hash, 7),
    "bool": (bool, False),
    "str": (str, "everything"),
    "format": (lambda thing: f"{thing:x}", "everything x"),
    "dir": (lambda thing: "items" in dir(thing), True),
}


@pytest.fixture
def things(clock: VirtualClock) -> gpool.Pool[Any]:
    """A pool in debug mode of one thing that can do everything."""
    return _up(gpool.Pool(gpool.Resource(create=Everything), size=1, name="things", debug=True))


@pytest.fixture
def pool(clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
    """A pool in debug mode of one of the workshop's things."""
    return _up(gpool.Pool(maker.resource(), size=1, name="one", debug=True))


def _up(pool: gpool.Pool[Any]) -> gpool.Pool[Any]:
    pool.start()
    settle()
    return pool


class TestTheProxy:
    @pytest.mark.parametrize("use", USES)
    def test_does_to_the_thing_what_its_holder_does(
        self, things: gpool.Pool[Any], use: str
    ) -> None:
        """Every operation, with the answer that the thing itself gives."""
        act, expected = USES[use]
        with things.checkout() as thing:
            assert type(thing) is Proxy
            assert act(thing) == expected

    @pytest.mark.parametrize("use", USES)
    def test_refuses_another_greenlet(self, things: gpool.Pool[Any], use: str) -> None:
        """Each of them, before anything is done to the thing."""
        with things.checkout() as thing:
            client = Client(USES[use][0], thing)
            settle()
            assert isinstance(client.error, gpool.WrongHolder)
            assert list(thing) == [1, 2]

    @pytest.mark.parametrize("use", USES)
    def test_refuses_its_holder_after_the_end(self, things: gpool.Pool[Any], use: str) -> None:
        """Use after release."""
        with things.checkout() as thing:
            pass
        with pytest.raises(gpool.LeaseLost, match=r"pool 'things': the lease from .*test_debug.py"):
            USES[use][0](thing)

    def test_repr_never_raises(self, things: gpool.Pool[Any]) -> None:
        """It is what those see who look for the fault."""
        with things.checkout() as thing:
            assert repr(thing) == "everything"
            client = Client(repr, thing)
            settle()
            assert client.value.startswith("<Proxy: pool 'things': #PID<")
        assert repr(thing).startswith("<Proxy: pool 'things': the lease from")

    def test_isinstance_never_raises(self, things: gpool.Pool[Any]) -> None:
        """Gevent's ``print_run_info`` asks it of all objects, whoever holds them."""
        with things.checkout() as thing:
            assert isinstance(thing, Everything)
            assert thing.__class__ is Everything
            client = Client(isinstance, thing, Everything)
            settle()
            assert (client.value, client.error) == (False, None)
        assert thing.__class__ is Proxy
        assert print_run_info(file=io.StringIO()) is None

    def test_of_an_iterator_checks_every_step(self, clock: VirtualClock) -> None:
        """`iter` of it is itself, and that is the proxy."""
        create = lambda: iter("abc")  # noqa: E731
        pool = _up(gpool.Pool(gpool.Resource(create=create), size=1, debug=True))
        with pool.checkout() as letters:
            assert iter(letters) is letters
            assert next(letters) == "a"
            client = Client(list, letters)
            settle()
            assert isinstance(client.error, gpool.WrongHolder)
            assert list(letters) == ["b", "c"]

    def test_of_a_thing_that_cannot(self, pool: gpool.Pool[Any]) -> None:
        """The error is Python's own, and names the thing's class."""
        with pool.checkout() as thing:
            with pytest.raises(TypeError, match=r"type 'Thing' has no len"):
                len(thing)
            with pytest.raises(TypeError, match="'Thing' object is not callable"):
                thing()
            with pytest.raises(AttributeError, match="'Thing' object has no attribute 'nothing'"):
                _ = thing.nothing

    def test_of_a_dropped_lease(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Nobody can give it back: it is reclaimed, as it is outside of debug mode."""
        thing = pool.checkout().worker
        assert thing.number == 1
        holder = Holder(pool)
        gc.collect()
        settle()
        assert type(holder.thing) is Proxy
        assert maker.made[0].closed
        with pytest.raises(gpool.LeaseLost, match=r"the lease from .* is over; check out again"):
            _ = thing.number
        holder.let_go()
        assert_whole(pool, maker)

    def test_of_a_lease_that_was_waited_for(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """It does not become the next one's that its client waits for."""
        gate, things = Gate(), list[Any]()

        def wait_twice() -> None:
            for _ in range(2):
                with pool.checkout() as thing:
                    things.append(thing)
                gate.wait()

        holder = Holder(pool)
        Client(wait_twice)
        settle()
        holder.let_go()
        holder = Holder(pool)
        gate.open()
        settle()
        holder.let_go()
        assert len(things) == 2
        for thing in things:
            with pytest.raises(gpool.LeaseLost):
                _ = thing.number
        assert_whole(pool, maker)

    def test_of_a_lost_one(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Its pool has fallen: the thing can only be given back."""
        lease = pool.checkout()
        thing = lease.resource
        ledger: Any = pool._ledger
        gpool.exit(ledger.man.pid, "kill")
        settle()
        with pytest.raises(gpool.LeaseLost, match="lost"):
            _ = thing.number
        lease.checkin()
        assert_whole(pool, maker)


class TestTheError:
    def test_names_both_and_the_line(self, pool: gpool.Pool[Any]) -> None:
        """And says what to do."""
        lease = pool.checkout()
        thing = lease.worker

        def thief() -> None:
            _ = thing.number

        client = Client(thief)
        settle()
        error = client.error
        assert isinstance(error, gpool.WrongHolder)
        assert (error.pool, error.user) == ("one", client.pid)
        assert (error.holder.pid, error.holder.line) == (gpool.self(), lease.line)
        for part in (repr(client.pid), "(Client._run)", repr(gpool.self()), "test_debug.py:",
                     "test_names_both_and_the_line", "transfer()"):  # fmt: skip
            assert part in str(error)

    @pytest.mark.parametrize("spawn", [gevent.spawn, lambda fn: greenlet.greenlet(fn).switch()])
    def test_names_a_greenlet_that_is_no_process(
        self, pool: gpool.Pool[Any], spawn: Callable[[Callable[[], None]], Any]
    ) -> None:
        """A plain or a raw one; it does not become a process thereby."""
        errors: list[Any] = []

        def thief() -> None:
            try:
                _ = thing.number
            except gpool.WrongHolder as error:
                errors.append(error)

        with pool.checkout() as thing:
            spawn(thief)
            settle()
        assert isinstance(errors[0].user, greenlet.greenlet)
        assert "reenlet" in str(errors[0])

    def test_in_another_thread(self, pool: gpool.Pool[Any]) -> None:
        """No hub is made there for it."""
        errors: list[Any] = []

        def thief() -> None:
            try:
                _ = thing.number
            except gpool.WrongHolder as error:
                errors.append(error)

        with pool.checkout() as thing:
            thread = monkey.get_original("threading", "Thread")(target=thief)
            thread.start()
            thread.join()
        assert len(errors) == 1


class TestTheLease:
    @pytest.mark.parametrize(
        "release",
        [
            lambda lease: lease.checkin(),
            lambda lease: lease.discard(),
            lambda lease: lease.__exit__(None, None, None),
            lambda lease: lease.__exit__(ValueError, ValueError(), None),
            lambda lease: lease.__enter__(),
        ],
        ids=["checkin", "discard", "with", "error", "enter"],
    )
    def test_is_its_owners(
        self, pool: gpool.Pool[Any], maker: Maker, release: Callable[[Any], None]
    ) -> None:
        """Nobody else gives it back; once it is over that is a no-op as ever."""
        lease = pool.checkout()
        client = Client(release, lease)
        settle()
        assert isinstance(client.error, gpool.WrongHolder)
        assert lease.worker.number == 1
        lease.checkin()
        for _ in range(2):
            lease.checkin()
            lease.discard()
            Client(lease.checkin)
            settle()
        assert pool.stats().stale == 6
        assert_whole(pool, maker)

    def test_by_way_of_the_pool(self, pool: gpool.Pool[Any]) -> None:
        """`pool.checkin` is the same."""
        lease = pool.checkout()
        client = Client(pool.checkin, lease)
        settle()
        assert isinstance(client.error, gpool.WrongHolder)
        pool.checkin(lease)
        assert pool.stats().idle == 1

    def test_can_be_transferred(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Then the heir may use it and give it back, and the first owner may not."""
        lease = pool.checkout()
        thing = lease.worker

        def heir() -> int:
            gpool.receive()
            with lease as mine:
                return mine.number + thing.number  # type: ignore[no-any-return]

        client = Client(heir)
        lease.transfer(client.pid)
        for use in (lambda: thing.number, lease.checkin):
            with pytest.raises(gpool.WrongHolder):
                use()
        gpool.send(client.pid, "go")
        settle()
        assert client.value == 2
        assert_whole(pool, maker)

    def test_is_of_its_class_on_every_way(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """At once, again, after a wait, for a job: no path makes a plain one."""
        for _ in range(3):
            lease = pool.checkout()
            assert type(lease) is DebugLease
            holder = Holder(pool)
            lease.checkin()
            del lease
            settle()
            assert type(holder.thing) is Proxy
            holder.let_go()
        seen: list[type] = []
        note: Callable[..., None] = lambda thing, *_: seen.append(type(thing))  # noqa: E731
        pool.transaction(note)
        pool.call(note)
        pool.cast(note)
        settle()
        pool.map(note, [1])
        pool.broadcast(note)
        assert seen == [Proxy] * 5
        assert_whole(pool, maker)

    def test_after_its_owner_was_killed(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """What it held is reclaimed, however it was held; its `finally` may still use it."""
        used: list[int] = []

        def client() -> None:
            with pool.checkout() as thing:
                try:
                    gpool.receive()
                finally:
                    used.append(thing.number)

        victim = Client(client)
        settle()
        victim.kill()
        settle()
        assert used == [1]
        assert_whole(pool, maker)

    @pytest.mark.parametrize("turn", range(1, 9))
    def test_cut_short_at_any_turn(self, pool: gpool.Pool[Any], maker: Maker, turn: int) -> None:
        """Debug mode loses no worker either."""

        def session() -> None:
            with pool.checkout(timeout=None) as thing, thing.used():
                gevent.sleep(0)
                gevent.sleep(0)

        with AtTurn(turn, lambda: clients[1].kill()):
            clients = [Client(session) for _ in range(4)]
            settle()
        del clients[1]
        assert all(client.done and client.error is None for client in clients)
        check(pool)
        assert_whole(pool, maker)


class TestHooks:
    def test_get_the_thing_itself(self, clock: VirtualClock, maker: Maker) -> None:
        """They run in other processes, or for the pool."""
        seen: list[type] = []

        def note(*args: Any) -> bool:
            seen.append(type(args[-1]))
            return False

        hooks = {"reset": note, "is_dirty": note, "is_broken": note}
        pool = _up(gpool.Pool(maker.resource(**hooks), size=1, debug=True))
        with contextlib.suppress(ValueError), pool.checkout():
            raise ValueError
        settle()
        pool.stop()
        assert seen == [Thing] * 3


class TestServers:
    def test_are_lent_in_the_same_way(self, clock: VirtualClock) -> None:
        """Their methods can be called by the holder alone."""
        pool = _up(gpool.Pool(Echo, size=1, debug=True))
        with pool.checkout() as echo:
            assert echo.say(1) == Echo.say(echo, 1) == 1
            assert gpool.is_alive(echo)
            client = Client(echo.say, 2)  # the method is looked up by the holder
            settle()
            thief = Client(lambda: echo.say(3))
            settle()
            assert client.value == 2
            assert isinstance(thief.error, gpool.WrongHolder)
        assert_whole(pool)

    def test_a_job_whose_server_dies(self, clock: VirtualClock) -> None:
        """It goes to another one, as outside of debug mode."""
        pool = _up(gpool.Pool(Echo, size=2, debug=True))
        ledger: Any = pool._ledger
        first = ledger.man.state.idle.row[-1].thing
        gpool.sys.suspend(first)
        client = Client(pool.call, Echo.say, 1)
        settle()
        gpool.exit(first.pid, "kill")
        settle()
        assert client.value == 1
        assert_whole(pool)

    def test_a_pid_is_lent_as_it_is(self, clock: VirtualClock) -> None:
        """There is nothing to be done to it but by the kit."""
        spec = gpool.ChildSpec("child", lambda: gpool.spawn_link(gpool.receive))
        pool: gpool.Pool[Any] = _up(gpool.Pool(spec, size=1, debug=True))
        with pool.checkout() as pid:
            assert type(pid) is gpool.Pid


class TestOrdinaryPools:
    def test_lend_the_thing_itself(self, clock: VirtualClock, maker: Maker) -> None:
        """And keep their fast path."""
        pool = _up(gpool.Pool(maker.resource(), size=1))
        ledger: Any = pool._ledger
        assert ledger.idle
        with pool.checkout() as thing:
            assert type(thing) is Thing
        assert ledger.idle
        assert ledger.back is not None

    def test_debug_pools_have_none(self, pool: gpool.Pool[Any]) -> None:
        """Neither way."""
        ledger: Any = pool._ledger
        for _ in range(2):
            with pool.checkout():
                assert ledger.idle == ()
            assert (ledger.idle, ledger.back) == ((), None)
