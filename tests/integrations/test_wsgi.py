"""A scope for each request: what PEP 3333 asks of a middleware, and what real servers do."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import wsgiref.handlers
import wsgiref.util
import wsgiref.validate
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent import monkey
from gevent.pywsgi import WSGIServer

import gpool
from gpool import telemetry
from gpool.integrations.wsgi import SCOPE, RequestScope, ResponseAborted
from gpool.testing import settle
from tests.integrations import wsgi_app
from tests.observer import wire
from tests.servers.program import family, missing
from tests.waiting import until

CHECKOUT = Path(__file__).parents[2]
SAYS_PORT = """
def when_ready(server):
    print(server.LISTENERS[0].getsockname()[1], flush=True)
"""

# --- By hand ------------------------------------------------------------------------


class Thing:
    """What is lent."""

    resets = 0
    closed = False

    def reset(self) -> None:
        """Count."""
        self.resets += 1

    def close(self) -> None:
        """Remember."""
        self.closed = True


@pytest.fixture
def things() -> Iterator[gpool.Pool[Thing]]:
    """A pool of one thing; it is lent to nobody when the test ends."""
    resource = gpool.Resource(create=Thing, reset=Thing.reset, close=Thing.close)
    pool = gpool.Pool(resource, size=1, timeout=1.0)
    with pool:
        yield pool
        assert pool.status().busy == 0


@pytest.fixture
def events() -> Iterator[list[telemetry.Event]]:
    """All that is told."""
    told: list[telemetry.Event] = []
    telemetry.attach(told.append)
    yield told
    telemetry.detach(told.append)


def environ_of(**more: Any) -> dict[str, Any]:
    """Return the environ of a request."""
    environ: dict[str, Any] = {}
    wsgiref.util.setup_testing_defaults(environ)
    return environ | {"QUERY_STRING": ""} | more


def start(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
    """Begin a response that goes nowhere."""
    return io.BytesIO().write


def app_of(fn: Callable[[dict[str, Any]], Iterable[bytes]]) -> Any:
    """Return an application whose body is what a function returns."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return fn(environ)

    return app


class TestRequest:
    def test_gives_back_when_its_body_is_closed(self, things: gpool.Pool[Thing]) -> None:
        """Not when the application returns, nor at the last piece: ``close`` may use it."""
        seen = []

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                return iter([b"a", b"b"])

            def close(self) -> None:
                seen.append(things.status().busy)

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            environ[SCOPE].keep(things.checkout())
            return Body()

        body: Any = RequestScope(app_of(view))(environ_of(), start)
        assert list(body) == [b"a", b"b"]
        assert things.status().busy == 1
        body.close()
        assert seen == [1]
        assert things.status().busy == 0
        body.close()  # a second time changes nothing

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_gives_back_at_once_if_the_body_is_whole(
        self, things: gpool.Pool[Thing], kind: type
    ) -> None:
        """A list is passed on as it is: servers look at its length."""
        leases = []
        whole = kind([b"all", b" of it"])

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            leases.append(things.checkout())
            return whole

        assert RequestScope(app_of(view))(environ_of(), start) is whole
        assert things.status().busy == 0

    def test_gives_back_what_is_borrowed_in_the_body(self, things: gpool.Pool[Thing]) -> None:
        """And the application runs no further than the server asks for."""
        steps = []

        def view(environ: dict[str, Any]) -> Iterator[bytes]:
            steps.append("begun")
            lease = things.checkout()
            yield b"a"
            steps.append("goes on")
            yield b"b"
            assert lease

        body: Any = RequestScope(app_of(view))(environ_of(), start)
        assert steps == []
        assert next(body) == b"a"
        assert steps == ["begun"]
        body.close()
        settle()
        assert things.status().busy == 0

    def test_tells_from_which_line_something_was_forgotten(
        self, things: gpool.Pool[Thing], events: list[telemetry.Event]
    ) -> None:
        """And nothing of what was kept on purpose."""
        leases = []

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/keep":
                environ[SCOPE].keep(things.checkout())
            else:
                leases.append(things.checkout())
            return [b""]

        scoped = RequestScope(app_of(view))
        scoped(environ_of(PATH_INFO="/keep"), start)
        scoped(environ_of(PATH_INFO="/forget"), start)
        settle()
        [told] = [event for event in events if isinstance(event, telemetry.LeaseForgotten)]
        assert told.line.endswith("view")

    def test_touches_nothing_from_before(self, things: gpool.Pool[Thing]) -> None:
        """What its greenlet had already, say for the whole connection."""
        with things.checkout():
            RequestScope(app_of(lambda environ: [b""]))(environ_of(), start)
            assert things.status().busy == 1

    def test_may_be_nested(self, things: gpool.Pool[Thing]) -> None:
        """The inner request has its own scope."""
        scopes = []

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            scopes.append(environ[SCOPE])
            environ[SCOPE].keep(things.checkout())
            return iter([b"a"])

        inner = RequestScope(app_of(view))

        def around(environ: dict[str, Any], start_response: Any) -> Any:
            scopes.append(environ[SCOPE])
            return inner(environ, start_response)

        body: Any = RequestScope(around)(environ_of(), start)
        assert list(body) == [b"a"]
        body.close()
        assert scopes[0] is not scopes[1]
        assert things.status().busy == 0

    def test_around_another_has_its_scope_back(self, things: gpool.Pool[Thing]) -> None:
        """Once the inner one has ended: in the environ is one that can keep."""
        inner = RequestScope(app_of(lambda environ: [b"a"]))
        seen = []

        def around(environ: dict[str, Any], start_response: Any) -> Any:
            outer = environ[SCOPE]
            body = inner(environ, start_response)
            seen.append(environ[SCOPE] is outer)
            environ[SCOPE].keep(things.checkout())
            return body

        RequestScope(around)(environ_of(), start)
        assert seen == [True]
        assert things.status().busy == 0

    def test_around_a_streamed_one_has_its_scope_back(self) -> None:
        """When the inner body was closed, and unless others have put one there."""
        inner = RequestScope(app_of(lambda environ: iter([b"a"])))
        outer, other = gpool.Scope(), gpool.Scope()
        environ = environ_of(**{SCOPE: outer})
        for last in (outer, other):
            body: Any = inner(environ, start)
            assert environ[SCOPE] not in (outer, other)
            if last is other:
                environ[SCOPE] = other
            body.close()
            assert environ[SCOPE] is last

    def test_wants_an_application(self) -> None:
        """Or says so at once."""
        with pytest.raises(TypeError, match="app: expected a WSGI application, got 'app'"):
            RequestScope("app")  # type: ignore[arg-type]


class TestThreads:
    @pytest.mark.skipif(monkey.is_module_patched("threading"), reason="they are greenlets here")
    def test_are_warned_of(self) -> None:
        """Once: a pool would refuse to lend in all but the first."""
        scoped = RequestScope(app_of(lambda environ: [b""]))
        with pytest.warns(RuntimeWarning, match="a pool lends in one thread only"):
            scoped(environ_of(**{"wsgi.multithread": True}), start)
        scoped(environ_of(**{"wsgi.multithread": True}), start)

    def test_that_there_are_not_are_no_matter(self) -> None:
        """As with pywsgi."""
        RequestScope(app_of(lambda environ: [b""]))(environ_of(), start)


class TestError:
    """What ends a request decides what becomes of a resource."""

    def ended(self, things: gpool.Pool[Thing], how: str, error: BaseException) -> tuple[int, bool]:
        """Return how often a thing was reset, and whether it was closed, after such an end."""
        with things.checkout() as thing:
            pass
        settle()
        before = thing.resets

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            environ[SCOPE].keep(things.checkout())
            return body() if how != "app" else fail()

        def fail() -> Any:
            raise error

        def body() -> Iterator[bytes]:
            yield b"a"
            if how == "body":
                fail()

        with pytest.raises(type(error)):
            self._serve(RequestScope(app_of(view)), how, error)
        settle()
        return thing.resets - before, thing.closed

    def _serve(self, app: RequestScope, how: str, error: BaseException) -> None:
        body: Any = app(environ_of(), start)
        try:
            for _ in body:
                if how == "server":
                    raise error
        finally:
            body.close()

    @pytest.mark.parametrize("how", ["app", "body", "server"])
    def test_exception_resets(self, things: gpool.Pool[Thing], how: str) -> None:
        """Be it the application's or, when the client has gone, the server's."""
        assert self.ended(things, how, BrokenPipeError()) == (1, False)

    @pytest.mark.parametrize("how", ["app", "body", "server"])
    @pytest.mark.parametrize("error", [gevent.GreenletExit, gevent.Timeout, SystemExit])
    def test_base_exception_discards(
        self, things: gpool.Pool[Thing], how: str, error: type[BaseException]
    ) -> None:
        """Whoever is cut short leaves a resource in no known state."""
        assert self.ended(things, how, error()) == (0, True)

    @pytest.mark.parametrize("error", [ZeroDivisionError, gevent.Timeout])
    def test_of_the_body_is_told_though_it_was_handled(self, error: type[BaseException]) -> None:
        """The server may have logged it, and close the body later."""
        told: list[BaseException] = []
        hooks = {"is_broken": lambda error, thing: bool(told.append(error))}
        with gpool.Pool(gpool.Resource(create=Thing, **hooks), size=1) as pool:

            def view(environ: dict[str, Any]) -> Iterator[bytes]:
                environ[SCOPE].keep(pool.checkout())
                yield b"a"
                raise error

            body: Any = RequestScope(app_of(view))(environ_of(), start)
            with pytest.raises(error):
                list(body)
            body.close()
            assert [type(one) for one in told] == [error]

    def test_of_a_generator_around_it_is_a_hang_up(self, things: gpool.Pool[Thing]) -> None:
        """Middleware that the server closes: it was at a ``yield``, and nobody was cut short."""

        def view(environ: dict[str, Any]) -> Iterator[bytes]:
            kept.append(environ[SCOPE].keep(things.checkout()))
            yield from [b"a", b"b"]

        def around(body: Any) -> Iterator[bytes]:
            with contextlib.closing(body):
                for piece in body:
                    yield piece.upper()

        kept: list[Thing] = []
        body: Any = around(RequestScope(app_of(view))(environ_of(), start))
        next(body)
        body.close()
        settle()
        assert (kept[0].resets, kept[0].closed) == (1, False)

    @pytest.mark.parametrize("error", [ZeroDivisionError, gevent.GreenletExit])
    def test_of_iter_closes_the_body_and_gives_back(
        self, things: gpool.Pool[Thing], error: type[BaseException]
    ) -> None:
        """The server never gets to see what it would have to close."""
        seen = []

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                raise error

            def close(self) -> None:
                seen.append(things.status().busy)

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            environ[SCOPE].keep(things.checkout())
            return Body()

        with pytest.raises(error):
            RequestScope(app_of(view))(environ_of(), start)
        assert seen == [1]
        assert things.status().busy == 0

    def test_of_close_discards_too(self, things: gpool.Pool[Thing]) -> None:
        """And gives back all the same."""

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                return iter(())

            def close(self) -> None:
                raise gevent.GreenletExit

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            kept.append(environ[SCOPE].keep(things.checkout()))
            return Body()

        kept: list[Thing] = []
        body: Any = RequestScope(app_of(view))(environ_of(), start)
        with pytest.raises(gevent.GreenletExit):
            body.close()
        settle()
        assert kept[0].closed

    @pytest.mark.parametrize(("read", "asked"), [(1, [ResponseAborted]), (9, [])])
    def test_of_nobody_if_the_body_was_not_sent_to_its_end(
        self, read: int, asked: list[type]
    ) -> None:
        """A resource is told so; without a reset it is discarded, as after any exception."""
        told: list[BaseException] = []
        hooks = {"is_broken": lambda error, thing: bool(told.append(error))}
        with gpool.Pool(gpool.Resource(create=Thing, close=Thing.close, **hooks), size=1) as pool:

            def view(environ: dict[str, Any]) -> Iterator[bytes]:
                kept.append(environ[SCOPE].keep(pool.checkout()))
                yield from [b"a", b"b"]

            kept: list[Thing] = []
            body: Any = RequestScope(app_of(view))(environ_of(), start)
            for _ in range(read):
                next(body, None)
            body.close()
            settle()
            assert [type(error) for error in told] == asked
            assert kept[0].closed == bool(asked)
            assert "before its body had ended" in str(ResponseAborted())


class TestConformance:
    """PEP 3333, on both sides, as wsgiref sees it."""

    def ask(self, app: Any, method: str = "GET", handler: Any = None) -> tuple[str, bytes]:
        """Return the status and body of the answer of an application."""
        out, said = io.BytesIO(), io.StringIO()
        environ = environ_of(REQUEST_METHOD=method)
        checked = wsgiref.validate.validator(RequestScope(wsgiref.validate.validator(app)))
        one = (handler or wsgiref.handlers.SimpleHandler)(
            io.BytesIO(), out, said, environ, multithread=False
        )
        one.run(checked)
        assert said.getvalue() == ""
        head, _, body = out.getvalue().partition(b"\r\n\r\n")
        return head.decode().splitlines()[0], body

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_of_a_body_of_pieces(self, things: gpool.Pool[Thing], method: str) -> None:
        """A generator that borrows."""

        def view(environ: dict[str, Any]) -> Iterator[bytes]:
            with things.checkout():
                yield b"a"
                yield b"b"

        status, body = self.ask(app_of(view), method)
        assert (status, body) == ("HTTP/1.0 200 OK", b"ab")

    def test_of_a_start_that_comes_late(self) -> None:
        """With the first piece."""

        def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield b"late"

        class Starts:  # the validator wants the start before the first piece is there
            def __init__(self, environ: dict[str, Any], start_response: Any) -> None:
                self.pieces = app(environ, start_response)

            def __iter__(self) -> Iterator[bytes]:
                return self.pieces

        assert self.ask(Starts) == ("HTTP/1.0 200 OK", b"late")

    def test_of_write(self) -> None:
        """The old way is passed on."""

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            write(b"written, ")
            return iter([b"and returned"])

        assert self.ask(app) == ("HTTP/1.0 200 OK", b"written, and returned")

    def test_of_exc_info(self) -> None:
        """A second start, with the exception, is the server's."""

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                start_response("500 Oh", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"sorry"]

        assert self.ask(app) == ("HTTP/1.0 500 Oh", b"sorry")

    def test_of_an_iterable_by_index(self, things: gpool.Pool[Thing]) -> None:
        """What has ``__getitem__`` alone is one, and is not yet whole."""

        class Pieces:
            def __getitem__(self, index: int) -> bytes:
                assert things.status().busy == 1
                return [b"a", b"b"][index]

        def view(environ: dict[str, Any]) -> Any:
            environ[SCOPE].keep(things.checkout())
            return Pieces()

        body: Any = RequestScope(app_of(view))(environ_of(), start)
        assert list(body) == [b"a", b"b"]
        body.close()

    def test_of_what_is_no_body(self) -> None:
        """A server's own sign, such as gunicorn's ALREADY_HANDLED, is passed on."""
        sign = object()
        assert RequestScope(app_of(lambda environ: sign))(environ_of(), start) is sign  # type: ignore[arg-type,return-value]

    def test_of_a_file(self, things: gpool.Pool[Thing]) -> None:
        """The server sees its own wrapper; its close ends the request."""
        sent = []

        class Handler(wsgiref.handlers.SimpleHandler):
            def sendfile(self) -> bool:
                sent.append((self.result.filelike.read(), things.status().busy))
                return True

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            environ[SCOPE].keep(things.checkout())
            wrapper: Any = environ["wsgi.file_wrapper"]
            return wrapper(io.BytesIO(b"of a file"))

        out = io.BytesIO()
        environ = environ_of()
        handler = Handler(io.BytesIO(), out, io.StringIO(), environ, multithread=False)
        handler.run(RequestScope(app_of(view)))
        assert sent == [(b"of a file", 1)]
        assert things.status().busy == 0

    def test_of_a_file_that_cannot_be_hooked(self, things: gpool.Pool[Thing]) -> None:
        """The request ends when it is returned: there is no later moment to be told of."""

        class Wrapper:
            __slots__ = ("file",)

            def __init__(self, file: Any) -> None:
                self.file = file

            def __iter__(self) -> Iterator[bytes]:
                return iter(self.file)

        def view(environ: dict[str, Any]) -> Iterable[bytes]:
            environ[SCOPE].keep(things.checkout())
            return Wrapper(io.BytesIO(b"of a file"))

        environ = environ_of(**{"wsgi.file_wrapper": Wrapper})
        assert isinstance(RequestScope(app_of(view))(environ, start), Wrapper)
        assert things.status().busy == 0


# --- On real servers ----------------------------------------------------------------


@contextlib.contextmanager
def pywsgi() -> Iterator[int]:
    """Serve in this process; give the port."""
    server = WSGIServer(("127.0.0.1", 0), wsgi_app.application, log=None, error_log=None)
    server.start()
    wsgi_app.told.clear()
    wsgi_app.closed.clear()
    wsgi_app.pool.start()
    try:
        yield server.server_port
    finally:
        server.stop()
        wsgi_app.pool.stop()


@contextlib.contextmanager
def gunicorn() -> Iterator[int]:
    """Serve by one worker; give the port."""
    if importlib.util.find_spec("gunicorn") is None:
        missing("gunicorn", "pip install gunicorn")
    with tempfile.TemporaryDirectory(prefix="gpool-") as folder:
        config = Path(folder) / "gunicorn.conf.py"
        config.write_text(SAYS_PORT)
        command = [
            sys.executable, "-m", "gunicorn", "-k", "gevent", "--keep-alive=60", "-c", str(config),
            "-b", "127.0.0.1:0", "tests.integrations.wsgi_app:application",
        ]  # fmt: skip
        env = os.environ | {"PYTHONPATH": str(CHECKOUT), "HOME": folder}
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            for pid in list(family(process.pid)):
                os.kill(pid, signal.SIGKILL)
            process.communicate()


class Browser:
    """A client that keeps its connection alive."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sock = gevent.socket.create_connection(("127.0.0.1", port), timeout=10)

    def ask(self, path: str) -> None:
        """Ask, and read nothing."""
        self.sock.sendall(wire.request(self.port, path, Connection="keep-alive"))

    def get(self, path: str) -> bytes:
        """Return the body of an answer."""
        self.ask(path)
        return wire.reply_of(self.sock).body

    @property
    def status(self) -> dict[str, int]:
        """What the server says of its pool, in the greenlet that serves this connection."""
        said: dict[str, int] = json.loads(self.get("/status"))
        return said

    def hang_up(self) -> None:
        """Go away, whatever is still to come."""
        self.sock.close()


@pytest.fixture(params=[pywsgi, gunicorn], ids=lambda server: server.__name__)
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Give a client of a server that runs."""
    with request.param() as port:
        browser = Browser(port)
        yield browser
        browser.hang_up()


class TestServer:
    """One keep-alive connection, and so one greenlet, for request after request."""

    def test_gives_back_what_requests_forget(self, browser: Browser) -> None:
        """More of them than there are things; each is told, and is not lent again."""
        me = browser.status["me"]
        for _ in range(5):
            assert browser.get("/forget") == b"forgot"
        after = browser.status
        assert (after["me"], after["busy"]) == (me, 0)
        until(lambda: browser.status["told"] == browser.status["closed"] == 5)

    @pytest.mark.parametrize("path", ["/keep", "/file"])
    def test_gives_back_after_the_body(self, browser: Browser, path: str) -> None:
        """Of pieces, or of a file that the server sends by itself."""
        for _ in range(4):
            body = browser.get(path)
            assert body.isdigit() or body == Path(wsgi_app.__file__).read_bytes()
        assert browser.status["busy"] == 0

    @pytest.mark.parametrize("path", ["/fail", "/fail-later", "/time-out"])
    def test_gives_back_after_an_error(
        self, browser: Browser, path: str, unnoticed_deaths: list[BaseException]
    ) -> None:
        """Before the body and in it; a Timeout has the thing discarded."""
        for _ in range(4):
            one = Browser(browser.port)
            with contextlib.suppress(OSError, http.client.HTTPException):
                one.get(path)
            one.hang_up()
        until(lambda: browser.status["busy"] == 0)
        assert browser.status["closed"] == (4 if path == "/time-out" else 0)
        unnoticed_deaths.clear()  # pywsgi reports errors of applications to the hub

    def test_gives_back_when_a_client_hangs_up(self, browser: Browser) -> None:
        """In the middle of a body that never ends; what it had is reset, not closed."""
        others = [Browser(browser.port) for _ in range(3)]
        for other in others:
            other.ask("/stream")
            assert other.sock.recv(100)
        assert browser.status["busy"] == 3
        for other in others:
            other.hang_up()
        until(lambda: browser.status["busy"] == 0)
        assert (browser.status["told"], browser.status["closed"]) == (0, 0)
        assert browser.get("/keep")
