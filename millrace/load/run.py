"""A load test from its scenario to its result:

find the model ─▶ start the generators, wait until they are ready ─▶ tell them when to begin
while they run: add up each second of all, show it; ask the service how it sees itself
add up what each of them found
"""

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from millrace.client import AsyncClient
from millrace.errors import NotFound, Unavailable
from millrace.load.arrivals import stretches
from millrace.load.asking.asker import Asker
from millrace.load.bottleneck import bottleneck
from millrace.load.crew import Crew
from millrace.load.generator.driving import UNFINISHED
from millrace.load.generator.orders import Done, Order
from millrace.load.machine import hardware, versions
from millrace.load.merging import Intervals, merge_stages, merge_verifications, total
from millrace.load.result import Interval, Result, Stage
from millrace.load.scenario import TASKS, Scenario, Task
from millrace.load.server import Sampling, metrics_addresses
from millrace.v1.fleet_pb2 import Model

Watch = Callable[[Interval], None]
FIND_S = 3.0
"""For how long the service is looked for."""
HEAD_START_S = 0.2
"""What the generators get to hear when to begin in."""
MOST_GENERATORS = 8


@dataclass(frozen=True, slots=True)
class Gathered:
    intervals: Sequence[Interval]
    done: Sequence[Done]


async def run(scenario: Scenario, watch: Watch = lambda interval: None) -> Result:
    """Does what the scenario says. `watch` is called about each second with what all processes did in it.

    Raises:
        ValueError: the scenario does not fit the model's task, or a file of it is not what it should be.
        OSError: a file of it cannot be read.
        MillraceError: the service or the model is not there; or a process that makes calls has failed, with what it
            said last. Requests that fail are counted.
    """
    model = await find_model(scenario)
    task = scenario.task or task_of(model)
    salt, started_at = uuid.uuid4().hex, datetime.now(UTC)
    stretches(scenario)
    sampling = Sampling(metrics_addresses(scenario), scenario.model, scenario.model_version)
    async with Asker(scenario, task, salt):
        pass
    async with Crew(orders(scenario, task, salt)) as crew:
        await crew.ready()
        begin = time.monotonic() + HEAD_START_S + scenario.warmup_s
        crew.begin(begin)
        asking = asyncio.create_task(sampling.run(begin))
        try:
            gathered = await gather(crew, watch)
        finally:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
    stages = [merge_stages(same) for same in zip(*(one.stages for one in gathered.done), strict=True)]
    generators, whole = [one.generator for one in gathered.done], total(stages)
    return Result(
        schema="millrace.load/1",
        scenario=scenario,
        started_at=started_at.isoformat(timespec="seconds"),
        task=task,
        versions=versions() | {scenario.model: ", ".join(model.versions)},
        hardware=hardware(),
        intervals=gathered.intervals,
        stages=stages,
        total=whole,
        server=sampling.samples,
        generators=generators,
        bottleneck=bottleneck(generators, whole),
        verification=merge_verifications([one.verification for one in gathered.done]),
        notes=[
            *(note for note in (none_ready(model), unfinished(whole), sampling.problem) if note),
            *failures(gathered.done),
        ],
    )


async def find_model(scenario: Scenario) -> Model:
    """Raises NotFound where the service has no such model or version, and MillraceError where there is no service."""
    try:
        async with AsyncClient(
            *scenario.addresses,
            tenant=scenario.tenant,
            api_key=scenario.api_key,
            tls=scenario.client_tls() or False,
            retry_s=FIND_S,
        ) as client:
            models = await client.models()
    except Unavailable as error:
        raise Unavailable(f"no Millrace answers at {scenario.address}: {error.message}", reason=error.reason) from error
    found = next((model for model in models if model.name == scenario.model), None)
    if found is None:
        served = ", ".join(sorted(model.name for model in models)) or "nothing"
        raise NotFound(f"there is no model {scenario.model!r}; served are: {served}", reason="MODEL_NOT_FOUND")
    if scenario.model_version and scenario.model_version not in found.versions:
        has = ", ".join(found.versions)
        raise NotFound(
            f"{scenario.model} has no version {scenario.model_version!r}; it has: {has}", reason="MODEL_NOT_FOUND"
        )
    return found


def task_of(model: Model) -> Task:
    if model.task not in TASKS:
        raise ValueError(f"{model.name} is a model of {model.task!r}: say what it shall be asked for (task)")
    return TASKS[model.task]


def orders(scenario: Scenario, task: Task, salt: str) -> list[Order]:
    """One for each process. No process of a closed loop is without a caller."""
    count = scenario.generators or min(max((os.cpu_count() or 1) // 2, 1), MOST_GENERATORS)
    count = min(count, scenario.arrivals.callers or count)
    return [Order(scenario=scenario, task=task, salt=salt, own=own, generators=count) for own in range(count)]


async def gather(crew: Crew, watch: Watch) -> Gathered:
    """All that the generators say, until they are done."""
    merging, intervals, done = Intervals(len(crew.processes)), list[Interval](), dict[int, Done]()
    while len(done) < len(crew.processes):
        number, report = await crew.report()
        if report.done is not None:
            done[number] = report.done
        whole = merging.finish(number) if report.interval is None else merging.add(number, report.interval)
        for interval in whole:
            watch(interval)
        intervals += whole
    return Gathered(intervals, [done[number] for number in sorted(done)])


def none_ready(model: Model) -> str | None:
    return None if model.ready_workers else "No worker was ready for the model when it began."


def failures(done: Sequence[Done]) -> list[str]:
    """What the service says of requests that it refuses, or that fail: for each reason the first."""
    told = {reason: message for one in reversed(done) for reason, message in one.failures.items()}
    return [f"{reason}: {message}" for reason, message in told.items()]


def unfinished(whole: Stage) -> str | None:
    count = whole.ended.get(UNFINISHED, 0)
    return f"{count} requests had not ended when the drain was over: latencies lack them." if count else None
