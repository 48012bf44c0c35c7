"""KEDA's external scaler, asked as KEDA asks it."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # type: ignore[import-untyped]
from grpc_health.v1.health_pb2_grpc import HealthStub  # type: ignore[import-untyped]

from millrace.keda.externalscaler_pb2 import GetMetricsRequest, IsActiveResponse, MetricSpec, ScaledObjectRef
from millrace.keda.externalscaler_pb2_grpc import ExternalScalerStub
from millrace.queue import JobRef, ModelVersion, Submission
from services.frontend.scaler.service import METRICS
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.access.tenants import Book
from tests.frontend.playing import MODEL, Worker, frontend, violated
from tests.processes import Valkey

if TYPE_CHECKING:
    from millrace.keda.externalscaler_pb2_grpc import ExternalScalerAsyncStub

Scaler: TypeAlias = "ExternalScalerAsyncStub"


def scaled(model: str = "echo", **metadata: str) -> ScaledObjectRef:
    metadata = {"scalerAddress": "frontend:8004", "model": model} | metadata
    return ScaledObjectRef(name="workers", namespace="here", scalerMetadata=metadata)


async def metric(scaler: Scaler, name: str, reference: ScaledObjectRef | None = None) -> float:
    answer = await scaler.GetMetrics(GetMetricsRequest(scaledObjectRef=reference or scaled(), metricName=name))
    (value,) = answer.metricValues
    assert (value.metricName, value.metricValue - 1 < value.metricValueFloat <= value.metricValue) == (name, True)
    return value.metricValueFloat


async def active(scaler: Scaler, reference: ScaledObjectRef | None = None) -> bool:
    return (await scaler.IsActive(reference or scaled())).result


async def submit(worker: Worker, name: str = "a", model: ModelVersion = MODEL) -> None:
    ref = JobRef(model, "default", name)
    job = Submission(
        ref=ref, fingerprint="0" * 32, payload=b"", cost=10, wanted_to_deadline=True, worker_within_ms=60_000
    )
    await worker.queue.submit(job)


@pytest.fixture
async def served(redis_url: str, worker: Worker) -> AsyncIterator[Frontend]:
    async with frontend(redis_url, scaler_address="127.0.0.1:0", scale_from_zero_s=60) as running:
        yield running


@pytest.fixture
async def scaler(served: Frontend) -> AsyncIterator[Scaler]:
    async with grpc.aio.insecure_channel(served.scaler_address) as channel:
        yield ExternalScalerStub(channel)


async def test_a_fleet_without_work_needs_no_worker(scaler: Scaler) -> None:
    assert not await active(scaler)
    assert [await metric(scaler, name) for name in METRICS] == [0, 0, 0]


async def test_one_job_wakes_a_fleet_that_was_scaled_to_zero(scaler: Scaler, worker: Worker) -> None:
    await worker.registry.leave("played-1")
    assert not await active(scaler)
    await submit(worker)
    assert await active(scaler)
    assert await metric(scaler, "work") == 1


async def test_a_job_that_runs_keeps_its_fleet_awake(scaler: Scaler, worker: Worker) -> None:
    await submit(worker)
    held = await worker.take()
    assert await active(scaler)
    assert await metric(scaler, "work", scaled(targetJobsPerWorker="2")) == 0.5
    await held.emit("end", last=True)
    assert not await active(scaler)


async def test_waiting_and_running_jobs_are_work(scaler: Scaler, worker: Worker) -> None:
    for name in "abcde":
        await submit(worker, name)
    await worker.take()
    assert await metric(scaler, "work") == 5 / 4
    assert await metric(scaler, "work", scaled(targetJobsPerWorker="2")) == 5 / 2


async def test_each_change_is_pushed_within_a_second(scaler: Scaler, worker: Worker) -> None:
    call = scaler.StreamIsActive(scaled())
    assert not (await next_answer(call)).result
    began = time.monotonic()
    await submit(worker)
    assert (await next_answer(call)).result
    assert time.monotonic() - began < 1
    await (await worker.take()).emit("end", last=True)
    began = time.monotonic()
    assert not (await next_answer(call)).result
    assert time.monotonic() - began < 1
    call.cancel()


async def test_the_metrics_are_in_workers(scaler: Scaler) -> None:
    specs = (await scaler.GetMetricSpec(scaled())).metricSpecs
    assert list(specs) == [MetricSpec(metricName=name, targetSize=1, targetSizeFloat=1.0) for name in METRICS]


async def test_a_fleet_whose_busy_workers_may_go_has_no_metric_of_them(scaler: Scaler) -> None:
    specs = (await scaler.GetMetricSpec(scaled(keepBusyWorkers="false"))).metricSpecs
    assert [spec.metricName for spec in specs] == ["work", "wait"]


@pytest.mark.parametrize(
    ("model", "jobs"), [("echo", 3), ("echo/1", 1), ("echo/2", 2), ("other, echo/1", 2), ("echo,nothing", 3)]
)
async def test_a_name_stands_for_all_versions(redis_url: str, scaler: Scaler, model: str, jobs: int) -> None:
    versions = [MODEL, ModelVersion("echo", "2"), ModelVersion("other", "1")]
    for count, version in zip((1, 2, 1), versions, strict=True):
        async with Worker(redis_url, version) as worker:
            for number in range(count):
                await submit(worker, f"{version.name}-{version.version}-{number}", version)
    assert await metric(scaler, "work", scaled(model, targetJobsPerWorker="1")) == jobs


async def test_a_model_that_nobody_has_served_is_not_found(scaler: Scaler) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await active(scaler, scaled("nothing"))
    assert (caught.value.code(), "no model nothing" in str(caught.value.details())) == (grpc.StatusCode.NOT_FOUND, True)


async def test_metadata_that_mean_nothing_are_refused_whatever_is_asked(scaler: Scaler) -> None:
    reference = scaled(targetWaitSeconds="soon")
    for call in (
        scaler.IsActive(reference),
        scaler.StreamIsActive(reference).read(),
        scaler.GetMetricSpec(reference),
        scaler.GetMetrics(GetMetricsRequest(scaledObjectRef=reference, metricName="work")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violated(caught.value) == ["scalerMetadata[targetWaitSeconds]"]


async def test_a_metric_that_there_is_not_is_refused(scaler: Scaler) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await metric(scaler, "s0-work")
    assert violated(caught.value) == ["metricName"]


async def test_redis_away_is_an_error_and_never_nothing_to_do() -> None:
    async with (
        Valkey(durable=True) as valkey,
        Worker(valkey.url) as worker,
        frontend(valkey.url, scaler_address="127.0.0.1:0", scale_from_zero_s=60) as served,
        grpc.aio.insecure_channel(served.scaler_address) as channel,
    ):
        scaler: Scaler = ExternalScalerStub(channel)
        await submit(worker)
        call = scaler.StreamIsActive(scaled())
        assert (await next_answer(call)).result
        answer = asyncio.create_task(next_answer(call))
        await asyncio.to_thread(valkey.kill)
        for ask in (active(scaler), *(metric(scaler, name) for name in METRICS)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.to_thread(valkey.start)
        await worker.announce()
        assert await eventually(lambda: served.readiness.ready)
        assert not answer.done()
        await (await worker.take()).emit("end", last=True)
        assert not (await answer).result
        call.cancel()


async def test_a_drain_ends_the_stream_well(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, scaler_address="127.0.0.1:0") as served,
        grpc.aio.insecure_channel(served.scaler_address) as channel,
    ):
        scaler: Scaler = ExternalScalerStub(channel)
        call = scaler.StreamIsActive(scaled())
        assert not (await next_answer(call)).result
        served.stop()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_health_is_served_beside_the_scaler(served: Frontend) -> None:
    async with grpc.aio.insecure_channel(served.scaler_address) as channel:
        answer = await HealthStub(channel).Check(HealthCheckRequest())
    assert answer.status == HealthCheckResponse.SERVING


async def test_keda_needs_no_key_where_callers_do(redis_url: str, worker: Worker, tmp_path: Path) -> None:
    book = Book(tmp_path / "tenants.yaml")
    book.add("acme")
    async with (
        frontend(redis_url, scaler_address="127.0.0.1:0", api_keys=book.path) as served,
        grpc.aio.insecure_channel(served.scaler_address) as channel,
    ):
        assert not await active(ExternalScalerStub(channel))


async def next_answer(call: "grpc.aio.UnaryStreamCall[ScaledObjectRef, IsActiveResponse]") -> IsActiveResponse:
    answer = await call.read()
    assert isinstance(answer, IsActiveResponse)
    return answer
