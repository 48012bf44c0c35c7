"""Growth: requests and tokens a second as frontends and workers become more, and which process is the limit."""

import asyncio
from collections.abc import Sequence
from typing import Any

from bench.run import percentile
from bench.scale.client import Client, Counts
from bench.scale.meter import KINDS, Span
from bench.scale.report import Part, Table
from bench.scale.stage import MODEL, Run, Stage, generate

NAME, SHORT = "growth", "short"
FULL = 0.93
"""Of what there is: more of it is the limit."""
Point = dict[str, Any]


async def run(run: Run) -> Part:
    settings, points = run.settings, list[Point]()
    models = run.models(NAME, slots=settings.slots, step_ms=settings.step_ms)
    run.models(NAME, name=SHORT, slots=settings.slots, step_ms=settings.short_step_ms)
    async with run.stage(models, frontends=max(settings.frontends), workers=0) as stage:
        for workers in settings.workers:
            await stage.add_workers(workers - len(stage.fleet.workers))
            for frontends in settings.frontends:
                for load in ("requests", "streams"):
                    point = await _measure(run, stage, load, frontends, workers)
                    run.say(NAME, f"{load}: {frontends} frontends, {workers} workers", _said(point))
                    points.append(point)
    return Part(name=NAME, tables=_tables(points), notes=_notes(run), data={"points": points})


async def _measure(run: Run, stage: Stage, load: str, frontends: int, workers: int) -> Point:
    settings = run.settings
    streams = load == "streams"
    request = generate(settings.stream_tokens) if streams else generate(1, model=SHORT)
    callers = settings.slots * workers if streams else settings.short_callers
    async with run.client(stage, frontends) as client:
        await client.ready(generate(1, model=MODEL if streams else SHORT))
        async with client.streaming(request, callers):
            counts, span = await _count(client, stage, settings.warm_s, settings.growth_s)
    done = counts.tokens if streams else counts.answers
    offered = workers * settings.slots * 1000 / (settings.step_ms if streams else settings.short_step_ms)
    return {
        "load": load,
        "frontends": frontends,
        "workers": workers,
        "callers": callers,
        "rate": done / span.seconds,
        "engines": offered,
        "messages_per_s": counts.messages / span.seconds,
        "cores": {kind: sum(used) for kind, used in span.cores.items()},
        "busiest": {kind: max(used, default=0.0) for kind, used in span.cores.items()},
        "us_each": {kind: 1e6 * used / max(done, 1) for kind, used in span.cpu_s.items()},
        "p50_ms": percentile(counts.gaps_ms if streams else counts.whole_ms, 50),
        "p99_ms": percentile(counts.gaps_ms if streams else counts.whole_ms, 99),
        "limit": limit(span, settings.cores, done / span.seconds / offered),
    }


async def _count(client: Client, stage: Stage, warm_s: float, seconds: float) -> tuple[Counts, Span]:
    await asyncio.sleep(warm_s)
    client.counts = counts = Counts()
    await stage.meter.start()
    await asyncio.sleep(seconds)
    span, client.counts = await stage.meter.span(), Counts()
    return counts, span


def limit(span: Span, cores: int, share: float) -> str:
    """What cannot give more: one process that has a whole core, all cores together, or the engines, which give `share`
    of what they could; else the number of callers, and the time that a request takes."""
    if share >= FULL:
        return "engines"
    for kind in KINDS:
        if max(span.cores[kind], default=0.0) >= FULL:
            return f"one {kind}"
    return f"all {cores} cores" if span.all_cores >= FULL * cores else "callers"


def _said(point: Point) -> str:
    cores = ", ".join(f"{kind} {used:.2f}" for kind, used in point["cores"].items())
    return f"{point['rate']:,.0f}/s; {cores}; limit: {point['limit']}"


def _tables(points: Sequence[Point]) -> tuple[Table, ...]:
    return (
        _table(points, "requests", "Requests of one token", "requests/s", "request, ms"),
        _table(points, "streams", "Streams", "tokens/s", "between messages, ms"),
    )


def _table(points: Sequence[Point], load: str, title: str, rate: str, latency: str) -> Table:
    columns = ("frontends × workers", rate, "engines could", "messages/s", f"p50 {latency}", "p99")
    cores = (f"{kind}, cores" for kind in KINDS)
    rows = [
        (
            f"{point['frontends']} × {point['workers']}",
            *(point[name] for name in ("rate", "engines", "messages_per_s", "p50_ms", "p99_ms")),
            *(f"{point['cores'][kind]:.2f}" for kind in KINDS),
            point["limit"],
        )
        for point in points
        if point["load"] == load
    ]
    return Table(title=title, columns=(*columns, *cores, "limit"), rows=rows)


def _notes(run: Run) -> tuple[str, ...]:
    settings = run.settings
    return (
        f"requests: {settings.short_callers} callers, steps of {settings.short_step_ms:g} ms; streams: "
        f"{settings.slots} callers for each worker, {settings.stream_tokens} tokens each, steps of "
        f"{settings.step_ms:g} ms; {settings.slots} slots on each worker",
        f"everything shares {settings.cores} cores; all {max(settings.frontends)} frontends run, so many are called",
    )
