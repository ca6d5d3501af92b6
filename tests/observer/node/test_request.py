"""What comes in at the socket: checked, or refused with a sentence."""

from __future__ import annotations

import io

import pytest

from gpool.observer.node.request import BODY, QUERY, Refused, Request


def request(query="", path="/v1/x", **environ):
    """Return a request."""
    return Request({
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query, **environ
    })  # fmt: skip


def posted(body, length=None, kind="application/json"):
    """Return a request with a body."""
    size = str(len(body)) if length is None else length
    return request(CONTENT_TYPE=kind, CONTENT_LENGTH=size, **{"wsgi.input": io.BytesIO(body)})


class TestQuery:
    @pytest.mark.parametrize(
        ("query", "status", "words"),
        [
            ("x=" + "a" * QUERY, 414, "expected at most"),
            ("a=1&a=2", 400, "each parameter once"),
            ("&".join(f"p{n}=1" for n in range(21)), 400, "at most 20 parameters"),
        ],
    )
    def test_is_limited(self, query, status, words):
        """In length, in number, and to one of each."""
        with pytest.raises(Refused, match=words) as caught:
            request(query)
        assert caught.value.status == status

    def test_has_no_parameters_but_the_known(self):
        """One that nobody reads is a mistake of who asks."""
        request("a=1").only("a", "b")
        with pytest.raises(Refused, match="expected some of a, b; got 'c'"):
            request("c=1").only("a", "b")
        with pytest.raises(Refused, match="expected some of none"):
            request("c=1").only()

    def test_is_decoded(self):
        """Percent signs, plus signs, and what is no UTF-8."""
        assert request("filter=a%20b+c%26").text("filter") == "a b c&"
        assert request("filter=%ff").text("filter") == "\ufffd"
        assert request("filter=").text("filter", "x") == ""
        with pytest.raises(Refused, match="at most 200 characters"):
            request("filter=" + "x" * 201).text("filter")

    @pytest.mark.parametrize(
        "text",
        ["", "-1", "0", "1.0", "1e3", "nan", "inf", "٣", "1_0", " 1", "+1", "9" * 30, "1001"],
    )
    def test_has_numbers_in_a_range(self, text):
        """Whole, of the ten digits, neither too small nor too large."""
        with pytest.raises(Refused, match="per: expected a"):
            request(f"per={text}".replace("+", "%2B")).number("per", 100, 1, 1000)

    @pytest.mark.parametrize(
        "text", ["", "-1", "nan", "inf", "1e400", "1e3", "٣", "1_0", "%201", "0x1", "1" * 39]
    )
    def test_has_seconds(self, text):
        """That are finite, and not negative."""
        with pytest.raises(Refused, match="after: expected seconds >= 0"):
            request(f"after={text}").seconds("after", 0.0)

    def test_has_seconds_with_decimals(self):
        """As the API itself tells them."""
        assert request("after=1764200000.123").seconds("after", 0.0) == 1764200000.123
        assert request().seconds("after", 0.0) == 0.0


class TestPath:
    @pytest.mark.parametrize(
        ("raw", "parts"),
        [
            ("/v1/pools/a%2Fb", ["v1", "pools", "a/b"]),
            ("/v1/pools/%2e%2e", ["v1", "pools", ".."]),
            ("/v1/pools/a?x=/y", ["v1", "pools", "a"]),
            ("//v1", ["", "v1"]),
            ("/", [""]),
            ("*", []),
        ],
    )
    def test_is_split_before_it_is_decoded(self, raw, parts):
        """So a name may have a slash in it."""
        assert request(RAW_URI=raw).parts == parts


class TestBody:
    @pytest.mark.parametrize(
        ("body", "length", "kind", "status"),
        [
            (b"{}", None, "text/plain", 415),
            (b"{}", None, "", 415),
            (b"{}", "", "application/json", 411),
            (b"{}", "-2", "application/json", 411),
            (b"{}", "٣", "application/json", 411),
            (b"{}", "1e1", "application/json", 411),
            (b"x" * (BODY + 1), None, "application/json", 413),
            (b"{}", "9" * 30, "application/json", 413),
            (b"{}", "20", "application/json", 400),
            (b"{", None, "application/json", 400),
            (b"\xff", None, "application/json", 400),
            (b"[]", None, "application/json", 400),
            (b"17", None, "application/json", 400),
            (b"[" * 4000, None, "application/json", 400),
            (b"9" * 4000, None, "application/json", 400),
        ],
    )
    def test_is_a_json_object_of_limited_size(self, body, length, kind, status):
        """Declared as such."""
        with pytest.raises(Refused) as caught:
            posted(body, length, kind).body()
        assert caught.value.status == status

    def test_is_read(self):
        """With any charset."""
        assert posted(b'{"a": 1}', kind="Application/JSON; charset=x").body() == {"a": 1}
