"""What the frontend says about the fleet and about itself."""

import json
import time
import urllib.request
from asyncio import to_thread
from typing import Any
from urllib.error import HTTPError

import grpc.aio
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # type: ignore[import-untyped]
from grpc_health.v1.health_pb2_grpc import HealthStub  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)

from millrace.v1 import fleet_pb2
from millrace.v1.fleet_pb2 import ListModelsRequest, ListWorkersRequest
from millrace.v1.fleet_pb2_grpc import FleetServiceStub
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from services.frontend.rpc import SERVICES
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.playing import Generation, Worker, frontend, read, request, texts


async def get(served: Frontend, path: str) -> tuple[int, str]:
    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{served.http_address}{path}") as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await to_thread(fetch)


async def test_models_are_listed_with_their_load(
    channel: grpc.aio.Channel, generation: Generation, worker: Worker
) -> None:
    running, waiting = generation.Generate(request()), generation.Generate(request())
    await worker.take()
    await waiting.initial_metadata()
    (model,) = (await FleetServiceStub(channel).ListModels(ListModelsRequest())).models
    assert (model.name, list(model.versions), model.task) == ("echo", ["1"], "text-generation")
    assert (model.ready_workers, model.running_jobs, model.waiting_jobs) == (1, 1, 1)
    assert (model.context_length, model.HasField("estimated_wait")) == (512, False)
    running.cancel()
    waiting.cancel()


async def test_the_wait_is_estimated_once_a_rate_is_known(
    channel: grpc.aio.Channel, generation: Generation, worker: Worker
) -> None:
    running, waiting = generation.Generate(request()), generation.Generate(request())
    held = await worker.take()
    await waiting.initial_metadata()
    began = time.monotonic()

    async def estimate() -> float:
        await held.emit("word")
        (model,) = (await FleetServiceStub(channel).ListModels(ListModelsRequest())).models
        return model.estimated_wait.ToMilliseconds() / 1000

    estimated = await eventually(estimate)
    tokens_a_second = held.offset / (time.monotonic() - began)
    assert estimated == pytest.approx(257 / tokens_a_second, rel=0.5)
    running.cancel()
    waiting.cancel()


async def test_workers_are_listed(channel: grpc.aio.Channel) -> None:
    (listed,) = (await FleetServiceStub(channel).ListWorkers(ListWorkersRequest())).workers
    assert (listed.worker_id, listed.device, list(listed.models)) == ("played-1", "CPU", ["echo/1"])
    assert (listed.state, listed.free_slots) == (fleet_pb2.Worker.STATE_READY, 4)


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_every_service_is_healthy(channel: grpc.aio.Channel, service: str) -> None:
    answer = await HealthStub(channel).Check(HealthCheckRequest(service=service))
    assert answer.status == HealthCheckResponse.SERVING


async def test_a_client_can_be_made_from_reflection_alone(served: Frontend, channel: grpc.aio.Channel) -> None:
    def discover() -> tuple[set[str], DescriptorPool]:
        with grpc.insecure_channel(served.grpc_address) as plain:
            database = ProtoReflectionDescriptorDatabase(plain)
            pool = DescriptorPool(database)
            pool.FindServiceByName("millrace.v1.FleetService")
            return set(database.get_services()), pool

    names, pool = await to_thread(discover)
    assert set(SERVICES) <= names
    method = pool.FindServiceByName("millrace.v1.FleetService").FindMethodByName("ListModels")
    answer_type = GetMessageClass(method.output_type)
    call: grpc.aio.UnaryUnaryMultiCallable[Message, Any] = channel.unary_unary(
        "/millrace.v1.FleetService/ListModels",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer_type.FromString,
    )
    answer = await call(GetMessageClass(method.input_type)())
    assert [model.name for model in answer.models] == ["echo"]


async def test_ready_tells_the_truth_about_models(redis_url: str) -> None:
    async with frontend(redis_url) as served:
        status, body = await get(served, "/readyz")
        assert (status, json.loads(body)["models"]) == (200, {})
        async with Worker(redis_url) as worker:

            async def ready_workers() -> int | None:
                models = json.loads((await get(served, "/readyz"))[1])["models"]
                return models["echo/1"]["ready_workers"] + 1 if "echo/1" in models else None

            assert await eventually(ready_workers) == 2
            await worker.announce("draining")

            async def none_ready() -> bool:
                return await ready_workers() == 1

            await eventually(none_ready)


async def test_a_draining_frontend_is_alive_and_not_ready(redis_url: str, worker: Worker) -> None:
    async with frontend(redis_url, drain_s=10) as served, grpc.aio.insecure_channel(served.grpc_address) as channel:
        running = TextGenerationServiceStub(channel).Generate(request())
        held = await worker.take()
        served.stop()

        async def draining() -> bool:
            status, body = await get(served, "/readyz")
            return (status, json.loads(body)["draining"]) == (503, True)

        await eventually(draining)
        assert (await get(served, "/healthz"))[0] == 200
        await held.emit("end", last=True)
        assert texts(await read(running)) == ["end"]


async def test_metrics_and_liveness_are_served(served: Frontend) -> None:
    status, body = await get(served, "/metrics")
    assert status == 200
    assert "millrace_frontend_streams 0.0" in body
    assert (await get(served, "/healthz"))[0] == 200
