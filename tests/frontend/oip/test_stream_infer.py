"""ModelStreamInfer, with played workers behind it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from millrace.errors import Code
from millrace.oip.inference_pb2 import ModelInferRequest, ModelStreamInferResponse
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.queue import Ending, State
from millrace.tensors import unpack_bytes
from services.frontend.oip import stream_infer
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.playing import Worker, frontend, reason, trailer, violated
from tests.frontend.tensors import Inference, TensorWorker, infer
from tests.frontend.test_leaving import LARGE, block, everything_is_let_go, is_abandoned
from tests.frontend.texts import flag, say, streamed, text_request

Rpc = Any


@pytest.fixture
async def tensors(redis_url: str, served: Frontend) -> AsyncIterator[TensorWorker]:
    async with TensorWorker(redis_url) as played:
        yield played


@pytest.fixture
def inference(channel: grpc.aio.Channel) -> Inference:
    return GRPCInferenceServiceStub(channel)


@pytest.fixture
async def stream(inference: Inference) -> AsyncIterator[Rpc]:
    call: Rpc = inference.ModelStreamInfer()
    yield call
    call.cancel()


async def answer(call: Rpc) -> Any:
    """The next one's response, which is no error."""
    message = await call.read()
    assert isinstance(message, ModelStreamInferResponse)
    assert message.error_message == ""
    return message.infer_response


async def refusal(call: Rpc) -> tuple[str, str, str]:
    """The next one's id, reason and message."""
    message = await call.read()
    assert message.error_message
    response = message.infer_response
    assert response.parameters["triton_final_response"].bool_param
    return response.id, response.parameters["millrace_reason"].string_param, message.error_message


def said(response: Any) -> tuple[str, bool]:
    """What is new, and whether it is the last."""
    (raw,) = response.raw_output_contents
    return unpack_bytes(raw)[0].decode(), response.parameters["triton_final_response"].bool_param


async def ends_well(call: Rpc) -> None:
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


def named(request: ModelInferRequest, job_id: str = "a", **parameters: Any) -> ModelInferRequest:
    return say(request, millrace_job_id=job_id, **parameters)


async def test_tensors_are_answered_in_the_order_of_their_requests(stream: Rpc, tensors: TensorWorker) -> None:
    for request_id in ("a", "b", "c"):
        await stream.write(infer(id=request_id))
    held = {(one := await tensors.take_tensors()).request.id: one for _ in range(3)}
    for request_id in ("c", "b", "a"):
        await held[request_id].answer(request_id.encode() * 12)
    for request_id in ("a", "b", "c"):
        response = await answer(stream)
        assert (response.id, response.raw_output_contents[0]) == (request_id, request_id.encode() * 12)
        assert response.parameters["triton_final_response"].bool_param
    await ends_well(stream)


async def test_a_text_comes_as_it_is_made_and_waits_for_no_tensors(
    stream: Rpc, tensors: TensorWorker, worker: Worker
) -> None:
    await stream.write(infer(id="slow"))
    await stream.write(streamed(id="7"))
    held = await worker.take()
    for text in ("a", "b"):
        await held.emit(text)
        response = await answer(stream)
        assert (response.id, response.model_name, response.model_version) == ("7", "echo", "1")
        assert said(response) == (text, False)
        assert "millrace_offset" not in response.parameters
    await held.emit("c", last=True)
    assert said(await answer(stream)) == ("c", True)
    await (await tensors.take_tensors()).answer()
    assert (await answer(stream)).id == "slow"
    await ends_well(stream)


async def test_a_text_that_is_not_to_be_streamed_comes_whole(stream: Rpc, inference: Inference, worker: Worker) -> None:
    await stream.write(text_request(id="7"))
    unary = inference.ModelInfer(flag(text_request(id="8"), "exclude_input_in_output", True))
    for held in await worker.take_all(2):
        await held.emit(" wor")
        await held.emit("ld", last=True)
    response = await answer(stream)
    assert (response.id, said(response)) == ("7", ("hello world", True))
    response = await unary
    assert (response.id, unpack_bytes(response.raw_output_contents[0])) == ("8", [b" world"])
    await ends_well(stream)


async def test_one_answer_cannot_be_a_stream(inference: Inference, worker: Worker) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.ModelInfer(streamed())
    assert (caught.value.code(), violated(caught.value)) == (grpc.StatusCode.INVALID_ARGUMENT, ["inputs[stream]"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.ModelInfer(named(text_request(), millrace_after_offset=1))
    assert violated(caught.value) == ["job.after_offset"]


async def test_an_empty_end_is_told_to_who_asks_where_the_last_result_did_not_tell(stream: Rpc, worker: Worker) -> None:
    await stream.write(streamed(id="1"))
    await stream.write(say(streamed(id="2"), triton_enable_empty_final_response=True))
    for held in await worker.take_all(2):
        await held.emit("a")
        await held.end(Ending())
    seen = [await answer(stream) for _ in range(3)]
    assert sorted((one.id, one.parameters["triton_final_response"].bool_param, len(one.outputs)) for one in seen) == [
        ("1", False, 1),
        ("2", False, 1),
        ("2", True, 0),
    ]
    await ends_well(stream)


async def test_a_request_that_fails_is_told_so_and_the_stream_goes_on(
    stream: Rpc, tensors: TensorWorker, worker: Worker
) -> None:
    await stream.write(infer(rows=9, id="bad"))
    await stream.write(ModelInferRequest(model_name="nothing", id="unknown"))
    await stream.write(streamed("", id="empty"))
    await stream.write(infer(id="fails"))
    await stream.write(infer(id="good"))
    held = {(one := await tensors.take_tensors()).request.id: one for _ in range(2)}
    await held["good"].answer()
    await held["fails"].end(Ending(code=Code.INTERNAL, reason="MODEL_FAILED", message="the graph fails"))
    seen = {refused[0]: refused[1:] for refused in [await refusal(stream) for _ in range(4)]}
    assert {request_id: why for request_id, (why, _) in seen.items()} == {
        "bad": "INVALID_REQUEST",
        "unknown": "MODEL_UNKNOWN",
        "empty": "INVALID_REQUEST",
        "fails": "MODEL_FAILED",
    }
    assert (seen["fails"][1], seen["empty"][1]) == ("the graph fails", "inputs[text_input]: must not be empty")
    assert (await answer(stream)).id == "good"
    await ends_well(stream)


async def test_a_name_that_is_no_text_is_told_of(stream: Rpc, worker: Worker) -> None:
    await stream.write(streamed(id="7", settings={"\ud800": 1}))
    request_id, why, message = await refusal(stream)
    assert (request_id, why) == ("7", "INVALID_REQUEST")
    assert message.startswith("inputs[sampling_parameters].?: is not known")
    await ends_well(stream)


async def test_an_error_of_ours_is_told_without_its_text(
    stream: Rpc, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_infer, "TextAnswer", None)
    with capture_logs() as logs:
        await stream.write(streamed(id="7"))
        await (await worker.take()).emit("a")
        assert await refusal(stream) == ("7", "INTERNAL", "an error inside the service")
    assert [(line["event"], line["log_level"]) for line in logs if "job_id" in line] == [("request.failed", "error")]
    await ends_well(stream)


async def test_a_tenants_name_is_checked_before_any_request(inference: Inference, worker: Worker) -> None:
    call: Rpc = inference.ModelStreamInfer(metadata=(("millrace-tenant", "not a name"),))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_text_that_fails_ends_with_an_error(stream: Rpc, worker: Worker) -> None:
    await stream.write(streamed(id="7", settings={"max_tokens": 5}))
    held = await worker.take()
    await held.emit("a")
    assert said(await answer(stream)) == ("a", False)
    ending = Ending(
        code=Code.INVALID_ARGUMENT, reason="PROMPT_TOO_LONG", message="too many", field="stopping.max_tokens"
    )
    await held.end(ending)
    assert await refusal(stream) == ("7", "PROMPT_TOO_LONG", "inputs[sampling_parameters].max_tokens: too many")
    await ends_well(stream)


async def test_bytes_that_are_no_message_are_answered(channel: grpc.aio.Channel, tensors: TensorWorker) -> None:
    call: Rpc = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
    await call.write(b"\xff\xff")
    await call.write(infer(id="good").SerializeToString())
    await (await tensors.take_tensors()).answer()
    refused, answered = [ModelStreamInferResponse.FromString(await call.read()) for _ in range(2)]
    assert (refused.error_message, answered.infer_response.id) == (": the request is not a valid message", "good")
    await ends_well(call)


async def test_a_caller_that_wants_a_status_gets_the_first_failures(
    served: Frontend, inference: Inference, worker: Worker
) -> None:
    tasks = len(asyncio.all_tasks())
    call: Rpc = inference.ModelStreamInfer(metadata=(("triton_grpc_error", "true"),))
    await call.write(named(streamed()))
    held = await worker.take()
    await call.write(ModelInferRequest(model_name="nothing", id="unknown"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN")
    await is_abandoned(worker, held)
    await everything_is_let_go(served, tasks)


async def test_the_status_of_a_job_that_has_failed_says_that_it_has_ended(inference: Inference, worker: Worker) -> None:
    call: Rpc = inference.ModelStreamInfer(metadata=(("triton_grpc_error", "true"),))
    await call.write(streamed())
    await (await worker.take()).end(Ending(code=Code.INTERNAL, reason="MODEL_FAILED", message="the graph fails"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert (caught.value.code(), trailer(caught.value)["millrace-ended"]) == (grpc.StatusCode.INTERNAL, "1")


async def test_a_named_text_goes_on_behind_what_was_seen(
    stream: Rpc, inference: Inference, worker: Worker, redis_url: str
) -> None:
    await stream.write(named(streamed(id="first"), millrace_resume_window_ms=60_000))
    held = await worker.take()
    await held.emit("a")
    seen = await answer(stream)
    offset, history = seen.parameters["millrace_offset"].int64_param, seen.parameters["millrace_history"].uint64_param
    assert (offset, history) == (1, int.from_bytes(held.history, "little"))
    stream.cancel()
    await held.emit("b")
    async with (
        frontend(redis_url) as other,
        grpc.aio.insecure_channel(other.grpc_address) as channel,
    ):
        call: Rpc = GRPCInferenceServiceStub(channel).ModelStreamInfer()
        again = named(streamed(id="again"), millrace_after_offset=offset, millrace_after_history=str(history))
        await call.write(again)
        response = await answer(call)
        assert (response.id, said(response)) == ("again", ("b", False))
        await held.emit("c", last=True)
        response = await answer(call)
        assert (said(response), response.parameters["millrace_offset"].int64_param) == (("c", True), 3)
        say(again, millrace_after_offset=3, millrace_after_history=str(int.from_bytes(held.history, "little")))
        await call.write(again)
        response = await answer(call)
        assert (list(response.outputs), response.parameters["triton_final_response"].bool_param) == ([], True)
        await call.write(say(again, millrace_after_history="5"))
        assert (await refusal(call))[1] == "HISTORY_DIFFERS"
        await call.write(named(streamed("other"), millrace_after_offset=1))
        assert (await refusal(call))[1] == "JOB_ID_REUSED"
        await call.write(named(streamed(), "b", millrace_after_offset=1))
        assert (await refusal(call))[1] == "JOB_UNKNOWN"
        await ends_well(call)


async def test_tensors_have_no_offsets(stream: Rpc, inference: Inference, tensors: TensorWorker) -> None:
    call = inference.ModelInfer(named(infer()))
    await (await tensors.take_tensors()).answer()
    await call
    await stream.write(named(infer(id="again")))
    assert (await answer(stream)).id == "again"
    await stream.write(named(infer(), millrace_after_offset=1))
    assert (await refusal(stream))[1:] == (
        "INVALID_REQUEST",
        "parameters[millrace_after_offset]: is for generated text: tensors come at once",
    )
    await ends_well(stream)


async def test_no_more_is_read_while_many_are_open(
    inference: Inference, tensors: TensorWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_infer, "MOST_OPEN", 2)
    stream: Rpc = inference.ModelStreamInfer()
    for number in range(4):
        await stream.write(infer(id=str(number)))
    held = {(one := await tensors.take_tensors()).request.id: one for _ in range(2)}
    with pytest.raises(AssertionError):
        await tensors.take_tensors(within_s=0.3)
    await held["0"].answer()
    assert (await answer(stream)).id == "0"
    await (await tensors.take_tensors()).answer()
    await held["1"].answer()
    await (await tensors.take_tensors()).answer()
    assert [(await answer(stream)).id for _ in range(3)] == ["1", "2", "3"]
    await ends_well(stream)


async def test_who_has_said_all_is_answered_to_the_end(served: Frontend, stream: Rpc, worker: Worker) -> None:
    tasks = len(asyncio.all_tasks())
    await stream.write(streamed())
    held = await worker.take()
    await stream.done_writing()
    await held.emit("a", last=True)
    assert said(await answer(stream)) == ("a", True)
    assert await stream.read() is grpc.aio.EOF
    await everything_is_let_go(served, tasks)


async def test_who_says_nothing_is_answered_nothing(stream: Rpc, served: Frontend) -> None:
    await ends_well(stream)


@pytest.mark.parametrize("blocked", [False, True])
async def test_who_cancels_leaves_nothing_behind(
    served: Frontend, stream: Rpc, worker: Worker, tensors: TensorWorker, blocked: bool
) -> None:
    tasks = len(asyncio.all_tasks())
    await stream.write(named(streamed()))
    await stream.write(infer())
    held, other = await worker.take(), await tensors.take_tensors()
    if blocked:
        await block(held)
        await other.answer()
    stream.cancel()
    await is_abandoned(worker, held)
    await everything_is_let_go(served, tasks)


async def test_the_calls_deadline_is_its_jobs(served: Frontend, inference: Inference, worker: Worker) -> None:
    tasks = len(asyncio.all_tasks())
    call: Rpc = inference.ModelStreamInfer(timeout=1.0)
    await call.write(streamed())
    await call.write(named(streamed("kept")))
    for held in await worker.take_all(2):
        record = await worker.queue.inspect(held.lease.ref)
        assert record is not None
        assert record.deadline_ms - record.submit_ms <= 1000
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await everything_is_let_go(served, tasks)


async def test_who_does_not_read_is_cut_off(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, slow_reader_s=0.5) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        tasks = len(asyncio.all_tasks())
        call: Rpc = GRPCInferenceServiceStub(channel).ModelStreamInfer()
        await call.write(named(streamed()))
        await call.write(streamed("another"))
        held = {one.request.text: one for one in await worker.take_all(2)}
        await block(held["hello"])
        await is_abandoned(worker, held["hello"])
        await eventually(lambda: len(served.interest) == 0)
        call.cancel()
        await everything_is_let_go(served, tasks)


async def test_a_drain_lets_open_requests_end_and_reads_no_more(redis_url: str, worker: Worker) -> None:
    async with frontend(redis_url, drain_s=20.0) as served:
        channel = grpc.aio.insecure_channel(served.grpc_address)
        stub = GRPCInferenceServiceStub(channel)
        idle: Rpc = stub.ModelStreamInfer()
        busy: Rpc = stub.ModelStreamInfer()
        await idle.write(ModelInferRequest(model_name="nothing"))
        await refusal(idle)
        await busy.write(streamed())
        held = await worker.take()
        served.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await idle.read()
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        await held.emit(LARGE)
        assert said(await answer(busy)) == (LARGE, False)
        await held.emit("a", last=True)
        assert said(await answer(busy)) == ("a", True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await busy.read()
        assert reason(caught.value) == "DRAINING"
        await channel.close()


async def test_what_a_drain_cuts_off_says_so(redis_url: str, worker: Worker) -> None:
    async with frontend(redis_url, drain_s=0.2) as served:
        channel = grpc.aio.insecure_channel(served.grpc_address)
        call: Rpc = GRPCInferenceServiceStub(channel).ModelStreamInfer()
        await call.write(named(streamed(id="7")))
        held = await worker.take()
        served.stop()
        assert (await refusal(call))[:2] == ("7", "DRAINING")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        record = await worker.queue.inspect(held.lease.ref)
        assert record is not None
        assert record.state is State.RUNNING
        await channel.close()


async def test_an_anonymous_request_is_its_own_job_however_often_its_id_comes(stream: Rpc, worker: Worker) -> None:
    for _ in range(2):
        await stream.write(streamed(id="same"))
    for held in await worker.take_all(2):
        await held.emit("a", last=True)
    assert [((one := await answer(stream)).id, said(one)) for _ in range(2)] == [("same", ("a", True))] * 2
    await ends_well(stream)


async def test_a_refusal_says_when_to_come_back(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, max_waiting_jobs=2) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        call: Rpc = GRPCInferenceServiceStub(channel).ModelStreamInfer()
        for number in range(4):
            await call.write(streamed(id=str(number)))
        message = await call.read()
        parameters = message.infer_response.parameters
        assert message.error_message == "too many jobs wait for this model"
        assert parameters["millrace_reason"].string_param == "QUEUE_FULL_JOBS"
        assert parameters["millrace_retry_after_ms"].int64_param > 0
        call.cancel()
