"""The Observer's own web server, of ``gpool web``: for one user, on one machine.

    server = Server(port=0)
    print(server.url)       # http://127.0.0.1:41234/?token=...
    server.run()            # until close()

It listens on the loopback interface only, which keeps out other machines, but neither
other users nor web pages that are open in the same browser.  Hence, in this order:

* A ``Host`` that is not ours, to the letter, gets 421: whoever rebinds a name of his to
  127.0.0.1 comes no further.
* The address that is printed at the start holds a token.  Whoever brings it gets a cookie
  that no script can read and no other site can have sent, and an address without it.
* Everybody else gets 403, and a sentence that says what to do.

The cookie's name holds the port, as browsers send cookies to all ports alike; token and
cookie are new at each start.

A client that connects and hangs is cut off after ``WITHIN``; there are never more than
``CONNECTIONS``.  What pywsgi refuses by itself has the same headers as all else.

Not here: what is served (``app.py``).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterable
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO
from urllib.parse import quote

import gevent
import gevent.socket
from gevent.pywsgi import LoggingLogAdapter, WSGIHandler, WSGIServer

from gpool import GPoolError, clock
from gpool.observer.web.app import HEADERS, LARGEST, Answer, App, Refusal, check_host, texts

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("gpool.observer")

HOST: Final = "127.0.0.1"
PORT: Final = 4747
WITHIN: Final = 30.0  # s for a request to come and be answered, or for the next one to begin
CONNECTIONS: Final = 64  # at once; a browser opens six
GRACE: Final = 0.5  # s that answers may take once the server ends
DRAINED: Final = 16 * LARGEST  # bytes of an unread body that are read for the next request's sake
HELP: Final = """\
This page is for those who started `gpool web`.

Open the address that it printed then: it ends in ?token=...
The token is a new one at each start.
"""


class CannotListen(GPoolError):
    """The server cannot have its port."""

    def __init__(self, host: str, port: int, problem: str) -> None:
        super().__init__(host, port, problem)
        self.host, self.port, self.problem = host, port, problem

    def __str__(self) -> str:
        return f"cannot listen at port {self.port} of {self.host}: {self.problem}; port 0 is any"


class Door:
    """Lets in whoever knows the token, and from then on by a cookie.

    Args:
        port: Where the server listens.
        hosts: The ``Host`` headers that are ours.
    """

    def __init__(self, *, port: int, hosts: frozenset[str]) -> None:
        self.token = secrets.token_urlsafe(32)
        self._hosts = hosts
        self._cookie = f"gpool-observer-{port}"
        self._session = secrets.token_urlsafe(32)

    def greet(self, environ: WSGIEnvironment) -> Answer | None:
        """Return what a request is answered at the door; None: it may come in."""
        try:
            check_host(environ, self._hosts)
        except Refusal as refusal:
            return refusal.answer("")
        name, _, value = environ.get("QUERY_STRING", "").partition("=")
        if name == "token":
            return self._log_in(environ, value)
        return None if self.knows(environ) else Answer(403, HELP.encode())

    def knows(self, environ: WSGIEnvironment) -> bool:
        """Tell whether a request has our cookie."""
        cookies = environ.get("HTTP_COOKIE", "").split(";")
        pairs = (cookie.strip().partition("=") for cookie in cookies)
        return any(name == self._cookie and _same(value, self._session) for name, _, value in pairs)

    def _log_in(self, environ: WSGIEnvironment, token: str) -> Answer:
        if environ["REQUEST_METHOD"] != "GET" or not _same(token, self.token):
            logger.warning("a request with a wrong token came from %s", environ.get("REMOTE_ADDR"))
            return Answer(403, HELP.encode())
        cookie = f"{self._cookie}={self._session}; HttpOnly; SameSite=Strict; Path=/"
        last = environ.get("PATH_INFO", "").rpartition("/")[2]
        # Relative: a path that begins with two slashes would be another host's.
        location = f"./{quote(last, encoding='latin-1')}"
        return Answer(303, headers=(("Location", location), ("Set-Cookie", cookie)))


class Server:
    """The Observer on a port of the loopback interface, where it listens at once.

    Args:
        host: An address of that interface, or ``"localhost"``.
        port: 0: any that is free.
        run_dir: Where the sockets of the nodes are; None: where this user's are.
        allow_actions: Pass on actions, too; default: look only.
        allow_hosts: More ``Host`` headers to answer, exactly as they come: of a proxy or a
            tunnel before this server.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or `host` is not on the
            loopback interface.
        RunDirError: The run directory is somebody else's, or open to others.
        CannotListen: The port is taken.
    """

    def __init__(
        self,
        host: str = HOST,
        port: int = PORT,
        *,
        run_dir: str | os.PathLike[str] | None = None,
        allow_actions: bool = False,
        allow_hosts: Iterable[str] = (),
    ) -> None:
        host = _loopback(host)
        if not isinstance(port, int) or not 0 <= port <= 65535:
            raise ValueError(f"port: expected a number from 0 to 65535, got {port!r}")
        others = texts("allow_hosts", allow_hosts)
        listener = _listen(host, port)
        try:
            self.port: int = listener.getsockname()[1]
            self._at = f"{_bare(host)}:{self.port}"
            ours = {f"{name}:{self.port}" for name in (HOST, "localhost", "[::1]")} | {self._at}
            hosts = frozenset(ours | others)
            self._app = App(
                self._may_look,
                allow_actions=allow_actions,
                hosts=hosts,
                # A proxy that ends TLS before us is one that the user has named.
                origins=[f"https://{name}" for name in others],
                run_dir=run_dir,
            )
        except BaseException:
            listener.close()
            raise
        self._door = Door(port=self.port, hosts=hosts)
        self._wsgi = _pywsgi(listener, self._answer)

    def start(self) -> None:
        """Answer from now on, while the caller does something else."""
        self._wsgi.start()

    def run(self) -> None:
        """Answer; blocks until somebody calls :meth:`close`."""
        self._wsgi.serve_forever(stop_timeout=GRACE)

    def close(self) -> None:
        """Have :meth:`run` return, after at most ``GRACE`` for answers that are under way."""
        self._wsgi.close()

    def stop(self) -> None:
        """Stop at once, and cut off whoever is connected; for those who do not :meth:`run`."""
        self._wsgi.stop(timeout=0)

    @property
    def url(self) -> str:
        """The address to open, with its token."""
        return f"http://{self._at}/?token={self._door.token}"

    def _may_look(self, environ: WSGIEnvironment) -> bool:
        return self._door.knows(environ)

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        answer = self._door.greet(environ)
        if answer is not None:
            return answer.send(environ, start_response)
        return self._app(environ, start_response)


def serve(
    host: str = HOST,
    port: int = PORT,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    allow_actions: bool = False,
    allow_hosts: Iterable[str] = (),
    out: TextIO | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; says on `out` (None: stdout) where.

    Raises:
        TypeError, ValueError, RunDirError, CannotListen: As of :class:`Server`.
    """
    server = Server(
        host, port, run_dir=run_dir, allow_actions=allow_actions, allow_hosts=allow_hosts
    )
    ends: list[Any] = [
        gevent.signal_handler(number, server.close) for number in (signal.SIGTERM, signal.SIGINT)
    ]
    does = "looks, and acts" if allow_actions else "looks only"
    print(f"The Observer {does}; Ctrl-C ends it.\n{server.url}", file=out or sys.stdout, flush=True)
    try:
        server.run()
    finally:
        for end in ends:
            end.cancel()


class _Handler(WSGIHandler):
    """pywsgi's, with a limit to how long a client may take, and our headers on its errors."""

    def handle(self) -> None:
        """Handle a client's requests; one that has gone before it was told off is no news."""
        with contextlib.suppress(OSError):
            super().handle()

    def handle_one_request(self) -> tuple[str, bytes] | Literal[True] | None:
        """Handle one, or cut the client off."""
        timer = clock.call_later(WITHIN, self._cut_off, ref=False)
        try:
            result = super().handle_one_request()
        finally:
            timer.cancel()
        return (result[0], _with_headers(result[1])) if isinstance(result, tuple) else result

    def _cut_off(self) -> None:
        # Of the bare socket: whoever reads meets the end, whoever writes an error that
        # pywsgi ignores; gevent's own shutdown would have it print a traceback.
        with contextlib.suppress(OSError):
            self.socket._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]

    def read_request(self, raw_requestline: str) -> Any:
        """Read one; what is the client's fault is no traceback."""
        try:
            return super().read_request(raw_requestline)
        # Too many headers; HTTP/7; a connection that was reset.
        except (HTTPException, IndexError, OSError) as error:
            raise ValueError(str(error)) from error

    def get_environ(self) -> WSGIEnvironment:
        """Return the environ; a body that nobody will want is not read to its end."""
        environ = super().get_environ()
        body = self.wsgi_input
        assert body is not None
        if body.chunked_input or (body.content_length or 0) > DRAINED:
            body.chunked_input, body.content_length = False, 0
            self.close_connection = True
        return environ


def _listen(host: str, port: int) -> gevent.socket.socket:
    """Listen; gevent's own way leaves a socket open if the port is taken.

    Raises:
        CannotListen: It is, or may not be used.
    """
    sock = gevent.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(CONNECTIONS)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise CannotListen(host, port, error.strerror or str(error)) from error
    return sock


def _pywsgi(listener: gevent.socket.socket, application: WSGIApplication) -> WSGIServer:
    return WSGIServer(
        listener,
        application,
        spawn=CONNECTIONS,
        handler_class=_Handler,
        log=None,
        error_log=LoggingLogAdapter(logger, logging.WARNING),
        environ={"SERVER_NAME": "localhost"},  # or pywsgi would ask DNS
    )


def _with_headers(raw: bytes) -> bytes:
    """Return one of pywsgi's own answers with our headers in it."""
    line, _, rest = raw.partition(b"\r\n")
    ours = "".join(
        f"{name}: {value}\r\n" for name, value in (*HEADERS, ("Cache-Control", "no-store"))
    )
    return b"%s\r\n%s%s" % (line, ours.encode(), rest)


def _same(given: str, right: str) -> bool:
    """Compare in a time that tells nothing."""
    return secrets.compare_digest(given.encode(), right.encode())


def _bare(host: str) -> str:
    """Return an address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def _loopback(host: str) -> str:
    """Return the address to listen at.

    Raises:
        ValueError: Other machines could reach it.
    """
    try:
        address = ipaddress.ip_address(HOST if host == "localhost" else str(host))
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise ValueError(
            f"host: expected an address of the loopback interface, such as {HOST}, got {host!r}; "
            "others reach the Observer through a tunnel, or mounted in an app that knows them"
        )
    return str(address)
