"""What the workers of the gunicorn under test serve: a pool at work, and the Observer's page."""

from __future__ import annotations

import os
from typing import Any

import gevent
from gevent import monkey

import gpool
from gpool.observer import App, mount

pool: gpool.Pool[Any] = gpool.Pool(gpool.Resource(create=list), size=3, name="db")
sleep_in_thread = monkey.get_original("time", "sleep")  # the hub stands still meanwhile


def block() -> None:
    """Keep the hub from everybody else."""
    sleep_in_thread(600.0)


def shop(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Say which worker answers; ``/block`` has it block its hub from then on."""
    with pool.checkout():
        pass
    if environ["PATH_INFO"] == "/block":
        gevent.spawn(block)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


application = mount(shop, "/observer", App(lambda environ: True))
