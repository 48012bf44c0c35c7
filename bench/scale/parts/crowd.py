"""The crowd: what it costs Redis that many workers say each second that they live, and many processes ask who does."""

import time
from typing import Any

from bench.scale.report import Part, Table
from bench.scale.stage import MODEL, WITHIN_S, Run
from millrace.queue import Indexed, ModelEntry, ModelState, Registry, WorkerEntry, connect
from tests.processes import Valkey

NAME = "crowd"
ANNOUNCEMENTS, READINGS = 300, 20
ENTRY = ModelEntry(name=MODEL, version="1", task="text-generation", digest="0" * 64)


async def run(run: Run) -> Part:
    rows = list[dict[str, Any]]()
    for workers in run.settings.crowds:
        rows.append(await _measure(workers))
        run.say(NAME, f"{workers:,} workers", f"{rows[-1]['announce_us']:.0f} µs an announcement")
    names = ("announce_us", "read_us")
    table = Table(
        title="The registry",
        columns=("workers", "an announcement in Redis, µs", "a reading, Redis and reader, µs"),
        rows=[(f"{row['workers']:,}", *(row[name] for name in names)) for row in rows],
    )
    return Part(name=NAME, tables=(table,), data={"rows": rows})


async def _measure(workers: int) -> dict[str, Any]:
    with Valkey() as server:
        async with connect(server.url, timeout_s=WITHIN_S) as calls:
            registry = Registry(calls)
            for index in range(workers):
                await registry.announce(_worker(index), [ENTRY])
            await calls.config_resetstat()
            for index in range(ANNOUNCEMENTS):
                await registry.announce(_worker(index % workers), [ENTRY])
            scripts = (await calls.info("commandstats"))["cmdstat_evalsha"]
            began = time.perf_counter()
            for _ in range(READINGS):
                await registry.workers()
            read_s = (time.perf_counter() - began) / READINGS
    return {
        "workers": workers,
        "announce_us": float(scripts["usec"]) / ANNOUNCEMENTS,
        "read_us": 1e6 * read_s,
    }


def _worker(index: int) -> WorkerEntry:
    ready = Indexed(name=MODEL, version="1", state=ModelState.READY)
    return WorkerEntry(
        worker_id=f"worker-{index}",
        device="CPU",
        execution_provider="CPUExecutionProvider",
        state="ready",
        index=(ready,),
        running_jobs=64,
    )
