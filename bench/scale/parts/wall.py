"""The wall: how many results a second one Redis takes, written as workers write them, with nothing else in the way."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import psutil

from bench.scale.report import Part, Table
from bench.scale.stage import PROMPT_BYTES, VERSION, WITHIN_S, Run
from millrace.queue import Emission, JobQueue, JobRef, Lease, Limits, Submission, connect, keys
from millrace.queue.connection import Redis
from millrace.v1.generation_pb2 import CompletionDelta, GenerateResponse
from tests.processes import Valkey

NAME, FRONTEND = "wall", "bench"
WORKERS = 4
"""How many emits are under way at once: Redis never waits for the next."""
LEASE_MS = 60_000
TIMEOUT_MS = 600_000
HISTORY = bytes(8)
TOKEN = "a token "


async def run(run: Run) -> Part:
    settings, rows = run.settings, list[dict[str, Any]]()
    for jobs in settings.emit_jobs:
        for merged in settings.emit_steps if jobs == settings.slots else (1,):
            rows.append(await _saturate(jobs, merged, settings.wall_s))
            rate = f"{rows[-1]['results_per_s']:,.0f} results/s, Redis {rows[-1]['redis_cores']:.2f} cores"
            run.say(NAME, f"{jobs} jobs an emit, {merged} steps each", rate)
    names = ("results_per_s", "tokens_per_s", "redis_cores", "redis_us", "script_us", "emit_ms", "kept_bytes")
    columns = ("jobs an emit", "steps merged", "results/s", "tokens/s", "Redis, cores", "Redis, CPU µs a result")
    table = Table(
        title="What one Redis takes",
        columns=(*columns, "of it in the script", "an emit in Redis, ms", "kept, bytes a result"),
        rows=[(str(row["jobs"]), str(row["merged"]), *(row[name] for name in names)) for row in rows],
    )
    notes = (f"{WORKERS} emits under way at once, from one process; one frontend is told of them",)
    return Part(name=NAME, tables=(table,), notes=notes, data={"rows": rows})


async def _saturate(jobs: int, merged: int, seconds: float) -> dict[str, Any]:
    """Emits of so many jobs each, whose results hold the tokens of so many steps, from `WORKERS` at once."""
    with Valkey() as server:
        async with connect(server.url, timeout_s=WITHIN_S) as calls, connect(server.url, timeout_s=None) as listens:
            queue = JobQueue(calls, Limits(lease_ms=LEASE_MS))
            held = [await _lease(queue, f"w{worker}", jobs) for worker in range(WORKERS)]
            hearing = asyncio.create_task(_hear(listens))
            await calls.config_resetstat()
            empty, process, began = await _used(calls), psutil.Process(server.pid), time.perf_counter()
            cpu = sum(process.cpu_times()[:2])
            emits = sum(await asyncio.gather(*(_emit(queue, leases, _result(merged), seconds) for leases in held)))
            taken_s, used = time.perf_counter() - began, sum(process.cpu_times()[:2]) - cpu
            script_us, kept = await _script_us(calls), await _used(calls) - empty
            hearing.cancel()
    results = emits * jobs
    return {
        "jobs": jobs,
        "merged": merged,
        "results_per_s": results / taken_s,
        "tokens_per_s": results * merged / taken_s,
        "redis_cores": used / taken_s,
        "redis_us": 1e6 * used / results,
        "script_us": script_us / results,
        "emit_ms": script_us / emits / 1000,
        "kept_bytes": kept / results,
    }


async def _emit(queue: JobQueue, leases: Sequence[Lease], body: bytes, seconds: float) -> int:
    """One emit after the other; answers how many."""
    until, offset = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        offset += 1
        await queue.emit(VERSION, [_emission(lease, offset, body) for lease in leases])
    return offset


async def _lease(queue: JobQueue, worker: str, jobs: int) -> tuple[Lease, ...]:
    for index in range(jobs):
        ref = JobRef(VERSION, "default", f"{worker}-{index}")
        asked = Submission(
            ref=ref,
            fingerprint="0" * 32,
            payload=b"x" * PROMPT_BYTES,
            cost=1,
            timeout_ms=TIMEOUT_MS,
            wanted_to_deadline=True,
            watcher=FRONTEND,
        )
        await queue.submit(asked)
    taken = await queue.take(VERSION, worker, 1, jobs=jobs, cost=float("inf"), alone=True)
    return taken.leases


def _result(merged: int) -> bytes:
    delta = CompletionDelta(text=TOKEN * merged, token_ids=range(1_000, 1_000 + merged))
    return GenerateResponse(deltas=[delta], job_id="0" * 32, offset=100).SerializeToString()


def _emission(lease: Lease, offset: int, body: bytes) -> Emission:
    return Emission(ref=lease.ref, token=lease.token, offset=offset, history=HISTORY, result=body, cost=offset)


async def _hear(redis: Redis) -> None:
    """A frontend's mailbox, unread."""
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(keys.mailbox(FRONTEND))
        async for _ in pubsub.listen():
            pass


async def _used(redis: Redis) -> float:
    return float((await redis.info("memory"))["used_memory"])


async def _script_us(redis: Redis) -> float:
    return float((await redis.info("commandstats"))["cmdstat_evalsha"]["usec"])
