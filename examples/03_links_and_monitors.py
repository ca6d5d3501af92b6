"""Links and monitors in ten lines: who hears of whose death, and who dies of it."""

import gpool


def parent() -> None:
    """Tie the own life to that of a child which will not live long."""
    gpool.spawn_link(gpool.exit, "boom")
    gpool.receive()


if __name__ == "__main__":
    gpool.spawn_monitor(gpool.exit, "done")
    print("a monitor tells of a death, whatever it was: ", gpool.receive())

    gpool.spawn_monitor(parent)
    print("a link ends those who do not trap exits:     ", gpool.receive())

    gpool.trap_exit(True)
    gpool.exit(gpool.spawn_link(gpool.receive), "kill")
    print("whoever traps them gets a message and lives: ", gpool.receive())

    gpool.monitor("nobody")
    print("a monitor on nobody answers at once:         ", gpool.receive())
