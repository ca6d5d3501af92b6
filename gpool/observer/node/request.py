"""What comes in at the agent's socket: its path and parameters, checked; or why not."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

QUERY: Final = 2048  # bytes of a query
FIELDS: Final = 20  # parameters of a query
BODY: Final = 4096  # bytes of a body
_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")


class Refused(Exception):
    """A request that is not answered: HTTP's status, and why, in a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class Request:
    """One request.

    Args:
        environ: As WSGI has it.

    Raises:
        Refused: Its query is too long, or has a parameter twice.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ.get("PATH_INFO", "")
        self.environ = environ
        query = environ.get("QUERY_STRING", "")
        if len(query) > QUERY:
            raise Refused(414, f"query: expected at most {QUERY} bytes, got {len(query)}")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=FIELDS)
        except ValueError:
            raise Refused(400, f"query: expected at most {FIELDS} parameters") from None
        self._query = dict(pairs)
        if len(self._query) < len(pairs):
            raise Refused(400, "query: expected each parameter once")

    @property
    def parts(self) -> list[str]:
        """The path's segments, decoded: a name may have a slash in it."""
        raw = self.environ.get("RAW_URI") or self.environ.get("REQUEST_URI") or self.path
        path = raw.partition("?")[0]
        return [unquote(part) for part in path.split("/")[1:]]

    def only(self, *known: str) -> None:
        """Refuse parameters that are none of these."""
        if odd := sorted(set(self._query) - set(known)):
            expected = ", ".join(known) or "none"
            raise Refused(400, f"query: expected some of {expected}; got {odd[0][:40]!r}")

    def text(self, name: str, default: str = "", longest: int = 200) -> str:
        """Return a parameter."""
        value: str = self._query.get(name, default)
        if len(value) > longest:
            raise Refused(400, f"{name}: expected at most {longest} characters, got {len(value)}")
        return value

    def word(self, name: str, default: str, words: Collection[str]) -> str:
        """Return a parameter that is one of some words."""
        value = self.text(name, default)
        if value not in words:
            raise Refused(400, f"{name}: expected one of {', '.join(words)}; got {value!r}")
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """Return a parameter that is a whole number in a range."""
        value = self.text(name, str(default), 20)
        if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
            raise Refused(400, f"{name}: expected a number from {least} to {most}, got {value!r}")
        return int(value)

    def seconds(self, name: str, default: float) -> float:
        """Return a parameter that is a time of day or a duration."""
        value = self.text(name, str(default), 40)
        if _SECONDS.fullmatch(value) is None:
            raise Refused(400, f"{name}: expected seconds >= 0, got {value!r}")
        return float(value)

    def body(self) -> dict[str, Any]:
        """Return what was posted: a JSON object."""
        kind = self.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, f"content type: expected application/json, got {kind[:40]!r}")
        size = self.environ.get("CONTENT_LENGTH") or ""
        if not (size.isascii() and size.isdigit()):
            raise Refused(411, "content length: expected a number")
        if int(size) > BODY:
            raise Refused(413, f"body: expected at most {BODY} bytes, got {size}")
        content = self.environ["wsgi.input"].read(int(size))
        if len(content) < int(size):
            raise Refused(400, f"body: expected {size} bytes, got {len(content)}")
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            raise Refused(400, "body: expected JSON") from None
        if not isinstance(value, dict):
            raise Refused(400, "body: expected a JSON object")
        return value
