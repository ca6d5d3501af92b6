"""Any object as a short text: no code of a user's is run, no text is too long."""

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
from gpool.observer.node.secrets import HIDDEN
from gpool.observer.node.text import LIMIT, shown
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
