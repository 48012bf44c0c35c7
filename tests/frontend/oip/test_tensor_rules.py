"""What is said about tensors that do not fit their model."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from millrace.errors import InvalidRequest
from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.tensors import TensorSpec
from services.frontend.oip import tensor_rules
from services.frontend.oip.infer import parse_infer
from services.frontend.rules import Bounds
from tests.frontend.tensors import ENTRY, infer

BOUNDS = Bounds(
    max_request_bytes=1 << 20,
    max_tensor_bytes=8192,
    default_timeout_s=600,
    max_timeout_s=3600,
    max_resume_window_s=600,
)


def violations(message: ModelInferRequest) -> list[str]:
    try:
        parse_infer(message.SerializeToString(), BOUNDS).against(ENTRY)
    except InvalidRequest as error:
        return [violation.field for violation in error.violations]
    return []


def typed(**contents: list[Any]) -> ModelInferRequest:
    """`n` as typed contents."""
    request = infer()
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3])
    for field, values in contents.items():
        getattr(request.inputs[1].contents, field).extend(values)
    return request


def test_what_fits_is_valid_and_costs_its_rows() -> None:
    request = infer(rows=3, id="a")
    request.outputs.add(name="y")
    valid = parse_infer(request.SerializeToString(), BOUNDS).against(ENTRY)
    assert (valid.task, valid.cost, valid.payload) == ("infer", 3, request.SerializeToString())
    assert violations(typed(int_contents=[-128])) == []


CHANGES: list[tuple[Callable[[ModelInferRequest], Any], list[str]]] = [
    (lambda m: m.ClearField("model_name"), ["model_name"]),
    (lambda m: setattr(m.inputs[0], "name", "w"), ["inputs[0].name", "inputs"]),
    (
        lambda m: setattr(m.inputs[1], "name", "x"),
        ["inputs[1].name", "inputs", "inputs[1].datatype", "inputs[1].shape"],
    ),
    (lambda m: m.inputs.pop(), ["inputs", "raw_input_contents"]),
    (lambda m: m.inputs.add(name="more"), ["inputs[2].name", "raw_input_contents"]),
    (lambda m: setattr(m.inputs[0], "datatype", "FP64"), ["inputs[0].datatype"]),
    (lambda m: setattr(m.inputs[0], "datatype", ""), ["inputs[0].datatype"]),
    (lambda m: m.inputs[0].shape.append(1), ["inputs[0].shape"]),
    (lambda m: m.inputs[0].shape.__setitem__(1, 4), ["inputs[0].shape"]),
    (lambda m: m.inputs[0].shape.__setitem__(1, -3), ["inputs[0].shape"]),
    (lambda m: m.inputs[0].shape.__setitem__(0, 2**62), ["inputs[0].shape", "inputs"]),
    (lambda m: m.inputs[0].shape.__setitem__(0, 2**31 - 1), ["raw_input_contents[0]", "inputs"]),
    (lambda m: m.inputs[0].shape.__setitem__(0, 0), ["raw_input_contents[0]", "inputs"]),
    (lambda m: m.raw_input_contents.__setitem__(0, bytes(11)), ["raw_input_contents[0]"]),
    (lambda m: m.raw_input_contents.pop(), ["raw_input_contents"]),
    (lambda m: m.inputs[0].contents.fp32_contents.append(1), ["inputs[0].contents"]),
    (lambda m: m.outputs.add(name="q"), ["outputs[0].name"]),
    (lambda m: [m.outputs.add(name="y") for _ in range(2)], ["outputs[1].name"]),
    (
        lambda m: m.outputs.add(name="y").parameters["classification"].CopyFrom(_whole(0)),
        ["outputs[0].parameters[classification]"],
    ),
    (
        lambda m: setattr(m.outputs.add(name="y").parameters["classification"], "string_param", "3"),
        ["outputs[0].parameters[classification]"],
    ),
    (
        lambda m: m.outputs.add(name="z").parameters["classification"].CopyFrom(_whole(3)),
        ["outputs[0].parameters[classification]"],
    ),
    (
        lambda m: m.outputs.add(name="y").parameters["shared_memory_byte_size"].CopyFrom(_whole(3)),
        ["outputs[0].parameters[shared_memory_byte_size]"],
    ),
    (lambda m: m.parameters["millrace_after_offset"].CopyFrom(_whole(3)), ["job.after_offset"]),
    (
        lambda m: setattr(m.parameters["millrace_after_history"], "string_param", "-1"),
        ["parameters[millrace_after_history]"],
    ),
    (lambda m: setattr(m.parameters["priority"], "string_param", "high"), ["parameters[priority]"]),
    (
        lambda m: m.inputs[0].parameters["shared_memory_region"].CopyFrom(_whole(3)),
        ["inputs[0].parameters[shared_memory_region]"],
    ),
    (lambda m: m.parameters["sequence_id"].CopyFrom(_whole(7)), ["parameters[sequence_id]"]),
    (lambda m: m.parameters["millrace_job_id"].CopyFrom(_whole(7)), ["parameters[millrace_job_id]"]),
    (lambda m: m.parameters["millrace_else"].CopyFrom(_whole(7)), ["parameters[millrace_else]"]),
    (lambda m: m.parameters["timeout"].CopyFrom(_whole(-1)), ["parameters[timeout]"]),
    (lambda m: setattr(m.parameters["millrace_job_id"], "string_param", "a b"), ["job.job_id"]),
    (lambda m: setattr(m.parameters["timeout"], "int64_param", 10**13), ["job.timeout"]),
]


def _whole(value: int) -> Any:
    parameter = ModelInferRequest().parameters["any"]
    parameter.int64_param = value
    return parameter


@pytest.mark.parametrize(("change", "fields"), CHANGES)
def test_what_does_not_fit_is_named_with_all_else_that_is_wrong(
    change: Callable[[ModelInferRequest], Any], fields: list[str]
) -> None:
    request = infer()
    change(request)
    assert violations(request) == fields


def test_parameters_that_are_not_ours_are_the_models_business() -> None:
    request = infer()
    request.parameters["anything"].string_param = "goes"
    request.parameters["sequence_id"].int64_param = 0
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    request.parameters["binary_data_output"].bool_param = True
    request.inputs[0].parameters["binary_data_size"].int64_param = 12
    request.outputs.add(name="y").parameters["binary_data"].bool_param = True
    assert violations(request) == []


def test_contents_that_are_there_but_empty_are_unset() -> None:
    request = infer()
    request.inputs[0].contents.SetInParent()
    assert violations(request) == []


def test_the_largest_of_numbers_can_be_asked_for() -> None:
    request = infer(rows=2)
    request.outputs.add(name="y").parameters["classification"].int64_param = 5
    assert violations(request) == []


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_floats_of_16_bits_are_sent_raw(datatype: str) -> None:
    halves = replace(ENTRY, inputs=(TensorSpec("h", datatype, (-1, 2)),))
    request = ModelInferRequest(model_name="double", raw_input_contents=[bytes(3 * 2 * 2)])
    request.inputs.add(name="h", datatype=datatype, shape=[3, 2])
    assert parse_infer(request.SerializeToString(), BOUNDS).against(halves).cost == 3
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([0.0] * 6)
    with pytest.raises(InvalidRequest, match="send raw_input_contents"):
        parse_infer(request.SerializeToString(), BOUNDS).against(halves)


def test_a_model_without_batches_takes_its_shapes_as_they_are() -> None:
    whole = replace(ENTRY, inputs=(TensorSpec("s", "FP32", ()), TensorSpec("v", "FP32", (3,))), max_batch_size=0)
    request = ModelInferRequest(model_name="double", raw_input_contents=[bytes(4), bytes(12)])
    request.inputs.add(name="s", datatype="FP32", shape=[])
    request.inputs.add(name="v", datatype="FP32", shape=[3])
    assert parse_infer(request.SerializeToString(), BOUNDS).against(whole).cost == 1
    request.inputs[1].shape.insert(0, 1)
    with pytest.raises(InvalidRequest, match=r"v takes \[3\], not \[1, 3\]"):
        parse_infer(request.SerializeToString(), BOUNDS).against(whole)


def test_how_a_job_runs_is_not_what_it_is() -> None:
    plain, other = infer(), infer(id="another")
    for request in (plain, other):
        request.parameters["millrace_job_id"].string_param = "a"
    other.parameters["priority"].int64_param = 1
    other.parameters["millrace_after_offset"].int64_param = 7
    other.parameters["millrace_after_history"].string_param = str(2**64 - 1)
    other.parameters["triton_enable_empty_final_response"].bool_param = True
    first, second = (parse_infer(one.SerializeToString(), BOUNDS, attachable=True) for one in (plain, other))
    assert first.fingerprint == second.fingerprint
    assert (second.options.position.offset, second.options.position.history) == (7, b"\xff" * 8)


@pytest.mark.parametrize(
    ("contents", "fields"),
    [
        ({"int_contents": [1, 2]}, ["inputs[1].contents.int_contents"]),
        ({"int_contents": [128]}, ["inputs[1].contents.int_contents"]),
        ({"fp32_contents": [1.0]}, ["inputs[1].contents.fp32_contents"]),
        ({}, ["inputs[1].contents.int_contents"]),
    ],
)
def test_typed_contents_are_counted_and_bounded(contents: dict[str, list[Any]], fields: list[str]) -> None:
    assert violations(typed(**contents)) == fields


def test_rows_must_be_as_many_everywhere_and_no_more_than_the_model_takes() -> None:
    assert violations(infer(rows=4)) == []
    assert violations(infer(rows=5)) == ["inputs"]
    request = infer(rows=2)
    request.inputs[1].shape[0] = 1
    request.raw_input_contents[1] = bytes(1)
    assert violations(request) == ["inputs"]


def test_a_request_that_is_too_large_is_refused_before_it_is_read() -> None:
    request = infer()
    request.raw_input_contents[0] = bytes(9000)
    assert violations(request) == ["raw_input_contents"]


def test_what_is_looked_at_one_by_one_has_few_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = replace(ENTRY, inputs=(TensorSpec("t", "BYTES", (-1,)),), max_batch_size=0)
    request = ModelInferRequest(model_name="double", raw_input_contents=[bytes(4 * 9)])
    request.inputs.add(name="t", datatype="BYTES", shape=[9])
    asked = parse_infer(request.SerializeToString(), BOUNDS)
    assert asked.against(texts).cost == 1
    monkeypatch.setattr(tensor_rules, "MOST_TEXTS", 8)
    with pytest.raises(InvalidRequest, match="at most 8 elements"):
        asked.against(texts)
    monkeypatch.setattr(tensor_rules, "MOST_TYPED", 2)
    assert violations(typed(int_contents=[1])) == ["inputs[0].contents.fp32_contents"]


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not a valid message"):
        parse_infer(b"\xff\xff", BOUNDS)
