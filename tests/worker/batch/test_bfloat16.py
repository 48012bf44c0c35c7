"""BF16 tensors in and out of graphs."""

import math

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse
from millrace.tensors import TensorSpec
from services.worker.batch import BatchEngine
from services.worker.batch.bfloat16 import from_bits, to_bits
from tests.graphs import identity, model
from tests.worker.batch.requests import engine_of, response_of, run

VALUES = [0.0, -0.0, 1.0, -2.5, 3.0e38, 1e-40, math.inf, -math.inf]
HALVES = np.array(VALUES, ml_dtypes.bfloat16).reshape(-1, 2)


def request(rows: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    message = ModelInferRequest(model_name="tested")
    message.inputs.add(name="x", datatype="BF16", shape=rows.shape)
    message.raw_input_contents.append(rows.tobytes())
    return message.SerializeToString()


def answered(engine: BatchEngine, *bodies: bytes) -> list[ModelInferResponse]:
    ended = run(engine, {str(index): body for index, body in enumerate(bodies)})
    return [response_of(ended[str(index)]) for index in range(len(bodies))]


def test_bits_come_out_as_they_went_in() -> None:
    engine = engine_of(identity(TensorProto.BFLOAT16))
    assert engine.signature.inputs == (TensorSpec("x", "BF16", (-1, 2)),)
    assert engine.signature.outputs == (TensorSpec("y", "BF16", (-1, 2)),)
    for rows, response in zip(
        (HALVES, HALVES[:1]), answered(engine, request(HALVES), request(HALVES[:1])), strict=True
    ):
        (output,) = response.outputs
        assert (output.datatype, list(output.shape)) == ("BF16", list(rows.shape))
        assert response.raw_output_contents[0] == rows.tobytes()


def test_every_value_survives_the_way_over_fp32() -> None:
    bits = np.arange(1 << 16, dtype="<u2").tobytes()
    assert to_bits(from_bits(bits)) == bits
    finite = np.frombuffer(bits, ml_dtypes.bfloat16)
    np.testing.assert_array_equal(from_bits(bits), finite.astype(np.float32))


def test_an_output_that_other_nodes_and_inner_graphs_read_is_still_the_graphs_own() -> None:
    """h = 2 x in BF16, which is an output, is read by a node and by both branches of an If."""
    branches = {
        name: helper.make_graph(
            [helper.make_node("Identity", ["h"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, None)],
        )
        for name in ("then", "else")
    }
    graph = model(
        [
            ("Cast", ["x"], ["wide"], {"to": TensorProto.FLOAT}),
            ("Add", ["wide", "wide"], ["twice"], {}),
            ("Cast", ["twice"], ["h"], {"to": TensorProto.BFLOAT16}),
            ("Identity", ["h"], ["y"], {}),
            ("If", ["yes"], ["z"], {"then_branch": branches["then"], "else_branch": branches["else"]}),
        ],
        {"x": (TensorProto.BFLOAT16, ["batch", 2])},
        {name: (TensorProto.BFLOAT16, ["batch", 2]) for name in ("h", "y", "z")},
        {"yes": np.array(True)},
    )
    (response,) = answered(engine_of(graph), request(HALVES[:2]))
    expected = (HALVES[:2].astype(np.float32) * 2).astype(ml_dtypes.bfloat16).tobytes()
    assert [output.name for output in response.outputs] == ["h", "y", "z"]
    assert list(response.raw_output_contents) == [expected] * 3


def test_an_odd_number_of_bytes_is_refused_with_its_field() -> None:
    message = ModelInferRequest.FromString(request(HALVES))
    message.raw_input_contents[0] = b"abc"
    output = run(engine_of(identity(TensorProto.BFLOAT16)), {"a": message.SerializeToString()})["a"]
    assert output.failure is not None
    assert output.failure.field == "inputs[0]"


def test_typed_contents_are_refused() -> None:
    message = ModelInferRequest(model_name="tested")
    message.inputs.add(name="x", datatype="BF16", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    output = run(engine_of(identity(TensorProto.BFLOAT16)), {"a": message.SerializeToString()})["a"]
    assert output.failure is not None
    assert "BF16 has no typed contents" in output.failure.message


def test_a_graph_without_it_is_left_as_it_is() -> None:
    engine = engine_of(identity(TensorProto.FLOAT))
    assert engine.signature.inputs == (TensorSpec("x", "FP32", (-1, 2)),)


@pytest.mark.parametrize("elements", [[1, 2], [[1, 2]]])
def test_any_shape_of_fp32_becomes_bits(elements: list[object]) -> None:
    assert to_bits(np.array(elements, np.float32)) == np.array([1, 2], ml_dtypes.bfloat16).tobytes()


def test_the_graph_of_a_port_that_is_an_initialiser_too_keeps_it() -> None:
    graph = identity(TensorProto.BFLOAT16)
    graph.graph.initializer.append(onnx.helper.make_tensor("spare", TensorProto.BFLOAT16, [1], [1.0]))
    (response,) = answered(engine_of(graph), request(HALVES))
    assert response.raw_output_contents[0] == HALVES.tobytes()
