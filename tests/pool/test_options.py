"""Options: defaults, what None and 0 mean, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from gpool.pool.options import Options

SECONDS = ["overflow_ttl", "timeout", "finish_timeout", "shutdown"]
COUNTS = ["size", "max_overflow", "max_restarts"]


class TestInit:
    def test_defaults(self) -> None:
        """Those of DESIGN's table."""
        options = Options()
        assert (options.size, options.max_overflow, options.overflow_ttl) == (5, 0, 5.0)
        assert (options.strategy, options.lazy, options.timeout) == ("lifo", False, 5.0)
        assert (options.max_waiting, options.start_timeout) == (None, 30.0)
        assert (options.finish_timeout, options.shutdown) == (5.0, 5.0)
        assert (options.max_restarts, options.max_seconds, options.debug) == (10, 60.0, False)

    @pytest.mark.parametrize("name", SECONDS)
    @pytest.mark.parametrize("value", [None, 0, 0.0, 2, 1.5])
    def test_seconds(self, name: str, value: Any) -> None:
        """None is for ever, 0 at once, whole or not."""
        assert getattr(Options(**{name: value}), name) == value

    @pytest.mark.parametrize("name", [*SECONDS, "start_timeout", "max_seconds"])
    @pytest.mark.parametrize("value", [-1, -0.1, float("nan"), "5", True, [5]])
    def test_refuses_bad_seconds(self, name: str, value: Any) -> None:
        """Bad input: expected and got."""
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected seconds.*, got "):
            Options(**{name: value})

    @pytest.mark.parametrize(("name", "value"), [("start_timeout", 0), ("max_seconds", 0)])
    def test_refuses_zero_where_nothing_could_happen(self, name: str, value: Any) -> None:
        """A start that may take no time never succeeds."""
        with pytest.raises(ValueError, match=rf"^{name}: expected seconds > 0"):
            Options(**{name: value})

    def test_max_seconds_is_not_for_ever(self) -> None:
        """A window has a length."""
        with pytest.raises(TypeError, match="max_seconds: expected seconds > 0, got None"):
            Options(max_seconds=None)  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", COUNTS)
    @pytest.mark.parametrize("value", [-1, 1.0, "1", True, None])
    def test_refuses_bad_counts(self, name: str, value: Any) -> None:
        """Bad input: expected and got."""
        words = rf"^{name}: expected (a whole number|0 or more), got "
        with pytest.raises((TypeError, ValueError), match=words):
            Options(**{name: value})

    @pytest.mark.parametrize("value", [-1, 1.0, True])
    def test_refuses_bad_max_waiting(self, value: Any) -> None:
        """None is no limit, 0 that nobody may wait."""
        assert Options(max_waiting=0).max_waiting == 0
        with pytest.raises((TypeError, ValueError), match=r"^max_waiting: expected "):
            Options(max_waiting=value)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("strategy", "random"), ("strategy", None), ("lazy", 1), ("lazy", None), ("debug", 1)],
    )
    def test_refuses_other_words(self, name: str, value: Any) -> None:
        """Closed sets are closed."""
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected "):
            Options(**{name: value})

    def test_a_pool_without_any_worker(self) -> None:
        """Allowed with overflow only."""
        with pytest.raises(ValueError, match="got 0 and 0"):
            Options(size=0)
        assert Options(size=0, max_overflow=2).cap == 2


class TestCap:
    def test_is_size_and_overflow(self) -> None:
        """The most workers that may exist at once."""
        assert Options(size=3, max_overflow=4).cap == 7
