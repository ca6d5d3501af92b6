"""Marked methods: what clients call of a server, as if it were a plain object."""

from __future__ import annotations

import contextvars
import functools
import gc
import inspect
import typing
import weakref

import gevent
import pytest

import gpool
from gpool import NoProcess, ServerExited
from gpool.testing import settle
from tests.otp.nursery import Attempt

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


class Calculator(gpool.GenServer):
    """A server with marked methods."""

    def __init__(self):
        self.where = []

    @gpool.call
    def add(self, one: int, two: int = 1) -> int:
        """Add two numbers."""
        self.where.append(gpool.self())
        return one + two

    @gpool.call(raises=(ValueError, KeyError), timeout=2.0)
    def parse(self, text: str) -> int:
        """Parse a number."""
        return int(text)

    @gpool.call
    def twice(self, number: int) -> int:
        """Call another marked method, from the server's own process."""
        return self.add(number, number)

    @gpool.call(timeout=2.0)
    def hang(self) -> None:
        """Wait for ever."""
        gevent.event.Event().wait()

    @gpool.call
    def variable(self) -> str:
        """Tell the context variable, and change it."""
        seen = VARIABLE.get()
        VARIABLE.set("changed by the server")
        return seen

    @gpool.call(context=False)
    def own_variable(self) -> str:
        """Tell the server's own context variable."""
        return VARIABLE.get()

    @gpool.cast
    def note(self, what: str) -> None:
        """Write something down."""
        self.where.append((what, VARIABLE.get()))

    @gpool.cast(context=False)
    def note_plainly(self, what: str) -> None:
        """Write something down, in the server's own context."""
        self.where.append((what, VARIABLE.get()))


class TestMarkedMethods:
    def test_run_in_the_servers_process(self):
        """A call of another process travels through the mailbox; arguments and value too."""
        server = Calculator.start()
        assert server.add(2, two=3) == 5
        assert server.where == [server.pid]

    def test_run_directly_in_their_own_process(self):
        """A marked method that the server calls itself runs there, without a message."""
        server = Calculator.start()
        assert server.twice(4) == 8

    def test_keep_their_signature(self):
        """Name, docstring, signature and types are those of the method."""
        assert Calculator.add.__name__ == "add"
        assert Calculator.add.__doc__ == "Add two numbers."
        assert list(inspect.signature(Calculator.add).parameters) == ["self", "one", "two"]
        assert typing.get_type_hints(Calculator.parse) == {"text": str, "return": int}

    def test_an_exception_in_raises_is_the_answer(self):
        """What `raises` lists is raised in the caller, and the server lives."""
        server = Calculator.start()
        with pytest.raises(ValueError, match="invalid literal"):
            server.parse("x")
        assert server.parse("7") == 7

    def test_any_other_exception_ends_the_server(self):
        """What `raises` does not list ends the server and is the cause of ServerExited."""
        server = Calculator.start()
        with pytest.raises(ServerExited) as exited:
            server.parse(None)
        assert isinstance(exited.value.__cause__, TypeError)
        assert not gpool.is_alive(server)

    def test_have_their_timeout(self, clock):
        """The timeout of the mark is the caller's."""
        server = Calculator.start()
        attempt = Attempt(server.hang)
        clock.advance(1.9)
        assert not attempt.done
        clock.advance(0.1)
        assert attempt.error.timeout == 2.0

    def test_a_cast_returns_at_once(self):
        """A cast returns None and runs when the server gets to it."""
        server = Calculator.start()
        assert server.note("later") is None
        assert server.where == []
        settle()
        assert server.where == [("later", "unset")]

    def test_of_a_dead_or_unstarted_server(self):
        """A call raises NoProcess; a cast to the dead vanishes."""
        dead, unstarted = Calculator.start(), Calculator()
        gpool.stop(dead)
        for server in (dead, unstarted):
            with pytest.raises(NoProcess):
                server.add(1)
            server.note("nobody hears")

    @pytest.mark.parametrize(
        ("mark", "fault"),
        [
            (lambda: gpool.call(timeout=-1), "expected seconds"),
            (lambda: gpool.call(timeout="5"), "expected seconds"),
            (lambda: gpool.call(raises=("ValueError",)), "expected exception classes"),
            (lambda: gpool.call(raises=[ValueError]), "expected exception classes"),
        ],
    )
    def test_refuse_bad_options(self, mark, fault):
        """A mark with wrong options fails where it is written."""
        with pytest.raises((TypeError, ValueError), match=fault):
            mark()

    def test_the_answer_keeps_no_cycle(self):
        """An exception that was an answer goes when its caller lets go of it."""

        class Local:
            pass

        witnesses = []

        class Server(gpool.GenServer):
            @gpool.call(raises=KeyError)
            def fail(self):
                local = Local()
                witnesses.append(weakref.ref(local))
                raise KeyError(1)

        server = Server.start()
        gc.collect()
        gc.disable()
        try:
            with pytest.raises(KeyError):
                server.fail()
            settle()
            server.pid.last_message = None
        finally:
            gc.enable()
        gc.collect()
        assert witnesses[0]() is None


class TestContexts:
    def test_a_call_runs_in_a_copy_of_its_callers(self):
        """The method sees its caller's variables; what it sets stays in the copy."""
        server = Calculator.start()
        token = VARIABLE.set("the caller's")
        try:
            assert server.variable() == "the caller's"
            assert server.variable() == "the caller's"
            assert VARIABLE.get() == "the caller's"
            assert server.own_variable() == "unset"
            server.note("in context")
            server.note_plainly("without")
            settle()
            assert server.where == [("in context", "the caller's"), ("without", "unset")]
        finally:
            VARIABLE.reset(token)

    def test_survives_a_switch(self):
        """A server that blocks in a call keeps that call's variables, and others keep theirs."""
        seen = []

        class Server(gpool.GenServer):
            @gpool.call
            def slow(self):
                gevent.sleep(0)
                seen.append(VARIABLE.get())
                return VARIABLE.get()

        server = Server.start()

        def client(value):
            VARIABLE.set(value)
            assert server.slow() == value
            assert VARIABLE.get() == value
            seen.append(("client", VARIABLE.get()))

        for value in ("one", "two"):
            gpool.spawn(client, value)
        for _ in range(5):
            gevent.sleep(0)
        settle()
        assert [entry for entry in seen if type(entry) is str] == ["one", "two"]
        assert VARIABLE.get() == "unset"


def with_one(method):
    """Decorate a method so that it gets an argument more than its callers give."""

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        return method(self, 1, *args, **kwargs)

    return wrapper


class Fussy(gpool.GenServer):
    """A server whose methods take arguments of every kind."""

    @gpool.call
    def plain(self, one, /, two, three=3):
        """Positional ones."""
        return one, two, three

    @gpool.call
    def many(self, one, *more, flag=False, **rest):
        """As many as may be."""
        return one, more, flag, rest

    @gpool.call
    def named(self, *, name):
        """One by name only."""
        return name

    @gpool.cast
    def note(self, what):
        """A cast."""

    @gpool.call
    @with_one
    def decorated(self, one, two):
        """Gets `one` from its decorator."""
        return one, two


class TestArguments:
    @pytest.mark.parametrize(
        ("use", "value"),
        [
            (lambda server: server.plain(1, 2), (1, 2, 3)),
            (lambda server: server.plain(1, two=2), (1, 2, 3)),
            (lambda server: server.plain(1, 2, 4), (1, 2, 4)),
            (lambda server: server.many(1), (1, (), False, {})),
            (lambda server: server.many(1, 2, 3, flag=True, x=4), (1, (2, 3), True, {"x": 4})),
            (lambda server: server.named(name="x"), "x"),
            (lambda server: server.decorated(2), (1, 2)),
        ],
    )
    def test_that_fit_pass(self, use, value):
        """Whatever Python would take is taken."""
        assert use(Fussy.start()) == value

    @pytest.mark.parametrize(
        ("use", "words"),
        [
            (lambda server: server.plain(1), "Fussy.plain: missing a required argument: 'two'"),
            (lambda server: server.plain(1, 2, 3, 4), "Fussy.plain: too many positional"),
            (lambda server: server.plain(one=1, two=2), "Fussy.plain: "),
            (lambda server: server.many(), "Fussy.many: missing a required argument"),
            (lambda server: server.named("x"), "Fussy.named: too many positional"),
            (lambda server: server.named(), "Fussy.named: missing a required"),
            (lambda server: server.note(), "Fussy.note: missing a required"),
            (lambda server: server.note(1, 2), "Fussy.note: too many positional"),
        ],
    )
    def test_that_do_not_fit_are_the_callers_error(self, use, words):
        """A client's typing error is its own TypeError; the server and its others live."""
        server = Fussy.start()
        with pytest.raises(TypeError, match=words):
            use(server)
        settle()
        assert server.named(name="alive") == "alive"


class TestMarks:
    @pytest.mark.parametrize("mark", [gpool.call, gpool.cast])
    @pytest.mark.parametrize("odd", [3, "add", property(abs), staticmethod(abs), classmethod(abs)])
    def test_are_for_methods_of_the_instance(self, mark, odd):
        """Anything else fails where it is marked."""
        with pytest.raises(TypeError, match="expected a method of the instance, got"):
            mark(odd)

    def test_are_not_for_bodies_that_run_later(self):
        """A generator's body, or a coroutine's, would run in the caller."""

        def generator(self):
            yield

        async def coroutine(self):
            """Do nothing."""

        for method in (generator, coroutine):
            with pytest.raises(TypeError, match="whose body its caller would run"):
                gpool.call(method)

    def test_of_an_overridden_method(self):
        """Overridden and marked again it runs in the server; super() is a plain call there."""

        class Base(gpool.GenServer):
            @gpool.call
            def where(self):
                return ["base", gpool.self()]

        class Marked(Base):
            @gpool.call
            def where(self):
                return ["marked", gpool.self(), *super().where()]

        class Unmarked(Base):
            def where(self):
                return ["unmarked", gpool.self(), *super().where()]

        marked, unmarked = Marked.start(), Unmarked.start()
        assert marked.where() == ["marked", marked.pid, "base", marked.pid]
        assert unmarked.where() == ["unmarked", gpool.self(), "base", unmarked.pid]
