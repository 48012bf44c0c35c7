"""What generations are asked for, before they are sent."""

from pathlib import Path
from typing import Any

import pytest

from millrace.load.asking.generating import MAX_TOKENS, generating
from millrace.load.asking.lengths import draw_for, draw_length, draw_token_ids
from millrace.load.asking.prompts import DEFAULT
from millrace.load.scenario import Spread
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.job_pb2 import PRIORITY_INTERACTIVE
from tests.load.asks import Lengths, scenario
from tests.load.faulty import MODEL


def prepared(index: int = 0, lengths: Lengths = (None, None), **requests: Any) -> GenerateRequest:
    request = generating(scenario(requests=requests)).prepare(index, *lengths)
    assert isinstance(request, GenerateRequest)
    return request


def test_without_settings_a_generation_is_a_short_text_of_bounded_length() -> None:
    request = prepared()
    assert (request.text, request.stopping.max_tokens) == (DEFAULT, MAX_TOKENS)


def test_prompts_of_a_file_are_taken_in_turn(tmp_path: Path) -> None:
    lines, objects = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    lines.write_text('one\n\n{"prompt"\n')
    objects.write_text('{"prompt": "one\\ntwo", "id": 3}\n{"prompt": "three"}\n')
    assert [prepared(index, prompts=lines).text for index in range(3)] == ["one", '{"prompt"', "one"]
    assert [prepared(index, prompts=objects).text for index in range(3)] == ["one\ntwo", "three", "one\ntwo"]


def test_random_tokens_are_those_of_the_seed_and_the_number_alone() -> None:
    spread = {"mean": 40, "stdev": 10}
    requests = [prepared(index, prompt_tokens=spread, max_tokens=spread) for index in range(50)]
    assert requests[7] == prepared(7, prompt_tokens=spread, max_tokens=spread)
    assert len({request.SerializeToString() for request in requests}) == 50
    assert len({request.stopping.max_tokens for request in requests}) > 10
    other = generating(scenario(requests={"prompt_tokens": spread, "max_tokens": spread}, seed=1)).prepare(
        7, None, None
    )
    assert other != requests[7]


def test_random_tokens_fill_their_range_and_stay_in_it() -> None:
    ids = draw_token_ids(10_000, (3, 10), draw_for(0, 0))
    counts = [ids.count(token_id) for token_id in range(3, 10)]
    assert sum(counts) == 10_000
    assert min(counts) > 1200


def test_a_spread_is_cut_without_heaps_at_its_bounds() -> None:
    draw = draw_for(0, 0)
    lengths = [draw_length(Spread(mean=50, stdev=50, least=10, most=90), draw) for _ in range(20_000)]
    assert (min(lengths), max(lengths)) == (10, 90)
    assert sum(lengths) / len(lengths) == pytest.approx(50, abs=1)
    assert lengths.count(10) < 2 * lengths.count(11) + 50
    assert draw_length(Spread(mean=10, stdev=1, least=500), draw) == 500


def test_a_trace_s_lengths_are_kept_exactly() -> None:
    request = prepared(0, (17, 5), prompt_tokens=99, max_tokens=99)
    assert len(request.tokens.ids) == 17
    stopping = request.stopping
    assert (stopping.max_tokens, stopping.min_tokens, stopping.ignore_eos) == (5, 5, True)


def test_a_given_text_goes_before_a_trace_s_length() -> None:
    assert prepared(0, (17, None), prompt="hello").text == "hello"


def test_options_and_the_job_s_settings_are_in_every_request() -> None:
    made = scenario(
        requests={
            "options": {"temperature": 0.5, "max_tokens": 9, "stop_strings": ["x"]},
            "priority": "interactive",
            "timeout_s": 2.5,
        },
        model_version="4",
    )
    request = generating(made).prepare(0, None, None)
    assert (request.model, request.model_version) == (MODEL, "4")
    assert (request.sampling.temperature, request.stopping.max_tokens) == (0.5, 9)
    assert (request.job.priority, request.job.timeout.ToMilliseconds()) == (PRIORITY_INTERACTIVE, 2500)
    assert not request.job.HasField("resume_window")
