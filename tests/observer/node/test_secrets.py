"""What is hidden: by its name, or by the looks of a text, and what is not."""

from __future__ import annotations

import functools
import pathlib

import pytest

import gpool
from gpool.observer.node.secrets import HIDDEN, is_secret, scrubbed
from gpool.observer.node.text import LIMIT, cut, shown, traced

VALUES = [
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


KEY = "\n".join(["-----BEGIN RSA PRIVATE KEY-----", "sword/fish+" * 5, "swordfish=="])
END = "-----END RSA PRIVATE KEY-----"

# A text, and what is shown of it.
SCRUBBED = [
    # All that is in a value's brackets.
    ("passwords=['a','b'], x=1", "passwords=***, x=1"),
    ("password=Secret('x y'), x=1", "password=***, x=1"),
    ("password=Secret('x)', [y]).get(' z'); x=1", "password=***; x=1"),
    ("f(password=g(1, 2), x=1)", "f(password=***, x=1)"),
    ("{'tokens': {'a': ['b', 'c'], 'd': (1, 2)}, 'x': 1}", "{'tokens': ***, 'x': 1}"),
    ("passwords=['a', 'b", "passwords=***"),
    ("password=<Secret of ann>, x=1", "password=***, x=1"),
    (r"{\'passwords\': [\'a]\', \'b\'], \'x\': 1}", r"{\'passwords\': ***, \'x\': 1}"),
    # All that is in its quotes.
    (r"password='it\'s it', x=1", "password=***, x=1"),
    ("password=rb'x y', x=1", "password=***, x=1"),
    ("password='''x y''', x=1", "password=***, x=1"),
    ("gpool --password 'x y' -x", "gpool --password *** -x"),
    # However it is assigned.
    ("if password == 'x y':", "if password == ***:"),
    ("'password' => 'x y', 'x' => 1", "'password' => ***, 'x' => 1"),
    ("os.environ['DB_PASSWORD'] = 'x y'", "os.environ['DB_PASSWORD'] = ***"),
    ("get(url, auth=('ann', 'x'), y=1)", "get(url, auth=***, y=1)"),
    # Names.
    ("SECRET_KEY_BASE=x y", "SECRET_KEY_BASE=*** y"),
    ("AccountName=n;AccountKey=x/+==;Suffix=s", "AccountName=n;AccountKey=***;Suffix=s"),
    ("AWS_ACCESS_KEY_ID=x AWS_REGION=y", "AWS_ACCESS_KEY_ID=*** AWS_REGION=y"),
    ("https://h/b?sv=1&sig=x%2B&se=2", "https://h/b?sv=1&sig=***&se=2"),
    ("https://h/b?sig=x", "https://h/b?sig=***"),
    ("https://h/b?X-Amz-Signature=x&y=1", "https://h/b?X-Amz-Signature=***&y=1"),
    ("smtppass=x", "smtppass=***"),
    # Addresses: the host is shown.
    ("dsn=postgresql://ann:x@host/db", "dsn=postgresql://ann:***@host/db"),
    ("url='redis://:x@host:6379/0'", "url='redis://:***@host:6379/0'"),
    ("dsn='host=h password=x user=u'", "dsn='host=h password=*** user=u'"),
    (r"host=h password='x\'y z' user=u", "host=h password=*** user=u"),
    ("user:pw@host", "user:***@host"),
    ("at ann:p@ss:w@10.0.0.1:5432/db", "at ann:***@10.0.0.1:5432/db"),
    ("addresses=['ann:x!y@db.example.org']", "addresses=['ann:***@db.example.org']"),
    ("root:123456@localhost", "root:***@localhost"),
    # What is known by its looks alone.
    ("got eyJhbGciOi.eyJzdWIiOi.c2ln-_x, x", "got ***, x"),
    ("got ghp_abcdefghij0123, x", "got ghp_***, x"),
    ("got github_pat_11ABC_def, x", "got github_pat_***, x"),
    ("got sk_live_abcdef01, x", "got sk_live_***, x"),
    ("got sk-proj-abcdefghijk0123456789, x", "got sk-***, x"),
    ("got xoxb-1234-abcd, xoxp-1234-abcd", "got xoxb-***, xoxp-***"),
    ("got AKIAIOSFODNN7EXAMPLE, x", "got AKIA***, x"),
    (f"got {KEY}\n{END}\nx", "got -----BEGIN RSA PRIVATE KEY-----***\nx"),
    (repr(f"{KEY}\n{END}\n"), r"'-----BEGIN RSA PRIVATE KEY-----***\n'"),
    (KEY, "-----BEGIN RSA PRIVATE KEY-----***"),
]

SHOWN = [
    "http://host:8080/path", "tokenize: 3", "a = b", "pass it on", "pass", "else: pass",
    "author=ann", "author: ann", "authority=x", "authorized: yes", "tokenizer=bpe", "passenger=ann",
    "compass=north", "bypass: no", "secretary: ann", "keyboard=us", "monkey=3", "primary_key=3",
    "foreign_key: 4", "key=5", "KeyError: 'key'", "sort_key=<f>", "cache_key='ab'", "hash_key=1",
    "a token bucket: 5 of 7", "token_bucket=5", "password_required=True", "OLDPWD=/home/ann",
    "ann@example.org", "mailto:ann@example.org", "From:ann@example.org", "Ann <ann@example.org>",
    "to: ann@example.org, bob@example.org", "{'mail': 'ann@example.org'}", "git@host:ann/x.git",
    "file.py:12@main", "at file.py:12:3@main", "/srv/x/secrets.py:12", "token.py:12",
    "12:30@office", "nginx:1.25@sha256:0123abcd", "C:/Users/ann@work", "npm:left-pad@latest",
    "#PID<0.12.3>",
    "<Worker #PID<0.12.3>>", "pid=4711", "File \"/a/pass/token.py\", line 12, in secret",
    "if '-----BEGIN PRIVATE KEY-----' in text: x", "sk-SK", "task-force-of-the-year-2026",
    "sig=SIGTERM", "signature: (a, b)", "the basis", "asia", "ghp_", "eyJ", "a.eyJ.b",
]  # fmt: skip

# Words after which a pattern may go on, or begin again.
HOSTILE = [
    "password", "password ", "password=", "password='", "password=\\'", "password=(", "password=<",
    "secret_key_", "token1", "=", "==", "'", "\\", "(", ")", "[(", "<", "--", "--password", " --a-",
    "authorization", "Cookie: ", "basic ", "://", "://:", "://a:", "://a:b@", "a:", "a:b", "a:b!",
    "a:@", "a.", "@", "eyJ", "eyJ-", "eyJaaaa.", "sk-", "ghp_", "xoxb-", "AKIA", "&sig=",
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "-----END ", "-", "1", "key", " ", "x",
]  # fmt: skip


class TestShown:
    @pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
    def test_leaves_secrets_out(self, value):
        """By the name that they go by, in whatever they are packed."""
        for limit in (LIMIT, 4000):
            assert "swordfish" not in shown(value, limit)
            assert HIDDEN in shown(value, limit)

    def test_leaves_them_out_before_it_cuts(self):
        """What is cut off cannot be what made it a secret."""
        for before in range(250, 310):
            text = cut("x" * before + " postgresql://ann:" + "s" * 2000 + "@host")
            assert "ss" not in text.replace("***", "")


class TestTraced:
    @pytest.mark.parametrize("margin", ["", "  | "])
    @pytest.mark.parametrize("more", [0, 70, 120, 300])
    def test_hides_a_key_of_many_lines(self, more, margin):
        """Even if the lines that begin it are left out; in a group's margin too."""
        lines = [*KEY.splitlines()[:1], *["swordfish"] * 90, END, *["in f()"] * more]
        text = traced("\n".join(margin + line for line in ["ValueError:", *lines, "x"]))
        assert "swordfish" not in text
        assert text.endswith("x")


class TestScrubbed:
    @pytest.mark.parametrize(("text", "expected"), SCRUBBED, ids=range(len(SCRUBBED)))
    def test_hides_what_looks_like_a_secret(self, text, expected):
        """And no more than that; again, it finds nothing to hide."""
        assert scrubbed(text) == expected
        assert scrubbed(expected) == expected

    @pytest.mark.parametrize("text", SHOWN)
    def test_shows_what_only_looks_a_little_like_one(self, text):
        """Words, lines, paths, mail and pids."""
        assert scrubbed(text) == text
        assert scrubbed(text, is_cut=True) == text or "://" in text

    @pytest.mark.timeout(20)  # what is quadratic takes minutes
    @pytest.mark.parametrize("word", HOSTILE)
    def test_reads_no_text_again_and_again(self, word):
        """A long text takes as much longer as it is long, whatever is in it."""
        for before, after in (("", "!"), ("password=(", "\n"), ("token --", " ")):
            assert scrubbed(before + word * (100_000 // len(word)) + after, is_cut=True)


class TestIsSecret:
    @pytest.mark.parametrize(
        "name",
        [
            "password", "dbPassword", "PGPASSWORD", "pass", "db_pass", "dbpass", "pwd", "ssh_key",
            "SSH_KEYS", "client_secret", "client_secret_json", "secret_v2", "secret2",
            "connection_string", "ConnectionString", "SECRET_KEY_BASE", "AccountKey",
            "SharedAccessKey", "AWS_ACCESS_KEY_ID", "auth", "httpAuth", b"authorization",
        ],
    )  # fmt: skip
    def test_knows_names_by_their_end(self, name):
        """In any spelling."""
        assert is_secret(name)

    @pytest.mark.parametrize(
        "name",
        [
            "author", "authority", "tokenizer", "passenger", "compass", "bypass", "secretary",
            "keyboard", "monkey", "primary_key", "foreign_key", "key", "sort_key", "cache_key",
            "token_bucket", "password_required", "password_file", "dsn", "url", "sig", "oauthor", 5,
        ],
    )  # fmt: skip
    def test_knows_no_others(self, name):
        """A word that has one in it is none; a dsn is a text that may have one."""
        assert not is_secret(name)
