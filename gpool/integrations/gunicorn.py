"""Hooks for ``gunicorn -k gevent``: every worker can be looked into.

In ``gunicorn.conf.py``::

    from gpool.integrations.gunicorn import child_exit, post_worker_init, worker_exit

or call them from hooks of your own.  Each worker starts its agent when it is patched and
has its application, with ``--preload`` too: there nothing may run before the fork.

Source:
    The order of gunicorn's server hooks, in its documentation of settings.
"""

from __future__ import annotations

import contextlib
from typing import Any

import gpool.observer
from gpool import GPoolError
from gpool.observer.run_dir import RunDir


def post_worker_init(worker: Any) -> None:
    """Let a worker be looked into; runs in it, before it serves.

    A worker whose agent cannot start serves all the same: gunicorn's log says why.
    """
    try:
        gpool.observer.start()
    except (GPoolError, OSError) as error:
        worker.log.warning("gpool: the Observer's agent did not start: %s", error)


def worker_exit(server: Any, worker: Any) -> None:
    """Take the worker's socket away; runs in the worker, at its orderly end."""
    gpool.observer.stop()


def child_exit(server: Any, worker: Any) -> None:
    """Take the socket away of a worker that was killed; runs in the master."""
    with contextlib.suppress(GPoolError, OSError):
        RunDir().socket(str(worker.pid)).unlink()
