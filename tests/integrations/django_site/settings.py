"""Settings of a site on the server at PGPORT; what SITE has, as JSON, goes into its alias.

SITE_PROCESSES, as JSON, is its GPOOL_PROCESSES.
"""

import json
import os

SECRET_KEY = "of tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "gpool.integrations.django",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast
STATIC_URL = "static/"
DATABASES = {
    "default": {
        "ENGINE": "gpool.integrations.django",
        "NAME": os.environ.get("PGDATABASE", "postgres"),
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": os.environ["PGPORT"],
        "ATOMIC_REQUESTS": True,
        "OPTIONS": {"gpool": {"size": 4, "max_overflow": 2, "timeout": 7.0}},
    }
    | json.loads(os.environ.get("SITE", "{}"))
}
GPOOL_PROCESSES = json.loads(os.environ.get("SITE_PROCESSES", "null"))
