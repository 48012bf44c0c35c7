"""What everybody is asked."""

from dataclasses import replace

import numpy as np
import pytest

from bench.generation import workloads
from bench.generation.settings import Settings
from millrace.v1.generation_pb2 import GenerateRequest

SETTINGS = Settings(chat_requests=400, callers=3)
VOCABULARY = 1000


def test_a_workload_is_its_round_s() -> None:
    first, again, next_one = (workloads.closed(SETTINGS, VOCABULARY, number) for number in (0, 0, 1))
    assert first == again
    assert not {tuple(prompt) for prompt in first.prompts} & {tuple(prompt) for prompt in next_one.prompts}


def test_outputs_are_as_long_as_the_settings_say_at_either_end() -> None:
    requests = workloads.closed(replace(SETTINGS, requests=2000, prompt_tokens=1), VOCABULARY, 0)
    assert (min(requests.tokens), max(requests.tokens)) == SETTINGS.output_tokens


def test_the_prompts_of_a_chat_begin_alike_and_go_on_apart() -> None:
    requests = workloads.chat(SETTINGS, VOCABULARY, 0)
    size = SETTINGS.chat_prefix_tokens
    assert len({tuple(prompt[:size]) for prompt in requests.prompts}) == 1
    assert len({tuple(prompt[size : size + 8]) for prompt in requests.prompts}) == len(requests)
    assert requests.warm[:8] != requests.prompts[0][:8]


def test_arrivals_of_a_chat_are_a_poisson_process_of_their_rate() -> None:
    requests = workloads.chat(SETTINGS, VOCABULARY, 0, rate=5.0)
    gaps = np.diff([0.0, *requests.due_s])
    assert requests.callers == 0
    assert gaps.min() > 0
    assert gaps.mean() == pytest.approx(1 / 5, rel=0.15)
    assert np.mean(gaps > 1 / 5) == pytest.approx(np.exp(-1), abs=0.08)


def test_a_rate_changes_nothing_of_what_is_asked() -> None:
    at_rest, arriving = (workloads.chat(SETTINGS, VOCABULARY, 0, rate) for rate in (0.0, 5.0))
    assert (at_rest.prompts, at_rest.tokens) == (arriving.prompts, arriving.tokens)


def test_long_prompts_come_evenly_behind_the_streams() -> None:
    settings = Settings(running_streams=2, long_prompts=3, long_after_s=4.0, long_every_s=0.5)
    requests = workloads.long_prompts(settings, VOCABULARY, 0)
    assert list(requests.due_s) == [0.0, 0.0, 4.0, 4.5, 5.0]
    assert [len(prompt) for prompt in requests.prompts] == [128, 128, 900, 900, 900]


def test_messages_are_greedy_and_go_on_behind_the_end_of_text() -> None:
    requests = workloads.closed(replace(SETTINGS, requests=2), VOCABULARY, 0)
    warm, *rest = [GenerateRequest.FromString(message) for message in workloads.messages(requests, "llama")]
    assert list(warm.tokens.ids) == list(requests.warm)
    assert [list(one.tokens.ids) for one in rest] == [list(prompt) for prompt in requests.prompts]
    assert [one.stopping.max_tokens for one in rest] == list(requests.tokens)
    assert all(one.stopping.ignore_eos and one.sampling.temperature == 0 for one in rest)
    assert all(one.sampling.HasField("temperature") for one in rest)
