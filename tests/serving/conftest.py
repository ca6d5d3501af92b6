"""What the tests of servers get: an application, clients, servers that end."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gevent.ssl import SSLContext

from gpool.serving.handlers import Handlers
from tests.serving.web import Clients, Web, some_clients


@pytest.fixture
def web() -> Web:
    """Give an application."""
    return Web()


@pytest.fixture
def client() -> Iterator[Clients]:
    """Give clients."""
    with some_clients() as clients:
        yield clients


@pytest.fixture
def started() -> Iterator[Callable[[Any], Handlers]]:
    """Give a way to start servers."""
    all_of_them: list[Handlers] = []

    def start(server: Any) -> Handlers:
        handlers = Handlers(server, lambda error: None)
        handlers.start()
        all_of_them.append(handlers)
        return handlers

    yield start
    for handlers in all_of_them:
        handlers.cut()


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[SSLContext, SSLContext]:
    """Give a server's context, and a client's that trusts anybody."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: it makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return context, trusting
