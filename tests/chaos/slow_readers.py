"""Experiment 7: one in five of 500 readers opens a stream and never reads.

A result that nobody reads is still taken by the caller's gRPC, until its window is full; that memory is the caller's,
and to the service such a caller looks like one that reads. So the dead readers have windows that do not grow, and ask
for large results. Then a write blocks, results pile up in the stream's inbox until that is full, and after
`slow_reader_s` the call is ended, and with it the job.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import grpc.aio

from millrace import AsyncClient
from millrace.queue import JobRef, ModelVersion, State
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse, Stopping
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import JobOptions
from tests.chaos.experiment import Outcome, Scale, percentile
from tests.chaos.load import Load, streams, through, transcripts
from tests.chaos.metrics import MEMORY, STREAMS, scrape
from tests.chaos.verdict import endings, judge
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, Transcript, fleet, queue_of

READERS, DEAD, WORKERS = 400, 100, 4
STEP_MS, LARGE_STEP_MS, TEXT_BYTES, FOR_EVER = 100, 50, 4096, 50_000
LARGE = ModelVersion("large", "1")
CHANNELS = 10
OPTIONS = (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))
"""Windows that stay at 64 KiB, and a connection for each channel."""
SHARE, GROWTH_MB = 1.1, 64.0
"""What others' p99 may grow to, and the frontend's memory by."""
STOP_S, LET_GO_S = 2.0, 2.5
"""How long beyond `slow_reader_s` a dead reader's job may run, from its start; and after that its call."""
OPEN_S, MARGIN_S = 1.0, 3.0
"""Over what time the dead readers come: their client is the others' too, and is not what is measured."""


LargeCall: TypeAlias = "grpc.aio.UnaryStreamCall[GenerateRequest, GenerateResponse]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    alive: list[float]
    dead: list[float]
    """Between two messages of one of the others, beside readers that read and beside readers that do not."""
    growth_mb: float
    stops: list[float]
    """How long the dead readers' jobs ran that have been stopped."""
    left: int
    """Streams of dead readers that the frontend still had in the end."""


async def run(scale: Scale) -> Outcome:
    slow_s = scale.of(3, 28)
    tokens = round((2 * (OPEN_S + slow_s + STOP_S) + LET_GO_S + MARGIN_S + 1.0) * 1000 / STEP_MS)
    with TemporaryDirectory() as folder, TemporaryDirectory() as other:
        write_stub(Path(folder), slots=READERS // WORKERS, step_ms=STEP_MS)
        write_stub(Path(other), LARGE.name, slots=DEAD, step_ms=LARGE_STEP_MS, text_bytes=TEXT_BYTES)
        async with (
            fleet(Path(folder), frontends=1, workers=WORKERS, MILLRACE_SLOW_READER_S=str(slow_s)) as running,
            running.add_worker(MILLRACE_MODELS=other),
        ):
            seen = transcripts("reading", READERS)
            async with (
                AsyncClient(*running.addresses) as client,
                streams(through(client, tokens), seen, within_s=4 * slow_s + 60.0) as load,
            ):
                await load.begun()
                found = await _compare(running, load, OPEN_S + slow_s + STOP_S)
            counts, failures = await judge(running, seen)
    return _outcome(slow_s, found, counts, [*failures, *endings(seen, tokens)])


async def _compare(running: Fleet, load: Load, span_s: float) -> Comparison:
    """The same readers for a while beside others that read large results too, and beside others that do not."""
    (frontend,) = running.frontends
    before = await _largest_mb(running, 1.0)
    began = time.monotonic()
    async with _others(running, "alive", read=True):
        await _largest_mb(running, span_s)
        turned = time.monotonic()
    async with _others(running, "dead", read=False):
        during = await _largest_mb(running, span_s)
        over = time.monotonic()
        stops = await _stops(running)
        await asyncio.sleep(LET_GO_S)
        left = int((await scrape(frontend))[STREAMS]) - len(load.under_way)
    return Comparison(
        alive=_gaps(load.seen, began, turned),
        dead=_gaps(load.seen, turned, over),
        growth_mb=during - before,
        stops=stops,
        left=left,
    )


def _outcome(slow_s: float, found: Comparison, counts: dict[str, int], failures: list[str]) -> Outcome:
    alive, dead = percentile(found.alive, 0.99), percentile(found.dead, 0.99)
    slowest = max(found.stops, default=0.0)
    bound_s = slow_s + STOP_S
    if dead >= SHARE * alive:
        failures.append(
            f"others' p99 is {dead * 1000:.1f} ms beside dead readers, {alive * 1000:.1f} ms beside live ones"
        )
    if found.growth_mb >= GROWTH_MB:
        failures.append(f"the frontend's memory grew by {found.growth_mb:.1f} MB")
    if len(found.stops) < DEAD or slowest >= bound_s:
        failures.append(f"{len(found.stops)} of {DEAD} dead readers' jobs stopped, the last after {slowest:.1f} s")
    if min(found.stops, default=0.0) < slow_s:
        failures.append(f"a dead reader's job was stopped before {slow_s} s: it was not its reader that stopped it")
    if found.left:
        failures.append(f"the frontend still has {found.left} streams of dead readers")
    return Outcome(
        done=f"{READERS} readers and {DEAD} that never read results of {TEXT_BYTES} bytes, slow_reader_s {slow_s}",
        counts=counts | {"dead readers": DEAD, "stopped": len(found.stops)},
        figures={
            "others' p99": f"{dead * 1000:.0f} ms, {alive * 1000:.0f} ms where all read (+10 %)",
            "memory": f"{found.growth_mb:+.1f} MB (< {GROWTH_MB:g} MB)",
            "stopped after": f"{slowest:.1f} s (< {bound_s:g} s)",
        },
        failures=tuple(failures),
    )


async def _largest_mb(running: Fleet, span_s: float) -> float:
    """The frontend's memory at its largest, looked at for a while."""
    until, largest = time.monotonic() + span_s, 0.0
    while time.monotonic() < until:
        largest = max(largest, (await scrape(running.frontends[0]))[MEMORY])
        await asyncio.sleep(0.25)
    return largest / 1e6


@asynccontextmanager
async def _others(running: Fleet, name: str, *, read: bool) -> AsyncIterator[None]:
    channels = [grpc.aio.insecure_channel(running.addresses[0], options=OPTIONS) for _ in range(CHANNELS)]
    calls, reading = list[LargeCall](), list[asyncio.Task[None]]()

    async def come() -> None:
        for number in range(DEAD):
            calls.append(_open(channels[number % CHANNELS], f"{name}-{number}"))
            if read:
                reading.append(asyncio.create_task(_read(calls[-1])))
            await asyncio.sleep(OPEN_S / DEAD)

    coming = asyncio.create_task(come())
    try:
        yield
        await coming
    finally:
        coming.cancel()
        for call in calls:
            call.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in channels))


async def _read(call: LargeCall) -> None:
    async for _ in call:
        pass


def _open(channel: grpc.aio.Channel, name: str) -> LargeCall:
    job = JobOptions(job_id=name)
    stopping = Stopping(max_tokens=FOR_EVER)
    return TextGenerationServiceStub(channel).Generate(
        GenerateRequest(model=LARGE.name, text="go on", stopping=stopping, job=job)
    )


async def _stops(running: Fleet) -> list[float]:
    """How long the dead readers' jobs ran, from the submit to the end, where somebody has ended them."""
    async with queue_of(running) as queue:
        names = (f"dead-{number}" for number in range(DEAD))
        records = [await queue.inspect(JobRef(LARGE, "default", name)) for name in names]
    ended = [record for record in records if record is not None and record.state is State.ENDED]
    abandoned = [record for record in ended if record.ending is not None and record.ending.reason == "ABANDONED"]
    return [(record.end_ms - record.submit_ms) / 1000 for record in abandoned]


def _gaps(seen: list[Transcript], since: float, until: float) -> list[float]:
    """Between two messages, both of them within the time."""
    return [
        later - earlier
        for transcript in seen
        for earlier, later in pairwise(transcript.arrivals)
        if since <= earlier and later <= until
    ]
