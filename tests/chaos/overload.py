"""Experiment 9: offered load from once to three times what the fleet can do.

The capacity is set by a stub that sleeps, so that the load generator is not what is measured. Callers say how long
they would wait: a little more than calls take at 0.9 of the load. What comes beyond the capacity must be refused at
once, with a time to come back, and what is accepted must be done in time. At twice the load the classes are mixed:
batch work must be shed first. Last, callers are told how long a backlog will last, and it is seen how long it lasts.
"""

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from millrace.v1.job_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, PRIORITY_STANDARD
from tests.chaos.arrivals import Caller, Kind, Offered, caller
from tests.chaos.experiment import Outcome, Scale, percentile
from tests.stub_models import write_stub
from tests.survival.fleet import fleet

STEP_MS, SLOTS, TOKENS = 50, 32, 10
CAPACITY = SLOTS / (TOKENS * STEP_MS / 1000)
"""Calls a second."""
CALM, LOADS = 0.9, (1.0, 1.5, 2.0, 3.0)
PATIENCE = 1.4
"""What callers would wait, in p99s at the calm load."""
REFUSED_S, GOODPUT, SLOWER = 0.020, 0.90, 1.5
BACKLOGS_S = (1.5, 3.0)
CLASSES = {"interactive": PRIORITY_INTERACTIVE, "standard": PRIORITY_STANDARD, "batch": PRIORITY_BATCH}


async def run(scale: Scale) -> Outcome:
    with TemporaryDirectory() as folder:
        write_stub(Path(folder), slots=SLOTS, step_ms=STEP_MS)
        async with fleet(Path(folder), frontends=1, workers=1) as running, caller(running.addresses[0]) as calling:
            return await _try(calling, scale.of(5, 30), random.Random(scale.seed))


async def _try(calling: Caller, seconds: int, chance: random.Random) -> Outcome:
    patient = Kind(tokens=TOKENS, timeout_s=60.0)
    await calling.offer({patient: 1.3 * CAPACITY}, 3.0, chance)
    calm = await calling.offer({patient: CALM * CAPACITY}, seconds, chance)
    hurried = Kind(tokens=TOKENS, timeout_s=PATIENCE * calm.latency_s(0.99))
    rounds = {load: await calling.offer({hurried: load * CAPACITY}, seconds, chance) for load in LOADS}
    mixed = await calling.offer(
        {Kind(tokens=TOKENS, timeout_s=hurried.timeout_s, priority=one): 2 * CAPACITY / 3 for one in CLASSES.values()},
        seconds,
        chance,
    )
    told = [await _told(calling, backlog_s) for backlog_s in BACKLOGS_S]
    return _judge(calm, rounds, mixed, told)


async def _told(calling: Caller, backlog_s: float) -> tuple[float, float]:
    """Seconds that a hurried caller is told to wait behind a backlog, and those that it really has to."""
    patient = Kind(tokens=TOKENS, timeout_s=60.0)
    hurried = Kind(tokens=TOKENS, timeout_s=1.0)
    count = round(backlog_s * CAPACITY) + SLOTS
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(calling.call(patient))
        await asyncio.sleep(0.3)
        first = last = await calling.call(hurried)
        while last.is_refused:
            await asyncio.sleep(0.02)
            last = await calling.call(hurried)
    return first.retry_after_s, last.sent - first.sent


def _judge(calm: Offered, rounds: Mapping[float, Offered], mixed: Offered, told: list[tuple[float, float]]) -> Outcome:
    peak = max([calm.goodput, *(one.goodput for one in rounds.values())])
    worst = min(rounds[load].goodput for load in LOADS[1:])
    refused_s = percentile([one.latency_s for load in rounds.values() for one in load.refused], 0.99)
    accepted_s, calm_s = max(one.latency_s(0.99) for one in rounds.values()), calm.latency_s(0.99)
    shed = {name: _share_refused(mixed.of(priority=one)) for name, one in CLASSES.items()}
    ratios = [said / waited if waited else 0.0 for said, waited in told]
    silent = sum(one.retry_after_s <= 0 for load in rounds.values() for one in load.refused)
    late = sum(len(one.others) for one in rounds.values())
    checks = {
        f"a refusal takes {1000 * refused_s:.0f} ms in the p99, not below 20": refused_s < REFUSED_S,
        f"{silent} refusals say not when to come back": not silent,
        f"goodput falls to {worst:.1f} of {peak:.1f} calls a second": worst >= GOODPUT * peak,
        f"p99 is {accepted_s:.2f} s, {accepted_s / calm_s:.2f} times that at 0.9": accepted_s <= SLOWER * calm_s,
        f"batch is not shed first: {shed}": shed["interactive"] <= shed["standard"] <= shed["batch"] > 0.5,
        f"told {told}: not right within a factor of two": all(0.5 <= ratio <= 2.0 for ratio in ratios),
        "nothing was refused at three times the load": len(rounds[3.0].refused) > len(rounds[3.0].answers) / 2,
    }
    return Outcome(
        done=f"Poisson arrivals at {', '.join(f'{load:g}' for load in LOADS)} times {CAPACITY:.0f} calls a second; "
        f"callers wait {PATIENCE:g} p99s of 0.9 load",
        counts={
            "calls": sum(len(one.answers) for one in rounds.values()),
            "refused": sum(len(one.refused) for one in rounds.values()),
            "accepted and late": late,
        },
        figures={
            "refusal p99": f"{1000 * refused_s:.1f} ms (< 20)",
            "least goodput": f"{worst / peak:.2f} of the peak (≥ 0.90)",
            "accepted p99": f"{accepted_s / calm_s:.2f} × {calm_s:.2f} s at 0.9 (≤ 1.5)",
            "shed at 2 ×": ", ".join(f"{name} {100 * share:.0f} %" for name, share in shed.items()),
            "told and true wait": ", ".join(f"{said:.2f} and {waited:.2f} s" for said, waited in told),
        },
        failures=tuple(sentence for sentence, holds in checks.items() if not holds),
    )


def _share_refused(offered: Offered) -> float:
    return len(offered.refused) / max(len(offered.answers), 1)
