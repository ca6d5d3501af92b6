"""Supervised pools for gevent: OTP's processes, supervisors and a pool that cannot lose a slot."""

__version__ = "0.1.0"
