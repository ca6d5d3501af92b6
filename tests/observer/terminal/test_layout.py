"""Widths, tables, ages and bars of text for terminals."""

from __future__ import annotations

import pytest

from gpool.observer.terminal.layout import (
    ASCII,
    Column,
    bar,
    clean,
    cut,
    duration,
    moment,
    pad,
    sparkline,
    table,
    width,
)


class TestClean:
    @pytest.mark.parametrize(
        ("text", "harmless"),
        [
            ("plain é 猫", "plain é 猫"),
            ("\x1b[2J", r"\x1b[2J"),
            ("two\nlines\t", r"two\nlines\t"),
            ("\x9b31m", r"\x9b31m"),
            ("\u202egnp", r"\u202egnp"),
            ("\udc80", r"\udc80"),
        ],
    )
    def test_leaves_nothing_that_a_terminal_obeys(self, text, harmless):
        """Escapes, line ends, C1 controls, text directions and lone surrogates are spelt out."""
        assert clean(text) == harmless


class TestWidth:
    def test_counts_columns_not_characters(self):
        """East Asian characters take two columns, combining ones none."""
        assert [width(text) for text in ("ab", "猫", "e\u0301")] == [2, 2, 1]


class TestCut:
    def test_says_that_something_is_left_out(self):
        """The last column that is left holds an ellipsis."""
        assert [cut("gevent", columns) for columns in (6, 5, 1, 0)] == ["gevent", "geve…", "…", ""]

    def test_does_not_halve_a_wide_character(self):
        """One that would stick out by half is left out whole."""
        assert pad("猫猫猫", 4) == "猫… "


class TestTable:
    COLUMNS = (Column("PID"), Column("NAME", least=4), Column("AGE", right=True))

    def test_aligns(self):
        """Texts stand left, numbers right, nothing as "-"."""
        rows = [(1, "PoolMan", 3), (23, None, 12)]
        assert table(self.COLUMNS, rows) == [
            "PID  NAME     AGE",
            "1    PoolMan    3",
            "23   -         12",
        ]

    def test_cuts_what_may_be_cut_to_fit(self):
        """Columns that may shrink do, down to their least; then lines are cut."""
        rows = [(1, "a_rather_long_name", 3)]
        assert table(self.COLUMNS, rows, 18)[1] == "1    a_rathe…    3"
        assert table(self.COLUMNS, rows, 12)[1] == "1    a_r…  …"

    def test_is_empty_without_rows(self):
        """Headings alone say nothing."""
        assert table(self.COLUMNS, []) == []


class TestDuration:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (None, "-"), (0, "0ms"), (0.0015, "1.5ms"), (0.12, "120ms"), (0.9996, "1.0s"),
            (59.94, "59.9s"), (59.96, "1m00s"), (3599.7, "1h00m"), (7500, "2h05m"),
            (200000, "2d07h"),
        ],
    )  # fmt: skip
    def test_is_short(self, seconds, text):
        """Two units at most, and never sixty of one."""
        assert duration(seconds) == text


class TestMoment:
    def test_has_the_date_unless_it_is_todays(self):
        """An event of yesterday does not look like one of today."""
        now = 1764200000.0
        assert len(moment(now, now)) == len("12:00:00")
        assert len(moment(now - 86400, now)) == len("11-26 12:00:00")


class TestBar:
    def test_shows_whatever_there_is(self):
        """A small part takes a column, and nothing sticks out."""
        assert bar([(1, "#"), (99, "=")], 1000, 10) == "#=........"
        assert bar([(5, "#"), (5, "=")], 5, 4) == "####"
        assert bar([], 0, 3) == "..."


class TestSparkline:
    def test_shows_the_latest_and_leaves_gaps(self):
        """A blank is where nothing was measured; something is more than nothing."""
        assert sparkline([9, None, 0, 1, 100], 4) == " ▁▂█"
        assert sparkline([5], 4, top=10) == "▅"


class TestAscii:
    def test_keeps_the_width(self):
        """Each drawn character has one of ASCII that takes as much room."""
        assert "├── └── … █▓░ ▁█".translate(ASCII) == "|-- `-- ~ #=. _#"
