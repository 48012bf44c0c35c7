"""Payloads: the memory that a waiting job takes in Redis, by the size of its request."""

import asyncio
import time
from typing import Any

from bench.scale.client import SUBMIT
from bench.scale.report import Part, Table
from bench.scale.stage import NO_BOUNDS, Run, Stage, generate, submission

NAME = "payloads"
CALLERS = 64
TIMEOUT_S, SETTLE_S = 600.0, 1.0


async def run(run: Run) -> Part:
    settings, rows = run.settings, list[dict[str, Any]]()
    models = run.models(NAME, slots=settings.slots, step_ms=settings.step_ms)
    async with run.stage(models, frontends=1, workers=1, **NO_BOUNDS) as stage:
        async with run.client(stage) as client:
            await client.ready(generate(1))
        await stage.stop_workers()
        for size in settings.payloads:
            row = await _fill(run, stage, size)
            run.say(NAME, f"{settings.payload_jobs:,} jobs of {size:,} bytes", f"{row['redis']:,.0f} bytes a job")
            rows.append(row)
    columns = ("prompt, bytes", "request, bytes", "Redis, bytes a job", "beside the request", "accepted/s")
    table = Table(
        title="A job that waits",
        columns=columns,
        rows=[
            (f"{row['prompt']:,}", row["request"], row["redis"], row["redis"] - row["request"], row["rate"])
            for row in rows
        ],
    )
    return Part(name=NAME, tables=(table,), data={"rows": rows})


async def _fill(run: Run, stage: Stage, size: int) -> dict[str, Any]:
    """Beside the jobs that wait there already."""
    settings = run.settings
    requests = [
        submission(f"{size}-{index}", 1, timeout_s=TIMEOUT_S, prompt_bytes=size)
        for index in range(settings.payload_jobs)
    ]
    before, began = await stage.meter.memory(), time.perf_counter()
    async with run.client(stage) as client:
        await client.call_all(SUBMIT, requests, CALLERS)
    seconds = time.perf_counter() - began
    await asyncio.sleep(SETTLE_S)
    after = await stage.meter.memory()
    return {
        "prompt": size,
        "request": len(generate(1, prompt_bytes=size)),
        "redis": (after["redis"] - before["redis"]) / settings.payload_jobs,
        "rate": settings.payload_jobs / seconds,
    }
