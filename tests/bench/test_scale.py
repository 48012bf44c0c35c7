"""What the scale benchmark says of what it sees: scripts timed one by one, limits, unit costs, projections."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from rich.console import Console

from bench.scale import plot, projection, timing
from bench.scale.meter import Span
from bench.scale.parts import costs, growth, wall
from bench.scale.report import Table
from bench.scale.settings import quick
from bench.scale.stage import Run
from bench.scale.timing import Run as Timed
from millrace.queue import Emission, JobQueue, JobRef, ModelVersion, Submission, connect
from tests.processes import Valkey

MODEL = ModelVersion("timed", "1")
SPAN = Span(
    seconds=2.0,
    cores={"frontend": (0.4, 0.4), "worker": (0.2,), "redis": (0.3,), "client": (0.3,)},
    calls={"evalsha": 8.0, "eval": 2.0, "hset": 30.0},
    script_us=400.0,
    input_bytes=10.0,
    output_bytes=20.0,
)
SMALL = replace(quick(), warm_s=0.2, concurrencies=(1, 4), idle_s=0.3, costs_s=0.5, sample_s=0.3, step_ms=5.0)


def test_a_span_adds_up_its_processes_and_its_scripts() -> None:
    assert SPAN.cpu_s == pytest.approx({"frontend": 1.6, "worker": 0.4, "redis": 0.6, "client": 0.6})
    assert SPAN.all_cores == pytest.approx(1.6)
    assert (SPAN.scripts, SPAN.commands) == (10, 40)


@pytest.mark.parametrize(
    ("cores", "share", "expected"),
    [
        ({}, 0.99, "engines"),
        ({"redis": (0.95,)}, 0.5, "one redis"),
        ({"frontend": (0.6, 0.5)}, 0.5, "all 2 cores"),
        ({}, 0.5, "callers"),
    ],
)
def test_the_limit_is_what_cannot_give_more(cores: dict[str, tuple[float, ...]], share: float, expected: str) -> None:
    assert growth.limit(replace(SPAN, cores={**SPAN.cores, **cores}), 2, share) == expected


async def test_scripts_are_timed_one_by_one_and_their_jobs_counted() -> None:
    with Valkey() as server:
        async with connect(server.url) as calls, Redis.from_url(server.url) as redis:
            queue = JobQueue(calls)
            await _work(queue, "unseen", 1)
            await timing.begin(redis)
            for jobs in (1, 2, 30):
                await _work(queue, f"seen-{jobs}", jobs)
            runs = await timing.end(redis)
    assert sorted(run.jobs for run in runs if run.script == "emit") == [1, 2, 30]
    assert sum(run.script == "submit" for run in runs) == 33
    assert timing.summarise(runs)["emit"].most_jobs == 30


async def _work(queue: JobQueue, name: str, jobs: int) -> None:
    """Submits so many jobs, takes them, and emits one result of each in one call."""
    for index in range(jobs):
        ref = JobRef(MODEL, "default", f"{name}-{index}")
        await queue.submit(
            Submission(ref=ref, fingerprint="0" * 32, payload=b"asked", cost=1, wanted_to_deadline=True, retained=True)
        )
    taken = await queue.take(MODEL, name, 1, jobs=jobs, cost=1e9, alone=True)
    await queue.emit(
        MODEL, [Emission(ref=each.ref, token=each.token, offset=1, history=bytes(8)) for each in taken.leases]
    )


def test_a_call_and_a_job_are_told_apart_by_a_straight_line() -> None:
    runs = [Timed("emit", 100 + 20 * jobs, jobs) for jobs in (1, 4, 16, 64)] + [Timed("reap", 50, 1)]
    found = timing.summarise(runs)
    assert [found["emit"].call_us, found["emit"].job_us] == pytest.approx([100, 20])
    assert (found["reap"].call_us, found["reap"].job_us) == (50, 0)


def point(load: str, callers: int, **changes: Any) -> dict[str, Any]:
    cpu = {"frontend": 100.0, "worker": 50.0, "redis": 25.0, "client": 80.0}
    return {
        "load": load,
        "callers": callers,
        "cpu_us": cpu,
        "scripts": 0.02,
        "input_bytes": 200.0,
        "output_bytes": 100.0,
    } | changes


def test_a_gpu_needs_what_its_tokens_and_requests_cost() -> None:
    """1,000 tokens and 10 requests a second."""
    workload = projection.Workload(streams=10, step_ms=10, tokens=100)
    token, request = (
        projection.Unit(cpu_us={"frontend": 100, "worker": 50, "redis": each}, scripts=1, input_bytes=0, output_bytes=0)
        for each in (25, 300)
    )
    gpu = projection.of_one(workload, request, token)
    assert gpu["redis_cores"] == pytest.approx((1_000 * 25 + 10 * 300) / 1e6)
    assert gpu["frontend_cores"] == pytest.approx(1_010 * 100 / 1e6)
    assert projection.of_one(workload, request, token, merged=4)["redis_cores"] == pytest.approx(
        (250 * 25 + 10 * 300) / 1e6
    )


def test_a_projection_takes_the_costs_at_as_many_streams_as_a_gpu_has() -> None:
    dear = {"frontend": 1e6, "worker": 1e6, "redis": 1e6, "client": 1e6}
    points = [point(load, callers) for load in ("requests", "streams") for callers in (64,)]
    points += [point(load, 1, cpu_us=dear) for load in ("requests", "streams")]
    part = projection.project({"points": points}, projection.Workload(streams=60))
    assert part.data["token"]["cpu_us"]["redis"] == 25
    fleets = part.tables[0].rows
    assert [row[0] for row in fleets] == ["10", "100", "1,000"]


def test_a_table_is_markdown_with_three_digits() -> None:
    table = Table(title="Jobs", columns=("", "rate"), rows=[("a", 12_345.6), ("b", 0.12345)])
    assert table.markdown().splitlines() == [
        "**Jobs**",
        "",
        "|  | rate |",
        "| --- | --: |",
        "| a | 12,346 |",
        "| b | 0.123 |",
    ]


async def test_one_redis_takes_results_and_its_share_of_a_core_is_known() -> None:
    quiet = Console(quiet=True)
    settings = replace(SMALL, emit_jobs=(4,), wall_s=0.3)
    part = await wall.run(Run(settings=settings, folder=Path(), console=quiet))
    (row,) = part.data["rows"]
    assert row["results_per_s"] > 100
    assert row["script_us"] > 0


async def test_costs_of_a_request_and_a_token_are_measured_on_a_fleet_and_drawn(tmp_path: Path) -> None:
    run = Run(settings=SMALL, folder=tmp_path, console=Console(quiet=True))
    part = await costs.run(run)
    requests, streams = (
        [point for point in part.data["points"] if point["load"] == load] for load in ("requests", "streams")
    )
    assert [point["callers"] for point in requests] == [1, 4]
    assert all(point["calls"]["xadd"] == pytest.approx(3, abs=0.5) for point in requests)
    assert streams[1]["scripts"] < streams[0]["scripts"]
    assert part.data["scripts"]["emit"]["most_jobs"] == 4
    grown = {"load": "streams", "frontends": 1, "workers": 1, "rate": 1.0, "engines": 2.0}
    plot.draw({"points": [grown]}, part.data, tmp_path / "scale.svg")
    assert (tmp_path / "scale.svg").stat().st_size > 10_000
