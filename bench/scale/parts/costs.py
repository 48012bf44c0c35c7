"""Costs: what a request and a token take of each process and of Redis, as more of them come at once."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.scale import timing
from bench.scale.client import Counts
from bench.scale.meter import KINDS, Span
from bench.scale.report import Part, Table
from bench.scale.stage import Run, Stage, generate

NAME, SHORT = "costs", "short"
TOKENS = 2_000
"""Of a stream that outlasts the measurement."""
COMMANDS = ("evalsha", "hgetall", "hset", "hmget", "hget", "hincrby", "xadd", "zadd", "zrem", "publish", "pexpire")
"""Those of Redis that are shown one by one."""
Point = dict[str, Any]


async def run(run: Run) -> Part:
    settings, points, runs = run.settings, list[Point](), list[timing.Run]()
    slots = max(settings.concurrencies)
    models = run.models(NAME, slots=slots, step_ms=settings.step_ms)
    run.models(NAME, name=SHORT, slots=slots, step_ms=settings.short_step_ms)
    async with run.stage(models, frontends=1, workers=1) as stage:
        idle = await _idle(stage, settings.idle_s)
        for load in ("requests", "streams"):
            for callers in settings.concurrencies:
                point, sampled = await _measure(run, stage, load, callers, idle)
                run.say(NAME, f"{load}: {callers} at once", _said(point))
                points.append(point)
                runs += sampled
    scripts = {name: asdict(each) for name, each in timing.summarise(runs).items()}
    idle_rates = {"scripts_per_s": idle.scripts / idle.seconds, "commands_per_s": idle.commands / idle.seconds}
    idle_rates |= {f"{kind}_cores": sum(used) for kind, used in idle.cores.items()}
    data = {"points": points, "scripts": scripts, "idle": idle_rates}
    return Part(name=NAME, tables=_tables(points, scripts), notes=_notes(run, idle_rates), data=data)


async def _idle(stage: Stage, seconds: float) -> Span:
    await asyncio.sleep(seconds)
    await stage.meter.start()
    await asyncio.sleep(seconds)
    return await stage.meter.span()


async def _measure(run: Run, stage: Stage, load: str, callers: int, idle: Span) -> tuple[Point, list[timing.Run]]:
    settings = run.settings
    streams = load == "streams"
    request = generate(TOKENS) if streams else generate(1, model=SHORT)
    async with run.client(stage) as client:
        await client.ready(generate(1, model=SHORT))
        async with client.streaming(request, callers):
            await asyncio.sleep(settings.warm_s)
            client.counts = counts = Counts()
            await stage.meter.start()
            await asyncio.sleep(settings.costs_s)
            span, client.counts = await stage.meter.span(), Counts()
            sampled = await timing.sample(stage.redis, settings.sample_s)
    return _point(load, callers, counts, span, idle), sampled


def _point(load: str, callers: int, counts: Counts, span: Span, idle: Span) -> Point:
    """For each request or token; what the fleet does while it is idle is left out."""
    units, part = max(counts.tokens if load == "streams" else counts.answers, 1), span.seconds / idle.seconds
    calls = {name: max(span.calls.get(name, 0) - part * idle.calls.get(name, 0), 0) / units for name in span.calls}
    return {
        "load": load,
        "callers": callers,
        "rate": units / span.seconds,
        "per_message": units / max(counts.messages, 1),
        "scripts": (span.scripts - part * idle.scripts) / units,
        "commands": sum(calls.values()),
        "calls": {name: each for name, each in calls.items() if each > 0.001},
        "input_bytes": (span.input_bytes - part * idle.input_bytes) / units,
        "output_bytes": (span.output_bytes - part * idle.output_bytes) / units,
        "script_us": (span.script_us - part * idle.script_us) / units,
        "cpu_us": {kind: 1e6 * (span.cpu_s[kind] - part * idle.cpu_s[kind]) / units for kind in KINDS},
        "cores": {kind: sum(used) for kind, used in span.cores.items()},
    }


def _said(point: Point) -> str:
    cpu = ", ".join(f"{kind} {used:.0f}" for kind, used in point["cpu_us"].items())
    return f"{point['rate']:,.0f}/s; {point['scripts']:.3g} scripts, µs: {cpu}"


def _tables(points: Sequence[Point], scripts: dict[str, Any]) -> tuple[Table, ...]:
    return (
        *(_table(points, load, unit) for load, unit in (("requests", "request"), ("streams", "token"))),
        *(_commands(points, load, unit) for load, unit in (("requests", "request"), ("streams", "token"))),
        Table(
            title="Scripts, in Redis",
            columns=("", "calls timed", "median, µs", "p99", "µs for a call", "and for each job", "jobs, at most"),
            rows=[
                (name, *(each[key] for key in ("calls", "median_us", "p99_us", "call_us", "job_us", "most_jobs")))
                for name, each in scripts.items()
            ],
        ),
    )


def _table(points: Sequence[Point], load: str, unit: str) -> Table:
    columns = ("at once", f"{unit}s/s", f"{unit}s a message", "scripts", "all commands", "bytes in", "bytes out")
    rows = [
        (
            str(point["callers"]),
            *(point[key] for key in ("rate", "per_message", "scripts", "commands", "input_bytes", "output_bytes")),
            *(point["cpu_us"][kind] for kind in KINDS),
        )
        for point in points
        if point["load"] == load
    ]
    return Table(title=f"For each {unit}", columns=(*columns, *(f"{kind}, CPU µs" for kind in KINDS)), rows=rows)


def _commands(points: Sequence[Point], load: str, unit: str) -> Table:
    chosen = [point for point in points if point["load"] == load]
    rows = [(str(point["callers"]), *(point["calls"].get(name, 0.0) for name in COMMANDS)) for point in chosen]
    return Table(
        title=f"Redis' commands for each {unit}, those within scripts included",
        columns=("at once", *COMMANDS),
        rows=rows,
    )


def _notes(run: Run, idle: dict[str, float]) -> tuple[str, ...]:
    cores = ", ".join(f"{kind} {idle[f'{kind}_cores']:.3f}" for kind in KINDS)
    return (
        f"one frontend, one worker; streams: steps of {run.settings.step_ms:g} ms; requests: of one token, steps of "
        f"{run.settings.short_step_ms:g} ms",
        f"idle, and left out of the figures: {idle['scripts_per_s']:.0f} scripts and {idle['commands_per_s']:.0f} "
        f"commands a second; cores: {cores}",
    )
