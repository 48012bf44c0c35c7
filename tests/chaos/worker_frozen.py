"""Experiment 2: SIGSTOP of workers for three leases each, then SIGCONT.

The callers' generations are short, so that a worker may be frozen at any moment of a job's life: behind a take, within
an emit, before an end. A thawed worker believes in leases that it has lost: what it still writes must be refused, it
must drop those jobs, and announce itself anew.

Each round freezes some of the workers, while the others go on with their jobs; and then all of them, one shortly behind
the other: the jobs have not moved on meanwhile, so that what a worker writes when it thaws may be just what is missing
of a job that another has taken a moment before.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace import AsyncClient
from millrace.queue import Registry, connect
from millrace.queue.connection import Redis
from tests.chaos.experiment import Outcome, Scale
from tests.chaos.load import callers, through
from tests.chaos.redis_view import held_by
from tests.chaos.verdict import endings, judge, within
from tests.processes import Service
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, Transcript, fleet

CALLERS, TOKENS, STEP_MS = 100, 50, 40
WORKERS, FROZEN, SLOTS = 6, 3, 60
"""Two of those that are left have room for all: one may be kept free for a job that has lost its worker at once."""
SPREAD_S, CLOSE_S = 1.0, 0.25
"""Within what time workers are frozen: where some are, and where all are."""
LEASE_S = 3.0
FREEZE_S = 3 * LEASE_S
STALL_S, BACK_S, GIVEN_UP_S = LEASE_S + 1.0, 1.0, 10.0
POLL_S = 0.02
UNDER_WAY_S = 0.2
"""What Redis gets for what the worker had sent before it was frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thaw:
    """What a worker did after one freeze."""

    held: int
    """Jobs that it had when it was frozen."""
    kept: int
    """Of them, those that Redis still counted as its own when it was thawed."""
    dropped: int
    """Jobs that it gave up when it was thawed."""
    dropped_s: float
    """From the thaw until it had dropped the last of them."""
    known_s: float
    """From the thaw until the registry knew it again, which had forgotten it."""


async def run(scale: Scale) -> Outcome:
    chance, rounds = random.Random(scale.seed), scale.of(1, 10)
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=SLOTS, step_ms=STEP_MS)
        async with (
            fleet(Path(folder), frontends=1, workers=WORKERS) as running,
            AsyncClient(*running.addresses) as client,
        ):
            thaws, exposed = list[list[Thaw]](), set[str]()
            async with callers(through(client, TOKENS), "freeze", CALLERS, within_s=rounds * 25 + 45.0) as load:
                await load.begun()
                for _ in range(rounds):
                    thaws.append(await _freeze_some(running, FROZEN, SPREAD_S, chance))
                    before = {one.job_id for one in load.seen if one.code is not None}
                    thaws.append(await _freeze_some(running, WORKERS, CLOSE_S, chance))
                    exposed |= {one.job_id for one in load.seen} - before
            counts, failures = await judge(running, load.seen)
            failures += endings(load.seen, TOKENS)
    failures += ["workers were frozen without any jobs" for some in thaws if not sum(thaw.held for thaw in some)]
    shielded = [one for one in load.seen if one.job_id not in exposed]
    return _outcome([thaw for some in thaws for thaw in some], shielded, counts, failures)


def _outcome(thaws: list[Thaw], shielded: list[Transcript], counts: dict[str, int], failures: list[str]) -> Outcome:
    """`shielded`: the streams during which others could always go on."""
    stalls = [transcript.stall_s for transcript in shielded if transcript.attempts > 1]
    stall, late = within("stall p99 of the streams that changed their worker", stalls, STALL_S)
    back_s = max(max(thaw.dropped_s, thaw.known_s) for thaw in thaws)
    return Outcome(
        done=f"{CALLERS} callers on {WORKERS} workers, {len(thaws)} freezes of {FREEZE_S:g} s "
        f"with {sum(thaw.held for thaw in thaws)} jobs at work",
        counts=counts | {"given up by thawed workers": sum(thaw.dropped for thaw in thaws)},
        figures={"stall p99": stall, "back after": f"{back_s:.2f} s (< {BACK_S:g} s)"},
        failures=(*failures, *late, *_broken(thaws)),
    )


def _broken(thaws: list[Thaw]) -> list[str]:
    said = []
    for thaw in thaws:
        if thaw.dropped < thaw.held:
            said.append(f"a worker was frozen with {thaw.held} jobs and gave up {thaw.dropped} of them")
        if thaw.kept:
            said.append(f"a frozen worker kept {thaw.kept} leases")
        if max(thaw.dropped_s, thaw.known_s) >= BACK_S:
            said.append(
                f"a thawed worker dropped its jobs in {thaw.dropped_s:.2f} s, was known in {thaw.known_s:.2f} s"
            )
    return said


async def _freeze_some(running: Fleet, count: int, spread_s: float, chance: random.Random) -> list[Thaw]:
    """Freezes those workers that have most to do, each at its own moment."""
    async with connect(running.valkey.url) as redis:
        held = {worker: len(await held_by(redis, worker.ready["id"])) for worker in running.workers}
        workers = sorted(running.workers, key=held.__getitem__, reverse=True)[:count]
        moments = [chance.uniform(0, spread_s) for _ in workers]
        return await asyncio.gather(*map(_freeze, workers, moments, [redis] * count))


async def _freeze(worker: Service, moment: float, redis: Redis) -> Thaw:
    await asyncio.sleep(moment)
    name = worker.ready["id"]
    worker.pause()
    await asyncio.sleep(UNDER_WAY_S)
    held = await held_by(redis, name)
    await asyncio.sleep(FREEZE_S - UNDER_WAY_S)
    kept = await held_by(redis, name)
    thawed, wall = time.monotonic(), time.time()
    worker.resume()
    known_s: float | None = None
    drops: list[float] = []
    while (known_s is None or len(drops) < len(held)) and time.monotonic() - thawed < GIVEN_UP_S:
        if known_s is None and any(entry.worker_id == name for entry in await Registry(redis).workers()):
            known_s = time.monotonic() - thawed
        drops = [at - wall for at in _drops(worker.log) if at > wall]
        await asyncio.sleep(POLL_S)
    return Thaw(
        held=len(held),
        kept=len(kept),
        dropped=len(drops),
        dropped_s=max(drops, default=0.0),
        known_s=GIVEN_UP_S if known_s is None else known_s,
    )


def _drops(log: str) -> list[float]:
    """When the worker learned of a job that it is another's: told so, or since the log has moved on."""
    lines = (line for line in log.splitlines() if "job.incomplete" in line or "verdict=lost" in line)
    return [datetime.fromisoformat(line.split()[0]).timestamp() for line in lines]
