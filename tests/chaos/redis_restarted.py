"""Experiment 4: Redis is killed and started again, with its append-only file, under load.

A kill of the server's process loses nothing that it has answered, since it writes to the file before it answers, though
not to the disk: this says nothing of a power cut. While it is away workers keep what they have computed, streams wait,
and new calls are repeated by their clients.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace import AsyncClient
from tests.chaos.experiment import Outcome, Scale, percentile
from tests.chaos.load import callers, submitted, through
from tests.chaos.verdict import endings, judge, within
from tests.processes import Valkey
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, Transcript, fleet

STREAMS, SUBMITTED, TOKENS, STEP_MS = 100, 20, 100, 20
FRONTENDS, WORKERS = 2, 2
UP_S, DOWN_S = (1.5, 2.5), (0.0, 0.5)
BEYOND_S = 2.0
SETTLE_S = 10.0
"""A stall that ends so long after a restart has another reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    killed: float
    """When, by the monotonic clock."""
    restart_s: float
    """Until the server answered again."""


async def run(scale: Scale) -> Outcome:
    restarts = scale.of(4, 10)
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=STREAMS, step_ms=STEP_MS)
        async with (
            Valkey(durable=True) as valkey,
            fleet(Path(folder), frontends=FRONTENDS, workers=WORKERS, valkey=valkey) as running,
        ):
            return await _try(running, restarts, random.Random(scale.seed))


async def _try(running: Fleet, restarts: int, chance: random.Random) -> Outcome:
    outages, within_s = list[Outage](), restarts * 5 + 60.0
    async with (
        AsyncClient(*running.addresses) as client,
        callers(through(client, TOKENS), "watched", STREAMS, within_s=within_s) as watched,
        callers(submitted(client, TOKENS), "submitted", SUBMITTED, within_s=within_s) as left,
    ):
        await watched.begun()
        for _ in range(restarts):
            await asyncio.sleep(chance.uniform(*UP_S))
            outages.append(await _restart(running.valkey, chance.uniform(*DOWN_S)))
        left.stopping = watched.stopping = True
    seen = [*watched.seen, *left.seen]
    counts, failures = await judge(running, seen)
    stalls = [stall_s for outage in outages for stall_s in _stalls(watched.seen, outage)]
    stall, late = within("stall p99 beyond the restart", stalls, BEYOND_S)
    if len(stalls) < restarts * STREAMS / 2:
        late.append(f"only {len(stalls)} streams were under way in {restarts} restarts: nothing was tried")
    longest_s = max(outage.restart_s for outage in outages)
    return Outcome(
        done=f"{restarts} kills and restarts under {STREAMS} callers' streams and {SUBMITTED} submitters' jobs",
        counts=counts | {"restarts": restarts},
        figures={
            "longest restart": f"{longest_s:.2f} s",
            "stall p50 beyond the restart": f"{percentile(stalls, 0.5):.2f} s",
            "p99": stall,
        },
        failures=(*failures, *endings(seen, TOKENS), *late),
    )


async def _restart(valkey: Valkey, down_s: float) -> Outage:
    killed = time.monotonic()
    await asyncio.to_thread(valkey.kill)
    await asyncio.sleep(down_s)
    await asyncio.to_thread(valkey.start)
    return Outage(killed=killed, restart_s=time.monotonic() - killed)


def _stalls(seen: list[Transcript], outage: Outage) -> Iterator[float]:
    """For each stream that was under way: by how much its silence around the outage was longer than the restart."""
    for transcript in seen:
        silences = [
            later - earlier
            for earlier, later in pairwise(transcript.arrivals)
            if earlier <= outage.killed + outage.restart_s and outage.killed < later < outage.killed + SETTLE_S
        ]
        if silences and transcript.arrivals[0] < outage.killed:
            yield max(silences) - outage.restart_s
