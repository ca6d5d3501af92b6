"""Options: defaults, what None and 0 mean, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import gpool
from gpool.pool.options import Options
from tests.pool.workshop import Echo

SECONDS = ["overflow_ttl", "timeout", "finish_timeout", "shutdown", "check_after"]
POSITIVE = ["start_timeout", "check_timeout", "max_hold", "max_age", "idle_timeout", "keepalive"]
WINDOWS = ["max_seconds", "start_failure_window"]
LIMITS = ["max_uses", "max_starting", "max_start_failures"]
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
        assert (options.min_ready, options.max_starting, options.fail_fast) == (None, 10, False)
        assert (options.max_age, options.max_uses, options.idle_timeout) == (None, None, None)
        assert (options.max_hold, options.on_max_hold) == (None, "warn")
        assert (options.check_after, options.check_timeout, options.keepalive) == (0.5, 2.0, None)
        assert (options.max_start_failures, options.start_failure_window) == (None, 60.0)

    @pytest.mark.parametrize("name", SECONDS)
    @pytest.mark.parametrize("value", [None, 0, 0.0, 2, 1.5])
    def test_seconds(self, name: str, value: Any) -> None:
        """None is for ever, 0 at once, whole or not."""
        assert getattr(Options(**{name: value}), name) == value

    @pytest.mark.parametrize("name", [*SECONDS, *POSITIVE, *WINDOWS])
    @pytest.mark.parametrize("value", [-1, -0.1, float("nan"), "5", True, [5]])
    def test_refuses_bad_seconds(self, name: str, value: Any) -> None:
        """Bad input: expected and got."""
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected seconds.*, got "):
            Options(**{name: value})

    def test_refuses_a_shutdown_without_end(self) -> None:
        """No supervisor takes it, so the pool would fail at its start; None is for ever."""
        with pytest.raises(ValueError, match=r"^shutdown: expected seconds .*, got inf"):
            Options(shutdown=float("inf"))

    @pytest.mark.parametrize("name", POSITIVE)
    @pytest.mark.parametrize("value", [None, 2, 1.5])
    def test_seconds_that_are_not_zero(self, name: str, value: Any) -> None:
        """None is for ever, or never."""
        assert getattr(Options(**{name: value}), name) == value

    @pytest.mark.parametrize("name", [*POSITIVE, *WINDOWS])
    def test_refuses_zero_where_nothing_could_happen(self, name: str) -> None:
        """A start that may take no time never succeeds; nothing can be held for no time."""
        with pytest.raises(ValueError, match=rf"^{name}: expected seconds > 0.*, got 0"):
            Options(**{name: 0})

    @pytest.mark.parametrize("name", WINDOWS)
    def test_a_window_is_not_for_ever(self, name: str) -> None:
        """It has a length."""
        with pytest.raises(TypeError, match=rf"^{name}: expected seconds > 0, got None"):
            Options(**{name: None})  # type: ignore[arg-type]

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
        [
            ("strategy", "random"), ("strategy", None), ("lazy", 1), ("lazy", None), ("debug", 1),
            ("fail_fast", 1), ("fail_fast", None), ("on_max_hold", "kill"), ("on_max_hold", None),
            ("on_max_hold", True),
        ],
    )  # fmt: skip
    def test_refuses_other_words(self, name: str, value: Any) -> None:
        """Closed sets are closed."""
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected "):
            Options(**{name: value})

    @pytest.mark.parametrize("name", LIMITS)
    @pytest.mark.parametrize("value", [0, -1, 1.0, "1", True])
    def test_refuses_bad_limits(self, name: str, value: Any) -> None:
        """None is no limit; none at all would be no pool."""
        assert getattr(Options(**{name: 1}), name) == 1
        assert getattr(Options(**{name: None}), name) is None
        words = rf"^{name}: expected (a whole number|0 or more|1 or more, or None), got "
        with pytest.raises((TypeError, ValueError), match=words):
            Options(**{name: value})

    @pytest.mark.parametrize("value", [-1, 1.0, True, 6])
    def test_refuses_bad_min_ready(self, value: Any) -> None:
        """Between none and all of `size`."""
        assert Options(min_ready=0).ready_at == 0
        assert Options(min_ready=5).ready_at == 5
        with pytest.raises((TypeError, ValueError), match=r"^min_ready: expected .*, got "):
            Options(min_ready=value)

    def test_ready_at(self) -> None:
        """All of `size`, none if it is lazy, unless `min_ready` says how many."""
        assert Options(size=3).ready_at == 3
        assert Options(size=3, lazy=True).ready_at == 0
        assert Options(size=3, lazy=True, min_ready=2).ready_at == 2

    def test_keepalive_needs_a_check(self) -> None:
        """Neither a server nor a thing without one can be kept alive: told at construction."""
        words = "^keepalive: expected None, or a Resource with a check, got 30"
        for worker in (Echo, gpool.Resource(create=list), gpool.ChildSpec("echo", Echo.start_link)):
            with pytest.raises(ValueError, match=words):
                gpool.Pool(worker, keepalive=30)  # type: ignore[call-overload]
        checked = gpool.Resource(create=list, check=len)
        assert gpool.Pool(checked, keepalive=30).stats().phase == "stopped"

    def test_a_pool_without_any_worker(self) -> None:
        """Allowed with overflow only."""
        with pytest.raises(ValueError, match="got 0 and 0"):
            Options(size=0)
        assert Options(size=0, max_overflow=2).cap == 2


class TestCap:
    def test_is_size_and_overflow(self) -> None:
        """The most workers that may exist at once."""
        assert Options(size=3, max_overflow=4).cap == 7
