"""Experiment 12: Redis reaches `maxmemory`.

Two ways there: callers who send large requests faster than they can be worked on, whom admission must stop in time;
and somebody else who fills the server to the brim, so that it refuses writes itself. In both new work is refused, with
a time to come back, and the streams that run go on to their ends. When there is room again, so is service.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace import AsyncClient
from millrace.errors import MillraceError
from millrace.queue.connection import Redis, connect
from tests.chaos.experiment import Outcome, Scale
from tests.chaos.load import MODEL, streams, through, transcripts
from tests.chaos.verdict import endings, judge
from tests.eventually import eventually
from tests.processes import Valkey
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, fleet

STREAMS, STEP_MS = 50, 25
MAX_MEMORY, GUARD, RESERVE = 128 << 20, 0.70, 0.85
"""What may be used: by admission's rule, and at the worst, with what arrives between two of its looks."""
REQUEST_BYTES, FLOODERS = 1 << 20, 8
CONTEXT = 1_000
"""What a request is taken to cost at the most: so that not its cost refuses it, but its size."""
FILLING = "filling"
BACK_S = 5.0


async def run(scale: Scale) -> Outcome:
    full_s = scale.of(4, 30)
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=STREAMS, context_length=CONTEXT, step_ms=STEP_MS)
        async with (
            Valkey("--maxmemory", str(MAX_MEMORY)) as valkey,
            fleet(Path(folder), frontends=1, workers=1, valkey=valkey) as running,
            connect(valkey.url) as redis,
        ):
            return await _try(running, redis, full_s)


async def _try(running: Fleet, redis: Redis, full_s: int) -> Outcome:
    tokens = round((2 * full_s + 8) * 1000 / STEP_MS)
    seen = transcripts("running", STREAMS)
    async with (
        AsyncClient(*running.addresses, retry_s=0) as client,
        streams(through(client, tokens), seen, within_s=2 * full_s + 60.0) as load,
    ):
        await load.begun()
        async with _flood(client) as flooded:
            reached = await _watch(redis, full_s)
        flood_back_s = await _back(client, flooded)
        async with _filled(redis):
            brim = await _refusals(client, full_s)
        brim_back_s = await _back(client, Counter())
        under_way = len(load.under_way)
    counts, failures = await judge(running, seen)
    refused = flooded["MEMORY_FULL"], brim["MEMORY_FULL"]
    checks = {
        f"the flood was refused {refused[0]} times for memory, of {dict(flooded)}": refused[0] > 0,
        f"at the brim {dict(brim)}: not all was refused for memory": set(brim) == {"MEMORY_FULL"},
        f"the flood filled {reached:.2f} of the memory": GUARD * 0.9 < reached < RESERVE,
        f"service was back after {flood_back_s:.1f} s and {brim_back_s:.1f} s": max(flood_back_s, brim_back_s) < BACK_S,
        f"only {under_way} streams were still under way at the end": under_way == STREAMS,
    }
    return Outcome(
        done=f"{STREAMS} streams; {FLOODERS} callers submit 1 MB each for {full_s} s; then the server is filled up",
        counts=counts | {"refused in the flood": refused[0], "at the brim": refused[1]},
        figures={
            "most memory in the flood": f"{reached:.2f} of maxmemory",
            "back after the flood": f"{flood_back_s:.1f} s (< 5)",
            "after the brim": f"{brim_back_s:.1f} s (< 5)",
        },
        failures=(*failures, *endings(seen, tokens), *(sentence for sentence, holds in checks.items() if not holds)),
    )


@asynccontextmanager
async def _flood(client: AsyncClient) -> AsyncIterator[Counter[str]]:
    """Callers that submit large jobs as fast as they can; yields how that went, by reason. At the end all are
    cancelled."""
    outcomes, accepted = Counter[str](), list[str]()

    async def submit_again_and_again(number: int) -> None:
        calls = 0
        while True:
            calls += 1
            job_id = f"flood-{number}-{calls}"
            reason = await _submit(client, job_id, "x" * REQUEST_BYTES)
            outcomes[reason] += 1
            if reason:
                await asyncio.sleep(0.02)
            else:
                accepted.append(job_id)

    tasks = [asyncio.create_task(submit_again_and_again(number)) for number in range(FLOODERS)]
    try:
        yield outcomes
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.gather(*(client.cancel(job_id) for job_id in accepted))


async def _submit(client: AsyncClient, job_id: str, prompt: str = "go on") -> str:
    """Why a job is refused; empty where it is accepted."""
    try:
        await client.submit(MODEL, prompt, job_id=job_id, max_tokens=1)
    except MillraceError as error:
        return error.reason
    return ""


async def _watch(redis: Redis, seconds: float) -> float:
    """The largest share of `maxmemory` that was in use."""
    largest, due = 0, time.monotonic() + seconds
    while time.monotonic() < due:
        largest = max(largest, (await redis.info("memory"))["used_memory"])
        await asyncio.sleep(0.02)
    return largest / MAX_MEMORY


@asynccontextmanager
async def _filled(redis: Redis) -> AsyncIterator[None]:
    """The server has no memory left."""
    used = (await redis.info("memory"))["used_memory"]
    await redis.setrange(FILLING, MAX_MEMORY - used + (1 << 20), b"x")
    yield
    await redis.delete(FILLING)


async def _refusals(client: AsyncClient, seconds: float) -> Counter[str]:
    outcomes, due = Counter[str](), time.monotonic() + seconds
    while time.monotonic() < due:
        outcomes[await _submit(client, f"brim-{sum(outcomes.values())}")] += 1
        await asyncio.sleep(0.02)
    return outcomes


async def _back(client: AsyncClient, before: Counter[str]) -> float:
    """Seconds until a job is accepted again."""
    began, number = time.monotonic(), sum(before.values())

    async def accepted() -> bool:
        nonlocal number
        number += 1
        return await _submit(client, f"back-{began:.0f}-{number}") == ""

    await eventually(accepted, within_s=4 * BACK_S, every_s=0.05)
    return time.monotonic() - began
