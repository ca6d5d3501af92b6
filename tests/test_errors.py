"""What errors say to those who read them."""

from __future__ import annotations

from typing import Any

import pytest

import gpool
from gpool.otp.pid import Error

MANY_LINES = OSError("connection refused\n\tIs the server running?\n")


class TestStartFailure:
    @pytest.mark.parametrize(
        ("reason", "words"),
        [
            (Error(MANY_LINES), "OSError: connection refused Is the server running?"),
            (Error(KeyError()), "KeyError"),
            (("start_timeout", 0.5), "one took longer than start_timeout, 0.5 s"),
            ("ignore", "'ignore'"),
        ],
    )
    def test_is_worded_on_one_line(self, reason: Any, words: str) -> None:
        """By all errors that tell why no worker came."""
        timeout = gpool.CheckoutTimeout("db", 5.0, 0, 0, 0, start_failure=reason)
        assert str(timeout).endswith(f"workers do not start: {words}; it goes on trying")
        failing = gpool.StartsFailing("db", 3, reason)
        assert str(failing).endswith(f"(3 in a row): {words}; it goes on trying")
        not_ready = gpool.PoolNotReady("db", 5.0, 0, 2, reason)
        assert f"5 s; the last start failed: {words}; it" in str(not_ready)


class TestCheckoutTimeout:
    def test_blames_no_client_while_a_start_hangs(self) -> None:
        """Nobody holds a worker: a server that is silent is to blame."""
        text = str(gpool.CheckoutTimeout("db", 5.0, 0, 1, 0))
        assert text.endswith("a start has not ended yet: look at what workers connect to")
        assert "never check in" in str(gpool.CheckoutTimeout("db", 5.0, 1, 1, 0, "somebody"))
