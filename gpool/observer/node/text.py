r"""Any object as a short text, without running any of its code.

    >>> shown({"user": "ann", "password": "x", "things": list(range(100))})
    "{'user': 'ann', 'password': ***, 'things': [0, 1, 2, 3, 4, 5, 6, 7, ... 92 more]}"
    >>> shown("postgresql://ann:x@host/db")
    "'postgresql://ann:***@host/db'"

A ``__repr__`` of a user's may be slow, switch greenlets, raise, or tell a password; none
is called, nor any other method of a class or metaclass that a user may have written.  What
is built of Python's own types, of dataclasses, named tuples, exceptions and gpool's pids is
taken apart, until the text is as long as it may be; of anything else only its class is told.

Secrets are left out: what stands under a name such as ``password`` or ``api_key``, and in
texts what follows one, or stands between a colon and the @ of an address.  That is a net
under those who show a state, no licence to show secrets.
"""

from __future__ import annotations

import collections
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
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

import gpool

LIMIT: Final = 300  # characters of a text
ITEMS: Final = 8  # of a collection
DEPTH: Final = 4  # of collections in one another
STRING: Final = 120  # characters of a string in a text
FRAMES: Final = 100  # of a stack
LINES: Final = 200  # of a traceback
WIDTH: Final = 1000  # characters of a line of it
WIDE: Final = 1 << 128  # no larger number is written out
HIDDEN: Final = "***"

_SECRET = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|credential|cookie|jwt"
    r"|(?:api|private|access|auth|secret|signing|encryption)[_-]?key|session[_-]?(?:id|key))"
    r"s?(?:[_-]?(?:key|hash|value|[0-9]+))?"
)
_BEGIN = r"(?:^|[_\W]|(?-i:(?<=[a-z])(?=[A-Z])))"  # of a word in a name
_NAME: Final = re.compile(rf"(?i){_BEGIN}(?:{_SECRET}|authorization|auth)$")
_QUOTE = r"\\*['\"]"  # escaped, if the text is in another one
_QUOTED = r"b?'[^']*(?:'|\Z)|b?\"[^\"]*(?:\"|\Z)|\\+['\"].*?(?:\\['\"]|\Z)"
_IN_URL: Final = re.compile(r"(://[^:/?#@\s]*:)[^\s'\"<>]*@")
_CUT_URL: Final = re.compile(r"(://[^:/?#@\s]*:)[^\s'\"<>]*\Z")
_IN_TEXT: Final = re.compile(
    rf"(?i)({_SECRET}(?:{_QUOTE})?\s*[=:]\s*)(?!\*\*\*)({_QUOTED}|[^\s,;&)\]}}]+)"
)
_IN_HEADER: Final = re.compile(
    rf"(?i)((?:authorization|cookie)(?:{_QUOTE})?\s*:\s*)(?!\*\*\*)({_QUOTED}|[^\r\n]+)"
)
_OPTION: Final = re.compile(rf"(?i)((?:^|\s)--?[\w-]*{_SECRET}\s+)\S+")
_HINT: Final = re.compile(rf"(?i)://|{_SECRET}|authorization|bearer|basic")  # where to look closer
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")


def shown(value: Any, limit: int = LIMIT) -> str:
    """Return what an object is, in at most `limit` characters."""
    return cut(_Writer(limit).write(value, DEPTH), limit)


def cut(text: str, limit: int = LIMIT) -> str:
    """Return the beginning of a text that is too long, without secrets."""
    text = _beginning(text, 4 * limit)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _beginning(text: str, length: int) -> str:
    kept = scrubbed(text[:length])
    # The @ that ends a password may be what was cut off.
    return kept if len(text) <= length else _CUT_URL.sub(rf"\1{HIDDEN}", kept)


def scrubbed(text: str) -> str:
    """Return a text without what looks like a secret."""
    if _HINT.search(text) is None:
        return text
    text = _IN_URL.sub(rf"\1{HIDDEN}@", text)
    text = _IN_HEADER.sub(rf"\1{HIDDEN}", text)
    text = _IN_TEXT.sub(rf"\1{HIDDEN}", text)
    text = _OPTION.sub(rf"\1{HIDDEN}", text)
    return _BEARER.sub(rf"\1 {HIDDEN}", text)


def headline(reason: gpool.Error) -> str:
    """Return what a process died of in a line: the exception's own, as its traceback has it."""
    # Its __str__ has been asked when it died.
    lines = reason.format().splitlines()
    begin = max((i for i, line in enumerate(lines) if line.startswith("Traceback ")), default=-1)
    own = next((line for line in lines[begin + 1 :] if line[:1].strip()), "")
    return cut(own) if own else shown(reason)


def explained(reason: Any) -> str:
    """Return what a process died of; of an error its whole traceback."""
    return traced(reason.format()) if type(reason) is gpool.Error else shown(reason)


def traced(text: str) -> str:
    """Return a traceback without secrets, and without its middle if it is long."""
    lines = text.rstrip().splitlines()
    if len(lines) > LINES:
        half = LINES // 2
        lines = [*lines[:half], f"  ... {len(lines) - 2 * half} lines ...", *lines[-half:]]
    return "\n".join(cut(line, WIDTH) for line in lines)


def stack_of(frames: list[str]) -> list[str]:
    """Return a stack without secrets, and without the outermost frames if it is deep."""
    more = [f"... {len(frames) - FRAMES} more"] if len(frames) > FRAMES else []
    return [*more, *(traced(frame) for frame in frames[-FRAMES:])]


def is_secret(name: Any) -> bool:
    """Tell whether what goes by this name is not to be shown."""
    if type(name) is bytes:
        name = name[-STRING:].decode("latin-1")
    return issubclass(type(name), str) and _NAME.search(_plain(name)[-STRING:]) is not None


# --- Looking at objects without their classes' help ---------------------------------

_qualname_of: Final = type.__dict__["__qualname__"].__get__
_vars_of: Final = type.__dict__["__dict__"].__get__  # a metaclass may have its own idea of it
_mro_of: Final = type.__dict__["__mro__"].__get__


def _plain(text: str) -> str:
    """Return a text as it is, if it is of a class derived from str."""
    return str.__str__(text)


def _name(kind: type) -> str:
    return _plain(_qualname_of(kind)).replace("<locals>.", "")


def _function_name(function: Any) -> str:
    kind = type(function)
    if kind is types.FunctionType or kind is types.BuiltinFunctionType:
        return _plain(function.__qualname__).replace("<locals>.", "")
    return _name(kind)


def _raw(value: Any, name: str) -> Any:
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


def _fields(kind: type) -> list[str] | None:
    """Return the names of a dataclass's fields that it shows; None if it is none."""
    for base in _mro_of(kind):
        fields = _vars_of(base).get("__dataclass_fields__")
        if type(fields) is dict:
            found = [field for field in fields.values() if type(field) is dataclasses.Field]
            return [f.name for f in found if f.repr is True and type(f.name) is str]
    return None


def _columns(kind: type) -> tuple[str, ...]:
    """Return the names of a named tuple's items."""
    for base in _mro_of(kind):
        names = _vars_of(base).get("_fields")
        if type(names) is tuple and all(type(name) is str for name in names):
            return names
    return ()


# --- Writing ------------------------------------------------------------------------


class _Writer:
    """Writes one text, and not much more than will be seen of it."""

    def __init__(self, limit: int) -> None:
        self.left = limit  # characters that may still be written

    def write(self, value: Any, depth: int) -> str:
        """Return what an object is, and what is in it, to some depth."""
        kind = type(value)
        if self.left <= 0:
            return "…"
        self.left -= 2  # for what stands around it
        try:
            # By identity: a metaclass may have written how its classes are hashed or compared.
            if id(kind) in _OF_PYTHON:
                return self._counted(repr(value))
            if (writer := _WRITERS.get(id(kind))) is None:
                writer = _Writer._instance
            is_shown = depth or kind is str or kind is int
            return writer(self, value, depth) if is_shown else self._counted(f"<{_name(kind)}>")
        except RuntimeError:  # it grows or shrinks while it is read, in another thread
            return f"<{_name(kind)}, changing>"

    def _counted(self, text: str) -> str:
        self.left -= len(text)
        return text

    # What Python brings.

    def _number(self, value: int, depth: int) -> str:
        is_short = -WIDE < value < WIDE
        return self._counted(repr(value) if is_short else f"<int of {value.bit_length()} bits>")

    def _string(self, value: str, depth: int) -> str:
        kept = _beginning(value, 4 * STRING)
        if len(kept) <= STRING and len(value) <= 4 * STRING:
            return self._counted(repr(kept))
        return self._counted(f"{kept[:STRING]!r}… {len(value)} characters")

    def _bytes(self, value: bytes | bytearray, depth: int) -> str:
        if len(value) <= STRING:
            return self._counted(scrubbed(repr(value)))
        kept = scrubbed(repr(bytes(value[: 4 * STRING])))[:STRING]
        return self._counted(f"{kept}… {len(value)} bytes")

    def _list(self, value: list[Any], depth: int) -> str:
        return f"[{self._sequence(value, depth)}]"

    def _tuple(self, value: tuple[Any, ...], depth: int) -> str:
        comma = "," if len(value) == 1 else ""
        return f"({self._sequence(value, depth)}{comma})"

    def _set(self, value: set[Any], depth: int) -> str:
        return f"{{{self._sequence(value, depth)}}}"

    def _frozenset(self, value: frozenset[Any], depth: int) -> str:
        return f"frozenset({self._set(value, depth)})"  # type: ignore[arg-type]

    def _deque(self, value: collections.deque[Any], depth: int) -> str:
        return f"deque([{self._sequence(value, depth)}])"

    def _sequence(self, value: Any, depth: int) -> str:
        items = list(islice(value, ITEMS))
        hidden = [False, *(_announces(item, len(value)) for item in items)]
        texts = [
            HIDDEN if is_hidden else self.write(item, depth - 1)
            for item, is_hidden in zip(items, hidden, strict=False)
        ]
        return _joined(texts, len(value))

    def _dict(self, value: dict[Any, Any], depth: int) -> str:
        pairs = list(islice(dict.items(value), ITEMS))
        texts = [f"{self.write(k, depth - 1)}: {self._field(k, v, depth)}" for k, v in pairs]
        return f"{{{_joined(texts, dict.__len__(value))}}}"

    def _field(self, name: Any, value: Any, depth: int) -> str:
        return HIDDEN if is_secret(name) else self.write(value, depth - 1)

    def _fields(self, pairs: list[tuple[str, Any]], count: int, depth: int) -> str:
        return _joined([f"{k}={self._field(k, v, depth)}" for k, v in pairs], count)

    def _range(self, value: range, depth: int) -> str:
        return f"range({self._sequence((value.start, value.stop, value.step), depth)})"

    def _slice(self, value: slice, depth: int) -> str:
        return f"slice({self._sequence((value.start, value.stop, value.step), depth)})"

    def _fraction(self, value: fractions.Fraction, depth: int) -> str:
        return f"{self._number(value.numerator, 0)}/{self._number(value.denominator, 0)}"

    def _moment(self, value: datetime.datetime | datetime.time, depth: int) -> str:
        zone = "" if value.tzinfo is None else f" {_name(type(value.tzinfo))}"
        return f"{value.replace(tzinfo=None).isoformat()}{zone}"

    def _function(self, value: Any, depth: int) -> str:
        return f"<{_function_name(value)}>"

    def _method(self, value: types.MethodType, depth: int) -> str:
        return f"<{_function_name(value.__func__)} of {_name(type(value.__self__))}>"

    def _partial(self, value: functools.partial[Any], depth: int) -> str:
        texts = [self.write(item, depth - 1) for item in (value.func, *value.args[:ITEMS])]
        pairs = [(_plain(k), v) for k, v in islice(value.keywords.items(), ITEMS)]
        if pairs:
            texts.append(self._fields(pairs, len(value.keywords), depth))
        return f"partial({', '.join(texts)})"

    def _error(self, value: gpool.Error, depth: int) -> str:
        return self.write(value.exception, depth)  # what a process died of

    # What anybody may have written.

    def _instance(self, value: Any, depth: int) -> str:
        kind = type(value)
        if issubclass(kind, type):
            return f"<class {_name(value)}>"
        if issubclass(kind, BaseException):
            args = BaseException.__dict__["args"].__get__(value)
            return f"{_name(kind)}({self._sequence(args, depth)})"
        if issubclass(kind, enum.Enum):
            member = _raw(value, "_name_")
            return f"{_name(kind)}.{member if type(member) is str else '?'}"
        if issubclass(kind, gpool.GenServer):
            return f"<{_name(kind)} {self.write(_raw(value, 'pid'), depth)}>"
        if (fields := _fields(kind)) is not None:
            pairs = [(field, _raw(value, field)) for field in fields[:ITEMS]]
            return f"{_name(kind)}({self._fields(pairs, len(fields), depth)})"
        if issubclass(kind, tuple):
            return self._row(kind, tuple(tuple.__iter__(value)), depth)
        return f"<{_name(kind)}>"

    def _row(self, kind: type, items: tuple[Any, ...], depth: int) -> str:
        """Write a tuple of a class of its own."""
        names = _columns(kind)
        if len(names) != len(items):
            return f"{_name(kind)}{self._tuple(items, depth)}"
        pairs = list(zip(names, items, strict=True))[:ITEMS]
        return f"{_name(kind)}({self._fields(pairs, len(items), depth)})"


def _announces(item: Any, count: int) -> bool:
    """Tell whether a secret follows: item names it in a pair, or is an option of a command."""
    kind = type(item)
    is_text = kind is str or kind is bytes
    return is_text and is_secret(item) and (count == 2 or item[:1] in ("-", b"-"))


def _joined(texts: Iterable[str], count: int) -> str:
    written = list(texts)
    more = [f"... {count - len(written)} more"] if count > len(written) else []
    return ", ".join([*written, *more])


# Types whose repr is Python's own, short, and asks nothing of what is in them.
_OF_PYTHON: Final = frozenset(map(id, (
    type(None), bool, float, complex, type(...), type(NotImplemented),
    datetime.date, datetime.timedelta, decimal.Decimal, uuid.UUID, pathlib.PosixPath,
    pathlib.PurePosixPath, ipaddress.IPv4Address, ipaddress.IPv6Address, gpool.Pid, gpool.Ref,
)))  # fmt: skip

_WRITERS: Final[dict[int, Callable[[_Writer, Any, int], str]]] = {
    id(kind): writer
    for kinds, writer in (
        ((int,), _Writer._number),
        ((str,), _Writer._string),
        ((bytes, bytearray), _Writer._bytes),
        ((list,), _Writer._list),
        ((tuple,), _Writer._tuple),
        ((set,), _Writer._set),
        ((frozenset,), _Writer._frozenset),
        ((collections.deque,), _Writer._deque),
        ((dict, collections.OrderedDict, collections.defaultdict), _Writer._dict),
        ((range,), _Writer._range),
        ((slice,), _Writer._slice),
        ((fractions.Fraction,), _Writer._fraction),
        ((datetime.datetime, datetime.time), _Writer._moment),
        ((types.FunctionType, types.BuiltinFunctionType), _Writer._function),
        ((types.MethodType,), _Writer._method),
        ((functools.partial,), _Writer._partial),
        ((gpool.Error,), _Writer._error),
    )
    for kind in kinds
}
