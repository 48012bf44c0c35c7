"""Tensors that are given, and tensors that are drawn."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.errors import Code
from millrace.load.asking.asker import Asker
from millrace.load.asking.sending import Received
from millrace.load.asking.tensors import FREE, VARIANTS, inferring
from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse, ModelMetadataResponse
from millrace.tensors import unpack_bytes
from services.frontend.server import Frontend
from tests.frontend.playing import frontend
from tests.frontend.tensors import TensorWorker
from tests.load.asks import asked, complaint, scenario


@pytest.fixture
async def tensors(redis_url: str) -> AsyncIterator[tuple[TensorWorker, Frontend]]:
    async with TensorWorker(redis_url) as played, frontend(redis_url) as served:
        yield played, served


async def inferred(
    tensors: tuple[TensorWorker, Frontend], requests: Any, index: int = 0
) -> tuple[ModelInferRequest, list[Received]]:
    worker, served = tensors
    async with Asker(scenario("double", served.grpc_address, requests), "infer", "salt") as asker:
        asking = asyncio.ensure_future(asked(asker, index))
        held = await worker.take_tensors()
        await held.answer()
        return held.request, await asking


async def test_tensors_are_drawn_to_fit_the_model(tensors: tuple[TensorWorker, Frontend]) -> None:
    sent = [(await inferred(tensors, {"rows": 2}, index))[0] for index in (0, 1, 8)]
    request, received = await inferred(tensors, {"rows": 2})
    assert received == [Received(2)]
    assert [(one.name, one.datatype, list(one.shape)) for one in request.inputs] == [
        ("x", "FP32", [2, 3]),
        ("n", "INT8", [2, 1]),
    ]
    values = np.frombuffer(request.raw_input_contents[0], np.float32)
    assert ((values >= 0) & (values < 1)).all()
    assert len(set(values)) == 6
    assert sent[0].raw_input_contents == sent[2].raw_input_contents != sent[1].raw_input_contents


async def test_tensors_are_taken_from_files_lists_and_shapes(
    tensors: tuple[TensorWorker, Frontend], tmp_path: Path
) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    request, received = await inferred(tensors, {"inputs": {"x": str(tmp_path / "x.npy"), "n": [[1], [2]]}}, index=5)
    assert received == [Received(2)]
    assert list(request.raw_input_contents) == [x.tobytes(), b"\x01\x02"]
    request, _ = await inferred(tensors, {"inputs": {"x": {"shape": [3, 3]}}, "rows": 3})
    assert [list(one.shape) for one in request.inputs] == [[3, 3], [3, 1]]


async def test_tensors_that_resume_are_named(tensors: tuple[TensorWorker, Frontend]) -> None:
    worker, served = tensors
    async with Asker(scenario("double", served.grpc_address, resume=True), "infer", "salt") as asker:
        asking = asyncio.ensure_future(asked(asker, 4))
        held = await worker.take_tensors()
        assert held.lease.ref.job_id == "salt-4"
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await worker.ending(held.lease.ref)).code is Code.CANCELLED


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"y": [1]}, "requests.inputs: double takes no y, but x, n"),
        ({"x": "/nowhere/x.npy"}, "requests.inputs.x: "),
        ({"x": [[1], [2, 3]]}, "requests.inputs.x: "),
        ({"n": [[1000]]}, "requests.inputs.n: "),
        ({"x": {"shape": [2, -1]}}, "requests.inputs.x: {'shape': [2, -1]} must be {shape: [2, 3]}"),
        ({"x": {"size": [2]}}, "requests.inputs.x: "),
        ({"x": {"shape": [10**6, 10**6]}}, "elements"),
    ],
)
async def test_tensors_that_do_not_fit_are_named(
    tensors: tuple[TensorWorker, Frontend], inputs: Any, text: str
) -> None:
    assert text in await complaint(scenario("double", tensors[1].grpc_address, {"inputs": inputs}), "infer")


async def test_a_file_of_another_datatype_is_named(tensors: tuple[TensorWorker, Frontend], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3)))
    requests = {"inputs": {"x": str(tmp_path / "x.npy")}}
    text = await complaint(scenario("double", tensors[1].grpc_address, requests), "infer")
    assert "holds FP64, the model takes FP32" in text


TensorMetadata = ModelMetadataResponse.TensorMetadata


@pytest.mark.parametrize(
    ("datatype", "shape", "sent"),
    [("FP16", [-1, -1, 2], [1, FREE, 2]), ("INT64", [4], [4]), ("BOOL", [], []), ("BYTES", [-1], [1])],
)
def test_every_dimension_gets_a_size(datatype: str, shape: list[int], sent: list[int]) -> None:
    model = ModelMetadataResponse(inputs=[TensorMetadata(name="x", datatype=datatype, shape=shape)])
    sending = inferring(scenario(), model)
    request = sending.prepare(0, None, None)
    assert (request.inputs[0].datatype, list(request.inputs[0].shape)) == (datatype, sent)
    assert sending.count(None) == Received(1)
    assert sending.variants == VARIANTS


def test_texts_are_drawn_for_tensors_of_bytes() -> None:
    model = ModelMetadataResponse(inputs=[TensorMetadata(name="x", datatype="BYTES", shape=[3])])
    (raw,) = inferring(scenario(), model).prepare(0, None, None).raw_input_contents
    assert all(text.isdigit() for text in unpack_bytes(raw))


def test_numbers_are_no_texts() -> None:
    model = ModelMetadataResponse(inputs=[TensorMetadata(name="x", datatype="BYTES", shape=[-1])])
    with pytest.raises(ValueError, match=r"requests\.inputs\.x: .*texts or bytes, not int"):
        inferring(scenario(requests={"inputs": {"x": [1]}}), model)


def test_a_datatype_that_numpy_lacks_needs_a_file() -> None:
    model = ModelMetadataResponse(inputs=[TensorMetadata(name="x", datatype="BF16", shape=[3])])
    with pytest.raises(ValueError, match=r"requests\.inputs\.x: BF16 needs a \.npy file"):
        inferring(scenario(), model)


def answer(values: list[float], datatype: str = "FP32", name: str = "y") -> ModelInferResponse:
    response = ModelInferResponse()
    response.outputs.add(name=name, datatype=datatype, shape=[len(values)])
    kind = {"FP32": np.float32, "INT32": np.int32}[datatype]
    response.raw_output_contents.append(np.array(values, kind).tobytes())
    return response


@pytest.mark.parametrize(
    ("later", "same"),
    [
        (answer([1, 100]), True),
        (answer([1.05, 100]), True),
        (answer([1.5, 100]), False),
        (answer([float("nan"), 100]), False),
        (answer([1, 100, 2]), False),
        (answer([1, 100], "INT32"), False),
        (answer([1, 100], name="z"), False),
    ],
)
def test_answers_are_the_same_within_a_thousandth_of_the_largest_value(later: ModelInferResponse, same: bool) -> None:
    model = ModelMetadataResponse(inputs=[TensorMetadata(name="x", datatype="FP32", shape=[3])])
    assert inferring(scenario(), model).same(answer([1, 100]), later) is same


def test_whole_numbers_must_be_equal() -> None:
    model = ModelMetadataResponse(inputs=[TensorMetadata(name="x", datatype="FP32", shape=[3])])
    same = inferring(scenario(), model).same
    assert same(answer([1, 9999], "INT32"), answer([1, 9999], "INT32"))
    assert not same(answer([1, 9999], "INT32"), answer([1, 9998], "INT32"))
