"""The tools for tests, which users have too."""

from __future__ import annotations

import gevent

from gpool.testing import settle


class TestSettle:
    def test_runs_chains_of_greenlets_to_their_end(self):
        """However long a chain of ready greenlets is, settle waits for its end."""
        log = []

        def link(number):
            log.append(number)
            if number < 5000:
                gevent.spawn(link, number + 1)

        gevent.spawn(link, 1)
        settle()
        assert log[-1] == 5000

    def test_does_not_wait_for_timers(self):
        """A timer that is not due is not awaited."""
        log = []
        greenlet = gevent.spawn(lambda: (gevent.sleep(60.0), log.append(1)))
        settle()
        assert log == []
        greenlet.kill()

    def test_lets_a_sleep_of_0_pass(self):
        """Greenlets that only let others go first are not waiting."""
        log = []

        def body():
            for number in range(100):
                gevent.sleep(0)
                log.append(number)

        gevent.spawn(body)
        settle()
        assert len(log) == 100
