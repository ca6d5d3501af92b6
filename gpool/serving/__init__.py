"""gevent's servers: drained, supervised, run."""
