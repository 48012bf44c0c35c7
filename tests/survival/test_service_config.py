"""The published service config: what it names, and that what the service sends lets it work."""

import json
from collections.abc import Iterator

import grpc.aio
import pytest
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from millrace.oip import inference_pb2
from millrace.oip.inference_pb2 import ModelInferResponse
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.v1 import fleet_pb2, generation_pb2, job_service_pb2, tasks_pb2
from services.frontend.jobs import CANCELLED
from services.frontend.server import Frontend
from tests.chaos.unary import SERVICE_CONFIG, published
from tests.eventually import eventually
from tests.frontend.playing import frontend, trailer
from tests.frontend.tensors import Inference, TensorWorker, infer

FILES = (inference_pb2, fleet_pb2, generation_pb2, job_service_pb2, tasks_pb2)


def methods() -> Iterator[MethodDescriptor]:
    for module in FILES:
        file: FileDescriptor = module.DESCRIPTOR
        for service in file.services_by_name.values():
            yield from service.methods


def names(method: MethodDescriptor) -> list[dict[str, str]]:
    service = method.containing_service.full_name
    return [{"service": service}, {"service": service, "method": method.name}]


def test_every_unary_method_is_retried_and_no_stream_is() -> None:
    (config,) = json.loads(SERVICE_CONFIG.read_text())["methodConfig"]
    wrong = [
        method.full_name
        for method in methods()
        if any(name in config["name"] for name in names(method)) == method.server_streaming
    ]
    assert wrong == []


def attempts(served: Frontend) -> float:
    labels = {"method": "inference.GRPCInferenceService/ModelInfer", "code": "CANCELLED"}
    return served.metrics.registry.get_sample_value("millrace_frontend_calls_total", labels) or 0.0


async def test_a_named_call_whose_frontend_leaves_is_answered_by_another(redis_url: str) -> None:
    request = infer()
    request.parameters["millrace_job_id"].string_param = "a"
    async with (
        TensorWorker(redis_url) as worker,
        frontend(redis_url, drain_s=0) as first,
        frontend(redis_url, drain_s=0) as second,
        grpc.aio.insecure_channel(f"ipv4:{first.grpc_address},{second.grpc_address}", options=published()) as channel,
    ):
        inference: Inference = GRPCInferenceServiceStub(channel)
        call = inference.ModelInfer(request)
        held = await worker.take_tensors()
        watching, other = (first, second) if len(first.interest) else (second, first)
        watching.stop()
        await eventually(lambda: len(other.interest) == 1)
        await held.answer()
        assert isinstance(await call, ModelInferResponse)


async def test_a_job_that_was_cancelled_is_not_asked_for_again(redis_url: str) -> None:
    request = infer()
    request.parameters["millrace_job_id"].string_param = "a"
    async with (
        TensorWorker(redis_url) as worker,
        frontend(redis_url) as served,
        grpc.aio.insecure_channel(f"ipv4:{served.grpc_address}", options=published()) as channel,
    ):
        inference: Inference = GRPCInferenceServiceStub(channel)
        call = inference.ModelInfer(request)
        held = await worker.take_tensors()
        await worker.queue.end(held.lease.ref, CANCELLED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert trailer(caught.value)["grpc-retry-pushback-ms"] == "-1"
        assert await eventually(lambda: attempts(served)) == 1


async def test_a_refusal_tells_grpcs_own_retries_when_to_come(redis_url: str) -> None:
    async with (
        TensorWorker(redis_url) as worker,
        frontend(redis_url, max_waiting_jobs=1) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        inference: Inference = GRPCInferenceServiceStub(channel)
        waiting = inference.ModelInfer(infer())
        await eventually(lambda: len(served.interest) == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await inference.ModelInfer(infer())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(trailer(caught.value)["grpc-retry-pushback-ms"]) > 0
        await (await worker.take_tensors()).answer()
        await waiting
