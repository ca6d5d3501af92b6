"""Jobs for whichever worker is free: call, map, cast, broadcast, and what a death does to them."""

import gevent

import gpool


class Press(gpool.GenServer):
    """Prints sheets, some slower than others; number 13 breaks it."""

    def init(self) -> None:
        """Begin to count."""
        self.printed = 0

    @gpool.call
    def sheet(self, number: int) -> str:
        """Print one sheet."""
        gevent.sleep(0.05 if number % 2 else 0.15)
        if number == 13:
            raise RuntimeError("paper jam")
        self.printed += 1
        return f"sheet {number}"

    @gpool.call
    def count(self) -> int:
        """Tell how many there were."""
        return self.printed


if __name__ == "__main__":
    with gpool.Pool(Press, size=3, name="presses") as presses:
        print("one:          ", presses.call(Press.sheet, 1))
        print("in order:     ", presses.map(Press.sheet, range(2, 8)))

        outcomes = presses.map(Press.sheet, [12, 13, 14], on_error="return")
        print("one failed:   ", [str(it) if isinstance(it, str) else type(it) for it in outcomes])

        for number in range(20, 23):
            presses.cast(Press.sheet, number)  # nobody waits for these
        gevent.sleep(0.5)
        print("by each press:", presses.broadcast(Press.count))
