"""A process to look into: a pool of two workers, one of them held, and a process that crashed.

    python looked_into.py RUN_DIR [--actions]

It says "up", and then does what it is told, a word a line: "block" stops its hub until the
next word comes; the end of its input ends it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent

import gpool
import gpool.observer


class Doubler(gpool.GenServer):
    """A worker."""

    @gpool.call
    def compute(self, number: int) -> int:
        """Double it."""
        return 2 * number


def hold(pool: gpool.Pool[Doubler]) -> None:
    """Keep a worker."""
    with pool.checkout():
        gpool.receive()


def crash() -> None:
    """Die."""
    raise ValueError("no")


def stand_still() -> None:
    """Read as one should not: nothing else runs meanwhile."""
    sys.stdin.readline()


def main(run_dir: str, *options: str) -> None:
    """Be looked into."""
    gpool.observer.start(run_dir=run_dir, allow_actions="--actions" in options)
    pool = gpool.Pool(Doubler, size=2, name="db")
    gpool.spawn(hold, pool)
    gpool.spawn(crash)
    pool.wait_ready()
    gevent.idle()
    print("up", flush=True)
    while word := gevent.get_hub().threadpool.apply(sys.stdin.readline):
        print(word, end="", flush=True)
        if word == "block\n":
            stand_still()


def environment() -> dict[str, str]:
    """Return the environment of a process that uses the gpool under test."""
    return os.environ | {"PYTHONPATH": str(Path(gpool.__file__).parents[1])}


@contextlib.contextmanager
def looked_into(run_dir: Path, *options: str) -> Iterator[Callable[[str | None], None]]:
    """Start one, and give what tells it a word; None ends it."""
    command = [sys.executable, __file__, str(run_dir), *options]
    with subprocess.Popen(
        command, env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"

        def tell(word: str | None) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            if word is None:
                process.stdin.close()
                return
            process.stdin.write(f"{word}\n")
            process.stdin.flush()

        try:
            yield tell
        finally:
            process.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
