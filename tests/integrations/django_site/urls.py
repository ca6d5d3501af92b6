"""What the site serves."""

import os

import gevent
from django.contrib import admin
from django.db import connection
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from shop.models import Item


def add(request, name):
    """Add an item, in the request's transaction; ``?fail`` raises after that."""
    Item.objects.create(name=name)
    if "fail" in request.GET:
        raise ValueError(name)
    return HttpResponse(name)


def count(request):
    """Say how many items there are."""
    return HttpResponse(str(Item.objects.count()))


def stream(request):
    """Send items as they come; ``?sleep`` holds the connection between two of them."""

    def body():
        for item in Item.objects.order_by("id").iterator(chunk_size=2):
            gevent.sleep(float(request.GET.get("sleep", 0)))
            yield f"{item.name}\n"

    return StreamingHttpResponse(body())


def numbers(request):
    """Say what the pool has, and which process this is."""
    stats = connection.pool.stats()
    return JsonResponse({"pid": os.getpid(), "busy": stats.busy, "open": stats.accounted, "cap": 6})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("add/<name>", add),
    path("count", count),
    path("stream", stream),
    path("numbers", numbers),
]
