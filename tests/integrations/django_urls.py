"""What the application under test serves: it queries the alias that is in its path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path


def ask(alias: str, query: str, *params: Any) -> Any:
    """Return the first column of the first row."""
    with connections[alias].cursor() as cursor:
        cursor.execute(query, params)
        return cursor.fetchone()[0]


def one(request: HttpRequest, alias: str) -> HttpResponse:
    """Say which of the server's processes has answered."""
    return HttpResponse(str(ask(alias, "select pg_backend_pid()")))


def stream(request: HttpRequest, alias: str) -> StreamingHttpResponse:
    """Query for each part of the body."""

    def body() -> Iterator[str]:
        for number in range(3):
            yield f"{ask(alias, 'select %s::int', number)} "

    return StreamingHttpResponse(body())


def broken(request: HttpRequest, alias: str) -> HttpResponse:
    """Fail within a transaction."""
    with transaction.atomic(alias):
        ask(alias, "select 1 / 0")
    return HttpResponse("never")


urlpatterns = [
    path("one/<alias>", one),
    path("stream/<alias>", stream),
    path("broken/<alias>", broken),
]
