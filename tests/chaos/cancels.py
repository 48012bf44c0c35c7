"""Experiment 8: calls that are given up at random moments, from the submit to just before the end.

Two seconds after the last of them no job may run or wait; connections, tasks, descriptors, slots and keys must be what
they were before the first. The logs of jobs with names are looked at when work on them has to be over, and once more
when all is over: nothing may have been added.
"""

import asyncio
import random
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc.aio

from millrace import AsyncClient
from millrace.queue import JobQueue, ModelVersion, connect
from millrace.queue.connection import Redis
from services.worker.stub import stub_token
from tests.chaos.experiment import Outcome, Scale
from tests.chaos.giving_up import NAMES, Calls, GivingUp
from tests.chaos.leftovers import KEYS, Holdings, back, holdings, job_keys
from tests.chaos.redis_view import STUB
from tests.chaos.verdict import sentences
from tests.checker.check import check
from tests.checker.history import Difference, JobHistory, Received
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, fleet

DIGITS_FOLDER, DIGITS = Path(__file__).parents[2] / "models" / "digits", ModelVersion("digits", "1")
CALLERS, WARM_UP = 100, 200
FRONTENDS, WORKERS, SLOTS = 2, 2, 128
TOKENS, STEP_S, INFER_S, RENEWAL_S = 20, 0.02, 0.01, 1.0
CALLS = Calls(tokens=TOKENS, whole_s=TOKENS * STEP_S, infer_s=INFER_S, settle_s=STEP_S + RENEWAL_S)
IDLE_S = 2.0
RETENTION_S = 3
"""How long the log of a named job stays: long enough to be looked at twice, short enough to see it go."""
NAME_S = 600 + RETENTION_S + 60
"""How long a name stays: the job's timeout, the retention, and a minute."""
FEWEST = 0.8
"""The share of calls that have to be given up before their end."""


async def run(scale: Scale) -> Outcome:
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=SLOTS, step_ms=STEP_S * 1000)
        shutil.copytree(DIGITS_FOLDER, Path(folder) / "digits")
        retention_ms = str(RETENTION_S * 1000)
        async with (
            fleet(Path(folder), frontends=FRONTENDS, workers=WORKERS, MILLRACE_RETENTION_MS=retention_ms) as running,
            AsyncClient(*running.addresses) as client,
            grpc.aio.insecure_channel(running.addresses[0]) as channel,
            connect(running.valkey.url) as redis,
        ):
            calls = GivingUp(client, channel, running.addresses[1], JobQueue(redis), CALLS)
            await _give_up(calls, WARM_UP, scale.seed)
            await asyncio.sleep(CALLS.settle_s)
            start = await holdings(running, redis) | {KEYS: 0}
            calls.given.clear()
            await _give_up(calls, scale.of(5_000, 50_000), scale.seed + 1)
            return await _judge(running, redis, calls, start)


async def _give_up(calls: GivingUp, count: int, seed: int) -> None:
    chance, numbers = random.Random(seed), iter(range(count))

    async def call_again_and_again() -> None:
        for _ in numbers:
            await calls.once(chance)

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(call_again_and_again())


async def _judge(running: Fleet, redis: Redis, calls: GivingUp, start: Holdings) -> Outcome:
    idle_s, failures = await _idle(redis)
    back_s, grown = await back(running, redis, start, within_s=IDLE_S, keys=_is_nameless)
    failures += grown + sentences(await _differences(calls))
    failures += (await back(running, redis, start, within_s=RETENTION_S + 1.0, keys=_is_of_a_job))[1]
    names, kept = await _names(redis)
    given, under_way = calls.given.total(), sum(count for (_, early), count in calls.given.items() if early)
    if under_way < FEWEST * given:
        failures.append(f"only {under_way} of {given} calls were given up before their end: nothing was tried")
    ways = sorted({way for way, _ in calls.given})
    return Outcome(
        done=f"{given:,} calls, {under_way:,} given up before their end: {', '.join(ways)}",
        counts={"calls": given, "logs looked at twice": len(calls.looks), "names that lapse later": names},
        figures={"no job after": f"{idle_s:.2f} s (< {IDLE_S:g} s)", "all back after": f"{back_s:.2f} s"},
        failures=(*failures, *kept),
    )


async def _idle(redis: Redis) -> tuple[float, list[str]]:
    """How long it takes until no job runs or waits, and a sentence where one still does."""
    queue, began = JobQueue(redis), time.monotonic()
    while True:
        loads = {str(model): await queue.load(model) for model in (STUB, DIGITS)}
        busy = {
            model: (load["running"], load["jobs"]) for model, load in loads.items() if load["running"] or load["jobs"]
        }
        took_s = time.monotonic() - began
        if not busy or took_s > IDLE_S:
            return took_s, [f"running and waiting jobs of {name}: {numbers}" for name, numbers in busy.items()]
        await asyncio.sleep(0.01)


async def _differences(calls: GivingUp) -> list[Difference]:
    """What the checker says of the jobs with names, but for those that were given up before they were queued."""
    looks = dict(zip(calls.looks, await asyncio.gather(*calls.looks.values()), strict=True))
    histories = []
    for transcript in calls.named:
        settled, log = looks.get(transcript.job_id, (0, []))
        received = [Received(message=message, at=0.0) for message in transcript.messages]
        if log or (received and transcript.job_id in looks):
            job = f"default:{transcript.job_id}"
            histories.append(JobHistory(job=job, received=received, code=None, log=log, settled=settled))
    return check(histories, truth=stub_token)


async def _names(redis: Redis) -> tuple[int, list[str]]:
    """How many names of ended jobs are still known, and a sentence where one is not going to lapse in time."""
    names = [key for key in await job_keys(redis) if not _is_of_a_job(key)]
    lives = await asyncio.gather(*(redis.pttl(name) for name in names))
    late = [name for name, life_ms in zip(names, lives, strict=True) if not 0 < life_ms <= NAME_S * 1000]
    return len(names), [f"{len(late)} names of jobs do not lapse in time, such as {late[0]}"] if late else []


def _is_of_a_job(key: str) -> bool:
    """A name is kept for as long as its job might have lived: it lapses, but later than this experiment lasts."""
    return not key.startswith(f"mr:job-index:default:{NAMES}-")


def _is_nameless(key: str) -> bool:
    return f":default:{NAMES}-" not in key
