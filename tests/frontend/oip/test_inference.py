"""The Open Inference Protocol, with a played worker behind it."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from millrace.errors import Code
from millrace.oip.inference_pb2 import (
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerLiveRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.queue import Ending, Priority, Verdict
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import SubmitJobRequest, WatchJobRequest
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.playing import Generation, Jobs, Worker, frontend, reason, violated
from tests.frontend.tensors import Inference, TensorWorker, infer


@pytest.fixture
async def tensors(redis_url: str, served: Frontend) -> AsyncIterator[TensorWorker]:
    async with TensorWorker(redis_url) as played:
        yield played


@pytest.fixture
def inference(channel: grpc.aio.Channel) -> Inference:
    return GRPCInferenceServiceStub(channel)


def named(job_id: str, request_id: str = "") -> ModelInferRequest:
    message = infer(id=request_id)
    message.parameters["millrace_job_id"].string_param = job_id
    return message


async def test_the_server_and_its_models_say_what_they_are(inference: Inference, tensors: TensorWorker) -> None:
    assert (await inference.ServerLive(ServerLiveRequest())).live
    assert (await inference.ServerReady(ServerReadyRequest())).ready
    assert (await inference.ServerMetadata(ServerMetadataRequest())).name == "millrace"
    metadata = await inference.ModelMetadata(ModelMetadataRequest(name="double"))
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("double", ["3"], "onnxruntime_onnx")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
        ("x", "FP32", [-1, 3]),
        ("n", "INT8", [-1, 1]),
    ]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.ModelMetadata(ModelMetadataRequest(name="double", version="9"))
    assert reason(caught.value) == "MODEL_VERSION_UNKNOWN"


async def test_a_model_is_ready_while_a_worker_is(inference: Inference, tensors: TensorWorker) -> None:
    async def ready(name: str = "double", version: str = "") -> bool:
        return (await inference.ModelReady(ModelReadyRequest(name=name, version=version))).ready

    assert [await ready(), await ready(version="3"), await ready(version="4"), await ready("nothing")] == [
        True,
        True,
        False,
        False,
    ]
    await tensors.announce("draining")

    async def unready() -> bool:
        return not await ready()

    await eventually(unready)


async def test_an_answer_is_the_workers_own_under_the_requests_id(inference: Inference, tensors: TensorWorker) -> None:
    call = inference.ModelInfer(infer(id="17"))
    held = await tensors.take_tensors()
    assert held.request == infer(id="17")
    await held.answer(b"abcdefghijkl")
    response = await call
    assert (response.id, response.model_name, response.model_version) == ("17", "double", "3")
    assert list(response.raw_output_contents) == [b"abcdefghijkl"]
    assert response.ByteSize() == len(response.SerializeToString())


async def test_nothing_of_an_anonymous_call_stays_in_redis(
    served: Frontend, inference: Inference, tensors: TensorWorker
) -> None:
    before = set(await tensors.redis.keys("*job*"))
    call = inference.ModelInfer(infer())
    await (await tensors.take_tensors()).answer()
    await call

    async def gone() -> bool:
        return set(await tensors.redis.keys("*job*")) | set(await tensors.redis.keys("*payload*")) == before

    await eventually(gone)
    assert len(served.interest) == 0


async def test_only_a_job_id_makes_a_call_idempotent(inference: Inference, tensors: TensorWorker) -> None:
    calls = [inference.ModelInfer(infer(id="same")) for _ in range(2)]
    held = [await tensors.take_tensors() for _ in calls]
    for one in held:
        await one.answer()
    await asyncio.gather(*calls)
    first = inference.ModelInfer(named("job", "a"))
    held = [await tensors.take_tensors()]
    second = inference.ModelInfer(named("job", "b"))
    await held[0].answer(b"only once ok")
    assert [(await call).id for call in (first, second)] == ["a", "b"]
    again = await inference.ModelInfer(named("job", "c"))
    assert (again.id, list(again.raw_output_contents)) == ("c", [b"only once ok"])
    other = named("job")
    other.raw_input_contents[1] = b"\1"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.ModelInfer(other)
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.ALREADY_EXISTS, "JOB_ID_REUSED")


async def test_bad_tensors_are_named_and_never_queued(inference: Inference, tensors: TensorWorker) -> None:
    bad = infer(rows=9)
    bad.inputs[1].datatype = "FP32"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.ModelInfer(bad)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated(caught.value) == ["inputs[1].datatype", "inputs"]
    assert (await tensors.queue.load(tensors.model))["jobs"] == 0


async def test_a_request_over_the_limit_is_refused_in_our_own_words(redis_url: str) -> None:
    async with (
        TensorWorker(redis_url),
        frontend(redis_url, max_tensor_bytes=10_000, max_request_bytes=10_000) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        bad = infer()
        bad.raw_input_contents[0] = bytes(15_000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await GRPCInferenceServiceStub(channel).ModelInfer(bad)
        assert (caught.value.code(), violated(caught.value)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            ["raw_input_contents"],
        )


async def test_what_only_the_worker_finds_wrong_comes_back_as_a_violation(
    inference: Inference, tensors: TensorWorker
) -> None:
    call = inference.ModelInfer(infer())
    held = await tensors.take_tensors()
    await held.end(
        Ending(code=Code.INVALID_ARGUMENT, reason="INVALID_REQUEST", message="too long", field="inputs[0].shape")
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.code(), violated(caught.value)) == (grpc.StatusCode.INVALID_ARGUMENT, ["inputs[0].shape"])


async def test_a_caller_that_goes_takes_its_job_along(inference: Inference, tensors: TensorWorker) -> None:
    call = inference.ModelInfer(infer())
    held = await tensors.take_tensors()
    call.cancel()

    async def gone() -> bool:
        return await tensors.queue.inspect(held.lease.ref) is None

    await eventually(gone)
    assert await held.answer() is Verdict.LOST


async def test_parameters_say_how_the_job_runs(inference: Inference, tensors: TensorWorker) -> None:
    message = named("how")
    message.parameters["priority"].uint64_param = 1
    message.parameters["timeout"].int64_param = 2_000_000
    call = inference.ModelInfer(message)
    held = await tensors.take_tensors()
    record = await tensors.queue.inspect(held.lease.ref)
    assert record is not None
    assert (record.priority, record.task, record.deadline_ms - record.submit_ms) == (
        Priority.INTERACTIVE,
        "infer",
        2000,
    )
    await held.answer()
    await call
    assert dict(await call.initial_metadata())["millrace-job-id"] == "how"


async def test_an_answer_that_is_too_large_for_the_mailbox_comes_from_the_log(
    inference: Inference, tensors: TensorWorker
) -> None:
    call = inference.ModelInfer(infer())
    await (await tensors.take_tensors()).answer(bytes(range(256)) * 4096)
    assert (await call).raw_output_contents[0] == bytes(range(256)) * 4096


async def test_tensors_are_a_job_like_any_other(jobs: Jobs, tensors: TensorWorker) -> None:
    submitted = await jobs.SubmitJob(SubmitJobRequest(infer=infer(id="17"), job=JobOptions(job_id="later")))
    held = await tensors.take_tensors()
    await held.answer(b"abcdefghijkl")
    (result,) = [result async for result in jobs.WatchJob(WatchJobRequest(job_id=submitted.job_id))]
    assert (result.offset, result.inferred.id, list(result.inferred.raw_output_contents)) == (
        1,
        "17",
        [b"abcdefghijkl"],
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await jobs.SubmitJob(SubmitJobRequest(infer=named("x"), job=JobOptions(job_id="y")))
    assert violated(caught.value) == ["infer.parameters[millrace_job_id]"]


async def test_each_task_goes_to_models_of_its_kind(
    inference: Inference, generation: Generation, worker: Worker, tensors: TensorWorker
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.ModelInfer(ModelInferRequest(model_name="echo"))
    assert (caught.value.code(), violated(caught.value)) == (grpc.StatusCode.INVALID_ARGUMENT, ["inputs"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in generation.Generate(GenerateRequest(model="double", text="a")):
            pass
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNIMPLEMENTED, "TASK_UNIMPLEMENTED")
