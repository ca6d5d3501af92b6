"""The Observer's own server: who gets in, and that nobody can hold it up."""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from http.cookies import SimpleCookie

import pytest
from gevent import subprocess
from gevent.pywsgi import MAX_REQUEST_LINE
from gevent.select import select

from gpool.observer.web import server as servers
from gpool.observer.web.app import HEADERS
from gpool.observer.web.server import CONNECTIONS, WITHIN, CannotListen, Server
from gpool.testing import settle
from tests.observer.wire import (
    FakeNode,
    a_run_dir,
    ask,
    connected,
    exchange,
    reply_of,
    request,
)


@pytest.fixture
def run_dir():
    """Give an empty run directory."""
    with a_run_dir() as path:
        yield path


@pytest.fixture
def start(run_dir):
    """Give what starts a server on a free port; all are stopped in the end."""
    started = []

    def start(**options):
        started.append(server := Server(port=0, run_dir=run_dir, **options))
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def server(start):
    """Give a server."""
    return start()


def query_of(server):
    """Return the path and query that let one in."""
    return server.url.partition(str(server.port))[2]


def log_in(server):
    """Return the cookie that the token is exchanged for."""
    return ask(server.port, query_of(server)).headers["Set-Cookie"].partition(";")[0]


def has_ended(sock):
    """Wait for the server to hang up, politely or not."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


class TestServer:
    @pytest.mark.parametrize(
        "host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "", "127.0.0.1:80", None]
    )
    def test_listens_where_no_other_machine_comes(self, host):
        """An address that is not of the loopback interface is refused, with the ways out."""
        with pytest.raises(ValueError, match=r"host: expected an address of the loopback.*tunnel"):
            Server(host)

    @pytest.mark.parametrize("port", [-1, 65536, "80", None])
    def test_takes_no_nonsense_for_a_port(self, port):
        """Misuse is an error at construction."""
        with pytest.raises(ValueError, match="port: expected a number"):
            Server(port=port)

    def test_takes_no_text_for_a_list_of_hosts(self):
        """Its letters would be hosts."""
        with pytest.raises(TypeError, match="allow_hosts: expected an iterable of texts"):
            Server(allow_hosts="localhost")

    def test_says_that_its_port_is_taken(self, server):
        """Two cannot listen at one port."""
        with pytest.raises(
            CannotListen, match=rf"port {server.port} of 127.0.0.1: Address already"
        ):
            Server(port=server.port)

    def test_listens_on_ipv6_too(self, run_dir):
        """``::1`` is written in brackets in the address, and in the Host header."""
        try:
            server = Server("::1", 0, run_dir=run_dir)
        except CannotListen:
            pytest.skip("this machine has no IPv6")
        assert server.url.startswith("http://[::1]:")
        server.stop()


class TestToken:
    def test_is_a_new_one_at_each_start(self, start):
        """Nobody who knew the last one knows this one."""
        tokens = {query_of(start()), query_of(start())}
        assert len(tokens) == 2
        assert all(len(token) > 40 for token in tokens)

    def test_is_exchanged_for_a_cookie(self, server):
        """The address loses the token, the browser gets what no script can read."""
        reply = ask(server.port, query_of(server))
        assert reply.status == 303
        assert reply.headers["Location"] == "./"
        (morsel,) = SimpleCookie(reply.headers["Set-Cookie"]).values()
        assert morsel.key == f"gpool-observer-{server.port}"
        assert morsel["httponly"]
        assert morsel["samesite"] == "Strict"
        assert morsel["path"] == "/"
        assert morsel.value not in server.url

    @pytest.mark.parametrize(
        ("path", "location"),
        [("/api/nodes", "./nodes"), ("//evil.example/", "./"), ("/a%0d%0ab%20c", "./a%0D%0Ab%20c")],
    )
    def test_leads_to_the_same_path_and_no_other_host(self, server, path, location):
        """The way is relative, whatever the path looks like."""
        reply = ask(server.port, path + query_of(server)[1:])
        assert reply.headers["Location"] == location

    @pytest.mark.parametrize(
        "query", ["?token=", "?token=wrong", "?token", "?token=%C3%A4", "?token=\xe4"]
    )
    def test_that_is_wrong_is_refused_and_logged(self, server, query, caplog):
        """So is an empty one; what was tried is not written down."""
        reply = ask(server.port, "/" + query, Cookie=log_in(server))
        assert reply.status == 403
        assert "Set-Cookie" not in reply.headers
        assert caplog.messages == ["a request with a wrong token came from 127.0.0.1"]

    def test_of_another_server_is_wrong(self, start):
        """Each start has its own."""
        assert ask(start().port, query_of(start())).status == 403

    @pytest.mark.parametrize("method", ["HEAD", "POST"])
    def test_is_for_opening_the_page(self, server, method):
        """Nothing but GET is answered with a cookie."""
        assert ask(server.port, query_of(server), method).status == 403


class TestCookie:
    def test_lets_in(self, server):
        """Whoever has it sees the page, its files and the API."""
        cookie = log_in(server)
        assert ask(server.port, "/", Cookie=cookie).status == 200
        assert ask(server.port, "/api/nodes", Cookie=cookie).json["nodes"] == []

    def test_may_stand_among_others(self, server):
        """Browsers send the cookies of all ports; some are odd."""
        odd = f'a="x; y=; =z; {{}}; gpool-observer-1=x; {log_in(server)}; gpool-observer-x'
        assert ask(server.port, "/", Cookie=odd).status == 200

    @pytest.mark.parametrize("path", ["/", "/favicon.ico", "/api/nodes", "/nothing"])
    @pytest.mark.parametrize(
        "cookie", [None, "", "a=b", "gpool-observer-PORT=wrong", "=", "\xe4=\xe4"]
    )
    def test_is_needed_for_everything(self, server, path, cookie):
        """Who has none is told how to get one."""
        cookie = cookie and cookie.replace("PORT", str(server.port))
        reply = ask(server.port, path, Cookie=cookie)
        assert reply.status == 403
        assert b"Open the address that it printed" in reply.body

    def test_of_another_port_is_none(self, start):
        """A browser sends it, but it is another server's, under any name."""
        one, two = start(), start()
        cookie = log_in(two)
        assert ask(one.port, "/", Cookie=cookie).status == 403
        other = log_in(one).replace(str(one.port), str(two.port))
        assert ask(one.port, "/", Cookie=other).status == 403
        renamed = cookie.replace(str(two.port), str(one.port))
        assert ask(one.port, "/", Cookie=renamed).status == 403


class TestHost:
    @pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
    def test_ours_is_answered(self, server, name):
        """The names of this machine, with our port."""
        host = f"{name}:{server.port}"
        assert ask(server.port, "/", Host=host, Cookie=log_in(server)).status == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "evil.example:PORT",
            "localhost",
            "127.0.0.1:1",
            "a.localhost:PORT",
            "127.0.0.1:PORT.evil.example",
            "127.0.0.1:PORT,localhost:PORT",
            "",
            None,
        ],
    )
    def test_others_come_no_further(self, server, host, caplog):
        """A rebound name gets 421 before anything else is looked at."""
        host = host and host.replace("PORT", str(server.port))
        cookie = log_in(server)
        for path in ("/", query_of(server), "/?token=wrong"):
            reply = ask(server.port, path, Host=host, Cookie=cookie)
            assert reply.status == 421
            assert "Set-Cookie" not in reply.headers
        assert caplog.text == ""

    def test_may_be_named(self, start):
        """A tunnel's or a proxy's name is answered if it was given."""
        server = start(allow_hosts=["Ops.example"])
        cookie = log_in(server)
        assert ask(server.port, "/", Host="ops.example", Cookie=cookie).status == 200
        assert ask(server.port, "/", Host="ops.example:80", Cookie=cookie).status == 421


class TestActions:
    def act(self, server, **changed):
        """Send an action as the page does, but for what is changed."""
        headers = {
            "Origin": f"http://127.0.0.1:{server.port}",
            "Cookie": log_in(server),
            "X_GPool_Action": "1",
            "Content_Type": "application/json",
        } | changed
        return ask(server.port, "/api/nodes/1/v1/actions", "POST", b"{}", **headers)

    def test_are_off_unless_asked_for(self, server, run_dir):
        """It looks only."""
        with FakeNode(run_dir / "1.sock") as node:
            assert self.act(server).status == 403
        assert node.seen == []

    def test_come_from_our_own_page(self, start, run_dir):
        """Cookie and origin must both be right."""
        server = start(allow_actions=True)
        with FakeNode(run_dir / "1.sock") as node:
            assert self.act(server, Origin="http://localhost:1").status == 403
            assert self.act(server, Cookie=None).status == 403
            assert node.seen == []
            assert self.act(server).status == 200

    def test_come_through_a_proxy_that_was_named(self, start, run_dir):
        """One that ends TLS makes the origin https, and its name is allowed."""
        server = start(allow_actions=True, allow_hosts=["ops.example"])
        with FakeNode(run_dir / "1.sock"):
            named = {"Host": "ops.example", "Origin": "https://ops.example"}
            assert self.act(server, **named).status == 200
            assert self.act(server, **named | {"Origin": "https://127.0.0.1"}).status == 403


class TestLimits:
    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (b"GET /" + b"x" * MAX_REQUEST_LINE + b" HTTP/1.1\r\n\r\n", 414),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 400),
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/7\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        ],
    )
    def test_of_a_request_have_our_headers(self, server, raw, status, capfd):
        """What pywsgi refuses is refused quietly, and as safely as all else."""
        reply = exchange(server.port, raw)
        assert reply.status == status
        assert dict(HEADERS).items() <= dict(reply.headers).items()
        assert reply.headers["Cache-Control"] == "no-store"
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        "extra", [{"Content_Length": "9999999999"}, {"Transfer_Encoding": "chunked"}]
    )
    def test_of_a_body_end_the_connection(self, server, extra):
        """A body that nobody wants is not waited for."""
        raw = request(server.port, "/", "POST", Connection=None, **extra)
        with connected(server.port) as sock:
            sock.sendall(raw + b"5\r\nhello\r\n")
            assert reply_of(sock).status == 403
            assert has_ended(sock)

    def test_of_patience_are_none(self, server, capfd):
        """A client that is torn away half-way leaves no traceback."""
        for sent in (
            b"GET / HTTP/1.1\r\nHost: x\r\n",
            b"nonsense\r\n\r\n",
            request(server.port, "/"),
        ):
            with connected(server.port) as sock:
                sock.sendall(sent)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server._wsgi.pool.join()
        assert ask(server.port, "/").status == 403
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-"])
    def test_of_time_cut_off_who_hangs(self, server, clock, sent, capfd):
        """A client that stops half-way is answered by nothing but the end."""
        with connected(server.port) as sock, connected(server.port) as other:
            sock.sendall(sent)
            settle()
            clock.advance(WITHIN - 1)
            other.sendall(request(server.port, "/"))
            assert reply_of(other).status == 403
            clock.advance(1)
            assert sock.recv(1) == b""
        assert capfd.readouterr() == ("", "")

    def test_of_time_are_those_of_each_request(self, server, clock):
        """A connection that is used stays."""
        raw = request(server.port, "/", Connection=None)
        with connected(server.port) as sock:
            for _ in range(3):
                sock.sendall(raw)
                assert reply_of(sock).status == 403
                clock.advance(WITHIN - 1)
            clock.advance(1)
            assert sock.recv(1) == b""

    def test_of_time_cut_off_who_does_not_read(self, server, clock, run_dir, caplog, capfd):
        """An answer that nobody takes is given up."""
        cookie = log_in(server)
        node = FakeNode(run_dir / "1.sock", content=b"x" * 30_000_000)
        raw = request(server.port, "/api/nodes/1/v1/node", Cookie=cookie, Connection=None)
        with node, connected(server.port) as sock:
            sock.sendall(raw)
            sock.recv(1)  # it begins
            settle()
            clock.advance(WITHIN)
            server._wsgi.pool.join()
        assert caplog.text == ""
        assert capfd.readouterr() == ("", "")

    def test_of_connections_are_kept(self, start, clock, monkeypatch):
        """More than so many wait in line, until others have gone."""
        monkeypatch.setattr(servers, "CONNECTIONS", 2)
        port = start().port
        with connected(port), connected(port), connected(port) as third:
            third.sendall(request(port, "/"))
            for _ in range(5):
                settle()
            assert select([third], [], [], 0)[0] == []
            clock.advance(WITHIN)
            assert reply_of(third).status == 403
        assert CONNECTIONS >= 6, "a browser opens six"


class TestServe:
    @pytest.fixture
    def serve(self, run_dir):
        """Give what runs ``serve()`` in a process of its own, and returns it and its lines."""
        running = []

        def serve(**options):
            code = (
                f"import sys; sys.path.append({sys.path[-1]!r})\n"
                "from gpool.observer.web.server import serve\n"
                f"serve(port=0, run_dir={str(run_dir)!r}, **{options!r})"
            )
            command = [sys.executable, "-W", "error", "-c", code]
            process = subprocess.Popen(command, text=True, stdout=-1, stderr=-1)
            running.append(process)
            return process, process.stdout.readline(), process.stdout.readline()

        yield serve
        for process in running:
            process.kill()
            process.communicate()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_serves_until_it_is_told_to_end(self, serve, number):
        """It says where, answers, and leaves in order, with a connection still open."""
        process, says, url = serve()
        assert says == "The Observer looks only; Ctrl-C ends it.\n"
        port = int(url.split(":")[2].split("/")[0])
        with connected(port) as sock:
            sock.sendall(request(port, "/", Connection=None))
            assert reply_of(sock).status == 403
            os.kill(process.pid, number)
            assert process.wait(timeout=10) == 0
        assert process.communicate() == ("", "")

    def test_says_if_it_acts(self, serve):
        """Whoever starts it so is reminded."""
        assert serve(allow_actions=True)[1].startswith("The Observer looks, and acts;")

    def test_writes_down_wrong_tokens_and_nothing_else(self, serve):
        """The log of a process that configures none is stderr, and there are no other lines."""
        process, _, url = serve()
        port = int(url.split(":")[2].split("/")[0])
        assert ask(port, url.split(str(port))[1].strip()).status == 303
        assert ask(port, "/").status == 403
        assert ask(port, "/?token=wrong").status == 403
        process.terminate()
        assert process.communicate()[1] == "a request with a wrong token came from 127.0.0.1\n"
