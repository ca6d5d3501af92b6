"""A database restarts, then is away for a second: what the pool's clients notice of it."""

import logging

import gevent

import gpool

UP, AWAY = "up", "away"
server = {"state": UP, "restarts": 0}  # stands for a database
told: list[str] = []  # what the pool has done meanwhile


class Connection:
    """Stands for a driver's connection: dead once the server has restarted."""

    def __init__(self) -> None:
        if server["state"] == AWAY:
            raise ConnectionError("connection refused")
        self.born = server["restarts"]

    def ping(self) -> bool:
        """Ask the server for a sign of life."""
        told.append("checked one")
        return server["state"] == UP and server["restarts"] == self.born


def listen(event: gpool.telemetry.Event) -> None:
    """Note why workers go, and whether starts are made."""
    match event:
        case gpool.telemetry.WorkerStopping(reason=reason):
            told.append(f"closed one: {reason}")
        case gpool.telemetry.BreakerChanged(breaker=breaker):
            told.append(f"breaker {breaker}")


def borrow(title: str) -> None:
    """Borrow a connection and say how that went."""
    try:
        with pool.checkout(timeout=10.0) as connection:
            print(f"{title}: a connection of server {connection.born}, {pool.stats().breaker=}")
    except gpool.GPoolError as error:
        print(f"{title}: {error}")
    print("    " + "; ".join(told) + "\n")
    told.clear()


if __name__ == "__main__":
    logging.getLogger("gpool").setLevel(logging.ERROR)
    gpool.telemetry.attach(listen)
    resource = gpool.Resource(create=Connection, check=Connection.ping)
    with gpool.Pool(resource, size=4, name="db", check_after=0) as pool:
        pool.wait_ready()
        borrow("all is well")
        server["restarts"] = 1
        borrow("after a restart")
        server["state"] = AWAY
        gevent.spawn_later(1.0, server.update, state=UP)
        borrow("back after a second")
