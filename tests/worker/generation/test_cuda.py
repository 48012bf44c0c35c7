"""The same engine on a GPU."""

from typing import Any

import onnxruntime as ort
import pytest

from tests.models import TinyLlama
from tests.worker.generation.jobs import fresh_engine, request, run, run_one
from tests.worker.steps import leased

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-gpu and a GPU"
    ),
]
SHAPE = TinyLlama(device="cuda", head_size=64, nan_token_id=299)


def test_sequences_together_get_the_tokens_they_get_alone_and_move_between_slots() -> None:
    engine = fresh_engine(SHAPE)
    bodies = {
        str(index): request(list(range(1, 5 + 7 * index)), max_tokens=4 + 3 * index, temperature=index % 2, seed=index)
        for index in range(7)
    }
    alone = {job: run_one(engine, body).token_ids for job, body in bodies.items()}
    together = run(engine, [leased(job, body) for job, body in bodies.items()])
    assert {job: ran.token_ids for job, ran in together.items()} == alone


def test_a_row_whose_logits_are_not_numbers_fails_alone() -> None:
    engine = fresh_engine(SHAPE)
    works = [
        leased("sick", request([7, 299])),
        leased("well", request([7, 8])),
    ]
    ran = run(engine, works)
    assert ran["sick"].failure is not None
    assert ran["well"].token_ids == run_one(engine, request([7, 8])).token_ids


@pytest.mark.parametrize("fields", [{"top_k": 3}, {"top_p": 0.5, "min_p": 0.1}, {"min_tokens": 4, "ignore_eos": None}])
def test_every_kind_of_sampling_runs_and_repeats(fields: dict[str, Any]) -> None:
    engine, body = fresh_engine(SHAPE), request(temperature=1.0, seed=3, **fields)
    assert run_one(engine, body).token_ids == run_one(engine, body).token_ids
