"""Tensors as a Python caller sees them."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import millrace
from millrace import AsyncClient, Code
from millrace.client.infer import set_job
from millrace.client.tensors import make_infer_request, to_arrays
from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse
from millrace.queue import Ending, Priority, Verdict
from millrace.v1.job_service_pb2 import Job
from services.frontend.server import Frontend
from tests.client.mirror import Mirror, mirroring, reflected
from tests.eventually import eventually
from tests.frontend.playing import Worker, frontend
from tests.proxy import Proxy

N = np.array([[1, 2]], np.int32)
X = np.array([[0.5, -1.0]], np.float32)


@pytest.fixture
async def mirror(redis_url: str, served: Frontend) -> AsyncIterator[Mirror]:
    async with mirroring(redis_url) as played:
        yield played


async def through(array: Any, datatype: str, client: AsyncClient, redis_url: str) -> npt.NDArray[Any]:
    """The array, after it went to a model that takes this datatype and gives it back."""
    async with mirroring(redis_url, datatype) as mirror:
        call = asyncio.ensure_future(client.infer("mirror", {"x": array, "n": N}))
        held = await mirror.reflect()
        assert held.request.inputs[0].datatype == datatype
        return (await call)["x"]


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("BOOL", np.array([[True, False]])),
        ("INT8", np.array([[-128, 127]], np.int8)),
        ("INT16", np.array([[-32768, 32767]], np.int16)),
        ("INT32", np.array([[-(2**31), 2**31 - 1]], np.int32)),
        ("INT64", np.array([[-(2**63), 2**63 - 1]], np.int64)),
        ("UINT8", np.array([[0, 255]], np.uint8)),
        ("UINT16", np.array([[0, 65535]], np.uint16)),
        ("UINT32", np.array([[0, 2**32 - 1]], np.uint32)),
        ("UINT64", np.array([[0, 2**64 - 1]], np.uint64)),
        ("FP16", np.array([[0.1, np.inf]], np.float16)),
        ("FP32", np.array([[0.1, -np.inf]], np.float32)),
        ("FP64", np.array([[0.1, np.nan]], np.float64)),
    ],
)
async def test_every_datatype_comes_back_as_it_went(
    datatype: str, array: npt.NDArray[Any], client: AsyncClient, redis_url: str
) -> None:
    given = await through(array, datatype, client, redis_url)
    assert (given.dtype, given.shape) == (array.dtype, array.shape)
    assert given.tobytes() == array.tobytes()
    assert given.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(12, dtype=np.float32).reshape(3, 4)[::2, ::-1],
        np.array([[0.1, 2.0]], ">f4"),
        np.zeros((0, 3), np.float32),
        np.zeros((2, 0), np.float32),
    ],
    ids=["transposed", "strided", "big-endian", "no rows", "no columns"],
)
async def test_an_arrays_layout_does_not_matter(
    array: npt.NDArray[np.float32], client: AsyncClient, redis_url: str
) -> None:
    given = await through(array, "FP32", client, redis_url)
    assert given.dtype == np.float32
    np.testing.assert_array_equal(given, array)
    assert given.shape == array.shape


@pytest.mark.parametrize(
    "array",
    [
        np.array([["ä", ""], ["abc", "d"]]),
        np.array([["ä".encode(), b""], [b"abc", b"d"]]),
        np.array([["ä", b""], [b"abc", "d"]], np.object_),
        np.array([["ä", ""], ["abc", "d"]], np.dtypes.StringDType()),
        [["ä", ""], ["abc", "d"]],
    ],
    ids=["texts", "bytes", "objects", "string dtype", "a list"],
)
async def test_texts_and_bytes_come_back_as_bytes(array: Any, client: AsyncClient, redis_url: str) -> None:
    given = await through(array, "BYTES", client, redis_url)
    assert given.dtype == np.object_
    assert given.tolist() == [["ä".encode(), b""], [b"abc", b"d"]]


async def test_bfloat16_comes_back_as_float32(client: AsyncClient, redis_url: str) -> None:
    given = await through(np.array([[0.5, -3.0]], ml_dtypes.bfloat16), "BF16", client, redis_url)
    assert given.dtype == np.float32
    assert given.tolist() == [[0.5, -3.0]]


async def test_only_the_outputs_that_were_asked_for_come_back(client: AsyncClient, mirror: Mirror) -> None:
    call = asyncio.ensure_future(client.infer("mirror", {"x": X, "n": N}, outputs=["n"]))
    await mirror.reflect()
    assert {name: array.tolist() for name, array in (await call).items()} == {"n": [[1, 2]]}


async def test_arrays_that_are_no_tensors_are_named_before_anything_is_sent() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(millrace.InvalidRequest) as caught:
            await client.infer(
                "mirror",
                {
                    "c": np.array([1j]),
                    "d": np.array(["2026-01-01"], "datetime64[D]"),
                    "x": X,
                    "o": np.array([None], np.object_),
                    "ragged": [[1], [1, 2]],
                },
            )
    assert [violation.field for violation in caught.value.violations] == [
        "inputs.c",
        "inputs.d",
        "inputs.o",
        "inputs.ragged",
    ]
    assert "complex128" in caught.value.violations[0].description


async def test_nothing_is_cast_and_the_service_says_what_is_wrong(client: AsyncClient, mirror: Mirror) -> None:
    with pytest.raises(millrace.InvalidRequest) as caught:
        await client.infer("mirror", {"x": X.astype(np.float64), "n": N[0]})
    assert [violation.field for violation in caught.value.violations] == ["inputs[0].datatype", "inputs[1].shape"]


async def test_a_runs_own_failure_is_raised(client: AsyncClient, mirror: Mirror) -> None:
    call = asyncio.ensure_future(client.infer("mirror", {"x": X, "n": N}))
    held = await mirror.take_tensors()
    await held.end(Ending(code=Code.INTERNAL, reason="OUT_OF_MEMORY", message="m"))
    with pytest.raises(millrace.JobFailed) as failed:
        await call
    assert failed.value.reason == "OUT_OF_MEMORY"
    with pytest.raises(millrace.NotFound) as unknown:
        await client.infer("nobody", {"x": X})
    assert unknown.value.reason == "MODEL_UNKNOWN"


async def test_a_frontend_that_dies_is_left_for_another(redis_url: str) -> None:
    async with (
        frontend(redis_url, drain_s=0) as first,
        frontend(redis_url, drain_s=0) as second,
        mirroring(redis_url) as mirror,
        AsyncClient(first.grpc_address, second.grpc_address) as client,
    ):
        call = asyncio.ensure_future(client.infer("mirror", {"x": X, "n": N}))
        held = await mirror.take_tensors()
        next(one for one in (first, second) if len(one.interest)).stop()
        again = await mirror.reflect()
        assert again.request == held.request
        assert (await call)["x"].tolist() == X.tolist()


async def test_a_named_job_is_found_again_after_a_broken_connection(redis_url: str) -> None:
    async with (
        frontend(redis_url) as served,
        Proxy(served.grpc_address) as proxy,
        mirroring(redis_url) as mirror,
        AsyncClient(proxy.address) as client,
    ):
        call = asyncio.ensure_future(client.infer("mirror", {"x": X, "n": N}, job_id="a"))
        held = await mirror.take_tensors()
        proxy.break_connections()
        assert await mirror.answer(held, reflected(held.request)) is not Verdict.LOST
        assert (await call)["n"].tolist() == N.tolist()
        assert (await mirror.queue.load(mirror.model))["jobs"] == 0
        again = await client.infer("mirror", {"x": X, "n": N}, job_id="a")
        assert again["n"].tolist() == N.tolist()
        with pytest.raises(millrace.AlreadyExists):
            await client.infer("mirror", {"x": X + 1, "n": N}, job_id="a")


@pytest.mark.parametrize("job_id", [None, "a"])
async def test_cancelling_a_call_takes_its_job_along(
    served: Frontend, client: AsyncClient, mirror: Mirror, job_id: str | None
) -> None:
    call = asyncio.ensure_future(client.infer("mirror", {"x": X, "n": N}, job_id=job_id))
    held = await mirror.take_tensors()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: len(served.interest) == 0)

    async def ended() -> bool:
        record = await mirror.queue.inspect(held.lease.ref)
        return record is None if job_id is None else record is not None and record.ending is not None

    await eventually(ended)


async def test_a_timeout_is_the_jobs_and_bounds_the_call(
    client: AsyncClient, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millrace.client.infer.DEADLINE_SLACK_S", 0.2)
    began = time.monotonic()
    with pytest.raises(millrace.MillraceError) as caught:
        await client.infer("mirror", {"x": X, "n": N}, timeout_s=0.3)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert 0.2 < time.monotonic() - began < 2


async def test_how_a_job_runs_is_said_in_parameters(client: AsyncClient, mirror: Mirror) -> None:
    call = asyncio.ensure_future(
        client.infer(
            "mirror", {"x": X, "n": N}, job_id="a", timeout_s=90.5, resume_window_s=1.5, priority="interactive"
        )
    )
    held = await mirror.reflect()
    await call
    record = await mirror.queue.inspect(held.lease.ref)
    assert record is not None
    assert (record.ref.job_id, record.deadline_ms - record.submit_ms) == ("a", 90_500)
    assert held.request.parameters["millrace_resume_window_ms"].int64_param == 1500
    assert record.priority is Priority.INTERACTIVE


@pytest.mark.parametrize(("priority", "number"), [("interactive", 1), ("standard", 0), ("batch", 3)])
def test_priorities_are_tritons_numbers(priority: Any, number: int) -> None:
    request = ModelInferRequest()
    set_job(request, job_id=None, resume_window_s=0, timeout_s=None, priority=priority)
    assert list(request.parameters) == ["priority"]
    assert request.parameters["priority"].int64_param == number


async def test_a_full_service_is_waited_for_only_where_the_caller_asks(redis_url: str) -> None:
    async with (
        frontend(redis_url, max_waiting_jobs=1) as served,
        mirroring(redis_url) as mirror,
        AsyncClient(served.grpc_address) as hasty,
        AsyncClient(served.grpc_address, retry_exhausted=True) as patient,
    ):
        await hasty.submit_infer("mirror", {"x": X, "n": N})
        with pytest.raises(millrace.Exhausted):
            await hasty.infer("mirror", {"x": X, "n": N})
        waiting = asyncio.ensure_future(patient.infer("mirror", {"x": X, "n": N}))
        await mirror.reflect()
        await mirror.reflect()
        assert (await waiting)["x"].tolist() == X.tolist()


async def test_a_model_says_what_it_takes_and_gives(client: AsyncClient, mirror: Mirror) -> None:
    metadata = await client.model_metadata("mirror")
    assert [(spec.name, spec.datatype, list(spec.shape)) for spec in metadata.inputs] == [
        ("x", "FP32", [-1, -1]),
        ("n", "INT32", [-1, -1]),
    ]
    with pytest.raises(millrace.NotFound):
        await client.model_metadata("mirror", "9")


async def test_a_submitted_run_is_fetched_later(client: AsyncClient, mirror: Mirror) -> None:
    job = await client.submit_infer("mirror", {"x": X, "n": N}, outputs=["x"], priority="batch")
    assert job.state == Job.STATE_WAITING
    waiting = asyncio.ensure_future(client.infer_result(job.job_id))
    await mirror.reflect()
    for result in (await waiting, await client.infer_result(job.job_id)):
        assert {name: array.tolist() for name, array in result.items()} == {"x": X.tolist()}


async def test_results_are_read_with_the_method_of_their_kind(
    client: AsyncClient, mirror: Mirror, worker: Worker
) -> None:
    tensors = await client.submit_infer("mirror", {"x": X, "n": N})
    await mirror.reflect()
    with pytest.raises(millrace.InvalidRequest, match="infer_result"):
        _ = [delta async for delta in client.watch(tensors.job_id)]
    text = await client.submit("echo", "hello")
    await (await worker.take()).emit("one", last=True)
    with pytest.raises(millrace.InvalidRequest, match="watch"):
        await client.infer_result(text.job_id)


def test_typed_contents_are_read_too() -> None:
    response = ModelInferResponse()
    response.outputs.add(name="f", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([0.5, 1.5])
    response.outputs.add(name="u", datatype="UINT8", shape=[2]).contents.uint_contents.extend([0, 255])
    response.outputs.add(name="b", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"x")
    response.outputs.add(name="e", datatype="INT64", shape=[0])
    arrays = to_arrays(response)
    assert {name: (array.dtype.name, array.tolist()) for name, array in arrays.items()} == {
        "f": ("float32", [[0.5, 1.5]]),
        "u": ("uint8", [0, 255]),
        "b": ("object", [b"x"]),
        "e": ("int64", []),
    }


@pytest.mark.parametrize(
    ("datatype", "shape", "raws"),
    [
        ("FP32", [2], [b"abcd"]),
        ("FP32", [1], [b"abc"]),
        ("BYTES", [1], [b"\x09\0\0\0a"]),
        ("TEXT", [1], [b"a"]),
        ("UINT8", [1], []),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(datatype: str, shape: list[int], raws: list[bytes]) -> None:
    response = ModelInferResponse(raw_output_contents=raws)
    response.outputs.add(name="y", datatype=datatype, shape=shape)
    with pytest.raises(millrace.MillraceError) as caught:
        to_arrays(response)
    assert (caught.value.code, caught.value.reason) == (Code.INTERNAL, "ANSWER_MALFORMED")


def test_an_array_without_dimensions_has_an_empty_shape() -> None:
    request = make_infer_request("m", {"x": np.float32(1.0)}, None, "2")
    assert (request.model_version, list(request.inputs[0].shape), request.raw_input_contents[0]) == (
        "2",
        [],
        b"\0\0\x80\x3f",
    )
