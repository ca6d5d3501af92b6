"""Django, set up for tests in a process of their own, with aliases that come and go."""

from __future__ import annotations

import itertools
from typing import Any

import django
from django.conf import settings
from django.db import connections

if not settings.configured:
    settings.configure(
        USE_TZ=True,
        DATABASES={"default": {"ENGINE": "gpool.integrations.django"}},
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="tests.integrations.django_urls",
        SECRET_KEY="of tests",
    )
    django.setup()

numbers = itertools.count(1)


def add_alias(port: int, **settings: Any) -> str:
    """Add an alias to DATABASES, and return its name.

    Args:
        port: Of the server.
        settings: Of the alias; what ``OPTIONS`` has of the pool may be given as ``gpool``.
    """
    alias = f"db{next(numbers)}"
    options = {"gpool": settings.pop("gpool", {})} | settings.pop("OPTIONS", {})
    words = {
        "ENGINE": "gpool.integrations.django", "NAME": "postgres", "USER": "postgres",
        "HOST": "127.0.0.1", "PORT": port, "OPTIONS": options,
    }  # fmt: skip
    complete = connections.configure_settings({"default": words | settings})
    connections.settings[alias] = complete["default"]
    return alias


def remove_alias(alias: str) -> None:
    """Remove an alias, and what this greenlet and the pools have of it."""
    connections[alias].close()
    connections[alias].close_pool()
    del connections[alias], connections.settings[alias]
