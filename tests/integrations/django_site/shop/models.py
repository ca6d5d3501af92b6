"""What the site sells."""

from django.contrib import admin
from django.db import models


class Item(models.Model):
    """Something with a name."""

    name = models.CharField(max_length=50)


admin.site.register(Item)
