"""What was measured on: the machine, the interpreter and how it was built, the versions."""

from __future__ import annotations

import datetime
import os
import platform
import sysconfig
from pathlib import Path
from typing import Final

import gevent
import greenlet

import gpool
from benchmarks import pools
from benchmarks.peers import PEERS

# Options of CPython's configure, and what they are called.
BUILDS: Final = {"--enable-optimizations": "PGO", "--with-lto": "LTO"}
OTHERS: Final = {"psycopg": "psycopg", "pykka": "pykka"}  # name -> package


def facts() -> dict[str, str]:
    """Return them all, by what they are called."""
    return {
        "day": datetime.date.today().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {_build()}",
        "gpool": gpool.__version__,
        "gevent": f"{gevent.__version__}, {_loop()}",
        "greenlet": greenlet.__version__,
        "peers": ", ".join(_versions()),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _build() -> str:
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    built = [name for option, name in BUILDS.items() if option in options]
    return f"built with {' and '.join(built)}" if built else "built without PGO and LTO"


def _loop() -> str:
    return type(gevent.get_hub().loop).__module__


def _versions() -> list[str]:
    packages = {name: package for name, (package, _) in PEERS.items()} | OTHERS
    versions = {name: pools.version(package) for name, package in packages.items()}
    return [f"{name} {version or 'not installed'}" for name, version in versions.items()]
