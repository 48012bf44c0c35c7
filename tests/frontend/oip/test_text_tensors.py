"""Text generation asked for with tensors: what becomes of the request, and of the results."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from millrace.errors import Code, InvalidRequest, Violation
from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.queue import ModelVersion
from millrace.tensors import pack_bytes, unpack_bytes
from millrace.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    CompletionDelta,
    GenerateRequest,
    GenerateResponse,
    Sampling,
    TokenLogprobs,
)
from services.frontend.oip.infer import parse_infer
from services.frontend.oip.text_answers import TextAnswer
from services.frontend.oip.text_tensors import TextRequest, read_text
from tests.frontend.oip.test_tensor_rules import BOUNDS as TENSOR_BOUNDS
from tests.frontend.texts import add, flag, say, streamed, text_request

BOUNDS = replace(TENSOR_BOUNDS, max_tensor_bytes=4 << 20)


def read(request: ModelInferRequest) -> TextRequest:
    return read_text(parse_infer(request.SerializeToString(), BOUNDS), BOUNDS)


def asked(request: ModelInferRequest) -> GenerateRequest:
    """What the worker gets, without a seed that was drawn for it."""
    return GenerateRequest.FromString(read(request).valid.payload)


def violations(request: ModelInferRequest) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        read(request)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return [violation.field for violation in caught.value.violations]


SETTINGS = {
    "temperature": 0.5,
    "top_p": "0.75",
    "top_k": -1,
    "min_p": None,
    "max_tokens": "10",
    "min_tokens": 2.0,
    "seed": 2**63,
    "stop": ["\n\n", "END"],
    "n": 2,
    "presence_penalty": 0.25,
    "frequency_penalty": -1,
    "repetition_penalty": 1.5,
    "logprobs": 3,
    "ignore_eos": "True",
    "include_stop_str_in_output": True,
    "stop_token_ids": [7],
    "logit_bias": {"5": -2},
}


def test_settings_come_as_vllm_names_them() -> None:
    generation = asked(text_request("naïve", settings=SETTINGS))
    assert (generation.model, generation.text) == ("echo", "naïve")
    sampling, stopping = generation.sampling, generation.stopping
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.HasField("min_p")) == (0.5, 0.75, 0, False)
    assert (sampling.seed, sampling.num_completions, dict(sampling.logit_bias)) == (2**63, 2, {5: -2})
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (0.25, -1, 1.5)
    assert (stopping.max_tokens, stopping.min_tokens, list(stopping.stop_strings)) == (10, 2, ["\n\n", "END"])
    assert (stopping.ignore_eos, stopping.include_stop_string, list(stopping.stop_token_ids)) == (True, True, [7])
    assert generation.reporting.logprobs == 3


def test_settings_come_as_tensors_of_any_width() -> None:
    request = text_request()
    add(request, "max_tokens", "INT32", struct.pack("<i", 12), (1, 1))
    add(request, "temperature", "FP64", struct.pack("<d", 0.5))
    add(request, "top_k", "UINT8", b"\x05")
    add(request, "random_seed", "UINT64", struct.pack("<Q", 2**64 - 1))
    add(request, "stop_words", "BYTES", pack_bytes([b"a", b"", b"b"]), (1, 3))
    generation = asked(request)
    assert (generation.stopping.max_tokens, list(generation.stopping.stop_strings)) == (12, ["a", "b"])
    sampling = generation.sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0.5, 5, 2**64 - 1)


def test_settings_come_as_parameters_and_typed_contents() -> None:
    request = ModelInferRequest(model_name="echo")
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(b"hello")
    request.inputs.add(name="max_tokens", datatype="INT32", shape=[1]).contents.int_contents.append(5)
    request.parameters["temperature"].double_param = 0.25
    say(request, stream=True, seed=3, stop="END", anything_else="is ignored", text_input="is the tensor")
    read_request = read(request)
    generation = GenerateRequest.FromString(read_request.valid.payload)
    assert (read_request.stream, generation.text, generation.stopping.max_tokens) == (True, "hello", 5)
    assert (generation.sampling.temperature, generation.sampling.seed) == (0.25, 3)
    assert list(generation.stopping.stop_strings) == ["END"]


def test_what_is_not_supported_may_be_there_where_it_changes_nothing() -> None:
    settings = {"use_beam_search": False, "skip_special_tokens": True, "length_penalty": "1.0"}
    request = text_request(settings=settings)
    add(request, "beam_width", "INT32", struct.pack("<i", 1))
    add(request, "bad_words", "BYTES", pack_bytes([b""]))
    assert asked(request).text == "hello"
    add(request, "length_penalty", "FP32", struct.pack("<f", 2))
    assert violations(request) == ["inputs[length_penalty]"]
    assert violations(text_request(settings={"use_beam_search": True})) == [
        "inputs[sampling_parameters].use_beam_search"
    ]


def test_what_is_unset_is_the_models_own_but_for_a_seed() -> None:
    generation = asked(text_request())
    assert generation.sampling.HasField("seed")
    generation.sampling.ClearField("seed")
    assert generation == GenerateRequest(model="echo", text="hello", sampling=Sampling())


WRONG: list[tuple[Callable[[], ModelInferRequest], list[str]]] = [
    (lambda: ModelInferRequest(model_name="echo"), ["inputs"]),
    (lambda: text_request(""), ["inputs[text_input]"]),
    (lambda: text_request(settings=[]), ["inputs[sampling_parameters]"]),
    (lambda: text_request(settings={"temprature": 1}), ["inputs[sampling_parameters].temprature"]),
    (lambda: text_request(settings={"temperature": "hot"}), ["inputs[sampling_parameters].temperature"]),
    (lambda: text_request(settings={"temperature": -1}), ["inputs[sampling_parameters].temperature"]),
    (lambda: text_request(settings={"temperature": 10**400}), ["inputs[sampling_parameters].temperature"]),
    (lambda: text_request(settings={"top_k": 2**40}), ["inputs[sampling_parameters].top_k"]),
    (lambda: text_request(settings={"stop": "\ud800"}), ["inputs[sampling_parameters].stop"]),
    (lambda: text_request(settings={"stop_token_ids": [1, -1]}), ["inputs[sampling_parameters].stop_token_ids"]),
    (lambda: text_request(settings={"logit_bias": {"-5": 1}}), ["inputs[sampling_parameters].logit_bias"]),
    (lambda: text_request(settings={"logit_bias": {"5": "inf"}}), ["inputs[sampling_parameters].logit_bias[5]"]),
    (lambda: text_request(settings={"max_tokens": 0}), ["inputs[sampling_parameters].max_tokens"]),
    (lambda: text_request(settings={"max_tokens": 1.5}), ["inputs[sampling_parameters].max_tokens"]),
    (lambda: text_request(settings={"max_tokens": True}), ["inputs[sampling_parameters].max_tokens"]),
    (lambda: text_request(settings={"stop": ["a", ""]}), ["inputs[sampling_parameters].stop[1]"]),
    (lambda: text_request(settings={"stop": 5}), ["inputs[sampling_parameters].stop"]),
    (lambda: text_request(settings={"logit_bias": {"a": 1}}), ["inputs[sampling_parameters].logit_bias"]),
    (lambda: text_request(settings={"n": 17}), ["inputs[sampling_parameters].n"]),
    (lambda: text_request(settings={"seed": 1, "random_seed": 1}), ["inputs[sampling_parameters].random_seed"]),
    (lambda: say(text_request(settings={"seed": 1}), seed=1), ["parameters[seed]"]),
    (lambda: say(text_request(), max_tokens="many"), ["parameters[max_tokens]"]),
    (lambda: say(text_request(), stream=1), ["parameters[stream]"]),
    (lambda: _with(text_request(), "q", "BYTES", pack_bytes([b"x"])), ["inputs[1].name"]),
    (lambda: _with(text_request(), "stream", "INT8", b"\1"), ["inputs[1].datatype"]),
    (lambda: _with(text_request(), "top_p", "FP32", bytes(8), (2,)), ["inputs[1].shape"]),
    (lambda: _with(text_request(), "top_p", "FP32", bytes(3)), ["raw_input_contents[1]"]),
    (lambda: _with(text_request(), "stop_words", "BYTES", pack_bytes([b"\xff"])), ["inputs[stop_words]"]),
    (lambda: _with(text_request(), "text_input", "BYTES", pack_bytes([b"x"])), ["inputs[1].name"]),
    (lambda: text_request(outputs=[{"name": "logits"}]), ["outputs[0].name"]),
    (lambda: text_request("x" * 2**20), [""]),
]


def _with(
    request: ModelInferRequest, name: str, datatype: str, raw: bytes, shape: tuple[int, ...] = (1,)
) -> ModelInferRequest:
    add(request, name, datatype, raw, shape)
    return request


@pytest.mark.parametrize(("make", "fields"), WRONG)
def test_what_is_wrong_has_the_callers_name(make: Callable[[], ModelInferRequest], fields: list[str]) -> None:
    assert violations(make()) == fields


def test_json_that_is_nested_without_end_is_no_object() -> None:
    request = ModelInferRequest(model_name="echo")
    add(request, "text_input", "BYTES", pack_bytes([b"x"]))
    add(request, "sampling_parameters", "BYTES", pack_bytes([b"[" * 3000]))
    assert violations(request) == ["inputs[sampling_parameters]"]


def test_what_a_worker_finds_wrong_has_the_callers_name_too() -> None:
    request = read(text_request(settings={"max_tokens": 5}))
    renamed = request.rename(InvalidRequest([Violation("text", "too long"), Violation("stopping.max_tokens", "large")]))
    assert [violation.field for violation in renamed.violations] == [
        "inputs[text_input]",
        "inputs[sampling_parameters].max_tokens",
    ]


def test_a_whole_text_begins_with_the_prompt_unless_that_is_excluded() -> None:
    assert read(text_request()).prefix == "hello"
    assert read(flag(text_request(), "exclude_input_in_output", True)).prefix == ""
    assert read(streamed()).prefix == ""
    assert read(flag(streamed(), "exclude_input_in_output", False)).prefix == "hello"


def result(offset: int, *deltas: CompletionDelta) -> GenerateResponse:
    return GenerateResponse(offset=offset, deltas=deltas)


def outputs(answer: TextAnswer) -> dict[str, Any]:
    response = answer.response(ModelVersion("echo", "1"), "17")
    assert (response.model_name, response.model_version, response.id) == ("echo", "1", "17")
    raw = dict(zip((output.name for output in response.outputs), response.raw_output_contents, strict=True))
    return {name: unpack_bytes(part) if name != "num_output_tokens" else part for name, part in raw.items()}


def test_an_answer_gathers_each_completion() -> None:
    request = flag(text_request(settings={"n": 2, "logprobs": 1}), "return_finish_reason", True)
    for name in ("num_output_tokens", "text_output", "logprobs"):
        request.outputs.add(name=name)
    answer = TextAnswer(read(request))
    second = TokenLogprobs.Candidate(token_id=6, logprob=-0.25, token=b"\xc3")
    drawn = TokenLogprobs(token_id=5, logprob=-0.5, token=b"a", top=[second])
    answer.add(result(1, CompletionDelta(index=1, text="a", token_ids=[5], logprobs=[drawn])))
    answer.add(result(2, CompletionDelta(text="b", token_ids=[1, 2]), CompletionDelta(index=1, text="c")))
    answer.add(result(3, CompletionDelta(text="", finish_reason=FINISH_REASON_LENGTH)))
    seen = outputs(answer)
    assert list(seen) == ["num_output_tokens", "text_output", "logprobs", "finish_reason"]
    assert seen["text_output"] == [b"hellob", b"helloac"]
    assert seen["num_output_tokens"] == struct.pack("<2I", 2, 1)
    assert seen["finish_reason"] == [b"length", b"None"]
    assert [json.loads(text) for text in seen["logprobs"]] == [
        [],
        [{"5": {"logprob": -0.5, "decoded_token": "a"}, "6": {"logprob": -0.25, "decoded_token": "�"}}],
    ]


def test_a_part_of_a_stream_has_its_own_alone() -> None:
    request = read(flag(streamed(), "exclude_input_in_output", False))
    first, later = TextAnswer(request), TextAnswer(request)
    first.add(result(1, CompletionDelta(text=" world")))
    later.add(result(2, CompletionDelta(text="!")))
    assert (outputs(first), outputs(later)) == ({"text_output": [b"hello world"]}, {"text_output": [b"!"]})
