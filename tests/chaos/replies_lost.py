"""Experiment 3: a proxy between all processes and Redis loses the reply of every 50th command.

The command was carried out and nobody learns of it; calls share a connection, so the answers to all that were under way
on it are lost with it. Answers come two milliseconds late, so that there are some. Every call must be answered rightly
though whoever lost an answer repeats its call, and the queue must have accepted exactly as many jobs as were asked for.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc.aio
import numpy as np
import numpy.typing as npt

from millrace import AsyncClient
from millrace.errors import MillraceError
from millrace.queue import ModelVersion, connect
from tests.chaos.experiment import Outcome, Scale
from tests.chaos.load import Load, callers, submitted, through, unnamed
from tests.chaos.redis_view import STUB, accepted
from tests.chaos.verdict import added, endings, judge, judge_by_themselves
from tests.processes import Valkey
from tests.proxy import LossyProxy
from tests.stub_models import write_stub
from tests.survival.fleet import Fleet, Transcript, fleet

DIGITS_FOLDER, DIGITS = Path(__file__).parents[2] / "models" / "digits", ModelVersion("digits", "1")
EVERY, DELAY_S = 50, 0.002
CALLERS, TOKENS, STEP_MS = 20, 50, 20
"""Callers of each of three kinds: named, unnamed, submitted and watched."""
CLASSIFIERS, ANSWER_S = 10, 60.0
FEWEST_LOST = 50


@dataclass(kw_only=True)
class Classified:
    """What callers with tensors were answered."""

    calls: int = 0
    right: int = 0
    failed: list[str] = field(default_factory=list)


async def run(scale: Scale) -> Outcome:
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=CALLERS * 3, step_ms=STEP_MS)
        shutil.copytree(DIGITS_FOLDER, Path(folder) / "digits")
        async with Valkey() as valkey, LossyProxy(valkey.url, EVERY, delay_s=DELAY_S) as proxy:
            started = fleet(Path(folder), frontends=2, workers=3, valkey=valkey, MILLRACE_REDIS_URL=proxy.url)
            async with started as running:
                return await _try(running, proxy, scale.of(10, 180))


async def _try(running: Fleet, proxy: LossyProxy, seconds: int) -> Outcome:
    async with _load(running, seconds) as (named, bare, kept, classified):
        await asyncio.sleep(seconds)
    counts, failures = await judge(running, [*named.seen, *kept.seen])
    more, broken = judge_by_themselves(bare.seen)
    seen = [*named.seen, *bare.seen, *kept.seen]
    failures += broken + endings(seen, TOKENS) + _doubled(seen) + classified.failed[:1]
    async with connect(running.valkey.url) as redis:
        asked = {STUB: len(seen), DIGITS: classified.calls}
        jobs = {model: await accepted(redis, model) for model in asked}
    failures += [
        f"{jobs[model]} jobs of {model} for {calls} calls" for model, calls in asked.items() if jobs[model] != calls
    ]
    if proxy.lost < FEWEST_LOST:
        failures.append(f"only {proxy.lost} replies were lost: nothing was tried")
    if classified.right != classified.calls:
        failures.append(
            f"{classified.calls - classified.right} of {classified.calls} tensors were not answered rightly"
        )
    return Outcome(
        done=f"{proxy.lost:,} of {proxy.replies:,} replies lost, each with its connection",
        counts=added(counts, more) | {"tensors": classified.calls, "jobs": sum(jobs.values())},
        figures={"double jobs": str(sum(jobs.values()) - sum(asked.values()))},
        failures=tuple(failures),
    )


def _doubled(seen: list[Transcript]) -> list[str]:
    again = [one for one in seen if one.attempts > 1]
    return [f"{len(again)} jobs were given to two workers, such as {again[0].job_id}"] if again else []


@asynccontextmanager
async def _load(running: Fleet, seconds: int) -> AsyncIterator[tuple[Load, Load, Load, Classified]]:
    within_s = seconds + ANSWER_S
    classified = Classified()
    async with (
        AsyncClient(*running.addresses) as client,
        grpc.aio.insecure_channel(running.addresses[0]) as channel,
        callers(through(client, TOKENS), "named", CALLERS, within_s=within_s) as named,
        callers(unnamed(channel, TOKENS), "unnamed", CALLERS, within_s=within_s) as bare,
        callers(submitted(client, TOKENS), "submitted", CALLERS, within_s=within_s) as kept,
        asyncio.TaskGroup() as tasks,
    ):
        with np.load(DIGITS_FOLDER / "held_out.npz") as held_out:
            images, labels = held_out["x"].astype(np.float32), held_out["label"]
        for _ in range(CLASSIFIERS):
            tasks.create_task(_classify(client, images, labels, bare, classified))
        yield named, bare, kept, classified
        bare.stopping = True


async def _classify(
    client: AsyncClient, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], until: Load, into: Classified
) -> None:
    while not until.stopping:
        number = into.calls % len(images)
        into.calls += 1
        try:
            answer = await client.infer("digits", {"x": images[number][np.newaxis]}, timeout_s=ANSWER_S)
        except MillraceError as error:
            into.failed.append(f"tensors failed: {error.reason}: {error}")
        else:
            into.right += int(answer["label"][0] == labels[number])
