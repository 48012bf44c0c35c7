"""What a fleet holds: taken before a storm and after it, so that whatever was not let go of shows."""

import asyncio
import time
from collections.abc import Callable

import psutil

from millrace.queue import Registry
from millrace.queue.connection import Redis
from tests.chaos.metrics import STREAMS, TASKS, scrape
from tests.checker.check import leaked
from tests.survival.fleet import Fleet

Holdings = dict[str, int]
KEYS, SLOTS = "keys of jobs", "busy slots"
TOLD = 3
POLL_S = 0.05


async def job_keys(redis: Redis) -> list[str]:
    """The keys of jobs, in the words of the checker."""
    return leaked([key.decode() async for key in redis.scan_iter(count=1_000)])


async def holdings(running: Fleet, redis: Redis, keys: Callable[[str], bool] = bool) -> Holdings:
    """`keys` chooses which keys count; by default all that belong to jobs."""
    said = await asyncio.gather(*(scrape(frontend) for frontend in running.frontends))
    workers = await Registry(redis).workers()
    return {
        KEYS: sum(map(keys, await job_keys(redis))),
        "connections to Redis": len(await redis.client_list()),
        "descriptors of frontends": _descriptors([frontend.pid for frontend in running.frontends]),
        "descriptors of workers": _descriptors([worker.pid for worker in running.workers]),
        "tasks of frontends": sum(int(one[TASKS]) for one in said),
        "streams of frontends": sum(int(one[STREAMS]) for one in said),
        "jobs of workers": sum(worker.running_jobs for worker in workers),
        SLOTS: -sum(worker.free_slots for worker in workers),
    }


async def back(
    running: Fleet, redis: Redis, start: Holdings, *, within_s: float, keys: Callable[[str], bool] = bool
) -> tuple[float, list[str]]:
    """How long it takes until nothing is more than at the start, and a sentence for what still is when time is up."""
    began = time.monotonic()
    while True:
        found = grown(start, await holdings(running, redis, keys))
        took_s = time.monotonic() - began
        if not found or took_s > within_s:
            return took_s, found
        await asyncio.sleep(POLL_S)


def grown(before: Holdings, after: Holdings) -> list[str]:
    """A sentence for each thing of which there is more than before."""
    return [f"{after[name]} {name}, {before[name]} at the start" for name in before if after[name] > before[name]]


def _descriptors(pids: list[int]) -> int:
    return sum(psutil.Process(pid).num_fds() for pid in pids)
