"""A fleet of real processes for tests, and clients that note what they see."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from millrace import AsyncClient
from millrace.queue import JobQueue, connect
from millrace.v1.generation_pb2 import GenerateResponse
from tests.eventually import eventually
from tests.processes import Service, Valkey, free_port


@dataclass(kw_only=True)
class Transcript:
    """What a client received of one job."""

    job_id: str
    prompt: str
    messages: list[GenerateResponse] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(delta.text for message in self.messages for delta in message.deltas)

    @property
    def tokens(self) -> int:
        return sum(len(delta.token_ids) for message in self.messages for delta in message.deltas)

    @property
    def stall_s(self) -> float:
        """The longest wait between two messages."""
        return max((later - earlier for earlier, later in pairwise(self.arrivals)), default=0.0)

    @property
    def prefill_s(self) -> float:
        """What the last worker spent between the take and its first result."""
        timing = self.messages[-1].timing
        return (timing.batching.ToMilliseconds() + timing.first_output.ToMilliseconds()) / 1000


class Fleet:
    """Frontends and workers on one Valkey."""

    def __init__(self, valkey: Valkey, models: Path, environment: dict[str, str]) -> None:
        self.valkey = valkey
        self._environment = {"MILLRACE_REDIS_URL": valkey.url, "MILLRACE_MODELS": str(models)} | environment
        self.frontends: list[Service] = []
        self.workers: list[Service] = []
        self.addresses: list[str] = []

    def add_frontend(self) -> Service:
        grpc, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        addresses = {"MILLRACE_GRPC_ADDRESS": grpc, "MILLRACE_HTTP_ADDRESS": http}
        self.addresses.append(grpc)
        self.frontends.append(Service("services.frontend", self._environment | addresses))
        return self.frontends[-1]

    def add_worker(self) -> Service:
        self.workers.append(Service("services.worker", self._environment))
        return self.workers[-1]

    async def replace(self, service: Service) -> None:
        """kill -9, and the same again, as an orchestrator would."""
        await asyncio.to_thread(service.kill)
        await asyncio.to_thread(service.start)


@asynccontextmanager
async def fleet(models: Path, *, frontends: int, workers: int, **environment: str) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        running = Fleet(await stack.enter_async_context(Valkey()), models, {"MILLRACE_THREADS": "1"} | environment)
        started = [running.add_frontend() for _ in range(frontends)] + [running.add_worker() for _ in range(workers)]
        await asyncio.gather(*(stack.enter_async_context(service) for service in started))
        yield running


async def stream(client: AsyncClient, transcript: Transcript, model: str, **options: Any) -> Transcript:
    """Follows one generation to its end."""
    async for delta in client.generate(model, transcript.prompt, job_id=transcript.job_id, **options):
        transcript.messages.append(delta.message)
        transcript.arrivals.append(time.monotonic())
    return transcript


async def all_have(transcripts: Sequence[Transcript], tokens: int, within_s: float = 60.0) -> None:
    """Returns when every client has received so many tokens."""
    await eventually(lambda: min(seen.tokens for seen in transcripts) >= tokens, within_s, every_s=0.02)


@asynccontextmanager
async def queue_of(running: Fleet) -> AsyncIterator[JobQueue]:
    async with connect(running.valkey.url) as redis:
        yield JobQueue(redis)
