"""On what a load test ran: the generators' machine and software. The service may be elsewhere."""

import platform
from importlib import metadata
from pathlib import Path

import psutil

PACKAGES = ("millrace", "grpcio", "protobuf", "uvloop", "hdrhistogram")


def versions() -> dict[str, str]:
    found = {package: version for package in PACKAGES if (version := _version(package))}
    return {"python": platform.python_version(), **found}


def hardware() -> dict[str, str | int | float]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": psutil.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor's name, where the system has one for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
