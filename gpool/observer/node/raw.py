"""Objects as they are stored: read without the help of their classes.

A class that a user has written, or its metaclass, may have its own idea of what an
attribute, a name or a base is, and run any code to have it.  None of that is asked here.
"""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Final

_qualname_of: Final = type.__dict__["__qualname__"].__get__
_vars_of: Final = type.__dict__["__dict__"].__get__  # a metaclass may have its own idea of it
_mro_of: Final = type.__dict__["__mro__"].__get__


def plain(text: str) -> str:
    """Return a text as it is, if it is of a class derived from str."""
    return str.__str__(text)


def name_of(kind: type) -> str:
    """Return what a class is called."""
    return plain(_qualname_of(kind)).replace("<locals>.", "")


def function_name(function: Any) -> str:
    """Return what a function is called; of what only behaves like one, its class."""
    kind = type(function)
    if kind is types.FunctionType or kind is types.BuiltinFunctionType:
        return plain(function.__qualname__).replace("<locals>.", "")
    return name_of(kind)


def stored(value: Any, name: str) -> Any:
    """Return an attribute as it is stored, by no code of the class's; None if it is not."""
    own = _own(value)
    if name in own:
        return own[name]
    for base in _mro_of(type(value)):
        found = _vars_of(base).get(name)
        if type(found) is types.MemberDescriptorType:  # a slot
            try:
                return found.__get__(value)
            except AttributeError:
                return None
    return None


def _own(value: Any) -> dict[str, Any]:
    """Return the dictionary of an instance, even if its class calls something else so."""
    for base in _mro_of(type(value)):
        found = _vars_of(base).get("__dict__")
        if type(found) is types.GetSetDescriptorType:
            own = found.__get__(value)
            return own if type(own) is dict else {}
    return {}


def writer_of(kind: type, name: str) -> type | None:
    """Return which of a class's bases, it included, has written an attribute."""
    return next((base for base in _mro_of(kind) if name in _vars_of(base)), None)


def fields_of(kind: type) -> list[str] | None:
    """Return the names of a dataclass's fields that it shows; None if it is none."""
    for base in _mro_of(kind):
        fields = _vars_of(base).get("__dataclass_fields__")
        if type(fields) is dict:
            found = [field for field in fields.values() if type(field) is dataclasses.Field]
            return [f.name for f in found if f.repr is True and type(f.name) is str]
    return None


def columns_of(kind: type) -> tuple[str, ...]:
    """Return the names of a named tuple's items."""
    for base in _mro_of(kind):
        names = _vars_of(base).get("_fields")
        if type(names) is tuple and all(type(name) is str for name in names):
            return names
    return ()
