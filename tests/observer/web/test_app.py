"""The Observer as a WSGI app: who gets what, over real sockets."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys

import gevent
import pytest
from gevent import subprocess
from gevent.select import select

from gpool.observer.run_dir import RunDirError
from gpool.observer.web import app as web
from gpool.observer.web import relay
from gpool.observer.web.app import HEADERS, LARGEST, LONGEST, App, mount
from tests.observer.wire import (
    FakeNode,
    a_run_dir,
    ask,
    connected,
    exchange,
    hanging_node,
    listen,
    reply_of,
    request,
    served,
)

KILL = b'{"action": "kill", "process": 17, "confirm": "#PID<17>"}'
ACTIONS = "/api/nodes/4711/v1/actions"


def anybody(environ):
    """Let everybody look."""
    return True


@pytest.fixture
def run_dir():
    """Give an empty run directory."""
    with a_run_dir() as path:
        yield path


@pytest.fixture
def node(run_dir):
    """Give a node, 4711."""
    with FakeNode(run_dir / "4711.sock") as fake:
        yield fake


@pytest.fixture
def app(run_dir):
    """Give an app that shows everybody everything."""
    return App(anybody, run_dir=run_dir)


@pytest.fixture
def port(app):
    """Give the port where the app is served."""
    with served(app) as at:
        yield at


@pytest.fixture
def acting(run_dir):
    """Give the port of an app that passes on actions."""
    with served_acting(run_dir) as at:
        yield at


@contextlib.contextmanager
def served_acting(run_dir, authorize=anybody, **options):
    """Serve an app that passes on actions to those who come by the server's own address."""
    app = None
    with served(lambda *args: app(*args)) as at:
        hosts = [f"127.0.0.1:{at}"]
        app = App(authorize, allow_actions=True, hosts=hosts, run_dir=run_dir, **options)
        yield at


def act(port, path=ACTIONS, body=KILL, method="POST", **changed):
    """Send an action as the page does, but for what is changed."""
    return exchange(port, _action(port, path, body, method, **changed), method)


def _action(port, path=ACTIONS, body=KILL, method="POST", **changed):
    """Return the bytes of an action, but for what is changed."""
    headers = {
        "Origin": f"http://127.0.0.1:{port}",
        "X_GPool_Action": "1",
        "Content_Type": "application/json",
    }
    return request(port, path, method, body, **(headers | changed))


class TestApp:
    @pytest.mark.parametrize("authorize", [None, True, "admin"])
    def test_demands_somebody_to_ask(self, authorize):
        """There is no default for who may look."""
        with pytest.raises(TypeError, match="authorize: expected a callable"):
            App(authorize)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"allow_actions": 1}, "allow_actions: expected True or False, got 1"),
            ({"hosts": "localhost"}, "hosts: expected an iterable of texts, got 'localhost'"),
            ({"origins": [None]}, "origins: expected an iterable of texts"),
            ({"run_dir": 7}, "run_dir: expected a path or None, got 7"),
        ],
    )
    def test_takes_no_nonsense(self, options, words):
        """Misuse is an error at construction."""
        with pytest.raises(TypeError, match=words):
            App(anybody, **options)

    def test_refuses_a_run_directory_that_others_may_enter(self, run_dir):
        """Whoever may enter it could pass for a node."""
        run_dir.chmod(0o755)
        with pytest.raises(RunDirError, match="others may enter"):
            App(anybody, run_dir=run_dir)

    def test_refuses_one_that_was_opened_to_others_later(self, run_dir, node, port):
        """The directory is looked at again for each request."""
        paths = ("/api/nodes", "/api/nodes/4711/v1/node")
        assert [ask(port, path).status for path in paths] == [200, 200]
        run_dir.chmod(0o755)
        for path in paths:
            reply = ask(port, path)
            assert reply.status == 503
            assert "others may enter" in reply.json["error"]
        assert len(node.seen) == 2


class TestAuthorize:
    @pytest.mark.parametrize("answer", [False, None, "", 0])
    @pytest.mark.parametrize("path", ["/", "/favicon.ico", "/api/nodes", "/nothing"])
    def test_says_no_to_everything(self, run_dir, answer, path):
        """Who may not look gets not even the page."""
        with served(App(lambda environ: answer, run_dir=run_dir)) as port:
            assert ask(port, path).status == 403

    def test_fails_and_nobody_may_look(self, run_dir, caplog):
        """An error is a no; what it says is for the log alone."""

        def authorize(environ):
            raise RuntimeError("the database at db.internal is down")

        with served(App(authorize, run_dir=run_dir)) as port:
            reply = ask(port, "/")
        assert reply.status == 403
        assert b"database" not in reply.body
        assert "db.internal" in caplog.text

    def test_sees_the_request(self, run_dir):
        """It is given the environ."""
        app = App(lambda environ: environ.get("HTTP_X_ROLE") == "ops", run_dir=run_dir)
        with served(app) as port:
            assert ask(port, "/", X_Role="ops").status == 200
            assert ask(port, "/", X_Role="dev").status == 403


class TestHosts:
    @pytest.fixture
    def port(self, run_dir):
        """Give the port of an app that has one name."""
        with served(App(anybody, hosts=["Ops.example:8000"], run_dir=run_dir)) as port:
            yield port

    @pytest.mark.parametrize("host", ["ops.example:8000", "OPS.example:8000"])
    def test_ours_are_answered(self, port, host):
        """A host's name has no case."""
        assert ask(port, "/", Host=host).status == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "ops.example", "ops.example:8000.evil", "", None]
    )
    def test_others_are_not(self, port, host):
        """A foreign Host, and a missing one, get 421."""
        assert ask(port, "/", Host=host).status == 421

    def test_two_are_not_ours(self, port):
        """Two Host headers are not one of ours, even if one of them is."""
        raw = b"GET / HTTP/1.1\r\nHost: ops.example:8000\r\nHost: ops.example:8000\r\n\r\n"
        assert exchange(port, raw).status == 421


class TestFiles:
    def test_index_names_the_others_by_their_hash(self, app, port):
        """The index is never kept, the files it names for ever."""
        index = ask(port, "/")
        assert index.status == 200
        assert index.headers["Content-Type"] == "text/html; charset=utf-8"
        assert index.headers["Cache-Control"] == "no-store"
        assert b"@HASH@" not in index.body

        lit = ask(port, f"/static/{app._page.hash}/vendor/lit-html/lit-html.js")
        assert lit.status == 200
        assert lit.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert lit.headers["Cache-Control"] == "public, max-age=31536000, immutable"

    def test_favicon_is_there(self, port):
        """Browsers ask for it unasked."""
        assert ask(port, "/favicon.ico").headers["Content-Type"] == "image/svg+xml"

    @pytest.mark.parametrize(
        "path",
        [
            "/static/HASH/../web.py",
            "/static/HASH/../../web.py",
            "/static/HASH/%2e%2e/web.py",
            "/static/HASH/..%2fweb.py",
            "/static/HASH/..\\web.py",
            "/static/HASH/..%5cweb.py",
            "/static/HASH//app.js",
            "/static//HASH/app.js",
            "/static/HASH/./app.js",
            "/static/HASH/app.js%00",
            "/static/HASH/app.js%00.css",
            "/static/HASH//etc/passwd",
            "/static/HASH/vendor/",
            "/static/HASH/vendor",
            "/static/HASH/",
            "/static/HASH/index.html",
            "/static/HASH/vendor/lit-html/LICENSE",
            "/static/0123456789abcdef/app.js",
            "/static/app.js",
            "//static/HASH/app.js",
            "/index.html",
            "/..",
            "/%ff",
            "http://127.0.0.1/",
            "*",
        ],
    )
    def test_nothing_else_is_there(self, app, port, path):
        """No trick leads out of the table."""
        assert ask(port, path.replace("HASH", app._page.hash)).status == 404

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
    def test_are_only_looked_at(self, port, method):
        """Other methods than GET and HEAD get 405."""
        for path in ("/", "/api/nodes"):
            reply = ask(port, path, method)
            assert reply.status == 405
            assert reply.headers["Allow"] == "GET, HEAD"

    def test_head_has_all_but_the_body(self, port):
        """HEAD answers what GET does, with its length and no content."""
        get, head = ask(port, "/"), ask(port, "/", "HEAD")
        assert head.status == 200
        assert head.headers["Content-Length"] == str(len(get.body))
        with connected(port) as sock:
            sock.sendall(request(port, "/", "HEAD"))
            raw = sock.makefile("rb").read()
        assert raw.endswith(b"\r\n\r\n")


class TestHeaders:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/"),
            ("HEAD", "/"),
            ("GET", "/nothing"),
            ("PUT", "/"),
            ("GET", "/api/nodes"),
            ("GET", "/api/nodes/1/v1/node"),
            ("GET", "/api/nodes/4711/v1/node"),
            ("POST", ACTIONS),
            ("GET", "/" + "x" * (LONGEST + 1)),
        ],
    )
    def test_stand_on_every_answer(self, node, port, method, path):
        """Whatever is answered, the browser is told to keep it apart, and not to keep it."""
        reply = ask(port, path, method)
        assert dict(HEADERS).items() <= dict(reply.headers).items()
        assert reply.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in reply.headers

    def test_stand_on_a_failure_of_ours(self, app, port, monkeypatch, caplog):
        """What fails in here is logged, and told to nobody."""
        monkeypatch.setattr(app, "_nodes", lambda: 1 / 0)
        reply = ask(port, "/api/nodes")
        assert reply.status == 500
        assert reply.json == {"api": 1, "error": "the Observer failed; its log says how"}
        assert dict(HEADERS).items() <= dict(reply.headers).items()
        assert "ZeroDivisionError" in caplog.text

    def test_forbid_what_the_page_does_not_need(self):
        """The policy lets in our own scripts and no others, and nothing that would make one."""
        assert "default-src 'none'" in web.CSP
        assert "unsafe" not in web.CSP
        assert "require-trusted-types-for 'script'" in web.CSP


class TestNodes:
    def test_say_what_they_are(self, run_dir, node, port):
        """All nodes of the host are in one list, by number."""
        with FakeNode(run_dir / "99.sock"):
            reply = ask(port, "/api/nodes")
        assert reply.headers["Content-Type"] == "application/json"
        assert [each["node"] for each in reply.json["nodes"]] == ["99", "4711"]
        assert reply.json["actions"] is False

    def test_are_none_where_nothing_is_observed(self, port):
        """An empty run directory, or none, is no error."""
        assert ask(port, "/api/nodes").json == {"nodes": [], "actions": False}

    def test_may_be_acted_on(self, acting):
        """The page is told whether to offer actions."""
        assert ask(acting, "/api/nodes").json["actions"] is True

    def test_that_hang_do_not_hide_the_others(self, run_dir, node, port, monkeypatch):
        """Two that hang cost one wait; the one that answers is shown, they are named."""
        monkeypatch.setattr(relay, "ROLL_CALL", 0.1)
        with hanging_node(run_dir / "1.sock"), hanging_node(run_dir / "2.sock"):
            nodes = ask(port, "/api/nodes").json["nodes"]
        assert [each["node"] for each in nodes] == ["1", "2", "4711"]
        assert "no answer" in nodes[0]["error"]
        assert "error" not in nodes[2]

    def test_that_hang_hold_up_nobody_else(self, run_dir, port, monkeypatch):
        """While one is waited for, the server answers."""
        monkeypatch.setattr(relay, "TIMEOUT", 0.5)
        with hanging_node(run_dir / "1.sock"), connected(port) as slow:
            slow.sendall(request(port, "/api/nodes/1/v1/pools"))
            assert ask(port, "/").status == 200
            assert select([slow], [], [], 0)[0] == []
            assert reply_of(slow).status == 502

    def test_that_have_ended_are_forgotten(self, run_dir, port):
        """The socket of a killed process is unlinked by whoever finds it."""
        listen(run_dir / "1.sock").close()
        assert ask(port, "/api/nodes").json["nodes"] == []
        assert not (run_dir / "1.sock").exists()

    def test_that_talk_nonsense_are_named(self, run_dir, port):
        """Something else than an agent is an error in the list, not of it."""
        with FakeNode(run_dir / "1.sock", content=b"hello"):
            (found,) = ask(port, "/api/nodes").json["nodes"]
        assert "does not speak JSON" in found["error"]


class TestLooking:
    def test_passes_on_what_the_node_says_to_the_byte(self, node, port):
        """Spaces, order and escapes of its JSON are the node's own."""
        node.content = b'{"b":  1,\n"a": "\\u00e4 \xc3\xa4"}'
        reply = ask(port, "/api/nodes/4711/v1/pools")
        assert reply.status == 200
        assert reply.body == node.content
        assert node.seen == [("GET", "/v1/pools", b"")]

    @pytest.mark.parametrize(
        "target",
        [
            "/v1/node",
            "/v1/processes?which=live&sort=label&filter=%C3%A4%20%26&page=1",
            "/v1/pools/a%20b%3F%23%25%5C",
            "/v1/pools/%C3%A4",
            "/v1/events?",
        ],
    )
    def test_passes_on_what_is_asked(self, node, port, target):
        """Path and query come out percent-encoded as they came in."""
        ask(port, f"/api/nodes/4711{target}")
        assert node.seen == [("GET", target.rstrip("?"), b"")]

    @pytest.mark.parametrize("name", ["a%2Fb", "a%2F..%2Fb", "%2F", "a%2F%2Fb"])
    def test_a_slash_within_a_pool_s_name_is_part_of_it(self, node, port, name):
        """WSGI does not tell it from one between names: only pools have names here."""
        ask(port, f"/api/nodes/4711/v1/pools/{name}")
        assert node.seen == [("GET", f"/v1/pools/{name}", b"")]

    def test_passes_on_errors(self, node, port):
        """A node's refusal is its status and its sentence."""
        node.status, node.content = "409 Conflict", b'{"error": "it does not answer"}'
        reply = ask(port, "/api/nodes/4711/v1/processes/1/state")
        assert (reply.status, reply.body) == (409, node.content)

    def test_passes_on_no_headers(self, node, port):
        """What says it is a page is JSON here, and sets nothing."""
        node.content = b"<script>alert(1)</script>"
        node.headers = [("Content-Type", "text/html"), ("Set-Cookie", "a=b"), ("Location", "/x")]
        reply = ask(port, "/api/nodes/4711/v1/node")
        assert reply.headers["Content-Type"] == "application/json"
        assert "Set-Cookie" not in reply.headers
        assert "Location" not in reply.headers

    def test_tells_the_node_nothing_of_the_browser(self, node, port):
        """Cookies and credentials stay here."""
        ask(port, "/api/nodes/4711/v1/node", Cookie="a=b", Authorization="Basic eDp5")
        assert not {"HTTP_COOKIE", "HTTP_AUTHORIZATION"} & set(node.environs[0])

    @pytest.mark.parametrize("status", ["302 Found", "304 Not Modified"])
    def test_follows_no_node_elsewhere(self, node, port, status):
        """A redirect from a node makes no sense, and is said to."""
        node.status, node.content = status, b""
        assert ask(port, "/api/nodes/4711/v1/node").status == 502

    def test_head_asks_the_node_by_get(self, node, port):
        """A node need not know HEAD; the browser gets no content."""
        reply = ask(port, "/api/nodes/4711/v1/node", "HEAD")
        assert (reply.status, reply.body) == (200, b"")
        assert node.seen[0][0] == "GET"

    @pytest.mark.parametrize(
        "path",
        [
            "/api/nodes/",
            "/api/nodes/4711",
            "/api/nodes/4711/",
            "/api/nodes/4711/v10/node",
            "/api/nodes/4711/v1/",
            "/api/nodes/4711/v2/node",
            "/api/nodes/4711/v1/../v1/node",
            "/api/nodes/4711/v1/%2e%2e/node",
            "/api/nodes/4711/v1/./node",
            "/api/nodes/4711/v1//node",
            "/api/nodes/4711/v1/pools/",
            "/api/nodes/4711/v1/pools/..",
            "/api/nodes/4711/v1/processes/..%2fx",
            "/api/nodes/4711/v1/node%00",
            "/api/nodes/4711/v1/node%0d%0aX:%20y",
            "/api/nodes/4711/v1/%ff",
            "/api/nodes//v1/node",
            "/api/nodes/../4711/v1/node",
            "/api/nodes/x/v1/node",
            "/api/nodes/4711.sock/v1/node",
            "/api/nodes/%2e%2e%2f4711/v1/node",
            "/api/nodes/4711%00/v1/node",
            "/api/nodes/%D9%A4/v1/node",
            "/api/nodes/12345678901/v1/node",
            "/api",
            "/api/",
            "/api/nodes/4711/v1/node/",
        ],
    )
    def test_takes_no_tricks(self, node, port, path):
        """A path that is none, or means another, never reaches a node."""
        reply = ask(port, path)
        assert reply.status == 404
        assert node.seen == []

    def test_a_node_that_is_not_there_is_gone(self, port):
        """An unknown node is a 404, in words."""
        reply = ask(port, "/api/nodes/1/v1/node")
        assert reply.status == 404
        assert reply.json["error"] == "node 1 is gone: its process has ended"

    def test_a_node_that_was_killed_is_gone(self, run_dir, port):
        """So is one whose socket is left; it is unlinked."""
        listen(run_dir / "1.sock").close()
        assert ask(port, "/api/nodes/1/v1/node").status == 404
        assert not (run_dir / "1.sock").exists()

    @pytest.mark.parametrize("query", ["a b", "\xe4", "a\x7f"])
    def test_takes_printable_queries_only(self, node, port, query):
        """What a browser would have encoded is refused."""
        raw = f"GET /api/nodes/4711/v1/node?{query} HTTP/1.1\r\nHost: x\r\n\r\n"
        assert exchange(port, raw.encode("latin-1")).status == 400
        assert node.seen == []

    @pytest.mark.parametrize("path", ["/", "/api/nodes/4711/v1/pools/"])
    def test_takes_no_endless_path(self, node, port, path):
        """Nor a path that is longer than any name."""
        assert ask(port, path + "x" * LONGEST).status == 414
        assert node.seen == []

    @pytest.mark.parametrize("path", ["/?", "/api/nodes?", "/api/nodes/4711/v1/node?"])
    def test_takes_no_endless_query(self, node, port, path):
        """2 KB are enough for any question."""
        assert ask(port, path + "x" * LONGEST).status == 200
        assert ask(port, path + "x" * (LONGEST + 1)).status == 414

    def test_serves_two_at_once(self, node, port):
        """Two clients that come together are both answered."""
        asked = [gevent.spawn(ask, port, "/api/nodes/4711/v1/node") for _ in range(2)]
        gevent.joinall(asked)
        assert [each.value.status for each in asked] == [200, 200]


class TestActing:
    def test_passes_on_an_action(self, acting, node, caplog):
        """What our own page posts reaches the node as it is, and the log."""
        caplog.set_level(logging.INFO, "gpool.observer")
        node.status, node.content = "202 Accepted", b'{"action": {"id": 3}}'
        reply = act(acting)
        assert (reply.status, reply.body) == (202, node.content)
        assert node.seen == [("POST", "/v1/actions", KILL)]
        assert node.environs[0]["HTTP_X_GPOOL_ACTION"] == "1"
        assert node.environs[0]["CONTENT_TYPE"] == "application/json"
        assert "127.0.0.1 asks node 4711" in caplog.text

    def test_takes_its_content_type_with_a_charset(self, acting, node):
        """Browsers add one."""
        assert act(acting, Content_Type="Application/JSON; charset=utf-8").status == 200

    def test_may_be_polled_by_those_who_only_look(self, port, node):
        """How far an action got is no secret."""
        ask(port, "/api/nodes/4711/v1/actions/3")
        assert node.seen == [("GET", "/v1/actions/3", b"")]

    @pytest.mark.parametrize(
        ("changed", "status"),
        [
            ({"Origin": None}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": ""}, 403),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "http://127.0.0.1"}, 403),
            ({"Origin": "http://127.0.0.1:1"}, 403),
            ({"Host": "evil.example"}, 421),
            ({"Host": None, "Origin": "http://None"}, 421),
            ({"Host": None, "Origin": None}, 421),
            ({"Host": None, "Origin": "http://"}, 421),
            ({"Origin": "https://proxy.example", "X_Forwarded_Host": "proxy.example",
              "X_Forwarded_Proto": "https", "Forwarded": "host=proxy.example;proto=https"}, 403),
            ({"X_GPool_Action": None}, 403),
            ({"X_GPool_Action": "true"}, 403),
            ({"Content_Type": None}, 415),
            ({"Content_Type": "text/plain"}, 415),
            ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
            ({"Content_Type": "application/json-p"}, 415),
            ({"Content_Length": None}, 400),
            ({"Content_Length": "+5"}, 400),
            ({"Content_Length": "9" * 20}, 413),
            ({"Content_Length": str(LARGEST + 1)}, 413),
            ({"body": b" " * (LARGEST + 1)}, 413),
            ({"method": "PUT"}, 405),
            ({"method": "DELETE"}, 405),
            ({"path": "/api/nodes/4711/v1/node"}, 405),
            ({"path": "/api/nodes/4711/v1/actions/3"}, 405),
            ({"path": "/api/nodes/4711/v1/actions/"}, 404),
            ({"path": "/api/nodes/1/v1/actions"}, 404),
        ],
    )  # fmt: skip
    def test_refuses(self, acting, node, changed, status):
        """Whatever another site could send, or a client get wrong, reaches no node."""
        raw = _action(acting, **changed)
        with connected(acting) as sock:
            sock.sendall(raw)
            sock.shutdown(1)
            assert reply_of(sock).status == status
        assert node.seen == []

    @pytest.mark.parametrize("length", ["-1", "x", "1_0 "])
    def test_refuses_a_length_that_is_none(self, acting, node, length, capfd):
        """A Content-Length that is no number gets 400, of the server or of us."""
        assert act(acting, Content_Length=length).status == 400
        assert node.seen == []

    def test_is_off_unless_asked_for(self, port, node):
        """An app that only looks passes on nothing, however well it is asked."""
        reply = act(port)
        assert reply.status == 403
        assert "allow_actions" in reply.json["error"]
        assert node.seen == []

    def test_needs_to_know_its_hosts(self, run_dir):
        """An origin that is the request's own host proves nothing if any host will do."""
        with pytest.raises(ValueError, match="hosts: expected those"):
            App(anybody, allow_actions=True, run_dir=run_dir)

    def test_is_not_for_those_who_may_not_look(self, run_dir, node):
        """`authorize` is asked for actions, too."""
        with served_acting(run_dir, lambda environ: False) as port:
            assert act(port).status == 403
        assert node.seen == []

    def test_believes_the_origins_that_it_was_given(self, run_dir, node):
        """Behind a proxy that ends TLS the outer origin is named, not guessed."""
        with served_acting(run_dir, origins=["https://ops.example"]) as port:
            assert act(port, Origin="https://ops.example").status == 200
            assert act(port, Origin="https://ops.example:444").status == 403

    def test_a_body_that_breaks_off_is_refused(self, acting, node):
        """A client that hangs up half-way has done nothing."""
        with connected(acting) as sock:
            sock.sendall(_action(acting, Content_Length="100"))
            sock.shutdown(1)
            assert reply_of(sock).status == 400
        assert node.seen == []

    @pytest.mark.parametrize(("length", "status"), [("100", 400), ("9" * 5000, 413)])
    def test_trusts_no_server_with_the_length(self, run_dir, length, status):
        """Other servers than pywsgi may let through what it does not."""
        app = App(anybody, allow_actions=True, hosts=["x"], run_dir=run_dir)
        seen = []
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": ACTIONS,
            "HTTP_HOST": "x",
            "HTTP_ORIGIN": "http://x",
            "HTTP_X_GPOOL_ACTION": "1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": length,
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(KILL),
        }
        app(environ, lambda line, headers: seen.append(line))
        assert seen[0].startswith(str(status))

    def test_a_body_that_does_not_come_holds_up_nobody(self, acting, node):
        """While one client hangs half-way, others are answered."""
        with connected(acting) as sock:
            sock.sendall(_action(acting, Content_Length="100"))
            assert act(acting).status == 200
        assert len(node.seen) == 1


class TestMount:
    @pytest.fixture
    def port(self, app):
        """Give the port of an application with the Observer at /ops/observer."""

        def application(environ, start_response):
            start_response("200 OK", [])
            return [environ["PATH_INFO"].encode()]

        with served(mount(application, "/ops/observer", app)) as port:
            yield port

    @pytest.mark.parametrize("path", ["/", "/ops", "/ops/", "/ops/observers", "/ops//observer"])
    def test_leaves_the_rest_alone(self, port, path):
        """What is not below the mount is the application's."""
        assert ask(port, path).body == path.encode()

    def test_serves_below_its_path(self, port, node):
        """Page and API are where the page looks for them."""
        assert ask(port, "/ops/observer/").headers["Content-Type"].startswith("text/html")
        assert ask(port, "/ops/observer/api/nodes").json["nodes"][0]["node"] == "4711"

    def test_redirects_to_where_relative_addresses_are_right(self, port):
        """Without its slash the page would look for its files beside itself."""
        reply = ask(port, "/ops/observer")
        assert reply.status == 308
        assert reply.headers["Location"] == "./observer/"

    @pytest.mark.parametrize(
        ("root", "location"),
        [("", "./"), ("//evil.example", "./evil.example/"), ("/a b\xc3\xa4", "./a%20b%C3%A4/")],
    )
    def test_redirects_to_no_other_host(self, app, root, location):
        """Whatever SCRIPT_NAME is, the answer stays here."""
        seen = []
        environ = {"SCRIPT_NAME": root, "PATH_INFO": "", "REQUEST_METHOD": "GET"}
        app(environ, lambda status, headers: seen.extend(headers))
        assert dict(seen)["Location"] == location

    @pytest.mark.parametrize("path", ["", "observer", "/observer/", "/"])
    def test_takes_a_path_only(self, app, path):
        """A mount begins with a slash and does not end with one."""
        with pytest.raises(ValueError, match="path: expected one such as '/observer'"):
            mount(app, path, app)


PROGRAM = """
import os, sys
sys.path.append(sys.argv[1])
import gevent.socket
import gpool, gpool.observer

class Doubler(gpool.GenServer):
    pass

gpool.observer.start(run_dir=sys.argv[2], allow_actions=True)
gpool.start_pool(Doubler, size=2, name="a/b ä").wait_ready()
print("ready", flush=True)
if sys.argv[3] == "blocked":
    os.read(0, 1)
gevent.socket.wait_read(0)
"""


@pytest.fixture(scope="module")
def processes():
    """Give the run directory of two observed processes, and both: the second is blocked."""
    with a_run_dir() as path, contextlib.ExitStack() as stack:
        started = []
        for how in ("idle", "blocked"):
            command = [sys.executable, "-c", PROGRAM, sys.path[-1], str(path), how]
            process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
            started.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in started:
            assert process.stdout.readline() == "ready\n"
        yield path, *started


class TestWithAgents:
    @pytest.fixture
    def run_dir(self, processes):
        """Give the run directory of the processes, for `acting`."""
        return processes[0]

    def test_shows_them_all_be_they_blocked(self, acting, processes):
        """A process whose hub is blocked is in the list with the others, and says so."""
        _, idle, blocked = processes
        nodes = {each["node"]: each for each in ask(acting, "/api/nodes").json["nodes"]}
        assert set(nodes) == {str(idle.pid), str(blocked.pid)}
        assert nodes[str(idle.pid)]["hub"] == {"blocked": False}
        assert nodes[str(blocked.pid)]["hub"]["blocked"] is True

    def test_shows_a_pool_whatever_it_is_called(self, acting, processes):
        """A name with a slash, a space and an umlaut goes there and comes back."""
        reply = ask(acting, f"/api/nodes/{processes[1].pid}/v1/pools/a%2Fb%20%C3%A4")
        assert reply.json["pool"]["name"] == "a/b ä"

    def test_passes_on_an_action_and_its_outcome(self, acting, processes):
        """A resize is accepted, polled until it is done, and has been done."""
        at = f"/api/nodes/{processes[1].pid}/v1/"
        body = {"action": "resize", "pool": "a/b ä", "size": 3, "max_overflow": 0}
        reply = act(acting, at + "actions", json.dumps(body | {"confirm": "a/b ä"}).encode())
        assert reply.status == 202
        action = reply.json["action"]
        while action["state"] == "running":
            action = ask(acting, f"{at}actions/{action['id']}").json["action"]
        assert action["state"] == "done"
        assert ask(acting, f"{at}pools/a%2Fb%20%C3%A4").json["pool"]["size"] == 3

    def test_passes_on_that_one_must_confirm(self, acting, processes):
        """What the node checks again, it refuses in its own words."""
        body = {"action": "drain", "pool": "a/b ä", "timeout": 1.0, "confirm": "yes"}
        path = f"/api/nodes/{processes[1].pid}/v1/actions"
        reply = act(acting, path, json.dumps(body).encode())
        assert reply.status == 400
        assert "confirm" in reply.json["error"]

    def test_forgets_one_that_was_killed(self, acting, processes):
        """Its socket is left by SIGKILL, and unlinked by whoever asks next."""
        run_dir, _, blocked = processes
        blocked.kill()
        blocked.wait()
        assert (run_dir / f"{blocked.pid}.sock").exists()
        assert len(ask(acting, "/api/nodes").json["nodes"]) == 1
        assert not (run_dir / f"{blocked.pid}.sock").exists()
