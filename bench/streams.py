"""The client process for streams: a closed or an open loop of `Generate` calls.

    python -m bench.streams SPEC.json RESULT.json

Messages are kept as they come, and read when all streams have ended.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from bench import blobs
from bench.completions import Completions
from bench.load import CHANNEL_OPTIONS, cpu_s, sleep_until, until_ready
from millrace.v1.generation_pb2 import GenerateResponse

GENERATE = "/millrace.v1.TextGenerationService/Generate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """A closed loop, where whichever caller is free sends the next request; or an open one, where times are given."""

    address: str
    requests: str
    """The file of requests. The first is sent before all others, and does not count."""
    callers: int = 0
    due_s: Sequence[float] = ()
    """When each request that counts is sent, from the start, ascending."""
    channels: int = 4


@dataclass(slots=True, kw_only=True)
class Measured(Completions):
    """What came of the requests that count."""

    messages: int
    cpu_s: float
    """This process's own, while the streams ran."""


@dataclass(slots=True)
class Stream:
    """One call."""

    sent: float
    times: list[float] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)

    def read(self) -> tuple[list[int], int]:
        """The token ids, and how many of the prompt were cached. Raises ValueError where a message is missing, or comes
        twice."""
        read = [GenerateResponse.FromString(message) for message in self.messages]
        if [message.offset for message in read if message.deltas] != list(range(1, len(read) + 1)):
            raise ValueError("a stream's offsets have a gap")
        token_ids = [token_id for message in read for delta in message.deltas for token_id in delta.token_ids]
        return token_ids, read[-1].usage.cached_prompt_tokens if read else 0


class Client:
    """Sends requests over a few connections and keeps their streams."""

    def __init__(self, requests: Sequence[bytes], channels: Sequence[grpc.aio.Channel]) -> None:
        self._requests = requests
        self._calls: list[Any] = [channel.unary_stream(GENERATE) for channel in channels]
        self.streams: dict[int, Stream] = {}

    async def send(self, index: int, sent: float) -> None:
        stream = self.streams[index] = Stream(sent)
        call = self._calls[index % len(self._calls)](self._requests[index])
        while (message := await call.read()) is not grpc.aio.EOF:
            stream.times.append(time.perf_counter())
            stream.messages.append(message)

    async def closed_loop(self, indices: Sequence[int], callers: int) -> None:
        async def caller(waiting: Iterator[int]) -> None:
            for index in waiting:
                await self.send(index, time.perf_counter())

        shared = iter(indices)
        await asyncio.gather(*(caller(shared) for _ in range(callers)))

    async def open_loop(self, indices: Sequence[int], due_s: Sequence[float], start: float) -> None:
        async with asyncio.TaskGroup() as calls:
            for index, offset in zip(indices, due_s, strict=True):
                await sleep_until(start + offset)
                calls.create_task(self.send(index, start + offset))


async def run(spec: Streams) -> Measured:
    """Raises grpc.aio.AioRpcError for a call that fails, and ValueError for a stream with a gap."""
    requests = blobs.read(spec.requests)
    channels = [grpc.aio.insecure_channel(spec.address, options=CHANNEL_OPTIONS) for _ in range(spec.channels)]
    client, indices = Client(requests, channels), range(1, len(requests))
    await until_ready(lambda: client.send(0, 0.0))
    began, cpu = time.perf_counter(), cpu_s()
    if spec.due_s:
        await client.open_loop(indices, spec.due_s, began)
    else:
        await client.closed_loop(indices, spec.callers)
    seconds, used = time.perf_counter() - began, cpu_s() - cpu
    for channel in channels:
        await channel.close()
    return _measure([client.streams[index] for index in indices], began, seconds, used)


def _measure(streams: list[Stream], began: float, seconds: float, used: float) -> Measured:
    read = [stream.read() for stream in streams]
    return Measured(
        seconds=seconds,
        sent_s=[stream.sent - began for stream in streams],
        times_s=[[at - began for at in stream.times] for stream in streams],
        token_ids=[token_ids for token_ids, _ in read],
        cached_tokens=[cached for _, cached in read],
        messages=sum(len(stream.messages) for stream in streams),
        cpu_s=used,
    )


def main() -> None:
    spec, result = sys.argv[1:]
    measured = uvloop.run(run(Streams(**json.loads(Path(spec).read_text()))))
    Path(result).write_text(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
