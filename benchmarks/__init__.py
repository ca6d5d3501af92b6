"""How fast gpool is (``python -m benchmarks``), and what it survives (``benchmarks.torture``)."""
