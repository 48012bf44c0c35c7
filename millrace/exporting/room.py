"""Whether disk and memory have room for an export, before it begins."""

import shutil
from pathlib import Path

import psutil

SPARE_BYTES = 256 << 20
"""That the disk keeps."""


def told(size: float) -> str:
    """Bytes as people say them."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size:.0f} bytes"


def check_disk(folder: Path, needed: int) -> None:
    """Raises ValueError where the disk that `folder` lies on, or will, has no room for so many bytes."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = max(shutil.disk_usage(there).free - SPARE_BYTES, 0)
    if needed > free:
        raise ValueError(
            f"the export takes about {told(needed)} of disk, and {folder} has room for {told(free)}: "
            "make room, or choose another --out"
        )


def check_memory(needed: int) -> None:
    """Raises ValueError where less than `needed` bytes of memory are to be had."""
    available = psutil.virtual_memory().available
    if needed > available:
        raise ValueError(
            f"the export takes about {told(needed)} of memory, and {told(available)} are available: "
            "end what else runs, or export on a larger machine"
        )
