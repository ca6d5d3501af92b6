"""Leases: capabilities, given back once, whoever has them."""

from __future__ import annotations

from typing import Any, cast

import gevent
import pytest
from gevent import monkey

import gpool
from gpool.pool import lease as lease_module
from gpool.testing import VirtualClock, settle
from gpool.waiter import Gate
from tests.pool.workshop import IS_PURE, Client, Echo, Holder, Maker, assert_whole


@pytest.fixture
def pool(clock: VirtualClock, maker: Maker) -> gpool.Pool[Any]:
    """A pool of one, running."""
    pool: gpool.Pool[Any] = gpool.Pool(maker.resource(), size=1, name="one")
    pool.start()
    settle()
    return pool


class TestWorker:
    def test_is_the_resource_or_the_handle(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """`worker` and `resource` are two words for it."""
        lease = pool.checkout()
        assert lease.worker is lease.resource is maker.made[0]

    def test_of_a_lease_that_is_over(self, pool: gpool.Pool[Any]) -> None:
        """Use after the checkin is an error that says where it was checked out."""
        lease = pool.checkout()
        lease.checkin()
        with pytest.raises(
            gpool.LeaseLost, match=r"pool 'one': <Lease of 'one', over, by #PID<\d+> at"
        ):
            _ = lease.worker
        with pytest.raises(gpool.LeaseLost), lease:
            raise AssertionError


class TestLost:
    def test_when_the_pool_fell(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Rule 10: the thing stays open in the client's hands, and is closed then."""
        lease = pool.checkout()
        assert not lease.lost
        assert pool._ledger is not None
        assert pool._ledger.man is not None
        gpool.exit(pool._ledger.man.pid, "kill")
        settle()
        assert lease.lost
        with pytest.raises(gpool.LeaseLost), lease:
            raise AssertionError
        assert not maker.made[0].closed
        lease.checkin()
        settle()
        assert maker.made[0].closed
        assert_whole(pool, maker)

    def test_not_once_it_is_over(self, pool: gpool.Pool[Any]) -> None:
        """Given back is not lost."""
        lease = pool.checkout()
        lease.checkin()
        assert not lease.lost


class TestNumber:
    def test_is_never_used_twice(self, pool: gpool.Pool[Any]) -> None:
        """Drawn when it is read, and kept."""
        numbers = set()
        for _ in range(10):
            with pool.checkout():
                pass
            lease = pool.checkout()
            numbers.add(lease.number)
            assert lease.number in numbers
            lease.checkin()
        assert len(numbers) == 10


class TestReuse:
    def test_of_a_lease_that_nobody_has(self, pool: gpool.Pool[Any]) -> None:
        """It is as good as new: another number, another line, another owner."""
        for _ in range(2):  # two are lent in turn
            pool.checkout().checkin()
        lease = pool.checkout()
        number, line = lease.number, lease.line
        lease.checkin()
        identity = id(lease)
        del lease
        pool.checkout().checkin()
        again = pool.checkout()
        assert id(again) == identity
        assert (again.number > number, again.line != line, again.lost) == (True, True, False)

    def test_never_of_one_that_somebody_has(self, pool: gpool.Pool[Any]) -> None:
        """Case 6: a late checkin of a lease that is over touches nobody's worker."""
        for _ in range(2):  # two are lent in turn
            pool.checkout().checkin()
        mine = [pool.checkout()]
        mine[0].checkin()
        pool.checkout().checkin()
        other = pool.checkout()
        assert other is not mine[0]
        mine[0].checkin()
        assert pool.stats().stale == 1
        assert not other.lost

    def test_when_it_is_handed_over(self, clock: VirtualClock, pool: gpool.Pool[Any]) -> None:
        """Two are lent in turn, but for one that somebody has."""
        [slot] = cast("Any", pool)._ledger.slots
        kept = []
        holders = [Holder(pool) for _ in range(6)]
        for holder in holders:
            kept.append(slot.lease)
            holder.let_go()
        assert len(set(map(id, kept))) == 6
        kept.clear()
        holders, identities = [Holder(pool) for _ in range(6)], []
        for holder in holders:
            identities.append(id(slot.lease))
            holder.let_go()
        assert len(set(identities)) == 2


class TestLine:
    def test_is_that_of_the_checkout(self, pool: gpool.Pool[Any]) -> None:
        """File, line and function, of either path and of a wait."""
        here = f"{__file__}:{TestLine.test_is_that_of_the_checkout.__code__.co_firstlineno + 3}"
        slow = pool.checkout()
        assert slow.line.startswith(here)
        slow.checkin()
        fast = pool.checkout()
        assert fast.line.endswith("in TestLine.test_is_that_of_the_checkout")
        assert repr(fast).startswith("<Lease of 'one', held, by #PID<")

    def test_of_one_whose_client_does_not_know_of_it_yet(
        self, clock: VirtualClock, pool: gpool.Pool[Any]
    ) -> None:
        """It was handed over in this turn: the line where its client waits."""
        lease = pool.checkout()
        waiter = Holder(pool)
        lease.checkin()
        assert waiter.thing is None
        [holder] = pool.holders()
        assert holder.line.endswith("in Holder._hold")
        settle()
        [known] = pool.holders()
        assert known.line == holder.line

    @pytest.mark.skipif(IS_PURE, reason="gevent's own Python code is somebody's")
    def test_of_a_greenlet_that_runs_no_code_of_its_user(
        self, clock: VirtualClock, pool: gpool.Pool[Any]
    ) -> None:
        """``gevent.spawn(pool.checkout)``: there is none to name."""
        lease = pool.checkout()
        waiter = gevent.spawn(pool.checkout)
        settle()
        lease.checkin()
        [holder] = pool.holders()
        assert holder.line == "?"
        waiter.kill()

    def test_of_a_lease_in_a_with(self, pool: gpool.Pool[Any]) -> None:
        """The line of the `with`."""
        with pool.checkout():
            [holder] = pool.holders()
        assert "test_lease.py" in holder.line


class TestPassOver:
    @pytest.fixture
    def library(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A library that borrows on behalf of who calls it; its lines are passed over."""
        monkeypatch.setattr(lease_module, "_passed_over", lease_module._passed_over)
        gpool.pass_over("some_library")
        library: dict[str, Any] = {"__name__": "some_library.inner"}
        exec(
            "def borrow(pool):\n"
            "    lease = pool.checkout()\n"
            "    lease.locate()\n"
            "    return lease\n",
            library,
        )
        return library["borrow"]

    def test_holds_for_who_has_borrowed(self, pool: gpool.Pool[Any], library: Any) -> None:
        """Its line is the one that has called the library."""
        lease = library(pool)
        assert lease.line.endswith("in TestPassOver.test_holds_for_who_has_borrowed")

    def test_holds_for_who_waits(self, pool: gpool.Pool[Any], library: Any) -> None:
        """So is the line of a client that waits."""
        held = pool.checkout()

        def handler() -> None:
            library(pool).checkin()

        client = gevent.spawn(handler)
        settle()
        [waiting] = pool.waiters()
        assert waiting.line.endswith("handler")
        held.checkin()
        client.join()

    @pytest.mark.parametrize(
        ("module", "is_passed_over"),
        [("some_library", True), ("some_library.a.b", True), ("some_library_app.views", False)],
    )
    def test_is_of_a_module_and_all_in_it(
        self, pool: gpool.Pool[Any], library: Any, module: str, is_passed_over: bool
    ) -> None:
        """The code of users whose package begins with the same letters is shown."""
        caller: dict[str, Any] = {"__name__": module, "borrow": library}
        exec("def view(pool):\n    return borrow(pool)\n", caller)
        lease = caller["view"](pool)
        assert lease.line.endswith("in view") is not is_passed_over

    @pytest.mark.parametrize("name", ["", "redis.", "re dis", 5])
    def test_refuses_what_is_no_name(self, name: Any) -> None:
        """An empty text, say, would be the beginning of every name."""
        with pytest.raises(TypeError, match=f"expected names of modules, got {name!r}"):
            gpool.pass_over(name)


class TestCheckin:
    def test_again_is_a_counted_no_op(self, pool: gpool.Pool[Any]) -> None:
        """5-6: late or twice, nothing happens."""
        lease = pool.checkout()
        for _ in range(3):
            lease.checkin()
        assert (pool.stats().stale, pool.stats().idle) == (2, 1)

    def test_by_another_process(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """It is a capability: whoever has it may check it in."""
        lease = pool.checkout()
        client = Client(lease.checkin)
        settle()
        assert client.done
        assert pool.stats().idle == len(maker.made) == 1

    @pytest.mark.parametrize("error", [KeyboardInterrupt, gpool.ExitSignal, GeneratorExit])
    def test_in_a_finally_after_a_kill(
        self, pool: gpool.Pool[Any], maker: Maker, error: type[BaseException]
    ) -> None:
        """Rule 7: while a BaseException that is no Exception is handled it counts as dirty."""
        with pytest.raises(error):
            self._use(pool, error("cut"))
        settle()
        assert maker.made[0].closed
        assert_whole(pool, maker)

    @staticmethod
    def _use(pool: gpool.Pool[Any], error: BaseException) -> None:
        lease = pool.checkout()
        try:
            raise error
        finally:
            lease.checkin()

    def test_in_a_finally_after_an_error(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """Rule 7: an Exception says nothing about the thing."""
        with pytest.raises(ValueError, match="cut"):
            self._use(pool, ValueError("cut"))
        settle()
        assert len(maker.made) == 1


class TestDiscard:
    def test_stops_the_worker(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """It is closed and replaced; twice is counted."""
        lease = pool.checkout()
        lease.discard("smells")
        lease.discard()
        settle()
        assert maker.made[0].closed
        assert pool.stats().stale == 1
        assert_whole(pool, maker)

    def test_stops_a_server(self, clock: VirtualClock) -> None:
        """Busy or not."""
        pool: gpool.Pool[Echo] = gpool.Pool(Echo, size=1)
        lease = pool.checkout()
        echo = lease.worker
        echo.work(Gate())
        lease.discard()
        settle()
        assert not gpool.is_alive(echo)
        assert pool.stats().idle == 1


class TestTransfer:
    def test_makes_another_death_reclaim_it(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """The first owner's does not any more."""
        heir = gpool.spawn(gpool.receive)
        leases: list[Any] = []

        def client() -> None:
            leases.append(pool.checkout())
            leases[0].transfer(heir)

        Client(client)
        settle()
        assert leases[0].worker is maker.made[0]
        assert pool.holders()[0].pid is heir
        gpool.exit(heir, "kill")
        settle()
        assert pool.stats().reclaimed == 1
        assert_whole(pool, maker)

    def test_to_a_handle_or_a_name(self, clock: VirtualClock, pool: gpool.Pool[Any]) -> None:
        """As everywhere where a process is meant."""
        lease = pool.checkout()
        heir = Echo.start(server_name="heir")
        for process in (heir, "heir"):
            lease.transfer(process)
            assert pool.holders()[0].pid is heir.pid
        with pytest.raises(gpool.NoProcess):
            lease.transfer("nobody")

    def test_to_what_is_no_process(self, pool: gpool.Pool[Any]) -> None:
        """Expected and got; the owner keeps it."""
        lease = pool.checkout()
        with pytest.raises(TypeError, match="expected a Pid, a name or a server, got 3"):
            lease.transfer(3)
        assert pool.holders()[0].pid is gpool.self()

    def test_to_the_dead(self, pool: gpool.Pool[Any]) -> None:
        """Refused; the owner keeps it."""
        lease = pool.checkout()
        dead = gpool.spawn(lambda: None)
        settle()
        with pytest.raises(gpool.NoProcess):
            lease.transfer(dead)
        assert pool.holders()[0].pid is gpool.self()

    def test_of_a_lease_that_is_over(self, pool: gpool.Pool[Any]) -> None:
        """There is nothing to transfer."""
        lease = pool.checkout()
        lease.checkin()
        with pytest.raises(gpool.LeaseLost):
            lease.transfer(gpool.spawn(gpool.receive))

    def test_to_main_keeps_its_fast_path(self, pool: gpool.Pool[Any]) -> None:
        """Whoever is met as an heir is a client like any other."""
        main = gpool.self()
        leases: list[Any] = []

        def client() -> None:
            leases.append(pool.checkout())
            leases[0].transfer(main)

        Client(client)
        settle()
        leases[0].checkin()
        assert pool._ledger is not None
        assert main in [client.pid for client in pool._ledger.clients.values()]


class TestContextManager:
    def test_yields_the_worker(self, pool: gpool.Pool[Any], maker: Maker) -> None:
        """And takes it back at the end."""
        with pool.checkout() as thing:
            assert thing is maker.made[0]
        assert pool.status().idle == 1

    def test_given_back_within(self, pool: gpool.Pool[Any]) -> None:
        """Then the end is a counted no-op."""
        lease = pool.checkout()
        with lease:
            lease.checkin()
            holder = Holder(pool)
        assert holder.thing is not None
        assert pool.stats().stale == 1

    def test_a_worker_that_dies_within(self, clock: VirtualClock) -> None:
        """5-4: a normal end; the dead one is not lent again."""
        pool: gpool.Pool[Echo] = gpool.Pool(Echo, size=1)
        with pool.checkout() as echo:
            gpool.exit(echo.pid, "kill")
            settle()
        assert_whole(pool)

    def test_ended_before_the_doomed_worker_is_dead(self, clock: VirtualClock) -> None:
        """Its exit was accepted in this very turn: it goes to nobody."""
        pool: gpool.Pool[Echo] = gpool.Pool(Echo, size=1)
        pool.start()
        settle()
        for _ in range(2):  # by the slow path, then by the fast one
            with pool.checkout() as echo:
                gpool.exit(echo.pid, "kill")
            assert pool.stats().idle == 0
            holder = Holder(pool)
            assert holder.thing is not echo
            holder.let_go()
        assert_whole(pool)


class TestTheForeignThread:
    def test_cannot_give_back(self, pool: gpool.Pool[Any]) -> None:
        """Rule 12: a clear error, and the books are as they were."""
        errors: list[Any] = []
        pool.checkout().checkin()
        lease = pool.checkout()

        def use() -> None:
            for act in (lease.checkin, lease.discard, pool.checkout, pool.stop, pool.drain):
                try:
                    act()
                except gpool.WrongHub as error:
                    errors.append(str(error))

        _in_a_thread(use)
        assert len(errors) == 5
        assert all("another thread's hub" in error for error in errors)
        lease.checkin()
        assert_whole(pool)

    def test_may_look(self, pool: gpool.Pool[Any]) -> None:
        """Numbers and holders are there for everybody."""
        seen: list[Any] = []
        _in_a_thread(lambda: seen.extend([pool.stats(), pool.status(), pool.holders()]))
        assert seen[1].state == "ready"

    def test_cannot_start_a_pool_of_its_own(self, pool: gpool.Pool[Any]) -> None:
        """The Application runs in one thread; another says so, and nothing is left."""
        errors: list[Any] = []

        def use() -> None:
            try:
                gpool.Pool(Echo, name="mine").start()
            except gpool.WrongHub as error:
                errors.append(error)

        _in_a_thread(use)
        assert len(errors) == 1
        with pytest.raises(gpool.UnknownPool):
            gpool.get_pool("mine")


def _in_a_thread(fn: Any) -> None:
    """Run `fn` in a real thread, and wait for it without the hub."""
    start: Any = monkey.get_original("_thread", "start_new_thread")
    allocate: Any = monkey.get_original("_thread", "allocate_lock")
    done = allocate()
    done.acquire()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            fn()
        except BaseException as error:  # noqa: BLE001  # raised in the test
            failures.append(error)
        finally:
            done.release()

    start(run, ())
    done.acquire()
    if failures:
        raise failures[0]
