"""Any object as a short text: no code of a user's is run, no secret is told."""

from __future__ import annotations

import collections
import datetime
import functools
import ipaddress
import pathlib
import types
import uuid
from decimal import Decimal
from fractions import Fraction

import pytest

import gpool
from gpool.observer.node.secrets import HIDDEN, is_secret, scrubbed
from gpool.observer.node.text import LIMIT, cut, shown
from tests.observer.node.traps import Trap, TrapData, TrapRow, TrapText, traps, unsprung


class Plain:
    def method(self):
        """Do nothing."""


class Server(gpool.GenServer):
    pass


class TestShown:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, "None"),
            (True, "True"),
            (1.5, "1.5"),
            (-17, "-17"),
            ("a'b", '"a\'b"'),
            (b"ab", "b'ab'"),
            ([1, "x"], "[1, 'x']"),
            ((1,), "(1,)"),
            ((), "()"),
            ({1}, "{1}"),
            (frozenset({1}), "frozenset({1})"),
            (collections.deque([1]), "deque([1])"),
            ({"a": 1}, "{'a': 1}"),
            (collections.OrderedDict(a=1), "{'a': 1}"),
            (collections.defaultdict(list, a=1), "{'a': 1}"),
            (range(3), "range(0, 3, 1)"),
            (slice(1, None), "slice(1, None, None)"),
            (Fraction(1, 3), "1/3"),
            (Decimal("1.5"), "Decimal('1.5')"),
            (datetime.date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
            (datetime.datetime(2026, 1, 2, 3), "2026-01-02T03:00:00"),
            (datetime.time(3, tzinfo=datetime.UTC), "03:00:00 timezone"),
            (pathlib.PurePosixPath("/a"), "PurePosixPath('/a')"),
            (ipaddress.IPv4Address("127.0.0.1"), "IPv4Address('127.0.0.1')"),
            (uuid.UUID(int=1), "UUID('00000000-0000-0000-0000-000000000001')"),
            (ValueError("x", 1), "ValueError('x', 1)"),
            (gpool.Error(KeyError("x")), "KeyError('x')"),
            (Plain(), "<Plain>"),
            (Plain, "<class Plain>"),
            (len, "<len>"),
            (Plain.method, "<Plain.method>"),
            (Plain().method, "<Plain.method of Plain>"),
            (functools.partial(len, [1], key=2), "partial(<len>, [1], key=2)"),
            (types.SimpleNamespace(a=1), "<SimpleNamespace>"),
            (Server, "<class Server>"),
        ],
    )
    def test_writes_what_python_brings_and_names_the_class_of_the_rest(self, value, text):
        """Built-in types are taken apart; of another class's instance only the class is told."""
        assert shown(value) == text

    def test_calls_a_server_by_its_pid(self):
        """A server is its class and its pid."""
        server = Server.start()
        assert shown(server) == f"<Server {server.pid!r}>"

    @pytest.mark.parametrize("number", range(len(traps())))
    def test_runs_no_code_of_a_class(self, number):
        """Neither methods, nor attributes, nor what a metaclass has written."""
        value = traps()[number]
        with unsprung():
            assert type(shown(value)) is str

    def test_runs_no_code_of_what_wraps_others(self):
        """A method of a callable, a partial of a trap, a slice and a zone of time."""

        class Zone(datetime.tzinfo):
            __repr__ = utcoffset = lambda self, *_: pytest.fail("called")

        values = [
            types.MethodType(Trap(), Trap()),
            functools.partial(Trap(), Trap(), **{TrapText("password"): "swordfish"}),
            datetime.datetime(2026, 1, 2, tzinfo=Zone()),
            datetime.time(1, tzinfo=Zone()),
        ]
        with unsprung():
            texts = [shown(value) for value in values]
        assert "swordfish" not in "".join(texts)

    def test_takes_dataclasses_and_named_tuples_apart_by_what_is_stored(self):
        """Their fields are told by name, secrets and those without repr are not."""
        assert shown(TrapData(1)) == f"TrapData(name=1, password={HIDDEN})"
        assert shown(TrapRow("ann", "x")) == f"TrapRow(user='ann', password={HIDDEN})"

    @pytest.mark.parametrize(
        "value",
        [
            10**6000,
            range(10**6000),
            Fraction(10**6000, 10**6000 + 1),
            "x" * 10**7,
            b"x" * 10**7,
            list(range(10**5)),
            dict.fromkeys(range(10**5)),
            ["x" * 1000] * 1000,
            {"k" * 10**6: "v" * 10**6},
            "\ud800\x00\n",
            ValueError(*["x" * 1000] * 100),
        ],
        ids=range(11),
    )
    def test_limits_what_is_huge(self, value):
        """A text has at most so many characters, whatever it is of."""
        assert 0 < len(shown(value)) <= LIMIT

    def test_limits_what_is_deep_or_wide(self):
        """A tree of collections is written to some depth, and to some number of parts."""
        deep: list[object] = []
        for _ in range(5000):
            deep = [deep]
        assert shown(deep) == "[[[[<list>]]]]"
        wide = [[[["x"] * 8] * 8] * 8] * 8
        assert shown(wide).count("'x'") < LIMIT
        assert shown(wide).endswith("…")

    def test_bears_a_collection_that_contains_itself(self):
        """It ends at the depth where all end."""
        loop: dict[str, object] = {}
        loop["me"] = loop
        assert shown(loop) == "{'me': {'me': {'me': {'me': <dict>}}}}"

    def test_says_that_a_collection_changes(self, monkeypatch):
        """One that another thread changes meanwhile is not written."""

        class Changing(dict):
            pass

        monkeypatch.setitem(shown.__globals__["_WRITERS"], id(Changing), _raise_changed)
        assert shown(Changing()).endswith("Changing, changing>")


def _raise_changed(*_):
    raise RuntimeError("dictionary changed size during iteration")


SECRETS = [
    {"password": "swordfish"},
    {"db_password": "swordfish"},
    {"dbPassword": "swordfish"},
    {"PASSWORD": "swordfish"},
    {"SECRET_KEY": "swordfish"},
    {"aws_secret_access_key": "swordfish"},
    {"apikey": "swordfish", "api-key": "swordfish"},
    {"password_hash": "swordfish", "password2": "swordfish"},
    {"X-Auth-Token": "swordfish", "Set-Cookie": "swordfish", "Authorization": "swordfish"},
    {b"authorization": b"swordfish"},
    {"auth": ("ann", "swordfish"), "http_auth": "swordfish"},
    {"session_id": "swordfish"},
    {"nested": [{"credentials": ["swordfish"]}]},
    [("authorization", "swordfish")],
    [(b"cookie", b"swordfish")],
    ["psql", "--password", "swordfish"],
    ["psql", "--password=swordfish"],
    "postgresql://ann:swordfish@host/db",
    "postgresql://ann:sword/fish/swordfish@host/db",
    "redis://:swordfish@host",
    "postgresql://ann:" + "swordfish" * 500 + "@host",
    "host=h password=swordfish user=u",
    "password='sword swordfish'",
    'password = "sword swordfish"',
    "password='" + "sword swordfish " * 100 + "'",
    "{'password': 'sword swordfish'}",
    '{"password": "sword swordfish"}',
    repr('{"password": "sword swordfish"}'),
    repr(repr({"it's": 1, "password": "sword swordfish"})),
    "Authorization: Bearer swordfish.swordfish",
    "Authorization: Token swordfish",
    "Cookie: a=b; session=swordfish",
    "?token=swordfish&x=1",
    "PGPASSWORD=swordfish psql",
    "gpool --password swordfish -x",
    b"password=swordfish",
    ValueError("postgresql://ann:swordfish@host/db"),
    ConnectionError({"password": "swordfish"}),
    gpool.Error(ValueError("password=swordfish")),
    functools.partial(len, password="swordfish"),
    pathlib.PurePosixPath("/x?password=swordfish"),
]


class TestSecrets:
    @pytest.mark.parametrize("value", SECRETS, ids=range(len(SECRETS)))
    def test_are_left_out(self, value):
        """By the name that they go by, in whatever they are packed."""
        for limit in (LIMIT, 4000):
            assert "swordfish" not in shown(value, limit)
            assert HIDDEN in shown(value, limit)

    @pytest.mark.parametrize(
        "value", ["http://host:8080/path", "tokenize: 3", "a = b", {"author": "ann"}, "pass it on"]
    )
    def test_are_not_seen_in_everything(self, value):
        """What only looks a little like one is shown."""
        assert HIDDEN not in shown(value)

    @pytest.mark.parametrize("name", ["password_required", "author", "passenger", "monkey", 5])
    def test_have_a_name_that_ends_so(self, name):
        """Other names are none."""
        assert not is_secret(name)

    def test_are_found_before_the_text_is_cut(self):
        """What is cut off cannot be what made it a secret."""
        for before in range(250, 310):
            text = cut("x" * before + " postgresql://ann:" + "s" * 2000 + "@host")
            assert "ss" not in text.replace("***", "")

    def test_are_scrubbed_in_time(self):
        """No text makes the search for secrets take long: it is linear."""
        for text in ("password" * 500, "password" + " " * 4000, "://:" * 1000, "--" * 2000):
            assert scrubbed(text + "x")
