"""A gevent server as a child: bound at its start, drained at its stop, anew after a crash."""

from __future__ import annotations

import gc
import os
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.server import DatagramServer, StreamServer

import gpool
from gpool.telemetry import CleanupFailed, ProcessCrashed, SupervisorReport
from gpool.testing import VirtualClock, settle
from tests.hearing import heard
from tests.servers.program import HOST, free_port
from tests.serving.web import Clients, Failing, Web, is_refused
from tests.waiting import until


class House:
    """A supervisor with one server, at a port that stays."""

    def __init__(self, web: Web, **options: Any) -> None:
        self.port = free_port()
        self.servers: list[Any] = []  # that were made, oldest first

        def make() -> Any:
            self.servers.append(web.server(self.port))
            return self.servers[-1]

        self.tree = gpool.Supervisor.start([gpool.server_child(make, id="web", **options)])

    @property
    def child(self) -> gpool.Pid:
        """The process of the server."""
        [info] = self.tree.which_children()
        assert isinstance(info.child, gpool.Pid)
        return info.child


class TestStart:
    def test_binds(self, web: Web, client: Clients) -> None:
        """When the supervisor has started, it listens."""
        house = House(web)
        one = client(house.port, "/")
        until(lambda: one.is_well)
        shown = {"server": f"WSGIServer at {HOST}:{house.port}", "connections": 1, "idle": 1}
        assert gpool.sys.get_status(house.child).state == shown

    @pytest.mark.filterwarnings("ignore::ResourceWarning")  # gevent's socket
    def test_of_a_port_in_use_fails_with_its_address(self, web: Web) -> None:
        """The supervisor does not start, and says which port it was."""
        with StreamServer((HOST, 0), print) as taken:
            taken.start()
            spec = gpool.server_child(lambda: web.server(taken.server_port), id="web")
            with pytest.raises(gpool.StartError) as caught:
                gpool.Supervisor.start([spec])
            text = str(caught.value)
            assert f"'WSGIServer at {HOST}:{taken.server_port}', OSError(98" in text
            del caught
            gc.collect()


class TestStop:
    def test_lets_requests_finish(self, web: Web, client: Clients) -> None:
        """The supervisor's stop waits for them; new ones are refused."""
        house = House(web)
        busy, idle = client(house.port, "/wait"), client(house.port, "/")
        until(lambda: web.begun and idle.is_well)
        stop = gevent.spawn(gpool.stop, house.tree)
        until(lambda: is_refused(house.port) and idle.has_ended)
        assert not stop.dead
        web.go.set()
        stop.get(timeout=5)
        until(lambda: busy.is_well)

    def test_cuts_what_takes_too_long(self, web: Web, client: Clients, clock: VirtualClock) -> None:
        """After `drain` seconds, and still as an orderly end: no child has to be killed."""
        with heard(SupervisorReport) as events:
            house = House(web, drain=3.0)
            client(house.port, "/wait")
            until(lambda: web.begun)
            stop = gevent.spawn(gpool.stop, house.tree)
            settle()
            clock.advance(2.9)
            assert not stop.dead
            clock.advance(0.2)
            stop.get(timeout=5)
        assert web.log == ["cut"]
        assert events == []

    def test_is_orderly_though_a_handler_swallows_its_kill(
        self, web: Web, client: Clients, clock: VirtualClock
    ) -> None:
        """It is given its second, and left: no cleanup has failed, and no child is killed."""
        with heard(SupervisorReport, CleanupFailed) as events:
            house = House(web, drain=3.0)
            client(house.port, "/swallow")
            until(lambda: web.begun)
            child, stop = house.child, gevent.spawn(gpool.stop, house.tree)
            clock.advance(3.0)
            assert web.log == ["swallowed"]
            assert not stop.dead
            clock.advance(1.0)
            stop.get(timeout=5)
        assert child.reason == "shutdown"
        assert events == []
        web.go.set()

    def test_serves_what_waits_for_a_place(self, web: Web, client: Clients) -> None:
        """What has come to a full server is answered as its requests finish."""
        port = free_port()
        child = gpool.server_child(lambda: web.server(port, spawn=1), drain=None)
        tree = gpool.Supervisor.start([child])
        many = [client(port, "/wait") for _ in range(3)]
        until(lambda: web.begun)
        stop = gevent.spawn(gpool.stop, tree)
        until(lambda: is_refused(port))
        web.go.set()
        stop.get(timeout=5)
        until(lambda: all(one.is_well for one in many))

    def test_of_datagrams_frees_the_port_for_the_next(self) -> None:
        """Its handlers answer by its socket, so it is closed after them; then another one binds."""
        port, go = free_port(), Event()

        class Echo(DatagramServer):
            def handle(self, data: bytes, address: Any) -> None:
                go.wait()
                self.sendto(data, address)

        tree = gpool.Supervisor.start([gpool.server_child(lambda: Echo((HOST, port)), id="udp")])
        with socket.socket(type=socket.SOCK_DGRAM) as one:
            one.connect((HOST, port))
            one.send(b"hello")
            settle()
            stop = gevent.spawn(tree.terminate_child, "udp")
            settle()
            go.set()
            assert one.recv(100) == b"hello"
            stop.get(timeout=5)
            tree.restart_child("udp")
            one.send(b"again")
            assert one.recv(100) == b"again"

    def test_is_in_the_order_of_the_tree(self, web: Web, client: Clients) -> None:
        """What was started before the server still runs while its requests finish."""
        log = web.log

        class Store(gpool.GenServer):
            def terminate(self, reason: Any) -> None:
                log.append("store")

        port = free_port()
        tree = gpool.Supervisor.start(
            [
                gpool.ChildSpec("store", Store.start_link),
                gpool.server_child(lambda: web.server(port), id="web"),
            ]
        )
        client(port, "/wait")
        until(lambda: web.begun)
        program = gevent.spawn(gpool.run, tree, signals=(10,))
        gevent.idle()
        os.kill(os.getpid(), 10)
        until(lambda: is_refused(port))
        web.go.set()
        assert program.get(timeout=5) is True
        assert log == ["answered", "store"]


class TestCrash:
    def test_of_accept_makes_a_new_server(
        self, client: Clients, unnoticed_deaths: list[BaseException]
    ) -> None:
        """At the same port; the crash is that of the child, with the error."""
        port, servers = free_port(), []

        def make() -> Failing:
            servers.append(Failing((HOST, port), lambda connection, _: connection.sendall(b"well")))
            return servers[-1]

        with heard(ProcessCrashed) as crashes:
            gpool.Supervisor.start([gpool.server_child(make)])
            servers[0].fail()
            until(lambda: len(servers) == 2)
            one = client(port)
            until(lambda: one.answer == b"well")
        [crash] = crashes
        assert isinstance(crash.reason.exception, OSError)
        unnoticed_deaths.clear()  # gevent has told of it, too

    @pytest.mark.parametrize("reason", ["kill", "boom"])
    def test_frees_the_port_and_cuts_requests(self, web: Web, client: Clients, reason: str) -> None:
        """However it dies, its supervisor can bind at once: one restart, not several attempts."""
        house = House(web)
        busy = client(house.port, "/wait")
        until(lambda: web.begun)
        first = house.child
        gpool.exit(first, reason)
        until(lambda: house.child is not first)
        assert len(house.servers) == 2
        until(lambda: busy.has_ended and web.log == ["cut"])
        one = client(house.port, "/")
        until(lambda: one.is_well)

    def test_is_none_if_somebody_closes_it(self, web: Web, client: Clients) -> None:
        """It ends normally: what is permanent is started again, what is transient is not."""
        transient, permanent = House(web, restart="transient"), House(web)
        for house in (transient, permanent):
            house.servers[0].stop()
        gevent.idle()
        until(lambda: len(permanent.servers) == 2)
        assert [info.child for info in transient.tree.which_children()] == [None]


class TestBadInput:
    @pytest.mark.parametrize(
        ("make", "options", "error", "text"),
        [
            (3, {}, TypeError, "make_server: expected a callable, got 3"),
            (list, {"drain": -1}, ValueError, "drain: expected seconds >= 0"),
            (list, {"restart": "often"}, gpool.SpecError, "invalid_restart_type"),
        ],
    )
    def test_makes_no_specification(
        self, make: Any, options: Any, error: type[Exception], text: str
    ) -> None:
        """It says what was expected."""
        with pytest.raises(error, match=text):
            gpool.server_child(make, **options)

    def test_of_what_it_makes_is_told_at_the_start(self) -> None:
        """It has to make a server."""
        with pytest.raises(gpool.StartError) as caught:
            gpool.Supervisor.start([gpool.server_child(list)])
        assert "expected a gevent server, got []" in str(caught.value)
