"""The application of that name in ``INSTALLED_APPS``: it registers the system checks.

Nothing else: ``ready()`` runs in every management command, and before servers fork.
"""

from __future__ import annotations

from django.apps import AppConfig


class GPoolConfig(AppConfig):
    """Registers the checks of ``checks.py``."""

    name = "gpool.integrations.django"
    label = "gpool"
    verbose_name = "gpool"

    def ready(self) -> None:
        """Register the checks; starts nothing."""
        from gpool.integrations.django.checks import register

        register()
