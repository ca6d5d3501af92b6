"""What the tests of the kit share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpool import telemetry
from tests.otp.nursery import Events, Nursery


@pytest.fixture
def nursery() -> Nursery:
    """Give the test children that are told what to do."""
    return Nursery()


@pytest.fixture
def reports() -> Iterator[Events]:
    """Collect what supervisors report, as (context, reason, child)."""
    yield from _attached(Events(telemetry.SupervisorReport, "context", "reason", "child"))


@pytest.fixture
def crashes() -> Iterator[Events]:
    """Collect the reports of crashes, as (process, reason)."""
    yield from _attached(Events(telemetry.ProcessCrashed, "process", "reason"))


@pytest.fixture
def unexpected() -> Iterator[Events]:
    """Collect what was sent to servers that do not know it."""
    yield from _attached(Events(telemetry.UnexpectedMessage, "process", "message"))


def _attached(events: Events) -> Iterator[Events]:
    telemetry.attach(events)
    yield events
    telemetry.detach(events)
