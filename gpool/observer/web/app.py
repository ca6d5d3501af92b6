"""The Observer as a WSGI app: the page, and behind ``api/`` the nodes of this host.

Mount it in any WSGI server; ``authorize`` says who may look, and has no default::

    from gpool.observer import App, mount

    observer = App(lambda environ: environ.get("REMOTE_USER") == "ops")

    application = mount(application, "/observer", observer)         # Django: in wsgi.py
    flask_app.wsgi_app = mount(flask_app.wsgi_app, "/observer", observer)           # Flask

All that is served lies below the mount, and every answer, refusals included, carries
:data:`HEADERS`: no script but the page's own, no frame, no other origin, no cache.

Rules, in this order; what breaks one goes no further:

* A request for a foreign ``Host`` gets 421, if `hosts` says which are ours.
* `authorize` is asked for every request, files included.  If it fails, nobody may look.
* Looking is GET and HEAD.  Acting is POST to a node's ``v1/actions``; it takes
  `allow_actions` here *and* in the node, and comes from our own page only: an ``Origin``
  that is this very origin, and a header and a content type that no form can send.
* No proxy is believed: ``X-Forwarded-*`` is not read.  Behind one that ends TLS, name the
  outer origin in `origins`.

Answers have no ETag: each holds the time at which it was made.

Not here: the page's files (``page.py``), talking to nodes (``relay.py``), a server
(``server.py``).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import quote

from gpool import GPoolError
from gpool.observer.client import API
from gpool.observer.run_dir import RunDirError, is_node
from gpool.observer.web import page
from gpool.observer.web.page import HTML
from gpool.observer.web.relay import Relay, RelayError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("gpool.observer")

LONGEST: Final = 2048  # characters of a path, or of a query
LARGEST: Final = 4096  # bytes of an action
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types lit-html"
)
#: What every answer carries.
HEADERS: Final = (
    ("Content-Security-Policy", CSP),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
)
FOR_EVER: Final = "public, max-age=31536000, immutable"
LOOKS: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    status: int
    body: bytes = b""
    type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()  # beside HEADERS
    cache: str = "no-store"

    def send(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Send it, in WSGI's way; of a HEAD without its body."""
        own = [
            ("Cache-Control", self.cache),
            ("Content-Type", self.type),
            ("Content-Length", str(len(self.body))),
        ]
        line = f"{self.status} {HTTPStatus(self.status).phrase}"
        start_response(line, [*HEADERS, *own, *self.headers])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]


class Refusal(GPoolError):
    """A request that gets an error for an answer."""

    def __init__(self, status: int, sentence: str, *headers: tuple[str, str]) -> None:
        super().__init__(status, sentence, *headers)
        self.status = status  # HTTP's
        self.sentence = sentence
        self.headers = headers

    def __str__(self) -> str:
        return self.sentence

    def answer(self, path: str) -> Answer:
        """Return the answer for a request for `path`: to those of the API in JSON."""
        if path.startswith("/api/"):
            body, kind = _json({"api": API, "error": self.sentence}), JSON
        else:
            body, kind = f"{self.sentence}\n".encode(), TEXT
        return Answer(self.status, body, kind, self.headers)


class App:
    """The Observer, to be mounted.

    Args:
        authorize: Called with the environ of every request, in its greenlet; what is true
            may look.  An exception counts as no, and is logged.
        allow_actions: Pass on actions, too; default: look only.
        hosts: The ``Host`` headers that are ours, exactly (with the port, unless it is the
            scheme's own); None leaves that to the app around, and is no choice where
            actions are allowed.
        origins: More origins that may act, exactly, such as ``"https://ops.example"``.
        run_dir: Where the sockets of the nodes are; None: where this user's are.

    Raises:
        TypeError: `authorize` cannot be called, or another argument is of the wrong type.
        ValueError: Actions are allowed for any host.
        RunDirError: The run directory is somebody else's, or open to others.
    """

    def __init__(
        self,
        authorize: Callable[[WSGIEnvironment], object],
        *,
        allow_actions: bool = False,
        hosts: Iterable[str] | None = None,
        origins: Iterable[str] = (),
        run_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if not callable(authorize):
            raise TypeError(f"authorize: expected a callable for an environ, got {authorize!r}")
        if not isinstance(allow_actions, bool):
            raise TypeError(f"allow_actions: expected True or False, got {allow_actions!r}")
        if allow_actions and hosts is None:
            raise ValueError(
                "hosts: expected those that the page is reached by, since it may act, got None; "
                "a name that is made to resolve to this server must not be one of them"
            )
        self._authorize = authorize
        self.allow_actions = allow_actions
        self._hosts = None if hosts is None else texts("hosts", hosts)
        self._origins = texts("origins", origins)
        self._relay = Relay(run_dir)
        self._page = page.read()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Answer a request, whatever it is."""
        return self._attempt(environ).send(environ, start_response)

    def _attempt(self, environ: WSGIEnvironment) -> Answer:
        path = environ.get("PATH_INFO", "")
        try:
            return self._answer(environ, path)
        except Refusal as refusal:
            return refusal.answer(path)
        except Exception:  # whatever it says stays in the log
            logger.exception("the Observer failed to answer a request for %r", path[:LONGEST])
            return Refusal(500, "the Observer failed; its log says how").answer(path)

    def _answer(self, environ: WSGIEnvironment, path: str) -> Answer:
        check_host(environ, self._hosts)
        self._check_may_look(environ)
        if len(path) > LONGEST or len(environ.get("QUERY_STRING", "")) > LONGEST:
            raise Refusal(414, f"a path or a query has at most {LONGEST} characters")
        if path.startswith("/api/nodes/"):
            return self._pass_on(environ, path)
        if environ["REQUEST_METHOD"] not in LOOKS:
            refuse_method(LOOKS)
        if path == "/api/nodes":
            return self._nodes()
        return self._file(environ, path)

    def _check_may_look(self, environ: WSGIEnvironment) -> None:
        try:
            allowed = bool(self._authorize(environ))
        except Exception:  # who cannot be asked has not said yes
            logger.exception("authorize of the Observer failed: the request is refused")
            allowed = False
        if not allowed:
            raise Refusal(403, "you may not look into this system")

    def _file(self, environ: WSGIEnvironment, path: str) -> Answer:
        if not path:
            return Answer(308, headers=(("Location", _with_a_slash(environ)),))
        if path == "/":
            return Answer(200, self._page.index, HTML)
        file = self._page.favicon() if path == "/favicon.ico" else self._page.file(path)
        if file is None:
            raise Refusal(404, "there is nothing here")
        cache = "no-store" if path == "/favicon.ico" else FOR_EVER
        return Answer(200, file.content, file.type, cache=cache)

    def _nodes(self) -> Answer:
        try:
            nodes = self._relay.nodes()
        except RunDirError as error:
            raise Refusal(503, str(error)) from error
        return Answer(200, _json({"nodes": nodes, "actions": self.allow_actions}), JSON)

    def _pass_on(self, environ: WSGIEnvironment, path: str) -> Answer:
        node, target = _target(path)
        method, body, headers = "GET", None, {}  # a node need not know HEAD
        if environ["REQUEST_METHOD"] not in LOOKS:
            self._check_may_act(environ, target)
            method, body = "POST", _body(environ)
            headers = {"Content-Type": JSON, "X-GPool-Action": "1"}
            logger.info("%s asks node %s: %r", environ.get("REMOTE_ADDR"), node, body)
        if query := _query(environ):
            target = f"{target}?{query}"
        try:
            status, content = self._relay.ask(node, method, target, body, headers)
        except RelayError as error:
            raise Refusal(error.status, str(error)) from error
        except RunDirError as error:
            raise Refusal(503, str(error)) from error
        return Answer(status, content, JSON)

    def _check_may_act(self, environ: WSGIEnvironment, target: str) -> None:
        if environ["REQUEST_METHOD"] != "POST" or target != "/v1/actions":
            refuse_method((*LOOKS, "POST") if target == "/v1/actions" else LOOKS)
        if not self.allow_actions:
            raise Refusal(403, "this page only looks: it was made without allow_actions")
        origin = environ.get("HTTP_ORIGIN")
        if not origin or (origin != _own_origin(environ) and origin not in self._origins):
            raise Refusal(403, "only the Observer's own page may act")
        if environ.get("HTTP_X_GPOOL_ACTION") != "1":
            raise Refusal(403, "an action has the header X-GPool-Action: 1")
        if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != JSON:
            raise Refusal(415, f"an action is {JSON}")


def mount(application: WSGIApplication, path: str, app: WSGIApplication) -> WSGIApplication:
    """Return an application that leaves `path`, and all below it, to another one.

    Args:
        application: Who answers all other requests.
        path: Such as ``"/observer"``.
        app: Who answers below it, as if it stood at the root.

    Raises:
        ValueError: `path` does not begin with a slash, or ends with one.
    """
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError(f"path: expected one such as '/observer', got {path!r}")

    def mounted(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        whole = environ.get("PATH_INFO", "")
        if whole != path and not whole.startswith(f"{path}/"):
            return application(environ, start_response)
        root = environ.get("SCRIPT_NAME", "") + path
        inner = {**environ, "SCRIPT_NAME": root, "PATH_INFO": whole[len(path) :]}
        return app(inner, start_response)

    return mounted


def check_host(environ: WSGIEnvironment, hosts: frozenset[str] | None) -> None:
    """Refuse a request for a host that is not ours: DNS may say what it likes."""
    if hosts is not None and environ.get("HTTP_HOST", "").lower() not in hosts:
        raise Refusal(421, "this server has another name: see the address that it was given")


def texts(name: str, values: Iterable[str]) -> frozenset[str]:
    """Return an argument's values in lower case.

    Raises:
        TypeError: They are no texts, or one text, whose letters would be taken for them.
    """
    is_many = isinstance(values, Iterable) and not isinstance(values, str)
    found = list(values) if is_many else ()
    if not is_many or not all(isinstance(value, str) for value in found):
        raise TypeError(f"{name}: expected an iterable of texts, got {values!r}")
    return frozenset(value.lower() for value in found)


def refuse_method(allowed: Iterable[str]) -> NoReturn:
    """Refuse a request whose method is not one of those."""
    raise Refusal(405, f"allowed: {', '.join(allowed)}", ("Allow", ", ".join(allowed)))


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _with_a_slash(environ: WSGIEnvironment) -> str:
    """Return the way from a mount without its slash to the one with it.

    It is relative: right behind a proxy that strips a prefix, and never another host's.
    """
    last = environ.get("SCRIPT_NAME", "").rpartition("/")[2]
    return f"./{quote(last, encoding='latin-1')}/" if last else "./"


def _own_origin(environ: WSGIEnvironment) -> str | None:
    host = environ.get("HTTP_HOST")
    return f"{environ['wsgi.url_scheme']}://{host}" if host else None


def _target(path: str) -> tuple[str, str]:
    """Return the node that a path below ``/api/nodes/`` names, and what to ask it for.

    WSGI has undone the percent encoding, so it is done again.
    """
    node, _, rest = path.removeprefix("/api/nodes/").partition("/")
    # Only a pool's name may have slashes in it, which look like all others by now.
    parts = rest.split("/", 2 if rest.startswith("v1/pools/") else -1)
    if not is_node(node) or parts[0] != "v1" or not all(map(_is_plain, parts)):
        raise Refusal(404, "there is no such node, or nothing that it could be asked")
    return node, "".join("/" + quote(part, safe="", encoding="latin-1") for part in parts)


def _is_plain(part: str) -> bool:
    """Tell whether a part of a path is text, and means what it says."""
    try:
        text = part.encode("latin-1").decode()  # WSGI hands out bytes as Latin-1
    except UnicodeError:
        return False
    return text.isprintable() and text not in ("", ".", "..")


def _query(environ: WSGIEnvironment) -> str:
    query: str = environ.get("QUERY_STRING", "")
    if not query.isascii() or not query.isprintable() or " " in query:
        raise Refusal(400, "a query is printable ASCII, everything else percent-encoded")
    return query


def _body(environ: WSGIEnvironment) -> bytes:
    """Return the body of a request; blocks until it has come."""
    length: str = environ.get("CONTENT_LENGTH") or ""
    if not length.isascii() or not length.isdigit():
        raise Refusal(400, "an action has a Content-Length")
    if len(length) > 10 or int(length) > LARGEST:
        raise Refusal(413, f"an action has at most {LARGEST} bytes")
    try:
        body: bytes = environ["wsgi.input"].read(int(length))
    except OSError as error:
        raise Refusal(400, "the body of the action has not come") from error
    if len(body) != int(length):
        raise Refusal(400, "the body of the action is shorter than its Content-Length")
    return body
