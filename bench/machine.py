"""What it was measured on and with."""

import os
import platform
import resource
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from millrace.cli.embedded import valkey_command

PACKAGES = ("onnxruntime", "grpcio", "protobuf", "redis", "uvloop", "numpy", "onnx", "millrace")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return found | {"valkey": _valkey_version()}


def hardware() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line.partition(": ")[2].split() for line in lines if line.startswith("flags")), [])
    return {
        "cpu": name,
        "cores": psutil.cpu_count(),
        "avx512": "avx512f" in flags,
        "memory_mib": psutil.virtual_memory().total >> 20,
        "system": platform.platform(terse=True),
    }


def use_cores(count: int) -> int:
    """Holds this process and its children on the first so many of the cores that it may use; answers how many those
    are. Systems that cannot are left alone."""
    if not hasattr(os, "sched_setaffinity"):
        return min(count, os.cpu_count() or 1)
    chosen = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, chosen)
    return len(chosen)


class Watch:
    """How much of the cores others have used since it was made."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy_s(), _own_s()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def others(self) -> float:
        """In cores, on average. Children count as our own once they have ended."""
        used = (_busy_s() - self._busy) - (_own_s() - self._own)
        return max(used / self.seconds, 0.0)


def _busy_s() -> float:
    """What the cores that this process may use have worked so far."""
    chosen = set(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else set[int]()
    return sum(
        sum(times) - times.idle - getattr(times, "iowait", 0.0)
        for core, times in enumerate(psutil.cpu_times(percpu=True))
        if not chosen or core in chosen
    )


def _own_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _valkey_version() -> str:
    binary = valkey_command(0, "")[0]
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return next((word[2:] for word in answer.split() if word.startswith("v=")), "unknown")
