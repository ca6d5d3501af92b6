"""System checks: what would go wrong, said by ``manage.py check`` before it does.

============  =================================================================================
gpool.E001    ``CONN_MAX_AGE`` is not 0
gpool.E002    Django's own ``pool`` is on, too
gpool.E003    the options of a pool are wrong
gpool.E004    the setting ``GPOOL_PROCESSES`` is no number of processes
gpool.W001    gevent has not patched what has to be patched, or too late.  Where it has patched
              nothing at all, as under ``manage.py``, only ``check --deploy`` says so
gpool.W002    the pools of all processes may open more connections than the server takes:
              ``check --database default``, and ``migrate``.  How many processes there are
              it knows by the setting ``GPOOL_PROCESSES``, or ``WEB_CONCURRENCY``, as gunicorn
============  =================================================================================

Not here: who calls :func:`register` (``apps.py``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from django import conf  # not its settings: a doctest that looks at them would read them
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from gevent import monkey

from gpool.integrations.django.base import Pooled
from gpool.integrations.django.pools import (
    assert_per_greenlet,
    cap,
    contradictions,
)
from gpool.integrations.psycopg import cooperates

NEEDED: Final = ("threading", "socket", "select")  # modules
ROOM: Final = (
    "SELECT current_setting('max_connections')::int, "
    "current_setting('superuser_reserved_connections')::int, "
    "coalesce(current_setting('reserved_connections', true)::int, 0)"  # from PostgreSQL 16 on
)


def register() -> None:
    """Register the checks; once."""
    checks.register(check_settings)
    checks.register(check_processes)
    checks.register(check_patched)
    checks.register(check_patched_at_all, deploy=True)
    checks.register(check_room, checks.Tags.database)


def pooled() -> Iterator[Any]:
    """Yield the wrappers of all aliases that have a pool; connects to none."""
    for alias in connections:
        wrapper = connections[alias]
        if isinstance(wrapper, Pooled):
            yield wrapper


def check_settings(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """E001, E002, E003: what an alias would refuse to connect with."""
    found: list[checks.CheckMessage] = []
    for wrapper in pooled():
        for number, text, remedy in contradictions(wrapper.alias, wrapper.settings_dict):
            found.append(checks.Error(text, hint=remedy, id=f"gpool.{number}"))
    return found


def check_processes(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """E004: without a number of processes, the check for room would count one."""
    said = getattr(conf.settings, "GPOOL_PROCESSES", None)
    if said is None or is_count(said):
        return []
    fault = f"GPOOL_PROCESSES: expected a whole number of at least 1, got {said!r}."
    hint = "It says how many processes serve the application; without it, WEB_CONCURRENCY does."
    return [checks.Error(fault, hint=hint, id="gpool.E004")]


def is_count(said: object) -> bool:
    """Tell whether something is a number of processes."""
    return isinstance(said, int) and not isinstance(said, bool) and said >= 1


def check_patched(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """W001, if gevent has patched something: it has to be enough, and early."""
    if not any(map(monkey.is_module_patched, NEEDED)) or not any(pooled()):
        return []
    missing = [name for name in NEEDED if not monkey.is_module_patched(name)]
    hint = "Call gevent.monkey.patch_all() before anything else is imported."
    found = []
    if missing:
        found.append(f"gevent has patched, but not {', '.join(missing)}.")
    elif not cooperates():
        found.append("psycopg was imported before gevent patched: each query blocks the process.")
    try:
        assert_per_greenlet()
    except ImproperlyConfigured as error:
        found.append(f"{error}.")
    return [checks.Warning(fault, hint=hint, id="gpool.W001") for fault in found]


def check_patched_at_all(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """W001, if gevent has patched nothing in this process."""
    if any(map(monkey.is_module_patched, NEEDED)) or not any(pooled()):
        return []
    hint = (
        "gunicorn -k gevent patches by itself; other servers are started by `python -m "
        "gevent.monkey`. To check what they run in: python -m gevent.monkey manage.py check "
        "--deploy."
    )
    return [
        checks.Warning(
            "gevent has not patched this process: connections are opened and closed as by "
            "Django's own engine, no pool lends them.", hint=hint, id="gpool.W001",
        )
    ]  # fmt: skip


def check_room(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """W002: all pools of one server, in all processes, fit into it."""
    found = []
    asked = [wrapper for wrapper in pooled() if wrapper.alias in (databases or ())]
    for server, first in {address(wrapper): wrapper for wrapper in asked}.items():
        sharing = [wrapper for wrapper in pooled() if address(wrapper) == server]
        with contextlib.suppress(ImproperlyConfigured):  # the other checks say that
            found += room_of(first, sharing)
    return found


def room_of(asked: Any, sharing: Iterable[Any]) -> list[checks.CheckMessage]:
    """Ask a server how many connections it takes, and compare."""
    caps = {wrapper.alias: cap(wrapper) for wrapper in sharing}
    with asked.temporary_connection() as cursor:
        cursor.execute(ROOM)
        most, *reserved = cursor.fetchone()
    room, many = most - sum(reserved), processes()
    wanted = sum(caps.values()) * (many or 1)
    if wanted <= room:
        return []
    hint = "Give the pools less size and max_overflow, run fewer processes, or raise the limit."
    if many is None:
        hint += " That is one process; GPOOL_PROCESSES says how many there are."
    what = " + ".join(f"{count} of {alias!r}" for alias, count in caps.items())
    times = "" if many is None else f", in each of {many} processes"
    return [
        checks.Warning(
            f"The pools may open {wanted} connections ({what}{times}); the server takes {room} "
            f"(max_connections={most}, less {sum(reserved)} reserved).",
            hint=hint, id="gpool.W002",
        )
    ]  # fmt: skip


def address(wrapper: Any) -> tuple[Any, Any]:
    """Return where the server of a wrapper is, as far as the settings tell."""
    return wrapper.settings_dict["HOST"], str(wrapper.settings_dict["PORT"])


def processes() -> int | None:
    """Return how many processes serve the application; None: nobody has said it."""
    said = getattr(conf.settings, "GPOOL_PROCESSES", None)
    if said is not None:
        return int(said) if is_count(said) else None
    word = os.environ.get("WEB_CONCURRENCY", "")
    return int(word) if word.isdecimal() and int(word) else None
