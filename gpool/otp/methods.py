"""Methods as requests: what clients call of a server, as if it were a plain object.

    >>> from gpool.otp.gen import stop
    >>> from gpool.otp.gen_server import GenServer
    >>> class Greeter(GenServer):
    ...     @call
    ...     def greet(self, name: str) -> str:
    ...         return f"hello {name}"
    >>> greeter = Greeter.start()
    >>> greeter.greet("you")
    'hello you'
    >>> greeter.greet()
    Traceback (most recent call last):
    TypeError: Greeter.greet: missing a required argument: 'name'
    >>> stop(greeter)

Rules:

* Called by another process a marked method travels through the mailbox and runs
  in the server's; called by the server itself it runs directly.
* It keeps its signature.  Arguments that do not fit it are the caller's error: it
  gets a ``TypeError``, and the server never hears of it.
* It runs in a copy of its caller's context variables.
* A subclass overrides it as any method, and marks it again only if it is to have
  other options; one that does not mark it again runs in its caller, up to ``super()``.

Not here: calls without a method (``gen.py``), how a server takes them (``gen_server.py``).
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from greenlet import getcurrent

from gpool.otp.gen import From, send_call, send_cast
from gpool.otp.greenlets import current
from gpool.waiter import check_timeout

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class MethodCall:
    """A marked method on its way to the server's process."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    raises: tuple[type[BaseException], ...]
    context: contextvars.Context | None

    def run(self, server: Any) -> Any:
        """Run the method, in its caller's context if it wants that."""
        if self.context is None:
            return self.fn(server, *self.args, **self.kwargs)
        return self.context.run(self.fn, server, *self.args, **self.kwargs)

    def answer(self, server: Any, from_: From) -> None:
        """Run it and tell its caller what it returns, or raises if that is an answer."""
        try:
            if self.context is None or self.kwargs:
                value = self.run(server)
            else:  # as a rule
                value = self.context.run(self.fn, server, *self.args)
        except self.raises as error:
            from_.fail(error)
        else:
            from_.answer(value)


@overload
def call(fn: F, /) -> F: ...
@overload
def call(
    *,
    timeout: float | None = 5.0,
    raises: type[BaseException] | tuple[type[BaseException], ...] = (),
    context: bool = True,
) -> Callable[[F], F]: ...
def call(
    fn: Callable[..., Any] | None = None,
    *,
    timeout: float | None = 5.0,
    raises: type[BaseException] | tuple[type[BaseException], ...] = (),
    context: bool = True,
) -> Any:
    """Mark a method as a call: it runs in the server's process and answers the caller.

    Args:
        fn: The method, when used without arguments.
        timeout: Seconds that a caller waits; None waits for ever.
        raises: Exceptions that are an answer: raised in the caller, while the
            server lives.  Any other one ends the server.
        context: Whether it runs in a copy of its caller's context variables.

    Raises:
        TypeError: In the caller: the arguments do not fit.
        GPoolError: As :func:`~gpool.otp.gen.send_call`, in the caller.
    """
    raises = raises if isinstance(raises, tuple) else (raises,)
    for kind in raises:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"raises: expected exception classes, got {kind!r}")
    check_timeout(timeout)

    def mark(method: Callable[..., Any]) -> Callable[..., Any]:
        bind, least, most = _check_of("call", method)

        @functools.wraps(method)
        def remote(self: Any, *args: Any, **kwargs: Any) -> Any:
            pid = self.pid
            if pid is not None and pid.greenlet is getcurrent():
                current()  # which raises its exit, if it may not go on
                return method(self, *args, **kwargs)
            if kwargs or not least <= len(args) <= most:  # else they fit: binding takes its time
                bind(args, kwargs)
            copied = contextvars.copy_context() if context else None
            return send_call(pid or self, MethodCall(method, args, kwargs, raises, copied), timeout)

        return remote

    return mark if fn is None else mark(fn)


@overload
def cast(fn: F, /) -> F: ...
@overload
def cast(*, context: bool = True) -> Callable[[F], F]: ...
def cast(fn: Callable[..., Any] | None = None, *, context: bool = True) -> Any:
    """Mark a method as a cast: it runs in the server's process, and nobody waits for it.

    Args:
        fn: The method, when used without arguments.
        context: Whether it runs in a copy of its caller's context variables.

    Raises:
        TypeError: In the caller: the arguments do not fit.
    """

    def mark(method: Callable[..., Any]) -> Callable[..., Any]:
        bind, least, most = _check_of("cast", method)

        @functools.wraps(method)
        def remote(self: Any, *args: Any, **kwargs: Any) -> None:
            if self.pid is current():
                method(self, *args, **kwargs)
                return
            if kwargs or not least <= len(args) <= most:
                bind(args, kwargs)
            copied = contextvars.copy_context() if context else None
            send_cast(self, MethodCall(method, args, kwargs, (), copied))

        return remote

    return mark if fn is None else mark(fn)


def _check_of(
    mark: str, method: Any
) -> tuple[Callable[[tuple[Any, ...], dict[str, Any]], None], float, float]:
    """Return what raises a TypeError unless arguments fit a method, and how many surely do.

    A server must not die of a client's typing error.
    """
    if isinstance(method, staticmethod | classmethod) or not callable(method):
        raise TypeError(f"{mark}: expected a method of the instance, got {method!r}")
    if inspect.isgeneratorfunction(method) or inspect.iscoroutinefunction(method):
        raise TypeError(f"{mark}: expected a plain method, not one whose body its caller would run")
    # Not the signature of what a decorator wraps: it may put in arguments of its own.
    signature = inspect.signature(method, follow_wrapped=False)

    def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{method.__qualname__}: {error}") from None

    return bind, *_counts(signature)


def _counts(signature: inspect.Signature) -> tuple[float, float]:
    """Return how few and how many positional arguments alone are sure to fit, self apart."""
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    positional = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional += kinds.count(inspect.Parameter.POSITIONAL_ONLY)
    required = [p.kind for p in signature.parameters.values() if p.default is p.empty]
    if inspect.Parameter.KEYWORD_ONLY in required:
        return math.inf, 0
    many = inspect.Parameter.VAR_POSITIONAL
    least = len([kind for kind in required if kind not in (many, inspect.Parameter.VAR_KEYWORD)])
    return least - 1, math.inf if many in kinds else positional - 1
