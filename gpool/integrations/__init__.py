"""gpool among other libraries: one file each. Nothing here is imported by the core."""
