"""How gunicorn serves flask_app.py."""

from gpool.integrations.gunicorn import child_exit, post_worker_init, worker_exit  # (5)

worker_class = "gevent"
workers = 2
