"""A web server, its load and its faults; and what is left when they are over."""

import argparse
import contextlib
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from web_app import Application, Connections
from web_database import Database
from web_faults import Faults
from web_report import Outcome, progress, spread

import gpool


def trial(connections: Connections, options: argparse.Namespace, is_over: Event) -> Outcome:
    """Run the server, the load and the faults, until the load ends or `is_over` is set."""
    # Managers are killed on purpose here, far more often than a pool allows by default.
    pool = gpool.Pool(connections.resource(), size=options.size, max_restarts=1000)
    application = Application(pool)
    faults = Faults(application, rate=options.faults)
    server = WSGIServer(("127.0.0.1", options.port), faults, log=None)
    server.start()
    # pywsgi sends head and body apart: do not hold the body back until the client has the head.
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with pool:
        address = f"127.0.0.1:{server.server_port}"
        print(f"http://{address} answers; Ctrl-C ends it", flush=True)
        gevent.spawn(faults.run)
        load: dict[str, Any] = {"seconds": 0.0, "requests": {}, "answers": spread(())}
        for load in loads(address, options, is_over):
            progress(load, faults.counts.total(), pool.stats())
        faults.rate = 0
        borrowed = borrow_all(pool, options.size)
        answers = is_answered(address)
        server.stop(timeout=1.0)
        return Outcome(load, application.waits, faults.counts, pool.stats(), borrowed, answers)


def loads(address: str, options: argparse.Namespace, is_over: Event) -> Iterator[dict[str, Any]]:
    """Have a second process load the server; yield what it tells, nothing if ended at once."""
    program = str(Path(__file__).with_name("web_load.py"))
    command = [sys.executable, program, address, f"--clients={options.clients}"]
    command.append(f"--seconds={options.seconds}")
    # In a session of its own: Ctrl-C is for this process alone.
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, text=True, start_new_session=True) as load:
        is_over.rawlink(lambda _: load.terminate())
        for line in load.stdout or ():
            yield json.loads(line)
    if load.returncode and not is_over.is_set():
        raise subprocess.CalledProcessError(load.returncode, command)


def borrow_all(pool: gpool.Pool[Database], size: int) -> int:
    """Borrow as many workers as there should be, at once; return how many there are."""
    with contextlib.ExitStack() as stack, contextlib.suppress(gpool.PoolError):
        borrowed: set[Database] = set()
        for _ in range(size):
            borrowed.add(stack.enter_context(pool.checkout(timeout=5.0)))
    return len(borrowed)


def is_answered(address: str) -> bool:
    """Tell whether the server answers a request as it should."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=5.0)) as connection:
        try:
            connection.request("POST", "/")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
