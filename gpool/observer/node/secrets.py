"""What is not to be shown: by its name, or by the looks of a text.

    >>> is_secret("DB_PASSWORD"), is_secret("author")
    (True, False)
    >>> scrubbed("token=x, user=ann; postgresql://ann:x@host/db")
    'token=***, user=ann; postgresql://ann:***@host/db'

A net under those who show a state, no licence to show secrets.  Of what may be one or not,
the value of a ``token`` is hidden, and what stands before the @ of an address that only may
be somebody's mail is shown.

A text is searched from its beginning to its end, and no part of it twice by the same rule:
no pattern here may begin again inside of what it has just read in vain.  Each rule names
what a text must contain for it, since most texts have nothing to hide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

NAME: Final = 120  # characters of a name's end that are looked at
HIDDEN: Final = "***"

# What is not to stand before a word is asked after it: that is faster, as few texts have it.
_PASS = (
    r"pass(?<!compass)(?<!bypass)(?<!surpass)(?<!trespass)(?<!overpass)(?<!underpass)"
    r"(?:word|wd|phrase|code)?"
)
_AUTH = r"auth(?:(?<![^\W_]auth)|(?-i:(?<=[a-z]A...))|orization)"
_SECRET = (
    rf"(?:{_PASS}|pwd(?<!oldpwd)|secret|token|credential|cookie|jwt|connection[_-]?string"
    r"|access[_-]?key[_-]?id|session[_-]?(?:id|key)"
    r"|(?:api|private|access|account|auth|secret|signing|encryption|ssh)[_-]?key)"
    r"s?(?:[_-]?(?:key|hash|value|json|base|v?[0-9]))*+"
)
_NAME: Final = re.compile(rf"(?i)(?:{_SECRET}|{_AUTH})$")

# What stands for a secret in a text.
_QUOTE = r"\\*['\"]"  # escaped, if the text is in another one
_QUOTED = (
    r"(?:'(?:[^'\\]|\\.?)*+'?|\"(?:[^\"\\]|\\.?)*+\"?"  # or to the end, if that was cut off
    r"|\\+['\"].*?(?:\\['\"]|\Z))"
)
_STRING: Final = re.compile(rf"(?is)(?:[bfru]{{0,2}}{_QUOTED})+|<[^<>]*>?")
_BARE: Final = re.compile(r"[^\s,;&()\[\]{}]*")
_INSIDE: Final = re.compile(rf"(?s){_QUOTED}|\\++|[()\[\]{{}}]")

# Where to look for one.
_BEFORE: Final = re.compile(
    rf"(?i)(?:(?:{_SECRET}|{_AUTH})(?:{_QUOTE}\]?)?\s*+!?[=:]++>?+\s*+|[?&;]sig=|signature=)"
    r"(?!\*\*\*)"
)
_HEADER: Final = re.compile(
    rf"(?is)((?:authorization|cookie)(?:{_QUOTE})?\s*:\s*+)(?!\*\*\*)(?:b?{_QUOTED}|[^\r\n]+)"
)
_OPTION: Final = re.compile(rf"(?is)((?:^|\s)--?[\w-]*{_SECRET}\s+)(?:{_QUOTED}|\S+)")
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_URL: Final = re.compile(r"(://[^:/?#@\s'\"<>]*:)([^\s'\"<>]*)")
_LOGIN: Final = re.compile(r"(?<![\w.%+@:/-])([\w.%+-]++):([^\s'\"<>/\\,;()\[\]{}]+)")
_MAIL: Final = re.compile(  # a:b@c that is no login: a is a label, or b a line, c an image's digest
    r"(?i)(?:mailto|e?-?mail|from|to|b?cc|reply-to|sender|recipient|owner|author|contact|name"
    r"|sips?|xmpp|acct|npm):|[^:]*:(?:\d{1,5}(?::\d{1,4})*@|\*\*\*@|[^@]*@sha\d+:)"
)
_HOST: Final = re.compile(r"[^\W\d_]|\d+(?:\.\d+){3}|\Z")
_JWT: Final = re.compile(r"(?<![\w-])eyJ[\w-]{4,}+\.[\w.-]{4,}")
_MARKED: Final = re.compile(  # by those who have issued it
    r"(?<![\w-])((?:gh[oprsu]_|github_pat_|glpat-|[sr]k_(?:live|test)_|xox[a-z]-)(?=[\w-]{4})"
    r"|A[KS]IA(?=[A-Z0-9]{12})|sk-(?=[\w-]{16})(?=[a-zA-Z_-]*\d))[\w-]+"
)
_PRIVATE: Final = re.compile(
    r"(-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY[A-Z ]{0,10}-----)"
    r"(?:[\w\s+/=:,.\\|]|-(?!----END))++(?:-----END [A-Z0-9 ]{0,50}-----)?"
)


def is_secret(name: Any) -> bool:
    """Tell whether what goes by this name is not to be shown."""
    if type(name) is bytes:
        name = name[-NAME:].decode("latin-1")
    return issubclass(type(name), str) and _NAME.search(str.__str__(name)[-NAME:]) is not None


def beginning(text: str, length: int) -> str:
    """Return the first so many characters of a text, without secrets."""
    return scrubbed(text[:length], is_cut=len(text) > length)


def scrubbed(text: str, *, is_cut: bool = False) -> str:
    """Return a text without what looks like a secret.

    Args:
        text: What may have secrets in it.
        is_cut: Whether the text went on: the @ that ends a password may be what was cut off.
    """
    folded = text.casefold()
    if is_cut and "://" in folded:
        text = _URL.sub(_without_end, text)
    for signs, hide in _RULES:
        for sign in signs:
            if sign in folded:
                text = hide(text)
                break
    return text


def without_keys(text: str) -> str:
    """Return a text of many lines without the private keys that have many of them."""
    return _PRIVATE.sub(rf"\1{HIDDEN}", text) if "PRIVATE KEY" in text else text


# --- Rules --------------------------------------------------------------------------


def _without_end(found: re.Match[str]) -> str:
    return f"{found[1]}{HIDDEN}" if found.end() == len(found.string) else found[0]


def _without_password(found: re.Match[str]) -> str:
    _, at, host = found[2].rpartition("@")
    return f"{found[1]}{HIDDEN}@{host}" if at else found[0]


def _without_login(found: re.Match[str]) -> str:
    password, at, host = found[2].rpartition("@")
    if not (password and at and _HOST.match(host)) or _MAIL.match(found[0]):
        return found[0]
    return f"{found[1]}:{HIDDEN}@{host}"


def _without_values(text: str) -> str:
    """Hide what is said to be a secret, with all that is in its quotes and brackets."""
    parts, begin = [], 0
    while found := _BEFORE.search(text, begin):
        end = _end_of_value(text, found.end())
        parts += [text[begin : found.end()], HIDDEN if end > found.end() else ""]
        begin = end
    return "".join([*parts, text[begin:]])


def _end_of_value(text: str, begin: int) -> int:
    if string := _STRING.match(text, begin):
        return string.end()
    end = _end_of(_BARE, text, begin)
    while text[end : end + 1] in ("(", "[", "{"):
        end = _end_of(_BARE, text, _end_of_brackets(text, end))
    return end


def _end_of_brackets(text: str, begin: int) -> int:
    depth = 0
    for part in _INSIDE.finditer(text, begin):
        depth += (part[0] in "([{") - (part[0] in ")]}")
        if depth == 0:
            return part.end()
    return len(text)  # the rest was cut off


def _end_of(pattern: re.Pattern[str], text: str, begin: int) -> int:
    found = pattern.match(text, begin)
    return begin if found is None else found.end()


def _sub(pattern: re.Pattern[str], new: str | Callable[[re.Match[str]], str]) -> _Rule:
    return lambda text: pattern.sub(new, text)


_Rule = Callable[[str], str]
_NAMES: Final = (
    "pass", "pwd", "secret", "token", "credential", "cookie", "jwt", "connection", "session", "key",
)  # fmt: skip
_MARKS: Final = (
    "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "glpat-", "k_live_", "k_test_", "xox",
    "akia", "asia", "sk-",
)  # fmt: skip

# Signs, one of which a text must have, in lower case, and what is done to it then.
_RULES: Final[tuple[tuple[tuple[str, ...], _Rule], ...]] = (
    (("private key",), without_keys),
    (("://",), _sub(_URL, _without_password)),
    (("@",), _sub(_LOGIN, _without_login)),
    (("authorization", "cookie"), _sub(_HEADER, rf"\1{HIDDEN}")),
    ((*_NAMES, "auth", "sig=", "signature="), _without_values),
    (_NAMES, _sub(_OPTION, rf"\1{HIDDEN}")),
    (("bearer", "basic"), _sub(_BEARER, rf"\1 {HIDDEN}")),
    (("eyj",), _sub(_JWT, HIDDEN)),
    (_MARKS, _sub(_MARKED, rf"\1{HIDDEN}")),
)  # fmt: skip
