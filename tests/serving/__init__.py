"""Servers: how they are run, supervised, and end."""
