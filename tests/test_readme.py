"""The README: what it tells to type works, and what it shows is what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.test_examples import ENVIRONMENT, EXAMPLES, command

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text()


def section(title: str) -> str:
    """Return a section without its title."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(title: str, language: str) -> list[str]:
    """Return the code blocks of a section."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)


def output_of(code: str) -> str:
    """Run code in a process of its own, warnings being errors, and return what it prints."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return process.stdout


class TestQuickStart:
    def test_prints_what_it_says(self) -> None:
        """The first block runs as it stands."""
        assert output_of(blocks("Quick start", "python")[0]) == "42\n"

    def test_lends_connections(self, postgres: str) -> None:
        """The others go on from there, once there is a database and something to fetch."""
        first, second, third = blocks("Quick start", "python")
        see = "    print(connection.execute('select 1').fetchone(), db)"
        fetch = "def fetch(it, n): return it.execute('select %s + 1', [n]).fetchone()[0]"
        given = f"{fetch}\nuser_id, user_ids = 1, [1, 2, 3]"
        run = third.replace("db.call", "one = db.call").replace("db.map", "all = db.map")
        code = f"DSN = {postgres!r}\n{first}\n{second}{see}\n{given}\n{run}\nprint(one, all)"
        assert output_of(code) == "42\n(1,) <Pool 'db': ready>\n2 [2, 3, 4]\n"


class TestAtHome:
    def test_is_five_lines(self) -> None:
        """They run in an application, which then has the extension."""
        flask, gunicorn = blocks("At home", "python")
        assert len([line for line in (flask + gunicorn).splitlines() if line]) == 5
        see = "print(sorted(app.extensions))"
        code = f"from flask import Flask\napp = Flask('shop')\n{flask}\n{gunicorn}\n{see}"
        assert "gpool" in output_of(code)

    def test_leads_to_pages(self) -> None:
        """Each that is named is there."""
        pages = re.findall(r"\]\((docs/[\w/-]+\.md)\)", README)
        assert [page for page in pages if not (CHECKOUT / page).exists()] == []


class TestTryIt:
    def test_is_one_command_first(self) -> None:
        """It makes an environment, installs this checkout, and starts the main job."""
        [line] = blocks("Try it", "console")[0].splitlines()
        steps = [step.split() for step in line.split(" && ")]
        assert steps[0] == ["python3", "-m", "venv", ".venv"]
        assert steps[1] == [".venv/bin/pip", "install", "-q", "."]
        assert steps[2] == [".venv/bin/python", "examples/web.py"]

    def test_names_files_that_exist(self) -> None:
        """Those given without their folder are examples."""
        for path in re.findall(r"\S+\.py\b", section("Try it")):
            name = path.strip("`").removeprefix("examples/")
            assert (EXAMPLES / name).is_file(), path

    def test_names_options_that_exist(self) -> None:
        """All that begins with two dashes is an option of the main job."""
        usage = subprocess.check_output(command("web.py", "--help"), env=ENVIRONMENT, text=True)
        for option in re.findall(r"--[a-z][a-z-]*", section("Try it")):
            assert re.search(rf"^  {option}\b", usage, re.MULTILINE), option

    def test_names_an_extra_that_exists(self) -> None:
        """PostgreSQL needs one."""
        [extra] = re.findall(r"'\.\[(.*?)\]'", section("Try it"))
        assert f"\n{extra} = [" in (CHECKOUT / "pyproject.toml").read_text()

    def test_shows_the_table_that_the_program_prints(self) -> None:
        """Every label of the table is one of the program's, in its order."""
        [table] = blocks("Try it", "text")
        shown = re.findall(r"^[a-z][a-z -]*?(?=  )", table, re.MULTILINE)
        program = (EXAMPLES / "web_report.py").read_text()
        assert [label for label in shown if f'"{label}"' not in program] == []
        places = [program.index(f'"{label}"') for label in shown]
        assert places == sorted(places)


class TestTestIt:
    def test_is_one_command(self) -> None:
        """What .ci/run reads and runs."""
        [line] = blocks("Test it", "console")[0].splitlines()
        assert line.endswith(".venv/bin/python -m pytest -n auto")
