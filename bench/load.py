"""The client process: sends requests that are already serialised, and notes when their answers come.

    python -m bench.load SPEC.json RESULT.json

It imports neither numpy nor the stubs while it measures, and reads no answer before the end: what it costs comes off
the cores that it shares with what it measures.
"""

import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from bench import blobs

INFER = "/inference.GRPCInferenceService/ModelInfer"
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
READY_S = 30.0
"""How long the first call may find nobody there."""
LATE_S = 0.001
TIMER_S = 0.001
"""The event loop's clock has whole milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Unary calls: a closed loop of `callers`, or an open one at `rate`."""

    address: str
    requests: str
    """The file of requests, each behind its length; they are sent in turn."""
    answers: str
    """Where the last answer to each request goes, in the same form; empty where there was none."""
    method: str = INFER
    channels: int = 4
    callers: int = 0
    rate: float = 0.0
    """Requests a second, at the times of a Poisson process."""
    warm_s: float = 1.0
    seconds: float = 4.0
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class Measured:
    """What came of it. Answers count that came within the time measured; latencies are those of the requests that were
    due in it, in an open loop from when they were due."""

    seconds: float
    answers: int = 0
    sent: int = 0
    late_share: float = 0.0
    """Of the requests of an open loop, how many were sent more than `LATE_S` after they were due."""
    latencies_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    """This process's own, from the first request to the last answer."""

    @property
    def rate(self) -> float:
        return self.answers / self.seconds


class Client:
    """Sends, and keeps what came back."""

    def __init__(self, load: Load, requests: Sequence[bytes]) -> None:
        self.load, self.requests = load, requests
        self.answers = [b""] * len(requests)
        self.measured = Measured(seconds=load.seconds)
        self._calls: list[Any] = []
        self._begin = self._end = 0.0

    async def run(self) -> None:
        """Raises grpc.aio.AioRpcError for a call that fails, and ValueError for an empty answer."""
        channels = [
            grpc.aio.insecure_channel(self.load.address, options=CHANNEL_OPTIONS) for _ in range(self.load.channels)
        ]
        self._calls = [channel.unary_unary(self.load.method) for channel in channels]
        for channel in self._calls:
            await until_ready(partial(channel, self.requests[0]))
        cpu = cpu_s()
        self._begin = time.perf_counter() + self.load.warm_s
        self._end = self._begin + self.load.seconds
        await (self._open_loop() if self.load.rate else self._closed_loop())
        self.measured.cpu_s = cpu_s() - cpu
        for each in channels:
            await each.close()

    async def _closed_loop(self) -> None:
        await asyncio.gather(*(self._caller(index) for index in range(self.load.callers)))

    async def _caller(self, index: int) -> None:
        at = index
        while (now := time.perf_counter()) < self._end:
            await self._send(at, now)
            at += self.load.callers

    async def _open_loop(self) -> None:
        """Sends at the times that were drawn, whatever has come back; ends when all answers are there."""
        start = time.perf_counter()
        late = 0
        async with asyncio.TaskGroup() as calls:
            for at, offset in enumerate(schedule(self.load.rate, self.load.warm_s + self.load.seconds, self.load.seed)):
                due = start + offset
                await sleep_until(due)
                late += time.perf_counter() - due > LATE_S
                calls.create_task(self._send(at, due))
        self.measured.late_share = late / max(self.measured.sent, 1)

    async def _send(self, at: int, due: float) -> None:
        self.measured.sent += 1
        index = at % len(self.requests)
        answer = await self._calls[at % len(self._calls)](self.requests[index])
        if not answer:
            raise ValueError(f"request {index} was answered with nothing")
        now = time.perf_counter()
        self.answers[index] = answer
        self.measured.answers += self._begin <= now < self._end
        if self._begin <= due < self._end:
            self.measured.latencies_ms.append(1000 * (now - due))


async def sleep_until(due: float) -> None:
    """Returns at `due` or within a millisecond or so behind it, never before."""
    left = due - time.perf_counter()
    while left > 0:
        await asyncio.sleep(max(left, TIMER_S))
        left = due - time.perf_counter()


def schedule(rate: float, seconds: float, seed: int) -> list[float]:
    """The times of a Poisson process, in seconds from its start."""
    draws, times, at = random.Random(seed), list[float](), 0.0
    while (at := at + draws.expovariate(rate)) < seconds:
        times.append(at)
    return times


async def until_ready(call: Callable[[], Awaitable[object]]) -> None:
    """Calls until the answer is none of "nobody is there", "no such model yet"; then any error is raised."""
    until = time.perf_counter() + READY_S
    while True:
        try:
            await call()
            return
        except grpc.aio.AioRpcError as error:
            passing = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
            if not passing or time.perf_counter() > until:
                raise
            await asyncio.sleep(0.1)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    spec, result = sys.argv[1:]
    load = Load(**json.loads(Path(spec).read_text()))
    client = Client(load, blobs.read(load.requests))
    uvloop.run(client.run())
    blobs.write(load.answers, client.answers)
    Path(result).write_text(json.dumps(asdict(client.measured)))


if __name__ == "__main__":
    main()
