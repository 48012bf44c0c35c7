"""Experiment 1: kill -9 of one worker after the other, under as many streams as the rest can hold.

The four workers have slots for all streams when one is down. A killed worker is started anew at once; its jobs lapse
three seconds later, and whoever has room goes on with them.
"""

import asyncio
import random
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace import AsyncClient
from tests.chaos.experiment import Outcome, Scale, percentile
from tests.chaos.load import Load, streams, through, transcripts
from tests.chaos.verdict import added, endings, judge, within
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, fleet

STREAMS, TOKENS, WORKERS = 200, 500, 4
STEP_MS, SLOTS = 20, 70
EVERY_S = 2.0
STALL_S = 4.0


async def run(scale: Scale) -> Outcome:
    rounds, kills_each = scale.of(1, 10), scale.of(6, 1_000)
    counts, failures, stalls = dict[str, int](), list[str](), list[float]()
    kills = 0
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=SLOTS, step_ms=STEP_MS)
        async with fleet(Path(folder), frontends=1, workers=WORKERS) as running:
            for number in range(rounds):
                killed, found, broken, waits = await _round(
                    running, number, kills_each, random.Random(scale.seed + number)
                )
                kills += killed
                counts = added(counts, found)
                failures += broken
                stalls += waits
    stall, late = within("stall p99", stalls, STALL_S)
    return Outcome(
        done=f"{rounds * STREAMS} streams of {TOKENS} tokens on {WORKERS} workers, "
        f"{kills} kills, one each {EVERY_S:g} s",
        counts=counts | {"kills": kills},
        figures={
            "stall p50": f"{percentile(stalls, 0.5):.2f} s",
            "stall p99": stall,
            "longest": f"{max(stalls):.2f} s",
        },
        failures=(*failures, *late),
    )


async def _round(
    running: Fleet, number: int, kills: int, chance: random.Random
) -> tuple[int, dict[str, int], list[str], list[float]]:
    seen = transcripts(f"round-{number}", STREAMS)
    async with (
        AsyncClient(*running.addresses) as client,
        streams(through(client, TOKENS), seen, within_s=90.0) as load,
    ):
        await load.begun()
        killed = await _kill(running, load, kills, chance)
    counts, failures = await judge(running, seen)
    if not any(transcript.attempts > 1 for transcript in seen):
        failures.append("no stream has changed its worker: nothing was tried")
    return killed, counts, failures + endings(seen, TOKENS), [transcript.stall_s for transcript in seen]


async def _kill(running: Fleet, load: Load, kills: int, chance: random.Random) -> int:
    """Kills and starts one worker after the other, in any order, until the streams are over; answers how many."""
    killed = 0
    order = chance.sample(running.workers, len(running.workers))
    while killed < kills and not load.over:
        worker = order[killed % len(order)]
        killed += 1
        await asyncio.gather(running.replace(worker), asyncio.sleep(EVERY_S))
    return killed
