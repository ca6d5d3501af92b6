"""Django on PostgreSQL: connections that are borrowed for a request, and go back at its end.

In the settings, and nothing else::

    INSTALLED_APPS = ["gpool.integrations.django", ...]  # its system checks
    DATABASES = {
        "default": {
            "ENGINE": "gpool.integrations.django",
            "NAME": "shop",
            "OPTIONS": {"gpool": {"size": 10, "timeout": 3.0}},  # options of gpool.Pool
        }
    }

Each alias has one pool a process, ``gpool.get_pool("django-default")``, from the first query
on.  What a greenlet needs first has it borrow a connection; ``request_finished``, ``close()``
or its death give it back.  Greenlets outside requests say where they are done::

    @close_connection
    def rebuild_index():
        ...

Connections are made, checked, reset and closed in the pool's workers, by Django's own
methods, so that whatever happens to a request, they are whole.

Rules:

* The pool is used where gevent has patched the program, before Django was imported:
  only there each greenlet has connections of its own.  Elsewhere, as under ``manage.py``
  or in a thread, each is opened and closed as by Django's own backend.
* A connection that others give back, as the end of a :class:`gpool.Scope` does, is closed, not
  lent again; the wrapper that had it borrows another one, and its ``atomic`` block has ended.
* ``CONN_MAX_AGE`` is 0, and Django's own ``pool`` is off.
* Settings with which no query can go well raise ``ImproperlyConfigured`` at each, and are an
  ERROR of the logger ``gpool.integrations.django``, once in a process: servers run no checks.
* It is psycopg 3: psycopg2 needs hands of its own to cooperate with gevent.

Not here: the engine (``base.py``), its pools (``pools.py``), the checks (``checks.py``).

Source:
    ``django.db.backends.postgresql``, whose ``pool`` is psycopg_pool; ``close_connection``:
    django-db-geventpool.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ParamSpec, TypeVar, overload

from django.db import connections

__all__ = ["close_connection"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def close_connection() -> AbstractContextManager[None]: ...
@overload
def close_connection(fn: Callable[P, T]) -> Callable[P, T]: ...
def close_connection(
    fn: Callable[P, T] | None = None,
) -> Callable[P, T] | AbstractContextManager[None]:
    """Give back, at the end, what connections the greenlet has borrowed; never blocks.

    A decorator, ``@close_connection``, and without an argument a context manager, ``with
    close_connection():``.  It is for greenlets that serve no request, such as jobs; one that
    ends needs neither, but what it leaves is taken for unfinished, and closed.  A connection
    that is within an ``atomic`` block stays: who began that goes on with it.

    Args:
        fn: What is decorated.

    Source:
        django-db-geventpool's decorator of that name.
    """
    if fn is None:
        return _closing()

    @functools.wraps(fn)
    def closes_its_connections(*args: P.args, **kwargs: P.kwargs) -> T:
        with _closing():
            return fn(*args, **kwargs)

    return closes_its_connections


@contextmanager
def _closing() -> Iterator[None]:
    try:
        yield
    finally:
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()
