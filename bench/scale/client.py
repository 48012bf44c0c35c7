"""The load: serialised requests over a few connections to some frontends, in this process and its event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

import grpc.aio

from bench.load import CHANNEL_OPTIONS, until_ready
from bench.streams import GENERATE
from millrace.v1.generation_pb2 import GenerateResponse

SUBMIT, CANCEL = "/millrace.v1.JobService/SubmitJob", "/millrace.v1.JobService/CancelJob"


@dataclass(slots=True)
class Counts:
    """What has come back so far; times in milliseconds."""

    answers: int = 0
    """Streams, or calls, that have ended well."""
    messages: int = 0
    tokens: int = 0
    whole_ms: list[float] = field(default_factory=list)
    """From the request to the end of the stream."""
    first_ms: list[float] = field(default_factory=list)
    """To its first message."""
    gaps_ms: list[float] = field(default_factory=list)
    """Between two messages of a stream."""


class Client:
    """Requests go to the connections in turn. `counts` may be exchanged at any time."""

    def __init__(self, addresses: Sequence[str], channels: int) -> None:
        options = CHANNEL_OPTIONS
        self._channels = [
            grpc.aio.insecure_channel(each, options=options) for _ in range(channels) for each in addresses
        ]
        self._turns = count()
        self._calls: dict[str, list[Any]] = {
            GENERATE: [channel.unary_stream(GENERATE) for channel in self._channels],
            SUBMIT: [channel.unary_unary(SUBMIT) for channel in self._channels],
            CANCEL: [channel.unary_unary(CANCEL) for channel in self._channels],
        }
        self.counts = Counts()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

    async def ready(self, request: bytes) -> None:
        """Returns when a stream of this request has ended well over each connection."""
        for _ in self._channels:
            await until_ready(lambda: self.stream(request))

    async def stream(self, request: bytes) -> None:
        """One `Generate` to its end. Raises grpc.aio.AioRpcError."""
        sent = before = time.perf_counter()
        call = self._next(GENERATE)(request)
        messages = 0
        while (message := await call.read()) is not grpc.aio.EOF:
            now, counts = time.perf_counter(), self.counts
            (counts.gaps_ms if messages else counts.first_ms).append(1000 * (now - before))
            before, messages = now, messages + 1
            counts.messages += 1
            counts.tokens += len(GenerateResponse.FromString(message).deltas[0].token_ids)
        self.counts.answers += 1
        self.counts.whole_ms.append(1000 * (before - sent))

    async def call(self, method: str, request: bytes) -> None:
        """One call of `SUBMIT` or `CANCEL`. Raises grpc.aio.AioRpcError."""
        sent = time.perf_counter()
        await self._next(method)(request)
        self.counts.answers += 1
        self.counts.whole_ms.append(1000 * (time.perf_counter() - sent))

    def _next(self, method: str) -> Any:
        calls = self._calls[method]
        return calls[next(self._turns) % len(calls)]

    @asynccontextmanager
    async def streaming(self, request: bytes, callers: int) -> AsyncIterator[None]:
        """Within the block so many callers ask for one stream after the other; what is open at its end is cancelled."""

        async def caller() -> None:
            while True:
                await self.stream(request)

        async with _running([caller() for _ in range(callers)]):
            yield

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[Callable[[Iterable[bytes]], None]]:
        """Gives what opens one stream for each request; all of them are cancelled at the end of the block."""
        tasks: list[asyncio.Task[None]] = []

        def open_all(requests: Iterable[bytes]) -> None:
            tasks.extend(asyncio.create_task(self.stream(request)) for request in requests)

        try:
            yield open_all
        finally:
            await _end(tasks)

    async def call_all(self, method: str, requests: Iterable[bytes], callers: int) -> None:
        """Makes these calls, so many at once."""
        waiting = iter(requests)

        async def caller() -> None:
            for request in waiting:
                await self.call(method, request)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(caller())


@asynccontextmanager
async def _running(work: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancels them. Raises what one of them has failed with before."""
    failed = [error for task in tasks if task.done() and (error := task.exception()) is not None]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if failed:
        raise failed[0]
