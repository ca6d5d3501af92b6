"""Things to lend, which remember what was done to them."""

from __future__ import annotations

import gpool


class Thing:
    """What is lent."""

    resets = 0
    closed = False

    def reset(self) -> None:
        """Count."""
        self.resets += 1

    def close(self) -> None:
        """Remember."""
        self.closed = True


THINGS = gpool.Resource(create=Thing, reset=Thing.reset, close=Thing.close)
