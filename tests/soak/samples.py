"""What is looked at when all is quiet: what must be exactly as before, and memory."""

import asyncio
import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from millrace.queue import Registry
from millrace.queue.connection import Redis
from tests.checker.check import leaked
from tests.processes import Service
from tests.survival.fleet import Fleet

INDEX = "mr:job-index:"
STAY = re.compile(r"mr:(workers|models|\{[^}]+\}:(load|pace|pulse|bell|rest:\d+))")
"""Keys that belong to no job and no process."""
TAKE = re.compile(r"mr:\{[^}]+\}:take:(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look."""

    calls: int
    """That the witness among the frontends has answered since its start."""
    counts: Mapping[str, int]
    """What must not change."""
    levels: Mapping[str, int]
    """What must not grow: bytes, and the threads of pools that fill as they are needed. Of the witnesses, and Redis."""


async def take(running: Fleet, redis: Redis) -> Sample:
    """Files are counted before the frontends are asked, which opens one."""
    parts = _named(running)
    counts = {f"{name} files": len(os.listdir(f"/proc/{part.pid}/fd")) for name, part in parts.items()}
    metrics = [await asyncio.to_thread(_metrics, frontend) for frontend in running.frontends]
    for number, told in enumerate(metrics, 1):
        counts |= {f"frontend {number} {what}": int(told[f"millrace_frontend_{what}"]) for what in ("tasks", "streams")}
    levels = _levels("frontend", running.frontends[0]) | _levels("worker", running.workers[0])
    levels |= {"redis memory": (await redis.info("memory"))["used_memory"]}
    calls = sum(value for name, value in metrics[0].items() if name.startswith("millrace_frontend_calls_total"))
    return Sample(calls=int(calls), counts=await _redis(redis) | counts, levels=levels)


async def indices(redis: Redis) -> int:
    """The names of jobs, which outlive their jobs by a minute."""
    return sum([1 async for _ in redis.scan_iter(match=f"{INDEX}*", count=1000)])


def _named(running: Fleet) -> dict[str, Service]:
    frontends = {f"frontend {number}": service for number, service in enumerate(running.frontends, 1)}
    return frontends | {f"worker {number}": service for number, service in enumerate(running.workers, 1)}


async def _redis(redis: Redis) -> dict[str, int]:
    keys = [key.decode() async for key in redis.scan_iter(count=1000) if not key.startswith(INDEX.encode())]
    alive = {worker.worker_id for worker in await Registry(redis).workers()}
    of_jobs = leaked(keys)
    stray = [key for key in keys if key not in of_jobs and not _belongs(key, alive)]
    return {"keys of jobs": len(of_jobs), "stray keys": len(stray), "connections": len(await redis.client_list())}


def _belongs(key: str, alive: set[str]) -> bool:
    """Whether the key may stay: a take's reply does, for two leases of a worker that is alive."""
    reply = TAKE.fullmatch(key)
    return reply[1] in alive if reply else STAY.fullmatch(key) is not None


def _metrics(frontend: Service) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{frontend.ready['http']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def _levels(name: str, process: Service) -> dict[str, int]:
    """The memory that is resident and not backed by a file: what the process has asked for."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    status = {field: value.split() for field, _, value in (line.partition(":") for line in lines)}
    return {f"{name} memory": 1024 * int(status["RssAnon"][0]), f"{name} threads": int(status["Threads"][0])}
