"""A queue on a real server, and hosts that serve it with engines that count."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from millrace.queue import (
    End,
    Ending,
    Entry,
    JobQueue,
    JobRecord,
    JobRef,
    Limits,
    ModelVersion,
    Priority,
    Result,
    State,
    Submission,
    connect,
)
from millrace.queue.bell import Bell
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse, Stopping
from services.worker.device import Device
from services.worker.host import ModelHost
from services.worker.metrics import Metrics
from services.worker.results import Held
from tests.worker.counting import CountingEngine

MODEL = ModelVersion("counting", "1")
LIMITS = Limits(lease_ms=600, interest_ms=60_000)


class Bench:
    """`metrics` are those of all its hosts together."""

    def __init__(self, url: str) -> None:
        self.metrics = Metrics()
        self.url, self.calls = url, connect(url)
        self.queue = JobQueue(self.calls, LIMITS)
        self._submitted = 0

    async def submit(self, max_tokens: int, text: str = "count", priority: Priority = Priority.STANDARD) -> JobRef:
        self._submitted += 1
        ref = JobRef(MODEL, "default", f"job-{self._submitted}")
        request = GenerateRequest(model="counting", text=text, stopping=Stopping(max_tokens=max_tokens))
        submission = Submission(
            ref=ref,
            fingerprint="f" * 32,
            payload=request.SerializeToString(),
            cost=max_tokens,
            priority=priority,
            watcher="test",
            retained=True,
        )
        return await self.queue.submit(submission)

    async def state(self, ref: JobRef) -> State:
        return (await self.record(ref)).state

    async def ended(self, ref: JobRef) -> bool:
        return await self.state(ref) is State.ENDED

    async def log(self, ref: JobRef) -> list[Entry]:
        return await self.queue.read(ref, 0, 100_000)

    async def record(self, ref: JobRef) -> JobRecord:
        record = await self.queue.inspect(ref)
        assert record is not None
        return record

    def counted(self, name: str, **labels: str) -> float:
        """What a series of the hosts stands at."""
        return self.metrics.registry.get_sample_value(name, {"model": str(MODEL)} | labels) or 0.0

    def make_host(self, bell: Bell, engine: CountingEngine, worker: str) -> ModelHost:
        return ModelHost(self.queue, bell, Device(), MODEL, engine, worker, self.metrics.of(MODEL))

    @asynccontextmanager
    async def host(self, engine: CountingEngine, worker: str = "w1") -> AsyncIterator[ModelHost]:
        async with connect(self.url, timeout_s=None) as waits:
            host = self.make_host(Bell(waits), engine, worker)
            task = asyncio.create_task(host.run())
            try:
                yield host
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError, BaseExceptionGroup):
                    await task


def of(host: ModelHost, ref: JobRef) -> Held | None:
    """What the host holds of a job."""
    return next((held for held in host.held.values() if held.lease.ref == ref), None)


def tokens(log: list[Entry]) -> list[int]:
    bodies = [GenerateResponse.FromString(entry.body or b"") for entry in log if isinstance(entry, Result)]
    return [token for body in bodies for delta in body.deltas for token in delta.token_ids]


def ending(log: list[Entry]) -> Ending:
    (end,) = [entry for entry in log if isinstance(entry, End)]
    return end.ending
