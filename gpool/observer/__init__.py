"""The Observer: look into a running system, from a page or a terminal."""
