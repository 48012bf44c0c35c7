"""Refusals and numbers that are bounded however a request is made."""

import pytest
from google.protobuf.duration_pb2 import Duration

from millrace.errors import InvalidRequest
from millrace.v1.generation_pb2 import Conversation, GenerateRequest, Stopping
from millrace.v1.job_pb2 import JobOptions
from services.frontend.parse import LARGEST_CONTEXT, MOST_VIOLATIONS, parse_generate
from services.frontend.status import to_status
from tests.frontend.playing import request
from tests.frontend.test_rules import BOUNDS
from tests.fuzz.samples import text_entry


def test_a_refusal_names_the_first_of_very_many_violations() -> None:
    turns = GenerateRequest(model="m", conversation=Conversation(messages=[Conversation.Message()] * 100))
    with pytest.raises(InvalidRequest) as caught:
        parse_generate(turns.SerializeToString(), BOUNDS)
    fields = [violation.field for violation in caught.value.violations]
    assert fields == [f"conversation.messages[{index}].role" for index in range(MOST_VIOLATIONS)]


def test_a_status_holds_no_more_of_the_callers_own_words_than_trailers_do() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_generate(request(job=JobOptions(job_id="数" * 1_000)).SerializeToString(), BOUNDS)
    caught.value.message = "数" * 1_000
    status = to_status(caught.value)
    assert status.message.startswith("数数")
    assert status.message.endswith("数…")
    assert len(status.SerializeToString()) < 2_000


@pytest.mark.parametrize(
    ("asked", "milliseconds"),
    [
        (Duration(nanos=1), 1),
        (Duration(seconds=1, nanos=1), 1_001),
        (Duration(seconds=1), 1_000),
        (Duration(), 600_000),
    ],
)
def test_a_timeout_is_rounded_up_and_never_to_what_means_something_else(asked: Duration, milliseconds: int) -> None:
    raw = request(job=JobOptions(timeout=asked, resume_window=asked)).SerializeToString()
    options = parse_generate(raw, BOUNDS).options
    assert options.timeout_ms == milliseconds
    assert options.resume_window_ms == (milliseconds if asked != Duration() else 0)


def test_a_generation_costs_no_more_than_a_context_holds() -> None:
    message = GenerateRequest(model="m", text="x", stopping=Stopping(max_tokens=2**32 - 1))
    parsed = parse_generate(message.SerializeToString(), BOUNDS)
    costs = [parsed.against(text_entry(context)).cost for context in (0, 128)]
    assert costs == [LARGEST_CONTEXT, 128]
    message.sampling.num_completions = 4
    assert parse_generate(message.SerializeToString(), BOUNDS).against(text_entry(128)).cost == 4 * 128
