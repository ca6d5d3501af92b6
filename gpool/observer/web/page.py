"""The page's files, read once: a table from paths to contents, and no way past it.

Every file but ``index.html`` has an address that holds the hash of them all, so that a
browser may keep it for ever and still gets the new one after an upgrade.  A path that is
not in the table is not there, however it is spelled: no file is opened for a request.

    >>> files = {"index.html": b"<script src=static/@HASH@/a.js>", "a.js": b"1"}
    >>> page = Page(files)
    >>> page.index == b"<script src=static/%s/a.js>" % page.hash.encode()
    True
    >>> page.file(f"/static/{page.hash}/a.js")
    File(content=b'1', type='text/javascript; charset=utf-8')
    >>> page.file("/static/0123456789abcdef/a.js") is page.file("/static/../a.js") is None
    True

Not here: who may have them (``app.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Final

HTML: Final = "text/html; charset=utf-8"
TYPES: Final = {  # what is served at all; licences beside the files are not
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True)
class File:
    """A file that a browser may have."""

    content: bytes
    type: str  # MIME's


class Page:
    """The files of the page.

    Args:
        files: Name below the folder -> content; ``index.html`` is one of them.

    Raises:
        ValueError: There is no ``index.html``.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        if INDEX not in files:
            raise ValueError(f"files of the page: expected {INDEX!r}, got {sorted(files)!r}")
        self.hash = _hash(files)
        self.index = files[INDEX].replace(b"@HASH@", self.hash.encode())
        self._files = {  # path of a request -> file
            f"/static/{self.hash}/{name}": File(content, TYPES[suffix])
            for name, content in files.items()
            if (suffix := PurePosixPath(name).suffix) in TYPES
        }

    def file(self, path: str) -> File | None:
        """Return the file at the path of a request, None if there is none."""
        return self._files.get(path)

    def favicon(self) -> File | None:
        """Return what a browser asks for unasked."""
        return self.file(f"/static/{self.hash}/favicon.svg")


def read() -> Page:
    """Return the page of this package."""
    return Page(dict(_walk(resources.files("gpool.observer.web") / "static", "")))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.read_bytes()


def _hash(files: Mapping[str, bytes]) -> str:
    """Return one that changes with any name or content."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return whole.hexdigest()[:16]
