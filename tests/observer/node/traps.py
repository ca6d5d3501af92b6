"""Objects that notice if anything that their classes have written is called.

>>> _ = repr(Trap())
>>> sprung.pop()
'Trap.__repr__'
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gevent
import greenlet

import gpool

sprung: list[str] = []  # what was called, by whoever was not to


def _trap(name: str, result: Any) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        sprung.append(name)
        return result

    return method


_RESULTS: dict[str, Any] = {
    "__repr__": "sprung", "__str__": "sprung", "__format__": "sprung", "__len__": 1,
    "__bool__": True, "__eq__": True, "__iter__": iter(()), "__contains__": True,
    "__fspath__": "sprung", "__int__": 1, "__index__": 1, "__call__": None, "__getattr__": None,
    "__getitem__": None, "__dir__": [],
}  # fmt: skip


def trapped(name: str, *bases: type, **more: Any) -> Any:
    """Return a class all of whose methods are traps."""
    methods = {key: _trap(f"{name}.{key}", result) for key, result in _RESULTS.items()}
    methods["__hash__"] = lambda self: id(self)  # what is put into a dict is asked for it
    methods["__class__"] = property(_trap(f"{name}.__class__", int))
    return TrapMeta(name, bases, {**methods, **more})


class TrapMeta(type):
    """Springs when a class is looked at as Python code looks at classes."""

    is_set = False  # not while a class is being made

    def _sprung(cls, what: str) -> None:
        if TrapMeta.is_set:
            sprung.append(f"TrapMeta.{what}")

    def __getattribute__(cls, name: str) -> Any:
        type.__getattribute__(cls, "_sprung")(f"__getattribute__({name})")
        return type.__getattribute__(cls, name)

    def __instancecheck__(cls, instance: Any) -> bool:
        cls._sprung("__instancecheck__")
        return True

    def __subclasscheck__(cls, subclass: Any) -> bool:
        cls._sprung("__subclasscheck__")
        return True

    def __hash__(cls) -> int:
        cls._sprung("__hash__")
        return type.__hash__(cls)

    def __eq__(cls, other: object) -> bool:
        cls._sprung("__eq__")
        return cls is other

    def __repr__(cls) -> str:
        cls._sprung("__repr__")
        return "sprung"


Trap = trapped("Trap")
TrapError = trapped("TrapError", Exception)
TrapText = trapped("TrapText", str)
TrapList = trapped("TrapList", list)
TrapDict = trapped("TrapDict", dict)
TrapTuple = trapped("TrapTuple", tuple)
TrapNumber = trapped("TrapNumber", int)
TrapWithoutDict = trapped("TrapWithoutDict", __dict__=property(_trap("__dict__", {})))


class Lying(type):
    """Tells of its classes by a property."""

    __mro__ = property(_trap("Lying.__mro__", (int,)))  # type: ignore[assignment]


class Lied(metaclass=Lying):
    """An instance of a class that is not what it says."""


@dataclasses.dataclass
class TrapData:
    """Stored in its attributes, but asked for them it springs."""

    name: Any
    password: Any = "swordfish"
    hidden: Any = dataclasses.field(default="swordfish", repr=False)

    def __getattribute__(self, name: str) -> Any:
        """Spring."""
        sprung.append(f"TrapData.{name}")
        return None

    def __repr__(self) -> str:
        """Spring."""
        sprung.append("TrapData.__repr__")
        return "sprung"


class TrapRow(NamedTuple):
    """A named tuple."""

    user: Any
    password: Any

    def __repr__(self) -> str:
        """Spring."""
        sprung.append("TrapRow.__repr__")
        return "sprung"


class TrapColour(enum.Enum):
    """A member of a set that is closed."""

    RED = 1

    def __repr__(self) -> str:
        """Spring."""
        sprung.append("TrapColour.__repr__")
        return "sprung"


def traps() -> list[Any]:
    """Return one of each kind, and some that have others in them."""
    cycle: list[Any] = []
    cycle.append(cycle)
    plain = [
        Trap(), TrapError(Trap(), "x"), TrapText("x"), TrapList([1]), TrapDict({1: Trap()}),
        TrapTuple((Trap(),)), TrapNumber(3), TrapWithoutDict(), Trap, TrapText, Lied(), Lied,
        TrapData(Trap()), TrapRow(Trap(), Trap()), TrapColour.RED, cycle,
    ]  # fmt: skip
    return [
        *plain, plain, tuple(plain), {Trap(): Trap()}, {TrapText("password"): "swordfish"},
        slice(Trap(), Trap()), gpool.Error(ValueError(Trap())), [[[[[Trap()]]]]],
    ]  # fmt: skip


@contextlib.contextmanager
def unsprung() -> Iterator[None]:
    """Fail if a trap is sprung in the block."""
    sprung.clear()
    TrapMeta.is_set = True
    try:
        yield
    finally:
        TrapMeta.is_set = False
    assert sprung == []


@contextlib.contextmanager
def hub_keeps_to_itself() -> Iterator[list[Any]]:
    """Give the greenlets that ran meanwhile beside the running one and the hub."""
    hub, mine = gevent.get_hub(), greenlet.getcurrent()
    others: list[Any] = []

    def trace(event: str, pair: Any) -> None:
        others.extend(one for one in pair if one is not hub and one is not mine)

    before = greenlet.settrace(trace)
    try:
        yield others
    finally:
        greenlet.settrace(before)
    assert others == []
