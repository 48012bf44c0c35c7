"""What Redis knows, read around the services."""

import asyncio
from typing import Any

from millrace.queue import JobRef, ModelVersion, keys
from millrace.queue.connection import Redis

STUB = ModelVersion("stub", "1")


async def held_by(redis: Redis, worker_id: str, model: ModelVersion = STUB) -> list[str]:
    """The running jobs of which this worker has the lease."""
    running: Any = await redis.zrange(f"{model.base}running", 0, -1)
    jobs = [job.decode() for job in running]
    holders = await asyncio.gather(*(_field(redis, model, job, "holder") for job in jobs))
    return [job for job, holder in zip(jobs, holders, strict=True) if holder == worker_id]


async def accepted(redis: Redis, model: ModelVersion = STUB) -> int:
    """How many jobs the queue has ever accepted."""
    return int(await redis.hget(f"{model.base}load", "sequence") or 0)


async def _field(redis: Redis, model: ModelVersion, job: str, field: str) -> str:
    value: Any = await redis.hget(keys.job(JobRef.parse(model, job)), field)
    return (value or b"").decode()
