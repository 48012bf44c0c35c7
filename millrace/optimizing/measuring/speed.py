"""Latency of one row, and the rate at each batch size."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from millrace.optimizing.measuring.job import Measures
from millrace.optimizing.subjects import Subject

WARM_UPS = 3
FEWEST_RUNS = 5


def measure(subject: Subject, seconds: float, memory_before: int) -> Measures:
    """Half of the time goes to the first batch size, the rest to the others."""
    rows = subject.row_counts()
    latencies = _times(subject.repeat(rows[0]), seconds / 2)
    rates = {rows[0]: rows[0] / float(np.median(latencies))}
    for count in rows[1:]:
        rates[count] = count / float(np.median(_times(subject.repeat(count), seconds / 2 / len(rows[1:]))))
    return Measures(
        unit=subject.unit,
        p50_ms=1e3 * float(np.percentile(latencies, 50)),
        p99_ms=1e3 * float(np.percentile(latencies, 99)),
        rates=rates,
        memory_bytes=peak_bytes() - memory_before,
    )


def _times(run: Callable[[], object], seconds: float) -> list[float]:
    """Of runs, in seconds, without those that warm up."""
    for _ in range(WARM_UPS):
        run()
    return list(_timed(run, seconds))


def _timed(run: Callable[[], object], seconds: float) -> Iterator[float]:
    end, runs = time.perf_counter() + seconds, 0
    while (began := time.perf_counter()) < end or runs < FEWEST_RUNS:
        run()
        runs += 1
        yield time.perf_counter() - began


def peak_bytes() -> int:
    """The most that this process has had in memory at once."""
    return _status("VmHWM")


def held_bytes() -> int:
    """What it has now."""
    return _status("VmRSS")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))
