"""A client of one node, with the standard library alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import gevent.socket
import pytest
from gevent.pywsgi import WSGIServer

from gpool.observer.client import Client, NodeError, NodeGone, find
from gpool.observer.run_dir import RunDir


@pytest.fixture
def served(run_dir):
    """Give what serves an application at a node's socket."""
    servers = []

    def serve(app, name="17"):
        listener = gevent.socket.socket(socket.AF_UNIX)
        listener.bind(str(run_dir / f"{name}.sock"))
        listener.listen(5)
        servers.append(WSGIServer(listener, app, log=None, error_log=None))
        servers[-1].start()
        return Client(run_dir / f"{name}.sock", timeout=1.0, kind=gevent.socket.socket)

    yield serve
    for server in servers:
        server.stop(timeout=0)


def saying(status, body):
    """Return an application that always says the same."""

    def app(environ, start_response):
        start_response(status, [("Content-Type", "application/json")])
        return [body]

    return app


class TestClient:
    def test_returns_what_a_node_says(self, node):
        """Its JSON; parameters that are None are left out."""
        assert node.get("/v1/processes", sort="id", filter=None)["sort"] == "id"

    def test_raises_what_a_node_refuses(self, node):
        """With HTTP's status and the sentence."""
        with pytest.raises(NodeError, match="sort: expected one of") as caught:
            node.get("/v1/processes", sort="beauty")
        assert caught.value.status == 400

    @pytest.mark.parametrize("body", [b"<html>", b"[]", b"17", b'{"api": 2}', b"", b"\xff"])
    def test_takes_no_answer_that_is_not_of_its_api(self, served, body):
        """Neither no JSON, nor another version."""
        with pytest.raises(NodeError) as caught:
            served(saying("200 OK", body)).get("/v1/node")
        assert caught.value.status == 502

    def test_removes_the_socket_of_a_dead_process(self, run_dir):
        """A refused connection means that nobody will ever listen there again."""
        path = run_dir / "17.sock"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.close()
        with pytest.raises(NodeGone, match="the process has ended"):
            Client(path).get("/v1/node")
        assert not path.exists()
        with pytest.raises(NodeGone):
            Client(path).get("/v1/node")

    def test_removes_nothing_but_sockets(self, run_dir):
        """A file of that name is somebody's, and refuses connections as well."""
        path = run_dir / "17.sock"
        path.write_text("mine")
        with pytest.raises(NodeGone):
            Client(path).get("/v1/node")
        assert path.read_text() == "mine"

    def test_gives_up_on_a_node_that_is_silent(self, run_dir):
        """And leaves its socket: it may only be stopped."""
        path = run_dir / "17.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
            sock.listen(1)
            with pytest.raises(NodeGone):
                Client(path, timeout=0.05, kind=gevent.socket.socket).get("/v1/node")
            assert path.exists()

    @pytest.mark.parametrize("target", ["/v1/node\r\nX: y", "/v1/no de", "/v1/\x00", "/v1/ä"])
    def test_sends_no_target_that_would_be_two(self, node, target):
        """A name with a line break makes no second request; the node is not gone of it."""
        with pytest.raises(NodeError, match="target: expected a path, percent-encoded"):
            node.get(target)


class TestFind:
    def test_asks_all_and_removes_the_stale(self, run_dir, node, served):
        """Each node by its name; one that speaks otherwise with its error."""
        for name in ("5", "6"):
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(run_dir / f"{name}.sock"))
            sock.close()
        served(saying("500 No", b"?"), "18")
        found = find(RunDir(run_dir), kind=gevent.socket.socket)
        assert sorted(found) == sorted([str(os.getpid()), "18"])
        assert found["18"]["node"] == "18"
        assert "does not speak JSON" in found["18"]["error"]
        assert sorted(RunDir(run_dir).nodes()) == sorted(found)

    def test_finds_nothing_where_nothing_is(self, run_dir):
        """A directory that nobody has made is an empty one."""
        assert find(RunDir(run_dir / "none")) == {}


class TestOtherProcess:
    def test_asks_with_sockets_that_nobody_has_patched(self, node):
        """As a terminal does: the whole of the client needs no gevent."""
        text = "import sys; from gpool.observer.client import Client; "
        text += "print(Client(sys.argv[1]).get('/v1/node')['os_pid'])"
        done = gevent.get_hub().threadpool.apply(
            lambda: subprocess.run(
                [sys.executable, "-c", text, node.path], capture_output=True, text=True, check=False
            )
        )
        assert done.stdout == f"{os.getpid()}\n"
