"""The article's whole example: five jobs on three workers, then everything is killed once.

Watch the Pids: those of the workers, of PoolMan and of WorkerSup change when
something dies; PoolSup, above them, stays.
"""

import time

import gevent
from doubler import Doubler
from tree import find, show

import gpool

pool = gpool.Pool(Doubler, size=3, name="doublers")


def job(n: int) -> None:
    """Be a client: borrow a worker, use it, give it back."""
    me = gpool.self()
    try:
        with pool.checkout() as doubler:
            print(f"{me!r} got {doubler.compute(n)} from {doubler!r}")
    except gpool.GPoolError as error:
        print(f"{me!r} failed: {error}")


def five_jobs() -> None:
    """Do what would take one worker 2.5 s."""
    print("\n== five jobs on three workers")
    start = time.monotonic()
    gevent.joinall([gevent.spawn(job, n) for n in range(1, 6)])
    print(f"done in {time.monotonic() - start:.1f} s")


def look(title: str, top: gpool.Pid) -> None:
    """Print a tree, and who has which worker."""
    print(f"\n== {title}")
    lent = {holder.worker.pid: f"lent to {holder.pid!r}" for holder in pool.holders()}
    show(top, lent)
    print("PoolMan knows", gpool.sys.get_status(find("PoolMan")).state)


def kill(what: str) -> None:
    """Kill a process while a client has its worker do something; look before and after."""
    client = gpool.spawn(job, 21)
    gevent.sleep(0.1)
    worker = pool.holders()[0].worker.pid
    victim = {"the client": client, "its worker": worker}.get(what) or find(what)
    look(f"{what} {victim!r} is about to be killed", find("PoolSup"))
    gpool.exit(victim, "kill")
    gevent.sleep(0.6)  # long enough for a worker to finish what a dead client had asked for
    look(f"{what} {victim!r} is {gpool.process_info(victim).status}", find("PoolSup"))


if __name__ == "__main__":
    with pool:
        pool.wait_ready()
        look("the pool has started, below all that it needs", find("Supervisor"))
        five_jobs()
        for what in ("its worker", "the client", "PoolMan", "WorkerSup"):
            kill(what)
        five_jobs()
