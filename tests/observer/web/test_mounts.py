"""The Observer inside other people's applications, each in a process of its own.

Flask's and Django's state is global, and gpool's own tests must not depend on it.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest
from gevent import subprocess

from gpool.observer.web.app import HEADERS
from tests.observer.wire import FakeNode, a_run_dir, ask

HEAD = """
import sys
sys.path.append({path!r})
from gevent.pywsgi import WSGIServer
from gpool.observer import App, mount

run_dir = {run_dir!r}
"""
TAIL = """
server = WSGIServer(("127.0.0.1", 0), application, log=None, environ={"SERVER_NAME": "x"})
server.start()
print(server.server_port, flush=True)
server.serve_forever()
"""
PYWSGI = """
def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the app's own"]

def authorize(environ):
    return environ.get("HTTP_X_USER") == "ops"

application = mount(plain, "/observer", App(authorize, run_dir=run_dir))
"""
FLASK = """
from flask import Flask, session

application = Flask("shop")
application.secret_key = "x"

@application.get("/")
def index():
    return "the app's own"

@application.get("/log-in")
def log_in():
    session["user"] = "ops"
    return "welcome"

def authorize(environ):
    with application.request_context(environ):
        return session.get("user") == "ops"

application.wsgi_app = mount(application.wsgi_app, "/observer", App(authorize, run_dir=run_dir))
"""
DISPATCHER = (
    FLASK.rpartition("\n\n")[0]
    + """

from werkzeug.middleware.dispatcher import DispatcherMiddleware

mounts = {"/observer": App(authorize, run_dir=run_dir)}
application.wsgi_app = DispatcherMiddleware(application.wsgi_app, mounts)
"""
)
DJANGO = """
import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    INSTALLED_APPS=["django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    ROOT_URLCONF="__main__",
    SECRET_KEY="x",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
django.setup()

from importlib import import_module

from django.core.handlers.wsgi import WSGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

def log_in(request):
    request.session["user"] = "ops"
    return HttpResponse("welcome")

urlpatterns = [path("", lambda request: HttpResponse("the app's own")), path("log-in", log_in)]
store = import_module(settings.SESSION_ENGINE).SessionStore

def authorize(environ):
    cookies = WSGIRequest(environ).COOKIES
    return store(cookies.get(settings.SESSION_COOKIE_NAME)).get("user") == "ops"

application = mount(get_wsgi_application(), "/observer", App(authorize, run_dir=run_dir))
"""
MOUNTS = {"pywsgi": PYWSGI, "flask": FLASK, "dispatcher": DISPATCHER, "django": DJANGO}
NEEDS = {"pywsgi": "gevent", "dispatcher": "flask"}
PATCH = "from gevent import monkey; monkey.patch_all()\n"


@pytest.fixture(scope="module")
def run_dir():
    """Give a run directory."""
    with a_run_dir() as path:
        yield path


@pytest.fixture(params=MOUNTS, scope="module")
def mounted(request, run_dir):
    """Give the port of an application with the Observer, and the headers of one who may look."""
    needs = NEEDS.get(request.param, request.param)
    if importlib.util.find_spec(needs) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{needs} is not installed")
    code = HEAD.format(path=sys.path[-1], run_dir=str(run_dir)) + MOUNTS[request.param] + TAIL
    command = [sys.executable, "-c", PATCH + code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())
        cookie = ask(port, "/log-in").headers.get("Set-Cookie", "").partition(";")[0]
        yield port, {"Cookie": cookie, "X_User": "ops"}
        process.kill()


@pytest.fixture
def node(run_dir):
    """Give a node, 4711."""
    with FakeNode(run_dir / "4711.sock") as fake:
        yield fake


class TestMounted:
    def test_leaves_the_application_alone(self, mounted):
        """What is not the Observer's is answered as before, with headers as before."""
        reply = ask(mounted[0], "/")
        assert reply.body == b"the app's own"
        assert "Content-Security-Policy" not in reply.headers

    def test_shows_nothing_to_those_who_may_not_look(self, mounted):
        """The application's own session says who may."""
        for path in ("/observer", "/observer/", "/observer/api/nodes"):
            reply = ask(mounted[0], path)
            assert reply.status == 403
            assert dict(HEADERS).items() <= dict(reply.headers).items()

    def test_redirects_to_the_page(self, mounted):
        """Relative addresses need the slash."""
        port, may = mounted
        reply = ask(port, "/observer", **may)
        assert (reply.status, reply.headers["Location"]) == (308, "./observer/")

    def test_serves_the_page_and_its_files(self, mounted):
        """Each file that the page names is there, below the mount."""
        port, may = mounted
        index = ask(port, "/observer/", **may)
        assert index.status == 200
        names = [part for part in index.body.decode().split('"') if part.startswith("static/")]
        assert names
        for name in names:
            assert ask(port, f"/observer/{name}", **may).status == 200

    def test_shows_the_nodes(self, mounted, node):
        """Nodes of all processes of this user, those of other applications included."""
        port, may = mounted
        (found,) = ask(port, "/observer/api/nodes", **may).json["nodes"]
        assert found["node"] == "4711"

    def test_passes_on_what_is_asked(self, mounted, node):
        """Names come through each framework as they were written."""
        port, may = mounted
        target = "/v1/pools/a%20b%3F%C3%A4?after=1.5"
        assert ask(port, f"/observer/api/nodes/4711{target}", **may).status == 200
        assert node.seen == [("GET", target, b"")]

    def test_takes_no_tricks(self, mounted, node):
        """What a framework does to paths opens no way past the table."""
        port, may = mounted
        for path in ("static/../web.py", "static/%2e%2e/web.py", "api/nodes/4711/v1/../x", "/x"):
            assert ask(port, f"/observer/{path}", **may).status == 404
        assert node.seen == []
