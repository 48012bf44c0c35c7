"""Completions, transcripts, costs and searches against those who define them."""

import math

import jiwer
import numpy as np
import pytest
from sklearn import metrics

from millrace.evaluating.asking import Answer
from millrace.evaluating.asking.answer import from_vector
from millrace.evaluating.data import Example
from millrace.evaluating.scores.retrieval import find, retrieval
from millrace.evaluating.scores.scorer import Scorer
from millrace.evaluating.scores.texts import cost, exact_match, transcripts

REFERENCES = ["the cat sat", "a dog", "one two three four"]
HEARD = ["the cat sat", "a dog barked", "two three for"]


def agrees(scorer: Scorer) -> None:
    """With itself: measures from one weight each are the point's."""
    again = scorer.resampled(np.ones((1, scorer.count)), costly=True)
    assert {name: values[0] for name, values in again.items()} == pytest.approx(dict(scorer.point()))


def test_error_rates_are_those_of_all_words_and_letters_together() -> None:
    scorer = transcripts(REFERENCES, [Answer(text=text) for text in HEARD])
    assert scorer.point() == {"wer": jiwer.wer(REFERENCES, HEARD), "cer": jiwer.cer(REFERENCES, HEARD)}
    assert scorer.point()["wer"] == pytest.approx(3 / 9)
    assert scorer.lower_is_better == {"wer", "cer"}
    agrees(scorer)


def test_a_transcript_of_nothing_misses_every_word() -> None:
    assert transcripts(["a b"], [Answer(text="")]).point()["wer"] == 1.0


def test_completions_match_whatever_spaces_are_around_them() -> None:
    scorer = exact_match(["a", "b", "c"], [Answer(text=" a\n"), Answer(text="B"), Answer(text="")])
    assert scorer.point() == {"exact_match": pytest.approx(1 / 3)}
    agrees(scorer)


def test_costs_are_of_all_tokens_and_all_bytes_together() -> None:
    scorer = cost([Answer(nats=math.log(2) * 8, tokens=4, bytes=16), Answer(nats=0.0, tokens=4, bytes=4)])
    assert scorer.point() == pytest.approx({"perplexity": 2.0, "bits_per_byte": 8 / 20})
    agrees(scorer)


def asked(vectors: list[list[float]], relevant: list[dict[str, float]]) -> list[tuple[Example, Answer]]:
    return [
        (Example(id=f"q{place}", relevant=one), from_vector(vector))
        for place, (vector, one) in enumerate(zip(vectors, relevant, strict=True))
    ]


def corpus(vectors: list[list[float]]) -> list[tuple[Example, Answer]]:
    return [(Example(id=f"d{place}"), from_vector(vector)) for place, vector in enumerate(vectors)]


def test_documents_are_found_by_the_cosine_whatever_their_lengths() -> None:
    found = find(asked([[1, 0]], [{"d1": 1.0}]), corpus([[100, 100], [0.1, 0.01], [-5, 0]]))
    assert list(found[0].documents) == ["d1", "d0", "d2"]
    assert found[0].recalls[0] == found[0].reciprocal_rank == found[0].ndcg == 1


def test_a_search_is_judged_by_rank() -> None:
    found = find(asked([[1, 0]], [{"d1": 1.0, "d2": 1.0}]), corpus([[1, 0], [1, 0.1], [-1, 0]]))
    assert list(found[0].recalls) == [0.0, 1.0, 1.0]
    assert found[0].reciprocal_rank == 0.5


def test_a_vector_of_zeros_is_like_nothing() -> None:
    found = find(asked([[0, 0]], [{"d0": 1.0}]), corpus([[1, 0]]))
    assert found[0].ndcg == 1


def test_ndcg_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    documents, queries = generator.normal(size=(40, 8)), generator.normal(size=(300, 8))
    grades = generator.integers(0, 4, (300, 40)) * (generator.random((300, 40)) < 0.2)
    grades[:, 0] = 1
    relevant = [{f"d{place}": float(grade) for place, grade in enumerate(row) if grade} for row in grades]
    found = find(asked(queries.tolist(), relevant), corpus(documents.tolist()))
    units = [given / np.linalg.norm(given, axis=1, keepdims=True) for given in (queries, documents)]
    scorer = retrieval(found)
    assert scorer.point()["ndcg@10"] == pytest.approx(metrics.ndcg_score(grades, units[0] @ units[1].T, k=10))
    agrees(scorer)


def test_vectors_of_different_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="different dimensions"):
        find(asked([[1, 0]], [{"d0": 1.0}]), corpus([[1, 0], [1, 0, 0]]))


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, 1.0]])
def test_vectors_that_are_not_finite_are_no_answer(values: list[float]) -> None:
    with pytest.raises(ValueError, match="not finite"):
        from_vector(values)
