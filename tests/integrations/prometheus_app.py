"""What the workers of the gunicorn under test serve: a pool at work, and all workers' metrics."""

from __future__ import annotations

import os
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

import gpool
from gpool.integrations.prometheus import register

exporter = register(interval=0.05)
pool: gpool.Pool[Any] = gpool.Pool(gpool.Resource(create=list), size=3, name="db")


def metrics() -> bytes:
    """Return the sum over all workers."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer ``/metrics``, ``/stop``, or use the pool and say which worker this is."""
    body = str(os.getpid()).encode()
    if environ["PATH_INFO"] == "/metrics":
        body = metrics()
    elif environ["PATH_INFO"] == "/stop":
        pool.stop()
    else:
        with pool.checkout():
            pass
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
