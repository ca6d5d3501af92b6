"""Hooks for ``gunicorn -k gevent``: pools start with their worker, and end with it in order.

In ``gunicorn.conf.py``::

    from gpool.integrations.gunicorn import child_exit, post_worker_init, worker_exit

or call them from hooks of your own.  Then each worker, with ``--preload`` or without,

* starts, before its first request, every pool with a name that the application has made: its
  connections are opened beside the first requests, and a database that is away fails none;
* can be looked into (the Observer), as soon as it is patched and has its application;
* at its end drains its pools when gunicorn has drained its requests, and stops them: what
  is closed is closed in good order.

Rules:

* The drain takes five seconds at most, and never more than is left of ``graceful_timeout``,
  which began with TERM: at its end gunicorn kills.  At QUIT, INT and ABRT it takes none.
  What comes while it drains counts, too: a worker that has had its `max_requests` may be told.
* A pool that is used in the master, as by an application that queries at import under
  ``--preload``, stays the master's own: a worker neither uses nor closes its connections,
  and starts the pool anew.  The master keeps them until it ends: better use none there.
* Each worker has pools of its own: mind the database's limit.

Source:
    The order of gunicorn's server hooks, in its documentation of settings; ``Arbiter.stop``.

Not here: a server of your own without gunicorn (``gpool.run``).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent import monkey

import gpool
import gpool.observer
from gpool import GPoolError, clock
from gpool.observer.run_dir import RunDir

DRAIN: Final = 5.0  # s that what is lent gets to come back, once no request is left
SPARE: Final = 2.0  # s that a worker wants to have ended before gunicorn kills it
AT_ONCE: Final = (signal.SIGQUIT, signal.SIGINT, signal.SIGABRT)  # gunicorn's: no drain


class _Orders:
    """What a worker was told by signals, beside gunicorn's own handlers."""

    def __init__(self) -> None:
        self.told_at: float | None = None  # s of gpool's clock: TERM, the first
        self.at_once = False  # QUIT, INT or ABRT
        self._drain: gevent.Greenlet[[float], bool] | None = None  # is under way

    def listen(self) -> None:
        """Hear the signals, then let gunicorn hear them."""
        for number in (signal.SIGTERM, *AT_ONCE):
            handler = signal.getsignal(number)
            if callable(handler):
                self._listen(number, handler)
        signal.siginterrupt(signal.SIGTERM, False)  # as gunicorn has it

    def _listen(self, number: int, handler: Callable[..., object]) -> None:
        def heard(number: int, frame: Any) -> None:
            self.hear(number)
            handler(number, frame)

        signal.signal(number, heard)

    def hear(self, number: int) -> None:
        """Note a signal; must not switch."""
        if number in AT_ONCE:
            self.at_once = True
        elif self.told_at is None:
            self.told_at = clock.now()
        else:
            return  # nothing new
        if self._drain is not None:
            self._drain.kill(gpool.ExitSignal("shutdown"), block=False)

    def patience(self, graceful_timeout: float) -> float:
        """Return how many seconds a drain may take now."""
        if self.at_once:
            return 0.0
        if self.told_at is None:  # a worker that has had its max_requests: nobody will kill it
            return DRAIN
        left = self.told_at + graceful_timeout - SPARE - clock.now()
        return min(max(left, 0.0), DRAIN)

    def stop_pools(self, graceful_timeout: float) -> bool:
        """Stop the pools, and begin anew whenever there is less time; as ``gpool.stop_pools``."""
        while True:
            self._drain = gevent.spawn(self._stop_pools, graceful_timeout)
            try:
                answer = self._drain.get()
            except SystemExit:  # gunicorn's QUIT, which the hub raises here
                gpool.stop_pools(0.0)
                raise
            if isinstance(answer, bool):  # else it was killed
                return answer

    def _stop_pools(self, graceful_timeout: float) -> bool:
        return gpool.stop_pools(self.patience(graceful_timeout))


_orders = _Orders()  # to this worker


def post_worker_init(worker: Any) -> None:
    """Start the pools of a worker, and let it be looked into; runs in it, before it serves.

    A worker whose pools or agent cannot start serves all the same: gunicorn's log says why.
    """
    global _orders
    _orders = _Orders()
    _orders.listen()
    _start_pools(worker)
    try:
        gpool.observer.start()
    except (GPoolError, OSError) as error:
        worker.log.warning("gpool: the Observer's agent did not start: %s", error)


def _start_pools(worker: Any) -> None:
    if not monkey.is_module_patched("socket"):
        worker.log.warning("gpool: this worker is not gevent's, no pool was started: -k gevent")
        return
    for pool in gpool.declared_pools():
        try:
            pool.start()
        except GPoolError as error:
            worker.log.warning("gpool: pool %r did not start: %s", pool.name, error)


def worker_exit(server: Any, worker: Any) -> None:
    """Drain and stop the pools of a worker, then its agent; runs in it, at its orderly end."""
    try:
        if not _orders.stop_pools(worker.cfg.graceful_timeout):
            worker.log.warning("gpool: something was still lent when worker %s ended", worker.pid)
    finally:
        gpool.observer.stop()


def child_exit(server: Any, worker: Any) -> None:
    """Clear up after a worker, however it has ended; runs in the master.

    It takes the Observer's socket away, and has prometheus_client forget its live gauges.
    """
    with contextlib.suppress(GPoolError, OSError):
        RunDir().socket(str(worker.pid)).unlink()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR") and importlib.util.find_spec("prometheus_client"):
        multiprocess: Any = importlib.import_module("prometheus_client.multiprocess")
        multiprocess.mark_process_dead(worker.pid)
