"""Integrations in a program that gevent has patched, on real servers; see conftest.py."""
