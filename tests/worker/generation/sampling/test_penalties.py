"""Penalties and biases, against their definitions."""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.generation.sampling.penalties import Penalties
from services.worker.generation.task import Sampling
from tests.worker.generation.jobs import prompt, request, run, run_one, tiny_model
from tests.worker.generation.watched import WatchedEngine, watched
from tests.worker.steps import leased

PROMPT = prompt(30, seed=2)
ENGINE: WatchedEngine = watched(tiny_model())
Floats = npt.NDArray[np.float32]


def edited(logits: Floats, output: list[int], fields: dict[str, Any]) -> Floats:
    """By the definition, token by token."""
    logits = logits.copy()
    for token_id, bias in fields.get("logit_bias", {}).items():
        logits[token_id] += np.float32(bias)
    repetition = np.float32(fields.get("repetition_penalty", 1.0))
    for token_id in {*PROMPT, *output}:
        logits[token_id] = logits[token_id] / repetition if logits[token_id] > 0 else logits[token_id] * repetition
    for token_id, count in Counter(output).items():
        logits[token_id] -= np.float32(fields.get("frequency_penalty", 0.0)) * count
        logits[token_id] -= np.float32(fields.get("presence_penalty", 0.0))
    return logits


KINDS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.7},
    {"frequency_penalty": 0.8},
    {"frequency_penalty": -0.5},
    {"presence_penalty": 2.0},
    {"logit_bias": {7: 4.0, 31: -9.0, 200: 3.5}},
    {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": -0.2, "logit_bias": {5: 3.0}},
]


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_each_greedy_token_is_the_best_of_the_logits_as_the_definition_changes_them(fields: dict[str, Any]) -> None:
    ran = run_one(ENGINE, request(PROMPT, max_tokens=30, **fields))
    plain = run_one(ENGINE, request(PROMPT, max_tokens=30))
    assert ran.token_ids != plain.token_ids
    run_one(ENGINE, request(PROMPT, max_tokens=30, **fields))
    for position, token_id in enumerate(ran.token_ids):
        logits = edited(ENGINE.draws["only", position].logits, ran.token_ids[:position], fields)
        assert logits[token_id] == pytest.approx(logits.max(), abs=1e-5)


def test_rows_with_penalties_leave_the_rows_beside_them_alone() -> None:
    fields = {"max_tokens": 20, "temperature": 0.9, "seed": 3}
    bodies = {
        "plain": request(PROMPT, **fields),
        "penalised": request(PROMPT, **fields, repetition_penalty=1.3, presence_penalty=1.0),
        "biased": request(PROMPT, **fields, logit_bias={9: 5.0}, min_tokens=4, stop_token_ids=[9]),
        "strict": request(PROMPT, **fields, regex="[a-c]{40,60}"),
    }
    alone = {job: run_one(ENGINE, body).token_ids for job, body in bodies.items()}
    together = run(ENGINE, [leased(job, body) for job, body in bodies.items()])
    assert {job: ran.token_ids for job, ran in together.items()} == alone


@pytest.mark.parametrize("fields", KINDS, ids=str)
def test_a_job_with_penalties_goes_on_from_every_prefix_of_its_log(fields: dict[str, Any]) -> None:
    body = request(PROMPT, max_tokens=16, temperature=0.8, seed=1, **fields)
    whole = run_one(ENGINE, body)
    for size in range(len(whole.log)):
        assert run_one(ENGINE, body, whole.log[:size]).token_ids == whole.token_ids[size:]


def test_a_bias_for_a_token_that_there_is_not_is_refused() -> None:
    failure = run_one(ENGINE, request(logit_bias={320: 1.0})).failure
    assert failure is not None
    assert (failure.reason, failure.field) == ("INVALID_REQUEST", "sampling.logit_bias")


@given(
    prompt_ids=st.lists(st.integers(0, 20), max_size=12),
    output=st.lists(st.integers(0, 30), max_size=40),
    repetition=st.sampled_from([1.0, 1.3]),
)
@settings(deadline=None)
def test_each_token_is_named_once_and_counted_in_the_output_only(
    prompt_ids: list[int], output: list[int], repetition: float
) -> None:
    sampling = Sampling(
        temperature=1, top_k=0, top_p=1, min_p=0, seed=0, repetition_penalty=repetition, frequency_penalty=1.0
    )
    penalties = Penalties(sampling, prompt_ids, max_tokens=40)
    for token_id in output:
        penalties.push(token_id)
    token_ids, _, subtracted = penalties.edits()
    expected = Counter(output)
    if repetition != 1.0:
        expected |= Counter(dict.fromkeys(prompt_ids, 0))
        assert set(token_ids.tolist()) == {*prompt_ids, *output}
    assert len(set(token_ids.tolist())) == len(token_ids)
    assert dict(zip(token_ids.tolist(), subtracted.tolist(), strict=True)) == {
        token_id: Counter(output)[token_id] for token_id in token_ids.tolist()
    }
