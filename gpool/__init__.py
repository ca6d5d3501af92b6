"""Supervised pools for gevent: OTP's processes, supervisors and a pool that cannot lose a slot.

A map, from the bottom up::

    errors, clock, waiter, telemetry   exceptions; time; the one switch point; events
    otp/                               processes, links, monitors, servers, supervisors
    pool/                              who holds what, who waits; pools and their tree
    serving/                           gevent's servers: drained, supervised, run
    metrics, relay                     counters and histograms, of what telemetry tells
    testing                            settle and a virtual clock, for your tests too

Everything public can be imported from here; ``gpool.sys`` looks into servers,
``gpool.telemetry`` has the events and ``attach``.  Above all of it, never imported by it:
``gpool.observer`` shows a running system, ``gpool.cli`` is the command.
"""

import importlib as _importlib
import logging as _logging
import os as _os
import sys as _sys

from gpool import telemetry
from gpool.errors import (
    BadName,
    CallbackFailed,
    CallingSelf,
    CallTimeout,
    CheckoutDeadlock,
    CheckoutTimeout,
    ChildError,
    GPoolError,
    LeaseLost,
    NameTaken,
    NoProcess,
    PoolClosed,
    PoolError,
    PoolFailed,
    PoolFull,
    PoolNotReady,
    ReceiveTimeout,
    RunError,
    ServerExited,
    SpecError,
    StartError,
    StartsFailing,
    Timeout,
    UnknownPool,
    WrongHolder,
    WrongHub,
)
from gpool.integrations import stdlib_logging
from gpool.metric_catalogue import METRICS, Metric
from gpool.metrics import Histogram, Metrics, Sample, Snapshot
from gpool.otp import sys
from gpool.otp.child_spec import Backoff, ChildSpec
from gpool.otp.dynamic_supervisor import DynamicSupervisor
from gpool.otp.gen import From, reply, send_call, send_cast, stop
from gpool.otp.gen_server import (
    Continue,
    GenServer,
    Hibernate,
    IdleTimeout,
    Ignore,
    NoReply,
    Reply,
    Stop,
)
from gpool.otp.key_registry import Registry
from gpool.otp.methods import call, cast
from gpool.otp.pid import Down, Error, Exit, ExitSignal, Pid, Ref
from gpool.otp.pid import table as _table
from gpool.otp.process import (
    demonitor,
    exit,
    is_alive,
    link,
    monitor,
    receive,
    self,
    send,
    spawn,
    spawn_link,
    spawn_monitor,
    trap_exit,
    unlink,
)
from gpool.otp.process_info import (
    ProcessInfo,
    peek,
    process_info,
    processes,
    recently_ended,
    zombies,
)
from gpool.otp.registry import register, unregister, whereis
from gpool.otp.supervision import (
    Supervised,
    Supervision,
    place_of,
    restarts_of,
    supervision,
    supervisor_of,
)
from gpool.otp.supervisor import ChildInfo, Counts, RestartIntensity, Supervisor
from gpool.pool.application import application as _application
from gpool.pool.lease import Holder, Lease, WaitingClient, pass_over
from gpool.pool.pool import Pool, PoolTree
from gpool.pool.pools import (
    declared_pools,
    get_pool,
    running_pools,
    start_pool,
    stop_pool,
    stop_pools,
)
from gpool.pool.resource import Resource
from gpool.pool.scope import Scope, leases
from gpool.pool.stats import Stats, Status
from gpool.relay import Measured, Relay
from gpool.serving.run import endings as _endings
from gpool.serving.run import run
from gpool.serving.server_child import server_child


def _start_observer() -> None:
    """Start the Observer's agent at the first use, if the environment asks for it."""
    if _os.environ.get("GPOOL_OBSERVER", "").lower() in ("1", "on", "true", "yes"):
        try:
            _importlib.import_module("gpool.observer").start()
        except Exception as error:  # noqa: BLE001  # nobody's use of gpool fails of it
            _logging.getLogger("gpool").error("GPOOL_OBSERVER: no agent was started: %s", error)


def _stop_observer() -> None:
    """Stop the Observer's agent, if there is one."""
    observer = _sys.modules.get("gpool.observer")
    if observer is not None:
        observer.stop()


_application.listeners.append(stdlib_logging.log)  # see the Application's boot()
_table.beginnings.append(_start_observer)
_endings.append(_stop_observer)

__version__ = "0.1.0"

__all__ = [
    "METRICS",
    "Backoff",
    "BadName",
    "CallTimeout",
    "CallbackFailed",
    "CallingSelf",
    "CheckoutDeadlock",
    "CheckoutTimeout",
    "ChildError",
    "ChildInfo",
    "ChildSpec",
    "Continue",
    "Counts",
    "Down",
    "DynamicSupervisor",
    "Error",
    "Exit",
    "ExitSignal",
    "From",
    "GPoolError",
    "GenServer",
    "Hibernate",
    "Histogram",
    "Holder",
    "IdleTimeout",
    "Ignore",
    "Lease",
    "LeaseLost",
    "Measured",
    "Metric",
    "Metrics",
    "NameTaken",
    "NoProcess",
    "NoReply",
    "Pid",
    "Pool",
    "PoolClosed",
    "PoolError",
    "PoolFailed",
    "PoolFull",
    "PoolNotReady",
    "PoolTree",
    "ProcessInfo",
    "ReceiveTimeout",
    "Ref",
    "Registry",
    "Relay",
    "Reply",
    "Resource",
    "RestartIntensity",
    "RunError",
    "Sample",
    "Scope",
    "ServerExited",
    "Snapshot",
    "SpecError",
    "StartError",
    "StartsFailing",
    "Stats",
    "Status",
    "Stop",
    "Supervised",
    "Supervision",
    "Supervisor",
    "Timeout",
    "UnknownPool",
    "WaitingClient",
    "WrongHolder",
    "WrongHub",
    "call",
    "cast",
    "declared_pools",
    "demonitor",
    "exit",
    "get_pool",
    "is_alive",
    "leases",
    "link",
    "monitor",
    "pass_over",
    "peek",
    "place_of",
    "process_info",
    "processes",
    "receive",
    "recently_ended",
    "register",
    "reply",
    "restarts_of",
    "run",
    "running_pools",
    "self",
    "send",
    "send_call",
    "send_cast",
    "server_child",
    "spawn",
    "spawn_link",
    "spawn_monitor",
    "start_pool",
    "stop",
    "stop_pool",
    "stop_pools",
    "supervision",
    "supervisor_of",
    "sys",
    "telemetry",
    "trap_exit",
    "unlink",
    "unregister",
    "whereis",
    "zombies",
]
