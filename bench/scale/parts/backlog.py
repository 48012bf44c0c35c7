"""Backlog: a hundred thousand jobs that wait, what they cost whom, and what is left when they are gone."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.run import percentile
from bench.scale import timing
from bench.scale.client import CANCEL, SUBMIT, Client, Counts
from bench.scale.report import Part, Table
from bench.scale.settings import Settings
from bench.scale.stage import MEBIBYTE, NO_BOUNDS, VERSION, Run, Stage, cancellation, generate, submission

NAME = "backlog"
JOB_TOKENS, CALL_TOKENS = 16, 16
SUBMITTERS, CALLERS = 64, 8
SHOWN = ("submit", "take", "emit", "renew", "watch", "reap")
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of all jobs: after so many, what they take is noted."""
PACE = f"{VERSION.base}pace"
"""What admission knows of the model's capacity: with it, it would refuse jobs that must wait for longer than they may,
as soon as they are a few thousand. Ten minutes without work make it forget that."""
RETENTION_MS = 1_000
INDEX_S = 60.0
"""How long a job's name stays known behind its deadline and the retention."""
FEW_S = 40.0
"""The time that the first few jobs have."""
PING_S, SETTLE_S = 0.02, 1.0
LATE_S = 60.0
"""What the end of all jobs may take behind their deadline."""
Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Story:
    """What happened."""

    steps: list[Row] = field(default_factory=list)
    behind: dict[str, Any] = field(default_factory=dict)
    """By state of the queue: the scripts' times, and what callers of a higher class waited."""
    cancels: dict[str, float] = field(default_factory=dict)
    storm: dict[str, float] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)


async def run(run: Run) -> Part:
    settings, story = run.settings, Story()
    models = run.models(NAME, slots=settings.slots, step_ms=settings.step_ms)
    bounds = NO_BOUNDS | {"retention_ms": RETENTION_MS}
    async with run.stage(models, frontends=2, workers=1, **bounds) as stage, run.client(stage) as client:
        await client.ready(generate(1))
        await asyncio.sleep(SETTLE_S)
        keys, empty = int(await stage.redis.dbsize()), await stage.meter.memory()
        few = _enough(settings)
        await _work_behind(run, stage, client, story, f"{few:,} jobs", few)
        await stage.until("jobs", 0)
        await stage.stop_workers()
        await stage.redis.delete(PACE)
        deadline = time.monotonic() + settings.waiting_jobs / settings.submit_rate + settings.linger_s
        await _submit_all(run, stage, client, story, deadline, empty)
        await stage.add_workers(1)
        await _work_behind(run, stage, client, story, f"{settings.waiting_jobs:,} jobs", 0)
        await _cancel(run, client, story)
        await _outlast(run, stage, story, deadline)
        await _empty(run, stage, story, deadline, keys, empty)
    return Part(name=NAME, tables=_tables(story), notes=_notes(run, story), data=asdict(story))


def _enough(settings: Settings) -> int:
    """Jobs that keep the worker's slots full for as long as it is watched."""
    rate = settings.slots * 1000 / settings.step_ms / JOB_TOKENS
    return round(1.2 * rate * (settings.warm_s + settings.backlog_s))


async def _work_behind(run: Run, stage: Stage, client: Client, story: Story, state: str, jobs: int) -> None:
    """Has a worker work off the queue, `jobs` more in it, while a few callers of a higher class come in between."""
    settings = run.settings
    requests = [submission(f"few-{index}", JOB_TOKENS, timeout_s=FEW_S) for index in range(jobs)]
    await client.call_all(SUBMIT, requests, SUBMITTERS)
    async with client.streaming(generate(CALL_TOKENS, interactive=True), CALLERS):
        await asyncio.sleep(settings.warm_s)
        client.counts = counts = Counts()
        runs = await timing.sample(stage.redis, settings.backlog_s)
        client.counts = Counts()
    scripts = timing.summarise(runs)
    story.behind[state] = {
        "scripts": {name: asdict(each) for name, each in scripts.items()},
        "first_p50_ms": percentile(counts.first_ms, 50),
        "first_p99_ms": percentile(counts.first_ms, 99),
        "calls": counts.answers,
    }
    run.say(
        NAME,
        f"worked behind {state}",
        ", ".join(f"{name} {each.median_us:.0f} µs" for name, each in scripts.items() if name in ("take", "emit")),
    )


async def _submit_all(
    run: Run, stage: Stage, client: Client, story: Story, deadline: float, empty: dict[str, float]
) -> None:
    """All jobs end at one `deadline`, of the monotonic clock."""
    settings, sent = run.settings, 0
    for share in SHARES:
        until = round(share * settings.waiting_jobs)
        client.counts = counts = Counts()
        await stage.meter.start()
        await client.call_all(SUBMIT, _submissions(sent, until, deadline), SUBMITTERS)
        span, memory = await stage.meter.span(), await stage.meter.memory()
        waiting, count = await stage.count("jobs"), until - sent
        story.steps.append(
            {
                "waiting": waiting,
                "rate": count / span.seconds,
                "script_us": span.script_us / count,
                "scripts": span.scripts / count,
                "p99_ms": percentile(counts.whole_ms, 99),
                "cpu_us": {kind: 1e6 * used / count for kind, used in span.cpu_s.items()},
                "redis": memory["redis"],
                "frontend": memory["frontend"],
                "job_bytes": (memory["redis"] - empty["redis"]) / waiting,
            }
        )
        run.say(
            NAME, f"{waiting:,} jobs wait", f"{story.steps[-1]['rate']:,.0f}/s, {memory['redis'] / MEBIBYTE:.0f} MiB"
        )
        sent = until


def _submissions(begin: int, end: int, deadline: float) -> Iterator[bytes]:
    for index in range(begin, end):
        yield submission(f"job-{index}", JOB_TOKENS, timeout_s=deadline - time.monotonic())


async def _cancel(run: Run, client: Client, story: Story) -> None:
    """The last ones of the queue."""
    settings = run.settings
    last = range(settings.waiting_jobs - settings.cancels, settings.waiting_jobs)
    client.counts, began = Counts(), time.perf_counter()
    await client.call_all(CANCEL, (cancellation(f"job-{index}") for index in last), SUBMITTERS)
    seconds = time.perf_counter() - began
    story.cancels = {"jobs": settings.cancels, "rate": settings.cancels / seconds}
    story.cancels["p99_ms"] = percentile(client.counts.whole_ms, 99)
    run.say(NAME, f"{settings.cancels:,} are cancelled", f"{story.cancels['rate']:,.0f}/s")


async def _outlast(run: Run, stage: Stage, story: Story, deadline: float) -> None:
    """All that still wait are late at once: how long Redis takes to end them, and lets others wait meanwhile."""
    await asyncio.sleep(deadline - 1 - time.monotonic())
    waiting, pings = await stage.count("jobs"), list[float]()
    while (await stage.count("jobs")) or await stage.count("running"):
        if time.monotonic() > deadline + LATE_S:
            raise TimeoutError(f"{await stage.count('jobs')} jobs outlive their deadline by {LATE_S} s")
        asked = time.perf_counter()
        await stage.redis.ping()
        pings.append(1000 * (time.perf_counter() - asked))
        await asyncio.sleep(PING_S)
    story.storm = {
        "jobs": waiting,
        "seconds": time.monotonic() - deadline,
        "ping_p50_ms": percentile(pings, 50),
        "ping_p99_ms": percentile(pings, 99),
        "ping_most_ms": max(pings),
    }
    run.say(NAME, f"{waiting:,} are late at once", f"ended within {story.storm['seconds']:.1f} s")


async def _empty(run: Run, stage: Stage, story: Story, deadline: float, keys: int, empty: dict[str, float]) -> None:
    left = deadline - time.monotonic()
    await stage.until_clean(keys + 1, within_s=left + INDEX_S + RETENTION_MS / 1000 + LATE_S)
    await asyncio.sleep(SETTLE_S)
    memory = await stage.meter.memory()
    story.left = {"keys": int(await stage.redis.dbsize()), "keys_before": keys, "seconds": time.monotonic() - deadline}
    story.left |= {f"{name}_mib": (memory[name] - empty[name]) / MEBIBYTE for name in ("redis", "frontend")}
    run.say(NAME, f"{story.left['keys']} keys are left", f"{story.left['redis_mib']:.1f} MiB more than before in Redis")


def _tables(story: Story) -> tuple[Table, ...]:
    columns = ("jobs wait", "accepted/s", "scripts each", "in scripts, µs each", "p99, ms", "Redis, MiB")
    steps = [
        (
            f"{step['waiting']:,}",
            *(step[name] for name in ("rate", "scripts", "script_us", "p99_ms")),
            step["redis"] / MEBIBYTE,
            step["job_bytes"],
            step["frontend"] / MEBIBYTE,
        )
        for step in story.steps
    ]
    return (
        Table(title="Jobs that wait", columns=(*columns, "Redis, bytes a job", "two frontends, MiB"), rows=steps),
        Table(title="One worker, behind", columns=("", *story.behind), rows=_compared(story)),
        Table(title="The end", columns=("", ""), rows=_end(story)),
    )


def _compared(story: Story) -> Sequence[Sequence[str | float]]:
    states = list(story.behind.values())
    names = [name for name in SHOWN if all(name in state["scripts"] for state in states)]
    scripts = [
        (f"{name}, {word}, µs", *(state["scripts"][name][key] for state in states))
        for name in names
        for word, key in (("median", "median_us"), ("p99", "p99_us"))
    ]
    calls = [
        (f"first token of a higher class, {word}, ms", *(state[key] for state in states))
        for word, key in (("p50", "first_p50_ms"), ("p99", "first_p99_ms"))
    ]
    return [*scripts, *calls]


def _end(story: Story) -> Sequence[Sequence[str | float]]:
    storm, left = story.storm, story.left
    return [
        ("cancelled by CancelJob", story.cancels["jobs"]),
        ("a second", story.cancels["rate"]),
        ("late at one moment", storm["jobs"]),
        ("all ended, s later", storm["seconds"]),
        ("a PING meanwhile, p50, ms", storm["ping_p50_ms"]),
        ("p99, ms", storm["ping_p99_ms"]),
        ("at most, ms", storm["ping_most_ms"]),
        ("no key of a job is left, s later", left["seconds"]),
        ("keys then, and before", f"{left['keys']:.0f} and {left['keys_before']:.0f}"),
        ("Redis has more than before, MiB", left["redis_mib"]),
        ("the frontends, MiB", left["frontend_mib"]),
    ]


def _notes(run: Run, story: Story) -> tuple[str, ...]:
    settings = run.settings
    return (
        f"two frontends; SubmitJob by {SUBMITTERS} callers, {JOB_TOKENS} tokens a job; the worker has {settings.slots} "
        f"slots and steps of {settings.step_ms:g} ms; {CALLERS} INTERACTIVE callers beside it",
    )
