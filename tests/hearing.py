"""What telemetry tells while a test runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gpool import telemetry


@contextlib.contextmanager
def heard(*kinds: type[telemetry.Event]) -> Iterator[list[Any]]:
    """Give the events of these kinds that are told meanwhile, oldest first; of all, if of none."""
    told: list[telemetry.Event] = []

    def listen(event: telemetry.Event) -> None:
        if isinstance(event, kinds or telemetry.Event):
            told.append(event)

    telemetry.attach(listen)
    try:
        yield told
    finally:
        telemetry.detach(listen)
