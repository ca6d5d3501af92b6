"""Child specifications and backoffs: defaults, and every fault by its name."""

from __future__ import annotations

import itertools
import math

import pytest

import gpool
from gpool import Backoff, ChildSpec, SpecError


def start_link():
    """Stand for a start function."""


class TestDefaults:
    def test_of_a_worker(self):
        """S1: a child is a permanent worker with 5 s to stop, and not significant."""
        spec = ChildSpec("a", start_link)
        assert (spec.restart, spec.type, spec.shutdown) == ("permanent", "worker", 5.0)
        assert (spec.significant, spec.args, spec.kwargs) == (False, (), {})
        assert spec.backoff is None

    def test_of_a_supervisor(self):
        """S1: a child that is a supervisor gets as long as it needs to stop."""
        assert ChildSpec("a", start_link, type="supervisor").shutdown is None

    def test_an_explicit_shutdown_wins(self):
        """S1: the default shutdown depends on the type only if none is given."""
        assert ChildSpec("a", start_link, type="supervisor", shutdown=3).shutdown == 3
        assert ChildSpec("a", start_link, shutdown=None).shutdown is None

    def test_none_is_an_id(self):
        """Whatever is hashable is an id, None too."""
        assert ChildSpec(None, start_link).id is None


FAULTS = [
    ({"start": start_link}, "missing_id"),
    ({"id": "a"}, "missing_start"),
    ({"id": [], "start": start_link}, "invalid_id"),
    ({"id": "a", "start": "os.getpid"}, "invalid_start"),
    ({"id": "a", "start": start_link, "args": "ab"}, "invalid_start"),
    ({"id": "a", "start": start_link, "args": 3}, "invalid_start"),
    ({"id": "a", "start": start_link, "kwargs": ()}, "invalid_start"),
    ({"id": "a", "start": start_link, "restart": "always"}, "invalid_restart_type"),
    ({"id": "a", "start": start_link, "restart": None}, "invalid_restart_type"),
    ({"id": "a", "start": start_link, "restart": ["permanent"]}, "invalid_restart_type"),
    ({"id": "a", "start": start_link, "shutdown": -1}, "invalid_shutdown"),
    ({"id": "a", "start": start_link, "shutdown": "infinity"}, "invalid_shutdown"),
    ({"id": "a", "start": start_link, "shutdown": math.nan}, "invalid_shutdown"),
    ({"id": "a", "start": start_link, "shutdown": math.inf}, "invalid_shutdown"),
    ({"id": "a", "start": start_link, "shutdown": True}, "invalid_shutdown"),
    ({"id": "a", "start": start_link, "type": "process"}, "invalid_child_type"),
    ({"id": "a", "start": start_link, "significant": 1}, "invalid_significant"),
    ({"id": "a", "start": start_link, "significant": True}, "bad_combination"),
    ({"id": "a", "start": start_link, "backoff": 0.5}, "invalid_backoff"),
]


class TestFaults:
    @pytest.mark.parametrize(("options", "fault"), FAULTS)
    def test_have_names(self, options, fault):
        """S2: a bad value is refused at construction; the error holds fault, expected, got."""
        with pytest.raises(SpecError, match=f"^{fault}: expected .*, got ") as caught:
            ChildSpec(**options)
        assert caught.value.fault == fault

    def test_an_unknown_key_is_refused(self):
        """S2: OTP ignores keys that it does not know; we do not."""
        with pytest.raises(TypeError, match="restrat"):
            ChildSpec("a", start_link, restrat="permanent")

    def test_every_valid_combination_is_taken(self):
        """child_specs_map: every valid value goes with every other."""
        for restart, shutdown, kind in itertools.product(
            ("permanent", "transient", "temporary"),
            ("brutal_kill", 0, 1.5, None),
            ("worker", "supervisor"),
        ):
            for significant in (False,) if restart == "permanent" else (False, True):
                spec = ChildSpec(
                    "a",
                    start_link,
                    restart=restart,
                    shutdown=shutdown,
                    type=kind,
                    significant=significant,
                )
                assert (spec.restart, spec.shutdown, spec.type) == (restart, shutdown, kind)

    def test_is_frozen(self):
        """A specification that is checked stays as it is."""
        with pytest.raises(AttributeError):
            ChildSpec("a", start_link).id = "b"


class TestWithArguments:
    def test_changes_nothing_else(self):
        """Other arguments, the same child."""
        spec = ChildSpec("a", start_link, (1,), {"x": 1}, restart="transient", shutdown=2)
        other = spec.with_arguments((), {})
        assert (other.args, other.kwargs) == ((), {})
        assert (other.id, other.restart, other.shutdown) == ("a", "transient", 2)


class TestBackoff:
    def test_grows_up_to_its_maximum(self):
        """Each failure multiplies the delay, up to the maximum."""
        backoff = Backoff(first=1, maximum=10, factor=2, jitter=0)
        assert [backoff.delay(n) for n in range(6)] == [1, 2, 4, 8, 10, 10]

    def test_does_not_overflow(self):
        """A child may fail as often as it likes."""
        assert Backoff(first=1, maximum=10, factor=2, jitter=0).delay(10**6) == 10

    def test_full_jitter_takes_anything_up_to_the_delay(self):
        """With jitter 1 the delay lies between 0 and what it would be without."""
        delays = [Backoff(first=1, maximum=1).delay(0) for _ in range(200)]
        assert 0 <= min(delays) < 0.2
        assert 0.8 < max(delays) <= 1

    def test_part_of_it_may_be_random(self):
        """With jitter j at least 1 - j of the delay is certain."""
        delays = [Backoff(first=1, maximum=1, jitter=0.25).delay(0) for _ in range(100)]
        assert min(delays) >= 0.75

    @pytest.mark.parametrize(
        "options",
        [
            {"first": 0},
            {"first": "1"},
            {"first": 2, "maximum": 1},
            {"maximum": math.inf},
            {"factor": 0.5},
            {"jitter": 1.5},
            {"jitter": -0.1},
            {"jitter": True},
        ],
    )
    def test_refuses_nonsense(self, options):
        """A bad value is refused, with what was expected and what came."""
        with pytest.raises(SpecError, match=r"^invalid_backoff: expected .*, got "):
            Backoff(**options)


def test_spec_errors_are_value_errors():
    """Who expects a ValueError of a constructor gets one."""
    assert issubclass(gpool.SpecError, ValueError)
