"""What the test suites of other pools promise, asked of gpool: one module per source.

``docs/proofs.md`` says which behaviour is tested where, and which does not apply.
"""
