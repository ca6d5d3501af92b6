"""The benchmarks: they find nothing in gpool, and something in pools that are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpool

HERE = Path(__file__).parent
PATHS = (Path(gpool.__file__).parents[1], HERE.parents[1])  # the package may be a wheel's
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, PATHS))}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they ask Linux for open sockets")


def run(*arguments: str) -> str:
    """Run Python to its end, and return what it prints."""
    process = subprocess.run(
        [sys.executable, *arguments],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=25,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


class TestChaos:
    def test_loses_nothing_of_gpool(self) -> None:
        """Half a second of it, PoolSup's death included."""
        text = run(
            "-m", "benchmarks.torture.chaos", "--json", "--seconds=0.5", "--faults=300", "--seed=1"
        )
        outcome = json.loads(text)
        assert outcome["operations"] > 0
        for victim in ("client", "worker", "PoolSup"):
            assert any(what.startswith(f"{victim} killed") for what in outcome["faults"])
        for harm in ("slots_lost", "wrong_replies", "lent_to_two", "above_cap"):
            assert outcome[harm] == 0, outcome


@pytest.fixture(scope="module")
def said() -> Any:
    """Give what the benchmarks say of gpool and of two broken pools."""
    return json.loads(run(str(HERE / "broken.py")))


class TestBroken:
    def test_gpool_is_not(self, said: Any) -> None:
        """The scenarios have nothing to say against it."""
        assert set(said["gpool"].values()) == {"ok"}, said["gpool"]

    @pytest.mark.parametrize(
        ("pool", "scenario", "word"),
        [
            ("leaky", "T1", "slot gone"),
            ("leaky", "T2", "slot gone"),
            ("leaky", "T3", "slot gone"),
            ("hasty", "T4", "starve"),
            ("leaky", "T5", "slot gone"),
            ("hasty", "T6", "open"),
            ("leaky", "T7", "slot gone"),
            ("hasty", "T8", "order [4"),
        ],
    )
    def test_is_found_out(self, said: Any, pool: str, scenario: str, word: str) -> None:
        """Each scenario can fail, and says how."""
        assert word in said[pool][scenario]

    def test_is_found_out_by_chaos(self, said: Any) -> None:
        """A leak loses slots; haste exceeds the cap, and has replies read by others."""
        leaky, hasty = said["leaky"]["chaos"], said["hasty"]["chaos"]
        assert leaky["slots_lost"] > 0
        assert hasty["wrong_replies"] > 0
        assert hasty["above_cap"] > 0
        assert not leaky["is_whole"]
        assert not hasty["is_whole"]
