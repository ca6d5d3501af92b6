"""Runs what the pages show: every block of code, in the order of its page.

``tests/docs/test_pages.py`` runs each page in a patched process of its own, in an empty
folder, with servers to talk to.  By hand, with servers of your own::

    DSN=... python -m gevent.monkey --module pytest docs/how-to/redis.md

What a block is decides what is done with it:

* ``python``: runs, in one namespace a page, with ``DSN``, ``POSTGRES_URL`` and ``REDIS_URL``;
  one that begins with ``>>>`` is a doctest.
* ``{code-block} python`` with a ``:caption:`` is a file of that name; other languages, too.
* ``console``: runs in bash, and has to succeed.  What it would install has to be an extra of ours.
* After ``<!-- server: http://127.0.0.1:8000/ -->`` it is started, awaited there, and ended
  with the page.
* After ``<!-- run by: tests/... -->`` it is not run here, but by that test.
* ``<!-- invisible-code-block: python`` ... ``-->`` runs, and is not shown.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sybil import Document, Example, Region, Sybil
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

CHECKOUT = Path(__file__).parents[1]
PATIENCE = 20.0  # s until a server of a page answers, or a command has ended
BLOCK = re.compile(
    r"(?:\{code-block\}[ ]*)?(?P<language>[\w{}-]+)[^\n]*\n(?P<options>(?:[ \t]*:[\w-]+:[^\n]*\n)*)"
)
CAPTION = re.compile(r":caption: *(\S+)")
BEFORE = re.compile(
    r"^<!-- *(server|run by): *(\S+) *-->\s*\Z", re.MULTILINE
)  # the line before a block
SILENT = {"text"}  # shown, and no code
FILES = {"toml", "ini", "yaml", "json", "html", "sql"}  # only with a caption

# --- What to do with a block --------------------------------------------------------


def parse(document: Document) -> Iterable[Region]:
    """Yield every block of a page with what runs it."""
    for region in DirectiveInHTMLCommentLexer("invisible-code-block", "python")(document):
        yield Region(region.start, region.end, region.lexemes["source"], PythonEvaluator())
    for region in RawFencedCodeBlockLexer(BLOCK)(document):
        yield from of_block(document, region)


def of_block(document: Document, region: Region) -> Iterable[Region]:
    """Yield what is to be run of a block."""
    language, source = region.lexemes["language"], region.lexemes["source"]
    caption = CAPTION.search(region.lexemes["options"] or "")
    before = BEFORE.search(document.text, 0, region.start)
    what, word = before.groups() if before else ("", "")
    if what == "run by":
        assert (CHECKOUT / word.partition("::")[0]).exists(), f"{document.path}: {word} is gone"
    elif caption:
        yield Region(region.start, region.end, (caption[1], source), write)
    elif language == "python" and source.startswith(">>>"):
        for one in DocTestStringParser(DocTestEvaluator())(source, document.path):
            one.adjust(region, source)
            yield one
    elif language in ("python", "pycon"):
        yield Region(region.start, region.end, source, PythonEvaluator())
    elif language == "console":
        yield Region(region.start, region.end, (str(source), word), run)
    elif language.startswith("{"):
        return  # a directive: Sphinx reads it
    elif language not in SILENT:
        raise ValueError(f"{document.path}: who runs a block of {language!r}?")


def write(example: Example) -> None:
    """Write a file of the page."""
    name, text = example.parsed
    path = example.namespace["folder"] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run(example: Example) -> None:
    """Run a command, or start it and wait until it answers."""
    text, url = example.parsed
    command = "\n".join(line for line in text.splitlines() if not is_installation(line))
    started = {"shell": True, "executable": "/bin/bash", "env": environment(example.namespace)}
    if url:
        with open(example.namespace["folder"] / "output", "w+") as output:
            process = subprocess.Popen(
                f"exec {command}", stdout=output, stderr=output, start_new_session=True, **started
            )
        example.namespace["servers"].append(process)
        wait_for(url, process, Path(output.name))
    else:
        done = subprocess.run(
            f"set -euo pipefail\n{command}",
            capture_output=True, text=True, timeout=PATIENCE, **started,
        )  # fmt: skip
        print(done.stdout, done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr


def is_installation(line: str) -> bool:
    """Tell whether a line installs something; if it is gpool, its extras have to be ours."""
    words = shlex.split(line, comments=True)
    if "install" not in words or not any(word.endswith("pip") for word in words[:3]):
        return False
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    for word in words[words.index("install") + 1 :]:
        extras = re.fullmatch(r"(?:gpool|\.)\[([\w,-]+)\]", word)
        for extra in extras[1].split(",") if extras else ():
            assert extra in project["optional-dependencies"], f"no extra {extra!r}"
    return True


def environment(namespace: dict[str, Any]) -> dict[str, str]:
    """Return what a reader has: the commands of our environment, gpool and its plugin too."""
    tools = namespace["folder"] / ".bin"
    tools.mkdir(exist_ok=True)
    (tools / "gpool").write_text(f'#!/bin/sh\nexec {sys.executable} -m gpool "$@"\n')
    (tools / "gpool").chmod(0o755)
    install_plugin(tools)
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    modules = os.pathsep.join([str(CHECKOUT), str(tools)])
    ours = {"PATH": path, "PYTHONPATH": modules, "PYTHONUNBUFFERED": "1"}
    kept = {name: word for name, word in os.environ.items() if name != "PYTHONSAFEPATH"}
    return kept | ours


def install_plugin(tools: Path) -> None:
    """Have pytest find our plugin, be gpool installed or not."""
    folder = tools / "gpool-0.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: gpool\nVersion: 0\n")
    (folder / "entry_points.txt").write_text("[pytest11]\ngpool = pytest_gpool\n")


def wait_for(url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until somebody answers there, be it with an error."""
    give_up = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < give_up:
        try:
            urllib.request.urlopen(url, timeout=5.0).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{url} does not answer:\n{output.read_text()}")


# --- A page -------------------------------------------------------------------------


def begin(namespace: dict[str, Any]) -> None:
    """Give a page its folder, and the names that it may use."""
    folder = Path(tempfile.mkdtemp(prefix="gpool-docs-"))
    namespace |= {name: os.environ.get(name) for name in ("DSN", "POSTGRES_URL", "REDIS_URL")}
    namespace |= {"folder": folder, "servers": [], "came_from": Path.cwd(), "__name__": "page"}
    os.chdir(folder)
    os.environ["GPOOL_RUN_DIR"] = str(folder / "run")
    sys.path.insert(0, str(folder))


def end(namespace: dict[str, Any]) -> None:
    """End the servers of a page, and remove its folder."""
    for process in namespace["servers"]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    os.chdir(namespace["came_from"])
    sys.path.remove(str(namespace["folder"]))
    subprocess.run(["rm", "-rf", namespace["folder"]], check=True)


pytest_collect_file = Sybil([parse], patterns=["*.md"], setup=begin, teardown=end).pytest()
