"""What a body says, as a GenerateRequest."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.errors import InvalidRequest
from millrace.v1.generation_pb2 import GenerateRequest
from services.frontend.openai.embeddings import read_embeddings
from services.frontend.openai.errors import describe
from services.frontend.openai.fields import Fields, parse_object
from services.frontend.openai.requests import Wanted, read_chat, read_completions
from services.frontend.parse import raise_any
from services.frontend.rules import check_generate


def fields(**values: Any) -> Fields:
    return parse_object(json.dumps({"model": "m"} | values).encode())


def text(**values: Any) -> Wanted:
    return read_completions(fields(**({"prompt": "p"} | values)))


def chat(**values: Any) -> Wanted:
    return read_chat(fields(**({"messages": [{"role": "user", "content": "p"}]} | values)))


def blamed(error: InvalidRequest) -> Any:
    told: Any = describe(error)["error"]
    return told["param"]


def test_what_is_unset_or_null_is_left_to_the_model() -> None:
    bare = GenerateRequest(model="m", text="p")
    for wanted in (text(), text(temperature=None, n=None, stop=None, logit_bias=None, response_format=None)):
        (request,) = wanted.requests
        assert not request.sampling.ListFields()
        assert not request.stopping.ListFields()
        assert (request.model, request.text) == (bare.model, bare.text)


def test_numbers_go_where_they_belong() -> None:
    (request,) = text(
        temperature=0.5,
        top_p=0.25,
        top_k=-1,
        min_p=0.125,
        n=3,
        seed=-1,
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1.5,
        logit_bias={"17": -100},
        max_tokens=9,
        min_tokens=2,
        stop="end",
        stop_token_ids=[5],
        ignore_eos=True,
        logprobs=2,
    ).requests
    sampling, stopping = request.sampling, request.stopping
    assert (sampling.temperature, sampling.top_p, sampling.min_p, sampling.repetition_penalty) == (
        0.5,
        0.25,
        0.125,
        1.5,
    )
    assert (sampling.HasField("top_k"), sampling.top_k, sampling.num_completions) == (True, 0, 3)
    assert (sampling.seed, dict(sampling.logit_bias)) == ((1 << 64) - 1, {17: -100.0})
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    assert (stopping.max_tokens, stopping.min_tokens, list(stopping.stop_strings)) == (9, 2, ["end"])
    assert (list(stopping.stop_token_ids), stopping.ignore_eos, request.reporting.logprobs) == ([5], True, 2)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_a_prompt_is_a_text_or_tokens_or_several_of_either(prompt: Any, expected: list[Any]) -> None:
    requests = text(prompt=prompt).requests
    assert [request.text or list(request.tokens.ids) for request in requests] == expected


def test_an_echo_asks_for_what_the_frontend_cannot_know() -> None:
    plain, scored, tokens = text(echo=True), text(echo=True, logprobs=1), text(echo=True, prompt=[1, 2])
    assert not plain.requests[0].reporting.HasField("prompt_logprobs")
    assert scored.requests[0].reporting.prompt_logprobs == 1
    assert tokens.requests[0].reporting.HasField("prompt_logprobs")
    assert text(echo=True, max_tokens=0).prompt_only


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ({"response_format": {"type": "text"}}, None, ""),
        ({"response_format": {"type": "json_object"}}, "json_schema", '{"type":"object"}'),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}},
            "json_schema",
            '{"type":"integer"}',
        ),
        ({"structured_outputs": {"regex": "a+"}}, "regex", "a+"),
        ({"guided_json": {"type": "integer"}}, "json_schema", '{"type":"integer"}'),
        ({"guided_json": "{}"}, "json_schema", "{}"),
        ({"guided_grammar": "start: A"}, "grammar", "start: A"),
    ],
)
def test_formats_are_known_by_all_their_names(values: dict[str, Any], kind: str | None, expected: str) -> None:
    output_format = chat(**values).requests[0].output_format
    assert output_format.WhichOneof("format") == kind
    assert kind is None or getattr(output_format, kind) == expected
    assert list(chat(guided_choice=["a", "b"]).requests[0].output_format.choices.texts) == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": 1e300}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": 2, "best_of": 3}, "best_of"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1 << 40}, "max_tokens"),
        ({"seed": 1 << 64}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"stop": "x" * 300}, "stop[0]"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"5": "x"}}, "logit_bias"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"guided_regex": "a", "guided_json": {}}, "guided_regex"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"tools": [{}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], param: str) -> None:
    for read in (text, chat):
        with pytest.raises(InvalidRequest) as caught:
            raise_any(check_generate(read(**values).requests[0]))
        assert blamed(caught.value) == param


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [[1], "a", None]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": ["a", "b"], "stream": True}, "prompt"),
        ({"echo": True, "logprobs": 1, "stream": True}, "echo"),
        ({"logprobs": 21}, "logprobs"),
        ({"suffix": "x"}, "suffix"),
    ],
)
def test_what_is_wrong_with_a_text_completion_is_named(values: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        raise_any(check_generate(text(**values).requests[0]))
    assert blamed(caught.value) == param


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": 2}, "logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
    ],
)
def test_what_is_wrong_with_a_chat_is_named(values: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        raise_any(check_generate(chat(**values).requests[0]))
    assert blamed(caught.value) == param


def test_fields_that_nobody_knows_are_ignored_and_neutral_ones_taken() -> None:
    wanted = chat(user="me", service_tier="auto", tools=[], tool_choice="none", modalities=["text"], metadata={})
    assert wanted.requests == chat().requests


@pytest.mark.parametrize("raw", [b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"\\uDFFF": 1}', b'{"a": ' + b"9" * 5000 + b"}"])
def test_json_that_no_text_or_number_can_be_made_of_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        parse_object(raw)


NAMES = (
    *("model", "prompt", "messages", "n", "best_of", "stop", "seed", "logit_bias", "logprobs", "top_logprobs", "echo"),
    *("stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p"),
    *("response_format", "structured_outputs", "guided_json", "guided_choice", "guided_regex", "tools", "tool_choice"),
    *("modalities", "input", "encoding_format", "dimensions", "stop_token_ids", "ignore_eos", "min_tokens"),
)
INNER = (*NAMES, "type", "json_schema", "schema", "role", "content", "text", "json", "choice", "include_usage", "5")
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4)
)
VALUES = st.recursive(
    LEAVES | st.sampled_from(["text", "json_object", "json_schema", "user"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
def test_whatever_a_body_holds_it_is_a_request_or_refused(values: dict[str, Any]) -> None:
    body = parse_object(json.dumps({"model": "m", "prompt": "p"} | values).encode())
    for read in (read_completions, read_chat):
        with suppress(InvalidRequest):
            for request in read(body).requests:
                raise_any(check_generate(request))
                assert GenerateRequest.FromString(request.SerializeToString()) == request
    with suppress(InvalidRequest):
        read_embeddings(body)


def test_characters_beyond_the_first_plane_are_taken() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00"}').text("a") == "😀"


def test_an_input_of_texts_is_an_embed_request() -> None:
    request, encoding = read_embeddings(fields(input=["a", "b"], encoding_format="base64"))
    assert (list(request.texts), request.model, encoding) == (["a", "b"], "m", "base64")
    for values, param in (
        ({}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": "a", "dimensions": 5}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            read_embeddings(fields(**values))
        assert blamed(caught.value) == param
