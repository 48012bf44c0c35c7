"""Experiment 6: kill -9 of one frontend after the other, while the clients know all of them.

How many streams the killed frontend had is asked of it just before. Which they were cannot be seen from outside, so the
streams with the longest silences around the kill count as those: their resume cannot look shorter than it was.
"""

import asyncio
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace import AsyncClient
from tests.chaos.experiment import Outcome, Scale, percentile
from tests.chaos.load import callers, through
from tests.chaos.metrics import STREAMS, scrape
from tests.chaos.verdict import endings, judge, within
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, Transcript, fleet

CALLERS, TOKENS, STEP_MS = 100, 125, 40
FRONTENDS, WORKERS = 3, 2
EVERY_S = 5.0
RESUME_S = 0.5
SETTLE_S = 4.0
"""A silence that ends so long after a kill has another reason."""


async def run(scale: Scale) -> Outcome:
    kills = scale.of(3, 24)
    silences = list[float]()
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=CALLERS, step_ms=STEP_MS)
        async with (
            fleet(Path(folder), frontends=FRONTENDS, workers=WORKERS) as running,
            AsyncClient(*running.addresses) as client,
        ):
            within_s = kills * EVERY_S + 60.0
            async with callers(through(client, TOKENS), "moving", CALLERS, within_s=within_s) as load:
                await load.begun()
                for _ in range(kills):
                    silences += await _kill(running, load.seen)
            counts, failures = await judge(running, load.seen)
    resume, late = within("resume p99", silences, RESUME_S)
    if len(silences) < kills * CALLERS / FRONTENDS / 2:
        late.append(f"only {len(silences)} streams were on the killed frontends: nothing was tried")
    return Outcome(
        done=f"{CALLERS} callers on {FRONTENDS} frontends, {kills} kills, one each {EVERY_S:g} s, "
        f"with {len(silences)} streams on them",
        counts=counts | {"kills": kills},
        figures={"resume p50": f"{percentile(silences, 0.5):.2f} s", "p99": resume},
        failures=(*failures, *endings(load.seen, TOKENS), *late),
    )


async def _kill(running: Fleet, seen: list[Transcript]) -> list[float]:
    """Kills the frontend that has most streams, and starts it anew; answers how long each of them was silent."""
    loads = [int((await scrape(frontend))[STREAMS]) for frontend in running.frontends]
    hit = max(loads)
    frontend = running.frontends[loads.index(hit)]
    killed = time.monotonic()
    await asyncio.gather(running.replace(frontend), asyncio.sleep(EVERY_S))
    silences = sorted((_silence_s(transcript, killed) for transcript in seen), reverse=True)
    return silences[:hit]


def _silence_s(transcript: Transcript, killed: float) -> float:
    """The longest wait for a message that came after the kill, if one had come before."""
    waits = (
        later - earlier
        for earlier, later in pairwise(transcript.arrivals)
        if killed < later < killed + SETTLE_S and transcript.arrivals[0] < killed
    )
    return max(waits, default=0.0)
