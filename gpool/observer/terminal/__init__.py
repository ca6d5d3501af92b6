"""The terminal's side: answers as text, and ``gpool top``."""
