"""Where everything happens: a fleet of real processes, its Redis, and what is asked of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from bench.run import Progress
from bench.scale.client import Client
from bench.scale.meter import Meter
from bench.scale.settings import Settings
from millrace.queue import JobQueue, ModelVersion, connect
from millrace.v1.generation_pb2 import GenerateRequest, Stopping
from millrace.v1.job_pb2 import PRIORITY_INTERACTIVE, JobOptions
from millrace.v1.job_service_pb2 import CancelJobRequest, SubmitJobRequest
from tests.eventually import eventually
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, fleet

MODEL = "stub"
VERSION = ModelVersion(MODEL, "1")
MEBIBYTE = 1 << 20
WITHIN_S = 120.0
"""What may take long where much is asked of a few cores."""
PROMPT_BYTES = 100
NO_BOUNDS = {"max_waiting_jobs": 1_000_000, "max_tenant_jobs": 1_000_000, "scale_from_zero_s": 3600}
"""Settings with which a model without a worker takes whatever comes: admission is not what is measured."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """A fleet that is ready."""

    fleet: Fleet
    redis: "Redis"
    meter: Meter
    queue: JobQueue
    stack: AsyncExitStack

    async def add_workers(self, count: int) -> None:
        fresh = [self.fleet.add_worker() for _ in range(count)]
        await asyncio.gather(*(self.stack.enter_async_context(worker) for worker in fresh))

    async def stop_workers(self) -> None:
        """Their models stay known."""
        running = [worker for worker in self.fleet.workers if worker.returncode is None]
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in running))

    async def count(self, name: str) -> int:
        """Of `MODEL`: how many `jobs` wait, or are `running`."""
        return int((await self.queue.load(VERSION)).get(name, 0))

    async def until(self, name: str, count: int, within_s: float = WITHIN_S) -> None:
        """Returns when so many jobs wait, or run. Raises an AssertionError where that takes too long."""

        async def reached() -> bool:
            return await self.count(name) == count

        await eventually(reached, within_s, every_s=0.1)

    async def until_clean(self, keys: int, within_s: float = WITHIN_S) -> None:
        """Returns when Redis holds at most so many keys."""

        async def reached() -> bool:
            return int(await self.redis.dbsize()) <= keys

        await eventually(reached, within_s, every_s=0.1)


@dataclass(slots=True, kw_only=True)
class Run(Progress):
    """One run of some parts. `folder` is empty at first."""

    settings: Settings
    folder: Path

    def models(self, part: str, *, slots: int, step_ms: float, name: str = MODEL) -> Path:
        """A part's model repository, with a further stub in it."""
        repository = self.folder / part
        write_stub(repository, name, slots=slots, step_ms=step_ms)
        return repository

    @asynccontextmanager
    async def stage(self, models: Path, *, frontends: int, workers: int, **environment: object) -> AsyncIterator[Stage]:
        """`environment`: settings without their MILLRACE_."""
        told = {f"MILLRACE_{name.upper()}": str(value) for name, value in environment.items()}
        told = {"MILLRACE_LOG_LEVEL": "warning"} | told
        async with (
            fleet(models, frontends=frontends, workers=workers, valkey=None, **told) as running,
            Redis.from_url(running.valkey.url) as redis,
            connect(running.valkey.url, timeout_s=WITHIN_S) as calls,
            AsyncExitStack() as stack,
        ):
            meter, queue = Meter(running, redis), JobQueue(calls)
            yield Stage(fleet=running, redis=redis, meter=meter, queue=queue, stack=stack)

    def client(self, stage: Stage, frontends: int | None = None) -> Client:
        """Connected to the first so many frontends; to all."""
        return Client(stage.fleet.addresses[:frontends], self.settings.channels)


def generate(tokens: int, *, model: str = MODEL, prompt_bytes: int = PROMPT_BYTES, interactive: bool = False) -> bytes:
    request = GenerateRequest(model=model, text="x" * prompt_bytes, stopping=Stopping(max_tokens=tokens))
    if interactive:
        request.job.priority = PRIORITY_INTERACTIVE
    return request.SerializeToString()


def submission(job_id: str, tokens: int, *, timeout_s: float, prompt_bytes: int = PROMPT_BYTES) -> bytes:
    job = JobOptions(job_id=job_id)
    job.timeout.FromMilliseconds(round(1000 * timeout_s))
    asked = GenerateRequest(model=MODEL, text="x" * prompt_bytes, stopping=Stopping(max_tokens=tokens))
    return SubmitJobRequest(generate=asked, job=job).SerializeToString()


def cancellation(job_id: str) -> bytes:
    return CancelJobRequest(job_id=job_id).SerializeToString()
