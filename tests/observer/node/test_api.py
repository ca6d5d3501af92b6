"""The API over its socket: every route, every refusal, against a system that runs."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys

import gevent
import pytest
from gevent.socket import AF_UNIX, SHUT_WR, socket

import gpool
from gpool.observer.client import Client, NodeError
from gpool.observer.node import agent, api
from gpool.testing import settle
from gpool.waiter import Gate
from tests.observer.node.traps import Trap, TrapMeta, sprung, traps, unsprung
from tests.otp.actor import Actor
from tests.pool.workshop import Client as Borrower
from tests.pool.workshop import Echo, Holder, fall, running


class Account(gpool.GenServer):
    """Shows its state, but not all of it."""

    def init(self):
        """Have something to hide."""
        self.orders, self.secret = 17, "swordfish"

    def format_status(self):
        """Leave the secret out."""
        return {"orders": self.orders, "token": "swordfish"}

    @gpool.cast
    def work(self, gate):
        """Be busy."""
        gate.wait()


@pytest.fixture
def shop(maker):
    """Run a system with some of everything, and give its processes by what they are."""
    db = running(Echo, size=2, max_overflow=1, name="db")
    cache = running(maker.resource(), size=1, name="cache/1")
    holder = Holder(cache)
    waiter = Borrower(cache.checkout, timeout=600.0)
    static = gpool.Supervisor.start([gpool.ChildSpec("a", Echo.start_link)], server_name="top")
    dynamic = gpool.DynamicSupervisor.start(server_name="many")
    backoff = gpool.Backoff(20.0)
    slow = dynamic.start_child(gpool.ChildSpec("slow", Echo.start_link, backoff=backoff))
    gpool.exit(slow.pid, "bored")
    account = Account.start(server_name="account")
    actor = Actor()
    gpool.exit(gpool.spawn(gpool.receive), "late")
    settle()
    return {
        "db": db, "cache": cache, "holder": holder, "waiter": waiter, "static": static,
        "dynamic": dynamic, "account": account, "actor": actor,
    }  # fmt: skip


def refused(node, path, **query):
    """Return the status and the sentence of a refusal."""
    with pytest.raises(NodeError) as caught:
        node.get(path, **query)
    return caught.value.status, caught.value.message


def spoken(node, raw, *, end=True):
    """Send bytes as they are; return what comes back until the end."""
    sock = socket(AF_UNIX)
    sock.settimeout(5.0)
    sock.connect(node.path)
    try:
        sock.sendall(raw)
        if end:
            sock.shutdown(SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(65536):
                answer += part
        return answer
    finally:
        sock.close()


class TestEnvelope:
    def test_is_around_every_answer(self, node, shop):
        """Version, node, time, and the state of the hub; an error has a sentence."""
        for path in ("node", "processes", "tree", "pools", "pools/db", "events"):
            answer = node.get(f"/v1/{path}")
            assert (answer["api"], answer["node"]) == (1, str(os.getpid()))
            assert answer["hub"] == {"blocked": False}
            assert answer["now"] > 1e9
        status, _, body = node.request("GET", "/v1/nothing")
        assert status == 404
        assert json.loads(body)["error"] == "path: expected one of the API's, got '/v1/nothing'"
        assert json.loads(body)["api"] == 1

    def test_is_json_that_nobody_keeps(self, node):
        """A proxy or browser must not."""
        _, headers, _ = node.request("GET", "/v1/node")
        assert headers["Content-Type"] == "application/json"
        assert headers["Cache-Control"] == "no-store"


class TestNode:
    def test_tells_who_it_is(self, node, shop):
        """Its process, its versions, and how much there is of everything."""
        answer = node.get("/v1/node")
        assert answer["os_pid"] == os.getpid()
        assert answer["gpool"] == gpool.__version__
        assert answer["python"] == sys.version.split()[0]
        assert (answer["actions"], answer["measures"]) == (False, False)
        assert answer["caps"] == {"db": 3, "cache/1": 1}
        counts = answer["counts"]
        assert counts["processes"] == len(gpool.processes())
        assert counts["ended"] >= 2
        assert (counts["pools"], counts["zombies"]) == (2, 0)
        assert counts["events"] >= 2

    @pytest.mark.parametrize(
        "argv",
        [
            ["gunicorn", "--password", "swordfish", "app:app"],
            ["worker", "--db=postgresql://ann:swordfish@host/db"],
            ["worker", "postgresql://ann:swordfish@host/db"],
            ["worker", "--api-key", "swordfish"],
            ["worker", "--token=swordfish"],
            ["env", "PGPASSWORD=swordfish", "psql"],
        ],
    )
    def test_tells_no_secret_of_its_command_line(self, node, monkeypatch, argv):
        """A password is not to be given there, but it is."""
        monkeypatch.setattr(sys, "argv", argv)
        title = node.get("/v1/node")["title"]
        assert title.startswith(argv[0])
        assert "swordfish" not in title

    @pytest.mark.parametrize("argv", [[], [""], ["x" * 10000], ["\udcff\n"]])
    def test_has_a_title_whatever_the_command_line_is(self, node, monkeypatch, argv):
        """There may be none."""
        monkeypatch.setattr(sys, "argv", argv)
        assert 0 < len(node.get("/v1/node")["title"]) <= 300


class TestProcesses:
    def test_are_found_sorted_and_paged(self, node, shop):
        """As asked for, and what was asked is told."""
        answer = node.get("/v1/processes", sort="id", order="desc", filter="echo", per=2, page=2)
        assert (answer["sort"], answer["order"], answer["filter"]) == ("id", "desc", "echo")
        assert (answer["page"], answer["per"], len(answer["processes"])) == (2, 2, 1)
        assert answer["total"] == 3
        ended = node.get("/v1/processes", which="ended", sort="ended", order="asc")
        assert {"'late'", "'bored'"} <= {row["reason"] for row in ended["processes"]}
        assert node.get("/v1/processes", which="zombies")["processes"] == []

    @pytest.mark.parametrize(
        "query",
        [
            {"which": "all"},
            {"sort": "password"},
            {"sort": "__class__"},
            {"order": "up"},
            {"page": 0},
            {"page": -1},
            {"page": "nan"},
            {"page": "1" * 20},
            {"page": "٣"},
            {"per": 1001},
            {"per": 0},
            {"filter": "x" * 201},
            {"colour": "red"},
        ],
    )
    def test_are_not_asked_for_otherwise(self, node, query):
        """Each parameter is checked."""
        assert refused(node, "/v1/processes", **query)[0] == 400

    def test_has_a_parameter_once(self, node):
        """Which of two was meant?"""
        assert refused(node, "/v1/processes?page=1&page=2")[0] == 400

    def test_are_whole(self, node, shop):
        """One of them with all that is known."""
        pid = shop["account"].pid
        answer = node.get(f"/v1/processes/{pid.id}")["process"]
        assert (answer["name"], answer["initial_call"]) == ("account", "Account")
        assert answer["state_shown"] is True
        assert node.get(f"/v1/processes/{shop['actor'].pid.id}")["process"]["state_shown"] is False

    def test_stay_for_a_while_when_they_are_dead(self, node):
        """Until so many others have died."""
        pid = gpool.spawn(gpool.receive)
        gpool.exit(pid, "bored")
        settle()
        assert node.get(f"/v1/processes/{pid.id}")["process"]["last_exit"] == "'bored'"
        assert refused(node, f"/v1/processes/{pid.id}/state")[0] == 403
        for _ in range(256):
            gpool.spawn(len, ())
        settle()
        for path in ("", "/messages", "/state"):
            status, words = refused(node, f"/v1/processes/{pid.id}{path}")
            assert (status, words) == (404, f"{pid!r}: it never was, or has ended long ago")

    @pytest.mark.parametrize(
        "number",
        ["0", "999999999", "-1", "x", "", "1.0", "1e3", "%D9%A3", "9" * 13, "..", "+1"],
    )
    def test_have_a_number(self, node, number):
        """Nothing else names one."""
        for path in ("", "/messages", "/state"):
            assert refused(node, f"/v1/processes/{number}{path}")[0] == 404


class TestMessages:
    def test_are_shown_from_outside(self, node):
        """The first ones, short and without secrets; they stay where they are."""
        pid = gpool.spawn(gevent.get_hub().switch)
        for n in range(50):
            gpool.send(pid, {"n": n, "password": "swordfish"})
        path = f"/v1/processes/{pid.id}/messages"
        answer = node.get(path)
        assert answer["length"] == 50
        assert answer["messages"][:2] == [
            "{'n': 0, 'password': ***}",
            "{'n': 1, 'password': ***}",
        ]
        assert len(answer["messages"]) == 20
        assert len(node.get(path, limit=3)["messages"]) == 3
        assert len(pid.mailbox) == 50
        for limit in (0, 101, -1, "all"):
            assert refused(node, path, limit=limit)[0] == 400

    def test_may_be_anything(self, node):
        """Calls, casts, exits and traps."""
        pid = gpool.spawn(gevent.get_hub().switch)
        gpool.send_cast(pid, ("login", {"password": "swordfish"}))
        for trap in traps():
            gpool.send(pid, trap)
        with unsprung():
            answer = node.get(f"/v1/processes/{pid.id}/messages", limit=100)
        assert answer["length"] == len(answer["messages"]) == len(traps()) + 1
        assert "swordfish" not in str(answer)
        assert answer["messages"][0] == "Cast(request=('login', {'password': ***}))"


class TestState:
    def test_is_what_the_server_shows(self, node, shop):
        """Of one that has a format_status; without what looks like a secret even so."""
        answer = node.get(f"/v1/processes/{shop['account'].pid.id}/state")
        assert answer["state"] == "'orders': 17\n'token': ***"

    def test_is_nobody_elses_business(self, node, shop):
        """Of a server without one, or of no server, there is none."""
        plain = gpool.supervision(shop["static"]).children[0].pid
        for pid in (plain, shop["actor"].pid):
            status, words = refused(node, f"/v1/processes/{pid.id}/state")
            assert status == 403
            assert "format_status" in words

    def test_is_shown_of_every_server_if_so_told(self, observe):
        """Its attributes, but for secrets, and not too many."""
        node = observe(show_state=True)

        class Plain(gpool.GenServer):
            def init(self):
                self.user, self.password, self.trap = "ann", "swordfish", Trap()
                vars(self).update({f"x{n}": n for n in range(200)})

        with unsprung():
            state = node.get(f"/v1/processes/{Plain.start().pid.id}/state")["state"]
        lines = state.split("\n")
        assert lines[:3] == ["'user': 'ann'", "'password': ***", "'trap': <Trap>"]
        assert lines[-1] == "... 103 more"

    @pytest.mark.parametrize("state", ["text\nof two lines", ["a", 1], None, {}, {Trap(): Trap()}])
    def test_may_be_anything(self, node, state):
        """Text is shown as it is."""

        class Odd(gpool.GenServer):
            def format_status(self):
                return state

        with unsprung():
            shown = node.get(f"/v1/processes/{Odd.start().pid.id}/state")["state"]
        assert shown == (state if isinstance(state, str) else shown)

    def test_of_a_busy_server_is_told_later(self, node, shop):
        """The one who asks hears so soon; the server gets one question, however often one asks."""
        account, gate = shop["account"], Gate()
        account.work(gate)
        settle()
        path = f"/v1/processes/{account.pid.id}/state"
        for _ in range(3):
            status, words = refused(node, path)
            assert status == 409
            assert words == f"state: {account.pid!r} is busy, it did not answer in 0.2 s"
        assert len(account.pid.mailbox) == 1
        gate.open()
        settle()
        assert "17" in node.get(path)["state"]
        assert "17" in node.get(path)["state"]

    def test_that_cannot_be_told_harms_nobody(self, node):
        """A format_status that raises is the answer's problem."""

        class Bad(gpool.GenServer):
            def format_status(self):
                raise ValueError("password=swordfish")

        server = Bad.start()
        for _ in range(2):
            status, words = refused(node, f"/v1/processes/{server.pid.id}/state")
            assert status == 409
            assert "ValueError" in words
            assert "swordfish" not in words
        assert gpool.is_alive(server)

    def test_is_not_asked_of_the_class_in_vain(self, node):
        """Whether it shows one is found out without its metaclass."""

        class Evil(gpool.GenServer, metaclass=TrapMeta):
            def __getattribute__(self, name):
                if TrapMeta.is_set:
                    sprung.append(name)
                return super().__getattribute__(name)

        pid = Evil.start().pid
        with unsprung():
            assert node.get(f"/v1/processes/{pid.id}")["process"]["state_shown"] is False
            assert refused(node, f"/v1/processes/{pid.id}/state")[0] == 403

    def test_leaves_no_process_behind(self, node, shop):
        """However often somebody asks, the memory of the dead is not full of askers."""
        gpool.self()
        ended, alive = gpool.recently_ended(), gpool.processes()
        for _ in range(5):
            node.get(f"/v1/processes/{shop['account'].pid.id}/state")
        assert gpool.recently_ended() == ended
        assert set(gpool.processes()) <= {*alive, gevent.get_hub().__dict__.get("gpool_pid")}


class TestTree:
    def test_shows_all_and_what_is_looked_for(self, node, shop):
        """With the pools' trees, and a child that waits for its restart."""
        answer = node.get("/v1/tree")
        keys = [root["key"] for root in answer["roots"]]
        assert {"top", "many", "gpool"} <= set(keys)
        [many] = [root for root in answer["roots"] if root["key"] == "many"]
        assert many["children"][0]["status"] == "restarting"
        found = node.get("/v1/tree", filter="slow")
        assert [root["key"] for root in found["roots"]] == ["many"]
        for query in ({"limit": 0}, {"limit": 1001}, {"depth": 1}, {"filter": "x" * 201}):
            assert refused(node, "/v1/tree", **query)[0] == 400

    def test_heals_when_a_manager_is_killed(self, node, shop):
        """The restart is counted, and an event tells of it."""
        fall(shop["db"])
        settle()
        found = node.get("/v1/tree", filter="PoolMan")
        nodes, restarts = list(found["roots"]), {}
        while nodes:
            one = nodes.pop()
            nodes += one["children"]
            restarts[one["pool"], one["label"]] = one["restarts"]
        assert restarts["db", "PoolMan"] == 1
        assert restarts["cache/1", "PoolMan"] == 0
        kinds = {event["kind"] for event in node.get("/v1/events", level="error")["events"]}
        assert "PoolFell" in kinds


class TestPools:
    def test_are_listed_and_looked_into(self, node, shop):
        """By names that may have a slash in them."""
        assert [pool["name"] for pool in node.get("/v1/pools")["pools"]] == ["cache/1", "db"]
        pool = node.get("/v1/pools/cache%2F1")["pool"]
        assert pool["holders"][0]["client"]["id"] == shop["holder"].pid.id
        assert pool["waiters"][0]["client"]["id"] == shop["waiter"].pid.id
        assert set(pool["history"]) >= {"at", "idle", "wait_p50", "checkouts"}
        assert pool["errors"] == []

    @pytest.mark.parametrize("name", ["none", "..%2F..%2Fetc%2Fpasswd", "%00", "%ff", "x" * 2000])
    def test_that_do_not_run_are_not_found(self, node, name):
        """Whatever they are called."""
        assert refused(node, f"/v1/pools/{name}")[0] == 404

    @pytest.mark.parametrize("after", ["nan", "inf", "-1", "x", "1e400", "٣"])
    def test_have_a_history_after_a_moment(self, node, shop, after):
        """Of this calendar."""
        assert refused(node, "/v1/pools/db", after=after)[0] == 400
        assert node.get("/v1/pools/db", after=9e9)["pool"]["history"]["at"] == []

    def test_tell_their_own_errors(self, node, clock):
        """Those of others are theirs."""
        pool = running(Echo, size=1, name="db")
        running(Echo, size=1, name="other")
        Holder(pool)
        Borrower(pool.checkout, timeout=1.0)
        clock.advance(1.0)
        [error] = node.get("/v1/pools/db")["pool"]["errors"]
        assert (error["kind"], error["text"]) == ("CheckoutFailed", "got no worker: timeout")
        assert node.get("/v1/pools/other")["pool"]["errors"] == []


class TestEvents:
    def test_are_told_from_a_number_on(self, node, shop):
        """At least of a level, oldest first; the last number is told."""
        answer = node.get("/v1/events")
        seqs = [event["seq"] for event in answer["events"]]
        assert seqs == sorted(seqs)
        assert answer["last"] == seqs[-1]
        assert node.get("/v1/events", after=answer["last"])["events"] == []
        levels = {event["level"] for event in node.get("/v1/events", level="warning")["events"]}
        assert "info" not in levels
        for query in ({"after": -1}, {"after": "x"}, {"level": "debug"}, {"since": 1}):
            assert refused(node, "/v1/events", **query)[0] == 400


BAD = [
    b"", b"\r\n\r\n", b"GET", b"GET /v1/node HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00" * 5000, b"\xff\xfe\r\n\r\n",
    b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\n\r\n",
    b"GET /v1/node HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    b"GET /v1/%zz%00%ff HTTP/1.1\r\n\r\n",
    b"GET /v1/processes?page=%zz HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"POST /v1/actions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/actions HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
    b"POST /v1/actions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/actions HTTP/1.1\r\nX-GPool-Action: 1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 100\r\n\r\n{",
    b"BREW /v1/node HTTP/1.1\r\nConnection: close\r\n\r\n",
]  # fmt: skip


class TestBadInput:
    @pytest.mark.parametrize("raw", BAD, ids=range(len(BAD)))
    def test_is_answered_with_an_error_or_an_end(self, observe, raw, capfd):
        """And nobody hears of it: neither the hub nor who reads stderr."""
        node = observe(allow_actions=True)
        answer = spoken(node, raw)
        assert b" 200 " not in answer[:20]
        assert node.get("/v1/node")["node"]
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X" * 100])
    def test_a_method_that_is_not_known_is_none(self, node, method):
        """Reading is by GET."""
        assert node.request(method, "/v1/node")[0] == 405

    def test_a_post_is_for_actions(self, node):
        """Nothing else is to be written."""
        assert node.request("POST", "/v1/node", b"{}")[0] == 405

    def test_a_head_has_no_body(self, node):
        """The next request on the same connection is not mixed up."""
        raw = b"HEAD /v1/node HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/tree HTTP/1.1\r\nHost: x\r\n"
        answer = spoken(node, raw + b"Connection: close\r\n\r\n")
        first, second = answer.split(b"HTTP/1.1 ")[1:]
        assert first.partition(b"\r\n\r\n")[2] == b""
        assert b'"roots"' in second

    @pytest.mark.parametrize(
        "path",
        ["", "/", "/v1", "/v2/node", "/v1/node/", "//v1/node", "/v1/../v1/node", "/V1/node",
         "/v1/%2e%2e/node", "http://x/v1/node", "/v1/node;x=1", "/static/../../../etc/passwd"],
    )  # fmt: skip
    def test_a_path_that_is_not_known_is_none(self, node, path):
        """No file is read, no path is mended."""
        raw = f"GET {path or '*'} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert spoken(node, raw.encode()).startswith(b"HTTP/1.1 404 ")

    def test_a_query_that_is_too_long_is_refused(self, node):
        """It is nobody's."""
        assert refused(node, "/v1/processes?filter=" + "x" * 3000)[0] == 414

    def test_our_own_failure_is_a_sentence(self, node, monkeypatch):
        """Whoever looks gets an error, and the next answer."""

        def fail(**_):
            raise ZeroDivisionError("password=swordfish")

        monkeypatch.setattr(api, "tree_of", fail)
        status, words = refused(node, "/v1/tree")
        assert (status, words) == (
            500, "the agent failed: ZeroDivisionError('password=***')",
        )  # fmt: skip
        assert node.get("/v1/node")


class TestManyClients:
    def test_are_served_at_once(self, node):
        """A hundred that come together all get an answer."""
        clients = [gevent.spawn(node.get, "/v1/processes") for _ in range(100)]
        assert len([client.get()["total"] for client in clients]) == 100

    def test_that_hang_harm_nobody(self, node):
        """They say nothing, or half of it; others are answered."""
        hanging = [socket(AF_UNIX) for _ in range(20)]
        for n, sock in enumerate(hanging):
            sock.connect(node.path)
            sock.sendall((b"", b"GET /v1/no", b"GET /v1/node HTTP/1.1\r\nX")[n % 3])
        assert node.get("/v1/node")
        for sock in hanging:
            sock.close()

    def test_that_hang_are_let_go_after_a_while(self, node, monkeypatch, capfd):
        """Whoever says nothing for so long gets no answer."""
        monkeypatch.setattr(agent, "IDLE", 0.05)
        for raw in (b"", b"GET /v1/no", b"POST /v1/actions HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"):
            assert b" 200 " not in spoken(node, raw, end=False)
        assert capfd.readouterr().err == ""

    def test_that_go_away_leave_nothing(self, node, capfd):
        """Before, while and after they are answered."""
        gc.collect()
        for raw in (b"", b"GET /v1/tree HTTP/1.1\r\n", b"GET /v1/tree HTTP/1.1\r\nHost: x\r\n\r\n"):
            for _ in range(10):
                sock = socket(AF_UNIX)
                sock.connect(node.path)
                sock.sendall(raw)
                sock.close()
        assert node.get("/v1/node")
        assert capfd.readouterr().err == ""


class TestVirtualClock:
    def test_does_not_hold_the_agent(self, observe, clock):
        """It has a clock of its own: whoever stops gpool's time can still look."""
        node = observe(show_state=True)
        gate, server = Gate(), Account.start()
        server.work(gate)
        settle()
        assert refused(node, f"/v1/processes/{server.pid.id}/state")[0] == 409
        assert Client(node.path, kind=socket).get("/v1/node")["now"] > 1e9
        gate.open()
        settle()
