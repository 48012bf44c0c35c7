"""Precisions of weights and cache, against the fp32 original: log-probabilities of the same text."""

import numpy as np
import pytest

from tests.models import TinyLlama
from tests.worker.generation.jobs import fresh_engine, prompt, request, run, run_one
from tests.worker.steps import leased

WIDE = {"hidden": 64, "head_size": 32, "intermediate": 128, "layers": 3}
ORIGINAL = TinyLlama(**WIDE)  # type: ignore[arg-type]
TEXT = prompt(100, seed=11)


def scores(shape: TinyLlama, **extra: object) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    ran = run_one(fresh_engine(shape, **extra), request(TEXT, max_tokens=1, prompt_logprobs=0))
    return np.array([told.logprob for result in ran.results for told in result.prompt_logprobs])


@pytest.mark.parametrize(
    ("shape", "extra", "most"),
    [
        (TinyLlama(**WIDE, precision="fp16"), {}, 0.03),  # type: ignore[arg-type]
        (TinyLlama(**WIDE, kv_precision="int8"), {}, 0.8),  # type: ignore[arg-type]
        (ORIGINAL, {"weights": "int8"}, 0.8),
        (ORIGINAL, {"weights": "int4"}, 8.0),
    ],
    ids=["fp16", "int8 cache", "int8", "int4"],
)
def test_fewer_bits_move_the_log_probabilities_by_little_where_weights_are_random_and_logits_wide(
    shape: TinyLlama, extra: dict[str, object], most: float
) -> None:
    difference = np.abs(scores(shape, **extra) - scores(ORIGINAL))
    assert 0 < difference.max() < most


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_with_fewer_bits_too_jobs_get_beside_others_what_they_get_alone(weights: str) -> None:
    engine = fresh_engine(ORIGINAL, weights=weights)
    bodies = [request(prompt(20 + n, n), max_tokens=20, temperature=0.9, seed=n) for n in range(6)]
    alone = [run_one(engine, body).token_ids for body in bodies]
    together = run(engine, [leased(str(n), body) for n, body in enumerate(bodies)])
    assert [together[str(n)].token_ids for n in range(6)] == alone
