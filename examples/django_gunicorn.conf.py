"""Configures gunicorn for django_app.py: two workers on gevent, each with a pool of its own."""

from gpool.integrations.gunicorn import child_exit, post_worker_init, worker_exit

__all__ = ["child_exit", "post_worker_init", "worker_exit"]  # hooks: gunicorn calls them

bind = "127.0.0.1:8000"
worker_class = "gevent"
workers = 2
