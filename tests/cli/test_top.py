"""`millrace top`: what is worked out from two looks, how it is drawn, and that it lives through what goes away."""

import asyncio
import io
import json
import os
import pty
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import grpc.aio
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from rich.console import Console, RenderableType

from millrace import AsyncClient
from millrace.cli.top.cells import number, seconds, size, sparkline, words
from millrace.cli.top.columns import shares
from millrace.cli.top.command import metrics_addresses
from millrace.cli.top.reading import Fleet, Reader, Scraped, Snapshot
from millrace.cli.top.rows import FrontendRow, Overview, overview
from millrace.cli.top.spans import quantile
from millrace.cli.top.view import live, plain
from millrace.errors import InvalidRequest
from millrace.scrape import parse
from millrace.v1.fleet_pb2 import Model, Worker
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.playing import Worker as PlayedWorker
from tests.frontend.playing import frontend, read, request

COMMAND = [sys.executable, "-c", "import typer; from millrace.cli.top import top; typer.run(top)"]
ONE, TWO = "a:8002", "b:8002"


def scraped(
    at_s: float,
    *,
    waits: Sequence[float] = (),
    calls: float = 0,
    results: float = 0,
    refused: float = 0,
    runs: float = 0,
    rows: float = 0,
    jobs: float = 0,
    started: float = 1,
) -> Scraped:
    """A frontend's page. `waits`: for first results."""
    registry = CollectorRegistry()
    Gauge("process_start_time_seconds", "", registry=registry).set(started)
    Gauge("process_resident_memory_bytes", "", registry=registry).set(2**26)
    Gauge("millrace_frontend_streams", "", registry=registry).set(3)
    ended = Counter("millrace_frontend_calls", "", ["method", "code"], registry=registry)
    ended.labels("millrace.v1.TextGenerationService/Generate", "OK").inc(calls)
    ended.labels("millrace.v1.FleetService/ListModels", "OK").inc(100 * at_s)
    Counter("millrace_frontend_results", "", registry=registry).inc(results)
    Counter("millrace_frontend_calls_refused", "", ["reason"], registry=registry).labels("QUEUE_FULL").inc(refused)
    first = Histogram("millrace_frontend_first_result_seconds", "", buckets=(0.1, 1.0), registry=registry)
    for wait in waits:
        first.observe(wait)
    Counter("millrace_model_runs", "", ["model"], registry=registry).labels("echo/1").inc(runs)
    Counter("millrace_model_run_rows", "", ["model"], registry=registry).labels("echo/1").inc(rows)
    ended = Counter("millrace_model_jobs", "", ["model", "outcome"], registry=registry)
    ended.labels("echo/1", "success").inc(jobs)
    ended.labels("echo/1", "failure").inc(jobs)
    return Scraped(at_s=at_s, samples=parse(generate_latest(registry).decode()))


def snapshot(at_s: float, frontends: dict[str, Scraped], workers: tuple[str, ...] = ("w1",)) -> Snapshot:
    model = Model(name="echo", versions=["1"], task="text-generation", ready_workers=1, waiting_jobs=2, running_jobs=3)
    gibi = 2**30
    fleet = Fleet(
        at_s=at_s,
        models=[model],
        workers=[
            Worker(
                worker_id=name,
                device="NVIDIA H200",
                execution_provider="CUDAExecutionProvider",
                state=Worker.STATE_READY,
                models=["echo/1"],
                running_jobs=3,
                free_slots=5,
                memory_used_bytes=100 * gibi,
                memory_total_bytes=139 * gibi,
            )
            for name in workers
        ],
    )
    return Snapshot(at_s=at_s, fleet=fleet, frontends=frontends)


def two_looks() -> Overview:
    """Two seconds apart, at two frontends."""
    earlier, told = scraped(10, runs=100, rows=900, jobs=50), {"runs": 120.0, "rows": 960.0, "jobs": 60.0}
    one = scraped(12, waits=(0.05, 0.5, 0.5, 0.5), **told | {"calls": 4, "results": 40, "refused": 2})
    two = scraped(12, waits=(), **told | {"calls": 6, "results": 60})
    before = snapshot(10, {ONE: earlier, TWO: earlier})
    return overview(snapshot(12, {ONE: one, TWO: two}), before)


def drawn(what: RenderableType, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(what)
    return console.export_text()


def test_frontends_are_summed_and_the_fleet_is_not() -> None:
    shown = two_looks()
    assert (shown.totals.frontends_reached, shown.totals.workers_ready, shown.totals.streams) == (2, 1, 6)
    assert (shown.totals.calls_s, shown.totals.results_s, shown.totals.refusals_s) == (5, 50, {"QUEUE_FULL": 1})
    (model,) = shown.models
    assert (model.runs_s, model.batch_size, model.jobs_s, model.failures_s) == (10, 3, 10, 5)
    assert (model.waiting_jobs, model.estimated_wait_s, shown.totals.jobs_s) == (2, None, 10)
    one, two = shown.frontends
    assert (one.streams, one.memory_bytes) == (3, 2**26)
    assert one.first_result_p50_s == pytest.approx(0.1 + 0.9 / 3)
    assert one.first_result_p99_s == pytest.approx(0.1 + 0.9 * 2.96 / 3)
    assert (two.first_result_p50_s, two.refusals_s) == (None, {})


def test_nothing_is_known_of_rates_after_one_look() -> None:
    shown = overview(snapshot(10, {ONE: scraped(10, calls=5, runs=3)}))
    assert (shown.totals.calls_s, shown.totals.jobs_s, shown.models[0].runs_s) == (None, None, None)
    assert shown.totals.streams == 3


def test_a_frontend_that_was_started_anew_has_counted_from_nothing() -> None:
    before = snapshot(10, {ONE: scraped(10, calls=1000, runs=50, rows=50)})
    shown = overview(snapshot(12, {ONE: scraped(12, calls=4, started=2, runs=54, rows=54)}), before)
    assert (shown.totals.calls_s, shown.models[0].runs_s) == (2, 2)


def test_who_does_not_answer_is_shown_and_counts_for_nothing() -> None:
    before = snapshot(10, {ONE: scraped(10), TWO: scraped(10, calls=9)})
    now = snapshot(12, {ONE: scraped(12, calls=2), TWO: Scraped(at_s=12, problem="Connection refused")})
    shown = overview(replace(now, fleet=before.fleet, fleet_problem="draining"), before)
    assert (shown.totals.frontends_reached, shown.totals.calls_s, shown.totals.streams) == (1, 1, 3)
    assert shown.frontends[1] == FrontendRow(address=TWO, problem="Connection refused")
    text = drawn(live(shown, [shown.totals], 100, 30), 100)
    assert "b:8002 is unreachable: Connection refused" in text
    assert "models and workers are as of 2 s ago: draining" in text


def test_a_worker_that_is_no_longer_heard_is_gone() -> None:
    frontends = {ONE: scraped(10)}
    shown = overview(snapshot(12, frontends, ("w1", "w3")), snapshot(10, frontends, ("w1", "w2")))
    assert [(row.worker_id, row.state) for row in shown.workers] == [("w1", "ready"), ("w2", "gone"), ("w3", "ready")]
    assert shown.totals.workers_ready == 2


def test_a_model_that_was_not_told_before_has_no_rates() -> None:
    others = parse('millrace_model_runs_total{model="other/1"} 1\n')
    before = snapshot(10, {ONE: Scraped(at_s=10, samples=others)})
    (model,) = overview(snapshot(12, {ONE: scraped(12, runs=5_000)}), before).models
    assert (model.runs_s, model.batch_size) == (None, None)


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [
        ({0.1: 0, 1.0: 10, float("inf"): 10}, 0.5, 0.55),
        ({0.1: 4, 1.0: 4, float("inf"): 4}, 0.5, 0.05),
        ({0.1: 1, 1.0: 2, float("inf"): 10}, 0.99, 1.0),
        ({0.1: 0, 1.0: 0, float("inf"): 0}, 0.5, None),
        ({}, 0.5, None),
    ],
)
def test_a_quantile_lies_within_its_bucket(buckets: dict[float, float], share: float, value: float | None) -> None:
    assert quantile(buckets, share) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("wanted", "available", "given"),
    [((2, 90, 2), 10, [2, 6, 2]), ((5, 5, 5), 10, [4, 3, 3]), ((1, 1, 1), 10, [1, 1, 1]), ((3, 3), 0, [0, 0])],
)
def test_rows_are_shared_out(wanted: tuple[int, ...], available: int, given: list[int]) -> None:
    assert shares(wanted, available) == given


def test_a_sparkline_ends_with_the_last_value() -> None:
    assert sparkline([9, 0, None, 2, 4], 4) == "▁ ▅█"
    assert sparkline([0.0, 0.0], 8) == "▁▁"
    assert sparkline([], 8) == ""


def test_values_are_written_with_their_units() -> None:
    assert [seconds(value).plain for value in (None, 0, 0.0042, 0.25, 2.5, 250)] == [
        "–", "0 ms", "4.2 ms", "250 ms", "2.5 s", "250 s",
    ]  # fmt: skip
    assert [number(value).plain for value in (None, 0, 0.01, 7, 7.25, 1234.5, 123_456)] == [
        "–", "0", "<0.1", "7.0", "7.2", "1,234", "123k",
    ]  # fmt: skip
    assert [size(value).plain for value in (None, 17, 2**20, 3 * 2**30)] == ["–", "17 B", "1 MiB", "3.0 GiB"]
    assert words("a\x1b[2Jb").plain == "a�[2Jb"


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_most_important_fits_whatever_the_width(width: int) -> None:
    shown = two_looks()
    lines = drawn(live(shown, [shown.totals] * 50, width, 24), width).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert {"echo", "w1", "a:8002", "b:8002", "running", "streams"} <= set(text.replace("│", " ").split())
    assert "…" not in text
    assert ("text-generation" in text, "log reads/s" in text) == (width >= 120, width >= 120)
    assert "▁" in text or "█" in text


def test_what_does_not_fit_is_counted() -> None:
    many = tuple(f"worker-{number}" for number in range(200))
    shown = overview(snapshot(12, {ONE: scraped(12)}, many))
    text = drawn(live(shown, [shown.totals], 80, 24), 80)
    assert len(text.splitlines()) <= 24
    assert "workers (8 of 200)" in text
    assert "worker-199" in drawn(plain(shown, 200), 200)


def test_metrics_are_one_port_above() -> None:
    assert metrics_addresses(["a:8001", "[::1]:7"], None) == ["a:8002", "[::1]:8"]
    assert metrics_addresses(["a:8001"], "b:1,c:2") == ["b:1", "c:2"]
    with pytest.raises(InvalidRequest, match="--address: 'a' is not of the form HOST:PORT"):
        metrics_addresses(["a"], None)
    with pytest.raises(InvalidRequest, match="--http"):
        metrics_addresses(["a:1"], "b:1,")


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[PlayedWorker]:
    """One that goes on saying that it lives."""

    async def announce() -> None:
        while True:
            await played.announce()
            await asyncio.sleep(1)

    async with PlayedWorker(redis_url) as played:
        announcing = asyncio.create_task(announce())
        yield played
        announcing.cancel()


@pytest.fixture
async def served(redis_url: str, worker: PlayedWorker) -> AsyncIterator[Frontend]:
    async with frontend(redis_url) as running:
        yield running


async def test_the_view_lives_on_while_a_frontend_goes_and_comes_back(redis_url: str, worker: PlayedWorker) -> None:
    async with frontend(redis_url) as stays, AsyncExitStack() as leaving:
        goes = await leaving.enter_async_context(frontend(redis_url))
        grpc_address, http_address = goes.grpc_address, goes.http_address
        clients = [AsyncClient(address, retry_s=0) for address in (grpc_address, stays.grpc_address)]
        async with Reader(clients, [http_address, stays.http_address]) as reader:
            before = await reader.read()
            await generate(grpc_address, worker)
            now = await reader.read()
            shown = overview(now, before)
            assert (shown.totals.frontends_reached, shown.fleet_problem) == (2, "")
            assert [row.worker_id for row in shown.workers] == ["played-1"]
            seconds_between = now.frontends[http_address].at_s - before.frontends[http_address].at_s
            assert [row.results_s for row in shown.frontends] == [pytest.approx(2 / seconds_between), 0]

            await leaving.aclose()
            now = await reader.read()
            gone, stayed = overview(now, before).frontends
            assert (now.fleet_problem, bool(gone.problem), stayed.problem) == ("", True, "")

            async with frontend(redis_url, grpc_address=grpc_address, http_address=http_address):
                assert overview(await reader.read()).totals.frontends_reached == 2


async def generate(address: str, worker: PlayedWorker) -> None:
    """One job with two results."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = TextGenerationServiceStub(channel).Generate(request())
        held = await worker.take()
        await held.emit("a")
        await held.emit("b", last=True)
        await read(call)


async def run(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


async def test_scripts_get_json_and_people_tables(served: Frontend) -> None:
    options = ("--address", served.grpc_address, "--http", served.http_address, "--interval", "0.1")
    (status, text, _), (_, tables, _) = await asyncio.gather(run(*options, "--json"), run(*options))
    told = json.loads(text)
    assert (status, told["schema"], told["totals"]["frontends_reached"]) == (0, "millrace.top/1", 1)
    assert [model["name"] for model in told["models"]] == ["echo"]
    assert "played-1" in tables


async def test_a_script_is_told_that_nobody_answers() -> None:
    status, text, error = await run("--once", "--interval", "0.1", "--address", "127.0.0.1:1")
    assert (status, text) == (1, "")
    assert "nobody answers at 127.0.0.1:1" in error


async def test_q_gives_the_terminal_back(served: Frontend) -> None:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    options = ("--address", served.grpc_address, "--http", served.http_address)
    process = await asyncio.create_subprocess_exec(*COMMAND, *options, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen = bytearray()

    def shows(text: bytes) -> bool:
        with suppress(OSError):
            screen.extend(os.read(ours, 1 << 16))
        return text in screen

    await eventually(lambda: shows(b"played-1"), within_s=30)
    assert b"\x1b[?1049h" in screen
    os.write(ours, b"q")
    await eventually(lambda: shows(b"\x1b[?1049l"), within_s=30)
    assert await process.wait() == 0
    os.close(ours)
