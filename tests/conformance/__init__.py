"""What real OTP and poolboy did in many small scenarios, replayed on gpool.

``signals.json``, ``gen_server.json`` and ``supervisor.json`` were recorded with
OTP 25, ``pool.json`` with poolboy 1.5 on it.  ``python -m tests.conformance
FILE.json...`` replays any file of their format; ``test_replay.py`` replays these.

    terms            JSON terms and the Python terms that mean the same
    reading          trace files
    step_clock       virtual time, which moves only when a step has to wait
    actors           processes that do what they are told
    roster           labels, processes, names, monitors
    scripted_server  the servers of kind gen_server
    children         the children of kind supervisor
    world_*          one kind of trace each: operations and observations
    rules            where gpool differs on purpose from OTP
    rules_pool       ... and from poolboy
    replay           the loop, and the comparison
"""
