"""Take the README's pictures of the Observer: the tree in a browser, and gpool top.

    .venv/bin/python docs/screenshots.py

Both show examples/06_observer.py, with PoolMan of one pool killed twice.  It takes Playwright,
Textual (both are in the group ``tests``), and Chromium.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

from gpool.observer.client import Client, NodeError
from gpool.observer.run_dir import RunDir
from gpool.observer.terminal.top.app import Nodes, Top

DOCS: Final = Path(__file__).parent
IMAGES: Final = DOCS / "images"
EXAMPLE: Final = DOCS.parent / "examples" / "06_observer.py"
WIDTH, HEIGHT = 1180, 740  # CSS pixels of the page
COLUMNS, LINES = 112, 30  # of the terminal


@contextlib.contextmanager
def running(folder: str, *arguments: str) -> Iterator[str]:
    """Run a program beside us; yields the last line of its first words."""
    env = os.environ | {"GPOOL_RUN_DIR": folder}
    with subprocess.Popen(
        [sys.executable, *arguments], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield next(line for line in process.stdout if re.search(r"look into|http://", line))
        finally:
            process.terminate()


def manager(client: Client, pool: str) -> int:
    """Return the number of a pool's manager, once it has one."""
    while True:
        with contextlib.suppress(NodeError):  # the pool has not begun
            man = client.get(f"/v1/pools/{pool}")["pool"]["man"]
            if man is not None:
                return int(man["id"])


def fell(client: Client, pool: str) -> None:
    """Kill the manager of a pool, and wait for the next one."""
    man = manager(client, pool)
    client.post("/v1/actions", {"action": "kill", "process": man, "confirm": f"#PID<{man}>"})
    while manager(client, pool) == man:
        pass


def take_tree(browser: Browser, url: str, node: str, path: Path) -> None:
    """Take the picture of the tree."""
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2, color_scheme="light"
    )
    page.goto(url)  # its token is swapped for a cookie
    page.goto(f"{page.url}#/{node}/tree")
    page.get_by_text("pool_man").first.wait_for()
    page.locator(".restarts").first.wait_for()
    _keep(page, path)


async def top_as_svg(folder: str) -> str:
    """Return gpool top, as it shows the processes of the example."""
    app = Top(Nodes(RunDir(folder)))
    async with app.run_test(size=(COLUMNS, LINES)) as pilot:
        await pilot.press("2")
        while "PoolMan" not in (svg := app.export_screenshot(title="gpool top")):
            await pilot.pause()
        return svg


def take_top(browser: Browser, svg: str, path: Path) -> None:
    """Take the picture of gpool top."""
    page = browser.new_page(device_scale_factor=2)
    page.set_content(f"<body style='margin:0'>{svg}</body>")
    box = page.locator("svg").bounding_box()
    assert box is not None
    page.set_viewport_size({"width": int(box["width"]), "height": int(box["height"])})
    _keep(page, path)


def _keep(page: Page, path: Path) -> None:
    page.screenshot(path=path)
    page.close()
    print(path.relative_to(DOCS.parent))


def main() -> None:
    """Take both."""
    with (
        tempfile.TemporaryDirectory(prefix="gpool-") as folder,
        running(folder, str(EXAMPLE)) as said,
    ):
        [node] = re.findall(r"process (\S+):", said)
        client = Client(RunDir(folder).socket(node))
        for _ in range(2):
            fell(client, "painters")
        svg = asyncio.run(top_as_svg(folder))  # Playwright has an event loop of its own
        with (
            running(folder, "-m", "gpool", "web", "--port=0") as url,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            take_tree(browser, url.strip(), node, IMAGES / "observer-tree.png")
            take_top(browser, svg, IMAGES / "gpool-top.png")


if __name__ == "__main__":
    main()
