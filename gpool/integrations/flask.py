"""Flask: what a request borrows goes back when it is over.

An application::

    from flask import Flask
    from gpool.integrations.flask import GPool
    from gpool.integrations.psycopg import PsycopgResource

    app = Flask(__name__)
    app.config["GPOOL_POOLS"] = {"db": {"worker": PsycopgResource("dbname=app"), "size": 10}}
    pools = GPool(app)  # or GPool(), and init_app(app) in the factory

    @app.get("/visits")
    def visits():
        connection = pools.borrow("db")  # one a request, however often it is asked for
        return str(connection.execute("select count(*) from visits").fetchone()[0])

=============================  ============================================================
in ``app.config``, optional    what it is
=============================  ============================================================
``GPOOL_POOLS``                name -> a dict of ``worker`` and, if needed, ``args``, ``kwargs``,
                               ``name`` and any option of :class:`gpool.Pool`; so
                               ``FLASK_GPOOL_POOLS__db__size=20`` in the environment is one, too
                               (``app.config.from_prefixed_env()``)
``GPOOL_OBSERVER_URL``         where the Observer's page is mounted, say ``"/observer"``; takes
                               `authorize`.  None: nowhere
``GPOOL_OBSERVER_HOSTS``,      `hosts`, `origins` and `allow_actions` of
``GPOOL_OBSERVER_ORIGINS``,    :class:`gpool.observer.App`; None, ``()`` and False
``GPOOL_OBSERVER_ACTIONS``
=============================  ============================================================

When what a request has borrowed goes back:

* What :meth:`GPool.borrow` lent, at the end of the application context: before the response
  is sent, so that no slow client keeps it.  If the response is *streamed*, when that has
  ended: a generator may use what its view has borrowed, with ``stream_with_context`` or without.
* What the request has borrowed in any other way and forgotten, when its response has ended
  (:class:`~gpool.integrations.wsgi.RequestScope`, which ``init_app`` puts around the app's
  ``wsgi_app``); :class:`~gpool.telemetry.LeaseForgotten` tells from which line.
* It is reset after an error, and discarded if a kill or a ``gevent.Timeout`` ended the request.
* In a command or a test, :meth:`GPool.borrow` works in any ``app.app_context()``, until that ends.

Limits: a view is a function.  An ``async`` one runs in another greenlet than its request, so
what it borrows has to be given back in it; and under gevent asyncio runs one of them at a
time and refuses the next.  A greenlet that a view spawns borrows by ``with pool.checkout()``:
what it has is its own.  Two apps in one process that both have a pool "db" need a ``name``
for one of them: ``{"db": {"worker": ..., "name": "admin-db"}}``.

``flask gpool`` has the commands of ``gpool``: ``flask gpool pools``, ``tree``, ``ps``, ``top`` ...

Not here: processes that can be looked into (``GPOOL_OBSERVER=1``, or the hooks in ``gunicorn.py``).

Source:
    Flask's documentation of extensions; Flask-SQLAlchemy, whose session is removed likewise.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from flask import Flask, Response, current_app, g, has_request_context, request

import gpool
from gpool import cli
from gpool.integrations._options import named
from gpool.integrations.wsgi import SCOPE, RequestScope
from gpool.observer import App, mount

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

W = TypeVar("W")

DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType({
    "GPOOL_POOLS": {},
    "GPOOL_OBSERVER_URL": None,
    "GPOOL_OBSERVER_HOSTS": None,
    "GPOOL_OBSERVER_ORIGINS": (),
    "GPOOL_OBSERVER_ACTIONS": False,
})  # fmt: skip
"""Everything in ``app.config`` that is ours, and what it is if it is not there."""

_PAGE: Final = {
    "hosts": "GPOOL_OBSERVER_HOSTS",
    "origins": "GPOOL_OBSERVER_ORIGINS",
    "allow_actions": "GPOOL_OBSERVER_ACTIONS",
}  # an argument of the Observer's page -> what it is here

SHORT: Final = 65536  # bytes of the body of an error that is not worth to be streamed
_DEFAULT: Final[Any] = object()
_BORROWED: Final = "_gpool_borrowed"  # where in `g`


class NotConfigured(gpool.UnknownPool):
    """There is no such name in the ``GPOOL_POOLS`` of the app."""

    def __init__(self, pool: str, configured: list[str]) -> None:
        super().__init__(pool)
        self.args = pool, configured
        self.configured = configured  # the names that there are

    def __str__(self) -> str:
        return f"GPOOL_POOLS: expected one of {self.configured}, got {self.pool!r}"


@dataclass(frozen=True, slots=True)
class State:
    """What one app has of the extension: ``app.extensions["gpool"]``."""

    extension: GPool
    pools: Mapping[str, gpool.Pool[Any]]  # those of GPOOL_POOLS

    def stop(self, timeout: float | None = 5.0) -> None:
        """Stop the pools; blocks until they are gone.  For tests that make one app after the other.

        Args:
            timeout: Seconds for each, see :meth:`gpool.Pool.stop`.
        """
        for pool in self.pools.values():
            pool.stop(timeout)


@dataclass(slots=True)
class _Borrowed:
    """What an application context has borrowed."""

    leases: dict[tuple[gpool.Pool[Any], gpool.Pid], gpool.Lease[Any]] = field(default_factory=dict)
    kept: list[gpool.Lease[Any]] = field(default_factory=list)  # those that its request's scope has
    is_streamed: bool = False  # by a body that may use them


class GPool:
    """The extension; one object serves any number of apps.

    Args:
        app: The app, if it is there already; else call :meth:`init_app`.
        authorize: Who may see the Observer's page: called without arguments, in a request
            context of the app, so that it may look at ``session`` and ``request``; what is
            true lets them.  ``before_request`` functions do not run for the page.

    Raises:
        TypeError: `authorize` cannot be called.
        TypeError, ValueError, RuntimeError: As of :meth:`init_app`.
    """

    def __init__(
        self, app: Flask | None = None, *, authorize: Callable[[], object] | None = None
    ) -> None:
        if authorize is not None and not callable(authorize):
            raise TypeError(f"authorize: expected a callable, got {authorize!r}")
        self._authorize = authorize
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read an app's configuration, and look after its requests; starts nothing.

        Args:
            app: The app, configured.

        Raises:
            TypeError, ValueError: Its configuration is wrong.
            RuntimeError: It has the extension already.
        """
        if not isinstance(app, Flask):
            raise TypeError(f"app: expected a Flask, got {app!r}")
        if "gpool" in app.extensions:
            raise RuntimeError(f"app: expected one that has no GPool yet, got {app!r}")
        config = _config(app)
        page = self._page(app, config)  # if it is mounted or not: what is wrong is found today
        pools = {name: _pool(name, entry) for name, entry in config["GPOOL_POOLS"].items()}
        whole: Any = RequestScope(app.wsgi_app)
        if (url := config["GPOOL_OBSERVER_URL"]) is not None:
            whole = mount(whole, url, page)
        app.extensions["gpool"] = State(self, MappingProxyType(pools))
        app.after_request(_note_whether_streamed)
        app.teardown_appcontext(_give_back)
        app.cli.add_command(_commands())
        app.wsgi_app = whole  # type: ignore[method-assign]

    def _page(self, app: Flask, config: Mapping[str, Any]) -> App:
        """Return the Observer's page; without `authorize` it is not mounted, and for nobody."""
        url, authorize = config["GPOOL_OBSERVER_URL"], self._authorize or bool
        if not (url is None or isinstance(url, str)):
            raise TypeError(f"GPOOL_OBSERVER_URL: expected a path such as '/observer', got {url!r}")
        if url is not None and self._authorize is None:
            raise ValueError(
                "authorize: expected a callable that says who may see the Observer at "
                f"GPOOL_OBSERVER_URL={url!r}, as GPool(authorize=...), got None"
            )

        def may_look(environ: WSGIEnvironment) -> object:
            with app.request_context(environ):
                return authorize()

        with named(**_PAGE):
            return App(may_look, **{ours: config[theirs] for ours, theirs in _PAGE.items()})

    def pool(self, name: str) -> gpool.Pool[Any]:
        """Return a pool of the current app's ``GPOOL_POOLS``.

        Raises:
            NotConfigured: There is no such name in it.
            RuntimeError: There is no app context, or its app was not told to :meth:`init_app`.
        """
        state = current_app.extensions.get("gpool")
        if not isinstance(state, State):
            raise RuntimeError("current_app: expected one of init_app(), got another")
        if name not in state.pools:
            raise NotConfigured(name, list(state.pools))
        return state.pools[name]

    # `timeout` as of Pool.checkout.
    def borrow(self, pool: gpool.Pool[W] | str, timeout: float | None = _DEFAULT) -> W:
        """Borrow a worker until the application context ends; blocks until one is free.

        Asked again in the same context it returns the same one.

        Args:
            pool: A name of ``GPOOL_POOLS``, or any pool.
            timeout: Seconds to wait; None waits for ever, 0 never waits; the pool's own
                `timeout` if left out.

        Returns:
            The worker: a server's handle, or a resource.

        Raises:
            NotConfigured: There is no such name in ``GPOOL_POOLS``.
            LeaseLost: It was borrowed before, and its worker has died since, or was taken away.
            RuntimeError: There is no app context.
            PoolError: As of :meth:`gpool.Pool.checkout`.
        """
        found: gpool.Pool[Any] = self.pool(pool) if isinstance(pool, str) else pool
        borrowed: _Borrowed = g.setdefault(_BORROWED, _Borrowed())
        key = found, gpool.self()
        lease = borrowed.leases.get(key)
        if lease is None or lease.slot is None:  # it was given back, by a request in this context
            lease = found.checkout() if timeout is _DEFAULT else found.checkout(timeout)
            lease.locate()
            borrowed.leases[key] = lease
            _keep(lease, borrowed)
        worker: W = lease.worker
        return worker


# --- Requests -----------------------------------------------------------------------


def _keep(lease: gpool.Lease[Any], borrowed: _Borrowed) -> None:
    """Have a lease last as long as the request of the running greenlet, if it serves one."""
    scope = request.environ.get(SCOPE) if has_request_context() else None
    if scope is not None:
        with contextlib.suppress(ValueError):  # it is another greenlet's, or over
            scope.keep(lease)
            borrowed.kept.append(lease)


def _note_whether_streamed(response: Response) -> Response:
    """Leave what the view has borrowed to a body that is still to be made."""
    borrowed: _Borrowed | None = g.get(_BORROWED)
    if borrowed is not None:
        borrowed.is_streamed = response.is_streamed and not _is_made(response)
    return response


def _is_made(response: Response) -> bool:
    """Make a body at once that is only passed for a stream: Flask's own of errors are such."""
    length = response.content_length
    if response.status_code < 400 or length is None or length > SHORT:
        return False
    if not response.direct_passthrough:
        response.make_sequence()
    return not response.is_streamed


def _give_back(error: BaseException | None) -> None:
    """End an application context."""
    borrowed: _Borrowed | None = g.get(_BORROWED)
    if borrowed is None:
        return
    ours, left_to_scope = borrowed.leases.values(), borrowed.kept if borrowed.is_streamed else ()
    for lease in gpool.leases():  # the running greenlet's: others have their own
        if lease in ours and lease not in left_to_scope:
            if error is None:
                lease.checkin()  # which looks at a kill in flight: Flask may not have told of it
            else:
                lease.__exit__(type(error), error, None)


# --- Configuration ------------------------------------------------------------------


def _config(app: Flask) -> dict[str, Any]:
    ours = {key: value for key, value in app.config.items() if key.startswith("GPOOL_")}
    for key in ours:
        if key not in DEFAULTS:
            raise ValueError(f"app.config: expected some of {sorted(DEFAULTS)}, got {key!r}")
    config = {**DEFAULTS, **ours}
    pools = config["GPOOL_POOLS"]
    if not isinstance(pools, Mapping):
        raise TypeError(f"GPOOL_POOLS: expected a dict of name -> dict, got {pools!r}")
    return config


def _pool(name: str, entry: Any) -> gpool.Pool[Any]:
    """Return the pool of an entry of GPOOL_POOLS, which its first use starts."""
    where = f"GPOOL_POOLS[{name!r}]"
    if not isinstance(entry, Mapping):
        raise TypeError(f"{where}: expected a dict with 'worker' and options, got {entry!r}")
    if "worker" not in entry:
        raise ValueError(
            f"{where}: expected 'worker' among its keys, got {sorted(entry)}; "
            f"is {name!r} the name of a pool?"
        )
    try:
        return gpool.Pool(**{"name": name} | dict(entry))
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{where}: {error}") from None


# --- Commands -----------------------------------------------------------------------


def _commands() -> click.Group:
    """Return the commands of ``gpool``, as a group of ``flask``."""
    group = click.Group("gpool", help="Look into running processes that use gpool.")
    for run, _ in cli.COMMANDS:
        group.add_command(_command(run.__name__, run.__doc__ or ""))
    return group


def _command(name: str, about: str) -> click.Command:
    def run(arguments: tuple[str, ...]) -> None:
        sys.exit(cli.main([name, *arguments]))

    return click.Command(
        name,
        callback=run,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        help=about,
        add_help_option=False,  # its own says more
        context_settings={"ignore_unknown_options": True},
    )
