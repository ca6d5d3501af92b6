"""Flask: what a request borrows goes back, whatever becomes of the request."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import gevent
import pytest
from flask import Flask, Response, session, stream_with_context
from flask.cli import ScriptInfo
from flask.testing import EnvironBuilder

import gpool
from gpool import telemetry
from gpool.integrations.flask import DEFAULTS, GPool, State
from gpool.testing import settle
from tests.integrations.things import THINGS, Thing
from tests.observer import wire
from tests.waiting import until

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def app() -> Iterator[Flask]:
    """An app with one thing; nobody has it when the test ends."""
    app = Flask("shop")
    app.secret_key = "for the tests"
    app.testing = True
    app.config["GPOOL_POOLS"] = {"db": {"worker": THINGS, "size": 1, "timeout": 1.0}}
    pools = GPool(app)
    app.extensions["pools"] = pools
    yield app
    settle()
    busy = app.extensions["gpool"].pools["db"].stats().busy
    app.extensions["gpool"].stop()
    assert busy == 0


@pytest.fixture
def pools(app: Flask) -> GPool:
    """The extension."""
    pools: GPool = app.extensions["pools"]
    return pools


@pytest.fixture
def db(app: Flask) -> gpool.Pool[Thing]:
    """The pool."""
    pool: gpool.Pool[Thing] = app.extensions["gpool"].pools["db"]
    return pool


class TestBorrow:
    def test_gives_the_same_all_request_long(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing], forgotten: list[telemetry.Event]
    ) -> None:
        """And it is back, reset, before anybody reads the response."""

        @app.get("/")
        def view() -> str:
            first, second = pools.borrow("db"), pools.borrow(db)
            return str(first is second)

        response = app.test_client().get("/")
        assert response.text == "True"
        settle()
        assert db.stats().busy == 0
        with db.checkout() as thing:
            assert thing.resets == 1
        assert forgotten == []

    def test_tells_of_the_line_of_the_view(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing]
    ) -> None:
        """Not of one in the extension."""

        @app.get("/")
        def view() -> str:
            pools.borrow("db")
            return db.holders()[0].line

        assert app.test_client().get("/").text.endswith("view")

    def test_lends_of_any_pool(self, app: Flask, pools: GPool) -> None:
        """Be it the app's or not."""
        other = gpool.Pool(THINGS, size=1, name="other")

        @app.get("/")
        def view() -> str:
            return str(pools.borrow(other) is pools.borrow("db"))

        assert app.test_client().get("/").text == "False"
        settle()
        assert other.stats().busy == 0
        other.stop()

    def test_waits_as_long_as_it_is_told(self, app: Flask, pools: GPool) -> None:
        """Without a word as long as the pool says."""
        with app.app_context():
            pools.borrow("db")

            def other(**options: Any) -> Any:
                with app.app_context(), pytest.raises(gpool.CheckoutTimeout) as raised:
                    pools.borrow("db", **options)
                return raised.value.timeout

            assert gevent.spawn(other, timeout=0.01).get() == 0.01
            assert gevent.spawn(other).get() == 1.0

    def test_works_in_a_context_outside_of_requests(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing]
    ) -> None:
        """As commands and tests have one."""
        with app.app_context():
            pools.borrow("db")
            assert db.stats().busy == 1
        settle()
        assert db.stats().busy == 0

    def test_works_in_a_command(self, app: Flask, pools: GPool, db: gpool.Pool[Thing]) -> None:
        """Of the app's own."""

        @app.cli.command("count")
        def count() -> None:
            print(type(pools.borrow("db")).__name__)

        assert app.test_cli_runner().invoke(args=["count"]).output == "Thing\n"
        settle()
        assert db.stats().busy == 0

    def test_again_after_a_request_in_the_same_context(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing], forgotten: list[telemetry.Event]
    ) -> None:
        """A request in a test's context shares it; what it had is given back by its end."""

        @app.get("/")
        def view() -> list[str]:
            pools.borrow("db")
            return ["a"]

        with app.app_context():
            for _ in range(3):
                app.test_client().get("/").close()
                assert db.stats().busy == 0
            assert isinstance(pools.borrow("db"), Thing)
        settle()
        assert forgotten == []

    def test_says_so_if_what_it_has_was_lost(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing]
    ) -> None:
        """Another one, in the middle of a transaction, would be a surprise."""
        with app.app_context():
            pools.borrow("db")
            gpool.exit(db.tree().pool_man, "kill")
            settle()
            with pytest.raises(gpool.LeaseLost):
                pools.borrow("db")

    def test_of_a_helper_is_its_own(self, app: Flask, pools: GPool, db: gpool.Pool[Thing]) -> None:
        """Whether it has the request's context variables, or a copy of its context."""
        db.resize(3)
        seen: list[Thing] = []

        def helper() -> None:
            seen.append(pools.borrow("db"))

        @app.get("/")
        def view() -> str:
            mine = pools.borrow("db")
            gevent.spawn(flask.copy_current_request_context(helper)).join()
            assert db.stats().busy == 1
            gpool.spawn(helper)
            settle()
            return str(mine not in seen and len(set(seen)))

        assert app.test_client().get("/").text in ("1", "2")

    def test_wants_a_context_and_a_pool(self, app: Flask, pools: GPool) -> None:
        """Flask says which; ours says what is missing."""
        with pytest.raises(RuntimeError, match="application context"):
            pools.borrow("db")
        expected = r"^GPOOL_POOLS: expected one of \['db'\], got 'dbb'$"
        with app.app_context(), pytest.raises(gpool.UnknownPool, match=expected) as caught:
            pools.borrow("dbb")
        assert caught.value.pool == "dbb"
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        with (
            Flask("other").app_context(),
            pytest.raises(RuntimeError, match=r"expected one of init_app\(\)"),
        ):
            pools.borrow("db")


class TestRequest:
    @pytest.mark.parametrize("status", [500, 404])
    def test_that_fails_has_it_reset(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing], status: int
    ) -> None:
        """Whether somebody handles the error or not."""
        app.testing = False
        seen = []

        @app.get("/")
        def view() -> str:
            seen.append(pools.borrow("db"))
            flask.abort(404) if status == 404 else 1 / 0
            return ""

        assert app.test_client().get("/").status_code == status
        settle()
        assert (seen[0].resets, seen[0].closed) == (1, False)

    @pytest.mark.parametrize("error", [gevent.Timeout, gevent.GreenletExit, SystemExit])
    def test_that_is_cut_short_has_it_discarded(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing], error: type[BaseException]
    ) -> None:
        """Its state is anybody's guess."""
        seen = []

        @app.get("/")
        def view() -> str:
            seen.append(pools.borrow("db"))
            raise error

        with pytest.raises(error):
            app.test_client().get("/")
        settle()
        assert (seen[0].resets, seen[0].closed) == (0, True)
        assert db.stats().busy == 0

    def test_that_is_cut_short_while_it_starts_its_response_has_it_discarded(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing]
    ) -> None:
        """Flask tells its teardown functions of no error then."""
        seen = []

        @app.get("/")
        def view() -> str:
            seen.append(pools.borrow("db"))
            return ""

        def start(*args: Any) -> Any:
            raise gevent.GreenletExit

        with pytest.raises(gevent.GreenletExit):
            app.wsgi_app(EnvironBuilder(app).get_environ(), start)
        settle()
        assert (seen[0].resets, seen[0].closed) == (0, True)

    def test_that_is_cut_short_has_it_discarded_though_the_app_ignores_it(
        self, pools: GPool, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``should_ignore_error`` is about debuggers."""
        monkeypatch.setattr(app, "should_ignore_error", lambda error: True)
        seen = []

        @app.get("/")
        def view() -> str:
            seen.append(pools.borrow("db"))
            raise gevent.Timeout

        with pytest.raises(gevent.Timeout):
            app.test_client().get("/")
        settle()
        assert (seen[0].resets, seen[0].closed) == (0, True)

    def test_gives_back_what_it_has_forgotten(
        self, app: Flask, db: gpool.Pool[Thing], forgotten: list[telemetry.Event]
    ) -> None:
        """What was not borrowed by ``borrow`` either; then it is told."""
        kept = []

        @app.get("/")
        def view() -> str:
            kept.append(db.checkout())
            return "forgot"

        for _ in range(3):
            with app.test_client().get("/") as response:
                assert response.text == "forgot"
        settle()
        assert db.stats().busy == 0
        assert len(forgotten) == 3

    def test_leaves_other_teardown_functions_their_connection(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing]
    ) -> None:
        """Those that were registered later run before."""
        busy = []

        @app.teardown_appcontext
        def teardown(error: Any) -> None:
            busy.append(db.stats().busy)

        @app.get("/")
        def view() -> str:
            pools.borrow("db")
            return ""

        app.test_client().get("/")
        assert busy == [1]


class TestStream:
    """A generator runs when the view's context is over."""

    @pytest.fixture
    def seen(self) -> list[Any]:
        """What the generators see."""
        return []

    @pytest.fixture(params=["with", "without"])
    def client(
        self, request: pytest.FixtureRequest, app: Flask, pools: GPool, db: Any, seen: list[Any]
    ) -> Any:
        """A client of an app that streams with what its view has borrowed."""

        @app.get("/")
        def view() -> Response:
            thing = pools.borrow("db")

            def body() -> Iterator[str]:
                for piece in "abc":
                    seen.append((db.stats().busy, thing.resets, thing.closed))
                    yield piece
                if flask.has_app_context():
                    assert pools.borrow("db") is thing

            is_with = request.param == "with"
            return Response(stream_with_context(body()) if is_with else body())

        return app.test_client()

    def test_may_use_it_to_the_end(
        self, client: Any, db: gpool.Pool[Thing], seen: list[Any], forgotten: list[telemetry.Event]
    ) -> None:
        """With ``stream_with_context`` and without; then it goes back."""
        with client.get("/") as response:
            assert response.text == "abc"
        settle()
        assert seen == [(1, 0, False)] * 3
        assert db.stats().busy == 0
        with db.checkout() as thing:
            assert thing.resets == 1
        assert forgotten == []

    def test_that_is_aborted_gives_it_back(
        self, client: Any, db: gpool.Pool[Thing], seen: list[Any], forgotten: list[telemetry.Event]
    ) -> None:
        """Its client has gone after the first piece."""
        with client.get("/") as response:
            assert next(response.iter_encoded()) == b"a"
        settle()
        assert len(seen) == 1
        assert db.stats().busy == 0
        with db.checkout() as thing:
            assert thing.resets == 1
        assert forgotten == []

    def test_may_borrow_by_itself(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing], forgotten: list[telemetry.Event]
    ) -> None:
        """With its context; without, Flask says that there is none."""

        @app.get("/")
        def view() -> Response:
            @stream_with_context
            def body() -> Iterator[str]:
                yield type(pools.borrow("db")).__name__

            return Response(body())

        with app.test_client().get("/") as response:
            assert response.text == "Thing"
        settle()
        assert db.stats().busy == 0
        assert forgotten == []

    def test_fails_in_the_middle(self, app: Flask, pools: GPool, db: gpool.Pool[Thing]) -> None:
        """It is reset, or discarded if the generator was cut short."""
        things = []

        @app.get("/<kind>")
        def view(kind: str) -> Response:
            things.append(pools.borrow("db"))

            def body() -> Iterator[str]:
                yield "a"
                raise gevent.Timeout if kind == "cut" else ZeroDivisionError

            return Response(body())

        for path, error in (("/error", ZeroDivisionError), ("/cut", gevent.Timeout)):
            with pytest.raises(error), app.test_client().get(path) as response:
                response.get_data()
            settle()
        assert things[0] is things[1]
        assert (things[0].resets, things[0].closed) == (1, True)

    def test_of_a_file_gives_back_at_its_end(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing]
    ) -> None:
        """Which a server may send by itself."""

        @app.get("/")
        def view() -> Response:
            pools.borrow("db")
            return flask.send_file(__file__)

        with app.test_client().get("/") as response:
            assert response.data == Path(__file__).read_bytes()
        settle()
        assert db.stats().busy == 0


class TestServer:
    def test_serves_request_after_request_in_one_greenlet(
        self, app: Flask, pools: GPool, db: gpool.Pool[Thing]
    ) -> None:
        """A connection that is kept alive: what is forgotten is back for the next request."""
        kept: list[Any] = []

        @app.get("/<how>")
        def view(how: str) -> Any:
            if how == "forget":
                kept.append(db.checkout())
                return "a"
            thing = pools.borrow("db")
            if how == "stream":
                return Response(f"{thing.closed}\n" * 10_000 for _ in itertools.count())
            return "a"

        def ask(sock: Any, port: int, path: str) -> bytes:
            sock.sendall(wire.request(port, path, Connection="keep-alive"))
            return wire.reply_of(sock).body

        with wire.served(app) as port, wire.connected(port) as sock:
            for _ in range(3):
                assert ask(sock, port, "/forget") == b"a"
                assert ask(sock, port, "/borrow") == b"a"
            for _ in range(3):
                with wire.connected(port) as other:
                    other.sendall(wire.request(port, "/stream"))
                    assert other.recv(100)
                    assert db.stats().busy == 1
                until(lambda: not db.stats().busy)
            assert ask(sock, port, "/borrow") == b"a"


class TestInit:
    def test_serves_many_apps(self) -> None:
        """The extension keeps none of them; each has a state of its own."""
        pools = GPool()
        apps = [Flask(name) for name in ("shop", "admin")]
        for app in apps:
            app.config["GPOOL_POOLS"] = {"db": {"worker": THINGS, "name": f"{app.name}-db"}}
            pools.init_app(app)
        names = []
        for app in apps:
            state = app.extensions["gpool"]
            assert isinstance(state, State)
            assert state.extension is pools
            with app.app_context():
                names.append(pools.pool("db").name)
        assert names == ["shop-db", "admin-db"]
        assert not [value for value in vars(pools).values() if value in apps]

    def test_starts_nothing(self, app: Flask, db: gpool.Pool[Thing]) -> None:
        """Not in gunicorn's master with --preload, nor in a command."""
        assert db.stats().phase == "stopped"

    def test_reads_the_environment_as_flask_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Options of a pool stand one level deeper."""
        monkeypatch.setenv("FLASK_GPOOL_POOLS__db__size", "7")
        monkeypatch.setenv("FLASK_GPOOL_POOLS__db__max_waiting", "null")
        app = Flask("shop")
        app.config["GPOOL_POOLS"] = {"db": {"worker": THINGS, "size": 1}}
        app.config.from_prefixed_env()
        GPool(app)
        assert app.extensions["gpool"].pools["db"].stats().size == 7

    def test_lends_servers_too(self) -> None:
        """With their arguments."""

        class Adder(gpool.GenServer):
            def __init__(self, more: int) -> None:
                self.more = more

            @gpool.call
            def add(self, number: int) -> int:
                return number + self.more

        app = Flask("shop")
        app.config["GPOOL_POOLS"] = {"adders": {"worker": Adder, "kwargs": {"more": 3}}}
        pools = GPool(app)
        with app.app_context():
            assert pools.borrow("adders").add(4) == 7
        app.extensions["gpool"].stop()

    @pytest.mark.parametrize(
        ("config", "error"),
        [
            ({"GPOOL_POOL": {}}, r"app.config: expected some of \['GPOOL_OBS.*, got 'GPOOL_POOL'"),
            ({"GPOOL_POOLS": [1]}, r"GPOOL_POOLS: expected a dict of name -> dict, got \[1\]"),
            ({"GPOOL_POOLS": {"db": THINGS}}, r"\['db'\]: expected a dict with 'worker' and"),
            (
                {"GPOOL_POOLS": {"db": {"size": 3}}},
                r"expected 'worker' among .*, got \['size'\]; is 'db' the name of a pool\?",
            ),
            ({"GPOOL_POOLS": {"db": {"worker": 3}}}, r"GPOOL_POOLS\['db'\]: worker: expected a"),
            (
                {"GPOOL_POOLS": {"db": {"worker": THINGS, "sise": 3}}},
                r"GPOOL_POOLS\['db'\]: options: expected some of .*'size'.*, got 'sise'",
            ),
            (
                {"GPOOL_POOLS": {"db": {"worker": THINGS, "size": "many"}}},
                r"GPOOL_POOLS\['db'\]: size: expected .* got 'many'",
            ),
            ({"GPOOL_OBSERVER_URL": "/o"}, r"authorize: expected a callable .*'/o'.* got None"),
            ({"GPOOL_OBSERVER_URL": 3}, r"GPOOL_OBSERVER_URL: expected a path .*, got 3"),
            (
                {"GPOOL_OBSERVER_ACTIONS": "no"},
                r"^GPOOL_OBSERVER_ACTIONS: expected True or F.*'no'",
            ),
            (
                {"GPOOL_OBSERVER_ACTIONS": True},
                r"^GPOOL_OBSERVER_HOSTS: expected those that .* None",
            ),
            ({"GPOOL_OBSERVER_HOSTS": "x"}, r"^GPOOL_OBSERVER_HOSTS: expected .*, got 'x'"),
            ({"GPOOL_OBSERVER_ORIGINS": 3}, r"^GPOOL_OBSERVER_ORIGINS: expected .*, got 3"),
        ],
    )
    def test_refuses_a_wrong_configuration(self, config: dict[str, Any], error: str) -> None:
        """At once, with what was expected and what it got; the app is left alone."""
        app = Flask("shop")
        app.config.update(config)
        before = app.wsgi_app
        with pytest.raises((TypeError, ValueError), match=error):
            GPool(app)
        assert "gpool" not in app.extensions
        assert app.wsgi_app == before

    @pytest.mark.parametrize(
        ("url", "more"), [("observer", {}), ("/o", {"GPOOL_OBSERVER_ACTIONS": True})]
    )
    def test_refuses_a_wrong_observer(self, url: str, more: dict[str, Any]) -> None:
        """Its own rules: a path, and hosts if it may act."""
        app = Flask("shop")
        app.config.update({"GPOOL_OBSERVER_URL": url} | more)
        with pytest.raises(ValueError, match=r"path: expected|HOSTS: expected"):
            GPool(app, authorize=lambda: True)
        assert "gpool" not in app.extensions

    def test_refuses_what_is_no_app_and_a_second_time(self, app: Flask) -> None:
        """Once is enough."""
        with pytest.raises(RuntimeError, match="expected one that has no GPool yet"):
            GPool(app)
        with pytest.raises(TypeError, match="app: expected a Flask, got 'app'"):
            GPool("app")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="authorize: expected a callable, got True"):
            GPool(authorize=True)  # type: ignore[arg-type]

    def test_knows_all_its_keys(self) -> None:
        """The page's table has them."""
        assert sys.modules[GPool.__module__].__doc__ is not None
        for key in DEFAULTS:
            assert f"``{key}``" in str(sys.modules[GPool.__module__].__doc__)


class TestObserver:
    @pytest.fixture
    def client(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A client of an app whose page a session opens."""
        folder = tmp_path / "run"
        folder.mkdir(mode=0o700)
        monkeypatch.setenv("GPOOL_RUN_DIR", str(folder))
        app = Flask("shop")
        app.secret_key = "for the tests"
        app.config["GPOOL_OBSERVER_URL"] = "/observer"
        GPool(app, authorize=lambda: session.get("is_admin"))

        @app.get("/")
        def view() -> str:
            session["is_admin"] = True
            return "hello"

        return app.test_client()

    def test_shows_its_page_to_whom_the_app_authorizes(self, client: Any) -> None:
        """By the app's own session."""
        assert client.get("/observer/").status_code == 403
        assert client.get("/").text == "hello"
        page = client.get("/observer/")
        assert page.status_code == 200
        assert b"<html" in page.data
        assert client.get("/observer/api/nodes").json == {"nodes": [], "actions": False}
        page.close()

    def test_answers_below_its_path_only(self, client: Any) -> None:
        """All else is the app's."""
        assert client.get("/observers").status_code == 404
        assert client.get("/observer").status_code == 403


class TestCommands:
    def test_are_those_of_gpool(self, app: Flask) -> None:
        """As a group of ``flask``."""
        runner = app.test_cli_runner()
        said = runner.invoke(app.cli, ["gpool", "--help"], obj=ScriptInfo(create_app=lambda: app))
        for name in ("pools", "tree", "ps", "info", "events", "top", "web", "nodes"):
            assert f"  {name} " in said.output

    def test_ask_the_running_server(self, tmp_path: Path) -> None:
        """Started by ``flask run``, asked by ``flask gpool pools``."""
        (tmp_path / "app.py").write_text(
            "import flask, gpool\n"
            "from gpool.integrations.flask import GPool\n"
            "app = flask.Flask(__name__)\n"
            "app.config['GPOOL_POOLS'] = {'db': {'worker': gpool.Resource(create=list)}}\n"
            "pools = GPool(app)\n"
            "@app.get('/')\n"
            "def view(): return str(pools.borrow('db'))\n"
        )
        run_dir = tmp_path / "run"
        run_dir.mkdir(mode=0o700)
        env = os.environ | {
            "PYTHONPATH": str(CHECKOUT), "GPOOL_RUN_DIR": str(run_dir), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip

        def run(*command: str, **more: str) -> Any:
            return subprocess.run(
                [sys.executable, "-m", "flask", "gpool", *command],
                env=env | more, cwd=tmp_path, capture_output=True, text=True,
            )  # fmt: skip

        nobody = run("pools")
        assert nobody.returncode == 1
        assert "no observed process" in nobody.stderr
        with serving(tmp_path, env | {"GPOOL_OBSERVER": "1"}) as port:
            assert {wire.ask(port, "/").body for _ in range(3)} == {b"[]"}  # each in a thread
            [pool] = json.loads(run("pools", "--json").stdout)["pools"]
        assert pool["name"] == "db"
        assert run("pools", "--sise").returncode == 2


@contextlib.contextmanager
def serving(folder: Path, env: dict[str, str]) -> Iterator[int]:
    """Have ``flask run`` serve the app of a folder; give the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gevent.monkey", "--module", "flask", "run", "--port=0"],
        env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "Running on" in line)
        yield int(line.rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()
