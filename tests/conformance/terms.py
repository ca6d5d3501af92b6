"""JSON terms of the traces, and the Python terms of gpool that mean the same.

An atom is a string in both.  ``{"shutdown": "x"}`` is the tuple ``("shutdown",
"x")``, and ``{"error": "boom"}`` as a reason is an :class:`~gpool.Error` whose
exception is a :class:`Fault`:

    >>> decode({"shutdown": "x"})
    ('shutdown', 'x')
    >>> encode(("failed", "a", ("shutdown", "x")))
    {'failed': ['a', {'shutdown': 'x'}]}
    >>> encode(decode({"error": "boom"}))
    {'error': 'boom'}

Not here: what is observed in a step (``world_*.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gpool

Json = Any
"""What the json module gives: dict, list, str, int, float, bool or None."""

ANSWERS = (
    gpool.Reply,
    gpool.NoReply,
    gpool.Stop,
    gpool.Ignore,
    gpool.Continue,
    gpool.IdleTimeout,
)
"""What GenServer callbacks return; in OTP these are tuples, named by their first element."""


class Fault(Exception):
    """A runtime error of a trace; its only argument is the word that names it."""


def decode(term: Json) -> Any:
    """Return the Python term that a JSON term stands for."""
    match term:
        case {"error": word}:
            return gpool.Error(Fault(word))
        case dict():
            [(tag, rest)] = term.items()
            parts = rest if isinstance(rest, list) else [rest]
            return (tag, *map(decode, parts))
        case list():
            return [decode(part) for part in term]
        case _:
            return term


def decode_name(name: str) -> Any:
    """Return the registered name; OTP's atom ``undefined`` is Python's None."""
    return None if name == "undefined" else name


def encode(term: Any, label: Callable[[Any], Json] = repr) -> Json:
    """Return the JSON term for a Python term.

    Args:
        term: A reason, a message, a result.
        label: Gives the label of a process that occurs in it.
    """
    match term:
        case gpool.Error():
            return {"error": _word(term.exception)}
        case gpool.Pid():
            return label(term)
        case gpool.GenServer():
            return label(term.pid)
        case ("bad_return_value", value):
            return {"bad_return_value": _name_of_answer(value)}
        case (str() as tag, part):
            return {tag: encode(part, label)}
        case (str() as tag, *parts):
            return {tag: [encode(part, label) for part in parts]}
        case list():
            return [encode(part, label) for part in term]
        case _:
            return term


def _word(exception: BaseException) -> Json:
    return exception.args[0] if isinstance(exception, Fault) else repr(exception)


def _name_of_answer(value: Any) -> Json:
    """Return what OTP would have shown: a word, or a tuple's first element."""
    if isinstance(value, tuple):
        return value[0]
    return type(value).__name__.lower() if isinstance(value, ANSWERS) else value


def seconds(milliseconds: Json) -> Any:
    """Return seconds; ``infinity`` is None, and what is no number stays as it is."""
    match milliseconds:
        case "infinity":
            return None
        case bool() | None:
            return milliseconds
        case int() | float():
            return milliseconds / 1000
        case _:
            return milliseconds


def values_of(key: str, term: Json) -> Iterator[Json]:
    """Yield every value of `key`, however deep in `term`."""
    parts: Iterable[Json] = ()
    if isinstance(term, dict):
        if key in term:
            yield term[key]
        parts = term.values()
    elif isinstance(term, list):
        parts = term
    for part in parts:
        yield from values_of(key, part)


def canonical_order(message: Json) -> tuple[str, int, str]:
    """Return the key by which received messages are sorted (FORMAT.md)."""
    match message:
        case {"down": {"name": name}, "ref": ref}:
            return f"name:{name}", 1, ref
        case {"down": process, "ref": ref}:
            return process, 1, ref
        case {"exit": process} | {"from": process}:
            return process, 0, ""
        case _:
            raise ValueError(f"expected a received message, got {message!r}")
