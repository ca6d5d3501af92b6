r"""Any object as a short text, without running any of its code.

    >>> shown({"user": "ann", "password": "x", "things": list(range(100))})
    "{'user': 'ann', 'password': ***, 'things': [0, 1, 2, 3, 4, 5, 6, 7, ... 92 more]}"
    >>> shown("postgresql://ann:x@host/db")
    "'postgresql://ann:***@host/db'"

A ``__repr__`` of a user's may be slow, switch greenlets, raise, or tell a password; none
is called.  What is built of Python's own types, of dataclasses, exceptions and gpool's
pids is taken apart; of anything else only its class is told.

Secrets are left out: what stands under a name such as ``password`` or ``api_key``, and in
texts what follows one, or stands between a colon and the @ of an address.  That is a net
under those who show a state, no licence to show secrets.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import pathlib
import re
import types
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

import gpool

LIMIT: Final = 300  # characters of a text
ITEMS: Final = 8  # of a collection
DEPTH: Final = 4  # of collections in one another
STRING: Final = 120  # characters of a string in a text
WIDE: Final = 1 << 128  # no larger number is written out
HIDDEN: Final = "***"

_SECRET = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|private[_-]?key|credentials?|cookie)"
)
_BEGIN = r"(?:^|[_\W]|(?-i:(?<=[a-z])(?=[A-Z])))"  # of a word in a name
_NAME: Final = re.compile(rf"(?i){_BEGIN}(?:{_SECRET}|authorization)s?$|^auth$")
_IN_URL: Final = re.compile(r"(://[^:/?#@\s]*:)[^/?#\s]*@")
_IN_TEXT: Final = re.compile(
    rf"(?i)({_SECRET}['\"]?\s*[=:]\s*)(?!\*\*\*)('[^']*'|\"[^\"]*\"|[^\s,;&)\]}}]+)"
)
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")

# Types whose repr is Python's own and short.
_PLAIN: Final = frozenset({
    type(None), bool, float, complex, range, slice, type(...), type(NotImplemented),
    datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone,
    decimal.Decimal, fractions.Fraction, uuid.UUID, pathlib.PosixPath, pathlib.PurePosixPath,
    ipaddress.IPv4Address, ipaddress.IPv6Address, gpool.Pid, gpool.Ref,
})  # fmt: skip


def shown(value: Any, limit: int = LIMIT) -> str:
    """Return what an object is, in at most `limit` characters."""
    return cut(_shown(value, DEPTH), limit)


def cut(text: str, limit: int = LIMIT) -> str:
    """Return the beginning of a text that is too long, without secrets."""
    text = scrubbed(text[: 4 * limit])
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def scrubbed(text: str) -> str:
    """Return a text without what looks like a secret."""
    text = _IN_URL.sub(rf"\1{HIDDEN}@", text)
    text = _IN_TEXT.sub(rf"\1{HIDDEN}", text)
    return _BEARER.sub(rf"\1 {HIDDEN}", text)


def is_secret(name: Any) -> bool:
    """Tell whether what goes by this name is not to be shown."""
    return type(name) is str and _NAME.search(name) is not None


def _shown(value: Any, depth: int) -> str:
    try:
        kind = type(value)
        if kind in _PLAIN:
            return repr(value)
        if (writer := _WRITERS.get(kind)) is not None:
            return writer(value, depth) if depth else f"<{kind.__name__}>"
        return _instance(value, kind, depth) if depth else f"<{_name(kind)}>"
    except RuntimeError:  # it grows or shrinks while it is read, in another thread
        return f"<{_name(type(value))}, changing>"


def _name(kind: type) -> str:
    name: str = type.__getattribute__(kind, "__qualname__")
    return name.replace("<locals>.", "")


def _number(value: int, depth: int) -> str:
    return repr(value) if -WIDE < value < WIDE else f"<int of {value.bit_length()} bits>"


def _string(value: str, depth: int) -> str:
    kept = scrubbed(value[: 4 * STRING])
    if len(kept) <= STRING and len(value) <= 4 * STRING:
        return repr(kept)
    return f"{kept[:STRING]!r}… {len(value)} characters"


def _bytes(value: bytes | bytearray, depth: int) -> str:
    if len(value) <= STRING:
        return scrubbed(repr(value))
    return f"{scrubbed(repr(bytes(value[:STRING])))}… {len(value)} bytes"


def _items(parts: Iterable[str], count: int) -> str:
    texts = list(parts)
    more = [f"... {count - len(texts)} more"] if count > len(texts) else []
    return ", ".join([*texts, *more])


def _several(before: str, after: str) -> Callable[[Any, int], str]:
    def write(value: Any, depth: int) -> str:
        parts = (_shown(item, depth - 1) for item in list(islice(value, ITEMS)))
        return f"{before}{_items(parts, len(value))}{after}"

    return write


def _tuple(value: tuple[Any, ...], depth: int) -> str:
    parts = [_shown(item, depth - 1) for item in value[:ITEMS]]
    return f"({parts[0]},)" if len(value) == 1 else f"({_items(parts, len(value))})"


def _pairs(value: Any, depth: int) -> str:
    pairs = list(islice(dict.items(value), ITEMS))
    parts = (f"{_shown(key, depth - 1)}: {_field(key, item, depth)}" for key, item in pairs)
    return f"{{{_items(parts, len(value))}}}"


def _field(name: Any, value: Any, depth: int) -> str:
    return HIDDEN if is_secret(name) else _shown(value, depth - 1)


def _function(value: Any, depth: int) -> str:
    return f"<{getattr(value, '__qualname__', '?')}>"


def _method(value: types.MethodType, depth: int) -> str:
    return f"<{getattr(value.__func__, '__qualname__', '?')} of {_name(type(value.__self__))}>"


def _partial(value: functools.partial[Any], depth: int) -> str:
    parts = [_shown(value.func, depth - 1), *(_shown(a, depth - 1) for a in value.args[:ITEMS])]
    parts += [f"{k}={_field(k, v, depth)}" for k, v in list(value.keywords.items())[:ITEMS]]
    return f"partial({', '.join(parts)})"


def _error(value: gpool.Error, depth: int) -> str:
    return _shown(value.exception, depth)  # what a process died of


_WRITERS: Final[dict[type, Callable[[Any, int], str]]] = {
    int: _number,
    str: _string,
    bytes: _bytes,
    bytearray: _bytes,
    list: _several("[", "]"),
    tuple: _tuple,
    set: _several("{", "}"),
    frozenset: _several("frozenset({", "})"),
    deque: _several("deque([", "])"),
    dict: _pairs,
    types.FunctionType: _function,
    types.BuiltinFunctionType: _function,
    types.MethodType: _method,
    functools.partial: _partial,
    gpool.Error: _error,
}


def _instance(value: Any, kind: type, depth: int) -> str:
    """Describe an instance of a class that anybody may have written."""
    mro = type.__getattribute__(kind, "__mro__")
    if type in mro:
        return f"<class {_name(value)}>"
    if BaseException in mro:
        args = BaseException.__dict__["args"].__get__(value)
        return f"{_name(kind)}({_items((_shown(a, depth - 1) for a in args[:ITEMS]), len(args))})"
    if enum.Enum in mro:
        return f"{_name(kind)}.{_raw(value, kind, '_name_')}"
    if gpool.GenServer in mro:
        return f"<{_name(kind)} {_raw(value, kind, 'pid')!r}>"
    if (fields := _fields(mro)) is not None:
        pairs = [(f, _raw(value, kind, f)) for f in fields[:ITEMS]]
        parts = (f"{f}={_field(f, item, depth)}" for f, item in pairs)
        return f"{_name(kind)}({_items(parts, len(fields))})"
    if tuple in mro:
        items = list(islice(tuple.__iter__(value), ITEMS))
        return f"{_name(kind)}{_tuple(tuple(items), depth)}"
    return f"<{_name(kind)}>"


def _fields(mro: tuple[type, ...]) -> list[str] | None:
    """Return the names of a dataclass's fields that it shows; None if it is none."""
    for kind in mro:
        fields = kind.__dict__.get("__dataclass_fields__")
        if type(fields) is dict:
            return [f.name for f in fields.values() if type(f) is dataclasses.Field and f.repr]
    return None


def _raw(value: Any, kind: type, name: str) -> Any:
    """Return an attribute as it is stored, by no code of the class's."""
    own = _own(value)
    if name in own:
        return own[name]
    for base in type.__getattribute__(kind, "__mro__"):
        found = base.__dict__.get(name)
        if type(found) is types.MemberDescriptorType:  # a slot
            try:
                return found.__get__(value)
            except AttributeError:
                return None
    return None


def _own(value: Any) -> dict[str, Any]:
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return own if type(own) is dict else {}
