"""A gevent server as a child of a supervisor.

    tree = gpool.Supervisor.start(
        [
            gpool.ChildSpec("clock", Clock.start_link),
            gpool.server_child(lambda: WSGIServer(("", 8000), application), id="web"),
        ]
    )
    gpool.run(tree)

Its start binds and listens.  Its stop drains: it stops accepting, and lets the requests in
flight finish.  If ``accept`` fails for good, or it is killed, its port is free at once, its
requests are cut, as what is linked would be, and its supervisor makes a new server.

Not here: what draining is (``handlers.py``); a program that only serves (``serving.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gpool.handlers import UNWIND, Handlers, Server
from gpool.otp.child_spec import Backoff, ChildSpec, RestartType
from gpool.otp.gen_server import GenServer, Ignore, Stop, Then
from gpool.otp.pid import RUNNING, watch
from gpool.otp.signal import is_orderly
from gpool.waiter import check_timeout

DRAIN: Final = 10.0  # s that requests in flight get to finish
SPARE: Final = 1.0  # s beyond all that a child needs to stop, before it is killed


def server_child(
    make_server: Callable[[], Server],
    *,
    id: str = "server",
    drain: float | None = DRAIN,
    restart: RestartType = "permanent",
    backoff: Backoff | None = None,
) -> ChildSpec:
    """Return the specification of a child that is a gevent server.

    Args:
        make_server: Makes the server, anew at each start: what was closed cannot listen again.
            It does not start it.
        id: Names the child among its siblings.
        drain: Seconds that requests in flight get to finish when it is stopped; None: for
            ever, 0: none.  The child's `shutdown` is two seconds more.
        restart: When it is started again; a server that somebody has closed ended normally.
        backoff: How to delay its restarts.

    Raises:
        SpecError, TypeError, ValueError: An argument is wrong.
    """
    if not callable(make_server):
        raise TypeError(f"make_server: expected a callable, got {make_server!r}")
    check_timeout(drain, "drain")
    return ChildSpec(
        id,
        ServerProcess.start_link,
        (make_server, drain),
        restart=restart,
        shutdown=None if drain is None else drain + UNWIND + SPARE,
        backoff=backoff,
    )


@dataclass(frozen=True, slots=True)
class _Closed:
    """The server accepts nobody any more, of an error or because somebody closed it."""

    error: BaseException | None


class ServerProcess(GenServer):
    """The process that owns a gevent server."""

    def __init__(self, make_server: Callable[[], Server], drain: float | None) -> None:
        self.make_server = make_server
        self.drain = drain
        self.handlers: Handlers | None = None  # None until it listens

    def init(self) -> Then | Ignore | Stop:
        """Make the server, and listen."""
        handlers = Handlers(self.make_server(), self._was_closed)
        handlers.start()
        self.handlers = handlers
        assert self.pid is not None
        watch(self.pid, handlers)
        return None

    def _was_closed(self, error: BaseException | None) -> None:
        pid = self.pid
        if pid is not None and pid.state is RUNNING:
            pid.mailbox.append(_Closed(error))

    def handle_info(self, message: Any) -> Then | Stop:
        """End with the server."""
        match message:
            case _Closed(None):
                return Stop("normal")
            case _Closed(error):
                assert error is not None
                raise error
            case _:
                return super().handle_info(message)

    def terminate(self, reason: Any) -> None:
        """Let finish what is in flight, unless it crashes."""
        if self.handlers is not None and is_orderly(reason):
            self.handlers.drain(self.drain)

    def format_status(self) -> dict[str, Any]:
        """Show where it listens, and how many it serves."""
        handlers = self.handlers
        if handlers is None:
            return {}
        connections = len(handlers.running)
        return {"server": handlers.name, "connections": connections, "idle": len(handlers.idle)}
