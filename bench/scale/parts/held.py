"""Held: thousands of open streams on one frontend, waiting and then running, and the memory that each takes."""

import asyncio
import time
from itertools import repeat
from pathlib import Path
from typing import Any

import psutil

from bench.run import percentile
from bench.scale import timing
from bench.scale.client import Client, Counts
from bench.scale.report import Part, Table
from bench.scale.stage import MEBIBYTE, NO_BOUNDS, Run, Stage, generate

NAME = "held"
TOKENS = 1_000
"""Of a stream that outlasts the measurement."""
SETTLE_S = 2.0
Row = dict[str, Any]


async def run(run: Run) -> Part:
    settings, rows = run.settings, list[Row]()
    slots = -(-max(settings.open_streams) // settings.held_workers)
    models = run.models(NAME, slots=slots, step_ms=settings.held_step_ms)
    async with run.stage(models, frontends=1, workers=1, **NO_BOUNDS) as stage, run.client(stage) as client:
        await client.ready(generate(1))
        await stage.stop_workers()
        await asyncio.sleep(SETTLE_S)
        keys, empty = int(await stage.redis.dbsize()), await _note(rows, "none", 0, stage)
        async with client.holding() as open_all:
            for count in settings.open_streams:
                fresh, began = count - rows[-1]["streams"], time.perf_counter()
                open_all(repeat(generate(TOKENS), fresh))
                await stage.until("jobs", count)
                rate = fresh / (time.perf_counter() - began)
                await asyncio.sleep(SETTLE_S)
                await _note(rows, "waiting", count, stage)
                rows[-1]["opened_per_s"] = rate
                run.say(NAME, f"{count:,} streams wait", _said(rows[-1], empty))
            await stage.add_workers(settings.held_workers)
            await stage.until("running", count)
            await asyncio.sleep(SETTLE_S)
            await _note(rows, "running", count, stage)
            work = await _hold(run, stage, client)
            await _note(rows, "running, later", count, stage)
            run.say(NAME, f"{count:,} streams run", _said(rows[-1], empty))
        work["clean_s"] = await _clean(stage, keys)
        await _note(rows, "closed", 0, stage)
        await _again(stage, client, count)
        await _clean(stage, keys)
        await _note(rows, "opened and closed again", 0, stage)
        work["keys"] = int(await stage.redis.dbsize())
    run.say(NAME, "all are closed", f"{_said(rows[-1], empty)}, no key is left after {work['clean_s']:.1f} s")
    alone = await _alone(run, models)
    work["alone"] = alone
    return Part(name=NAME, tables=_tables(rows, work), notes=_notes(run, work), data={"rows": rows, "work": work})


async def _alone(run: Run, models: Path) -> dict[str, float]:
    """What a stream takes of a frontend that has a connection to itself: bytes, and open files."""
    count = run.settings.connections
    async with run.stage(models, frontends=1, workers=1, **NO_BOUNDS) as stage:
        frontend = psutil.Process(stage.fleet.frontends[0].pid)
        async with run.client(stage) as client:
            await client.ready(generate(1))
        await stage.stop_workers()
        async with Client(stage.fleet.addresses, channels=count) as client, client.holding() as open_all:
            before, files = frontend.memory_info().rss, frontend.num_fds()
            open_all(repeat(generate(TOKENS), count))
            await stage.until("jobs", count)
            await asyncio.sleep(SETTLE_S)
            bytes_each = (frontend.memory_info().rss - before) / count
            found = {"connections": count, "bytes": bytes_each, "files": (frontend.num_fds() - files) / count}
    run.say(NAME, f"{count:,} streams, each its own connection", f"{bytes_each:,.0f} bytes in the frontend")
    return found


async def _note(rows: list[Row], state: str, streams: int, stage: Stage) -> Row:
    rows.append({"state": state, "streams": streams} | await stage.meter.memory())
    return rows[0]


async def _hold(run: Run, stage: Stage, client: Client) -> dict[str, Any]:
    """What comes while all streams run; the scripts are timed at the end of it."""
    settings = run.settings
    client.counts = counts = Counts()
    await stage.meter.start()
    await asyncio.sleep(settings.held_s)
    span = await stage.meter.span()
    scripts = timing.summarise(await timing.sample(stage.redis, max(settings.sample_s, settings.held_step_ms / 1000)))
    return {
        "seconds": span.seconds,
        "tokens": counts.tokens,
        "messages": counts.messages,
        "gap_p50_ms": percentile(counts.gaps_ms, 50),
        "gap_p99_ms": percentile(counts.gaps_ms, 99),
        "gap_most_ms": max(counts.gaps_ms),
        "cores": {kind: sum(used) for kind, used in span.cores.items()},
        "scripts": {name: (each.most_us, each.call_us, each.job_us) for name, each in scripts.items()},
    }


async def _again(stage: Stage, client: Client, count: int) -> None:
    """Opens as many streams once more, and closes them when all of them run."""
    async with client.holding() as open_all:
        open_all(repeat(generate(TOKENS), count))
        await stage.until("running", count)
        await asyncio.sleep(SETTLE_S)


async def _clean(stage: Stage, keys: int) -> float:
    """How long it takes, from now, until no key of any job is left; the workers' own keys come beside `keys`."""
    began = time.perf_counter()
    await stage.until("running", 0)
    await stage.until_clean(keys + len(stage.fleet.workers))
    seconds = time.perf_counter() - began
    await asyncio.sleep(SETTLE_S)
    return seconds


def _said(row: Row, empty: Row) -> str:
    sizes = (f"{name} {(row[name] - empty[name]) / MEBIBYTE:,.1f}" for name in ("redis", "frontend", "client"))
    return f"MiB more than at first: {', '.join(sizes)}"


def _tables(rows: list[Row], work: dict[str, Any]) -> tuple[Table, ...]:
    empty = rows[0]
    sizes = [
        (
            row["state"],
            row["streams"],
            row.get("opened_per_s", ""),
            *(row[name] / MEBIBYTE for name in ("redis", "frontend")),
            *((row[name] - empty[name]) / row["streams"] if row["streams"] else "" for name in ("redis", "frontend")),
        )
        for row in rows
    ]
    columns = ("", "streams", "opened/s", "Redis, MiB", "frontend, MiB", "Redis, bytes a stream")
    cores = ", ".join(f"{kind} {used:.2f}" for kind, used in work["cores"].items())
    running = [
        ("tokens a second", work["tokens"] / work["seconds"]),
        ("between a stream's messages, p50, ms", work["gap_p50_ms"]),
        ("p99, ms", work["gap_p99_ms"]),
        ("at most, ms", work["gap_most_ms"]),
        ("cores", cores),
        ("the longest script, ms", max(most for most, *_ in work["scripts"].values()) / 1000),
    ]
    return (
        Table(title="Open streams", columns=(*columns, "frontend, bytes"), rows=sizes),
        Table(title="While all of them run", columns=("", ""), rows=running),
        Table(
            title="Streams with a connection each",
            columns=("streams", "frontend, bytes a stream", "files a stream"),
            rows=[(f"{work['alone']['connections']:,}", work["alone"]["bytes"], work["alone"]["files"])],
        ),
    )


def _notes(run: Run, work: dict[str, Any]) -> tuple[str, ...]:
    settings = run.settings
    return (
        f"one frontend; {settings.held_workers} workers, steps of {settings.held_step_ms / 1000:g} s, held for "
        f"{settings.held_s:g} s",
        f"all streams closed at once: after {work['clean_s']:.1f} s Redis has the {work['keys']} keys of an idle fleet",
    )
