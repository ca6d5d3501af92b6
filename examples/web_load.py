"""Load for the web example: many clients, real HTTP, in a process of its own.

Prints once a second, and at the end, what happened so far, as a line of JSON.
"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

import argparse
import http.client
import json
import random
import signal
import time
from collections import Counter, deque
from typing import Any

import gevent
from gevent.event import Event
from web_report import spread

requests = Counter[str]()  # by outcome: "answered", or how they failed
answers: deque[float] = deque(maxlen=100_000)  # s until an answer came, the latest


def client(address: str, is_over: Event) -> None:
    """Send one request after the other; connect again when one has failed."""
    connection = http.client.HTTPConnection(address, timeout=10.0)
    while not is_over.is_set():
        start = time.monotonic()
        try:
            connection.request("POST" if random.random() < 0.2 else "GET", "/")
            gevent.sleep(0)  # the others' turn, which does not come if the answer is there at once
            response = connection.getresponse()
            body = response.read().decode()
            outcome = "answered" if response.status == 200 else f"{response.status} {body}"
        except (OSError, http.client.HTTPException) as error:
            outcome = f"no answer, {type(error).__name__}"
            connection.close()
            gevent.sleep(0.01)
        requests[outcome] += 1
        answers.append(time.monotonic() - start)


def report(start: float) -> None:
    """Print what happened since `start`."""
    line: dict[str, Any] = {"seconds": time.monotonic() - start, "requests": requests}
    print(json.dumps(line | {"answers": spread(answers)}), flush=True)


def main() -> None:
    """Load a server until the time is over, or until somebody says so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="host:port of the server")
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    start, is_over = time.monotonic(), Event()
    gevent.signal_handler(signal.SIGTERM, is_over.set)
    clients = [gevent.spawn(client, options.address, is_over) for _ in range(options.clients)]
    while not is_over.wait(min(1.0, max(start + options.seconds - time.monotonic(), 0))):
        report(start)
        if time.monotonic() - start >= options.seconds:
            is_over.set()
    gevent.joinall(clients)
    report(start)


if __name__ == "__main__":
    main()
