"""What the batch engine makes of requests of every datatype, and of bad ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from millrace.errors import Code
from millrace.oip.inference_pb2 import ModelInferRequest
from tests.graphs import affine, attention, identity, model
from tests.worker.batch.requests import answer, engine_of, gated, request, response_of, row, run, shared

TYPES: list[tuple[int, Any]] = [
    (TensorProto.BOOL, np.array([[True, False]])),
    (TensorProto.INT8, np.array([[-128, 127]], np.int8)),
    (TensorProto.UINT16, np.array([[0, 65535]], np.uint16)),
    (TensorProto.INT64, np.array([[-(2**63), 2**63 - 1]], np.int64)),
    (TensorProto.UINT64, np.array([[0, 2**64 - 1]], np.uint64)),
    (TensorProto.FLOAT16, np.array([[0.5, np.inf]], np.float16)),
    (TensorProto.DOUBLE, np.array([[1e300, -0.0]], np.float64)),
]


@pytest.mark.parametrize(("element_type", "values"), TYPES)
def test_every_datatype_goes_through_unchanged(element_type: int, values: Any) -> None:
    engine = engine_of(identity(element_type))
    outputs = run(engine, {"a": request(x=values), "b": request(x=values[:, ::-1])})
    assert answer(outputs["a"])["y"].tobytes() == values.tobytes()
    assert answer(outputs["b"])["y"].tobytes() == values[:, ::-1].tobytes()


def test_texts_are_tensors_of_bytes() -> None:
    engine = engine_of(identity(TensorProto.STRING))
    values = np.array([["naïve".encode(), b""]], object)
    (outputs,) = run(engine, {"a": request(x=values)}).values()
    assert response_of(outputs).raw_output_contents[0] == b"\x06\0\0\0na\xc3\xafve\0\0\0\0"


@pytest.mark.parametrize(
    ("datatype", "field", "values", "element_type"),
    [
        ("FP32", "fp32_contents", [1.5, 2.5], TensorProto.FLOAT),
        ("INT8", "int_contents", [-3, 4], TensorProto.INT8),
        ("BOOL", "bool_contents", [True, False], TensorProto.BOOL),
        ("BYTES", "bytes_contents", [b"a", b"bc"], TensorProto.STRING),
    ],
)
def test_typed_contents_are_read_too(datatype: str, field: str, values: list[Any], element_type: int) -> None:
    engine = engine_of(identity(element_type))
    message = ModelInferRequest()
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[1, 2])
    getattr(tensor.contents, field).extend(values)
    (outputs,) = run(engine, {"a": message.SerializeToString()}).values()
    expected = run(
        engine, {"a": request(x=np.array([values], object if datatype == "BYTES" else datatype_of(datatype)))}
    )
    assert response_of(outputs) == response_of(expected["a"])


def datatype_of(name: str) -> Any:
    return {"FP32": np.float32, "INT8": np.int8, "BOOL": np.bool_}[name]


def _changed(change: Callable[[ModelInferRequest], Any]) -> bytes:
    message = ModelInferRequest.FromString(row(1, 2, 3))
    change(message)
    return message.SerializeToString()


BAD = [
    (b"\xff\xff", ""),
    (ModelInferRequest().SerializeToString(), "inputs"),
    (_changed(lambda m: setattr(m.inputs[0], "datatype", "INT64")), "inputs[0].datatype"),
    (_changed(lambda m: m.inputs[0].shape.append(1)), "inputs[0].shape"),
    (_changed(lambda m: m.inputs[0].shape.__setitem__(0, -1)), "inputs[0].shape"),
    (_changed(lambda m: m.inputs[0].shape.__setitem__(1, 4)), "inputs[0]"),
    (_changed(lambda m: m.raw_input_contents.__setitem__(0, b"short")), "inputs[0]"),
    (_changed(lambda m: m.outputs.add(name="z")), "outputs"),
]


@pytest.mark.parametrize(("body", "field"), BAD)
def test_a_bad_request_never_reaches_a_batch(body: bytes, field: str) -> None:
    engine = shared(affine)
    gate = gated(engine)
    gate.opened.set()
    try:
        ended = run(engine, {"bad": body, "good": row(1, 2, 3)})
        assert gate.runs == [1]
    finally:
        engine._idle[0] = gate._session
    failure = ended["bad"].failure
    assert failure is not None
    assert (failure.code, failure.field) == (Code.INVALID_ARGUMENT, field)
    assert answer(ended["good"])["y"].tolist() == [[3, 5, 7]]


def test_inputs_that_must_be_of_one_length_are_compared() -> None:
    engine = shared(attention)
    body = request(input_ids=np.ones((1, 3), np.int64), attention_mask=np.ones((1, 4), np.int64))
    failure = run(engine, {"a": body})["a"].failure
    assert failure is not None
    assert (failure.field, "must have 3 where it has 4" in failure.message) == ("inputs[1].shape", True)


def test_text_that_is_no_utf_8_is_refused() -> None:
    engine = engine_of(identity(TensorProto.STRING))
    failure = run(engine, {"a": request(x=np.array([[b"\xff", b""]], object))})["a"].failure
    assert failure is not None
    assert failure.field == "inputs[0]"


def test_a_graph_with_anything_but_tensors_cannot_be_served() -> None:
    sequence = model(
        [("SequenceConstruct", ["x"], ["s"], {})],
        {"x": (TensorProto.FLOAT, ["batch", 2])},
        {"s": (TensorProto.FLOAT, ["batch", 2])},
        {},
    )
    kind = onnx.helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["batch", 2])
    sequence.graph.output[0].CopyFrom(kind)
    with pytest.raises(ValueError, match=r"s is a seq\(tensor\(float\)\)"):
        engine_of(sequence)
