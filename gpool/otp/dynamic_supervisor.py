"""Supervisors of children that come and go, all alike or not.

    >>> from gpool.otp.gen import stop
    >>> from gpool.otp.gen_server import GenServer
    >>> supervisor = DynamicSupervisor.start(max_children=1)
    >>> child = supervisor.start_child(ChildSpec("first", GenServer.start_link))
    >>> supervisor.start_child(ChildSpec("second", GenServer.start_link))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    gpool.errors.ChildError: child 'second' of <DynamicSupervisor #PID<...>>: 'max_children'
    >>> supervisor.terminate_child(child.pid)
    >>> supervisor.count_children().specs
    0
    >>> stop(supervisor)

Rules:

* Children are told apart by their pids; ids may repeat.  Those of a template have none.
* They are restarted one by one, within the same intensity as in ``supervisor.py``.
* A stopped one is forgotten; so is one whose start, or restart, is ignored.
* At the end all are stopped at once, each within its own `shutdown`.
* Starting, restarting and stopping one costs the same however many there are.

Differences to OTP: with a template it is OTP's `simple_one_for_one`, without one
Elixir's ``DynamicSupervisor``; ``terminate_child`` of a dead one is "not_found",
as in Elixir; there is no `auto_shutdown`, as in OTP 26.

Not here: children that depend on one another (``supervisor.py``).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from gpool.errors import ChildError, SpecError
from gpool.otp import child as children_of
from gpool.otp import process
from gpool.otp.child import Child
from gpool.otp.child_spec import ChildSpec
from gpool.otp.greenlets import current
from gpool.otp.pid import Pid
from gpool.otp.supervisor import AutoShutdown, Counts, Supervisor


class DynamicSupervisor(Supervisor):
    """A process that keeps children running that others ask for.

    Args:
        max_children: How many there may be, restarting ones included; None: any number.
        template: What all children are like: :meth:`start_child` then takes
            further arguments for its start function, in the place of a specification.
        extra_arguments: Put before each child's own; not with a template.
        max_restarts: Restarts that are allowed within `max_seconds`.
        max_seconds: Length of that window.
        auto_shutdown: Only "never".

    Raises:
        SpecError: Something is wrong.

    Source:
        Elixir ``DynamicSupervisor``; OTP ``simple_one_for_one``.
    """

    def __init__(
        self,
        *,
        max_children: int | None = None,
        template: ChildSpec | None = None,
        extra_arguments: tuple[Any, ...] = (),
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
    ) -> None:
        super().__init__(
            max_restarts=max_restarts, max_seconds=max_seconds, auto_shutdown=auto_shutdown
        )
        if auto_shutdown != "never":
            expected = 'auto_shutdown "never" for a dynamic supervisor'
            raise SpecError("bad_combination", expected, auto_shutdown)
        _check_max_children(max_children)
        self.max_children = max_children
        self.template = None if template is None else self._nameless(template)
        if not isinstance(extra_arguments, tuple):
            raise SpecError("invalid_extra_arguments", "a tuple", extra_arguments)
        if template is not None and extra_arguments:
            raise SpecError("bad_combination", "a template or extra_arguments", extra_arguments)
        self.extra_arguments = extra_arguments

    def _nameless(self, template: ChildSpec) -> ChildSpec:
        self._check_spec(template)
        return replace(template, id=None)

    def start_child(self, *args: Any, **kwargs: Any) -> Any:
        """Start a child; blocks until it has started.

        Args:
            args: One :class:`~gpool.otp.child_spec.ChildSpec`; with a template
                arguments for its start function, put after its own.
            kwargs: With a template keyword arguments, put over its own.

        Returns:
            What its start function returned; None if it was ignored, and is not kept.

        Raises:
            ChildError: "max_children".
            StartError: It did not start, and is not kept.
            SpecError: It does not fit.
            NoProcess: The supervisor is dead.

        Source:
            OTP ``supervisor:start_child/2``, Elixir ``DynamicSupervisor.start_child/2``.
        """
        return self._ask("start_child", (args, kwargs))

    def terminate_child(self, id: Hashable) -> None:
        """Stop a child and forget it; blocks until it is dead.

        Args:
            id: Its pid.  One that is dead already is fine; the restart of a
                restarting one is cancelled.

        Raises:
            ChildError: "not_found", or "simple_one_for_one" if it is no pid.
            NoProcess: The supervisor is dead.

        Source:
            OTP ``supervisor:terminate_child/2``.
        """
        super().terminate_child(id)

    def adopt(self, pid: Pid, spec: ChildSpec) -> None:
        """Make a running process a child, at once; for methods of subclasses.

        So a subclass can start children that take their time without waiting for
        them: it spawns a process, adopts it, and goes on.  Call it in the
        supervisor's process, in the same breath as the spawn.  A process that is
        refused goes on; it is the caller's.

        Args:
            pid: The process; linked already or not.
            spec: How to restart and stop it.

        Raises:
            ChildError: "max_children", or it is one already, "already_started".
            SpecError: `spec` does not fit.
            ValueError: The caller is not the supervisor's process.
            WrongHub: It lives in another thread.
        """
        if current() is not self.pid:
            raise ValueError(f"adopt: expected to be called in {self.pid!r} itself")
        self._check_room(spec)
        if pid in self.running:
            raise ChildError(self, spec.id, ("already_started", pid))
        children_of.take(pid, spec, self.pid)
        self._enter(Child(spec), pid)

    # Answers.

    def _start_child(self, argument: Any) -> Any:
        spec = self._spec_of(*argument)
        self._check_room(spec)
        return self._start(Child(spec))

    def _spec_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.template is not None:
            own = self.template
            return own.with_arguments((*own.args, *args), {**own.kwargs, **kwargs})
        if len(args) != 1 or kwargs:
            raise SpecError("invalid_child_spec", "one ChildSpec", (args, kwargs))
        spec = args[0]
        if self.extra_arguments and isinstance(spec, ChildSpec):
            return spec.with_arguments((*self.extra_arguments, *spec.args), spec.kwargs)
        return spec

    def _check_room(self, spec: Any) -> None:
        self._check_spec(spec)
        if self.max_children is not None and len(self.running) >= self.max_children:
            raise ChildError(self, spec.id, "max_children")

    def _terminate_child(self, id: Any) -> None:
        if isinstance(id, Pid) and id not in self.running and not process.is_alive(id):
            return
        super()._terminate_child(id)

    def _find(self, id: Any) -> Child:
        if not isinstance(id, Pid):
            raise ChildError(self, id, "simple_one_for_one")
        child = self.running.get(id)
        if child is None:
            raise ChildError(self, id, "not_found")
        return child

    def _find_stopped(self, id: Any) -> Child:
        raise ChildError(self, id, "simple_one_for_one")

    def in_start_order(self) -> list[Child]:
        """Return the children; for those who look without asking."""
        return list(self.running.values())

    def _counts(self) -> Counts:
        counts = super()._counts()
        return counts if self.template is None else replace(counts, specs=1)

    # Restarts: one child each; while it waits its latest pid stands for it.

    def _set_aside(self, child: Child) -> None:
        pass  # nobody goes with it, and it keeps its place

    def _restart_group(self, child: Child) -> Child | None:
        latest = child.pid
        assert latest is not None
        self.running.pop(latest)
        failed = self._start_all([child])
        if failed is not None:
            self.running[latest] = child
        return failed

    def _stop_all(self) -> None:
        children = list(self.running.values())
        children_of.stop(children)
        for child in children:
            self._has_ended(child)


def _check_max_children(limit: Any) -> None:
    whole = isinstance(limit, int) and not isinstance(limit, bool)
    if limit is not None and not (whole and limit >= 0):
        raise SpecError("invalid_max_children", "an integer >= 0 or None", limit)
