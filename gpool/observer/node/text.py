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
texts what follows one, or stands between a colon and the @ of an address.

Not here: what is a secret (``secrets.py``), how objects are read (``raw.py``).
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import pathlib
import types
import uuid
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

import gpool
from gpool.observer.node.raw import columns_of, fields_of, function_name, name_of, plain, stored
from gpool.observer.node.secrets import HIDDEN, beginning, is_secret, scrubbed, without_keys

LIMIT: Final = 300  # characters of a text
ITEMS: Final = 8  # of a collection
DEPTH: Final = 4  # of collections in one another
STRING: Final = 120  # characters of a string in a text
FRAMES: Final = 100  # of a stack
LINES: Final = 200  # of a traceback
WIDTH: Final = 1000  # characters of a line of it
WIDE: Final = 1 << 128  # no larger number is written out


def shown(value: Any, limit: int = LIMIT) -> str:
    """Return what an object is, in at most `limit` characters."""
    return cut(_Writer(limit).write(value, DEPTH), limit)


def cut(text: str, limit: int = LIMIT) -> str:
    """Return the beginning of a text that is too long, without secrets."""
    text = beginning(text, 4 * limit)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


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
    lines = without_keys(text).rstrip().splitlines()
    if len(lines) > LINES:
        half = LINES // 2
        lines = [*lines[:half], f"  ... {len(lines) - 2 * half} lines ...", *lines[-half:]]
    return "\n".join(cut(line, WIDTH) for line in lines)


def stack_of(frames: list[str]) -> list[str]:
    """Return a stack without secrets, and without the outermost frames if it is deep."""
    more = [f"... {len(frames) - FRAMES} more"] if len(frames) > FRAMES else []
    return [*more, *(traced(frame) for frame in frames[-FRAMES:])]


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
            return writer(self, value, depth) if is_shown else self._counted(f"<{name_of(kind)}>")
        except RuntimeError:  # it grows or shrinks while it is read, in another thread
            return f"<{name_of(kind)}, changing>"

    def _counted(self, text: str) -> str:
        self.left -= len(text)
        return text

    # What Python brings.

    def _number(self, value: int, depth: int) -> str:
        is_short = -WIDE < value < WIDE
        return self._counted(repr(value) if is_short else f"<int of {value.bit_length()} bits>")

    def _string(self, value: str, depth: int) -> str:
        kept = beginning(value, 4 * STRING)
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
        zone = "" if value.tzinfo is None else f" {name_of(type(value.tzinfo))}"
        return f"{value.replace(tzinfo=None).isoformat()}{zone}"

    def _function(self, value: Any, depth: int) -> str:
        return f"<{function_name(value)}>"

    def _method(self, value: types.MethodType, depth: int) -> str:
        return f"<{function_name(value.__func__)} of {name_of(type(value.__self__))}>"

    def _partial(self, value: functools.partial[Any], depth: int) -> str:
        texts = [self.write(item, depth - 1) for item in (value.func, *value.args[:ITEMS])]
        pairs = [(plain(k), v) for k, v in islice(value.keywords.items(), ITEMS)]
        if pairs:
            texts.append(self._fields(pairs, len(value.keywords), depth))
        return f"partial({', '.join(texts)})"

    def _error(self, value: gpool.Error, depth: int) -> str:
        return self.write(value.exception, depth)  # what a process died of

    # What anybody may have written.

    def _instance(self, value: Any, depth: int) -> str:
        kind = type(value)
        if issubclass(kind, type):
            return f"<class {name_of(value)}>"
        if issubclass(kind, BaseException):
            args = BaseException.__dict__["args"].__get__(value)
            return f"{name_of(kind)}({self._sequence(args, depth)})"
        if issubclass(kind, enum.Enum):
            member = stored(value, "_name_")
            return f"{name_of(kind)}.{member if type(member) is str else '?'}"
        if issubclass(kind, gpool.GenServer):
            return f"<{name_of(kind)} {self.write(stored(value, 'pid'), depth)}>"
        if (fields := fields_of(kind)) is not None:
            pairs = [(field, stored(value, field)) for field in fields[:ITEMS]]
            return f"{name_of(kind)}({self._fields(pairs, len(fields), depth)})"
        if issubclass(kind, tuple):
            return self._row(kind, tuple(tuple.__iter__(value)), depth)
        return f"<{name_of(kind)}>"

    def _row(self, kind: type, items: tuple[Any, ...], depth: int) -> str:
        """Write a tuple of a class of its own."""
        names = columns_of(kind)
        if len(names) != len(items):
            return f"{name_of(kind)}{self._tuple(items, depth)}"
        pairs = list(zip(names, items, strict=True))[:ITEMS]
        return f"{name_of(kind)}({self._fields(pairs, len(items), depth)})"


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
