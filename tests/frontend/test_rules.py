"""The table of what a request may say."""

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from millrace.errors import InvalidRequest
from millrace.queue import Priority
from millrace.v1.generation_pb2 import (
    Conversation,
    GenerateRequest,
    OutputFormat,
    Reporting,
    Sampling,
    Stopping,
    TokenIds,
)
from millrace.v1.job_pb2 import PRIORITY_INTERACTIVE, JobOptions
from services.frontend.parse import parse_generate
from services.frontend.rules import Bounds
from tests.frontend.playing import request

BOUNDS = Bounds(
    max_request_bytes=8192,
    max_tensor_bytes=8192,
    default_timeout_s=600,
    max_timeout_s=3600,
    max_resume_window_s=600,
)
NAN = math.nan


def violations(message: GenerateRequest) -> list[str]:
    try:
        parse_generate(message.SerializeToString(), BOUNDS)
    except InvalidRequest as error:
        return [violation.field for violation in error.violations]
    return []


@pytest.mark.parametrize(
    ("fields", "violated"),
    [
        ({"model": ""}, ["model"]),
        ({"text": ""}, ["text"]),
        ({"text": None}, ["prompt"]),
        ({"text": None, "tokens": TokenIds()}, ["tokens.ids"]),
        ({"text": None, "conversation": Conversation()}, ["conversation.messages"]),
        (
            {"text": None, "conversation": Conversation(messages=[Conversation.Message(content="x")])},
            ["conversation.messages[0].role"],
        ),
        ({"sampling": Sampling(temperature=-0.1)}, ["sampling.temperature"]),
        ({"sampling": Sampling(temperature=NAN)}, ["sampling.temperature"]),
        ({"sampling": Sampling(temperature=math.inf)}, ["sampling.temperature"]),
        ({"sampling": Sampling(top_p=0)}, ["sampling.top_p"]),
        ({"sampling": Sampling(top_p=1.1)}, ["sampling.top_p"]),
        ({"sampling": Sampling(min_p=1)}, ["sampling.min_p"]),
        ({"sampling": Sampling(repetition_penalty=0)}, ["sampling.repetition_penalty"]),
        ({"sampling": Sampling(frequency_penalty=2.5)}, ["sampling.frequency_penalty"]),
        ({"sampling": Sampling(presence_penalty=-2.5)}, ["sampling.presence_penalty"]),
        ({"sampling": Sampling(num_completions=0)}, ["sampling.num_completions"]),
        ({"sampling": Sampling(num_completions=17)}, ["sampling.num_completions"]),
        ({"sampling": Sampling(logit_bias={7: NAN})}, ["sampling.logit_bias[7]"]),
        ({"stopping": Stopping(max_tokens=0)}, ["stopping.max_tokens"]),
        ({"stopping": Stopping(max_tokens=3, min_tokens=4)}, ["stopping.min_tokens"]),
        ({"stopping": Stopping(stop_strings=["x"] * 17)}, ["stopping.stop_strings"]),
        ({"stopping": Stopping(stop_strings=["x", ""])}, ["stopping.stop_strings[1]"]),
        ({"stopping": Stopping(stop_strings=["é" * 129])}, ["stopping.stop_strings[0]"]),
        ({"output_format": OutputFormat(regex="")}, ["output_format.regex"]),
        ({"output_format": OutputFormat(choices=OutputFormat.Choices())}, ["output_format.choices.texts"]),
        ({"reporting": Reporting(logprobs=21)}, ["reporting.logprobs"]),
        ({"reporting": Reporting(prompt_logprobs=21)}, ["reporting.prompt_logprobs"]),
        ({"job": JobOptions(job_id="a b")}, ["job.job_id"]),
        ({"job": JobOptions(job_id="a" * 65)}, ["job.job_id"]),
        ({"job": JobOptions(priority=7)}, ["job.priority"]),  # type: ignore[arg-type]
        ({"job": JobOptions(after_offset=1)}, ["job.after_offset"]),
        ({"job": JobOptions(job_id="a", after_history=1)}, ["job.after_history"]),
        ({"job": JobOptions(resume_window=Duration(seconds=601))}, ["job.resume_window"]),
        ({"job": JobOptions(timeout=Duration(seconds=-1))}, ["job.timeout"]),
        ({"job": JobOptions(timeout=Duration(seconds=3601))}, ["job.timeout"]),
        ({"text": "x" * 9000}, [""]),
    ],
)
def test_what_is_out_of_range_is_named(fields: dict[str, Any], violated: list[str]) -> None:
    assert violations(request(**fields)) == violated


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": Sampling(temperature=0, top_k=0, top_p=1, min_p=0, repetition_penalty=0.5, num_completions=16)},
        {"sampling": Sampling(frequency_penalty=-2, presence_penalty=2, logit_bias={1: -100})},
        {"stopping": Stopping(max_tokens=1, min_tokens=1, stop_strings=["é" * 128] * 16)},
        {"stopping": Stopping(min_tokens=5)},
        {"reporting": Reporting(logprobs=0, prompt_logprobs=20)},
        {"job": JobOptions(job_id="a", after_offset=3, after_history=9, timeout=Duration(seconds=3600))},
        {"text": None, "tokens": TokenIds(ids=[0])},
    ],
)
def test_what_is_in_range_passes(fields: dict[str, Any]) -> None:
    assert violations(request(**fields)) == []


def test_what_is_not_a_message_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        parse_generate(b"\xff\xff\xff", BOUNDS)


def test_defaults_are_filled_in() -> None:
    options = parse_generate(request().SerializeToString(), BOUNDS).options
    assert (options.priority, options.timeout_ms, options.resume_window_ms) == (Priority.STANDARD, 600_000, 0)
    urgent = parse_generate(request(job=JobOptions(priority=PRIORITY_INTERACTIVE)).SerializeToString(), BOUNDS)
    assert urgent.options.priority is Priority.INTERACTIVE


def test_the_fingerprint_sees_the_request_and_not_its_options() -> None:
    def fingerprint(**fields: Any) -> str:
        return parse_generate(request(**fields).SerializeToString(), BOUNDS).fingerprint

    assert fingerprint() == fingerprint(job=JobOptions(job_id="a"))
    assert len({fingerprint(), fingerprint(text="other"), fingerprint(sampling=Sampling(seed=0))}) == 3
    assert len(fingerprint()) == 32
    many = {token: float(token) for token in range(50)}
    reversed_many = dict(reversed(many.items()))
    assert fingerprint(sampling=Sampling(logit_bias=many)) == fingerprint(sampling=Sampling(logit_bias=reversed_many))


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({"text": "x" * 40, "stopping": Stopping(max_tokens=5)}, 15),
        ({"text": "x"}, 257),
        ({"text": "x" * 40, "stopping": Stopping(max_tokens=5), "sampling": Sampling(num_completions=3)}, 25),
        ({"text": None, "tokens": TokenIds(ids=range(9)), "stopping": Stopping(max_tokens=1)}, 10),
        (
            {
                "text": None,
                "conversation": Conversation(messages=[Conversation.Message(role="user", content="é" * 8)] * 2),
                "stopping": Stopping(max_tokens=1),
            },
            9,
        ),
    ],
)
def test_the_cost_is_prompt_plus_output(fields: dict[str, Any], cost: int) -> None:
    assert parse_generate(request(**fields).SerializeToString(), BOUNDS).cost == cost
