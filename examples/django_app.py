"""A guestbook in Django on PostgreSQL: each request borrows a connection, and gives it back.

    pip install 'gpool[django,gunicorn]'
    export PGHOST=localhost PGUSER=postgres        # where your server is
    python examples/django_app.py                  # runs the checks, and makes the table
    gunicorn -c examples/django_gunicorn.conf.py --chdir examples django_app:application
    curl -d 'text=hello' http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/                    # {"entries": [...], "pool": {...}}

Kill the server, or a worker of gunicorn, while you send requests: those that were in the
middle of it fail, the others wait for at most two seconds.
"""

import os

import django
import gevent
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

import gpool
from gpool.integrations.django import close_connection

settings.configure(
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["gpool.integrations.django"],  # its system checks
    GPOOL_PROCESSES=2,  # as many as gunicorn has workers
    DATABASES={
        "default": {
            "ENGINE": "gpool.integrations.django",
            "NAME": os.environ.get("PGDATABASE", "postgres"),
            "USER": os.environ.get("PGUSER", "postgres"),
            "HOST": os.environ.get("PGHOST", "localhost"),
            "PORT": os.environ.get("PGPORT", "5432"),
            "ATOMIC_REQUESTS": True,
            "OPTIONS": {"gpool": {"size": 4, "timeout": 2.0}},
        }
    },
)
django.setup()


class Entry(models.Model):
    """What somebody has written."""

    text = models.TextField()  # type: ignore[var-annotated]
    words = models.IntegerField(null=True)  # type: ignore[var-annotated]

    class Meta:  # noqa: D106
        app_label = "guestbook"


@close_connection  # it serves no request: nobody else would give its connection back
def count_words(number: int) -> None:
    """See to an entry, after its request has ended."""
    entry = Entry.objects.get(pk=number)
    entry.words = len(entry.text.split())
    entry.save()


def guestbook(request: HttpRequest) -> HttpResponse:
    """Show the latest entries and the pool, or write one."""
    if request.method == "POST":
        entry = Entry.objects.create(text=request.POST["text"])
        transaction.on_commit(lambda: gevent.spawn(count_words, entry.pk))
        return HttpResponse(f"{entry.pk}\n", status=201)
    latest = list(Entry.objects.order_by("-pk").values("text", "words")[:10])
    stats = gpool.get_pool("django-default").stats()
    return JsonResponse({"entries": latest, "pool": {"busy": stats.busy, "idle": stats.idle}})


def export(request: HttpRequest) -> StreamingHttpResponse:
    """Send all entries, from the server's cursor: the connection goes back after the last one."""
    rows = Entry.objects.order_by("pk").iterator(chunk_size=100)
    return StreamingHttpResponse(f"{entry.text}\n" for entry in rows)


urlpatterns = [path("", guestbook), path("export", transaction.non_atomic_requests(export))]
application = get_wsgi_application()

if __name__ == "__main__":
    call_command("check", databases=["default"])
    with connection.schema_editor() as editor:
        editor.create_model(Entry)
