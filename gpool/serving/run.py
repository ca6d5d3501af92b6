"""Programs that serve: run until they are told to end, then end in order.

    import gpool
    from gevent.pywsgi import WSGIServer

    gpool.run(WSGIServer(("", 8000), application))

At SIGTERM or SIGINT, in this order:

1. the servers stop accepting, and idle keep-alive connections are hung up on; what the system
   has accepted already waits for its turn if its server is full;
2. the requests in flight are let finish, within `drain` seconds; what is left is cut;
3. the trees are stopped, the one given last first;
4. the pools are drained and stopped, the one started last first, and the Application with them;
5. the Observer's agent ends.

A second signal ends all patience: what is in flight is cut at once.  A third one does what
it would have done without :func:`run`.

Rules:

* Whatever ends :func:`run`, an error or a kill too, ends the rest of it, without patience.
* An error in one of these steps is raised when all of them were made.
* The handlers of any server are known, whatever its `spawn` (``handlers.py``).
* A server may instead be a child in a supervision tree: ``server_child.py``.
"""

from __future__ import annotations

import contextlib
import signal as signals_of_python
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import gevent
from gevent.baseserver import BaseServer

from gpool import clock
from gpool.errors import CallTimeout, NoProcess, RunError, ServerExited
from gpool.otp import gen, process
from gpool.otp.gen_server import GenServer
from gpool.otp.greenlets import current
from gpool.otp.pid import RUNNING, Pid, watch
from gpool.otp.signal import is_orderly, is_word, signal
from gpool.pool.application import application
from gpool.pool.pools import CLOSE, stop_pools
from gpool.serving.handlers import UNWIND, Handlers, Server
from gpool.serving.server_child import DRAIN
from gpool.waiter import Expired, Gate, check_timeout

SIGNALS: Final = (signals_of_python.SIGTERM, signals_of_python.SIGINT)
endings: Final[list[Callable[[], object]]] = []  # called when all else has ended


def run(
    *what: Server | GenServer | Callable[[], object],
    drain: float | None = DRAIN,
    signals: tuple[int, ...] = SIGNALS,
) -> bool:
    """Run a program until a signal comes; then end all of it in order.  Blocks until then.

    It ends as well when a server was closed, when a tree was stopped, and, if there is neither,
    when the last callable has returned.

    Args:
        what: Servers of gevent that are not started yet, which it starts, in this order;
            running supervisors, or other servers of gpool's, which it stops; and callables,
            which run in processes of their own, and get an exit signal ``shutdown`` when
            the servers stop accepting.
        drain: Seconds that requests in flight, callables, and what is lent then, get to
            finish, all told; None: for ever, 0: none.  Beyond that the handlers get a second
            for their cleanup, each tree one to stop, and the pools one to close what they have.
        signals: Those that end it; () for none, the only choice outside the main thread.

    Returns:
        Whether all of it ended by itself: nothing was cut.

    Raises:
        TypeError, ValueError: An argument is wrong, or a server or a supervisor is given twice;
            nothing was started.
        StartError: A server cannot listen; its text has the address.
        RunError: A server's ``accept`` failed for good, a tree died, or a callable did.
        SystemExit: As a callable raised it.

    Source:
        ``BaseServer.serve_forever``, which cuts what is in flight after a second, or at once.
    """
    check_timeout(drain, "drain")
    return _Program(what, drain, _Signals(signals)).run()


class _Signals:
    """The signals that end a program; as they were when it is over."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        valid = signals_of_python.valid_signals()
        if not isinstance(numbers, tuple) or not all(number in valid for number in numbers):
            raise ValueError(f"signals: expected a tuple of signals, got {numbers!r}")
        if numbers and not gevent.get_hub().main_hub:
            raise ValueError(f"signals: only the main thread hears any: expected (), got {numbers}")
        self.numbers = numbers
        self._before: dict[int, Any] = {}  # signal -> Python's handler
        self._watchers: list[Any] = []

    def listen(self, heard: Callable[[], object]) -> None:
        """Have `heard` called, in a greenlet of its own, at each signal."""
        self._before = {number: signals_of_python.getsignal(number) for number in self.numbers}
        self._watchers = [gevent.signal_handler(number, heard) for number in self.numbers]

    def restore(self) -> None:
        """Leave the signals to whoever had them; twice is fine."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.cancel()
        for number, handler in self._before.items() if watchers else ():
            if handler is not None:  # else it was installed by no Python code
                signals_of_python.signal(number, handler)


class _Watcher:
    """Hears of the death of one process of a program."""

    __slots__ = ("tell",)

    def __init__(self, tell: Callable[[Pid, Any], object]) -> None:
        self.tell = tell

    def down(self, pid: Pid, reason: Any) -> None:
        """It is dead."""
        self.tell(pid, reason)


class _Program:
    """What :func:`run` runs.

        starting --> running --a signal, the end or a failure of something--> shutting --> over

    Invariant: whichever way it leaves `running`, each of its parts is shut once or more, in
    the same order.
    """

    def __init__(self, what: tuple[Any, ...], drain: float | None, signals: _Signals) -> None:
        if not what:
            raise TypeError("run: expected a server, a supervisor or a callable, got nothing")
        self.drain = drain
        self.signals = signals
        self.servers: list[Handlers] = []  # in the order given, as the other two
        self.trees: list[Pid] = []
        self.callables: list[Callable[[], object]] = []
        self.mains: dict[Pid, None] = {}  # the processes of callables that run
        self.ended = Gate()
        self.failure: BaseException | None = None  # the first one
        self.heard = 0  # signals
        self.patient: Pid | None = None  # the process that shuts all, while there is patience
        self.is_over = False
        self.drained = True  # nothing was cut
        for one in what:
            self._sort(one)

    def _sort(self, one: Any) -> None:
        match one:
            case BaseServer():
                _check_new(one, [handlers.server for handlers in self.servers])
                self.servers.append(Handlers(one, partial(self._was_closed, one)))
            case GenServer():
                _check_new(pid := process.resolve(one), self.trees)
                self.trees.append(pid)
            case _ if callable(one):
                self.callables.append(one)
            case _:
                raise TypeError(f"run: expected a server, a supervisor or a callable, got {one!r}")

    def run(self) -> bool:
        """Do what :func:`run` promises."""
        self.signals.listen(self._heard)
        try:
            self._start()
            self._wait()
            self._shut_patiently()
        finally:
            try:
                if not self.is_over:
                    self._shut_at_once()
            finally:
                self.signals.restore()
        if self.failure is not None:
            raise self.failure
        return self.drained

    # --- Running ---

    def _start(self) -> None:
        for pid in self.trees:
            watch(pid, _Watcher(self._tree_died))
            if pid.state is not RUNNING:
                raise NoProcess(pid)
        for server in self.servers:
            server.start()
        for fn in self.callables:
            pid = process.spawn(fn)
            self.mains[pid] = None
            watch(pid, _Watcher(self._main_died))

    def _wait(self) -> None:
        """Block until something ends it.

        A tree may wait for nothing that the loop knows: that is no deadlock.
        """
        with _kept_alive() if self.trees else contextlib.nullcontext():
            self.ended.wait()

    def _heard(self) -> None:
        self.heard += 1
        self.ended.open()
        if self.heard > 1:
            self.signals.restore()
            if self.patient is not None:
                signal(self.patient, self.patient, "shutdown", direct=True)

    def _was_closed(self, server: Any, error: BaseException | None) -> None:
        self._fail(f"accept of {server}", error) if error is not None else self.ended.open()

    def _tree_died(self, pid: Pid, reason: Any) -> None:
        if is_word(reason, "normal"):
            self.ended.open()
        else:
            self._fail(f"{pid.initial_call} {pid!r}", reason)

    def _main_died(self, pid: Pid, reason: Any) -> None:
        del self.mains[pid]
        if not is_orderly(reason):
            self._fail(pid.initial_call, reason)
        elif not (self.mains or self.servers or self.trees):
            self.ended.open()

    def _fail(self, what: str, reason: Any) -> None:
        if not self.ended.is_open:  # what ends later is ended by us
            self.failure = _failure(what, reason)
            self.ended.open()

    # --- Shutting ---

    def _shut_patiently(self) -> None:
        """Shut all in a process of its own, which a second signal ends."""
        if self.heard < 2:
            end = None if self.drain is None else clock.now() + self.drain
            self.patient = process.spawn(self._shut, end)
            try:
                process.await_death(self.patient)
            finally:  # whatever strikes here ends it as well
                signal(self.patient, self.patient, "shutdown", direct=True)

    def _shut(self, end: float | None) -> None:
        """Shut all by some moment of gpool's clock; None: whenever it is done."""
        for step in self._steps(end):
            self._make(step)
        self.is_over = True

    def _shut_at_once(self) -> None:
        """Shut all without patience; what strikes meanwhile costs the step that it strikes."""
        struck: BaseException | None = None
        for step in self._steps(clock.now()):
            try:
                self._make(step)
            except BaseException as error:  # noqa: BLE001 - it is raised in the end
                struck = struck or error
        if struck is not None:
            raise struck

    def _make(self, step: Callable[[], object]) -> None:
        try:
            self.drained &= step() is not False
        except Exception as error:  # noqa: BLE001 - it is raised in the end
            self.failure = self.failure or error

    def _steps(self, end: float | None) -> Iterator[Callable[[], object]]:
        """Yield what has to be done, in order; what cuts anything returns False."""
        for server in self.servers:
            yield server.close
        for pid in list(self.mains):
            yield partial(signal, pid, current(), "shutdown", direct=True)
        for server in self.servers:
            yield partial(_finish, server, end)
        yield from (server.kill for server in self.servers)
        unwound = clock.now() + UNWIND  # one second for all of them
        yield from (partial(_unwind, server, unwound) for server in self.servers)
        for pid in list(self.mains):
            yield partial(_await, pid, end)
        for pid in reversed(self.trees):
            yield partial(_stop, pid, end)
        yield partial(_stop_pools, end)
        yield application.stop
        yield from endings


@contextlib.contextmanager
def _kept_alive() -> Iterator[None]:
    """Have the loop wait on, though it waits for nothing."""
    keeper = gevent.get_hub().loop.async_()
    keeper.start(lambda: None)
    try:
        yield
    finally:
        keeper.stop()
        keeper.close()


def _check_new(one: Any, others: list[Any]) -> None:
    if any(one is other for other in others):
        raise ValueError(f"run: expected each server and supervisor once, got {one!r} twice")


def _failure(what: str, reason: Any) -> BaseException:
    error = reason if isinstance(reason, BaseException) else getattr(reason, "exception", None)
    if isinstance(error, SystemExit):
        return error
    failure = RunError(what, error or reason)
    failure.__cause__ = error
    return failure


def _left(end: float | None) -> float | None:
    return None if end is None else max(end - clock.now(), 0.0)


def _finish(server: Handlers, end: float | None) -> bool:
    return server.finish(_left(end))


def _unwind(server: Handlers, end: float) -> None:
    server.unwind(max(end - clock.now(), 0.0))


def _stop_pools(end: float | None) -> bool:
    return stop_pools(_left(end))


def _await(pid: Pid, end: float | None) -> bool:
    """Wait for a death until some moment; kill who lives on."""
    try:
        process.await_death(pid, _left(end))
    except Expired:
        signal(pid, current(), "kill", direct=True)
        process.await_death(pid)
        return False
    return True


def _stop(tree: Pid, end: float | None) -> bool:
    """Stop a supervisor by some moment, and a second at least; kill it if it is too slow."""
    left = _left(end)
    with contextlib.suppress(NoProcess, ServerExited):
        try:
            gen.stop(tree, "shutdown", None if left is None else max(left, CLOSE))
        except CallTimeout:
            _await(tree, clock.now())
            return False
    return True
