"""Processes for tests: they do what they are told, step by step, and keep what they get.

>>> one, two = Actor(), Actor(trap=True)
>>> one.do(gpool.link, two.pid)
>>> one.exit("boom")
>>> two.got == [gpool.Exit(one.pid, "boom")]
True
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

import gpool
from gpool.testing import settle


class Order:
    """Something that an actor shall do, and what came of it."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.fn, self.args = fn, args
        self.value: Any = None
        self.error: Exception | None = None

    def carry_out(self) -> None:
        """Do it; exit signals pass."""
        try:
            self.value = self.fn(*self.args)
        except Exception as error:  # noqa: BLE001  # raised again in the test
            self.error = error


class Actor:
    """A process that waits for orders; any other message it keeps in `got`."""

    def __init__(self, *, trap: bool = False) -> None:
        self.got: list[Any] = []  # in the order in which they came
        self.pid = gpool.spawn(self._run, trap)
        settle()

    def _run(self, trap: bool) -> None:
        gpool.trap_exit(trap)
        while True:
            message = gpool.receive()
            if type(message) is Order:
                message.carry_out()
            else:
                self.got.append(message)

    def do(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Have it call ``fn(*args)``, let everybody react, and return what it returned."""
        order = Order(fn, args)
        gpool.send(self.pid, order)
        settle()
        if order.error is not None:
            raise order.error
        return order.value

    def exit(self, reason: Any) -> None:
        """Have it end itself."""
        self.do(gpool.exit, reason)

    @property
    def alive(self) -> bool:
        """Whether it lives."""
        return gpool.is_alive(self.pid)


def reason_of(pid: gpool.Pid) -> Any:
    """Return what a process has died of, once everybody has reacted."""
    settle()
    assert pid.state == "dead", f"{pid} is {pid.state}"
    return pid.reason


def mailbox() -> list[Any]:
    """Take everything that the test itself was sent, once everybody has reacted."""
    settle()
    messages = []
    while True:
        try:
            messages.append(gpool.receive(timeout=0))
        except gpool.ReceiveTimeout:
            return messages


def sleeper(log, seconds=60.0):
    """Wait, and write down how the wait ended and that the cleanup was run."""
    try:
        gevent.sleep(seconds)
    except BaseException as error:
        log.append(type(error).__name__)
        raise
    finally:
        log.append("cleanup")
