"""Bytes: how fast payloads go through the service and come back."""

from typing import Any

from bench.children import measure_load
from bench.fleet import serving
from bench.report import Figure, Part
from bench.run import Run, percentile
from bench.workloads import Workload, make_feed

NAME = "bytes"
NUMBER_BYTES = 4
MEGABYTE = 1e6
HELD_BYTES = 64 << 20
"""Of different payloads of one size, at most."""


async def run(run: Run) -> Part:
    figures, points = list[Figure](), list[dict[str, Any]]()
    for size in run.settings.payload_bytes:
        points.append(await _measure(run, size))
    for point in points:
        name = _name(point["bytes"])
        figures.append(Figure(name=f"{name}, there and back", value=point["megabytes_per_s"], unit="MB/s"))
        figures.append(Figure(name=f"{name}, p50", value=point["p50_ms"], unit="ms"))
    return Part(
        name=NAME,
        title=f"Bytes: payloads of an echo, {run.settings.payload_callers} callers; request and answer both count",
        figures=tuple(figures),
        data={"points": points},
    )


async def _measure(run: Run, size: int) -> dict[str, Any]:
    settings = run.settings
    workload = Workload(name=f"echo, {size} bytes", model="echo", size=size // NUMBER_BYTES)
    prepared = run.prepare(workload, make_feed(workload, rows=max(1, min(16, HELD_BYTES // size))))
    async with serving(prepared.models, settings.cores) as fleet:
        load = prepared.load(fleet.address, settings, callers=settings.payload_callers)
        before = fleet.cpu_s()
        measured = await measure_load(load)
        used = fleet.cpu_since(before) | {"client": measured.cpu_s}
    rate = measured.rate * 2 * size / MEGABYTE
    p50 = percentile(measured.latencies_ms, 50)
    run.say(NAME, _name(size), f"{rate:.1f} MB/s, {measured.rate:.0f} calls/s, p50 {p50:.1f} ms")
    return {
        "bytes": size,
        "megabytes_per_s": rate,
        "calls_per_s": measured.rate,
        "p50_ms": p50,
        "p99_ms": percentile(measured.latencies_ms, 99),
        "cpu_ms_per_call": {name: 1000 * seconds / measured.sent for name, seconds in used.items()},
    }


def _name(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
