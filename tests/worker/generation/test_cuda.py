"""The same engine on a GPU, in both dialects."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from scripts.gpu_check import agreement, card
from scripts.gpu_check.models import SMALL, Dialect, served_on
from tests.models import Llama
from tests.worker.generation.jobs import fresh_engine, prompt, request, run, run_one
from tests.worker.steps import leased

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(card.why_not()), reason="needs onnxruntime-gpu and a GPU")]
GQA = Llama(device="cuda", head_size=64, nan_token_id=299)
PAGED = dataclasses.replace(GQA, dialect="paged")
SAMPLINGS: list[dict[str, Any]] = [
    {"top_k": 3},
    {"top_p": 0.5, "min_p": 0.1},
    {"min_tokens": 4, "ignore_eos": None},
]
each_dialect = pytest.mark.parametrize("shape", [GQA, PAGED], ids=lambda shape: shape.dialect)


@pytest.mark.parametrize("dialect", ["gqa", "paged"])
def test_logits_are_the_cpus_behind_chunks_forks_moves_and_shared_prefixes(dialect: Dialect, tmp_path: Path) -> None:
    shape, exact = served_on(SMALL, dialect, "cuda"), served_on(SMALL, "gqa", "cpu")
    assert agreement.largest_difference(shape, exact, tmp_path) < agreement.TOLERANCE


def test_sequences_together_get_the_tokens_they_get_alone_and_move_between_slots() -> None:
    engine = fresh_engine(GQA)
    bodies = {
        str(index): request(list(range(1, 5 + 7 * index)), max_tokens=4 + 3 * index, temperature=index % 2, seed=index)
        for index in range(7)
    }
    alone = {job: run_one(engine, body).token_ids for job, body in bodies.items()}
    together = run(engine, [leased(job, body) for job, body in bodies.items()])
    assert {job: ran.token_ids for job, ran in together.items()} == alone


@each_dialect
def test_a_row_whose_logits_are_not_numbers_fails_alone(shape: Llama) -> None:
    engine = fresh_engine(shape)
    ran = run(engine, [leased("sick", request([7, 299])), leased("well", request([7, 8]))])
    assert ran["sick"].failure is not None
    assert ran["well"].failure is None
    assert len(ran["well"].token_ids) == 8


def test_what_was_no_number_does_not_reach_whoever_has_its_block_next() -> None:
    engine = fresh_engine(dataclasses.replace(PAGED, slots=1))
    assert run_one(engine, request([*prompt(60), 299])).failure is not None
    for length in (3, 17, 100):
        assert run_one(engine, request(prompt(length, length))).failure is None


@pytest.mark.parametrize("fields", SAMPLINGS)
def test_every_kind_of_sampling_runs_and_repeats(fields: dict[str, Any]) -> None:
    engine, body = fresh_engine(GQA), request(temperature=1.0, seed=3, **fields)
    assert run_one(engine, body).token_ids == run_one(engine, body).token_ids


@pytest.mark.parametrize("fields", SAMPLINGS)
def test_every_kind_of_sampling_runs_over_blocks(fields: dict[str, Any]) -> None:
    ran = run_one(fresh_engine(PAGED), request(temperature=1.0, seed=3, **fields))
    assert ran.failure is None
    assert 0 < len(ran.token_ids) <= 8


@each_dialect
def test_several_completions_share_a_prompt(shape: Llama) -> None:
    ran = run_one(fresh_engine(shape), request(prompt(20), num_completions=3, temperature=1.0, seed=1))
    assert ran.failure is None
    assert [len(ran.tokens_of(index)) for index in range(3)] == [8, 8, 8]
