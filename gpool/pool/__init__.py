"""The supervised pool: PoolSup, PoolMan, WorkerSup and what a client holds."""
