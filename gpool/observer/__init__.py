"""The Observer: look into a running system, from a page or a terminal.

    import gpool.observer

    gpool.observer.start()

From then on ``gpool ps``, ``gpool top`` and ``gpool web`` show this process, to this user
of this machine: its processes, their supervision tree, its pools, who holds what since
when, and what went wrong lately.  ``GPOOL_OBSERVER=1`` in the environment starts it as well,
at the first use of gpool.

A map::

    node/        the observed process: agent and api answer at a socket, from a thread of their
                 own; reader and errand get at its hub; processes, tree, pools, events, history
                 and text are what is answered; actions, what may be done if that was allowed
    run_dir, client      where the sockets are, and how to talk to them
    web/         the page (static/), mounted in an application, or served by ``gpool web``
    terminal/    answers as text, and ``gpool top``
"""

from __future__ import annotations

import os

from gpool.observer.node.agent import Agent
from gpool.observer.run_dir import RunDir, RunDirError
from gpool.observer.web.app import App, mount

__all__ = ["Agent", "App", "RunDirError", "mount", "start", "stop"]

_agent: Agent | None = None  # this process's


def start(
    *,
    run_dir: str | os.PathLike[str] | None = None,
    allow_actions: bool = False,
    show_state: bool = False,
    measure: bool = False,
) -> Agent:
    """Let this process be looked into; once is enough, and a second time changes nothing.

    Call it in the thread whose hub is to be observed, after ``monkey.patch_all()`` if you
    patch, and after a fork: a child has to start its own.

    Args:
        run_dir: Where its socket goes; None: ``$GPOOL_RUN_DIR``, ``$XDG_RUNTIME_DIR/gpool``,
            or a directory for this user among the temporary ones.
        allow_actions: Whether processes may be killed, and pools resized, from outside.
        show_state: Whether the state of every server may be seen; else only of those
            whose class has a ``format_status``.
        measure: Whether waits and holds are measured all the time, which costs a checkout
            a few microseconds; else while somebody looks at pools.

    Raises:
        TypeError: An argument is wrong.
        RunDirError: The directory is not fit.
        OSError: The socket cannot be bound.
    """
    global _agent
    options = {"allow_actions": allow_actions, "show_state": show_state, "measure": measure}
    for name, value in options.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name}: expected True or False, got {value!r}")
    directory = RunDir(run_dir)
    if _agent is None or not _agent.is_serving:
        _agent = Agent(directory, **options)
    return _agent


def stop() -> None:
    """Let nobody look any more; harmless if nobody could."""
    global _agent
    agent, _agent = _agent, None
    if agent is not None:
        agent.stop()


def _forked() -> None:
    global _agent
    agent, _agent = _agent, None
    if agent is not None:
        agent.forget()


os.register_at_fork(after_in_child=_forked)
