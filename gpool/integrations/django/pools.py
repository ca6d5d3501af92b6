"""The pools of the engine: one for each alias, in each process.

A pool goes with its settings: an alias whose settings have changed, as when a test database
takes the place of the real one, gets another pool, and the old one is stopped once
nobody has anything of it.

A connection comes back in whatever state a request has left it.  The worker then ends its
transaction and has the server forget the session, but for prepared statements: parameters,
role, time zone, advisory locks, cursors, LISTEN, temporary tables, as if it were a new one.

Not here: what becomes of a connection that is broken (``gpool.integrations.psycopg``).

Source:
    The reset: asyncpg's ``Connection.reset``, and the ``DISCARD ALL`` of pgbouncer.
"""

from __future__ import annotations

import copy
import itertools
import logging
import os
import select
from typing import Any, Final, NamedTuple

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from gevent import monkey
from greenlet import greenlet
from psycopg import sql

import gpool
from gpool.integrations._postgresql import GONE
from gpool.integrations._sockets import poll_now
from gpool.integrations.psycopg import PsycopgResource

gpool.pass_over("django", "asgiref", "contextlib")

logger = logging.getLogger("gpool.integrations.django")  # not `__name__`: users name it

Connection = psycopg.Connection[Any]
Pool = gpool.Pool[Connection]
Settings = dict[str, Any]

TRIES: Final = 3  # connections that are looked at before one is lent as it is
OPTION: Final = "gpool"  # of OPTIONS
KEYS: Final = (  # of the settings of an alias: what its connections, and its pool, depend on
    "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS", "CONN_HEALTH_CHECKS",
)  # fmt: skip
FORGET: Final = sql.SQL(
    "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; "
    "DISCARD SEQUENCES; SELECT pg_catalog.pg_advisory_unlock_all()"
)


class Made(NamedTuple):
    """A pool, and the settings that it was made with."""

    settings: tuple[Any, ...]
    pool: Pool


class Fault(NamedTuple):
    """What is wrong with settings."""

    number: str  # of the system check
    text: str
    remedy: str


class Pools:
    """The pools of all aliases."""

    def __init__(self) -> None:
        self._made: dict[str, list[Made]] = {}  # by alias; the newest last
        self._reported: set[tuple[int, str]] = set()  # processes and aliases

    def of(self, wrapper: Any) -> Pool:
        """Return the pool that a wrapper borrows from; blocks only to stop an old one.

        Raises:
            ImproperlyConfigured: There can be none: the options are wrong, or greenlets
                would share their connections.
        """
        made = self._made.setdefault(wrapper.alias, [])
        wanted = signature(wrapper)
        for one in made[::-1]:
            if one.settings == wanted:
                return one.pool
        assert_per_greenlet()
        pool = make_pool(wrapper, name=self._free_name(wrapper.alias))
        made.append(Made(copy.deepcopy(wanted), pool))
        self._stop_unused(made)
        return pool

    def report(self, wrapper: Any, error: ImproperlyConfigured) -> None:
        """Log, once in a process and for an alias, why no query of it will ever be answered.

        Servers run no system checks, and what they would find is said here.  What Django itself
        logs of the request goes nowhere, by its own settings for production.
        """
        one = (os.getpid(), wrapper.alias)
        if one in self._reported:
            return
        self._reported.add(one)
        found = contradictions(wrapper.alias, wrapper.settings_dict)
        reasons = [f"{fault} {hint} (gpool.{number})" for number, fault, hint in found]
        why = " ".join(reasons or [str(error)])
        logger.error("gpool refuses every query of %r: %s", wrapper.alias, why)

    def close(self, alias: str) -> None:
        """Stop the pools of an alias; blocks until they have no connection, or 5 s."""
        for one in self._made.pop(alias, ()):
            one.pool.stop()

    def _free_name(self, alias: str) -> str:
        name = f"django-{alias}"
        taken = {pool.name for pool in gpool.running_pools()}
        taken |= {one.pool.name for one in self._made.get(alias, ())}
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return next(name for name in names if name not in taken)

    def _stop_unused(self, made: list[Made]) -> None:
        """Stop the pools of settings that are not the newest, if nobody has anything of them."""
        for one in made[:-1]:
            if one in made and not one.pool.holders() and not one.pool.waiters():
                made.remove(one)
                one.pool.stop()


def signature(wrapper: Any) -> tuple[Any, ...]:
    """Return what the pool of a wrapper depends on."""
    settings = wrapper.settings_dict
    return (type(wrapper), wrapper.timezone_name, *(settings.get(key) for key in KEYS))


def make_pool(wrapper: Any, *, name: str) -> Pool:
    """Return a pool for the settings that a wrapper has now; starts nothing.

    Raises:
        ImproperlyConfigured: Its options are wrong.
    """
    template = type(wrapper)(copy.deepcopy(wrapper.settings_dict), wrapper.alias)
    template.is_template = True
    session = _Session(template)
    options = options_of(wrapper.alias, wrapper.settings_dict)
    resource = PsycopgResource(
        kwargs=template.get_connection_params,
        connection_class=_connector(template),
        configure=session.configure,
        reset=session.forget if options.pop("session_reset") else None,
    )
    return gpool.Pool(resource, name=name, **options)


def options_of(alias: str, settings: Settings) -> dict[str, Any]:
    """Return the options of a pool: what the settings of an alias say, and our defaults.

    Connections are made on demand.  With ``CONN_HEALTH_CHECKS`` each is checked before it is
    lent, as by Django at the begin of a request; without, one that was idle for half a second.

    Raises:
        ImproperlyConfigured: They are no options.
    """
    where = f"DATABASES[{alias!r}]['OPTIONS'][{OPTION!r}]"
    chosen = settings["OPTIONS"].get(OPTION, {})
    if not isinstance(chosen, dict):
        raise ImproperlyConfigured(f"{where}: expected a dict, got {chosen!r}")
    always = {"check_after": 0.0} if settings.get("CONN_HEALTH_CHECKS") else {}
    options = {"lazy": True, "session_reset": True} | always | chosen
    try:
        if not isinstance(options["session_reset"], bool):
            got = options["session_reset"]
            raise TypeError(f"session_reset: expected True or False, got {got!r}")
        trial(options)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{where}: {error}") from None
    return options


def trial(options: dict[str, Any]) -> gpool.Pool[int]:
    """Return a pool of nothing with the options of one.

    Raises:
        TypeError, ValueError: They are wrong.
    """
    others = {name: value for name, value in options.items() if name != "session_reset"}
    return gpool.Pool(gpool.Resource(create=int, check=int), name="trial", **others)


def cap(wrapper: Any) -> int:
    """Return the most connections that the pool of a wrapper may have, in one process.

    Raises:
        ImproperlyConfigured: Its options are wrong.
    """
    numbers = trial(options_of(wrapper.alias, wrapper.settings_dict)).stats()
    return numbers.size + numbers.max_overflow


def contradictions(alias: str, settings: Settings) -> list[Fault]:
    """Return all that is wrong with an alias's settings: what its queries are refused for."""
    found = clashes(alias, settings)
    try:
        options_of(alias, settings)
    except ImproperlyConfigured as error:
        hint = f"OPTIONS[{OPTION!r}] takes the options of gpool.Pool, and session_reset."
        found.append(Fault("E003", f"{error}.", hint))
    return found


def clashes(alias: str, settings: Settings) -> list[Fault]:
    """Return what in an alias's settings contradicts a pool, whatever its options are."""
    found, where = [], f"DATABASES[{alias!r}]"
    if settings.get("CONN_MAX_AGE", 0) != 0:
        why = "a connection would not go back at the end of its request"
        found.append(Fault(
            "E001", f"{where}: CONN_MAX_AGE: expected 0, got {settings['CONN_MAX_AGE']!r}: {why}.",
            f"Leave it out; OPTIONS[{OPTION!r}]['max_age'] says how old a connection may grow.",
        ))  # fmt: skip
    if settings.get("OPTIONS", {}).get("pool"):
        found.append(Fault(
            "E002", f"{where}: OPTIONS['pool'] asks for Django's pool within gpool's.",
            f"Leave it out; what it says has its place in OPTIONS[{OPTION!r}].",
        ))  # fmt: skip
    return found


class _Session:
    """How the server is told who a connection belongs to."""

    def __init__(self, template: Any) -> None:
        self.template = template
        self.text: sql.Composed | None = None  # known once Django's settings are needed anyway

    def configure(self, connection: Connection) -> None:
        """Do what Django does with a new connection; in the worker."""
        connection.autocommit = True
        self.template._configure_connection(connection)

    def forget(self, connection: Connection) -> None:
        """Undo what was set in a session, and set it up as it was; in the worker.

        One round trip.  Statements that psycopg has prepared stay, as it knows of them.
        """
        if self.text is None:
            self.text = self._compose()
        connection.execute(self.text, prepare=False)

    def _compose(self) -> sql.Composed:
        parts: list[sql.Composable] = [FORGET]
        if self.template.timezone_name:
            name = sql.Literal(self.template.timezone_name)
            parts.append(sql.SQL("SET TIME ZONE {}").format(name))
        role = self.template.settings_dict["OPTIONS"].get("assume_role")
        if role:
            parts.append(set_role(role))
        return sql.SQL("; ").join(parts)


def set_role(role: str) -> sql.Composed:
    """Return the statement for the option ``assume_role``."""
    return sql.SQL("SET ROLE {}").format(sql.Literal(role))


def _connector(template: Any) -> type[Connection]:
    """Return the class whose ``connect`` is that of a wrapper, its subclass's changes included."""

    class Connector(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **params: Any) -> Any:
            return template.get_new_connection(params)

    return Connector


def is_per_greenlet() -> bool:
    """Tell whether each greenlet is a thread to Django: gevent has patched threading."""
    return bool(monkey.is_module_patched("threading"))


def assert_per_greenlet() -> None:
    """Raise if Django was imported before gevent patched: its greenlets share their wrappers.

    Raises:
        ImproperlyConfigured: They do.
    """
    if greenlet(lambda: connections.all(initialized_only=True)).switch():
        raise ImproperlyConfigured(
            "all greenlets share one database connection: Django was imported before gevent "
            "patched; patch first (with gunicorn --preload: at the top of gunicorn.conf.py)"
        )


def borrow(pool: Pool) -> gpool.Lease[Connection]:
    """Borrow a connection that the server has not ended, as far as is known without asking it.

    A server that is restarted in less than the pool's `check_after` has ended connections that
    nobody checks.  One that is found has all others looked at; then a new one comes.
    """
    lease = pool.checkout()
    for _ in range(TRIES):
        if not is_ended(lease.worker):
            break
        error = psycopg.errors.AdminShutdown("the server has ended the idle connection")
        lease.__exit__(type(error), error, None)
        lease = pool.checkout()
    return lease


def is_ended(connection: Connection) -> bool:
    """Tell whether the server has ended an idle connection; reads what has come, and never waits.

    What else has come, such as a NOTIFY, is left to the client, as libpq would have it.
    """
    if connection.closed or not has_news(connection):
        return connection.closed
    last_words = []

    def note(said: psycopg.errors.Diagnostic) -> None:
        if said.severity_nonlocalized == "FATAL" or (said.sqlstate or "").startswith(GONE):
            last_words.append(said)  # some are mere warnings: of a crash, of an immediate shutdown

    connection.add_notice_handler(note)
    try:
        connection.pgconn.consume_input()
        connection.pgconn.is_busy()  # has libpq look at what was read: the hang-up may come later
    except psycopg.Error:
        return True
    finally:
        connection.remove_notice_handler(note)
    return connection.closed or bool(last_words)


def has_news(connection: Connection) -> bool:
    """Tell whether the server has said something, or hung up, since nobody asked; no I/O."""
    return poll_now(connection.fileno(), select.POLLIN) != 0
