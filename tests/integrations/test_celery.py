"""What the page about Celery shows: a worker of its own kind, started, used and ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.redis import Redis
from tests.waiting import until

pytest.importorskip("celery")

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs/how-to/celery.md").read_text()
SWITCHES = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=info"]
CLIENT = """
import celery.exceptions
import tasks

counts = [tasks.count.delay(1) for _ in range(50)]
assert sorted(one.get(timeout=20) for one in counts) == list(range(1, 51))
for _ in range(5):  # more than there are connections
    assert "SupervisedConnection" in tasks.forget.delay().get(timeout=20)
hung = [tasks.hang.delay() for _ in range(5)]
for one in hung:
    try:
        raise AssertionError(one.get(timeout=20))
    except celery.exceptions.TimeLimitExceeded:
        pass
doomed = [tasks.hang.apply_async(time_limit=60) for _ in range(3)]  # all connections
while len(tasks.app.control.inspect().active().popitem()[1]) < 3:
    pass
tasks.app.control.revoke([one.id for one in doomed], terminate=True)
for one in doomed:
    try:
        raise AssertionError(one.get(timeout=20))
    except celery.exceptions.TaskRevokedError:
        pass
assert tasks.count.delay(1).get(timeout=20) == 51
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give the environment of a folder with the page's file, beside a Redis."""
    (tmp_path / "tasks.py").write_text(re.search(r":caption: tasks.py\n\n(.*?)```", PAGE, re.S)[1])
    with Redis() as redis:
        path = os.pathsep.join([str(CHECKOUT), str(tmp_path)])
        kept = {name: word for name, word in os.environ.items() if name != "PYTHONSAFEPATH"}
        yield kept | {"REDIS_URL": redis.url, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


@pytest.mark.timeout(90)
class TestWorker:
    def test_of_the_page(self, environment: dict[str, str], tmp_path: Path) -> None:
        """Tasks count, forget their connections and run out of time: the pool stays whole."""
        words = re.search(r"^celery (-A tasks worker .*)$", PAGE, re.M)[1].split()
        log = tmp_path / "log"
        with log.open("w") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", *words, *SWITCHES],
                cwd=tmp_path, env=environment, stdout=output, stderr=output,
            )  # fmt: skip
            try:
                send = subprocess.run(
                    [sys.executable, "-c", CLIENT],
                    cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
                )  # fmt: skip
                assert send.returncode == 0, send.stderr + log.read_text()
                until(lambda: log.read_text().count("reclaimed") == 5, "all to be taken back")
                worker.terminate()
                assert worker.wait(timeout=20) == 0, log.read_text()
            finally:
                worker.kill()
                worker.wait()
        said = log.read_text()
        assert f"{tmp_path}/tasks.py" in re.search(r".*reclaimed", said)[0]
        assert "pool 'cache' runs" in said
        assert "Traceback" not in said.replace("TimeLimitExceeded", "")
