"""A fleet of real processes for tests, and clients that note what they see."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from millrace import AsyncClient
from millrace.errors import Code
from millrace.queue import JobQueue, connect
from millrace.v1.generation_pb2 import GenerateResponse
from tests.eventually import eventually
from tests.processes import Service, Valkey, free_port


@dataclass(kw_only=True)
class Transcript:
    """What a client received of one job."""

    job_id: str
    prompt: str
    asked: float = field(default_factory=time.monotonic)
    """When it was made, which is just before the call."""
    messages: list[GenerateResponse] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    code: Code | None = None
    """How the client's call ended; None where it has not."""
    reason: str = ""

    def note(self, message: GenerateResponse) -> None:
        self.messages.append(message)
        self.arrivals.append(time.monotonic())

    @property
    def attempts(self) -> int:
        """How many workers have had the job, where it has ended well; else 0."""
        return self.messages[-1].timing.attempts if self.messages else 0

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
    def whole_s(self) -> float:
        """From the call to the last message."""
        return self.arrivals[-1] - self.asked if self.arrivals else 0.0

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

    def add_worker(self, **environment: str) -> Service:
        self.workers.append(Service("services.worker", self._environment | environment))
        return self.workers[-1]

    async def replace(self, service: Service) -> None:
        """kill -9, and the same again, as an orchestrator would."""
        await asyncio.to_thread(service.kill)
        await asyncio.to_thread(service.start)

    def begin_stop(self) -> None:
        """SIGTERM for all that run, so that they stop side by side."""
        for service in (*self.frontends, *self.workers):
            if service.returncode is None:
                service.resume()
                service.signal(signal.SIGTERM)


@asynccontextmanager
async def fleet(
    models: Path, *, frontends: int, workers: int, valkey: Valkey | None = None, **environment: str
) -> AsyncIterator[Fleet]:
    """`valkey` is one that runs already; by default the fleet has one of its own."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Valkey() if valkey is None else nullcontext(valkey))
        running = Fleet(server, models, {"MILLRACE_THREADS": "1"} | environment)
        started = [running.add_frontend() for _ in range(frontends)] + [running.add_worker() for _ in range(workers)]
        await asyncio.gather(*(stack.enter_async_context(service) for service in started))
        try:
            yield running
        finally:
            running.begin_stop()


async def stream(client: AsyncClient, transcript: Transcript, model: str, **options: Any) -> Transcript:
    """Follows one generation to its end."""
    async for delta in client.generate(model, transcript.prompt, job_id=transcript.job_id, **options):
        transcript.note(delta.message)
    transcript.code = Code.OK
    return transcript


async def all_have(transcripts: Sequence[Transcript], tokens: int, within_s: float = 60.0) -> None:
    """Returns when every client has received so many tokens."""
    await eventually(lambda: min(seen.tokens for seen in transcripts) >= tokens, within_s, every_s=0.02)


@asynccontextmanager
async def queue_of(running: Fleet) -> AsyncIterator[JobQueue]:
    async with connect(running.valkey.url) as redis:
        yield JobQueue(redis)
