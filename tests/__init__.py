"""The tests; they mirror the package, a file per module."""
