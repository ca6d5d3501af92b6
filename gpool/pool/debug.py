"""Debug mode: a worker that tells when somebody else than its holder uses it.

Two greenlets that use one connection mix up their answers, and nothing says so.
A pool with ``debug=True`` lends a :class:`Proxy`, which looks at every use whether
it is its holder's:

    >>> import gevent
    >>> from gpool.pool.pool import Pool
    >>> from gpool.pool.resource import Resource
    >>> def steal(things):
    ...     try:
    ...         things.append(2)
    ...     except WrongHolder:
    ...         print("not mine")
    >>> with Pool(Resource(create=list), size=1, name="lists", debug=True) as pool:
    ...     with pool.checkout() as things:
    ...         things.append(1)
    ...         gevent.spawn(steal, things).join()
    ...         things, isinstance(things, list)
    not mine
    ([1], True)

Rules:

* Use by another greenlet than the owner's is :class:`~gpool.errors.WrongHolder`; so
  is giving back, which outside of debug mode anybody may.
* ``lease.transfer(to)`` makes another one the owner: then `to` may, and it alone.
* Use after the end of the lease is :class:`~gpool.errors.LeaseLost`; giving back
  once more stays a counted no-op.
* A proxy does not keep its lease: whoever keeps the worker and drops the lease loses
  it, here as elsewhere.
* ``repr`` and ``isinstance`` never raise: they look, and those who look for the fault
  need them, gevent's ``print_run_info`` too, which asks all objects that there are.

What it does not see: what comes out of a resource is the thing itself, a cursor and
a bound method too.  ``is`` and ``type()`` see the proxy, and so does compiled code
that wants the exact type.  A pid is lent as it is.

It costs a Python call or two a use, and the fast paths of checkout and checkin.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from greenlet import getcurrent

from gpool.errors import LeaseLost, PoolError, WrongHolder
from gpool.otp.pid import Pid
from gpool.pool.lease import Lease, line_of

W = TypeVar("W")


class DebugLease(Lease[W]):
    """A lease that its owner alone may use and give back."""

    __slots__ = ("__weakref__",)

    @property
    def worker(self) -> W:
        """A proxy of the worker that is lent.

        Raises:
            LeaseLost: It was given back, or it died.
        """
        thing = super().worker
        return thing if isinstance(thing, Pid) else cast("W", Proxy(self))

    resource = worker

    def thing(self) -> W:
        """Return the worker itself, to its owner.

        Raises:
            LeaseLost: It was given back, or it died.
            WrongHolder: The caller is not the owner.
        """
        thing = super().worker
        self._refuse_others()
        return thing

    def _refuse_others(self) -> None:
        me = getcurrent()
        user = getattr(me, "gpool_pid", None)
        if user is not self.owner.pid:
            raise WrongHolder(self.ledger.name, user or me, self.holder())

    def _is_held(self) -> bool:
        return self.slot is not None and self.slot.lease is self and not self.is_the_parents

    # --- Its end ---

    def checkin(self) -> None:
        """Give the worker back; see :meth:`Lease.checkin`.

        Raises:
            WrongHolder: The caller is not the owner.
        """
        if self._is_held():
            self._refuse_others()
        super().checkin()

    def discard(self, reason: Any = "discarded") -> None:
        """Give the worker back to be stopped; see :meth:`Lease.discard`.

        Raises:
            WrongHolder: The caller is not the owner.
        """
        if self._is_held():
            self._refuse_others()
        super().discard(reason)

    def __enter__(self) -> W:
        self.thing()
        return self.worker

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_held():
            self._refuse_others()
        super().__exit__(kind, error, trace)


class Proxy:
    """Stands for a worker in its holder's hands; whatever is done to it is done to that."""

    __slots__ = ("__weakref__", "_lease", "_origin")

    def __init__(self, lease: DebugLease[Any]) -> None:
        # Weakly, or a dropped lease would never be reclaimed.
        object.__setattr__(self, "_lease", weakref.ref(lease))
        object.__setattr__(self, "_origin", (lease.ledger.name, lease.code, lease.lasti))

    def __getattribute__(self, name: str) -> Any:
        try:
            return getattr(_thing_of(self), name)
        except PoolError:
            if name == "__class__":
                return Proxy
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_thing_of(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_thing_of(self), name)

    def __repr__(self) -> str:
        try:
            thing = _thing_of(self)
        except PoolError as error:
            return f"<Proxy: {error}>"
        return repr(thing)


def _thing_of(proxy: Proxy) -> Any:
    """Return what a proxy stands for, if the caller may use it."""
    lease = object.__getattribute__(proxy, "_lease")()
    if lease is None:
        pool, code, lasti = object.__getattribute__(proxy, "_origin")
        raise LeaseLost(pool, f"the lease from {line_of(code, lasti)}")
    return lease.thing()


def _forward(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of the proxy that does `operation` to the worker."""

    def forwarded(self: Proxy, *args: Any, **kwargs: Any) -> Any:
        thing = _thing_of(self)
        result = operation(thing, *args, **kwargs)
        return self if result is thing else result  # iter() or `with ... as` may answer itself

    return forwarded


def _enter(thing: Any) -> Any:
    return type(thing).__enter__(thing)


def _leave(thing: Any, *error: Any) -> Any:
    return type(thing).__exit__(thing, *error)


# Python looks these up in the class, not by __getattribute__.
_OPERATIONS: Final[dict[str, Callable[..., Any]]] = {
    "__call__": operator.call,
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__delitem__": operator.delitem,
    "__contains__": operator.contains,
    "__len__": len,
    "__iter__": iter,
    "__next__": next,
    "__reversed__": reversed,
    "__enter__": _enter,
    "__exit__": _leave,
    "__eq__": operator.eq,
    "__ne__": operator.ne,
    "__lt__": operator.lt,
    "__le__": operator.le,
    "__gt__": operator.gt,
    "__ge__": operator.ge,
    "__hash__": hash,
    "__bool__": bool,
    "__str__": str,
    "__format__": format,
    "__dir__": dir,
}
for _name, _operation in _OPERATIONS.items():
    setattr(Proxy, _name, _forward(_operation))
