"""What every integration that lends connections has to bear, on a real server.

A file of patched/ says how its users borrow, by a :class:`Subject`, gives the fixtures
`server` and `gate`, and has its class of tests inherit from :class:`Torture` and
:class:`Outages`.  Nothing sleeps and nothing is timed: everyone waits for what is to come.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import gevent
import pytest
from gevent.event import Event

import gpool
from tests.servers.gate import Gate
from tests.waiting import until

LONG = 20.0  # s that a client lets a pool wait: longer than anything takes that goes well


class Subject:
    """A pool of connections to the server behind a port, as a user has it."""

    pool: gpool.Pool[Any]  # that it lends from, to be looked at
    errors: tuple[type[Exception], ...] = ()  # what users get while the server is away
    refusals: tuple[type[Exception], ...] = ()  # ... and when no connection comes in time

    def checkout(self) -> AbstractContextManager[Any]:
        """Borrow a connection; it goes back at the end, as this integration's users do it."""
        raise NotImplementedError

    def echo(self, connection: Any, word: str) -> str:
        """Have the server say a word."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it."""
        self.pool.stop()


class Client:
    """A greenlet that borrows a connection, uses it, holds it until it is told, and gives it back.

    Args:
        holds: Whether it waits to be told.
    """

    def __init__(self, subject: Subject, *, holds: bool = True) -> None:
        self.subject = subject
        self.served, self.may_go = Event(), Event()
        self.error: BaseException | None = None  # that ended it
        self.before_return: Callable[[], object] = int
        if not holds:
            self.may_go.set()
        self.greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        word = f"word-{id(self)}"
        try:
            with self.subject.checkout() as connection:
                assert self.subject.echo(connection, word) == word
                self.served.set()
                self.may_go.wait()
                self.before_return()
        except BaseException as error:  # noqa: BLE001  # its test looks at it
            self.error = error.with_traceback(None)  # which would keep a connection alive

    def let_go(self) -> None:
        """Have it give its connection back; blocks until it has."""
        self.may_go.set()
        self.greenlet.join()

    def kill(self, error: BaseException | type[BaseException] = gevent.GreenletExit) -> None:
        """Have it cut short; blocks until it is."""
        self.greenlet.kill(error)

    @property
    def is_served(self) -> bool:
        """Whether it has, or had, a connection that works; blocks until that is known."""
        gevent.wait([self.served, self.greenlet], count=1)
        return self.served.is_set()


def holder(subject: Subject) -> Client:
    """Return a client that has a connection."""
    client = Client(subject)
    assert client.is_served, repr(client.error)
    return client


def waiter(subject: Subject, **options: Any) -> Client:
    """Return a client that waits in line."""
    before = len(subject.pool.waiters())
    client = Client(subject, **options)
    until(lambda: len(subject.pool.waiters()) == before + 1, "a client to wait")
    return client


def assert_whole(subject: Subject, gate: Gate) -> None:
    """Borrow all that there may be, at once, and give it back; nobody is left behind."""
    size = subject.pool.stats().size
    clients = [Client(subject) for _ in range(size)]
    errors = [client.error for client in clients if not client.is_served]
    assert not errors, subject.pool.stats()
    for client in clients:
        client.let_go()
    until(lambda: subject.pool.stats().busy == 0, "all to come back")
    assert not subject.pool.holders()
    assert not subject.pool.waiters()
    until(lambda: gate.open <= size, "what was discarded to be closed")


def is_served(subject: Subject) -> bool:
    """Tell whether a client that comes now gets a connection in time."""
    client = Client(subject, holds=False)
    client.greenlet.join()
    return client.error is None


class Torture:
    """The torture table, T1 to T8."""

    def make(self, gate: Gate, *, size: int, **options: Any) -> Subject:
        """Return a subject; `make_one` stops it.

        Args:
            gate: Through which it connects.
            size: The most connections.
            options: ``timeout``, seconds that clients wait, LONG if it is not given;
                ``password``, of a user who has one, so that it is the wrong one.
        """
        raise NotImplementedError

    @pytest.fixture
    def make_one(self, gate: Gate, request: pytest.FixtureRequest) -> Callable[..., Subject]:
        """Give what makes subjects, which end with the test."""

        def make(**options: Any) -> Subject:
            subject = self.make(gate, **{"size": 1} | options)
            request.addfinalizer(subject.stop)
            return subject

        return make

    def test_t1(self, make_one: Callable[..., Subject], gate: Gate) -> None:
        """A waiter is cut by a gevent.Timeout, then the connection comes back: it is there."""
        subject = make_one()
        first = holder(subject)
        cut = waiter(subject)
        cut.kill(gevent.Timeout())
        assert not cut.served.is_set()
        first.let_go()
        assert_whole(subject, gate)

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_t2(self, make_one: Callable[..., Subject], gate: Gate, moment: str) -> None:
        """The oldest waiter is killed in the turn of the return: the next one is served."""
        subject = make_one()
        first = holder(subject)
        oldest, second = waiter(subject, holds=False), waiter(subject, holds=False)
        if moment == "before":
            first.before_return = lambda: oldest.greenlet.kill(block=False)
        else:  # it is killed by a callback that is queued before its wake-up is
            first.before_return = lambda: gevent.get_hub().loop.run_callback(
                oldest.greenlet.kill, gevent.GreenletExit, False
            )
        first.let_go()
        assert second.is_served, repr(second.error)
        assert_whole(subject, gate)

    def test_t3(self, make_one: Callable[..., Subject], gate: Gate) -> None:
        """A connect fails while others wait, then the server is well: they are served."""
        gate.refusals = 1
        subject = make_one()
        clients = [Client(subject, holds=False) for _ in range(2)]
        served = [client.is_served for client in clients]
        assert served[1], repr(clients[1].error)
        assert gate.refusals == 0
        assert_whole(subject, gate)

    def test_t4(self, make_one: Callable[..., Subject], gate: Gate) -> None:
        """Three wait while one borrows and gives back without a pause: each gets its turn."""
        subject = make_one()
        turns: list[str] = []

        def borrow(who: str, times: int) -> None:
            for _ in range(times):
                with subject.checkout() as connection:
                    turns.append(who)
                    subject.echo(connection, who)

        hot = gevent.spawn(borrow, "hot", 50)
        until(lambda: turns)
        before = len(turns)
        others = [gevent.spawn(borrow, name, 1) for name in "abc"]
        gevent.joinall([hot, *others], raise_error=True)
        assert max(map(turns.index, "abc")) <= before + 8, turns
        assert_whole(subject, gate)

    def test_t5(self, make_one: Callable[..., Subject], gate: Gate) -> None:
        """A waiter is killed while the connect that it has caused is under way."""
        gate.hold()
        subject = make_one()
        client = Client(subject)
        until(lambda: gate.open == 1, "a connect")
        client.kill()
        gate.release()
        assert_whole(subject, gate)

    def test_connects_that_are_cut_short_are_closed(
        self, make_one: Callable[..., Subject], gate: Gate
    ) -> None:
        """At once, not when the collector comes: else the server sees more than there may be."""
        gate.hold()
        gc.disable()
        try:
            subject = make_one(start_timeout=0.05)
            client = Client(subject, holds=False)
            until(lambda: subject.pool.stats().start_failures >= 4, "connects to be cut short")
            until(lambda: gate.open <= 1, "their sockets to be closed")
        finally:
            gc.enable()
        gate.release()
        assert client.is_served, repr(client.error)
        assert_whole(subject, gate)

    def test_t6(self, make_one: Callable[..., Subject], gate: Gate) -> None:
        """Thirty come at once to a cold pool of four: the server sees at most four."""
        subject = make_one(size=4)
        clients = [Client(subject, holds=False) for _ in range(30)]
        assert all(client.is_served for client in clients), [one.error for one in clients]
        assert gate.peak <= 4
        assert_whole(subject, gate)

    def test_t7(self, make_one: Callable[..., Subject], gate: Gate) -> None:
        """A holder is killed: what it had is not lent again, and its slot is."""
        subject = make_one()
        holder(subject).kill()
        assert_whole(subject, gate)
        assert gate.opened == 2

    def test_t8(self, make_one: Callable[..., Subject], gate: Gate) -> None:
        """Five wait, one after the other: they are served in the order of their arrival."""
        subject = make_one()
        first = holder(subject)
        order: list[int] = []
        clients = [waiter(subject, holds=False) for _ in range(5)]
        for number, client in enumerate(clients):
            client.before_return = lambda number=number: order.append(number)
        first.let_go()
        gevent.joinall([client.greenlet for client in clients])
        assert order == [0, 1, 2, 3, 4]
        assert_whole(subject, gate)


class Outages:
    """What servers do to a pool; each test is given a server of its own by `server`."""

    make = Torture.make
    make_one = Torture.make_one

    def test_killed_and_restarted_under_load(
        self, make_one: Callable[..., Subject], gate: Gate, server: Any
    ) -> None:
        """Clients see errors and no wrong answers, and are served again when it is back."""
        subject = make_one(size=3)
        answers: list[str] = []
        is_over = Event()

        def load() -> None:
            while not is_over.is_set():
                gevent.sleep(0)
                try:
                    with subject.checkout() as connection:
                        assert subject.echo(connection, "mine") == "mine"
                        answers.append("answered")
                except subject.errors as error:
                    answers.append(repr(error))

        clients = [gevent.spawn(load) for _ in range(8)]
        until(lambda: answers.count("answered") > 50, "answers")
        server.kill()
        until(lambda: answers[-1] != "answered", "an error")
        server.start()
        served = answers.count("answered")
        until(lambda: answers.count("answered") > served + 50, "answers again")
        is_over.set()
        gevent.joinall(clients, raise_error=True)
        assert_whole(subject, gate)
        assert gate.peak <= 3

    def test_black_holed(self, make_one: Callable[..., Subject], gate: Gate, server: Any) -> None:
        """A server that is silent costs those who ask it, and those who wait, their patience."""
        subject = make_one(timeout=0.5)
        first = holder(subject)
        server.freeze()

        def ask() -> str:
            try:
                with gevent.Timeout(0.5), subject.checkout() as connection:
                    return subject.echo(connection, "anyone?")
            except (gevent.Timeout, *subject.refusals):
                return "no answer"

        first.let_go()
        clients = [gevent.spawn(ask) for _ in range(3)]
        assert [client.get() for client in clients] == ["no answer"] * 3
        server.thaw()
        until(lambda: is_served(subject), "an answer")
        assert_whole(subject, gate)

    def test_wrong_credentials(self, make_one: Callable[..., Subject], server: Any) -> None:
        """Clients are told why no connection comes; the pool goes on trying, with pauses."""
        subject = make_one(timeout=0.5, password="wrong")
        client = Client(subject)
        assert not client.is_served
        assert isinstance(client.error, subject.refusals)
        assert "password" in str(subject.pool.stats().last_start_failure)

    def test_full(self, make_one: Callable[..., Subject], gate: Gate, server: Any) -> None:
        """Whoever asks a server that takes nobody more waits, and is served when it does."""
        with server.filled():
            subject = make_one()
            client = Client(subject, holds=False)
            until(lambda: subject.pool.stats().start_failures, "a refusal")
            assert not client.greenlet.dead
        assert client.is_served, repr(client.error)
        assert_whole(subject, gate)
