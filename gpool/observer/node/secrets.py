"""What is not to be shown: by its name, or by the looks of a text.

    >>> is_secret("DB_PASSWORD"), is_secret("author")
    (True, False)
    >>> scrubbed("token=x, user=ann; postgresql://ann:x@host/db")
    'token=***, user=ann; postgresql://ann:***@host/db'

A net under those who show a state, no licence to show secrets.
"""

from __future__ import annotations

import re
from typing import Any, Final

NAME: Final = 120  # characters of a name's end that are looked at
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


def is_secret(name: Any) -> bool:
    """Tell whether what goes by this name is not to be shown."""
    if type(name) is bytes:
        name = name[-NAME:].decode("latin-1")
    return issubclass(type(name), str) and _NAME.search(str.__str__(name)[-NAME:]) is not None


def beginning(text: str, length: int) -> str:
    """Return the first so many characters of a text, without secrets."""
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
