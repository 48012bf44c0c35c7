"""Which candidate is best."""

from pathlib import Path

import pytest

from millrace.optimizing.candidate import Candidate, choose
from millrace.optimizing.measuring.job import Judgement, Measures
from millrace.optimizing.order import Method, Prefer
from millrace.optimizing.subjects import Metric

ACCURACY, PERPLEXITY = Metric.ACCURACY, Metric.PERPLEXITY


def candidate(
    method: Method | None,
    *rates: float,
    score: float | None = 0.9,
    size: int = 100,
    metric: Metric = ACCURACY,
    difference: float = 0.0,
) -> Candidate:
    """One round for each rate."""
    judgement = Judgement(metric=None if score is None else metric, score=score, difference=difference)
    rounds = [
        Measures(unit="rows", p50_ms=1e3 / rate, p99_ms=2e3 / rate, rates={1: rate}, memory_bytes=size)
        for rate in rates
    ]
    return Candidate(method=method, graph=Path("g"), size_bytes=size, judgement=judgement, rounds=rounds)


ORIGINAL = candidate(None, 100, 100, 100, 100)


def best(*candidates: Candidate, original: Candidate = ORIGINAL, prefer: Prefer = Prefer.SPEED) -> Method | None:
    found = choose(original, list(candidates), prefer, 0.01).best
    return None if found is None else found.method


def test_the_fastest_within_the_loss_is_best() -> None:
    fast, fastest = candidate(Method.GRAPH, *[150] * 4), candidate(Method.INT8, *[200] * 4, score=0.89)
    wrong = candidate(Method.INT4, *[900] * 4, score=0.88)
    assert best(fast, fastest, wrong) is Method.INT8
    assert choose(ORIGINAL, [wrong], Prefer.SPEED, 0.01).verdicts == {Method.INT4: "misses the loss by 1.00%"}


def test_the_smallest_may_be_slower() -> None:
    small, fast = candidate(Method.INT4, *[50] * 4, size=10), candidate(Method.GRAPH, *[150] * 4)
    assert best(small, fast, prefer=Prefer.SIZE) is Method.INT4
    assert best(small, fast, prefer=Prefer.LATENCY) is Method.GRAPH
    assert best(small, fast, prefer=Prefer.MEMORY) is Method.INT4


@pytest.mark.parametrize("rates", [(102, 102, 102, 102), (99, 130, 130, 130), (100, 100, 100, 100)])
def test_what_may_be_noise_is_no_gain(rates: tuple[float, ...]) -> None:
    assert best(candidate(Method.GRAPH, *rates)) is None


def test_rounds_are_compared_with_rounds() -> None:
    """The machine was half as fast in the second half; the candidate is a fifth faster throughout."""
    original = candidate(None, 100, 100, 50, 50)
    assert best(candidate(Method.GRAPH, 120, 120, 60, 60), original=original) is Method.GRAPH


@pytest.mark.parametrize(
    ("metric", "before", "after", "loss"),
    [
        (Metric.ACCURACY, 0.9, 0.8, 0.1),
        (Metric.PERPLEXITY, 20.0, 22.0, 0.1),
        (Metric.WORD_ERROR_RATE, 0.2, 0.3, 0.1),
        (Metric.RETRIEVAL, 0.9, 0.8, 0.1),
    ],
)
def test_a_loss_is_above_0_where_the_candidate_is_worse(
    metric: Metric, before: float, after: float, loss: float
) -> None:
    assert metric.loss(before, after) == pytest.approx(loss)
    assert metric.loss(before, before) == 0
    assert metric.loss(after, before) < 0


def test_of_perplexity_the_loss_is_a_share() -> None:
    original = candidate(None, *[100] * 4, score=20.0, metric=PERPLEXITY)
    assert candidate(Method.INT4, 1, score=20.5, metric=PERPLEXITY).loss(original) == pytest.approx(0.025)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_a_loss(score: float) -> None:
    original = candidate(None, *[100] * 4, score=20.0, metric=PERPLEXITY)
    assert best(candidate(Method.INT4, *[900] * 4, score=score, metric=PERPLEXITY), original=original) is None


def test_without_data_the_largest_difference_is_the_loss() -> None:
    original = candidate(None, *[100] * 4, score=None)
    assert best(candidate(Method.INT8, *[900] * 4, score=None, difference=0.02), original=original) is None
    assert best(candidate(Method.INT8, *[900] * 4, score=None, difference=0.01), original=original) is Method.INT8


def test_one_that_failed_in_the_middle_is_out() -> None:
    failed = candidate(Method.INT8, 900)
    failed.refusal = "its process was ended by SIGKILL"
    assert choose(ORIGINAL, [failed], Prefer.SPEED, 1.0).verdicts == {Method.INT8: failed.refusal}
