"""The client process for streams: a closed loop of `Generate` calls.

    python -m bench.streams SPEC.json RESULT.json

Messages are kept as they come, and read when all streams have ended.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from bench import blobs
from bench.load import CHANNEL_OPTIONS, cpu_s, until_ready
from millrace.v1.generation_pb2 import GenerateResponse

GENERATE = "/millrace.v1.TextGenerationService/Generate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Each request is sent once, in turn, by whichever caller is free."""

    address: str
    requests: str
    """The file of requests. The first is also sent once before all others, and does not count then."""
    callers: int
    channels: int = 4


@dataclass(slots=True, kw_only=True)
class Measured:
    """What came of it; token ids by request."""

    seconds: float
    """From the first request to the last stream's end."""
    tokens: int
    messages: int
    first_ms: list[float]
    """From a request to its first token."""
    per_token_ms: list[float]
    """Of each stream, from its first token to its last, for each one after the first."""
    token_ids: list[list[int]]
    cpu_s: float
    """This process's own, while the streams ran."""

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


@dataclass(slots=True)
class Stream:
    """One call."""

    sent: float
    times: list[float] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)

    def token_ids(self) -> list[int]:
        """Raises ValueError where a message is missing, or comes twice."""
        read = [GenerateResponse.FromString(message) for message in self.messages]
        if [message.offset for message in read if message.deltas] != list(range(1, len(read) + 1)):
            raise ValueError("a stream's offsets have a gap")
        return [token_id for message in read for delta in message.deltas for token_id in delta.token_ids]


async def run(spec: Streams) -> Measured:
    """Raises grpc.aio.AioRpcError for a call that fails, and ValueError for a stream with a gap."""
    requests = blobs.read(spec.requests)
    channels = [grpc.aio.insecure_channel(spec.address, options=CHANNEL_OPTIONS) for _ in range(spec.channels)]
    calls: list[Any] = [channel.unary_stream(GENERATE) for channel in channels]
    streams: dict[int, Stream] = {}

    async def send(index: int) -> Stream:
        stream = Stream(time.perf_counter())
        call = calls[index % len(calls)](requests[index])
        while (message := await call.read()) is not grpc.aio.EOF:
            stream.times.append(time.perf_counter())
            stream.messages.append(message)
        return stream

    async def caller(indices: Iterator[int]) -> None:
        for index in indices:
            streams[index] = await send(index)

    await until_ready(lambda: send(0))
    began, cpu = time.perf_counter(), cpu_s()
    shared = iter(range(len(requests)))
    await asyncio.gather(*(caller(shared) for _ in range(spec.callers)))
    seconds, used = time.perf_counter() - began, cpu_s() - cpu
    for channel in channels:
        await channel.close()
    return _measure([streams[index] for index in range(len(requests))], seconds, used)


def _measure(streams: list[Stream], seconds: float, used: float) -> Measured:
    token_ids = [stream.token_ids() for stream in streams]
    return Measured(
        seconds=seconds,
        tokens=sum(map(len, token_ids)),
        messages=sum(len(stream.messages) for stream in streams),
        first_ms=[1000 * (stream.times[0] - stream.sent) for stream in streams],
        per_token_ms=[
            1000 * (stream.times[-1] - stream.times[0]) / max(len(ids) - 1, 1)
            for stream, ids in zip(streams, token_ids, strict=True)
        ],
        token_ids=token_ids,
        cpu_s=used,
    )


def main() -> None:
    spec, result = sys.argv[1:]
    measured = uvloop.run(run(Streams(**json.loads(Path(spec).read_text()))))
    Path(result).write_text(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
