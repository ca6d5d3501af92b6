"""The page's files, read once."""

from __future__ import annotations

from importlib import resources

import pytest

from gpool.observer.web import page
from gpool.observer.web.page import Page

FILES = {
    "index.html": b"static/@HASH@/app.js",
    "app.js": b"1",
    "vendor/lit.js": b"2",
    "favicon.svg": b"<svg/>",
    "vendor/LICENSE": b"3",
}


class TestPage:
    def test_needs_an_index(self):
        """A package without its page is broken, and says so at once."""
        with pytest.raises(ValueError, match=r"expected 'index.html', got \['app.js'\]"):
            Page({"app.js": b""})

    def test_names_its_files_by_a_hash_of_them_all(self):
        """Any change of any file changes the addresses of all."""
        one, two = Page(FILES), Page({**FILES, "vendor/LICENSE": b"4"})
        assert one.hash != two.hash
        assert one.index == f"static/{one.hash}/app.js".encode()

    def test_tells_names_from_contents(self):
        """What moves from one file's content to its name is a change."""
        assert (
            Page({"index.html": b"", "ab": b"c"}).hash != Page({"index.html": b"", "a": b"bc"}).hash
        )

    def test_serves_what_a_browser_shows(self):
        """Scripts and pictures are served, licences and the raw index are not."""
        shown = Page(FILES)
        at = f"/static/{shown.hash}/"
        assert shown.file(at + "vendor/lit.js").content == b"2"
        assert shown.file(at + "favicon.svg").type == "image/svg+xml"
        assert shown.favicon() == shown.file(at + "favicon.svg")
        assert shown.file(at + "vendor/LICENSE") is shown.file(at + "index.html") is None


class TestRead:
    def test_reads_the_package_s_own(self):
        """All that is in the folder is found, however deep."""
        found = page.read()
        folder = resources.files("gpool.observer.web") / "static"
        assert found.hash.encode() in found.index
        assert (
            found.file(f"/static/{found.hash}/vendor/lit-html/lit-html.js").content
            == (folder / "vendor" / "lit-html" / "lit-html.js").read_bytes()
        )
