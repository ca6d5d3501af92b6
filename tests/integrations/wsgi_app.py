"""What the WSGI servers under test serve: requests that borrow in every way, and tell."""

from __future__ import annotations

import itertools
import json
import wsgiref.util
from collections.abc import Iterable, Iterator
from typing import Any

import gevent
from greenlet import getcurrent

import gpool
from gpool.integrations.wsgi import SCOPE, RequestScope

made = itertools.count(1)
closed: list[Any] = []
pool: gpool.Pool[Any] = gpool.Pool(
    gpool.Resource(create=lambda: [next(made)], reset=list.copy, close=closed.append),
    size=3, timeout=1.0, name="things",
)  # fmt: skip
told: list[str] = []  # lines that have forgotten something


def listen(event: gpool.telemetry.Event) -> None:
    """Remember what was forgotten."""
    if isinstance(event, gpool.telemetry.LeaseForgotten):
        told.append(event.line)


gpool.telemetry.attach(listen)


def status(environ: dict[str, Any]) -> Iterable[bytes]:
    """Tell how the pool is, and which greenlet asks."""
    stats = pool.stats()
    return [
        json.dumps(
            {"busy": stats.busy, "told": len(told), "closed": len(closed), "me": id(getcurrent())}
        ).encode()
    ]


def forget(environ: dict[str, Any]) -> Iterable[bytes]:
    """Borrow, and give nothing back."""
    lease = pool.checkout()
    environ["kept"] = lease
    return [b"forgot"]


def keep(environ: dict[str, Any]) -> Iterable[bytes]:
    """Borrow for the request, and use it in the body."""
    thing = environ[SCOPE].keep(pool.checkout())
    return (b"%d" % number for number in thing)


def stream(environ: dict[str, Any]) -> Iterator[bytes]:
    """Never end; a slow client sees every piece."""
    thing = environ[SCOPE].keep(pool.checkout())
    for number in itertools.count():
        yield b"%d of %d\n" % (number, thing[0])
        gevent.sleep(0.005)


def fail_later(environ: dict[str, Any]) -> Iterator[bytes]:
    """Fail in the middle of the body."""
    environ[SCOPE].keep(pool.checkout())
    yield b"a piece"
    raise ZeroDivisionError


def fail(environ: dict[str, Any]) -> Iterable[bytes]:
    """Fail at once."""
    environ[SCOPE].keep(pool.checkout())
    raise ZeroDivisionError


def time_out(environ: dict[str, Any]) -> Iterable[bytes]:
    """Be cut short."""
    environ[SCOPE].keep(pool.checkout())
    with gevent.Timeout(0.01):
        gevent.sleep(10)
    return [b"never"]


def send_file(environ: dict[str, Any]) -> Iterable[bytes]:
    """Let the server send a file, if it can."""
    environ["kept"] = pool.checkout()
    return environ.get("wsgi.file_wrapper", wsgiref.util.FileWrapper)(open(__file__, "rb"))


PAGES = {
    "/status": status, "/forget": forget, "/keep": keep, "/stream": stream,
    "/fail-later": fail_later, "/fail": fail, "/time-out": time_out, "/file": send_file,
}  # fmt: skip


def bare(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer."""
    body = PAGES[environ["PATH_INFO"]](environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return body


application = RequestScope(bare)
