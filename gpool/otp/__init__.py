"""OTP's processes for gevent: links, monitors, GenServer, supervisors. Knows nothing of pools."""
